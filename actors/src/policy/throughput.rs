//! Throughput budgets: how many request units a second a container and each of its partitions may use.
//!
//! Stands between an operation and its start. Invariants: what is refused has cost nothing and done
//! nothing; over any stretch of time no more is admitted than the budget gives for it, one second's
//! worth, and the last operation; accounting is cheap, bounded and shared between threads, because
//! reads spend too.

mod bucket;
mod hot;
mod meter;

pub use bucket::{Bucket, RetryAfter, spend_both};
pub use hot::{Hot, HotList};
pub use meter::{Meter, Reading};

use crate::policy::charge::RequestUnits;

/// What one partition may use at most, in RU/s, whatever its container has.
pub const PARTITION_CEILING: u32 = 10_000;
/// Least and most of a fixed budget, in RU/s, and its steps.
const MANUAL: (u32, u32, u32) = (400, 1_000_000, 100);
/// Least and most of an elastic budget's maximum, in RU/s, and its steps.
const AUTOSCALE: (u32, u32, u32) = (1_000, 1_000_000, 1_000);
/// An elastic budget never counts for less than this part of its maximum.
const FLOOR_PART: u32 = 10;

/// The budget of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Throughput {
    max: u32,
    floor: u32,
}

/// A number that is no budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThroughput {
    /// Not a fixed budget.
    #[error("a manual throughput is 400 to 1,000,000 RU/s in steps of 100, not {0}")]
    Manual(u32),
    /// Not the maximum of an elastic budget.
    #[error("the `max` of a throughput is 1,000 to 1,000,000 RU/s in steps of 1,000, not {0}")]
    Autoscale(u32),
}

impl Throughput {
    /// No budget at all, for the numbers of a container that has none.
    pub const UNLIMITED: Self = Self { max: u32::MAX, floor: 0 };

    /// A fixed budget: 400 to 1,000,000 RU/s in steps of 100.
    pub fn manual(ru_per_s: u32) -> Result<Self, InvalidThroughput> {
        let valid = fits(ru_per_s, MANUAL);
        valid.then_some(Self { max: ru_per_s, floor: ru_per_s }).ok_or(InvalidThroughput::Manual(ru_per_s))
    }

    /// An elastic budget: at most `max`, 1,000 to 1,000,000 RU/s in steps of 1,000; an hour counts for what
    /// its busiest second used, and for a tenth of `max` at least.
    pub fn autoscale(max: u32) -> Result<Self, InvalidThroughput> {
        let valid = fits(max, AUTOSCALE);
        valid.then_some(Self { max, floor: max / FLOOR_PART }).ok_or(InvalidThroughput::Autoscale(max))
    }

    /// What the container may use, in RU/s.
    pub fn max(self) -> u32 {
        self.max
    }

    /// What it counts for at least, in RU/s; a fixed budget always counts whole.
    pub fn floor(self) -> u32 {
        self.floor
    }

    /// Whether the budget is elastic.
    pub fn is_autoscale(self) -> bool {
        self.floor < self.max
    }

    /// What one of its partitions may use, in RU/s.
    pub fn partition(self) -> u32 {
        self.max.min(PARTITION_CEILING)
    }

    /// What an hour counts for, in RU/s, whose busiest second used `highest`.
    pub fn billed(self, highest: RequestUnits) -> u32 {
        let used = u32::try_from(highest.hundredths().div_ceil(100)).unwrap_or(u32::MAX);
        used.clamp(self.floor, self.max)
    }
}

fn fits(number: u32, (least, most, step): (u32, u32, u32)) -> bool {
    (least..=most).contains(&number) && number.is_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_their_bounds_and_steps() {
        for (number, manual, autoscale) in [
            (0, false, false),
            (300, false, false),
            (400, true, false),
            (450, false, false),
            (1_000, true, true),
            (1_100, true, false),
            (20_000, true, true),
            (1_000_000, true, true),
            (1_000_100, false, false),
            (1_001_000, false, false),
            (u32::MAX, false, false),
        ] {
            assert_eq!(Throughput::manual(number).is_ok(), manual, "{number}");
            assert_eq!(Throughput::autoscale(number).is_ok(), autoscale, "{number}");
        }
        let error = Throughput::autoscale(1_500).unwrap_err().to_string();
        assert_eq!(error, "the `max` of a throughput is 1,000 to 1,000,000 RU/s in steps of 1,000, not 1500");
    }

    #[test]
    fn a_partition_has_a_ceiling_of_its_own() {
        assert_eq!(Throughput::manual(400).unwrap().partition(), 400);
        assert_eq!(Throughput::autoscale(20_000).unwrap().partition(), 10_000);
    }

    #[test]
    fn an_hour_counts_for_its_busiest_second_and_at_least_for_the_floor() {
        let elastic = Throughput::autoscale(20_000).unwrap();
        assert!(elastic.is_autoscale());
        for (hundredths, billed) in [(0, 2_000), (200_001, 2_001), (1_234_500, 12_345), (9_000_000, 20_000)] {
            assert_eq!(elastic.billed(RequestUnits::from_hundredths(hundredths)), billed);
        }
        let fixed = Throughput::manual(500).unwrap();
        assert!(!fixed.is_autoscale());
        assert_eq!((fixed.floor(), fixed.billed(RequestUnits::ZERO)), (500, 500));
    }
}
