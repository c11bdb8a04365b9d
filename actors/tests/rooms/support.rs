//! A system in a temporary folder, with endpoints that a test scripts, and a look into its store.
#![allow(dead_code, reason = "two test binaries share this, and each uses a part")]

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lanekeeper_actors::directory::{DirectorySettings, PartitionHandle};
use lanekeeper_actors::kernel::clock::{SharedClock, SystemClock};
use lanekeeper_actors::log::LogReader;
use lanekeeper_actors::log::file::LogSettings;
use lanekeeper_actors::model::address::{EncodedPartition, KeyPart, PartitionAddress};
use lanekeeper_actors::model::change::{DocumentChange, Mutation, Table};
use lanekeeper_actors::model::delivery::{
    Attempt, Endpoint, Outcome, OutcomeKind, Transport, Validated, Validation, ValidationOutcome,
};
use lanekeeper_actors::model::ids::{DocumentId, Lsn, Position, ShardId, TenantId};
use lanekeeper_actors::model::topic::{EventTypes, Topic};
use lanekeeper_actors::partition::PartitionSettings;
use lanekeeper_actors::policy::container::Catalog;
use lanekeeper_actors::policy::filter::{Filter, KeyTable};
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, WriteResult};
use lanekeeper_actors::protocol::subscriber::SubscriptionStatus;
use lanekeeper_actors::reader::ReaderSettings;
use lanekeeper_actors::router::RouterSettings;
use lanekeeper_actors::shard::{Fatal, Shard, ShardHandle, ShardSettings};
use lanekeeper_actors::subscriber::{
    DeadLetter, DeliverySettings, Destination, Order, Progress, RetryRow, SubscriptionConfig, Webhook,
    decode, parse_due, parse_lsn, prefix,
};
use lanekeeper_actors::system::{System, SystemConfig};
use lanekeeper_actors::topic::TopicSettings;
use lanekeeper_actors::upkeep::UpkeepSettings;

/// Long enough for anything on a busy machine, so that only what is stuck meets it.
pub(crate) const AMPLE: Duration = Duration::from_secs(30);

/// What an endpoint answers to an attempt, and after what time.
pub(crate) type Script = dyn Fn(&Attempt) -> (Outcome, Duration) + Send + Sync;

/// An attempt as an endpoint saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) subscription: Arc<str>,
    pub(crate) event: String,
    pub(crate) number: u32,
    pub(crate) at: Instant,
    pub(crate) body: Bytes,
    /// `None` while it goes on, or when it was given up.
    pub(crate) outcome: Option<OutcomeKind>,
}

/// How many attempts go on, and how many did at most.
#[derive(Debug, Clone, Copy, Default)]
struct Gauge {
    now: usize,
    most: usize,
}

/// Endpoints that answer by a script, and remember every attempt.
pub(crate) struct Endpoints {
    script: Mutex<Arc<Script>>,
    seen: Mutex<Vec<Seen>>,
    gauges: Mutex<HashMap<Arc<str>, Gauge>>,
    asked: Mutex<Vec<Validation>>,
    verdict: Mutex<Validated>,
}

impl Endpoints {
    pub(crate) fn new(script: impl Fn(&Attempt) -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Self::paced(move |attempt| (script(attempt), Duration::ZERO))
    }

    pub(crate) fn paced(
        script: impl Fn(&Attempt) -> (Outcome, Duration) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (seen, gauges, asked) = (Mutex::default(), Mutex::default(), Mutex::default());
        let verdict = Mutex::new(Validated::Failed);
        Arc::new(Self { script: Mutex::new(Arc::new(script)), seen, gauges, asked, verdict })
    }

    /// What every handshake is answered from now on.
    pub(crate) fn say(&self, verdict: Validated) {
        *self.verdict.lock().unwrap() = verdict;
    }

    /// The handshakes so far.
    pub(crate) fn asked(&self) -> Vec<Validation> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn all_well() -> Arc<Self> {
        Self::new(|_| Outcome::from_status(204, None))
    }

