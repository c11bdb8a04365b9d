//! Stands between a file of documents, one a line, and their partitions.
//!
//! Invariants: however long the file is, only a few hundred documents are in memory; each line has a result of its
//! own; of two lines about one document the later one is written later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::CONTENT_ENCODING;
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::address::PartitionAddress;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document::{self, InvalidDocument};
use lanekeeper_actors::model::ids::{DocumentId, TenantId};
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, WriteError, WriteResult};
use serde::Serialize;

use super::lines::{Line, Lines};
use super::{Admin, AdminError, scope};
use crate::http::body::BodyError;
use crate::http::gateway::ShuttingDown;
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::http::trace::Trace;

/// Documents that are being written.
const IN_FLIGHT: usize = 256;
/// Failures that are told one by one.
const TOLD: usize = 100;
/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a write is tried again while the store is busy or the budget is spent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two tries where nobody says how long to wait.
const PAUSE: Duration = Duration::from_millis(20);

/// What happens with a document that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    Fail,
    Skip,
    Replace,
}

#[derive(Serialize)]
struct Failed {
    line: u64,
    code: &'static str,
    detail: String,
}

/// What has become of the lines.
#[derive(Serialize, Default)]
struct Tally {
    created: u64,
    replaced: u64,
    skipped: u64,
    failed: Vec<Failed>,
    failed_count: u64,
}

/// Where the documents go.
struct Destination<'a> {
    admin: &'a Admin,
    container: Arc<Container>,
    tenant: Option<TenantId>,
    on_conflict: OnConflict,
    traceparent: Arc<str>,
}

/// A document on its way: its line, its key, and what came of it.
type Flying = FuturesUnordered<BoxFuture<'static, (u64, Bytes, WriteResult)>>;

/// A line that is a document with a place.
struct Arrival {
    line: u64,
    key: Bytes,
    partition: PartitionHandle,
    write: Write,
}

/// Writes every line.
pub(super) async fn stream(
    admin: &Admin,
    name: &str,
    req: &HttpRequest,
    payload: &mut Payload,
    trace: &Trace,
) -> Result<HttpResponse, Problem> {
    let query = req.uri().query().unwrap_or_default();
    let scope = scope::of_query(admin, name, query)?;
    let container = scope::find(admin, name)?.clone();
    if container.isolated && scope.tenant.is_none() {
        let why = format!("`{name}` is isolated: say whose documents these are with `tenant`");
        return Err(AdminError::Request(why).into());
    }
    let on_conflict = match query_value(query, "on_conflict").transpose()?.as_deref() {
        None | Some("fail") => OnConflict::Fail,
        Some("skip") => OnConflict::Skip,
        Some("replace") => OnConflict::Replace,
        Some(_) => {
            let why = "`on_conflict` is `fail`, `skip` or `replace`";
            return Err(AdminError::Request(why.to_owned()).into());
        }
    };
    if req.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(BodyError::Encoded.into());
    }
    // A line may have blanks around its document.
    let longest = container.rules.max_bytes.saturating_mul(2);
    let lines = Lines::new(payload, longest, admin.body.time);
    let traceparent = trace.to_string().into();
    let to = Destination { admin, container, tenant: scope.tenant, on_conflict, traceparent };
    Ok(HttpResponse::Ok().json(to.take(lines).await?))
}

impl Destination<'_> {
    async fn take(&self, mut lines: Lines<'_>) -> Result<Tally, Problem> {
        let mut tally = Tally::default();
        let mut flying = Flying::new();
        let mut keys: HashSet<Bytes> = HashSet::new();
        loop {
            let line = tokio::select! {
                biased;
                () = self.admin.flight.closing() => return Err(ShuttingDown.into()),
                Some((line, key, result)) = flying.next() => {
                    keys.remove(&key);
                    tally.note(line, result, self.on_conflict);
                    continue;
                }
                line = lines.next(), if flying.len() < IN_FLIGHT => line?,
            };
            let Some(line) = line else { break };
            let arrival = match line {
                Line::TooLong(number) => {
                    let (bytes, limit) = (usize::MAX, self.container.rules.max_bytes);
                    let detail = format!("the line is longer than a document of {limit} bytes can be");
                    let code = Problem::from(InvalidDocument::TooLarge { bytes, limit }).code();
                    tally.fail(number, code, detail);
                    continue;
                }
                Line::Text(number, text) => match self.arrival(number, &text) {
                    Ok(arrival) => arrival,
                    Err(problem) => {
                        tally.fail(number, problem.code(), problem.detail().to_owned());
                        continue;
                    }
                },
            };
            // An earlier line about the same document goes first.
            while keys.contains(&arrival.key) {
                let Some((line, key, result)) = flying.next().await else { break };
                keys.remove(&key);
                tally.note(line, result, self.on_conflict);
            }
            keys.insert(arrival.key.clone());
            flying.push(Box::pin(write(arrival, self.admin.clock.clone())));
        }
        while let Some((line, _, result)) = flying.next().await {
            tally.note(line, result, self.on_conflict);
        }
        tally.failed.sort_by_key(|failed| failed.line);
        Ok(tally)
    }

    fn arrival(&self, line: u64, text: &Bytes) -> Result<Arrival, Problem> {
        let made = DocumentId::new(&uuid::Uuid::now_v7().to_string())?;
        let mut new = document::parse(text, &self.container.rules, || made)?;
        let key = std::mem::take(&mut new.key);
        let address =
            PartitionAddress { container: self.container.name.clone(), tenant: self.tenant.clone(), key };
        let partition = self.admin.system.directory().partition(&address)?;
        let id = new.id.clone();
        let key = partition.address().document(&id).into();
        let content = Content::try_from(new)?;
        let operation = match self.on_conflict {
            OnConflict::Fail | OnConflict::Skip => Operation::Create(content),
            OnConflict::Replace => Operation::Upsert(content),
        };
        let traceparent = Some(self.traceparent.clone());
        let write = Write { id, operation, precondition: Precondition::default(), traceparent };
        Ok(Arrival { line, key, partition, write })
    }
}

/// Writes a document. A store that is busy is asked again, so that a fast reader of a file waits for it.
async fn write(arrival: Arrival, clock: SharedClock) -> (u64, Bytes, WriteResult) {
    let Arrival { line, key, partition, write } = arrival;
    let until = clock.elapsed() + PATIENCE;
    loop {
        let result = partition.write(write.clone(), WRITE_TIMEOUT).await;
        let pause = match &result {
            Err(WriteError::Busy | WriteError::Overloaded) => PAUSE,
            Err(WriteError::Throttled(wait)) => *wait,
            Ok(_) | Err(_) => return (line, key, result),
        };
        if clock.elapsed() >= until {
            return (line, key, result);
        }
        tokio::time::sleep(pause).await;
    }
}

impl Tally {
    fn note(&mut self, line: u64, result: WriteResult, on_conflict: OnConflict) {
        match result {
            Ok(written) if written.kind == Some(ChangeKind::Create) => self.created += 1,
            Ok(_) => self.replaced += 1,
            Err(WriteError::Exists) if on_conflict == OnConflict::Skip => self.skipped += 1,
            Err(error) => {
                let problem = Problem::from(error);
                self.fail(line, problem.code(), problem.detail().to_owned());
            }
        }
    }

    fn fail(&mut self, line: u64, code: &'static str, detail: String) {
        self.failed_count += 1;
        if self.failed.len() < TOLD {
            self.failed.push(Failed { line, code, detail });
        }
    }
}
