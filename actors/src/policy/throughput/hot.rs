//! The partitions that use most just now, without an account for each of millions.
//!
//! Invariants: at most [`HotList::CAPACITY`] partitions are remembered, whatever comes; what is shown for a
//! partition is its own use, never that of others; and one that uses more than a sixty-fourth of what its shelf uses is
//! always remembered.
//!
//! The method is space-saving: where there is no room, a newcomer takes the place of the partition that
//! used least, and inherits its weight as an error that is taken off again when it is shown. Weights
//! fade: what was used ten seconds ago counts for a third. They are kept as if everything had happened
//! at one moment, the shelf's landmark, so that only one of them is touched by a note.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::address::EncodedPartition;
use crate::policy::charge::RequestUnits;

/// Time in which a weight fades to 1/e, in seconds.
const FADE: f64 = 10.0;
/// A shelf takes a new landmark after so many seconds, long before its weights grow too large.
const LANDMARK_AGE: f64 = 60.0 * FADE;
/// What was used in less than this is shown as if it had been used in it, in seconds.
const SHORTEST: f64 = 1.0;
/// Less than this is nothing, in units and refusals per second.
const NOTHING: f64 = 0.005;
const SHELVES: usize = 16;
const PLACES: usize = 64;

/// The busiest partitions. Shared between threads; a note locks one of its shelves for a moment.
#[derive(Debug)]
pub struct HotList {
    shelves: Vec<Mutex<Shelf>>,
}

/// A busy partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Hot {
    /// Which one.
    pub partition: EncodedPartition,
    /// What it uses, in RU/s, over about the last ten seconds.
    pub ru_per_s: f64,
    /// How many of its operations are refused for want of budget, per second.
    pub throttled_per_s: f64,
}

/// A part of the partitions, by their hashes. Vectors of the same length, because hashes and weights are
/// searched whole.
#[derive(Debug, Default)]
struct Shelf {
    landmark: f64,
    hashes: Vec<u64>,
    weights: Vec<f64>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    partition: EncodedPartition,
    /// Weight that was inherited.
    error: f64,
    throttled: f64,
    /// When it came, in seconds.
    since: f64,
}

impl Default for HotList {
    fn default() -> Self {
        Self { shelves: (0..SHELVES).map(|_| Mutex::default()).collect() }
    }
}

impl HotList {
    /// Partitions that are remembered at most.
    pub const CAPACITY: usize = SHELVES * PLACES;

    /// Notes what an operation of a partition cost. `now` is the time since any fixed moment.
    pub fn note(&self, partition: &EncodedPartition, cost: RequestUnits, now: Duration) {
        self.add(partition, cost.as_f64(), 0.0, now);
    }

    /// Notes that an operation of a partition was refused.
    pub fn note_throttled(&self, partition: &EncodedPartition, now: Duration) {
        self.add(partition, 0.0, 1.0, now);
    }

    /// The `n` busiest partitions, the busiest first.
    pub fn top(&self, n: usize, now: Duration) -> Vec<Hot> {
        let now = now.as_secs_f64();
        let mut found = Vec::with_capacity(Self::CAPACITY);
        for shelf in &self.shelves {
            found.extend(lock(shelf).shown(now));
        }
        found.sort_unstable_by(|a, b| {
            b.ru_per_s.total_cmp(&a.ru_per_s).then_with(|| a.partition.cmp(&b.partition))
        });
        found.truncate(n);
        found
    }

    fn add(&self, partition: &EncodedPartition, cost: f64, refused: f64, now: Duration) {
        let hash = twox_hash::XxHash3_64::oneshot(partition.as_bytes());
        // The high bits, because shards are chosen by the low ones.
        let at = usize::try_from(hash >> 32).unwrap_or(0) % SHELVES;
        if let Some(shelf) = self.shelves.get(at) {
            lock(shelf).add(hash, partition, (cost, refused), now.as_secs_f64());
        }
    }
}

impl Shelf {
    fn add(&mut self, hash: u64, partition: &EncodedPartition, (cost, refused): (f64, f64), now: f64) {
        if now - self.landmark > LANDMARK_AGE {
            self.move_landmark(now);
        }
        let boost = ((now - self.landmark) / FADE).exp();
        let known = |(i, other): (usize, &u64)| {
            let same =
                *other == hash && self.places.get(i).is_some_and(|place| place.partition == *partition);
            same.then_some(i)
        };
        let at = self.hashes.iter().enumerate().find_map(known);
        let at = at.unwrap_or_else(|| self.make_place(hash, partition, now));
        if let (Some(weight), Some(place)) = (self.weights.get_mut(at), self.places.get_mut(at)) {
            *weight += cost * boost;
            place.throttled += refused * boost;
        }
    }

    /// A place for a newcomer, if need be that of whoever used least.
    fn make_place(&mut self, hash: u64, partition: &EncodedPartition, now: f64) -> usize {
        let place = |error| Place { partition: partition.clone(), error, throttled: 0.0, since: now };
        if self.places.len() < PLACES {
            self.hashes.push(hash);
            self.weights.push(0.0);
            self.places.push(place(0.0));
            return self.places.len() - 1;
        }
        let least = self.weights.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        let (at, error) = least.map_or((0, 0.0), |(at, weight)| (at, *weight));
        if let (Some(old_hash), Some(old)) = (self.hashes.get_mut(at), self.places.get_mut(at)) {
            *old_hash = hash;
            *old = place(error);
        }
        at
    }

