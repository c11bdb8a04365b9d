//! History once more: events that are in the log are delivered again, as a job that survives a restart.
//!
//! A job is a row of each shard: where it has come to, and where it ends. Its task reads the log and gives
//! what matches to the subscriber, which writes it as retries together with the place that the job has come
//! to. Invariants: an event that is still pending is not written again; a job that is cut off goes on where
//! its rows say, so that a few of its events may come twice and none is left out.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    ActorFutureExt, Addr, AsyncContext, Context, Handler, ResponseActFuture, ResponseFuture, WrapFuture,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::rows::{self, DeadLetter, RetryRow, decode};
use super::{Lot, Subscriber, SubscriptionConfig};
use crate::kernel::clock::SharedClock;
use crate::model::change::{CommittedGroup, Mutation, Table};
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::time::Timestamp;
use crate::policy::filter::Facts;
use crate::protocol::subscriber::{
    CancelReplay, ReplayEnded, ReplayFound, ReplayHistory, ReplayStatus, SubscriptionError,
};
use crate::shard::{CommitError, CommitReply, ShardHandle, ShardReadError};

/// Bytes of the log that are read at once.
const CHUNK: usize = 256 << 10;
/// Retries in the store beyond which a replay waits for the subscriber.
const MOST_WAITING: i64 = 4_096;
/// Pause before a replay looks again whether it may go on.
const REST: Duration = Duration::from_millis(100);
/// Replays of one subscription at a time.
const MOST_JOBS: usize = 8;

/// A replay in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct JobRow {
    request_from: Timestamp,
    request_to: Timestamp,
    rate: u32,
    at: Timestamp,
    found: u64,
    position: Lsn,
    end: Lsn,
}

/// The replays of a subscription that are not at their end.
#[derive(Default)]
pub(super) struct Replays(Vec<Job>);

struct Job {
    id: Arc<str>,
    shards: Vec<(ShardHandle, JobRow)>,
    running: Option<tokio::task::AbortHandle>,
}

impl Job {
    fn end(&self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Replays {
    fn add(&mut self, id: &str, shard: ShardHandle, row: JobRow) {
        match self.0.iter_mut().find(|job| *job.id == *id) {
            Some(job) => job.shards.push((shard, row)),
            None => self.0.push(Job { id: id.into(), shards: vec![(shard, row)], running: None }),
        }
    }

    fn has(&self, id: &str) -> bool {
        self.0.iter().any(|job| *job.id == *id)
    }

    fn at(&mut self, id: &str, shard: ShardId) -> Option<(&ShardHandle, &mut JobRow)> {
        let job = self.0.iter_mut().find(|job| *job.id == *id)?;
        let (shard, row) = job.shards.iter_mut().find(|(it, _)| it.id() == shard)?;
        Some((&*shard, row))
    }

    /// Ends the task of a replay and forgets it here.
    fn remove(&mut self, id: &str) -> Option<Job> {
        let place = self.0.iter().position(|job| *job.id == *id)?;
        let job = self.0.remove(place);
        job.end();
        Some(job)
    }

    /// Ends all tasks; the store knows what they were to do.
    pub(super) fn end_all(&mut self) {
        self.0.drain(..).for_each(|job| job.end());
    }

    pub(super) fn status(&self) -> Vec<ReplayStatus> {
        let status = |job: &Job| ReplayStatus {
            id: job.id.clone(),
            at: job.shards.first().map_or(Timestamp(0), |(_, row)| row.at),
            found: job.shards.iter().map(|(_, row)| row.found).sum(),
            shards: job.shards.iter().map(|(shard, row)| (shard.id(), row.position, row.end)).collect(),
        };
        self.0.iter().map(status).collect()
    }
}

pub(super) fn job_prefix(name: &str) -> Vec<u8> {
    [b"replay/", name.as_bytes(), &[0]].concat()
}

fn job_key(name: &str, id: &str) -> Bytes {
    [&job_prefix(name), id.as_bytes()].concat().into()
}

/// What a task of a replay needs.
struct Task {
    addr: Addr<Subscriber>,
    config: Arc<SubscriptionConfig>,
    clock: SharedClock,
    id: Arc<str>,
    shards: Vec<(ShardHandle, JobRow)>,
}

impl Task {
    /// Goes through all shards, one after the other.
    async fn run(self) {
        // What is still to be read must not go meanwhile, in none of them.
        let _holds: Vec<_> = self.shards.iter().map(|(shard, _)| shard.hold_log()).collect();
        for (shard, row) in &self.shards {
            let mut position = row.position.max(shard.log().first().previous());
            while position < row.end {
                let (log, from) = (shard.log(), position.next());
                let read = tokio::task::spawn_blocking(move || log.read(from, CHUNK)).await;
                let groups = match read {
                    Ok(Ok(groups)) => groups,
                    Ok(Err(error)) => {
                        tracing::error!(subscription = %self.config.name, replay = %self.id, %error, "log not read for a replay");
                        tokio::time::sleep(REST).await;
                        continue;
                    }
                    Err(_) => return,
                };
                let last = groups.last().map_or(row.end, CommittedGroup::last).min(row.end);
                let events = self.matching(shard, row, position, &groups);
                if !self.spread(shard, row.rate.max(1), &events, last).await {
                    return;
                }
                position = last;
            }
        }
        // A subscriber that is gone has forgotten it.
        self.addr.send(ReplayEnded { id: self.id.clone() }).await.ok();
    }

    /// Gives events to the subscriber, those of one second at a time. False: the replay was ended.
    async fn spread(&self, shard: &ShardHandle, rate: u32, events: &[Arc<Event>], last: Lsn) -> bool {
        let second = usize::try_from(rate).unwrap_or(usize::MAX);
        let mut rest = events;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(second));
            rest = after;
            let reached = piece.last().filter(|_| !rest.is_empty()).map_or(last, |event| event.position.lsn);
            let began = self.clock.elapsed();
            if !self.hand_over(shard, piece.to_vec(), reached).await {
                return false;
            }
            let count = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let due = began + Duration::from_secs(1) * count / rate;
            tokio::time::sleep(due.saturating_sub(self.clock.elapsed())).await;
            if rest.is_empty() {
                return true;
            }
        }
    }

