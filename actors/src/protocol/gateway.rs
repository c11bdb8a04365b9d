//! What the gateway is told.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;

use crate::kernel::entrance::{Entering, Place};
use crate::model::ids::{Name, TenantId};
use crate::policy::keys::{Grant, Standing};
use crate::policy::limits::{Exceeded, Granted, Judged};
use crate::policy::permits::Held;
use crate::policy::quota::Exhausted;
use crate::policy::terms::{Meter, Terms};

/// Sender: `GatewayHandle`. Receiver: `Gateway`, on the same thread.
/// Reply: on what terms the caller may come, or why not.
#[derive(Message)]
#[rtype(result = "Result<Door, Refused>")]
pub struct Identify(pub Call);

/// Sender: `GatewayHandle`. Receiver: `Gateway`, on the same thread.
/// Reply: what was counted for the call, or why it may not go on.
#[derive(Message)]
#[rtype(result = "Result<Counted, Refused>")]
pub struct Admit(pub Entry);

/// One request, as far as its key is concerned.
#[derive(Debug)]
pub struct Call {
    /// The API key, as it stands in the request.
    pub credential: Option<Credential>,
    /// The caller's address.
    pub ip: IpAddr,
    /// The API that the request's route belongs to.
    pub api: Name,
}

/// On what terms a caller may come.
#[derive(Debug, Clone)]
pub enum Door {
    /// On those of its key.
    Key(Arc<Terms>, Arc<Grant>),
    /// On one of these, without a key; at least one.
    Open(Vec<Arc<Terms>>),
}

/// A caller who is known, and what counts for its limits.
#[derive(Debug)]
pub struct Entry {
    /// On what terms.
    pub terms: Arc<Terms>,
    /// The grant of its key, if it has one.
    pub grant: Option<Arc<Grant>>,
    /// Whose call it is.
    pub tenant: TenantId,
    /// The API.
    pub api: Name,
    /// The operation of the API.
    pub operation: Name,
    /// The caller's address.
    pub ip: IpAddr,
    /// The header fields that limits go by, with their values.
    pub headers: Vec<(Name, String)>,
    /// The claims that limits go by, with their values.
    pub claims: Vec<(Name, String)>,
    /// Bytes of the body, as far as they are known.
    pub bytes: u64,
}

/// Characters of a key by which failures are counted.
const PREFIX: usize = 8;

/// What a caller sent as its key. Never printed.
#[derive(Clone)]
pub struct Credential {
    text: String,
    /// Whether it stood in the query.
    pub in_query: bool,
}

impl Credential {
    /// Wraps the text of a header.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), in_query: false }
    }

    /// Wraps the text of a parameter of the query.
    pub fn of_query(text: impl Into<String>) -> Self {
        Self { text: text.into(), in_query: true }
    }

    /// The text, to be parsed and hashed.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// How it begins, as far as that is no secret.
    pub fn prefix(&self) -> Option<&str> {
        (self.text.len() >= PREFIX * 4).then(|| self.text.get(..PREFIX)).flatten()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A call that nothing refuses, as soon as it has its place.
#[derive(Debug)]
pub struct Counted {
    /// Who called.
    pub entry: Entry,
    /// What the limits counted.
    pub granted: Granted,
    /// What the quotas counted.
    pub meter: Meter,
    /// The place among its tenant's, where its product limits them.
    pub held: Option<Held>,
    /// The way to its place.
    pub entering: Entering,
}

/// A call that may go on. It holds its places until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// Who pays, and whose documents are meant in isolated containers.
    pub tenant: TenantId,
    /// What was bought, unless the call is on the terms of no product.
    pub product: Option<Name>,
    /// The grant that the key belongs to, if there is a key.
    pub grant: Option<Name>,
    /// What each limit says.
    pub judged: Vec<Judged>,
    /// Where the bytes of the answer are counted.
    pub meter: Meter,
    /// The place among all calls.
    pub place: Place,
    /// The place among its tenant's, where its product limits them.
    pub held: Option<Held>,
}

/// Why a call may not go on. It has cost nothing of the caller's rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key at all.
    #[error("the request has no api key")]
    MissingKey,
    /// Not a key, a key of nobody, or one of a product without this API: one answer for all three.
    #[error("the api key is not valid for this api")]
    InvalidKey,
    /// The grant's time is over.
    #[error("the api key has expired")]
    ExpiredKey,
    /// The grant was revoked.
    #[error("the api key was revoked")]
    RevokedKey,
    /// Too many refused keys came from this address; this one was not looked at.
    #[error("too many refused api keys from this address")]
    TooManyFailures {
        /// Time until the next one is looked at.
        retry_after: Duration,
    },
    /// The grant waits for an approval, was rejected or is suspended.
    #[error("the api key is {}", .0.word())]
    InactiveKey(Standing),
    /// A limit is reached for now.
    #[error("the rate of calls is exceeded")]
    RateLimited(Exceeded),
    /// Nothing is left of a quota.
    #[error("{exhausted}")]
    QuotaExhausted {
        /// The quota.
        quota: Name,
        /// What there is no more of.
        exhausted: Exhausted,
    },
    /// The tenant has as many calls under way as its product allows.
    #[error("{0} calls of this tenant are being worked on, which is the most that its product allows")]
    TooManyAtOnce(usize),
    /// The token was refused, or there is none.
    #[error("the token is refused")]
    Token,
    /// Too many requests are being worked on, altogether or for this tenant.
    #[error("too many requests are being worked on")]
    Overloaded {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// This very call made the admission panic.
    #[error("the admission crashed")]
    Crashed,
}

impl Refused {
    /// Every reason, for counters.
    pub const REASONS: [&'static str; 12] = [
        "missing_key",
        "invalid_key",
        "expired_key",
        "revoked_key",
        "inactive_key",
        "token",
        "too_many_failures",
        "rate_limited",
        "quota_exceeded",
        "too_many_at_once",
        "overloaded",
        "crashed",
    ];

    /// The name of the reason in metrics.
    pub fn reason(&self) -> &'static str {
        let [missing, invalid, expired, revoked, inactive, token, rest @ ..] = Self::REASONS;
        let [failures, rate, quota, at_once, overloaded, crashed] = rest;
        match self {
            Self::MissingKey => missing,
            Self::InvalidKey => invalid,
            Self::ExpiredKey => expired,
            Self::RevokedKey => revoked,
            Self::InactiveKey(_) => inactive,
            Self::Token => token,
            Self::TooManyFailures { .. } => failures,
            Self::RateLimited(_) => rate,
            Self::QuotaExhausted { .. } => quota,
            Self::TooManyAtOnce(_) => at_once,
            Self::Overloaded { .. } => overloaded,
            Self::Crashed => crashed,
        }
    }
}
