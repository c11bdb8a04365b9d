//! Which of several servers is asked next.
//!
//! Invariants: a server is asked only when none of a better priority is usable; among equals each gets its share of
//! the weights, and an even one over any stretch of requests, not only in the long run.

/// What is known of a server at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its share among those of its priority; one of 0 is never asked.
    pub weight: u32,
    /// Its group: 1 comes first.
    pub priority: u32,
    /// Whether it may be asked.
    pub usable: bool,
}

/// The golden ratio as a fraction of 2^64: its multiples fill a range as evenly as any sequence does.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number of the server that is asked. `turn` counts the requests, whatever it begins with.
pub fn choose<I>(candidates: I, turn: u64) -> Option<usize>
where
    I: Iterator<Item = Candidate> + Clone,
{
    let usable = candidates.enumerate().filter(|(_, candidate)| candidate.usable && candidate.weight > 0);
    let best = usable.clone().map(|(_, candidate)| candidate.priority).min()?;
    let group = usable.filter(|(_, candidate)| candidate.priority == best);
    let total: u64 = group.clone().map(|(_, candidate)| u64::from(candidate.weight)).sum();
    let scaled = u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(total);
    let mut left = u64::try_from(scaled >> u64::BITS).unwrap_or_default();
    for (number, candidate) in group {
        match left.checked_sub(u64::from(candidate.weight)) {
            Some(rest) => left = rest,
            None => return Some(number),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(weight: u32, priority: u32, usable: bool) -> Candidate {
        Candidate { weight, priority, usable }
    }

    fn counts(candidates: &[Candidate], turns: std::ops::Range<u64>) -> Vec<u32> {
        let mut counts = vec![0; candidates.len()];
        for turn in turns {
            counts[choose(candidates.iter().copied(), turn).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn each_gets_its_share_of_the_weights() {
        let pool = [of(3, 1, true), of(1, 1, true)];
        let many = counts(&pool, 0..4_000);
        assert!((2_996..=3_004).contains(&many[0]), "{many:?}");
        // Also over a short stretch that begins anywhere.
        for start in [0, 7, 1_000_003, u64::MAX - 100] {
            let few = counts(&pool, start..start.saturating_add(40));
            assert!((28..=32).contains(&few[0]), "{few:?}");
        }
    }

    #[test]
    fn a_later_priority_is_asked_only_when_all_before_it_are_out() {
        let mut pool = [of(1, 1, true), of(1, 1, true), of(5, 2, true), of(1, 3, true)];
        assert_eq!(counts(&pool, 0..100)[2..], [0, 0]);
        pool[0].usable = false;
        assert_eq!(counts(&pool, 0..100), [0, 100, 0, 0]);
        pool[1].usable = false;
        assert_eq!(counts(&pool, 0..100), [0, 0, 100, 0]);
        pool[2].weight = 0;
        assert_eq!(counts(&pool, 0..100), [0, 0, 0, 100]);
        pool[3].usable = false;
        assert_eq!(choose(pool.iter().copied(), 5), None);
        assert_eq!(choose(std::iter::empty(), 5), None);
    }

    proptest! {
        #[test]
        fn the_chosen_one_is_usable_and_of_the_best_priority(
            pool in proptest::collection::vec((0..5_u32, 1..4_u32, any::<bool>()), 0..12),
            turn in any::<u64>(),
        ) {
            let pool: Vec<_> = pool.into_iter().map(|(w, p, u)| of(w, p, u)).collect();
            let usable = |c: &Candidate| c.usable && c.weight > 0;
            let best = pool.iter().filter(|c| usable(c)).map(|c| c.priority).min();
            match choose(pool.iter().copied(), turn) {
                Some(chosen) => {
                    prop_assert!(usable(&pool[chosen]));
                    prop_assert_eq!(Some(pool[chosen].priority), best);
                }
                None => prop_assert_eq!(best, None),
            }
        }

        #[test]
        fn shares_stay_close_to_the_weights(
            weights in proptest::collection::vec(1..20_u32, 1..8), start in any::<u64>(),
        ) {
            let pool: Vec<_> = weights.iter().map(|w| of(*w, 1, true)).collect();
            let mut counts = vec![0_i64; pool.len()];
            for turn in 0..1_000_u64 {
                counts[choose(pool.iter().copied(), start.wrapping_add(turn)).unwrap()] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let wanted = 1_000 * i64::from(*weight) / i64::from(total);
                prop_assert!((count - wanted).abs() <= 12, "{counts:?} {weights:?}");
            }
        }
    }
}
