//! The door to a partition. Reads go to the shard's view without a hop; writes wake the actor.

use std::time::Duration;

use tokio::sync::oneshot;

use super::DirectoryHandle;
use crate::kernel::ask::{NoAnswer, answer};
use crate::model::address::EncodedPartition;
use crate::model::ids::{DocumentId, ShardId};
use crate::protocol::partition::{Write, WriteDocument, WriteError, WriteResult};
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::{Page, StoredDocument};

/// Everybody's way to one partition. Cheap to make; nothing wakes before the first write.
#[derive(Debug, Clone)]
pub struct PartitionHandle {
    address: EncodedPartition,
    shard: ShardHandle,
    directory: DirectoryHandle,
}

impl PartitionHandle {
    pub(super) fn new(address: EncodedPartition, shard: ShardHandle, directory: DirectoryHandle) -> Self {
        Self { address, shard, directory }
    }

    /// The shard that holds the partition.
    pub fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// Writes one document and waits until that is durable and visible, at most `deadline`
    /// (and once more that long, if the partition has to be woken by a directory that is busy).
    ///
    /// # Errors
    /// [`WriteError::Unknown`] when no answer came in time: the write may still happen.
    pub async fn write(&self, write: Write, deadline: Duration) -> WriteResult {
        let (reply, wait) = oneshot::channel();
        let (awake, permit) = self.directory.enter(&self.address, deadline).await?;
        awake.tell(WriteDocument { write, permit, reply })?;
        match answer(wait, deadline).await {
            Ok(result) => result,
            Err(NoAnswer::TimedOut | NoAnswer::Closed) => Err(WriteError::Unknown),
        }
    }

    /// One document as it was committed last.
    pub fn read(&self, id: &DocumentId) -> Result<Option<StoredDocument>, ShardReadError> {
        self.shard.document(&self.address, id)
    }

    /// Documents in the order of their ids, after `after`.
    pub fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ShardReadError> {
        let after = after.map(|id| self.address.document(id));
        self.shard.list(&self.address, after.as_deref(), limit, max_bytes)
    }
}
