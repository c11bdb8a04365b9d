//! What a commit does, as physical facts: "put these bytes at this key".
//!
//! Invariant: applying the same mutations in the same order gives the same view, on any node,
//! any number of times.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::address::EncodedPartition;
use super::ids::{DocumentId, Lsn, Name, TenantId};
use super::time::Timestamp;

/// What happened to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It was not there before.
    Create,
    /// It was there, and its body is new.
    Replace,
    /// It is gone.
    Delete,
    /// It is gone, because its time to live was over.
    Expire,
}

impl ChangeKind {
    /// The name in change feeds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete | Self::Expire => "delete",
        }
    }

    /// Whether nothing is there afterwards.
    pub fn is_removal(self) -> bool {
        matches!(self, Self::Delete | Self::Expire)
    }
}

/// A committed fact about one document; becomes an event for whoever subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentChange {
    /// What happened.
    pub kind: ChangeKind,
    /// The document's partition.
    pub partition: EncodedPartition,
    /// The document.
    pub id: DocumentId,
    /// When it was decided.
    pub at: Timestamp,
    /// The version that this one replaces or deletes.
    pub previous: Option<Previous>,
    /// The user's JSON without system properties; empty for a delete.
    pub body: Bytes,
    /// W3C trace context of the request.
    pub traceparent: Option<Arc<str>>,
    /// How many mutations before this one its transaction began: 0 for a write of its own. Changes
    /// of one transaction share the position of the first, and no reader splits them.
    pub within: u32,
    /// The document's own time to live in seconds; -1 is for ever, 0 is its container's.
    pub ttl: i32,
    /// What must be true together with the document: rows that are made from it.
    pub rows: Vec<RowChange>,
}

/// An event that somebody published to a topic: it is in the log, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedEvent {
    /// The topic.
    pub topic: Name,
    /// Whose call published it, if a tenant's.
    pub tenant: Option<TenantId>,
    /// When it was taken.
    pub at: Timestamp,
    /// Its key in [`Table::Published`], if it must not be taken a second time.
    pub mark: Option<Bytes>,
    /// The event in the JSON of CloudEvents 1.0.2.
    pub body: Bytes,
}

/// A row that moves together with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Where it stands.
    pub table: Table,
    /// Its key, which begins with the document's partition or container.
    pub key: Bytes,
    /// Its value; `None` when it is gone.
    pub value: Option<Bytes>,
}

impl RowChange {
    /// The value as it is stored by the mutation at `lsn`: rows of [`Table::Idempotency`] begin with
    /// that position, eight bytes little-endian, which nobody knows before the commit.
    pub fn stored(&self, lsn: Lsn) -> Option<Bytes> {
        let value = self.value.clone()?;
        if self.table != Table::Idempotency {
            return Some(value);
        }
        Some([&lsn.0.to_le_bytes()[..], &value].concat().into())
    }
}

/// The version of a document that a change follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Previous {
    /// A version that was committed in an earlier record.
    At(Lsn),
    /// A version made earlier in the same batch, this many mutations before.
    Back(u32),
}

impl Previous {
    /// The position of that version, for a change that is itself at `lsn`.
    pub fn resolve(self, lsn: Lsn) -> Lsn {
        match self {
            Self::At(at) => at,
            Self::Back(n) => Lsn(lsn.0.saturating_sub(u64::from(n))),
        }
    }
}

/// Tables of the view that hold state other than documents. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// Cursor and acknowledgements of each subscription.
    Progress = 1,
    /// Events that failed and will be tried again.
    Deliveries = 2,
    /// The same events, by the time when they fall due.
    Due = 3,
    /// Events that were given up.
    DeadLetters = 4,
    /// Results stored for repeated requests.
    Idempotency = 5,
    /// API keys and other state of the process, in shard 0; what is known of containers, in each.
    System = 6,
    /// Who holds a unique key within a partition.
    Unique = 7,
    /// Entries of declared indexes.
    Index = 8,
    /// What ends at a time: documents with a time to live of their own, stored results.
    Expiry = 9,
    /// Which events were published to a topic lately, so that none is taken twice.
    Published = 10,
    /// Dead letters that are not in their blob store yet.
    Exports = 11,
    /// Events that wait for an earlier one with the same key, by their keys.
    Held = 12,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Progress,
        Self::Deliveries,
        Self::Due,
        Self::DeadLetters,
        Self::Idempotency,
        Self::System,
        Self::Unique,
        Self::Index,
        Self::Expiry,
        Self::Published,
        Self::Exports,
        Self::Held,
    ];

    /// Whether partitions read its rows while they decide, so that a row is seen as soon as its
    /// document is.
    pub fn is_read_by_partitions(self) -> bool {
        matches!(self, Self::Unique | Self::Idempotency)
    }
}

/// One step of a commit. Each takes one LSN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// A document was created, replaced or deleted.
    Document(DocumentChange),
    /// An event was published.
    Event(PublishedEvent),
    /// A row of a state table is now this.
    Put { table: Table, key: Bytes, value: Bytes },
    /// A row of a state table is gone.
    Delete { table: Table, key: Bytes },
}

impl Mutation {
    /// Bytes that this mutation weighs in a batch, roughly.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Self::Document(change) => {
                    let rows = change.rows.iter();
                    let rows = rows.map(|row| row.key.len() + row.value.as_ref().map_or(0, Bytes::len));
                    change.partition.as_bytes().len()
                        + change.id.as_str().len()
                        + change.body.len()
                        + rows.sum::<usize>()
                }
                Self::Event(event) => {
                    event.topic.len() + event.body.len() + event.mark.as_ref().map_or(0, Bytes::len)
                }
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::Delete { key, .. } => key.len(),
            }
    }

    /// The document's change, if it is one.
    pub fn change(&self) -> Option<&DocumentChange> {
        match self {
            Self::Document(change) => Some(change),
            Self::Event(_) | Self::Put { .. } | Self::Delete { .. } => None,
        }
    }

    /// When it was decided, if it says so.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Document(change) => Some(change.at),
            Self::Event(event) => Some(event.at),
            Self::Put { .. } | Self::Delete { .. } => None,
        }
    }
}

/// A group of mutations that is on disk, in order.
#[derive(Debug, Clone)]
pub struct CommittedGroup {
    /// LSN of the first mutation; the others follow without a gap.
    pub first: Lsn,
    /// What was committed.
    pub mutations: Arc<[Mutation]>,
}

impl CommittedGroup {
    /// LSN of the last mutation.
    pub fn last(&self) -> Lsn {
        Lsn(self.first.0 + (self.mutations.len() as u64).saturating_sub(1))
    }

    /// All mutations with their positions.
    pub fn positions(&self) -> impl Iterator<Item = (Lsn, &Mutation)> {
        self.mutations.iter().enumerate().map(|(i, mutation)| (self.first.plus(i as u64), mutation))
    }

    /// The document changes with their positions.
    pub fn changes(&self) -> impl Iterator<Item = (Lsn, &DocumentChange)> {
        self.positions().filter_map(|(lsn, mutation)| Some((lsn, mutation.change()?)))
    }
}
