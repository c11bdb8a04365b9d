//! What is tried again, and when.

use std::time::Duration;

/// How a request that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Tries after the first one.
    pub count: u32,
    /// The delay, or where it begins.
    pub interval: Duration,
    /// The longest delay; with it the delays grow exponentially.
    pub max_interval: Option<Duration>,
    /// What is added each time; alone the delays grow by it.
    pub delta: Option<Duration>,
    /// Whether the first one goes without a delay.
    pub first_fast: bool,
}

/// Doublings beyond this change nothing that a cap has not decided.
const DOUBLINGS: u32 = 30;

impl RetryRules {
    /// The delay before retry `number`, counted from 1. `draw` is a random number from 0 to 1, which spreads those
    /// that failed together.
    ///
    /// Fixed: `interval`. Linear, with `delta`: `interval + (n - 1) * delta`. Exponential, with `delta` and
    /// `max_interval`: `interval + (2^n - 1) * d`, where `d` is between 0.8 and 1.2 of `delta`, and at most
    /// `max_interval`.
    pub fn delay(&self, number: u32, draw: f64) -> Duration {
        if self.first_fast && number <= 1 {
            return Duration::ZERO;
        }
        let most = self.max_interval.unwrap_or(Duration::MAX);
        let delta = self.delta.unwrap_or_default();
        let more = if self.max_interval.is_some() {
            let spread = 0.8 + 0.4 * draw.clamp(0.0, 1.0);
            let times = f64::from((1_u32 << number.min(DOUBLINGS)) - 1);
            Duration::try_from_secs_f64(delta.as_secs_f64() * spread * times).unwrap_or(Duration::MAX)
        } else {
            delta.saturating_mul(number.saturating_sub(1))
        };
        self.interval.saturating_add(more).min(most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    const FIXED: RetryRules =
        RetryRules { count: 5, interval: ms(100), max_interval: None, delta: None, first_fast: false };

    #[test]
    fn delays_are_fixed_linear_or_exponential() {
        let linear = RetryRules { delta: Some(ms(50)), ..FIXED };
        let exponential = RetryRules { max_interval: Some(ms(1_000)), ..linear };
        for (number, of_fixed, of_linear, of_exponential) in [
            (1, 100, 100, 150),
            (2, 100, 150, 250),
            (3, 100, 200, 450),
            (4, 100, 250, 850),
            (5, 100, 300, 1_000),
            (4_000_000_000, 100, 200_000_000_050, 1_000),
        ] {
            assert_eq!(FIXED.delay(number, 0.5), ms(of_fixed));
            assert_eq!(linear.delay(number, 0.5), ms(of_linear));
            assert_eq!(exponential.delay(number, 0.5), ms(of_exponential), "{number}");
        }
    }

    #[test]
    fn the_first_one_may_be_fast() {
        let fast = RetryRules { first_fast: true, ..FIXED };
        assert_eq!((fast.delay(1, 0.0), fast.delay(2, 0.0)), (Duration::ZERO, ms(100)));
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_its_interval_and_its_cap(
            number in 1..u32::MAX, draw in 0.0..1.0_f64, interval in 0..5_000_u64, delta in 0..5_000_u64,
            cap in 5_000..100_000_u64,
        ) {
            let rules = RetryRules {
                interval: ms(interval), delta: Some(ms(delta)), max_interval: Some(ms(cap)), ..FIXED
            };
            let delay = rules.delay(number, draw);
            prop_assert!(delay >= ms(interval) && delay <= ms(cap));
            prop_assert!(rules.delay(number.saturating_add(1), draw) >= delay);
        }
    }
}
