//! Stands between subscribers and the endpoints of the world: sends one event over HTTP and says what came of it.
//! Invariant: an attempt ends within its deadline, keeps no more of the answer than the cap, contacts no
//! address that the subscription may not contact, and costs other attempts nothing but its place among them.
//!
//! Everything runs on one thread with a runtime of its own. Pooled connections are driven by tasks of the
//! runtime that opened them, and callers live on several short-lived ones; here no connection dies with a caller.

mod cidr;
mod connect;
pub mod dead_letters;
mod endpoint;
mod exchange;
mod failure;
mod guard;
mod handshake;
mod names;
mod pool;
mod retry_after;
mod send;
mod sign;
mod tls;
mod token;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use lanekeeper_actors::model::delivery::{
    Attempt, HANDSHAKE, Outcome, OutcomeKind, Transport, Validation, ValidationOutcome,
};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use cidr::{Cidr, CidrProblem};
pub use endpoint::{EndpointProblem, check_endpoint};
pub(crate) use failure::with_cause;
pub use guard::{Refused, UrlProblem, check_url, host_of, vet};
pub use names::{Names, SystemNames};
pub use sign::BadKey;
pub use tls::TlsProblem;
pub(crate) use tls::{certificates, private_key, words};

// What the way to servers behind the gateway shares with the way to endpoints.
pub(crate) use connect::connect_any;
pub(crate) use names::Lookups;
pub(crate) use retry_after::parse as retry_after;
pub(crate) use tls::{Settings as TlsSettings, Trust};

use send::Sender;

/// Name look-ups that may run at a time; each holds a thread while the system's resolver waits.
const LOOKUP_THREADS: usize = 64;
/// Between two looks at what is idle.
const SWEEP: Duration = Duration::from_secs(5);
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
    /// The TLS library cannot be used.
    #[error("TLS cannot start")]
    Tls(#[source] TlsProblem),
}

/// Delivers events to `http` and `https` endpoints. Dropping it gives up what is under way.
pub struct Webhooks {
    /// Dropped together with this value, which is what ends the thread. Every job in it has somebody waiting, so
    /// it is as long as there are callers.
    jobs: UnboundedSender<Job>,
}

/// What callers ask of the transport's thread. One queue for all of them wakes the thread once for many.
enum Job {
    Deliver(Box<Attempt>, Instant, oneshot::Sender<Outcome>),
    Validate(Box<Validation>, Instant, oneshot::Sender<ValidationOutcome>),
}

impl Webhooks {
    /// Starts the thread that delivers.
    ///
    /// # Errors
    /// When this host refuses a thread, or TLS cannot be used.
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
        let sender = Arc::new(Sender::new(settings, clock, names).map_err(WebhooksProblem::Tls)?);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUP_THREADS)
            .build()
            .map_err(WebhooksProblem::Thread)?;
        let (jobs, asked) = unbounded_channel();
        let drive = move || {
            runtime.block_on(work(sender, asked));
            runtime.shutdown_background();
        };
        thread::Builder::new().name("deliveries".to_owned()).spawn(drive).map_err(WebhooksProblem::Thread)?;
        Ok(Self { jobs })
    }

    /// Puts a job into the queue once somebody waits for it. `None` when the transport is gone.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<T>) -> Job + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let jobs = self.jobs.downgrade();
        async move {
            let (reply, answer) = oneshot::channel();
            jobs.upgrade()?.send(job(reply)).ok()?;
            answer.await.ok()
        }
    }
}

impl Transport for Webhooks {
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let (begun, attempt) = (Instant::now(), Box::new(attempt));
        let answer = self.ask(move |reply| Job::Deliver(attempt, begun, reply));
        Box::pin(async move {
            answer.await.unwrap_or_else(|| Outcome::failed(OutcomeKind::Aborted, "the delivery was given up"))
        })
    }

    fn validate(&self, validation: Validation) -> BoxFuture<'static, ValidationOutcome> {
        let (begun, validation) = (Instant::now(), Box::new(validation));
        let answer = self.ask(move |reply| Job::Validate(validation, begun, reply));
        Box::pin(async move {
            answer.await.unwrap_or_else(|| ValidationOutcome::failed(None, "the handshake was given up"))
        })
    }
}

/// Gives each job a task of its own, until the transport is dropped.
async fn work(sender: Arc<Sender>, mut jobs: UnboundedReceiver<Job>) {
    tokio::spawn(sweep(Arc::downgrade(&sender)));
    while let Some(job) = jobs.recv().await {
        let sender = Arc::clone(&sender);
        match job {
            Job::Deliver(attempt, begun, reply) => tokio::spawn(unless_given_up(reply, async move {
                let deadline = begun + attempt.timeout.min(LONGEST_ATTEMPT);
                let outcome = sender.send(&attempt, deadline).await;
                Outcome { took: begun.elapsed(), ..outcome }
            })),
            Job::Validate(validation, begun, reply) => tokio::spawn(unless_given_up(reply, async move {
                let deadline = begun + validation.timeout.min(HANDSHAKE);
                let outcome = handshake::validate(&sender, &validation, deadline).await;
                ValidationOutcome { took: begun.elapsed(), ..outcome }
            })),
        };
    }
}

/// Works for as long as somebody waits for the outcome; when nobody does, the connection is closed.
async fn unless_given_up<T>(mut reply: oneshot::Sender<T>, work: impl Future<Output = T>) {
    let done = tokio::select! {
        done = work => done,
        () = reply.closed() => return,
    };
    // Whoever asked may have gone in this very moment; then nobody wants the outcome.
    reply.send(done).ok();
}

/// Closes what is idle for too long, until the transport is gone.
async fn sweep(sender: Weak<Sender>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(sender) = sender.upgrade() else { return };
        sender.sweep();
    }
}
