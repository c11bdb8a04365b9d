//! What is said of a backend: plain data, as the manifest gives it.

use std::time::Duration;

use lanekeeper_actors::model::delivery::EndpointTls;
use lanekeeper_actors::policy::upstream::{BreakerRules, Causes, HealthRules, RetryRules};

use super::address::Address;

/// Most servers of one backend.
pub const MEMBERS_MAX: usize = 30;

/// A backend: servers that stand in for each other, and how they are treated.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The servers, 1 to [`MEMBERS_MAX`].
    pub pool: Vec<Place>,
    /// Time for a connection and the head of an answer, if other than the default.
    pub timeout: Option<Duration>,
    /// Time without a piece of an answer's body, if other than the default.
    pub idle_timeout: Option<Duration>,
    /// Largest body of a request in bytes, if other than the default.
    pub body: Option<u64>,
    /// How a failed request is tried again, if it is.
    pub retry: Option<Retry>,
    /// When a server is left alone, if ever.
    pub breaker: Option<Breaking>,
    /// How a server is asked whether it is well, if it is.
    pub health: Option<Probing>,
    /// Whom to trust, and who to be.
    pub tls: EndpointTls,
}

/// One server of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub address: Address,
    /// Its share among those of its priority.
    pub weight: u32,
    /// Its group: 1 is asked first.
    pub priority: u32,
}

/// How a failed request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often, and when.
    pub rules: RetryRules,
    /// After what.
    pub on: Causes,
}

/// When a server is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaking {
    /// After how much, and for how long.
    pub rules: BreakerRules,
    /// What counts as a failure.
    pub on: Causes,
}

/// How a server is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probing {
    /// The path of the question, below the server's own; any answer of 200 to 399 says yes.
    pub path: String,
    /// Time between two questions.
    pub every: Duration,
    /// How many answers decide.
    pub rules: HealthRules,
}

impl Definition {
    /// One server, and every default.
    pub fn plain(address: Address) -> Self {
        Self {
            pool: vec![Place { address, weight: 1, priority: 1 }],
            timeout: None,
            idle_timeout: None,
            body: None,
            retry: None,
            breaker: None,
            health: None,
            tls: EndpointTls::default(),
        }
    }
}

/// What holds where a backend says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time for a connection and the head of an answer.
    pub timeout: Duration,
    /// Time for the connection, as a part of it.
    pub connect_timeout: Duration,
    /// Time without a piece of an answer's body.
    pub idle_timeout: Duration,
    /// Idle connections to one server that a worker keeps.
    pub idle_connections: usize,
    /// How long it keeps them.
    pub keep_alive: Duration,
    /// Bytes of a request's body that are held so that it can be sent again.
    pub buffer: usize,
    /// Largest body of a request.
    pub body: u64,
    /// Time for a caller to send so much of it.
    pub body_timeout: Duration,
}
