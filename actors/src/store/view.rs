//! The redb file: applying groups, checkpoints, snapshots for readers.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fail::fail_point;
use redb::{Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use self::read::{Failure, keyed, place};
use super::apply::{DOCUMENTS, Definition, Extent, ORDER, Tables, definition};
use super::backend::Contained;
use super::envelope;
use super::{ApplyError, OpenError, ViewReadError};
use crate::log::disk::Disk;
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::change::{CommittedGroup, Table};
use crate::model::ids::Lsn;

mod read;

pub use self::read::{EntryPage, KeyedDocument, Page, Row, StoredDocument, Version};

const META: Definition = TableDefinition::new("meta");
/// Format 1 kept an order for each partition; it is rebuilt when such a file is opened.
/// Before format 4 nobody counted what is in each container; it is counted when such a file is opened.
const FORMAT: u32 = 4;
const FORMAT_KEY: &[u8] = b"format";
const APPLIED_KEY: &[u8] = b"applied";
const HELD_KEY: &[u8] = b"held";
/// What the keys of the counts begin with; the bytes of a container's name follow.
const EXTENT_KEY: &[u8] = b"extent/";
/// Name of the view's file in its shard's folder.
pub(crate) const FILE: &str = "view.redb";

/// Bytes of documents. Counted since the count began, so they may be below 0 in an older file.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    now: i64,
    /// The most that there ever were: the file became long enough for them, and stays so.
    most: i64,
}

impl Held {
    fn grown(self, by: i64) -> Self {
        let now = self.now.saturating_add(by);
        Self { now, most: self.most.max(now) }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (now, most) = bytes.split_first_chunk::<8>()?;
        Some(Self { now: i64::from_le_bytes(*now), most: i64::from_le_bytes(most.try_into().ok()?) })
    }

    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let halves = self.now.to_le_bytes().into_iter().chain(self.most.to_le_bytes());
        bytes.iter_mut().zip(halves).for_each(|(place, byte)| *place = byte);
        bytes
    }
}