    fn matching(
        &self,
        shard: &ShardHandle,
        row: &JobRow,
        after: Lsn,
        groups: &[CommittedGroup],
    ) -> Vec<Arc<Event>> {
        let in_time = |at: Timestamp| row.request_from <= at && at <= row.request_to;
        let all = groups.iter().flat_map(CommittedGroup::positions);
        let meant = all.filter(|(lsn, it)| after < *lsn && *lsn <= row.end && it.at().is_some_and(in_time));
        let matching = |(lsn, mutation)| {
            let position = Position { shard: shard.id(), lsn };
            let event = Arc::new(Event::of(&self.config.topic, position, mutation)?);
            let may_see = self.config.tenant.is_none() || self.config.tenant == event.tenant;
            (may_see && self.config.filter.matches(&Facts::alone(event.clone()))).then_some(event)
        };
        meant.filter_map(matching).collect()
    }

    /// Gives what was found to the subscriber, when that has room. False: the replay was ended.
    async fn hand_over(&self, shard: &ShardHandle, events: Vec<Arc<Event>>, position: Lsn) -> bool {
        loop {
            let found =
                ReplayFound { id: self.id.clone(), shard: shard.id(), position, events: events.clone() };
            match self.addr.send(found).await {
                Ok(Some(true)) => return true,
                Ok(Some(false)) => return false,
                Ok(None) => tokio::time::sleep(REST).await,
                Err(_) => return false,
            }
        }
    }
}

impl Subscriber {
    /// Goes on with the replays that the store has.
    pub(super) fn load_replays(&mut self, ctx: &mut Context<Self>) -> Result<(), String> {
        self.replays.end_all();
        let prefix = job_prefix(&self.config.name);
        for router in self.routers.iter() {
            let shard = router.shard();
            let view = shard.view().map_err(|error| error.to_string())?;
            let rows = view.rows(Table::System, &prefix, None, MOST_JOBS);
            for (rest, value) in rows.map_err(|error| error.to_string())? {
                let id = String::from_utf8_lossy(&rest).into_owned();
                let Some(row) = decode::<JobRow>(&value) else {
                    tracing::error!(subscription = %self.config.name, replay = id, "replay not read: it is passed over");
                    continue;
                };
                self.replays.add(&id, shard.clone(), row);
            }
        }
        self.run_replays(ctx);
        Ok(())
    }

