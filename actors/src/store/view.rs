//! The redb file: applying groups, checkpoints, snapshots for readers.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fail::fail_point;
use redb::{Durability, ReadTransaction, ReadableDatabase, StorageError, TableDefinition, WriteTransaction};

use super::apply::{DOCUMENTS, Definition, ORDER, STATE_TABLES, Tables, definition};
use super::backend::Contained;
use super::envelope;
use super::{ApplyError, OpenError, ViewReadError};
use crate::log::disk::Disk;
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::change::{CommittedGroup, Table};
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;

const META: Definition = TableDefinition::new("meta");
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const APPLIED_KEY: &[u8] = b"applied";
/// Name of the view's file in its shard's folder.
const FILE: &str = "view.redb";

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The id within its partition.
    pub id: DocumentId,
    /// Its version.
    pub lsn: Lsn,
    /// When that version was written.
    pub at: Timestamp,
    /// The user's JSON.
    pub body: Bytes,
}

/// A row of a state table: key without the prefix that was asked for, and value.
pub type Row = (Bytes, Bytes);

/// Some documents of a partition, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents.
    pub documents: Vec<StoredDocument>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// The view of one shard.
pub struct View {
    database: Contained,
    applied: AtomicU64,
    /// Held while something is written; true after a write failed.
    broken: Mutex<bool>,
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
            for table in STATE_TABLES {
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
        match format.map(u32::from_le_bytes) {
            None => return Err(OpenError::NotAView(FILE.into())),
            Some(found) if found > FORMAT => return Err(OpenError::Newer { found, supported: FORMAT }),
            Some(_) => {}
        }
        let applied = view.meta(APPLIED_KEY)?.and_then(|bytes| bytes.as_ref().try_into().ok());
        let applied = applied.map(u64::from_le_bytes).ok_or_else(|| OpenError::NotAView(FILE.into()))?;
        view.applied.store(applied, Ordering::Release);
        Ok(view)
    }

    fn assemble(database: Contained) -> Self {
        Self { database, applied: AtomicU64::new(0), broken: Mutex::new(false) }
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
        self.write(|transaction| {
            let applied = self.applied();
            transaction.set_durability(Durability::None).map_err(redb::Error::from)?;
            let mut tables = Tables::new(transaction);
            for group in groups {
                tables.apply(group, applied)?;
            }
            drop(tables);
            let reached = last.max(applied);
            mark(transaction, reached)
        })?;
        Ok(())
    }

    /// Writes and syncs what the file holds so far, beside everything else that goes on. Nothing
    /// becomes durable by it, but the next checkpoint has less to write.
    pub fn write_back(&self) -> io::Result<()> {
        self.database.write_back()
    }

    /// Makes everything applied durable, in a way that opens again at once after a crash.
    pub fn checkpoint(&self) -> Result<Lsn, ApplyError> {
        fail_point!("view::checkpoint", |_| Err(ApplyError::Broken("injected".into())));
        self.write(|transaction| {
            transaction.set_quick_repair(true);
            mark(transaction, self.applied())
        })
    }

