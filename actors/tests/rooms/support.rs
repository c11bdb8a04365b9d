//! A system in a temporary folder, with endpoints that a test scripts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lanekeeper_actors::directory::{DirectorySettings, PartitionHandle};
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::delivery::{Attempt, Endpoint, Outcome, Transport};
use lanekeeper_actors::model::event::EventTypes;
use lanekeeper_actors::model::ids::DocumentId;
use lanekeeper_actors::partition::PartitionSettings;
use lanekeeper_actors::policy::filter::Filter;
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::protocol::partition::{Operation, Write, WriteResult};
use lanekeeper_actors::protocol::subscriber::SubscriptionStatus;
use lanekeeper_actors::router::RouterSettings;
use lanekeeper_actors::shard::ShardSettings;
use lanekeeper_actors::subscriber::{DeliverySettings, SubscriptionConfig};
use lanekeeper_actors::system::{System, SystemConfig};

/// What an endpoint answers, given its URL and the attempt.
pub(crate) type Script = dyn Fn(&Attempt) -> Outcome + Send + Sync;

/// Endpoints that answer by a script, and remember every attempt.
pub(crate) struct Endpoints {
    script: Mutex<Arc<Script>>,
    seen: Mutex<Vec<Attempt>>,
}

impl Endpoints {
    pub(crate) fn new(script: impl Fn(&Attempt) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(Arc::new(script)), seen: Mutex::default() })
    }

    pub(crate) fn all_well() -> Arc<Self> {
        Self::new(|_| Outcome::from_status(204, None))
    }

    pub(crate) fn change(&self, script: impl Fn(&Attempt) -> Outcome + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn seen(&self) -> Vec<Attempt> {
        self.seen.lock().unwrap().clone()
    }

    /// Attempts by event for one subscription.
    pub(crate) fn by_event(&self, subscription: &str) -> HashMap<String, Vec<u32>> {
        let mut by_event: HashMap<String, Vec<u32>> = HashMap::new();
        for attempt in self.seen().iter().filter(|attempt| &*attempt.subscription == subscription) {
            by_event.entry(attempt.event_id.clone()).or_default().push(attempt.number);
        }
        by_event
    }
}

impl Transport for Endpoints {
    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let script = self.script.lock().unwrap().clone();
        self.seen.lock().unwrap().push(attempt.clone());
        Box::pin(async move {
            tokio::task::yield_now().await;
            script(&attempt)
        })
    }
}

pub(crate) fn subscription(name: &str, retry: RetryPolicy) -> SubscriptionConfig {
    let types = EventTypes {
        created: Some("LoadCreated".into()),
        replaced: Some("LoadUpdated".into()),
        deleted: Some("LoadDeleted".into()),
    };
    SubscriptionConfig {
        name: name.into(),
        topic: "load-events".into(),
        container: "loads".into(),
        types,
        filter: Filter::default(),
        endpoint: Arc::new(Endpoint { url: format!("http://{name}.example/"), allow: vec![] }),
        retry,
    }
}

pub(crate) fn config(data: &Path, subscriptions: Vec<SubscriptionConfig>) -> SystemConfig {
    SystemConfig {
        data: data.to_owned(),
        shards: None,
        default_shards: 2,
        shard: ShardSettings { lazy_delay: Duration::from_millis(20), ..ShardSettings::default() },
        directory: DirectorySettings {
            awake: 100,
            idle: Duration::from_secs(60),
            queue: 64,
            partition: PartitionSettings {
                batch_writes: 64,
                batch_bytes: 1 << 20,
                crash_budget: 3,
                crash_window: Duration::from_secs(60),
                crash_backoff: Duration::from_millis(5),
            },
        },
        subscriptions,
        delivery: DeliverySettings {
            window: 16,
            queue: 64,
            timeout: Duration::from_secs(5),
            retry_page: 32,
            backoff: Duration::from_millis(10),
            crash_budget: 3,
            crash_window: Duration::from_secs(60),
            seed: 7,
        },
        router: RouterSettings {
            read_chunk: 1 << 16,
            hints: 64,
            backoff: Duration::from_millis(10),
            crash_budget: 3,
            crash_window: Duration::from_secs(60),
        },
        partition_threads: 1,
    }
}

pub(crate) async fn start(config: SystemConfig, endpoints: &Arc<Endpoints>) -> System {
    let fatal = Arc::new(|text: &str| panic!("{text}"));
    System::start(config, endpoints.clone(), SystemClock::shared(), fatal).await.unwrap()
}

pub(crate) fn lane(system: &System, lane: &str) -> PartitionHandle {
    let key = vec![KeyPart::String(lane.into())];
    system.directory().partition(&PartitionAddress { container: "loads".into(), tenant: None, key }).unwrap()
}

pub(crate) fn write(id: &str, operation: Operation) -> Write {
    Write { id: DocumentId::new(id).unwrap(), operation, precondition: Precondition::None, traceparent: None }
}

pub(crate) fn body(id: &str) -> Bytes {
    format!("{{\"id\":\"{id}\",\"lane\":\"a\"}}").into()
}

pub(crate) async fn create(partition: &PartitionHandle, id: &str) -> WriteResult {
    partition.write(write(id, Operation::Create(body(id))), Duration::from_secs(10)).await
}

/// Waits until the subscription is as the test wants it, at most ten seconds.
pub(crate) async fn until(
    system: &System,
    subscription: &str,
    wanted: impl Fn(&SubscriptionStatus) -> bool,
) -> SubscriptionStatus {
    let handle = system.subscription(subscription).unwrap();
    let mut status = handle.status().await;
    for _ in 0..2_000 {
        if wanted(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        status = handle.status().await;
    }
    panic!("`{subscription}` did not come to the wanted state: {status:?}");
}
