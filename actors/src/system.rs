//! The only wiring: opens the data directory, starts every room, and drains them in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::directory::{DirectoryHandle, DirectorySettings};
use crate::kernel::clock::SharedClock;
use crate::model::change::Table;
use crate::model::delivery::Transport;
use crate::model::ids::{Name, ShardId};
use crate::policy::container::Catalog;
use crate::reader::{Reader, ReaderSettings};
use crate::router::{RouterHandle, RouterSettings};
use crate::shard::{CommitError, Fatal, Shard, ShardHandle, ShardOpenError, ShardSettings};
use crate::store::superblock::{DataDirectory, DirectoryError};
use crate::subscriber::{
    DeliverySettings, Floors, Progress, SubscriptionConfig, SubscriptionHandle, advance,
};
use crate::upkeep::{self, UpkeepSettings};

/// Everything that the rooms need to know.
#[derive(Debug, Clone)]
pub struct SystemConfig {
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// How many shards there must be; `None` takes what is there.
    pub shards: Option<u16>,
    /// How many a new directory gets when `shards` says nothing.
    pub default_shards: u16,
    /// The containers.
    pub catalog: Catalog,
    /// Bounds of each shard.
    pub shard: ShardSettings,
    /// Bounds of the directory and of partitions.
    pub directory: DirectorySettings,
    /// The event subscriptions.
    pub subscriptions: Vec<SubscriptionConfig>,
    /// Bounds of delivery.
    pub delivery: DeliverySettings,
    /// Bounds of the upkeep; `None` for a system that leaves it to its caller.
    pub upkeep: Option<UpkeepSettings>,
    /// Bounds of queries and feeds.
    pub reader: ReaderSettings,
    /// Bounds of each router.
    pub router: RouterSettings,
    /// Threads that partitions are spread over.
    pub partition_threads: usize,
}

/// Why the system does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A shard cannot be opened.
    #[error(transparent)]
    Shard(#[from] ShardOpenError),
    /// The first cursor of a subscription could not be written or read.
    #[error("subscription `{subscription}` has no cursor in shard {shard}: {why}")]
    Cursor { subscription: Name, shard: ShardId, why: String },
    /// A thread did not come up.
    #[error("a thread of actors did not start")]
    Thread,
}

struct Inner {
    directory: DirectoryHandle,
    reader: Reader,
    shards: Arc<[ShardHandle]>,
    routers: Arc<[RouterHandle]>,
    subscriptions: Vec<SubscriptionHandle>,
    arbiters: Vec<ArbiterHandle>,
    folder: DataDirectory,
    path: PathBuf,
}

/// A running system. Cheap to clone; lives until it is drained.
#[derive(Clone)]
pub struct System(Arc<Inner>);

impl System {
    /// Opens or makes the data directory and starts every room. Must run inside an actix system.
    ///
    /// # Errors
    /// [`StartError`] names what is missing or damaged; nothing is left running.
    pub async fn start(
        config: SystemConfig,
        transport: Arc<dyn Transport>,
        clock: SharedClock,
        fatal: Fatal,
    ) -> Result<Self, StartError> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut folder =
            DataDirectory::open_or_create(&config.data, config.shards, config.default_shards, &id)?;
        let shards = open_shards(&mut folder, &config, &clock, &fatal)?;
        for subscription in &config.subscriptions {
            begin_cursors(subscription, &shards).await?;
        }
        let partitions: Vec<Arbiter> = (0..config.partition_threads.max(1)).map(|_| Arbiter::new()).collect();
        let events = Arbiter::new();
        let mut arbiters: Vec<ArbiterHandle> = partitions.iter().map(Arbiter::handle).collect();
        let on_partitions = arbiters.clone();
        let (path, names) =
            (config.data.clone(), config.subscriptions.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
        let floors = Floors::new(&shards, &names);
        let SystemConfig { catalog, reader, upkeep, directory, subscriptions, delivery, router, .. } = config;
        let start_directory = {
            let (shards, clock) = (shards.clone(), clock.clone());
            move || DirectoryHandle::start((shards, catalog), on_partitions, directory, clock)
        };
        let directory = run_on(partitions.first().ok_or(StartError::Thread)?, start_directory).await?;
        let reader = Reader::new(directory.clone(), reader, clock.clone());
        let start_events = {
            let (shards, directory) = (shards.clone(), directory.clone());
            move || {
                if let Some(settings) = &upkeep {
                    upkeep::start(&directory, settings, &clock);
                }
                let start =
                    |shard: &ShardHandle| RouterHandle::start(shard.clone(), router.clone(), clock.clone());
                let routers: Arc<[RouterHandle]> = shards.iter().map(start).collect();
                let start = |(i, config): (usize, SubscriptionConfig)| {
                    let mut settings = delivery.clone();
                    settings.seed = settings.seed.wrapping_add(i as u64);
                    let shared = (clock.clone(), floors.clone());
                    SubscriptionHandle::start(
                        Arc::new(config),
                        settings,
                        routers.clone(),
                        transport.clone(),
                        shared,
                    )
                };
                let subscriptions: Vec<_> = subscriptions.into_iter().enumerate().map(start).collect();
                (routers, subscriptions)
            }
        };
        let (routers, subscriptions) = run_on(&events, start_events).await?;
        arbiters.push(events.handle());
        Ok(Self(Arc::new(Inner {
            directory,
            reader,
            shards,
            routers,
            subscriptions,
            arbiters,
            folder,
            path,
        })))
    }

