//! A house for tests: everything behind the listeners, on a temporary data directory.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use actix_web::web::Data;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::delivery::{Attempt, Outcome, Transport};
use lanekeeper_actors::model::ids::Lsn;
use tempfile::TempDir;

use super::build;
use crate::http::Gateway;
use crate::http::admin::{Admin, TOKEN_VARIABLE};
use crate::manifest::{Flags, Manifest, Source, Sources, load};

/// A key of the tenant `acme` for all apis, without a rate.
pub(crate) const KEY: &str = "the-main-key-of-acme";
/// The operator's token.
pub(crate) const TOKEN: &str = "operators-own-token";

const MANIFEST: &str = r#"
manifest: 1
project: test
server: { listen: "127.0.0.1:0", admin: "127.0.0.1:0", shards: 2 }
limits: { body: 64KiB, connections_per_ip: 4, body_timeout: 1s, header_timeout: 1s, drain_timeout: 5s }
containers:
  loads: { partition_key: [/lane] }
  notes: { partition_key: [/owner], tenancy: isolated }
topics:
  load-events: { from: { container: loads, types: { created: LoadCreated } } }
event_subscriptions:
  refusing:
    topic: load-events
    types: [LoadCreated]
    to: { webhook: "http://127.0.0.1:9/hook?code=secret", allow: [127.0.0.0/8] }
apis:
  freight:
    path: /freight
    version: { by: path, name: v1 }
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      fixed: { method: POST, path: /fixed, to: { container: loads, do: create, partition: a } }
      read: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      put: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" } }
      swap: { method: PUT, path: "/swaps/{lane}/{id}", to: { container: loads, do: replace, partition: "{lane}", id: "{id}" } }
      delete: { method: DELETE, path: "/loads/{lane}/{id}", to: { container: loads, do: delete, partition: "{lane}", id: "{id}" } }
      list: { method: GET, path: "/loads/{lane}", to: { container: loads, do: list, partition: "{lane}" } }
      ping: { method: GET, path: /ping, to: { mock: { status: 200, body: { ok: true } } } }
  notes:
    path: /notes
    operations:
      add: { method: POST, path: /, to: { container: notes, do: create } }
      one: { method: GET, path: "/{owner}/{id}", to: { container: notes, do: read, partition: "{owner}", id: "{id}" } }
      put: { method: PUT, path: "/{owner}/{id}", to: { container: notes, do: replace, partition: "{owner}", id: "{id}" } }
      gone: { method: DELETE, path: "/{owner}/{id}", to: { container: notes, do: delete, partition: "{owner}", id: "{id}" } }
      all: { method: GET, path: "/{owner}", to: { container: notes, do: list, partition: "{owner}" } }
products:
  all: { apis: [freight, notes] }
  notes: { apis: [notes] }
  slow: { apis: [freight], rate: { calls: 2, per: 1h } }
api_keys:
  main: { product: all, tenant: acme, primary: { env: MAIN } }
  other: { product: all, tenant: other, primary: { env: OTHER } }
  notes: { product: notes, tenant: acme, primary: { env: NOTES } }
  slow: { product: slow, tenant: acme, primary: { env: SLOW } }
"#;

/// An endpoint that answers every attempt with one status.
#[derive(Debug, Default)]
struct Endpoint(AtomicU16);

impl Transport for Endpoint {
    fn deliver(&self, _: Attempt) -> BoxFuture<'static, Outcome> {
        let outcome = Outcome::from_status(self.0.load(Ordering::SeqCst), None);
        async move { outcome }.boxed()
    }
}

/// The rooms of one data directory.
pub(crate) struct House {
    pub(crate) gateway: Data<Gateway>,
    pub(crate) admin: Data<Admin>,
    /// Mutations that the start itself made.
    pub(crate) seeded: u64,
    endpoint: Arc<Endpoint>,
    _folder: TempDir,
}

/// The manifest of tests over a folder.
pub(crate) fn manifest(folder: &TempDir) -> Manifest {
    let environment = [
        ("MAIN", KEY),
        ("OTHER", "another-tenants-key-1"),
        ("NOTES", "only-for-notes-key-1"),
        ("SLOW", "slow-callers-key-001"),
    ];
    let sources = Sources {
        files: vec![Source::Text { name: "test".into(), text: MANIFEST.into() }],
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        flags: Flags { data: Some(folder.path().join("data")), ..Flags::default() },
    };
    load(&sources).unwrap()
}

impl House {
    /// Opens a new one.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Arc::new(Endpoint(AtomicU16::new(400)));
        let environment = [(TOKEN_VARIABLE.to_owned(), TOKEN.to_owned())];
        let fatal: lanekeeper_actors::shard::Fatal = Arc::new(|why| panic!("{why}"));
        let transport: Arc<dyn Transport> = endpoint.clone();
        let made =
            build(&manifest(&folder), &environment, SystemClock::shared(), fatal, Some(transport)).await;
        let super::Built { gateway, admin, .. } = made.unwrap();
        let seeded = admin.system.shards().iter().map(|shard| shard.status().mutations).sum();
        Self { gateway: Data::new(gateway), admin: Data::new(admin), seeded, endpoint, _folder: folder }
    }

    /// From now on every event is taken.
    pub(crate) fn accept(&self) {
        self.endpoint.0.store(200, Ordering::SeqCst);
    }

    /// Waits until `done`, which must come true by itself.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, done: impl Fn() -> F) {
        let waiting = async {
            while !done().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never came true");
    }

    /// The trace contexts of all documents that were written.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        for shard in self.admin.system.shards() {
            let groups = shard.log().read(Lsn(1), 1 << 30).unwrap();
            for group in groups {
                traces.extend(group.changes().filter_map(|(_, change)| change.traceparent.clone()));
            }
        }
        traces.iter().map(ToString::to_string).collect()
    }

    /// Ends it in order.
    pub(crate) async fn drain(&self) {
        assert!(self.admin.system.drain(Duration::from_secs(20)).await);
    }
}
