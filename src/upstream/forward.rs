//! A request from the gateway to one of the servers that can answer it, and what happens when one cannot.
//!
//! Invariants: a request that may have reached a server is sent again only if doing so changes nothing or the caller
//! said how to tell the two apart; a request that reached nobody may always be sent again; nothing of a body that is
//! gone is ever missing from what is sent.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lanekeeper_actors::policy::upstream::Ending;
use tokio::time::{Instant, timeout};

use super::answer::{Answer, Body, UnderWay};
use super::backend::{Backend, Chosen, bit};
use super::connection::Connection;
use super::dial::NoConnection;
use super::exchange::{Broken, Exchange, Patience};
use super::pool;
use super::wire::{Head, Length, Lost, Sending, Source};

/// Methods that change nothing (RFC 9110 section 9.2.1), and those that change nothing more the second time.
const SAFE: [&str; 4] = ["GET", "HEAD", "OPTIONS", "TRACE"];
const IDEMPOTENT: [&str; 2] = ["PUT", "DELETE"];

/// A request on its way to a server.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path below that of the server, and its query: as they stand in a request line.
    pub target: &'a str,
    /// Its fields, as [`fields`](super::fields) writes them.
    pub fields: &'a [u8],
    /// How long its body is.
    pub length: Length,
    /// Whether the caller named it with an `Idempotency-Key`.
    pub named: bool,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// There was no connection, or it ended without an answer.
    #[error("the server behind this operation cannot be reached")]
    Unreachable,
    /// What came was no answer.
    #[error("the server behind this operation gave no valid answer")]
    Invalid,
    /// There was no answer in time.
    #[error("the server behind this operation gave no answer in time")]
    TimedOut,
    /// All servers are left alone.
    #[error("no server behind this operation takes requests now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
    /// The body of the request is larger than this.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// The body of the request did not come in time.
    #[error("the body did not come in time")]
    BodyTimedOut,
    /// The body of the request did not come whole.
    #[error("the body did not come whole")]
    BodyLost,
}

/// What one attempt came to. The larger one is the usual one, and is moved once.
#[expect(
    clippy::large_enum_variant,
    reason = "a box for each request would cost more than a few bytes on the stack"
)]
enum Attempted {
    Answered(Head, Exchange),
    Failed(Failed, Option<Ending>),
}

impl Outgoing<'_> {
    fn is_safe(&self) -> bool {
        SAFE.contains(&self.method)
    }

    /// Whether it may reach a server twice.
    fn may_repeat(&self) -> bool {
        self.is_safe() || IDEMPOTENT.contains(&self.method) || self.named
    }
}