    pub(crate) fn change(&self, script: impl Fn(&Attempt) -> Outcome + Send + Sync + 'static) {
        self.change_pace(move |attempt| (script(attempt), Duration::ZERO));
    }

    pub(crate) fn change_pace(
        &self,
        script: impl Fn(&Attempt) -> (Outcome, Duration) + Send + Sync + 'static,
    ) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn seen(&self, subscription: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| &*seen.subscription == subscription).cloned().collect()
    }

    /// Numbers of the attempts by event for one subscription.
    pub(crate) fn by_event(&self, subscription: &str) -> HashMap<String, Vec<u32>> {
        let mut by_event: HashMap<String, Vec<u32>> = HashMap::new();
        for seen in self.seen(subscription) {
            by_event.entry(seen.event).or_default().push(seen.number);
        }
        by_event
    }

    /// How often each event was taken with success by one subscription.
    pub(crate) fn taken(&self, subscription: &str) -> HashMap<String, usize> {
        let mut taken = HashMap::new();
        for seen in self.seen(subscription) {
            if seen.outcome == Some(OutcomeKind::Delivered) {
                *taken.entry(seen.event).or_default() += 1;
            }
        }
        taken
    }

    /// Most attempts of one subscription that went on at once.
    pub(crate) fn most_at_once(&self, subscription: &str) -> usize {
        self.gauges.lock().unwrap().get(subscription).copied().unwrap_or_default().most
    }
}

/// One attempt that goes on; ends when it is dropped, however that comes.
struct Going {
    endpoints: Arc<Endpoints>,
    subscription: Arc<str>,
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(gauge) = self.endpoints.gauges.lock().unwrap().get_mut(&self.subscription) {
            gauge.now -= 1;
        }
    }
}

/// The endpoints as the system reaches them.
pub(crate) struct Wire(pub(crate) Arc<Endpoints>);

impl Transport for Wire {
    fn validate(&self, validation: Validation) -> BoxFuture<'static, ValidationOutcome> {
        self.0.asked.lock().unwrap().push(validation);
        let verdict = *self.0.verdict.lock().unwrap();
        let outcome = ValidationOutcome { verdict, ..ValidationOutcome::failed(None, "no") };
        Box::pin(async move { outcome })
    }

    fn deliver(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
        let endpoints = self.0.clone();
        let script = endpoints.script.lock().unwrap().clone();
        let number = {
            let mut seen = endpoints.seen.lock().unwrap();
            seen.push(Seen {
                subscription: attempt.subscription.clone(),
                event: attempt.event_id.clone(),
                number: attempt.number,
                at: Instant::now(),
                body: attempt.body.clone(),
                outcome: None,
            });
            seen.len() - 1
        };
        {
            let mut gauges = endpoints.gauges.lock().unwrap();
            let gauge = gauges.entry(attempt.subscription.clone()).or_default();
            gauge.now += 1;
            gauge.most = gauge.most.max(gauge.now);
        }
        let going = Going { endpoints: endpoints.clone(), subscription: attempt.subscription.clone() };
        Box::pin(async move {
            let (outcome, after) = script(&attempt);
            if after.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(after).await;
            }
            endpoints.seen.lock().unwrap()[number].outcome = Some(outcome.kind);
            drop(going);
            outcome
        })
    }
}

pub(crate) fn status(code: u16) -> Outcome {
    Outcome::from_status(code, None)
}

/// A policy whose steps take milliseconds.
pub(crate) fn quick(max_attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts, ttl: Duration::from_secs(3_600), scale: 0.0005, probation: false }
}

/// A policy whose first step takes so long that a test does not see its end.
pub(crate) fn patient() -> RetryPolicy {
    RetryPolicy { max_attempts: 30, ttl: Duration::from_secs(3_600), scale: 6.0, probation: false }
}