    fn run_replays(&mut self, ctx: &mut Context<Self>) {
        for job in self.replays.0.iter_mut().filter(|job| job.running.is_none()) {
            let task = Task {
                addr: ctx.address(),
                config: self.config.clone(),
                clock: self.clock.clone(),
                id: job.id.clone(),
                shards: job.shards.clone(),
            };
            job.running = Some(actix_rt::spawn(task.run()).abort_handle());
        }
    }

    /// Whether the event waits or is under way: it will be delivered without a replay.
    fn is_pending(&self, position: Position) -> Result<bool, ShardReadError> {
        let Some(lot) = self.lot(position.shard) else { return Ok(true) };
        Ok(lot.track.is_open(position.lsn) || self.is_owed(lot, position)?)
    }

    /// Whether the event was tried, or is to be tried again.
    pub(super) fn is_owed(&self, lot: &Lot, position: Position) -> Result<bool, ShardReadError> {
        if lot.ledger.has(position) || self.schedule.is_taken(position) {
            return Ok(true);
        }
        let key = rows::key(&self.config.name, position.lsn);
        Ok(lot.router.shard().view()?.row(Table::Deliveries, &key)?.is_some())
    }

    /// Writes what a replay found as retries that are due.
    fn take_found(
        &mut self,
        found: &ReplayFound,
    ) -> Result<Option<(CommitReply, i64, i64)>, SubscriptionError> {
        let now = self.time.now();
        let mut mutations = Vec::new();
        let (mut fresh, mut unburied) = (0, 0);
        for event in &found.events {
            if self.is_pending(event.position)? {
                continue;
            }
            // One that was given up is pending again, and a dead letter no longer.
            let letter = self.letter(event.position)?;
            if letter.is_some() {
                unburied += 1;
                rows::unbury(&self.config.name, event.position, &mut mutations);
                mutations.push(rows::exported(&self.config.name, event.position.lsn));
            }
            let row = RetryRow {
                attempts: 0,
                next_at: now,
                published: now,
                last: None,
                event: letter.map(|letter| letter.event),
                replay: Some(found.id.clone()),
                held: false,
            };
            rows::postpone(&self.config.name, event.position.lsn, &row, &mut mutations);
            fresh += 1;
        }
        let Some((shard, row)) = self.replays.at(&found.id, found.shard) else { return Ok(None) };
        row.position = found.position;
        row.found += fresh;
        let key = job_key(&self.config.name, &found.id);
        mutations.push(Mutation::Put { table: Table::System, key, value: rows::encode(row) });
        let reply = shard.commit(mutations)?;
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Ok(Some((reply, signed(fresh), signed(unburied))))
    }

    pub(super) fn letter(&self, position: Position) -> Result<Option<DeadLetter>, SubscriptionError> {
        let Some(lot) = self.lot(position.shard) else { return Ok(None) };
        let key = rows::key(&self.config.name, position.lsn);
        let row = lot.router.shard().view()?.row(Table::DeadLetters, &key).map_err(ShardReadError::from)?;
        row.map(|value| decode(&value).ok_or(SubscriptionError::Corrupt)).transpose()
    }
}

impl Handler<ReplayHistory> for Subscriber {
    type Result = ResponseActFuture<Self, Result<Arc<str>, SubscriptionError>>;

