//! How much an endpoint is sent at a time, and when it is left alone.
//!
//! Stands between a subscriber and its endpoint. The window grows by one with each success and is halved
//! when the endpoint is overwhelmed. An endpoint that only fails is on probation: nothing is sent for a
//! while, then one event tells whether it is back, and what piled up comes at a pace. Probation costs no event an
//! attempt.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::delivery::{Outcome, OutcomeKind};
use crate::model::time::Timestamp;
use crate::policy::recovery::{Pulse, Recovery};
use crate::policy::retry::RetryPolicy;

/// Attempts that a fresh endpoint gets at a time.
const FIRST_WINDOW: usize = 16;
/// Failures in a row that open the breaker.
const STREAK: u32 = 10;
/// Outcomes within [`MEMORY`] that are enough to judge by their share of failures.
const ENOUGH: usize = 10;
/// How long an outcome counts.
const MEMORY: Duration = Duration::from_secs(30);
/// Outcomes that are remembered at most.
const REMEMBERED: usize = 64;
/// The longest probation, however often a probe failed.
pub const LONGEST_PROBATION: Duration = Duration::from_secs(300);
/// `Retry-After` makes a probation no longer than this.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Attempts are made.
    Closed,
    /// None before this time.
    Open {
        /// When one event may find out whether the endpoint is back.
        until: Timestamp,
        /// The outcome that decided.
        reason: OutcomeKind,
    },
    /// One event is finding out.
    Probing {
        /// The outcome that decided.
        reason: OutcomeKind,
    },
}

/// The health of one endpoint.
#[derive(Debug, Clone)]
pub struct Health {
    limit: usize,
    scale: f64,
    probation: bool,
    window: usize,
    streak: u32,
    recent: VecDeque<(Timestamp, bool)>,
    breaker: Breaker,
    /// Probes that failed since the breaker opened.
    probes: u32,
    /// What it took while it was well.
    pulse: Pulse,
    /// The pace after a probation, until it is of no effect.
    recovery: Option<Recovery>,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing that anybody must be told.
    None,
    /// Probation began.
    Opened,
    /// Probation is over.
    Closed,
}

impl Health {
    /// An endpoint that nothing is known of. At most `limit` attempts at a time; the policy says whether
    /// there is probation, and shortens it as it shortens retries.
    pub fn new(limit: usize, policy: &RetryPolicy) -> Self {
        let limit = limit.max(1);
        Self {
            limit,
            scale: policy.scale,
            probation: policy.probation,
            window: FIRST_WINDOW.min(limit),
            streak: 0,
            recent: VecDeque::new(),
            breaker: Breaker::Closed,
            probes: 0,
            pulse: Pulse::default(),
            recovery: None,
        }
    }

    /// How many attempts may be under way at `now`.
    pub fn room(&self, now: Timestamp) -> usize {
        match self.breaker {
            Breaker::Closed if self.held_until(now).is_some() => 0,
            Breaker::Closed => self.window,
            Breaker::Open { until, .. } if now < until => 0,
            Breaker::Open { .. } | Breaker::Probing { .. } => 1,
        }
    }

