//! Several limits of one call, decided together: product, API, operation and tenant each may have theirs.
//!
//! Stands between a call and the counters of [`window`](super::window) and [`rate`](super::rate). Invariants: a call
//! that one limit refuses is counted by none; whoever waits as long as is told has waited long enough for all of
//! them; and each limit has its own bounded memory, so that keys which callers invent push nobody out of another.
//!
//! The limits are asked one after the other, each under its own lock only, and what was taken is put back when one
//! refuses. In the instant between a call of another thread may be refused for what is put back; it is never let
//! through for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::rate::{Admission, Rate, Ticks, TokenBuckets};
use super::window::{Receipt, Windows};
use crate::model::ids::{Name, TenantId};

/// Longest key that is kept as it is, in bytes. Of a longer one its hash is kept.
const LONGEST_KEY: usize = 64;

/// How calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Never more than the rate in any period, whenever it begins.
    Sliding,
    /// Tokens that come evenly. A caller who was silent may make nearly twice its calls in the first period.
    TokenBucket,
}

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum By {
    /// Those of one caller: of its grant if it has a key, else of the one whom its token is about, else of its address.
    Caller,
    /// Those of one grant, which has one or two keys. A call without one is not limited.
    ApiKey,
    /// Those of one tenant. A call of nobody is not limited.
    Tenant,
    /// Those of one address, an IPv6 network of 64 bits being one.
    Address,
    /// Those with the same value of a header field. All calls without it are counted together, so that leaving it out
    /// escapes nothing.
    Header(Name),
    /// Those with the same value of a token's claim; without it as for a header field.
    Claim(Name),
    /// All.
    Everybody,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What its counters go by, over changes of everything else, and what it is called in header fields.
    pub name: Name,
    /// How often.
    pub rate: Rate,
    /// How calls are counted.
    pub algorithm: Algorithm,
    /// Whose calls are counted together.
    pub by: By,
}

/// What is known of a call.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The grant that its API key belongs to.
    pub grant: Option<&'a Name>,
    /// Who pays.
    pub tenant: Option<&'a TenantId>,
    /// The client's address, as far as the proxies before us are trusted.
    pub address: IpAddr,
    /// The value of a header field.
    pub header: &'a dyn Fn(&str) -> Option<Cow<'a, str>>,
    /// The value of a claim of its token, as text.
    pub claim: &'a dyn Fn(&str) -> Option<Cow<'a, str>>,
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("tenant", &self.tenant)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Facts<'_> {
    /// A caller without a key.
    fn stranger(&self) -> Name {
        let tenant = self.tenant.map(TenantId::as_str).unwrap_or_default();
        match (self.claim)("sub") {
            Some(subject) => bounded(&format!("{tenant}\0{subject}")),
            None => network(self.address).to_string().into(),
        }
    }
}

impl By {
    /// The header field that calls are counted by, if it is one.
    pub fn header(&self) -> Option<&Name> {
        match self {
            Self::Header(name) => Some(name),
            Self::Caller | Self::ApiKey | Self::Tenant | Self::Address | Self::Claim(_) | Self::Everybody => {
                None
            }
        }
    }

    /// The claim that calls are counted by, if it is one.
    pub fn claim(&self) -> Option<&Name> {
        match self {
            Self::Claim(name) => Some(name),
            Self::Caller
            | Self::ApiKey
            | Self::Tenant
            | Self::Address
            | Self::Header(_)
            | Self::Everybody => None,
        }
    }

    /// The key under which a call is counted, or `None` when it is not.
    pub fn key(&self, facts: &Facts<'_>) -> Option<Name> {
        let valued = |value: Option<Cow<'_, str>>| value.map_or_else(|| "".into(), |value| bounded(&value));
        match self {
            Self::Caller => Some(facts.grant.cloned().unwrap_or_else(|| facts.stranger())),
            Self::ApiKey => facts.grant.cloned(),
            Self::Tenant => facts.tenant.map(|tenant| tenant.as_str().into()),
            Self::Address => Some(network(facts.address).to_string().into()),
            Self::Header(name) => Some(valued((facts.header)(name))),
            Self::Claim(name) => Some(valued((facts.claim)(name))),
            Self::Everybody => Some("".into()),
        }
    }
}

