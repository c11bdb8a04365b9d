//! Stored events as version 0.1.0 wrote them: the change itself, without its type.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::{Event, StoredEvent};
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::change::{ChangeKind, DocumentChange, Mutation};
use crate::model::cloudevent::{CloudEvent, Extension};
use crate::model::ids::{DocumentId, Name, Position, TenantId};
use crate::model::time::Timestamp;
use crate::model::topic::{EventTypes, Topic, TopicSource};

/// A stored event of any version.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum AnyStoredEvent {
    Current(Current),
    First(First),
}

#[derive(Deserialize)]
pub(super) struct Current {
    position: Position,
    at: Timestamp,
    tenant: Option<TenantId>,
    key: Bytes,
    cloud: CloudEvent,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct First {
    position: Position,
    kind: ChangeKind,
    partition: Bytes,
    id: DocumentId,
    at: Timestamp,
    body: Bytes,
    traceparent: Option<Arc<str>>,
}

/// Types that stand for kinds of change, until the topic says its own.
const KINDS: [(ChangeKind, &str); 3] =
    [(ChangeKind::Create, "create"), (ChangeKind::Replace, "replace"), (ChangeKind::Delete, "delete")];
/// Where such a type is kept: an attribute that no event has.
pub(super) const KIND: &str = "changekind";

impl From<AnyStoredEvent> for StoredEvent {
    fn from(any: AnyStoredEvent) -> Self {
        match any {
            AnyStoredEvent::Current(Current { position, at, tenant, key, cloud }) => {
                Self { position, at, tenant, key, cloud }
            }
            AnyStoredEvent::First(first) => first.into(),
        }
    }
}

impl From<First> for StoredEvent {
    fn from(first: First) -> Self {
        let First { position, kind, partition, id, at, body, traceparent } = first;
        let partition = EncodedPartition::from_bytes(partition);
        let address = PartitionAddress::decode(partition.as_bytes());
        let container = address.map_or_else(|| Name::from(""), |(address, _)| address.container);
        let change = DocumentChange {
            kind,
            partition: partition.clone(),
            id,
            at,
            previous: None,
            body,
            traceparent,
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        };
        let name = |kind| KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| Name::from(*name));
        let types = EventTypes {
            created: name(ChangeKind::Create),
            replaced: name(ChangeKind::Replace),
            deleted: name(ChangeKind::Delete),
        };
        let topic = Topic::of_changes(Name::from(""), container, types);
        match Event::of(&topic, position, &Mutation::Document(change)) {
            Some(event) => {
                let mut stored = Self::from(&event);
                let kind = std::mem::take(&mut stored.cloud.event_type);
                stored.cloud.set_extension(KIND, Extension::Text(kind));
                stored
            }
            // Its partition cannot be read back: what is known is kept for whoever looks at it.
            None => {
                let cloud = CloudEvent::new(position.to_string(), "/containers", "");
                Self { position, at, tenant: None, key: partition.as_bytes().clone(), cloud }
            }
        }
    }
}

/// The type that a topic has for an event that was stored without one.
pub(super) fn type_of(stored: &StoredEvent, topic: &Topic) -> Option<String> {
    let TopicSource::Changes { types, .. } = &topic.source else { return None };
    let kind = stored.cloud.extension(KIND)?.as_text();
    let (kind, _) = KINDS.iter().find(|(_, name)| *name == kind)?;
    types.of(*kind).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::address::KeyPart;
    use crate::model::ids::{Lsn, ShardId};

    #[test]
    fn an_event_that_the_first_version_stored_reads_as_the_same_event_of_its_topic() {
        let address = PartitionAddress {
            container: "loads".into(),
            tenant: Some(TenantId::new("acme").unwrap()),
            key: vec![KeyPart::String("OSL-BER".into())],
        };
        let first = First {
            position: Position { shard: ShardId(1), lsn: Lsn(7) },
            kind: ChangeKind::Replace,
            partition: address.encode().as_bytes().clone(),
            id: DocumentId::new("l-1").unwrap(),
            at: Timestamp(1_700_000_000_000),
            body: Bytes::from_static(br#"{"id":"l-1","lane":"OSL-BER"}"#),
            traceparent: Some("00-1-2-01".into()),
        };
        let bytes = rmp_serde::to_vec(&first).unwrap();
        let stored: StoredEvent = rmp_serde::from_slice(&bytes).unwrap();
        let types = EventTypes { replaced: Some("LoadUpdated".into()), ..EventTypes::default() };
        let topic = Topic::of_changes("load-events".into(), "loads".into(), types);
        let event = stored.clone().of_topic(&topic).unwrap();
        assert_eq!((&*event.cloud.event_type, &*event.cloud.id), ("LoadUpdated", "1-7"));
        assert_eq!(event.cloud.subject.as_deref(), Some("OSL-BER/l-1"));
        assert_eq!(event.cloud.extension(KIND), None);
        assert_eq!(event.tenant, Some(TenantId::new("acme").unwrap()));
        let without = Topic::of_changes("t".into(), "loads".into(), EventTypes::default());
        assert!(stored.of_topic(&without).is_none());
    }
}
