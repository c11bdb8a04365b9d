//! One attempt: from an event or a retry to an outcome and its verdict.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use fail::fail_point;
use futures_util::FutureExt;

use super::rows::{DeadLetter, RetryRow, decode, parse_due, prefix};
use super::schedule::Page;
use super::settle::{Effect, Settled};
use super::{Subscriber, rows};
use crate::kernel::contain;
use crate::model::change::Table;
use crate::model::delivery::{Attempt, Outcome, OutcomeKind, Transport};
use crate::model::event::{CLOUD_EVENT, Event, StoredEvent};
use crate::model::ids::Position;
use crate::model::time::Timestamp;
use crate::policy::retry::{DeadLetterReason, Due, Verdict, verdict, when_due};
use crate::shard::ShardHandle;
use crate::store::ViewReadError;

/// How long after its deadline an attempt is given up here, if the transport did not do so: a place
/// in the window must come back in any case.
const GRACE: Duration = Duration::from_secs(1);

/// An event under way, and the row that it has if it failed before.
struct UnderWay {
    event: Arc<Event>,
    row: Option<RetryRow>,
}

/// How an event ended that is given up.
struct End<'a> {
    attempts: u32,
    reason: DeadLetterReason,
    /// The attempt that decided it, if there was one.
    outcome: Option<&'a Outcome>,
}

impl Subscriber {
    /// An event that was handed over: too old, or tried for the first time.
    pub(super) fn begin_first(&mut self, event: Arc<Event>, now: Timestamp, ctx: &mut Context<Self>) {
        match when_due(Self::published(&event), &self.config.retry, now) {
            Due::Attempt => {
                self.in_flight += 1;
                self.deliver(UnderWay { event, row: None }, ctx);
            }
            Due::DeadLetter(reason) => {
                self.give_up(&event, None, End { attempts: 0, reason, outcome: None }, ctx);
            }
        }
    }

    /// A retry that falls due: too old, or tried again.
    pub(super) fn begin_retry(
        &mut self,
        position: Position,
        row: RetryRow,
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        let Some(shard) = self.lot(position.shard).map(|lot| lot.router.shard().clone()) else { return };
        self.in_flight += 1;
        self.retries_in_flight += 1;
        let due = when_due(row.published, &self.config.retry, now);
        let stored = row.event.clone();
        // The log may have to be read from the disk.
        let find = tokio::task::spawn_blocking(move || find(&shard, position, stored));
        ctx.spawn(find.into_actor(self).map(move |found, actor, ctx| {
            actor.guarded(ctx, |actor, ctx| match (found, due) {
                (Ok(Ok(event)), Due::Attempt) => {
                    actor.deliver(UnderWay { event: Arc::new(event), row: Some(row) }, ctx);
                }
                (Ok(Ok(event)), Due::DeadLetter(reason)) => {
                    actor.leave_flight(true);
                    let end = End { attempts: row.attempts, reason, outcome: None };
                    actor.give_up(&event, Some(row), end, ctx);
                }
                (found, _) => {
                    let why = match found {
                        Ok(Err(why)) => why,
                        Ok(Ok(_)) => "found".to_owned(),
                        Err(join) => join.to_string(),
                    };
                    tracing::error!(subscription = %actor.config.name, %position, why, "event of a retry not read");
                    actor.leave_flight(true);
                    let later = now.after(actor.settings.backoff * 100);
                    actor.schedule.give_back(position, row, later);
                    actor.pump(ctx);
                }
            });
        }));
    }

    fn deliver(&mut self, under_way: UnderWay, ctx: &mut Context<Self>) {
        let event = &under_way.event;
        let Some(event_type) = self.config.types.of(event.change.kind).cloned() else {
            // The topic no longer has this type: nothing to deliver, nothing to keep.
            self.leave_flight(under_way.row.is_some());
            return self.settle_event(event.position, under_way.row, Effect::Done, ctx);
        };
        let number = under_way.row.as_ref().map_or(0, |row| row.attempts) + 1;
        let attempt = Attempt {
            endpoint: self.config.endpoint.clone(),
            subscription: self.config.name.clone(),
            event_id: event.position.to_string(),
            number,
            traceparent: event.change.traceparent.clone(),
            content_type: CLOUD_EVENT,
            body: event.to_cloud_event(&event_type),
            timeout: self.settings.timeout,
        };
        let delivery = deliver(self.transport.clone(), attempt);
        ctx.spawn(delivery.into_actor(self).map(move |outcome, actor, ctx| {
            actor.guarded(ctx, |actor, ctx| actor.judge(under_way, number, &outcome, ctx));
        }));
    }

    fn judge(&mut self, under_way: UnderWay, number: u32, outcome: &Outcome, ctx: &mut Context<Self>) {
        fail_point!(
            "subscriber::judge",
            under_way.event.change.id.as_str().starts_with("poison-judge"),
            |_| ()
        );
        let UnderWay { event, row } = under_way;
        self.leave_flight(row.is_some());
        if outcome.kind == OutcomeKind::Aborted {
            return self.put_back(event, row, ctx);
        }
        self.note(event.position, number, outcome);
        let (now, chance) = (self.clock.now(), self.chance());
        match verdict(number, outcome, &self.config.retry, now, chance) {
            Verdict::Done => {
                self.shown.delivered += 1;
                self.settle_event(event.position, row, Effect::Done, ctx);
            }
            Verdict::RetryAt(next_at) => {
                self.shown.failed_attempts += 1;
                let published = row.as_ref().map_or(Self::published(&event), |row| row.published);
                let stored = row.as_ref().and_then(|row| row.event.clone());
                let next = RetryRow {
                    attempts: number,
                    next_at,
                    published,
                    last: Some(outcome.kind),
                    event: stored,
                };
                self.settle_event(event.position, row, Effect::Postpone(next), ctx);
            }
            Verdict::DeadLetter(reason) => {
                self.shown.failed_attempts += 1;
                let end = End { attempts: number, reason, outcome: Some(outcome) };
                self.give_up(&event, row, end, ctx);
            }
        }
    }

