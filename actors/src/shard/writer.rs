//! The thread that owns the log: gathers what is waiting, appends it, one sync for everybody.
//!
//! There is no linger timer: while one sync is under way the next group gathers by itself.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fail::fail_point;
use tokio::sync::oneshot;

use super::applier::Job;
use super::room::{self, Room};
use super::{CommitError, Committed, Load, Op, Phase, Reply, ShardSettings, Shared};
use crate::kernel::clock::SharedClock;
use crate::log::{AppendError, CommitLog};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::Lsn;

pub(super) struct Writer {
    pub(super) log: Box<dyn CommitLog>,
    pub(super) ops: Receiver<Op>,
    pub(super) jobs: SyncSender<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) room: Room,
    pub(super) settings: ShardSettings,
    pub(super) clock: SharedClock,
    /// An operation that did not fit into the group before.
    pub(super) carried: Option<Op>,
    /// Batches that wait for company, and until when. Bounded like a group.
    pub(super) lazy: Group,
    pub(super) lazy_until: Duration,
}

/// Batches on their way into one record.
#[derive(Default)]
pub(super) struct Group {
    mutations: Vec<Mutation>,
    bytes: usize,
    replies: Vec<(u64, Reply)>,
    /// Replies of batches with state rows, which are seen only in the view.
    after_apply: Vec<(u64, Reply)>,
}

impl Group {
    /// What is asked for together, in the order in which it came.
    pub(super) fn into_batches(self) -> Vec<(Vec<Mutation>, Reply)> {
        let Self { mut mutations, replies, after_apply, .. } = self;
        let mut places: Vec<_> = replies.into_iter().chain(after_apply).collect();
        places.sort_by_key(|(at, _)| *at);
        let mut batches = Vec::with_capacity(places.len());
        for (at, reply) in places.into_iter().rev() {
            let at = usize::try_from(at).unwrap_or(usize::MAX).min(mutations.len());
            batches.push((mutations.split_off(at), reply));
        }
        batches.reverse();
        batches
    }

    pub(super) fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }

    pub(super) fn load(&self) -> Load {
        Load { mutations: self.mutations.len(), bytes: self.bytes }
    }

    pub(super) fn push(&mut self, mutations: Vec<Mutation>, reply: Reply) {
        let in_overlay = mutations.iter().all(|mutation| mutation.change().is_some());
        let replies = if in_overlay { &mut self.replies } else { &mut self.after_apply };
        replies.push((self.mutations.len() as u64, reply));
        self.bytes += mutations.iter().map(Mutation::weight).sum::<usize>();
        self.mutations.extend(mutations);
    }

    /// Takes over all of `other`, behind what is here.
    fn append(&mut self, other: &mut Self) {
        let Self { mutations, bytes, replies, after_apply } = std::mem::take(other);
        let before = self.mutations.len() as u64;
        let later = |(at, reply)| (before + at, reply);
        self.mutations.extend(mutations);
        self.bytes += bytes;
        self.replies.extend(replies.into_iter().map(later));
        self.after_apply.extend(after_apply.into_iter().map(later));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.after_apply.is_empty()
    }

    pub(super) fn fail(self, error: CommitError) {
        for (_, reply) in self.replies.into_iter().chain(self.after_apply) {
            // Whoever asked may be gone; there is nobody else to tell.
            reply.send(Err(error)).ok();
        }
    }
}

enum Gathered {
    Group(Group),
    Drain(Option<oneshot::Sender<()>>),
}

impl Writer {
    pub(super) fn run(mut self) {
        self.look();
        loop {
            match self.gather() {
                Gathered::Group(group) => self.commit(group),
                Gathered::Drain(done) => {
                    self.drain(done);
                    return;
                }
            }
        }
    }

