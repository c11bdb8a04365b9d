//! What the room of a topic is told.

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::kernel::permits::Permit;
use crate::model::ids::TenantId;

/// Sender: `TopicHandle`. Receiver: `TopicRoom`. Events of one request, all valid.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PublishEvents {
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// Whose request it is, if a tenant's.
    pub tenant: Option<TenantId>,
    /// The request's place in the room's queue.
    pub permit: Permit,
    /// Where the answer goes.
    pub reply: oneshot::Sender<PublishResult>,
}

/// An event on its way into the log.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What tells it from others of the same topic.
    pub fingerprint: [u8; 16],
    /// The event in the JSON of CloudEvents 1.0.2.
    pub body: Bytes,
}

impl PublishEvents {
    /// Bytes of all events.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.body.len()).sum()
    }
}

/// The answer to [`PublishEvents`].
pub type PublishResult = Result<Published, PublishError>;

/// Events that are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Those that are new.
    pub taken: usize,
    /// Those that were published before, with the same source and id.
    pub duplicates: usize,
}

/// Why events were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Too many requests of this topic wait already.
    #[error("too many requests wait for this topic")]
    Overloaded,
    /// Routing is further behind than it may be.
    #[error("events are published faster than they are routed")]
    Behind,
    /// The shard takes no writes now.
    #[error("the store takes no writes now")]
    Unavailable,
    /// The disk is full.
    #[error("the disk is full")]
    NoRoom,
    /// The events do not fit into one commit.
    #[error("the events are too large for one commit")]
    TooLarge,
    /// It could not be learned whether the events were taken. Publishing them again is safe.
    #[error("the outcome is unknown")]
    Unknown,
}
