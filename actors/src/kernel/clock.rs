//! The only place that reads the machine's clocks. Everybody else is given a [`Clock`].
//!
//! A wall clock may be set while the process runs. What waits for a time then goes by a [`SteadyClock`], which shows the
//! wall clock's time as it would be had nobody set it: nothing falls due by a jump, and nothing waits for longer. It is
//! the one place where the two clocks are compared.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::Timestamp;

/// A source of time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time; may jump.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start; never jumps.
    fn elapsed(&self) -> Duration;
}

/// A clock that many share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// How far the wall clock may be from a steady one before that counts as set: both count whole milliseconds, and are
/// not read in the same moment.
const SET: Duration = Duration::from_secs(1);

/// The time for those who wait: the wall clock's at the start, and from then on what the monotonic clock counts.
/// Many share one, so that their times can be compared.
#[derive(Debug)]
pub struct SteadyClock {
    clock: SharedClock,
    wall: Timestamp,
    elapsed: Duration,
    /// How far the wall clock was ahead when that was last told, in milliseconds.
    told: AtomicI64,
}

impl SteadyClock {
    /// A clock that shows what the wall clock shows now.
    pub fn start(clock: SharedClock) -> Self {
        let (wall, elapsed) = (clock.now(), clock.elapsed());
        Self { clock, wall, elapsed, told: AtomicI64::new(0) }
    }

    /// The time; never jumps.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.clock.elapsed().saturating_sub(self.elapsed))
    }

    /// When something happened that was noted by the wall clock, before this or after it was set. Where both can be, it
    /// is the later one, and it is never in the future: nothing grows old by a jump.
    pub fn of(&self, noted: Timestamp) -> Timestamp {
        let ahead = self.ahead();
        if ahead.unsigned_abs() < millis(SET) {
            return noted;
        }
        let now = self.now();
        let both = [noted, moved(noted, ahead.saturating_neg())];
        both.into_iter().filter(|at| *at <= now).max().unwrap_or(now)
    }

    /// What the wall clock shows, or would, at a time of this one.
    pub fn wall(&self, at: Timestamp) -> Timestamp {
        let ahead = self.ahead();
        if ahead.unsigned_abs() < millis(SET) { at } else { moved(at, ahead) }
    }

    /// By how many milliseconds the wall clock is ahead of this one: what it was set by since the start.
    fn ahead(&self) -> i64 {
        let (wall, now) = (self.clock.now(), self.now());
        let ahead = i64::try_from(i128::from(wall.0) - i128::from(now.0)).unwrap_or_default();
        let told = self.told.load(Ordering::Relaxed);
        if ahead.abs_diff(told) >= millis(SET)
            && self.told.compare_exchange(told, ahead, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let by = ahead.saturating_sub(told);
            tracing::warn!(by_ms = by, "the wall clock was set; what waits goes on as it was");
        }
        ahead
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn moved(at: Timestamp, by: i64) -> Timestamp {
    Timestamp(at.0.saturating_add_signed(by))
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicU64,
    /// What the wall clock was set by.
    ahead: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { millis: AtomicU64::new(now.0), ahead: AtomicI64::default() })
    }

    /// Sets the wall clock by so many milliseconds; no time passes.
    pub fn set_by(&self, millis: i64) {
        self.ahead.fetch_add(millis, Ordering::SeqCst);
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        moved(Timestamp(self.millis.load(Ordering::SeqCst)), self.ahead.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_700_000_000_000);
    const HOUR: i64 = 3_600_000;

    fn at(seconds: u64) -> Timestamp {
        T0.after(Duration::from_secs(seconds))
    }

    fn clocks() -> (Arc<ManualClock>, SteadyClock) {
        let clock = ManualClock::at(T0);
        (clock.clone(), SteadyClock::start(clock))
    }

    #[test]
    fn a_steady_clock_goes_on_while_the_wall_clock_is_set_to_and_fro() {
        let (clock, steady) = clocks();
        for (by, seconds) in [(0, 10), (HOUR, 20), (-2 * HOUR, 30), (25 * HOUR, 40), (-24 * HOUR, 50)] {
            clock.set_by(by);
            clock.advance(Duration::from_secs(10));
            assert_eq!(steady.now(), at(seconds), "set by {by}");
        }
        assert_eq!(clock.now(), at(50));
        assert_eq!((steady.of(at(7)), steady.wall(at(60))), (at(7), at(60)), "set back to what it was");
    }

    #[test]
    fn what_was_noted_before_and_after_a_jump_is_as_old_as_it_is() {
        for by in [HOUR, -HOUR, 24 * HOUR, -24 * HOUR] {
            let (clock, steady) = clocks();
            clock.advance(Duration::from_secs(10));
            let before = clock.now();
            clock.advance(Duration::from_secs(10));
            clock.set_by(by);
            let after = clock.now();
            clock.advance(Duration::from_secs(10));
            let age = |noted| steady.now().since(steady.of(noted)).as_secs();
            assert_eq!((age(before), age(after)), (20, 10), "set by {by}");
            assert_eq!(steady.wall(steady.now()), clock.now());
        }
    }

    #[test]
    fn nothing_is_older_than_it_is_nor_in_the_future() {
        let (clock, steady) = clocks();
        clock.set_by(HOUR);
        for seconds in 0..9_000 {
            let noted = clock.now();
            clock.advance(Duration::from_secs(1));
            assert!(steady.of(noted) <= steady.now() && steady.of(noted) >= at(seconds), "{seconds}");
        }
        assert_eq!(steady.of(Timestamp(u64::MAX)), steady.now());
    }

    #[test]
    fn a_difference_of_less_than_a_second_is_none() {
        let (clock, steady) = clocks();
        clock.set_by(-999);
        assert_eq!((steady.of(at(3)), steady.wall(at(3))), (at(3), at(3)));
    }
}