    /// Waits for work, then takes all that is there, up to the bounds of a group.
    fn gather(&mut self) -> Gathered {
        let mut group = Group::default();
        loop {
            let Some(op) = self.next(&group) else {
                // All that waited is taken, or the wait for company is over.
                group.append(&mut self.lazy);
                return Gathered::Group(group);
            };
            let (mutations, lazy, reply) = match op {
                Op::Drain { done } if group.is_empty() && self.lazy.is_empty() => {
                    return Gathered::Drain(Some(done));
                }
                Op::Drain { done } => {
                    self.carried = Some(Op::Drain { done });
                    group.append(&mut self.lazy);
                    return Gathered::Group(group);
                }
                Op::Hurry => {
                    self.lazy_until = Duration::ZERO;
                    continue;
                }
                Op::Commit { mutations, lazy, reply } => (mutations, lazy, reply),
            };
            if self.overflows(&group, &mutations) {
                self.carried = Some(Op::Commit { mutations, lazy, reply });
                group.append(&mut self.lazy);
                return Gathered::Group(group);
            }
            if lazy && group.is_empty() {
                if self.lazy.is_empty() {
                    self.lazy_until = self.clock.elapsed() + self.settings.lazy_delay;
                }
                self.lazy.push(mutations, reply);
                continue;
            }
            // Who waited longest goes first: later states of a row must stay later.
            group.append(&mut self.lazy);
            group.push(mutations, reply);
        }
    }

    /// Whether one more batch is too much for what is gathered so far. A batch alone never is.
    fn overflows(&self, group: &Group, mutations: &[Mutation]) -> bool {
        let gathered = group.mutations.len() + self.lazy.mutations.len();
        let weight: usize = mutations.iter().map(Mutation::weight).sum();
        let full = gathered + mutations.len() > self.settings.batch_mutations
            || group.bytes + self.lazy.bytes + weight > self.settings.batch_bytes;
        full && !(group.is_empty() && self.lazy.is_empty())
    }

