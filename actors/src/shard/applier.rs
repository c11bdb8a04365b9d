//! The thread that owns the view's writes: applies groups, answers who waits for that, makes
//! checkpoints, and rebuilds the view's end from the log when its file failed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use fail::fail_point;

use super::room::need;
use super::{Committed, Load, Reply, ShardSettings, Shared};
use crate::kernel::clock::SharedClock;
use crate::log::disk::Disk;
use crate::log::reserve::Reserve;
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;
use crate::store::{ApplyError, View};

/// Mutations after which a transaction of the view takes no further group.
const STEP: usize = 4_096;
/// The same in bytes.
const STEP_BYTES: usize = 8 << 20;
/// How long a step gathers groups that nobody waits for. Documents are answered and seen before
/// they are in the view, and a page that many of them share is then written once.
const GATHER: Duration = Duration::from_millis(20);

/// A file that is written to find out whether the disk takes writes again.
const PROBE: &str = "probe.tmp";
/// Its length: more than a small checkpoint needs.
const PROBE_BYTES: usize = 256 * 1_024;

/// Room that a checkpoint needs beside what has been applied: for redb's own tables.
const CHECKPOINT_BYTES: u64 = 64 * 1_024;

/// What the applier is asked.
pub(super) enum Job {
    /// Bring this durable group into the view, then answer.
    Apply { group: CommittedGroup, bytes: usize, replies: Vec<(Committed, Reply)> },
    /// Apply what the log has and the view has not.
    Replay,
    /// The view's file has been synced as far as it was; make the rest durable.
    Checkpoint,
    /// Say when everything before is done.
    Barrier { done: SyncSender<()> },
    /// Make everything durable and end.
    Finish { done: SyncSender<()> },
}

pub(super) struct Applier {
    pub(super) jobs: Receiver<Job>,
    /// The other end of `jobs`, for the thread that prepares a checkpoint.
    pub(super) own_jobs: SyncSender<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) reserve: Arc<Reserve>,
    pub(super) settings: ShardSettings,
    pub(super) clock: SharedClock,
    pub(super) unsaved_bytes: usize,
    /// Room that the next checkpoint may need for them; a part of what `shared` says.
    pub(super) unsaved_need: u64,
    pub(super) checkpoint_at: Option<Duration>,
    /// Whether a checkpoint is being prepared.
    pub(super) preparing: bool,
}

impl Applier {
    pub(super) fn run(mut self) {
        let mut held = None;
        loop {
            let job = match held.take() {
                Some(job) => job,
                None => match self.next() {
                    Some(job) => job,
                    None => {
                        self.prepare_checkpoint();
                        continue;
                    }
                },
            };
            match job {
                Job::Apply { group, bytes, replies } => held = self.apply(group, bytes, replies),
                Job::Replay => self.replay(),
                Job::Checkpoint => self.checkpoint(),
                Job::Barrier { done } => {
                    done.send(()).ok();
                }
                Job::Finish { done } => {
                    self.checkpoint();
                    // A file may be opened again only after its last reader here is done with it.
                    self.close_view();
                    done.send(()).ok();
                    return;
                }
            }
            let pressing =
                self.unsaved_bytes >= self.settings.checkpoint_bytes && self.checkpoint_at.is_some();
            if pressing || self.is_checkpoint_due() {
                self.prepare_checkpoint();
            }
        }
    }

    /// The next job, or `None` when a checkpoint is due.
    fn next(&self) -> Option<Job> {
        let finish = || Job::Finish { done: std::sync::mpsc::sync_channel(1).0 };
        let Some(at) = self.checkpoint_at else {
            return Some(self.jobs.recv().unwrap_or_else(|_| finish()));
        };
        match self.jobs.recv_timeout(at.saturating_sub(self.clock.elapsed())) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(finish()),
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        self.checkpoint_at.is_some_and(|at| self.clock.elapsed() >= at)
    }

