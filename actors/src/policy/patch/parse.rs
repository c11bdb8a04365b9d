//! Reads patches from JSON; knows nothing of documents.
//!
//! Invariant: what comes out can be applied to some document; everything that is wrong with the
//! request itself is told here, with the number of the operation.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::PatchLimits;
use super::operations::{Action, Operation};
use super::pointer::{InvalidPointer, Pointer, clip};

/// Why a body cannot be a patch.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPatch {
    /// Not JSON, or not of the shape of a patch.
    #[error("the patch cannot be read: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON of another shape.
    #[error("a patch is an array of operations, or an object with `operations` and perhaps `condition`")]
    Shape,
    /// A merge patch that is no object.
    #[error("a merge patch of a document is a JSON object")]
    MergeShape,
    /// An empty list.
    #[error("a patch has at least one operation")]
    Empty,
    /// More than [`PatchLimits::operations`].
    #[error("a patch has at most {limit} operations, this one has {count}")]
    TooMany { count: usize, limit: usize },
    /// One operation is wrong.
    #[error("operation {number}: {reason}")]
    Operation {
        /// The operation, counted from 1.
        number: usize,
        /// What is wrong with it.
        reason: InvalidOperation,
    },
}

/// What is wrong with one operation.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOperation {
    /// Not an object, or a member of a wrong type, or one that stands twice.
    #[error("{0}")]
    Json(serde_json::Error),
    /// Not an object.
    #[error("an operation is an object, for instance `{{\"op\":\"set\",\"path\":\"/name\",\"value\":1}}`")]
    NotAnObject,
    /// An `op` that does not exist.
    #[error("`{0}` is no operation: use add, set, replace, remove, incr, move, copy or test")]
    Unknown(String),
    /// A member that this operation needs.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A path that cannot be read.
    #[error("{0}")]
    Pointer(#[from] InvalidPointer),
    /// An increment by something else than a number.
    #[error("`value` of `incr` must be a number")]
    NotANumber,
    /// A value that would be inside of itself.
    #[error("`path` lies inside of `from`: a value cannot be moved into itself")]
    IntoItself,
}

/// Reads an RFC 7396 patch.
pub(super) fn merge_patch(body: &[u8]) -> Result<Value, InvalidPatch> {
    let patch: Value = serde_json::from_slice(body).map_err(InvalidPatch::Json)?;
    if patch.is_object() { Ok(patch) } else { Err(InvalidPatch::MergeShape) }
}

/// Reads operations, and the condition of an envelope.
pub(super) fn operations(
    body: &[u8],
    limits: PatchLimits,
) -> Result<(Vec<Operation>, Option<String>), InvalidPatch> {
    let (raw, condition) = match body.trim_ascii_start().first() {
        Some(b'[') => (serde_json::from_slice(body).map_err(InvalidPatch::Json)?, None),
        Some(b'{') => {
            let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(InvalidPatch::Json)?;
            (envelope.operations.ok_or(InvalidPatch::Shape)?, envelope.condition)
        }
        Some(_) | None => {
            // What is no JSON is reported as such, not as a wrong shape.
            serde_json::from_slice::<serde::de::IgnoredAny>(body).map_err(InvalidPatch::Json)?;
            return Err(InvalidPatch::Shape);
        }
    };
    let raw: Vec<&RawValue> = raw;
    let read = |raw: &&RawValue| match raw.get().starts_with('{') {
        true => serde_json::from_str(raw.get()).map_err(InvalidOperation::Json),
        false => Err(InvalidOperation::NotAnObject),
    };
    Ok((checked(&raw, limits, read)?, condition))
}

/// Reads operations that are JSON values already.
pub(super) fn operations_of(
    operations: &[Value],
    limits: PatchLimits,
) -> Result<Vec<Operation>, InvalidPatch> {
    checked(operations, limits, |value| match value.is_object() {
        true => Wire::deserialize(value).map_err(InvalidOperation::Json),
        false => Err(InvalidOperation::NotAnObject),
    })
}

fn checked<T>(
    items: &[T],
    limits: PatchLimits,
    read: impl Fn(&T) -> Result<Wire, InvalidOperation>,
) -> Result<Vec<Operation>, InvalidPatch> {
    let (count, limit) = (items.len(), limits.operations);
    if count == 0 {
        return Err(InvalidPatch::Empty);
    }
    if count > limit {
        return Err(InvalidPatch::TooMany { count, limit });
    }
    let numbered = items.iter().zip(1..).map(|(item, number)| {
        let operation = read(item).and_then(Wire::check);
        operation.map_err(|reason| InvalidPatch::Operation { number, reason })
    });
    numbered.collect()
}

/// `{"condition":…,"operations":[…]}`. An unknown member is refused: a condition that was spelled
/// wrongly would otherwise always hold.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    condition: Option<String>,
    #[serde(borrow)]
    operations: Option<Vec<&'a RawValue>>,
}

/// An operation as it is written. Members that it does not know are ignored (RFC 6902 section 4).
#[derive(Deserialize)]
struct Wire {
    op: Option<String>,
    path: Option<String>,
    from: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
}

/// Tells a `null` from a value that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Wire {
    fn check(self) -> Result<Operation, InvalidOperation> {
        let op = self.op.ok_or(InvalidOperation::Missing("op"))?;
        let path = Pointer::parse(&self.path.ok_or(InvalidOperation::Missing("path"))?)?;
        let value = self.value.ok_or(InvalidOperation::Missing("value"));
        let from = self.from.ok_or(InvalidOperation::Missing("from"));
        let action = match op.as_str() {
            "add" => Action::Add(value?),
            "set" => Action::Set(value?),
            "replace" => Action::Replace(value?),
            "remove" => Action::Remove,
            "incr" | "increment" => match value? {
                Value::Number(by) => Action::Increment(by),
                Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    return Err(InvalidOperation::NotANumber);
                }
            },
            "move" => {
                let from = Pointer::parse(&from?)?;
                if from != path && from.is_above(&path) {
                    return Err(InvalidOperation::IntoItself);
                }
                Action::Move(from)
            }
            "copy" => Action::Copy(Pointer::parse(&from?)?),
            "test" => Action::Test(value?),
            other => return Err(InvalidOperation::Unknown(clip(other))),
        };
        Ok(Operation { path, action })
    }
}
