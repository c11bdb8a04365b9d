//! One delivery attempt as plain data: what is sent to an endpoint, and what came of it.
//!
//! Stands between a subscriber, which decides when to try, and a transport, which knows a protocol.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, SigningKey};

/// Where a subscription's events go, and how the endpoint knows who sends them.
///
/// A transport keeps what it derives from an endpoint for as long as the same `Arc` of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Absolute `http` or `https` URL.
    pub url: String,
    /// CIDR blocks that may be contacted although they are private, loopback or link-local,
    /// for instance `127.0.0.0/8`. Public addresses need no entry.
    pub allow: Vec<String>,
    /// Keys that sign each delivery, newest first. None: not signed. Several: a rotation, in which all sign.
    pub signing: Vec<SigningKey>,
    /// Sent in `authorization`, if anything is.
    pub auth: Option<Credentials>,
    /// Whom to trust under `https`, and who to be.
    pub tls: EndpointTls,
    /// Sent as `webhook-request-origin` and `origin` (CloudEvents HTTP webhooks, section 4), when set.
    pub origin: Option<String>,
}

impl Endpoint {
    /// An endpoint that is neither signed for nor logged in to.
    pub fn plain(url: impl Into<String>, allow: Vec<String>) -> Self {
        Self {
            url: url.into(),
            allow,
            signing: Vec::new(),
            auth: None,
            tls: EndpointTls::default(),
            origin: None,
        }
    }
}

/// How a delivery says who sends it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// A fixed token, sent as `authorization: Bearer …`.
    Bearer(Secret),
    /// A token that is fetched, and fetched again when it expires (RFC 6749, section 4.4).
    OAuth2 {
        /// Absolute URL of the token endpoint; the allow list of the endpoint holds for it too.
        token_url: String,
        /// Sent, with the secret, as HTTP basic authentication.
        client_id: String,
        /// The client's password.
        client_secret: Secret,
        /// `scope` of the token request, if any.
        scope: Option<String>,
        /// `audience` of the token request, which some servers want.
        audience: Option<String>,
    },
}

/// TLS of one endpoint. The default trusts whom the host trusts and shows no certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EndpointTls {
    /// PEM of the only authorities to trust, instead of those of the host.
    pub ca: Option<Arc<[u8]>>,
    /// Shown to endpoints that ask for a client certificate.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate for mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientIdentity {
    /// PEM of the certificate, followed by those between it and its authority.
    pub certificate: Arc<[u8]>,
    /// PEM of its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: Secret,
}

/// One request to an endpoint.
#[derive(Clone)]
pub struct Attempt {
    /// The destination.
    pub endpoint: Arc<Endpoint>,
    /// Name of the event subscription, sent as `x-subscription`.
    pub subscription: Arc<str>,
    /// Event id, sent as `webhook-id`; the same on every attempt of one event.
    pub event_id: String,
    /// 1 for the first attempt, sent as `x-delivery-attempt`.
    pub number: u32,
    /// W3C trace context of the request that wrote the document.
    pub traceparent: Option<Arc<str>>,
    /// Media type of `body`; in binary mode that of the data, if the event says it.
    pub content_type: Option<Cow<'static, str>>,
    /// The rendered event; in binary mode its data, with the attributes among `headers`.
    pub body: Bytes,
    /// Further headers, in order, with their values as they are sent: fixed, secret, or taken from the event.
    /// One that HTTP cannot carry, or that belongs to the connection, is left out.
    pub headers: Vec<(Arc<str>, String)>,
    /// The replay that sends this event once more, sent as `x-replay-id`.
    pub replay: Option<Arc<str>>,
    /// Time for the whole attempt: resolving, connecting, sending, and reading the answer.
    pub timeout: Duration,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A header may hold a secret, and the event belongs to a tenant: neither is for logs.
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_ref()).collect();
        f.debug_struct("Attempt")
            .field("endpoint", &self.endpoint.url)
            .field("subscription", &self.subscription)
            .field("event_id", &self.event_id)
            .field("number", &self.number)
            .field("content_type", &self.content_type)
            .field("bytes", &self.body.len())
            .field("headers", &names)
            .field("replay", &self.replay)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What came of one attempt. The names follow Event Grid's `lastDeliveryOutcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OutcomeKind {
    /// Status 200 to 204.
    Delivered,
    /// Status 400.
    BadRequest,
    /// Status 401.
    Unauthorized,
    /// Status 403, or an address that the subscription may not contact.
    Forbidden,
    /// Status 404.
    NotFound,
    /// Status 413.
    PayloadTooLarge,
    /// Status 408, or the total deadline passed.
    TimedOut,
    /// Status 429 or 503.
    Busy,
    /// Any other status.
    Rejected,
    /// The connection failed, was reset, or spoke something that is not HTTP.
    SocketError,
    /// The host name has no address.
    ResolutionError,
    /// The attempt was given up because the process or the subscription stopped.
    Aborted,
    /// Status 410: the endpoint wants no more of this subscription.
    Gone,
}

impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of an [`Attempt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The class of the result.
    pub kind: OutcomeKind,
    /// HTTP status, when the endpoint answered with one.
    pub status: Option<u16>,
    /// `Retry-After` of the answer, as a delay from now.
    pub retry_after: Option<Duration>,
    /// One line for operators: the cause of a failure, without secrets. Empty on success.
    pub detail: String,
    /// The beginning of a failed answer's body, at most [`EXCERPT`] bytes of it.
    pub excerpt: Option<Box<str>>,
    /// Time from the beginning of the attempt to its outcome.
    pub took: Duration,
}

/// Bytes of a failed answer's body that an outcome keeps.
pub const EXCERPT: usize = 1024;

impl Outcome {
    /// A result that was decided by an HTTP status.
    pub fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        let kind = match status {
            200..=204 => OutcomeKind::Delivered,
            400 => OutcomeKind::BadRequest,
            401 => OutcomeKind::Unauthorized,
            403 => OutcomeKind::Forbidden,
            404 => OutcomeKind::NotFound,
            408 => OutcomeKind::TimedOut,
            410 => OutcomeKind::Gone,
            413 => OutcomeKind::PayloadTooLarge,
            429 | 503 => OutcomeKind::Busy,
            _ => OutcomeKind::Rejected,
        };
        let detail = if kind == OutcomeKind::Delivered { String::new() } else { format!("status {status}") };
        Self { kind, status: Some(status), retry_after, detail, excerpt: None, took: Duration::ZERO }
    }

    /// A result without an answer.
    pub fn failed(kind: OutcomeKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, status: None, retry_after: None, detail, excerpt: None, took: Duration::ZERO }
    }

    /// Whether the endpoint took the event.
    pub fn is_delivered(&self) -> bool {
        self.kind == OutcomeKind::Delivered
    }
}

/// How an endpoint is asked whether it wants the events of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// Event Grid's: the endpoint is sent a `SubscriptionValidationEvent` and echoes its code, or somebody opens
    /// the URL that is in it.
    EventGrid {
        /// Id of the event.
        id: String,
        /// The topic, as events name it.
        topic: String,
        /// What the endpoint echoes.
        code: String,
        /// What a person may open instead; sent when there is one.
        url: Option<String>,
        /// `eventTime`, RFC 3339.
        at: String,
    },
    /// That of CloudEvents (HTTP webhooks 1.0.2, section 4): an `OPTIONS` request, answered by headers.
    CloudEvents {
        /// Who will send: `webhook-request-origin`.
        origin: String,
        /// Where the endpoint may grant later: `webhook-request-callback`.
        callback: Option<String>,
        /// Deliveries per minute asked for: `webhook-request-rate`.
        rate: Option<u32>,
    },
}

/// One handshake with an endpoint.
#[derive(Debug, Clone)]
pub struct Validation {
    /// The destination; its credentials are used as for a delivery.
    pub endpoint: Arc<Endpoint>,
    /// Name of the event subscription.
    pub subscription: Arc<str>,
    /// What is asked.
    pub handshake: Handshake,
    /// Time for the whole handshake; no transport takes more than [`HANDSHAKE`].
    pub timeout: Duration,
}

/// Who sends, where an endpoint is told no other name.
pub const ORIGIN: &str = "lanekeeper";

/// The longest time that a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(30);

/// What an endpoint said to a [`Handshake`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validated {
    /// It wants the events.
    Succeeded {
        /// Deliveries per minute that it takes; `None` when it names no limit.
        rate: Option<u32>,
    },
    /// It may still say yes, through the URL or the callback that it was given.
    AwaitingManualAction,
    /// It does not want them, or did not understand.
    Failed,
}

/// The result of a [`Validation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationOutcome {
    /// The decision.
    pub verdict: Validated,
    /// HTTP status, when the endpoint answered with one.
    pub status: Option<u16>,
    /// One line for operators: the cause of a failure, without secrets. Empty on success.
    pub detail: String,
    /// Time that the handshake took.
    pub took: Duration,
}

impl ValidationOutcome {
    /// A handshake that did not succeed, and why.
    pub fn failed(status: Option<u16>, detail: impl Into<String>) -> Self {
        Self { verdict: Validated::Failed, status, detail: detail.into(), took: Duration::ZERO }
    }
}

/// A way to reach an endpoint. Implementations bound their own memory and never outlive
/// [`Attempt::timeout`].
pub trait Transport: Send + Sync + 'static {
    /// Sends one attempt and reports what came of it. Never panics, never follows redirects.
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome>;

    /// Asks an endpoint whether it wants the events of a subscription. Never panics, never follows redirects.
    fn validate(&self, validation: Validation) -> BoxFuture<'static, ValidationOutcome> {
        drop(validation);
        Box::pin(async { ValidationOutcome::failed(None, "this transport knows no handshake") })
    }
}