    fn move_landmark(&mut self, now: f64) {
        let fade = ((self.landmark - now) / FADE).exp();
        self.weights.iter_mut().for_each(|weight| *weight *= fade);
        for place in &mut self.places {
            place.error *= fade;
            place.throttled *= fade;
        }
        self.landmark = now;
    }

    fn shown(&self, now: f64) -> impl Iterator<Item = Hot> {
        let fade = ((self.landmark - now) / FADE).exp();
        self.weights.iter().zip(&self.places).filter_map(move |(weight, place)| {
            // A rate that lasts has come to `rate * FADE` in the long run, and to this part of it by now.
            let age = (now - place.since).max(SHORTEST);
            let per_second = fade / (FADE * (1.0 - (-age / FADE).exp()));
            let ru_per_s = (weight - place.error) * per_second;
            let throttled_per_s = place.throttled * per_second;
            let partition = place.partition.clone();
            (ru_per_s.max(throttled_per_s) > NOTHING).then_some(Hot { partition, ru_per_s, throttled_per_s })
        })
    }
}

/// A list of hints stays usable when a thread that wrote into it has panicked.
fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32) -> EncodedPartition {
        EncodedPartition::from_bytes(number.to_be_bytes().to_vec().into())
    }

    fn ru(units: u64) -> RequestUnits {
        RequestUnits::whole(units)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected * 0.05
    }

    #[test]
    fn steady_use_is_shown_as_its_rate_from_the_first_seconds_on() {
        let list = HotList::default();
        for millis in 0..60_000 {
            list.note(&partition(1), ru(3), ms(millis));
            if millis % 10 == 0 {
                list.note(&partition(2), ru(5), ms(millis));
            }
            if [2_000, 10_000, 59_999].contains(&millis) {
                let top = list.top(5, ms(millis));
                assert_eq!(top.len(), 2);
                assert!(near(top[0].ru_per_s, 3_000.0), "{top:?}");
                assert!(near(top[1].ru_per_s, 500.0), "{top:?}");
            }
        }
    }

    #[test]
    fn what_was_hot_cools_down_and_is_gone() {
        let list = HotList::default();
        list.note(&partition(1), ru(1_000), ms(0));
        let at =
            |seconds: u64| list.top(1, Duration::from_secs(seconds)).first().map_or(0.0, |hot| hot.ru_per_s);
        assert!(at(0) > 900.0);
        assert!(at(20) < 20.0);
        assert_eq!(at(200), 0.0);
        list.note(&partition(2), ru(1_000), Duration::from_secs(100_000));
        assert_eq!(list.top(5, Duration::from_secs(100_000)).len(), 1);
    }

    #[test]
    fn a_hot_partition_is_found_among_a_million_others() {
        let list = HotList::default();
        let mut noise = 0;
        for millis in 0..20_000 {
            for _ in 0..50 {
                noise += 1;
                list.note(&partition(1_000 + noise), ru(1), ms(millis));
            }
            list.note(&partition(7), ru(10), ms(millis));
            list.note(&partition(8), ru(5), ms(millis));
        }
        let top = list.top(2, ms(20_000));
        let names: Vec<_> = top.iter().map(|hot| &hot.partition).collect();
        assert_eq!(names, [&partition(7), &partition(8)]);
        assert!(top[0].ru_per_s <= 10_500.0 && top[0].ru_per_s > 8_000.0, "{top:?}");
        assert!(list.top(usize::MAX, ms(20_000)).len() <= HotList::CAPACITY);
    }

    #[test]
    fn refusals_are_shown_beside_the_use() {
        let list = HotList::default();
        for millis in 0..10_000 {
            list.note(&partition(1), ru(1), ms(millis));
            list.note_throttled(&partition(1), ms(millis));
            list.note_throttled(&partition(1), ms(millis));
        }
        list.note_throttled(&partition(2), ms(10_000));
        let top = list.top(5, ms(10_000));
        assert!(near(top[0].throttled_per_s, 2_000.0) && near(top[0].ru_per_s, 1_000.0), "{top:?}");
        assert_eq!((&top[1].partition, top[1].ru_per_s), (&partition(2), 0.0));
    }

    #[test]
    fn weights_stay_finite_over_years() {
        let list = HotList::default();
        for day in 0..1_000 {
            let now = Duration::from_secs(day * 86_400);
            (0..10).for_each(|i| list.note(&partition(i), ru(100), now));
        }
        let now = Duration::from_secs(999 * 86_400);
        let top = list.top(100, now);
        assert_eq!(top.len(), 10);
        assert!(top.iter().all(|hot| near(hot.ru_per_s, 10.0) || hot.ru_per_s.is_finite()), "{top:?}");
    }

    #[test]
    fn the_list_is_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<HotList>();
    }
}
