//! Stands between an operator's change and the audit log, and reads the log for operators.
//!
//! Invariant: a change is begun only after the record that says so is on disk, and what came of it is recorded before
//! the operator is told; no answer with a key in it is looked at.

use std::future::Future;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

use super::resource::{Resource, Route};
use super::{Admin, AdminError, delivery, keys, scope, timestamp};
use crate::audit::{Actor, Audit, Outcome, Question, Record, Start, digest};
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::http::trace::Trace;
use crate::manifest;

/// Records in a page when nobody names a number.
const PAGE: usize = 100;
/// What is recorded of a question: fields of its body and parameters of its query that hold no secret.
const ASKED: [&str; 18] = [
    "access",
    "all",
    "allow_destroy",
    "api",
    "container",
    "expires",
    "from",
    "generation",
    "id",
    "ids",
    "on_conflict",
    "partition",
    "product",
    "rate",
    "slot",
    "submit",
    "tenant",
    "to",
];
/// What is recorded of an answer.
const ANSWERED: [&str; 13] = [
    "cancelled",
    "count",
    "created",
    "failed_count",
    "generation",
    "id",
    "positions",
    "purged",
    "reopened",
    "replaced",
    "replayed",
    "rows",
    "skipped",
];

/// A change that somebody asks for.
pub(super) struct Change<'a> {
    resource: Resource<'a>,
    action: &'static str,
    query: &'a str,
    record: Record,
}

/// A change that was begun. Dropped before its end, because the operator went away, it leaves a note.
struct Begun<'a> {
    audit: &'a Audit,
    record: Option<Record>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.audit.abandoned(Record {
                outcome: Some(Outcome::Failed),
                code: Some("caller_gone"),
                ..record
            });
        }
    }
}

/// What a request is called in the log, if it changes something.
fn action(route: Route, method: &Method, path: &str) -> Option<&'static str> {
    let deletes = *method == Method::DELETE;
    match route {
        Route::Keys if *method == Method::POST => Some("key.issue"),
        Route::Key if deletes => Some("key.revoke"),
        Route::RotateKey => Some("key.rotate"),
        Route::ResumeKey if path.ends_with("approve") => Some("key.approve"),
        Route::ResumeKey => Some("key.resume"),
        Route::RejectKey => Some("key.reject"),
        Route::SuspendKey => Some("key.suspend"),
        Route::Partitions if deletes => Some("partition.delete"),
        Route::Import => Some("documents.import"),
        Route::Pause => Some("subscription.pause"),
        Route::Resume => Some("subscription.resume"),
        Route::ReplayHistory => Some("subscription.replay"),
        Route::CancelReplay => Some("subscription.cancel_replay"),
        Route::DeadLetters if deletes => Some("dead_letters.purge"),
        Route::ReplayDeadLetters => Some("dead_letters.replay"),
        Route::ReopenActor => Some("partition.reopen"),
        Route::Backup => Some("backup.make"),
        Route::Manifest if *method == Method::PUT => Some("manifest.apply"),
        Route::RollbackManifest => Some("manifest.rollback"),
        Route::Health
        | Route::Ready
        | Route::Metrics
        | Route::Description
        | Route::Keys
        | Route::Key
        | Route::Containers
        | Route::Partitions
        | Route::Changes
        | Route::Query
        | Route::Export
        | Route::Topics
        | Route::Subscriptions
        | Route::Subscription
        | Route::Attempts
        | Route::TestFilter
        | Route::DeadLetters
        | Route::Usage
        | Route::Actors
        | Route::Shards
        | Route::Audit
        | Route::Backends
        | Route::Explain
        | Route::Generations
        | Route::Manifest
        | Route::PlanManifest => None,
    }
}

impl<'a> Change<'a> {
    /// The change that a request asks for, if it asks for one.
    pub(super) fn of(
        admin: &Admin,
        resource: Resource<'a>,
        req: &'a HttpRequest,
        trace: &Trace,
    ) -> Option<Self> {
        let action = action(resource.route, req.method(), req.uri().path())?;
        let record = Record {
            actor: Actor::Operator,
            action,
            target: target(admin, resource),
            trace: Some(trace.id()),
            client: req.peer_addr().map(|peer| peer.ip()),
            ..Record::default()
        };
        Some(Self { resource, action, query: req.uri().query().unwrap_or_default(), record })
    }

