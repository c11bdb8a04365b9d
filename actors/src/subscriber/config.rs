//! An event subscription as it is declared, and the bounds of delivery.

use std::sync::Arc;
use std::time::Duration;

use super::export::SharedDeadLetterStore;
use crate::model::delivery::Endpoint;
use crate::model::ids::{Name, TenantId};
use crate::model::topic::Topic;
use crate::policy::filter::{Filter, KeyTable};
use crate::policy::retry::RetryPolicy;

/// An event subscription.
#[derive(Debug, Clone)]
pub struct SubscriptionConfig {
    /// Its name.
    pub name: Name,
    /// The topic that it listens to.
    pub topic: Arc<Topic>,
    /// Whose it is: it sees the events of this tenant only, and shares the tenant's places. `None` is the
    /// project's own, which sees all.
    pub tenant: Option<TenantId>,
    /// What the filters of the topic ask of its events; all its subscriptions share it.
    pub keys: Arc<KeyTable>,
    /// Which events it wants.
    pub filter: Arc<Filter>,
    /// Where they go.
    pub to: Destination,
    /// How long each is tried.
    pub retry: RetryPolicy,
    /// Whether events of one key are delivered one after the other.
    pub order: Order,
    /// Where dead letters are also written to, besides the mailbox.
    pub export: Option<SharedDeadLetterStore>,
    /// How the endpoint is asked before it is sent anything; `None`: it is not asked.
    pub handshake: Option<HandshakeKind>,
}

/// How an endpoint is asked whether it wants the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeKind {
    /// As Event Grid does: it echoes a code.
    EventGrid,
    /// As CloudEvents say (HTTP webhooks, section 4): `OPTIONS`, answered by headers.
    CloudEvents,
}

/// Where events go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// They are sent.
    Webhook(Webhook),
    /// They wait to be received.
    Queue(QueueSettings),
}

/// Events are sent to an endpoint.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to.
    pub endpoint: Arc<Endpoint>,
    /// Further headers of each delivery.
    pub headers: Arc<[DeliveryHeader]>,
    /// Several events in one request, which is then in batch mode.
    pub batch: Option<BatchSettings>,
    /// How one event stands in a request.
    pub mode: ContentMode,
    /// What status 410 does.
    pub gone: Gone,
    /// Deliveries per minute, at most.
    pub rate: Option<u32>,
}

impl Webhook {
    /// One event at a time, and nothing more.
    pub fn plain(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            headers: Arc::default(),
            batch: None,
            mode: ContentMode::default(),
            gone: Gone::default(),
            rate: None,
        }
    }
}

/// How an event stands in a request (CloudEvents HTTP binding, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentMode {
    /// The body is the event, as JSON.
    #[default]
    Structured,
    /// The body is the data as it was published; the attributes are headers.
    Binary,
}

/// What the answer "gone" (410) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gone {
    /// The endpoint wants no more: the subscription is disabled (Standard Webhooks, CloudEvents).
    #[default]
    Disable,
    /// A failure like any other (Event Grid).
    Retry,
}

/// A header of each delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryHeader {
    /// Its name.
    pub name: Name,
    /// Where its value comes from.
    pub value: HeaderValue,
}

/// Where the value of a header comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// Always the same.
    Static(Arc<str>),
    /// Always the same, and never shown.
    Secret(Arc<str>),
    /// An attribute of the event, or a place in its data such as `data.customer.id`. The header is left out
    /// when it is not there, or is not a text, a number or a truth value.
    Event(Arc<str>),
}

impl std::fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Static(text) => f.debug_tuple("Static").field(text).finish(),
            Self::Secret(_) => f.write_str("Secret(***)"),
            Self::Event(key) => f.debug_tuple("Event").field(key).finish(),
        }
    }
}

/// How many events go in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Events, at most.
    pub events: usize,
    /// Bytes after which no further event is added. One that is larger goes alone.
    pub bytes: usize,
}

/// How events are received from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a receiver has for an event before it is given to another.
    pub lock: Duration,
    /// How often an event is given out before it is dead-lettered.
    pub max_deliveries: u32,
}

/// Whether events have an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// None.
    #[default]
    None,
    /// Events with the same key are delivered in the order of their positions, one at a time. One that
    /// fails holds back those with its key, and no others.
    Partition,
}

/// Bounds of delivery; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// Events of one subscription under way, or with an outcome that is not durable.
    pub window: usize,
    /// Events of one subscription in memory.
    pub queue: usize,
    /// Time for one attempt.
    pub timeout: Duration,
    /// Attempts under way, for all subscriptions together.
    pub connections: usize,
    /// Retries of one subscription in memory.
    pub retry_page: usize,
    /// Bytes of the log of each shard that are kept for retries, for all subscriptions together.
    pub retry_cache: usize,
    /// How often an event may have been published again by those who were told of it.
    pub hops: u32,
    /// Where endpoints reach this process, to confirm a handshake: an absolute URL.
    pub public_url: Option<Name>,
    /// Pause before a store that failed is asked again, and before a first restart.
    pub backoff: Duration,
    /// Panics within `crash_window` before it waits for an operator.
    pub crash_budget: u32,
    /// See `crash_budget`.
    pub crash_window: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}
