//! Stands between the end of the process and the requests that are being answered.
//!
//! Invariant: after [`Flight::close`] no new request is begun, and [`Flight::landed`] returns only when the last
//! one has its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the requests being answered.
#[derive(Debug, Clone, Default)]
pub struct Flight(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicUsize,
    closed: AtomicBool,
    landed: Notify,
    closing: Notify,
}

/// One request being answered.
#[derive(Debug)]
pub struct Flying(Arc<Inner>);

/// The process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is shutting down")]
pub struct ShuttingDown;

impl Flight {
    /// Begins a request.
    pub fn enter(&self) -> Result<Flying, ShuttingDown> {
        // Counted first, so that whoever closes afterwards waits for it.
        self.0.count.fetch_add(1, Ordering::SeqCst);
        let flying = Flying(self.0.clone());
        if self.is_closed() { Err(ShuttingDown) } else { Ok(flying) }
    }

    /// Requests being answered.
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Whether no new request is begun.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::SeqCst)
    }

    /// Lets no new request begin.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.closing.notify_waiters();
    }

    /// Waits until no new request is begun.
    pub async fn closing(&self) {
        // Made before looking, because it hears of every call after that.
        let closing = self.0.closing.notified();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Waits until no request is being answered.
    pub async fn landed(&self) {
        loop {
            let landed = self.0.landed.notified();
            if self.count() == 0 {
                return;
            }
            landed.await;
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            // One waiter; a permit is kept for it if it is not waiting yet.
            self.0.landed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn the_end_waits_for_the_last_request_and_lets_no_new_one_in() {
        let flight = Flight::default();
        flight.landed().await;
        let (a, b) = (flight.enter().unwrap(), flight.enter().unwrap());
        flight.close();
        assert_eq!(flight.enter().unwrap_err(), ShuttingDown);
        flight.closing().await;
        assert_eq!(flight.count(), 2);
        let waiting = tokio::spawn({
            let flight = flight.clone();
            async move { flight.landed().await }
        });
        drop(a);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(b);
        waiting.await.unwrap();
    }
}
