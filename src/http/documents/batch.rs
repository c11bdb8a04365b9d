//! Stands between a list of operations in a body and one transaction of a partition.
//!
//! Invariant: either everything in the list happens or nothing; the answer has an entry for each operation, in
//! their order.

use std::io::Write as _;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Payload};
use lanekeeper_actors::model::address::KeyPart;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::policy;
use lanekeeper_actors::policy::charge::RequestUnits;
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, WriteError, Written};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::patch::with_condition;
use super::render::{CACHING, JSON, REQUEST_CHARGE, wants_minimal};
use super::repeat::REPLAYED;
use super::session::{self, SESSION_TOKEN};
use super::{Admitted, Unacceptable, require_key};
use crate::http::body;
use crate::http::path::can_be_segment;
use crate::http::problem::Problem;
use crate::http::routes::{Documents, Key};

/// Why a body is no batch.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// Not JSON, or not of the shape of a batch.
    #[error("a batch is `{{\"operations\":[…]}}`: {0}")]
    Json(#[source] serde_json::Error),
    /// An empty list.
    #[error("a batch has at least one operation")]
    Empty,
    /// More than the limit.
    #[error("a batch has at most {limit} operations, this one has {count}")]
    TooMany { count: usize, limit: usize },
    /// One operation is not of the shape of one.
    #[error("operation {number}: {source}")]
    Operation {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A member that this operation needs.
    #[error("operation {number}: `{member}` is missing")]
    Missing { number: usize, member: &'static str },
    /// A member that means nothing to this operation.
    #[error("operation {number}: `{member}` does not go with this `op`")]
    Misplaced { number: usize, member: &'static str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'b> {
    #[serde(borrow)]
    operations: Vec<&'b RawValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Create,
    Upsert,
    Replace,
    Patch,
    Read,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'b> {
    op: Verb,
    id: Option<String>,
    #[serde(borrow)]
    document: Option<&'b RawValue>,
    operations: Option<Vec<Value>>,
    condition: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<String>,
}

impl Item<'_> {
    /// Members that must be there, and members that must not.
    fn check(&self, number: usize) -> Result<(), InvalidBatch> {
        let (writes, patches) = match self.op {
            Verb::Create | Verb::Upsert | Verb::Replace => (true, false),
            Verb::Patch => (false, true),
            Verb::Read | Verb::Delete => (false, false),
        };
        let members = [
            ("document", self.document.is_some(), writes, writes),
            ("operations", self.operations.is_some(), patches, patches),
            ("condition", self.condition.is_some(), false, patches),
            ("id", self.id.is_some(), !writes, true),
        ];
        for (member, there, needed, allowed) in members {
            if needed && !there {
                return Err(InvalidBatch::Missing { number, member });
            }
            if there && !allowed {
                return Err(InvalidBatch::Misplaced { number, member });
            }
        }
        Ok(())
    }
}

impl Admitted<'_> {
    pub(super) async fn batch(
        &self,
        documents: &Documents,
        partition: &Key,
        payload: &mut Payload,
    ) -> Result<HttpResponse, Problem> {
        let key = partition.of(self.segments, None)?;
        let idempotency = self.idempotency(documents)?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let items = self.items(&body)?;
        let verbs: Vec<Verb> = items.iter().map(|item| item.op).collect();
        let mut writes = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match self.operation(documents, &key, &body, item) {
                Ok(write) => writes.push(write),
                Err(problem) => return Ok(failed(verbs.len(), at, &problem, None)),
            }
        }
        let handle = self.partition(documents, key)?;
        let repeat = idempotency.map(|key| key.repeat("batch", None, &body));
        match handle.transact(writes, repeat, self.limits.request).await {
            Ok(written) => Ok(self.succeeded(&verbs, &written)),
            Err(refused) if is_of_one(&refused.error) => {
                let problem = Problem::from(refused.error);
                Ok(failed(verbs.len(), refused.at, &problem, problem.charge()))
            }
            Err(refused) => Err(refused.error.into()),
        }
    }

    fn items<'b>(&self, body: &'b Bytes) -> Result<Vec<Item<'b>>, InvalidBatch> {
        let envelope: Envelope<'b> = serde_json::from_slice(body).map_err(InvalidBatch::Json)?;
        let (count, limit) = (envelope.operations.len(), self.limits.batch);
        if count == 0 {
            return Err(InvalidBatch::Empty);
        }
        if count > limit {
            return Err(InvalidBatch::TooMany { count, limit });
        }
        let read = |(at, raw): (usize, &&'b RawValue)| {
            let number = at + 1;
            let item: Item<'b> = serde_json::from_str(raw.get())
                .map_err(|source| InvalidBatch::Operation { number, source })?;
            item.check(number)?;
            Ok(item)
        };
        envelope.operations.iter().enumerate().map(read).collect()
    }

    /// One operation as the partition takes it.
    fn operation(
        &self,
        documents: &Documents,
        key: &[KeyPart],
        body: &Bytes,
        item: Item<'_>,
    ) -> Result<Write, Problem> {
        let precondition = Precondition::parse(item.if_match.as_deref(), item.if_none_match.as_deref())?;
        let id = item.id.as_deref().map(DocumentId::new).transpose()?;
        let (id, operation) = match (item.op, item.document, id) {
            (Verb::Create, Some(raw), id) => {
                self.content(documents, key, (body, raw), id, Operation::Create)?
            }
            (Verb::Upsert, Some(raw), id) => {
                self.content(documents, key, (body, raw), id, Operation::Upsert)?
            }
            (Verb::Replace, Some(raw), id) => {
                self.content(documents, key, (body, raw), id, Operation::Replace)?
            }
            (Verb::Patch, _, Some(id)) => {
                let operations = item.operations.unwrap_or_default();
                let limits = self.limits.patch;
                let change = policy::patch::Patch::from_operations(&operations, item.condition, limits)?;
                (id, Operation::Patch(Box::new(with_condition(change)?)))
            }
            (Verb::Read, _, Some(id)) => (id, Operation::Read),
            (Verb::Delete, _, Some(id)) => (id, Operation::Delete),
            // Checked before: each operation has what it needs.
            (Verb::Create | Verb::Upsert | Verb::Replace, None, _)
            | (Verb::Patch | Verb::Read | Verb::Delete, _, None) => return Err(Problem::crashed()),
        };
        Ok(self.write(id, operation, precondition))
    }

    fn content(
        &self,
        documents: &Documents,
        key: &[KeyPart],
        (body, raw): (&Bytes, &RawValue),
        id: Option<DocumentId>,
        operation: fn(Content) -> Operation,
    ) -> Result<(DocumentId, Operation), Problem> {
        let made = match &id {
            Some(id) => id.clone(),
            None => DocumentId::new(&uuid::Uuid::now_v7().to_string())?,
        };
        let text = body.slice_ref(raw.get().as_bytes());
        let new = document::parse(&text, &documents.container.rules, || made)?;
        if id.is_some_and(|id| id != new.id) {
            return Err(Unacceptable::IdMismatch.into());
        }
        if !can_be_segment(new.id.as_str()) {
            return Err(Unacceptable::UnreachableId(new.id).into());
        }
        require_key(documents, &new, key)?;
        Ok((new.id.clone(), operation(Content::try_from(new)?)))
    }

    fn succeeded(&self, verbs: &[Verb], written: &[Written]) -> HttpResponse {
        let minimal = wants_minimal(self.req.headers());
        let replayed = written.iter().any(|written| written.replayed);
        let mut body = Vec::from(b"{\"results\":[");
        for (at, verb) in verbs.iter().enumerate() {
            // Of a batch that was done before only that it was done is known.
            let done = written.get(at).filter(|_| !replayed);
            separate(at, &mut body);
            result(*verb, done, minimal, &mut body);
        }
        body.extend_from_slice(b"]}");
        let mut response = HttpResponse::Ok();
        response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
        let charge: RequestUnits = written.iter().map(|written| written.charge).sum();
        response.insert_header((REQUEST_CHARGE, charge.to_string()));
        let seen = written.iter().map(|written| written.etag.0).max_by_key(|position| position.lsn);
        if let Some(seen) = seen {
            response.insert_header((SESSION_TOKEN, session::token(seen)));
        }
        if replayed {
            response.insert_header((REPLAYED, "true"));
        }
        response.body(body)
    }
}

