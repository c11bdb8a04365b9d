//! What is owed to subscriptions: rows that must agree with each other, with the log, and with the cursors.
//!
//! Invariant checked: no event is forgotten (a delivery without its due time would never be tried), and none is
//! handed out twice (a pending or dead event that its cursor does not know would be read from the log again).

use std::collections::HashMap;

use bytes::Bytes;

use super::shard::{Report, each_row};
use crate::log::LogReader;
use crate::model::change::Table;
use crate::model::ids::{Lsn, ShardId};
use crate::model::time::Timestamp;
use crate::store::View;
use crate::subscriber::{DeadLetter, Progress, RetryRow, decode, parse_due, parse_lsn, prefix};

/// Events that wait for another attempt, and events that were given up.
pub(super) struct Owed {
    pub(super) deliveries: u64,
    pub(super) dead_letters: u64,
}

/// Checks the subscriptions' rows of a shard and counts them.
pub(super) fn check(shard: ShardId, reader: &dyn LogReader, view: &View, report: &mut Report<'_>) -> Owed {
    let rows = Rows { shard, reader, view, progress: progress(reader, view, report) };
    let deliveries = each_row(view, Table::Deliveries, report, &mut |key, value, report| {
        rows.delivery(key, value, report);
    });
    each_row(view, Table::Held, report, &mut |key, _, report| rows.held(key, report));
    each_row(view, Table::Exports, report, &mut |key, _, report| rows.export(key, report));
    each_row(view, Table::Due, report, &mut |key, _, report| rows.due(key, report));
    let dead_letters = each_row(view, Table::DeadLetters, report, &mut |key, value, report| {
        rows.dead_letter(key, value, report);
    });
    Owed { deliveries, dead_letters }
}

fn progress(reader: &dyn LogReader, view: &View, report: &mut Report<'_>) -> HashMap<String, Progress> {
    let mut all = HashMap::new();
    each_row(view, Table::Progress, report, &mut |key, value, report| {
        let (Ok(name), Some(progress)) = (std::str::from_utf8(key), decode::<Progress>(value)) else {
            report(format!("the progress of {key:?} cannot be read"));
            return;
        };
        let tail = reader.tail();
        let last = progress.done.last().map_or(progress.cursor, |(_, last)| *last).max(progress.cursor);
        if last > tail {
            report(format!("subscription `{name}` is done with {last}, but the log ends at {tail}"));
        }
        let passed = progress.done.first().is_some_and(|(first, _)| *first <= progress.cursor);
        if passed || !progress.done.is_sorted() || progress.done.iter().any(|(first, last)| first > last) {
            report(format!(
                "subscription `{name}` lists positions that its cursor has passed, or out of order"
            ));
        }
        all.insert(name.to_owned(), progress);
    });
    all
}

struct Rows<'v> {
    shard: ShardId,
    reader: &'v dyn LogReader,
    view: &'v View,
    progress: HashMap<String, Progress>,
}

