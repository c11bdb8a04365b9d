//! The part of a manifest that is about events: where they come from, who wants which, and where they go.

use std::fmt;
use std::time::Duration;

use lanekeeper_actors::model::delivery::{Credentials, Endpoint, EndpointTls, ORIGIN};
use lanekeeper_actors::model::secret::SigningKey;
use lanekeeper_actors::policy::filter::Condition;
use lanekeeper_actors::subscriber::{
    BatchSettings, ContentMode, DeliveryHeader, Gone, HandshakeKind, Order, QueueSettings,
};

use super::{HandshakeRule, Pointer};
use crate::blob::Place;
use crate::delivery::Cidr;

/// Where events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Who makes them.
    pub source: TopicSource,
    /// Where a document names the tenant whom its events are about.
    pub tenant: Option<Pointer>,
    /// How long events can be replayed, at least.
    pub retention: Duration,
}

/// Who makes the events of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSource {
    /// The changes of a container.
    Changes {
        /// The container.
        container: String,
        /// How its changes are called.
        types: ChangeTypes,
    },
    /// Callers, who publish to it.
    Published,
}

/// CloudEvents `type` of each kind of change; a kind without one makes no event. At least one is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeTypes {
    /// A document that was not there before.
    pub created: Option<String>,
    /// A new body of an existing document.
    pub replaced: Option<String>,
    /// A document that is gone.
    pub deleted: Option<String>,
}

/// Who wants which events, and where they go.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSubscription {
    /// The topic.
    pub topic: String,
    /// Whose events it sees only; `None` sees all.
    pub tenant: Option<String>,
    /// Event types that match; `None` is all of them.
    pub types: Option<Vec<String>>,
    /// Subjects that match.
    pub subject: SubjectFilter,
    /// What attributes and data must be like: every condition has to hold.
    pub filter: Vec<Condition>,
    /// Whether conditions look into arrays.
    pub arrays: bool,
    /// Where matching events go.
    pub to: Destination,
    /// Whether events with one key keep their order.
    pub order: Order,
    /// When to try again, and when to give up.
    pub retry: Retry,
    /// Where dead letters are also written.
    pub dead_letter: Option<Place>,
}

/// Literal beginning and end of a subject; an empty text matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectFilter {
    /// How the subject begins.
    pub begins: String,
    /// How the subject ends.
    pub ends: String,
    /// Whether upper and lower case differ.
    pub case_sensitive: bool,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// They are sent.
    Webhook(Box<Webhook>),
    /// They wait to be received.
    Queue(QueueSettings),
}

/// An HTTP endpoint that takes events.
#[derive(Clone, PartialEq)]
pub struct Webhook {
    /// Absolute `http` or `https` URL, normalised, without user, password and fragment.
    pub url: String,
    /// Blocks that may be contacted although they are not public.
    pub allow: Vec<Cidr>,
    /// Keys that sign each delivery, newest first.
    pub sign: Vec<SigningKey>,
    /// What is sent in `authorization`.
    pub auth: Option<Credentials>,
    /// Further headers.
    pub headers: Vec<DeliveryHeader>,
    /// Whom to trust, and who to be.
    pub tls: EndpointTls,
    /// What status 410 does.
    pub on_gone: Gone,
    /// Deliveries per minute, at most.
    pub rate: Option<u32>,
    /// Who sends, as the endpoint is told.
    pub origin: Option<String>,
    /// How it is asked before it is sent anything.
    pub handshake: HandshakeRule,
    /// Several events in one request.
    pub batch: Option<BatchSettings>,
    /// How one event stands in a request.
    pub mode: ContentMode,
}

impl Webhook {
    /// The one at this URL, with nothing more.
    pub fn plain(url: String, allow: Vec<Cidr>) -> Self {
        Self {
            url,
            allow,
            sign: Vec::new(),
            auth: None,
            headers: Vec::new(),
            tls: EndpointTls::default(),
            on_gone: Gone::default(),
            rate: None,
            origin: None,
            handshake: HandshakeRule::None,
            batch: None,
            mode: ContentMode::default(),
        }
    }

    /// The endpoint as deliveries see it.
    pub fn endpoint(&self) -> Endpoint {
        // What an endpoint of CloudEvents agreed to hear from, it is told with each delivery.
        let cloud = matches!(self.handshake.kind(), Some(HandshakeKind::CloudEvents));
        let origin = self.origin.clone().or_else(|| cloud.then(|| ORIGIN.to_owned()));
        Endpoint {
            signing: self.sign.clone(),
            auth: self.auth.clone(),
            tls: self.tls.clone(),
            origin,
            ..Endpoint::plain(self.url.clone(), self.allow.iter().map(ToString::to_string).collect())
        }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Certificates are long, and say nothing to people.
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("allow", &self.allow)
            .field("sign", &self.sign)
            .field("auth", &self.auth)
            .field("headers", &self.headers)
            .field("on_gone", &self.on_gone)
            .field("rate", &self.rate)
            .field("origin", &self.origin)
            .field("handshake", &self.handshake)
            .field("batch", &self.batch)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts before an event is dead-lettered, 1 to 30.
    pub max_attempts: u32,
    /// Age at which an event is dead-lettered, 1 s to 24 h.
    pub ttl: Duration,
    /// Factor on the steps of the schedule, 0.0001 to 1.
    pub scale: f64,
    /// Whether an endpoint that only fails is left alone for a while.
    pub probation: bool,
}

/// What an operation does to the events of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueAction {
    /// Takes events under a lock.
    Receive,
    /// Says that they are done.
    Acknowledge,
    /// Gives them back.
    Release,
    /// Gives them up.
    Reject,
    /// Keeps them longer.
    RenewLock,
}
