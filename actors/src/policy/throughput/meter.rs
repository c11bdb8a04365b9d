//! Counts what a container uses, second by second.
//!
//! Invariants: a few atomic numbers, however long it runs; nothing that was noted is lost from the totals.
//! A window is a number of a second and what was spent in it, together in one atomic, so that a new second
//! begins for all threads at once. Hours are counted from the moment that `now` is counted from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::charge::RequestUnits;

use super::Throughput;

const SECONDS_PER_HOUR: u32 = 3_600;

/// The use of one container.
#[derive(Debug, Default)]
pub struct Meter {
    /// The current second.
    second: AtomicU64,
    /// The last second before it in which something was spent.
    last: AtomicU64,
    /// The current hour, and its busiest second.
    hour: AtomicU64,
    /// The last hour before it in which something was spent.
    last_hour: AtomicU64,
    consumed: AtomicU64,
    throttled: AtomicU64,
}

/// What a meter shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Spent in the last full second.
    pub last_second: RequestUnits,
    /// The same as a part of the budget; above 1 when debts were made.
    pub utilisation: f64,
    /// The busiest second of the current hour, the current second included.
    pub busiest: RequestUnits,
    /// What the current hour counts for until now, in RU/s.
    pub billed: u32,
    /// What the hour before counted for, in RU/s.
    pub billed_before: u32,
    /// Spent since the start.
    pub consumed: RequestUnits,
    /// Refused since the start.
    pub throttled: u64,
}

/// A number of a second or an hour, and an amount that belongs to it, in hundredths. Packed so that the
/// greater of two is the later one, or of the same time the one with more.
#[derive(Clone, Copy)]
struct Window {
    time: u32,
    spent: u32,
}

impl Window {
    fn unpack(packed: u64) -> Self {
        let (time, spent) = (packed >> 32, packed & u64::from(u32::MAX));
        Self { time: narrow(time), spent: narrow(spent) }
    }

    fn pack(self) -> u64 {
        u64::from(self.time) << 32 | u64::from(self.spent)
    }

    fn load(from: &AtomicU64) -> Self {
        Self::unpack(from.load(Ordering::Relaxed))
    }

    fn spent_at(self, time: u32) -> u32 {
        if self.time == time { self.spent } else { 0 }
    }

    fn hour(self) -> Self {
        Self { time: self.time / SECONDS_PER_HOUR, ..self }
    }
}

impl Meter {
    /// Notes what an operation cost. `now` is the time since any fixed moment.
    pub fn note(&self, now: Duration, cost: RequestUnits) {
        let (time, amount) = (narrow(now.as_secs()), narrow(cost.hundredths()));
        self.consumed.fetch_add(cost.hundredths(), Ordering::Relaxed);
        let add = |packed| {
            let window = Window::unpack(packed);
            // A note that comes a moment late counts for the second that has begun meanwhile.
            let next = if time > window.time {
                Window { time, spent: amount }
            } else {
                Window { spent: window.spent.saturating_add(amount), ..window }
            };
            Some(next.pack())
        };
        let before = self.second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        // A closure that always answers never fails.
        let before = Window::unpack(before.unwrap_or_else(|packed| packed));
        if time > before.time {
            self.close(before);
        }
    }

    /// Notes that an operation was refused.
    pub fn note_throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    /// What was used until now.
    pub fn reading(&self, now: Duration, budget: Throughput) -> Reading {
        let time = narrow(now.as_secs());
        let second = Window::load(&self.second);
        let (hour, last_hour) = (Window::load(&self.hour), Window::load(&self.last_hour));
        let full = time
            .checked_sub(1)
            .map_or(0, |before| second.spent_at(before).max(Window::load(&self.last).spent_at(before)));
        let busiest = |wanted: u32| {
            let windows = [hour, last_hour, second.hour()];
            let most = windows.map(|window| window.spent_at(wanted)).into_iter().max().unwrap_or(0);
            RequestUnits::from_hundredths(u64::from(most))
        };
        let this_hour = time / SECONDS_PER_HOUR;
        let before = this_hour.checked_sub(1).map_or(RequestUnits::ZERO, busiest);
        let last_second = RequestUnits::from_hundredths(u64::from(full));
        Reading {
            last_second,
            utilisation: last_second.as_f64() / f64::from(budget.max()),
            busiest: busiest(this_hour),
            billed: budget.billed(busiest(this_hour)),
            billed_before: budget.billed(before),
            consumed: RequestUnits::from_hundredths(self.consumed.load(Ordering::Relaxed)),
            throttled: self.throttled.load(Ordering::Relaxed),
        }
    }

