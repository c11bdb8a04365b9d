//! A committed fact as an event of a topic.
//!
//! Stands between the log, which has the facts, and whoever is told of them. Invariant: the same fact
//! and topic give the same event, however often it is made.

mod legacy;

use std::sync::OnceLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::PartitionAddress;
use super::change::{DocumentChange, Mutation, PublishedEvent};
use super::cloudevent::{CloudEvent, Data, Extension, from_json};
use super::document;
use super::ids::{Etag, Position, TenantId};
use super::json::value_at;
use super::time::Timestamp;
use super::topic::{Topic, TopicSource};

/// Extension that counts how often an event was published again by those who were told of it.
pub const HOPS: &str = "hops";

/// One event with its place. Shared by all who are told of it: there is one copy of its body.
#[derive(Debug)]
pub struct Event {
    /// Where the fact was committed.
    pub position: Position,
    /// When it was committed: its age counts from here.
    pub at: Timestamp,
    /// Whom it is about, if a tenant.
    pub tenant: Option<TenantId>,
    /// Events with the same key have an order among each other.
    pub key: Bytes,
    /// What is told.
    pub cloud: CloudEvent,
    json: OnceLock<Bytes>,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        StoredEvent::from(self) == StoredEvent::from(other)
    }
}

impl Event {
    /// The event that a mutation is in a topic; `None` if it is none.
    pub fn of(topic: &Topic, position: Position, mutation: &Mutation) -> Option<Self> {
        match (mutation, &topic.source) {
            (Mutation::Document(change), TopicSource::Changes { .. }) => {
                Self::of_change(topic, position, change)
            }
            (Mutation::Event(event), TopicSource::Published) if event.topic == topic.name => {
                Self::of_published(position, event)
            }
            (
                Mutation::Document(_) | Mutation::Event(_) | Mutation::Put { .. } | Mutation::Delete { .. },
                _,
            ) => None,
        }
    }

    /// The same event with bytes of its own. One that was found in a group of the log keeps all bytes of that group
    /// in memory for as long as it is there itself.
    #[must_use]
    pub fn detached(self) -> Self {
        let data = match self.cloud.data {
            Data::Json(bytes) => Data::Json(Bytes::copy_from_slice(&bytes)),
            Data::Binary(bytes) => Data::Binary(Bytes::copy_from_slice(&bytes)),
            data @ (Data::None | Data::Text(_)) => data,
        };
        let key = Bytes::copy_from_slice(&self.key);
        Self { key, cloud: CloudEvent { data, ..self.cloud }, ..self }
    }

    fn of_change(topic: &Topic, position: Position, change: &DocumentChange) -> Option<Self> {
        let TopicSource::Changes { container, types } = &topic.source else { return None };
        let event_type = types.of(change.kind)?;
        let (address, _) = PartitionAddress::decode(change.partition.as_bytes())?;
        if address.container != *container {
            return None;
        }
        let key_text = address.key_text();
        let etag = Etag(position).to_string();
        let mut extensions = vec![
            ("partitionkey".to_owned(), Extension::Text(key_text.clone())),
            ("sequence".to_owned(), Extension::Text(sequence(position))),
            ("etag".to_owned(), Extension::Text(etag.trim_matches('"').to_owned())),
        ];
        if let Some(traceparent) = &change.traceparent {
            extensions.push(("traceparent".to_owned(), Extension::Text(traceparent.to_string())));
        }
        let tenant = match &topic.tenant_path {
            Some(path) => tenant_at(&change.body, path),
            None => address.tenant.clone(),
        };
        let cloud = CloudEvent {
            id: position.to_string(),
            source: format!("/containers/{container}"),
            event_type: event_type.to_string(),
            subject: Some(format!("{key_text}/{}", change.id)),
            time: Some(change.at.to_string()),
            datacontenttype: Some("application/json".to_owned()),
            dataschema: None,
            extensions,
            data: Data::Json(data(&address, position, change)),
        };
        let key = change.partition.as_bytes().clone();
        Some(Self { position, at: change.at, tenant, key, cloud, json: OnceLock::new() })
    }

