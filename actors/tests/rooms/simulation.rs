//! Random writes, deletes, restarts and moods of endpoints, from a seed; then the store and the
//! endpoints are asked whether anything is missing. `SEED=n` runs one seed again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::delivery::{Attempt, Outcome, OutcomeKind};
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::policy::filter::Filter;
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::protocol::partition::{Content, Operation, WriteError, WriteResult};
use lanekeeper_actors::protocol::subscriber::{Selection, SubscriptionError};
use lanekeeper_actors::shard::ShardHandle;
use lanekeeper_actors::system::{System, SystemConfig};

use crate::support::{
    AMPLE, Endpoints, Store, assert_nothing_lost, assert_view_is_the_log, config, cut, id, lane, start,
    status, stop, subscription, tiny_segments, until, write,
};

const SEEDS: u64 = 20;
const LANES: usize = 6;
const DOCUMENTS: usize = 5;
const MAX_ATTEMPTS: u32 = 4;
const SUBSCRIPTIONS: [&str; 3] = ["all", "deletes", "lane-0"];

/// How an endpoint behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Slow,
    Down,
    Busy,
    Refusing,
    Whimsical,
    Stopping,
    Panicking,
}

const MOODS: [Mood; 8] = [
    Mood::Well,
    Mood::Slow,
    Mood::Down,
    Mood::Busy,
    Mood::Refusing,
    Mood::Whimsical,
    Mood::Stopping,
    Mood::Panicking,
];

fn answer(mood: Mood, attempt: &Attempt) -> (Outcome, Duration) {
    let event: Position = attempt.event_id.parse().unwrap();
    let dice = (event.lsn.0 * 31 + u64::from(attempt.number) * 7) % 10;
    let outcome = match mood {
        Mood::Well | Mood::Slow => status(200),
        Mood::Down => status(500),
        Mood::Busy => Outcome::from_status(503, Some(Duration::from_millis(dice * 4))),
        Mood::Refusing => status(400),
        Mood::Whimsical => status([200, 204, 500, 404, 429, 400, 200, 408, 200, 503][dice as usize]),
        Mood::Stopping => Outcome::failed(OutcomeKind::Aborted, "stopping"),
        // Unwinds like a panic, but does not fill the test's output.
        Mood::Panicking if dice < 3 => std::panic::resume_unwind(Box::new("a transport that panics")),
        Mood::Panicking => status(200),
    };
    let after = if mood == Mood::Slow { Duration::from_millis(dice) } else { Duration::ZERO };
    (outcome, after)
}

/// What was written, as far as it was acknowledged.
#[derive(Debug, Default)]
struct Written {
    events: Vec<(Position, ChangeKind, usize)>,
    /// The last known state of each document: its version, nothing, or unknown.
    documents: HashMap<(usize, usize), Option<Position>>,
    unknown: HashSet<(usize, usize)>,
}

fn settings(folder: &Path, rng: &mut fastrand::Rng, shards: u16) -> SystemConfig {
    let policy = RetryPolicy {
        max_attempts: MAX_ATTEMPTS,
        ttl: Duration::from_secs(600),
        scale: 0.0003,
        probation: true,
    };
    let mut subscriptions: Vec<_> =
        SUBSCRIPTIONS.iter().map(|name| subscription(name, policy.clone())).collect();
    subscriptions[1].filter = Filter::new(Some(vec!["LoadDeleted".into()]), None, None, false).into();
    subscriptions[2].filter = Filter::new(None, Some("lane-0/".into()), None, false).into();
    let mut config = config(folder, subscriptions);
    config.default_shards = shards;
    config.partition_threads = rng.usize(1..3);
    config.directory.awake = rng.usize(2..10);
    config.directory.idle = Duration::from_millis(rng.u64(5..50));
    config.directory.partition.batch_writes = rng.usize(1..8);
    config.delivery.window = rng.usize(1..12);
    config.delivery.queue = rng.usize(1..30);
    config.delivery.retry_page = rng.usize(1..10);
    config.delivery.backoff = Duration::from_millis(2);
    config.delivery.timeout = Duration::from_millis(500);
    config.router.hints = rng.usize(0..6);
    config.router.read_chunk = rng.usize(1..10_000);
    config.shard.lazy_delay = Duration::from_millis(rng.u64(0..15));
    config.shard.batch_mutations = rng.usize(1..50);
    config.shard.checkpoint_interval = Duration::from_millis(rng.u64(1..30));
    config.shard.read_chunk = rng.usize(1..10_000);
    config.shard.log = tiny_segments();
    config
}

/// One document of one lane is written by one task at a time, so that the end state is known.
async fn write_lane(
    number: usize,
    partition: PartitionHandle,
    seed: u64,
    over: Arc<AtomicBool>,
    written: Arc<Mutex<Written>>,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !over.load(Ordering::Relaxed) {
        let document = rng.usize(0..DOCUMENTS);
        let name = format!("load-{document}");
        let body = format!("{{\"id\":\"{name}\",\"pad\":\"{}\"}}", "x".repeat(rng.usize(0..600)));
        let operation = match rng.u8(0..10) {
            0..3 => Operation::Create(Content::plain(body.into())),
            3..7 => Operation::Upsert(Content::plain(body.into())),
            7 => Operation::Replace(Content::plain(body.into())),
            _ => Operation::Delete,
        };
        let result = partition.write(write(&name, operation), AMPLE).await;
        note(&written, (number, document), result).await;
    }
}

