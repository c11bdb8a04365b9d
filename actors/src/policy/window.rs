//! Sliding windows: never more than so many calls in any stretch of so much time.
//!
//! Stands beside the token buckets of [`rate`](super::rate), which let a caller who was silent make nearly twice
//! its calls in the first period. Invariants: in no stretch of `per` are more than `calls` taken, whenever it
//! begins; what is refused is not counted; memory is bounded, whatever keys the callers invent.
//!
//! Up to [`EXACT`] calls each one has its own stamp, and the window is exact. Above, stamps are rounded up to the
//! next of [`SLICES`] parts of the period, and the calls of one part are one sum. The error has one side only: a place
//! comes back up to a thirty-second of the period late, so a caller who always wants more gets at least 32/33
//! (96.9 %) of its rate, and never gets more than the rate. (Two sums, the older one weighted by what is left of it,
//! would take less memory; but calls that all come at the end of a period count for less and less in the next one,
//! and up to twice `calls` pass within an instant more than that period.)
//!
//! The counters do not know the rate. It is given with each call, so a change takes effect at once and loses nothing,
//! and keys of one kind may have different rates.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pool::Pool;
use super::rate::{Admission, Rate};
use crate::model::ids::Name;

/// Most calls per period of a window that is exact.
pub const EXACT: u32 = 64;
/// Parts of the period of a window that is not.
pub const SLICES: u64 = 32;
/// Most stamps of one key: those of an exact window, and more than a window of parts has.
const MOST_MARKS: usize = EXACT as usize;
/// Locks that the keys are spread over, and keys for which one more is worth having.
const LOCKS: (usize, usize) = (16, 256);

/// Calls that were taken at one time, in nanoseconds of the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    at: u64,
    calls: u32,
}

/// Where calls were counted, so that they can be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    at: u64,
    calls: u32,
}

/// What one key did lately.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// From the oldest to the latest.
    marks: VecDeque<Mark>,
    /// Sum of the marks.
    used: u64,
    /// When the last of them is forgotten, as it was when last counted.
    idle_at: u64,
}

impl Window {
    /// What would be said to `cost` calls now. Counts nothing.
    pub fn look(&mut self, rate: Rate, cost: u32, now: Duration) -> Admission {
        let (now, per) = (nanos(now), nanos(rate.per()));
        self.forget(per, now);
        let limit = rate.calls();
        let left = u64::from(limit).saturating_sub(self.used);
        let remaining = u32::try_from(left).unwrap_or(limit);
        if u64::from(cost) <= left {
            return Admission {
                allowed: true,
                limit,
                remaining,
                retry_after: Duration::ZERO,
                reset: self.reset(per, now),
            };
        }
        let retry_after = self.wait(limit, cost, per, now);
        Admission { allowed: false, limit, remaining, retry_after, reset: retry_after }
    }

    /// Counts `cost` calls, if they all fit. More than the rate has never fit.
    pub fn take(&mut self, rate: Rate, cost: u32, now: Duration) -> (Admission, Option<Receipt>) {
        let mut admission = self.look(rate, cost, now);
        if !admission.allowed {
            return (admission, None);
        }
        let receipt = self.note(rate, cost, now);
        admission.remaining = admission.remaining.saturating_sub(cost);
        admission.reset = self.reset(nanos(rate.per()), nanos(now));
        (admission, Some(receipt))
    }

    /// Counts `cost` calls whether they fit or not: they were made already.
    pub fn note(&mut self, rate: Rate, cost: u32, now: Duration) -> Receipt {
        let (now, per) = (nanos(now), nanos(rate.per()));
        self.forget(per, now);
        let latest = self.marks.back().map_or(0, |mark| mark.at);
        // Threads may come in another order than they read the clock.
        let at = rounded(rate, now).max(latest);
        let full = self.marks.len() >= MOST_MARKS;
        match self.marks.back_mut() {
            Some(mark) if mark.at == at || full => {
                mark.at = at;
                mark.calls = mark.calls.saturating_add(cost);
            }
            Some(_) | None if cost > 0 => self.marks.push_back(Mark { at, calls: cost }),
            Some(_) | None => {}
        }
        self.used = self.marks.iter().map(|mark| u64::from(mark.calls)).sum();
        self.idle_at = at.saturating_add(per);
        Receipt { at, calls: cost }
    }

    /// Takes calls back that were counted but are not made. Does nothing for those that are forgotten.
    pub fn give_back(&mut self, receipt: Receipt) {
        let Some(mark) = self.marks.iter_mut().rev().find(|mark| mark.at == receipt.at) else { return };
        let calls = receipt.calls.min(mark.calls);
        mark.calls -= calls;
        self.used = self.used.saturating_sub(u64::from(calls));
        self.marks.retain(|mark| mark.calls > 0);
    }

