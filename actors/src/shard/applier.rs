//! The thread that owns the view's writes: applies groups, answers, rings the doorbell, makes
//! checkpoints, and rebuilds the view's end from the log when its file failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use fail::fail_point;

use super::{Committed, Reply, ShardSettings, Shared};
use crate::kernel::clock::SharedClock;
use crate::log::disk::Disk;
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;
use crate::store::{ApplyError, View};

/// Most groups that share one transaction of the view.
const GROUPS: usize = 16;

/// What the applier is asked.
pub(super) enum Job {
    /// Make this durable group visible, then answer.
    Apply { group: CommittedGroup, bytes: usize, replies: Vec<(Committed, Reply)> },
    /// Apply what the log has and the view has not.
    Replay,
    /// Say when everything before is done.
    Barrier { done: SyncSender<()> },
    /// Make everything durable and end.
    Finish { done: SyncSender<()> },
}

pub(super) struct Applier {
    pub(super) jobs: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: ShardSettings,
    pub(super) clock: SharedClock,
    pub(super) unsaved_bytes: usize,
    pub(super) checkpoint_at: Option<Duration>,
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
                        self.checkpoint();
                        continue;
                    }
                },
            };
            match job {
                Job::Apply { group, bytes, replies } => held = self.apply(group, bytes, replies),
                Job::Replay => self.replay(),
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
            if self.unsaved_bytes >= self.settings.checkpoint_bytes || self.is_checkpoint_due() {
                self.checkpoint();
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
        let mut held = None;
        while groups.len() < GROUPS {
            match self.jobs.try_recv() {
                Ok(Job::Apply { group, bytes, replies }) => {
                    groups.push(group);
                    answers.push(replies);
                    self.unsaved_bytes += bytes;
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
        fail_point!("applier::reply", |_| None);
        let mutations: usize = groups.iter().map(|group| group.mutations.len()).sum();
        self.shared.groups.fetch_add(groups.len() as u64, Ordering::Relaxed);
        self.shared.mutations.fetch_add(mutations as u64, Ordering::Relaxed);
        self.shared.lag.remove(mutations);
        for (committed, reply) in answers.into_iter().flatten() {
            // A caller that gave up will find its write; there is nobody to tell.
            reply.send(Ok(committed)).ok();
        }
        self.shared.ring(&groups);
        if self.checkpoint_at.is_none() {
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

    fn checkpoint(&mut self) {
        self.checkpoint_at = None;
        let saved = match &*self.shared.view.load() {
            Some(view) => view.checkpoint(),
            None => return,
        };
        match saved {
            Ok(lsn) => {
                self.unsaved_bytes = 0;
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
