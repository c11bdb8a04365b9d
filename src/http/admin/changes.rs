//! Stands between whoever follows a container and its change feed: one page for each request, which may wait.
//!
//! Invariant: nobody who waits keeps the process from ending: he gets an empty page and the cursor to go on with.

use std::time::Duration;

use actix_web::HttpResponse;
use lanekeeper_actors::model::address::PartitionAddress;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::feed::{FeedMode, FeedStart};
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::reader::{Change, FeedPage, FeedRequest};
use lanekeeper_actors::shard::ShardReadError;
use lanekeeper_actors::store::ViewReadError;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Admin, AdminError, queries, scope};
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::manifest;

/// Longest wait for a change.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Bytes of documents in a page, about.
const PAGE_BYTES: usize = 4 << 20;

#[derive(Serialize)]
struct Shown {
    lsn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    partition: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
    ts: u64,
    etag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_expired: Option<bool>,
}

#[derive(Serialize)]
struct Answered {
    changes: Vec<Shown>,
    count: usize,
    cursor: String,
    request_charge: f64,
}

/// Answers one page.
pub(super) async fn page(admin: &Admin, container: &str, query: &str) -> Result<HttpResponse, Problem> {
    let (mut request, wait) = asked(admin, container, query)?;
    let reader = admin.system.reader();
    // Looked at before waiting, so that a cursor is known when the process ends meanwhile.
    let mut page = reader.changes(request.clone()).await?;
    if page.changes.is_empty() && !wait.is_zero() {
        (request.from, request.wait) = (FeedStart::Cursor(page.cursor.clone()), wait);
        tokio::select! {
            waited = reader.changes(request) => page = waited?,
            () = admin.flight.closing() => {}
        }
    }
    Ok(HttpResponse::Ok().json(shown(&page)?))
}

/// What is asked for, without its wait, and the wait.
fn asked(admin: &Admin, container: &str, query: &str) -> Result<(FeedRequest, Duration), Problem> {
    let value = |name| query_value(query, name).transpose();
    let wrong = |text: &str| AdminError::Request(text.to_owned());
    let scope = scope::of_query(admin, container, query)?;
    let mode = match value("mode")? {
        None => FeedMode::default(),
        Some(text) => FeedMode::parse(&text).ok_or_else(|| wrong("`mode` is `latest` or `all`"))?,
    };
    let from = match value("from")? {
        None => FeedStart::Beginning,
        Some(text) => text.parse::<FeedStart>()?,
    };
    let limit = value("limit")?.map(|text| text.parse::<u64>()).transpose();
    let limit = limit.map_err(|_| wrong("`limit` is a number of changes"))?;
    let wait = match value("wait")? {
        None => Duration::ZERO,
        Some(text) => manifest::duration(&text)
            .filter(|wait| *wait <= WAIT_MAX)
            .ok_or_else(|| wrong("`wait` is a duration up to `60s`"))?,
    };
    let previous = match value("previous")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(wrong("`previous` is `true` or `false`").into()),
    };
    let limit = scope::limit(limit, queries::PAGE, queries::PAGE_MAX)?;
    let request = FeedRequest { scope, mode, from, limit, bytes: PAGE_BYTES, wait: Duration::ZERO, previous };
    Ok((request, wait))
}

fn shown(page: &FeedPage) -> Result<Answered, Problem> {
    let changes = page.changes.iter().map(change).collect::<Result<Vec<_>, _>>()?;
    Ok(Answered {
        count: changes.len(),
        changes,
        cursor: page.cursor.to_string(),
        request_charge: page.charge.as_f64(),
    })
}

fn change(change: &Change) -> Result<Shown, Problem> {
    let (kind, expired) = match change.kind {
        None => (None, false),
        Some(ChangeKind::Create) => (Some("create"), false),
        Some(ChangeKind::Replace) => (Some("replace"), false),
        Some(ChangeKind::Delete) => (Some("delete"), false),
        Some(ChangeKind::Expire) => (Some("delete"), true),
    };
    let address = PartitionAddress::decode(change.partition.as_bytes()).map(|(address, _)| address);
    let rendered = |body: &[u8]| {
        let mut out = Vec::new();
        document::render(body, change.etag, change.at, change.lsn, &mut out);
        out
    };
    Ok(Shown {
        lsn: change.lsn.0,
        kind,
        id: change.id.as_str().to_owned(),
        tenant: address.as_ref().and_then(|found| found.tenant.as_ref().map(TenantId::to_string)),
        partition: address.as_ref().map_or(Value::Null, PartitionAddress::key_json),
        document: change.document.as_ref().map(|body| raw(rendered(body))).transpose()?,
        ts: change.at.seconds(),
        etag: change.etag.to_string(),
        previous_lsn: change.previous_lsn.map(|lsn| lsn.0),
        previous: change.previous.as_ref().map(|body| raw(body.to_vec())).transpose()?,
        ttl_expired: expired.then_some(true),
    })
}

/// Stored JSON goes out as it is, with every digit of its numbers.
fn raw(json: Vec<u8>) -> Result<Box<RawValue>, Problem> {
    let text = String::from_utf8(json).map_err(|_| damaged())?;
    RawValue::from_string(text).map_err(|_| damaged())
}

/// What is stored is JSON in UTF-8, or it is not what was stored.
fn damaged() -> Problem {
    ShardReadError::View(ViewReadError::Corrupt).into()
}
