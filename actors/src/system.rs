//! The only wiring: opens the data directory, starts every room, and drains them in order.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Arbiter, ArbiterHandle};
use futures_util::future::join_all;
use tokio::sync::oneshot;

use crate::directory::{DirectoryHandle, DirectorySettings};
use crate::kernel::clock::{SharedClock, SteadyClock};
use crate::kernel::slots::Slots;
use crate::model::change::Mutation;
use crate::model::delivery::Transport;
use crate::model::ids::{Name, ShardId};
use crate::model::topic::{SYSTEM_TOPIC, Topic};
use crate::policy::container::Catalog;
use crate::protocol::subscriber::SubscriptionError;
use crate::reader::{Reader, ReaderSettings};
use crate::router::{RouterHandle, RouterSettings};
use crate::shard::{CommitError, Fatal, Shard, ShardHandle, ShardOpenError, ShardSettings};
use crate::store::superblock::{DataDirectory, DirectoryError};
use crate::subscriber::{
    DeliverySettings, Floors, Past, SubscriptionConfig, SubscriptionHandle, Subscriptions, Surroundings,
    abandon, beginnings, strangers,
};
use crate::topic::{TopicHandle, TopicSettings};
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
    /// The topics that are published to.
    pub topics: Vec<Arc<Topic>>,
    /// Bounds of publishing.
    pub publishing: TopicSettings,
    /// The event subscriptions that are declared.
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
    /// What the store tells of subscriptions cannot be read.
    #[error("the stored subscriptions: {0}")]
    Stored(String),
    /// A thread did not come up.
    #[error("a thread of actors did not start")]
    Thread,
}

struct Inner {
    directory: DirectoryHandle,
    reader: Reader,
    shards: Arc<[ShardHandle]>,
    routers: Arc<[RouterHandle]>,
    topics: Vec<TopicHandle>,
    subscriptions: Subscriptions,
    arbiters: Vec<ArbiterHandle>,
    /// Held until everything is on disk; then another process may have it, whoever still has a handle.
    folder: Mutex<Option<DataDirectory>>,
    id: String,
    path: PathBuf,
}

/// A running system. Cheap to clone; lives until it is drained.
#[derive(Clone)]
pub struct System(Arc<Inner>);

