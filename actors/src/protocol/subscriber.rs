//! What a subscriber is told.

use std::sync::Arc;

use actix::Message;

use crate::model::delivery::Outcome;
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::time::Timestamp;

/// Sender: `Router`. Receiver: `Subscriber`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HandOver {
    /// The router's shard.
    pub shard: ShardId,
    /// The subscriber's start that this answers.
    pub epoch: u64,
    /// Events that match, in the order of their positions; each used up one credit.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been looked at.
    pub routed: Lsn,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Reply: what it is doing.
#[derive(Message)]
#[rtype(result = "SubscriptionStatus")]
pub struct ReportStatus;

/// What a subscription shows of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubscriptionStatus {
    /// Whether an operator stopped it.
    pub paused: bool,
    /// Whether it crashed too often and waits for `resume`.
    pub quarantined: bool,
    /// Attempts under way.
    pub in_flight: usize,
    /// Events handed over and not yet attempted.
    pub ready: usize,
    /// Attempts made whose outcome is not yet durable.
    pub unsettled: usize,
    /// Events that failed and will be tried again.
    pub retrying: u64,
    /// Events given up and kept.
    pub dead_letters: u64,
    /// Events delivered since the process started.
    pub delivered: u64,
    /// Failed attempts since the process started.
    pub failed_attempts: u64,
    /// Events given up since the process started.
    pub given_up: u64,
    /// For each shard: the position up to which everything is delivered, pending or dead-lettered.
    pub cursors: Vec<(ShardId, Lsn)>,
    /// Matching events that wait for their first attempt, and changes not looked at yet.
    pub lag_events: u64,
    /// Age of the oldest event that waits for its first attempt, in milliseconds.
    pub lag_millis: u64,
    /// The last outcomes, newest first: event, attempt, time, outcome.
    pub recent: Vec<(Position, u32, Timestamp, Outcome)>,
    /// How often it crashed and came back.
    pub restarts: u32,
    /// The last panic's text.
    pub last_crash: Option<String>,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. No attempts until [`Resume`].
#[derive(Message)]
#[rtype(result = "Result<(), SubscriptionError>")]
pub struct Pause;

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Ends a pause or a quarantine; events
/// that wait for a retry are tried now.
#[derive(Message)]
#[rtype(result = "Result<(), SubscriptionError>")]
pub struct Resume;

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of them, as they are when asked.
    All,
    /// Those of these events.
    Events(Vec<Position>),
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Dead letters are delivered again, with
/// all attempts anew. Reply: how many.
#[derive(Message)]
#[rtype(result = "Result<usize, SubscriptionError>")]
pub struct ReplayDeadLetters(pub Selection);

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Dead letters are forgotten.
/// Reply: how many.
#[derive(Message)]
#[rtype(result = "Result<usize, SubscriptionError>")]
pub struct PurgeDeadLetters(pub Selection);

/// Sender: `System`. Receiver: `Subscriber`. No new attempts; replies when the outcomes of those
/// under way are durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DrainDeliveries;

/// Why a subscription could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The shard takes no writes now; nothing, or only a part, was done.
    #[error("the store takes no writes now")]
    Unavailable,
    /// It could not be learned whether all was done.
    #[error("the outcome is unknown")]
    Unknown,
    /// Stored events cannot be read.
    #[error("stored events are damaged")]
    Corrupt,
}
