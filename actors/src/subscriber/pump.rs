//! What is begun next, and when this actor wakes to begin it.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::abortable;

use super::Subscriber;
use super::attempt::batch_of_retries;
use super::config::{Destination, Webhook};
use super::rows::{RetryRow, decode, key, parse_due, prefix};
use super::schedule::Page;
use crate::model::change::Table;
use crate::model::event::Event;
use crate::model::ids::Position;
use crate::model::time::Timestamp;
use crate::policy::health::Breaker;
use crate::policy::retry::{Due, RetryPolicy, longest_wait, when_due};
use crate::shard::ShardHandle;
use crate::store::ViewReadError;

/// The longest sleep. What a machine that was suspended owes to its timers is its own affair: so the time is looked at
/// at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The shortest sleep.
const INSTANT: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Subscriber {
    /// Events that may be under way, or have an outcome that is not durable.
    pub(super) fn window(&self) -> usize {
        match &self.config.to {
            Destination::Webhook(Webhook { batch: Some(batch), .. }) => {
                self.settings.window.max(batch.events * 2)
            }
            Destination::Webhook(_) => self.settings.window,
            Destination::Queue(_) => self.settings.queue,
        }
    }

    /// How many events may be begun now.
    fn room(&self, now: Timestamp) -> usize {
        let room = self.window().saturating_sub(self.in_flight + self.unsettled());
        match &self.config.to {
            Destination::Webhook(_) if !self.is_validated() => 0,
            Destination::Webhook(_) if self.attempts >= self.health.room(now) => 0,
            Destination::Webhook(_) if self.paced_until.is_some_and(|until| until > now) => 0,
            Destination::Webhook(_) => room,
            Destination::Queue(_) => room.min(self.queue.wanted(self.in_flight)),
        }
    }

    /// Starts attempts while there is room; retries take at most half of the window.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.is_pumping {
            // What was begun ended at once and calls back: the loop below goes on with it.
            return;
        }
        self.is_pumping = true;
        while self.is_open() {
            self.fill_schedule();
            let now = self.time.now();
            let room = self.room(now);
            if !(if room == 0 { self.begin_end(now, ctx) } else { self.begin(room, now, ctx) }) {
                break;
            }
        }
        self.is_pumping = false;
        self.serve(ctx);
        self.set_timer(ctx);
        self.answer_drain();
    }

    /// Retries that may be under way.
    fn retry_share(&self) -> usize {
        (self.window() / 2).max(1)
    }

    /// Begins what is next, a retry or some events for the first time. False: there is nothing.
    fn begin(&mut self, room: usize, now: Timestamp, ctx: &mut Context<Self>) -> bool {
        let retry_share = self.retry_share();
        let may_retry = self.retries_in_flight < retry_share;
        let retry_first = may_retry && (self.retry_next || self.ready.is_empty());
        self.retry_next = !self.retry_next;
        if retry_first {
            let rows = self.take_due(room.min(retry_share - self.retries_in_flight), now);
            if !rows.is_empty() {
                self.pace(now);
                self.begin_retries(rows, (now, true), ctx);
                return true;
            }
        }
        let events = self.take_ready(room, ctx);
        if !events.is_empty() {
            self.pace(now);
            self.begin_first(events, now, ctx);
            return true;
        }
        !retry_first && may_retry && self.schedule.next_at().is_some_and(|at| at <= now)
    }

    /// Nothing may be sent now, but what is too old has its end all the same. False: nothing is.
    fn begin_end(&mut self, now: Timestamp, ctx: &mut Context<Self>) -> bool {
        if self.in_flight + self.unsettled() >= self.window() {
            return false;
        }
        let is_old = |published: Timestamp| {
            let due = when_due(published, &self.config.retry, now);
            self.shown.disabled.is_some() || due != Due::Attempt
        };
        if self.ready.front().is_some_and(|event| is_old(self.time.of(event.at))) {
            let Some(event) = self.next_ready(ctx) else { return true };
            self.begin_first(vec![event], now, ctx);
            return true;
        }
        if self.schedule.peek_due(now).is_some_and(|row| is_old(row.published))
            && let Some(row) = self.schedule.take_due(now)
        {
            self.begin_retries(vec![row], (now, false), ctx);
            return true;
        }
        false
    }

    /// Retries that fall due and go in one request.
    fn take_due(&mut self, room: usize, now: Timestamp) -> Vec<(Position, RetryRow)> {
        let batch = match &self.config.to {
            Destination::Webhook(webhook) => webhook.batch,
            Destination::Queue(_) => None,
        };
        let Some(first) = self.schedule.peek_due(now).map(kind) else { return Vec::new() };
        let (attempts, _) = first;
        let most = batch_of_retries(batch, attempts).min(room.max(1));
        let mut rows = Vec::new();
        while rows.len() < most && self.schedule.peek_due(now).is_some_and(|row| kind(row) == first) {
            rows.extend(self.schedule.take_due(now));
            if rows.last().is_some_and(|(position, _)| self.suspects.is_suspect(position)) {
                // Whoever was at work in a crash is not sent with those behind it.
                break;
            }
        }
        rows
    }

    /// Events that are tried for the first time, in one request.
    fn take_ready(&mut self, room: usize, ctx: &mut Context<Self>) -> Vec<Arc<Event>> {
        let batch = match &self.config.to {
            Destination::Webhook(webhook) => webhook.batch,
            Destination::Queue(_) => None,
        };
        let (most, most_bytes) = batch.map_or((1, 0), |batch| (batch.events.min(room), batch.bytes));
        let (mut events, mut bytes): (Vec<Arc<Event>>, usize) = (Vec::new(), 0);
        while events.len() < most {
            if batch.is_some() && !events.is_empty() {
                let next = self.ready.front().map_or(0, |event| event.json().len());
                let is_suspect =
                    self.ready.front().is_some_and(|event| self.suspects.is_suspect(&event.position));
                if bytes + next > most_bytes || is_suspect {
                    break;
                }
            }
            let Some(event) = self.next_ready(ctx) else { break };
            if batch.is_some() {
                bytes += event.json().len();
            }
            let is_suspect = self.suspects.is_suspect(&event.position);
            events.push(event);
            if is_suspect {
                // Whoever was at work in a crash is not sent with those behind it.
                break;
            }
        }
        events
    }

    /// Keeps to the rate that the endpoint asked for.
    pub(super) fn pace(&mut self, now: Timestamp) {
        if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
            self.paced_until = Some(now.after(MINUTE / rate));
        }
    }

    /// Looks again after a pause: something could not be begun, and no other end may come to tell.
    pub(super) fn pump_later(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.settings.backoff, |actor, ctx| actor.guarded(ctx, Self::pump));
    }

    /// Asks the store for the retries that fall due next, when none is in memory.
    fn fill_schedule(&mut self) {
        if !self.schedule.needs_fill() {
            return;
        }
        let (page, name) = (self.schedule.page(), &self.config.name);
        let read = self.shards.iter().map(|lot| read_due(lot.router.shard(), name, page));
        match read.collect() {
            Ok(pages) => {
                let (policy, opened, now) = (&self.config.retry, self.opened, self.time.now());
                self.schedule.fill(pages, |row| due_at(row, policy, opened, now));
            }
            Err(why) => {
                let why: String = why;
                tracing::warn!(subscription = %name, why, "retries not read");
            }
        }
    }

    /// Wakes up when the next retry falls due.
    pub(super) fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let now = self.time.now();
        let full = self.in_flight + self.unsettled() >= self.window();
        let wanted = if !self.is_open() || full {
            // Whoever leaves the window, or ends the pause, looks again.
            None
        } else if let Some(until) = self.closed_until(now) {
            Some(until)
        } else if self.schedule.needs_fill() {
            Some(now.after(self.settings.backoff))
        } else {
            // What fell due since the pump looked has no other waker, unless an attempt that ends is one.
            let waits = self.room(now) == 0 || self.retries_in_flight >= self.retry_share();
            let next = self.schedule.next_at().filter(|at| *at > now || !waits);
            next.map(|at| at.max(now.after(INSTANT)))
        };
        if let (Some(wanted), Some((at, _))) = (wanted, &self.timer)
            && wanted == *at
        {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        let Some(at) = wanted else { return };
        let wait = at.since(now).min(LONGEST_SLEEP);
        let (sleep, timer) = abortable(tokio::time::sleep(wait));
        self.timer = Some((at, timer));
        ctx.spawn(sleep.into_actor(self).map(|slept, actor, ctx| {
            if slept.is_ok() {
                actor.timer = None;
                actor.guarded(ctx, Self::pump);
            }
        }));
    }

    /// When something that waits may be sent again, if it may not now.
    fn closed_until(&self, now: Timestamp) -> Option<Timestamp> {
        let open = match self.health.breaker() {
            Breaker::Open { until, .. } => Some(until),
            Breaker::Closed | Breaker::Probing { .. } => None,
        };
        // Until the endpoint has agreed, events only grow old.
        let asked = (!self.is_validated()).then(|| now.after(LONGEST_SLEEP));
        let recovering = self.health.held_until(now);
        let until = open.max(recovering).max(self.paced_until).max(asked).filter(|until| *until > now)?;
        let waits = !self.ready.is_empty() || self.schedule.next_at().is_some_and(|at| at <= until);
        waits.then_some(until)
    }

    pub(super) fn answer_drain(&mut self) {
        // What somebody has received is not waited for: it is given out again by the next start.
        let ends = self.is_draining || self.changing;
        if ends && self.in_flight <= self.queue.held() && self.unsettled() == 0 {
            for done in self.draining.drain(..) {
                // Whoever waited may have given up.
                done.send(()).ok();
            }
        }
    }
}

