//! What a partition is told.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::kernel::permits::Permit;
use crate::model::change::ChangeKind;
use crate::model::document::NewDocument;
use crate::model::ids::{DocumentId, Etag, Lsn};
use crate::model::time::Timestamp;
use crate::policy;
use crate::policy::charge::RequestUnits;
use crate::policy::idempotency::Fingerprint;
use crate::policy::patch::PatchError;
use crate::policy::precondition::{Failed, Precondition};
use crate::policy::ttl::{InvalidTtl, ItemTtl};
use crate::query::Condition;

/// Sender: `PartitionHandle`. Receiver: `Partition`. All of the writes happen, or none.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteDocuments {
    /// What to write, in this order; each sees what those before it did.
    pub writes: Vec<Write>,
    /// What makes the same request harmless when it comes again.
    pub repeat: Option<Repeat>,
    /// The place in the partition's queue, given back when the writes are answered.
    pub permit: Permit,
    /// Where the answer goes.
    pub reply: oneshot::Sender<TransactionResult>,
}

/// One document's write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The document.
    pub id: DocumentId,
    /// What is done with it.
    pub operation: Operation,
    /// Conditions on the version that is there.
    pub precondition: Precondition,
    /// W3C trace context of the request.
    pub traceparent: Option<Arc<str>>,
}

/// What a write does.
#[derive(Debug, Clone)]
pub enum Operation {
    /// The document must not exist.
    Create(Content),
    /// Whether or not it exists.
    Upsert(Content),
    /// The document must exist.
    Replace(Content),
    /// The document must exist, and is changed in part.
    Patch(Box<Patch>),
    /// The document must exist, and is only read: for a transaction that wants to know.
    Read,
    /// The document must exist; it is gone afterwards.
    Delete,
    /// The document goes if its time is over or its partition was deleted; otherwise nothing happens.
    Sweep,
}

/// A checked body and what must be known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// The JSON object that is stored.
    pub body: Bytes,
    /// Its own time to live.
    pub ttl: ItemTtl,
    /// Properties at its top.
    pub properties: usize,
}

impl Content {
    /// A body without a time to live of its own.
    pub fn plain(body: Bytes) -> Self {
        Self { body, ttl: ItemTtl::Inherit, properties: 0 }
    }
}

impl TryFrom<NewDocument> for Content {
    type Error = InvalidTtl;

    fn try_from(new: NewDocument) -> Result<Self, InvalidTtl> {
        let ttl = ItemTtl::from_json(new.ttl.as_ref())?;
        Ok(Self { body: new.body, ttl, properties: new.properties })
    }
}

/// A change of parts of a document.
#[derive(Debug, Clone)]
pub struct Patch {
    /// What is changed.
    pub change: policy::patch::Patch,
    /// What must be true of the document before.
    pub condition: Option<Condition>,
}

/// A caller's name for a request, and what it asks for.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The key, which means nothing outside of its scope: tenant and route are part of it.
    pub key: Bytes,
    /// A hash of the request.
    pub fingerprint: Fingerprint,
    /// How long the answer is kept.
    pub keep: Duration,
}

/// The answer to a write of its own.
pub type WriteResult = Result<Written, WriteError>;

/// The answer to writes: one for each, or the first that was refused.
pub type TransactionResult = Result<Vec<Written>, Refused>;

/// The write that keeps its transaction from happening.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Its place among the writes.
    pub at: usize,
    /// What is wrong with it.
    pub error: WriteError,
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        Self { at: 0, error }
    }
}

/// A write that is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What happened to the document; `None` if nothing did.
    pub kind: Option<ChangeKind>,
    /// The document.
    pub id: DocumentId,
    /// Its version, or the version of its deletion.
    pub etag: Etag,
    /// The position that all changes of its transaction share.
    pub lsn: Lsn,
    /// When.
    pub at: Timestamp,
    /// The document as it is now; empty when it is gone.
    pub body: Bytes,
    /// What the operation costs.
    pub charge: RequestUnits,
    /// Whether this is the answer of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// Why a write has no known success. All but [`WriteError::Unknown`] wrote nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A create found a document.
    #[error("a document with this id exists in the partition")]
    Exists,
    /// A replace or delete found none.
    #[error("there is no document with this id in the partition")]
    NotFound,
    /// The current version does not meet the conditions.
    #[error("{0}")]
    Precondition(#[from] Failed),
    /// The current version does not match its checksum.
    #[error("the stored document is damaged")]
    Corrupt,
    /// Too many writes wait for this partition.
    #[error("too many writes wait for this partition")]
    Busy,
    /// Too many writes wait for the shard, or too many partitions are awake: it is not this caller's doing.
    #[error("the store is behind with its writes")]
    Overloaded,
    /// The shard takes no writes now, or the partition is starting again.
    #[error("the partition takes no writes now")]
    Unavailable,
    /// The disk is full.
    #[error("the disk is full")]
    NoRoom,
    /// The documents do not fit into a record of the log.
    #[error("the document is too large")]
    TooLarge,
    /// Another document of the partition has the same values at these paths.
    #[error("another document of the partition has the same value of the unique key {0}")]
    NotUnique(String),
    /// The patch does not fit the document.
    #[error("{0}")]
    Patch(#[from] PatchError),
    /// The patch would make something that is no document.
    #[error("the patch would make an invalid document: {0}")]
    PatchedInvalid(String),
    /// The condition of the patch is not true of the document.
    #[error("the condition of the patch does not hold for the document")]
    ConditionFailed,
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The budget is spent.
    #[error("the throughput of the container or of the partition is used up")]
    Throttled(Duration),
    /// This very write made the partition's rules panic.
    #[error("the write crashed")]
    Crashed,
    /// The partition crashed too often and waits for an operator.
    #[error("the partition is quarantined")]
    Quarantined,
    /// The write may or may not have happened: the disk failed under it, or no answer came.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Sender: `Directory`. Receiver: `Partition`. Nobody holds a permit of it any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FallAsleep;

/// Sender: `Directory`, for an operator. Receiver: `Partition`. Ends a quarantine.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Reopen;
