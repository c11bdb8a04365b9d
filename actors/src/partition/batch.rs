//! A batch in the making: decided transactions, what they change, and who waits for which of them.
//!
//! Later writes see earlier ones of the same batch. An answer that rests on an uncommitted
//! version waits for the batch, because that version may yet not happen.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::PartitionSettings;
use super::repeat::{self, Earlier};
use super::transaction::{Fresh, Outcome, Refusal, Transaction, Which};
use crate::kernel::contain::{Panicked, contain};
use crate::model::address::EncodedPartition;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{DocumentId, Etag, Position};
use crate::model::time::Timestamp;
use crate::policy::container::Container;
use crate::policy::ttl::ItemTtl;
use crate::protocol::partition::{Refused, TransactionResult, Write, WriteDocuments, WriteError, Written};
use crate::shard::{CommitError, Committed, ShardHandle, ShardReadError};
use crate::store::{StoredDocument, ViewReadError};

pub(super) struct Batch {
    partition: EncodedPartition,
    container: Arc<Container>,
    shard: ShardHandle,
    now: Timestamp,
    mutations: Vec<Mutation>,
    bytes: usize,
    /// What earlier transactions of this batch left of documents.
    documents: HashMap<DocumentId, Option<Fresh>>,
    /// What they left of rows that partitions read.
    rows: HashMap<(Table, Bytes), Option<Bytes>>,
    waiting: Vec<Waiting>,
}

/// Somebody who is answered when the batch is decided.
struct Waiting {
    reply: oneshot::Sender<TransactionResult>,
    /// What the writes did, or the refusal that rests on this batch.
    outcomes: Result<Vec<Outcome>, Refused>,
    /// Whether the outcomes are those of an earlier request with the same key.
    replayed: bool,
    /// Given back together with the answer.
    _permit: crate::kernel::permits::Permit,
}

impl Batch {
    pub(super) fn new(
        partition: EncodedPartition,
        container: Arc<Container>,
        shard: ShardHandle,
        now: Timestamp,
    ) -> Self {
        let (mutations, documents, rows, waiting) = (Vec::new(), HashMap::new(), HashMap::new(), Vec::new());
        Self { partition, container, shard, now, mutations, bytes: 0, documents, rows, waiting }
    }

    pub(super) fn is_full(&self, settings: &PartitionSettings) -> bool {
        self.mutations.len() >= settings.batch_writes || self.bytes >= settings.batch_bytes
    }

    pub(super) fn partition(&self) -> &EncodedPartition {
        &self.partition
    }

    pub(super) fn container(&self) -> &Arc<Container> {
        &self.container
    }

