//! One budget as a token bucket of request units, in a single atomic number.
//!
//! The number is the moment when the bucket will be full again: spending moves it on by the time in
//! which the budget gives that much. The bucket holds one second's worth. An operation is admitted
//! while the balance is above zero, and may take it below, because what an operation costs is often
//! known only when it is done, and one that costs more than a second's worth must be possible at all;
//! whoever comes next waits until the debt is paid. So a caller who was silent gets up to twice its rate
//! within its first second; over any longer time the rate holds. No debt is forgiven: an operation of
//! ten seconds' worth closes the bucket for nine.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::charge::RequestUnits;

/// What the bucket holds, as time.
const CAPACITY: u64 = 1_000_000_000;
/// A hundredth of a unit at 1 RU/s, in nanoseconds.
const HUNDREDTH: u64 = 10_000_000;

/// The balance of one container or partition. Starts full.
#[derive(Debug)]
pub struct Bucket {
    ru_per_s: AtomicU32,
    full_at: AtomicU64,
}

/// A budget that is spent: time until there will be something again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("over the throughput budget, try again in {} ms", self.millis())]
pub struct RetryAfter(pub Duration);

impl RetryAfter {
    /// Milliseconds, rounded up, for `x-ms-retry-after-ms`.
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Seconds, rounded up, for `Retry-After`.
    pub fn seconds(self) -> u64 {
        self.millis().div_ceil(1_000)
    }
}

impl Bucket {
    /// A full bucket of so many RU/s, at least 1.
    pub fn new(ru_per_s: u32) -> Self {
        Self { ru_per_s: AtomicU32::new(ru_per_s.max(1)), full_at: AtomicU64::new(0) }
    }

    /// Asks whether an operation may start, without spending. `now` is the time since any fixed moment.
    pub fn check(&self, now: Duration) -> Result<(), RetryAfter> {
        wait(self.full_at.load(Ordering::Relaxed), nanos(now)).map_or(Ok(()), Err)
    }

    /// Asks the same for when so much more is spent.
    pub fn check_after(&self, now: Duration, under_way: RequestUnits) -> Result<(), RetryAfter> {
        let now = nanos(now);
        let full_at = later(self.full_at.load(Ordering::Relaxed), now, self.price(under_way));
        wait(full_at, now).map_or(Ok(()), Err)
    }

    /// Spends if the operation may start; a refused one costs nothing.
    pub fn try_spend(&self, now: Duration, cost: RequestUnits) -> Result<(), RetryAfter> {
        let (now, price) = (nanos(now), self.price(cost));
        let spend = |full_at: u64| wait(full_at, now).is_none().then(|| later(full_at, now, price));
        match self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend) {
            Ok(_) => Ok(()),
            Err(full_at) => wait(full_at, now).map_or(Ok(()), Err),
        }
    }

    /// Spends whatever the balance is: for what was admitted, and whose cost is known now.
    pub fn charge(&self, now: Duration, cost: RequestUnits) {
        let (now, price) = (nanos(now), self.price(cost));
        let spend = |full_at| Some(later(full_at, now, price));
        // A closure that always answers never fails.
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok();
    }

    /// Changes the rate. A debt stays the same in units.
    pub fn retune(&self, now: Duration, ru_per_s: u32) {
        let (now, new) = (nanos(now), ru_per_s.max(1));
        let old = self.ru_per_s.swap(new, Ordering::Relaxed);
        let scale = |full_at: u64| {
            let used = u128::from(full_at.saturating_sub(now)) * u128::from(old) / u128::from(new);
            Some(now.saturating_add(u64::try_from(used).unwrap_or(u64::MAX)))
        };
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, scale).ok();
    }

    /// The rate, in RU/s.
    pub fn ru_per_s(&self) -> u32 {
        self.ru_per_s.load(Ordering::Relaxed)
    }

    /// What can be spent before callers have to wait.
    pub fn balance(&self, now: Duration) -> RequestUnits {
        let used = self.full_at.load(Ordering::Relaxed).saturating_sub(nanos(now));
        let left = u128::from(CAPACITY.saturating_sub(used)) * u128::from(self.ru_per_s());
        RequestUnits::from_hundredths(u64::try_from(left / u128::from(HUNDREDTH)).unwrap_or(u64::MAX))
    }

    /// The time in which the budget gives so much.
    fn price(&self, cost: RequestUnits) -> u64 {
        cost.hundredths().saturating_mul(HUNDREDTH).div_ceil(u64::from(self.ru_per_s()))
    }
}

/// Spends of two budgets at once, or of neither: of a container and of one of its partitions. A partition
/// that is over its own ceiling takes nothing from the others. (Callers of one partition that are admitted
/// at the same moment may each take its balance below zero.)
pub fn spend_both(
    now: Duration,
    cost: RequestUnits,
    container: &Bucket,
    partition: &Bucket,
) -> Result<(), RetryAfter> {
    partition.check(now)?;
    container.try_spend(now, cost)?;
    partition.charge(now, cost);
    Ok(())
}

/// When the balance is above zero again, if it is not.
fn wait(full_at: u64, now: u64) -> Option<RetryAfter> {
    let owed = full_at.saturating_sub(now).checked_sub(CAPACITY)?;
    Some(RetryAfter(Duration::from_nanos(owed.saturating_add(1))))
}

