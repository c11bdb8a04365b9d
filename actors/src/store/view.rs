//! The redb file: applying groups, checkpoints, snapshots for readers.

use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fail::fail_point;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, StorageError, Table as Tree, TableDefinition,
    WriteTransaction,
};

use super::backend::Backend;
use super::envelope::{self, Document};
use super::{ApplyError, OpenError, ViewReadError};
use crate::log::disk::Disk;
use crate::model::address::EncodedPartition;
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange, Mutation, Table};
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Writer<'t> = Tree<'t, &'static [u8], &'static [u8]>;

const DOCUMENTS: Definition = TableDefinition::new("documents");
const ORDER: Definition = TableDefinition::new("order");
const META: Definition = TableDefinition::new("meta");
const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const APPLIED_KEY: &[u8] = b"applied";
/// Name of the view's file in its shard's folder.
const FILE: &str = "view.redb";

/// Tables that [`Mutation::Put`] and [`Mutation::Delete`] reach, in the order of their numbers.
const STATE_TABLES: [(Table, Definition); 6] = [
    (Table::Progress, TableDefinition::new("progress")),
    (Table::Deliveries, TableDefinition::new("deliveries")),
    (Table::Due, TableDefinition::new("due")),
    (Table::DeadLetters, TableDefinition::new("dead_letters")),
    (Table::Idempotency, TableDefinition::new("idempotency")),
    (Table::System, TableDefinition::new("system")),
];

fn definition(table: Table) -> Definition {
    let [progress, deliveries, due, dead_letters, idempotency, system] = STATE_TABLES;
    match table {
        Table::Progress => progress.1,
        Table::Deliveries => deliveries.1,
        Table::Due => due.1,
        Table::DeadLetters => dead_letters.1,
        Table::Idempotency => idempotency.1,
        Table::System => system.1,
    }
}

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
    database: Database,
    applied: AtomicU64,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl View {
    /// Makes an empty view.
    pub fn create(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, OpenError> {
        let file = disk.create(FILE).map_err(|error| OpenError::Broken(error.to_string()))?;
        let database = build(Backend(file), cache_bytes)?;
        let view = Self { database, applied: AtomicU64::new(0) };
        view.prepare().map_err(|error| OpenError::Broken(error.to_string()))?;
        disk.sync_names().map_err(|error| OpenError::Broken(error.to_string()))?;
        Ok(view)
    }

    /// Opens the view as it was at its last checkpoint.
    pub fn open(disk: &dyn Disk, cache_bytes: usize) -> Result<Self, OpenError> {
        let file = disk.open(FILE).map_err(|_| OpenError::NotAView(FILE.into()))?;
        // An empty or cut file would be taken for a new database: refuse it here.
        if file.is_empty().map_err(|error| OpenError::Broken(error.to_string()))? {
            return Err(OpenError::NotAView(FILE.into()));
        }
        let database = build(Backend(file), cache_bytes)?;
        let view = Self { database, applied: AtomicU64::new(0) };
        let meta = |key: &'static [u8]| view.meta(key).map_err(|error| OpenError::Broken(error.to_string()));
        let format =
            meta(FORMAT_KEY)?.and_then(|bytes| Some(u32::from_le_bytes(bytes.as_ref().try_into().ok()?)));
        match format {
            None => return Err(OpenError::NotAView(FILE.into())),
            Some(found) if found > FORMAT => return Err(OpenError::Newer { found, supported: FORMAT }),
            Some(_) => {}
        }
        let applied =
            meta(APPLIED_KEY)?.and_then(|bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?)));
        view.applied.store(applied.unwrap_or(0), Ordering::Release);
        Ok(view)
    }

    fn prepare(&self) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(ORDER)?;
        for (_, table) in STATE_TABLES {
            transaction.open_table(table)?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, envelope::seal(FORMAT_KEY, &FORMAT.to_le_bytes()).as_slice())?;
        drop(meta);
        transaction.commit()?;
        Ok(())
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
        let applied = self.applied();
        for pair in groups.windows(2) {
            if let [before, group] = pair
                && group.first <= before.last()
            {
                return Err(ApplyError::OutOfOrder { group: group.first, applied: before.last() });
            }
        }
        if last <= applied {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.set_durability(Durability::None).map_err(redb::Error::from)?;
            put_all(transaction, groups, applied)?;
            mark(transaction, last)
        })?;
        self.applied.store(last.0, Ordering::Release);
        Ok(())
    }

    /// Makes everything applied durable, in a way that opens again at once after a crash.
    pub fn checkpoint(&self) -> Result<Lsn, ApplyError> {
        fail_point!("view::checkpoint", |_| Err(ApplyError::Broken("injected".into())));
        let applied = self.applied();
        self.write(|transaction| {
            transaction.set_quick_repair(true);
            mark(transaction, applied)
        })?;
        Ok(applied)
    }

    fn write(
        &self,
        work: impl FnOnce(&mut WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), ApplyError> {
        let attempt = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            work(&mut transaction)?;
            transaction.commit()?;
            Ok(())
        };
        // A damaged page can make redb panic; to us that is a broken file like any other.
        match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(result) => result.map_err(|error| ApplyError::Broken(error.to_string())),
            Err(_) => Err(ApplyError::Broken("the file's structure is damaged".into())),
        }
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

    /// Reads every entry of every table and checks what must agree; calls `report` with each
    /// disagreement. Returns the number of documents.
    pub fn verify(&self, report: &mut dyn FnMut(String)) -> Result<u64, ViewReadError> {
        self.read(|transaction| {
            let order = transaction.open_table(ORDER)?;
            let mut count = 0;
            for entry in transaction.open_table(DOCUMENTS)?.range::<&[u8]>(..)? {
                let (key, sealed) = entry?;
                count += 1;
                let partition = crate::model::address::PartitionAddress::decode(key.value());
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
            for (table, definition) in STATE_TABLES {
                for entry in transaction.open_table(definition)?.range::<&[u8]>(..)? {
                    let (key, sealed) = entry?;
                    if envelope::open(key.value(), sealed.value()).is_err() {
                        report(format!("a row of {table:?} does not match its checksum"));
                    }
                }
            }
            Ok(count)
        })
    }

    fn meta(&self, key: &'static [u8]) -> Result<Option<Bytes>, ViewReadError> {
        self.read(|transaction| {
            let meta = match transaction.open_table(META) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                other => other?,
            };
            let found = meta.get(key)?;
            found.map(|sealed| Ok(Bytes::copy_from_slice(envelope::open(key, sealed.value())?))).transpose()
        })
    }

    /// Runs `work` on a snapshot, which ends with it. A panic on a damaged page is contained.
    fn read<R>(&self, work: impl FnOnce(&ReadTransaction) -> Result<R, Failure>) -> Result<R, ViewReadError> {
        let attempt = || -> Result<R, Failure> { work(&self.database.begin_read()?) };
        match catch_unwind(AssertUnwindSafe(attempt)) {
            Ok(result) => result.map_err(|failure| failure.0),
            Err(_) => Err(ViewReadError::Corrupt),
        }
    }
}

