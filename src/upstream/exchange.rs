//! One request on one connection, up to the head of its answer.
//!
//! Invariant: whoever keeps the request waiting is charged for the time: the server for an answer that does not come,
//! the caller for a body that does not. A server may answer before it has the whole body.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::{Connection, Fault};
use super::wire::{Head, SendFault, Sending, Source, Waiting};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The server kept everybody waiting.
    TimedOut,
    /// The connection broke, or brought something that is no answer.
    Fault(Fault),
    /// The body of the request is larger than its limit.
    TooLarge,
    /// The body of the request did not come in time.
    BodyTimedOut,
    /// The body of the request did not come whole.
    BodyLost,
}

/// A connection in the middle of a request.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) connection: Connection,
    pub(super) sending: Sending,
    /// Whether the server took no more of the request.
    pub(super) deaf: bool,
}

/// How long everybody may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The server, until this moment and for as much longer as the caller takes.
    pub(super) until: Instant,
    /// The caller, for each so many bytes of the body.
    pub(super) body: Duration,
    pub(super) bytes: u64,
}

impl Exchange {
    pub(super) fn new(connection: Connection, sending: Sending) -> Self {
        Self { connection, sending, deaf: false }
    }

    /// Sends the request and waits for the head of its answer.
    pub(super) async fn answer(
        &mut self,
        source: &mut dyn Source,
        headless: bool,
        patience: Patience,
    ) -> Result<Head, Broken> {
        let mut sleep = pin!(sleep_until(patience.until));
        let mut watch = Watch { patience, granted: patience.bytes, since: None, spent: Duration::ZERO };
        let mut interim = 0;
        std::future::poll_fn(|cx| {
            let waiting = match self.poll_send(source, cx) {
                Ok(waiting) => waiting,
                Err(broken) => return Poll::Ready(Err(broken)),
            };
            match self.connection.poll_head(headless, &mut interim, cx) {
                Poll::Ready(head) => return Poll::Ready(head.map_err(Broken::Fault)),
                Poll::Pending => {}
            }
            watch.charge(waiting, self.sending.taken, sleep.as_mut());
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) if waiting == Waiting::Client => Poll::Ready(Err(Broken::BodyTimedOut)),
                Poll::Ready(()) => Poll::Ready(Err(Broken::TimedOut)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Sends what it can; says for whom the request waits.
    pub(super) fn poll_send(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Result<Waiting, Broken> {
        let mut waiting = Waiting::Server;
        if self.deaf || self.sending.is_done() {
            return Ok(waiting);
        }
        match self.sending.poll(&mut self.connection.io, source, &mut waiting, cx) {
            Poll::Ready(Ok(())) | Poll::Pending => Ok(waiting),
            Poll::Ready(Err(SendFault::Connection)) => {
                // It may have answered already, and then closed; if not, reading says what happened.
                self.deaf = true;
                Ok(Waiting::Server)
            }
            Poll::Ready(Err(SendFault::TooLarge)) => Err(Broken::TooLarge),
            Poll::Ready(Err(SendFault::Lost)) => Err(Broken::BodyLost),
        }
    }
}

/// Charges whoever is waited for.
struct Watch {
    patience: Patience,
    /// The caller has time for so many bytes.
    granted: u64,
    /// Since when the caller is waited for.
    since: Option<Instant>,
    /// Time that the caller took before.
    spent: Duration,
}

impl Watch {
    fn charge(&mut self, waiting: Waiting, taken: u64, mut sleep: Pin<&mut Sleep>) {
        match (waiting, self.since) {
            (Waiting::Client, None) => self.since = Some(Instant::now()),
            (Waiting::Server, Some(since)) => {
                let took = since.elapsed();
                self.since = None;
                self.spent = self.spent.saturating_add(took);
                sleep.as_mut().reset(self.patience.until + self.spent);
                return;
            }
            (Waiting::Client, Some(_)) if taken < self.granted => return,
            (Waiting::Client, Some(_)) => {}
            (Waiting::Server, None) => return,
        }
        while taken >= self.granted {
            self.granted = self.granted.saturating_add(self.patience.bytes.max(1));
        }
        let shares = (self.granted / self.patience.bytes.max(1)).min(u64::from(u32::MAX));
        let allowed = self.patience.body.saturating_mul(u32::try_from(shares).unwrap_or(u32::MAX));
        if let Some(since) = self.since {
            sleep.reset(since + allowed.saturating_sub(self.spent));
        }
    }
}