    /// Applies a group and those that wait behind it; returns the first job that is none.
    fn apply(
        &mut self,
        group: CommittedGroup,
        bytes: usize,
        replies: Vec<(Committed, Reply)>,
    ) -> Option<Job> {
        let mut groups = vec![group];
        let mut answers = vec![replies];
        self.unsaved_bytes += bytes;
        let mut taken = bytes;
        let mut held = None;
        let mut mutations = groups.iter().map(|group| group.mutations.len()).sum();
        let until = self.clock.elapsed() + GATHER;
        while mutations < STEP && taken < STEP_BYTES {
            let awaited = answers.iter().any(|replies| !replies.is_empty());
            let left = if awaited { Duration::ZERO } else { until.saturating_sub(self.clock.elapsed()) };
            match self.jobs.recv_timeout(left) {
                Ok(Job::Apply { group, bytes, replies }) => {
                    mutations += group.mutations.len();
                    groups.push(group);
                    answers.push(replies);
                    self.unsaved_bytes += bytes;
                    taken += bytes;
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        fail_point!("applier::panic", |_| None);
        self.make_visible(&groups);
        for group in &groups {
            self.shared.overlay.remove(group);
        }
        self.shared.applied.notify_waiters();
        fail_point!("applier::reply", |_| None);
        self.shared.groups.fetch_add(groups.len() as u64, Ordering::Relaxed);
        self.shared.mutations.fetch_add(mutations as u64, Ordering::Relaxed);
        let load = Load { mutations, bytes: taken };
        self.unsaved_need += need(load);
        self.shared.lag.remove(load);
        for (committed, reply) in answers.into_iter().flatten() {
            // A caller that gave up will find its write; there is nobody to tell.
            reply.send(Ok(committed)).ok();
        }
        if self.checkpoint_at.is_none() && !self.preparing {
            self.checkpoint_at = Some(self.clock.elapsed() + self.settings.checkpoint_interval);
        }
        held
    }

    /// The groups are in the log, so this may wait for the disk but never gives up.
    fn make_visible(&mut self, groups: &[CommittedGroup]) {
        let applied = match &*self.shared.view.load() {
            Some(view) => view.apply(groups),
            None => Err(ApplyError::Broken("closed".into())),
        };
        if let Err(error) = applied {
            tracing::error!(shard = %self.shared.id, %error, "groups not applied");
            let target = groups.last().map_or(Lsn::ZERO, CommittedGroup::last);
            self.reopen(target);
        }
    }

    /// Lets another thread write and sync what the view's file holds so far, which may take long,
    /// while groups go on being applied; the checkpoint itself then has little left to write.
    fn prepare_checkpoint(&mut self) {
        self.checkpoint_at = None;
        let Some(view) = self.shared.view.load_full() else { return };
        let jobs = self.own_jobs.clone();
        let work = move || {
            // An error shows again, and is dealt with, when the checkpoint is made.
            view.write_back().ok();
            drop(view);
            jobs.send(Job::Checkpoint).ok();
        };
        self.preparing = true;
        if std::thread::Builder::new().name("view-sync".into()).spawn(work).is_err() {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        self.preparing = false;
        self.checkpoint_at = None;
        let Some(view) = self.shared.view.load_full() else { return };
        if !view.has_room() || !self.reserve.covers(CHECKPOINT_BYTES) {
            // All of it is in the log, and what the view has so far can be read.
            tracing::warn!(shard = %self.shared.id, "no room for a checkpoint");
            self.checkpoint_at = Some(self.clock.elapsed() + self.settings.checkpoint_interval);
            return;
        }
        let saved = view.checkpoint();
        drop(view);
        match saved {
            Ok(lsn) => {
                self.unsaved_bytes = 0;
                self.shared.unsaved.fetch_sub(std::mem::take(&mut self.unsaved_need), Ordering::AcqRel);
                self.shared.checkpointed.store(lsn.0, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(shard = %self.shared.id, %error, "checkpoint failed");
                self.reopen(Lsn::ZERO);
                self.checkpoint_at = Some(self.clock.elapsed() + self.settings.checkpoint_interval);
            }
        }
    }

    fn replay(&mut self) {
        let target = self.shared.reader().tail();
        let behind = match &*self.shared.view.load() {
            Some(view) => catch_up(view, &self.shared, self.settings.read_chunk).is_err(),
            None => true,
        };
        if behind {
            self.reopen(target);
        }
        // What the log kept of a group whose outcome was unknown rings for nobody else.
        self.shared.ring(&[]);
    }

    /// Closes the view, opens it again and applies the log's end, until that works.
    fn reopen(&mut self, target: Lsn) {
        self.shared.view_is_down(true);
        let mut backoff = self.settings.reopen_backoff;
        loop {
            // A view that cannot be written can still be read, and the overlay has what it lacks: it
            // is only closed once there is hope that it opens again.
            if let Err(error) = self.probe() {
                tracing::error!(shard = %self.shared.id, %error, "the disk takes no writes");
                self.pause(backoff);
                backoff = (backoff * 2).min(self.settings.reopen_backoff * 64);
                continue;
            }
            self.close_view();
            let opened =
                View::open(&*self.disk, self.settings.cache_bytes).map_err(|error| error.to_string());
            let caught_up = opened.and_then(|view| {
                catch_up(&view, &self.shared, self.settings.read_chunk)?;
                Ok(view)
            });
            match caught_up {
                Ok(view) if view.applied() >= target => {
                    self.shared.view.store(Some(Arc::new(view)));
                    self.shared.reopened.fetch_add(1, Ordering::Relaxed);
                    self.shared.view_is_down(false);
                    return;
                }
                Ok(_) => tracing::error!(shard = %self.shared.id, "the log ends before an applied position"),
                Err(error) => tracing::error!(shard = %self.shared.id, error, "view not reopened"),
            }
            self.pause(backoff);
            backoff = (backoff * 2).min(self.settings.reopen_backoff * 64);
        }
    }

    /// Whether the disk takes a write and makes it durable.
    fn probe(&self) -> io::Result<()> {
        let written = self.disk.create(PROBE).and_then(|file| {
            file.write_at(0, &[0; PROBE_BYTES])?;
            file.sync()
        });
        // It may not even be there; what matters is above.
        self.disk.remove(PROBE).ok();
        written
    }

    /// Takes the view away from readers and waits until the last snapshot ended.
    fn close_view(&self) {
        let Some(view) = self.shared.view.swap(None) else { return };
        let mut view = Some(view);
        while let Some(shared) = view.take() {
            match Arc::try_unwrap(shared) {
                Ok(closed) => drop(closed),
                Err(still_read) => {
                    view = Some(still_read);
                    self.pause(Duration::from_millis(1));
                }
            }
        }
    }

    fn pause(&self, time: Duration) {
        #[expect(
            clippy::disallowed_methods,
            reason = "this thread has nothing else to do until the disk is back"
        )]
        std::thread::sleep(time);
    }
}

/// Applies everything that the log has after the view's position.
pub(super) fn catch_up(view: &View, shared: &Shared, chunk: usize) -> Result<(), String> {
    let reader = shared.reader();
    while view.applied() < reader.tail() {
        let groups = reader.read(view.applied().next(), chunk).map_err(|error| error.to_string())?;
        if groups.is_empty() {
            break;
        }
        view.apply(&groups).map_err(|error| error.to_string())?;
    }
    Ok(())
}