    /// Whether nothing counts any more.
    fn is_idle(&self, now: Duration) -> bool {
        self.marks.is_empty() || self.idle_at <= nanos(now)
    }

    fn forget(&mut self, per: u64, now: u64) {
        while let Some(mark) = self.marks.front().filter(|mark| mark.at.saturating_add(per) <= now) {
            self.used = self.used.saturating_sub(u64::from(mark.calls));
            self.marks.pop_front();
        }
    }

    /// Time until the oldest mark is forgotten.
    fn reset(&self, per: u64, now: u64) -> Duration {
        let until = |mark: &Mark| mark.at.saturating_add(per).saturating_sub(now);
        Duration::from_nanos(self.marks.front().map_or(0, until))
    }

    /// Time until enough marks are forgotten for `cost` calls; the whole period when that is never so.
    fn wait(&self, limit: u32, cost: u32, per: u64, now: u64) -> Duration {
        let mut used = self.used;
        for mark in &self.marks {
            used = used.saturating_sub(u64::from(mark.calls));
            if used.saturating_add(u64::from(cost)) <= u64::from(limit) {
                return Duration::from_nanos(mark.at.saturating_add(per).saturating_sub(now));
            }
        }
        Duration::from_nanos(per)
    }
}

/// The stamp of a call: its time, or the end of its part of the period.
fn rounded(rate: Rate, now: u64) -> u64 {
    if rate.calls() <= EXACT {
        return now;
    }
    let part = (nanos(rate.per()) / SLICES).max(1);
    now.checked_next_multiple_of(part).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One window for each key. Threads share it.
#[derive(Debug)]
pub struct Windows {
    hasher: RandomState,
    parts: Vec<Mutex<Pool<Window>>>,
    /// That of the keys for which there is no place.
    shared: Mutex<Window>,
}

impl Windows {
    /// At most about `max_keys` windows. When all are taken a new key gets the place of one whose window is empty; while none
    /// is found, keys without a window share one. So no flood of keys makes a key's count be forgotten.
    pub fn new(max_keys: usize) -> Self {
        let (most, worth) = LOCKS;
        let parts = (max_keys / worth).clamp(1, most);
        let pool = || Mutex::new(Pool::new(max_keys.div_ceil(parts).max(1)));
        Self {
            hasher: RandomState::new(),
            parts: (0..parts).map(|_| pool()).collect(),
            shared: Mutex::default(),
        }
    }

    /// What would be said to `cost` calls of a key. Counts nothing, and takes no place.
    pub fn look(&self, key: &str, rate: Rate, cost: u32, now: Duration) -> Admission {
        match self.part(key).and_then(|mut pool| pool.get_mut(key).map(|window| window.look(rate, cost, now)))
        {
            Some(admission) => admission,
            None => Window::default().look(rate, cost, now),
        }
    }

    /// Counts `cost` calls of a key, if they all fit.
    pub fn take(&self, key: &Name, rate: Rate, cost: u32, now: Duration) -> (Admission, Option<Receipt>) {
        self.with(key, now, |window| window.take(rate, cost, now))
    }

    /// Counts calls that were made already, whether they fit or not. For conditions that only the answer decides: such
    /// calls [`look`](Self::look) first, so as many more than the rate may pass as are under way at once.
    pub fn note(&self, key: &Name, rate: Rate, cost: u32, now: Duration) -> Receipt {
        self.with(key, now, |window| window.note(rate, cost, now))
    }

    /// Takes calls back that were counted but are not made.
    pub fn give_back(&self, key: &str, receipt: Receipt) {
        let found = self.part(key).is_some_and(|mut pool| match pool.get_mut(key) {
            Some(window) => {
                window.give_back(receipt);
                true
            }
            None => false,
        });
        if !found {
            lock(&self.shared).give_back(receipt);
        }
    }

    /// Drops every window that is empty. Looks at all of them; for housekeeping.
    pub fn sweep(&self, now: Duration) {
        for part in &self.parts {
            lock(part).sweep(|window| window.is_idle(now));
        }
    }

    /// Number of keys with a window of their own.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with<T>(&self, key: &Name, now: Duration, act: impl Fn(&mut Window) -> T) -> T {
        if let Some(mut pool) = self.part(key)
            && let Some(window) = pool.entry(key, Window::default(), |window| window.is_idle(now))
        {
            return act(window);
        }
        act(&mut lock(&self.shared))
    }

    fn part(&self, key: &str) -> Option<MutexGuard<'_, Pool<Window>>> {
        let parts = u64::try_from(self.parts.len()).unwrap_or(1);
        // Less than the number of parts, so it is a place among them.
        let at = usize::try_from(self.hasher.hash_one(key) % parts).unwrap_or(0);
        self.parts.get(at).map(lock)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