/// What goes in one request: retries tried equally often, and of one replay, whose id the request bears.
fn kind(row: &RetryRow) -> (u32, Option<Arc<str>>) {
    (row.attempts, row.replay.clone())
}

/// When a retry of the store falls due. No failed event is put off for longer than this in one go: if one seems to be,
/// the clock was set back between this process and the one before, and it waits no longer than if it had failed just
/// before the start.
fn due_at(row: &RetryRow, policy: &RetryPolicy, opened: Timestamp, now: Timestamp) -> Timestamp {
    let longest = longest_wait(row.attempts, policy);
    // A replay may spread its events over any time.
    let is_far = row.attempts > 0 && row.next_at > now.after(longest);
    if is_far { opened.after(longest) } else { row.next_at }
}

/// The retries of a shard that fall due next, at most `limit`.
fn read_due(shard: &ShardHandle, name: &str, limit: usize) -> Result<Page, String> {
    let view = shard.view().map_err(|error| error.to_string())?;
    let due = view.rows(Table::Due, &prefix(name), None, limit).map_err(|error| error.to_string())?;
    let complete = due.len() < limit;
    let mut rows = Vec::with_capacity(due.len());
    for (rest, _) in due {
        let Some((_, lsn)) = parse_due(&rest) else { continue };
        let row: Option<RetryRow> = match view.row(Table::Deliveries, &key(name, lsn)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_start_on_a_clock_that_was_set_back_no_retry_waits_longer_than_its_step_can_be() {
        const HOUR: u64 = 3_600_000;
        const OPENED: u64 = 1_000 * HOUR;
        let policy = RetryPolicy::default();
        let due = |attempts: u32, next_at: u64, now: u64| {
            let row = RetryRow {
                attempts,
                next_at: Timestamp(next_at),
                published: Timestamp(0),
                last: None,
                event: None,
                replay: None,
                held: false,
            };
            due_at(&row, &policy, Timestamp(OPENED), Timestamp(now)).0
        };
        // What an earlier process put off by a clock that was a day ahead, however late it is read.
        let far = OPENED + 24 * HOUR;
        for now in [OPENED, OPENED + HOUR, OPENED + 5 * HOUR] {
            assert_eq!(due(1, far, now), OPENED + HOUR * 11 / 10);
            assert_eq!(due(8, far, now), OPENED + 3 * HOUR * 11 / 10);
        }
        for (attempts, wait) in [(1, HOUR), (8, 3 * HOUR * 11 / 10), (10, 13 * HOUR)] {
            assert_eq!(due(attempts, OPENED + wait, OPENED), OPENED + wait, "{attempts}");
        }
        assert_eq!(due(0, far, OPENED), far, "a replay at a rate");
    }
}
