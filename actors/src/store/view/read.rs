//! What readers get of a view: documents, changes, entries of indexes, rows; each from one snapshot that
//! ends with the call, and each checked against its checksum.

use std::ops::Bound;

use bytes::Bytes;
use redb::StorageError;

use super::View;
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::change::Table;
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;
use crate::store::ViewReadError;
use crate::store::apply::{DOCUMENTS, ORDER, PLACE_HEAD, definition};
use crate::store::envelope;

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// The id within its partition.
    pub id: DocumentId,
    /// Its version.
    pub lsn: Lsn,
    /// When that version was written.
    pub at: Timestamp,
    /// How many mutations before `lsn` its transaction began.
    pub within: u32,
    /// Its own time to live, as in [`DocumentChange::ttl`](crate::model::change::DocumentChange::ttl).
    pub ttl: i32,
    /// The user's JSON.
    pub body: Bytes,
}

impl StoredDocument {
    /// What is there, without the body.
    pub fn version(&self) -> Version {
        Version { lsn: self.lsn, at: self.at, within: self.within, ttl: self.ttl }
    }
}

/// A document without its id and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// See [`StoredDocument::lsn`].
    pub lsn: Lsn,
    /// See [`StoredDocument::at`].
    pub at: Timestamp,
    /// See [`StoredDocument::within`].
    pub within: u32,
    /// See [`StoredDocument::ttl`].
    pub ttl: i32,
}

impl Version {
    /// The position that all changes of its transaction share.
    pub fn transaction(&self) -> Lsn {
        Lsn(self.lsn.0.saturating_sub(u64::from(self.within)))
    }
}

/// A document with its key: partition and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedDocument {
    /// The bytes of [`EncodedPartition::document`].
    pub key: Bytes,
    /// What stands there.
    pub document: StoredDocument,
}

impl KeyedDocument {
    /// The partition that it is in.
    pub fn partition(&self) -> EncodedPartition {
        let end = self.key.len().saturating_sub(self.document.id.as_str().len());
        EncodedPartition::from_bytes(self.key.slice(..end))
    }
}

/// Entries of an index, each with its document, if that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// Key of the entry, and the document that it leads to.
    pub entries: Vec<(Bytes, Option<KeyedDocument>)>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// A row of a state table: key without the prefix that was asked for, and value.
pub type Row = (Bytes, Bytes);