fn bounded(value: &str) -> Name {
    if value.len() <= LONGEST_KEY {
        return value.into();
    }
    let hash = Sha256::digest(value.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Whom an address stands for: an IPv6 customer has a whole /64 (RFC 6177), so it counts as one.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

enum Counters {
    Sliding(Arc<Windows>),
    Buckets(Arc<TokenBuckets>),
}

/// A limit and its counters.
pub struct Limiter {
    limit: Limit,
    counters: Counters,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("limit", &self.limit).field("keys", &self.keys()).finish()
    }
}

/// What was taken of one limit.
#[derive(Debug)]
enum Taken {
    Nothing,
    Window(Receipt),
    Tokens(NonZeroU32),
}

impl Limiter {
    /// The limit.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Number of keys that are counted apart.
    pub fn keys(&self) -> usize {
        match &self.counters {
            Counters::Sliding(windows) => windows.len(),
            Counters::Buckets(buckets) => buckets.len(),
        }
    }

    /// Forgets the keys whose counters say nothing any more; for housekeeping.
    pub fn sweep(&self, now: Duration) {
        match &self.counters {
            Counters::Sliding(windows) => windows.sweep(now),
            Counters::Buckets(buckets) => buckets.sweep(),
        }
    }

    /// A limiter of `limit` that goes on counting where `before` is, as far as it counts the same.
    fn new(limit: Limit, max_keys: usize, ticks: &Ticks, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.limit.by == limit.by);
        let counters = match (limit.algorithm, before.map(|before| &before.counters)) {
            // A window does not know its rate; a bucket is made for one.
            (Algorithm::Sliding, Some(Counters::Sliding(windows))) => Counters::Sliding(windows.clone()),
            (Algorithm::TokenBucket, Some(Counters::Buckets(buckets))) if buckets.rate() == limit.rate => {
                Counters::Buckets(buckets.clone())
            }
            (Algorithm::Sliding, _) => Counters::Sliding(Arc::new(Windows::new(max_keys))),
            (Algorithm::TokenBucket, _) => {
                Counters::Buckets(Arc::new(TokenBuckets::new(limit.rate, max_keys, ticks.clone())))
            }
        };
        Self { limit, counters }
    }

    fn take(&self, key: &Name, cost: NonZeroU32, now: Duration) -> (Admission, Taken) {
        match &self.counters {
            Counters::Sliding(windows) => {
                let (admission, receipt) = windows.take(key, self.limit.rate, cost.get(), now);
                (admission, receipt.map_or(Taken::Nothing, Taken::Window))
            }
            Counters::Buckets(buckets) => {
                let admission = buckets.check_many(key, cost);
                let taken = if admission.allowed { Taken::Tokens(cost) } else { Taken::Nothing };
                (admission, taken)
            }
        }
    }

    fn give_back(&self, key: &Name, taken: &Taken) {
        match (&self.counters, taken) {
            (Counters::Sliding(windows), Taken::Window(receipt)) => windows.give_back(key, *receipt),
            (Counters::Buckets(buckets), Taken::Tokens(tokens)) => buckets.give_back(key, *tokens),
            (Counters::Sliding(_), Taken::Nothing | Taken::Tokens(_))
            | (Counters::Buckets(_), Taken::Nothing | Taken::Window(_)) => {}
        }
    }
}

/// All limits of one state of the configuration, by name.
#[derive(Debug, Default)]
pub struct Limiters(BTreeMap<Name, Arc<Limiter>>);

impl Limiters {
    /// Counters for these limits, of at most `max_keys` keys each. A limit that `before` had too goes on counting:
    /// a sliding one whatever its rate is now, a token bucket while its rate is the same. Of two limits with one
    /// name the last counts; whoever reads the configuration refuses that.
    pub fn new(
        limits: impl IntoIterator<Item = Limit>,
        max_keys: usize,
        ticks: &Ticks,
        before: Option<&Self>,
    ) -> Self {
        let limiter = |limit: Limit| {
            let before = before.and_then(|before| before.get(&limit.name)).map(|limiter| &**limiter);
            (limit.name.clone(), Arc::new(Limiter::new(limit, max_keys, ticks, before)))
        };
        Self(limits.into_iter().map(limiter).collect())
    }

    /// The limit of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Limiter>> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        self.0.values()
    }
}

