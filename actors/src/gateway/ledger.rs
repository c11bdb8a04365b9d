//! What must outlive the process of what admission counts: use of quotas, and when keys were last used.
//!
//! Stands between the accounts in memory and their rows in the first shard. A row of a quota holds the sum of one run
//! of the process: writing it again changes nothing, and the rows of several runs add up. Invariants: admission never
//! waits for the disk; after a crash a quota has forgotten at most what was used within [`INTERVAL`], and counts at
//! most a hundredth too much.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::random::Randomness;
use super::state::{GatewaySettings, GatewayState};
use crate::kernel::ask::{NoAnswer, answer};
use crate::model::change::{Mutation, Table};
use crate::model::ids::Name;
use crate::model::time::Timestamp;
use crate::policy::quota::{Accounts, Quota, Spent, Tally};
use crate::policy::terms::{Book, Sold};
use crate::shard::{CommitError, ShardHandle, ShardReadError};

/// What the keys of the rows begin with.
const QUOTAS: &[u8] = b"quota/";
const USED: &[u8] = b"key-used/";
/// Time between two writes of what was used.
const INTERVAL: Duration = Duration::from_secs(1);
/// Writes between two of when keys were used, and between two looks for what can be forgotten.
const SELDOM: u32 = 60;
/// Time for one write.
const DEADLINE: Duration = Duration::from_secs(10);
/// Rows in one batch, and rows that are read at once.
const ROWS: usize = 500;
/// How long after the end of its period a row is kept: long enough for a clock that is set right.
const KEPT: Duration = Duration::from_secs(86_400);
/// Most that is written down before it is used.
const CALLS_AHEAD: u64 = 1_000;
const BYTES_AHEAD: u64 = 16 << 20;
/// Version of a row's layout.
const VERSION: u8 = 1;

/// What a run used, as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    tally: Tally,
}

/// Everybody's way to what is remembered; cheap to clone.
#[derive(Clone)]
pub struct LedgerHandle(Arc<Inner>);

struct Inner {
    state: Arc<GatewayState>,
    shard: ShardHandle,
    random: Randomness,
    /// Which accounts have taken over what is stored, and what this process calls its own rows of them.
    loaded: Mutex<HashMap<Name, (Arc<Accounts>, String)>>,
    /// When the last use of each key was that is on disk.
    used: Mutex<HashMap<String, Timestamp>>,
    flushing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for LedgerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerHandle")
    }
}

/// Why something is not on disk yet. It is kept, and written with the next try.
#[derive(Debug, thiserror::Error)]
pub enum LedgerNotStored {
    /// The shard did not write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The shard cannot be read.
    #[error(transparent)]
    Read(#[from] ShardReadError),
}

impl LedgerHandle {
    /// Takes over what is stored; `shard` is the one that holds the process's own rows.
    ///
    /// # Errors
    /// When the shard cannot be read.
    pub fn open(
        state: Arc<GatewayState>,
        shard: ShardHandle,
        random: Randomness,
    ) -> Result<Self, ShardReadError> {
        let (loaded, used, flushing) = (Mutex::default(), Mutex::default(), tokio::sync::Mutex::default());
        let this = Self(Arc::new(Inner { state, shard, random, loaded, used, flushing }));
        this.0.load(&this.0.state.book())?;
        this.0.load_used()?;
        Ok(this)
    }

    /// Sells by these settings from now on. What goes by the same name goes on counting; a quota that is new, or is
    /// there again, goes on where its rows are.
    ///
    /// # Errors
    /// When the shard cannot be read; everything stays as it is.
    pub fn apply(&self, settings: &GatewaySettings) -> Result<(), ShardReadError> {
        let book = self.0.state.book_of(settings);
        self.0.load(&book)?;
        self.0.state.follow(book);
        Ok(())
    }

    /// Writes what was used, for ever.
    pub async fn keep(self) {
        let mut round = 0_u32;
        loop {
            tokio::time::sleep(INTERVAL).await;
            round = round.wrapping_add(1);
            let seldom = round.is_multiple_of(SELDOM);
            if let Err(error) = self.write(seldom, ahead).await {
                tracing::warn!(%error, "use of quotas not stored");
            }
            if seldom {
                self.0.state.sweep();
            }
        }
    }

    /// Writes exactly what was used; at the end of the process.
    ///
    /// # Errors
    /// [`LedgerNotStored`]; what was not written is counted again with the next try.
    pub async fn flush(&self) -> Result<(), LedgerNotStored> {
        self.write(true, |_| Spent::default()).await
    }

    async fn write(&self, seldom: bool, ahead: fn(&Quota) -> Spent) -> Result<(), LedgerNotStored> {
        let inner = &self.0;
        let _turn = inner.flushing.lock().await;
        for sold in inner.state.book().quotas() {
            let run = inner.loaded().get(&sold.rule.name).map(|(_, run)| run.clone());
            let Some(run) = run else { continue };
            let rows = sold.accounts.rows(ahead(&sold.rule.quota));
            for part in rows.chunks(ROWS) {
                inner.commit(part.iter().map(|row| put(sold, &run, row)).collect()).await?;
                sold.accounts.written(part);
            }
        }
        if seldom {
            inner.write_used().await?;
            inner.forget().await?;
        }
        Ok(())
    }
}

/// What is written down before it is used, so that a crash forgets little and few writes are needed.
fn ahead(quota: &Quota) -> Spent {
    let part = |limit: Option<u64>, most: u64| limit.map_or(0, |limit| (limit / 100).min(most));
    Spent { calls: part(quota.calls, CALLS_AHEAD), bytes: part(quota.bytes, BYTES_AHEAD) }
}

impl Inner {
    fn loaded(&self) -> MutexGuard<'_, HashMap<Name, (Arc<Accounts>, String)>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets accounts that are new take over what is stored of them.
    fn load(&self, book: &Book) -> Result<(), ShardReadError> {
        let now = self.state.clock().now();
        for sold in book.quotas() {
            let name = &sold.rule.name;
            let is_known = |(accounts, _): &(Arc<Accounts>, String)| Arc::ptr_eq(accounts, &sold.accounts);
            if self.loaded().get(name).is_some_and(is_known) {
                continue;
            }
            let mut rows: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
            self.read(&prefix(name), |key, value| {
                if let (Some((_, _, user)), Some(tally)) = (parse(key), tally(value)) {
                    rows.entry(user.to_owned()).or_default().push(tally);
                }
            })?;
            for (user, tallies) in rows {
                if let Some(sum) = Tally::sum(sold.rule.quota.period, tallies, now) {
                    sold.accounts.load(&user.into(), sum);
                }
            }
            self.loaded().insert(name.clone(), (sold.accounts.clone(), self.run()));
        }
        Ok(())
    }

