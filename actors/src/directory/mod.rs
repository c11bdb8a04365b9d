//! Who is awake: wakes partitions on first use, lets idle ones sleep, bounds how many there are.
//!
//! Stands between a partition's handle and its actor, and only until the actor is known: the
//! table of who is awake is read without asking this actor.
//! Invariant: a partition has at most one actor, and none is put to sleep while somebody holds a
//! place in its queue. A quarantine outlasts idleness: sleep would end it.

mod extent;
mod handle;
mod indexes;
mod partition;
mod spending;
mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, Supervisor};

use crate::kernel::clock::SharedClock;
use crate::kernel::contain::contain;
use crate::kernel::permits::{Permit, Permits};
use crate::model::address::EncodedPartition;
use crate::partition::{Partition, PartitionSettings, Phase, Vitals};
use crate::policy::container::Catalog;
use crate::protocol::directory::{ReopenPartition, WakePartition};
use crate::protocol::partition::{FallAsleep, Reopen, WriteError};
use crate::shard::ShardHandle;

pub use extent::Extent;
pub use handle::{DirectoryHandle, PartitionStatus};
pub use indexes::{IndexStates, forget_row, ready_row, ready_rows};
pub use partition::{PartitionHandle, ReadError, list_charge, read_charge, shows};
pub use spending::Account;
use table::{Awake, Entry, Table};

/// Bounds of the directory; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct DirectorySettings {
    /// Partitions awake at once.
    pub awake: usize,
    /// Time without a write after which a partition falls asleep.
    pub idle: Duration,
    /// Writes waiting in one partition.
    pub queue: usize,
    /// What each partition needs.
    pub partition: PartitionSettings,
}

/// The actor. Reached through [`DirectoryHandle`].
pub struct Directory {
    table: Arc<Table>,
    shards: Arc<[ShardHandle]>,
    catalog: Catalog,
    arbiters: Vec<ArbiterHandle>,
    settings: DirectorySettings,
    partition: Arc<PartitionSettings>,
    clock: SharedClock,
    sweeping: bool,
}

impl Directory {
    fn wake(&mut self, address: EncodedPartition, ctx: &mut Context<Self>) -> Result<Permit, WriteError> {
        if let Some(awake) = self.table.get(&address, self.clock.elapsed()).filter(Awake::is_alive) {
            return awake.permits().try_take().ok_or(WriteError::Busy);
        }
        if self.table.len() >= self.settings.awake && !self.make_room() {
            return Err(WriteError::Overloaded);
        }
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX);
        let shard = address.shard(shards);
        let shard = self.shards.get(usize::from(shard.0)).ok_or(WriteError::Unavailable)?.clone();
        let vitals = Arc::new(Vitals::default());
        let partition = Partition::new(
            address.clone(),
            (self.catalog.of(&address), shard),
            self.partition.clone(),
            self.clock.clone(),
            vitals.clone(),
        );
        let arbiter = self.arbiter(&address).ok_or(WriteError::Unavailable)?;
        // One place more than there are permits, for the directory's own messages.
        let capacity = self.settings.queue + 1;
        let addr = Supervisor::start_in_arbiter(arbiter, move |ctx: &mut Context<Partition>| {
            ctx.set_mailbox_capacity(capacity);
            partition
        });
        let permits = Permits::new(self.settings.queue);
        // Taken before anybody else sees the partition: it cannot be put to sleep before its first use.
        let permit = permits.try_take().ok_or(WriteError::Busy)?;
        let entry = Entry::new(addr, permits, vitals, self.clock.elapsed());
        self.table.insert(address, entry);
        self.sweep_later(ctx);
        Ok(permit)
    }

    /// Partitions are spread over threads by their address.
    fn arbiter(&self, address: &EncodedPartition) -> Option<&ArbiterHandle> {
        let hash = twox_hash::XxHash3_64::oneshot(address.as_bytes());
        let count = u64::try_from(self.arbiters.len().max(1)).unwrap_or(1);
        // The low bits chose the shard; the high ones choose the thread.
        self.arbiters.get(usize::try_from((hash >> 32) % count).unwrap_or(0))
    }

    /// Puts the least recently used idle partitions to sleep. Only when all others are in use does
    /// one in quarantine go: better an early end of that than no room for anybody.
    fn make_room(&self) -> bool {
        /// Share of the table that is freed at once, so that a full table is not swept for each wake.
        const SHARE: usize = 16;
        self.free(Phase::Open, self.settings.awake.div_ceil(SHARE)) || self.free(Phase::Quarantined, 1)
    }

    fn free(&self, phase: Phase, wanted: usize) -> bool {
        let mut idle = self.table.idle_before(Duration::MAX, phase);
        idle.sort_unstable_by_key(|(_, used)| *used);
        let mut freed = 0;
        for (address, _) in idle {
            if freed >= wanted {
                break;
            }
            freed += usize::from(self.put_to_sleep(&address, phase));
        }
        freed > 0
    }

    fn put_to_sleep(&self, address: &EncodedPartition, phase: Phase) -> bool {
        let Some(entry) = self.table.remove_idle(address, phase) else { return false };
        // A full mailbox is impossible: nobody holds a permit. A closed one is asleep already.
        entry.addr().try_send(FallAsleep).ok();
        true
    }

    /// Looks for sleepers while anybody is awake, and not otherwise: idleness costs no CPU.
    fn sweep_later(&mut self, ctx: &mut Context<Self>) {
        if self.sweeping {
            return;
        }
        self.sweeping = true;
        let pause = (self.settings.idle / 4).max(Duration::from_millis(10));
        ctx.run_later(pause, |actor, ctx| {
            actor.sweeping = false;
            let idle = actor.settings.idle;
            let before = actor.clock.elapsed().saturating_sub(idle);
            if actor.clock.elapsed() >= idle {
                for (address, _) in actor.table.idle_before(before, Phase::Open) {
                    actor.put_to_sleep(&address, Phase::Open);
                }
            }
            if actor.table.len() > 0 {
                actor.sweep_later(ctx);
            }
        });
    }
}

impl Actor for Directory {
    type Context = Context<Self>;
}

impl Handler<WakePartition> for Directory {
    type Result = Result<Permit, WriteError>;

    fn handle(&mut self, WakePartition(address): WakePartition, ctx: &mut Self::Context) -> Self::Result {
        self.table.asked.fetch_add(1, Ordering::Relaxed);
        contain(|| self.wake(address, ctx)).unwrap_or_else(|panicked| {
            tracing::error!(panic = panicked.0, "partition not woken");
            Err(WriteError::Crashed)
        })
    }
}

impl Handler<ReopenPartition> for Directory {
    type Result = bool;

    fn handle(&mut self, ReopenPartition(address): ReopenPartition, _: &mut Self::Context) -> bool {
        let awake = self.table.get(&address, self.clock.elapsed());
        awake.is_some_and(|awake| awake.addr().try_send(Reopen).is_ok())
    }
}
