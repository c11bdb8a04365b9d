//! The disk of some partitions: a commit log, its view, and the two threads that drive them.
//!
//! Stands between partitions, which prepare mutations, and the router, which reads what was
//! committed. Invariants: no reply and no reader's sight of a write before its record is on
//! disk (a document is then seen in the overlay, until the view has it); after an error nothing is taken until log and view are open again and agree.

mod applier;
mod handle;
mod open;
mod overlay;
mod purges;
mod room;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, oneshot};

pub use handle::{CommitReply, LogHold, ShardHandle, ShardStatus};
pub use open::{Disks, Shard, ShardOpenError};

use crate::log::file::LogSettings;
use crate::log::{LogReader, ReadError};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::{Lsn, ShardId};
use crate::store::{View, ViewReadError};

/// Bounds and intervals of a shard; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Batches waiting for the writer.
    pub queue: usize,
    /// Mutations in one group.
    pub batch_mutations: usize,
    /// Bytes in one group.
    pub batch_bytes: usize,
    /// Mutations that are durable but not yet in the view.
    pub apply_lag: usize,
    /// Bytes of them.
    pub apply_lag_bytes: usize,
    /// Time between durable checkpoints of the view while there is something new.
    pub checkpoint_interval: Duration,
    /// Bytes of log after which a checkpoint is made at once.
    pub checkpoint_bytes: usize,
    /// Longest time that a lazy batch waits for others to share their sync.
    pub lazy_delay: Duration,
    /// First wait before a failed disk is tried again; doubles up to 64 times this.
    pub reopen_backoff: Duration,
    /// redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Documents kept in memory after they were read, in bytes.
    pub document_cache_bytes: usize,
    /// Bytes read from the log in one step.
    pub read_chunk: usize,
    /// Room kept back for what must be written when the disk is full, in bytes; 0 for none.
    pub reserve_bytes: u64,
    /// Shards that share the file system.
    pub disk_shares: u16,
    /// Sizes of the log's files.
    pub log: LogSettings,
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self {
            queue: 8_192,
            batch_mutations: 1_024,
            batch_bytes: 1 << 20,
            apply_lag: 16_384,
            apply_lag_bytes: 32 << 20,
            checkpoint_interval: Duration::from_secs(1),
            checkpoint_bytes: 64 << 20,
            lazy_delay: Duration::from_millis(100),
            reopen_backoff: Duration::from_millis(50),
            cache_bytes: 256 << 20,
            document_cache_bytes: 32 << 20,
            read_chunk: 1 << 20,
            reserve_bytes: 1 << 20,
            disk_shares: 1,
            log: LogSettings::default(),
        }
    }
}

/// What a shard can do right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Reads and writes.
    Open = 0,
    /// There is no room for more: reads go on, and so do deletes and what follows from deliveries.
    Full = 1,
    /// Log or view failed and is being reopened: reads only.
    ReadOnly = 2,
    /// The view failed and is being reopened: neither.
    Unavailable = 3,
    /// Drained: no more writes.
    Closed = 4,
}

impl Phase {
    fn from_u8(number: u8) -> Self {
        [Self::Open, Self::Full, Self::ReadOnly, Self::Unavailable]
            .into_iter()
            .find(|phase| *phase as u8 == number)
            .unwrap_or(Self::Closed)
    }

    /// The name in status answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Unavailable => "unavailable",
            Self::Closed => "closed",
        }
    }
}

/// A batch that is durable, and visible: documents by [`ShardHandle::document`] and its like, state
/// rows in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// LSN of the batch's first mutation; the others follow without a gap.
    pub first: Lsn,
}

/// Why a batch has no known success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Too many batches are waiting. Nothing was written.
    #[error("the shard's queue is full")]
    Busy,
    /// The disk failed and is being reopened, or the shard was drained. Nothing was written.
    #[error("the shard takes no writes now")]
    Unavailable,
    /// The disk is full. Nothing was written.
    #[error("the disk is full")]
    NoRoom,
    /// The batch is larger than a record may be. Nothing was written.
    #[error("the batch is too large")]
    TooLarge,
    /// The disk failed while writing, or the answer was lost: the batch may have been written.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why something could not be read from a shard.
