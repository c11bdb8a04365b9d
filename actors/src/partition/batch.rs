//! A batch in the making: decided writes, what they change, and who waits for which of them.
//!
//! Later writes see earlier ones of the same batch. An answer that rests on an uncommitted
//! version waits for the batch, because that version may yet not happen.

use std::collections::HashMap;

use fail::fail_point;
use tokio::sync::oneshot;

use super::PartitionSettings;
use super::rules::{Current, decide};
use crate::kernel::contain::{Panicked, contain};
use crate::model::address::EncodedPartition;
use crate::model::change::{ChangeKind, DocumentChange, Mutation, Previous};
use crate::model::ids::{DocumentId, Etag, Position};
use crate::model::time::Timestamp;
use crate::protocol::partition::{Operation, Write, WriteDocument, WriteError, WriteResult, Written};
use crate::shard::{CommitError, Committed, ShardHandle, ShardReadError};
use crate::store::ViewReadError;

pub(super) struct Batch {
    address: EncodedPartition,
    shard: ShardHandle,
    now: Timestamp,
    mutations: Vec<Mutation>,
    bytes: usize,
    /// What earlier writes of this batch left of a document: its mutation's number, or nothing.
    overlay: HashMap<DocumentId, Option<u32>>,
    waiting: Vec<Waiting>,
}

/// Somebody who is answered when the batch is decided.
struct Waiting {
    reply: oneshot::Sender<WriteResult>,
    /// The write's mutation and what it did, or the refusal that rests on this batch.
    outcome: Result<(u32, ChangeKind), WriteError>,
    /// Given back together with the answer.
    _permit: crate::kernel::permits::Permit,
}

impl Batch {
    pub(super) fn new(address: EncodedPartition, shard: ShardHandle, now: Timestamp) -> Self {
        let (mutations, overlay, waiting) = (Vec::new(), HashMap::new(), Vec::new());
        Self { address, shard, now, mutations, bytes: 0, overlay, waiting }
    }

    pub(super) fn is_full(&self, settings: &PartitionSettings) -> bool {
        self.mutations.len() >= settings.batch_writes || self.bytes >= settings.batch_bytes
    }

    /// Decides one write. A panic in the rules costs this write only.
    pub(super) fn add(&mut self, message: WriteDocument) -> Result<(), Panicked> {
        let WriteDocument { write, permit, reply } = message;
        let decided = contain(|| self.evaluate(&write));
        let outcome = match decided {
            Err(panicked) => {
                reply.send(Err(WriteError::Crashed)).ok();
                return Err(panicked);
            }
            Ok(Err((error, false))) => {
                // Rests on committed state alone: nothing to wait for.
                reply.send(Err(error)).ok();
                return Ok(());
            }
            Ok(Err((error, true))) => Err(error),
            Ok(Ok((kind, previous))) => Ok((self.push(write, kind, previous), kind)),
        };
        self.waiting.push(Waiting { reply, outcome, _permit: permit });
        Ok(())
    }

    /// What the write does; or why not, and whether that rests on this batch.
    fn evaluate(&self, write: &Write) -> Result<(ChangeKind, Option<Previous>), (WriteError, bool)> {
        fail_point!("partition::evaluate", write.id.as_str().starts_with("poison"), |_| Err((
            WriteError::Corrupt,
            false
        )));
        let current = match self.overlay.get(&write.id) {
            Some(Some(number)) => Current::Fresh(*number),
            Some(None) => Current::Absent,
            None => self.committed(&write.id).map_err(|error| (error, false))?,
        };
        let fresh = self.overlay.contains_key(&write.id);
        let kind = decide(write, current, self.shard.id()).map_err(|error| (error, fresh))?;
        let next = u32::try_from(self.mutations.len()).unwrap_or(u32::MAX);
        let previous = match current {
            Current::Absent => None,
            Current::Committed(lsn) => Some(Previous::At(lsn)),
            Current::Fresh(number) => Some(Previous::Back(next.saturating_sub(number))),
        };
        Ok((kind, previous))
    }

    fn committed(&self, id: &DocumentId) -> Result<Current, WriteError> {
        let version = self.shard.version(&self.address, id)?;
        Ok(version.map_or(Current::Absent, |version| Current::Committed(version.lsn)))
    }

    fn push(&mut self, write: Write, kind: ChangeKind, previous: Option<Previous>) -> u32 {
        let number = u32::try_from(self.mutations.len()).unwrap_or(u32::MAX);
        let body = match write.operation {
            Operation::Create(body) | Operation::Upsert(body) | Operation::Replace(body) => body,
            Operation::Delete => bytes::Bytes::new(),
        };
        let left = (kind != ChangeKind::Delete).then_some(number);
        self.overlay.insert(write.id.clone(), left);
        let mutation = Mutation::Document(DocumentChange {
            kind,
            partition: self.address.clone(),
            id: write.id,
            at: self.now,
            previous,
            body,
            traceparent: write.traceparent,
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        });
        self.bytes += mutation.weight();
        self.mutations.push(mutation);
        number
    }

    pub(super) fn take_mutations(&mut self) -> Vec<Mutation> {
        std::mem::take(&mut self.mutations)
    }

    /// Tells everybody who waits what became of the batch.
    pub(super) fn answer(self, result: Result<Committed, CommitError>) {
        let shard = self.shard.id();
        for waiting in self.waiting {
            let answer = match (&result, waiting.outcome) {
                (Err(error), _) => Err(commit_error(*error)),
                (Ok(_), Err(error)) => Err(error),
                (Ok(committed), Ok((number, kind))) => {
                    let lsn = committed.first.plus(number.into());
                    Ok(Written { kind, etag: Etag(Position { shard, lsn }), at: self.now })
                }
            };
            // The caller may have given up; its write stands all the same.
            waiting.reply.send(answer).ok();
        }
    }
}

/// How a failed commit looks to the writer of one document.
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
