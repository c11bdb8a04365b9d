//! Stands between one attempt and HTTP: one request, one header block, one outcome.
//! Invariant: the header block decides the outcome; what follows it can cost time and bytes only within bounds.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode, header};
use lanekeeper_actors::model::delivery::{Attempt, EXCERPT, Endpoint, Outcome, OutcomeKind};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::connect::Dialer;
use super::endpoint::{EndpointProblem, Endpoints, Prepared};
use super::exchange::{Answer, Call, Exchange};
use super::names::{Lookups, Names};
use super::pool::Pool;
use super::tls::{Settings, TlsProblem};
use super::token::{Tokens, Via};
use super::{WallClock, WebhookSettings, retry_after, sign};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const NUMBER: HeaderName = HeaderName::from_static("x-delivery-attempt");
const SUBSCRIPTION: HeaderName = HeaderName::from_static("x-subscription");
const REPLAY: HeaderName = HeaderName::from_static("x-replay-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Headers that belong to the connection or to the message as it is framed, and not to a subscription
/// (RFC 9110, sections 6.4 and 7.6.1).
const OF_THE_CONNECTION: [HeaderName; 12] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Sends attempts; shared by all of them.
pub(crate) struct Sender {
    pub(crate) clock: WallClock,
    pub(crate) exchange: Exchange,
    endpoints: Endpoints,
    connections: Semaphore,
}

impl Sender {
    pub(crate) fn new(
        settings: WebhookSettings,
        clock: WallClock,
        names: Arc<dyn Names>,
    ) -> Result<Self, TlsProblem> {
        let dialer = Dialer { lookups: Lookups::new(names), limit: settings.connect_timeout };
        let exchange = Exchange { pool: Pool::new(dialer, Settings::new()?), cap: settings.response_cap };
        let connections = Semaphore::new(settings.connections.min(Semaphore::MAX_PERMITS));
        Ok(Self { clock, exchange, endpoints: Endpoints::new(), connections })
    }

    /// Sends one attempt. Waiting for a free connection counts against the deadline like everything else.
    pub(crate) async fn send(&self, attempt: &Attempt, deadline: Instant) -> Outcome {
        match self.attempt(attempt, deadline).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn attempt(&self, attempt: &Attempt, deadline: Instant) -> Result<Outcome, Outcome> {
        let endpoint = self.prepared(&attempt.endpoint).map_err(|problem| problem.outcome())?;
        let _permit = self.permit(deadline).await?;
        let headers = || self.headers(&endpoint, attempt);
        let call = Call { method: Method::POST, headers: &headers, body: attempt.body.clone() };
        let answer = self.answer(&endpoint, call, deadline).await?;
        #[cfg(feature = "failpoints")]
        if let Some(elsewhere) = followed(&answer.headers, &attempt.endpoint) {
            let attempt = Attempt { endpoint: elsewhere, ..attempt.clone() };
            return Box::pin(self.attempt(&attempt, deadline)).await;
        }
        let delay = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let delay = delay.and_then(|value| retry_after::parse(value, (self.clock)()));
        let mut outcome = Outcome::from_status(answer.status.as_u16(), delay);
        let keep = if outcome.is_delivered() { 0 } else { EXCERPT };
        let kept = self.exchange.finish(&endpoint.place, answer, keep, deadline).await;
        outcome.excerpt = (!kept.is_empty()).then(|| String::from_utf8_lossy(&kept).into());
        Ok(outcome)
    }

    /// An endpoint with its keys, credentials and connections.
    ///
    /// # Errors
    /// See [`EndpointProblem`].
    pub(crate) fn prepared(&self, endpoint: &Arc<Endpoint>) -> Result<Arc<Prepared>, EndpointProblem> {
        self.endpoints.prepared(&self.exchange.pool, endpoint)
    }

    /// A place among those that may be under way.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Outcome> {
        match timeout_at(deadline, self.connections.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                let detail = "no connection became free before the deadline";
                Err(Outcome::failed(OutcomeKind::TimedOut, detail))
            }
        }
    }

    /// Sends a request with the endpoint's credentials. A token that is refused is replaced once.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn answer(
        &self,
        endpoint: &Prepared,
        call: Call<'_>,
        deadline: Instant,
    ) -> Result<Answer, Outcome> {
        match &endpoint.tokens {
            None => self.exchange.call(&endpoint.place, call, deadline).await,
            Some(tokens) => Box::pin(self.answer_with(tokens, endpoint, call, deadline)).await,
        }
    }

    async fn answer_with(
        &self,
        tokens: &Tokens,
        endpoint: &Prepared,
        call: Call<'_>,
        deadline: Instant,
    ) -> Result<Answer, Outcome> {
        let via = Via { exchange: &self.exchange, clock: &self.clock, deadline };
        let token = tokens.current(&via).await?;
        let plain = call.headers;
        let with = |token: &HeaderValue| {
            let mut headers = plain();
            headers.insert(AUTHORIZATION, token.clone());
            headers
        };
        let first = Call { headers: &|| with(&token), ..call.clone() };
        let answer = self.exchange.call(&endpoint.place, first, deadline).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.exchange.finish(&endpoint.place, answer, 0, deadline).await;
        let token = tokens.renewed(&token, &via).await?;
        let second = Call { headers: &|| with(&token), ..call };
        self.exchange.call(&endpoint.place, second, deadline).await
    }

    /// The headers of an attempt. Those of the subscription come before our own, so that they cannot stand for them.
    fn headers(&self, endpoint: &Prepared, attempt: &Attempt) -> HeaderMap {
        let mut headers = endpoint.headers.clone();
        for (place, (name, value)) in attempt.headers.iter().enumerate() {
            let Some((name, value)) = header(name, value) else { continue };
            let repeats = |(other, _): &(Arc<str>, String)| other.eq_ignore_ascii_case(name.as_str());
            if attempt.headers.iter().take(place).any(repeats) {
                headers.append(name, value);
            } else {
                headers.insert(name, value);
            }
        }
        match &attempt.content_type {
            Some(content_type) => insert(&mut headers, CONTENT_TYPE, content_type),
            None => drop(headers.remove(CONTENT_TYPE)),
        }
        headers.insert(NUMBER, HeaderValue::from(attempt.number));
        insert(&mut headers, SUBSCRIPTION, &attempt.subscription);
        for (name, text) in [(TRACEPARENT, &attempt.traceparent), (REPLAY, &attempt.replay)] {
            if let Some(text) = text {
                insert(&mut headers, name, text);
            }
        }
        self.identify(&mut headers, endpoint, &attempt.event_id, &attempt.body);
        headers
    }

    /// Names an event, and signs it if the endpoint has keys.
    pub(crate) fn identify(&self, headers: &mut HeaderMap, endpoint: &Prepared, id: &str, body: &[u8]) {
        let Some(signer) = &endpoint.signer else {
            return insert(headers, WEBHOOK_ID, id);
        };
        let id = sign::undotted(&header_text(id));
        let since = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.as_ref().map_or(0, Duration::as_secs);
        insert(headers, WEBHOOK_SIGNATURE, &signer.sign(&id, since, body));
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(since));
        insert(headers, WEBHOOK_ID, &id);
    }

    /// Closes and forgets what nobody used for a while.
    pub(crate) fn sweep(&self) {
        self.endpoints.sweep();
        self.exchange.pool.sweep();
    }
}

/// A header of a subscription, unless HTTP has no place for it there.
fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    if OF_THE_CONNECTION.contains(&name) {
        return None;
    }
    let mut value = HeaderValue::from_str(&header_text(value)).ok()?;
    // It may be a secret, which tables of compression are not to keep.
    value.set_sensitive(true);
    Some((name, value))
}

/// Sets a header, percent-encoding what no header may hold.
pub(crate) fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Nothing is left in the text that a header cannot hold.
    if let Ok(value) = HeaderValue::from_str(&header_text(text)) {
        headers.insert(name, value);
    }
}

/// Percent-encodes what no header may hold. An event id may be any text.
fn header_text(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, CONTROLS).into()
}

/// Where a redirect leads, for a test that shows that nobody should go there.
#[cfg(feature = "failpoints")]
fn followed(headers: &HeaderMap, endpoint: &Endpoint) -> Option<Arc<Endpoint>> {
    fail::fail_point!("delivery::follow_redirects", |_| {
        let url = headers.get(header::LOCATION)?.to_str().ok()?.to_owned();
        Some(Arc::new(Endpoint { url, ..endpoint.clone() }))
    });
    None
}