/// Some documents, in the order that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The documents.
    pub documents: Vec<KeyedDocument>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl View {
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
            let document = envelope::open_document(&key, found.value())?;
            Ok(Some(stored(id.clone(), document)))
        })
    }

    /// The version of a document, without its body.
    pub fn version(
        &self,
        partition: &EncodedPartition,
        id: &DocumentId,
    ) -> Result<Option<Version>, ViewReadError> {
        let key = partition.document(id);
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let found = documents.get(key.as_slice())?;
            found.map(|sealed| Ok(version(&envelope::open_document(&key, sealed.value())?))).transpose()
        })
    }

    /// Documents whose keys begin with `prefix`, in the order of their keys, from behind `after` (a
    /// whole key), at most `limit` and about `max_bytes`.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ViewReadError> {
        let lower = Bound::Excluded(after.unwrap_or(prefix));
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut page = Page::default();
            let mut bytes = 0;
            for entry in documents.range::<&[u8]>((lower, Bound::Unbounded))? {
                let (key, sealed) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                if page.documents.len() >= limit || bytes >= max_bytes {
                    page.more = true;
                    break;
                }
                let found = keyed(key.value(), sealed.value())?;
                bytes += found.document.body.len();
                page.documents.push(found);
            }
            Ok(page)
        })
    }

    /// Documents of a container in the order of their last change, after `after`; a transaction is
    /// never split, so there may be some more than `limit`.
    pub fn changes(
        &self,
        container: &[u8],
        after: Lsn,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, ViewReadError> {
        let start = [container, &after.0.to_be_bytes()].concat();
        self.read(|transaction| {
            let order = transaction.open_table(ORDER)?;
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut page = Page::default();
            let (mut bytes, mut current) = (0, None);
            for entry in order.range::<&[u8]>((Bound::Excluded(start.as_slice()), Bound::Unbounded))? {
                let (place, rest) = entry?;
                let Some(lsn) = place.value().strip_prefix(container) else { break };
                let (within, rest) = rest.value().split_first_chunk().ok_or(ViewReadError::Corrupt)?;
                let lsn = Lsn(u64::from_be_bytes(lsn.try_into().map_err(|_| ViewReadError::Corrupt)?));
                // The first documents of a transaction may have moved on: the others still belong together,
                // and not to the transaction before.
                let transaction = lsn.0.checked_sub(u64::from(u32::from_le_bytes(*within)));
                if current != Some(transaction) && (page.documents.len() >= limit || bytes >= max_bytes) {
                    page.more = true;
                    break;
                }
                current = Some(transaction);
                let key = [container, rest].concat();
                let sealed = documents.get(key.as_slice())?.ok_or(ViewReadError::Corrupt)?;
                let found = keyed(&key, sealed.value())?;
                // An entry that stands at the wrong place has no checksum that would tell.
                if found.document.lsn != lsn {
                    return Err(ViewReadError::Corrupt.into());
                }
                bytes += found.document.body.len();
                page.documents.push(found);
            }
            Ok(page)
        })
    }

    /// Documents by the entries of an index: those between `lower` and `upper`, forwards or backwards,
    /// at most `limit` and about `max_bytes`. The last part of an entry's key, behind the values, is
    /// the document's id; entries that stand for no document any more are passed over.
    pub fn entries(
        &self,
        partition: &EncodedPartition,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        descending: bool,
        limit: usize,
        max_bytes: usize,
    ) -> Result<EntryPage, ViewReadError> {
        self.read(|transaction| {
            let index = transaction.open_table(definition(Table::Index))?;
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut page = EntryPage::default();
            let mut bytes = 0;
            let mut range = index.range::<&[u8]>(range)?;
            loop {
                let next = if descending { range.next_back() } else { range.next() };
                let Some(entry) = next else { break };
                let (entry, sealed) = entry?;
                let id = envelope::open(entry.value(), sealed.value())?;
                if page.entries.len() >= limit || bytes >= max_bytes {
                    page.more = true;
                    break;
                }
                let key = [partition.as_bytes().as_ref(), id].concat();
                let found = documents.get(key.as_slice())?;
                let found = found.map(|sealed| keyed(&key, sealed.value())).transpose()?;
                bytes += found.as_ref().map_or(0, |found| found.document.body.len());
                page.entries.push((Bytes::copy_from_slice(entry.value()), found));
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
                let Ok(found) = keyed(key.value(), sealed.value()) else {
                    report(format!("document {count} does not match its checksum"));
                    continue;
                };
                let (place, rest) = place(&found);
                if order.get(place.as_slice())?.is_none_or(|found| found.value() != rest) {
                    report(format!(
                        "document at LSN {} has no entry in the order of its container",
                        found.document.lsn
                    ));
                }
            }
            let ordered = order.range::<&[u8]>(..)?.count() as u64;
            if ordered != count {
                report(format!("{count} documents but {ordered} entries in the order of containers"));
            }
            for table in Table::ALL {
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
}

fn stored(id: DocumentId, document: envelope::Document<'_>) -> StoredDocument {
    let Version { lsn, at, within, ttl } = version(&document);
    StoredDocument { id, lsn, at, within, ttl, body: Bytes::copy_from_slice(document.body) }
}

fn version(document: &envelope::Document<'_>) -> Version {
    Version { lsn: document.lsn, at: document.at, within: document.within, ttl: document.ttl }
}

pub(super) fn keyed(key: &[u8], sealed: &[u8]) -> Result<KeyedDocument, ViewReadError> {
    let document = envelope::open_document(key, sealed)?;
    let id = partition_len(key).and_then(|at| key.get(at..));
    let id = id.and_then(|id| std::str::from_utf8(id).ok()).and_then(|id| DocumentId::new(id).ok());
    let document = stored(id.ok_or(ViewReadError::Corrupt)?, document);
    Ok(KeyedDocument { key: Bytes::copy_from_slice(key), document })
}

/// A document's entry in the order of its container: key and value.
pub(super) fn place(found: &KeyedDocument) -> (Vec<u8>, Vec<u8>) {
    let end = found.key.iter().position(|&byte| byte == 0).map_or(0, |at| at + 1);
    let (container, rest) = found.key.split_at(end);
    let key = [container, &found.document.lsn.0.to_be_bytes()].concat();
    let mut value = Vec::with_capacity(PLACE_HEAD + rest.len());
    value.extend_from_slice(&found.document.within.to_le_bytes());
    value.extend_from_slice(rest);
    (key, value)
}

/// Wraps what can go wrong inside a snapshot, so that `?` works on redb's errors and ours.
pub(super) struct Failure(pub(super) ViewReadError);

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
