//! How fast an endpoint is sent what piled up while it was away.
//!
//! Stands between an endpoint that has just come back and its backlog, which would otherwise come as fast as the
//! endpoint answers. Invariant: at first it gets as many requests a second as it took in its last good minute, and
//! twice as many after every five seconds; so after a minute it is held to nothing any more.

use std::collections::VecDeque;
use std::time::Duration;

use super::retry::whole_millis;
use crate::model::time::Timestamp;

/// Requests per second at first for an endpoint that took less, or of which nothing is known.
const LEAST: f64 = 16.0;
/// The rate doubles this often.
const DOUBLING: Duration = Duration::from_secs(5);
/// At this rate the pacing is over: no endpoint is sent more in any case.
const MOST: f64 = 50_000.0;
/// What may be saved up, in seconds of the rate: so a timer that is a little late costs nothing.
const SAVED: f64 = 0.05;

/// Milliseconds in which requests are counted together.
const PART: u64 = 5_000;
/// Such parts that are remembered: a minute.
const PARTS: u64 = 12;

/// The requests that an endpoint took in the minute before the last of them.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Numbers of parts, in their order, and what was taken in each.
    parts: VecDeque<(u64, u32)>,
}

impl Pulse {
    /// A request was taken.
    pub fn note(&mut self, now: Timestamp) {
        let number = now.0 / PART;
        match self.parts.back_mut() {
            Some((last, taken)) if *last >= number => *taken = taken.saturating_add(1),
            Some(_) | None => self.parts.push_back((number, 1)),
        }
        while self.parts.front().is_some_and(|(first, _)| first.saturating_add(PARTS) <= number) {
            self.parts.pop_front();
        }
    }

    /// How many it took per second.
    pub fn per_second(&self) -> f64 {
        let (Some((first, _)), Some((last, _))) = (self.parts.front(), self.parts.back()) else { return 0.0 };
        let taken: f64 = self.parts.iter().map(|(_, taken)| f64::from(*taken)).sum();
        let long = Duration::from_millis((last.saturating_sub(*first) + 1) * PART);
        taken / long.as_secs_f64()
    }
}

/// The pace of an endpoint that came back.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Requests per second.
    rate: f64,
    doubles: Timestamp,
    /// Requests that may be made, as of `at`. A request is begun when there is a whole one.
    saved: f64,
    at: Timestamp,
}

impl Recovery {
    /// The endpoint is back, and took so many requests a second when it was last well.
    pub fn begin(per_second: f64, now: Timestamp) -> Self {
        Self { rate: per_second.max(LEAST), doubles: now.after(DOUBLING), saved: 1.0, at: now }
    }

    /// A request is made. False: from now on there is nothing to keep to.
    pub fn made(&mut self, now: Timestamp) -> bool {
        self.saved = self.saved_at(now) - 1.0;
        self.at = now;
        while self.doubles <= now && self.rate <= MOST {
            self.rate *= 2.0;
            self.doubles = self.doubles.after(DOUBLING);
        }
        self.rate <= MOST
    }

    /// When the next request may be made: `now`, or later.
    pub fn next(&self, now: Timestamp) -> Timestamp {
        let missing = 1.0 - self.saved_at(now);
        if missing <= 0.0 {
            return now;
        }
        now.after(whole_millis(Duration::from_secs_f64(missing / self.rate)))
    }

    fn saved_at(&self, now: Timestamp) -> f64 {
        let earned = now.since(self.at).as_secs_f64() * self.rate;
        (self.saved + earned).min((self.rate * SAVED).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn later(millis: u64) -> Timestamp {
        T0.after(Duration::from_millis(millis))
    }

    /// Requests in each second, made as soon as they may be, by a timer that is `late`.
    fn requests(mut recovery: Recovery, seconds: u64, late: u64) -> Vec<usize> {
        let mut made = vec![0; usize::try_from(seconds).unwrap()];
        let mut now = T0;
        loop {
            let next = recovery.next(now);
            now = if next > now { next.after(Duration::from_millis(late)) } else { now };
            let Some(count) = made.get_mut(usize::try_from(now.since(T0).as_secs()).unwrap()) else {
                return made;
            };
            *count += 1;
            if !recovery.made(now) {
                return made;
            }
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_good_minute_and_doubles_every_five_seconds() {
        for late in [0, 3] {
            let made = requests(Recovery::begin(100.0, T0), 15, late);
            for (second, count) in made.iter().enumerate() {
                let rate = 100 << (second / 5);
                assert!(*count <= rate + 1 + rate / 20, "{count} in second {second}, {late} ms late");
                assert!(*count * 10 >= rate * 8, "{count} in second {second}, {late} ms late");
            }
        }
    }

    #[test]
    fn an_endpoint_of_which_nothing_is_known_gets_sixteen_a_second_and_after_a_minute_anything() {
        let made = requests(Recovery::begin(Pulse::default().per_second(), T0), 5, 0);
        assert!(made.iter().all(|count| (15..=17).contains(count)), "{made:?}");
        let mut recovery = Recovery::begin(0.0, T0);
        assert!(recovery.made(later(55_000)));
        assert!(!recovery.made(later(60_000)));
    }

    #[test]
    fn silence_saves_nothing_up() {
        let mut recovery = Recovery::begin(20.0, T0);
        let now = later(4_000);
        assert_eq!(recovery.next(now), now);
        assert!(recovery.made(now));
        assert_eq!(recovery.next(now), later(4_050));
    }

    #[test]
    fn a_pulse_is_of_the_minute_before_the_last_request_however_long_ago() {
        let mut pulse = Pulse::default();
        for millis in 0..120_000 {
            // The second minute is twice as busy.
            for _ in 0..=(millis / 60_000) {
                pulse.note(later(millis));
            }
        }
        assert!((pulse.per_second() - 2_000.0).abs() < 200.0, "{}", pulse.per_second());
        let mut short = Pulse::default();
        for millis in 0..1_000 {
            short.note(later(millis));
            short.note(later(0));
        }
        assert!(short.per_second() >= 200.0, "a burst of a second is a part of five");
    }
}