pub(crate) fn subscription(name: &str, retry: RetryPolicy) -> SubscriptionConfig {
    let types = EventTypes {
        created: Some("LoadCreated".into()),
        replaced: Some("LoadUpdated".into()),
        deleted: Some("LoadDeleted".into()),
    };
    SubscriptionConfig {
        name: name.into(),
        topic: Topic::of_changes("load-events".into(), "loads".into(), types).into(),
        tenant: None,
        keys: Arc::new(KeyTable::new()),
        filter: Filter::default().into(),
        to: Destination::Webhook(Webhook::plain(Endpoint::plain(format!("http://{name}.example/"), vec![]))),
        retry,
        order: Order::None,
        export: None,
        handshake: None,
    }
}

/// Segments so small that a test fills many.
pub(crate) fn tiny_segments() -> LogSettings {
    LogSettings { segment_bytes: 64 << 10, first_segment_bytes: 64 << 10, ..LogSettings::default() }
}

pub(crate) fn config(data: &Path, subscriptions: Vec<SubscriptionConfig>) -> SystemConfig {
    SystemConfig {
        data: data.to_owned(),
        shards: None,
        default_shards: 2,
        catalog: Catalog::default(),
        reader: ReaderSettings::default(),
        upkeep: Some(UpkeepSettings::default()),
        shard: ShardSettings {
            lazy_delay: Duration::from_millis(20),
            reopen_backoff: Duration::from_millis(5),
            log: LogSettings { first_segment_bytes: 256 << 10, ..LogSettings::default() },
            ..ShardSettings::default()
        },
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
        topics: Vec::new(),
        publishing: TopicSettings::default(),
        delivery: DeliverySettings {
            connections: 256,
            hops: 16,
            public_url: None,
            window: 16,
            queue: 64,
            timeout: Duration::from_secs(5),
            retry_page: 32,
            retry_cache: 1 << 20,
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
    start_at(config, endpoints, SystemClock::shared()).await
}

/// Starts a system that goes by this clock.
pub(crate) async fn start_at(config: SystemConfig, endpoints: &Arc<Endpoints>, clock: SharedClock) -> System {
    let fatal = Arc::new(|text: &str| panic!("{text}"));
    let transport = Arc::new(Wire(endpoints.clone()));
    System::start(config, transport, clock, fatal).await.unwrap()
}

/// Ends a system in good order and waits until its files are free.
pub(crate) async fn stop(system: System) {
    assert!(system.drain(AMPLE).await, "the system did not end in time");
}

/// Ends a system as abruptly as one process can: actors are gone in the middle of what they do, and
/// only the files are closed.
pub(crate) async fn cut(system: System) {
    system.drain(Duration::ZERO).await;
    for shard in system.shards() {
        shard.drain().await;
    }
}

pub(crate) fn lane(system: &System, lane: &str) -> PartitionHandle {
    at(system, "loads", None, lane)
}

pub(crate) fn at(system: &System, container: &str, tenant: Option<&str>, lane: &str) -> PartitionHandle {
    let key = vec![KeyPart::String(lane.into())];
    let tenant = tenant.map(|name| TenantId::new(name).unwrap());
    system.directory().partition(&PartitionAddress { container: container.into(), tenant, key }).unwrap()
}

pub(crate) fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

pub(crate) fn write(name: &str, operation: Operation) -> Write {
    Write { id: id(name), operation, precondition: Precondition::None, traceparent: None }
}

pub(crate) fn body(id: &str) -> Bytes {
    format!("{{\"id\":\"{id}\",\"lane\":\"a\"}}").into()
}

/// A document of about `bytes` bytes.
pub(crate) fn large(id: &str, bytes: usize) -> Bytes {
    format!("{{\"id\":\"{id}\",\"pad\":\"{}\"}}", "x".repeat(bytes)).into()
}

pub(crate) async fn create(partition: &PartitionHandle, id: &str) -> WriteResult {
    partition.write(write(id, Operation::Create(Content::plain(body(id)))), AMPLE).await
}

pub(crate) async fn upsert(partition: &PartitionHandle, id: &str) -> WriteResult {
    partition.write(write(id, Operation::Upsert(Content::plain(body(id)))), AMPLE).await
}

/// The event's id of a write that succeeded.
pub(crate) fn event(written: WriteResult) -> String {
    written.unwrap().etag.0.to_string()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + AMPLE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the subscription is as the test wants it.
pub(crate) async fn until(
    system: &System,
    subscription: &str,
    wanted: impl Fn(&SubscriptionStatus) -> bool,
) -> SubscriptionStatus {
    let handle = system.subscription(subscription).unwrap();
    let end = Instant::now() + AMPLE;
    loop {
        let status = handle.status().await;
        if wanted(&status) {
            return status;
        }
        if Instant::now() >= end {
            panic!("`{subscription}` did not come to the wanted state: {status:?}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The shards of a data directory that no system runs on: nothing moves while it is looked at.
pub(crate) struct Store(Vec<ShardHandle>);

impl Store {
    pub(crate) fn open(data: &Path) -> Self {
        let fatal: Fatal = Arc::new(|text: &str| panic!("{text}"));
        let folders = (0..).map(|number| (number, data.join(format!("shard-{number:02}"))));
        let there = folders.take_while(|(_, folder)| folder.exists());
        let open = |(number, folder): (u16, PathBuf)| {
            let shard = Shard::open(ShardId(number), &folder, ShardSettings::default()).unwrap();
            shard.start(SystemClock::shared(), fatal.clone()).unwrap()
        };
        Self(there.map(open).collect())
    }

    pub(crate) fn shards(&self) -> &[ShardHandle] {
        &self.0
    }

    pub(crate) async fn close(self) {
        for shard in self.0 {
            shard.drain().await;
        }
    }
}

/// What a shard's store says of a subscription.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    pub(crate) progress: Progress,
    pub(crate) retries: HashMap<Lsn, RetryRow>,
    pub(crate) letters: HashMap<Lsn, DeadLetter>,
}

impl Owed {
    /// Whether the position is one that the router has still to hand over, or did so in vain.
    pub(crate) fn is_open(&self, lsn: Lsn) -> bool {
        let done = self.progress.done.iter().any(|(first, last)| *first <= lsn && lsn <= *last);
        lsn > self.progress.cursor && !done
    }
}

/// Reads the rows of a subscription, and checks that the index by time agrees with them. For a
/// moment in which nothing moves.
pub(crate) fn owed(shard: &ShardHandle, subscription: &str) -> Owed {
    let view = shard.view().unwrap();
    let progress = view.row(Table::Progress, subscription.as_bytes()).unwrap();
    let mut owed = Owed {
        progress: progress.map_or_else(Progress::default, |row| decode(&row).unwrap()),
        ..Owed::default()
    };
    let rows = |table| view.rows(table, &prefix(subscription), None, usize::MAX).unwrap();
    for (rest, value) in rows(Table::Deliveries) {
        owed.retries.insert(parse_lsn(&rest).unwrap(), decode(&value).unwrap());
    }
    for (rest, value) in rows(Table::DeadLetters) {
        owed.letters.insert(parse_lsn(&rest).unwrap(), decode(&value).unwrap());
    }
    let due: BTreeSet<_> = rows(Table::Due).iter().map(|(rest, _)| parse_due(rest).unwrap()).collect();
    let expected: BTreeSet<_> = owed.retries.iter().map(|(lsn, row)| (row.next_at, *lsn)).collect();
    assert_eq!(due, expected, "the index by time differs from the deliveries of `{subscription}`");
    owed
}

/// Every matched event is delivered, dead-lettered or still pending; none was tried too often.
pub(crate) fn assert_nothing_lost(
    shards: &[ShardHandle],
    endpoints: &Endpoints,
    subscription: &str,
    matched: &[Position],
    max_attempts: u32,
) {
    let owed: Vec<Owed> = shards.iter().map(|shard| owed(shard, subscription)).collect();
    let taken = endpoints.taken(subscription);
    for position in matched {
        let owed = &owed[usize::from(position.shard.0)];
        let delivered = taken.contains_key(&position.to_string());
        let pending = owed.retries.contains_key(&position.lsn) || owed.is_open(position.lsn);
        let buried = owed.letters.contains_key(&position.lsn);
        assert!(delivered || pending || buried, "`{subscription}` lost the event {position}");
        let twice = owed.retries.contains_key(&position.lsn) && buried;
        assert!(!twice, "the event {position} of `{subscription}` is pending and dead-lettered");
    }
    for owed in &owed {
        assert!(owed.letters.values().all(|letter| letter.attempts <= max_attempts));
        assert!(owed.retries.values().all(|row| row.attempts < max_attempts));
    }
    for (event, numbers) in endpoints.by_event(subscription) {
        assert!(numbers.iter().all(|number| *number <= max_attempts), "{event}: {numbers:?}");
    }
}

/// The view of a shard is what its log adds up to, and whole in itself.
pub(crate) fn assert_view_is_the_log(shard: &ShardHandle) {
    let (log, view) = (shard.log(), shard.view().unwrap());
    // The upkeep may write meanwhile: what is compared must be of one moment.
    for _ in 0..1_000 {
        // Documents are answered before the view has them.
        let mut patience = 5_000;
        while view.applied() < log.tail() && patience > 0 {
            std::thread::sleep(Duration::from_millis(1));
            patience -= 1;
        }
        let tail = log.tail();
        let (documents, rows) = logged(&*log);
        let documents: Vec<_> = documents
            .into_iter()
            .map(|((partition, id), change)| (change, view.document(&partition, &id).unwrap()))
            .collect();
        let rows: Vec<_> =
            rows.into_iter().map(|((table, key), value)| (view.row(table, &key).unwrap(), value)).collect();
        if log.tail() != tail {
            continue;
        }
        assert_eq!(view.applied(), tail);
        for ((lsn, change), found) in documents {
            let wanted = (!change.kind.is_removal()).then_some((lsn, change.body));
            assert_eq!(found.map(|found| (found.lsn, found.body)), wanted);
        }
        for (found, value) in rows {
            assert_eq!(found, value);
        }
        view.verify(&mut |problem| panic!("{problem}")).unwrap();
        return;
    }
    panic!("the log never stands still");
}

type LoggedDocuments = HashMap<(EncodedPartition, DocumentId), (Lsn, DocumentChange)>;
type LoggedRows = HashMap<(Table, Bytes), Option<Bytes>>;

/// What the whole log leaves of documents and rows.
fn logged(log: &dyn LogReader) -> (LoggedDocuments, LoggedRows) {
    let (mut documents, mut rows) = (HashMap::new(), HashMap::new());
    let mut from = log.first();
    loop {
        let groups = log.read(from, 1 << 20).unwrap();
        let Some(last) = groups.last() else { return (documents, rows) };
        from = last.last().next();
        for group in &groups {
            for (i, mutation) in group.mutations.iter().enumerate() {
                match mutation {
                    Mutation::Document(change) => {
                        let lsn = group.first.plus(i as u64);
                        documents
                            .insert((change.partition.clone(), change.id.clone()), (lsn, change.clone()));
                    }
                    Mutation::Event(event) => {
                        let mark = event.mark.iter().map(|mark| (Table::Published, mark.clone()));
                        rows.extend(mark.map(|row| (row, Some(Bytes::new()))));
                    }
                    Mutation::Put { table, key, value } => {
                        rows.insert((*table, key.clone()), Some(value.clone()));
                    }
                    Mutation::Delete { table, key } => {
                        rows.insert((*table, key.clone()), None);
                    }
                }
            }
        }
    }
}
