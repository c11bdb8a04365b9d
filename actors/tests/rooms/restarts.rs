//! What survives the end of the process, orderly or not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::protocol::partition::{Content, WriteError};
use lanekeeper_actors::system::System;

use crate::support::{
    Endpoints, Store, assert_nothing_lost, assert_view_is_the_log, config, create, cut, event, lane, large,
    patient, quick, start, status, stop, subscription, tiny_segments, until, write,
};

#[actix::test]
async fn a_backlog_larger_than_any_queue_is_delivered_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    let handle = system.subscription("s").unwrap();
    handle.pause().await.unwrap();
    let partitions: Vec<_> = (0..10).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    let names: Vec<_> = (0..500).map(|n| format!("load-{n}")).collect();
    for names in names.chunks(50) {
        let writes = partitions.iter().flat_map(|partition| names.iter().map(|name| create(partition, name)));
        assert!(join_all(writes).await.iter().all(Result::is_ok));
    }
    let shown = handle.status().await;
    assert_eq!((shown.in_flight, shown.delivered), (0, 0));
    assert!(shown.ready <= 64 && shown.lag_events >= 5_000, "{shown:?}");
    handle.resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 5_000 && status.unsettled == 0).await;
    assert!(endpoints.by_event("s").values().all(|numbers| numbers == &[1]));
    stop(system).await;
}

#[actix::test]
async fn a_pause_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let settings = || config(folder.path(), vec![subscription("s", quick(3))]);
    let system = start(settings(), &endpoints).await;
    system.subscription("s").unwrap().pause().await.unwrap();
    let written = event(create(&lane(&system, "a"), "x").await);
    stop(system).await;
    let system = start(settings(), &endpoints).await;
    assert!(until(&system, "s", |status| status.ready == 1).await.paused);
    assert!(endpoints.seen("s").is_empty());
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 1 && status.unsettled == 0).await;
    stop(system).await;
    let system = start(settings(), &endpoints).await;
    assert!(!system.subscription("s").unwrap().status().await.paused);
    assert_eq!(endpoints.by_event("s")[&written], [1]);
    stop(system).await;
}

#[actix::test]
async fn a_new_subscription_begins_with_the_next_change() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![subscription("old", quick(3))]), &endpoints).await;
    for n in 0..30 {
        create(&lane(&system, &format!("lane-{n}")), "x").await.unwrap();
    }
    until(&system, "old", |status| status.delivered == 30).await;
    stop(system).await;
    let both = vec![subscription("old", quick(3)), subscription("new", quick(3))];
    let system = start(config(folder.path(), both), &endpoints).await;
    let mut expected = BTreeSet::new();
    for n in 0..30 {
        expected.insert(event(create(&lane(&system, &format!("lane-{n}")), "y").await));
    }
    until(&system, "old", |status| status.delivered == 30).await;
    until(&system, "new", |status| status.delivered == 30 && status.lag_events == 0).await;
    assert_eq!(endpoints.taken("new").into_keys().collect::<BTreeSet<_>>(), expected);
    assert!(endpoints.taken("old").values().all(|times| *times == 1));
    stop(system).await;
}

#[actix::test]
async fn the_log_is_let_go_of_once_everybody_has_passed_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints =
        Endpoints::new(|attempt| status(if &*attempt.subscription == "slow" { 500 } else { 200 }));
    let settings = || {
        let subscriptions = vec![subscription("slow", patient()), subscription("rare", quick(3))];
        let mut config = config(folder.path(), subscriptions);
        config.default_shards = 1;
        config.shard.log = tiny_segments();
        config.shard.checkpoint_interval = Duration::from_millis(10);
        config
    };
    let system = start(settings(), &endpoints).await;
    let partition = lane(&system, "a");
    let first = create(&partition, "first").await.unwrap().etag.0;
    until(&system, "slow", |status| status.retrying == 1 && status.unsettled == 0).await;
    // From here on only the first event waits, and only for "slow".
    endpoints.change(|attempt| {
        status(if attempt.number == 1 && &*attempt.subscription == "slow" { 204 } else { 200 })
    });
    let fill = async |round: usize| {
        for n in 0..40 {
            let name = format!("load-{round}-{n}");
            let body = large(&name, 8_000);
            let create = lanekeeper_actors::protocol::partition::Operation::Create(Content::plain(body));
            partition.write(write(&name, create), Duration::from_secs(10)).await.unwrap();
        }
    };
    for round in 0..2 {
        fill(round).await;
        until(&system, "rare", |status| status.lag_events == 0 && status.unsettled == 0).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let before = system.shards()[0].status();
    assert!(before.first <= first.lsn, "the log forgot an event that waits for a retry: {before:?}");
    system.subscription("slow").unwrap().resume().await.unwrap();
    until(&system, "slow", |status| status.retrying == 0 && status.lag_events == 0 && status.unsettled == 0)
        .await;
    let mut round = 2;
    while system.shards()[0].status().first <= first.lsn {
        assert!(round < 12, "the log is never let go of");
        fill(round).await;
        until(&system, "slow", |status| status.lag_events == 0 && status.unsettled == 0).await;
        round += 1;
    }
    let files = std::fs::read_dir(folder.path().join("shard-00").join("log")).unwrap().count();
    assert!(files < 12, "{files} files of 64 KiB for {} documents of 8 KB", round * 40);
    drop(partition);
    stop(system).await;
    // A start on what is left of the log goes on as before.
    let system = start(settings(), &endpoints).await;
    let next = event(create(&lane(&system, "a"), "next").await);
    for name in ["slow", "rare"] {
        until(&system, name, |status| status.delivered >= 1 && status.lag_events == 0).await;
        assert_eq!(endpoints.taken(name)[&next], 1);
        assert!(endpoints.taken(name).values().all(|times| *times == 1));
    }
    stop(system).await;
}

