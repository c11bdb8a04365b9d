//! One subscriber per event subscription: window, retries, verdicts.
//!
//! Stands between the routers and one endpoint; owns what is still owed to it. Invariants: the
//! cursor never passes an event that is neither delivered, pending nor dead-lettered; at most
//! `window` events are under way or have an outcome that is not yet durable, so a crash repeats
//! at most those; nothing here waits for, or holds back, another subscriber.

mod attempt;
mod config;
mod export;
mod floors;
mod handle;
mod handshake;
mod letters;
mod message;
mod open;
mod order;
mod past;
mod pump;
mod queue;
mod reconfigure;
mod registry;
mod replay;
mod rows;
mod schedule;
mod settle;
mod system_events;
mod track;
mod trial;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, ResponseFuture,
    Supervised, WrapFuture,
};
use futures_util::future::AbortHandle;
use tokio::sync::{Mutex, oneshot};

use crate::kernel::clock::{SharedClock, SteadyClock};
use crate::kernel::contain::contain;
use crate::kernel::slots::Slots;
use crate::model::change::Table;
use crate::model::delivery::Transport;
use crate::model::event::Event;
use crate::model::ids::{Position, ShardId};
use crate::model::time::Timestamp;
use crate::policy::budget::CrashBudget;
use crate::policy::health::{Breaker, Health};
use crate::policy::suspects::Suspects;
use crate::protocol::subscriber::{
    AttemptRecord, DrainDeliveries, EndSubscription, HandOver, ListAttempts, Pause, ReportStatus, Resume,
    SubscriptionStatus, ValidationState,
};
use crate::router::RouterHandle;

pub use config::{
    BatchSettings, ContentMode, DeliveryHeader, DeliverySettings, Destination, Gone, HandshakeKind,
    HeaderValue, Order, QueueSettings, SubscriptionConfig, Webhook,
};
use export::Exporter;
pub use export::{DeadLetterStore, SharedDeadLetterStore};
pub use floors::Floors;
pub use handle::SubscriptionHandle;
use handshake::Asked;
use order::Keys;
pub use past::Past;
use queue::Queue;
pub use registry::{Subscriptions, abandon, beginnings, strangers};
use replay::Replays;
#[cfg(test)]
pub(crate) use rows::advance;
pub use rows::{DeadLetter, Progress, RetryRow, decode, parse_due, parse_lsn, prefix};
use schedule::Schedule;
use settle::Ledger;
use track::Track;

/// The last outcomes that a subscription shows of itself unasked.
const RECENT: usize = 10;
/// The last outcomes that it remembers.
const LOG: usize = 200;

/// Attempts that one endpoint has at a time, at most (as wide as the connections kept to it).
const ENDPOINT_WINDOW: usize = 64;

/// What all subscribers of a system share.
#[derive(Clone)]
pub struct Surroundings {
    /// The routers, by their shards' numbers.
    pub routers: Arc<[RouterHandle]>,
    /// How endpoints are reached.
    pub transport: Arc<dyn Transport>,
    /// The wall clock, for what is shown and kept.
    pub clock: SharedClock,
    /// The time that everything that waits goes by.
    pub time: Arc<SteadyClock>,
    /// How much of the log is still needed.
    pub floors: Floors,
    /// Places for attempts.
    pub slots: Slots,
    /// The events of retries.
    pub past: Arc<Past>,
    /// Whether there is a topic of system events.
    pub tells: bool,
}

