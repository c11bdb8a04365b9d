//! What a mutation does to the tables of the view, inside one transaction.
//!
//! Invariant: a document and its place in the order of its partition move together.

use redb::{Table as Tree, TableDefinition, WriteTransaction};

use super::envelope::{self, Document};
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange, Mutation, Table};
use crate::model::ids::Lsn;

pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type Writer<'t> = Tree<'t, &'static [u8], &'static [u8]>;

pub(super) const DOCUMENTS: Definition = TableDefinition::new("documents");
pub(super) const ORDER: Definition = TableDefinition::new("order");

/// Tables that [`Mutation::Put`] and [`Mutation::Delete`] reach.
pub(super) const STATE_TABLES: [Table; 6] =
    [Table::Progress, Table::Deliveries, Table::Due, Table::DeadLetters, Table::Idempotency, Table::System];

pub(super) fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Progress => "progress",
        Table::Deliveries => "deliveries",
        Table::Due => "due",
        Table::DeadLetters => "dead_letters",
        Table::Idempotency => "idempotency",
        Table::System => "system",
    })
}

/// The tables of one transaction, each opened when it is first needed.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    documents: Option<Writer<'t>>,
    order: Option<Writer<'t>>,
    progress: Option<Writer<'t>>,
    deliveries: Option<Writer<'t>>,
    due: Option<Writer<'t>>,
    dead_letters: Option<Writer<'t>>,
    idempotency: Option<Writer<'t>>,
    system: Option<Writer<'t>>,
    key: Vec<u8>,
}

impl<'t> Tables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self {
            transaction,
            documents: None,
            order: None,
            progress: None,
            deliveries: None,
            due: None,
            dead_letters: None,
            idempotency: None,
            system: None,
            key: Vec::with_capacity(256),
        }
    }

    /// Applies the mutations of a group that come after `applied`.
    pub(super) fn apply(&mut self, group: &CommittedGroup, applied: Lsn) -> Result<(), redb::Error> {
        for (i, mutation) in group.mutations.iter().enumerate() {
            let lsn = group.first.plus(i as u64);
            if lsn <= applied {
                continue;
            }
            match mutation {
                Mutation::Document(change) => self.change(lsn, change)?,
                Mutation::Put { table, key, value } => {
                    let rows = self.state(*table)?;
                    let mut reserved = rows.insert_reserve(key.as_ref(), envelope::row_len(value.len()))?;
                    envelope::seal_row(key, value, reserved.as_mut());
                }
                Mutation::Delete { table, key } => {
                    self.state(*table)?.remove(key.as_ref())?;
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, lsn: Lsn, change: &DocumentChange) -> Result<(), redb::Error> {
        let documents = opened(&mut self.documents, self.transaction, DOCUMENTS)?;
        let order = opened(&mut self.order, self.transaction, ORDER)?;
        let (key, partition) = (&mut self.key, change.partition.as_bytes());
        if let Some(previous) = change.previous {
            join(key, partition, &previous.resolve(lsn).0.to_be_bytes());
            order.remove(key.as_slice())?;
        }
        let id = change.id.as_str().as_bytes();
        if change.kind != ChangeKind::Delete {
            join(key, partition, &lsn.0.to_be_bytes());
            order.insert(key.as_slice(), id)?;
        }
        join(key, partition, id);
        if change.kind == ChangeKind::Delete {
            documents.remove(key.as_slice())?;
            return Ok(());
        }
        let length = envelope::document_len(change.body.len());
        let mut reserved = documents.insert_reserve(key.as_slice(), length)?;
        let document = Document { lsn, at: change.at, body: &change.body };
        envelope::seal_document(key, document, reserved.as_mut());
        Ok(())
    }

    fn state(&mut self, table: Table) -> Result<&mut Writer<'t>, redb::Error> {
        let slot = match table {
            Table::Progress => &mut self.progress,
            Table::Deliveries => &mut self.deliveries,
            Table::Due => &mut self.due,
            Table::DeadLetters => &mut self.dead_letters,
            Table::Idempotency => &mut self.idempotency,
            Table::System => &mut self.system,
        };
        opened(slot, self.transaction, definition(table))
    }
}

/// Makes a key of a partition and what stands behind it.
fn join(key: &mut Vec<u8>, partition: &[u8], rest: &[u8]) {
    key.clear();
    key.extend_from_slice(partition);
    key.extend_from_slice(rest);
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
