//! Which events of one shard are still open: pure.
//!
//! Invariant: the cursor never passes an event that is neither delivered, pending nor
//! dead-lettered.

use std::collections::BTreeSet;

use super::rows::Progress;
use crate::model::ids::Lsn;

#[derive(Debug, Clone, Default)]
pub(super) struct Track {
    routed: Lsn,
    open: BTreeSet<Lsn>,
    done: BTreeSet<Lsn>,
}

impl Track {
    pub(super) fn resume(progress: Progress) -> Self {
        Self { routed: progress.cursor, open: BTreeSet::new(), done: progress.done.into_iter().collect() }
    }

    /// Takes an event that was handed over. False: it was done before a restart.
    pub(super) fn take(&mut self, lsn: Lsn) -> bool {
        !self.done.contains(&lsn) && self.open.insert(lsn)
    }

    /// The router has looked at everything up to `lsn`, and handed over what matched.
    pub(super) fn routed(&mut self, lsn: Lsn) {
        self.routed = self.routed.max(lsn);
        self.forget();
    }

    /// The event has an outcome.
    pub(super) fn done(&mut self, lsn: Lsn) {
        if self.open.remove(&lsn) {
            self.done.insert(lsn);
            self.forget();
        }
    }

    /// Everything up to here has an outcome.
    pub(super) fn cursor(&self) -> Lsn {
        match self.open.first() {
            Some(first) => first.previous().min(self.routed),
            None => self.routed,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { cursor: self.cursor(), done: self.done.iter().copied().collect() }
    }

    /// What the cursor passed needs no entry of its own.
    fn forget(&mut self) {
        self.done = self.done.split_off(&self.cursor().next());
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
        assert_eq!(track.progress(), Progress { cursor: Lsn(11), done: vec![Lsn(15)] });
        track.done(Lsn(12));
        assert_eq!(track.progress(), Progress { cursor: Lsn(18), done: vec![] });
        track.done(Lsn(19));
        assert_eq!(track.cursor(), Lsn(20));
    }

    #[test]
    fn what_was_done_before_a_restart_is_not_taken_again() {
        let mut track = Track::resume(Progress { cursor: Lsn(11), done: vec![Lsn(15)] });
        assert!(track.take(Lsn(12)));
        assert!(!track.take(Lsn(15)));
        assert!(track.take(Lsn(16)));
    }

    proptest! {
        /// Matching events are 1..=n; some finish, in any order; then the process restarts.
        #[test]
        fn after_a_restart_exactly_the_unfinished_are_open(n in 1u64..40, order in proptest::collection::vec(1u64..40, 0..60)) {
            let mut track = Track::default();
            for lsn in 1..=n {
                prop_assert!(track.take(Lsn(lsn)));
            }
            track.routed(Lsn(n));
            let mut finished = BTreeSet::new();
            for lsn in order.into_iter().filter(|lsn| *lsn <= n) {
                track.done(Lsn(lsn));
                finished.insert(lsn);
            }
            let progress = track.progress();
            let mut after = Track::resume(progress.clone());
            let open: BTreeSet<u64> = (progress.cursor.0 + 1..=n).filter(|lsn| after.take(Lsn(*lsn))).collect();
            let unfinished: BTreeSet<u64> = (1..=n).filter(|lsn| !finished.contains(lsn)).collect();
            prop_assert_eq!(open, unfinished);
        }
    }
}
