//! What the gateway is told.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use actix::Message;

use crate::kernel::permits::Permit;
use crate::kernel::shares::Share;
use crate::model::ids::{Name, TenantId};
use crate::policy::rate::{Admission, Rate};

/// Sender: `GatewayHandle`. Receiver: `Gateway`, on the same thread.
/// Reply: who calls and on what terms, or why not.
#[derive(Message)]
#[rtype(result = "Result<Admitted, Refused>")]
pub struct Admit {
    /// What is asked.
    pub call: Call,
    /// The place among the requests being worked on; goes on into [`Admitted`].
    pub permit: Permit,
}

/// One request, as far as admission is concerned.
#[derive(Debug)]
pub struct Call {
    /// The API key, as it stands in the request.
    pub credential: Option<Credential>,
    /// The caller's address.
    pub ip: IpAddr,
    /// The API that the request's route belongs to.
    pub api: Name,
}

/// What a caller sent as its key. Never printed.
#[derive(Clone)]
pub struct Credential(String);

impl Credential {
    /// Wraps the text of a header.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be parsed and hashed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A call that may go on. It holds its place among the requests being worked on until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// Who pays, and whose documents are meant in isolated containers.
    pub tenant: TenantId,
    /// What was bought.
    pub product: Name,
    /// The grant that the key belongs to.
    pub grant: Name,
    /// What the rate of the product says, where it has one.
    pub rate: Option<Rated>,
    /// The places that the call takes.
    pub place: Place,
}

/// A call's places among all requests and among its tenant's.
#[derive(Debug)]
pub struct Place {
    /// Among all.
    pub permit: Permit,
    /// Among the tenant's.
    pub share: Share,
}

/// What a product's rate says to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// The product, which names the policy.
    pub product: Name,
    /// The rate of each grant of the product.
    pub rate: Rate,
    /// What is left of it.
    pub admission: Admission,
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
    /// The product's rate is used up for now.
    #[error("the rate of calls is exceeded")]
    RateLimited(Rated),
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
    pub const REASONS: [&'static str; 8] = [
        "missing_key",
        "invalid_key",
        "expired_key",
        "revoked_key",
        "too_many_failures",
        "rate_limited",
        "overloaded",
        "crashed",
    ];

    /// The name of the reason in metrics.
    pub fn reason(&self) -> &'static str {
        let [missing, invalid, expired, revoked, failures, rate, overloaded, crashed] = Self::REASONS;
        match self {
            Self::MissingKey => missing,
            Self::InvalidKey => invalid,
            Self::ExpiredKey => expired,
            Self::RevokedKey => revoked,
            Self::TooManyFailures { .. } => failures,
            Self::RateLimited(_) => rate,
            Self::Overloaded { .. } => overloaded,
            Self::Crashed => crashed,
        }
    }
}
