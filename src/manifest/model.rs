//! What a manifest says, after it was checked: the shape that the rest of the process is built from.
//!
//! Invariant: a value of these types refers only to things that exist in the same [`Manifest`], and every
//! number lies within the bounds that the manifest's documentation gives.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use lanekeeper_actors::policy::throughput::Throughput;
use lanekeeper_actors::policy::ttl::ContainerTtl;

use crate::audit;
use crate::identity::Identity;

mod apis;
mod backends;
mod callers;
mod events;
mod webhooks;

pub use lanekeeper_actors::model::secret::Secret;

use crate::delivery::Cidr;
use crate::edge::Paths;
use crate::edge::client::ClientHeader;
use crate::edge::lock::OriginLock;
use crate::edge::tls::TlsFiles;

pub use self::apis::{
    Action, Api, DocumentAt, ErrorStyle, Idempotency, Method, Mock, Operation, Parameter, ParameterType,
    PathTemplate, PathVersion, Segment, Target, Template,
};
pub use self::backends::{Backend, Piece, Upstream, UpstreamTo};
pub use self::callers::{ApiKey, JwtRule, Product};
pub use self::events::{
    ChangeTypes, Destination, EventSubscription, QueueAction, Retry, SubjectFilter, Topic, TopicSource,
    Webhook,
};
pub use self::webhooks::{HandshakeRule, WebhookAction, WebhookRules};

/// The whole configuration of a process. Maps are keyed by name: 1 to 63 of `A-Z a-z 0-9 _ -`, the first a
/// letter or digit.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name of the project.
    pub project: String,
    /// The process and its listeners; a change needs a restart.
    pub server: Server,
    /// What is asked of every request to the gateway.
    pub edge: Edge,
    /// Every bound of the process.
    pub limits: Limits,
    /// What is recorded of those who change and call; a change needs a restart.
    pub audit: audit::Settings,
    /// Where documents live.
    pub containers: BTreeMap<String, Container>,
    /// Where events come from.
    pub topics: BTreeMap<String, Topic>,
    /// Where events go.
    pub event_subscriptions: BTreeMap<String, EventSubscription>,
    /// Whose tokens are accepted.
    pub identities: BTreeMap<String, Identity>,
    /// Servers behind the gateway.
    pub backends: BTreeMap<String, Backend>,
    /// What callers may ask for.
    pub apis: BTreeMap<String, Api>,
    /// What callers are sold.
    pub products: BTreeMap<String, Product>,
    /// Keys that exist from the start.
    pub api_keys: BTreeMap<String, ApiKey>,
}

/// The process and its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Public addresses of the gateway; at least one.
    pub listen: Vec<Listener>,
    /// Private address of the admin API; a loopback address, unless it has TLS. Port 0 picks a free one.
    pub admin: Listener,
    /// Where callers and endpoints reach the gateway, if anybody said: an absolute URL without query.
    pub public_url: Option<String>,
    /// Data directory, as written: a relative path starts at the working directory.
    pub data: PathBuf,
    /// Number of physical shards, 1 to 64; fixed when the data directory is made.
    pub shards: usize,
    /// Whether somebody wrote that number: an existing directory with another one is then refused.
    pub shards_given: bool,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 picks a free one.
    pub addr: SocketAddr,
    /// With these files it speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// What is asked of every request to the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    /// Peers whose word about addresses counts.
    pub trusted_proxies: Vec<Cidr>,
    /// The header in which they say it.
    pub client_address: ClientHeader,
    /// What a request must have to be looked at; all of it.
    pub origin_lock: Vec<OriginLock>,
    /// How much a path may leave to its reader.
    pub paths: Paths,
}