async fn note(written: &Mutex<Written>, key: (usize, usize), result: WriteResult) {
    match result {
        Ok(done) => {
            let mut written = written.lock().unwrap();
            written.events.push((done.etag.0, done.kind.unwrap(), key.0));
            let there = (done.kind != Some(ChangeKind::Delete)).then_some(done.etag.0);
            written.documents.insert(key, there);
            written.unknown.remove(&key);
        }
        Err(WriteError::Exists | WriteError::NotFound) => {}
        Err(WriteError::Unknown) => drop(written.lock().unwrap().unknown.insert(key)),
        Err(WriteError::Busy | WriteError::Overloaded | WriteError::Unavailable) => {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(other) => panic!("{other}"),
    }
}

/// What operators do now and then.
async fn meddle(system: &System, rng: &mut fastrand::Rng) {
    let handle = &system.subscriptions()[rng.usize(0..SUBSCRIPTIONS.len())];
    let result = match rng.u8(0..4) {
        0 => handle.pause().await,
        1 | 2 => handle.resume().await,
        _ => handle.replay(Selection::All).await.map(drop),
    };
    assert!(!matches!(result, Err(SubscriptionError::Corrupt)), "{result:?}");
}

fn matched(written: &Written, subscription: &str) -> Vec<Position> {
    let wanted = written.events.iter().filter(|(_, kind, lane)| match subscription {
        "deletes" => *kind == ChangeKind::Delete,
        "lane-0" => *lane == 0,
        _ => true,
    });
    wanted.map(|(position, _, _)| *position).collect()
}

fn check(shards: &[ShardHandle], endpoints: &Endpoints, written: &Written) {
    for name in SUBSCRIPTIONS {
        assert_nothing_lost(shards, endpoints, name, &matched(written, name), MAX_ATTEMPTS);
    }
    for ((number, document), there) in &written.documents {
        if written.unknown.contains(&(*number, *document)) {
            continue;
        }
        let key = vec![KeyPart::String(format!("lane-{number}"))];
        let partition = PartitionAddress { container: "loads".into(), tenant: None, key }.encode();
        let shard = &shards[usize::from(partition.shard(shards.len() as u16).0)];
        let found = shard.view().unwrap().document(&partition, &id(&format!("load-{document}"))).unwrap();
        let found = found.map(|found| found.lsn);
        assert_eq!(found, there.map(|position| position.lsn), "lane {number}, document {document}");
    }
}

async fn simulate(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let moods: Arc<Mutex<BTreeMap<&str, Mood>>> = Arc::default();
    let endpoints = {
        let moods = moods.clone();
        Endpoints::paced(move |attempt| {
            let mood = moods.lock().unwrap().get(&*attempt.subscription).copied();
            answer(mood.unwrap_or(Mood::Well), attempt)
        })
    };
    let written: Arc<Mutex<Written>> = Arc::default();
    let (shards, lives) = (rng.u16(1..4), rng.usize(2..5));
    let mut windows = 0;
    for _ in 0..lives {
        let config = settings(folder.path(), &mut rng, shards);
        windows += config.delivery.window;
        let system = start(config, &endpoints).await;
        let over = Arc::<AtomicBool>::default();
        let begin = |number: usize| {
            let partition = lane(&system, &format!("lane-{number}"));
            let task = write_lane(number, partition, rng.u64(..), over.clone(), written.clone());
            actix_rt::spawn(task)
        };
        let writers: Vec<_> = (0..LANES).map(begin).collect();
        for _ in 0..rng.usize(1..5) {
            for name in SUBSCRIPTIONS {
                moods.lock().unwrap().insert(name, *rng.choice(&MOODS).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(1..25))).await;
            meddle(&system, &mut rng).await;
        }
        if rng.bool() {
            cut(system).await;
        } else {
            // An endpoint that puts everything back must not keep a drain from ending.
            stop(system).await;
        }
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let store = Store::open(folder.path());
        check(store.shards(), &endpoints, &written.lock().unwrap());
        store.close().await;
    }
    let mut config = settings(folder.path(), &mut rng, shards);
    (config.delivery.window, config.delivery.queue) = (16, 64);
    windows += 16;
    let system = start(config, &endpoints).await;
    let written = std::mem::take(&mut *written.lock().unwrap());
    // Once more all goes wrong; then all is well, and nobody is restarted to get over it.
    for _ in 0..3 {
        for name in SUBSCRIPTIONS {
            moods.lock().unwrap().insert(name, *rng.choice(&MOODS).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(1..25))).await;
        meddle(&system, &mut rng).await;
    }
    moods.lock().unwrap().clear();
    for subscription in system.subscriptions().iter() {
        subscription.resume().await.unwrap();
        let name = subscription.name();
        until(&system, name, |status| {
            status.lag_events == 0 && status.retrying == 0 && status.unsettled == 0
        })
        .await;
        assert_eq!(subscription.status().await.restarts, 0);
        let dead = subscription.dead_letters(None, usize::MAX).unwrap().len() as u64;
        assert_eq!(subscription.status().await.dead_letters, dead);
        assert_eq!(subscription.replay(Selection::All).await, Ok(dead as usize));
        until(&system, name, |status| status.retrying == 0 && status.unsettled == 0).await;
        let taken = endpoints.taken(name);
        for event in matched(&written, name) {
            assert!(taken.contains_key(&event.to_string()), "{name} never got {event}");
        }
        let twice: usize = taken.values().map(|times| times - 1).sum();
        assert!(twice <= windows, "{twice} duplicates of {name} after windows of {windows} in all");
    }
    check(system.shards(), &endpoints, &written);
    for shard in system.shards() {
        assert_view_is_the_log(shard);
    }
    stop(system).await;
}

#[actix::test]
async fn whatever_happens_every_event_is_delivered_dead_lettered_or_pending() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..1 + SEEDS,
    };
    for seed in seeds {
        // Shown when the test fails: the last one is the seed to run again.
        println!("seed {seed}");
        simulate(seed).await;
    }
}
