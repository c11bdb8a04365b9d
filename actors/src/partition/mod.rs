//! The actor of one logical partition: owns the rules of its documents.
//!
//! Stands between the gateway's callers and the shard. Writes are decided against committed
//! state plus the batch being prepared; one batch is in flight. Invariants: it never touches the
//! disk and never waits for a subscriber; a panic costs one write, and writes that panic again and again are refused.

mod batch;
mod derived;
mod repeat;
mod rules;
mod transaction;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};

use crate::kernel::clock::SharedClock;
use crate::model::address::EncodedPartition;
use crate::policy::budget::CrashBudget;
use crate::policy::container::Container;
use crate::policy::suspects::Suspects;
use crate::protocol::partition::{FallAsleep, Reopen, WriteDocuments, WriteError};
use crate::shard::{CommitError, Committed, ShardHandle};

use batch::{Batch, Digest, digest};
pub use derived::{cut_note, index_entry, index_prefix, index_rows};

/// What a partition needs to know besides its address.
#[derive(Debug, Clone)]
pub struct PartitionSettings {
    /// Writes in one batch.
    pub batch_writes: usize,
    /// Bytes in one batch.
    pub batch_bytes: usize,
    /// Crashes within `crash_window` before it is quarantined.
    pub crash_budget: u32,
    /// See `crash_budget`.
    pub crash_window: Duration,
    /// Pause before the first restart; doubles.
    pub crash_backoff: Duration,
}

/// What a partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Takes writes.
    Open = 0,
    /// Crashed, and waits a little before it starts again.
    Restarting = 1,
    /// Crashed too often; waits for an operator.
    Quarantined = 2,
}

