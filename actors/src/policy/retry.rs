//! Decides what becomes of an event after an attempt: done, another attempt, or the dead-letter mailbox.
//!
//! Stands between a subscriber and its retry queue. The schedule and the rules per status are those
//! of Azure Event Grid's push delivery. Invariant: no attempt comes earlier than its step, and no
//! event is attempted more often than its policy says.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::delivery::{Outcome, OutcomeKind};
use crate::model::time::Timestamp;

const SECOND: u64 = 1;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Delays after the first, second, … failed attempt.
const STEPS: [Duration; 9] = [
    Duration::from_secs(10 * SECOND),
    Duration::from_secs(30 * SECOND),
    Duration::from_secs(MINUTE),
    Duration::from_secs(5 * MINUTE),
    Duration::from_secs(10 * MINUTE),
    Duration::from_secs(30 * MINUTE),
    Duration::from_secs(HOUR),
    Duration::from_secs(3 * HOUR),
    Duration::from_secs(6 * HOUR),
];
/// Delay after all further failed attempts.
const LAST_STEP: Duration = Duration::from_secs(12 * HOUR);

const MINIMUM: Duration = Duration::from_secs(10 * SECOND);
const MINIMUM_UNAVAILABLE: Duration = Duration::from_secs(30 * SECOND);
const MINIMUM_REQUEST_TIMEOUT: Duration = Duration::from_secs(2 * MINUTE);
const MINIMUM_NOT_FOUND: Duration = Duration::from_secs(5 * MINUTE);

/// An endpoint cannot put an event off for longer than this with `Retry-After`.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(HOUR);
/// Largest share of a delay that chance adds to it, so that many retries do not fall due at once.
const JITTER: f64 = 0.1;
/// Attempts beyond this are not looked ahead to: by then the schedule is the same step again and again.
const MOST_LATER: u32 = 100;

/// When an event subscription gives up, and how fast it goes through the schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub max_attempts: u32,
    /// Age, from publishing, past which no attempt is made.
    pub ttl: Duration,
    /// Factor on the steps and minimums: 1 is the real schedule, 0.01 is for tests and demos.
    /// `Retry-After` and `ttl` are not scaled.
    pub scale: f64,
    /// Whether an endpoint that only fails is left alone for a while, which costs no attempts. Without it
    /// each event goes through the schedule by itself.
    pub probation: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 30, ttl: Duration::from_secs(24 * HOUR), scale: 1.0, probation: true }
    }
}

/// What becomes of an event after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint has it.
    Done,
    /// It falls due again at this time; then [`when_due`] has the say.
    RetryAt(Timestamp),
    /// It is given up.
    DeadLetter(DeadLetterReason),
}

/// What becomes of an event whose attempt falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Try now.
    Attempt,
    /// It is given up.
    DeadLetter(DeadLetterReason),
}

/// Why an event was given up. The names are Event Grid's `deadLetterReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeadLetterReason {
    /// The last attempt that the policy allows failed.
    MaxDeliveryAttemptsExceeded,
    /// The event was too old when its next attempt fell due.
    TimeToLiveExceeded,
    /// Status 400.
    UndeliverableDueToHttpBadRequest,
    /// Status 401.
    UndeliverableDueToHttpUnauthorized,
    /// Status 403.
    UndeliverableDueToHttpForbidden,
    /// Status 413.
    UndeliverableDueToHttpPayloadTooLarge,
    /// The subscription may not contact the endpoint's address.
    UndeliverableDueToForbiddenAddress,
    /// The subscription is gone.
    SubscriptionDeleted,
    /// The subscription takes nothing any more.
    SubscriptionDisabled,
    /// The event was published again too often by those who were told of it.
    LoopDetected,
    /// Whoever received it from a queue refused it.
    Rejected,
    /// It crashed those who route or deliver it, again and again.
    Crashed,
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An attempt that has an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    /// Attempts made so far, this one included.
    pub attempts: u32,
    /// When the event was published, or replayed.
    pub published: Timestamp,
    /// When the attempt ended.
    pub now: Timestamp,
}

