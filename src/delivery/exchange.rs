//! Stands between a request and its answer: one header block out of one connection, within one deadline.
//! Invariant: a request is sent once, or twice when the first connection was an old one that the peer had closed
//! without a byte of an answer or a look at the request; it is never sent a third time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode, Version};
use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::connect::{Link, Payload, Speaking};
use super::endpoint::Place;
use super::failure::{failure, is_unprocessed};
use super::pool::{Lease, Pool};

/// Time given to the rest of an answer once its header block has decided.
const DRAIN: Duration = Duration::from_secs(1);

/// When the rest of an answer is given up.
fn drain_until(deadline: Instant) -> Instant {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("delivery::endless_drain", |_| Instant::now() + super::LONGEST_ATTEMPT);
    deadline.min(Instant::now() + DRAIN)
}
/// A peer that had closed an idle connection says so within a round trip. One that takes longer had the request.
const STALE: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Makes the headers. They are made again if the request is sent again, which is rare.
    pub(crate) headers: &'a (dyn Fn() -> HeaderMap + Send + Sync),
    pub(crate) body: Bytes,
}

/// What came back, up to the end of its header block.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    link: Link,
}

/// Sends requests over pooled connections.
pub(crate) struct Exchange {
    pub(crate) pool: Pool,
    /// Bytes of a body that are read.
    pub(crate) cap: usize,
}

impl Exchange {
    /// Sends a request and waits for the header block of its answer.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn call(
        &self,
        place: &Place,
        call: Call<'_>,
        deadline: Instant,
    ) -> Result<Answer, Outcome> {
        let Lease { link, reused } = self.pool.lease(&place.origin, deadline).await?;
        match sent(link, place, call.clone(), deadline).await {
            Ok(answer) => Ok(answer),
            Err(broken) if reused && broken.stale => {
                let cause = broken.outcome.detail;
                debug!(cause, "an old connection was closed: the request is sent on a new one");
                place.origin.unshare();
                Box::pin(self.anew(place, call, deadline)).await
            }
            Err(broken) => Err(broken.outcome),
        }
    }

    /// Sends a request over a connection that nobody used before.
    async fn anew(&self, place: &Place, call: Call<'_>, deadline: Instant) -> Result<Answer, Outcome> {
        let Lease { link, .. } = self.pool.fresh(&place.origin, deadline).await?;
        sent(link, place, call, deadline).await.map_err(|broken| broken.outcome)
    }

    /// Reads the rest of an answer within bounds and returns at most `keep` bytes of it. Only a body that ended
    /// leaves its connection to others; dropping the rest closes it.
    pub(crate) async fn finish(
        &self,
        place: &Place,
        answer: Answer,
        keep: usize,
        deadline: Instant,
    ) -> Vec<u8> {
        let Answer { mut body, link, .. } = answer;
        let mut kept = Vec::new();
        if !body.is_end_stream() {
            let until = drain_until(deadline);
            let reading = drain(&mut body, &mut kept, keep, self.cap);
            match timeout_at(until, reading).await {
                Ok(true) => {}
                Ok(false) => return kept,
                Err(_) => {
                    debug!("answer body given up");
                    return kept;
                }
            }
        }
        self.pool.give_back(&place.origin, link);
        kept
    }
}

/// Whether the body ended before its cap.
async fn drain(body: &mut Incoming, kept: &mut Vec<u8>, keep: usize, cap: usize) -> bool {
    let mut read = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(problem) => {
                debug!(%problem, "answer body broke off");
                return false;
            }
        };
        let Some(data) = frame.data_ref() else { continue };
        let wanted = keep.saturating_sub(kept.len()).min(data.len());
        kept.extend(data.iter().take(wanted));
        read = read.saturating_add(data.len());
        if read > cap {
            debug!(cap, "answer body cut at its cap");
            return false;
        }
    }
    true
}

/// A request without an answer.
struct Broken {
    outcome: Outcome,
    /// Whether the peer had closed the connection, for all that can be seen.
    stale: bool,
}

impl From<Outcome> for Broken {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, stale: false }
    }
}

async fn sent(mut link: Link, place: &Place, call: Call<'_>, deadline: Instant) -> Result<Answer, Broken> {
    let received = link.received();
    let begun = Instant::now();
    let request = request(&link, place, call);
    let answered = match &mut link.speaking {
        Speaking::Http1(sender) => timeout_at(deadline, sender.try_send_request(request)).await,
        Speaking::Http2(sender) => timeout_at(deadline, sender.try_send_request(request)).await,
    };
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(mut problem)) => {
            let unsent = problem.take_message().is_some() || is_unprocessed(problem.error());
            let silent = link.received() == received && begun.elapsed() < STALE;
            return Err(Broken { outcome: failure(problem.error()), stale: unsent || silent });
        }
        Err(_) => {
            let outcome = Outcome::failed(OutcomeKind::TimedOut, "no complete answer before the deadline");
            return Err(outcome.into());
        }
    };
    let (parts, body) = Response::into_parts(response);
    if parts.headers.contains_key(TRANSFER_ENCODING) && parts.headers.contains_key(CONTENT_LENGTH) {
        // Two lengths: whoever reads one of them wrongly sees an answer that was never given (RFC 9112, 6.3).
        let detail = "the answer has both content-length and transfer-encoding";
        return Err(Outcome::failed(OutcomeKind::SocketError, detail).into());
    }
    Ok(Answer { status: parts.status, headers: parts.headers, body, link })
}

/// Writes a request as the connection's version of HTTP wants it.
fn request(link: &Link, place: &Place, call: Call<'_>) -> Request<Payload> {
    let Call { method, headers, body } = call;
    let mut headers = headers();
    let mut request = Request::new(Payload::new(body));
    match &link.speaking {
        Speaking::Http1(_) => {
            headers.insert(HOST, place.host.clone());
            *request.uri_mut() = place.path.clone();
        }
        Speaking::Http2(_) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = place.whole.clone();
        }
    }
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    request
}