    fn handle(&mut self, ReplayHistory(request): ReplayHistory, _: &mut Self::Context) -> Self::Result {
        if self.replays.0.len() >= MOST_JOBS {
            return Box::pin(actix::fut::ready(Err(SubscriptionError::Busy)));
        }
        let at = self.clock.now();
        let id: Arc<str> = format!("replay-{}-{:08x}", at.0, self.rng.u32(..)).into();
        let mut sent = Vec::new();
        let mut shards = Vec::new();
        for router in self.routers.iter() {
            let shard = router.shard().clone();
            let (tail, first) = (shard.log().tail(), shard.log().first().previous());
            let bound = |position: Option<Position>| position.filter(|it| it.shard == shard.id());
            let position = bound(request.from_position).map_or(first, |from| from.lsn.previous().max(first));
            let end = bound(request.to_position).map_or(tail, |to| to.lsn.min(tail));
            let row = JobRow {
                request_from: request.from,
                request_to: request.to,
                rate: request.rate,
                at,
                found: 0,
                position,
                end,
            };
            let (key, value) = (job_key(&self.config.name, &id), rows::encode(&row));
            sent.push(shard.commit(vec![Mutation::Put { table: Table::System, key, value }]));
            shards.push((shard, row));
        }
        let committed = async move {
            for sent in sent {
                sent?.await.unwrap_or(Err(CommitError::Unknown))?;
            }
            Ok::<_, SubscriptionError>(())
        };
        Box::pin(committed.into_actor(self).map(move |committed, actor, ctx| {
            committed?;
            for (shard, row) in shards {
                actor.replays.add(&id, shard, row);
            }
            actor.run_replays(ctx);
            Ok(id)
        }))
    }
}

impl Handler<ReplayFound> for Subscriber {
    /// `None`: not now; `Some(false)`: the replay was ended.
    type Result = ResponseActFuture<Self, Option<bool>>;

    fn handle(&mut self, found: ReplayFound, _: &mut Self::Context) -> Self::Result {
        if !self.replays.has(&found.id) {
            return Box::pin(actix::fut::ready(Some(false)));
        }
        if self.counts.retrying > MOST_WAITING || self.shards.is_empty() {
            return Box::pin(actix::fut::ready(None));
        }
        // Nobody else moves dead letters meanwhile.
        let turn = self.deciding.clone().lock_owned();
        let on_its_way = self.on_its_way.clone();
        let taken = turn.into_actor(self).then(move |turn, actor, _| {
            let taken = actor.take_found(&found);
            let committed = async move {
                let (_turn, _on_its_way) = (turn, on_its_way);
                match taken {
                    Ok(Some((reply, fresh, unburied))) => {
                        let committed = reply.await.unwrap_or(Err(CommitError::Unknown));
                        committed.ok().map(|_| Some((fresh, unburied)))
                    }
                    Ok(None) => Some(None),
                    Err(_) => None,
                }
            };
            committed.into_actor(actor)
        });
        Box::pin(taken.map(|committed, actor, ctx| match committed {
            None => None,
            Some(None) => Some(false),
            Some(Some((fresh, unburied))) => {
                actor.counts.retrying += fresh;
                actor.counts.dead_letters -= unburied;
                actor.recount_exports();
                actor.schedule.reload();
                actor.guarded(ctx, Self::pump);
                Some(true)
            }
        }))
    }
}

impl Handler<ReplayEnded> for Subscriber {
    type Result = ();

    fn handle(&mut self, ended: ReplayEnded, _: &mut Self::Context) {
        // A row that stays is found at the next start, at its end, and tried again.
        drop(self.forget_replay(&ended.id));
    }
}

impl Handler<CancelReplay> for Subscriber {
    type Result = ResponseFuture<Result<bool, SubscriptionError>>;

    fn handle(&mut self, CancelReplay(id): CancelReplay, _: &mut Self::Context) -> Self::Result {
        let there = self.replays.has(&id);
        let gone = self.forget_replay(&id);
        Box::pin(async move {
            for sent in gone {
                sent?.await.unwrap_or(Err(CommitError::Unknown))?;
            }
            Ok(there)
        })
    }
}

impl Subscriber {
    fn forget_replay(&mut self, id: &str) -> Vec<Result<CommitReply, CommitError>> {
        let key = job_key(&self.config.name, id);
        let delete = |(shard, _): &(ShardHandle, JobRow)| {
            shard.commit(vec![Mutation::Delete { table: Table::System, key: key.clone() }])
        };
        self.replays.remove(id).iter().flat_map(|job| job.shards.iter().map(delete)).collect()
    }
}
