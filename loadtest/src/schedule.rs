//! Stands between the options of a run and the client: which request is due when.
//! Invariant: the schedule is a pure function of its options and seed; nothing the server does can move an arrival.

use std::time::Duration;

use fastrand::Rng;

/// How the gaps between arrivals are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Spacing {
    /// Independent exponential gaps, as from many callers who do not know each other.
    Poisson,
    /// The same gap every time.
    Constant,
}

/// A request and when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// How long after the start of the schedule.
    pub(crate) after: Duration,
    /// What is asked.
    pub(crate) operation: Operation,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Create this document.
    Create(DocumentKey),
    /// Read one of the documents acknowledged so far; `pick` is a random number that chooses it.
    Read { pick: u64 },
}

/// Which document: its number within the run and the partition it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DocumentKey {
    pub(crate) number: u64,
    pub(crate) partition: u32,
}

/// What a schedule is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Length of the schedule.
    pub(crate) length: Duration,
    pub(crate) spacing: Spacing,
    /// Share of reads, 0 to 1; the rest are creates.
    pub(crate) reads: f64,
    /// Number of partitions that creates are spread over, uniformly.
    pub(crate) partitions: u32,
    /// The number that the first create gets.
    pub(crate) first_number: u64,
    pub(crate) seed: u64,
}

impl Plan {
    /// The arrivals, in order. Drawn as they are needed, so that a long run costs no memory; drawing twice gives the
    /// same arrivals.
    pub(crate) fn arrivals(&self) -> Arrivals {
        Arrivals {
            plan: *self,
            rng: Rng::with_seed(self.seed),
            drawn: 0,
            at: 0.0,
            next_number: self.first_number,
        }
    }

    /// One create in each partition, all due at once, numbered from 0: what is there before a schedule begins.
    pub(crate) fn one_in_each(partitions: u32) -> impl Iterator<Item = Arrival> + Send + 'static {
        (0..partitions).map(|partition| Arrival {
            after: Duration::ZERO,
            operation: Operation::Create(DocumentKey { number: u64::from(partition), partition }),
        })
    }
}

/// The arrivals of a [`Plan`].
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    plan: Plan,
    rng: Rng,
    drawn: u64,
    /// Seconds from the start to the last Poisson arrival.
    at: f64,
    next_number: u64,
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let seconds = match self.plan.spacing {
            // `1 - u` keeps the logarithm away from zero, because `u` is below 1.
            Spacing::Poisson => self.at - (1.0 - self.rng.f64()).ln() / self.plan.rate,
            Spacing::Constant => self.drawn as f64 / self.plan.rate,
        };
        let after = Duration::try_from_secs_f64(seconds).ok()?;
        if after >= self.plan.length {
            return None;
        }
        self.at = seconds;
        self.drawn += 1;
        Some(Arrival { after, operation: self.operation() })
    }
}

impl Arrivals {
    fn operation(&mut self) -> Operation {
        if self.rng.f64() < self.plan.reads {
            return Operation::Read { pick: self.rng.u64(..) };
        }
        let number = self.next_number;
        self.next_number += 1;
        Operation::Create(DocumentKey { number, partition: self.rng.u32(0..self.plan.partitions.max(1)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(spacing: Spacing, seed: u64) -> Plan {
        Plan {
            rate: 2000.0,
            length: Duration::from_secs(20),
            spacing,
            reads: 0.7,
            partitions: 1000,
            first_number: 1000,
            seed,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let first: Vec<Arrival> = plan(Spacing::Poisson, 7).arrivals().collect();
        let again: Vec<Arrival> = plan(Spacing::Poisson, 7).arrivals().collect();
        let other: Vec<Arrival> = plan(Spacing::Poisson, 8).arrivals().collect();
        assert_eq!(first, again);
        assert_ne!(first, other);
    }

    #[test]
    fn both_spacings_offer_the_rate_that_was_asked_for() {
        assert_eq!(plan(Spacing::Constant, 1).arrivals().count(), 40_000);
        for seed in 0..5 {
            let count = plan(Spacing::Poisson, seed).arrivals().count() as f64;
            // Forty thousand arrivals have a standard deviation of two hundred.
            assert!((count - 40_000.0).abs() < 1000.0, "seed {seed}: {count}");
        }
    }

    #[test]
    fn poisson_gaps_are_exponential_and_constant_gaps_are_equal() {
        let gaps = |spacing| {
            let arrivals: Vec<f64> =
                plan(spacing, 3).arrivals().map(|arrival| arrival.after.as_secs_f64()).collect();
            arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<f64>>()
        };
        let variation = |gaps: &[f64]| {
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            variance.sqrt() / mean
        };
        assert!((variation(&gaps(Spacing::Poisson)) - 1.0).abs() < 0.05);
        assert!(variation(&gaps(Spacing::Constant)) < 0.001);
        assert!(gaps(Spacing::Poisson).iter().all(|gap| *gap >= 0.0));
    }

    #[test]
    fn the_mix_and_the_partitions_are_spread_as_asked() {
        let mut reads = 0_u32;
        let mut per_partition = vec![0_u32; 1000];
        let mut next_number = 1000;
        let arrivals: Vec<Arrival> = plan(Spacing::Poisson, 5).arrivals().collect();
        for arrival in &arrivals {
            match arrival.operation {
                Operation::Read { .. } => reads += 1,
                Operation::Create(key) => {
                    assert_eq!(key.number, next_number);
                    next_number += 1;
                    per_partition[key.partition as usize] += 1;
                }
            }
        }
        assert!((f64::from(reads) / arrivals.len() as f64 - 0.7).abs() < 0.01);
        assert!(per_partition.iter().all(|count| (1..40).contains(count)));
    }

    #[test]
    fn the_first_documents_are_one_in_each_partition() {
        let keys: Vec<Operation> = Plan::one_in_each(3).map(|arrival| arrival.operation).collect();
        let expected: Vec<Operation> =
            (0..3).map(|n| Operation::Create(DocumentKey { number: u64::from(n), partition: n })).collect();
        assert_eq!(keys, expected);
    }
}
