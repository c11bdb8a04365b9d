//! Stands between the operations in a body and the writes that partitions take.
//!
//! Invariant: an operation means the same in a batch and in a bulk; only what becomes of the others differs.

use std::io::Write as _;

use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use lanekeeper_actors::model::address::KeyPart;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::policy;
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, Written};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::patch::with_condition;
use super::{Admitted, Unacceptable};
use crate::http::path::can_be_segment;
use crate::http::problem::Problem;
use crate::http::routes::Documents;

/// Why a body is no list of operations.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEnvelope {
    /// Not JSON, or not of the shape of a list of operations.
    #[error("the body is `{{\"operations\":[…]}}`: {0}")]
    Json(#[source] serde_json::Error),
    /// An empty list.
    #[error("there must be at least one operation")]
    Empty,
    /// More than the limit.
    #[error("there may be at most {limit} operations, and there are {count}")]
    TooMany { count: usize, limit: usize },
}

/// Why a value is no operation.
#[derive(Debug, thiserror::Error)]
pub enum InvalidItem {
    /// Not of the shape of one.
    #[error("{0}")]
    Json(#[source] serde_json::Error),
    /// A member that this operation needs.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A member that means nothing to this operation.
    #[error("`{0}` does not go with this `op`")]
    Misplaced(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'b> {
    #[serde(borrow)]
    operations: Vec<&'b RawValue>,
}

/// What one operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verb {
    Create,
    Upsert,
    Replace,
    Patch,
    Read,
    Delete,
}

/// One operation, as it stands in the body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item<'b> {
    pub(super) op: Verb,
    id: Option<String>,
    /// The partition key, where each operation may have another one.
    pub(super) partition: Option<Value>,
    #[serde(borrow)]
    document: Option<&'b RawValue>,
    operations: Option<Vec<Value>>,
    condition: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

/// The operations of a body, at most `limit`; none of them is read yet.
pub(super) fn list(body: &Bytes, limit: usize) -> Result<Vec<&RawValue>, InvalidEnvelope> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(InvalidEnvelope::Json)?;
    match envelope.operations.len() {
        0 => Err(InvalidEnvelope::Empty),
        count if count > limit => Err(InvalidEnvelope::TooMany { count, limit }),
        _ => Ok(envelope.operations),
    }
}

impl<'b> Item<'b> {
    /// Reads an operation that has the members that it needs, and no others.
    pub(super) fn read(raw: &'b RawValue) -> Result<Self, InvalidItem> {
        let item: Self = serde_json::from_str(raw.get()).map_err(InvalidItem::Json)?;
        let (writes, patches) = match item.op {
            Verb::Create | Verb::Upsert | Verb::Replace => (true, false),
            Verb::Patch => (false, true),
            Verb::Read | Verb::Delete => (false, false),
        };
        let members = [
            ("document", item.document.is_some(), writes, writes),
            ("operations", item.operations.is_some(), patches, patches),
            ("condition", item.condition.is_some(), false, patches),
            ("id", item.id.is_some(), !writes, true),
        ];
        for (member, there, needed, allowed) in members {
            if needed && !there {
                return Err(InvalidItem::Missing(member));
            }
            if there && !allowed {
                return Err(InvalidItem::Misplaced(member));
            }
        }
        Ok(item)
    }
}

impl Admitted<'_> {
    /// One operation as a partition takes it, and the partition key that its document carries, if it has one.
    pub(super) fn operation(
        &self,
        documents: &Documents,
        body: &Bytes,
        item: Item<'_>,
    ) -> Result<(Write, Option<Vec<KeyPart>>), Problem> {
        let precondition = Precondition::parse(item.if_match.as_deref(), item.if_none_match.as_deref())?;
        let id = item.id.as_deref().map(DocumentId::new).transpose()?;
        let (id, operation, key) = match (item.op, item.document, id) {
            (Verb::Create, Some(raw), id) => self.content(documents, (body, raw), id, Operation::Create)?,
            (Verb::Upsert, Some(raw), id) => self.content(documents, (body, raw), id, Operation::Upsert)?,
            (Verb::Replace, Some(raw), id) => self.content(documents, (body, raw), id, Operation::Replace)?,
            (Verb::Patch, _, Some(id)) => {
                let operations = item.operations.unwrap_or_default();
                let limits = self.limits.patch;
                let change = policy::patch::Patch::from_operations(&operations, item.condition, limits)?;
                (id, Operation::Patch(Box::new(with_condition(change)?)), None)
            }
            (Verb::Read, _, Some(id)) => (id, Operation::Read, None),
            (Verb::Delete, _, Some(id)) => (id, Operation::Delete, None),
            // Checked before: each operation has what it needs.
            (Verb::Create | Verb::Upsert | Verb::Replace, None, _)
            | (Verb::Patch | Verb::Read | Verb::Delete, _, None) => return Err(Problem::crashed()),
        };
        Ok((self.write(id, operation, precondition), key))
    }

    fn content(
        &self,
        documents: &Documents,
        (body, raw): (&Bytes, &RawValue),
        id: Option<DocumentId>,
        operation: fn(Content) -> Operation,
    ) -> Result<(DocumentId, Operation, Option<Vec<KeyPart>>), Problem> {
        let made = match &id {
            Some(id) => id.clone(),
            None => DocumentId::new(&uuid::Uuid::now_v7().to_string())?,
        };
        let text = body.slice_ref(raw.get().as_bytes());
        let mut new = document::parse(&text, &documents.container.rules, || made)?;
        if id.is_some_and(|id| id != new.id) {
            return Err(Unacceptable::IdMismatch.into());
        }
        if !can_be_segment(new.id.as_str()) {
            return Err(Unacceptable::UnreachableId(new.id).into());
        }
        let key = std::mem::take(&mut new.key);
        Ok((new.id.clone(), operation(Content::try_from(new)?), Some(key)))
    }
}

/// Writes the entry of an operation that was done. Of one that was done by an earlier request only that is known.
pub(super) fn entry(verb: Verb, done: Option<&Written>, minimal: bool, body: &mut Vec<u8>) {
    let created = match (verb, done.map(|written| written.kind)) {
        (Verb::Create, _) => true,
        (Verb::Upsert, Some(kind)) => kind == Some(ChangeKind::Create),
        (Verb::Upsert, None) | (Verb::Replace | Verb::Patch | Verb::Read | Verb::Delete, _) => false,
    };
    let status = match verb {
        Verb::Delete => StatusCode::NO_CONTENT,
        _ if created => StatusCode::CREATED,
        Verb::Create | Verb::Upsert | Verb::Replace | Verb::Patch | Verb::Read => StatusCode::OK,
    };
    // Writing to a vector cannot fail.
    write!(body, "{{\"status\":{}", status.as_u16()).ok();
    if let Some(written) = done {
        write!(body, ",\"request_charge\":{}", written.charge).ok();
    }
    if let Some(written) = done.filter(|written| !written.body.is_empty()) {
        let tag = written.etag.to_string();
        write!(body, ",\"etag\":\"\\\"{}\\\"\"", tag.trim_matches('"')).ok();
        if !minimal || verb == Verb::Read {
            body.extend_from_slice(b",\"document\":");
            document::render(&written.body, written.etag, written.at, written.lsn, body);
        }
    }
    body.push(b'}');
}
