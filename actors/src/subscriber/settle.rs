//! Outcomes become durable: one commit per shard at a time moves the cursor, postpones, buries.
//!
//! A healthy subscription writes nothing of its own: its cursor rides along with the next commit
//! of others, unless the window is running out.

use std::collections::VecDeque;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use fail::fail_point;

use super::order::Fingerprint;
use super::rows::{DeadLetter, RetryRow, advance, bury, finish, hold, let_go, postpone, prefix};
use super::{Subscriber, SubscriptionConfig};
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Lsn, Position};
use crate::shard::CommitError;

/// Bytes after which a commit takes no further outcome: dead letters carry their events, and all of
/// a window together may be more than a record of the log can be.
const COMMIT_BYTES: usize = 1 << 20;
/// Mutations after which a commit takes no further outcome.
const COMMIT_MUTATIONS: usize = 1_000;

/// What became of an event.
pub(super) enum Effect {
    /// The endpoint has it.
    Done,
    /// It will be tried again.
    Postpone(RetryRow),
    /// It waits for another one, with this row.
    Hold(RetryRow),
    /// It is given up.
    Bury(Box<DeadLetter>),
}

/// An event with an outcome.
pub(super) struct Settled {
    pub(super) position: Position,
    /// The row that the store has of it, when it was a retry.
    pub(super) row: Option<RetryRow>,
    pub(super) effect: Effect,
    /// Its key, where events have an order and it is one that others wait for.
    pub(super) key: Option<Fingerprint>,
    /// The event behind it, whose turn has come.
    pub(super) next: Option<(Lsn, RetryRow)>,
}

impl Settled {
    pub(super) fn new(position: Position, row: Option<RetryRow>, effect: Effect) -> Self {
        Self { position, row, effect, key: None, next: None }
    }
}

/// Outcomes of one shard that are not durable yet.
#[derive(Default)]
pub(super) struct Ledger {
    entered: VecDeque<Settled>,
    committing: Vec<Settled>,
    /// A commit failed; the next one waits a little.
    resting: bool,
    /// Places that the router may fill again.
    credit: usize,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.entered.len() + self.committing.len()
    }

    pub(super) fn enter(&mut self, settled: Settled) {
        self.entered.push_back(settled);
    }

    pub(super) fn owe(&mut self, credit: usize) {
        self.credit += credit;
    }

    pub(super) fn has(&self, position: Position) -> bool {
        self.entered.iter().chain(&self.committing).any(|settled| settled.position == position)
    }

    /// The first position whose outcome is in memory alone.
    fn first(&self) -> Option<Lsn> {
        self.entered.iter().chain(&self.committing).map(|settled| settled.position.lsn).min()
    }
}

impl Subscriber {
    /// Commits what has an outcome in a shard, unless a commit is under way there.
    pub(super) fn settle(&mut self, index: usize, ctx: &mut Context<Self>) {
        let pressing = self.unsettled() * 2 >= self.window() || self.is_draining || self.changing;
        let name = self.config.name.clone();
        let tells = self.system_events();
        let Some(lot) = self.shards.get_mut(index) else { return };
        if !lot.ledger.committing.is_empty() {
            if pressing {
                lot.router.shard().hurry();
            }
            return;
        }
        if lot.ledger.entered.is_empty() || lot.ledger.resting {
            return;
        }
        let (mut mutations, mut bytes, mut quiet) = (Vec::new(), 0, true);
        while let Some(settled) = lot.ledger.entered.pop_front() {
            let before = mutations.len();
            write(&self.config, &settled, &mut mutations);
            if let (Effect::Bury(letter), Some(event)) = (&settled.effect, &tells) {
                mutations.push(event.dead_letter(letter));
            }
            let written = mutations.get(before..).unwrap_or_default();
            quiet &= written.is_empty();
            bytes += written.iter().map(Mutation::weight).sum::<usize>();
            lot.track.done(settled.position.lsn);
            self.schedule.hold(settled.position);
            lot.ledger.committing.push(settled);
            if bytes >= COMMIT_BYTES || mutations.len() >= COMMIT_MUTATIONS {
                break;
            }
        }
        mutations.push(advance(&name, &lot.track.progress()));
        let shard = lot.router.shard();
        let lazy = quiet && !pressing;
        let sent = if lazy { shard.commit_lazily(mutations) } else { shard.commit(mutations) };
        let on_its_way = self.on_its_way.clone();
        let answer = async move {
            let answered = async {
                fail_point!("subscriber::settle", |_| Err(CommitError::Unknown));
                match sent {
                    Ok(reply) => reply.await.unwrap_or(Err(CommitError::Unknown)),
                    Err(error) => Err(error),
                }
            };
            let answered = answered.await;
            drop(on_its_way);
            answered
        };
        // A task of its own: if this actor crashes, its next start waits until the answer is here.
        ctx.spawn(actix_rt::spawn(answer).into_actor(self).map(move |answered, actor, ctx| {
            match answered.unwrap_or(Err(CommitError::Unknown)) {
                Ok(_) => actor.guarded(ctx, |actor, ctx| actor.settled(index, ctx)),
                Err(error) => actor.guarded(ctx, |actor, ctx| actor.not_settled(index, error, ctx)),
            }
        }));
    }