impl Rows<'_> {
    fn delivery(&self, key: &Bytes, value: &Bytes, report: &mut Report<'_>) {
        let (Some((name, lsn)), Some(row)) = (place(key), decode::<RetryRow>(value)) else {
            report(format!("the delivery at {key:?} cannot be read"));
            return;
        };
        self.passed(name, lsn, "pending", report);
        let due = [prefix(name).as_slice(), &row.next_at.0.to_be_bytes(), &lsn.0.to_be_bytes()].concat();
        if !row.held && matches!(self.view.row(Table::Due, &due), Ok(None)) {
            report(format!("event {lsn} of `{name}` waits for a retry that is not in the index by time"));
        }
        match &row.event {
            None if lsn < self.reader.first() => {
                let first = self.reader.first();
                report(format!("event {lsn} of `{name}` is pending, but the log begins at {first}"));
            }
            Some(event) if event.position().lsn != lsn || event.position().shard != self.shard => {
                report(format!("event {lsn} of `{name}` is stored as {}", event.position()));
            }
            None | Some(_) => {}
        }
    }

    fn due(&self, key: &Bytes, report: &mut Report<'_>) {
        let Some((name, at, lsn)) = due_place(key) else {
            report(format!("the due time at {key:?} cannot be read"));
            return;
        };
        let delivery = [prefix(name).as_slice(), &lsn.0.to_be_bytes()].concat();
        let row = self.view.row(Table::Deliveries, &delivery);
        let agrees = |value: Bytes| decode::<RetryRow>(&value).is_none_or(|row| row.next_at == at);
        // A row that cannot be read was reported with the deliveries.
        if row.is_ok_and(|row| !row.is_some_and(agrees)) {
            report(format!("event {lsn} of `{name}` falls due at {at} without a delivery of that time"));
        }
    }

    /// Who stands in the way of others must have an end to come, or they wait for ever.
    fn held(&self, key: &Bytes, report: &mut Report<'_>) {
        let place = split(key).and_then(|(name, rest)| Some((name, parse_lsn(rest.get(16..)?)?)));
        let Some((name, lsn)) = place else {
            report(format!("what is held at {key:?} cannot be read"));
            return;
        };
        let delivery = [prefix(name).as_slice(), &lsn.0.to_be_bytes()].concat();
        if matches!(self.view.row(Table::Deliveries, &delivery), Ok(None)) {
            report(format!("event {lsn} of `{name}` holds back its key, but is not pending"));
        }
    }

    fn export(&self, key: &Bytes, report: &mut Report<'_>) {
        if matches!(self.view.row(Table::DeadLetters, key), Ok(None)) {
            report(format!("what is to be exported at {key:?} is no dead letter"));
        }
    }

    fn dead_letter(&self, key: &Bytes, value: &Bytes, report: &mut Report<'_>) {
        let (Some((name, lsn)), Some(letter)) = (place(key), decode::<DeadLetter>(value)) else {
            report(format!("the dead letter at {key:?} cannot be read"));
            return;
        };
        self.passed(name, lsn, "dead-lettered", report);
        let position = letter.event.position();
        if position.lsn != lsn || position.shard != self.shard {
            report(format!("dead letter {lsn} of `{name}` is stored as {position}"));
        }
        if matches!(self.view.row(Table::Deliveries, key), Ok(Some(_))) {
            report(format!("event {lsn} of `{name}` is pending and dead-lettered at once"));
        }
    }

    /// What has a row of its own must be behind the cursor, or it would be read from the log once more.
    fn passed(&self, name: &str, lsn: Lsn, what: &str, report: &mut Report<'_>) {
        match self.progress.get(name) {
            None => report(format!("event {lsn} of `{name}` is {what}, but the subscription has no cursor")),
            Some(progress) if lsn > progress.cursor && !is_done(progress, lsn) => {
                let cursor = progress.cursor;
                report(format!("event {lsn} of `{name}` is {what}, but the cursor is at {cursor}"));
            }
            Some(_) => {}
        }
    }
}

/// Whether one of the stretches beyond the cursor holds `lsn`.
fn is_done(progress: &Progress, lsn: Lsn) -> bool {
    progress.done.iter().any(|(first, last)| (*first..=*last).contains(&lsn))
}

/// Reads the key of a delivery or a dead letter.
fn place(key: &[u8]) -> Option<(&str, Lsn)> {
    let (name, rest) = split(key)?;
    Some((name, parse_lsn(rest)?))
}

fn due_place(key: &[u8]) -> Option<(&str, Timestamp, Lsn)> {
    let (name, rest) = split(key)?;
    let (at, lsn) = parse_due(rest)?;
    Some((name, at, lsn))
}

/// A name and what follows its zero byte.
fn split(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let (name, rest) = key.split_at_checked(end)?;
    Some((std::str::from_utf8(name).ok()?, rest.get(1..)?))
}
