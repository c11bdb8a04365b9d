//! What a partition is told.

use std::sync::Arc;

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::kernel::permits::Permit;
use crate::model::change::ChangeKind;
use crate::model::ids::{DocumentId, Etag};
use crate::model::time::Timestamp;
use crate::policy::precondition::{Failed, Precondition};

/// Sender: `PartitionHandle`. Receiver: `Partition`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteDocument {
    /// What to write.
    pub write: Write,
    /// The place in the partition's queue, given back when the write is answered.
    pub permit: Permit,
    /// Where the answer goes.
    pub reply: oneshot::Sender<WriteResult>,
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
    Create(Bytes),
    /// Whether or not it exists.
    Upsert(Bytes),
    /// The document must exist.
    Replace(Bytes),
    /// The document must exist; it is gone afterwards.
    Delete,
}

/// The answer to a write.
pub type WriteResult = Result<Written, WriteError>;

/// A write that is durable and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// What happened to the document.
    pub kind: ChangeKind,
    /// Its new version, or the version of its deletion.
    pub etag: Etag,
    /// When.
    pub at: Timestamp,
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
    /// The document does not fit into a record of the log.
    #[error("the document is too large")]
    TooLarge,
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
