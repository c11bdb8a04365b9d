//! Stands between a list of operations in a body and one transaction of a partition.
//!
//! Invariant: either everything in the list happens or nothing; the answer has an entry for each operation, in
//! their order.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Payload};
use lanekeeper_actors::model::address::KeyPart;
use lanekeeper_actors::policy::charge::RequestUnits;
use lanekeeper_actors::protocol::partition::{Write, WriteError, Written};
use serde_json::Value;

use super::operations::{self, InvalidEnvelope, InvalidItem, Item, Verb};
use super::render::{CACHING, JSON, REQUEST_CHARGE, wants_minimal};
use super::repeat::REPLAYED;
use super::session::{self, SESSION_TOKEN};
use super::{Admitted, require_key};
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::routes::{Documents, Key};

/// Why a body is no batch.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// No list of operations.
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
    /// One operation is not of the shape of one.
    #[error("operation {number}: {source}")]
    Operation {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        source: InvalidItem,
    },
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
            match self.write_in(documents, &key, &body, item) {
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
        let mut items = Vec::new();
        for (at, raw) in operations::list(body, self.limits.batch)?.into_iter().enumerate() {
            let item = Item::read(raw).and_then(|item| match item.partition {
                Some(_) => Err(InvalidItem::Misplaced("partition")),
                None => Ok(item),
            });
            items.push(item.map_err(|source| InvalidBatch::Operation { number: at + 1, source })?);
        }
        Ok(items)
    }

    /// One operation, which must be about this partition.
    fn write_in(
        &self,
        documents: &Documents,
        key: &[KeyPart],
        body: &Bytes,
        item: Item<'_>,
    ) -> Result<Write, Problem> {
        let (write, carried) = self.operation(documents, body, item)?;
        if let Some(carried) = carried {
            require_key(&documents.container, &carried, key)?;
        }
        Ok(write)
    }

    fn succeeded(&self, verbs: &[Verb], written: &[Written]) -> HttpResponse {
        let minimal = wants_minimal(self.req.headers());
        let replayed = written.iter().any(|written| written.replayed);
        let mut body = Vec::from(b"{\"results\":[");
        for (at, verb) in verbs.iter().enumerate() {
            // Of a batch that was done before only that it was done is known.
            let done = written.get(at).filter(|_| !replayed);
            if at > 0 {
                body.push(b',');
            }
            operations::entry(*verb, done, minimal, &mut body);
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