    fn settled(&mut self, index: usize, ctx: &mut Context<Self>) {
        let mut buried = 0;
        let Some(lot) = self.shards.get_mut(index) else { return };
        for Settled { position, row, effect, next, .. } in std::mem::take(&mut lot.ledger.committing) {
            self.schedule.settled(position);
            self.suspects.clear(&position);
            if row.is_some() {
                self.counts.retrying -= 1;
            } else {
                lot.ledger.credit += 1;
            }
            match effect {
                Effect::Done => {}
                Effect::Postpone(next) => {
                    self.counts.retrying += 1;
                    self.schedule.insert(position, next);
                }
                Effect::Hold(_) => self.counts.retrying += 1,
                Effect::Bury(_) => {
                    self.counts.dead_letters += 1;
                    buried += 1;
                }
            }
            if let Some((lsn, row)) = next {
                self.schedule.insert(Position { shard: position.shard, lsn }, row);
            }
        }
        self.export_more(buried, ctx);
        self.release_log(index);
        self.pay_credit(index, ctx);
        self.settle(index, ctx);
        self.pump(ctx);
    }

    /// The store took nothing, or nobody knows: the same outcomes are committed again. Rows are
    /// put where they are put, however often.
    fn not_settled(&mut self, index: usize, error: CommitError, ctx: &mut Context<Self>) {
        tracing::warn!(subscription = %self.config.name, shard = index, %error, "outcomes not committed yet");
        let Some(lot) = self.shards.get_mut(index) else { return };
        for settled in std::mem::take(&mut lot.ledger.committing).into_iter().rev() {
            lot.ledger.entered.push_front(settled);
        }
        lot.ledger.resting = true;
        ctx.run_later(self.settings.backoff, move |actor, ctx| {
            if let Some(lot) = actor.shards.get_mut(index) {
                lot.ledger.resting = false;
            }
            actor.guarded(ctx, |actor, ctx| actor.settle(index, ctx));
        });
    }

    /// Places that came free go back to the router, a few at a time.
    pub(super) fn pay_credit(&mut self, index: usize, ctx: &mut Context<Self>) {
        let enough = (self.credit() / 4).max(1);
        let Some(lot) = self.shards.get_mut(index) else { return };
        if lot.ledger.credit < enough {
            return;
        }
        if lot.router.grant(self.config.name.clone(), self.epoch, lot.ledger.credit) {
            lot.ledger.credit = 0;
            return;
        }
        // Without this grant the lane may stand still, and then nothing else would try again.
        ctx.run_later(self.settings.backoff, move |actor, ctx| {
            actor.guarded(ctx, |actor, ctx| actor.pay_credit(index, ctx));
        });
    }

    /// Tells the shard which part of its log this subscription still needs: from the first event
    /// that is open, has an outcome that is not durable, or waits for a retry.
    pub(super) fn release_log(&mut self, index: usize) {
        let Some(lot) = self.shards.get(index) else { return };
        let mut floor = lot.track.cursor().next();
        if let Some(first) = lot.ledger.first() {
            floor = floor.min(first);
        }
        if self.counts.retrying > 0 {
            let Ok(view) = lot.router.shard().view() else { return };
            let Ok(rows) = view.rows(Table::Deliveries, &prefix(&self.config.name), None, 1) else { return };
            if let Some(first) = rows.first().and_then(|(rest, _)| super::parse_lsn(rest)) {
                floor = floor.min(first);
            }
        }
        self.floors.set(lot.router.shard(), &self.config.name, floor);
    }

    /// Ends the wait of outcomes that are in no hurry.
    pub(super) fn hurry(&self) {
        for router in self.routers.iter() {
            router.shard().hurry();
        }
    }
}

/// Writes what an outcome makes true beyond the cursor.
fn write(config: &SubscriptionConfig, settled: &Settled, out: &mut Vec<Mutation>) {
    fail_point!("subscriber::outcome_dropped", |_| ());
    let (name, lsn) = (&*config.name, settled.position.lsn);
    if let Some(row) = &settled.row {
        finish(name, lsn, row, out);
    }
    match &settled.effect {
        Effect::Done => {}
        Effect::Postpone(next) | Effect::Hold(next) => {
            postpone(name, lsn, next, out);
            if let Some(key) = &settled.key {
                hold(name, key, (lsn, next.published), out);
            }
        }
        Effect::Bury(letter) => bury(name, letter, config.export.is_some(), out),
    }
    match (&settled.effect, &settled.key) {
        (Effect::Done | Effect::Bury(_), Some(key)) => let_go(name, key, lsn, out),
        (Effect::Done | Effect::Bury(_), None) | (Effect::Postpone(_) | Effect::Hold(_), _) => {}
    }
    if let Some((lsn, row)) = &settled.next {
        postpone(name, *lsn, row, out);
    }
}
