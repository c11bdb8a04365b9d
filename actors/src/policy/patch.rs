//! Changes a part of a document: RFC 6902 operations with Cosmos DB's `set` and `incr`, or an RFC 7396
//! merge patch.
//!
//! Stands between a request's body and the document's parser, which checks the result as it checks
//! every document. Invariants: all of a patch happens or nothing; the id, the partition key and the
//! system properties stay what they are.

mod merge;
mod operations;
mod parse;
mod pointer;

use std::fmt;

use serde_json::Value;

use crate::model::json::{equal, value_at};

use crate::model::document::SYSTEM_PROPERTIES;

use operations::{Action, Operation};
use pointer::clip;

pub use parse::{InvalidOperation, InvalidPatch};
pub use pointer::{InvalidPointer, Pointer};

/// The media type that chooses a merge patch.
const MERGE_PATCH: &str = "application/merge-patch+json";

/// How much one patch may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchLimits {
    /// Most operations.
    pub operations: usize,
    /// Most bytes that `copy` operations make, all together. (Copies into copies grow by doubling.)
    pub copied_bytes: usize,
}

impl Default for PatchLimits {
    /// 10 operations, as in Cosmos DB; copies of at most 2 MiB, the largest document.
    fn default() -> Self {
        Self { operations: 10, copied_bytes: 2 * 1_024 * 1_024 }
    }
}

/// A change that can be applied to any document.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    change: Change,
    condition: Option<String>,
    limits: PatchLimits,
}

#[derive(Debug, Clone, PartialEq)]
enum Change {
    Merge(Value),
    Operations(Vec<Operation>),
}

/// What a patch must leave alone, besides `id` and [`SYSTEM_PROPERTIES`].
#[derive(Debug, Clone, Copy)]
pub struct Protected<'a> {
    /// Path of each part of the partition key, as property names from the root.
    pub partition_paths: &'a [Vec<String>],
}

/// Why a patch cannot be applied to a document. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PatchError {
    /// The operation, counted from 1; `None` for a merge patch.
    pub operation: Option<usize>,
    /// The place in the document, as a JSON pointer.
    pub path: String,
    /// What is wrong there.
    pub reason: Refusal,
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Some(number) => write!(f, "operation {number} at `{}`: {}", self.path, self.reason),
            None => write!(f, "merge patch at `{}`: {}", self.path, self.reason),
        }
    }
}

/// What keeps one operation from being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The id, a part of the partition key, or a system property.
    #[error(
        "the id, the partition key and system properties cannot be patched: leave them out, or delete the \
         document and create another"
    )]
    Protected,
    /// Nothing is at the path.
    #[error("nothing is there: use `add` or `set` to create it")]
    Missing,
    /// Nothing is at `from`.
    #[error("nothing is at `from`: give the path of a value that exists")]
    NoSource,
    /// Nothing is where the path's last name would be added.
    #[error("the parent is not there: add the parent first")]
    NoParent,
    /// The parent is a string, a number, a boolean or null.
    #[error("the parent is neither an object nor an array: replace it by one first")]
    NotAContainer,
    /// Beyond the end of an array.
    #[error("the array has {len} elements: give an index up to {len}, or `-` for its end")]
    Index { len: usize },
    /// A name where an array wants an index.
    #[error("an element of an array is named by its index without leading zeros")]
    NotAnIndex,
    /// An increment of something else than a number.
    #[error("only a number can be incremented: use `set` to replace the value")]
    NotANumber,
    /// An increment beyond what a double holds.
    #[error("the sum is beyond the range of numbers")]
    NotFinite,
    /// `test` found another value.
    #[error("the value there is another one: read the document again")]
    Differs,
    /// The result would be nested too deeply.
    #[error("the result would be nested deeper than {} levels", operations::MAX_DEPTH)]
    TooDeep,
    /// More than [`PatchLimits::copied_bytes`].
    #[error("the `copy` operations would make more than one document may hold")]
    CopiesTooMuch,
}

