//! Stands between one attempt and the HTTP client: one request, one header block, one outcome.
//! Invariant: the header block decides the outcome; what follows it can cost time and bytes only within bounds.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::model::delivery::{Attempt, Outcome, OutcomeKind};
use percent_encoding::{CONTROLS, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use reqwest::{Client, Request, Response, Url};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::clients::Clients;
use super::guard::{parse_allow, parse_url};
use super::names::{LookupProblem, Lookups, Names};
use super::{WallClock, WebhookSettings, retry_after};

/// Time given to the rest of an answer once its header block has decided.
const DRAIN: Duration = Duration::from_secs(1);
/// Characters of a failure's cause that are kept.
const DETAIL: usize = 200;

/// Sends attempts; shared by all of them.
pub(crate) struct Sender {
    settings: WebhookSettings,
    clock: WallClock,
    lookups: Arc<Lookups>,
    clients: Clients,
    connections: Semaphore,
}

impl Sender {
    pub(crate) fn new(
        settings: WebhookSettings,
        clock: WallClock,
        names: Arc<dyn Names>,
    ) -> Result<Self, reqwest::Error> {
        let lookups = Arc::new(Lookups::new(names));
        let clients = Clients::new(Arc::clone(&lookups), settings.connect_timeout)?;
        let connections = Semaphore::new(settings.connections.min(Semaphore::MAX_PERMITS));
        Ok(Self { settings, clock, lookups, clients, connections })
    }

    /// Sends one attempt. Waiting for a free connection counts against the deadline like everything else.
    pub(crate) async fn send(&self, attempt: &Attempt, deadline: Instant) -> Outcome {
        let (client, request) = match self.prepare(attempt) {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        let Ok(permit) = timeout_at(deadline, self.connections.acquire()).await else {
            return Outcome::failed(OutcomeKind::TimedOut, "no connection became free before the deadline");
        };
        let outcome = self.exchange(&client, request, deadline).await;
        drop(permit);
        outcome
    }

    /// Makes the checks that need no network, and the request.
    fn prepare(&self, attempt: &Attempt) -> Result<(Client, Request), Outcome> {
        let allow = parse_allow(&attempt.endpoint.allow).map_err(|problem| forbidden(&problem))?;
        let url = parse_url(&attempt.endpoint.url, &allow).map_err(|problem| forbidden(&problem))?;
        let client = self.clients.for_allow(&allow).map_err(|problem| unsendable(&problem))?;
        let request = request(&client, url, attempt).map_err(|problem| unsendable(&problem))?;
        Ok((client, request))
    }

    async fn exchange(&self, client: &Client, request: Request, deadline: Instant) -> Outcome {
        let url = request.url().clone();
        let started = Instant::now();
        let mut response = match timeout_at(deadline, client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_timeout() => {
                return self.timed_out(&url, started, "connecting took too long");
            }
            Ok(Err(error)) => return failure(&error, &url),
            Err(_) => return self.timed_out(&url, started, "no complete answer before the deadline"),
        };
        let headers = response.headers();
        if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
            // Two lengths: whoever reads one of them wrongly sees an answer that was never given (RFC 9112, 6.3).
            return Outcome::failed(
                OutcomeKind::SocketError,
                "the answer has both content-length and transfer-encoding",
            );
        }
        let delay = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let delay = delay.and_then(|value| retry_after::parse(value, (self.clock)()));
        let outcome = Outcome::from_status(response.status().as_u16(), delay);
        drain(&mut response, self.settings.response_cap, drain_until(deadline)).await;
        outcome
    }

    /// A name server that keeps silent is not a host that keeps silent.
    fn timed_out(&self, url: &Url, started: Instant, detail: &str) -> Outcome {
        // A look-up that this attempt waits for is about as old as the attempt; a younger one is another's.
        let waiting = url.host_str().and_then(|host| self.lookups.waiting_for(host));
        if waiting.is_some_and(|lookup| lookup.saturating_mul(2) >= started.elapsed()) {
            return Outcome::failed(OutcomeKind::ResolutionError, "the host name was not resolved in time");
        }
        Outcome::failed(OutcomeKind::TimedOut, detail)
    }
}

/// The request of an attempt; the client adds `host`, `content-length`, `user-agent` and `accept`.
fn request(client: &Client, url: Url, attempt: &Attempt) -> Result<Request, reqwest::Error> {
    let mut request = client
        .post(url)
        .header(CONTENT_TYPE, attempt.content_type)
        .header("webhook-id", header_text(&attempt.event_id).as_ref())
        .header("x-delivery-attempt", attempt.number)
        .header("x-subscription", header_text(&attempt.subscription).as_ref());
    if let Some(traceparent) = &attempt.traceparent {
        request = request.header("traceparent", header_text(traceparent).as_ref());
    }
    request.body(attempt.body.clone()).build()
}

/// Percent-encodes what no header may hold. An event id may be any text.
fn header_text(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, CONTROLS).into()
}

