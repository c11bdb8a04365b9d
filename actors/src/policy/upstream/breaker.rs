//! The circuit breaker of one server: when it is left alone, and how it comes back.
//!
//! Invariants: while the breaker is open nothing is sent; when it has been open long enough one request at a time
//! finds out whether the server is back; what ends late, from before the breaker opened, changes nothing.
//!
//! Ends are counted in [`SLICES`] parts of the window, so one is forgotten when it is between nine tenths of the
//! window and the whole window old, and memory does not grow with the traffic.

use std::time::Duration;

/// Parts of the window.
const SLICES: usize = 10;

/// When a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// After so many failures.
    Count(u32),
    /// When so many of a hundred failed, of at least so many.
    Percentage {
        /// Failures of a hundred.
        percent: u32,
        /// Requests below which nothing is decided.
        minimum: u32,
    },
}

/// The rules of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// When it opens.
    pub trip: Trip,
    /// The time over which is counted.
    pub window: Duration,
    /// How long it stays open.
    pub open: Duration,
    /// Whether a server that asks for a time gets that time instead.
    pub honour_retry_after: bool,
}

/// What may be seen of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Requests are sent.
    Closed,
    /// None is sent before this time.
    Open {
        /// When one finds out whether the server is back.
        until: Duration,
    },
    /// One is finding out.
    HalfOpen,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may. The ticket comes back with how it ended.
    Granted(Ticket),
    /// It may not, and not before this time; `None` when that depends on how another one ends.
    Refused(Option<Duration>),
}

/// What a request that was permitted is to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    era: u64,
    probe: bool,
}

/// What an end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// The breaker opened.
    Opened,
    /// It closed.
    Closed,
}

/// The breaker of one server. All times are of one clock that never jumps.
#[derive(Debug, Clone)]
pub struct Breaker {
    standing: Standing,
    /// Counts the times that the breaker opened or closed; a ticket of another era says nothing.
    era: u64,
    /// Ends of each part of the window: all, and failures.
    slices: [(u32, u32); SLICES],
    /// The number of the latest part, counted from the clock's start.
    latest: u128,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { standing: Standing::Closed, era: 0, slices: [(0, 0); SLICES], latest: 0 }
    }
}

impl Breaker {
    /// What may be seen.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether [`begin`](Self::begin) would grant a permit.
    pub fn is_usable(&self, now: Duration) -> bool {
        match self.standing {
            Standing::Closed => true,
            Standing::Open { until } => now >= until,
            Standing::HalfOpen => false,
        }
    }

    /// Asks to send a request. After the breaker was open long enough, the first who asks finds out for all.
    pub fn begin(&mut self, now: Duration) -> Permit {
        match self.standing {
            Standing::Closed => Permit::Granted(Ticket { era: self.era, probe: false }),
            Standing::Open { until } if now < until => Permit::Refused(Some(until)),
            Standing::Open { .. } => {
                self.standing = Standing::HalfOpen;
                Permit::Granted(Ticket { era: self.era, probe: true })
            }
            Standing::HalfOpen => Permit::Refused(None),
        }
    }

    /// A request ended. `asked` is the time that the server asked to be left alone, if it did.
    pub fn record(
        &mut self,
        rules: &BreakerRules,
        ticket: Ticket,
        failed: bool,
        (asked, now): (Option<Duration>, Duration),
    ) -> Turn {
        if ticket.era != self.era {
            return Turn::None;
        }
        if ticket.probe {
            if failed {
                self.open(rules, asked, now);
                return Turn::None;
            }
            self.standing = Standing::Closed;
            self.next_era();
            return Turn::Closed;
        }
        self.count(rules, failed, now);
        if failed && self.is_too_much(rules.trip) {
            self.open(rules, asked, now);
            return Turn::Opened;
        }
        Turn::None
    }

    /// A request was given up by who asked for it, which says nothing of the server.
    pub fn abandon(&mut self, ticket: Ticket, now: Duration) {
        if ticket.probe && ticket.era == self.era {
            // The next one finds out, at once.
            self.standing = Standing::Open { until: now };
        }
    }