    fn load_used(&self) -> Result<(), ShardReadError> {
        let ring = self.state.ring();
        let mut known = HashMap::new();
        self.read(USED, |id, value| {
            let at = <[u8; 8]>::try_from(value).map(|bytes| Timestamp(u64::from_be_bytes(bytes)));
            if let (Ok(id), Ok(at)) = (std::str::from_utf8(id), at) {
                if let Some(grant) = ring.get(id) {
                    grant.used.note(at);
                }
                known.insert(id.to_owned(), at);
            }
        })?;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    async fn write_used(&self) -> Result<(), LedgerNotStored> {
        let changed: Vec<(String, Timestamp)> = {
            let stored = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let ring = self.state.ring();
            let used = ring.list().filter_map(|grant| Some((grant.id.clone(), grant.used.get()?)));
            used.filter(|(id, at)| stored.get(id).is_none_or(|stored| stored < at)).collect()
        };
        for part in changed.chunks(ROWS) {
            let row = |(id, at): &(String, Timestamp)| Mutation::Put {
                table: Table::System,
                key: [USED, id.as_bytes()].concat().into(),
                value: at.0.to_be_bytes().to_vec().into(),
            };
            self.commit(part.iter().map(row).collect()).await?;
            self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(part.iter().cloned());
        }
        Ok(())
    }

    /// Takes away rows of periods that are long over, and of quotas that are not sold any more.
    async fn forget(&self) -> Result<(), LedgerNotStored> {
        let now = self.state.clock().now();
        let mut gone = Vec::new();
        for sold in self.state.book().quotas() {
            let (name, period) = (&sold.rule.name, sold.rule.quota.period);
            self.read(&prefix(name), |key, value| {
                let Some(tally) = tally(value) else { return };
                let end = period.span(tally.start, Some(tally.start)).end;
                if end.is_some_and(|end| end.after(KEPT) <= now) {
                    let key = [&prefix(name), key].concat().into();
                    gone.push(Mutation::Delete { table: Table::System, key });
                }
            })?;
        }
        let mut gone = gone.into_iter().peekable();
        while gone.peek().is_some() {
            self.commit(gone.by_ref().take(ROWS).collect()).await?;
        }
        Ok(())
    }

    /// Reads all rows whose key begins so; what is told of a key is the rest of it.
    fn read(&self, prefix: &[u8], mut row: impl FnMut(&[u8], &[u8])) -> Result<(), ShardReadError> {
        let mut after: Option<Bytes> = None;
        loop {
            let view = self.shard.view()?;
            let rows = view.rows(Table::System, prefix, after.as_deref(), ROWS);
            let rows = rows.map_err(ShardReadError::from)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in &rows {
                row(key, value);
            }
        }
    }

    async fn commit(&self, rows: Vec<Mutation>) -> Result<(), CommitError> {
        if rows.is_empty() {
            return Ok(());
        }
        let reply = self.shard.commit_lazily(rows)?;
        match answer(reply, DEADLINE).await {
            Ok(committed) => committed.map(|_| ()),
            Err(NoAnswer::TimedOut | NoAnswer::Closed) => Err(CommitError::Unknown),
        }
    }

    /// A name for rows that nobody has used.
    fn run(&self) -> String {
        let [a, b, c, d, e, f, g, h, ..] = self.random.bytes();
        format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

fn prefix(quota: &str) -> Vec<u8> {
    [QUOTAS, quota.as_bytes(), b"\0"].concat()
}

fn put(sold: &Sold, run: &str, (user, tally): &(Name, Tally)) -> Mutation {
    // No name of a quota and no run has a zero in it.
    let rest = format!("{:013}/{run}\0{user}", tally.start.0);
    let key = [prefix(&sold.rule.name), rest.into_bytes()].concat().into();
    // Numbers always have a JSON form.
    let value = serde_json::to_vec(&Row { version: VERSION, tally: *tally }).unwrap_or_default().into();
    Mutation::Put { table: Table::System, key, value }
}

/// The start of the period, the run, and whose use it was.
fn parse(key: &[u8]) -> Option<(u64, &str, &str)> {
    let (start, rest) = std::str::from_utf8(key).ok()?.split_once('/')?;
    let (run, user) = rest.split_once('\0')?;
    Some((start.parse().ok()?, run, user))
}

/// What a row says. One that cannot be read is of a newer release, which counts in another way.
fn tally(value: &[u8]) -> Option<Tally> {
    let row: Row = serde_json::from_slice(value).ok()?;
    (row.version == VERSION).then_some(row.tally)
}
