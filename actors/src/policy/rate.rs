//! Token buckets: how often a caller may call.
//!
//! The only place that knows the crate `governor`. Invariant: memory is bounded, whatever keys the
//! callers invent; and a refused call costs no token, so that a caller who waits is served.
//!
//! The algorithm is GCRA. A bucket holds `calls` tokens and gains one every `per / calls`, evenly. So
//! a caller who was silent may make `calls` at once and, while the bucket refills, nearly `calls`
//! more: in the worst window, the first, up to twice `calls` less one. Over any longer time the rate
//! holds. Whoever needs an exact sliding window needs another algorithm.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::{DashMapStateStore, ShrinkableKeyedStateStore};
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::model::ids::Name;

/// Longest period of a rate; longer ones are quotas, which must outlive the process.
pub const MAX_PERIOD: Duration = Duration::from_secs(86_400);
/// Shortest interval between two tokens.
const MIN_INTERVAL: Duration = Duration::from_micros(1);
/// Looking for idle buckets reads them all; while there are too many, not more often than this.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Time since some fixed moment, never going back. The kernel's clock in the product.
pub type Ticks = Arc<dyn Fn() -> Duration + Send + Sync>;

/// So many calls per so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    calls: NonZeroU32,
    per: Duration,
}

/// Numbers that are no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// No calls, or no time.
    #[error("a rate has at least one call and a period longer than zero")]
    Zero,
    /// The period is a quota's.
    #[error("the period of a rate is at most a day")]
    Period,
    /// Faster than can be counted.
    #[error("a rate is at most 1,000,000 calls per second")]
    Speed,
}

impl Rate {
    /// Checks and makes a rate.
    pub fn new(calls: u32, per: Duration) -> Result<Self, InvalidRate> {
        let calls = NonZeroU32::new(calls).ok_or(InvalidRate::Zero)?;
        if per.is_zero() {
            return Err(InvalidRate::Zero);
        }
        if per > MAX_PERIOD {
            return Err(InvalidRate::Period);
        }
        let rate = Self { calls, per };
        if rate.interval() < MIN_INTERVAL { Err(InvalidRate::Speed) } else { Ok(rate) }
    }

    /// Calls per period, and the size of a burst.
    pub fn calls(self) -> u32 {
        self.calls.get()
    }

    /// The period.
    pub fn per(self) -> Duration {
        self.per
    }

    /// Time in which one call becomes possible again.
    fn interval(self) -> Duration {
        self.per / self.calls.get()
    }
}

/// What a bucket says to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Whether the call may go on. A call that may not has cost nothing.
    pub allowed: bool,
    /// Calls per period.
    pub limit: u32,
    /// Calls that would be allowed right after this one.
    pub remaining: u32,
    /// Time until a call will be allowed; zero when this one was.
    pub retry_after: Duration,
    /// Time until `remaining` has grown by one, at most. Never longer than `retry_after` when
    /// refused, as the draft of the `RateLimit` header fields asks.
    pub reset: Duration,
}

/// One bucket for each key, all of one rate.
pub struct TokenBuckets {
    rate: Rate,
    ticks: Ticks,
    limiter: RateLimiter<Name, Buckets, TicksClock, StateInformationMiddleware>,
    buckets: Buckets,
    crowded: Arc<AtomicBool>,
    next_sweep: AtomicU64,
}

impl TokenBuckets {
    /// Buckets of one rate. Above `max_keys` of them idle ones are dropped; while all are busy, keys
    /// without a bucket share one. (Threads that make a bucket at the same moment may exceed
    /// `max_keys` by one each.)
    pub fn new(rate: Rate, max_keys: usize, ticks: Ticks) -> Self {
        let crowded = Arc::new(AtomicBool::new(false));
        let buckets =
            Buckets { own: Arc::default(), shared: Arc::default(), max_keys, crowded: Arc::clone(&crowded) };
        let clock = TicksClock(Arc::clone(&ticks));
        // `Rate::new` keeps the interval above zero, so the fallback is never taken.
        let quota = Quota::with_period(rate.interval()).unwrap_or(Quota::per_second(rate.calls));
        let limiter = RateLimiter::new(quota.allow_burst(rate.calls), buckets.clone(), clock);
        Self { rate, ticks, limiter, buckets, crowded, next_sweep: AtomicU64::new(0) }
    }

