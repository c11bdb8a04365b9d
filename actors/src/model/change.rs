//! What a commit does, as physical facts: "put these bytes at this key".
//!
//! Invariant: applying the same mutations in the same order gives the same view, on any node,
//! any number of times.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::address::EncodedPartition;
use super::ids::{DocumentId, Lsn};
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
}

impl ChangeKind {
    /// The name in change feeds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
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
    /// API keys and other state of the process; used in shard 0.
    System = 6,
}

/// One step of a commit. Each takes one LSN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// A document was created, replaced or deleted.
    Document(DocumentChange),
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
                    change.partition.as_bytes().len() + change.id.as_str().len() + change.body.len()
                }
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::Delete { key, .. } => key.len(),
            }
    }

    /// The document's change, if it is one.
    pub fn change(&self) -> Option<&DocumentChange> {
        match self {
            Self::Document(change) => Some(change),
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

    /// The document changes with their positions.
    pub fn changes(&self) -> impl Iterator<Item = (Lsn, &DocumentChange)> {
        self.mutations
            .iter()
            .enumerate()
            .filter_map(|(i, mutation)| Some((self.first.plus(i as u64), mutation.change()?)))
    }
}
