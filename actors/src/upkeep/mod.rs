//! What nobody asks for and must be done all the same: documents whose time is over, partitions that were
//! deleted, indexes of documents that were there before them, records of old requests, the retention of the
//! log.
//!
//! Stands beside the callers and does its work in small steps between theirs. Invariants: it decides
//! nothing about a document that somebody may see: the partition looks again before anything goes; what
//! cannot be done now is passed over, and keeps nothing else from being done; the thread that it shares
//! with others never waits for the disk for long.

mod expiry;
mod indexes;
mod marks;
mod purges;
mod retention;

use std::time::Duration;

use futures_util::future::join_all;

use crate::directory::DirectoryHandle;
use crate::kernel::clock::SharedClock;
use crate::model::address::EncodedPartition;
use crate::model::change::Mutation;
use crate::model::ids::{DocumentId, Lsn};
use crate::policy::precondition::Precondition;
use crate::protocol::partition::{Operation, Write};
use crate::shard::{CommitError, ShardHandle, ShardReadError};
use crate::store::{KeyedDocument, ViewReadError};

/// Bounds of the upkeep; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// Time between two rounds.
    pub interval: Duration,
    /// Documents that one round takes away, in each shard and for each reason.
    pub batch: usize,
    /// Longest time for one transaction of it.
    pub deadline: Duration,
    /// How long the log is kept, at least: the retention of topics.
    pub retention: Duration,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            batch: 2_048,
            deadline: Duration::from_secs(5),
            retention: Duration::ZERO,
        }
    }
}

/// Writes in one transaction of the upkeep.
const TRANSACTION: usize = 64;
/// Transactions of it that wait for the disk together.
const TOGETHER: usize = 16;
/// Pause of somebody who has more to do, so that others have their turn.
const BREATH: Duration = Duration::from_millis(1);

/// Why a step was not done; it is tried again in the next round.
#[derive(Debug, thiserror::Error)]
enum StepFailed {
    #[error(transparent)]
    Read(#[from] ShardReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<ViewReadError> for StepFailed {
    fn from(error: ViewReadError) -> Self {
        Self::Read(error.into())
    }
}

/// A document that may have to go.
#[derive(Debug, Clone)]
struct Suspect {
    partition: EncodedPartition,
    id: DocumentId,
    /// Its version.
    lsn: Lsn,
}

impl Suspect {
    fn new(found: &KeyedDocument) -> Self {
        Self { partition: found.partition(), id: found.document.id.clone(), lsn: found.document.lsn }
    }

    /// The document with this key; `None` when it is none.
    fn at(key: &bytes::Bytes, lsn: Lsn) -> Option<Self> {
        let (partition, id) = EncodedPartition::split_document(key)?;
        Some(Self { partition, id, lsn })
    }
}

/// The work on one shard.
struct Upkeep {
    directory: DirectoryHandle,
    shard: ShardHandle,
    settings: UpkeepSettings,
    clock: SharedClock,
    expiry: expiry::Progress,
    purges: purges::Progress,
    indexes: indexes::Progress,
    retention: retention::Progress,
}

/// Begins the upkeep of every shard, on the current arbiter. It ends with the arbiter.
pub fn start(directory: &DirectoryHandle, settings: &UpkeepSettings, clock: &SharedClock) {
    for shard in directory.shards().iter() {
        let upkeep = Upkeep {
            directory: directory.clone(),
            shard: shard.clone(),
            settings: settings.clone(),
            clock: clock.clone(),
            expiry: expiry::Progress::default(),
            purges: purges::Progress::default(),
            indexes: indexes::Progress::default(),
            retention: retention::Progress::default(),
        };
        actix::spawn(upkeep.run());
    }
}

impl Upkeep {
    async fn run(mut self) {
        loop {
            let pause = if self.round().await { BREATH } else { self.settings.interval };
            actix::clock::sleep(pause).await;
        }
    }

    /// One round of everything; true when there is more to do at once.
    async fn round(&mut self) -> bool {
        let built = self.build_indexes().await;
        let mut busy = self.told("index not built", built);
        let purged = self.purge().await;
        busy |= self.told("partition not purged", purged);
        let expired = self.expire().await;
        busy |= self.told("documents not expired", expired);
        busy |= self.told("records not expired", self.expire_records().await);
        busy |= self.told("marks of events not deleted", self.forget_marks().await);
        let retained = self.retain().await;
        busy | self.told("retention not kept", retained)
    }

    fn told(&self, what: &'static str, done: Result<bool, StepFailed>) -> bool {
        done.unwrap_or_else(|error| {
            // The shard tells of its troubles itself; here they only mean that the work waits.
            tracing::debug!(shard = %self.shard.id(), %error, what, "upkeep postponed");
            false
        })
    }

    /// Asks the partitions of these documents to take them away, if nobody sees them any more. Gives back
    /// those whose partitions cannot do it now.
    async fn sweep(&self, suspects: Vec<Suspect>) -> Vec<Suspect> {
        let mut kept = Vec::new();
        let same: Vec<_> = suspects.chunk_by(|a, b| a.partition == b.partition).collect();
        let batches: Vec<_> = same.into_iter().flat_map(|same| same.chunks(TRANSACTION)).collect();
        for together in batches.chunks(TOGETHER) {
            let swept = join_all(together.iter().map(|batch| self.sweep_batch(batch))).await;
            let failed = together.iter().zip(swept).filter(|(_, swept)| !swept);
            kept.extend(failed.flat_map(|(batch, _)| batch.iter().cloned()));
        }
        kept
    }

    /// The same for documents of one partition. Whether it could.
    async fn sweep_batch(&self, batch: &[Suspect]) -> bool {
        let Some(Suspect { partition, .. }) = batch.first() else { return true };
        let Ok(handle) = self.directory.partition_at(partition.clone()) else { return false };
        let writes = batch.iter().map(|suspect| sweep_of(&suspect.id)).collect();
        let swept = handle.sweep(writes, self.settings.deadline).await;
        swept
            .inspect_err(|refused| {
                tracing::debug!(?partition, error = %refused.error, "documents not swept");
            })
            .is_ok()
    }

    async fn commit(&self, mutations: Vec<Mutation>) -> Result<(), StepFailed> {
        if mutations.is_empty() {
            return Ok(());
        }
        let reply = self.shard.commit(mutations)?;
        reply.await.unwrap_or(Err(CommitError::Unknown))?;
        Ok(())
    }

    /// Reads what may be much on a thread where that keeps nobody from his work.
    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&ShardHandle) -> Result<R, StepFailed> + Send + 'static,
    ) -> Result<R, StepFailed> {
        let shard = self.shard.clone();
        let read = tokio::task::spawn_blocking(move || read(&shard)).await;
        read.unwrap_or(Err(StepFailed::Read(ShardReadError::Unavailable)))
    }
}

fn sweep_of(id: &DocumentId) -> Write {
    let (operation, precondition) = (Operation::Sweep, Precondition::None);
    Write { id: id.clone(), operation, precondition, traceparent: None }
}