fn later(full_at: u64, now: u64, price: u64) -> u64 {
    full_at.max(now).saturating_add(price)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ru(units: u64) -> RequestUnits {
        RequestUnits::whole(units)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_is_under_way_counts_as_spent() {
        let bucket = Bucket::new(400);
        assert_eq!(bucket.check_after(SECOND, RequestUnits::from_hundredths(39_999)), Ok(()));
        assert!(bucket.check_after(SECOND, ru(400)).is_err());
        let wait = bucket.check_after(SECOND, ru(600)).unwrap_err();
        assert_eq!((wait.millis(), bucket.balance(SECOND)), (501, ru(400)));
    }

    #[test]
    fn a_second_is_spent_and_comes_back() {
        let bucket = Bucket::new(400);
        let spent = (0..1_000).filter(|_| bucket.try_spend(SECOND, ru(1)).is_ok()).count();
        assert_eq!(spent, 400);
        assert_eq!(bucket.balance(SECOND), RequestUnits::ZERO);
        let later = (0..1_000).filter(|_| bucket.try_spend(SECOND + ms(100), ru(1)).is_ok()).count();
        assert_eq!(later, 40);
        assert_eq!(bucket.balance(SECOND * 60), ru(400), "nothing piles up above a second");
    }

    #[test]
    fn an_overdraft_is_paid_back_before_the_next() {
        let bucket = Bucket::new(400);
        assert_eq!(bucket.try_spend(SECOND, ru(1_000)), Ok(()));
        let refused = bucket.try_spend(SECOND, ru(1)).unwrap_err();
        assert_eq!(refused, RetryAfter(ms(1_500) + Duration::from_nanos(1)));
        assert_eq!((refused.millis(), refused.seconds()), (1_501, 2));
        assert_eq!(refused.to_string(), "over the throughput budget, try again in 1501 ms");
        assert_eq!(bucket.check(SECOND + ms(1_500)), Err(RetryAfter(Duration::from_nanos(1))));
        assert_eq!(bucket.try_spend(SECOND + refused.0, ru(1)), Ok(()));
        assert!(bucket.try_spend(SECOND + refused.0, ru(1)).is_err());
    }

    #[test]
    fn refused_calls_cost_nothing() {
        let bucket = Bucket::new(1_000);
        bucket.charge(SECOND, ru(1_500));
        let first = bucket.check(SECOND);
        for _ in 0..1_000 {
            assert_eq!(bucket.try_spend(SECOND, ru(50)).err(), first.err());
        }
    }

    #[test]
    fn a_full_partition_takes_nothing_from_its_container() {
        let (container, partition, other) = (Bucket::new(20_000), Bucket::new(10_000), Bucket::new(10_000));
        assert!(spend_both(SECOND, ru(10_000), &container, &partition).is_ok());
        for _ in 0..100 {
            assert!(spend_both(SECOND, ru(10_000), &container, &partition).is_err());
        }
        assert_eq!(container.balance(SECOND), ru(10_000));
        assert!(spend_both(SECOND, ru(10_000), &container, &other).is_ok());
        assert!(spend_both(SECOND + ms(1), ru(30), &container, &partition).is_ok());
        let third = Bucket::new(10_000);
        assert!(spend_both(SECOND + ms(1), ru(1), &container, &third).is_err());
        assert_eq!(third.balance(SECOND + ms(1)), ru(10_000), "a full container takes nothing either");
    }

    #[test]
    fn another_rate_keeps_the_debt_in_units() {
        let bucket = Bucket::new(400);
        bucket.charge(SECOND, ru(1_200));
        bucket.retune(SECOND, 800);
        // 1,200 units at 800 a second are 1.5 seconds, of which the bucket bears one.
        assert_eq!(bucket.check(SECOND), Err(RetryAfter(ms(500) + Duration::from_nanos(1))));
        assert_eq!(bucket.ru_per_s(), 800);
    }

    #[test]
    fn numbers_at_the_edges_do_no_harm() {
        let bucket = Bucket::new(0);
        assert_eq!(bucket.ru_per_s(), 1);
        bucket.charge(Duration::MAX, RequestUnits::from_hundredths(u64::MAX));
        assert!(bucket.check(Duration::ZERO).is_err());
        bucket.retune(Duration::ZERO, u32::MAX);
        assert!(bucket.check(Duration::MAX).is_ok());
    }

    #[test]
    fn threads_share_a_budget_exactly() {
        let bucket = Bucket::new(1_000);
        let spent = || (0..1_000).filter(|_| bucket.try_spend(SECOND, ru(1)).is_ok()).count();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(spent)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_budget_and_the_last_operation(
            rate in 1u32..2_000,
            calls in proptest::collection::vec((0u64..400, 0u64..300_000), 1..80),
        ) {
            let bucket = Bucket::new(rate);
            let mut now = 0;
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (gap, cost) in calls {
                now += gap;
                let cost_of = RequestUnits::from_hundredths(cost);
                match bucket.try_spend(ms(now), cost_of) {
                    Ok(()) => passed.push((now, cost)),
                    Err(RetryAfter(wait)) => {
                        prop_assert!(bucket.check(ms(now) + wait).is_ok(), "the wait is long enough");
                        let early = ms(now) + wait - Duration::from_nanos(1);
                        prop_assert!(bucket.check(early).is_err(), "and not longer than needed");
                    }
                }
            }
            for first in 0..passed.len() {
                let mut spent = 0;
                for &(at, cost) in &passed[first..] {
                    // Before the last one there was still something to spend.
                    let given = (1_000 + at - passed[first].0) * u64::from(rate) / 10;
                    prop_assert!(spent <= given, "{} {}", spent, given);
                    spent += cost;
                }
            }
        }
    }
}