fn separate(at: usize, body: &mut Vec<u8>) {
    if at > 0 {
        body.push(b',');
    }
}

/// The entry of an operation that was done.
fn result(verb: Verb, done: Option<&Written>, minimal: bool, body: &mut Vec<u8>) {
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

/// Whether an error is about one operation; all others are about the partition or the shard.
fn is_of_one(error: &WriteError) -> bool {
    match error {
        WriteError::Exists
        | WriteError::NotFound
        | WriteError::Precondition(_)
        | WriteError::NotUnique(_)
        | WriteError::Patch(_)
        | WriteError::PatchedInvalid(_)
        | WriteError::ConditionFailed
        | WriteError::Corrupt => true,
        WriteError::Busy
        | WriteError::Overloaded
        | WriteError::Unavailable
        | WriteError::NoRoom
        | WriteError::TooLarge
        | WriteError::KeyReused
        | WriteError::Throttled(_)
        | WriteError::Crashed
        | WriteError::Quarantined
        | WriteError::Unknown => false,
    }
}

/// The answer to a batch of which nothing was done, because of the operation `at`.
fn failed(count: usize, at: usize, problem: &Problem, charge: Option<RequestUnits>) -> HttpResponse {
    let others = Problem::failed_dependency();
    let entry = |number: usize| if number == at { problem } else { &others };
    let results: Vec<Value> = (0..count).map(|number| entry(number).entry()).collect();
    let mut response = HttpResponse::build(StatusCode::MULTI_STATUS);
    response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
    if let Some(charge) = charge {
        response.insert_header((REQUEST_CHARGE, charge.to_string()));
    }
    response.body(serde_json::json!({ "results": results }).to_string())
}