fn build(backend: Backend, cache_bytes: usize) -> Result<Database, OpenError> {
    let open = || {
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        builder.create_with_backend(backend)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result.map_err(|error| OpenError::Broken(error.to_string())),
        Err(_) => Err(OpenError::Broken("the file's structure is damaged".into())),
    }
}

fn mark(transaction: &WriteTransaction, applied: Lsn) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(APPLIED_KEY, envelope::seal(APPLIED_KEY, &applied.0.to_le_bytes()).as_slice())?;
    Ok(())
}

fn put_all(
    transaction: &WriteTransaction,
    groups: &[CommittedGroup],
    applied: Lsn,
) -> Result<(), redb::Error> {
    let mut documents = transaction.open_table(DOCUMENTS)?;
    let mut order = transaction.open_table(ORDER)?;
    for group in groups {
        for (i, mutation) in group.mutations.iter().enumerate() {
            let lsn = group.first.plus(i as u64);
            if lsn <= applied {
                continue;
            }
            match mutation {
                Mutation::Document(change) => put_document(&mut documents, &mut order, lsn, change)?,
                Mutation::Put { table, key, value } => {
                    let sealed = envelope::seal(key, value);
                    transaction.open_table(definition(*table))?.insert(key.as_ref(), sealed.as_slice())?;
                }
                Mutation::Delete { table, key } => {
                    transaction.open_table(definition(*table))?.remove(key.as_ref())?;
                }
            }
        }
    }
    Ok(())
}

/// A document and its place in the order of its partition move together.
fn put_document(
    documents: &mut Writer<'_>,
    order: &mut Writer<'_>,
    lsn: Lsn,
    change: &DocumentChange,
) -> Result<(), redb::Error> {
    let partition = change.partition.as_bytes();
    let key = change.partition.document(&change.id);
    let place = |lsn: Lsn| [partition.as_ref(), &lsn.0.to_be_bytes()].concat();
    if let Some(previous) = change.previous {
        order.remove(place(previous.resolve(lsn)).as_slice())?;
    }
    if change.kind == ChangeKind::Delete {
        documents.remove(key.as_slice())?;
        return Ok(());
    }
    let mut reserved = documents.insert_reserve(key.as_slice(), envelope::document_len(change.body.len()))?;
    let document = Document { lsn, at: change.at, body: &change.body };
    envelope::seal_document(&key, document, reserved.as_mut());
    drop(reserved);
    order.insert(place(lsn).as_slice(), change.id.as_str().as_bytes())?;
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
