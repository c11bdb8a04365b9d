//! The retries that fall due next, kept in memory; the rest waits in the store.
//!
//! Invariant: no retry that the store has falls due before the last one in memory without being in
//! memory itself, or taken.

use std::collections::{BTreeMap, HashSet};

use super::rows::RetryRow;
use crate::model::ids::Position;
use crate::model::time::Timestamp;

type Rows = BTreeMap<(Timestamp, Position), RetryRow>;

/// Bounded: holds the earliest `limit` retries, and knows whether the store has later ones.
#[derive(Debug)]
pub(super) struct Schedule {
    limit: usize,
    rows: Rows,
    /// Retries that were taken but not made. The store has them under a time that has passed.
    parked: Rows,
    /// Retries whose attempt is under way, parked ones, and events whose outcome is on its way into
    /// the store: what the store has of them may be old, or not told yet.
    taken: HashSet<Position>,
    complete: bool,
    hasty: Option<Hasty>,
}

/// What waited at some time falls due at that time, not at its own.
#[derive(Debug)]
struct Hasty {
    since: Timestamp,
    /// What failed since: its time is its own. Bounded: so many failures mean that haste is in vain.
    failed: HashSet<Position>,
}

/// Some of the rows that a store has, in the order of their times.
pub(super) struct Page {
    pub(super) rows: Vec<(Position, RetryRow)>,
    /// Whether that was all.
    pub(super) complete: bool,
}

impl Schedule {
    /// A schedule that has to be filled from the store.
    pub(super) fn new(limit: usize) -> Self {
        let (rows, parked, taken) = (BTreeMap::new(), BTreeMap::new(), HashSet::new());
        Self { limit: limit.max(1), rows, parked, taken, complete: false, hasty: None }
    }

    /// Whether the store must be asked before the next retry is known.
    pub(super) fn needs_fill(&self) -> bool {
        self.rows.is_empty() && !self.complete
    }

    /// How many rows each store must be asked for, so that at least one new one is among them.
    pub(super) fn page(&self) -> usize {
        self.limit + self.taken.len() + self.hasty.as_ref().map_or(0, |hasty| hasty.failed.len())
    }

    /// Takes the earliest rows of every store; each falls due at the time that is said of it.
    pub(super) fn fill(&mut self, pages: Vec<Page>, due_at: impl Fn(&RetryRow) -> Timestamp) {
        self.complete = pages.iter().all(|page| page.complete);
        // A store that has more than it gave may have rows right after its last one: what another
        // store has later than that must not go first.
        let incomplete = pages.iter().filter(|page| !page.complete);
        let known_until = incomplete.filter_map(|page| page.rows.last()).map(|(_, row)| row.next_at).min();
        for (position, row) in pages.into_iter().flat_map(|page| page.rows) {
            let beyond = known_until.is_some_and(|until| row.next_at > until);
            if beyond || self.taken.contains(&position) {
                continue;
            }
            let at = match &self.hasty {
                Some(hasty) if !hasty.failed.contains(&position) => due_at(&row).min(hasty.since),
                // Those that fall due at once are still coming: this would keep them out.
                Some(_) if !self.complete => continue,
                Some(_) | None => due_at(&row),
            };
            self.rows.insert((at, position), row);
        }
        if self.complete {
            self.hasty = None;
        }
    }