    /// When an endpoint that came back may be sent more, if not now.
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.recovery.as_ref().map(|recovery| recovery.next(now)).filter(|next| *next > now)
    }

    /// The window while the breaker is closed.
    pub fn window(&self) -> usize {
        self.window
    }

    /// What the breaker does.
    pub fn breaker(&self) -> Breaker {
        self.breaker
    }

    /// An attempt begins: after a probation it is the probe.
    pub fn begun(&mut self, now: Timestamp) {
        if self.recovery.as_mut().is_some_and(|recovery| !recovery.made(now)) {
            self.recovery = None;
        }
        if let Breaker::Open { reason, .. } = self.breaker {
            self.breaker = Breaker::Probing { reason };
        }
    }

    /// An attempt was not made after all.
    pub fn not_made(&mut self, now: Timestamp) {
        if let Breaker::Probing { reason } = self.breaker {
            self.breaker = Breaker::Open { until: now, reason };
        }
    }

    /// An attempt has an outcome.
    pub fn record(&mut self, outcome: &Outcome, now: Timestamp) -> Turn {
        match outcome.kind {
            OutcomeKind::Delivered => self.succeeded(now),
            // The endpoint is well: it does not like this event.
            OutcomeKind::BadRequest | OutcomeKind::PayloadTooLarge => self.answered(now),
            OutcomeKind::Aborted => {
                self.not_made(now);
                Turn::None
            }
            OutcomeKind::TimedOut | OutcomeKind::Busy => {
                self.window = (self.window / 2).max(1);
                self.failed(outcome, now)
            }
            OutcomeKind::Unauthorized
            | OutcomeKind::Forbidden
            | OutcomeKind::NotFound
            | OutcomeKind::Rejected
            | OutcomeKind::SocketError
            | OutcomeKind::ResolutionError
            | OutcomeKind::Gone => self.failed(outcome, now),
        }
    }

    /// Somebody knows that the endpoint is back.
    pub fn reset(&mut self) {
        self.streak = 0;
        self.recent.clear();
        self.breaker = Breaker::Closed;
        self.probes = 0;
        self.recovery = None;
    }

    fn succeeded(&mut self, now: Timestamp) -> Turn {
        self.window = (self.window + 1).min(self.limit);
        self.remember(now, true);
        let turn = self.answered(now);
        self.pulse.note(now);
        turn
    }

    fn answered(&mut self, now: Timestamp) -> Turn {
        self.streak = 0;
        match self.breaker {
            // An attempt that began before the breaker opened ends late: the endpoint is well.
            Breaker::Probing { .. } | Breaker::Open { .. } => {
                self.recent.clear();
                self.breaker = Breaker::Closed;
                self.probes = 0;
                self.window = 1;
                self.recovery = Some(Recovery::begin(self.pulse.per_second(), now));
                Turn::Closed
            }
            Breaker::Closed => Turn::None,
        }
    }

    fn failed(&mut self, outcome: &Outcome, now: Timestamp) -> Turn {
        self.streak = self.streak.saturating_add(1);
        self.remember(now, false);
        match self.breaker {
            Breaker::Open { .. } => Turn::None,
            Breaker::Probing { .. } => {
                self.probes = self.probes.saturating_add(1);
                self.open(outcome, now);
                Turn::None
            }
            Breaker::Closed if self.probation && (self.streak >= STREAK || self.mostly_fails()) => {
                self.open(outcome, now);
                Turn::Opened
            }
            Breaker::Closed => Turn::None,
        }
    }

    fn open(&mut self, outcome: &Outcome, now: Timestamp) {
        let doubled = probation(outcome.kind).saturating_mul(1 << self.probes.min(8));
        let long = doubled.min(LONGEST_PROBATION).mul_f64(self.scale.clamp(0.0, 1.0));
        let asked = outcome.retry_after.unwrap_or_default().min(LONGEST_ASKED);
        self.recovery = None;
        self.breaker = Breaker::Open { until: now.after(long.max(asked)), reason: outcome.kind };
    }

    fn mostly_fails(&self) -> bool {
        let failures = self.recent.iter().filter(|(_, well)| !well).count();
        self.recent.len() >= ENOUGH && failures * 2 >= self.recent.len()
    }

    fn remember(&mut self, now: Timestamp, well: bool) {
        self.recent.push_back((now, well));
        let too_old = |at: Timestamp| now.since(at) > MEMORY;
        while self.recent.len() > REMEMBERED || self.recent.front().is_some_and(|(at, _)| too_old(*at)) {
            self.recent.pop_front();
        }
    }
}