#[derive(Debug, thiserror::Error)]
pub enum ShardReadError {
    /// The view is being reopened.
    #[error("the shard cannot be read now")]
    Unavailable,
    /// The view refused.
    #[error(transparent)]
    View(#[from] ViewReadError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// Called by the shard after groups became durable; must return at once. Without groups it says that
/// some became durable that are only in the log.
pub type Doorbell = Arc<dyn Fn(&[CommittedGroup]) + Send + Sync>;

/// Called when a thread of the shard died: the process must end.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

type Reply = oneshot::Sender<Result<Committed, CommitError>>;

/// What the writer is asked.
enum Op {
    Commit {
        mutations: Vec<Mutation>,
        lazy: bool,
        reply: Reply,
    },
    /// Lazy batches have waited long enough.
    Hurry,
    Drain {
        done: oneshot::Sender<()>,
    },
}

/// What handles, writer and applier share.
struct Shared {
    id: ShardId,
    view: ArcSwapOption<View>,
    overlay: overlay::Overlay,
    purges: purges::Purges,
    reader: RwLock<Arc<dyn LogReader>>,
    /// What the writer knows of the log: open, full, read-only or closed.
    log_phase: AtomicU8,
    /// What the applier knows of the view. Apart from the log's phase, because both may fail at once,
    /// and the first to come back must not speak for the other.
    view_down: AtomicBool,
    doorbell: RwLock<Option<Doorbell>>,
    /// Set when the log may be trimmed up to here; 0 until somebody who reads it says so.
    floor: AtomicU64,
    /// First position that a retention still wants, whoever else has passed it; 0 until somebody said so.
    retained: AtomicU64,
    /// How many ask that nothing of the log goes.
    log_held: Arc<AtomicUsize>,
    checkpointed: AtomicU64,
    waiting: AtomicUsize,
    lag: Lag,
    /// Room that the view's file may need for what no checkpoint covers yet, in bytes.
    unsaved: AtomicU64,
    /// Whether the writer would refuse a batch that takes more room.
    no_growth: AtomicBool,
    groups: AtomicU64,
    mutations: AtomicU64,
    reopened: AtomicU64,
    drained: AtomicBool,
    /// Told after each step of the view.
    applied: Notify,
}

impl Shared {
    fn phase(&self) -> Phase {
        let log = Phase::from_u8(self.log_phase.load(Ordering::Acquire));
        if log != Phase::Closed && self.view_down.load(Ordering::Acquire) {
            // Until it is closed to be opened again, a broken view can still be read.
            let readable = self.view.load().is_some();
            return if readable { Phase::ReadOnly } else { Phase::Unavailable };
        }
        log
    }

    /// For the writer alone.
    fn enter(&self, log: Phase) {
        let before = self.phase();
        self.log_phase.store(log as u8, Ordering::Release);
        self.tell_of_phase(before);
    }

    /// For the applier alone.
    fn view_is_down(&self, down: bool) {
        let before = self.phase();
        self.view_down.store(down, Ordering::Release);
        self.tell_of_phase(before);
    }

    fn tell_of_phase(&self, before: Phase) {
        let now = self.phase();
        if before != now {
            tracing::info!(shard = %self.id, from = before.as_str(), to = now.as_str(), "shard phase changed");
        }
    }

    fn ring(&self, groups: &[CommittedGroup]) {
        if let Some(ring) = &*self.doorbell.read().unwrap_or_else(PoisonError::into_inner) {
            ring(groups);
        }
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How much stands between the log and the view.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    mutations: usize,
    bytes: usize,
}

/// What stands between the log and the view, with a bound that the writer waits for.
#[derive(Default)]
struct Lag {
    load: Mutex<Load>,
    shrunk: Condvar,
}

impl Lag {
    fn add(&self, more: Load, limit: Load) {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |load: &Load| {
            load.mutations + more.mutations > limit.mutations || load.bytes + more.bytes > limit.bytes
        };
        // A group that is larger than the bound goes alone.
        while load.mutations > 0 && full(&load) {
            load = self.shrunk.wait(load).unwrap_or_else(PoisonError::into_inner);
        }
        load.mutations += more.mutations;
        load.bytes += more.bytes;
    }

    fn remove(&self, less: Load) {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        load.mutations = load.mutations.saturating_sub(less.mutations);
        load.bytes = load.bytes.saturating_sub(less.bytes);
        self.shrunk.notify_all();
    }

    fn now(&self) -> usize {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).mutations
    }
}
