//! One transaction in the making: writes that all happen or none, each seeing those before it.
//!
//! Stands between a message and the batch that it goes into. Invariant: nothing of a refused
//! transaction is left: what it did lives here until all of its writes are decided.

use bytes::Bytes;
use fail::fail_point;
use serde_json::Value;

use super::batch::Batch;
use super::derived::{Derived, Place, difference};
use super::rules::{Current, Fate, decide};
use crate::model::change::{ChangeKind, DocumentChange, Mutation, Previous, RowChange, Table};
use crate::model::document::{self, NewDocument};
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;
use crate::policy::charge::{self, RequestUnits};
use crate::policy::patch::Protected;
use crate::policy::ttl::ItemTtl;
use crate::protocol::partition::{Content, Operation, Patch, Refused, Write, WriteError};
use crate::query::Context;

/// Most bytes that one transaction may write: so many that it fits into a record of the log together with a
/// batch that was not full before it. Patches can make far more of a small request, and a batch whose
/// record is too large fails for everybody in it.
const MOST_BYTES: usize = 6 << 20;

/// A version that is not committed yet.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    /// Its mutation's number in the batch.
    pub(super) number: u32,
    pub(super) within: u32,
    pub(super) ttl: ItemTtl,
    pub(super) body: Bytes,
}

/// Which version an answer speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Committed { lsn: Lsn, transaction: Lsn },
    Fresh { number: u32, within: u32 },
}

/// What one write did, before anybody knows its position in the log.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) kind: Option<ChangeKind>,
    pub(super) id: DocumentId,
    pub(super) which: Which,
    pub(super) at: Timestamp,
    pub(super) body: Bytes,
    pub(super) charge: RequestUnits,
}

/// Why the transaction does not happen, and whether that rests on the batch before it: then the answer
/// must wait for the batch, which may yet not happen.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) refused: Refused,
    pub(super) rests_on_batch: bool,
}

/// What is known of a document before a write.
struct Standing {
    current: Current,
    at: Timestamp,
    ttl: ItemTtl,
    within: u32,
    /// The body, where it was asked for.
    body: Option<Bytes>,
}

impl Standing {
    fn absent() -> Self {
        let (at, ttl) = (Timestamp(0), ItemTtl::Inherit);
        Self { current: Current::Absent, at, ttl, within: 0, body: None }
    }
}

pub(super) struct Transaction<'b> {
    batch: &'b Batch,
    /// What this transaction left of documents; the last entry counts.
    pub(super) documents: Vec<(DocumentId, Option<Fresh>)>,
    /// What it left of rows that partitions read.
    pub(super) rows: Vec<(Table, Bytes, Option<Bytes>)>,
    pub(super) mutations: Vec<Mutation>,
    /// What they weigh.
    bytes: usize,
    /// Number of its first mutation in the batch.
    start: u32,
    rests_on_batch: bool,
}

impl<'b> Transaction<'b> {
    pub(super) fn new(batch: &'b Batch) -> Self {
        let (documents, rows, mutations) = (Vec::new(), Vec::new(), Vec::new());
        let start = batch.next_number();
        Self { batch, documents, rows, mutations, bytes: 0, start, rests_on_batch: false }
    }

