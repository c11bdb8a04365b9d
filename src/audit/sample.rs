//! So many in so much time, and a count of the others.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bits of the count within a window.
const COUNT_BITS: u32 = 32;

/// Takes the first so many of each window of time.
#[derive(Debug)]
pub(super) struct Sample {
    rule: Option<(NonZeroU32, Duration)>,
    /// Number of the window, then how many were taken in it.
    window: AtomicU64,
    passed_over: AtomicU64,
    /// Those that no record tells of yet.
    untold: AtomicU64,
}

impl Sample {
    pub(super) fn new(rule: Option<(NonZeroU32, Duration)>) -> Self {
        Self { rule, window: AtomicU64::new(0), passed_over: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// Whether this one is taken, at a time since an arbitrary start.
    pub(super) fn takes(&self, now: Duration) -> bool {
        let Some((most, per)) = self.rule else { return false };
        // The first window is not 0, which stands for none.
        let number = now.as_millis() / per.as_millis().max(1) + 1;
        let number = u64::try_from(number).unwrap_or(u64::MAX) & u64::from(u32::MAX);
        let next = |state: u64| {
            let count = if state >> COUNT_BITS == number { state & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(most.get())).then_some((number << COUNT_BITS) | (count + 1))
        };
        let taken = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if !taken {
            self.passed_over.fetch_add(1, Ordering::Relaxed);
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// All that were not taken, ever.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::Relaxed)
    }

    /// Those since the last time that somebody asked.
    pub(super) fn untold(&self) -> u64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// They were not told after all.
    pub(super) fn give_back(&self, untold: u64) {
        self.untold.fetch_add(untold, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_window_are_taken_and_the_others_counted() {
        let sample = Sample::new(Some((NonZeroU32::new(2).unwrap(), Duration::from_secs(1))));
        let taken = |millis: &[u64]| {
            millis.iter().filter(|millis| sample.takes(Duration::from_millis(**millis))).count()
        };
        assert_eq!(taken(&[0, 1, 2, 999]), 2);
        assert_eq!(taken(&[1_000, 1_001, 1_002]), 2);
        assert_eq!(taken(&[9_000]), 1);
        assert_eq!((sample.passed_over(), sample.untold(), sample.untold()), (3, 3, 0));
        sample.give_back(2);
        assert_eq!(sample.untold(), 2);
        let off = Sample::new(None);
        assert!(!off.takes(Duration::ZERO));
        assert_eq!(off.passed_over(), 0);
    }
}