    /// Takes over a second that is past.
    fn close(&self, second: Window) {
        self.last.fetch_max(second.pack(), Ordering::Relaxed);
        let hour = second.hour();
        let before = Window::unpack(self.hour.fetch_max(hour.pack(), Ordering::Relaxed));
        let older = if before.time < hour.time { before } else { hour };
        if before.time != hour.time {
            self.last_hour.fetch_max(older.pack(), Ordering::Relaxed);
        }
    }
}

/// 2^32 hundredths are 43 million units in a second, and 2^32 seconds are 136 years.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ru(units: u64) -> RequestUnits {
        RequestUnits::whole(units)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn budget() -> Throughput {
        Throughput::autoscale(10_000).unwrap()
    }

    #[test]
    fn the_last_full_second_is_shown() {
        let meter = Meter::default();
        meter.note(at(5), ru(2_000));
        meter.note(at(5) + Duration::from_millis(999), ru(500));
        assert_eq!(meter.reading(at(5), budget()).last_second, ru(0), "this second is not over");
        let reading = meter.reading(at(6), budget());
        assert_eq!((reading.last_second, reading.utilisation), (ru(2_500), 0.25));
        meter.note(at(6), ru(1));
        assert_eq!(meter.reading(at(6), budget()).last_second, ru(2_500));
        assert_eq!(meter.reading(at(7), budget()).last_second, ru(1));
        assert_eq!(meter.reading(at(8), budget()).last_second, ru(0));
    }

    #[test]
    fn an_hour_is_billed_by_its_busiest_second() {
        let meter = Meter::default();
        meter.note(at(10), ru(4_000));
        meter.note(at(11), ru(50));
        let reading = meter.reading(at(12), budget());
        assert_eq!((reading.busiest, reading.billed, reading.billed_before), (ru(4_000), 4_000, 1_000));
        meter.note(at(3_599), ru(12_000));
        assert_eq!(meter.reading(at(3_599), budget()).billed, 10_000);
        let reading = meter.reading(at(3_600), budget());
        assert_eq!((reading.billed, reading.billed_before), (1_000, 10_000));
        meter.note(at(3_700), ru(1_500));
        meter.note(at(3_701), ru(1));
        let reading = meter.reading(at(3_701), budget());
        assert_eq!((reading.billed, reading.billed_before), (1_500, 10_000));
        let reading = meter.reading(at(3_600 * 9), budget());
        assert_eq!((reading.busiest, reading.billed, reading.billed_before), (ru(0), 1_000, 1_000));
    }

    #[test]
    fn refusals_are_counted() {
        let meter = Meter::default();
        meter.note_throttled();
        meter.note_throttled();
        assert_eq!(meter.reading(at(0), budget()).throttled, 2);
    }

    #[test]
    fn threads_lose_nothing() {
        let meter = Meter::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..40_000).for_each(|i| meter.note(at(i / 10_000), ru(1))));
            }
        });
        assert_eq!(meter.reading(at(9), budget()).consumed, ru(160_000));
    }

    proptest! {
        #[test]
        fn a_meter_agrees_with_a_full_account(
            notes in proptest::collection::vec((0u64..1_500, 0u64..90_000), 1..60),
            idle in 0u64..4_000,
        ) {
            let meter = Meter::default();
            let mut account: BTreeMap<u64, u64> = BTreeMap::new();
            let mut now = 0;
            for (gap, cost) in notes {
                now += gap / 10 * gap / 10;
                meter.note(at(now), RequestUnits::from_hundredths(cost));
                *account.entry(now).or_default() += cost;
            }
            now += idle;
            let spent = |second: u64| account.get(&second).copied().unwrap_or(0);
            let busiest = |hour: u64| {
                account.range(hour * 3_600..(hour + 1) * 3_600).map(|(_, spent)| *spent).max().unwrap_or(0)
            };
            let reading = meter.reading(at(now), budget());
            let hundredths = RequestUnits::from_hundredths;
            prop_assert_eq!(reading.last_second, hundredths(now.checked_sub(1).map_or(0, spent)));
            prop_assert_eq!(reading.busiest, hundredths(busiest(now / 3_600)));
            let before = (now / 3_600).checked_sub(1).map_or(0, busiest);
            prop_assert_eq!(reading.billed_before, budget().billed(hundredths(before)));
            prop_assert_eq!(reading.consumed, hundredths(account.values().sum()));
        }
    }
}
