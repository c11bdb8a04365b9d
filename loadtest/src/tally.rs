//! Stands between the client's tasks and the report: counts answers and keeps their latencies while the run goes on.
//! Invariant: every arrival is recorded at most once, and latency runs from when it was due, not from when it was sent.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::clock::{Moment, nanos};

/// Latencies from a microsecond to an hour, in nanoseconds, to three significant digits.
const LOWEST: u64 = 1_000;
const HIGHEST: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// An empty histogram of latencies.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(LOWEST, HIGHEST, SIGNIFICANT_DIGITS)?)
}

/// The part of a run that is measured; warm-up lies before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Moment,
    pub(crate) to: Moment,
}

impl Window {
    /// A window that nothing falls into.
    pub(crate) const EMPTY: Self = Self { from: Moment::NEVER, to: Moment::NEVER };

    /// Whether `moment` is in the window.
    pub(crate) fn contains(&self, moment: Moment) -> bool {
        self.from <= moment && moment < self.to
    }

    /// Its length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.to.since(self.from).as_secs_f64()
    }
}

/// What kind of request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Create,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server answered with this status.
    Status(u16),
    /// There was no answer, or one that cannot be right.
    Failed(Failure),
}

/// Why a request has no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection broke before the whole answer was there: a create may or may not have happened.
    Broken,
    /// No answer within the deadline: a create may or may not have happened.
    Deadline,
    /// A read answered 200 with another body than the document's.
    WrongBody,
    /// There was no document to read yet.
    NothingToRead,
}

impl Failure {
    /// The name that the report shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Broken => "connection broken",
            Self::Deadline => "deadline passed",
            Self::WrongBody => "wrong body",
            Self::NothingToRead => "nothing to read",
        }
    }
}

impl Outcome {
    /// Whether this is a 2xx answer.
    pub(crate) fn is_success(self) -> bool {
        match self {
            Self::Status(status) => (200..300).contains(&status),
            Self::Failed(_) => false,
        }
    }
}

/// One request, from its due time to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) due: Moment,
    pub(crate) sent: Moment,
    pub(crate) done: Moment,
    pub(crate) outcome: Outcome,
}

/// The counts and latencies of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    /// What is measured. Counts of statuses and failures are of the whole run; the rest is of the window.
    pub(crate) window: Window,
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
    /// How long after its due time a request was sent: waiting for a free connection, and the tool's own lateness.
    pub(crate) lag: Histogram<u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Requests recorded, of the whole run.
    pub(crate) answered: u64,
    /// Requests that were neither failures nor anything but 2xx, of the whole run.
    pub(crate) succeeded: u64,
    /// Successes that came in while the window was open: the throughput achieved.
    pub(crate) succeeded_in_window: u64,
}

impl Tally {
    /// An empty tally that measures nothing until it gets a window.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            window: Window::EMPTY,
            reads: histogram()?,
            writes: histogram()?,
            lag: histogram()?,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            answered: 0,
            succeeded: 0,
            succeeded_in_window: 0,
        })
    }

    /// Records one request. Latencies are of successes only: a quick refusal is no fast answer.
    pub(crate) fn record(&mut self, answer: &Answer) {
        self.answered += 1;
        match answer.outcome {
            Outcome::Status(status) => *self.statuses.entry(status).or_default() += 1,
            Outcome::Failed(failure) => *self.failures.entry(failure.name()).or_default() += 1,
        }
        let measured = self.window.contains(answer.due);
        if measured {
            self.lag.saturating_record(nanos(answer.sent.since(answer.due)));
        }
        if !answer.outcome.is_success() {
            return;
        }
        self.succeeded += 1;
        if self.window.contains(answer.done) {
            self.succeeded_in_window += 1;
        }
        if measured {
            let histogram = match answer.kind {
                Kind::Read => &mut self.reads,
                Kind::Create => &mut self.writes,
            };
            histogram.saturating_record(nanos(answer.done.since(answer.due)));
        }
    }

    /// Requests of the whole run that failed or were not answered with 2xx.
    pub(crate) fn errors(&self) -> u64 {
        self.answered - self.succeeded
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_number(0).plus(Duration::from_millis(millis))
    }

    fn answer(kind: Kind, due: u64, sent: u64, done: u64, outcome: Outcome) -> Answer {
        Answer { kind, due: at(due), sent: at(sent), done: at(done), outcome }
    }

    #[test]
    fn latency_runs_from_the_due_time_and_waiting_counts() {
        let mut tally = Tally::new().unwrap();
        tally.window = Window { from: at(100), to: at(1100) };
        tally.record(&answer(Kind::Create, 200, 250, 260, Outcome::Status(201)));
        tally.record(&answer(Kind::Read, 300, 300, 304, Outcome::Status(200)));
        assert!((tally.writes.max() as f64 - 60e6).abs() < 60e3);
        assert!((tally.reads.max() as f64 - 4e6).abs() < 4e3);
        assert!((tally.lag.max() as f64 - 50e6).abs() < 50e3);
    }

    #[test]
    fn the_warm_up_counts_errors_but_no_latencies() {
        let mut tally = Tally::new().unwrap();
        tally.window = Window { from: at(100), to: at(200) };
        tally.record(&answer(Kind::Create, 10, 10, 20, Outcome::Status(201)));
        tally.record(&answer(Kind::Create, 20, 20, 30, Outcome::Status(503)));
        assert_eq!(tally.writes.len(), 0);
        assert_eq!(tally.errors(), 1);
        assert_eq!(tally.statuses, BTreeMap::from([(201, 1), (503, 1)]));
    }

    #[test]
    fn throughput_counts_what_was_answered_while_the_window_was_open() {
        let mut tally = Tally::new().unwrap();
        tally.window = Window { from: at(100), to: at(200) };
        tally.record(&answer(Kind::Read, 99, 99, 101, Outcome::Status(200)));
        tally.record(&answer(Kind::Read, 150, 150, 151, Outcome::Status(200)));
        tally.record(&answer(Kind::Read, 199, 199, 202, Outcome::Status(200)));
        assert_eq!(tally.succeeded_in_window, 2);
        assert_eq!(tally.reads.len(), 2);
    }

    #[test]
    fn failures_have_no_latency() {
        let mut tally = Tally::new().unwrap();
        tally.window = Window { from: at(0), to: at(200) };
        tally.record(&answer(Kind::Read, 1, 1, 2, Outcome::Failed(Failure::Deadline)));
        tally.record(&answer(Kind::Read, 1, 1, 2, Outcome::Status(404)));
        assert_eq!(tally.reads.len(), 0);
        assert_eq!(tally.errors(), 2);
        assert_eq!(tally.failures, BTreeMap::from([("deadline passed", 1)]));
    }
}