/// The actor. Reached through [`SubscriptionHandle`].
pub struct Subscriber {
    config: Arc<SubscriptionConfig>,
    settings: DeliverySettings,
    routers: Arc<[RouterHandle]>,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    time: Arc<SteadyClock>,
    floors: Floors,
    slots: Slots,
    past: Arc<Past>,
    tells: bool,
    health: Health,
    /// Deliveries per minute that the endpoint takes, if it said so.
    rate: Option<u32>,
    /// The handshake with the endpoint.
    asked: Asked,
    exporter: Exporter,
    /// It is about to become another one: nothing is begun.
    changing: bool,
    /// When the store was last read anew.
    opened: Timestamp,
    /// When the next one may be made.
    paced_until: Option<Timestamp>,
    log: VecDeque<AttemptRecord>,
    replays: Replays,
    rng: fastrand::Rng,
    budget: CrashBudget,
    /// Events that were at work in a crash.
    suspects: Suspects<Position>,
    /// Events that are at work now.
    at_work: Vec<Position>,
    restart_after: Option<Duration>,
    epoch: u64,
    shown: SubscriptionStatus,
    counts: Counts,
    /// Held by every commit that was sent and not answered, also those of an earlier start.
    on_its_way: Arc<()>,
    /// Held by whoever replays or purges dead letters: one at a time.
    deciding: Arc<Mutex<()>>,
    /// When an operator asked for all retries at once, if they were not in memory to be hastened.
    resumed: Option<Timestamp>,
    draining: Vec<oneshot::Sender<()>>,
    is_draining: bool,
    /// Everything below is rebuilt from the store at each start.
    shards: Vec<Lot>,
    ready: VecDeque<Arc<Event>>,
    keys: Keys,
    queue: Queue,
    lock_watch: Option<Timestamp>,
    /// Requests under way, or about to be.
    attempts: usize,
    /// Events under way.
    in_flight: usize,
    retries_in_flight: usize,
    retry_next: bool,
    schedule: Schedule,
    /// When the timer wakes this actor, and how it is called off. Not by actix' own handles: those
    /// that are called off as the actor crashes would call off a future of its next start.
    timer: Option<(Timestamp, AbortHandle)>,
    is_pumping: bool,
}

/// How many events are in the store. Signed, because a replay and the outcomes of its first events
/// may be told in either order.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    retrying: i64,
    dead_letters: i64,
}

/// What is owed of one shard.
struct Lot {
    router: RouterHandle,
    track: Track,
    ledger: Ledger,
}

