//! An answer on its way back: its head is here, its body comes piece by piece.
//!
//! Invariants: no more than one piece is held; a body that breaks off is never taken for a whole one; a connection is
//! used again only after request and answer ended as they said they would.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use super::backend::Backend;
use super::connection::Fault;
use super::exchange::Exchange;
use super::pool;
use super::wire::{Chunked, Framing, Head, Source};

/// A body up to this size that came with its head is returned at once.
const AT_ONCE: u64 = 64 * 1024;

/// The answer of a server.
pub struct Answer {
    /// Its status and fields.
    pub head: Head,
    /// Its body.
    pub body: Body,
}

/// The body of an answer.
pub struct Body {
    /// Gone once the answer is at its end.
    exchange: Option<Exchange>,
    framing: Framing,
    chunks: Chunked,
    reusable: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something came since the timer was set.
    progress: bool,
    under_way: UnderWay,
}

/// Counts an exchange that is under way.
pub(super) struct UnderWay {
    backend: Arc<Backend>,
    number: usize,
}

/// A body that will never be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

impl UnderWay {
    pub(super) fn new(backend: &Arc<Backend>, number: usize) -> Self {
        if let Some(member) = backend.members.get(number) {
            member.active.fetch_add(1, Ordering::Relaxed);
        }
        Self { backend: Arc::clone(backend), number }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(member) = self.backend.members.get(self.number) {
            member.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Body {
    pub(super) fn new(head: &Head, exchange: Exchange, under_way: UnderWay) -> Self {
        let mut body = Self {
            exchange: Some(exchange),
            framing: head.framing,
            chunks: Chunked::default(),
            reusable: head.reusable,
            timer: None,
            progress: false,
            under_way,
        };
        if body.framing == Framing::Length(0) {
            body.finish();
        }
        body
    }

    /// The length that is still to come, if it is known.
    pub fn left(&self) -> Option<u64> {
        match self.framing {
            Framing::Length(left) => Some(left),
            Framing::Chunked | Framing::Close => None,
        }
    }

    /// The whole body, where it is small and came together with its head.
    pub fn at_once(&mut self) -> Option<Bytes> {
        let Framing::Length(left @ 0..=AT_ONCE) = self.framing else { return None };
        if left == 0 {
            return Some(Bytes::new());
        }
        let whole = self.exchange.as_mut()?.connection.take_whole(left)?;
        self.framing = Framing::Length(0);
        self.finish();
        Some(whole)
    }

    /// The next piece; `None` after the last one. `source` is the rest of the request's body, which goes on meanwhile.
    pub fn poll_piece(
        &mut self,
        source: &mut dyn Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if exchange.poll_send(source, cx).is_err() {
            return Poll::Ready(Some(Err(self.break_off("the body of the request did not come whole"))));
        }
        match exchange.connection.poll_body(&mut self.framing, &mut self.chunks, cx) {
            Poll::Ready(Some(Ok(piece))) => {
                self.progress = true;
                if self.framing == Framing::Length(0) {
                    self.finish();
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(fault))) => Poll::Ready(Some(Err(self.broke(&fault)))),
            Poll::Pending => self.wait(cx),
        }
    }

    /// Waits, but not for ever.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let idle = self.under_way.backend.idle_timeout();
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(idle)));
            match timer.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if self.progress => {
                    self.progress = false;
                    timer.as_mut().reset(Instant::now() + idle);
                }
                Poll::Ready(()) => {
                    return Poll::Ready(Some(Err(self.break_off("nothing came for too long"))));
                }
            }
        }
    }

    fn broke(&mut self, fault: &Fault) -> BrokenOff {
        self.break_off(&fault.to_string())
    }

    fn break_off(&mut self, why: &str) -> BrokenOff {
        let backend = &self.under_way.backend;
        backend.metrics.broken.inc();
        tracing::warn!(backend = backend.name(), why, "answer broke off");
        self.exchange = None;
        BrokenOff
    }

    /// The answer is at its end: the connection goes back, if all of the request went out.
    fn finish(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let fit = self.reusable && !exchange.deaf && exchange.sending.is_done();
        let backend = &self.under_way.backend;
        if let (true, true, Some(member)) =
            (fit, exchange.connection.is_clean(), backend.members.get(self.under_way.number))
        {
            pool::give_back(member.id, exchange.connection, backend.idle_limits());
        }
    }
}
