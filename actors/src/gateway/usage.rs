//! What each tenant has used with each of its keys, hour by hour: calls, request units, bytes, events.
//!
//! Stands between answered requests and whoever bills them. Counts are kept in memory and written every few seconds
//! as rows of the first shard. A row holds the sum of one run of the process, not what was added to it: writing it
//! again changes nothing, so an unknown outcome is no danger. Invariants: counting never waits for the disk and never
//! takes more memory than [`MOST`] counts; after a crash at most the last few seconds are missing, and nothing is
//! ever counted twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::random::Randomness;
use crate::kernel::ask::{NoAnswer, answer};
use crate::kernel::clock::SharedClock;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Name, TenantId};
use crate::model::time::Timestamp;
use crate::policy::charge::RequestUnits;
use crate::shard::{CommitError, ShardHandle, ShardReadError};

/// What the keys of the rows begin with.
const PREFIX: &[u8] = b"usage/";
/// Counts that are held in memory. What finds no place there is counted together, for nobody in particular.
const MOST: usize = 10_000;
/// Time between two writes of what was counted.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time for one of them.
const DEADLINE: Duration = Duration::from_secs(10);
/// Rows in one batch, and rows that are read at once.
const ROWS: usize = 500;
/// How long rows are kept, in hours: 400 days.
const KEPT: u64 = 400 * 24;
const HOUR_MILLIS: u64 = 3_600_000;
/// Version of a row's layout.
const VERSION: u8 = 1;

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// Calls that were admitted.
    pub calls: u64,
    /// What they cost, in hundredths of a request unit.
    pub hundredths: u64,
    /// Bytes of their bodies.
    pub bytes_in: u64,
    /// Bytes of the bodies of their answers.
    pub bytes_out: u64,
    /// Events that were published.
    pub events: u64,
}

impl Used {
    /// One call.
    pub fn call(cost: RequestUnits, bytes_in: u64, bytes_out: u64) -> Self {
        Self { calls: 1, hundredths: cost.hundredths(), bytes_in, bytes_out, events: 0 }
    }

    /// What they cost.
    pub fn cost(&self) -> RequestUnits {
        RequestUnits::from_hundredths(self.hundredths)
    }

    fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.hundredths = self.hundredths.saturating_add(other.hundredths);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.events = self.events.saturating_add(other.events);
    }
}

/// Whose use it was; `None` for what found no place in memory.
pub type User = Option<(TenantId, Name)>;

/// An hour since 1970, and whose use it was.
type Slot = (u64, User);

/// A sum in memory.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    used: Used,
    /// Grows with each change.
    revision: u64,
    /// The revision that is on disk.
    stored: u64,
}

/// A sum as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    used: Used,
}

/// Everybody's way to the counts; cheap to clone.
#[derive(Clone)]
pub struct UsageHandle(Arc<Inner>);

struct Inner {
    shard: ShardHandle,
    clock: SharedClock,
    /// Tells this run's rows from those of others.
    run: String,
    sums: Mutex<HashMap<Slot, Sum>>,
    /// The latest hour that was counted in: a clock that goes back must not begin an hour again whose sum has left
    /// memory.
    latest: AtomicU64,
    flushing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for UsageHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageHandle").field("run", &self.0.run).finish_non_exhaustive()
    }
}