/// Every bound of the process. `config/default.yaml` gives the meaning and the reason of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest document and largest request body, in bytes.
    pub body: u64,
    /// Deepest nesting of a JSON body.
    pub json_depth: usize,
    /// Most bytes of path and query.
    pub uri: u64,
    /// Most bytes of header fields.
    pub header: u64,
    /// Time for the head of a request.
    pub header_timeout: Duration,
    /// Time for the body of a request.
    pub body_timeout: Duration,
    /// Time before a body must have a pace.
    pub body_grace: Duration,
    /// That pace, in bytes per second.
    pub body_rate: u64,
    /// Time that a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Time from the end of the body to the answer.
    pub request_timeout: Duration,
    /// Open connections of the public listeners together.
    pub connections: usize,
    /// Open connections of one client address.
    pub connections_per_ip: usize,
    /// Requests of one connection that are worked on at the same time.
    pub streams_per_connection: usize,
    /// Requests of one client address, if limited.
    pub requests_per_ip: Option<Rate>,
    /// Requests being worked on.
    pub requests_in_flight: usize,
    /// Requests that wait until they can be.
    pub requests_waiting: usize,
    /// Longest time that a request waits for that.
    pub admission_wait: Duration,
    /// Percent of the places up to which calls of normal priority are let in.
    pub shed_normal: usize,
    /// Percent of the places up to which calls of low priority are let in.
    pub shed_low: usize,
    /// Refused credentials of one client address, before it has to wait.
    pub auth_failures_per_ip: Rate,
    /// Refused keys that begin alike, after which each further one bars its address.
    pub auth_failures_per_prefix: Rate,
    /// Partitions held in memory.
    pub partitions_awake: usize,
    /// Time without a request after which a partition sleeps.
    pub partition_idle: Duration,
    /// Requests waiting for one partition.
    pub partition_queue: usize,
    /// Batches waiting for one shard.
    pub shard_queue: usize,
    /// Mutations in one log record.
    pub batch_mutations: usize,
    /// Bytes in one log record; a single larger mutation goes alone.
    pub batch_bytes: u64,
    /// Records on disk that the view may not have yet, per shard.
    pub apply_lag: usize,
    /// The same in bytes.
    pub apply_lag_bytes: u64,
    /// Longest time between two checkpoints of a view.
    pub checkpoint_interval: Duration,
    /// Log bytes after which a checkpoint is made earlier.
    pub checkpoint_bytes: u64,
    /// Size of one log segment file, in bytes.
    pub log_segment: u64,
    /// Room that each shard keeps back for what must be written when the disk is full, in bytes.
    pub disk_reserve: u64,
    /// Page cache of all views together, in bytes.
    pub view_cache: u64,
    /// Documents kept for point reads, of all shards together, in bytes.
    pub document_cache: u64,
    /// Operations in one patch.
    pub patch_operations: usize,
    /// Operations in one transactional batch.
    pub batch_operations: usize,
    /// Operations in one bulk.
    pub bulk_operations: usize,
    /// Partitions of one bulk that are worked on at the same time.
    pub bulk_partitions: usize,
    /// How long the answer to an idempotency key is kept.
    pub idempotency_keep: Duration,
    /// Queries being worked on.
    pub queries_in_flight: usize,
    /// Documents and index entries that one page of a query reads.
    pub query_rows: usize,
    /// Time that one page of a query takes.
    pub query_time: Duration,
    /// Slices of queries that run at the same time.
    pub query_slices: usize,
    /// Groups that one page of a query holds.
    pub query_groups: usize,
    /// Change feeds that wait for a change.
    pub feeds_waiting: usize,
    /// Time between two rounds of the upkeep of a shard.
    pub upkeep_interval: Duration,
    /// Documents that a round takes away for each reason.
    pub upkeep_batch: usize,
    /// Rows in a page of a query when the caller names no number.
    pub query_page_default: usize,
    /// Most rows in a page of a query.
    pub query_page_max: usize,
    /// Documents in a page when the caller names no number.
    pub page_default: usize,
    /// Most documents in a page.
    pub page_max: usize,
    /// Most bytes in a page.
    pub page_bytes: u64,
    /// Events in flight to one subscription.
    pub delivery_window: usize,
    /// Matched events waiting in memory for one subscription.
    pub delivery_queue: usize,
    /// Time for a whole delivery attempt.
    pub delivery_timeout: Duration,
    /// Time for the connection of an attempt.
    pub delivery_connect_timeout: Duration,
    /// Bytes read of an endpoint's answer.
    pub delivery_response: u64,
    /// Open connections to endpoints.
    pub delivery_connections: usize,
    /// Due retries read at once.
    pub retry_page: usize,
    /// Bytes of each shard's log that are kept for retries.
    pub retry_cache: u64,
    /// Requests that wait to be published to one topic.
    pub publish_queue: usize,
    /// Changes by which routing may be behind before publishing is refused.
    pub publish_lag: u64,
    /// Events in one request that publishes.
    pub publish_batch: usize,
    /// Largest event that may be published, in bytes.
    pub event_size: u64,
    /// How often an event may be published again by those who were told of it.
    pub event_hops: u32,
    /// Longest time that a receiver may wait for events of a queue.
    pub receive_wait: Duration,
    /// Longest time that progress of a healthy subscription stays only in memory.
    pub progress_delay: Duration,
    /// Log bytes read at once.
    pub read_chunk: u64,
    /// Time for work in flight after the order to stop.
    pub drain_timeout: Duration,
    /// Wait before a crashed actor opens again; doubled with each crash.
    pub crash_backoff: Duration,
    /// Crashes within `crash_window` after which an actor is quarantined.
    pub crash_budget: usize,
    /// See `crash_budget`.
    pub crash_window: Duration,
    /// Counters held in memory for each limit and each quota.
    pub rate_keys: usize,
    /// Time for a server behind the gateway to begin its answer.
    pub upstream_timeout: Duration,
    /// Time for the connection to it, as a part of that.
    pub upstream_connect_timeout: Duration,
    /// Time without a piece of its answer's body.
    pub upstream_idle_timeout: Duration,
    /// Idle connections to one server that each worker keeps.
    pub upstream_connections_idle: usize,
    /// How long it keeps them.
    pub upstream_keep_alive: Duration,
    /// Bytes of a request's body that are held so that it can be sent again.
    pub upstream_buffer: u64,
}

