//! The project that most promises are tested with: shared loads, isolated notes, callers of several kinds.

/// Another tenant with the same product as `main`.
pub(crate) const OTHER_KEY: &str = "another-tenants-key-1";
/// May call only the notes.
pub(crate) const NOTES_KEY: &str = "only-for-notes-key-1";
/// Was good until the year 2020.
pub(crate) const EXPIRED_KEY: &str = "good-until-2020-key-1";
/// Two calls an hour.
pub(crate) const SLOW_KEY: &str = "slow-callers-key-001";

const MANIFEST: &str = r#"
manifest: 1
project: promises
server: { shards: 2 }
limits: { LIMITS }
containers:
  loads: { partition_key: [/lane] }
  notes: { partition_key: [/owner], tenancy: isolated }
topics:
  load-events: { from: { container: loads, types: { created: LoadCreated, replaced: LoadUpdated, deleted: LoadDeleted } } }
event_subscriptions: { SUBSCRIPTIONS }
apis:
  freight:
    path: /freight
    version: { by: path, name: v1 }
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      read: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      put: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" } }
      swap: { method: PUT, path: "/swaps/{lane}/{id}", to: { container: loads, do: replace, partition: "{lane}", id: "{id}" } }
      gone: { method: DELETE, path: "/loads/{lane}/{id}", to: { container: loads, do: delete, partition: "{lane}", id: "{id}" } }
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
  expired: { product: all, tenant: acme, primary: { env: EXPIRED }, expires: 2020-01-31 }
  slow: { product: slow, tenant: acme, primary: { env: SLOW } }
"#;

use super::server::House;

/// A new data directory under the project, with these limits and subscriptions (inside of the braces).
pub(crate) fn house(limits: &str, subscriptions: &str) -> House {
    let manifest = MANIFEST.replace("LIMITS", limits).replace("SUBSCRIPTIONS", subscriptions);
    let keys = [("OTHER", OTHER_KEY), ("NOTES", NOTES_KEY), ("EXPIRED", EXPIRED_KEY), ("SLOW", SLOW_KEY)];
    keys.iter().fold(House::new(&manifest), |house, (name, key)| house.with(name, key))
}