    pub(super) fn batch(&self) -> &'b Batch {
        self.batch
    }

    /// Decides all writes.
    pub(super) fn run(&mut self, writes: &[Write]) -> Result<Vec<Outcome>, Refusal> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for (at, write) in writes.iter().enumerate() {
            let outcome = match self.write(write.clone()) {
                Ok(_) if self.bytes > MOST_BYTES => Err(WriteError::TooLarge),
                decided => decided,
            };
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    let rests_on_batch = self.rests_on_batch;
                    return Err(Refusal { refused: Refused { at, error }, rests_on_batch });
                }
            }
        }
        Ok(outcomes)
    }

    fn write(&mut self, write: Write) -> Result<Outcome, WriteError> {
        fail_point!("partition::evaluate", write.id.as_str().starts_with("poison"), |_| Err(
            WriteError::Corrupt
        ));
        let derives = self.batch.container().has_derived_rows();
        let reads = matches!(write.operation, Operation::Patch(_) | Operation::Read);
        let standing = self.standing(&write.id, reads || derives)?;
        let gone = self.gone(&write.id, &standing);
        if matches!(write.operation, Operation::Sweep) {
            return self.sweep(write.id, standing, gone);
        }
        let current = if gone.is_some() { Current::Absent } else { standing.current };
        let fate = decide(&write.operation, &write.precondition, current, self.batch.shard().id())?;
        let kind = match fate {
            Fate::Read => return Ok(self.read(write.id, &standing)),
            Fate::Change(kind) => kind,
        };
        if let Some(kind) = gone {
            self.bury(&write.id, &standing, kind)?;
        }
        let (standing, content, patched) = match write.operation {
            Operation::Patch(patch) => {
                let (content, operations) = self.patched(&write.id, &standing, &patch)?;
                (standing, Some(content), operations)
            }
            Operation::Create(content) | Operation::Upsert(content) | Operation::Replace(content) => {
                let standing = if gone.is_some() { Standing::absent() } else { standing };
                (standing, Some(content), 0)
            }
            Operation::Delete | Operation::Read | Operation::Sweep => (standing, None, 0),
        };
        let (rows, entries) = self.rows(&write.id, &standing, content.as_ref())?;
        let written = charge::Written {
            bytes: content.as_ref().map_or(0, |content| content.body.len()),
            properties: content.as_ref().map_or(0, |content| content.properties),
            index_entries: entries,
        };
        let charge = match (kind, patched) {
            (ChangeKind::Create, _) => charge::create(&written),
            (ChangeKind::Replace, 0) => charge::replace(&written),
            (ChangeKind::Replace, operations) => charge::patch(&written, operations),
            (ChangeKind::Delete | ChangeKind::Expire, _) => charge::delete(&written),
        };
        let body = content.as_ref().map(|content| content.body.clone()).unwrap_or_default();
        let ttl = content.map_or(ItemTtl::Inherit, |content| content.ttl);
        let which = self.push(&write.id, &standing, kind, (body.clone(), ttl), rows, write.traceparent);
        Ok(Outcome { kind: Some(kind), id: write.id, which, at: self.batch.now(), body, charge })
    }

    /// What is there, to this transaction.
    fn standing(&mut self, id: &DocumentId, body: bool) -> Result<Standing, WriteError> {
        let own = self.documents.iter().rev().find(|(found, _)| found == id).map(|(_, fresh)| fresh);
        let fresh = match own {
            Some(fresh) => Some(fresh.as_ref()),
            None => {
                let fresh = self.batch.fresh(id);
                self.rests_on_batch |= fresh.is_some();
                fresh
            }
        };
        if let Some(fresh) = fresh {
            return Ok(fresh.map_or_else(Standing::absent, |fresh| Standing {
                current: Current::Fresh(fresh.number),
                at: self.batch.now(),
                ttl: fresh.ttl,
                within: fresh.within,
                body: Some(fresh.body.clone()),
            }));
        }
        let (shard, partition) = (self.batch.shard(), self.batch.partition());
        let (version, body) = if body {
            let found = shard.document(partition, id)?;
            (found.as_ref().map(|found| found.version()), found.map(|found| found.body))
        } else {
            (shard.version(partition, id)?, None)
        };
        Ok(version.map_or_else(Standing::absent, |version| Standing {
            current: Current::Committed(version.lsn),
            at: version.at,
            // What was stored was checked before.
            ttl: ItemTtl::from_i32(version.ttl).unwrap_or_default(),
            within: version.within,
            body,
        }))
    }

    /// How the document has ended without a write of its own, if it has.
    fn gone(&self, id: &DocumentId, standing: &Standing) -> Option<ChangeKind> {
        let Current::Committed(lsn) = standing.current else { return None };
        let batch = self.batch;
        if batch.shard().is_purged(&batch.partition().document(id), lsn) {
            return Some(ChangeKind::Delete);
        }
        let expired = batch.container().is_expired(standing.at, standing.ttl, batch.now());
        expired.then_some(ChangeKind::Expire)
    }

    fn read(&self, id: DocumentId, standing: &Standing) -> Outcome {
        let which = match standing.current {
            Current::Fresh(number) => Which::Fresh { number, within: standing.within },
            Current::Committed(lsn) => committed(lsn, standing.within),
            // Decided before: what is not there is not read.
            Current::Absent => committed(Lsn::ZERO, 0),
        };
        let body = standing.body.clone().unwrap_or_default();
        let charge = charge::read(body.len());
        Outcome { kind: None, id, which, at: standing.at, body, charge }
    }

    fn sweep(
        &mut self,
        id: DocumentId,
        standing: Standing,
        gone: Option<ChangeKind>,
    ) -> Result<Outcome, WriteError> {
        let which = match gone {
            Some(kind) => self.bury(&id, &standing, kind)?,
            None => committed(Lsn::ZERO, 0),
        };
        let (at, charge) = (self.batch.now(), RequestUnits::ZERO);
        Ok(Outcome { kind: gone, id, which, at, body: Bytes::new(), charge })
    }

    /// Takes away a document that nobody sees any more.
    fn bury(&mut self, id: &DocumentId, standing: &Standing, kind: ChangeKind) -> Result<Which, WriteError> {
        let (rows, _) = self.rows(id, standing, None)?;
        Ok(self.push(id, standing, kind, (Bytes::new(), ItemTtl::Inherit), rows, None))
    }

    /// The document with a patch applied, checked like any other, and how many operations that took.
    fn patched(
        &self,
        id: &DocumentId,
        standing: &Standing,
        patch: &Patch,
    ) -> Result<(Content, usize), WriteError> {
        let rules = &self.batch.container().rules;
        let before = parsed(standing.body.as_ref())?;
        let context = Context { now: self.batch.now(), seed: 0 };
        if patch.condition.as_ref().is_some_and(|condition| !condition.holds(&before, &context)) {
            return Err(WriteError::ConditionFailed);
        }
        let paths: Vec<_> = rules.key.iter().map(|part| part.path.clone()).collect();
        let after = patch.change.apply(&before, &Protected { partition_paths: &paths })?;
        let invalid = |error: &dyn std::fmt::Display| WriteError::PatchedInvalid(error.to_string());
        let body = Bytes::from(serde_json::to_vec(&after).map_err(|error| invalid(&error))?);
        let new: NewDocument =
            document::parse(&body, rules, || id.clone()).map_err(|error| invalid(&error))?;
        let content = Content::try_from(new).map_err(|error| invalid(&error))?;
        Ok((content, patch.change.operations()))
    }

    /// What changes beside the document, and how many entries the new version has.
    fn rows(
        &mut self,
        id: &DocumentId,
        standing: &Standing,
        content: Option<&Content>,
    ) -> Result<(Vec<RowChange>, usize), WriteError> {
        let (container, now) = (self.batch.container().clone(), self.batch.now());
        let place = Place { container: &container, partition: self.batch.partition(), id };
        let existed = !matches!(standing.current, Current::Absent);
        if !container.has_derived_rows() {
            let old = existed.then(|| place.expiry(standing.at, standing.ttl)).flatten();
            let new = content.and_then(|content| place.expiry(now, content.ttl));
            return Ok((difference(old.as_slice(), new.as_slice()), 0));
        }
        let old = if existed {
            place.rows(&parsed(standing.body.as_ref())?, standing.at, standing.ttl)
        } else {
            Vec::new()
        };
        let new = match content {
            Some(content) => place.rows(&parsed(Some(&content.body))?, now, content.ttl),
            None => Vec::new(),
        };
        for row in new.iter().filter(|row| row.table == Table::Unique && !old.contains(row)) {
            self.claim(id, row)?;
        }
        let entries = new.iter().filter(|row| row.table != Table::Expiry).count();
        Ok((difference(&old, &new), entries))
    }

    /// Makes sure that nobody else holds a unique key. A holder that nobody sees any more gives it up.
    fn claim(&mut self, id: &DocumentId, row: &Derived) -> Result<(), WriteError> {
        let own = self.rows.iter().rev().find(|(table, key, _)| (*table, key) == (row.table, &row.key));
        let holder = match own {
            Some((_, _, value)) => value.clone(),
            None => match self.batch.fresh_row(row.table, &row.key) {
                Some(value) => {
                    self.rests_on_batch = true;
                    value.clone()
                }
                None => self.batch.shard().row(self.batch.partition(), row.table, &row.key)?,
            },
        };
        let Some(holder) = holder.filter(|holder| *holder != *row.value) else { return Ok(()) };
        let holder = std::str::from_utf8(&holder).ok().and_then(|id| DocumentId::new(id).ok());
        let holder = holder.filter(|holder| holder != id).ok_or(WriteError::Corrupt)?;
        let standing = self.standing(&holder, true)?;
        if matches!(standing.current, Current::Absent) {
            // Nobody holds it: a row that was left over keeps nothing from being used.
            return Ok(());
        }
        if let Some(kind) = self.gone(&holder, &standing) {
            self.bury(&holder, &standing, kind)?;
            return Ok(());
        }
        Err(WriteError::NotUnique(self.batch.container().unique_text(&row.key, self.batch.partition())))
    }

    /// Adds the change, as the next mutation of this transaction.
    fn push(
        &mut self,
        id: &DocumentId,
        standing: &Standing,
        kind: ChangeKind,
        (body, ttl): (Bytes, ItemTtl),
        rows: Vec<RowChange>,
        traceparent: Option<std::sync::Arc<str>>,
    ) -> Which {
        let within = u32::try_from(self.mutations.len()).unwrap_or(u32::MAX);
        let number = self.start.saturating_add(within);
        let previous = match standing.current {
            Current::Absent => None,
            Current::Committed(lsn) => Some(Previous::At(lsn)),
            Current::Fresh(before) => Some(Previous::Back(number.saturating_sub(before))),
        };
        let fresh = (!kind.is_removal()).then(|| Fresh { number, within, ttl, body: body.clone() });
        self.documents.push((id.clone(), fresh));
        for row in rows.iter().filter(|row| row.table.is_read_by_partitions()) {
            self.rows.push((row.table, row.key.clone(), row.value.clone()));
        }
        let change = Mutation::Document(DocumentChange {
            kind,
            partition: self.batch.partition().clone(),
            id: id.clone(),
            at: self.batch.now(),
            previous,
            body,
            traceparent,
            within,
            ttl: ttl.to_i32(),
            rows,
        });
        self.bytes += change.weight();
        self.mutations.push(change);
        Which::Fresh { number, within }
    }
}

/// A committed version, by how many mutations before it its transaction began.
pub(super) fn committed(lsn: Lsn, within: u32) -> Which {
    Which::Committed { lsn, transaction: Lsn(lsn.0.saturating_sub(within.into())) }
}

fn parsed(body: Option<&Bytes>) -> Result<Value, WriteError> {
    // What is stored was valid JSON when it was written.
    body.and_then(|body| document::read(body).ok()).ok_or(WriteError::Corrupt)
}
