//! Requests that come again with the same idempotency key: the record of the first one stands in the
//! same mutation as what it did, so that either both are there or none.

use bytes::Bytes;

use super::batch::Batch;
use super::transaction::{Outcome, Refusal, Transaction, Which, committed};
use crate::model::change::{Mutation, RowChange, Table};
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;
use crate::policy::charge;
use crate::policy::idempotency::{Record, Verdict, verdict};
use crate::protocol::partition::{Refused, Repeat, WriteError};

/// What is known of earlier requests with a key.
pub(super) enum Earlier {
    None,
    /// This is what the first one did.
    Answered(Outcome),
}

/// Looks for the record of an earlier request.
pub(super) fn earlier(batch: &Batch, repeat: &Repeat) -> Result<Earlier, Refusal> {
    let key = row_key(batch, repeat);
    let fresh = batch.fresh_row(Table::Idempotency, &key);
    let refuse =
        |error: WriteError| Refusal { refused: Refused::from(error), rests_on_batch: fresh.is_some() };
    let stored = match fresh {
        Some(row) => row.clone(),
        None => {
            let row = batch.shard().row(batch.partition(), Table::Idempotency, &key);
            row.map_err(|error| refuse(error.into()))?
        }
    };
    let Some(stored) = stored else { return Ok(Earlier::None) };
    // A committed row begins with the position of its mutation; one of this batch has none yet.
    let (position, record) = if fresh.is_some() { (None, &stored[..]) } else { split(&stored) };
    let record = Record::decode(record).map_err(|_| refuse(WriteError::Corrupt))?;
    match verdict(&record, repeat.fingerprint, batch.now()) {
        Verdict::Expired => Ok(Earlier::None),
        Verdict::Mismatch => Err(refuse(WriteError::KeyReused)),
        Verdict::Replay(record) => {
            let (number, within) = unpack(record.lsn);
            let which = match position {
                Some(lsn) => committed(lsn, within),
                None => Which::Fresh { number, within },
            };
            let body = unchanged(batch, &record.id, number, position).unwrap_or_default();
            let (kind, id, at, charge) =
                (Some(record.kind), record.id.clone(), record.at, charge::read(body.len()));
            Ok(Earlier::Answered(Outcome { kind, id, which, at, body, charge }))
        }
    }
}

/// The document as the first request left it, if it is still there and nobody changed it since.
fn unchanged(batch: &Batch, id: &DocumentId, number: u32, position: Option<Lsn>) -> Option<Bytes> {
    match batch.fresh(id) {
        // A number of this batch says nothing about a record of an earlier one.
        Some(fresh) => {
            fresh.filter(|fresh| position.is_none() && fresh.number == number).map(|fresh| fresh.body.clone())
        }
        None => {
            let found = batch.shard().document(batch.partition(), id).ok()??;
            (Some(found.lsn) == position && batch.shows(&found)).then_some(found.body)
        }
    }
}

/// What a record of this batch holds in place of a position, which nobody knows yet: the number of its
/// mutation, and how many mutations before it its transaction began.
fn pack(number: u32, within: u32) -> Lsn {
    Lsn(u64::from(within) << u32::BITS | u64::from(number))
}

fn unpack(packed: Lsn) -> (u32, u32) {
    let part = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (part(packed.0), part(packed.0 >> u32::BITS))
}

/// Writes the record of a request that was decided, into the mutation of what it did.
pub(super) fn record(transaction: &mut Transaction<'_>, repeat: &Repeat, outcomes: &[Outcome]) {
    let done = outcomes.iter().find_map(|outcome| match (outcome.kind, outcome.which) {
        (Some(kind), Which::Fresh { number, within }) => Some((outcome, kind, number, within)),
        (_, Which::Fresh { .. } | Which::Committed { .. }) => None,
    });
    let Some((outcome, kind, number, within)) = done else { return };
    let batch = transaction.batch();
    let expires = Timestamp(batch.now().0.saturating_add(repeat.keep.as_millis().try_into().unwrap_or(0)));
    let record = Record {
        fingerprint: repeat.fingerprint,
        kind,
        id: outcome.id.clone(),
        lsn: pack(number, within),
        at: batch.now(),
        expires,
    };
    let key = row_key(batch, repeat);
    let value = Bytes::from(record.encode());
    let rows = [
        RowChange { table: Table::Idempotency, key: key.clone(), value: Some(value.clone()) },
        RowChange { table: Table::Expiry, key: expiry_key(expires, &key), value: Some(Bytes::new()) },
    ];
    transaction.rows.push((Table::Idempotency, key, Some(value)));
    let place = usize::try_from(within).ok().and_then(|at| transaction.mutations.get_mut(at));
    if let Some(Mutation::Document(change)) = place {
        change.rows.extend(rows);
    }
}

fn row_key(batch: &Batch, repeat: &Repeat) -> Bytes {
    [batch.partition().as_bytes().as_ref(), repeat.key.as_ref()].concat().into()
}

/// Where the end of a record is noted: in the space of no container, by time.
fn expiry_key(expires: Timestamp, row: &[u8]) -> Bytes {
    [&[0], &expires.0.to_be_bytes()[..], row].concat().into()
}

fn split(stored: &[u8]) -> (Option<Lsn>, &[u8]) {
    match stored.split_first_chunk::<8>() {
        Some((position, record)) => (Some(Lsn(u64::from_le_bytes(*position))), record),
        None => (None, stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_batch_survives_its_packing() {
        for (number, within) in [(0, 0), (7, 3), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            assert_eq!(unpack(pack(number, within)), (number, within));
        }
    }
}
