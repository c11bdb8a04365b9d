//! What a subscriber is told.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::model::change::Mutation;
use crate::model::cloudevent::CloudEvent;
use crate::model::delivery::Outcome;
use crate::model::event::{Event, StoredEvent};
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::time::Timestamp;
use crate::policy::health::Breaker;

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
    /// Those of them that crash the router, which therefore does not know whether they match.
    pub poison: Vec<Lsn>,
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
    /// Why it gives up every event, until `resume`.
    pub disabled: Option<String>,
    /// What its endpoint has to do before it is sent anything.
    pub validation: Option<ValidationState>,
    /// What the breaker of its endpoint does.
    pub breaker: Option<Breaker>,
    /// Attempts that its endpoint may have at a time.
    pub window: usize,
    /// Events that somebody has received and not settled.
    pub locked: usize,
    /// Events that wait for an earlier one with their key; they are counted among the retrying.
    pub held: usize,
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
    /// Dead letters that are not in their blob store yet.
    pub exports_waiting: u64,
    /// Why the last of them could not be written there, until one can.
    pub export_error: Option<String>,
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
    /// Age of the oldest event that waits for an attempt, its first or another, in milliseconds.
    pub lag_millis: u64,
    /// The last outcomes, newest first.
    pub recent: Vec<AttemptRecord>,
    /// Replays of history that are not at their end.
    pub replays: Vec<ReplayStatus>,
    /// How often it crashed and came back.
    pub restarts: u32,
    /// The last panic's text.
    pub last_crash: Option<String>,
}

/// An attempt that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// The event's place.
    pub position: Position,
    /// The event's id.
    pub event_id: String,
    /// 1 for its first attempt.
    pub number: u32,
    /// When it ended.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
}

/// Where an endpoint's handshake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidationState {
    /// It is being asked.
    Asking,
    /// It may say yes by itself until this time.
    AwaitingManualAction(Timestamp),
    /// It said no, or nothing.
    Failed(String),
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Reply: the last attempts, newest first.
#[derive(Message)]
#[rtype(result = "Vec<AttemptRecord>")]
pub struct ListAttempts;

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Somebody opened the URL of a handshake. Reply:
/// whether the code is right and in time.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct ConfirmEndpoint {
    /// The code that was in the URL.
    pub code: String,
    /// Deliveries per minute that the endpoint takes, if it says so.
    pub rate: Option<u32>,
}

/// What a new configuration of a subscription changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// Its keys alone. What was disabled or did not agree stays so, and nothing is sent earlier.
    Keys,
    /// Where and how it sends. An endpoint that was disabled or did not agree is tried again, and what waits is
    /// sent at once.
    Delivery,
    /// The same, and it wants other events: the new filter holds for what is routed from now on.
    Filter,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. What waits goes to the new endpoint, and the new filter
/// holds for what is routed from now on. Reply: when that is durable. What a configuration is, only the room
/// itself knows.
#[derive(Message)]
#[rtype(result = "Result<(), SubscriptionError>")]
pub struct Reconfigure<Config> {
    /// With the name, topic, tenant and order that it had.
    pub config: Arc<Config>,
    /// What is another than before.
    pub revision: Revision,
    /// Becomes durable before the new configuration is used.
    pub also: Vec<Mutation>,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. One event is sent at once, and never again. Reply: what
/// came of it.
#[derive(Message)]
#[rtype(result = "Result<Outcome, TrialRefused>")]
pub struct SendTrial(pub CloudEvent);

/// Why no event was sent for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrialRefused {
    /// The endpoint has not agreed to be sent anything.
    #[error("the endpoint is not validated yet")]
    NotValidated,
    /// The subscription's events are received, not sent.
    #[error("the subscription is a queue")]
    Queue,
    /// So many deliveries are being made that the endpoint takes no more now.
    #[error("the endpoint takes no more deliveries now")]
    Busy,
    /// The subscription does not answer.
    #[error("the subscription does not answer")]
    Unavailable,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Events from a queue, as soon as there are some.
#[derive(Message)]
#[rtype(result = "Result<(), ReceiveRefused>")]
pub struct ReceiveEvents {
    /// Events, at most.
    pub most: usize,
    /// Where they go. Whoever no longer waits drops the other end, and is given none.
    pub reply: oneshot::Sender<Vec<Received>>,
}

/// An event that was received from a queue.
#[derive(Debug, Clone)]
pub struct Received {
    /// Settles the event, as long as the lock lasts.
    pub token: String,
    /// How often it was given out, this time included.
    pub deliveries: u32,
    /// The replay that gives it out once more.
    pub replay: Option<Arc<str>>,
    /// The event.
    pub event: Arc<Event>,
}

/// Why nothing can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveRefused {
    /// The subscription's events are sent somewhere.
    #[error("the subscription is no queue")]
    NotAQueue,
    /// As many as may are waiting for its events.
    #[error("too many receivers wait for this queue")]
    TooMany,
    /// The subscription does not answer.
    #[error("the queue does not answer")]
    Unavailable,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. What becomes of received events. Reply: for each
/// token, in order; shorter if the subscriber crashed over one of them.
#[derive(Message)]
#[rtype(result = "Vec<Result<(), LockLost>>")]
pub struct SettleEvents {
    /// The tokens.
    pub tokens: Vec<String>,
    /// The same for all of them.
    pub decision: Decision,
}

/// What becomes of a received event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Acknowledge,
    /// It is given out again after a time.
    Release(Duration),
    /// It is given up and kept as a dead letter.
    Reject,
    /// Its lock begins anew.
    Renew,
}

