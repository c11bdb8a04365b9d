//! The door to a shard.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot;

use super::overlay::{RecentDocuments, lay_over};
use super::purges;
use super::room::any_grows;
use super::{CommitError, Committed, Doorbell, Op, Phase, ShardReadError, Shared};
use crate::log::LogReader;
use crate::model::address::EncodedPartition;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{DocumentId, Lsn, ShardId};
use crate::store::{Page, StoredDocument, Version, View};

/// A reply that will come when the batch is durable and visible.
pub type CommitReply = oneshot::Receiver<Result<Committed, CommitError>>;

/// Everybody's way to one shard; cheap to clone.
#[derive(Clone)]
pub struct ShardHandle {
    ops: SyncSender<Op>,
    shared: Arc<Shared>,
}

impl fmt::Debug for ShardHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardHandle").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

/// Somebody's wish that nothing of a log goes.
#[derive(Debug)]
pub struct LogHold(Arc<AtomicUsize>);

impl Drop for LogHold {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many late changes are laid over a page of so many documents at once.
fn recently(limit: usize) -> usize {
    /// For pages of very few.
    const LEAST: usize = 64;
    limit.saturating_mul(2).max(LEAST)
}

/// What a shard shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardStatus {
    /// What it can do.
    pub phase: Phase,
    /// Last position in the log.
    pub tail: Lsn,
    /// Last position in the view.
    pub applied: Lsn,
    /// Last position that a restart need not replay.
    pub checkpointed: Lsn,
    /// First position that is still in the log.
    pub first: Lsn,
    /// Batches waiting for the writer.
    pub waiting: usize,
    /// Mutations durable but not visible.
    pub lag: usize,
    /// Groups committed since the start.
    pub groups: u64,
    /// Mutations committed since the start.
    pub mutations: u64,
    /// How often log or view were reopened after an error.
    pub reopened: u64,
    /// Reads of the view that found something damaged, since it was opened.
    pub damaged: u64,
    /// Point reads that were answered from memory, and those that asked the view.
    pub cache: (u64, u64),
}

impl ShardHandle {
    pub(super) fn new(ops: SyncSender<Op>, shared: Arc<Shared>) -> Self {
        Self { ops, shared }
    }

    /// The shard's number.
    pub fn id(&self) -> ShardId {
        self.shared.id
    }

    /// Asks for a batch to be committed as a whole.
    ///
    /// # Errors
    /// [`CommitError::Busy`] and [`CommitError::Unavailable`] at once, when the queue is full or
    /// the shard takes no writes.
    pub fn commit(&self, mutations: Vec<Mutation>) -> Result<CommitReply, CommitError> {
        self.send(mutations, false)
    }

    /// The same for a batch that is in no hurry: it shares the sync of the next one that is,
    /// or goes alone after a short while.
    pub fn commit_lazily(&self, mutations: Vec<Mutation>) -> Result<CommitReply, CommitError> {
        self.send(mutations, true)
    }

    /// Whether there is room for these, as far as is known: who gathers a batch asks for each part, so that one
    /// that takes more room does not cost another that makes some.
    pub fn has_room(&self, mutations: &[Mutation]) -> bool {
        !self.shared.no_growth.load(Ordering::Acquire) || !any_grows(mutations)
    }