    fn of_published(position: Position, event: &PublishedEvent) -> Option<Self> {
        let mut cloud = from_json(&event.body).ok()?;
        let key = match cloud.extension("partitionkey") {
            Some(Extension::Text(key)) => key.clone(),
            Some(_) | None => cloud.subject.clone().unwrap_or_else(|| cloud.source.clone()),
        };
        if cloud.extension("sequence").is_none() {
            cloud.set_extension("sequence", Extension::Text(sequence(position)));
        }
        Some(Self {
            position,
            at: event.at,
            tenant: event.tenant.clone(),
            key: key.into(),
            cloud,
            json: OnceLock::new(),
        })
    }

    /// The event in CloudEvents structured mode. Written once, however many are told of it.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| {
            let mut out = Vec::new();
            self.cloud.write_json(&mut out);
            out.into()
        })
    }

    /// W3C trace context of the request that led to it.
    pub fn traceparent(&self) -> Option<&str> {
        match self.cloud.extension("traceparent") {
            Some(Extension::Text(text)) => Some(text),
            Some(_) | None => None,
        }
    }

    /// How often it was published again by those who were told of it.
    pub fn hops(&self) -> u32 {
        hops(&self.cloud)
    }
}

/// How often an event was published again by those who were told of it.
pub fn hops(event: &CloudEvent) -> u32 {
    match event.extension(HOPS) {
        Some(Extension::Integer(hops)) => u32::try_from(*hops).unwrap_or(0),
        // In a header everything is text.
        Some(Extension::Text(text)) => text.parse().unwrap_or(0),
        Some(Extension::Boolean(_)) | None => 0,
    }
}

fn sequence(position: Position) -> String {
    format!("{:020}", position.lsn.0)
}

/// The document as a read shows it; of a document that is gone, its id and partition key.
fn data(address: &PartitionAddress, position: Position, change: &DocumentChange) -> Bytes {
    if change.kind.is_removal() {
        let gone = json!({ "id": change.id.as_str(), "partition": address.key_json() });
        return gone.to_string().into();
    }
    let mut out = Vec::with_capacity(change.body.len() + 96);
    document::render(&change.body, Etag(position), change.at, position.lsn, &mut out);
    out.into()
}

/// The tenant whom a document names; nobody's if it names none.
fn tenant_at(body: &Bytes, path: &[String]) -> Option<TenantId> {
    let document = document::read(body).ok()?;
    TenantId::new(value_at(&document, path)?.as_str()?).ok()
}

/// An event that is kept by itself, because the log may forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "legacy::AnyStoredEvent")]
pub struct StoredEvent {
    position: Position,
    at: Timestamp,
    tenant: Option<TenantId>,
    key: Bytes,
    cloud: CloudEvent,
}

impl From<&Event> for StoredEvent {
    fn from(event: &Event) -> Self {
        Self {
            position: event.position,
            at: event.at,
            tenant: event.tenant.clone(),
            key: event.key.clone(),
            cloud: event.cloud.clone(),
        }
    }
}

impl From<StoredEvent> for Event {
    fn from(stored: StoredEvent) -> Self {
        let StoredEvent { position, at, tenant, key, cloud } = stored;
        Self { position, at, tenant, key, cloud, json: OnceLock::new() }
    }
}

impl StoredEvent {
    /// Where the fact was committed.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What is told.
    pub fn cloud(&self) -> &CloudEvent {
        &self.cloud
    }

    /// Whom it is about, if a tenant.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// The same event with another type.
    pub(crate) fn with_type(mut self, event_type: String) -> Self {
        self.cloud.event_type = event_type;
        self.cloud.extensions.retain(|(name, _)| name != legacy::KIND);
        self
    }