    /// The next operation. Blocks only while the group is empty; `None` ends the gathering.
    fn next(&mut self, group: &Group) -> Option<Op> {
        if let Some(op) = self.carried.take() {
            return Some(op);
        }
        let received = if !group.is_empty() {
            match self.ops.try_recv() {
                Ok(op) => Some(op),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        } else if self.lazy.is_empty() {
            self.wait()
        } else {
            let left = self.lazy_until.saturating_sub(self.clock.elapsed());
            match self.ops.recv_timeout(left) {
                Ok(op) => Some(op),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => None,
            }
        };
        if let Some(op) = received {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Some(op);
        }
        // All handles are gone: end as if drained, with nobody to tell.
        Some(Op::Drain { done: oneshot::channel().0 })
    }

    /// Waits for an operation as long as it takes; while the disk is full, looks for room meanwhile.
    fn wait(&mut self) -> Option<Op> {
        while self.is_full() {
            match self.ops.recv_timeout(room::LOOK) {
                Ok(op) => return Some(op),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        self.ops.recv().ok()
    }

    fn commit(&mut self, group: Group) {
        if group.mutations.is_empty() {
            return group.fail(CommitError::TooLarge);
        }
        if let Some(group) = self.admit(group)
            && let Some(rest) = self.append(group)
        {
            // The room that there is now is for these.
            self.append(rest).unwrap_or_default().fail(CommitError::NoRoom);
        }
    }

    /// Makes a group durable and answers it. Without room, what may be tried again is given back.
    fn append(&mut self, group: Group) -> Option<Group> {
        let load = group.load();
        let (mutations, bytes) = (self.settings.apply_lag, self.settings.apply_lag_bytes);
        self.shared.lag.add(load, Load { mutations, bytes });
        fail_point!("writer::panic", |_| None);
        match self.log.append(self.log.tail(), &group.mutations) {
            Ok(first) => {
                self.shared.unsaved.fetch_add(room::need(load), Ordering::AcqRel);
                self.hand_over(first, group);
                self.trim();
                None
            }
            Err(error) => {
                self.shared.lag.remove(load);
                self.refuse(group, &error)
            }
        }
    }

    /// The group is durable: it is shown, handed to the applier, answered, and told onwards.
    fn hand_over(&self, first: Lsn, group: Group) {
        fail_point!("writer::handed_over");
        let at = |(at, reply)| (Committed { first: first.plus(at) }, reply);
        let committed = CommittedGroup { first, mutations: Arc::from(group.mutations) };
        self.shared.overlay.add(&committed);
        let replies = group.after_apply.into_iter().map(at).collect();
        let job = Job::Apply { group: committed.clone(), bytes: group.bytes, replies };
        // The applier ends only after this thread, or with the whole process.
        self.jobs.send(job).ok();
        for (committed, reply) in group.replies.into_iter().map(at) {
            // A caller that gave up will find its write; there is nobody to tell.
            reply.send(Ok(committed)).ok();
        }
        self.shared.ring(&[committed]);
    }

    fn refuse(&mut self, group: Group, error: &AppendError) -> Option<Group> {
        tracing::error!(shard = %self.shared.id, %error, "group not committed");
        match error {
            AppendError::TooLarge { .. } => group.fail(CommitError::TooLarge),
            AppendError::NoRoom(error) => {
                let rest = self.without_growth(group);
                if rest.is_some() {
                    self.room.met(error);
                }
                return rest;
            }
            AppendError::Unknown(_) | AppendError::Stopped | AppendError::Fenced { .. } => {
                self.shared.enter(Phase::ReadOnly);
                group.fail(CommitError::Unknown);
                if let AppendError::Unknown(error) = error {
                    self.room.met(error);
                }
                self.reopen();
            }
        }
        None
    }

    /// Tries to open the log again, refusing what arrives meanwhile.
    fn reopen(&mut self) {
        let mut backoff = self.settings.reopen_backoff;
        loop {
            self.settle_applier();
            match self.log.reopen() {
                Ok(()) => break,
                Err(error) => tracing::error!(shard = %self.shared.id, %error, "log not reopened"),
            }
            if self.refuse_for(backoff) {
                return;
            }
            backoff = (backoff * 2).min(self.settings.reopen_backoff * 64);
        }
        *self.shared.reader.write().unwrap_or_else(PoisonError::into_inner) = self.log.reader();
        self.shared.reopened.fetch_add(1, Ordering::Relaxed);
        // What the log kept of an unknown group becomes visible now.
        self.jobs.send(Job::Replay).ok();
        self.settle_applier();
        self.shared.enter(if self.is_full() { Phase::Full } else { Phase::Open });
    }

    /// Answers everybody who asks during `time` that nothing can be written. True on drain.
    fn refuse_for(&mut self, time: Duration) -> bool {
        let until = self.clock.elapsed() + time;
        std::mem::take(&mut self.lazy).fail(CommitError::Unavailable);
        loop {
            let left = until.saturating_sub(self.clock.elapsed());
            let op = match self.carried.take() {
                Some(op) => op,
                None => match self.ops.recv_timeout(left) {
                    Ok(op) => {
                        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                        op
                    }
                    Err(RecvTimeoutError::Timeout) => return false,
                    Err(RecvTimeoutError::Disconnected) => Op::Drain { done: oneshot::channel().0 },
                },
            };
            match op {
                Op::Commit { reply, .. } => {
                    reply.send(Err(CommitError::Unavailable)).ok();
                }
                Op::Hurry => {}
                drain @ Op::Drain { .. } => {
                    self.carried = Some(drain);
                    return true;
                }
            }
        }
    }

    /// Waits until the applier has done all that it was given.
    fn settle_applier(&self) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        if self.jobs.send(Job::Barrier { done }).is_ok() {
            wait.recv().ok();
        }
    }

    /// Lets go of segments that neither the view nor any reader needs.
    pub(super) fn trim(&mut self) {
        let floor =
            self.shared.floor.load(Ordering::Acquire).min(self.shared.retained.load(Ordering::Acquire));
        let before = Lsn(floor.min(self.shared.checkpointed.load(Ordering::Acquire)));
        let held = self.shared.log_held.load(Ordering::Acquire) > 0;
        if !held
            && before > self.shared.reader().first()
            && let Err(error) = self.log.trim(before)
        {
            tracing::warn!(shard = %self.shared.id, %error, "log not trimmed");
        }
    }

    fn drain(self, done: Option<oneshot::Sender<()>>) {
        self.shared.enter(Phase::Closed);
        let mut told: Vec<_> = done.into_iter().collect();
        while let Ok(op) = self.ops.try_recv() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match op {
                Op::Commit { reply, .. } => {
                    reply.send(Err(CommitError::Unavailable)).ok();
                }
                Op::Hurry => {}
                Op::Drain { done } => told.push(done),
            }
        }
        let (finished, wait) = std::sync::mpsc::sync_channel(1);
        if self.jobs.send(Job::Finish { done: finished }).is_ok() {
            wait.recv().ok();
        }
        // The log's helper thread must have ended before anybody is told that the folder is free.
        drop(self.log);
        self.shared.drained.store(true, Ordering::Release);
        for done in told {
            done.send(()).ok();
        }
    }
}
