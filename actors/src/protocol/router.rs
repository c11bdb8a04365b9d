//! What a router is told.

use std::sync::Arc;

use actix::{Message, Recipient};

use super::subscriber::HandOver;
use crate::model::ids::{Lsn, Name, TenantId};
use crate::model::topic::Topic;
use crate::policy::filter::{Filter, KeyTable};

/// Sender: `Shard`, by the router's doorbell. Receiver: `Router`. A hint: the facts are in the log.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ChangesCommitted;

/// Sender: `Subscriber`, when it starts. Receiver: `Router`.
/// Everything after `from` that matches is handed over, as far as there is credit.
#[derive(Message)]
#[rtype(result = "()")]
pub struct JoinLane {
    /// The subscription.
    pub subscription: Name,
    /// Grows with each start of the subscriber, so that what was handed to an earlier one is known.
    pub epoch: u64,
    /// The last position that the subscriber is done with.
    pub from: Lsn,
    /// How many events it has room for.
    pub credit: usize,
    /// Which events it wants.
    pub interest: Interest,
    /// Where they go.
    pub to: Recipient<HandOver>,
}

/// Which facts are events of a subscription.
#[derive(Debug, Clone)]
pub struct Interest {
    /// Its topic; all subscriptions of a topic share one.
    pub topic: Arc<Topic>,
    /// What the filters of the topic ask of its events.
    pub keys: Arc<KeyTable>,
    /// The only tenant whose events it may see; `None` sees all.
    pub tenant: Option<TenantId>,
    /// Its own filter.
    pub filter: Arc<Filter>,
}

/// Sender: `Subscriber`. Receiver: `Router`. There is room for more events.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GrantCredit {
    /// The subscription.
    pub subscription: Name,
    /// See [`JoinLane::epoch`].
    pub epoch: u64,
    /// How many more.
    pub credit: usize,
}

/// Sender: `RouterHandle`, for a subscription that ends. Receiver: `Router`. Its lane is no more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LeaveLane(pub Name);

/// Sender: `RouterHandle`, for an operator. Receiver: `Router`. Ends a quarantine.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReopenRouter;