    /// The way to every partition.
    pub fn directory(&self) -> &DirectoryHandle {
        &self.0.directory
    }

    /// The way to queries and change feeds.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// The shards, by number.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.0.shards
    }

    /// The routers, by their shards' numbers.
    pub fn routers(&self) -> &[RouterHandle] {
        &self.0.routers
    }

    /// The subscriptions, in the manifest's order.
    pub fn subscriptions(&self) -> &[SubscriptionHandle] {
        &self.0.subscriptions
    }

    /// The subscription of this name.
    pub fn subscription(&self, name: &str) -> Option<&SubscriptionHandle> {
        self.0.subscriptions.iter().find(|subscription| subscription.name() == name)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.0.path
    }

    /// Identity of the data directory.
    pub fn data_id(&self) -> &str {
        self.0.folder.id()
    }

    /// Ends everything in the order of the write: no new writes, outcomes of attempts under way,
    /// then the shards with a last checkpoint. False when `deadline` passed first; everything
    /// acknowledged is on disk all the same.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let inner = &self.0;
        inner.directory.close();
        let orderly = async {
            while inner.directory.writes_in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // All at once: each may have to wait for an attempt that goes on until its deadline.
            join_all(inner.subscriptions.iter().map(SubscriptionHandle::drain)).await;
        };
        // Half of the time for what is under way, half for the disk.
        let in_time = tokio::time::timeout(deadline / 2, orderly).await.is_ok();
        let close = async {
            for shard in inner.shards.iter() {
                shard.drain().await;
            }
        };
        let closed = tokio::time::timeout(deadline / 2, close).await.is_ok();
        for arbiter in &inner.arbiters {
            arbiter.stop();
        }
        in_time && closed
    }
}

/// Runs `start` on another thread of actors and brings back what it made.
async fn run_on<R: Send + 'static>(
    arbiter: &Arbiter,
    start: impl FnOnce() -> R + Send + 'static,
) -> Result<R, StartError> {
    let (send, made) = oneshot::channel();
    arbiter.spawn_fn(move || {
        send.send(start()).ok();
    });
    made.await.map_err(|_| StartError::Thread)
}

fn open_shards(
    folder: &mut DataDirectory,
    config: &SystemConfig,
    clock: &SharedClock,
    fatal: &Fatal,
) -> Result<Arc<[ShardHandle]>, StartError> {
    let new = !folder.is_complete();
    let mut shards = Vec::with_capacity(usize::from(folder.shards()));
    for number in 0..folder.shards() {
        let (id, path) = (ShardId(number), folder.shard(number));
        let mut settings = config.shard.clone();
        let shares = usize::from(folder.shards().max(1));
        settings.disk_shares = folder.shards();
        settings.cache_bytes = config.shard.cache_bytes / shares;
        settings.document_cache_bytes = config.shard.document_cache_bytes / shares;
        shards.push(if new {
            Shard::create(id, &path, settings)?
        } else {
            Shard::open(id, &path, settings)?
        });
    }
    if new {
        folder.complete()?;
    }
    let start = |shard: Shard| shard.start(clock.clone(), fatal.clone());
    Ok(shards.into_iter().map(start).collect::<Result<Vec<_>, _>>()?.into())
}

/// A new subscription begins with the next change. That is durable before anything can change.
async fn begin_cursors(subscription: &SubscriptionConfig, shards: &[ShardHandle]) -> Result<(), StartError> {
    for shard in shards {
        let cursor_error = |why: String| StartError::Cursor {
            subscription: subscription.name.clone(),
            shard: shard.id(),
            why,
        };
        let view = shard.view().map_err(|error| cursor_error(error.to_string()))?;
        let row = view.row(Table::Progress, subscription.name.as_bytes());
        if row.map_err(|error| cursor_error(error.to_string()))?.is_some() {
            continue;
        }
        let progress = Progress { cursor: shard.log().tail(), done: Vec::new() };
        let reply = shard.commit(vec![advance(&subscription.name, &progress)]);
        let reply = reply.map_err(|error| cursor_error(error.to_string()))?;
        let committed = reply.await.unwrap_or(Err(CommitError::Unknown));
        committed.map_err(|error| cursor_error(error.to_string()))?;
    }
    Ok(())
}