    /// Takes a token of this key's bucket, if it has one.
    pub fn check(&self, key: &Name) -> Admission {
        self.check_many(key, NonZeroU32::MIN)
    }

    /// Takes `tokens` tokens of this key's bucket, if it has them all. More than its size it never has; then the time
    /// that is told is the whole period.
    pub fn check_many(&self, key: &Name, tokens: NonZeroU32) -> Admission {
        let limit = self.rate.calls();
        let refused =
            |retry_after| Admission { allowed: false, limit, remaining: 0, retry_after, reset: retry_after };
        let admission = match self.limiter.check_key_n(key, tokens) {
            Ok(Ok(state)) => Admission {
                allowed: true,
                limit,
                remaining: state.remaining_burst_capacity(),
                retry_after: Duration::ZERO,
                reset: self.rate.interval(),
            },
            Ok(Err(early)) => refused(early.wait_time_from((self.ticks)())),
            Err(_) => refused(self.rate.per),
        };
        if self.crowded.load(Ordering::Relaxed) {
            self.make_room();
        }
        admission
    }

    /// Puts tokens back that were taken for a call that is not made.
    pub fn give_back(&self, key: &Name, tokens: NonZeroU32) {
        let back = Nanos::from(self.rate.interval().saturating_mul(tokens.get()));
        // The bucket's state is the time at which it will be full: earlier by what is put back.
        let earlier =
            |full: Option<Nanos>| Ok::<_, Infallible>(((), full.unwrap_or_default().saturating_sub(back)));
        let bucket = self.buckets.own.get(key);
        let state = bucket.as_deref().unwrap_or(&self.buckets.shared);
        match state.measure_and_replace(&NotKeyed::NonKey, earlier) {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Drops the buckets that are full again and so say nothing. Reads all of them: about 0.1 s for a
    /// million. For housekeeping; [`check`](Self::check) does it by itself when there are too many.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// Number of buckets.
    pub fn len(&self) -> usize {
        self.limiter.len()
    }

    /// Whether no key has a bucket.
    pub fn is_empty(&self) -> bool {
        self.limiter.is_empty()
    }

    /// The rate of all buckets.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Sweeps, unless somebody else just did: no bucket gets full faster than its period.
    fn make_room(&self) {
        let now = nanos((self.ticks)());
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(nanos(self.rate.per.max(MIN_SWEEP_INTERVAL)));
        let mine = now >= due
            && self.next_sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            self.crowded.store(false, Ordering::Relaxed);
            self.limiter.retain_recent();
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

struct TicksClock(Ticks);

impl Clock for TicksClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        (self.0)()
    }
}

/// Where the buckets are: their own for known keys, and for new ones while there is room.
#[derive(Clone)]
struct Buckets {
    own: Arc<DashMapStateStore<Name>>,
    shared: Arc<InMemoryState>,
    max_keys: usize,
    /// Somebody had to share.
    crowded: Arc<AtomicBool>,
}

impl StateStore for Buckets {
    type Key = Name;

    fn measure_and_replace<T, F, E>(&self, key: &Name, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        if let Some(bucket) = self.own.get(key) {
            return bucket.measure_and_replace(&NotKeyed::NonKey, f);
        }
        if self.own.len() < self.max_keys {
            return self.own.measure_and_replace(key, f);
        }
        self.crowded.store(true, Ordering::Relaxed);
        self.shared.measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl ShrinkableKeyedStateStore<Name> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        ShrinkableKeyedStateStore::retain_recent(&*self.own, drop_below);
    }

    fn shrink_to_fit(&self) {
        ShrinkableKeyedStateStore::shrink_to_fit(&*self.own);
    }

    fn len(&self) -> usize {
        self.own.len()
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    struct Fixture {
        clock: FakeRelativeClock,
        buckets: TokenBuckets,
    }

    fn fixture(calls: u32, per: Duration, max_keys: usize) -> Fixture {
        let clock = FakeRelativeClock::default();
        let source = clock.clone();
        let ticks: Ticks = Arc::new(move || source.now().into());
        let rate = Rate::new(calls, per).unwrap();
        Fixture { clock, buckets: TokenBuckets::new(rate, max_keys, ticks) }
    }

    impl Fixture {
        fn check(&self, key: &str) -> Admission {
            self.buckets.check(&key.into())
        }

        fn allowed(&self, key: &str, calls: usize) -> usize {
            (0..calls).filter(|_| self.check(key).allowed).count()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_the_limit_and_no_more() {
        let fixture = fixture(3, 3 * SECOND, 100);
        for remaining in [2, 1, 0] {
            let expected =
                Admission { allowed: true, limit: 3, remaining, retry_after: Duration::ZERO, reset: SECOND };
            assert_eq!(fixture.check("a"), expected);
        }
        let refused =
            Admission { allowed: false, limit: 3, remaining: 0, retry_after: SECOND, reset: SECOND };
        assert_eq!(fixture.check("a"), refused);
        assert!(fixture.check("b").allowed, "another key has another bucket");
    }

    #[test]
    fn retry_after_is_honest_and_refused_calls_cost_nothing() {
        let fixture = fixture(2, SECOND, 100);
        assert_eq!(fixture.allowed("a", 100), 2);
        let refused = fixture.check("a");
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        fixture.clock.advance(refused.retry_after - Duration::from_nanos(1));
        assert_eq!(fixture.check("a").retry_after, Duration::from_nanos(1));
        fixture.clock.advance(Duration::from_nanos(1));
        assert!(fixture.check("a").allowed);
        assert!(!fixture.check("a").allowed);
        fixture.clock.advance(60 * SECOND);
        assert_eq!(fixture.allowed("a", 100), 2, "tokens do not pile up above the burst");
    }

    #[test]
    fn twice_the_rate_still_gets_the_whole_rate() {
        let fixture = fixture(50, SECOND, 100);
        let mut allowed = 0;
        for _ in 0..6_000 {
            fixture.clock.advance(Duration::from_millis(10));
            allowed += fixture.allowed("a", 1);
        }
        // A minute at 100 calls per second: 50 per second, and the first burst.
        assert!((3_000..=3_050).contains(&allowed), "{allowed}");
    }

    #[test]
    fn the_first_window_may_see_nearly_twice_the_calls() {
        let fixture = fixture(10, SECOND, 100);
        let mut allowed = fixture.allowed("a", 10);
        for _ in 0..999 {
            fixture.clock.advance(Duration::from_millis(1));
            allowed += fixture.allowed("a", 1);
        }
        assert_eq!(allowed, 19);
    }

    #[test]
    fn idle_buckets_make_room_and_busy_ones_stay() {
        let fixture = fixture(1, SECOND, 2);
        assert_eq!(fixture.allowed("a", 5), 1);
        assert_eq!(fixture.allowed("b", 5), 1);
        for key in ["c", "d", "e"] {
            fixture.check(key);
        }
        assert_eq!(fixture.buckets.len(), 2);
        assert_eq!(fixture.allowed("a", 5), 0, "a known key keeps its own bucket");
        assert_eq!(fixture.allowed("f", 5), 0, "new keys share one bucket");
        fixture.clock.advance(5 * SECOND);
        fixture.check("a");
        fixture.check("g");
        assert_eq!(fixture.allowed("h", 5), 1, "idle buckets were dropped");
        assert_eq!(fixture.buckets.len(), 2);
        assert!(!fixture.check("a").allowed);
    }

    #[test]
    fn a_flood_of_keys_is_one_caller_in_bounded_memory() {
        let fixture = fixture(5, SECOND, 10);
        let allowed = (0..10_000).filter(|i| fixture.check(&format!("10.0.0.{i}")).allowed).count();
        assert_eq!(allowed, 10 + 5);
        assert_eq!(fixture.buckets.len(), 10);
    }

    #[test]
    fn a_sweep_drops_full_buckets_only() {
        let fixture = fixture(2, 2 * SECOND, 100);
        fixture.check("a");
        fixture.clock.advance(2 * SECOND);
        fixture.check("b");
        fixture.buckets.sweep();
        assert_eq!(fixture.buckets.len(), 1);
        assert_eq!(fixture.check("b").remaining, 0);
        assert!(!fixture.buckets.is_empty());
    }

    #[test]
    fn tokens_put_back_are_as_if_never_taken() {
        let fixture = fixture(5, 5 * SECOND, 1);
        let (key, three) = (Name::from("a"), NonZeroU32::new(3).unwrap());
        assert_eq!(fixture.buckets.check_many(&key, three).remaining, 2);
        let refused = fixture.buckets.check_many(&key, three);
        assert_eq!((refused.allowed, refused.retry_after), (false, SECOND));
        fixture.buckets.give_back(&key, three);
        assert_eq!(fixture.allowed("a", 9), 5);
        fixture.clock.advance(60 * SECOND);
        assert!(fixture.check("a").allowed);
        fixture.buckets.give_back(&key, NonZeroU32::MIN);
        assert_eq!(fixture.allowed("a", 9), 5, "never more than the bucket holds");
        assert_eq!(fixture.allowed("crowded out", 9), 5);
        fixture.buckets.give_back(&"crowded out".into(), NonZeroU32::MIN);
        assert_eq!((fixture.allowed("a", 9), fixture.allowed("crowded out", 9)), (0, 1));
        let never = fixture.buckets.check_many(&key, NonZeroU32::new(6).unwrap());
        assert_eq!((never.allowed, never.retry_after), (false, 5 * SECOND));
    }

    #[test]
    fn buckets_are_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<TokenBuckets>();
    }

    #[test]
    fn numbers_that_are_no_rate_are_refused() {
        let day = Duration::from_secs(86_400);
        for (calls, per, expected) in [
            (0, SECOND, Some(InvalidRate::Zero)),
            (1, Duration::ZERO, Some(InvalidRate::Zero)),
            (1, day + SECOND, Some(InvalidRate::Period)),
            (1_000_001, SECOND, Some(InvalidRate::Speed)),
            (u32::MAX, Duration::MAX, Some(InvalidRate::Period)),
            (1_000_000, SECOND, None),
            (1, day, None),
            (u32::MAX, day, None),
        ] {
            assert_eq!(Rate::new(calls, per).err(), expected, "{calls} per {per:?}");
        }
        let rate = Rate::new(200, SECOND).unwrap();
        assert_eq!((rate.calls(), rate.per()), (200, SECOND));
    }

    #[test]
    fn threads_share_a_bucket_without_spending_a_token_twice() {
        let fixture = fixture(100, SECOND, 100);
        let fixture = &fixture;
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fixture.allowed("a", 100))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 100);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_a_burst_and_its_refill(
            calls in 1u32..20,
            gaps in proptest::collection::vec(0u64..300, 1..120),
        ) {
            let fixture = fixture(calls, SECOND, 100);
            let mut now = 0;
            let mut passed = Vec::new();
            for gap in gaps {
                fixture.clock.advance(Duration::from_millis(gap));
                now += gap;
                if fixture.check("a").allowed {
                    passed.push(now);
                }
            }
            for (i, first) in passed.iter().enumerate() {
                for (j, last) in passed.iter().enumerate().skip(i) {
                    // One millisecond of grace: the interval is rounded down to nanoseconds.
                    let refill = (last - first + 1) * u64::from(calls) / 1_000;
                    prop_assert!((j - i + 1) as u64 <= u64::from(calls) + refill);
                }
            }
        }
    }
}