/// Judges an attempt. `chance`, from 0 to 1, chooses the jitter. Whether the event is too old is not asked here but
/// when its next attempt falls due; its age only bounds the jitter, which costs no attempt: see [`jitter`].
pub fn verdict(made: Attempted, outcome: &Outcome, policy: &RetryPolicy, chance: f64) -> Verdict {
    let Attempted { attempts, published, now } = made;
    let minimum = match judge(outcome) {
        Judgement::Delivered => return Verdict::Done,
        Judgement::Hopeless(reason) => return Verdict::DeadLetter(reason),
        Judgement::Again(minimum) => minimum,
    };
    if attempts >= policy.max_attempts {
        return Verdict::DeadLetter(DeadLetterReason::MaxDeliveryAttemptsExceeded);
    }
    let asked = outcome.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let delay = scaled(step(attempts).max(minimum), policy.scale).max(asked);
    let most = jitter(attempts, delay, policy, now.since(published));
    let jitter = times(most, chance.clamp(0.0, 1.0)).unwrap_or_default();
    Verdict::RetryAt(now.after(whole_millis(delay.saturating_add(jitter))))
}

/// The most that chance may add to a delay: a tenth of it, but no more than half of what the whole schedule leaves of
/// the TTL. So an attempt that its steps alone bring within the TTL is made, whatever chance adds to those before it,
/// and events that failed together stay spread.
fn jitter(attempts: u32, delay: Duration, policy: &RetryPolicy, age: Duration) -> Duration {
    let tenth = times(delay, JITTER).unwrap_or_default();
    let mut last = age.saturating_add(whole_millis(delay));
    if last > policy.ttl {
        // There is no further attempt.
        return tenth;
    }
    for later in attempts.saturating_add(1)..policy.max_attempts {
        let next = last.saturating_add(whole_millis(scaled(step(later), policy.scale)));
        if next > policy.ttl || later > MOST_LATER {
            break;
        }
        last = next;
    }
    tenth.min((policy.ttl - last) / 2)
}

/// The longest that an event is put off after so many attempts, whatever the outcome and chance.
pub fn longest_wait(attempts: u32, policy: &RetryPolicy) -> Duration {
    let delay = scaled(step(attempts).max(MINIMUM_NOT_FOUND), policy.scale).max(MAX_RETRY_AFTER);
    whole_millis(delay.saturating_add(times(delay, JITTER).unwrap_or_default()))
}

/// Judges an event whose attempt falls due. An age of exactly the TTL is not yet too old.
pub fn when_due(published: Timestamp, policy: &RetryPolicy, now: Timestamp) -> Due {
    if now.since(published) > policy.ttl {
        return Due::DeadLetter(DeadLetterReason::TimeToLiveExceeded);
    }
    Due::Attempt
}

enum Judgement {
    Delivered,
    Hopeless(DeadLetterReason),
    /// Worth another attempt, not earlier than this.
    Again(Duration),
}

fn judge(outcome: &Outcome) -> Judgement {
    match outcome.kind {
        OutcomeKind::Delivered => Judgement::Delivered,
        OutcomeKind::BadRequest => Judgement::Hopeless(DeadLetterReason::UndeliverableDueToHttpBadRequest),
        OutcomeKind::Unauthorized => {
            Judgement::Hopeless(DeadLetterReason::UndeliverableDueToHttpUnauthorized)
        }
        OutcomeKind::Forbidden if outcome.status.is_some() => {
            Judgement::Hopeless(DeadLetterReason::UndeliverableDueToHttpForbidden)
        }
        OutcomeKind::Forbidden => Judgement::Hopeless(DeadLetterReason::UndeliverableDueToForbiddenAddress),
        OutcomeKind::PayloadTooLarge => {
            Judgement::Hopeless(DeadLetterReason::UndeliverableDueToHttpPayloadTooLarge)
        }
        OutcomeKind::NotFound => Judgement::Again(MINIMUM_NOT_FOUND),
        OutcomeKind::TimedOut if outcome.status.is_some() => Judgement::Again(MINIMUM_REQUEST_TIMEOUT),
        OutcomeKind::Busy if outcome.status == Some(503) => Judgement::Again(MINIMUM_UNAVAILABLE),
        OutcomeKind::TimedOut
        | OutcomeKind::Busy
        | OutcomeKind::Rejected
        | OutcomeKind::SocketError
        | OutcomeKind::ResolutionError
        | OutcomeKind::Gone
        | OutcomeKind::Aborted => Judgement::Again(MINIMUM),
    }
}

fn step(attempts: u32) -> Duration {
    let failed = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    STEPS.get(failed).copied().unwrap_or(LAST_STEP)
}

/// A scale that is no factor at all (negative, not a number, beyond all time) means the real schedule.
fn scaled(delay: Duration, scale: f64) -> Duration {
    times(delay, scale).unwrap_or(delay)
}

