//! One router per shard: reads the log, turns changes into events, hands matches to subscribers
//! that have credit.
//!
//! Stands between the log and the subscribers. Invariants: it keeps the only copy of nothing (a
//! position and a credit for each lane, both told by the subscriber); a subscriber that is far
//! behind, has no credit, or whose part of the log cannot be read, costs the others nothing: lanes
//! take turns in having the log read for them; an event that crashes whoever looks at it is handed over as poison,
//! and costs no other.

mod handle;
mod lane;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};

use fail::fail_point;

use crate::kernel::clock::SharedClock;
use crate::kernel::contain::contain;
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;
use crate::policy::budget::CrashBudget;
use crate::protocol::router::{ChangesCommitted, GrantCredit, JoinLane, LeaveLane, ReopenRouter};
use crate::shard::ShardHandle;

use handle::Hints;
pub use handle::{Positions, RouterHandle};
use lane::{Lane, Offered};
use reading::Reading;

/// Bounds of a router.
#[derive(Debug, Clone)]
pub struct RouterSettings {
    /// Bytes read from the log in one step.
    pub read_chunk: usize,
    /// Groups that the doorbell may carry; beyond that the router reads the log.
    pub hints: usize,
    /// Pause before a failed read, or the first restart after a panic.
    pub backoff: Duration,
    /// Panics within `crash_window` before it waits for an operator.
    pub crash_budget: u32,
    /// See `crash_budget`.
    pub crash_window: Duration,
}

/// The actor. Reached through [`RouterHandle`].
pub struct Router {
    shard: ShardHandle,
    settings: RouterSettings,
    clock: SharedClock,
    hints: Arc<Hints>,
    lanes: Vec<Lane>,
    /// Lanes at this position have seen everything.
    tail: Lsn,
    reading: bool,
    /// The lane that the log is read for next, if it is behind.
    turn: usize,
    /// Whether a timer runs that lets stalled lanes go on.
    unstalling: bool,
    budget: CrashBudget,
    restart_after: Option<Duration>,
    quarantined: bool,
}

impl Router {
    fn new(shard: ShardHandle, settings: RouterSettings, clock: SharedClock, hints: Arc<Hints>) -> Self {
        let budget = CrashBudget::new(settings.crash_budget, settings.crash_window, settings.backoff);
        let (lanes, tail) = (Vec::new(), Lsn::ZERO);
        Self {
            shard,
            settings,
            clock,
            hints,
            lanes,
            tail,
            reading: false,
            turn: 0,
            unstalling: false,
            budget,
            restart_after: None,
            quarantined: false,
        }
    }

    /// Takes what the doorbell brought, then reads the log for lanes that are behind.
    fn advance(&mut self, ctx: &mut Context<Self>) {
        if self.quarantined || self.restart_after.is_some() {
            return;
        }
        if let Err(panicked) = contain(|| self.take_hints()) {
            return self.crash(&panicked.0, ctx);
        }
        self.lanes.retain(|lane| !lane.is_gone());
        self.show_lag();
        self.catch_up(ctx);
        self.unstall_later(ctx);
    }

    /// Shows how far the fastest lane is that has room: the others wait for their subscribers.
    fn show_lag(&self) {
        let routed = self.lanes.iter().filter(|lane| lane.has_room()).map(Lane::position).max();
        self.hints.positions().show(routed);
    }

    fn take_hints(&mut self) {
        fail_point!("router::take_hints");
        let (groups, missed) = self.hints.take();
        if missed {
            // Lanes that were at the end are behind now; the log has what the hints lost.
            self.tail = self.tail.max(self.shard.log().tail());
            return;
        }
        for group in groups {
            if group.last() <= self.tail {
                continue;
            }
            let mut reading = Reading::new(self.shard.id(), &group);
            for lane in self.lanes.iter_mut().filter(|lane| lane.position() == self.tail) {
                lane.offer(&mut reading);
            }
            self.tail = group.last();
        }
    }

