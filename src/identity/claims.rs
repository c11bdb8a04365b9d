//! Stands between what a token claims and what an issuer and a product ask of it. Pure: the time is passed in.
//! Invariant: a claim that has a meaning here has exactly one type and one reading, or the token is refused
//! (RFC 7519, section 4.1).

use std::fmt;
use std::time::Duration;

use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::model::time::Timestamp;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Seconds since the epoch at the beginning of the year 2200. What is later is a mistake or a trick.
const LATEST: u64 = 7_258_118_400;
/// Milliseconds of a second.
const MILLIS: f64 = 1_000.0;

/// What an issuer's tokens must claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whom a token must be for: one of these. Never empty, as whoever checks no audience accepts tokens that were
    /// given to others.
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub skew: Duration,
    /// For how long a token may be valid, from `iat` to `exp`; `iat` is required when this is set.
    pub max_lifetime: Option<Duration>,
    /// The claim that names the caller's tenant; without it a token has none.
    pub tenant_claim: Option<String>,
}

/// The claims of a token. They are shown to nobody by accident.
#[derive(Clone, PartialEq, Default)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Wraps claims that were read.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// A claim by its name, or, when that begins with `/`, by its place in nested objects (RFC 6901).
    pub fn get(&self, claim: &str) -> Option<&Value> {
        let Some(path) = claim.strip_prefix('/') else { return self.0.get(claim) };
        let mut steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
        let first = self.0.get(&steps.next()?)?;
        steps.try_fold(first, |value, step| value.as_object()?.get(&step))
    }

    /// A claim that is a text.
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.get(claim)?.as_str()
    }

    /// All of them.
    pub fn all(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} claims", self.0.len())
    }
}

/// What follows from claims that are in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The first moment at which the token is refused.
    pub(super) until: Timestamp,
    pub(super) tenant: Option<TenantId>,
    pub(super) subject: Option<String>,
}

/// The issuer that a token names; exactly one text.
pub(super) fn issuer(claims: &Map<String, Value>) -> Result<&str, Refusal> {
    match claims.get("iss") {
        Some(Value::String(issuer)) if !issuer.is_empty() => Ok(issuer),
        Some(_) | None => Err(Refusal::Issuer),
    }
}

/// Checks times, audience and tenant.
pub(super) fn check(claims: &Claims, rules: &Rules, now: Timestamp) -> Result<Accepted, Refusal> {
    let until = check_times(claims, rules, now)?;
    check_audience(claims, &rules.audience)?;
    let subject = match claims.all().get("sub") {
        None => None,
        Some(Value::String(subject)) => Some(subject.clone()),
        Some(_) => return Err(Refusal::Claims),
    };
    let tenant = match &rules.tenant_claim {
        None => None,
        Some(claim) => {
            let name = claims.text(claim).ok_or(Refusal::Tenant)?;
            Some(TenantId::new(name).map_err(|_| Refusal::Tenant)?)
        }
    };
    Ok(Accepted { until, tenant, subject })
}

/// Checks `exp`, `nbf` and `iat`, and returns the moment from which on the token is refused.
fn check_times(claims: &Claims, rules: &Rules, now: Timestamp) -> Result<Timestamp, Refusal> {
    let expires = time(claims, "exp", f64::floor)?.ok_or(Refusal::Expired)?;
    let until = expires.after(rules.skew);
    if until <= now {
        return Err(Refusal::Expired);
    }
    let latest = now.after(rules.skew);
    let issued = time(claims, "iat", f64::ceil)?;
    if time(claims, "nbf", f64::ceil)?.is_some_and(|begins| begins > latest) {
        return Err(Refusal::NotYet);
    }
    if issued.is_some_and(|issued| issued > latest) {
        return Err(Refusal::NotYet);
    }
    if let Some(longest) = rules.max_lifetime {
        let issued = issued.ok_or(Refusal::Lifetime)?;
        if expires.since(issued) > longest {
            return Err(Refusal::Lifetime);
        }
    }
    Ok(until)
}

/// A numeric date (RFC 7519, section 2): seconds, perhaps with a fraction, rounded to the stricter side.
fn time(claims: &Claims, claim: &str, round: fn(f64) -> f64) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = claims.all().get(claim) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        let is_sane = seconds <= LATEST;
        return if is_sane { Ok(Some(Timestamp(seconds * 1_000))) } else { Err(Refusal::Claims) };
    }
    let seconds = value.as_f64().ok_or(Refusal::Claims)?;
    // Written as it is so that what is not a number is refused, too.
    let is_sane = seconds >= 0.0 && seconds <= LATEST as f64;
    if !is_sane {
        return Err(Refusal::Claims);
    }
    // It lies between zero and the limit, and is rounded.
    let millis = round(seconds * MILLIS) as u64;
    Ok(Some(Timestamp(millis)))
}

/// Checks `aud`: one text, or a list of nothing but texts (RFC 7519, section 4.1.3).
fn check_audience(claims: &Claims, wanted: &[String]) -> Result<(), Refusal> {
    let is_wanted = |audience: &str| wanted.iter().any(|wanted| wanted == audience);
    let fits = match claims.all().get("aud") {
        Some(Value::String(audience)) => is_wanted(audience),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            texts.ok_or(Refusal::Audience)?.into_iter().any(is_wanted)
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
    };
    if fits { Ok(()) } else { Err(Refusal::Audience) }
}

/// A claim that a product asks for, as in `claims: { roles: { any: [ops] } }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Requirement {
    /// The claim, by its name or its place; see [`Claims::get`].
    pub claim: String,
    /// What it must hold.
    pub wanted: Wanted,
    /// What stands between several values that are written as one text, as in `scope`.
    pub separator: Option<char>,
}

/// What a required claim must hold. Values are compared as JSON: the text `1` is not the number 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// At least one of these values; a claim that is no list is one value.
    Any(Vec<Value>),
    /// Each of these values, and perhaps others.
    All(Vec<Value>),
    /// Exactly this value, in a list with nothing else if it is a list.
    Equals(Value),
}

impl Requirement {
    /// Whether the claims meet it. An empty list of wanted values is met by nobody.
    pub fn is_met(&self, claims: &Claims) -> bool {
        let Some(value) = claims.get(&self.claim) else { return false };
        let values = match (value, self.separator) {
            (Value::Array(list), _) => list.clone(),
            (Value::String(text), Some(separator)) => {
                text.split(separator).filter(|part| !part.is_empty()).map(Value::from).collect()
            }
            (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_), _) => {
                vec![value.clone()]
            }
        };
        match &self.wanted {
            Wanted::Any(wanted) => wanted.iter().any(|wanted| values.contains(wanted)),
            Wanted::All(wanted) => !wanted.is_empty() && wanted.iter().all(|wanted| values.contains(wanted)),
            Wanted::Equals(wanted) => wanted == value,
        }
    }
}

/// Checks what a product asks of a caller.
///
/// # Errors
/// [`Refusal::Requirement`] when one of them is not met.
pub fn require(claims: &Claims, requirements: &[Requirement]) -> Result<(), Refusal> {
    if requirements.iter().all(|requirement| requirement.is_met(claims)) {
        Ok(())
    } else {
        Err(Refusal::Requirement)
    }
}