fn times(delay: Duration, factor: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).ok()
}

/// Timestamps count milliseconds; rounding down would let an attempt come before its step.
pub(super) fn whole_millis(delay: Duration) -> Duration {
    const MILLI: u128 = 1_000_000;
    Duration::from_millis(u64::try_from(delay.as_nanos().div_ceil(MILLI)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Timestamp = Timestamp(1_700_000_000_000);

    fn status(code: u16) -> Outcome {
        Outcome::from_status(code, None)
    }

    fn at_once(attempts: u32) -> Attempted {
        Attempted { attempts, published: T0, now: T0 }
    }

    fn delay_of(attempts: u32, outcome: &Outcome, policy: &RetryPolicy, chance: f64) -> Duration {
        match verdict(at_once(attempts), outcome, policy, chance) {
            Verdict::RetryAt(at) => at.since(T0),
            other @ (Verdict::Done | Verdict::DeadLetter(_)) => panic!("{other:?}"),
        }
    }

    /// Runs an event against an endpoint that always fails: seconds of each attempt, and the end.
    fn ordeal(policy: &RetryPolicy) -> (Vec<u64>, DeadLetterReason) {
        let (attempts, reason) = ordeal_by_chance(policy, || 0.0);
        (attempts.iter().map(Duration::as_secs).collect(), reason)
    }

    fn ordeal_by_chance(
        policy: &RetryPolicy,
        mut chance: impl FnMut() -> f64,
    ) -> (Vec<Duration>, DeadLetterReason) {
        let mut now = T0;
        let mut attempts = Vec::new();
        loop {
            match when_due(T0, policy, now) {
                Due::Attempt => attempts.push(now.since(T0)),
                Due::DeadLetter(reason) => return (attempts, reason),
            }
            let made = Attempted { attempts: u32::try_from(attempts.len()).unwrap(), published: T0, now };
            match verdict(made, &status(500), policy, chance()) {
                Verdict::RetryAt(at) => now = at,
                Verdict::DeadLetter(reason) => return (attempts, reason),
                Verdict::Done => panic!("a failure is not done"),
            }
        }
    }

    #[test]
    fn ttl_of_30_minutes_and_10_attempts_gives_6_attempts() {
        let policy =
            RetryPolicy { max_attempts: 10, ttl: Duration::from_secs(1_800), scale: 1.0, probation: false };
        let (attempts, reason) = ordeal(&policy);
        assert_eq!(attempts, [0, 10, 40, 100, 400, 1_000]);
        assert_eq!(reason, DeadLetterReason::TimeToLiveExceeded);
    }

    #[test]
    fn the_default_policy_gives_11_attempts() {
        let (attempts, reason) = ordeal(&RetryPolicy::default());
        let expected = [0, 10, 40, 100, 400, 1_000, 2_800, 6_400, 17_200, 38_800, 82_000];
        assert_eq!(attempts, expected);
        assert_eq!(reason, DeadLetterReason::TimeToLiveExceeded);
    }

    #[test]
    fn the_first_limit_that_is_reached_wins() {
        let (attempts, reason) = ordeal(&RetryPolicy { max_attempts: 3, ..RetryPolicy::default() });
        assert_eq!(attempts, [0, 10, 40]);
        assert_eq!(reason, DeadLetterReason::MaxDeliveryAttemptsExceeded);
        let forever = RetryPolicy { ttl: Duration::MAX, ..RetryPolicy::default() };
        assert_eq!(ordeal(&forever).0.len(), 30);
    }

    #[test]
    fn time_to_live_is_tested_to_the_millisecond_and_only_when_due() {
        let policy = RetryPolicy { ttl: Duration::from_secs(60), ..RetryPolicy::default() };
        let expired = Due::DeadLetter(DeadLetterReason::TimeToLiveExceeded);
        for (age, due) in [(0, Due::Attempt), (60_000, Due::Attempt), (60_001, expired)] {
            assert_eq!(when_due(T0, &policy, Timestamp(T0.0 + age)), due, "{age}");
        }
        assert_eq!(when_due(T0, &policy, Timestamp(T0.0 - 5_000)), Due::Attempt, "a clock that went back");
        let late = Timestamp(T0.0 + 3_600_000);
        assert!(matches!(
            verdict(Attempted { now: late, ..at_once(1) }, &status(500), &policy, 0.0),
            Verdict::RetryAt(_)
        ));
    }

    #[test]
    fn every_status_has_its_rule() {
        use DeadLetterReason as Reason;
        let policy = RetryPolicy::default();
        for code in [200, 201, 202, 203, 204] {
            assert_eq!(verdict(at_once(30), &status(code), &policy, 0.0), Verdict::Done, "{code}");
        }
        for (code, reason) in [
            (400, Reason::UndeliverableDueToHttpBadRequest),
            (401, Reason::UndeliverableDueToHttpUnauthorized),
            (403, Reason::UndeliverableDueToHttpForbidden),
            (413, Reason::UndeliverableDueToHttpPayloadTooLarge),
        ] {
            for attempts in [1, 30] {
                let got = verdict(at_once(attempts), &status(code), &policy, 0.0);
                assert_eq!(got, Verdict::DeadLetter(reason), "{code}");
            }
        }
        for (code, first, fourth) in [
            (404, 300, 300),
            (408, 120, 300),
            (503, 30, 300),
            (429, 10, 300),
            (500, 10, 300),
            (502, 10, 300),
            (504, 10, 300),
            (205, 10, 300),
            (206, 10, 300),
            (301, 10, 300),
            (304, 10, 300),
            (402, 10, 300),
            (410, 10, 300),
            (411, 10, 300),
            (418, 10, 300),
            (599, 10, 300),
        ] {
            assert_eq!(delay_of(1, &status(code), &policy, 0.0).as_secs(), first, "{code}");
            assert_eq!(delay_of(4, &status(code), &policy, 0.0).as_secs(), fourth, "{code}");
            let given_up = Verdict::DeadLetter(Reason::MaxDeliveryAttemptsExceeded);
            assert_eq!(verdict(at_once(30), &status(code), &policy, 0.0), given_up, "{code}");
        }
    }

    #[test]
    fn failures_without_an_answer_have_their_rule() {
        let policy = RetryPolicy::default();
        for kind in [
            OutcomeKind::TimedOut,
            OutcomeKind::SocketError,
            OutcomeKind::ResolutionError,
            OutcomeKind::Aborted,
            OutcomeKind::Busy,
        ] {
            assert_eq!(delay_of(1, &Outcome::failed(kind, "x"), &policy, 0.0).as_secs(), 10, "{kind}");
        }
        let blocked = Outcome::failed(OutcomeKind::Forbidden, "169.254.169.254 is not allowed");
        let reason = DeadLetterReason::UndeliverableDueToForbiddenAddress;
        assert_eq!(verdict(at_once(1), &blocked, &policy, 0.0), Verdict::DeadLetter(reason));
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour_and_never_shortens_a_delay() {
        let policy = RetryPolicy::default();
        for (code, attempts, retry_after, expected) in [
            (503, 1, 120, 120),
            (503, 1, 5, 30),
            (503, 1, 0, 30),
            (429, 1, 45, 45),
            (404, 1, 60, 300),
            (404, 1, 301, 301),
            (500, 1, 20, 20),
            (503, 1, 3_600, 3_600),
            (503, 1, 3_601, 3_600),
            (429, 1, 1_000_000_000, 3_600),
            (429, 8, 1_000_000_000, 10_800),
        ] {
            let outcome = Outcome::from_status(code, Some(Duration::from_secs(retry_after)));
            let delay = delay_of(attempts, &outcome, &policy, 0.0).as_secs();
            assert_eq!(delay, expected, "{code} {retry_after}");
        }
        let hopeless = Outcome::from_status(400, Some(Duration::from_secs(60)));
        assert!(matches!(verdict(at_once(1), &hopeless, &policy, 0.0), Verdict::DeadLetter(_)));
    }

    #[test]
    fn scale_shortens_steps_and_minimums_but_not_retry_after() {
        let policy = RetryPolicy { scale: 0.01, ..RetryPolicy::default() };
        let soon = Outcome::from_status(503, Some(Duration::from_secs(2)));
        for (attempts, outcome, millis) in [
            (1, &status(500), 100),
            (2, &status(500), 300),
            (10, &status(500), 432_000),
            (1, &status(404), 3_000),
            (1, &status(408), 1_200),
            (1, &soon, 2_000),
        ] {
            assert_eq!(delay_of(attempts, outcome, &policy, 0.0), Duration::from_millis(millis));
        }
        let fast = RetryPolicy { scale: 0.000_15, ..RetryPolicy::default() };
        let rounded_up = Duration::from_millis(2);
        assert_eq!(delay_of(1, &status(500), &fast, 0.0), rounded_up, "1.5 ms must not become 1 ms");
        for nonsense in [f64::NAN, -1.0, f64::INFINITY, 1e300] {
            let policy = RetryPolicy { scale: nonsense, ..RetryPolicy::default() };
            assert_eq!(delay_of(1, &status(500), &policy, 0.0).as_secs(), 10, "{nonsense}");
        }
    }

    #[test]
    fn jitter_costs_the_default_policy_no_attempt_and_still_spreads_the_last() {
        let mut last = Vec::new();
        for seed in 0..1_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (attempts, reason) = ordeal_by_chance(&RetryPolicy::default(), || rng.f64());
            assert_eq!((attempts.len(), reason), (11, DeadLetterReason::TimeToLiveExceeded), "seed {seed}");
            last.push(attempts[10]);
        }
        last.sort();
        let hour = Duration::from_secs(HOUR);
        assert!(last[0] >= Duration::from_secs(82_000) && last[999] <= Duration::from_secs(86_400));
        // A minute remains for attempts that take their time, in the worst luck.
        let (attempts, _) = ordeal_by_chance(&RetryPolicy::default(), || 1.0);
        assert!(attempts[10] + Duration::from_secs(MINUTE) < 24 * hour, "{attempts:?}");
        assert!(last[750] - last[250] > Duration::from_secs(5 * MINUTE), "{:?} {:?}", last[250], last[750]);
    }

    #[test]
    fn jitter_adds_at_most_a_tenth() {
        let policy = RetryPolicy::default();
        for (chance, millis) in [(0.0, 10_000), (0.5, 10_500), (1.0, 11_000), (7.0, 11_000), (-1.0, 10_000)] {
            let delay = delay_of(1, &status(500), &policy, chance);
            assert_eq!(delay, Duration::from_millis(millis), "{chance}");
        }
        assert_eq!(delay_of(1, &status(500), &policy, f64::NAN), Duration::from_secs(10));
    }

    #[test]
    fn a_reason_has_one_name_everywhere() {
        let reason = DeadLetterReason::UndeliverableDueToHttpBadRequest;
        assert_eq!(reason.to_string(), "UndeliverableDueToHttpBadRequest");
        assert_eq!(serde_json::to_string(&reason).unwrap(), "\"UndeliverableDueToHttpBadRequest\"");
    }

    proptest! {
        #[test]
        fn chance_changes_neither_the_number_of_attempts_nor_the_end(
            max_attempts in 1u32..=30,
            ttl in prop_oneof![0u64..200_000_000, Just(82_000_000), Just(82_000_001), Just(40_000)],
            scale in prop_oneof![Just(1.0f64), 0.001f64..2.0],
            seed in 0u64..,
        ) {
            let ttl = Duration::from_millis(ttl);
            let policy = RetryPolicy { max_attempts, ttl, scale, ..RetryPolicy::default() };
            let mut rng = fastrand::Rng::with_seed(seed);
            let (plain, plain_end) = ordeal_by_chance(&policy, || 0.0);
            let (attempts, end) = ordeal_by_chance(&policy, || rng.f64());
            prop_assert_eq!((attempts.len(), end), (plain.len(), plain_end));
            prop_assert!(attempts.iter().zip(&plain).all(|(at, plain)| at >= plain));
        }

        #[test]
        fn no_attempt_comes_before_its_step_nor_after_the_last(
            attempts in 1u32..40,
            code in 100u16..600,
            retry_after in proptest::option::of(0u64..10_000),
            max_attempts in 1u32..=30,
            scale in 0.0001f64..2.0,
            chance in prop_oneof![Just(0.0f64), 0.0f64..=1.0],
        ) {
            let outcome = Outcome::from_status(code, retry_after.map(Duration::from_secs));
            let policy = RetryPolicy { max_attempts, scale, ..RetryPolicy::default() };
            let Verdict::RetryAt(at) = verdict(at_once(attempts), &outcome, &policy, chance) else {
                return Ok(());
            };
            prop_assert!(attempts < max_attempts);
            let delay = at.since(T0);
            prop_assert!(delay >= step(attempts).mul_f64(scale));
            prop_assert!(delay >= Duration::from_secs(retry_after.unwrap_or(0)).min(MAX_RETRY_AFTER));
            prop_assert!(delay <= longest_wait(attempts, &policy));
        }
    }
}
