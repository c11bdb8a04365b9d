//! The door to a partition. Reads go to the shard's view without a hop; writes wake the actor.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::{Account, DirectoryHandle};
use crate::kernel::ask::{NoAnswer, answer};
use crate::model::address::EncodedPartition;
use crate::model::ids::{DocumentId, ShardId};
use crate::model::time::Timestamp;
use crate::policy::charge::{self, RequestUnits};
use crate::policy::container::Container;
use crate::policy::throughput::RetryAfter;
use crate::policy::ttl::ItemTtl;
use crate::protocol::partition::{
    Content, Operation, Refused, Repeat, TransactionResult, Write, WriteDocuments, WriteError, WriteResult,
};
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::{KeyedDocument, Page, StoredDocument};

/// Everybody's way to one partition. Cheap to make; nothing wakes before the first write.
#[derive(Debug, Clone)]
pub struct PartitionHandle {
    address: EncodedPartition,
    container: Arc<Container>,
    account: Arc<Account>,
    shard: ShardHandle,
    directory: DirectoryHandle,
}

/// Why a partition was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The budget is spent.
    #[error(transparent)]
    Throttled(#[from] RetryAfter),
    /// The shard cannot read.
    #[error(transparent)]
    Shard(#[from] ShardReadError),
}

impl PartitionHandle {
    pub(super) fn new(
        address: EncodedPartition,
        (container, account): (Arc<Container>, Arc<Account>),
        shard: ShardHandle,
        directory: DirectoryHandle,
    ) -> Self {
        Self { address, container, account, shard, directory }
    }

    /// The partition.
    pub fn address(&self) -> &EncodedPartition {
        &self.address
    }

    /// The shard that holds the partition.
    pub fn shard(&self) -> ShardId {
        self.shard.id()
    }

    /// What its container asks of documents.
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }

    /// Writes one document and waits until that is durable and visible, at most `deadline`
    /// (and once more that long, if the partition has to be woken by a directory that is busy).
    ///
    /// # Errors
    /// [`WriteError::Unknown`] when no answer came in time: the write may still happen.
    pub async fn write(&self, write: Write, deadline: Duration) -> WriteResult {
        let written = self.transact(vec![write], None, deadline).await.map_err(|refused| refused.error)?;
        // There is one answer for each write.
        written.into_iter().next().ok_or(WriteError::Crashed)
    }

    /// Writes documents, all or none, and waits as [`write`](Self::write) does. With `repeat`, a
    /// request that comes again is answered and not done again.
    ///
    /// # Errors
    /// [`Refused`] says which of the writes keeps the others from happening.
    pub async fn transact(
        &self,
        writes: Vec<Write>,
        repeat: Option<Repeat>,
        deadline: Duration,
    ) -> TransactionResult {
        self.account.admit(Some(&self.address)).map_err(|wait| WriteError::Throttled(wait.0))?;
        let result = self.send(writes, repeat, deadline).await;
        let cost = match &result {
            Ok(written) => written.iter().map(|written| written.charge).sum(),
            Err(_) => charge::refused(),
        };
        self.account.charge(Some(&self.address), cost);
        result
    }

    /// Writes documents in this order, each by itself: one that is refused keeps no other from happening.
    /// Waits as [`write`](Self::write) does. They share commits, so that many cost little more time than one.
    pub async fn write_each(&self, writes: Vec<Write>, deadline: Duration) -> Vec<WriteResult> {
        let mut under_way = RequestUnits::ZERO;
        let mut waits = Vec::with_capacity(writes.len());
        for write in writes {
            // What those before it cost is charged later, when it is known, and is spent all the same. Those
            // that are refused count too: so each comes back when there is room for all before it.
            let admitted = self.account.admit_after(Some(&self.address), under_way);
            under_way += least_charge(&write.operation);
            waits.push(match admitted {
                Ok(()) => self.begin(vec![write], None, deadline).await,
                Err(wait) => Err(WriteError::Throttled(wait.0)),
            });
        }
        join_all(waits.into_iter().map(|wait| self.settle(wait, deadline))).await
    }

    /// Waits for a write that was sent, and charges for it.
    async fn settle(&self, sent: Result<Sent, WriteError>, deadline: Duration) -> WriteResult {
        if let Err(error @ WriteError::Throttled(_)) = sent {
            return Err(error);
        }
        let result = match sent {
            Ok(wait) => decided(wait, deadline).await.map_err(|refused| refused.error),
            Err(error) => Err(error),
        };
        // There is one answer for each write.
        let result = result.and_then(|written| written.into_iter().next().ok_or(WriteError::Crashed));
        let cost = result.as_ref().map_or_else(|_| charge::refused(), |written| written.charge);
        self.account.charge(Some(&self.address), cost);
        result
    }

    /// Takes away documents that nobody sees any more; those that somebody does are left. Costs nobody
    /// anything.
    pub async fn sweep(&self, writes: Vec<Write>, deadline: Duration) -> TransactionResult {
        self.send(writes, None, deadline).await
    }

    async fn send(
        &self,
        writes: Vec<Write>,
        repeat: Option<Repeat>,
        deadline: Duration,
    ) -> TransactionResult {
        decided(self.begin(writes, repeat, deadline).await?, deadline).await
    }

    /// Puts writes into the partition's queue: what was put there earlier is decided earlier.
    async fn begin(
        &self,
        writes: Vec<Write>,
        repeat: Option<Repeat>,
        deadline: Duration,
    ) -> Result<Sent, WriteError> {
        let (reply, wait) = oneshot::channel();
        let (awake, permit) = self.directory.enter(&self.address, deadline).await?;
        awake.tell(WriteDocuments { writes, repeat, permit, reply })?;
        Ok(wait)
    }

    /// One document as it was committed last. It costs [`read_charge`].
    pub fn read(&self, id: &DocumentId) -> Result<Option<StoredDocument>, ReadError> {
        self.account.admit(Some(&self.address))?;
        let found = self.shard.document(&self.address, id)?;
        let found = found.filter(|found| self.shows(id, found));
        self.account.charge(Some(&self.address), read_charge(found.as_ref()));
        Ok(found)
    }

    /// Documents in the order of their ids, after `after`. It costs [`list_charge`].
    pub fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        self.account.admit(Some(&self.address))?;
        let mut after = after.map(|id| self.address.document(id));
        let page = loop {
            let mut page = self.shard.list(&self.address, after.as_deref(), limit, max_bytes)?;
            let last = page.documents.last().map(|found| found.key.to_vec());
            page.documents.retain(|KeyedDocument { document, .. }| self.shows(&document.id, document));
            if !page.documents.is_empty() || !page.more {
                break page;
            }
            // Nobody sees any of these; the next ones may be seen.
            after = last;
        };
        self.account.charge(Some(&self.address), list_charge(&page));
        Ok(page)
    }

    /// Whether readers see this version of a document: it has not expired, and its partition was not
    /// deleted since.
    fn shows(&self, id: &DocumentId, found: &StoredDocument) -> bool {
        shows(&self.container, &self.shard, &self.address.document(id), found, self.directory.now())
    }
}

