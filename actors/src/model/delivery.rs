//! One delivery attempt as plain data: what is sent to an endpoint, and what came of it.
//!
//! Stands between a subscriber, which decides when to try, and a transport, which knows a protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// Where a subscription's events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Absolute `http` or `https` URL.
    pub url: String,
    /// CIDR blocks that may be contacted although they are private, loopback or link-local,
    /// for instance `127.0.0.0/8`. Public addresses need no entry.
    pub allow: Vec<String>,
}

/// One request to an endpoint.
#[derive(Debug, Clone)]
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
    /// Media type of `body`.
    pub content_type: &'static str,
    /// The rendered event.
    pub body: Bytes,
    /// Time for the whole attempt: resolving, connecting, sending, and reading the answer.
    pub timeout: Duration,
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
}

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
            413 => OutcomeKind::PayloadTooLarge,
            429 | 503 => OutcomeKind::Busy,
            _ => OutcomeKind::Rejected,
        };
        let detail = if kind == OutcomeKind::Delivered { String::new() } else { format!("status {status}") };
        Self { kind, status: Some(status), retry_after, detail }
    }

    /// A result without an answer.
    pub fn failed(kind: OutcomeKind, detail: impl Into<String>) -> Self {
        Self { kind, status: None, retry_after: None, detail: detail.into() }
    }

    /// Whether the endpoint took the event.
    pub fn is_delivered(&self) -> bool {
        self.kind == OutcomeKind::Delivered
    }
}

/// A way to reach an endpoint. Implementations bound their own memory and never outlive
/// [`Attempt::timeout`].
pub trait Transport: Send + Sync + 'static {
    /// Sends one attempt and reports what came of it. Never panics, never follows redirects.
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome>;
}
