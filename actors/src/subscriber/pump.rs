//! What is begun next, and when this actor wakes to begin it.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::future::abortable;

use super::Subscriber;
use super::attempt::read_due;

/// The timer goes by a clock that no one sets, due times by one that may be set: so it looks at
/// least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Subscriber {
    fn has_room(&self) -> bool {
        self.in_flight + self.unsettled() < self.settings.window
    }

    /// Starts attempts while there is room in the window; retries take at most half of it.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.is_pumping {
            // What was begun ended at once and calls back: the loop below goes on with it.
            return;
        }
        self.is_pumping = true;
        while self.is_open() && self.has_room() {
            self.fill_schedule();
            let now = self.clock.now();
            let retry_share = (self.settings.window / 2).max(1);
            let may_retry = self.retries_in_flight < retry_share;
            let retry_first = may_retry && (self.retry_next || self.ready.is_empty());
            let retry = if retry_first { self.schedule.take_due(now) } else { None };
            self.retry_next = !self.retry_next;
            if let Some((position, row)) = retry {
                self.begin_retry(position, row, now, ctx);
            } else if let Some(event) = self.ready.pop_front() {
                self.begin_first(event, now, ctx);
            } else if retry_first || !may_retry || self.schedule.next_at().is_none_or(|at| at > now) {
                break;
            }
        }
        self.is_pumping = false;
        self.set_timer(ctx);
        self.answer_drain();
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
            Ok(pages) => self.schedule.fill(pages),
            Err(why) => {
                let why: String = why;
                tracing::warn!(subscription = %name, why, "retries not read");
            }
        }
    }

    /// Wakes up when the next retry falls due.
    pub(super) fn set_timer(&mut self, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let wanted = if !self.is_open() || !self.has_room() {
            // Whoever leaves the window, or ends the pause, looks again.
            None
        } else if self.schedule.needs_fill() {
            Some(now.after(self.settings.backoff))
        } else {
            // Due already, although there is room: only a retry that ends makes way for this one.
            self.schedule.next_at().filter(|at| *at > now)
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

    pub(super) fn answer_drain(&mut self) {
        if self.is_draining && self.in_flight == 0 && self.unsettled() == 0 {
            for done in self.draining.drain(..) {
                // Whoever waited may have given up.
                done.send(()).ok();
            }
        }
    }
}
