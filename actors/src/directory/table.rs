//! The table of awake partitions: read by every writer, changed by the directory alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix::Addr;

use crate::kernel::permits::Permits;
use crate::model::address::EncodedPartition;
use crate::partition::{Partition, Phase, Vitals};
use crate::protocol::partition::{WriteDocuments, WriteError};

/// Parts of the table, so that writers of different partitions seldom meet at a lock.
const PARTS: usize = 16;

/// One awake partition.
#[derive(Debug)]
pub(super) struct Entry {
    addr: Addr<Partition>,
    permits: Permits,
    vitals: Arc<Vitals>,
    /// Milliseconds of the monotonic clock at the last use.
    used: AtomicU64,
}

/// A hold on an awake partition's entry.
#[derive(Debug, Clone)]
pub(super) struct Awake(Arc<Entry>);

impl Awake {
    /// The places in the partition's queue.
    pub(super) fn permits(&self) -> &Permits {
        &self.0.permits
    }

    /// Sends a write that has its permit.
    pub(super) fn tell(&self, message: WriteDocuments) -> Result<(), WriteError> {
        if !self.is_alive() {
            return Err(WriteError::Unavailable);
        }
        // `try_send` would refuse a burst at a partition that is just waking: its mailbox has
        // the default size until its thread has run for the first time.
        #[expect(clippy::disallowed_methods, reason = "the message carries its permit, which is the bound")]
        self.0.addr.do_send(message);
        Ok(())
    }

    /// Whether there is an actor behind the address. One that was lost is made again by a wake.
    pub(super) fn is_alive(&self) -> bool {
        self.0.addr.connected()
    }

    pub(super) fn addr(&self) -> &Addr<Partition> {
        &self.0.addr
    }

    pub(super) fn vitals(&self) -> &Vitals {
        &self.0.vitals
    }
}

impl Entry {
    pub(super) fn new(addr: Addr<Partition>, permits: Permits, vitals: Arc<Vitals>, now: Duration) -> Self {
        Self { addr, permits, vitals, used: AtomicU64::new(millis(now)) }
    }

    fn is_idle(&self, phase: Phase) -> bool {
        self.permits.taken() == 0 && self.vitals.phase() == phase
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    parts: [RwLock<HashMap<EncodedPartition, Arc<Entry>>>; PARTS],
    pub(super) asked: AtomicU64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Table {
    fn part(&self, address: &EncodedPartition) -> &RwLock<HashMap<EncodedPartition, Arc<Entry>>> {
        let hash = twox_hash::XxHash3_64::oneshot(address.as_bytes());
        let [first, ..] = &self.parts;
        self.parts.get(usize::try_from(hash >> 48).unwrap_or(0) % PARTS).unwrap_or(first)
    }

    pub(super) fn get(&self, address: &EncodedPartition, now: Duration) -> Option<Awake> {
        let part = self.part(address).read().unwrap_or_else(PoisonError::into_inner);
        let entry = part.get(address)?;
        entry.used.store(millis(now), Ordering::Relaxed);
        Some(Awake(entry.clone()))
    }

    pub(super) fn insert(&self, address: EncodedPartition, entry: Entry) {
        let mut part = self.part(&address).write().unwrap_or_else(PoisonError::into_inner);
        part.insert(address, Arc::new(entry));
    }

    /// Removes a partition in this phase that nobody uses: no permit is out, and nobody holds its
    /// entry, so nobody can take one.
    pub(super) fn remove_idle(&self, address: &EncodedPartition, phase: Phase) -> Option<Awake> {
        let mut part = self.part(address).write().unwrap_or_else(PoisonError::into_inner);
        let entry = part.get(address)?;
        if Arc::strong_count(entry) > 1 || !entry.is_idle(phase) {
            return None;
        }
        part.remove(address).map(Awake)
    }

    /// Idle partitions in this phase that were last used before `time`, with that time.
    pub(super) fn idle_before(&self, time: Duration, phase: Phase) -> Vec<(EncodedPartition, u64)> {
        let before = millis(time);
        let mut idle = Vec::new();
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            for (address, entry) in &*part {
                let used = entry.used.load(Ordering::Relaxed);
                if used < before && entry.is_idle(phase) {
                    idle.push((address.clone(), used));
                }
            }
        }
        idle
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(super) fn all(&self, limit: usize) -> Vec<(EncodedPartition, Awake)> {
        let mut all = Vec::new();
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let room = limit.saturating_sub(all.len());
            all.extend(
                part.iter().take(room).map(|(address, entry)| (address.clone(), Awake(entry.clone()))),
            );
        }
        all
    }
}
