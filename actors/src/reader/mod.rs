//! Reads of more than one document: queries and change feeds, over a partition, a prefix of its key, or a
//! whole container.
//!
//! Stands between callers and the shards. Invariants: no thread of actors is held while a query runs; a
//! page has a bound in documents, time and bytes, and what is left over goes on with a continuation
//! that names no state of this process.

mod continuation;
mod feed;
mod query;
mod source;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::directory::{Account, DirectoryHandle, Extent};
use crate::kernel::clock::SharedClock;
use crate::kernel::permits::Permits;
use crate::model::address::{EncodedPartition, KeyPart, PartitionAddress};
use crate::model::ids::{Name, TenantId};
use crate::policy::container::Container;
use crate::shard::ShardHandle;

use threads::Threads;

pub use continuation::InvalidContinuation;
pub use feed::{Change, FeedFailed, FeedPage, FeedRequest};
pub use query::{QueryFailed, QueryPage, QueryRequest};

/// Bounds of reads; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    /// Queries under way.
    pub queries: usize,
    /// Slices of queries that run at the same time; each takes a core while it does.
    pub slices: usize,
    /// Documents that one page of a query looks at.
    pub rows: usize,
    /// Time that one page of a query takes.
    pub time: Duration,
    /// Groups of a query.
    pub groups: usize,
    /// Bytes of rows in a page.
    pub page_bytes: usize,
    /// Feeds that wait for changes.
    pub waiting_feeds: usize,
    /// Bytes of log that one page of a feed reads.
    pub read_chunk: usize,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            queries: 64,
            slices: 1,
            rows: 100_000,
            time: Duration::from_secs(5),
            groups: 10_000,
            page_bytes: 4 << 20,
            waiting_feeds: 1_024,
            read_chunk: 1 << 20,
        }
    }
}

/// What is read.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The container.
    pub container: Name,
    /// The owner, in an isolated container; `None` there reads all tenants, which is for operators.
    pub tenant: Option<TenantId>,
    /// A whole partition key, the beginning of one, or nothing for all partitions.
    pub key: Vec<KeyPart>,
}

/// Everybody's way to reads of more than one document; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    directory: DirectoryHandle,
    settings: Arc<ReaderSettings>,
    queries: Permits,
    slices: Arc<Semaphore>,
    threads: Threads,
    feeds: Permits,
    clock: SharedClock,
}

/// A scope that was looked up.
#[derive(Debug, Clone)]
struct Target {
    container: Arc<Container>,
    account: Arc<Account>,
    /// What the keys of all documents in the scope begin with.
    prefix: Vec<u8>,
    /// What their partition keys begin with, where the prefix does not say it: across tenants.
    key: Vec<KeyPart>,
    /// Bytes that no other scope of the container has.
    identity: Vec<u8>,
    /// Whether every document of the container belongs to it.
    whole: bool,
    /// The partition, if the scope is one.
    partition: Option<EncodedPartition>,
    /// The shards that may hold documents of the scope.
    shards: Vec<ShardHandle>,
}

impl Reader {
    /// A reader of the containers of `directory`.
    ///
    /// # Errors
    /// When the system has no threads for queries.
    pub fn new(
        directory: DirectoryHandle,
        settings: ReaderSettings,
        clock: SharedClock,
    ) -> std::io::Result<Self> {
        let threads = Threads::start(settings.slices)?;
        let slices = Arc::new(Semaphore::new(settings.slices.max(1)));
        let (queries, feeds) = (Permits::new(settings.queries), Permits::new(settings.waiting_feeds));
        Ok(Self { directory, settings: Arc::new(settings), queries, slices, threads, feeds, clock })
    }

    /// The directory whose containers are read.
    pub fn directory(&self) -> &DirectoryHandle {
        &self.directory
    }

    fn target(&self, scope: &Scope) -> Option<Target> {
        let container = self.directory.catalog().get(&scope.container)?.clone();
        let account = self.directory.account(&scope.container).clone();
        let address = PartitionAddress {
            container: scope.container.clone(),
            tenant: scope.tenant.clone(),
            key: scope.key.clone(),
        };
        let Extent { prefix, partition, shards } = self.directory.extent(&address);
        let all_tenants = container.isolated && scope.tenant.is_none();
        let identity = if partition.is_some() { prefix.clone() } else { address.encode_prefix() };
        let whole = partition.is_none() && scope.key.is_empty() && scope.tenant.is_none();
        let key = if all_tenants { scope.key.clone() } else { Vec::new() };
        Some(Target { container, account, prefix, key, identity, whole, partition, shards })
    }
}

impl Target {
    /// Whether a document or a partition, with these bytes at the front of its key, belongs to the scope.
    fn holds(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
            && (self.key.is_empty()
                || PartitionAddress::decode(key).is_some_and(|(found, _)| found.key.starts_with(&self.key)))
    }
}
