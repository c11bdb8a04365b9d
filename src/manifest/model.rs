//! What a manifest says, after it was checked: the shape that the rest of the process is built from.
//!
//! Invariant: a value of these types refers only to things that exist in the same [`Manifest`], and every
//! number lies within the bounds that the manifest's documentation gives.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lanekeeper_actors::policy::throughput::Throughput;
use lanekeeper_actors::policy::ttl::ContainerTtl;

use super::units::Cidr;

/// The whole configuration of a process. Maps are keyed by name: 1 to 63 of `A-Z a-z 0-9 _ -`, the first a
/// letter or digit.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name of the project.
    pub project: String,
    /// The process and its listeners; a change needs a restart.
    pub server: Server,
    /// Every bound of the process.
    pub limits: Limits,
    /// Where documents live.
    pub containers: BTreeMap<String, Container>,
    /// Where events come from.
    pub topics: BTreeMap<String, Topic>,
    /// Where events go.
    pub event_subscriptions: BTreeMap<String, EventSubscription>,
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
    /// Private address of the admin API; always a loopback address. Port 0 picks a free one.
    pub admin: SocketAddr,
    /// Data directory, as written: a relative path starts at the working directory.
    pub data: PathBuf,
    /// Number of physical shards, 1 to 64; fixed when the data directory is made.
    pub shards: usize,
}

/// One public address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 picks a free one.
    pub addr: SocketAddr,
}

/// Every bound of the process. `config/default.yaml` gives the meaning and the reason of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest document and largest request body, in bytes.
    pub body: u64,
    /// Deepest nesting of a JSON body.
    pub json_depth: usize,
    /// Time for the head of a request.
    pub header_timeout: Duration,
    /// Time for the body of a request.
    pub body_timeout: Duration,
    /// Time from the end of the body to the answer.
    pub request_timeout: Duration,
    /// Open connections of the public listeners together.
    pub connections: usize,
    /// Open connections of one client address.
    pub connections_per_ip: usize,
    /// Requests being worked on.
    pub requests_in_flight: usize,
    /// Refused credentials of one client address, before it has to wait.
    pub auth_failures_per_ip: Rate,
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
    /// Longest time between two checkpoints of a view.
    pub checkpoint_interval: Duration,
    /// Log bytes after which a checkpoint is made earlier.
    pub checkpoint_bytes: u64,
    /// Size of one log segment file, in bytes.
    pub log_segment: u64,
    /// Page cache of all views together, in bytes.
    pub view_cache: u64,
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
    /// Token buckets held in memory.
    pub rate_keys: usize,
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

/// Where events come from: the changes of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The container.
    pub container: String,
    /// How its changes are called.
    pub types: ChangeTypes,
}

/// CloudEvents `type` of each kind of change; a kind without one makes no event. At least one is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeTypes {
    /// A document that was not there before.
    pub created: Option<String>,
    /// A new body of an existing document.
    pub replaced: Option<String>,
    /// A document that is gone.
    pub deleted: Option<String>,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSubscription {
    /// The topic.
    pub topic: String,
    /// Event types that match; `None` is all of them.
    pub types: Option<Vec<String>>,
    /// Subjects that match.
    pub subject: SubjectFilter,
    /// The destination.
    pub webhook: Webhook,
    /// When to try again, and when to give up.
    pub retry: Retry,
}

/// Literal beginning and end of a subject; an empty text matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectFilter {
    /// How the subject begins.
    pub begins: String,
    /// How the subject ends.
    pub ends: String,
    /// Whether upper and lower case differ.
    pub case_sensitive: bool,
}

/// An HTTP endpoint that takes events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Absolute `http` or `https` URL, normalised, without user, password and fragment.
    pub url: String,
    /// Blocks that may be contacted although they are not public.
    pub allow: Vec<Cidr>,
}

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts before an event is dead-lettered, 1 to 30.
    pub max_attempts: u32,
    /// Age at which an event is dead-lettered, 1 s to 24 h.
    pub ttl: Duration,
    /// Factor on the steps of the schedule, 0.0001 to 1.
    pub scale: f64,
}

/// A set of operations under one path.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Where the API begins; literal segments only.
    pub path: PathTemplate,
    /// The version, when the API has one; it is the path segment after `path`.
    pub version: Option<PathVersion>,
    /// What it offers, by name.
    pub operations: BTreeMap<String, Operation>,
}

/// A version that callers name in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// The path segment, such as `v1`.
    pub name: String,
}

/// One thing that an API offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The method of the request.
    pub method: Method,
    /// The path below the API's path and version, as written.
    pub path: PathTemplate,
    /// The path of the request: the API's path, its version, and `path`. No two operations of a manifest
    /// answer to the same method and route.
    pub route: PathTemplate,
    /// What answers.
    pub target: Target,
}

/// An HTTP method (RFC 9110 section 9.3, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
}

impl Method {
    /// The method as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// A path whose segments are fixed or parameters. Writes itself as `/loads/{lane}`; without segments, as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathTemplate {
    /// The segments, without slashes.
    pub segments: Vec<Segment>,
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text, of unreserved characters (RFC 3986 section 2.3).
    Literal(String),
    /// Any text, taken under this name. Names are unique in a path.
    Parameter(String),
}

impl PathTemplate {
    /// Whether a parameter of this name is in the path.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Parameter(found) if found == name))
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// What answers an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Documents of a container.
    Documents {
        /// The container.
        container: String,
        /// What is done to them.
        action: Action,
    },
    /// A fixed answer.
    Mock(Mock),
}

/// What an operation does to documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Adds a document, which names itself or gets a name.
    Create {
        /// Where given, the partition key that the document must have.
        partition: Option<Template>,
    },
    /// Returns a document.
    Read(DocumentAt),
    /// Creates or replaces a document.
    Upsert(DocumentAt),
    /// Replaces a document that is there.
    Replace(DocumentAt),
    /// Removes a document.
    Delete(DocumentAt),
    /// Returns the documents of a partition in pages.
    List {
        /// The partition key.
        partition: Template,
    },
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentAt {
    /// The partition key.
    pub partition: Template,
    /// The document's `id`.
    pub id: Template,
}

/// A text, or the value of a path parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// This text.
    Literal(String),
    /// The value of this parameter, which is in the operation's path.
    Parameter(String),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mock {
    /// Status, 200 to 599.
    pub status: u16,
    /// Headers, with lower-case names.
    pub headers: BTreeMap<String, String>,
    /// JSON body, if any.
    pub body: Option<serde_json::Value>,
}

/// What callers are sold: apis, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Names of the apis; at least one.
    pub apis: Vec<String>,
    /// The rate of each key, if limited.
    pub rate: Option<Rate>,
}

/// A key that exists from the start.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// What it opens.
    pub product: String,
    /// Whose calls it makes.
    pub tenant: String,
    /// The secret. No two secrets of a manifest are equal.
    pub primary: Secret,
    /// A second secret, so that callers can change from one to the other.
    pub secondary: Option<Secret>,
    /// The moment it stops working.
    pub expires: Option<SystemTime>,
}

/// A text that is never printed. The process is given it by reference; it has no serialised form.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that hashes or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