/// Subscriptions that the shards themselves tell of.
#[derive(Debug, Default)]
pub struct Stored {
    /// Those that run.
    pub run: Vec<SubscriptionConfig>,
    /// Those that do not run now, and keep what is owed to them all the same.
    pub keep: Vec<Name>,
}

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
        Self::start_with(config, (transport, clock, fatal), |_| Ok(Stored::default())).await
    }

    /// As [`Self::start`], with the subscriptions that the shards themselves tell of: those that were made
    /// while an earlier system ran. They are known before anything of the log is let go.
    ///
    /// # Errors
    /// As [`Self::start`]; [`StartError::Stored`] with what `stored` says.
    pub async fn start_with(
        mut config: SystemConfig,
        (transport, clock, fatal): (Arc<dyn Transport>, SharedClock, Fatal),
        stored: impl FnOnce(&[ShardHandle]) -> Result<Stored, String>,
    ) -> Result<Self, StartError> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut folder =
            DataDirectory::open_or_create(&config.data, config.shards, config.default_shards, &id)?;
        let shards = open_shards(&mut folder, &config, &clock, &fatal)?;
        let stored = stored(&shards).map_err(StartError::Stored)?;
        config.subscriptions.extend(stored.run);
        let names: Vec<Name> =
            config.subscriptions.iter().map(|subscription| subscription.name.clone()).collect();
        let known: HashSet<Name> = names.iter().chain(&stored.keep).cloned().collect();
        abandon_strangers(&known, &shards).await?;
        begin_cursors(&names, &shards).await?;
        let partitions: Vec<Arbiter> = (0..config.partition_threads.max(1)).map(|_| Arbiter::new()).collect();
        let events = Arbiter::new();
        let mut arbiters: Vec<ArbiterHandle> = partitions.iter().map(Arbiter::handle).collect();
        let on_partitions = arbiters.clone();
        let path = config.data.clone();
        let floors = Floors::new(&shards, &names);
        let SystemConfig {
            catalog,
            reader,
            upkeep,
            directory,
            subscriptions: subscriptions_declared,
            delivery,
            router,
            ..
        } = config;
        let (topics, publishing) = (config.topics, config.publishing);
        let start_directory = {
            let (shards, clock) = (shards.clone(), clock.clone());
            move || DirectoryHandle::start((shards, catalog), on_partitions, directory, clock)
        };
        let directory = run_on(partitions.first().ok_or(StartError::Thread)?, start_directory).await?;
        let reader = Reader::new(directory.clone(), reader, clock.clone()).map_err(|_| StartError::Thread)?;
        let start_events = {
            let (shards, directory) = (shards.clone(), directory.clone());
            move || {
                if let Some(settings) = &upkeep {
                    upkeep::start(&directory, settings, &clock);
                }
                let start =
                    |shard: &ShardHandle| RouterHandle::start(shard.clone(), router.clone(), clock.clone());
                let routers: Arc<[RouterHandle]> = shards.iter().map(start).collect();
                let slots = Slots::new(delivery.connections);
                let around = Surroundings {
                    routers: routers.clone(),
                    transport,
                    clock: clock.clone(),
                    time: Arc::new(SteadyClock::start(clock.clone())),
                    floors,
                    slots,
                    past: Arc::new(Past::new(delivery.retry_cache)),
                    tells: topics.iter().any(|topic| &*topic.name == SYSTEM_TOPIC),
                };
                let start = |topic: &Arc<Topic>| {
                    let router = routers.get(shard_of_topic(&topic.name, routers.len()))?;
                    let (name, clock) = (topic.name.clone(), clock.clone());
                    Some(TopicHandle::start(name, router.clone(), publishing.clone(), clock))
                };
                let topics: Vec<_> = topics.iter().filter_map(start).collect();
                let subscriptions = Subscriptions::new(around, delivery);
                subscriptions.start_all(subscriptions_declared);
                (routers, topics, subscriptions)
            }
        };
        let (routers, topics, subscriptions) = run_on(&events, start_events).await?;
        let subscriptions = subscriptions.on(events.handle());
        arbiters.push(events.handle());
        Ok(Self(Arc::new(Inner {
            directory,
            reader,
            shards,
            routers,
            topics,
            subscriptions,
            arbiters,
            id: folder.id().to_owned(),
            folder: Mutex::new(Some(folder)),
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

    /// The topics that are published to.
    pub fn topics(&self) -> &[TopicHandle] {
        &self.0.topics
    }

    /// The topic of this name, if it is published to.
    pub fn topic(&self, name: &str) -> Option<&TopicHandle> {
        self.0.topics.iter().find(|topic| &**topic.name() == name)
    }

    /// The subscriptions: those that are declared, in their order, then those that were made since.
    pub fn subscriptions(&self) -> Arc<[SubscriptionHandle]> {
        self.0.subscriptions.all()
    }

    /// The subscription of this name.
    pub fn subscription(&self, name: &str) -> Option<SubscriptionHandle> {
        self.0.subscriptions.find(name)
    }

    /// Makes a subscription while the system runs. It begins with the next change. `also` becomes durable
    /// with its beginning in the first shard; who starts the system again gives the subscription again.
    ///
    /// # Errors
    /// [`SubscriptionError::Busy`] when there is one of this name.
    pub async fn subscribe(
        &self,
        config: SubscriptionConfig,
        also: Vec<Mutation>,
    ) -> Result<SubscriptionHandle, SubscriptionError> {
        self.0.subscriptions.make(config, also).await
    }

    /// Ends a subscription and forgets all that it has, dead letters included. `also` becomes durable first.
    /// False: none of this name runs; what was left of one is forgotten all the same.
    ///
    /// # Errors
    /// [`SubscriptionError::Unavailable`] when the shards take no writes; it may be half forgotten then, and
    /// is forgotten by asking again.
    pub async fn unsubscribe(&self, name: &str, also: Vec<Mutation>) -> Result<bool, SubscriptionError> {
        self.0.subscriptions.end(name, also).await
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.0.path
    }

    /// Identity of the data directory.
    pub fn data_id(&self) -> &str {
        &self.0.id
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
            join_all(inner.subscriptions.all().iter().map(SubscriptionHandle::drain)).await;
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
        if closed {
            drop(inner.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
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

/// The shard that has the events of a topic.
fn shard_of_topic(name: &str, shards: usize) -> usize {
    let hash = twox_hash::XxHash3_64::oneshot(name.as_bytes());
    usize::try_from(hash % shards.max(1) as u64).unwrap_or(0)
}

/// What is pending for subscriptions that are gone is not delivered, not even if they come back. Their dead letters
/// stay.
async fn abandon_strangers(known: &HashSet<Name>, shards: &[ShardHandle]) -> Result<(), StartError> {
    for shard in shards {
        let failed = |name: &Name, why: String| StartError::Cursor {
            subscription: name.clone(),
            shard: shard.id(),
            why,
        };
        let gone = strangers(known, shard).map_err(|error| failed(&"".into(), error.to_string()))?;
        for name in gone {
            tracing::warn!(
                subscription = %name,
                shard = shard.id().0,
                "the event subscription is no longer declared: what was pending for it is let go, its dead letters stay"
            );
            abandon(shard, &name).await.map_err(|error| failed(&name, error.to_string()))?;
        }
    }
    Ok(())
}

/// New subscriptions begin with the next change. That is durable before anything can change.
async fn begin_cursors(names: &[Name], shards: &[ShardHandle]) -> Result<(), StartError> {
    for shard in shards {
        let first = names.first().cloned().unwrap_or_else(|| "".into());
        let cursor_error =
            |why: String| StartError::Cursor { subscription: first.clone(), shard: shard.id(), why };
        let begun = beginnings(names, shard).map_err(|error| cursor_error(error.to_string()))?;
        // Bounded commits, however many begin at once.
        for begun in begun.chunks(1_000) {
            let reply = shard.commit(begun.to_vec()).map_err(|error| cursor_error(error.to_string()))?;
            let committed = reply.await.unwrap_or(Err(CommitError::Unknown));
            committed.map_err(|error| cursor_error(error.to_string()))?;
        }
    }
    Ok(())
}
