//! Servers that stand in for each other, and what is known of them.
//!
//! Invariant: a server that is ill, or whose breaker is open, is sent nothing; what is known of it is known to all
//! worker threads at once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::upstream::{
    Breaker, Candidate, Ending, Permit, Standing, Ticket, Turn, Vitals, choose,
};

use super::definition::{Breaking, Definition, Limits, Place};
use super::dial::Target;
use super::metrics::BackendMetrics;
use super::pool::IdleLimits;
use super::wire::Head;
use crate::delivery::{Lookups, TlsProblem, TlsSettings, Trust, retry_after};

/// When to come back where nobody knows better.
const SOON: Duration = Duration::from_secs(1);
/// Numbers servers, over all generations of a manifest.
static SERVERS: AtomicU64 = AtomicU64::new(0);

/// What all backends share.
pub(super) struct Shared {
    pub(super) clock: SharedClock,
    pub(super) lookups: Lookups,
    pub(super) limits: Limits,
    /// The name of this gateway in `Via`.
    pub(super) gateway: String,
}

/// Servers that stand in for each other.
pub struct Backend {
    pub(super) name: Name,
    pub(super) definition: Definition,
    pub(super) members: Vec<Member>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: BackendMetrics,
    turn: AtomicU64,
}

/// One server.
pub(super) struct Member {
    /// Its number, for the connections that wait for it.
    pub(super) id: u64,
    pub(super) place: Place,
    pub(super) target: Target,
    /// The line `Host`, with the line end before it.
    pub(super) host_line: String,
    /// Whether probes say that it is well.
    well: AtomicBool,
    known: Mutex<Known>,
    /// Exchanges under way.
    pub(super) active: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    vitals: Vitals,
    last_failure: Option<String>,
}

/// What may be seen of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    /// Its URL.
    pub url: String,
    /// Its share among those of its priority.
    pub weight: u32,
    /// Its group.
    pub priority: u32,
    /// Whether probes say that it is well.
    pub healthy: bool,
    /// What its breaker does.
    pub breaker: Standing,
    /// Time until the breaker lets a request find out, while it is open.
    pub retry_in: Option<Duration>,
    /// Exchanges under way.
    pub active: usize,
    /// Why the last attempt failed that did.
    pub last_failure: Option<String>,
}

/// A server that is about to be asked. Given up when dropped without an end.
pub(super) struct Chosen<'b> {
    pub(super) member: &'b Member,
    pub(super) number: usize,
    backend: &'b Backend,
    ticket: Option<Ticket>,
}

impl Backend {
    pub(super) fn new(
        name: Name,
        definition: Definition,
        shared: Arc<Shared>,
        metrics: BackendMetrics,
        settings: impl Fn() -> Result<Arc<TlsSettings>, TlsProblem>,
    ) -> Result<Self, TlsProblem> {
        let trust = Trust { tls: definition.tls.clone(), also_host: false };
        let member = |place: &Place| {
            Ok(Member {
                id: SERVERS.fetch_add(1, Ordering::Relaxed),
                target: Target::new(place.address.clone(), &trust, &settings)?,
                host_line: format!(" HTTP/1.1\r\nhost: {}\r\n", place.address.authority()),
                place: place.clone(),
                well: AtomicBool::new(true),
                known: Mutex::default(),
                active: AtomicUsize::new(0),
            })
        };
        let members = definition.pool.iter().map(member).collect::<Result<_, TlsProblem>>()?;
        // Several gateways that start together shall not all begin with the same server.
        let turn = AtomicU64::new(fastrand::u64(..));
        Ok(Self { name, definition, members, shared, metrics, turn })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of this gateway in `Via`.
    pub fn gateway(&self) -> &str {
        &self.shared.gateway
    }

    /// Largest body of a request that it is sent.
    pub fn body_limit(&self) -> u64 {
        self.definition.body.unwrap_or(self.shared.limits.body)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.definition.timeout.unwrap_or(self.shared.limits.timeout)
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.definition.idle_timeout.unwrap_or(self.shared.limits.idle_timeout)
    }

    pub(super) fn idle_limits(&self) -> IdleLimits {
        let Limits { idle_connections, keep_alive, .. } = self.shared.limits;
        IdleLimits { connections: idle_connections, time: keep_alive }
    }

    /// What may be seen of its servers.
    pub fn members(&self) -> Vec<MemberState> {
        let now = self.shared.clock.elapsed();
        let state = |member: &Member| {
            let known = member.known();
            let standing = known.breaker.standing();
            let retry_in = match standing {
                Standing::Open { until } => Some(until.saturating_sub(now)),
                Standing::Closed | Standing::HalfOpen => None,
            };
            MemberState {
                url: member.place.address.to_string(),
                weight: member.place.weight,
                priority: member.place.priority,
                healthy: known.vitals.is_well(),
                breaker: standing,
                retry_in,
                active: member.active.load(Ordering::Relaxed),
                last_failure: known.last_failure.clone(),
            }
        };
        self.members.iter().map(state).collect()
    }

    /// Chooses a server that was not tried; `tried` has a bit for each. Otherwise says when to come back.
    pub(super) fn choose(&self, tried: u32) -> Result<Chosen<'_>, Duration> {
        let Definition { breaker, health, .. } = &self.definition;
        if let ([only], None, None, 0) = (self.members.as_slice(), breaker, health, tried) {
            return Ok(Chosen { member: only, number: 0, backend: self, ticket: None });
        }
        let now = self.shared.clock.elapsed();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut out = tried;
        for (number, member) in self.members.iter().enumerate() {
            if !member.is_usable(breaker.is_some(), now) {
                out |= bit(number);
            }
        }
        loop {
            let candidates = self.members.iter().enumerate().map(|(number, member)| Candidate {
                weight: member.place.weight,
                priority: member.place.priority,
                usable: out & bit(number) == 0,
            });
            let Some(number) = choose(candidates, turn) else { return Err(self.comes_back(now)) };
            let Some(member) = self.members.get(number) else { return Err(SOON) };
            if breaker.is_none() {
                return Ok(Chosen { member, number, backend: self, ticket: None });
            }
            match member.known().breaker.begin(now) {
                Permit::Granted(ticket) => {
                    return Ok(Chosen { member, number, backend: self, ticket: Some(ticket) });
                }
                // Another thread was faster.
                Permit::Refused(_) => out |= bit(number),
            }
        }
    }