    pub(super) fn shard(&self) -> &ShardHandle {
        &self.shard
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether anybody sees this committed version: its time is not over, and its partition was not
    /// deleted since.
    pub(super) fn shows(&self, found: &StoredDocument) -> bool {
        // What was stored was checked before.
        let ttl = ItemTtl::from_i32(found.ttl).unwrap_or_default();
        let expired = self.container.is_expired(found.at, ttl, self.now);
        !expired && !self.shard.is_purged(&self.partition.document(&found.id), found.lsn)
    }

    /// The number that the next mutation gets.
    pub(super) fn next_number(&self) -> u32 {
        u32::try_from(self.mutations.len()).unwrap_or(u32::MAX)
    }

    /// What this batch left of a document: a version, or nothing; `None` if it did not touch it.
    pub(super) fn fresh(&self, id: &DocumentId) -> Option<Option<&Fresh>> {
        self.documents.get(id).map(Option::as_ref)
    }

    /// The same for a row.
    pub(super) fn fresh_row(&self, table: Table, key: &Bytes) -> Option<&Option<Bytes>> {
        self.rows.get(&(table, key.clone()))
    }

    /// Decides the writes of one message. A panic in the rules costs these writes only, and comes back with their
    /// digest.
    pub(super) fn add(&mut self, message: WriteDocuments) -> Result<(), (Panicked, Digest)> {
        let WriteDocuments { writes, repeat, permit, reply } = message;
        let decided = contain(|| {
            if let Some(repeat) = &repeat {
                match repeat::earlier(self, repeat)? {
                    Earlier::None => {}
                    Earlier::Answered(outcome) => return Ok((vec![outcome], None)),
                }
            }
            let mut transaction = Transaction::new(self);
            let outcomes = transaction.run(&writes)?;
            if let Some(repeat) = &repeat {
                repeat::record(&mut transaction, repeat, &outcomes);
            }
            let Transaction { documents, rows, mutations, .. } = transaction;
            if !self.shard.has_room(&mutations) {
                let refused = WriteError::NoRoom.into();
                return Err(Refusal { refused, rests_on_batch: false });
            }
            Ok::<_, Refusal>((outcomes, Some((documents, rows, mutations))))
        });
        let (outcomes, replayed) = match decided {
            Err(panicked) => {
                reply.send(Err(WriteError::Crashed.into())).ok();
                return Err((panicked, digest(&writes)));
            }
            Ok(Err(Refusal { refused, rests_on_batch: false })) => {
                // Rests on committed state alone: nothing to wait for.
                reply.send(Err(refused)).ok();
                return Ok(());
            }
            Ok(Err(Refusal { refused, rests_on_batch: true })) => (Err(refused), false),
            Ok(Ok((outcomes, None))) => (Ok(outcomes), true),
            Ok(Ok((outcomes, Some((documents, rows, mutations))))) => {
                self.documents.extend(documents);
                self.rows.extend(rows.into_iter().map(|(table, key, value)| ((table, key), value)));
                self.bytes += mutations.iter().map(Mutation::weight).sum::<usize>();
                self.mutations.extend(mutations);
                (Ok(outcomes), false)
            }
        };
        self.waiting.push(Waiting { reply, outcomes, replayed, _permit: permit });
        Ok(())
    }

    pub(super) fn take_mutations(&mut self) -> Vec<Mutation> {
        std::mem::take(&mut self.mutations)
    }

    /// Tells everybody who waits what became of the batch.
    pub(super) fn answer(self, result: Result<Committed, CommitError>) {
        let shard = self.shard.id();
        for waiting in self.waiting {
            let answer = match (&result, waiting.outcomes) {
                (Err(error), _) => Err(commit_error(*error).into()),
                (Ok(_), Err(refused)) => Err(refused),
                (Ok(committed), Ok(outcomes)) => {
                    let written = |outcome: Outcome| {
                        let (lsn, transaction) = match outcome.which {
                            Which::Committed { lsn, transaction } => (lsn, transaction),
                            Which::Fresh { number, within } => (
                                committed.first.plus(number.into()),
                                committed.first.plus(number.saturating_sub(within).into()),
                            ),
                        };
                        let Outcome { kind, id, at, body, charge, .. } = outcome;
                        let etag = Etag(Position { shard, lsn });
                        let replayed = waiting.replayed;
                        Written { kind, id, etag, lsn: transaction, at, body, charge, replayed }
                    };
                    Ok(outcomes.into_iter().map(written).collect())
                }
            };
            // The caller may have given up; its write stands all the same.
            waiting.reply.send(answer).ok();
        }
    }
}

/// What stands for the writes of a message that comes again: all of them but their traces.
pub(super) type Digest = u128;

/// The digest of writes. It is made after a crash only, so it may take its time.
pub(super) fn digest(writes: &[Write]) -> Digest {
    let mut text = String::new();
    for Write { id, operation, precondition, traceparent: _ } in writes {
        text.push_str(&format!("{id:?} {operation:?} {precondition:?}\n"));
    }
    twox_hash::XxHash3_128::oneshot(text.as_bytes())
}

/// How a failed commit looks to who asked for it.
fn commit_error(error: CommitError) -> WriteError {
    match error {
        CommitError::Busy => WriteError::Overloaded,
        CommitError::Unavailable => WriteError::Unavailable,
        CommitError::NoRoom => WriteError::NoRoom,
        CommitError::TooLarge => WriteError::TooLarge,
        CommitError::Unknown => WriteError::Unknown,
    }
}

fn read_error(error: &ViewReadError) -> WriteError {
    match error {
        ViewReadError::Corrupt | ViewReadError::Newer => WriteError::Corrupt,
        ViewReadError::Disk(_) => WriteError::Unavailable,
    }
}

impl From<ShardReadError> for WriteError {
    fn from(error: ShardReadError) -> Self {
        match error {
            ShardReadError::View(error) => read_error(&error),
            ShardReadError::Unavailable | ShardReadError::Log(_) => Self::Unavailable,
        }
    }
}
