//! Stands between subscribers and the endpoints of the world: sends one event over HTTP and says what came of it.
//! Invariant: an attempt ends within its deadline, keeps no more of the answer than the cap, contacts no
//! address that the subscription may not contact, and costs other attempts nothing but its place among them.
//!
//! Everything runs on one thread with a runtime of its own. Pooled connections are driven by tasks of the
//! runtime that opened them, and callers live on several short-lived ones; here no connection dies with a caller.

mod cidr;
mod clients;
pub mod dead_letters;
mod guard;
mod names;
mod retry_after;
mod send;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use lanekeeper_actors::model::delivery::{Attempt, Outcome, OutcomeKind, Transport};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use cidr::{Cidr, CidrProblem};
pub use guard::{Refused, UrlProblem, check_url, host_of, vet};
pub use names::{Names, SystemNames};

use send::Sender;

/// Name look-ups that may run at a time; each holds a thread while the system's resolver waits.
const LOOKUP_THREADS: usize = 64;
/// Longer deadlines are cut to this, so that a time that far ahead can always be written down.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(3600);

/// The wall clock, against which a `Retry-After` date is read.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Limits of the webhook transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Time for resolving and connecting, inside the deadline of the attempt.
    pub connect_timeout: Duration,
    /// Bytes of an answer's body that are read, and thrown away, so that the connection can be used again.
    pub response_cap: usize,
    /// Attempts that may be under way at a time, for all subscriptions together.
    pub connections: usize,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), response_cap: 64 * 1024, connections: 256 }
    }
}

/// Why the transport cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WebhooksProblem {
    /// The thread of the transport, or its runtime, cannot be made.
    #[error("the delivery thread cannot start")]
    Thread(#[source] io::Error),
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot start")]
    Client(#[source] reqwest::Error),
}

/// Delivers events to `http` and `https` endpoints. Dropping it gives up what is under way.
pub struct Webhooks {
    sender: Arc<Sender>,
    runtime: Handle,
    /// Dropped together with this value, which is what ends the thread.
    _running: oneshot::Sender<()>,
}

impl Webhooks {
    /// Starts the thread that delivers.
    ///
    /// # Errors
    /// When this host refuses a thread, or the HTTP client cannot be made.
    pub fn new(settings: WebhookSettings, clock: WallClock) -> Result<Self, WebhooksProblem> {
        Self::with_names(settings, clock, Arc::new(SystemNames))
    }

    /// As [`Webhooks::new`], with another source of names. Its answers are vetted like any others.
    ///
    /// # Errors
    /// As for [`Webhooks::new`].
    pub fn with_names(
        settings: WebhookSettings,
        clock: WallClock,
        names: Arc<dyn Names>,
    ) -> Result<Self, WebhooksProblem> {
        let sender = Sender::new(settings, clock, names).map_err(WebhooksProblem::Client)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUP_THREADS)
            .build()
            .map_err(WebhooksProblem::Thread)?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel::<()>();
        let drive = move || {
            // Nothing is ever sent: the channel ends when the transport is dropped.
            if runtime.block_on(stopped).is_err() {
                runtime.shutdown_background();
            }
        };
        thread::Builder::new().name("deliveries".to_owned()).spawn(drive).map_err(WebhooksProblem::Thread)?;
        Ok(Self { sender: Arc::new(sender), runtime: handle, _running: running })
    }
}

impl Transport for Webhooks {
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let deadline = Instant::now() + attempt.timeout.min(LONGEST_ATTEMPT);
        let sender = Arc::clone(&self.sender);
        let (reply, answer) = oneshot::channel();
        let attempt_once = async move { answer_unless_given_up(&sender, attempt, deadline, reply).await };
        let runtime = self.runtime.clone();
        Box::pin(async move {
            drop(runtime.spawn(attempt_once));
            answer
                .await
                .unwrap_or_else(|_| Outcome::failed(OutcomeKind::Aborted, "the delivery was given up"))
        })
    }
}

/// Runs an attempt for as long as somebody waits for it; when nobody does, its connection is closed.
async fn answer_unless_given_up(
    sender: &Sender,
    attempt: Attempt,
    deadline: Instant,
    mut reply: oneshot::Sender<Outcome>,
) {
    let outcome = tokio::select! {
        outcome = sender.send(&attempt, deadline) => outcome,
        () = reply.closed() => return,
    };
    // Whoever asked may have gone in this very moment; then nobody wants the outcome.
    reply.send(outcome).ok();
}
