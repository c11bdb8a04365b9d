//! Which events of one shard are still open: pure.
//!
//! Invariant: the cursor never passes an event that is neither delivered, pending nor
//! dead-lettered.

use std::collections::{BTreeMap, BTreeSet};

use fail::fail_point;

use super::rows::Progress;
use crate::model::ids::Lsn;

/// Bounded by the open events: what is done beyond the cursor is kept as stretches, and two with no
/// open event between them become one.
#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    routed: Lsn,
    open: BTreeSet<Lsn>,
    /// First and last position of each stretch in which nothing is open.
    done: BTreeMap<Lsn, Lsn>,
}

impl Track {
    pub(super) fn resume(progress: Progress) -> Self {
        Self { routed: progress.cursor, open: BTreeSet::new(), done: progress.done.into_iter().collect() }
    }

    /// Takes an event that was handed over. False: it was done before a restart.
    pub(super) fn take(&mut self, lsn: Lsn) -> bool {
        let stretch = self.done.range(..=lsn).next_back();
        stretch.is_none_or(|(_, last)| *last < lsn) && self.open.insert(lsn)
    }

    /// Whether the event was handed over and has no outcome.
    pub(super) fn is_open(&self, lsn: Lsn) -> bool {
        self.open.contains(&lsn) || lsn > self.routed
    }

    /// The router has looked at everything up to `lsn`, and handed over what matched.
    pub(super) fn routed(&mut self, lsn: Lsn) {
        self.routed = self.routed.max(lsn);
        self.forget();
    }

    /// The event has an outcome.
    pub(super) fn done(&mut self, lsn: Lsn) {
        if !self.open.remove(&lsn) {
            return;
        }
        let before = self.open.range(..lsn).next_back().copied();
        let after = self.open.range(lsn..).next().copied();
        let (mut first, mut last) = (lsn, lsn);
        // Without an open event between them, the stretches on both sides are one with this.
        if let Some((&start, &end)) = self.done.range(..lsn).next_back()
            && before.is_none_or(|before| before < start)
        {
            self.done.remove(&start);
            (first, last) = (start, last.max(end));
        }
        if let Some((&start, &end)) = self.done.range(lsn..).next()
            && after.is_none_or(|after| after > start)
            // Beyond what was looked at since a restart there may be open events not handed over yet.
            && start <= self.routed
        {
            self.done.remove(&start);
            last = end;
        }
        self.done.insert(first, last);
        self.forget();
    }

    /// Everything up to here has an outcome.
    pub(super) fn cursor(&self) -> Lsn {
        match self.open.first() {
            Some(first) => first.previous().min(self.routed),
            None => self.routed,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        fail_point!("subscriber::cursor_too_early", |_| Progress { cursor: self.routed, done: Vec::new() });
        let mut progress = Progress { cursor: self.cursor(), done: Vec::new() };
        for (&first, &last) in &self.done {
            if first <= progress.cursor.next() {
                // A stretch from before a restart that the router has come to the middle of.
                progress.cursor = progress.cursor.max(last);
            } else {
                progress.done.push((first, last));
            }
        }
        progress
    }

    /// What the cursor passed needs no entry of its own.
    fn forget(&mut self) {
        let cursor = self.cursor();
        while let Some(entry) = self.done.first_entry()
            && *entry.get() <= cursor
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cursor_waits_for_the_oldest_open_event() {
        let mut track = Track::resume(Progress { cursor: Lsn(10), done: vec![] });
        for lsn in [12, 15, 19] {
            assert!(track.take(Lsn(lsn)));
        }
        track.routed(Lsn(20));
        track.done(Lsn(15));
        assert_eq!(track.progress(), Progress { cursor: Lsn(11), done: vec![(Lsn(15), Lsn(15))] });
        track.done(Lsn(12));
        assert_eq!(track.progress(), Progress { cursor: Lsn(18), done: vec![] });
        track.done(Lsn(19));
        assert_eq!(track.cursor(), Lsn(20));
    }

    #[test]
    fn what_was_done_before_a_restart_is_not_taken_again() {
        let mut track = Track::resume(Progress { cursor: Lsn(11), done: vec![(Lsn(15), Lsn(15))] });
        assert!(track.take(Lsn(12)));
        assert!(!track.take(Lsn(15)));
        assert!(track.take(Lsn(16)));
    }

    #[test]
    fn a_stretch_that_is_half_looked_at_again_is_not_listed_behind_the_cursor() {
        let stretch = (Lsn(15), Lsn(20));
        let mut track = Track::resume(Progress { cursor: Lsn(11), done: vec![stretch] });
        assert!(track.take(Lsn(13)));
        track.routed(Lsn(16));
        assert_eq!(track.progress(), Progress { cursor: Lsn(12), done: vec![stretch] });
        track.done(Lsn(13));
        assert_eq!(track.progress(), Progress { cursor: Lsn(20), done: vec![] });
    }

    #[test]
    fn one_slow_event_does_not_make_the_progress_long() {
        let mut track = Track::default();
        for lsn in 1..=100_000 {
            assert!(track.take(Lsn(lsn)));
            track.routed(Lsn(lsn));
            if lsn > 1 {
                track.done(Lsn(lsn));
            }
        }
        assert_eq!(track.progress(), Progress { cursor: Lsn(0), done: vec![(Lsn(2), Lsn(100_000))] });
    }

    proptest! {
        /// Every second position is an event that matches; some finish, in any order, while others
        /// are still being handed over; then the process restarts, and once more.
        #[test]
        fn after_a_restart_exactly_the_unfinished_are_open(
            n in 1u64..40,
            order in proptest::collection::vec(1u64..40, 0..60),
            again in proptest::collection::vec(1u64..40, 0..60),
        ) {
            let events: BTreeSet<u64> = (1..=n).map(|i| i * 2).collect();
            let mut finished = BTreeSet::new();
            let mut progress = Progress::default();
            for order in [order, again] {
                let mut track = Track::resume(progress.clone());
                let mut taken = BTreeSet::new();
                let mut order = order.into_iter().map(|i| i * 2);
                for lsn in events.iter().copied().filter(|lsn| *lsn > progress.cursor.0) {
                    prop_assert_eq!(track.take(Lsn(lsn)), !finished.contains(&lsn));
                    taken.insert(lsn);
                    track.routed(Lsn(lsn));
                    for lsn in order.by_ref().take(1).filter(|lsn| taken.contains(lsn)) {
                        track.done(Lsn(lsn));
                        finished.insert(lsn);
                    }
                }
                for lsn in order.filter(|lsn| taken.contains(lsn)) {
                    track.done(Lsn(lsn));
                    finished.insert(lsn);
                }
                progress = track.progress();
                prop_assert!(progress.done.first().is_none_or(|(first, _)| *first > progress.cursor));
                prop_assert!(progress.done.is_sorted_by(|(_, a), (b, _)| a < b));
            }
            let mut after = Track::resume(progress.clone());
            let beyond = events.iter().copied().filter(|lsn| *lsn > progress.cursor.0);
            let open: BTreeSet<u64> = beyond.filter(|lsn| after.take(Lsn(*lsn))).collect();
            let unfinished: BTreeSet<u64> = events.difference(&finished).copied().collect();
            prop_assert_eq!(open, unfinished);
        }
    }
}