impl Backend {
    /// Sends a request to a server of this backend and returns its answer, of which the body is still to come.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn forward(
        self: &Arc<Self>,
        request: &Outgoing<'_>,
        source: &mut dyn Source,
    ) -> Result<Answer, Failed> {
        // Counts callers that go away before there is an answer.
        let mut counted = Counted(Some(self));
        let answer = self.attempts(request, source).await;
        counted.0 = None;
        self.metrics.count(answer.as_ref().map(|answer| answer.head.status));
        answer
    }

    async fn attempts(
        self: &Arc<Self>,
        request: &Outgoing<'_>,
        source: &mut dyn Source,
    ) -> Result<Answer, Failed> {
        let limit = self.body_limit();
        if matches!(request.length, Length::Known(length) if length > limit) {
            return Err(Failed::TooLarge(limit));
        }
        let mut held = Held { prefix: Bytes::new(), whole: false, offered: false, spent: false, source };
        if self.definition.retry.is_some() && request.may_repeat() {
            self.hold(request, &mut held).await?;
        }
        let (mut tried, mut retries, mut failure) = (0, 0, None);
        loop {
            let chosen = match self.choose(tried) {
                Ok(chosen) => chosen,
                Err(retry_after) => {
                    // All were tried: the next try may meet one of them again.
                    let again = if tried == 0 { Err(retry_after) } else { self.choose(0) };
                    tried = 0;
                    again.map_err(|retry_after| failure.unwrap_or(Failed::Unavailable { retry_after }))?
                }
            };
            let number = chosen.number;
            tried |= bit(number);
            let under_way = UnderWay::new(self, number);
            let attempted = self.attempt(&chosen, request, &mut held).await;
            let ending = match &attempted {
                Attempted::Answered(head, _) => Some(Ending::Answered(head.status)),
                Attempted::Failed(_, ending) => *ending,
            };
            if let Some(ending) = ending {
                let head = if let Attempted::Answered(head, _) = &attempted { Some(head) } else { None };
                chosen.end(ending, head);
                if let Some(delay) = self.again(request, &held, (ending, tried), &mut retries) {
                    if let Attempted::Failed(failed, _) = attempted {
                        failure = Some(failed);
                    }
                    // An answer that nobody wants ends with its connection.
                    drop((attempted, under_way));
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    continue;
                }
            }
            return match attempted {
                Attempted::Answered(head, exchange) => {
                    let body = Body::new(&head, exchange, under_way);
                    Ok(Answer { head, body })
                }
                Attempted::Failed(failed, _) => Err(failed),
            };
        }
    }

    /// When the request is sent again, if it is.
    fn again(
        &self,
        request: &Outgoing<'_>,
        held: &Held<'_>,
        (ending, tried): (Ending, u32),
        retries: &mut u32,
    ) -> Option<Duration> {
        if held.spent {
            return None;
        }
        let unsent = ending == Ending::Unreachable;
        if let Some(retry) = &self.definition.retry
            && retry.on.has(ending)
            && *retries < retry.rules.count
            && (unsent || request.may_repeat())
        {
            *retries += 1;
            self.metrics.retries.inc();
            return Some(retry.rules.delay(*retries, fastrand::f64()));
        }
        // Nothing was sent, so asking a server that was not asked yet is no second time.
        (unsent && self.definition.retry.is_none() && self.has_other(tried)).then_some(Duration::ZERO)
    }

    /// Reads as much of the body as may be held, so that the request can be sent again.
    async fn hold(&self, request: &Outgoing<'_>, held: &mut Held<'_>) -> Result<(), Failed> {
        let most = self.shared.limits.buffer;
        let fits = match request.length {
            Length::None => false,
            Length::Known(length) => usize::try_from(length).is_ok_and(|length| length <= most),
            Length::Unknown => true,
        };
        if !fits {
            return Ok(());
        }
        let mut body = BytesMut::new();
        let reading = std::future::poll_fn(|cx| {
            loop {
                match held.source.poll_piece(cx) {
                    Poll::Ready(Some(Ok(piece))) => body.extend_from_slice(&piece),
                    Poll::Ready(Some(Err(Lost))) => return Poll::Ready(Err(Failed::BodyLost)),
                    Poll::Ready(None) => return Poll::Ready(Ok(true)),
                    Poll::Pending => return Poll::Pending,
                }
                if body.len() > most {
                    return Poll::Ready(Ok(false));
                }
            }
        });
        let read = timeout(self.shared.limits.body_timeout, reading).await;
        held.whole = read.unwrap_or(Err(Failed::BodyTimedOut))?;
        held.prefix = body.freeze();
        Ok(())
    }

    /// Sends the request once; twice when the first connection was an old one that its server had closed.
    async fn attempt(&self, chosen: &Chosen<'_>, request: &Outgoing<'_>, held: &mut Held<'_>) -> Attempted {
        let limits = &self.shared.limits;
        let now = Instant::now();
        let until = now + self.timeout();
        let patience = Patience { until, body: limits.body_timeout, bytes: limits.body };
        if let Some(connection) = pool::take(chosen.member.id, now) {
            held.offered = false;
            match self.exchange(connection, chosen, request, (held, patience)).await {
                (exchange, Ok(head)) => return Attempted::Answered(head, exchange),
                (exchange, Err(Broken::Fault(fault)))
                    if !exchange.connection.heard && request.is_safe() && !held.spent =>
                {
                    tracing::debug!(%fault, "an old connection was closed: the request is sent on a new one");
                }
                (exchange, Err(broken)) => return self.failed(chosen, &exchange, broken),
            }
        }
        held.offered = false;
        let connecting = until.min(now + limits.connect_timeout);
        let connection = match chosen.member.target.dial(&self.shared.lookups, connecting).await {
            Ok(connection) => connection,
            Err(problem) => {
                chosen.member.known_failure(problem.to_string());
                let (backend, server) = (self.name(), &chosen.member.place.address);
                tracing::debug!(backend, %server, %problem, "server not reached");
                let failed = match problem {
                    NoConnection::TimedOut => Failed::TimedOut,
                    NoConnection::Unreachable(_) => Failed::Unreachable,
                };
                return Attempted::Failed(failed, Some(Ending::Unreachable));
            }
        };
        match self.exchange(connection, chosen, request, (held, patience)).await {
            (exchange, Ok(head)) => Attempted::Answered(head, exchange),
            (exchange, Err(broken)) => self.failed(chosen, &exchange, broken),
        }
    }

    async fn exchange(
        &self,
        connection: Connection,
        chosen: &Chosen<'_>,
        request: &Outgoing<'_>,
        (held, patience): (&mut Held<'_>, Patience),
    ) -> (Exchange, Result<Head, Broken>) {
        let Outgoing { method, target, fields, length, .. } = *request;
        let (base, line) = (&chosen.member.place.address.base, &chosen.member.host_line);
        let room = method.len() + 1 + base.len() + target.len() + line.len() + fields.len() + 64;
        let mut head = BytesMut::with_capacity(room);
        for part in [method, " ", base, target, line] {
            head.extend_from_slice(part.as_bytes());
        }
        head.extend_from_slice(fields);
        let sending = Sending::new(head, length, self.body_limit());
        let mut exchange = Exchange::new(connection, sending);
        let answered = exchange.answer(held, method == "HEAD", patience).await;
        (exchange, answered)
    }

    fn failed(&self, chosen: &Chosen<'_>, exchange: &Exchange, broken: Broken) -> Attempted {
        let (failed, ending) = match &broken {
            Broken::TooLarge => return Attempted::Failed(Failed::TooLarge(self.body_limit()), None),
            Broken::BodyTimedOut => return Attempted::Failed(Failed::BodyTimedOut, None),
            Broken::BodyLost => return Attempted::Failed(Failed::BodyLost, None),
            Broken::TimedOut => (Failed::TimedOut, Ending::TimedOut),
            Broken::Fault(_) if exchange.connection.heard => (Failed::Invalid, Ending::Broken),
            Broken::Fault(_) => (Failed::Unreachable, Ending::Broken),
        };
        let why = match broken {
            Broken::Fault(fault) => fault.to_string(),
            Broken::TimedOut | Broken::TooLarge | Broken::BodyTimedOut | Broken::BodyLost => {
                failed.to_string()
            }
        };
        let (backend, server) = (self.name(), &chosen.member.place.address);
        tracing::debug!(backend, %server, why, "no answer");
        chosen.member.known_failure(why);
        Attempted::Failed(failed, Some(ending))
    }
}

/// A body of which the beginning is held.
struct Held<'s> {
    prefix: Bytes,
    /// Whether the prefix is all of it.
    whole: bool,
    /// Whether the prefix was handed out in this attempt.
    offered: bool,
    /// Whether something was handed out that cannot be handed out again.
    spent: bool,
    source: &'s mut dyn Source,
}

impl Source for Held<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        if !self.offered && !self.prefix.is_empty() {
            self.offered = true;
            return Poll::Ready(Some(Ok(self.prefix.clone())));
        }
        if self.whole {
            return Poll::Ready(None);
        }
        let piece = self.source.poll_piece(cx);
        self.spent |= matches!(piece, Poll::Ready(_));
        piece
    }
}

/// Counts a request that is dropped before its end.
struct Counted<'b>(Option<&'b Arc<Backend>>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(backend) = self.0 {
            backend.metrics.abandoned();
        }
    }
}