impl Patch {
    /// Reads a patch: `application/merge-patch+json` is an RFC 7396 object, everything else, and no
    /// content type at all, a JSON array of operations or `{"condition":"FROM c WHERE …","operations":[…]}`.
    ///
    /// # Errors
    /// [`InvalidPatch`] says which operation is wrong and why.
    pub fn parse(content_type: Option<&str>, body: &[u8], limits: PatchLimits) -> Result<Self, InvalidPatch> {
        let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
        let (change, condition) = if media_type.trim().eq_ignore_ascii_case(MERGE_PATCH) {
            (Change::Merge(parse::merge_patch(body)?), None)
        } else {
            let (operations, condition) = parse::operations(body, limits)?;
            (Change::Operations(operations), condition)
        };
        Ok(Self { change, condition, limits })
    }

    /// A patch of operations that were read as part of something larger, for instance a batch.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_operations(
        operations: &[Value],
        condition: Option<String>,
        limits: PatchLimits,
    ) -> Result<Self, InvalidPatch> {
        let operations = parse::operations_of(operations, limits)?;
        Ok(Self { change: Change::Operations(operations), condition, limits })
    }

    /// The text of the condition that the document must meet, if there is one.
    pub fn condition(&self) -> Option<&str> {
        self.condition.as_deref()
    }

    /// Number of operations; a merge patch is one.
    pub fn operations(&self) -> usize {
        match &self.change {
            Change::Merge(_) => 1,
            Change::Operations(operations) => operations.len(),
        }
    }

    /// The document that `document` becomes. Its size is for the document's parser to judge.
    ///
    /// # Errors
    /// [`PatchError`]: an operation does not fit this document, or touches what is protected.
    pub fn apply(&self, document: &Value, rules: &Protected<'_>) -> Result<Value, PatchError> {
        let mut result = document.clone();
        match &self.change {
            Change::Merge(patch) => {
                merge::merge(&mut result, patch);
                if let Some(path) = rules.changed(document, &result) {
                    return Err(PatchError { operation: None, path, reason: Refusal::Protected });
                }
            }
            Change::Operations(operations) => {
                let mut copies = self.limits.copied_bytes;
                for (i, operation) in operations.iter().enumerate() {
                    let refused = |reason, path: &Pointer| {
                        let path = clip(&path.to_string());
                        PatchError { operation: Some(i + 1), path, reason }
                    };
                    if let Some(path) = operation.writes().find(|path| rules.forbid(path)) {
                        return Err(refused(Refusal::Protected, path));
                    }
                    operation.apply(&mut result, &mut copies).map_err(|reason| {
                        let path = match (&operation.action, reason) {
                            (Action::Move(from) | Action::Copy(from), Refusal::NoSource) => from,
                            _ => &operation.path,
                        };
                        refused(reason, path)
                    })?;
                }
            }
        }
        Ok(result)
    }
}

impl Protected<'_> {
    /// Whether writing at `path` could change what must stay.
    fn forbid(&self, path: &Pointer) -> bool {
        path.touches(&["id"])
            || SYSTEM_PROPERTIES.iter().any(|name| path.touches(&[name]))
            || self.partition_paths.iter().any(|key| path.touches(key))
    }

    /// The first protected place whose value is not the same in both.
    fn changed(&self, before: &Value, after: &Value) -> Option<String> {
        let differs = |path: &[&str]| match (value_at(before, path), value_at(after, path)) {
            (Some(before), Some(after)) => !equal(before, after),
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        let top = ["id"].into_iter().chain(SYSTEM_PROPERTIES);
        if let Some(name) = top.into_iter().find(|name| differs(&[name])) {
            return Some(format!("/{name}"));
        }
        let keys = self.partition_paths.iter().map(|key| key.iter().map(String::as_str).collect::<Vec<_>>());
        keys.into_iter().find(|key| differs(key)).map(|key| format!("/{}", key.join("/")))
    }
}

#[cfg(test)]
mod tests;