/// Why counts are not on disk yet. They are kept, and written with the next try.
#[derive(Debug, thiserror::Error)]
pub enum UsageNotStored {
    /// The shard did not write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The shard cannot be read.
    #[error(transparent)]
    Read(#[from] ShardReadError),
}

impl UsageHandle {
    /// Begins to count; `shard` is the one that holds the process's own rows.
    pub fn new(shard: ShardHandle, clock: SharedClock, random: &Randomness) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = random.bytes();
        let run = format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        let (sums, flushing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { shard, clock, run, sums, latest: AtomicU64::new(0), flushing }))
    }

    /// Counts what a tenant used with one of its keys.
    pub fn note(&self, tenant: &TenantId, key: &Name, used: &Used) {
        let now = hour(self.0.clock.now());
        let hour = self.0.latest.fetch_max(now, Ordering::Relaxed).max(now);
        let mut sums = self.0.sums();
        let mut slot = (hour, Some((tenant.clone(), key.clone())));
        if sums.len() >= MOST && !sums.contains_key(&slot) {
            slot = (hour, None);
        }
        let sum = sums.entry(slot).or_default();
        sum.used.add(used);
        sum.revision += 1;
    }

    /// Writes what was counted, every few seconds, for ever.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "usage not stored");
            }
        }
    }

    /// Writes what was counted and is not on disk yet.
    ///
    /// # Errors
    /// [`UsageNotStored`]; nothing is lost, the next try writes it.
    pub async fn flush(&self) -> Result<(), UsageNotStored> {
        let inner = &self.0;
        let _turn = inner.flushing.lock().await;
        let now = hour(inner.clock.now());
        let changed: Vec<(Slot, Sum)> = {
            let mut sums = inner.sums();
            // A past hour that is on disk is looked for there.
            sums.retain(|(hour, _), sum| *hour >= now || sum.stored < sum.revision);
            let changed = sums.iter().filter(|(_, sum)| sum.stored < sum.revision);
            changed.map(|(slot, sum)| (slot.clone(), *sum)).collect()
        };
        for part in changed.chunks(ROWS) {
            inner.commit(part.iter().map(|(slot, sum)| inner.row(slot, &sum.used)).collect()).await?;
            let mut sums = inner.sums();
            for (slot, written) in part {
                if let Some(sum) = sums.get_mut(slot) {
                    sum.stored = written.revision;
                }
            }
        }
        inner.forget(now.saturating_sub(KEPT)).await
    }

    /// What was used from the hour of `from` up to, and without, the hour of `to` (but never less than one hour), by
    /// `tenant` or by all. Reads the disk.
    ///
    /// # Errors
    /// [`ShardReadError`] when the shard cannot be read.
    pub fn read(
        &self,
        tenant: Option<&TenantId>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<BTreeMap<User, Used>, ShardReadError> {
        let first = hour(from);
        let end = to.0.div_ceil(HOUR_MILLIS).max(first + 1);
        let wanted = |slot: &Slot| {
            let of_tenant =
                tenant.is_none_or(|tenant| slot.1.as_ref().is_some_and(|(owner, _)| owner == tenant));
            (first..end).contains(&slot.0) && of_tenant
        };
        // Memory before disk: what leaves memory meanwhile is on disk already.
        let mut own: HashMap<Slot, Used> = self
            .0
            .sums()
            .iter()
            .filter(|(slot, _)| wanted(slot))
            .map(|(slot, sum)| (slot.clone(), sum.used))
            .collect();
        let mut all: BTreeMap<User, Used> = BTreeMap::new();
        let mut after: Bytes = format!("{first:08}").into();
        'pages: loop {
            let rows = self.0.shard.view()?.rows(Table::System, PREFIX, Some(&after), ROWS)?;
            let Some((last, _)) = rows.last() else { break };
            after = last.clone();
            for (key, value) in rows {
                // A row that cannot be read is of a newer release, which counts in another way.
                let Some((slot, run)) = parse(&key) else { continue };
                if slot.0 >= end {
                    break 'pages;
                }
                let Some(row) =
                    serde_json::from_slice::<Row>(&value).ok().filter(|row| row.version == VERSION)
                else {
                    continue;
                };
                if wanted(&slot) && !(run == self.0.run && own.contains_key(&slot)) {
                    all.entry(slot.1).or_default().add(&row.used);
                }
            }
        }
        for ((_, user), used) in own.drain() {
            all.entry(user).or_default().add(&used);
        }
        Ok(all)
    }
}

impl Inner {
    fn sums(&self) -> MutexGuard<'_, HashMap<Slot, Sum>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn row(&self, (hour, user): &Slot, used: &Used) -> Mutation {
        let (tenant, key) = user.as_ref().map_or(("", ""), |(tenant, key)| (tenant.as_str(), &**key));
        // Neither a run nor a tenant has a zero in it.
        let key = [PREFIX, format!("{hour:08}/{}\0{tenant}\0{key}", self.run).as_bytes()].concat().into();
        // Numbers always have a JSON form.
        let value = serde_json::to_vec(&Row { version: VERSION, used: *used }).unwrap_or_default().into();
        Mutation::Put { table: Table::System, key, value }
    }

    async fn commit(&self, rows: Vec<Mutation>) -> Result<(), CommitError> {
        let reply = self.shard.commit_lazily(rows)?;
        match answer(reply, DEADLINE).await {
            Ok(committed) => committed.map(|_| ()),
            Err(NoAnswer::TimedOut | NoAnswer::Closed) => Err(CommitError::Unknown),
        }
    }

    /// Takes away rows of hours before `first`, some at a time.
    async fn forget(&self, first: u64) -> Result<(), UsageNotStored> {
        let rows = self.shard.view()?.rows(Table::System, PREFIX, None, 1).map_err(ShardReadError::from)?;
        let is_old = |key: &Bytes| parse(key).is_some_and(|((hour, _), _)| hour < first);
        if !rows.iter().any(|(key, _)| is_old(key)) {
            return Ok(());
        }
        let rows =
            self.shard.view()?.rows(Table::System, PREFIX, None, ROWS).map_err(ShardReadError::from)?;
        let old = rows.iter().map(|(key, _)| key).take_while(|key| is_old(key));
        let gone =
            |key: &Bytes| Mutation::Delete { table: Table::System, key: [PREFIX, key].concat().into() };
        Ok(self.commit(old.map(gone).collect()).await?)
    }
}

fn hour(at: Timestamp) -> u64 {
    at.0 / HOUR_MILLIS
}

/// The slot of a row, and the run that counted it.
fn parse(key: &[u8]) -> Option<(Slot, &str)> {
    let (hour, rest) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let (run, user) = rest.split_once('\0')?;
    let (tenant, key) = user.split_once('\0')?;
    let user = match tenant {
        "" => None,
        tenant => Some((TenantId::new(tenant).ok()?, Name::from(key))),
    };
    Some(((hour.parse().ok()?, user), run))
}

#[cfg(test)]
mod tests;