    /// Ends the wait of lazy batches: their sender needs the places that they hold.
    pub fn hurry(&self) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        if self.ops.try_send(Op::Hurry).is_err() {
            // A full queue means that a group is about to be made anyway.
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn send(&self, mutations: Vec<Mutation>, lazy: bool) -> Result<CommitReply, CommitError> {
        match self.shared.phase() {
            Phase::Open | Phase::Full => {}
            Phase::ReadOnly | Phase::Unavailable | Phase::Closed => return Err(CommitError::Unavailable),
        }
        let (reply, answer) = oneshot::channel();
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.ops.try_send(Op::Commit { mutations, lazy, reply });
        if sent.is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        match sent {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(CommitError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(CommitError::Unavailable),
        }
    }

    /// One document as it was committed last, or `None` if there is none.
    pub fn document(
        &self,
        partition: &EncodedPartition,
        id: &DocumentId,
    ) -> Result<Option<StoredDocument>, ShardReadError> {
        let key = partition.document(id);
        match self.shared.overlay.find(partition, &key) {
            Ok(recent) => Ok(recent.document()),
            Err(seen) => {
                let found = self.view()?.document(partition, id)?;
                if let Some(found) = &found {
                    self.shared.overlay.keep(partition, key, found, seen);
                }
                Ok(found)
            }
        }
    }

    /// The version of a document.
    pub fn version(
        &self,
        partition: &EncodedPartition,
        id: &DocumentId,
    ) -> Result<Option<Version>, ShardReadError> {
        match self.shared.overlay.get(partition, id) {
            Some(recent) => Ok(recent.version()),
            None => Ok(self.view()?.version(partition, id)?),
        }
    }

    /// A row that partitions read while they decide; its key begins with the partition.
    pub fn row(
        &self,
        partition: &EncodedPartition,
        table: Table,
        key: &Bytes,
    ) -> Result<Option<Bytes>, ShardReadError> {
        match self.shared.overlay.row(partition, table, key) {
            Some(row) => Ok(row),
            None => Ok(self.view()?.row(table, key)?),
        }
    }

    /// Documents of a partition in the order of their ids, from behind the key `after`, at most
    /// `limit` and about `max_bytes`.
    pub fn list(
        &self,
        partition: &EncodedPartition,
        after: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ShardReadError> {
        let most = recently(limit);
        let recent = |after: Option<&[u8]>| self.shared.overlay.of_partition(partition, after, most);
        self.page(partition.as_bytes(), recent, after, limit, max_bytes)
    }

    /// The same for all documents whose keys begin with `prefix`, in whichever partitions.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ShardReadError> {
        let most = recently(limit);
        let recent = |after: Option<&[u8]>| self.shared.overlay.of_prefix(prefix, after, most);
        self.page(prefix, recent, after, limit, max_bytes)
    }

    fn page(
        &self,
        prefix: &[u8],
        recent: impl Fn(Option<&[u8]>) -> RecentDocuments,
        after: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ShardReadError> {
        let mut after = after.map(Bytes::copy_from_slice);
        loop {
            // The overlay first: what it loses meanwhile is in the view.
            let recent = recent(after.as_deref());
            let page = self.view()?.scan(prefix, after.as_deref(), limit, max_bytes)?;
            let (page, end) = lay_over(page, recent, limit);
            if !page.documents.is_empty() || end.is_none() {
                return Ok(page);
            }
            // Everything up to there was deleted a moment ago.
            after = end;
        }
    }

    /// Documents of a partition that changed lately, and may not be in the view: who reads more than this
    /// door offers asks here first and the view second. `None` is a document that is gone.
    pub fn recent(&self, partition: &EncodedPartition) -> Vec<(Vec<u8>, Option<StoredDocument>)> {
        let recent = self.shared.overlay.of_partition(partition, None, usize::MAX).documents.into_iter();
        recent.map(|(key, recent)| (key, recent.document())).collect()
    }

    /// Deletes all documents whose keys begin with `prefix`: from the answer on nobody sees them. They
    /// are taken away by the upkeep, each with its change, until that calls
    /// [`end_purge`](Self::end_purge). Goes on when the caller gives up: what became durable must be seen.
    pub async fn purge(&self, prefix: Vec<u8>) -> Result<(), CommitError> {
        let this = self.clone();
        let purge = async move {
            let purges = &this.shared.purges;
            let _turn = purges.turn().await;
            if purges.is_full() {
                return Err(CommitError::Busy);
            }
            let upto = this.shared.reader().tail();
            let reply = this.commit(vec![purges::row(&prefix, upto)])?;
            reply.await.unwrap_or(Err(CommitError::Unknown))?;
            purges.begin(prefix, upto);
            Ok(())
        };
        tokio::spawn(purge).await.unwrap_or(Err(CommitError::Unknown))
    }

    /// Forgets a purge up to `upto` that has nothing left to take away. One of the same prefix that
    /// covers more goes on.
    pub async fn end_purge(&self, prefix: &[u8], upto: Lsn) -> Result<(), CommitError> {
        let purges = &self.shared.purges;
        let _turn = purges.turn().await;
        if purges.position(prefix).is_none_or(|position| position > upto) {
            return Ok(());
        }
        let reply = self.commit(vec![purges::row_gone(prefix)])?;
        reply.await.unwrap_or(Err(CommitError::Unknown))?;
        purges.end(prefix);
        Ok(())
    }

    /// Purges under way: prefix, and the last position that they cover.
    pub fn purges(&self) -> Vec<(Vec<u8>, Lsn)> {
        self.shared.purges.all()
    }

    /// Whether the document with this key was deleted with its partition when it had this version.
    pub fn is_purged(&self, key: &[u8], lsn: Lsn) -> bool {
        self.shared.purges.cover(key, lsn)
    }

    /// The view, for a short read of state rows: do not hold it across an await.
    pub fn view(&self) -> Result<Arc<View>, ShardReadError> {
        self.shared.view.load_full().ok_or(ShardReadError::Unavailable)
    }

    /// Ends when the view has taken its next step. Who must not miss one calls `enable` before he looks.
    pub fn applied(&self) -> Notified<'_> {
        self.shared.applied.notified()
    }

    /// A reader of the log.
    pub fn log(&self) -> Arc<dyn LogReader> {
        self.shared.reader()
    }

    /// Who is told when groups became durable; replaces who was told before.
    pub fn on_commit(&self, doorbell: Doorbell) {
        *self.shared.doorbell.write().unwrap_or_else(PoisonError::into_inner) = Some(doorbell);
    }

    /// Promises that nobody will read the log before `floor` any more.
    pub fn release(&self, floor: Lsn) {
        self.shared.floor.store(floor.0, Ordering::Release);
    }

    /// Keeps the log from `first` on for feeds, whoever else has read it.
    pub fn retain(&self, first: Lsn) {
        self.shared.retained.store(first.0, Ordering::Release);
    }

    /// Keeps all of the log until the answer is dropped.
    pub fn hold_log(&self) -> LogHold {
        let held = self.shared.log_held.clone();
        held.fetch_add(1, Ordering::AcqRel);
        LogHold(held)
    }

    /// What the shard shows of itself.
    pub fn status(&self) -> ShardStatus {
        let shared = &self.shared;
        let reader = shared.reader();
        ShardStatus {
            phase: shared.phase(),
            tail: reader.tail(),
            applied: shared.view.load().as_ref().map_or(Lsn::ZERO, |view| view.applied()),
            damaged: shared.view.load().as_ref().map_or(0, |view| view.damaged()),
            checkpointed: Lsn(shared.checkpointed.load(Ordering::Acquire)),
            first: reader.first(),
            waiting: shared.waiting.load(Ordering::Relaxed),
            lag: shared.lag.now(),
            groups: shared.groups.load(Ordering::Relaxed),
            mutations: shared.mutations.load(Ordering::Relaxed),
            reopened: shared.reopened.load(Ordering::Relaxed),
            cache: shared.overlay.cache_counts(),
        }
    }

    /// Commits what is waiting, makes a checkpoint, closes log and view: there are no reads afterwards.
    /// Returns at once if that was done before.
    pub async fn drain(&self) {
        if self.shared.drained.load(Ordering::Acquire) {
            return;
        }
        let (done, wait) = oneshot::channel();
        let ops = self.ops.clone();
        // The queue may be full for a moment; the wait belongs to a blocking thread.
        let sent = tokio::task::spawn_blocking(move || ops.send(Op::Drain { done }).is_ok()).await;
        if matches!(sent, Ok(true)) {
            wait.await.ok();
        }
    }
}
