//! Keys and values of a subscription's rows in its shards.
//!
//! ```text
//! progress:     <name>                          cursor and what is done beyond it
//! deliveries:   <name> 00 <lsn>                 an event that failed and will be tried again
//! due:          <name> 00 <time, ms> <lsn>      the same, by time; no value
//! dead letters: <name> 00 <lsn>                 an event that was given up, whole
//! exports:      <name> 00 <lsn>                 the same, if it is not in its blob store yet; no value
//! held:         <name> 00 <key, hash> <lsn>     an event that failed, or waits behind one: when published
//! ```
//! Numbers are big-endian, so that keys sort by them. Names have no zero byte.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::order::Fingerprint;
use crate::model::change::{Mutation, Table};
use crate::model::delivery::OutcomeKind;
use crate::model::event::StoredEvent;
use crate::model::ids::{Lsn, Position};
use crate::model::time::Timestamp;
use crate::policy::retry::DeadLetterReason;

/// Where a subscription stands in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Everything up to here is delivered, pending or dead-lettered.
    pub cursor: Lsn,
    /// First and last positions of stretches after the cursor of which the same is true.
    pub done: Vec<(Lsn, Lsn)>,
}

/// An event that failed and will be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRow {
    /// Attempts made.
    pub attempts: u32,
    /// When the next one falls due.
    pub next_at: Timestamp,
    /// When the event was published, or replayed: its age counts from here.
    pub published: Timestamp,
    /// Class of the last outcome; `None` before the first attempt of a replay.
    pub last: Option<OutcomeKind>,
    /// The event itself, when the log need not have it any more.
    pub event: Option<StoredEvent>,
    /// The replay that delivers it once more. Rows of version 0.1.0 end before it.
    #[serde(default)]
    pub replay: Option<Arc<str>>,
    /// It waits for an earlier event with its key, not for a time.
    #[serde(default)]
    pub held: bool,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AnyDeadLetter")]
pub struct DeadLetter {
    /// Why.
    pub reason: DeadLetterReason,
    /// Attempts made.
    pub attempts: u32,
    /// Class of the last outcome; `None` when it was given up without an attempt.
    pub last_outcome: Option<OutcomeKind>,
    /// HTTP status of the last attempt.
    pub last_status: Option<u16>,
    /// One line about the last attempt.
    pub detail: String,
    /// When the event was published.
    pub published: Timestamp,
    /// When it was given up.
    pub at: Timestamp,
    /// The event.
    pub event: StoredEvent,
}

/// A dead letter of any version: reason, attempts, outcome, status, detail, published, given up; then the
/// event, before which version 0.1.0 had its type.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyDeadLetter {
    Current(
        DeadLetterReason,
        u32,
        Option<OutcomeKind>,
        Option<u16>,
        String,
        Timestamp,
        Timestamp,
        StoredEvent,
    ),
    First(
        DeadLetterReason,
        u32,
        Option<OutcomeKind>,
        Option<u16>,
        String,
        Timestamp,
        Timestamp,
        String,
        StoredEvent,
    ),
}

impl From<AnyDeadLetter> for DeadLetter {
    fn from(any: AnyDeadLetter) -> Self {
        let (reason, attempts, last_outcome, last_status, detail, published, at, event) = match any {
            AnyDeadLetter::Current(reason, attempts, outcome, status, detail, published, at, event) => {
                (reason, attempts, outcome, status, detail, published, at, event)
            }
            AnyDeadLetter::First(
                reason,
                attempts,
                outcome,
                status,
                detail,
                published,
                at,
                event_type,
                event,
            ) => (reason, attempts, outcome, status, detail, published, at, event.with_type(event_type)),
        };
        Self { reason, attempts, last_outcome, last_status, detail, published, at, event }
    }
}

/// Prefix of the keys of a subscription's deliveries, due times or dead letters.
pub fn prefix(subscription: &str) -> Vec<u8> {
    [subscription.as_bytes(), &[0]].concat()
}

/// Key of a delivery or a dead letter.
pub(super) fn key(subscription: &str, lsn: Lsn) -> Bytes {
    [subscription.as_bytes(), &[0], &lsn.0.to_be_bytes()].concat().into()
}

fn due_key(subscription: &str, at: Timestamp, lsn: Lsn) -> Bytes {
    [subscription.as_bytes(), &[0], &at.0.to_be_bytes(), &lsn.0.to_be_bytes()].concat().into()
}

/// Reads the part of a due key after its prefix.
pub fn parse_due(rest: &[u8]) -> Option<(Timestamp, Lsn)> {
    let (at, rest) = rest.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*at)), parse_lsn(rest)?))
}

