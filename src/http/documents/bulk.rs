//! Stands between a list of operations in a body and the partitions that each of them is about.
//!
//! Invariants: each operation has an outcome of its own, in the order asked; those of one partition happen in that
//! order; in an isolated container all of them are the caller's tenant's.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::model::address::{EncodedPartition, KeyPart};
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::model::session::SessionToken;
use lanekeeper_actors::policy::charge::RequestUnits;
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::protocol::partition::{Write, WriteError, WriteResult};
use serde_json::Value;
use serde_json::value::RawValue;

use super::operations::{self, InvalidItem, Item, Verb};
use super::render::{CACHING, JSON, REQUEST_CHARGE, wants_minimal};
use super::session::{self, SESSION_TOKEN};
use super::{Admitted, Unacceptable, require_key};
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::routes::{Documents, Fixed, FixedParts, fixed_key, key_pointer, named_key, named_parts};

/// Operations of one partition.
struct Group {
    handle: PartitionHandle,
    writes: Vec<Write>,
    /// What each of them is, and its place among all operations.
    asked: Vec<(usize, Verb)>,
}

/// What became of the operations so far.
struct Outcome {
    entries: Vec<Option<Vec<u8>>>,
    minimal: bool,
    charge: RequestUnits,
    seen: SessionToken,
}

impl Admitted<'_> {
    pub(super) async fn bulk(
        &self,
        documents: &Documents,
        fixed: &Fixed,
        payload: &mut Payload,
    ) -> Result<HttpResponse, Problem> {
        self.no_idempotency()?;
        let fixed = fixed.of(self.segments)?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let list = operations::list(&body, self.limits.bulk.operations)?;
        let mut outcome = Outcome::of(list.len(), wants_minimal(self.req.headers()));
        let mut groups: BTreeMap<EncodedPartition, Group> = BTreeMap::new();
        for (at, raw) in list.into_iter().enumerate() {
            if let Err(problem) = self.sort(documents, (&fixed, &body), (at, raw), &mut groups) {
                outcome.refuse(at, &problem);
            }
        }
        let (limit, wide) = (self.limits.request, self.limits.bulk.partitions);
        let work = groups.into_values().map(|group| async move {
            let results = group.handle.write_each(group.writes, limit).await;
            group.asked.into_iter().zip(results)
        });
        let mut done = Box::pin(futures_util::stream::iter(work).buffer_unordered(wide));
        let all = async {
            while let Some(group) = done.next().await {
                group.for_each(|((at, verb), result)| outcome.add(at, verb, result));
            }
        };
        // What has no answer by then has an outcome that nobody knows.
        tokio::time::timeout(limit, all).await.ok();
        Ok(outcome.answer())
    }

    /// Reads an operation and puts it to the others of its partition.
    fn sort(
        &self,
        documents: &Documents,
        (fixed, body): (&FixedParts, &Bytes),
        (at, raw): (usize, &RawValue),
        groups: &mut BTreeMap<EncodedPartition, Group>,
    ) -> Result<(), Problem> {
        let mut item = Item::read(raw)?;
        let (verb, named) = (item.op, item.partition.take());
        let (write, carried) = self.operation(documents, body, item)?;
        let key = partition_key(&documents.container, (fixed, named), carried, &write.id)?;
        let address = self.address(documents, key).encode();
        let group = match groups.get_mut(&address) {
            Some(group) => group,
            None => {
                let handle = self.directory.partition_at(address.clone())?;
                let new = Group { handle, writes: Vec::new(), asked: Vec::new() };
                groups.entry(address).or_insert(new)
            }
        };
        group.writes.push(write);
        group.asked.push((at, verb));
        Ok(())
    }
}

/// The partition key of an operation: its document's, or the one that it names, or the one of the path.
fn partition_key(
    container: &Container,
    (fixed, named): (&FixedParts, Option<Value>),
    carried: Option<Vec<KeyPart>>,
    id: &DocumentId,
) -> Result<Vec<KeyPart>, Problem> {
    let named = named.map(|value| from_values(container, &value, id)).transpose()?;
    let key = match (carried, named) {
        (Some(carried), named) => {
            named.map_or(Ok(()), |named| require_key(container, &carried, &named))?;
            carried
        }
        (None, Some(named)) => named,
        (None, None) => fixed_key(container, fixed, id).ok_or(InvalidItem::Missing("partition"))?,
    };
    if !fixed.iter().all(|(number, part)| key.get(*number) == Some(part)) {
        return Err(Unacceptable::PartitionMismatch { pointer: key_pointer(container) }.into());
    }
    Ok(key)
}

/// Reads `"a"` or `["a", 1]`; `{}` stands for a property that is not there.
fn from_values(container: &Container, value: &Value, id: &DocumentId) -> Result<Vec<KeyPart>, Problem> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            std::slice::from_ref(value)
        }
    };
    let part = |value: &Value| match value {
        Value::Object(none) if none.is_empty() => Ok(KeyPart::Undefined),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => KeyPart::from_json(value),
    };
    let parts = values.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let parts_needed = || Unacceptable::PartitionParts { needed: named_parts(container), found: parts.len() };
    Ok(named_key(container, &parts, id).ok_or_else(parts_needed)?)
}

impl Outcome {
    fn of(count: usize, minimal: bool) -> Self {
        let (charge, seen) = (RequestUnits::ZERO, SessionToken::default());
        Self { entries: vec![None; count], minimal, charge, seen }
    }

    fn add(&mut self, at: usize, verb: Verb, result: WriteResult) {
        match result {
            Ok(written) => {
                let mut entry = Vec::new();
                operations::entry(verb, Some(&written), self.minimal, &mut entry);
                self.put(at, entry);
                self.charge += written.charge;
                self.seen.merge(&session::of(written.etag.0));
            }
            Err(error) => self.refuse(at, &Problem::from(error)),
        }
    }

    fn refuse(&mut self, at: usize, problem: &Problem) {
        self.put(at, problem.entry().to_string().into());
        self.charge += problem.charge().unwrap_or_default();
    }

    fn put(&mut self, at: usize, entry: Vec<u8>) {
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some(entry);
        }
    }

    fn answer(self) -> HttpResponse {
        let unknown = Problem::from(WriteError::Unknown).entry().to_string();
        let mut body = Vec::from(b"{\"results\":[");
        for (at, entry) in self.entries.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(entry.as_deref().unwrap_or(unknown.as_bytes()));
        }
        body.extend_from_slice(b"]}");
        let mut response = HttpResponse::Ok();
        response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
        response.insert_header((REQUEST_CHARGE, self.charge.to_string()));
        if !self.seen.is_empty() {
            response.insert_header((SESSION_TOKEN, self.seen.to_string()));
        }
        response.body(body)
    }
}