impl Subscriber {
    fn new(config: Arc<SubscriptionConfig>, settings: DeliverySettings, around: Surroundings) -> Self {
        let Surroundings { routers, transport, clock, time, floors, slots, past, tells } = around;
        let budget = CrashBudget::new(settings.crash_budget, settings.crash_window, settings.backoff);
        Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            schedule: Schedule::new(settings.retry_page),
            health: Health::new(settings.window.min(ENDPOINT_WINDOW), &config.retry),
            rate: None,
            asked: Asked::default(),
            exporter: Exporter::default(),
            changing: false,
            paced_until: None,
            log: VecDeque::new(),
            replays: Replays::default(),
            slots,
            past,
            tells,
            config,
            settings,
            routers,
            transport,
            clock,
            opened: time.now(),
            time,
            floors,
            budget,
            suspects: Suspects::default(),
            at_work: Vec::new(),
            restart_after: None,
            epoch: 0,
            shown: SubscriptionStatus::default(),
            counts: Counts::default(),
            on_its_way: Arc::default(),
            deciding: Arc::default(),
            resumed: None,
            draining: Vec::new(),
            is_draining: false,
            shards: Vec::new(),
            ready: VecDeque::new(),
            keys: Keys::default(),
            queue: Queue::default(),
            lock_watch: None,
            attempts: 0,
            in_flight: 0,
            retries_in_flight: 0,
            retry_next: false,
            timer: None,
            is_pumping: false,
        }
    }

    /// Each shard may hand over its part of the queue.
    fn credit(&self) -> usize {
        (self.settings.queue / self.routers.len().max(1)).max(1)
    }

    /// Runs `work`; a panic costs this actor its memory, not its events.
    fn guarded(&mut self, ctx: &mut Context<Self>, work: impl FnOnce(&mut Self, &mut Context<Self>)) {
        if let Err(panicked) = contain(|| work(self, ctx)) {
            tracing::error!(subscription = %self.config.name, panic = panicked.0, "subscriber crashed");
            self.shown.last_crash = Some(panicked.0);
            self.blame();
            let pause = self.budget.record(self.time.now());
            self.shown.quarantined = pause.is_none();
            self.restart_after = Some(pause.unwrap_or_default());
            ctx.stop();
        }
    }

    /// Notes who was at work in a crash.
    fn blame(&mut self) {
        for position in std::mem::take(&mut self.at_work) {
            if self.suspects.blame(position) {
                tracing::error!(subscription = %self.config.name, event = %position, "event crashes its subscriber: it is given up");
                // The reason is known and will not come again.
                self.budget.reset();
            }
        }
    }

    /// Does what is done with some events, so that a crash is theirs.
    fn working_on<R>(&mut self, events: Vec<Position>, work: impl FnOnce(&mut Self) -> R) -> R {
        // What ends may begin another: then a crash is the other's.
        let before = std::mem::replace(&mut self.at_work, events);
        let done = work(self);
        self.at_work = before;
        done
    }

    fn is_open(&self) -> bool {
        let stopped = self.shown.paused || self.shown.quarantined || self.is_draining || self.changing;
        !stopped && self.restart_after.is_none()
    }

    fn lot(&self, shard: ShardId) -> Option<&Lot> {
        self.shards.get(usize::from(shard.0))
    }

    fn unsettled(&self) -> usize {
        self.shards.iter().map(|lot| lot.ledger.len()).sum()
    }

    /// What the breaker does, by the wall clock.
    fn shown_breaker(&self) -> Breaker {
        match self.health.breaker() {
            Breaker::Open { until, reason } => Breaker::Open { until: self.time.wall(until), reason },
            breaker @ (Breaker::Closed | Breaker::Probing { .. }) => breaker,
        }
    }

    fn status(&self) -> SubscriptionStatus {
        let mut status = self.shown.clone();
        let shown = |count: i64| u64::try_from(count).unwrap_or(0);
        status.exports_waiting = self.exporter.waiting;
        status.export_error.clone_from(&self.exporter.error);
        status.retrying = shown(self.counts.retrying);
        status.dead_letters = shown(self.counts.dead_letters);
        status.in_flight = self.in_flight;
        status.breaker = Some(self.shown_breaker());
        if let Some(ValidationState::AwaitingManualAction(until)) = &mut status.validation {
            *until = self.time.wall(*until);
        }
        status.window = self.health.window();
        status.locked = self.queue.locked();
        status.held = self.keys.held();
        status.recent = self.log.iter().take(RECENT).cloned().collect();
        status.replays = self.replays.status();
        status.ready = self.ready.len() + self.keys.waiting();
        status.unsettled = self.unsettled();
        status.cursors = self.shards.iter().map(|lot| (lot.router.id(), lot.track.cursor())).collect();
        let unread: u64 = self.shards.iter().map(|lot| lot.router.behind(&self.config.name)).sum();
        let first_attempts = status.ready + self.in_flight.saturating_sub(self.retries_in_flight);
        status.lag_events = unread + first_attempts as u64;
        let ready = self.ready.iter().map(|event| self.time.of(event.at)).min();
        let oldest = [ready, self.oldest_in_store()].into_iter().flatten().min();
        let age = oldest.map_or(0, |at| self.time.now().since(at).as_millis());
        status.lag_millis = u64::try_from(age).unwrap_or(u64::MAX);
        status
    }
}

impl Subscriber {
    /// When the first event in the store, which waits for its retry or its turn, was published. What cannot be read is
    /// no reason to show nothing at all.
    fn oldest_in_store(&self) -> Option<Timestamp> {
        if self.counts.retrying <= 0 {
            return None;
        }
        let name = prefix(&self.config.name);
        let first = |lot: &Lot| {
            let rows = lot.router.shard().view().ok()?.rows(Table::Deliveries, &name, None, 1).ok()?;
            let row: RetryRow = rows.first().and_then(|(_, value)| decode(value))?;
            Some(row.published)
        };
        self.shards.iter().filter_map(first).min()
    }
}

impl Actor for Subscriber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match self.restart_after.take() {
            None => self.guarded(ctx, Self::open),
            Some(_) if self.shown.quarantined => {}
            Some(pause) => {
                ctx.run_later(pause, |actor, ctx| actor.guarded(ctx, Self::open));
            }
        }
    }
}

