//! The freight exchange of the demonstration: its manifest, its subscribers, its loads.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Who hears of loads. The order is that of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Matching,
    SearchIndexer,
    CarrierNotification,
    PartnerWebhook,
}

impl Name {
    pub(super) const ALL: [Self; 4] =
        [Self::Matching, Self::SearchIndexer, Self::CarrierNotification, Self::PartnerWebhook];

    /// The name of the subscription, and its path at the subscribers' server.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Matching => "matching",
            Self::SearchIndexer => "search-indexer",
            Self::CarrierNotification => "carrier-notification",
            Self::PartnerWebhook => "partner-webhook",
        }
    }

    /// Whether the subscription matches this write; the same as `types` in the manifest.
    pub(super) fn wants(self, write: Write) -> bool {
        match self {
            Self::Matching | Self::PartnerWebhook => write.revision == CREATED,
            Self::SearchIndexer | Self::CarrierNotification => true,
        }
    }
}

/// Lanes that loads travel on; each is a partition.
const LANES: usize = 20;
const PORTS: [&str; 5] = ["AMS", "HAM", "LYO", "MIL", "WAW"];
/// The revision of a document that was just created; an update has the next one.
pub(super) const CREATED: u32 = 1;

/// One write of a load, and so one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Write {
    /// The number of the load.
    pub(super) load: usize,
    /// How often it was written before, plus one.
    pub(super) revision: u32,
}

impl Write {
    /// The first write of a load.
    pub(super) fn create(load: usize) -> Self {
        Self { load, revision: CREATED }
    }

    /// The write after that.
    pub(super) fn update(load: usize) -> Self {
        Self { load, revision: CREATED + 1 }
    }

    /// The id of the load.
    pub(super) fn id(self) -> String {
        format!("load-{:04}", self.load)
    }

    /// The corridor of the load: its partition key.
    pub(super) fn lane(self) -> String {
        let lane = self.load % LANES;
        let (from, step) = (lane % PORTS.len(), 1 + lane / PORTS.len());
        let port = |index: usize| PORTS.get(index % PORTS.len()).copied().unwrap_or_default();
        format!("{}-{}", port(from), port(from + step))
    }

    /// The document.
    pub(super) fn document(self) -> Value {
        json!({
            "id": self.id(),
            "lane": self.lane(),
            "ref": format!("NW-{:06}", self.load),
            "weight": 400 + self.load * 37 % 24_000,
            "status": if self.revision == CREATED { "open" } else { "priced" },
            "number": self.load,
            "revision": self.revision,
        })
    }

    /// The write that an event tells of, from the document in it.
    pub(super) fn of(document: &Value) -> Option<Self> {
        let number = |name: &str| document.get(name)?.as_u64();
        Some(Self {
            load: usize::try_from(number("number")?).ok()?,
            revision: u32::try_from(number("revision")?).ok()?,
        })
    }
}

/// The environment variable that the manifest takes the carrier's key from.
pub(super) const KEY_VARIABLE: &str = "DEMO_KEY";

/// The manifest, with the subscribers at `subscribers`.
pub(super) fn manifest(subscribers: SocketAddr) -> String {
    let mut text = format!(
        r#"manifest: 1
project: freight-exchange
server: {{ listen: [{{ addr: "127.0.0.1:0" }}], admin: "127.0.0.1:0", shards: 2 }}
containers:
  loads: {{ partition_key: [/lane] }}
topics:
  load-events: {{ from: {{ container: loads, types: {{ created: LoadCreated, replaced: LoadUpdated }} }} }}
apis:
  freight:
    path: /freight
    version: {{ by: path, name: v1 }}
    operations:
      createLoad: {{ method: POST, path: /loads, to: {{ container: loads, do: create }} }}
      getLoad: {{ method: GET, path: "/loads/{{lane}}/{{id}}", to: {{ container: loads, do: read, partition: "{{lane}}", id: "{{id}}" }} }}
      putLoad: {{ method: PUT, path: "/loads/{{lane}}/{{id}}", to: {{ container: loads, do: upsert, partition: "{{lane}}", id: "{{id}}" }} }}
      listLoads: {{ method: GET, path: "/loads/{{lane}}", to: {{ container: loads, do: list, partition: "{{lane}}" }} }}
products:
  carrier: {{ apis: [freight] }}
api_keys:
  demo: {{ product: carrier, tenant: acme, primary: {{ env: {KEY_VARIABLE} }} }}
event_subscriptions:
"#
    );
    for name in Name::ALL {
        let types = if name.wants(Write::update(0)) { "LoadCreated, LoadUpdated" } else { "LoadCreated" };
        // A hundredth of the real schedule, so that retries take tenths of seconds and not minutes.
        text.push_str(&format!(
            "  {name}:\n    topic: load-events\n    types: [{types}]\n    \
             to: {{ webhook: \"http://{subscribers}/{name}\", allow: [127.0.0.0/8] }}\n    \
             retry: {{ scale: 0.01 }}\n",
            name = name.as_str()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manifest::{Flags, Source, Sources, load};

    #[test]
    fn the_manifest_of_the_demonstration_is_sound() {
        let text = manifest("127.0.0.1:7001".parse().unwrap());
        let loaded = load(&Sources {
            files: vec![Source::Text { name: "demo".into(), text }],
            environment: vec![(KEY_VARIABLE.into(), "a-key-of-some-length".into())],
            flags: Flags::default(),
        });
        let manifest = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(manifest.event_subscriptions.len(), Name::ALL.len());
        for name in Name::ALL {
            let subscription = &manifest.event_subscriptions[name.as_str()];
            let updates = subscription.types.as_ref().unwrap().iter().any(|name| name == "LoadUpdated");
            assert_eq!(name.wants(Write::update(1)), updates);
        }
    }

    #[test]
    fn loads_spread_over_twenty_lanes_and_read_back_from_their_documents() {
        let lanes: BTreeSet<_> = (0..200).map(|load| Write::create(load).lane()).collect();
        assert_eq!(lanes.len(), LANES);
        for write in [Write::create(7), Write::update(199)] {
            assert_eq!(Write::of(&write.document()), Some(write));
        }
        assert_eq!(Write::of(&json!({"number": 1})), None);
    }
}