/// Writes into a few partitions until told to stop; keeps what was acknowledged.
fn writers(
    system: &System,
    round: usize,
    over: &Arc<AtomicBool>,
    written: &Arc<Mutex<Vec<Position>>>,
) -> Vec<actix_rt::task::JoinHandle<()>> {
    let writer = |number: usize| {
        let (partition, over, written) =
            (lane(system, &format!("lane-{number}")), over.clone(), written.clone());
        actix_rt::spawn(async move {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                match create(&partition, &format!("load-{round}-{n}")).await {
                    Ok(done) => written.lock().unwrap().push(done.etag.0),
                    Err(
                        WriteError::Unavailable
                        | WriteError::Unknown
                        | WriteError::Busy
                        | WriteError::Overloaded,
                    ) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        })
    };
    (0..4).map(writer).collect()
}

#[actix::test]
async fn ten_ends_in_the_middle_of_everything_lose_nothing() {
    const WINDOW: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let mut rng = fastrand::Rng::with_seed(seed);
    let script = |attempt: &lanekeeper_actors::model::delivery::Attempt| {
        let event: Position = attempt.event_id.parse().unwrap();
        let code = match (&*attempt.subscription, event.lsn.0 % 5) {
            ("flaky", 0) if attempt.number < 3 => 500,
            ("flaky", 1) => 400,
            ("flaky", 2) => 503,
            _ => 200,
        };
        (status(code), Duration::from_millis(event.lsn.0 % 4))
    };
    let endpoints = Endpoints::paced(script);
    let settings = || {
        let mut config =
            config(folder.path(), vec![subscription("well", quick(4)), subscription("flaky", quick(4))]);
        (config.delivery.window, config.delivery.queue, config.delivery.retry_page) = (WINDOW, 12, 8);
        (config.router.hints, config.shard.lazy_delay) = (4, Duration::from_millis(5));
        config
    };
    let written: Arc<Mutex<Vec<Position>>> = Arc::default();
    for round in 0..10 {
        let system = start(settings(), &endpoints).await;
        let over = Arc::new(AtomicBool::new(false));
        let writers = writers(&system, round, &over, &written);
        tokio::time::sleep(Duration::from_millis(rng.u64(5..120))).await;
        if rng.bool() {
            stop(system).await;
        } else {
            cut(system).await;
        }
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let matched = written.lock().unwrap().clone();
    assert!(matched.len() > 100, "only {} writes (seed {seed})", matched.len());
    let store = Store::open(folder.path());
    for name in ["well", "flaky"] {
        assert_nothing_lost(store.shards(), &endpoints, name, &matched, 4);
    }
    store.close().await;
    let mut last = settings();
    (last.delivery.window, last.delivery.queue) = (64, 128);
    let system = start(last, &endpoints).await;
    for name in ["well", "flaky"] {
        until(&system, name, |status| {
            status.lag_events == 0 && status.retrying == 0 && status.unsettled == 0
        })
        .await;
        assert_nothing_lost(system.shards(), &endpoints, name, &matched, 4);
        let twice: usize = endpoints.taken(name).values().map(|times| times - 1).sum();
        assert!(twice <= WINDOW * 10, "{twice} duplicates after 10 restarts (seed {seed})");
    }
    for shard in system.shards() {
        assert_view_is_the_log(shard);
    }
    stop(system).await;
}
