//! What nobody asks for and must be done all the same: documents whose time is over, partitions that were
//! deleted, indexes of documents that were there before them, records of old requests, the retention of the
//! log.
//!
//! Stands beside the callers and does its work in small steps between theirs. Invariant: it decides
//! nothing about a document that somebody may see: the partition looks again before anything goes.

mod expiry;
mod indexes;
mod purges;
mod retention;

use std::time::Duration;

use crate::directory::DirectoryHandle;
use crate::kernel::clock::SharedClock;
use crate::model::address::EncodedPartition;
use crate::model::ids::DocumentId;
use crate::policy::precondition::Precondition;
use crate::protocol::partition::{Operation, Write, WriteError};
use crate::shard::{CommitError, ShardHandle, ShardReadError};
use crate::store::KeyedDocument;

/// Bounds of the upkeep; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// Time between two rounds.
    pub interval: Duration,
    /// Documents that one round takes away, in each shard and for each reason.
    pub batch: usize,
    /// Longest time for one transaction of it.
    pub deadline: Duration,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), batch: 2_048, deadline: Duration::from_secs(5) }
    }
}

/// Writes in one transaction of the upkeep.
const TRANSACTION: usize = 64;
/// Rounds between two looks at the retention of the log.
const RETENTION_ROUNDS: u64 = 60;

/// Why a step was not done; it is tried again in the next round.
#[derive(Debug, thiserror::Error)]
enum StepFailed {
    #[error(transparent)]
    Read(#[from] ShardReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The work on one shard.
struct Upkeep {
    directory: DirectoryHandle,
    shard: ShardHandle,
    settings: UpkeepSettings,
    clock: SharedClock,
    expiry: expiry::Progress,
    indexes: indexes::Progress,
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
            indexes: indexes::Progress::default(),
        };
        actix::spawn(upkeep.run());
    }
}

impl Upkeep {
    async fn run(mut self) {
        let mut round: u64 = 0;
        loop {
            let busy = self.round(round).await;
            round += 1;
            // Who has more to do lets others have their turn, and goes on.
            let pause = if busy { Duration::from_millis(1) } else { self.settings.interval };
            actix::clock::sleep(pause).await;
        }
    }

    /// One round of everything; true when there is more to do at once.
    async fn round(&mut self, round: u64) -> bool {
        let mut busy = false;
        let built = self.build_indexes().await;
        busy |= self.told("index not built", built);
        busy |= self.told("partition not purged", self.purge().await);
        let expired = self.expire().await;
        busy |= self.told("documents not expired", expired);
        busy |= self.told("records not expired", self.expire_records().await);
        if round.is_multiple_of(RETENTION_ROUNDS) {
            self.told("retention not kept", self.retain());
        }
        busy
    }

    fn told(&self, what: &'static str, done: Result<bool, StepFailed>) -> bool {
        done.unwrap_or_else(|error| {
            // The shard tells of its troubles itself; here they only mean that the work waits.
            tracing::debug!(shard = %self.shard.id(), %error, what, "upkeep postponed");
            false
        })
    }

    /// Asks the partitions of these documents to take them away, if nobody sees them any more.
    async fn sweep(&self, found: &[KeyedDocument]) -> Result<(), StepFailed> {
        let mut rest = found;
        while let Some(first) = rest.first() {
            let partition = partition_of(first);
            let same = |found: &&KeyedDocument| partition_of(found) == partition;
            let count = rest.iter().take(TRANSACTION).take_while(same).count().max(1);
            let (batch, others) = rest.split_at(count.min(rest.len()));
            let writes = batch.iter().map(|found| sweep_of(&found.document.id)).collect();
            let handle = self.directory.partition_at(partition)?;
            handle.sweep(writes, self.settings.deadline).await.map_err(|refused| refused.error)?;
            rest = others;
        }
        Ok(())
    }
}

fn partition_of(found: &KeyedDocument) -> EncodedPartition {
    let end = found.key.len().saturating_sub(found.document.id.as_str().len());
    EncodedPartition::from_bytes(found.key.slice(..end))
}

fn sweep_of(id: &DocumentId) -> Write {
    let (operation, precondition) = (Operation::Sweep, Precondition::None);
    Write { id: id.clone(), operation, precondition, traceparent: None }
}
