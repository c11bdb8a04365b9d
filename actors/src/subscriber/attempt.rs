//! One attempt: from events that are handed over or fall due to an outcome and a verdict on each.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use fail::fail_point;
use futures_util::FutureExt;

use super::config::{BatchSettings, Destination, Gone, Webhook};
use super::message::{Message, delivery_id, headers_of};
use super::order::fingerprint;
use super::rows::{DeadLetter, RetryRow};
use super::settle::{Effect, Settled};
use super::{LOG, Subscriber};
use crate::kernel::contain;
use crate::model::delivery::{Attempt, Endpoint, Outcome, OutcomeKind, Transport};
use crate::model::event::{Event, StoredEvent};
use crate::model::ids::Position;
use crate::model::time::Timestamp;
use crate::policy::fairness::Class;
use crate::policy::health::{Breaker, Turn};
use crate::policy::retry::{Attempted, DeadLetterReason, Due, Verdict, verdict, when_due};
use crate::protocol::subscriber::AttemptRecord;
use crate::shard::ShardHandle;

/// How long after its deadline an attempt is given up here, if the transport did not do so: a place
/// in the window must come back in any case.
const GRACE: Duration = Duration::from_secs(1);

/// An event under way, and the row that it has if it was tried before.
pub(super) struct UnderWay {
    pub(super) event: Arc<Event>,
    pub(super) row: Option<RetryRow>,
}

impl UnderWay {
    /// Which attempt this is.
    pub(super) fn number(&self) -> u32 {
        self.row.as_ref().map_or(0, |row| row.attempts) + 1
    }
}

/// How an event ended that is given up.
pub(super) struct End<'a> {
    pub(super) attempts: u32,
    pub(super) reason: DeadLetterReason,
    /// The attempt that decided it, if there was one.
    pub(super) outcome: Option<&'a Outcome>,
}

impl Subscriber {
    /// Events that were handed over: given up at once, or tried for the first time.
    pub(super) fn begin_first(&mut self, events: Vec<Arc<Event>>, now: Timestamp, ctx: &mut Context<Self>) {
        let positions = events.iter().map(|event| event.position).collect();
        self.working_on(positions, |actor| actor.begin_these(events, now, ctx));
    }

    fn begin_these(&mut self, events: Vec<Arc<Event>>, now: Timestamp, ctx: &mut Context<Self>) {
        let mut parcel = Vec::with_capacity(events.len());
        for event in events {
            match self.due(&event, self.time.of(event.at), now) {
                Due::Attempt => {
                    self.in_flight += 1;
                    parcel.push(UnderWay { event, row: None });
                }
                Due::DeadLetter(reason) => {
                    self.give_up(&event, None, End { attempts: 0, reason, outcome: None }, ctx);
                }
            }
        }
        if !parcel.is_empty() {
            self.begin_attempt();
            self.deliver(parcel, ctx);
        }
    }

    fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.health.begun(self.time.now());
    }

    fn due(&self, event: &Event, published: Timestamp, now: Timestamp) -> Due {
        if self.shown.disabled.is_some() {
            return Due::DeadLetter(DeadLetterReason::SubscriptionDisabled);
        }
        if self.suspects.is_poison(&event.position) {
            return Due::DeadLetter(DeadLetterReason::Crashed);
        }
        if event.hops() > self.settings.hops {
            return Due::DeadLetter(DeadLetterReason::LoopDetected);
        }
        when_due(published, &self.config.retry, now)
    }

    /// When an event was published, or replayed, by the time that its age is counted in.
    fn published(&self, event: &Event, row: Option<&RetryRow>) -> Timestamp {
        let published = self.time.of(event.at);
        // A row may be of an earlier process, whose clock was another.
        row.map_or(published, |row| row.published.max(published))
    }

    /// Retries that fall due: tried again, or given up. Those that are known to be given up are no attempt.
    pub(super) fn begin_retries(
        &mut self,
        rows: Vec<(Position, RetryRow)>,
        (now, is_attempt): (Timestamp, bool),
        ctx: &mut Context<Self>,
    ) {
        if is_attempt {
            self.begin_attempt();
        }
        let shards: Vec<ShardHandle> = self.shards.iter().map(|lot| lot.router.shard().clone()).collect();
        let past = self.past.clone();
        self.in_flight += rows.len();
        self.retries_in_flight += rows.len();
        let topic = self.config.topic.clone();
        // The log may have to be read from the disk.
        let find = tokio::task::spawn_blocking(move || {
            let found = |(position, row): (Position, RetryRow)| {
                let shard = shards.get(usize::from(position.shard.0)).ok_or("there is no such shard");
                let event = match (&row.event, shard) {
                    (Some(stored), Ok(_)) => Ok(stored.clone().of_topic(&topic)),
                    (None, Ok(shard)) => past.event(&*shard.log(), &topic, position),
                    (_, Err(why)) => Err(why.to_owned()),
                };
                (position, row, event)
            };
            rows.into_iter().map(found).collect::<Vec<_>>()
        });
        ctx.spawn(find.into_actor(self).map(move |found, actor, ctx| {
            actor.guarded(ctx, |actor, ctx| match found {
                Ok(found) => {
                    let positions = found.iter().map(|(position, ..)| *position).collect();
                    actor.working_on(positions, |actor| actor.found(found, (now, is_attempt), ctx));
                }
                // Nothing in it panics; what was taken comes back with the next start.
                Err(join) => tracing::error!(%join, "events of retries not read"),
            });
        }));
    }

    fn found(
        &mut self,
        found: Vec<(Position, RetryRow, Result<Option<Event>, String>)>,
        (now, is_attempt): (Timestamp, bool),
        ctx: &mut Context<Self>,
    ) {
        let mut parcel = Vec::with_capacity(found.len());
        for (position, row, event) in found {
            match event {
                Ok(Some(event)) => match self.due(&event, self.published(&event, Some(&row)), now) {
                    Due::Attempt => parcel.push(UnderWay { event: Arc::new(event), row: Some(row) }),
                    Due::DeadLetter(reason) => {
                        self.leave_flight(true);
                        let end = End { attempts: row.attempts, reason, outcome: None };
                        self.give_up(&event, Some(row), end, ctx);
                    }
                },
                Ok(None) => {
                    // The topic no longer has this type: nothing to deliver, nothing to keep.
                    self.leave_flight(true);
                    self.settle_event(Settled::new(position, Some(row), Effect::Done), ctx);
                }
                Err(why) => {
                    tracing::error!(subscription = %self.config.name, %position, why, "event of a retry not read");
                    self.leave_flight(true);
                    let later = now.after(self.settings.backoff * 100);
                    self.schedule.give_back(position, row, later);
                }
            }
        }
        match (parcel.is_empty(), is_attempt) {
            (true, false) => return self.pump(ctx),
            (true, true) => {
                self.attempts = self.attempts.saturating_sub(1);
                self.health.not_made(now);
                return self.pump(ctx);
            }
            (false, false) => self.begin_attempt(),
            (false, true) => {}
        }
        self.deliver(parcel, ctx);
    }

    fn deliver(&mut self, parcel: Vec<UnderWay>, ctx: &mut Context<Self>) {
        let config = self.config.clone();
        match &config.to {
            Destination::Webhook(webhook) => self.send(webhook, parcel, ctx),
            Destination::Queue(_) => self.offer(parcel, ctx),
        }
    }

    fn send(&mut self, webhook: &Webhook, parcel: Vec<UnderWay>, ctx: &mut Context<Self>) {
        let Some(first) = parcel.first() else { return };
        let number = parcel.iter().map(UnderWay::number).max().unwrap_or(1);
        let bodies = parcel.iter().map(|it| Cow::Borrowed(it.event.json()));
        let Message { content_type, body, attributes } = Message::new(webhook, &first.event.cloud, bodies);
        let mut headers = attributes;
        headers.extend(headers_of(&webhook.headers, &first.event));
        let attempt = Attempt {
            endpoint: webhook.endpoint.clone(),
            subscription: self.config.name.clone(),
            event_id: delivery_id(&first.event),
            number,
            traceparent: first.event.traceparent().map(Arc::from),
            content_type,
            body,
            headers,
            replay: first.row.as_ref().and_then(|row| row.replay.clone()),
            timeout: self.settings.timeout,
        };
        let is_probe = matches!(self.health.breaker(), Breaker::Probing { .. });
        let class = if number > 1 || is_probe { Class::Retry } else { Class::First };
        let (slots, owner, name) = (self.slots.clone(), self.config.tenant.clone(), self.config.name.clone());
        let transport = self.transport.clone();
        let endpoint = webhook.endpoint.clone();
        let delivery = async move {
            let slot = slots.take(&owner, &name, class).await;
            let outcome = deliver(transport, attempt).await;
            drop(slot);
            outcome
        };
        ctx.spawn(delivery.into_actor(self).map(move |outcome, actor, ctx| {
            let positions = parcel.iter().map(|under_way| under_way.event.position).collect();
            actor.guarded(ctx, |actor, ctx| {
                actor.working_on(positions, |actor| actor.judge(parcel, (&endpoint, &outcome), ctx));
            });
        }));
    }

    fn judge(
        &mut self,
        parcel: Vec<UnderWay>,
        (endpoint, outcome): (&Endpoint, &Outcome),
        ctx: &mut Context<Self>,
    ) {
        fail_point!("subscriber::judge", parcel.iter().any(is_poison), |_| ());
        let now = self.time.now();
        self.attempts = self.attempts.saturating_sub(1);
        for under_way in &parcel {
            self.leave_flight(under_way.row.is_some());
        }
        if self.is_ours(endpoint) {
            self.turn(outcome, now, ctx);
        }
        if outcome.kind == OutcomeKind::Aborted {
            return self.put_back(parcel, ctx);
        }
        for UnderWay { event, row } in parcel {
            let number = row.as_ref().map_or(0, |row| row.attempts) + 1;
            self.note(&event, number, outcome);
            let chance = self.chance();
            let published = self.published(&event, row.as_ref());
            let made = Attempted { attempts: number, published, now };
            match verdict(made, outcome, &self.config.retry, chance) {
                Verdict::Done => {
                    self.shown.delivered += 1;
                    self.done(&event, row, ctx);
                }
                Verdict::RetryAt(next_at) => {
                    self.shown.failed_attempts += 1;
                    self.retry_at(&event, row, (number, next_at, Some(outcome.kind)), ctx);
                }
                Verdict::DeadLetter(reason) => {
                    self.shown.failed_attempts += 1;
                    let end = End { attempts: number, reason, outcome: Some(outcome) };
                    self.give_up(&event, row, end, ctx);
                }
            }
        }
    }

    /// Whether the subscription still sends there: it may have moved meanwhile.
    fn is_ours(&self, endpoint: &Endpoint) -> bool {
        match &self.config.to {
            Destination::Webhook(webhook) => webhook.endpoint.url == endpoint.url,
            Destination::Queue(_) => false,
        }
    }

    /// What an outcome says of the endpoint.
    fn turn(&mut self, outcome: &Outcome, now: Timestamp, ctx: &mut Context<Self>) {
        match self.health.record(outcome, now) {
            Turn::None => {}
            Turn::Opened => {
                tracing::warn!(subscription = %self.config.name, outcome = %outcome.kind, detail = outcome.detail, "endpoint on probation");
                let until = match self.shown_breaker() {
                    Breaker::Open { until, .. } => until.to_string(),
                    Breaker::Closed | Breaker::Probing { .. } => String::new(),
                };
                let data = serde_json::json!({"reason": outcome.kind.to_string(), "detail": outcome.detail, "until": until});
                self.tell("subscription.probation", &data);
            }
            Turn::Closed => {
                tracing::info!(subscription = %self.config.name, "endpoint back from probation");
                self.tell("subscription.recovered", &serde_json::json!({}));
            }
        }
        let disables = match &self.config.to {
            Destination::Webhook(webhook) => webhook.gone == Gone::Disable,
            Destination::Queue(_) => false,
        };
        if outcome.kind == OutcomeKind::Gone && disables && self.shown.disabled.is_none() {
            self.disable("the endpoint answered 410 (gone)", ctx);
        }
    }

    /// The event is delivered.
    pub(super) fn done(&mut self, event: &Event, row: Option<RetryRow>, ctx: &mut Context<Self>) {
        let settled = Settled::new(event.position, row, Effect::Done);
        let settled = self.let_next_go(settled, event);
        self.settle_event(settled, ctx);
    }

    /// The event is tried again at a time.
    pub(super) fn retry_at(
        &mut self,
        event: &Event,
        row: Option<RetryRow>,
        (attempts, next_at, last): (u32, Timestamp, Option<OutcomeKind>),
        ctx: &mut Context<Self>,
    ) {
        let next = RetryRow {
            attempts,
            next_at,
            last,
            published: row.as_ref().map_or_else(|| self.time.of(event.at), |row| row.published),
            event: row.as_ref().and_then(|row| row.event.clone()),
            replay: row.as_ref().and_then(|row| row.replay.clone()),
            held: false,
        };
        let settled = Settled::new(event.position, row, Effect::Postpone(next));
        let settled = self.hold_back(settled, event, ctx);
        self.settle_event(settled, ctx);
    }

    /// Chooses the jitter of a retry.
    fn chance(&mut self) -> f64 {
        fail_point!("subscriber::no_jitter", |_| 0.0);
        self.rng.f64()
    }

    pub(super) fn give_up(
        &mut self,
        event: &Event,
        row: Option<RetryRow>,
        end: End<'_>,
        ctx: &mut Context<Self>,
    ) {
        self.shown.given_up += 1;
        let End { attempts, reason, outcome } = end;
        let replayed = row.as_ref().filter(|row| row.replay.is_some());
        let letter = DeadLetter {
            reason,
            attempts,
            last_outcome: outcome.map(|outcome| outcome.kind).or(row.as_ref().and_then(|row| row.last)),
            last_status: outcome.and_then(|outcome| outcome.status),
            detail: outcome.map(|outcome| outcome.detail.clone()).unwrap_or_default(),
            published: replayed.map_or(event.at, |row| self.time.wall(row.published)),
            at: self.clock.now(),
            event: StoredEvent::from(event),
        };
        tracing::warn!(subscription = %self.config.name, event = %event.position, %reason, "event dead-lettered");
        let settled = Settled::new(event.position, row, Effect::Bury(Box::new(letter)));
        let settled = self.let_next_go(settled, event);
        self.settle_event(settled, ctx);
    }

    pub(super) fn settle_event(&mut self, settled: Settled, ctx: &mut Context<Self>) {
        let index = usize::from(settled.position.shard.0);
        if let Some(lot) = self.shards.get_mut(index) {
            lot.ledger.enter(settled);
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
    fn put_back(&mut self, parcel: Vec<UnderWay>, ctx: &mut Context<Self>) {
        let at = self.time.now().after(self.settings.backoff);
        for UnderWay { event, row } in parcel.into_iter().rev() {
            match row {
                Some(row) => self.schedule.give_back(event.position, row, at),
                None => {
                    self.keys.leave(&fingerprint(&event.key));
                    self.ready.push_front(event);
                }
            }
        }
        self.pump_later(ctx);
        self.answer_drain();
    }

    fn note(&mut self, event: &Event, number: u32, outcome: &Outcome) {
        self.log.push_front(AttemptRecord {
            position: event.position,
            event_id: event.cloud.id.clone(),
            number,
            at: self.clock.now(),
            outcome: outcome.clone(),
        });
        self.log.truncate(LOG);
    }
}

/// Makes the attempt. Neither a transport that panics nor one that never ends costs more than it.
pub(super) async fn deliver(transport: Arc<dyn Transport>, attempt: Attempt) -> Outcome {
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

/// How many retries that were tried `attempts` times go in one request: fewer each time, so that an
/// event that spoils a batch is soon alone.
pub(super) fn batch_of_retries(batch: Option<BatchSettings>, attempts: u32) -> usize {
    batch.map_or(1, |batch| (batch.events >> attempts.saturating_sub(1).min(31)).max(1))
}

/// What a test makes the subscriber stumble over.
#[cfg(feature = "failpoints")]
fn is_poison(under_way: &UnderWay) -> bool {
    under_way.event.cloud.subject.as_ref().is_some_and(|subject| subject.contains("poison-judge"))
}