/// When the rest of an answer is given up.
fn drain_until(deadline: Instant) -> Instant {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("delivery::endless_drain", |_| Instant::now() + super::LONGEST_ATTEMPT);
    deadline.min(Instant::now() + DRAIN)
}

/// Reads the rest of an answer within bounds. Only a body that ended leaves the connection in the pool;
/// otherwise dropping the response closes it.
async fn drain(response: &mut Response, cap: usize, until: Instant) {
    let reading = async {
        let mut read = 0_usize;
        while let Some(chunk) = response.chunk().await? {
            read = read.saturating_add(chunk.len());
            if read > cap {
                return Ok(false);
            }
        }
        Ok::<_, reqwest::Error>(true)
    };
    match timeout_at(until, reading).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => debug!(cap, "answer body cut at its cap"),
        Ok(Err(problem)) => debug!(problem = %problem.without_url(), "answer body broke off"),
        Err(_) => debug!("answer body given up"),
    }
}

/// An endpoint that this subscription may not contact.
fn forbidden(problem: &dyn Error) -> Outcome {
    let mut detail = problem.to_string();
    if let Some(cause) = problem.source() {
        detail = format!("{detail}: {cause}");
    }
    Outcome::failed(OutcomeKind::Forbidden, shorten(&detail))
}

/// A request that cannot even be written down; trying again does not help, but says so each time.
fn unsendable(problem: &reqwest::Error) -> Outcome {
    Outcome::failed(OutcomeKind::Rejected, shorten(&format!("the request cannot be made: {}", root(problem))))
}

/// What came of an exchange without an answer. The cause is told without the URL, which may hold a secret.
fn failure(error: &reqwest::Error, url: &Url) -> Outcome {
    if let Some(problem) = find::<LookupProblem>(error) {
        let kind = match problem {
            LookupProblem::Refused(_) => OutcomeKind::Forbidden,
            LookupProblem::NoAddress | LookupProblem::Failed(_) => OutcomeKind::ResolutionError,
            LookupProblem::GivenUp => OutcomeKind::Aborted,
        };
        return Outcome::failed(kind, shorten(&problem.to_string()));
    }
    let cause = root(error);
    let io = find::<io::Error>(error);
    let kind = io.map(io::Error::kind);
    // The TLS library reports through errors of its own, which the system has no number for.
    let by_system = io.is_some_and(|io| io.raw_os_error().is_some());
    let tls = url.scheme() == "https"
        && (error.is_connect() && !by_system || kind == Some(io::ErrorKind::InvalidData));
    let detail = if tls {
        format!("tls: {cause}")
    } else if kind == Some(io::ErrorKind::ConnectionRefused) {
        "connection refused".to_owned()
    } else if kind == Some(io::ErrorKind::ConnectionReset) {
        "connection reset".to_owned()
    } else {
        cause.to_string()
    };
    Outcome::failed(OutcomeKind::SocketError, shorten(&detail))
}

/// An error and its sources, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The innermost error of a type in a chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).filter_map(|error| error.downcast_ref()).last()
}

/// The first cause of an error.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// One line of bounded length: parts of it come from strangers.
fn shorten(detail: &str) -> String {
    detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL).collect()
}