/// The view of one shard.
pub struct View {
    database: Contained,
    applied: AtomicU64,
    held: Mutex<Held>,
    /// Held while something is written; true after a write failed.
    broken: Mutex<bool>,
    /// How often something was found damaged.
    damaged: AtomicU64,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl View {
    /// Makes an empty view.
    pub fn create(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, OpenError> {
        let file = disk.create(FILE).map_err(broken)?;
        let view = Self::assemble(Contained::open(file, cache_bytes)?);
        view.write(|transaction| {
            transaction.set_quick_repair(true);
            transaction.open_table(DOCUMENTS)?;
            transaction.open_table(ORDER)?;
            for table in Table::ALL {
                transaction.open_table(definition(table))?;
            }
            put_meta(transaction, FORMAT_KEY, &FORMAT.to_le_bytes())?;
            mark(transaction, Lsn::ZERO)
        })
        .map_err(broken)?;
        disk.sync_names().map_err(broken)?;
        Ok(view)
    }

    /// Opens the view as it was at its last checkpoint.
    pub fn open(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, OpenError> {
        let file = disk.open(FILE).map_err(|_| OpenError::NotAView(FILE.into()))?;
        // An empty or cut file would be taken for a new database: refuse it here.
        if file.is_empty().map_err(broken)? {
            return Err(OpenError::NotAView(FILE.into()));
        }
        let view = Self::assemble(Contained::open(file, cache_bytes)?);
        let format = view.meta(FORMAT_KEY)?.and_then(|bytes| bytes.as_ref().try_into().ok());
        let format = format.map(u32::from_le_bytes).ok_or_else(|| OpenError::NotAView(FILE.into()))?;
        if format > FORMAT {
            return Err(OpenError::Newer { found: format, supported: FORMAT });
        }
        let applied = view.meta(APPLIED_KEY)?.and_then(|bytes| bytes.as_ref().try_into().ok());
        let applied = applied.map(u64::from_le_bytes).ok_or_else(|| OpenError::NotAView(FILE.into()))?;
        view.applied.store(applied, Ordering::Release);
        let held = view.meta(HELD_KEY)?.and_then(|bytes| Held::parse(&bytes));
        *view.held() = held.unwrap_or_default();
        if format < FORMAT {
            view.upgrade(format)?;
        }
        Ok(view)
    }

    /// Brings a file of an older format to this one, in one transaction.
    fn upgrade(&self, from: u32) -> Result<(), OpenError> {
        tracing::info!(from, to = FORMAT, "view upgraded");
        let upgraded = self.write(|transaction| {
            transaction.set_quick_repair(true);
            for table in Table::ALL {
                transaction.open_table(definition(table))?;
            }
            if from < 2 {
                rebuild_order(transaction)?;
            }
            count_documents(transaction)?;
            put_meta(transaction, FORMAT_KEY, &FORMAT.to_le_bytes())?;
            mark(transaction, self.applied())
        });
        upgraded.map(|_| ()).map_err(broken)
    }

    fn assemble(database: Contained) -> Self {
        Self {
            database,
            applied: AtomicU64::new(0),
            held: Mutex::default(),
            broken: Mutex::new(false),
            damaged: AtomicU64::new(0),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that documents have left behind inside of the file, for others to take without its growing. A rough
    /// figure: of what is gone, half, because pages stay that are not empty.
    pub fn slack(&self) -> u64 {
        let held = *self.held();
        u64::try_from(held.most.saturating_sub(held.now)).unwrap_or(0) / 2
    }

    /// The position up to which the log has been applied.
    pub fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    /// Applies groups in one transaction: visible at once, durable at the next checkpoint.
    /// Mutations that were applied before are passed over, so a replay may overlap.
    pub fn apply(&self, groups: &[CommittedGroup]) -> Result<(), ApplyError> {
        fail_point!("view::apply", |_| Err(ApplyError::Broken("injected".into())));
        let Some(last) = groups.last().map(CommittedGroup::last) else { return Ok(()) };
        for pair in groups.windows(2) {
            if let [before, group] = pair
                && group.first <= before.last()
            {
                return Err(ApplyError::OutOfOrder { group: group.first, applied: before.last() });
            }
        }
        if last <= self.applied() {
            return Ok(());
        }
        let mut held = *self.held();
        self.write(|transaction| {
            let applied = self.applied();
            transaction.set_durability(Durability::None).map_err(redb::Error::from)?;
            let mut tables = Tables::new(transaction);
            tables.apply(groups, applied)?;
            for (container, more) in tables.grown() {
                held = held.grown(more.bytes);
                let extent = extent_of(transaction, &container)?.plus(more);
                put_extent(transaction, &container, extent)?;
            }
            put_meta(transaction, HELD_KEY, &held.encode())?;
            let reached = last.max(applied);
            mark(transaction, reached)
        })?;
        *self.held() = held;
        Ok(())
    }

    /// Writes and syncs what the file holds so far, beside everything else that goes on. Nothing
    /// becomes durable by it, but the next checkpoint has less to write.
    pub fn write_back(&self) -> io::Result<()> {
        self.database.write_back()
    }

    /// Whether there is room for what the file is to hold; a checkpoint without it would break the view. Writes
    /// as much as there is.
    pub fn has_room(&self) -> bool {
        self.database.write_out()
    }

    /// Makes everything applied durable, in a way that opens again at once after a crash.
    pub fn checkpoint(&self) -> Result<Lsn, ApplyError> {
        fail_point!("view::checkpoint", |_| Err(ApplyError::Broken("injected".into())));
        self.write(|transaction| {
            transaction.set_quick_repair(true);
            mark(transaction, self.applied())
        })
    }

    /// Runs `work` on one snapshot, with the position that it has.
    pub(super) fn snapshot<R>(
        &self,
        work: impl FnOnce(&ReadTransaction, Lsn) -> R,
    ) -> Result<R, ViewReadError> {
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let applied = meta.get(APPLIED_KEY)?.ok_or(ViewReadError::Corrupt)?;
            let applied = envelope::open(APPLIED_KEY, applied.value())?;
            let applied = applied.try_into().map_err(|_| ViewReadError::Corrupt)?;
            Ok(work(transaction, Lsn(u64::from_le_bytes(applied))))
        })
    }

    /// Runs one transaction, alone; `work` returns the position that the view then has.
    pub(super) fn write(
        &self,
        work: impl FnOnce(&mut WriteTransaction) -> Result<Lsn, redb::Error>,
    ) -> Result<Lsn, ApplyError> {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if *broken {
            return Err(ApplyError::Broken("stopped after an earlier error".into()));
        }
        let attempt = || -> Result<Lsn, redb::Error> {
            let mut transaction = self.database.get()?.begin_write()?;
            let reached = work(&mut transaction)?;
            transaction.commit()?;
            Ok(reached)
        };
        // A damaged page can make redb panic; to us that is a broken file like any other.
        let result = match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(result) => result.map_err(|error| ApplyError::Broken(error.to_string())),
            Err(_) => Err(ApplyError::Broken("the file's structure is damaged".into())),
        };
        match &result {
            Ok(reached) => self.applied.store(reached.0, Ordering::Release),
            Err(_) => *broken = true,
        }
        result
    }

    /// What is in a container, as far as the log is applied.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn extent(&self, container: &str) -> Result<Extent, ViewReadError> {
        let key = [EXTENT_KEY, &PartitionAddress::container_prefix(container)].concat();
        self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            let Some(found) = meta.get(key.as_slice())? else { return Ok(Extent::default()) };
            Ok(parse_extent(envelope::open(&key, found.value())?).unwrap_or_default())
        })
    }

    fn meta(&self, key: &'static [u8]) -> Result<Option<Bytes>, OpenError> {
        let found = self.read(|transaction| {
            let meta = match transaction.open_table(META) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                other => other?,
            };
            let found = meta.get(key)?;
            found.map(|sealed| Ok(Bytes::copy_from_slice(envelope::open(key, sealed.value())?))).transpose()
        });
        found.map_err(broken)
    }

    /// Runs `work` on a snapshot, which ends with it. A panic on a damaged page is contained.
    fn read<R>(&self, work: impl FnOnce(&ReadTransaction) -> Result<R, Failure>) -> Result<R, ViewReadError> {
        let attempt = || -> Result<R, Failure> { work(&self.database.get()?.begin_read()?) };
        let result = match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(result) => result.map_err(|failure| failure.0),
            Err(_) => Err(ViewReadError::Corrupt),
        };
        if matches!(result, Err(ViewReadError::Corrupt)) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a stored value is damaged and was not served; `verify` says where");
        }
        result
    }

    /// How many reads found something damaged.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