    /// Chooses the jitter of a retry.
    fn chance(&mut self) -> f64 {
        fail_point!("subscriber::no_jitter", |_| 0.0);
        self.rng.f64()
    }

    fn give_up(&mut self, event: &Event, row: Option<RetryRow>, end: End<'_>, ctx: &mut Context<Self>) {
        self.shown.given_up += 1;
        let End { attempts, reason, outcome } = end;
        let event_type =
            self.config.types.of(event.change.kind).map_or(String::new(), |name| name.to_string());
        let letter = DeadLetter {
            reason,
            attempts,
            last_outcome: outcome.map(|outcome| outcome.kind).or(row.as_ref().and_then(|row| row.last)),
            last_status: outcome.and_then(|outcome| outcome.status),
            detail: outcome.map(|outcome| outcome.detail.clone()).unwrap_or_default(),
            published: row.as_ref().map_or(Self::published(event), |row| row.published),
            at: self.clock.now(),
            event_type,
            event: StoredEvent::from(event),
        };
        tracing::warn!(subscription = %self.config.name, event = %event.position, %reason, "event dead-lettered");
        self.settle_event(event.position, row, Effect::Bury(Box::new(letter)), ctx);
    }

    fn settle_event(
        &mut self,
        position: Position,
        row: Option<RetryRow>,
        effect: Effect,
        ctx: &mut Context<Self>,
    ) {
        let index = usize::from(position.shard.0);
        if let Some(lot) = self.shards.get_mut(index) {
            lot.ledger.enter(Settled { position, row, effect });
            self.settle(index, ctx);
        }
        self.pump(ctx);
    }

    pub(super) fn leave_flight(&mut self, is_retry: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if is_retry {
            self.retries_in_flight = self.retries_in_flight.saturating_sub(1);
        }
    }

    /// An attempt that was not made counts for nothing, and is made a little later.
    fn put_back(&mut self, event: Arc<Event>, row: Option<RetryRow>, ctx: &mut Context<Self>) {
        match row {
            Some(row) => {
                let at = self.clock.now().after(self.settings.backoff);
                self.schedule.give_back(event.position, row, at);
            }
            None => self.ready.push_front(event),
        }
        self.pump_later(ctx);
        self.answer_drain();
    }
}

/// Makes the attempt. Neither a transport that panics nor one that never ends costs more than it.
async fn deliver(transport: Arc<dyn Transport>, attempt: Attempt) -> Outcome {
    let limit = attempt.timeout.saturating_add(GRACE);
    let made = AssertUnwindSafe(async move { transport.deliver(attempt).await }).catch_unwind();
    match tokio::time::timeout(limit, made).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let text = contain::message(&*panic);
            tracing::error!(panic = text, "transport crashed");
            Outcome::failed(OutcomeKind::SocketError, "the transport crashed")
        }
        Err(_) => Outcome::failed(OutcomeKind::TimedOut, "the transport did not keep the deadline"),
    }
}

/// The event itself: kept with its retry, or in the log.
fn find(shard: &ShardHandle, position: Position, stored: Option<StoredEvent>) -> Result<Event, String> {
    if let Some(stored) = stored {
        return stored.into_event().ok_or_else(|| "the stored event cannot be read".to_owned());
    }
    let groups = shard.log().read(position.lsn, 1).map_err(|error| error.to_string())?;
    let mut changes = groups.iter().flat_map(crate::model::change::CommittedGroup::changes);
    let change = changes.find(|(lsn, _)| *lsn == position.lsn);
    let event = change.and_then(|(_, change)| Event::new(position, change));
    event.ok_or_else(|| "the log has no event there".to_owned())
}

/// The retries of a shard that fall due next, at most `limit`.
pub(super) fn read_due(shard: &ShardHandle, name: &str, limit: usize) -> Result<Page, String> {
    let view = shard.view().map_err(|error| error.to_string())?;
    let due = view.rows(Table::Due, &prefix(name), None, limit).map_err(|error| error.to_string())?;
    let complete = due.len() < limit;
    let mut rows = Vec::with_capacity(due.len());
    for (rest, _) in due {
        let Some((_, lsn)) = parse_due(&rest) else { continue };
        let row: Option<RetryRow> = match view.row(Table::Deliveries, &rows::key(name, lsn)) {
            Ok(value) => value.as_deref().and_then(decode),
            Err(ViewReadError::Corrupt | ViewReadError::Newer) => None,
            Err(error @ ViewReadError::Disk(_)) => return Err(error.to_string()),
        };
        // One row that cannot be read must not keep the others waiting for ever.
        match row {
            Some(row) => rows.push((Position { shard: shard.id(), lsn }, row)),
            None => tracing::error!(subscription = name, %lsn, "delivery not read: it is passed over"),
        }
    }
    Ok(Page { rows, complete })
}