/// So many calls in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Number of calls.
    pub calls: NonZeroU32,
    /// The time they are counted over.
    pub per: Duration,
}

/// Where documents live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Where in a document its partition key stands: one to three parts, the first counts most.
    pub partition_key: Vec<KeyPart>,
    /// Who shares the space of the container.
    pub tenancy: Tenancy,
    /// Unique keys within a partition, each of one or more paths.
    pub unique: Vec<Vec<Pointer>>,
    /// Declared indexes, each of one or more paths.
    pub indexes: Vec<Vec<Pointer>>,
    /// How long a document lives.
    pub ttl: ContainerTtl,
    /// What may be spent, in request units per second.
    pub throughput: Option<Throughput>,
    /// How long changes stay in the log for feeds of all versions.
    pub change_retention: Duration,
}

/// One part of a partition key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    /// Where the value stands.
    pub pointer: Pointer,
    /// The part is the value's bucket among so many, not the value itself.
    pub buckets: Option<NonZeroU16>,
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.buckets {
            None => write!(f, "{}", self.pointer),
            Some(buckets) => write!(f, "hash({}) % {buckets}", self.pointer),
        }
    }
}

/// A JSON Pointer (RFC 6901) to a member of a document, not to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Names of the members from the outside in, unescaped; at least one.
    pub segments: Vec<String>,
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            write!(f, "/{}", segment.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// Who shares the space of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tenancy {
    /// One space for all tenants.
    #[default]
    Shared,
    /// A space for each tenant, which the caller's credential names.
    Isolated,
}
