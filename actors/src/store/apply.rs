//! What a mutation does to the tables of the view, inside one transaction.
//!
//! Invariant: a document, its place in the order of its container, and the rows that are made from
//! it move together.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table as Tree, TableDefinition, WriteTransaction};

use super::envelope::{self, Document};
use crate::model::change::{CommittedGroup, DocumentChange, Mutation, Table};
use crate::model::ids::Lsn;

pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Writer<'t> = Tree<'t, &'static [u8], &'static [u8]>;

pub(super) const DOCUMENTS: Definition = TableDefinition::new("documents");
pub(super) const ORDER: Definition = TableDefinition::new("order");

pub(super) fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Progress => "progress",
        Table::Deliveries => "deliveries",
        Table::Due => "due",
        Table::DeadLetters => "dead_letters",
        Table::Idempotency => "idempotency",
        Table::System => "system",
        Table::Unique => "unique",
        Table::Index => "index",
        Table::Expiry => "expiry",
        Table::Published => "published",
        Table::Exports => "exports",
        Table::Held => "held",
    })
}

/// The tables of one transaction, each opened when it is first needed.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    documents: Option<Writer<'t>>,
    order: Option<Writer<'t>>,
    rows: [Option<Writer<'t>>; Table::ALL.len()],
    key: Vec<u8>,
    /// What there is more than before in each container, by the bytes of its name.
    grown: BTreeMap<Vec<u8>, Extent>,
}

/// Documents and their bytes, keys included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Number of documents. Below 0 only as a difference.
    pub documents: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl Extent {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            documents: self.documents.saturating_add(other.documents),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

impl<'t> Tables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            transaction,
            documents: None,
            order: None,
            rows: Default::default(),
            key: Vec::with_capacity(256),
            grown: BTreeMap::new(),
        }
    }

    /// What there is more than before in each container that changed; below 0 where there is less.
    pub(super) fn grown(self) -> BTreeMap<Vec<u8>, Extent> {
        self.grown
    }

    fn grow(&mut self, container: &[u8], by: Extent) {
        match self.grown.get_mut(container) {
            Some(extent) => *extent = extent.plus(by),
            None => {
                self.grown.insert(container.to_vec(), by);
            }
        }
    }

    /// Applies the mutations of groups, in the order of the log, that come after `applied`.
    ///
    /// Documents go in by their keys: neighbours then meet the same page while it is at hand. Two
    /// changes of one document keep their order.
    pub(super) fn apply(&mut self, groups: &[CommittedGroup], applied: Lsn) -> Result<(), redb::Error> {
        let mut changes = Vec::with_capacity(groups.iter().map(|group| group.mutations.len()).sum());
        for group in groups {
            for (i, mutation) in group.mutations.iter().enumerate() {
                let lsn = group.first.plus(i as u64);
                if lsn <= applied {
                    continue;
                }
                match mutation {
                    Mutation::Document(change) => {
                        self.place(lsn, change)?;
                        for row in &change.rows {
                            self.row(row.table, &row.key, row.stored(lsn).as_deref())?;
                        }
                        changes.push((lsn, change));
                    }
                    // The event itself is in the log alone.
                    Mutation::Event(event) => {
                        if let Some(mark) = &event.mark {
                            self.row(Table::Published, mark, Some(&[]))?;
                        }
                    }
                    Mutation::Put { table, key, value } => self.row(*table, key, Some(value))?,
                    Mutation::Delete { table, key } => self.row(*table, key, None)?,
                }
            }
        }
        changes.sort_by(|(_, a), (_, b)| a.partition.cmp(&b.partition).then_with(|| a.id.cmp(&b.id)));
        for (lsn, change) in changes {
            self.document(lsn, change)?;
        }
        Ok(())
    }

    /// Moves a document to its new place in the order of its container.
    fn place(&mut self, lsn: Lsn, change: &DocumentChange) -> Result<(), redb::Error> {
        let order = opened(&mut self.order, self.transaction, ORDER)?;
        let key = &mut self.key;
        let (container, partition) = change.partition.split_container();
        if let Some(previous) = change.previous {
            join(key, &[container, &previous.resolve(lsn).0.to_be_bytes()]);
            order.remove(key.as_slice())?;
        }
        if !change.kind.is_removal() {
            let id = change.id.as_str().as_bytes();
            join(key, &[container, &lsn.0.to_be_bytes()]);
            let mut place = order.insert_reserve(key.as_slice(), PLACE_HEAD + partition.len() + id.len())?;
            join_into(place.as_mut(), [&change.within.to_le_bytes(), partition, id]);
        }
        Ok(())
    }

    fn document(&mut self, lsn: Lsn, change: &DocumentChange) -> Result<(), redb::Error> {
        let documents = opened(&mut self.documents, self.transaction, DOCUMENTS)?;
        let key = &mut self.key;
        join(key, &[change.partition.as_bytes(), change.id.as_str().as_bytes()]);
        if change.kind.is_removal() {
            let gone = documents.remove(key.as_slice())?;
            let gone = gone.map(|gone| signed(key.len() + gone.value().len()));
            if let Some(bytes) = gone {
                let (container, _) = change.partition.split_container();
                self.grow(container, Extent { documents: -1, bytes: -bytes });
            }
            return Ok(());
        }
        let mut more = Extent { documents: 1, bytes: 0 };
        if change.previous.is_some()
            && let Some(replaced) = documents.get(key.as_slice())?
        {
            more = Extent { documents: 0, bytes: -signed(key.len() + replaced.value().len()) };
        }
        let length = envelope::document_len(change.body.len());
        more.bytes += signed(key.len() + length);
        let mut reserved = documents.insert_reserve(key.as_slice(), length)?;
        let (within, ttl) = (change.within, change.ttl);
        let document = Document { lsn, at: change.at, within, ttl, body: &change.body };
        envelope::seal_document(key, document, reserved.as_mut());
        drop(reserved);
        let (container, _) = change.partition.split_container();
        self.grow(container, more);
        Ok(())
    }

    fn row(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Result<(), redb::Error> {
        let number = usize::from(table as u8).saturating_sub(1);
        // Every table has its place: their numbers begin with 1 and have no gap.
        let Some(slot) = self.rows.get_mut(number) else { return Ok(()) };
        let rows = opened(slot, self.transaction, definition(table))?;
        match value {
            Some(value) => {
                let mut reserved = rows.insert_reserve(key, envelope::row_len(value.len()))?;
                envelope::seal_row(key, value, reserved.as_mut());
            }
            None => {
                rows.remove(key)?;
            }
        }
        Ok(())
    }
}

/// Bytes of an entry of the order before the rest of the document's key: its place in its transaction.
pub(super) const PLACE_HEAD: usize = 4;

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Makes a key of its parts.
fn join(key: &mut Vec<u8>, parts: &[&[u8]]) {
    key.clear();
    for part in parts {
        key.extend_from_slice(part);
    }
}

/// Writes parts into a place of their length.
fn join_into(place: &mut [u8], parts: [&[u8]; 3]) {
    for (byte, value) in place.iter_mut().zip(parts.into_iter().flatten()) {
        *byte = *value;
    }
}

fn opened<'s, 't>(
    slot: &'s mut Option<Writer<'t>>,
    transaction: &'t WriteTransaction,
    definition: Definition,
) -> Result<&'s mut Writer<'t>, redb::Error> {
    match slot {
        Some(table) => Ok(table),
        None => Ok(slot.insert(transaction.open_table(definition)?)),
    }
}