    /// A retry that the store has now.
    pub(super) fn insert(&mut self, position: Position, row: RetryRow) {
        if let Some(hasty) = &mut self.hasty {
            hasty.failed.insert(position);
            if hasty.failed.len() > self.limit {
                self.hasty = None;
            }
        }
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

    /// The store has retries that nobody told of one by one: it is asked again.
    pub(super) fn reload(&mut self) {
        self.rows.clear();
        self.complete = false;
    }

    /// The earliest retry, if it is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(Position, RetryRow)> {
        let first = |rows: &Rows| rows.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= now);
        let rows = match (first(&self.rows), first(&self.parked)) {
            (None, None) => return None,
            (Some(waiting), Some(parked)) if parked < waiting => &mut self.parked,
            (None, Some(_)) => &mut self.parked,
            (Some(_), _) => &mut self.rows,
        };
        let ((_, position), row) = rows.pop_first()?;
        self.taken.insert(position);
        Some((position, row))
    }

    /// The earliest retry, if it is due, without taking it.
    pub(super) fn peek_due(&self, now: Timestamp) -> Option<&RetryRow> {
        let first = |rows: &'_ Rows| rows.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= now);
        match (first(&self.rows), first(&self.parked)) {
            (None, None) => None,
            (Some(waiting), Some(parked)) if parked < waiting => self.parked.values().next(),
            (None, Some(_)) => self.parked.values().next(),
            (Some(_), _) => self.rows.values().next(),
        }
    }

    /// An outcome is on its way into the store: its row is not taken from there before
    /// [`settled`](Self::settled) and [`insert`](Self::insert).
    pub(super) fn hold(&mut self, position: Position) {
        self.taken.insert(position);
    }

    /// Whether its attempt, or its outcome, is under way.
    pub(super) fn is_taken(&self, position: Position) -> bool {
        self.taken.contains(&position)
    }

    /// The store has the outcome now.
    pub(super) fn settled(&mut self, position: Position) {
        self.taken.remove(&position);
    }

    /// A taken retry was not made: it falls due again at `at`. The store still has it as it was.
    pub(super) fn give_back(&mut self, position: Position, row: RetryRow, at: Timestamp) {
        self.parked.insert((at, position), row);
    }

    /// When the next one falls due, as far as that is known.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        let first = |rows: &Rows| rows.first_key_value().map(|((at, _), _)| *at);
        first(&self.rows).into_iter().chain(first(&self.parked)).min()
    }

    /// All that waits, here and in the store, falls due now.
    pub(super) fn hasten(&mut self, now: Timestamp) {
        let hastened = |rows: &mut Rows| {
            let all = std::mem::take(rows).into_iter();
            *rows = all.map(|((at, position), row)| ((at.min(now), position), row)).collect();
        };
        hastened(&mut self.rows);
        hastened(&mut self.parked);
        self.hasty = Some(Hasty { since: now, failed: HashSet::new() });
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
        RetryRow {
            attempts: 1,
            next_at,
            published: Timestamp(0),
            last: None,
            event: None,
            replay: None,
            held: false,
        }
    }

    fn page(rows: &[(u64, u64)], complete: bool) -> Page {
        Page { rows: rows.iter().map(|(lsn, time)| (at(*lsn), row(*time))).collect(), complete }
    }

    fn fill(schedule: &mut Schedule, pages: Vec<Page>) {
        schedule.fill(pages, |row| row.next_at);
    }

    fn due(schedule: &mut Schedule, now: u64) -> Option<u64> {
        schedule.take_due(Timestamp(now)).map(|(position, _)| position.lsn.0)
    }

    #[test]
    fn the_earliest_retry_comes_first_and_not_before_its_time() {
        let mut schedule = Schedule::new(10);
        assert!(schedule.needs_fill());
        fill(&mut schedule, vec![page(&[(2, 10), (1, 30)], true)]);
        assert_eq!(due(&mut schedule, 9), None);
        assert_eq!(due(&mut schedule, 10), Some(2));
        assert_eq!(schedule.next_at(), Some(Timestamp(30)));
    }

    #[test]
    fn a_full_schedule_keeps_the_earliest_and_asks_the_store_later() {
        let mut schedule = Schedule::new(2);
        fill(&mut schedule, vec![page(&[(1, 10), (2, 20)], true)]);
        schedule.insert(at(3), row(15));
        schedule.insert(at(4), row(99));
        assert_eq!(due(&mut schedule, 99), Some(1));
        assert_eq!(due(&mut schedule, 99), Some(3));
        assert_eq!(due(&mut schedule, 99), None);
        assert!(schedule.needs_fill());
        // What is under way is not taken a second time from its old row.
        fill(&mut schedule, vec![page(&[(1, 10), (2, 20), (4, 99)], true)]);
        assert_eq!(due(&mut schedule, 99), Some(2));
    }

    #[test]
    fn a_full_page_of_one_store_is_not_overtaken_by_later_rows_of_another() {
        let mut schedule = Schedule::new(2);
        fill(&mut schedule, vec![page(&[(1, 10), (2, 20)], false), page(&[(11, 5), (12, 5_000)], false)]);
        assert_eq!(due(&mut schedule, 9_999), Some(11));
        assert_eq!(due(&mut schedule, 9_999), Some(1));
        assert_eq!(due(&mut schedule, 9_999), Some(2));
        assert!(schedule.needs_fill(), "the first store may have one at 21");
    }

    #[test]
    fn one_that_could_not_be_made_does_not_keep_the_others_in_the_store() {
        let mut schedule = Schedule::new(1);
        fill(&mut schedule, vec![page(&[(1, 10)], false)]);
        let (position, taken) = schedule.take_due(Timestamp(10)).unwrap();
        schedule.give_back(position, taken, Timestamp(500));
        assert!(schedule.needs_fill());
        fill(&mut schedule, vec![page(&[(1, 10), (2, 20)], true)]);
        assert_eq!(due(&mut schedule, 20), Some(2));
        assert_eq!(schedule.next_at(), Some(Timestamp(500)));
        assert_eq!(due(&mut schedule, 500), Some(1));
    }

    #[test]
    fn a_row_that_the_store_shows_before_its_outcome_was_answered_is_not_taken_twice() {
        let mut schedule = Schedule::new(2);
        schedule.hold(at(1));
        fill(&mut schedule, vec![page(&[(1, 10)], true)]);
        assert_eq!(due(&mut schedule, 99), None);
        schedule.settled(at(1));
        schedule.insert(at(1), row(10));
        assert_eq!(due(&mut schedule, 99), Some(1));
        assert_eq!(due(&mut schedule, 99), None);
    }

    #[test]
    fn haste_reaches_what_is_still_in_the_store_but_not_what_failed_since() {
        let mut schedule = Schedule::new(2);
        fill(&mut schedule, vec![page(&[(1, 1_000), (2, 2_000)], false)]);
        schedule.hasten(Timestamp(50));
        assert_eq!(due(&mut schedule, 50), Some(1));
        assert_eq!(due(&mut schedule, 50), Some(2));
        schedule.settled(at(1));
        schedule.insert(at(1), row(60));
        schedule.settled(at(2));
        assert!(schedule.page() >= 3);
        fill(&mut schedule, vec![page(&[(1, 60), (3, 3_000), (4, 4_000)], false)]);
        assert_eq!(due(&mut schedule, 50), Some(3));
        assert_eq!(due(&mut schedule, 50), Some(4));
        assert_eq!(due(&mut schedule, 50), None);
        fill(&mut schedule, vec![page(&[(1, 60)], true)]);
        assert_eq!(due(&mut schedule, 59), None);
        assert_eq!(due(&mut schedule, 60), Some(1));
    }

    #[test]
    fn haste_ends_where_everything_fails_again() {
        let mut schedule = Schedule::new(1);
        schedule.hasten(Timestamp(50));
        for lsn in 1..=2 {
            schedule.insert(at(lsn), row(60 + lsn));
        }
        fill(&mut schedule, vec![page(&[(1, 61), (2, 62), (3, 900)], true)]);
        assert_eq!(due(&mut schedule, 60), None);
        assert_eq!(schedule.next_at(), Some(Timestamp(61)));
    }
}