/// Where the answer to writes that were sent comes from.
type Sent = oneshot::Receiver<TransactionResult>;

async fn decided(sent: Sent, deadline: Duration) -> TransactionResult {
    match answer(sent, deadline).await {
        Ok(result) => result,
        Err(NoAnswer::TimedOut | NoAnswer::Closed) => Err(Refused::from(WriteError::Unknown)),
    }
}

/// What an operation that succeeds costs at least, as far as can be told before it is done.
fn least_charge(operation: &Operation) -> RequestUnits {
    let of = |content: &Content| charge::Written {
        bytes: content.body.len(),
        properties: content.properties,
        index_entries: 0,
    };
    match operation {
        Operation::Create(content) | Operation::Upsert(content) => charge::create(&of(content)),
        Operation::Replace(content) => charge::replace(&of(content)),
        Operation::Patch(_) | Operation::Delete => charge::delete(&charge::Written::default()),
        Operation::Read => charge::read(0),
        Operation::Sweep => RequestUnits::ZERO,
    }
}

/// What a point read costs.
pub fn read_charge(found: Option<&StoredDocument>) -> RequestUnits {
    found.map_or_else(charge::not_found, |found| charge::read(found.body.len()))
}

/// What a page of documents costs.
pub fn list_charge(page: &Page) -> RequestUnits {
    let bytes = page.documents.iter().map(|found| found.document.body.len()).sum();
    charge::change_feed(page.documents.len(), bytes)
}

/// Whether readers see this version of the document with this key.
pub fn shows(
    container: &Container,
    shard: &ShardHandle,
    key: &[u8],
    found: &StoredDocument,
    now: Timestamp,
) -> bool {
    // What was stored was checked before.
    let ttl = ItemTtl::from_i32(found.ttl).unwrap_or_default();
    !container.is_expired(found.at, ttl, now) && !shard.is_purged(key, found.lsn)
}