/// What one limit says to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The limit.
    pub limit: Name,
    /// How often.
    pub rate: Rate,
    /// What is left of it.
    pub admission: Admission,
}

/// A call that no limit refuses. It is counted unless it is given back: because something else refused it, or because
/// its answer is one that does not count.
#[derive(Debug)]
#[must_use = "what is not given back stays counted"]
pub struct Granted {
    /// What each limit says.
    pub judged: Vec<Judged>,
    taken: Vec<(Arc<Limiter>, Name, Taken)>,
}

impl Granted {
    /// Uncounts the call.
    pub fn give_back(self) {
        give_back(&self.taken);
    }
}

/// A call that some limits refuse. No limit has counted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// What each limit says; those that refuse have `allowed` unset.
    pub judged: Vec<Judged>,
    /// The longest time that one of them asks to wait.
    pub retry_after: Duration,
}

impl Exceeded {
    /// The limits that refuse.
    pub fn violated(&self) -> impl Iterator<Item = &Judged> {
        self.judged.iter().filter(|judged| !judged.admission.allowed)
    }
}

/// Counts a call that costs `cost` by all these limits, or by none. A limit that is named twice counts once.
///
/// `now` is of the clock that the [`Limiters`] were made with.
///
/// # Errors
/// [`Exceeded`] when at least one of them refuses.
pub fn decide(
    limiters: &[Arc<Limiter>],
    facts: &Facts<'_>,
    cost: NonZeroU32,
    now: Duration,
) -> Result<Granted, Exceeded> {
    let (mut judged, mut taken) = (Vec::with_capacity(limiters.len()), Vec::with_capacity(limiters.len()));
    let mut seen = BTreeSet::new();
    for limiter in limiters {
        if limiters.len() > 1 && !seen.insert(&limiter.limit.name) {
            continue;
        }
        let Some(key) = limiter.limit.by.key(facts) else { continue };
        let (admission, took) = limiter.take(&key, cost, now);
        judged.push(Judged { limit: limiter.limit.name.clone(), rate: limiter.limit.rate, admission });
        taken.push((limiter.clone(), key, took));
    }
    let refused = judged.iter().filter(|judged| !judged.admission.allowed);
    let Some(retry_after) = refused.map(|judged| judged.admission.retry_after).max() else {
        return Ok(Granted { judged, taken });
    };
    give_back(&taken);
    for judged in judged.iter_mut().filter(|judged| judged.admission.allowed) {
        let Admission { limit, remaining, .. } = &mut judged.admission;
        *remaining = remaining.saturating_add(cost.get()).min(*limit);
    }
    Err(Exceeded { judged, retry_after })
}

fn give_back(taken: &[(Arc<Limiter>, Name, Taken)]) {
    for (limiter, key, taken) in taken.iter().rev() {
        limiter.give_back(key, taken);
    }
}

/// Seconds, rounded up, and at least one: a caller that comes back earlier is refused again.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

/// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, section 3): every limit that was asked.
pub fn policy_text(judged: &[Judged]) -> String {
    let item = |judged: &Judged| {
        // A window is a whole number of seconds; a shorter one cannot be told.
        let window = match judged.rate.per() {
            per if per < Duration::from_secs(1) => String::new(),
            per => format!(";w={}", whole_seconds(per)),
        };
        format!("{};q={}{window}", quoted(&judged.limit), judged.rate.calls())
    };
    judged.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// The value of `RateLimit` (section 4 of the same draft). When the call was refused, only the limits that refused it
/// are told: `Retry-After` must not be earlier than a `t` that stands beside it.
pub fn left_text(judged: &[Judged]) -> String {
    let is_refused = judged.iter().any(|judged| !judged.admission.allowed);
    let told = judged.iter().filter(|judged| !is_refused || !judged.admission.allowed);
    let item = |judged: &Judged| {
        let Admission { remaining, reset, .. } = judged.admission;
        format!("{};r={remaining};t={}", quoted(&judged.limit), whole_seconds(reset))
    };
    told.map(item).collect::<Vec<_>>().join(", ")
}

/// A string of structured fields (RFC 9651, section 3.3.3).
fn quoted(name: &str) -> String {
    let legal = name.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    let escaped: String =
        legal.flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests;