impl Supervised for Subscriber {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.shown.restarts += 1;
        self.shards.clear();
        self.ready.clear();
        (self.keys, self.queue, self.lock_watch) = (Keys::default(), Queue::default(), None);
        self.schedule = Schedule::new(self.settings.retry_page);
        (self.in_flight, self.retries_in_flight, self.attempts) = (0, 0, 0);
        (self.timer, self.is_pumping, self.changing) = (None, false, false);
        self.health.not_made(self.time.now());
        // What an earlier start was handed is handed over again; late replies find no lane.
        self.epoch += 1;
        // Nothing is under way any more, and nobody knows when this comes up again.
        self.answer_drain();
    }
}

impl Handler<HandOver> for Subscriber {
    type Result = ();

    fn handle(&mut self, message: HandOver, ctx: &mut Self::Context) {
        if message.epoch != self.epoch {
            return;
        }
        self.guarded(ctx, |actor, ctx| actor.take_over(message, ctx));
    }
}

impl Subscriber {
    fn take_over(&mut self, message: HandOver, ctx: &mut Context<Self>) {
        let HandOver { shard, events, poison, routed, .. } = message;
        let index = usize::from(shard.0);
        let Some(lot) = self.shards.get_mut(index) else { return };
        for lsn in poison {
            self.suspects.condemn(Position { shard, lsn });
        }
        let mut known = 0;
        for event in events {
            if lot.track.take(event.position.lsn) {
                self.ready.push_back(event);
            } else {
                known += 1;
            }
        }
        lot.track.routed(routed);
        if known > 0 {
            lot.ledger.owe(known);
        }
        self.release_log(index);
        self.pay_credit(index, ctx);
        self.pump(ctx);
    }
}

impl Handler<ReportStatus> for Subscriber {
    type Result = actix::MessageResult<ReportStatus>;

    fn handle(&mut self, _: ReportStatus, _: &mut Self::Context) -> Self::Result {
        self.expire_validation();
        actix::MessageResult(self.status())
    }
}

impl Handler<ListAttempts> for Subscriber {
    type Result = Vec<AttemptRecord>;

    fn handle(&mut self, _: ListAttempts, _: &mut Self::Context) -> Self::Result {
        self.log.iter().cloned().collect()
    }
}

impl Handler<Pause> for Subscriber {
    type Result = Result<(), crate::protocol::subscriber::SubscriptionError>;

    fn handle(&mut self, _: Pause, ctx: &mut Self::Context) -> Self::Result {
        self.shown.paused = true;
        self.guarded(ctx, Self::set_timer);
        Ok(())
    }
}

impl Handler<Resume> for Subscriber {
    type Result = Result<(), crate::protocol::subscriber::SubscriptionError>;

    fn handle(&mut self, _: Resume, ctx: &mut Self::Context) -> Self::Result {
        self.shown.paused = false;
        self.shown.disabled = None;
        if !self.is_validated() {
            self.shown.validation = Some(ValidationState::Asking);
        }
        self.health.reset();
        self.budget.reset();
        let now = self.time.now();
        if self.shards.is_empty() {
            // It is starting, or about to.
            self.resumed = Some(now);
        }
        if std::mem::take(&mut self.shown.quarantined) {
            self.guarded(ctx, Self::open);
            return Ok(());
        }
        self.guarded(ctx, |actor, ctx| {
            actor.ask_if_needed(ctx);
            actor.schedule.hasten(now);
            actor.pump(ctx);
        });
        Ok(())
    }
}

impl Handler<EndSubscription> for Subscriber {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: EndSubscription, ctx: &mut Self::Context) -> Self::Result {
        self.replays.end_all();
        let drained = Handler::<DrainDeliveries>::handle(self, DrainDeliveries, ctx);
        Box::pin(drained.into_actor(self).map(|(), actor, _| {
            // It stays drained, and goes when its last handle does.
            (actor.shards, actor.ready) = (Vec::new(), VecDeque::new());
            actor.epoch += 1;
        }))
    }
}

impl Handler<DrainDeliveries> for Subscriber {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: DrainDeliveries, ctx: &mut Self::Context) -> Self::Result {
        let (done, wait) = oneshot::channel();
        self.is_draining = true;
        self.draining.push(done);
        self.guarded(ctx, |actor, ctx| {
            actor.hurry();
            actor.pump(ctx);
        });
        Box::pin(async move {
            // A subscriber that crashed meanwhile has nothing under way.
            wait.await.ok();
        })
    }
}
