//! Events that wait to be received: given out under a lock, and settled by whoever has its token.
//!
//! Invariants: an event is given to one receiver at a time; one that is not settled before its lock ends is
//! given out again; locks are in memory alone, so that after a crash everything that was not settled is
//! given out again, and nothing is lost.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::Subscriber;
use super::attempt::{End, UnderWay};
use super::config::{Destination, QueueSettings};
use crate::model::ids::Position;
use crate::model::time::Timestamp;
use crate::policy::retry::DeadLetterReason;
use crate::protocol::subscriber::{
    Decision, LockLost, ReceiveEvents, ReceiveRefused, Received, SettleEvents,
};

/// Receivers that may wait at a time.
const RECEIVERS: usize = 1_024;
/// How long a lock may be renewed, from when the event was received.
const LONGEST_LOCK: Duration = Duration::from_secs(3_600);

/// An event that somebody has.
struct Locked {
    under_way: UnderWay,
    nonce: u64,
    until: Timestamp,
    since: Timestamp,
}

/// Somebody who waits for events.
struct Receiver {
    most: usize,
    reply: oneshot::Sender<Vec<Received>>,
}

/// What a queue has in memory.
#[derive(Default)]
pub(super) struct Queue {
    prepared: VecDeque<UnderWay>,
    locked: HashMap<Position, Locked>,
    receivers: VecDeque<Receiver>,
}

impl Queue {
    /// How many more events receivers wait for; `in_flight` are locked, prepared, or about to be.
    pub(super) fn wanted(&self, in_flight: usize) -> usize {
        let asked: usize = self.receivers.iter().filter(|it| !it.reply.is_closed()).map(|it| it.most).sum();
        asked.saturating_sub(in_flight.saturating_sub(self.locked.len()))
    }

    /// Events that are kept for receivers, or that they have.
    pub(super) fn held(&self) -> usize {
        self.locked.len() + self.prepared.len()
    }

    /// Events that somebody has.
    pub(super) fn locked(&self) -> usize {
        self.locked.len()
    }
}

/// The token of a lock: which event, and which time it was given out.
fn token(position: Position, nonce: u64) -> String {
    format!("{position}-{nonce:016x}")
}

fn parse_token(token: &str) -> Option<(Position, u64)> {
    let (position, nonce) = token.rsplit_once('-')?;
    let nonce = u64::from_str_radix(nonce, 16).ok().filter(|_| nonce.len() == 16)?;
    Some((position.parse().ok()?, nonce))
}

impl Subscriber {
    fn queue_settings(&self) -> Option<QueueSettings> {
        match &self.config.to {
            Destination::Queue(settings) => Some(*settings),
            Destination::Webhook(_) => None,
        }
    }

    /// Events are ready to be given out.
    pub(super) fn offer(&mut self, parcel: Vec<UnderWay>, ctx: &mut Context<Self>) {
        self.attempts = self.attempts.saturating_sub(1);
        self.queue.prepared.extend(parcel);
        // Unless it is at it, which then gives them out together.
        self.pump(ctx);
    }

    /// Gives prepared events to those who wait.
    pub(super) fn serve(&mut self, ctx: &mut Context<Self>) {
        let Some(settings) = self.queue_settings() else { return };
        let now = self.time.now();
        while !self.queue.prepared.is_empty() {
            let Some(receiver) = self.queue.receivers.pop_front() else { break };
            if receiver.reply.is_closed() {
                continue;
            }
            let count = receiver.most.min(self.queue.prepared.len());
            let events: Vec<UnderWay> = self.queue.prepared.drain(..count).collect();
            let mut given = Vec::with_capacity(count);
            for under_way in events {
                let (position, nonce) = (under_way.event.position, self.rng.u64(..));
                given.push(Received {
                    token: token(position, nonce),
                    deliveries: under_way.number(),
                    replay: under_way.row.as_ref().and_then(|row| row.replay.clone()),
                    event: under_way.event.clone(),
                });
                let (until, since) = (now.after(settings.lock), now);
                self.queue.locked.insert(position, Locked { under_way, nonce, until, since });
            }
            if let Err(unsent) = receiver.reply.send(given) {
                // Gone in this very moment: nobody has seen them.
                for received in unsent.into_iter().rev() {
                    if let Some(locked) = self.queue.locked.remove(&received.event.position) {
                        self.queue.prepared.push_front(locked.under_way);
                    }
                }
            }
        }
        self.watch_locks(ctx);
    }