    /// Makes the change between its two records.
    pub(super) async fn make(
        mut self,
        admin: &Admin,
        body: &[u8],
        work: impl Future<Output = Result<HttpResponse, Problem>>,
    ) -> Result<HttpResponse, Problem> {
        self.record.asked = asked(self.query, body);
        self.record.before = state(admin, self.resource.route, self.record.target.as_deref()).await;
        let begun = Record { outcome: Some(Outcome::Begun), ..self.record.clone() };
        let number = admin.audit.write(begun).await.map_err(AdminError::Unrecorded)?;
        self.record.begun = Some(number);
        let mut pending = Begun { audit: &admin.audit, record: Some(self.record.clone()) };
        let outcome = work.await;
        let (answer, record) = self.finished(admin, outcome).await;
        pending.record = None;
        if let Err(error) = admin.audit.write(record).await {
            // It was made, and the log says that it was begun.
            tracing::error!(%error, action = self.action, begun = number, "the outcome of a change is not recorded");
        }
        answer
    }

    /// What is recorded of an outcome.
    async fn finished(
        &self,
        admin: &Admin,
        outcome: Result<HttpResponse, Problem>,
    ) -> (Result<HttpResponse, Problem>, Record) {
        // What was asked for and how it was, the first record says.
        let mut record = Record { asked: None, before: None, ..self.record.clone() };
        match outcome {
            Err(problem) => {
                let is_refusal = problem.status().is_client_error();
                record.outcome = Some(if is_refusal { Outcome::Refused } else { Outcome::Failed });
                (record.status, record.code) = (Some(problem.status().as_u16()), Some(problem.code()));
                (Err(problem), record)
            }
            Ok(response) => {
                record.outcome = Some(Outcome::Done);
                record.status = Some(response.status().as_u16());
                let made = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|value| value.to_str().ok()?.rsplit('/').next());
                record.target = record.target.or_else(|| made.map(ToOwned::to_owned));
                record.after = state(admin, self.resource.route, record.target.as_deref()).await;
                if holds_secrets(self.resource.route) {
                    return (Ok(response), record);
                }
                let (response, answered) = answered(response);
                record.after = record.after.or(answered);
                (Ok(response), record)
            }
        }
    }
}

/// The name in the path, if it is the name of something: a caller may have put anything there.
fn target(admin: &Admin, resource: Resource<'_>) -> Option<String> {
    let Resource { route, name, .. } = resource;
    let is_known = if holds_secrets(route) {
        admin.keys.get(name).is_some()
    } else {
        admin.system.subscription(name).is_some() || scope::find(admin, name).is_ok()
    };
    is_known.then(|| name.to_owned())
}

/// Whether its answer may have a key in it: those about keys.
fn holds_secrets(route: Route) -> bool {
    matches!(
        route,
        Route::Keys | Route::Key | Route::RotateKey | Route::ResumeKey | Route::RejectKey | Route::SuspendKey
    )
}

/// How the thing is that is about to be changed, or was.
async fn state(admin: &Admin, route: Route, target: Option<&str>) -> Option<Value> {
    let target = target?;
    if holds_secrets(route) {
        return keys::summary(admin, target);
    }
    if matches!(route, Route::Pause | Route::Resume) {
        return delivery::summary(admin, target).await;
    }
    None
}

/// What is recorded of a question: what is known to hold no secret, and the digest of a body.
fn asked(query: &str, body: &[u8]) -> Option<Value> {
    let mut asked = Map::new();
    for name in ASKED {
        if let Some(Ok(value)) = query_value(query, name) {
            asked.insert(name.to_owned(), json!(value));
        }
    }
    if !body.is_empty() {
        if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
            asked.extend(picked(fields, &ASKED));
        }
        asked.insert("body".to_owned(), json!(digest(body)));
    }
    // Where a backup goes may be a URL, and the query of a URL often holds a signature.
    if let Some(Value::String(to)) = asked.get_mut("to") {
        *to = without_credentials(to);
    }
    (!asked.is_empty()).then_some(Value::Object(asked))
}

fn picked(fields: Map<String, Value>, wanted: &[&str]) -> Map<String, Value> {
    fields.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect()
}