impl Phase {
    /// The name in status answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What an actor shows of itself, readable without asking it.
#[derive(Debug, Default)]
pub struct Vitals {
    phase: AtomicU8,
    restarts: AtomicU32,
    batches: AtomicU64,
    last_crash: Mutex<Option<String>>,
}

impl Vitals {
    /// What it is doing.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Open,
            1 => Phase::Restarting,
            _ => Phase::Quarantined,
        }
    }

    /// How often it crashed and came back.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Batches committed since it woke.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// The last panic's text.
    pub fn last_crash(&self) -> Option<String> {
        self.last_crash.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

/// The actor. Made by the directory, reached through the directory's `PartitionHandle`.
pub struct Partition {
    address: EncodedPartition,
    container: Arc<Container>,
    shard: ShardHandle,
    settings: Arc<PartitionSettings>,
    clock: SharedClock,
    vitals: Arc<Vitals>,
    budget: CrashBudget,
    /// Writes that crashed it since it woke.
    suspects: Suspects<Digest>,
    /// Writes that no batch has taken yet.
    waiting: VecDeque<WriteDocuments>,
    in_flight: bool,
    /// The pause before the next start, once a write panicked.
    restart_after: Option<Duration>,
}

impl Partition {
    /// An actor for the partition at `address`, which lives in `shard` and keeps to the rules of its
    /// container.
    pub fn new(
        address: EncodedPartition,
        (container, shard): (Arc<Container>, ShardHandle),
        settings: Arc<PartitionSettings>,
        clock: SharedClock,
        vitals: Arc<Vitals>,
    ) -> Self {
        let budget = CrashBudget::new(settings.crash_budget, settings.crash_window, settings.crash_backoff);
        let (waiting, in_flight, restart_after) = (VecDeque::new(), false, None);
        let suspects = Suspects::default();
        Self {
            address,
            container,
            shard,
            settings,
            clock,
            vitals,
            budget,
            suspects,
            waiting,
            in_flight,
            restart_after,
        }
    }

    /// Prepares the next batch from what waits, and hands it to the shard.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight || self.waiting.is_empty() || self.vitals.phase() != Phase::Open {
            return;
        }
        let mut batch =
            Batch::new(self.address.clone(), self.container.clone(), self.shard.clone(), self.clock.now());
        while let Some(next) = self.waiting.pop_front() {
            if self.is_poison(&next) {
                // The caller may have given up.
                next.reply.send(Err(WriteError::Crashed.into())).ok();
                continue;
            }
            if let Err((panicked, digest)) = batch.add(next) {
                self.note_crash(&panicked.0, digest);
            }
            if batch.is_full(&self.settings) {
                break;
            }
        }
        let mutations = batch.take_mutations();
        if mutations.is_empty() {
            batch.answer(Ok(Committed { first: crate::model::ids::Lsn::ZERO }));
            return self.after_batch(ctx);
        }
        match self.shard.commit(mutations) {
            Err(error) => {
                batch.answer(Err(error));
                self.after_batch(ctx);
            }
            Ok(reply) => {
                self.in_flight = true;
                // A reply that never comes means that the shard's thread died: nobody can know.
                let committed = async move { reply.await.unwrap_or(Err(CommitError::Unknown)) };
                ctx.spawn(committed.into_actor(self).map(|result, actor, ctx| {
                    batch.answer(result);
                    actor.in_flight = false;
                    actor.vitals.batches.fetch_add(1, Ordering::Relaxed);
                    actor.after_batch(ctx);
                }));
            }
        }
    }

    fn after_batch(&mut self, ctx: &mut Context<Self>) {
        if self.restart_after.is_some() {
            // The supervisor restarts this actor; its address and its queue stay.
            ctx.stop();
            return;
        }
        self.advance(ctx);
    }

    /// Whether these writes crashed too often to be tried again.
    fn is_poison(&self, message: &WriteDocuments) -> bool {
        !self.suspects.is_empty() && self.suspects.is_poison(&digest(&message.writes))
    }

    fn note_crash(&mut self, text: &str, digest: Digest) {
        tracing::error!(partition = ?self.address, panic = text, "write crashed");
        if self.suspects.blame(digest) {
            tracing::error!(partition = ?self.address, "the same write crashed again and again: it is refused");
            // The reason is known and will not come again.
            self.budget.reset();
        }
        *self.vitals.last_crash.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
        match self.budget.record(self.clock.now()) {
            Some(pause) => {
                self.vitals.enter(Phase::Restarting);
                self.restart_after = Some(pause);
            }
            None => {
                self.vitals.enter(Phase::Quarantined);
                self.restart_after = Some(Duration::ZERO);
            }
        }
    }

    fn refuse_waiting(&mut self, error: &WriteError) {
        for write in self.waiting.drain(..) {
            // The caller may have given up; there is nobody else to tell.
            write.reply.send(Err(error.clone().into())).ok();
        }
    }
}

impl Actor for Partition {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(pause) = self.restart_after.take() else { return };
        if self.vitals.phase() == Phase::Quarantined {
            return self.refuse_waiting(&WriteError::Quarantined);
        }
        ctx.run_later(pause, |actor, ctx| {
            actor.vitals.enter(Phase::Open);
            actor.advance(ctx);
        });
    }
}

impl Supervised for Partition {
    fn restarting(&mut self, _: &mut Self::Context) {
        // All state is in the shard: what remains is the queue of writes that nobody decided yet.
        self.in_flight = false;
        self.vitals.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Handler<WriteDocuments> for Partition {
    type Result = ();

    fn handle(&mut self, message: WriteDocuments, ctx: &mut Self::Context) {
        self.waiting.push_back(message);
        if self.vitals.phase() == Phase::Quarantined {
            return self.refuse_waiting(&WriteError::Quarantined);
        }
        self.advance(ctx);
    }
}

impl Handler<FallAsleep> for Partition {
    type Result = ();

    fn handle(&mut self, _: FallAsleep, ctx: &mut Self::Context) {
        ctx.terminate();
    }
}

impl Handler<Reopen> for Partition {
    type Result = ();

    fn handle(&mut self, _: Reopen, ctx: &mut Self::Context) {
        self.budget.reset();
        self.vitals.enter(Phase::Open);
        self.advance(ctx);
    }
}