/// How long an endpoint is left alone that failed like this (Event Grid's delays for probation).
fn probation(kind: OutcomeKind) -> Duration {
    Duration::from_secs(match kind {
        OutcomeKind::NotFound
        | OutcomeKind::ResolutionError
        | OutcomeKind::Unauthorized
        | OutcomeKind::Forbidden
        | OutcomeKind::Gone => 300,
        OutcomeKind::SocketError => 30,
        OutcomeKind::Delivered
        | OutcomeKind::BadRequest
        | OutcomeKind::PayloadTooLarge
        | OutcomeKind::TimedOut
        | OutcomeKind::Busy
        | OutcomeKind::Rejected
        | OutcomeKind::Aborted => 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn status(code: u16) -> Outcome {
        Outcome::from_status(code, None)
    }

    fn later(millis: u64) -> Timestamp {
        T0.after(Duration::from_millis(millis))
    }

    fn until(health: &Health) -> Duration {
        match health.breaker() {
            Breaker::Open { until, .. } => until.since(T0),
            other @ (Breaker::Closed | Breaker::Probing { .. }) => panic!("{other:?}"),
        }
    }

    fn broken(outcome: &Outcome) -> Health {
        let mut health = Health::new(64, &RetryPolicy::default());
        let turns: Vec<Turn> = (0..10).map(|_| health.record(outcome, T0)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Opened).count(), 1);
        health
    }

    #[test]
    fn the_window_grows_by_one_and_is_halved_down_to_one() {
        let mut health = Health::new(64, &RetryPolicy::default());
        for _ in 0..100 {
            health.record(&status(200), T0);
        }
        assert_eq!(health.room(T0), 64);
        for expected in [32, 16, 8, 4] {
            health.record(&status(503), T0);
            health.record(&status(200), T0);
            assert_eq!(health.room(T0), expected + 1);
            health.window = expected;
        }
        for _ in 0..3 {
            health.record(&Outcome::failed(OutcomeKind::TimedOut, ""), T0);
        }
        assert_eq!(health.window(), 1);
    }

    #[test]
    fn ten_failures_in_a_row_begin_a_probation_as_long_as_the_last_one_says() {
        for (outcome, seconds) in [
            (status(500), 10),
            (status(429), 10),
            (status(404), 300),
            (status(401), 300),
            (Outcome::failed(OutcomeKind::SocketError, ""), 30),
            (Outcome::failed(OutcomeKind::ResolutionError, ""), 300),
            (Outcome::from_status(503, Some(Duration::from_secs(120))), 120),
            (Outcome::from_status(503, Some(Duration::from_secs(9_999))), 3_600),
        ] {
            let health = broken(&outcome);
            assert_eq!(until(&health), Duration::from_secs(seconds), "{outcome:?}");
            assert_eq!((health.room(T0), health.room(later(seconds * 1_000))), (0, 1));
        }
    }

    #[test]
    fn a_probe_ends_probation_or_doubles_it_up_to_its_bound() {
        let mut health = broken(&status(500));
        for seconds in [20, 40, 80, 160, 300, 300] {
            health.begun(T0);
            assert_eq!(health.room(T0), 1);
            assert_eq!(health.record(&status(500), T0), Turn::None);
            assert_eq!(until(&health), Duration::from_secs(seconds));
        }
        health.begun(T0);
        assert_eq!(health.record(&status(204), T0), Turn::Closed);
        assert_eq!((health.breaker(), health.room(T0)), (Breaker::Closed, 1));
    }

    #[test]
    fn an_endpoint_that_fails_half_of_the_time_is_left_alone_and_comes_back() {
        let mut health = Health::new(64, &RetryPolicy::default());
        let mut opened = 0;
        for n in 0..20 {
            let outcome = status(if n % 2 == 0 { 500 } else { 200 });
            if health.record(&outcome, T0) == Turn::Opened {
                opened += 1;
            }
        }
        assert!(opened >= 1);
        health.begun(T0);
        health.record(&status(200), T0);
        assert_eq!(health.breaker(), Breaker::Closed);
    }

    #[test]
    fn failures_long_ago_and_events_that_are_refused_do_not_count() {
        let mut health = Health::new(64, &RetryPolicy::default());
        for n in 0..30 {
            health.record(&status(if n % 3 == 2 { 200 } else { 500 }), later(n * 5_000));
            health.record(&status(400), later(n * 5_000));
        }
        assert_eq!(health.breaker(), Breaker::Closed);
    }

    #[test]
    fn without_probation_only_the_window_shrinks() {
        let policy = RetryPolicy { probation: false, ..RetryPolicy::default() };
        let mut health = Health::new(64, &policy);
        for _ in 0..100 {
            assert_eq!(health.record(&status(503), T0), Turn::None);
        }
        assert_eq!((health.breaker(), health.room(T0)), (Breaker::Closed, 1));
    }

    #[test]
    fn a_probe_that_was_not_made_is_made_again_at_once() {
        let mut health = broken(&status(500));
        health.begun(T0);
        health.not_made(later(10_000));
        assert_eq!(health.room(later(10_000)), 1);
        health.reset();
        assert_eq!(health.breaker(), Breaker::Closed);
    }

    #[test]
    fn what_piled_up_comes_at_the_pace_of_the_last_good_minute() {
        let mut health = Health::new(64, &RetryPolicy::default());
        for n in 0..1_200 {
            // Forty a second.
            health.record(&status(200), later(n * 25));
        }
        let outage = later(100_000);
        while health.breaker() == Breaker::Closed {
            health.record(&status(500), outage);
        }
        // Hours later one event gets through.
        let back = later(10_000_000);
        health.begun(back);
        assert_eq!(health.record(&status(200), back), Turn::Closed);
        let (mut now, mut made) = (back, 0);
        while now.since(back) < Duration::from_secs(5) {
            if health.room(now) > 0 {
                health.begun(now);
                assert_eq!(health.record(&status(200), now), Turn::None);
                made += 1;
            }
            now = health.held_until(now).unwrap_or(now);
        }
        assert!((180..=210).contains(&made), "{made} in the first five seconds");
        health.reset();
        assert_eq!(health.held_until(now), None, "an operator knows better");
    }
}