    /// The event as one of `topic`; `None` if the topic has no such events.
    pub fn of_topic(self, topic: &Topic) -> Option<Event> {
        if !self.cloud.event_type.is_empty() {
            return Some(self.into());
        }
        let event_type = legacy::type_of(&self, topic)?;
        Some(self.with_type(event_type).into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::KeyPart;
    use super::super::change::ChangeKind;
    use super::super::ids::{DocumentId, Lsn, ShardId};
    use super::super::topic::EventTypes;
    use super::*;
    use serde_json::Value;

    fn topic() -> Topic {
        let types = EventTypes {
            created: Some("LoadCreated".into()),
            replaced: Some("LoadUpdated".into()),
            deleted: Some("LoadDeleted".into()),
        };
        Topic::of_changes("load-events".into(), "loads".into(), types)
    }

    fn change(kind: ChangeKind) -> DocumentChange {
        let key = vec![KeyPart::String("OSL-BER".into())];
        let address = PartitionAddress { container: "loads".into(), tenant: None, key };
        DocumentChange {
            kind,
            partition: address.encode(),
            id: DocumentId::new("l-1").unwrap(),
            at: Timestamp(1_700_000_000_123),
            previous: None,
            body: Bytes::from_static(br#"{"id":"l-1","lane":"OSL-BER","for":{"tenant":"acme"}}"#),
            traceparent: Some("00-1-2-01".into()),
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        }
    }

    const AT: Position = Position { shard: ShardId(2), lsn: Lsn(812) };

    fn json_of(topic: &Topic, kind: ChangeKind) -> Value {
        let event = Event::of(topic, AT, &Mutation::Document(change(kind))).unwrap();
        serde_json::from_slice(event.json()).unwrap()
    }

    #[test]
    fn a_change_is_a_cloud_event_with_its_document() {
        let json = json_of(&topic(), ChangeKind::Create);
        assert_eq!(json["specversion"], "1.0");
        assert_eq!(json["id"], "2-812");
        assert_eq!(json["source"], "/containers/loads");
        assert_eq!(json["type"], "LoadCreated");
        assert_eq!(json["subject"], "OSL-BER/l-1");
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(json["sequence"], "00000000000000000812");
        assert_eq!(json["traceparent"], "00-1-2-01");
        assert_eq!(json["data"]["lane"], "OSL-BER");
        assert_eq!(json["data"]["_lsn"], 812);
    }

    #[test]
    fn a_delete_tells_only_what_is_gone() {
        let json = json_of(&topic(), ChangeKind::Delete);
        assert_eq!(json["data"], json!({ "id": "l-1", "partition": ["OSL-BER"] }));
    }

    #[test]
    fn a_change_of_another_container_or_without_a_type_is_no_event() {
        let mutation = Mutation::Document(change(ChangeKind::Create));
        let other = Topic::of_changes("t".into(), "load".into(), EventTypes::default());
        let published = Topic::published("load-events".into());
        assert_eq!(Event::of(&other, AT, &mutation), None);
        assert_eq!(Event::of(&published, AT, &mutation), None);
    }

    #[test]
    fn a_topic_may_say_where_a_document_names_its_tenant() {
        let tenant = |path: &[&str]| {
            let path = Some(path.iter().map(|name| (*name).to_owned()).collect());
            let topic = Topic { tenant_path: path, ..topic() };
            Event::of(&topic, AT, &Mutation::Document(change(ChangeKind::Create))).unwrap().tenant
        };
        assert_eq!(tenant(&["for", "tenant"]), Some(TenantId::new("acme").unwrap()));
        assert_eq!(tenant(&["lane", "tenant"]), None);
        assert_eq!(tenant(&["for"]), None);
    }

    #[test]
    fn what_is_published_keeps_its_attributes_and_gets_a_sequence() {
        let body = br#"{"specversion":"1.0","id":"a","source":"/s","type":"T","subject":"x","hops":3,"data":{"n":1.0}}"#;
        let published = |topic: &str| {
            Mutation::Event(PublishedEvent {
                topic: topic.into(),
                tenant: None,
                at: Timestamp(5),
                mark: None,
                body: Bytes::from_static(body),
            })
        };
        let topic = Topic::published("partner-events".into());
        let event = Event::of(&topic, AT, &published("partner-events")).unwrap();
        let json = String::from_utf8(event.json().to_vec()).unwrap();
        assert!(json.contains(r#""data":{"n":1.0}"#), "{json}");
        assert!(json.contains(r#""sequence":"00000000000000000812""#), "{json}");
        assert_eq!((event.hops(), &event.key[..]), (3, b"x".as_slice()));
        assert_eq!(Event::of(&topic, AT, &published("others")), None);
    }

    #[test]
    fn a_stored_event_is_the_same_event() {
        let event = Event::of(&topic(), AT, &Mutation::Document(change(ChangeKind::Replace))).unwrap();
        let bytes = rmp_serde::to_vec(&StoredEvent::from(&event)).unwrap();
        let back: StoredEvent = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(Event::from(back), event);
    }
}
