//! The door to the directory, and through it to every partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle};

use super::indexes::IndexStates;
use super::spending::{Account, Accounts};
use super::table::{Awake, Table};
use super::{Directory, DirectorySettings, PartitionHandle};
use crate::kernel::clock::SharedClock;
use crate::kernel::permits::Permit;
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::time::Timestamp;
use crate::partition::Phase;
use crate::policy::container::Catalog;
use crate::protocol::directory::{ReopenPartition, WakePartition};
use crate::protocol::partition::WriteError;
use crate::shard::ShardHandle;

/// Everybody's way to the partitions; cheap to clone.
#[derive(Debug, Clone)]
pub struct DirectoryHandle {
    addr: Addr<Directory>,
    table: Arc<Table>,
    shards: Arc<[ShardHandle]>,
    catalog: Catalog,
    accounts: Accounts,
    indexes: IndexStates,
    clock: SharedClock,
    closed: Arc<AtomicBool>,
}

/// What an awake partition shows of itself.
#[derive(Debug, Clone)]
pub struct PartitionStatus {
    /// Where it is.
    pub address: EncodedPartition,
    /// What it is doing.
    pub phase: Phase,
    /// How often it crashed and came back.
    pub restarts: u32,
    /// Writes that wait or are in flight.
    pub queue: usize,
    /// Batches since it woke.
    pub batches: u64,
    /// The last panic's text.
    pub last_crash: Option<String>,
}

impl DirectoryHandle {
    /// Starts the directory on the current arbiter; partitions run on `arbiters` and keep to the rules
    /// that `catalog` has for their containers.
    pub fn start(
        (shards, catalog): (Arc<[ShardHandle]>, Catalog),
        arbiters: Vec<ArbiterHandle>,
        settings: DirectorySettings,
        clock: SharedClock,
    ) -> Self {
        let table = Arc::new(Table::default());
        let partition = Arc::new(settings.partition.clone());
        let accounts = Accounts::new(&catalog, &clock);
        let directory = Directory {
            table: table.clone(),
            shards: shards.clone(),
            catalog: catalog.clone(),
            arbiters,
            settings,
            partition,
            clock: clock.clone(),
            sweeping: false,
        };
        // What cannot be read now is built again, which costs time and nothing else.
        let indexes = IndexStates::load(&shards, &catalog).unwrap_or_default();
        let addr = directory.start();
        Self { addr, table, shards, catalog, accounts, indexes, clock, closed: Arc::default() }
    }

    /// The way to the partition at `address`.
    ///
    /// # Errors
    /// None in practice: [`WriteError::Unavailable`] if there are no shards.
    pub fn partition(&self, address: &PartitionAddress) -> Result<PartitionHandle, WriteError> {
        self.partition_at(address.encode())
    }

    /// The same for an address that is encoded already.
    pub fn partition_at(&self, encoded: EncodedPartition) -> Result<PartitionHandle, WriteError> {
        let shard = self.shard_of(&encoded).ok_or(WriteError::Unavailable)?;
        let container = self.catalog.of(&encoded);
        let account = self.accounts.of(&container.name).clone();
        Ok(PartitionHandle::new(encoded, (container, account), shard.clone(), self.clone()))
    }

    /// The shard that holds a partition; `None` if there are no shards.
    pub(super) fn shard_of(&self, partition: &EncodedPartition) -> Option<&ShardHandle> {
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        self.shards.get(usize::from(partition.shard(shards).0))
    }

    /// The containers.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Which declared indexes can be used.
    pub fn indexes(&self) -> &IndexStates {
        &self.indexes
    }

    /// What is spent in a container.
    pub fn account(&self, container: &str) -> &Arc<Account> {
        self.accounts.of(container)
    }

    /// The shards, by number.
    pub fn shards(&self) -> &Arc<[ShardHandle]> {
        &self.shards
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A place in the queue of the partition, which is woken if it sleeps. Whoever holds the place
    /// keeps it awake.
    pub(super) async fn enter(
        &self,
        address: &EncodedPartition,
        deadline: Duration,
    ) -> Result<(Awake, Permit), WriteError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(WriteError::Unavailable);
        }
        if let Some(awake) = self.table.get(address, self.clock.elapsed()).filter(Awake::is_alive) {
            let permit = awake.permits().try_take().ok_or(WriteError::Busy)?;
            return Ok((awake, permit));
        }
        let woken = tokio::time::timeout(deadline, self.addr.send(WakePartition(address.clone()))).await;
        // No answer wrote nothing, whatever the reason.
        let Ok(Ok(woken)) = woken else { return Err(WriteError::Unavailable) };
        let permit = woken?;
        let awake = self.table.get(address, self.clock.elapsed()).ok_or(WriteError::Unavailable)?;
        Ok((awake, permit))
    }

    /// Takes no new writes from now on; those under way are answered.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Writes that wait or are in flight, over all partitions.
    pub fn writes_in_flight(&self) -> usize {
        self.table.all(usize::MAX).iter().map(|(_, awake)| awake.permits().taken()).sum()
    }

    /// How many partitions are awake.
    pub fn awake(&self) -> usize {
        self.table.len()
    }

    /// Up to `limit` awake partitions.
    pub fn status(&self, limit: usize) -> Vec<PartitionStatus> {
        let all = self.table.all(limit);
        all.into_iter()
            .map(|(address, awake)| PartitionStatus {
                address,
                phase: awake.vitals().phase(),
                restarts: awake.vitals().restarts(),
                queue: awake.permits().taken(),
                batches: awake.vitals().batches(),
                last_crash: awake.vitals().last_crash(),
            })
            .collect()
    }

    /// Ends the quarantine of a partition; `false` if it is not awake.
    pub async fn reopen(&self, address: EncodedPartition) -> bool {
        self.addr.send(ReopenPartition(address)).await.unwrap_or(false)
    }
}