/// A place without its query, its fragment and its user.
fn without_credentials(place: &str) -> String {
    let place = place.split(['?', '#']).next().unwrap_or_default();
    match place.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, rest)))) => format!("{scheme}://{rest}"),
        Some((_, None)) | None => place.to_owned(),
    }
}

/// What is recorded of an answer, which is given back as it was.
fn answered(response: HttpResponse) -> (HttpResponse, Option<Value>) {
    let (response, body) = response.into_parts();
    let bytes = match body.try_into_bytes() {
        Ok(bytes) => bytes,
        Err(body) => return (response.set_body(body), None),
    };
    let fields = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => picked(fields, &ANSWERED),
        Ok(_) | Err(_) => Map::new(),
    };
    let answered = (!fields.is_empty()).then_some(Value::Object(fields));
    (response.set_body(BoxBody::new(bytes)), answered)
}

/// Notes that somebody without the token came to the admin API.
pub(super) fn refused(admin: &Admin, req: &HttpRequest, trace: &Trace, problem: &Problem) {
    admin.audit.refused(|| Record {
        actor: Actor::Caller,
        action: "admin.refused",
        status: Some(problem.status().as_u16()),
        code: Some(problem.code()),
        trace: Some(trace.id()),
        client: req.peer_addr().map(|peer| peer.ip()),
        ..Record::default()
    });
}

/// Records with their numbers, the newest last.
pub(super) async fn page(admin: &Admin, query: &str) -> Result<HttpResponse, Problem> {
    let value = |name| query_value(query, name).transpose();
    let limit = value("limit")?.map(|text| text.parse::<u64>()).transpose();
    let limit = limit.map_err(|_| AdminError::Request("`limit` is a number of records".to_owned()))?;
    let question = Question {
        start: start(value("from")?.as_deref())?,
        limit: scope::limit(limit, PAGE, admin.page_max)?,
        action: value("action")?,
    };
    let audit = admin.audit.clone();
    let read = tokio::task::spawn_blocking(move || audit.page(&question)).await;
    let page = read.map_err(|_| Problem::crashed())?.map_err(|error| {
        tracing::error!(%error, "the audit log cannot be read");
        AdminError::Unreadable
    })?;
    let (records, count) = (&page.records, page.records.len());
    Ok(HttpResponse::Ok()
        .json(json!({ "records": records, "count": count, "cursor": page.next.to_string() })))
}

fn start(text: Option<&str>) -> Result<Start, AdminError> {
    let Some(text) = text else { return Ok(Start::Newest) };
    if text == "beginning" {
        return Ok(Start::Record(1));
    }
    if let Ok(number) = text.parse() {
        return Ok(Start::Record(number));
    }
    let wrong = "`from` is `beginning`, the cursor of a page, or a time such as `2026-01-31T08:30:00Z`";
    let time = manifest::timestamp(text).ok_or_else(|| AdminError::Request(wrong.to_owned()))?;
    Ok(Start::Time(timestamp(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_recorded_without_what_may_be_a_secret() {
        let body =
            br#"{"to":"s3://me:hush@bucket/x?X-Amz-Signature=hush#hush","password":"hush","slot":"primary"}"#;
        let asked = asked("tenant=acme&token=hush&partition=%5B1%5D", body).unwrap();
        assert_eq!(asked["to"], "s3://bucket/x");
        assert_eq!(
            (&asked["tenant"], &asked["partition"], &asked["slot"]),
            (&json!("acme"), &json!("[1]"), &json!("primary"))
        );
        assert!(asked["body"].as_str().unwrap().starts_with("sha256:"));
        assert!(!asked.to_string().contains("hush"), "{asked}");
        assert_eq!(super::asked("", b""), None);
    }

    #[test]
    fn every_start_of_a_page_is_understood_or_refused() {
        assert_eq!(start(None), Ok(Start::Newest));
        assert_eq!(start(Some("beginning")), Ok(Start::Record(1)));
        assert_eq!(start(Some("812")), Ok(Start::Record(812)));
        assert!(matches!(start(Some("2026-01-31")), Ok(Start::Time(_))));
        assert!(start(Some("yesterday")).is_err());
    }
}