/// Why a token settles nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockLost {
    /// It is no token.
    Bad,
    /// Its lock has ended, or was settled before.
    Lost,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Events that were delivered before are delivered
/// again. Reply: the id of the job.
#[derive(Message)]
#[rtype(result = "Result<Arc<str>, SubscriptionError>")]
pub struct ReplayHistory(pub ReplayRequest);

/// Which events of the past are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// From when on; positions before it are passed over.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// The first position meant, in its shard.
    pub from_position: Option<Position>,
    /// The last position meant, in its shard.
    pub to_position: Option<Position>,
    /// Events per second, at most.
    pub rate: u32,
}

/// A replay of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayStatus {
    /// Its id, which its deliveries carry.
    pub id: Arc<str>,
    /// When it was asked for.
    pub at: Timestamp,
    /// Events found so far.
    pub found: u64,
    /// For each shard: the position that it has come to, and the one where it ends.
    pub shards: Vec<(ShardId, Lsn, Lsn)>,
}

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. Ends a replay; what it found so far is delivered.
/// Reply: whether there was one with this id.
#[derive(Message)]
#[rtype(result = "Result<bool, SubscriptionError>")]
pub struct CancelReplay(pub String);

/// Sender: `Subscriber`, by the task of a replay. Receiver: `Subscriber`. Events of the past that match.
/// Reply: `None` when it has no room now, false when the replay was ended.
#[derive(Message)]
#[rtype(result = "Option<bool>")]
pub struct ReplayFound {
    /// The replay.
    pub id: Arc<str>,
    /// The shard that it reads.
    pub shard: ShardId,
    /// The position that it has come to.
    pub position: Lsn,
    /// The events.
    pub events: Vec<Arc<Event>>,
}

/// Sender: `Subscriber`, by the task of a replay. Receiver: `Subscriber`. All was read.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReplayEnded {
    /// The replay.
    pub id: Arc<str>,
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
pub struct ReplayDeadLetters(pub LetterReplay);

/// Which dead letters are delivered again, how fast, and by whom.
#[derive(Debug)]
pub struct LetterReplay {
    /// Which.
    pub selection: Selection,
    /// Events that fall due in a second; all at once without it.
    pub rate: Option<NonZeroU32>,
    /// Another subscription, to whose endpoint they go instead. It asks no filter.
    pub to: Option<Recipient<TakeLetters>>,
}

impl From<Selection> for LetterReplay {
    fn from(selection: Selection) -> Self {
        Self { selection, rate: None, to: None }
    }
}

/// Sender: the task of a `Subscriber` that replays dead letters. Receiver: another `Subscriber`. Events that it
/// delivers as if they were its own, from the time on that stands with each. Those of tenants whom it does not
/// serve are passed over. Reply: the places of those that are its own now, durably, or were before.
#[derive(Message)]
#[rtype(result = "Result<Vec<Position>, SubscriptionError>")]
pub struct TakeLetters {
    /// Id of the replay, which the deliveries carry.
    pub replay: Arc<str>,
    /// Events of one shard, and when they fall due.
    pub events: Vec<(StoredEvent, Timestamp)>,
}

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

/// Sender: `SubscriptionHandle`. Receiver: `Subscriber`. The subscription is deleted: no new attempts, and
/// none when it comes up again; replies when the outcomes of those under way are durable.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndSubscription;

/// Why a subscription could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The shard takes no writes now; nothing, or only a part, was done.
    #[error("the store takes no writes now")]
    Unavailable,
    /// It could not be learned whether all was done.
    #[error("the outcome is unknown")]
    Unknown,
    /// Too much of this is under way already.
    #[error("too much of this is under way")]
    Busy,
    /// Stored events cannot be read.
    #[error("stored events are damaged")]
    Corrupt,
}
