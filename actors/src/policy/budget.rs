//! Decides when a crashed actor starts again, and when it is left alone.
//!
//! Stands between a crash and its supervisor. Invariant: at most `max` restarts within any window;
//! the pauses between them grow.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::time::Timestamp;

/// Longest pause before a restart.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How many crashes an actor may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashBudget {
    max: u32,
    window: Duration,
    base: Duration,
    recent: VecDeque<Timestamp>,
}

impl CrashBudget {
    /// A budget of `max` restarts within `window`. The first pause is `base`, each further crash
    /// within the window doubles it, up to [`MAX_BACKOFF`].
    pub fn new(max: u32, window: Duration, base: Duration) -> Self {
        Self { max, window, base, recent: VecDeque::new() }
    }

    /// Notes a crash. Returns the pause before the next start, or `None` when the budget is spent
    /// and the actor must stay down (quarantine) until somebody calls [`reset`](Self::reset).
    pub fn record(&mut self, now: Timestamp) -> Option<Duration> {
        while self.recent.front().is_some_and(|&crash| now.since(crash) >= self.window) {
            self.recent.pop_front();
        }
        let crashes = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if crashes >= self.max {
            return None;
        }
        self.recent.push_back(now);
        let factor = 2_u32.saturating_pow(crashes);
        Some(self.base.saturating_mul(factor).min(MAX_BACKOFF))
    }

    /// Forgets all crashes: an operator has reopened the actor.
    pub fn reset(&mut self) {
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000 + seconds * 1_000)
    }

    fn budget(max: u32) -> CrashBudget {
        CrashBudget::new(max, Duration::from_secs(60), Duration::from_millis(100))
    }

    #[test]
    fn pauses_double_until_the_budget_is_spent() {
        let mut budget = budget(3);
        for millis in [100, 200, 400] {
            assert_eq!(budget.record(at(0)), Some(Duration::from_millis(millis)));
        }
        assert_eq!(budget.record(at(1)), None);
        assert_eq!(budget.record(at(2)), None);
    }

    #[test]
    fn crashes_older_than_the_window_do_not_count() {
        let mut budget = budget(2);
        let base = Duration::from_millis(100);
        assert_eq!(budget.record(at(0)), Some(base));
        assert_eq!(budget.record(at(59)), Some(base * 2));
        assert_eq!(budget.record(at(60)), Some(base * 2), "the first crash has left the window");
        assert_eq!(budget.record(at(61)), None);
        assert_eq!(budget.record(at(500)), Some(base));
    }

    #[test]
    fn a_reset_restores_the_whole_budget() {
        let mut budget = budget(1);
        assert!(budget.record(at(0)).is_some());
        assert!(budget.record(at(0)).is_none());
        budget.reset();
        assert_eq!(budget.record(at(0)), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_pause_is_at_most_half_a_minute() {
        let mut budget = budget(1_000);
        let longest = (0..1_000).filter_map(|_| budget.record(at(0))).max();
        assert_eq!(longest, Some(MAX_BACKOFF));
    }

    #[test]
    fn a_budget_of_nothing_allows_no_restart() {
        assert_eq!(budget(0).record(at(0)), None);
    }

    proptest! {
        #[test]
        fn no_window_sees_more_restarts_than_the_budget(
            max in 0u32..5,
            gaps in proptest::collection::vec(0u64..40, 1..60),
        ) {
            let mut budget = budget(max);
            let mut now = 0;
            let mut restarts = Vec::new();
            for gap in gaps {
                now += gap;
                if budget.record(at(now)).is_some() {
                    restarts.push(now);
                }
            }
            for &first in &restarts {
                let seen = restarts.iter().filter(|&&t| t >= first && t < first + 60).count();
                prop_assert!(seen <= max as usize);
            }
        }
    }
}