    /// Reads the log for the next lane that is behind, and for all that stand in the same part.
    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        if self.reading {
            return;
        }
        let (tail, count) = (self.tail, self.lanes.len());
        let mut in_turn = self.lanes.iter().enumerate().cycle().skip(self.turn).take(count);
        let Some((number, lane)) = in_turn.find(|(_, lane)| lane.wants(tail)) else { return };
        let from = lane.position();
        self.turn = (number + 1) % count;
        self.reading = true;
        let (log, chunk) = (self.shard.log(), self.settings.read_chunk);
        // Reading may wait for the disk, which the other actors of this thread must not.
        let read = tokio::task::spawn_blocking(move || log.read(from.next(), chunk));
        ctx.spawn(read.into_actor(self).map(move |result, actor, ctx| {
            actor.reading = false;
            match result {
                Ok(Ok(groups)) => actor.take_read(from, tail, &groups, ctx),
                Ok(Err(error)) => {
                    tracing::error!(shard = %actor.shard.id(), %from, %error, "log not read for routing");
                    actor.lanes.iter_mut().filter(|lane| lane.position() == from).for_each(Lane::stall);
                    actor.advance(ctx);
                }
                Err(join) => actor.crash(&join.to_string(), ctx),
            }
        }));
    }

    fn take_read(&mut self, from: Lsn, tail: Lsn, groups: &[CommittedGroup], ctx: &mut Context<Self>) {
        let shard = self.shard.id();
        let routed = contain(|| {
            let mut readings: Vec<_> = groups.iter().map(|group| Reading::new(shard, group)).collect();
            for lane in self.lanes.iter_mut().filter(|lane| lane.position() >= from && lane.wants(tail)) {
                if groups.is_empty() {
                    // Nothing stands between here and where the tail was when the reading began.
                    lane.skip_to(tail);
                }
                for reading in &mut readings {
                    if lane.offer(reading) == Offered::NotAll {
                        break;
                    }
                }
            }
        });
        if let Err(panicked) = routed {
            return self.crash(&panicked.0, ctx);
        }
        self.advance(ctx);
    }

    fn unstall_later(&mut self, ctx: &mut Context<Self>) {
        if self.unstalling || !self.lanes.iter().any(Lane::is_stalled) {
            return;
        }
        self.unstalling = true;
        ctx.run_later(self.settings.backoff, |actor, ctx| {
            actor.unstalling = false;
            actor.lanes.iter_mut().for_each(Lane::go_on);
            actor.advance(ctx);
        });
    }

    /// All facts are in the log and all positions in the lanes: drop the hints, and start again.
    fn crash(&mut self, text: &str, ctx: &mut Context<Self>) {
        tracing::error!(shard = %self.shard.id(), panic = text, "router crashed");
        match self.budget.record(self.clock.now()) {
            Some(pause) => self.restart_after = Some(pause),
            None => {
                self.quarantined = true;
                self.restart_after = Some(Duration::ZERO);
            }
        }
        ctx.stop();
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(pause) = self.restart_after {
            ctx.run_later(pause, |actor, ctx| {
                actor.restart_after = None;
                actor.advance(ctx);
            });
        }
    }
}

impl Supervised for Router {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.hints.take();
        (self.reading, self.unstalling) = (false, false);
        self.lanes.iter_mut().for_each(Lane::go_on);
        self.tail = self.tail.max(self.shard.log().tail());
    }
}

impl Handler<ChangesCommitted> for Router {
    type Result = ();

    fn handle(&mut self, _: ChangesCommitted, ctx: &mut Self::Context) {
        self.advance(ctx);
    }
}

impl Handler<JoinLane> for Router {
    type Result = ();

    fn handle(&mut self, message: JoinLane, ctx: &mut Self::Context) {
        self.tail = self.tail.max(self.shard.log().tail());
        self.lanes.retain(|lane| lane.subscription() != &message.subscription);
        let position = self.hints.positions().of(&message.subscription);
        self.lanes.push(Lane::new(message, position));
        self.advance(ctx);
    }
}

impl Handler<LeaveLane> for Router {
    type Result = ();

    fn handle(&mut self, LeaveLane(name): LeaveLane, _: &mut Self::Context) {
        self.lanes.retain(|lane| lane.subscription() != &name);
    }
}

impl Handler<GrantCredit> for Router {
    type Result = ();

    fn handle(&mut self, message: GrantCredit, ctx: &mut Self::Context) {
        let lane = self.lanes.iter_mut().find(|lane| lane.subscription() == &message.subscription);
        if let Some(lane) = lane.filter(|lane| lane.epoch() == message.epoch) {
            lane.grant(message.credit);
            self.advance(ctx);
        }
    }
}

impl Handler<ReopenRouter> for Router {
    type Result = ();

    fn handle(&mut self, _: ReopenRouter, ctx: &mut Self::Context) {
        self.budget.reset();
        self.quarantined = false;
        self.advance(ctx);
    }
}