    /// Whether there is a server that was not tried and may be asked.
    pub(super) fn has_other(&self, tried: u32) -> bool {
        let (breaks, now) = (self.definition.breaker.is_some(), self.shared.clock.elapsed());
        let mut members = self.members.iter().enumerate();
        members.any(|(number, member)| tried & bit(number) == 0 && member.is_usable(breaks, now))
    }

    /// The time until the first breaker lets a request through.
    fn comes_back(&self, now: Duration) -> Duration {
        let open = self.members.iter().filter_map(|member| match member.known().breaker.standing() {
            Standing::Open { until } => Some(until.saturating_sub(now)),
            Standing::Closed | Standing::HalfOpen => None,
        });
        open.min().unwrap_or(SOON).max(SOON)
    }

    /// Takes a probe of a server into account.
    pub(super) fn probed(&self, member: &Member, outcome: Result<(), String>) {
        let Some(health) = &self.definition.health else { return };
        let good = outcome.is_ok();
        let changed = {
            let mut known = member.known();
            if let Err(why) = outcome {
                known.last_failure = Some(why);
            }
            let changed = known.vitals.record(health.rules, good);
            member.well.store(known.vitals.is_well(), Ordering::Relaxed);
            changed
        };
        if changed {
            let (backend, server) = (&*self.name, &member.place.address);
            if good {
                tracing::info!(backend, %server, "server is well again");
            } else {
                tracing::warn!(backend, %server, "server is ill");
            }
        }
    }
}

impl Member {
    pub(super) fn known_failure(&self, why: String) {
        self.known().last_failure = Some(why);
    }

    fn is_usable(&self, breaks: bool, now: Duration) -> bool {
        self.well.load(Ordering::Relaxed) && (!breaks || self.known().breaker.is_usable(now))
    }

    /// Each change under the lock is one operation, so what it guards stays true under a panic elsewhere.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chosen<'_> {
    /// It ended. `head` is that of an answer, if there was one.
    pub(super) fn end(mut self, ending: Ending, head: Option<&Head>) {
        let Some(Breaking { rules, on }) = &self.backend.definition.breaker else { return };
        let Some(ticket) = self.ticket.take() else { return };
        let failed = on.has(ending);
        let clock = &self.backend.shared.clock;
        let asked = head.filter(|_| failed && rules.honour_retry_after).and_then(|head| {
            let value = str::from_utf8(head.field("retry-after")?).ok()?;
            retry_after(value, UNIX_EPOCH + Duration::from_millis(clock.now().0))
        });
        let turn = self.member.known().breaker.record(rules, ticket, failed, (asked, clock.elapsed()));
        let (backend, server) = (&*self.backend.name, &self.member.place.address);
        match turn {
            Turn::None => {}
            Turn::Opened => tracing::warn!(backend, %server, "breaker opened"),
            Turn::Closed => tracing::info!(backend, %server, "breaker closed"),
        }
    }
}

impl Drop for Chosen<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.backend.shared.clock.elapsed();
            self.member.known().breaker.abandon(ticket, now);
        }
    }
}

/// The bit of a server among those that were tried.
pub(super) fn bit(number: usize) -> u32 {
    u32::try_from(number).ok().and_then(|number| 1_u32.checked_shl(number)).unwrap_or_default()
}