/// Reads the part of a delivery's or dead letter's key after its prefix.
pub fn parse_lsn(rest: &[u8]) -> Option<Lsn> {
    Some(Lsn(u64::from_be_bytes(rest.try_into().ok()?)))
}

/// Writes a row's value.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    // Plain data into memory: cannot fail.
    rmp_serde::to_vec(value).unwrap_or_default().into()
}

/// Reads a row's value.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    rmp_serde::from_slice(value).ok()
}

/// Where a subscription begins or has come to.
pub(crate) fn advance(subscription: &str, progress: &Progress) -> Mutation {
    let key = Bytes::copy_from_slice(subscription.as_bytes());
    Mutation::Put { table: Table::Progress, key, value: encode(progress) }
}

/// The event at `lsn` will be tried again: its delivery, and the index by time unless it has none.
pub(super) fn postpone(subscription: &str, lsn: Lsn, row: &RetryRow, out: &mut Vec<Mutation>) {
    out.push(Mutation::Put { table: Table::Deliveries, key: key(subscription, lsn), value: encode(row) });
    if row.held {
        return;
    }
    let due = due_key(subscription, row.next_at, lsn);
    out.push(Mutation::Put { table: Table::Due, key: due, value: Bytes::new() });
}

/// The event's wait is over, one way or another.
pub(super) fn finish(subscription: &str, lsn: Lsn, row: &RetryRow, out: &mut Vec<Mutation>) {
    out.push(Mutation::Delete { table: Table::Deliveries, key: key(subscription, lsn) });
    if row.held {
        return;
    }
    out.push(Mutation::Delete { table: Table::Due, key: due_key(subscription, row.next_at, lsn) });
}

/// The event is given up and kept, and, if it is to be exported, marked for that.
pub(super) fn bury(subscription: &str, letter: &DeadLetter, export: bool, out: &mut Vec<Mutation>) {
    let key = key(subscription, letter.event.position().lsn);
    if export {
        out.push(Mutation::Put { table: Table::Exports, key: key.clone(), value: Bytes::new() });
    }
    out.push(Mutation::Put { table: Table::DeadLetters, key, value: encode(letter) });
}

/// The dead letter is in its blob store.
pub(super) fn exported(subscription: &str, lsn: Lsn) -> Mutation {
    Mutation::Delete { table: Table::Exports, key: key(subscription, lsn) }
}

fn held_key(subscription: &str, print: &Fingerprint, lsn: Lsn) -> Bytes {
    [subscription.as_bytes(), &[0], print, &lsn.0.to_be_bytes()].concat().into()
}

/// The event is the one that its key waits for, or waits for it.
pub(super) fn hold(
    subscription: &str,
    print: &Fingerprint,
    (lsn, published): (Lsn, Timestamp),
    out: &mut Vec<Mutation>,
) {
    let key = held_key(subscription, print, lsn);
    let value = Bytes::copy_from_slice(&published.0.to_be_bytes());
    out.push(Mutation::Put { table: Table::Held, key, value });
}

/// The event no longer stands in the way of its key.
pub(super) fn let_go(subscription: &str, print: &Fingerprint, lsn: Lsn, out: &mut Vec<Mutation>) {
    out.push(Mutation::Delete { table: Table::Held, key: held_key(subscription, print, lsn) });
}

/// Reads the part of a held key after its prefix, and its value.
pub(super) fn parse_held(rest: &[u8], value: &[u8]) -> Option<(Fingerprint, Lsn, Timestamp)> {
    let (print, rest) = rest.split_first_chunk::<16>()?;
    let published = u64::from_be_bytes(value.try_into().ok()?);
    Some((*print, parse_lsn(rest)?, Timestamp(published)))
}

/// The dead letter is no more.
pub(super) fn unbury(subscription: &str, position: Position, out: &mut Vec<Mutation>) {
    out.push(Mutation::Delete { table: Table::DeadLetters, key: key(subscription, position.lsn) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_keys_sort_by_time_and_read_back() {
        let keys: Vec<_> = [(5, 9), (6, 1), (300, 0)]
            .map(|(at, lsn)| due_key("s", Timestamp(at), Lsn(lsn)))
            .into_iter()
            .collect();
        assert!(keys.is_sorted());
        let rest = keys[1].strip_prefix(prefix("s").as_slice()).unwrap();
        assert_eq!(parse_due(rest), Some((Timestamp(6), Lsn(1))));
        assert_eq!(parse_due(b"short"), None);
    }
}
