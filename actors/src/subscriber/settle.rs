//! Outcomes become durable: one commit per shard at a time moves the cursor, postpones, buries.
//!
//! A healthy subscription writes nothing of its own: its cursor rides along with the next commit
//! of others, unless the window is running out.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use fail::fail_point;

use super::Subscriber;
use super::rows::{DeadLetter, RetryRow, advance, bury, finish, postpone, prefix};
use crate::model::change::{Mutation, Table};
use crate::model::ids::Position;
use crate::shard::CommitError;

/// What became of an event.
pub(super) enum Effect {
    /// The endpoint has it.
    Done,
    /// It will be tried again.
    Postpone(RetryRow),
    /// It is given up.
    Bury(Box<DeadLetter>),
}

/// An event with an outcome.
pub(super) struct Settled {
    pub(super) position: Position,
    /// The row that the store has of it, when it was a retry.
    pub(super) row: Option<RetryRow>,
    pub(super) effect: Effect,
}

/// Outcomes of one shard that are not durable yet.
#[derive(Default)]
pub(super) struct Ledger {
    entered: Vec<Settled>,
    committing: Vec<Settled>,
    /// Places that the router may fill again.
    credit: usize,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.entered.len() + self.committing.len()
    }

    pub(super) fn enter(&mut self, settled: Settled) {
        self.entered.push(settled);
    }

    pub(super) fn owe(&mut self, credit: usize) {
        self.credit += credit;
    }
}

impl Subscriber {
    /// Commits what has an outcome in a shard, unless a commit is under way there.
    pub(super) fn settle(&mut self, index: usize, ctx: &mut Context<Self>) {
        let unsettled = self.unsettled();
        let pressing = unsettled * 2 >= self.settings.window || self.is_draining;
        let name = self.config.name.clone();
        let Some(lot) = self.shards.get_mut(index) else { return };
        if !lot.ledger.committing.is_empty() {
            if pressing {
                lot.router.shard().hurry();
            }
            return;
        }
        if lot.ledger.entered.is_empty() {
            return;
        }
        lot.ledger.committing = std::mem::take(&mut lot.ledger.entered);
        for settled in &lot.ledger.committing {
            lot.track.done(settled.position.lsn);
        }
        let mut mutations = vec![advance(&name, &lot.track.progress())];
        let mut quiet = true;
        for settled in &lot.ledger.committing {
            quiet &= write(&name, settled, &mut mutations);
        }
        let shard = lot.router.shard();
        let lazy = quiet && !pressing;
        let sent = if lazy { shard.commit_lazily(mutations) } else { shard.commit(mutations) };
        let answer = async move {
            fail_point!("subscriber::settle", |_| Err(CommitError::Unavailable));
            match sent {
                Ok(reply) => reply.await.unwrap_or(Err(CommitError::Unknown)),
                Err(error) => Err(error),
            }
        };
        ctx.spawn(answer.into_actor(self).map(move |result, actor, ctx| match result {
            Ok(_) => actor.guarded(ctx, |actor, ctx| actor.settled(index, ctx)),
            Err(error) => actor.not_settled(index, error, ctx),
        }));
    }

    fn settled(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(lot) = self.shards.get_mut(index) else { return };
        for Settled { position, row, effect } in std::mem::take(&mut lot.ledger.committing) {
            if row.is_some() {
                self.schedule.settled(position);
                self.shown.retrying = self.shown.retrying.saturating_sub(1);
            } else {
                lot.ledger.credit += 1;
            }
            match effect {
                Effect::Done => {}
                Effect::Postpone(next) => {
                    self.shown.retrying += 1;
                    self.schedule.insert(position, next);
                }
                Effect::Bury(_) => self.shown.dead_letters += 1,
            }
        }
        self.release_log(index);
        self.pay_credit(index);
        self.settle(index, ctx);
        self.pump(ctx);
    }

    /// The store took nothing, or nobody knows: the same outcomes are committed again. Rows are
    /// put where they are put, however often.
    fn not_settled(&mut self, index: usize, error: CommitError, ctx: &mut Context<Self>) {
        tracing::warn!(subscription = %self.config.name, shard = index, %error, "outcomes not committed yet");
        let Some(lot) = self.shards.get_mut(index) else { return };
        let mut again = std::mem::take(&mut lot.ledger.committing);
        again.append(&mut lot.ledger.entered);
        lot.ledger.entered = again;
        ctx.run_later(self.settings.backoff, move |actor, ctx| {
            actor.guarded(ctx, |actor, ctx| actor.settle(index, ctx));
        });
    }

    /// Places that came free go back to the router, a few at a time.
    pub(super) fn pay_credit(&mut self, index: usize) {
        let enough = (self.credit() / 4).max(1);
        let Some(lot) = self.shards.get_mut(index) else { return };
        if lot.ledger.credit >= enough
            && lot.router.grant(self.config.name.clone(), self.epoch, lot.ledger.credit)
        {
            lot.ledger.credit = 0;
        }
    }

    /// Tells the shard which part of its log this subscription still needs.
    pub(super) fn release_log(&mut self, index: usize) {
        let Some(lot) = self.shards.get(index) else { return };
        let mut floor = lot.track.cursor();
        if self.shown.retrying > 0 {
            let Ok(view) = lot.router.shard().view() else { return };
            let Ok(rows) = view.rows(Table::Deliveries, &prefix(&self.config.name), None, 1) else { return };
            if let Some(first) = rows.first().and_then(|(rest, _)| super::parse_lsn(rest)) {
                floor = floor.min(first.previous());
            }
        }
        self.floors.set(lot.router.shard(), &self.config.name, floor.next());
    }

    pub(super) fn hurry(&self) {
        for lot in &self.shards {
            lot.router.shard().hurry();
        }
    }
}

/// Writes what an outcome makes true; whether that was nothing beyond the cursor.
fn write(name: &str, settled: &Settled, out: &mut Vec<Mutation>) -> bool {
    let before = out.len();
    let lsn = settled.position.lsn;
    if let Some(row) = &settled.row {
        finish(name, lsn, row, out);
    }
    match &settled.effect {
        Effect::Done => {}
        Effect::Postpone(next) => postpone(name, lsn, next, out),
        Effect::Bury(letter) => bury(name, letter, out),
    }
    out.len() == before
}