fn broken(error: impl fmt::Display) -> OpenError {
    OpenError::Broken(error.to_string())
}

pub(super) fn mark(transaction: &WriteTransaction, applied: Lsn) -> Result<Lsn, redb::Error> {
    put_meta(transaction, APPLIED_KEY, &applied.0.to_le_bytes())?;
    Ok(applied)
}

/// The order of changes as format 2 has it, made from the documents.
fn rebuild_order(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.delete_table(ORDER)?;
    let mut order = transaction.open_table(ORDER)?;
    for entry in transaction.open_table(DOCUMENTS)?.range::<&[u8]>(..)? {
        let (key, sealed) = entry?;
        // A damaged document keeps its place in the table and is reported when it is read.
        let Ok(found) = keyed(key.value(), sealed.value()) else { continue };
        let (place, rest) = place(&found);
        order.insert(place.as_slice(), rest.as_slice())?;
    }
    Ok(())
}

/// Counts what is in each container.
pub(super) fn count_documents(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut all: BTreeMap<Vec<u8>, Extent> = BTreeMap::new();
    for entry in transaction.open_table(DOCUMENTS)?.range::<&[u8]>(..)? {
        let (key, sealed) = entry?;
        let key = EncodedPartition::from_bytes(Bytes::copy_from_slice(key.value()));
        let (container, _) = key.split_container();
        let bytes = i64::try_from(key.as_bytes().len() + sealed.value().len()).unwrap_or(i64::MAX);
        let extent = all.entry(container.to_vec()).or_default();
        *extent = extent.plus(Extent { documents: 1, bytes });
    }
    for (container, extent) in all {
        put_extent(transaction, &container, extent)?;
    }
    Ok(())
}

fn extent_of(transaction: &WriteTransaction, container: &[u8]) -> Result<Extent, redb::Error> {
    let key = [EXTENT_KEY, container].concat();
    let meta = transaction.open_table(META)?;
    let found = meta.get(key.as_slice())?;
    // What cannot be read begins anew: it is a figure for people.
    Ok(found.and_then(|sealed| parse_extent(envelope::open(&key, sealed.value()).ok()?)).unwrap_or_default())
}

fn put_extent(transaction: &WriteTransaction, container: &[u8], extent: Extent) -> Result<(), redb::Error> {
    let Extent { documents, bytes } = extent;
    let value = [documents.to_le_bytes(), bytes.to_le_bytes()].concat();
    put_meta(transaction, &[EXTENT_KEY, container].concat(), &value)
}

fn parse_extent(bytes: &[u8]) -> Option<Extent> {
    let (documents, bytes) = bytes.split_first_chunk::<8>()?;
    let bytes = i64::from_le_bytes(bytes.try_into().ok()?);
    Some(Extent { documents: i64::from_le_bytes(*documents), bytes })
}

fn put_meta(transaction: &WriteTransaction, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let mut reserved = meta.insert_reserve(key, envelope::row_len(value.len()))?;
    envelope::seal_row(key, value, reserved.as_mut());
    Ok(())
}

#[cfg(test)]
mod tests;
