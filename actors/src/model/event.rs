//! A committed change as an event, and its CloudEvents 1.0.2 JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::{EncodedPartition, PartitionAddress};
use super::change::{ChangeKind, DocumentChange};
use super::document;
use super::ids::{DocumentId, Etag, Name, Position};
use super::time::Timestamp;

/// Media type of [`Event::to_cloud_event`] (CloudEvents JSON format section 3).
pub const CLOUD_EVENT: &str = "application/cloudevents+json; charset=utf-8";

/// Which kinds of change become events of a topic, and their types. `None`: no event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTypes {
    /// Type of a create.
    pub created: Option<Name>,
    /// Type of a replace.
    pub replaced: Option<Name>,
    /// Type of a delete.
    pub deleted: Option<Name>,
}

impl EventTypes {
    /// The type of an event of this kind, if the topic has one.
    pub fn of(&self, kind: ChangeKind) -> Option<&Name> {
        match kind {
            ChangeKind::Create => self.created.as_ref(),
            ChangeKind::Replace => self.replaced.as_ref(),
            ChangeKind::Delete | ChangeKind::Expire => self.deleted.as_ref(),
        }
    }
}

/// One change with its place. Cheap to share: a fan-out holds one copy of the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Where it was committed; also its id.
    pub position: Position,
    /// Container, tenant and partition key.
    pub address: PartitionAddress,
    /// `<partition key parts joined by />/<document id>`.
    pub subject: String,
    /// What was committed.
    pub change: DocumentChange,
}

impl Event {
    /// The event of a change; `None` if its partition cannot be read back.
    pub fn new(position: Position, change: &DocumentChange) -> Option<Self> {
        let (address, _) = PartitionAddress::decode(change.partition.as_bytes())?;
        let subject = format!("{}/{}", address.key_text(), change.id);
        Some(Self { position, address, subject, change: change.clone() })
    }

    /// The event in CloudEvents structured mode. `data` is the document as a read shows it; for a
    /// delete, its id and partition key.
    pub fn to_cloud_event(&self, event_type: &str) -> Bytes {
        let Self { position, address, subject, change } = self;
        let mut head = json!({
            "specversion": "1.0",
            "id": position.to_string(),
            "source": format!("/containers/{}", address.container),
            "type": event_type,
            "subject": subject,
            "time": change.at.to_string(),
            "datacontenttype": "application/json",
            "partitionkey": address.key_text(),
            "sequence": format!("{:020}", position.lsn.0),
            "etag": Etag(*position).to_string().trim_matches('"'),
        });
        if let (Some(traceparent), Some(head)) = (&change.traceparent, head.as_object_mut()) {
            head.insert("traceparent".into(), json!(&**traceparent));
        }
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(b",\"data\":");
        if change.kind.is_removal() {
            let gone = json!({ "id": change.id.as_str(), "partition": address.key_json() });
            out.extend_from_slice(gone.to_string().as_bytes());
        } else {
            document::render(&change.body, Etag(*position), change.at, position.lsn, &mut out);
        }
        out.push(b'}');
        out.into()
    }
}

/// An event that is kept by itself, because the log may forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    position: Position,
    kind: ChangeKind,
    partition: Bytes,
    id: DocumentId,
    at: Timestamp,
    body: Bytes,
    traceparent: Option<Arc<str>>,
}

impl From<&Event> for StoredEvent {
    fn from(event: &Event) -> Self {
        let change = &event.change;
        Self {
            position: event.position,
            kind: change.kind,
            partition: change.partition.as_bytes().clone(),
            id: change.id.clone(),
            at: change.at,
            body: change.body.clone(),
            traceparent: change.traceparent.clone(),
        }
    }
}

impl StoredEvent {
    /// Where the change was committed.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The event; `None` if its partition cannot be read back.
    pub fn into_event(self) -> Option<Event> {
        let change = DocumentChange {
            kind: self.kind,
            partition: EncodedPartition::from_bytes(self.partition),
            id: self.id,
            at: self.at,
            previous: None,
            body: self.body,
            traceparent: self.traceparent,
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        };
        Event::new(self.position, &change)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::address::KeyPart;
    use super::super::ids::{Lsn, ShardId};
    use super::*;

    fn event(kind: ChangeKind) -> Event {
        let key = vec![KeyPart::String("OSL-BER".into())];
        let address = PartitionAddress { container: "loads".into(), tenant: None, key };
        let change = DocumentChange {
            kind,
            partition: address.encode(),
            id: DocumentId::new("l-1").unwrap(),
            at: Timestamp(1_700_000_000_123),
            previous: None,
            body: Bytes::from_static(br#"{"id":"l-1","lane":"OSL-BER"}"#),
            traceparent: Some("00-1-2-01".into()),
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        };
        Event::new(Position { shard: ShardId(2), lsn: Lsn(812) }, &change).unwrap()
    }

    #[test]
    fn a_change_is_a_cloud_event_with_its_document() {
        let json: Value =
            serde_json::from_slice(&event(ChangeKind::Create).to_cloud_event("LoadCreated")).unwrap();
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
        let json: Value =
            serde_json::from_slice(&event(ChangeKind::Delete).to_cloud_event("LoadDeleted")).unwrap();
        assert_eq!(json["data"], json!({ "id": "l-1", "partition": ["OSL-BER"] }));
    }

    #[test]
    fn a_stored_event_is_the_same_event() {
        let event = event(ChangeKind::Replace);
        let bytes = rmp_serde::to_vec(&StoredEvent::from(&event)).unwrap();
        let back: StoredEvent = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back.into_event().unwrap(), event);
    }
}
