//! Containers, documents in them, and what the tests ask of a system.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::kernel::clock::{SharedClock, SystemClock};
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::delivery::{Attempt, Outcome, Transport};
use lanekeeper_actors::model::document::{DocumentRules, KeyPath};
use lanekeeper_actors::model::feed::{FeedCursor, FeedMode, FeedStart};
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::policy::container::{Catalog, Container, Index};
use lanekeeper_actors::policy::ttl::ItemTtl;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, Written};
use lanekeeper_actors::query::Query;
use lanekeeper_actors::reader::{
    Change, FeedFailed, FeedPage, FeedRequest, QueryFailed, QueryPage, QueryRequest, Scope,
};
use lanekeeper_actors::system::{System, SystemConfig};
use lanekeeper_actors::upkeep::UpkeepSettings;
use serde_json::Value;

use crate::support::{self, AMPLE};

/// A container whose partition key stands at these properties.
pub(crate) fn container(name: &str, key: &[&str]) -> Container {
    let path = |name: &&str| KeyPath::property(vec![(*name).to_owned()]);
    let rules = DocumentRules { key: key.iter().map(path).collect(), max_bytes: 2 << 20, max_depth: 128 };
    Container::plain(name.into(), rules)
}

/// Indexes of these paths; a path is written with dots.
pub(crate) fn indexes(all: &[&[&str]]) -> Vec<Index> {
    let path = |path: &&str| path.split('.').map(str::to_owned).collect();
    all.iter().map(|paths| Index { paths: paths.iter().map(path).collect() }).collect()
}

struct Nowhere;

impl Transport for Nowhere {
    fn deliver(&self, _: Attempt) -> futures_util::future::BoxFuture<'static, Outcome> {
        Box::pin(async { Outcome::from_status(204, None) })
    }
}

/// Rounds of upkeep that follow each other quickly.
pub(crate) fn quick() -> UpkeepSettings {
    UpkeepSettings { interval: Duration::from_millis(10), ..UpkeepSettings::default() }
}

/// Settings for tests: rounds of upkeep follow each other quickly.
pub(crate) fn config(data: &Path, containers: impl IntoIterator<Item = Container>) -> SystemConfig {
    let mut config = support::config(data, Vec::new());
    config.catalog = Catalog::new(containers);
    config.upkeep = Some(quick());
    config.default_shards = 3;
    config
}

pub(crate) async fn start(config: SystemConfig) -> System {
    start_at(config, SystemClock::shared()).await
}

pub(crate) async fn start_at(config: SystemConfig, clock: SharedClock) -> System {
    let fatal = Arc::new(|text: &str| panic!("{text}"));
    System::start(config, Arc::new(Nowhere), clock, fatal).await.unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn key(parts: &[&str]) -> Vec<KeyPart> {
    parts.iter().map(|part| KeyPart::String((*part).to_owned())).collect()
}

pub(crate) fn scope(container: &str, parts: &[&str]) -> Scope {
    Scope { container: container.into(), tenant: None, key: key(parts) }
}

pub(crate) fn scope_of(container: &str, owner: &str, parts: &[&str]) -> Scope {
    Scope { container: container.into(), tenant: Some(tenant(owner)), key: key(parts) }
}

/// The partition that a scope with a whole key is.
pub(crate) fn partition(system: &System, scope: &Scope) -> PartitionHandle {
    let Scope { container, tenant, key } = scope.clone();
    system.directory().partition(&PartitionAddress { container, tenant, key }).unwrap()
}

pub(crate) fn content(document: &Value) -> Content {
    let ttl = ItemTtl::from_json(document.get("ttl")).unwrap();
    Content { body: Bytes::from(document.to_string()), ttl, properties: 1 }
}

pub(crate) fn upsert(document: &Value) -> Write {
    support::write(document["id"].as_str().unwrap(), Operation::Upsert(content(document)))
}

pub(crate) fn delete(id: &str) -> Write {
    support::write(id, Operation::Delete)
}

/// Writes in one transaction.
pub(crate) async fn transact(system: &System, scope: &Scope, writes: Vec<Write>) -> Vec<Written> {
    partition(system, scope).transact(writes, None, AMPLE).await.unwrap()
}

/// Writes documents in transactions of some.
pub(crate) async fn put(system: &System, scope: &Scope, documents: &[Value]) {
    for some in documents.chunks(40) {
        transact(system, scope, some.iter().map(upsert).collect()).await;
    }
}

pub(crate) fn request(scope: &Scope, text: &str, limit: usize) -> QueryRequest {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    QueryRequest {
        scope: scope.clone(),
        query: Arc::new(query),
        parameters: Vec::new(),
        limit,
        continuation: None,
        longest_continuation: 1 << 20,
        explain: true,
    }
}

pub(crate) async fn page(
    system: &System,
    scope: &Scope,
    text: &str,
    limit: usize,
    continuation: Option<String>,
) -> Result<QueryPage, QueryFailed> {
    let request = QueryRequest { continuation, ..request(scope, text, limit) };
    system.reader().query(request).await
}

/// All pages of a query, and how many there were.
pub(crate) async fn pages(system: &System, scope: &Scope, text: &str, limit: usize) -> (Vec<Value>, usize) {
    let (mut rows, mut count, mut continuation) = (Vec::new(), 0, None);
    loop {
        let next = page(system, scope, text, limit, continuation).await;
        let next = next.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert!(next.rows.len() <= limit, "{text}: {} rows in a page of {limit}", next.rows.len());
        rows.extend(next.rows);
        count += 1;
        assert!(count < 100_000, "{text} does not end");
        match next.continuation {
            Some(text) => continuation = Some(text),
            None => return (rows, count),
        }
    }
}

pub(crate) async fn rows(system: &System, scope: &Scope, text: &str) -> Vec<Value> {
    pages(system, scope, text, 100_000).await.0
}

/// How the rows of a query are found.
pub(crate) async fn access(system: &System, scope: &Scope, text: &str) -> String {
    let page = page(system, scope, text, 1, None).await.unwrap();
    page.plan.unwrap()["access"].as_str().unwrap().to_owned()
}

pub(crate) fn feed(scope: &Scope, mode: FeedMode, from: FeedStart) -> FeedRequest {
    FeedRequest {
        scope: scope.clone(),
        mode,
        from,
        limit: 1_000,
        bytes: 4 << 20,
        wait: Duration::ZERO,
        previous: false,
    }
}

/// All that a feed has now, in pages of `limit`, and the cursor behind it.
pub(crate) async fn follow(
    system: &System,
    mut request: FeedRequest,
    limit: usize,
) -> Result<(Vec<Vec<Change>>, FeedCursor), FeedFailed> {
    request.limit = limit;
    let (mut all, mut empty) = (Vec::new(), 0);
    loop {
        let FeedPage { changes, cursor, .. } = system.reader().changes(request.clone()).await?;
        let still = matches!(&request.from, FeedStart::Cursor(before) if *before == cursor);
        request.from = FeedStart::Cursor(cursor.clone());
        empty = if changes.is_empty() { empty + 1 } else { 0 };
        if !changes.is_empty() {
            all.push(changes);
        } else if still || empty > 1_000 {
            return Ok((all, cursor));
        }
    }
}