    fn open(&mut self, rules: &BreakerRules, asked: Option<Duration>, now: Duration) {
        let asked = asked.filter(|_| rules.honour_retry_after);
        self.standing = Standing::Open { until: now.saturating_add(asked.unwrap_or(rules.open)) };
        self.next_era();
    }

    fn next_era(&mut self) {
        self.era = self.era.wrapping_add(1);
        self.slices = [(0, 0); SLICES];
    }

    fn count(&mut self, rules: &BreakerRules, failed: bool, now: Duration) {
        let slice = (rules.window.as_nanos() / u128::from(SLICES as u64)).max(1);
        let latest = now.as_nanos() / slice;
        let passed = latest.saturating_sub(self.latest);
        let slot = |number: u128| usize::try_from(number % u128::from(SLICES as u64)).unwrap_or_default();
        for number in 0..passed.min(u128::from(SLICES as u64)) {
            if let Some(old) = self.slices.get_mut(slot(latest.saturating_sub(number))) {
                *old = (0, 0);
            }
        }
        self.latest = self.latest.max(latest);
        if let Some((all, failures)) = self.slices.get_mut(slot(self.latest)) {
            *all = all.saturating_add(1);
            *failures = failures.saturating_add(u32::from(failed));
        }
    }

    fn is_too_much(&self, trip: Trip) -> bool {
        let sum = |of: fn(&(u32, u32)) -> u32| self.slices.iter().map(|slice| u64::from(of(slice))).sum();
        let (all, failures): (u64, u64) = (sum(|slice| slice.0), sum(|slice| slice.1));
        match trip {
            Trip::Count(count) => failures >= u64::from(count),
            Trip::Percentage { percent, minimum } => {
                all >= u64::from(minimum) && failures * 100 >= all * u64::from(percent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: BreakerRules = BreakerRules {
        trip: Trip::Count(3),
        window: Duration::from_secs(10),
        open: Duration::from_secs(30),
        honour_retry_after: true,
    };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ticket(breaker: &mut Breaker, now: Duration) -> Ticket {
        match breaker.begin(now) {
            Permit::Granted(ticket) => ticket,
            refused @ Permit::Refused(_) => panic!("{refused:?}"),
        }
    }

    fn end(breaker: &mut Breaker, rules: &BreakerRules, failed: bool, now: Duration) -> Turn {
        let ticket = ticket(breaker, now);
        breaker.record(rules, ticket, failed, (None, now))
    }

    fn opened(rules: &BreakerRules) -> Breaker {
        let mut breaker = Breaker::default();
        let turns: Vec<_> = (0..3).map(|_| end(&mut breaker, rules, true, s(1))).collect();
        assert_eq!(turns, [Turn::None, Turn::None, Turn::Opened]);
        breaker
    }

    #[test]
    fn so_many_failures_within_the_window_open_it() {
        let mut breaker = opened(&RULES);
        assert_eq!(breaker.standing(), Standing::Open { until: s(31) });
        assert_eq!(breaker.begin(s(30)), Permit::Refused(Some(s(31))));
        assert!(!breaker.is_usable(s(30)) && breaker.is_usable(s(31)));
    }

    #[test]
    fn failures_that_are_older_than_the_window_do_not_count() {
        let mut breaker = Breaker::default();
        for at in [0, 6, 12, 18, 24, 30, 1_000, 1_009, 1_011] {
            assert_eq!(end(&mut breaker, &RULES, true, s(at)), Turn::None, "{at}");
        }
        // Successes in between change nothing of a count.
        assert_eq!(end(&mut breaker, &RULES, false, s(1_012)), Turn::None);
        assert_eq!(end(&mut breaker, &RULES, true, s(1_013)), Turn::Opened);
    }

    #[test]
    fn a_share_of_failures_counts_only_of_enough_requests() {
        let rules = BreakerRules { trip: Trip::Percentage { percent: 50, minimum: 10 }, ..RULES };
        let mut breaker = Breaker::default();
        for n in 0..9 {
            assert_eq!(end(&mut breaker, &rules, n % 2 == 0, s(1)), Turn::None);
        }
        assert_eq!(end(&mut breaker, &rules, true, s(1)), Turn::Opened);
        let mut breaker = Breaker::default();
        for n in 0..200 {
            assert_eq!(end(&mut breaker, &rules, n % 3 == 2, s(1)), Turn::None);
        }
    }

    #[test]
    fn after_its_time_one_request_finds_out_for_all() {
        let mut breaker = opened(&RULES);
        let probe = ticket(&mut breaker, s(31));
        assert_eq!(breaker.standing(), Standing::HalfOpen);
        assert_eq!(breaker.begin(s(32)), Permit::Refused(None));
        assert_eq!(breaker.record(&RULES, probe, true, (None, s(33))), Turn::None);
        assert_eq!(breaker.standing(), Standing::Open { until: s(63) });
        let probe = ticket(&mut breaker, s(63));
        assert_eq!(breaker.record(&RULES, probe, false, (None, s(64))), Turn::Closed);
        // It starts with a clean slate.
        assert_eq!(end(&mut breaker, &RULES, true, s(64)), Turn::None);
        assert_eq!(breaker.standing(), Standing::Closed);
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_its_place_to_the_next_one() {
        let mut breaker = opened(&RULES);
        let probe = ticket(&mut breaker, s(40));
        breaker.abandon(probe, s(41));
        let next = ticket(&mut breaker, s(41));
        // The first one's end comes too late to mean anything.
        breaker.abandon(probe, s(42));
        assert_eq!(breaker.record(&RULES, next, false, (None, s(43))), Turn::Closed);
        breaker.abandon(next, s(44));
        assert_eq!(breaker.standing(), Standing::Closed);
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing() {
        let mut breaker = Breaker::default();
        let early = ticket(&mut breaker, s(0));
        for _ in 0..3 {
            end(&mut breaker, &RULES, true, s(1));
        }
        assert_eq!(breaker.record(&RULES, early, false, (None, s(2))), Turn::None);
        assert_eq!(breaker.record(&RULES, early, true, (Some(s(500)), s(2))), Turn::None);
        assert_eq!(breaker.standing(), Standing::Open { until: s(31) });
    }

    #[test]
    fn a_server_that_asks_for_a_time_gets_it_where_that_is_honoured() {
        for (honour_retry_after, until) in [(true, s(121)), (false, s(31))] {
            let rules = BreakerRules { trip: Trip::Count(1), honour_retry_after, ..RULES };
            let mut breaker = Breaker::default();
            let ticket = ticket(&mut breaker, s(1));
            breaker.record(&rules, ticket, true, (Some(s(120)), s(1)));
            assert_eq!(breaker.standing(), Standing::Open { until });
        }
    }

    proptest! {
        /// Whatever happens in whatever order, an open breaker lets nothing through, and never more than one probe.
        #[test]
        fn an_open_breaker_lets_nothing_through_and_one_probe_at_a_time(
            steps in proptest::collection::vec((0..4_u8, 0..5_000_u64, any::<usize>()), 1..200),
        ) {
            let mut breaker = Breaker::default();
            let mut under_way: Vec<Ticket> = Vec::new();
            let mut now = Duration::ZERO;
            for (step, wait, which) in steps {
                now += Duration::from_millis(wait);
                if step <= 1 {
                    let (before, usable) = (breaker.standing(), breaker.is_usable(now));
                    match breaker.begin(now) {
                        Permit::Granted(ticket) => {
                            prop_assert!(usable);
                            let probes = under_way.iter().filter(|t| t.probe && t.era == ticket.era).count();
                            prop_assert!(!ticket.probe || probes == 0);
                            under_way.push(ticket);
                        }
                        Permit::Refused(until) => {
                            prop_assert!(!usable);
                            prop_assert_ne!(before, Standing::Closed);
                            prop_assert!(until.is_none_or(|until| until > now));
                        }
                    }
                } else if !under_way.is_empty() {
                    let ticket = under_way.swap_remove(which % under_way.len());
                    if step == 2 {
                        breaker.record(&RULES, ticket, which % 3 != 0, (None, now));
                    } else {
                        breaker.abandon(ticket, now);
                    }
                }
            }
        }
    }
}