    /// Looks after the locks when the first of them may have ended.
    fn watch_locks(&mut self, ctx: &mut Context<Self>) {
        let Some(first) = self.queue.locked.values().map(|locked| locked.until).min() else { return };
        if self.lock_watch.is_some_and(|at| at <= first) {
            return;
        }
        self.lock_watch = Some(first);
        let wait = first.since(self.time.now()) + Duration::from_millis(1);
        ctx.run_later(wait, |actor, ctx| {
            actor.guarded(ctx, |actor, ctx| {
                actor.lock_watch = None;
                actor.end_locks(ctx);
                actor.watch_locks(ctx);
            });
        });
    }

    fn end_locks(&mut self, ctx: &mut Context<Self>) {
        let now = self.time.now();
        let over = self.queue.locked.iter().filter(|(_, locked)| locked.until <= now);
        let over: Vec<Position> = over.map(|(position, _)| *position).collect();
        for position in over {
            if let Some(locked) = self.queue.locked.remove(&position) {
                self.return_later(locked.under_way, now, ctx);
            }
        }
    }

    /// The event is given out again at `at`.
    fn return_later(&mut self, under_way: UnderWay, at: Timestamp, ctx: &mut Context<Self>) {
        self.leave_flight(under_way.row.is_some());
        let number = under_way.number();
        let UnderWay { event, row } = under_way;
        if self.queue_settings().is_some_and(|settings| number >= settings.max_deliveries) {
            let reason = DeadLetterReason::MaxDeliveryAttemptsExceeded;
            return self.give_up(&event, row, End { attempts: number, reason, outcome: None }, ctx);
        }
        self.retry_at(&event, row, (number, at, None), ctx);
    }

    fn decide(&mut self, token: &str, decision: Decision, ctx: &mut Context<Self>) -> Result<(), LockLost> {
        let (position, nonce) = parse_token(token).ok_or(LockLost::Bad)?;
        let now = self.time.now();
        let lock = self.queue_settings().map(|settings| settings.lock).unwrap_or_default();
        let locked = self.queue.locked.get_mut(&position).filter(|locked| locked.nonce == nonce);
        let locked = locked.filter(|locked| locked.until > now).ok_or(LockLost::Lost)?;
        if decision == Decision::Renew {
            if now.since(locked.since) > LONGEST_LOCK {
                return Err(LockLost::Lost);
            }
            locked.until = now.after(lock);
            return Ok(());
        }
        let Some(Locked { under_way, .. }) = self.queue.locked.remove(&position) else {
            return Err(LockLost::Lost);
        };
        match decision {
            Decision::Release(delay) => self.return_later(under_way, now.after(delay), ctx),
            Decision::Acknowledge => {
                self.leave_flight(under_way.row.is_some());
                self.shown.delivered += 1;
                self.done(&under_way.event, under_way.row, ctx);
            }
            Decision::Reject | Decision::Renew => {
                self.leave_flight(under_way.row.is_some());
                let attempts = under_way.number();
                let end = End { attempts, reason: DeadLetterReason::Rejected, outcome: None };
                self.give_up(&under_way.event, under_way.row, end, ctx);
            }
        }
        Ok(())
    }
}

impl Handler<ReceiveEvents> for Subscriber {
    type Result = Result<(), ReceiveRefused>;

    fn handle(&mut self, message: ReceiveEvents, ctx: &mut Self::Context) -> Self::Result {
        let ReceiveEvents { most, reply } = message;
        if self.queue_settings().is_none() {
            return Err(ReceiveRefused::NotAQueue);
        }
        if self.queue.receivers.len() >= RECEIVERS {
            self.queue.receivers.retain(|receiver| !receiver.reply.is_closed());
            if self.queue.receivers.len() >= RECEIVERS {
                return Err(ReceiveRefused::TooMany);
            }
        }
        self.queue.receivers.push_back(Receiver { most: most.max(1), reply });
        self.guarded(ctx, Self::pump);
        Ok(())
    }
}

impl Handler<SettleEvents> for Subscriber {
    type Result = Vec<Result<(), LockLost>>;

    fn handle(&mut self, message: SettleEvents, ctx: &mut Self::Context) -> Self::Result {
        let SettleEvents { tokens, decision } = message;
        let mut results = Vec::with_capacity(tokens.len());
        let out = &mut results;
        self.guarded(ctx, move |actor, ctx| {
            out.extend(tokens.iter().map(|token| actor.decide(token, decision, ctx)));
        });
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Lsn, ShardId};

    #[test]
    fn a_token_reads_back_and_anything_else_is_none() {
        let position = Position { shard: ShardId(1), lsn: Lsn(815) };
        assert_eq!(parse_token(&token(position, 7)), Some((position, 7)));
        for wrong in ["", "1-815", "1-815-7", "x-y-0000000000000007", "1-815-000000000000000g"] {
            assert_eq!(parse_token(wrong), None, "{wrong}");
        }
    }
}
