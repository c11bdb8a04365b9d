//! The retries that fall due next, kept in memory; the rest waits in the store.

use std::collections::{BTreeMap, HashSet};

use super::rows::RetryRow;
use crate::model::ids::Position;
use crate::model::time::Timestamp;

/// Bounded: holds the earliest `limit` retries, and knows whether the store has later ones.
#[derive(Debug)]
pub(super) struct Schedule {
    limit: usize,
    rows: BTreeMap<(Timestamp, Position), RetryRow>,
    /// Retries whose attempt, or whose settlement, is under way: their rows in the store are old.
    taken: HashSet<Position>,
    complete: bool,
}

impl Schedule {
    /// A schedule that has to be filled from the store.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, rows: BTreeMap::new(), taken: HashSet::new(), complete: false }
    }

    /// Whether the store must be asked before the next retry is known.
    pub(super) fn needs_fill(&self) -> bool {
        self.rows.is_empty() && !self.complete
    }

    /// How many rows the store must be asked for, so that at least one new one is among them.
    pub(super) fn page(&self) -> usize {
        self.limit + self.taken.len()
    }

    /// Takes the store's earliest rows; `complete` if there are no others.
    pub(super) fn fill(&mut self, rows: impl IntoIterator<Item = (Position, RetryRow)>, complete: bool) {
        self.complete = complete;
        for (position, row) in rows {
            if !self.taken.contains(&position) {
                self.rows.insert((row.next_at, position), row);
            }
        }
    }

    /// A retry that the store has now.
    pub(super) fn insert(&mut self, position: Position, row: RetryRow) {
        let key = (row.next_at, position);
        let beyond = self.rows.last_key_value().is_none_or(|(last, _)| key > *last);
        if beyond && !self.complete {
            // The store may have earlier ones than this: it stays there until they were asked for.
            return;
        }
        self.rows.insert(key, row);
        if self.rows.len() > self.limit {
            self.rows.pop_last();
            self.complete = false;
        }
    }

    /// The earliest retry, if it is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(Position, RetryRow)> {
        let entry = self.rows.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let ((_, position), row) = entry.remove_entry();
        self.taken.insert(position);
        Some((position, row))
    }

    /// A taken retry came to an end that the store has now.
    pub(super) fn settled(&mut self, position: Position) {
        self.taken.remove(&position);
    }

    /// A taken retry was not made; the store still has it as it was.
    pub(super) fn give_back(&mut self, position: Position, row: RetryRow, at: Timestamp) {
        self.taken.remove(&position);
        self.rows.insert((at, position), row);
    }

    /// When the next one falls due.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.rows.first_key_value().map(|((at, _), _)| *at)
    }

    /// Everything in memory falls due now.
    pub(super) fn hasten(&mut self, now: Timestamp) {
        let rows = std::mem::take(&mut self.rows);
        self.rows = rows.into_iter().map(|((at, position), row)| ((at.min(now), position), row)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{Lsn, ShardId};

    fn at(lsn: u64) -> Position {
        Position { shard: ShardId(0), lsn: Lsn(lsn) }
    }

    fn row(next_at: u64) -> RetryRow {
        let next_at = Timestamp(next_at);
        RetryRow { attempts: 1, next_at, published: Timestamp(0), last: None, event: None }
    }

    #[test]
    fn the_earliest_retry_comes_first_and_not_before_its_time() {
        let mut schedule = Schedule::new(10);
        assert!(schedule.needs_fill());
        schedule.fill([(at(1), row(30)), (at(2), row(10))], true);
        assert_eq!(schedule.take_due(Timestamp(9)), None);
        assert_eq!(schedule.take_due(Timestamp(10)), Some((at(2), row(10))));
        assert_eq!(schedule.next_at(), Some(Timestamp(30)));
    }

    #[test]
    fn a_full_schedule_keeps_the_earliest_and_asks_the_store_later() {
        let mut schedule = Schedule::new(2);
        schedule.fill([(at(1), row(10)), (at(2), row(20))], true);
        schedule.insert(at(3), row(15));
        schedule.insert(at(4), row(99));
        assert_eq!(schedule.take_due(Timestamp(99)), Some((at(1), row(10))));
        assert_eq!(schedule.take_due(Timestamp(99)), Some((at(3), row(15))));
        assert_eq!(schedule.take_due(Timestamp(99)), None);
        assert!(schedule.needs_fill());
        // What is under way is not taken a second time from its old row.
        schedule.fill([(at(1), row(10)), (at(2), row(20)), (at(4), row(99))], true);
        assert_eq!(schedule.take_due(Timestamp(99)), Some((at(2), row(20))));
    }
}