    /// Runs one transaction, alone; `work` returns the position that the view then has.
    fn write(
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

    /// One document, or `None` if there is none.
    pub fn document(
        &self,
        partition: &EncodedPartition,
        id: &DocumentId,
    ) -> Result<Option<StoredDocument>, ViewReadError> {
        let key = partition.document(id);
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let Some(found) = documents.get(key.as_slice())? else { return Ok(None) };
            let sealed = found.value();
            let document = envelope::open_document(&key, sealed)?;
            let body = Bytes::copy_from_slice(document.body);
            Ok(Some(StoredDocument { id: id.clone(), lsn: document.lsn, at: document.at, body }))
        })
    }

    /// The version of a document, without its body.
    pub fn version(
        &self,
        partition: &EncodedPartition,
        id: &DocumentId,
    ) -> Result<Option<Lsn>, ViewReadError> {
        let key = partition.document(id);
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let found = documents.get(key.as_slice())?;
            found.map(|sealed| Ok(envelope::open_document(&key, sealed.value())?.lsn)).transpose()
        })
    }

    /// Documents of a partition after `after`, at most `limit` and about `max_bytes`.
    pub fn list(
        &self,
        partition: &EncodedPartition,
        after: Option<&DocumentId>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ViewReadError> {
        let prefix = partition.as_bytes();
        let start = after.map(|id| partition.document(id));
        let lower = match &start {
            Some(key) => Bound::Excluded(key.as_slice()),
            None => Bound::Excluded(prefix.as_ref()),
        };
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut page = Page::default();
            let mut bytes = 0;
            for entry in documents.range::<&[u8]>((lower, Bound::Unbounded))? {
                let (key, sealed) = entry?;
                let Some(id) = key.value().strip_prefix(prefix.as_ref()) else { break };
                if page.documents.len() >= limit || bytes >= max_bytes {
                    page.more = true;
                    break;
                }
                let document = envelope::open_document(key.value(), sealed.value())?;
                let id = std::str::from_utf8(id).ok().and_then(|id| DocumentId::new(id).ok());
                let id = id.ok_or(ViewReadError::Corrupt)?;
                bytes += document.body.len();
                let body = Bytes::copy_from_slice(document.body);
                page.documents.push(StoredDocument { id, lsn: document.lsn, at: document.at, body });
            }
            Ok(page)
        })
    }

    /// One row of a state table.
    pub fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ViewReadError> {
        self.read(|transaction| {
            let rows = transaction.open_table(definition(table))?;
            let found = rows.get(key)?;
            found.map(|sealed| Ok(Bytes::copy_from_slice(envelope::open(key, sealed.value())?))).transpose()
        })
    }

    /// Rows whose keys begin with `prefix`, after the row `after` (its key without the prefix).
    pub fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, ViewReadError> {
        let start = [prefix, after.unwrap_or_default()].concat();
        let lower = if after.is_some() {
            Bound::Excluded(start.as_slice())
        } else {
            Bound::Included(start.as_slice())
        };
        self.read(|transaction| {
            let rows = transaction.open_table(definition(table))?;
            let mut out = Vec::new();
            for entry in rows.range::<&[u8]>((lower, Bound::Unbounded))? {
                let (key, sealed) = entry?;
                let Some(rest) = key.value().strip_prefix(prefix) else { break };
                if out.len() >= limit {
                    break;
                }
                let value = envelope::open(key.value(), sealed.value())?;
                out.push((Bytes::copy_from_slice(rest), Bytes::copy_from_slice(value)));
            }
            Ok(out)
        })
    }

    /// How many rows there are whose keys begin with `prefix`.
    pub fn count(&self, table: Table, prefix: &[u8]) -> Result<u64, ViewReadError> {
        self.read(|transaction| {
            let rows = transaction.open_table(definition(table))?;
            let mut count = 0;
            for entry in rows.range::<&[u8]>((Bound::Included(prefix), Bound::Unbounded))? {
                if !entry?.0.value().starts_with(prefix) {
                    break;
                }
                count += 1;
            }
            Ok(count)
        })
    }

    /// Reads every entry of every table and checks what must agree; calls `report` with each
    /// disagreement. Returns the number of documents.
    pub fn verify(&self, report: &mut dyn FnMut(String)) -> Result<u64, ViewReadError> {
        self.read(|transaction| {
            let order = transaction.open_table(ORDER)?;
            let mut count = 0;
            for entry in transaction.open_table(DOCUMENTS)?.range::<&[u8]>(..)? {
                let (key, sealed) = entry?;
                count += 1;
                let partition = PartitionAddress::decode(key.value());
                let checked = envelope::open_document(key.value(), sealed.value());
                let (Some((_, id)), Ok(document)) = (partition, checked) else {
                    report(format!("document {count} does not match its checksum"));
                    continue;
                };
                let prefix = key.value().get(..key.value().len() - id.len()).unwrap_or_default();
                let place = [prefix, &document.lsn.0.to_be_bytes()].concat();
                if order.get(place.as_slice())?.is_none_or(|found| found.value() != id) {
                    report(format!(
                        "document at LSN {} has no entry in the order of its partition",
                        document.lsn
                    ));
                }
            }
            let ordered = order.range::<&[u8]>(..)?.count() as u64;
            if ordered != count {
                report(format!("{count} documents but {ordered} entries in the order of partitions"));
            }
            for table in STATE_TABLES {
                for entry in transaction.open_table(definition(table))?.range::<&[u8]>(..)? {
                    let (key, sealed) = entry?;
                    if envelope::open(key.value(), sealed.value()).is_err() {
                        report(format!("a row of {table:?} does not match its checksum"));
                    }
                }
            }
            Ok(count)
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
        match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(result) => result.map_err(|failure| failure.0),
            Err(_) => Err(ViewReadError::Corrupt),
        }
    }
}

fn broken(error: impl fmt::Display) -> OpenError {
    OpenError::Broken(error.to_string())
}

fn mark(transaction: &WriteTransaction, applied: Lsn) -> Result<Lsn, redb::Error> {
    put_meta(transaction, APPLIED_KEY, &applied.0.to_le_bytes())?;
    Ok(applied)
}

fn put_meta(transaction: &WriteTransaction, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    let mut reserved = meta.insert_reserve(key, envelope::row_len(value.len()))?;
    envelope::seal_row(key, value, reserved.as_mut());
    Ok(())
}

/// Wraps what can go wrong inside a snapshot, so that `?` works on redb's errors and ours.
struct Failure(ViewReadError);

impl From<ViewReadError> for Failure {
    fn from(error: ViewReadError) -> Self {
        Self(error)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb may add variants at any time")]
impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self(match error {
            StorageError::Corrupted(_) => ViewReadError::Corrupt,
            other => ViewReadError::Disk(other.to_string()),
        })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb may add variants at any time")]
impl From<redb::TableError> for Failure {
    fn from(error: redb::TableError) -> Self {
        match error {
            redb::TableError::Storage(error) => error.into(),
            _ => Self(ViewReadError::Corrupt),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb may add variants at any time")]
impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        match error {
            redb::TransactionError::Storage(error) => error.into(),
            other => Self(ViewReadError::Disk(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim::{Call, SimDisk};

    #[test]
    fn a_view_of_a_newer_format_is_refused() {
        let disk = SimDisk::new();
        let view = View::create(&disk, 1 << 20).unwrap();
        view.write(|transaction| {
            put_meta(transaction, FORMAT_KEY, &(FORMAT + 1).to_le_bytes())?;
            mark(transaction, Lsn::ZERO)
        })
        .unwrap();
        drop(view);
        let refused = View::open(&disk, 1 << 20);
        assert!(matches!(refused, Err(OpenError::Newer { found: 2, supported: 1 })), "{refused:?}");
    }

    #[test]
    fn closing_a_view_writes_nothing() {
        let disk = SimDisk::new();
        let view = View::create(&disk, 1 << 20).unwrap();
        view.write(|transaction| mark(transaction, Lsn(5))).unwrap();
        let calls = || [Call::Write, Call::Sync].map(|call| disk.calls(call));
        let before = calls();
        drop(view);
        assert_eq!(calls(), before);
        assert_eq!(View::open(&disk, 1 << 20).unwrap().applied(), Lsn(5));
    }
}
