//! Stands between the operating system's monotonic clock and everything that compares two moments of this process.
//! Invariant: a moment written into a document is a JSON number of sixteen digits, exact in a double.

use std::time::{Duration, Instant};

/// What the clock shows when the process starts, so that every later reading has the same number of digits.
const ORIGIN: u64 = 1_000_000_000_000_000;

/// The process's own clock: nanoseconds since it was started, above [`ORIGIN`]. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

/// A reading of the process's clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Clock {
    /// Starts the clock; called once, in `main` or in a test.
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the load tool reads time")]
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Moment {
        Moment(ORIGIN).plus(self.started.elapsed())
    }

    /// Sleeps until `moment`, to the millisecond that the runtime's timer can do.
    pub(crate) async fn wait_until(&self, moment: Moment) {
        tokio::time::sleep(moment.since(self.now())).await;
    }
}

impl Moment {
    /// A moment that no clock of ours reaches.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The moment as the number that documents carry.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The moment that a document's number stands for.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// This moment, `later` afterwards.
    pub(crate) fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }

    /// How long after `earlier` this is; nothing when it is before.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole nanoseconds; five centuries and more are the same to us.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
