//! Routers and subscribers that crash, and outcomes that the store does not take.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lanekeeper_actors::model::ids::ShardId;
use lanekeeper_actors::policy::retry::DeadLetterReason;
use lanekeeper_actors::protocol::partition::{Content, Operation};
use lanekeeper_actors::protocol::subscriber::{Selection, SubscriptionStatus};
use lanekeeper_actors::shard::Phase;

use crate::Faults;
use crate::support::{
    AMPLE, Endpoints, assert_nothing_lost, at, config, create, event, eventually, lane, large, owed, patient,
    quick, start, status, stop, subscription, tiny_segments, until, write,
};

#[actix::test]
async fn a_subscriber_that_crashes_comes_back_and_delivers_everything() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let subscriptions = vec![subscription("s", quick(3)), subscription("other", quick(3))];
    let system = start(config(folder.path(), subscriptions), &endpoints).await;
    let partition = lane(&system, "a");
    // Each of the two crashes once, whoever meets it first.
    faults.begin("subscriber::judge", "2*panic->off");
    let mut matched = Vec::new();
    for n in 0..200 {
        let name = if n == 50 || n == 120 { format!("poison-judge-{n}") } else { format!("load-{n}") };
        matched.push(create(&partition, &name).await.unwrap().etag.0);
    }
    for name in ["s", "other"] {
        until(&system, name, |status| status.lag_events == 0 && status.unsettled == 0).await;
        assert_nothing_lost(system.shards(), &endpoints, name, &matched, 3);
        assert_eq!(endpoints.taken(name).len(), 200);
        let twice: usize = endpoints.taken(name).values().map(|times| times - 1).sum();
        assert!(twice <= 16 * 2, "{twice}");
    }
    let mut crashes = 0;
    for subscription in system.subscriptions().iter() {
        let shown = subscription.status().await;
        crashes += shown.restarts;
        assert_eq!(shown.last_crash.is_some(), shown.restarts > 0);
    }
    assert_eq!(crashes, 2);
    stop(system).await;
}

#[actix::test]
async fn past_its_crash_budget_a_subscriber_waits_for_resume_and_then_goes_on() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let mut poisoned = subscription("s", quick(3));
    poisoned.filter =
        lanekeeper_actors::policy::filter::Filter::new(None, Some("a/".into()), None, false).into();
    let mut other = subscription("other", quick(3));
    other.filter =
        lanekeeper_actors::policy::filter::Filter::new(None, Some("b/".into()), None, false).into();
    poisoned.retry = patient();
    let mut config = config(folder.path(), vec![poisoned, other]);
    // It is spent before anybody knows which event it is.
    config.delivery.crash_budget = 1;
    let system = start(config, &endpoints).await;
    let (a, b) = (lane(&system, "a"), lane(&system, "b"));
    endpoints.change(|_| status(500));
    create(&a, "waits-for-a-retry").await.unwrap();
    until(&system, "s", |status| status.retrying == 1 && status.unsettled == 0).await;
    endpoints.change(|_| status(200));
    faults.begin("subscriber::judge", "panic");
    for n in 0..100 {
        let name = if n == 30 { "poison-judge".to_owned() } else { format!("load-{n}") };
        create(&a, &name).await.unwrap();
        create(&b, &format!("load-{n}")).await.unwrap();
    }
    let shown = until(&system, "s", |status| status.quarantined).await;
    assert!(shown.last_crash.unwrap().contains("subscriber::judge"));
    until(&system, "other", |status| status.delivered == 100 && status.unsettled == 0).await;
    assert!(endpoints.by_event("s").len() < 100);
    faults.end("subscriber::judge");
    system.subscription("s").unwrap().resume().await.unwrap();
    let idle =
        |shown: &SubscriptionStatus| shown.lag_events == 0 && shown.retrying == 0 && shown.unsettled == 0;
    let shown = until(&system, "s", idle).await;
    assert!(!shown.quarantined);
    assert_eq!(endpoints.taken("s").len(), 101);
    stop(system).await;
}

#[actix::test]
async fn a_drain_does_not_wait_for_a_subscriber_in_quarantine() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::paced(|_| (status(200), Duration::from_millis(150)));
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    config.delivery.crash_budget = 0;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    faults.begin("subscriber::judge", "panic");
    create(&partition, "poison-judge").await.unwrap();
    until(&system, "s", |status| status.in_flight == 1).await;
    // It crashes for good while the drain waits for its attempt.
    let begin = Instant::now();
    stop(system).await;
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[actix::test]
async fn a_router_that_crashes_comes_back_and_routes_everything() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let subscriptions = vec![subscription("s", quick(3)), subscription("other", quick(3))];
    let mut config = config(folder.path(), subscriptions);
    config.default_shards = 1;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..200 {
        if n % 60 == 30 {
            faults.begin("router::take_hints", "1*panic->off");
        }
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    for name in ["s", "other"] {
        until(&system, name, |status| status.lag_events == 0 && status.unsettled == 0).await;
        let taken = endpoints.taken(name);
        assert_eq!(taken.len(), 200);
        assert!(taken.values().all(|times| *times == 1), "positions are kept over a crash of the router");
    }
    stop(system).await;
}

#[actix::test]
async fn past_its_crash_budget_a_router_waits_for_resume_and_writers_do_not_notice() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    (config.default_shards, config.router.hints) = (1, 8);
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    create(&partition, "first").await.unwrap();
    until(&system, "s", |status| status.delivered == 1).await;
    faults.begin("router::take_hints", "panic");
    for n in 0..101 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    // Its backoffs are 10, 20 and 40 ms; then it gives up.
    tokio::time::sleep(Duration::from_millis(200)).await;
    faults.end("router::take_hints");
    create(&partition, "while-in-quarantine").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let shown = system.subscription("s").unwrap().status().await;
    assert_eq!(shown.delivered, 1);
    assert!(shown.lag_events >= 102);
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 103 && status.lag_events == 0).await;
    stop(system).await;
}

#[actix::test]
async fn an_event_that_crashes_whoever_looks_at_it_is_dead_lettered_and_costs_no_other() {
    for (place, expected, restarts) in [
        ("router::route", ["s", "other"].as_slice(), 0),
        ("router::filter", &["s"], 0),
        ("subscriber::judge", &["s", "other"], 3),
    ] {
        let faults = Faults::none();
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::all_well();
        let subscriptions = vec![subscription("s", patient()), subscription("other", patient())];
        let mut config = config(folder.path(), subscriptions);
        // Without a known culprit it would be left alone for good.
        config.delivery.crash_budget = 3;
        config.router.crash_budget = 0;
        let system = start(config, &endpoints).await;
        let partition = lane(&system, "a");
        faults.begin(place, "panic");
        let mut matched = Vec::new();
        for n in 0..60 {
            let name = if n == 20 {
                format!("poison-{}", place.split_once("::").unwrap().1)
            } else {
                format!("load-{n}")
            };
            matched.push(create(&partition, &name).await.unwrap().etag.0);
        }
        let poison = matched[20];
        for name in ["s", "other"] {
            let given_up = u64::from(expected.contains(&name));
            let at_rest = |shown: &SubscriptionStatus| {
                shown.lag_events == 0 && shown.unsettled == 0 && shown.dead_letters == given_up
            };
            let shown = until(&system, name, at_rest).await;
            let letters = system.subscription(name).unwrap().dead_letters(None, 10).unwrap();
            let ends: Vec<_> =
                letters.iter().map(|letter| (letter.event.position(), letter.reason)).collect();
            if expected.contains(&name) {
                assert_eq!(ends, [(poison, DeadLetterReason::Crashed)], "{place} {name}");
            } else {
                assert_eq!(ends, [], "{place} {name}");
            }
            let taken = endpoints.taken(name);
            let lost = matched.iter().filter(|event| !taken.contains_key(&event.to_string())).count();
            assert!(lost <= ends.len(), "{place} {name}: {lost} lost");
            assert_eq!((shown.quarantined, shown.restarts), (false, restarts), "{place} {name}");
        }
        faults.end(place);
        // Once the fault is mended, a replay delivers it.
        let s = system.subscription("s").unwrap();
        assert_eq!(s.replay(Selection::Events(vec![poison])).await, Ok(1));
        until(&system, "s", |status| {
            status.retrying == 0 && status.dead_letters == 0 && status.unsettled == 0
        })
        .await;
        assert!(endpoints.taken("s").contains_key(&poison.to_string()), "{place}");
        stop(system).await;
    }
}

#[actix::test]
async fn outcomes_that_the_store_does_not_take_are_committed_later_and_the_window_holds() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| match attempt.event_id.as_bytes().last() {
        Some(b'1' | b'2') if attempt.number < 3 => status(500),
        Some(b'3') => status(400),
        _ => status(200),
    });
    let system = start(config(folder.path(), vec![subscription("s", quick(5))]), &endpoints).await;
    let partitions: Vec<_> = (0..8).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    faults.begin("subscriber::settle", "return");
    let names: Vec<_> = (0..25).map(|n| format!("load-{n}")).collect();
    let mut matched = Vec::new();
    for partition in &partitions {
        let written = join_all(names.iter().map(|name| create(partition, name))).await;
        matched.extend(written.into_iter().map(|written| written.unwrap().etag.0));
    }
    until(&system, "s", |status| status.unsettled == 16).await;
    for _ in 0..20 {
        let shown = system.subscription("s").unwrap().status().await;
        assert!(shown.in_flight + shown.unsettled <= 16, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(endpoints.seen("s").len() <= 16, "no attempt without a place in the window");
    faults.end("subscriber::settle");
    let idle =
        |shown: &SubscriptionStatus| shown.lag_events == 0 && shown.retrying == 0 && shown.unsettled == 0;
    let shown = until(&system, "s", idle).await;
    assert_eq!(shown.delivered + shown.dead_letters, 200);
    assert_eq!(shown.dead_letters, shown.given_up);
    assert_nothing_lost(system.shards(), &endpoints, "s", &matched, 5);
    assert!(endpoints.taken("s").values().all(|times| *times == 1));
    stop(system).await;
}

#[actix::test]
async fn the_log_keeps_an_event_until_its_outcome_is_durable() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| status(if attempt.number == 1 { 500 } else { 200 }));
    let mut config = config(folder.path(), vec![subscription("s", patient())]);
    config.default_shards = 1;
    config.shard.log = tiny_segments();
    config.shard.checkpoint_interval = Duration::from_millis(5);
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let first = create(&partition, "x").await.unwrap().etag.0;
    faults.begin("subscriber::settle", "return");
    until(&system, "s", |status| status.unsettled == 1).await;
    // Nobody's events: they only push the log on, and the subscriber's position with it.
    let elsewhere = at(&system, "carriers", None, "a");
    let names: Vec<_> = (0..1_500).map(|n| format!("load-{n}")).collect();
    for (round, names) in names.chunks(50).enumerate() {
        let writes = names.iter().map(|name| {
            let upsert = Operation::Upsert(Content::plain(large(name, 400)));
            elsewhere.write(write(name, upsert), AMPLE)
        });
        assert!(join_all(writes).await.iter().all(Result::is_ok));
        if round % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
    let files = std::fs::read_dir(folder.path().join("shard-00").join("log")).unwrap().count();
    assert!(files > 5, "there was something to let go of: {files}");
    assert!(system.shards()[0].status().first <= first.lsn);
    faults.end("subscriber::settle");
    until(&system, "s", |status| status.retrying == 1 && status.unsettled == 0).await;
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 1 && status.unsettled == 0).await;
    assert_eq!(endpoints.by_event("s")[&first.to_string()], [1, 2]);
    stop(system).await;
}

#[actix::test]
async fn a_subscriber_that_crashes_behind_its_own_commit_starts_with_what_that_commit_says() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::paced(|attempt| {
        let body = String::from_utf8_lossy(&attempt.body).into_owned();
        match (body.contains("poison-judge"), attempt.number) {
            (true, _) => (status(200), Duration::from_millis(250)),
            (false, 1) => (status(500), Duration::from_millis(100)),
            (false, _) => (status(200), Duration::ZERO),
        }
    });
    let mut config = config(folder.path(), vec![subscription("s", patient())]);
    config.default_shards = 1;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let failing = event(create(&partition, "x").await);
    create(&partition, "poison-judge").await.unwrap();
    faults.begin("subscriber::judge", "1*panic->off");
    // The outcome of the first event is sent, and held up before it reaches the disk.
    faults.begin("log::append", "pause");
    until(&system, "s", |status| status.restarts == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(endpoints.by_event("s")[&failing], [1], "it starts before its own commit is answered");
    faults.end("log::append");
    until(&system, "s", |status| status.retrying == 1 && status.delivered == 1 && status.unsettled == 0)
        .await;
    assert_eq!(endpoints.by_event("s")[&failing], [1]);
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 2 && status.unsettled == 0).await;
    assert_eq!(endpoints.by_event("s")[&failing], [1, 2]);
    assert!(owed(&system.shards()[0], "s").retries.is_empty(), "no retry is left that nobody knows of");
    stop(system).await;
}

#[actix::test]
async fn retries_that_could_not_be_read_are_read_when_the_store_is_back() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let mut config = config(folder.path(), vec![subscription("s", patient())]);
    config.delivery.retry_page = 4;
    let system = start(config, &endpoints).await;
    let in_second = |container: &str| {
        let mut all = (0..100).map(|n| at(&system, container, None, &format!("lane-{n}")));
        all.find(|partition| partition.shard() == ShardId(1)).unwrap()
    };
    let (partition, elsewhere) = (in_second("loads"), in_second("carriers"));
    // So few that the endpoint is not left alone.
    for n in 0..9 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| status.retrying == 9 && status.unsettled == 0).await;
    endpoints.change(|_| status(200));
    faults.begin("view::apply", "return");
    // A change that is no event, so that nothing but the subscriber itself looks again.
    let late = actix_rt::spawn(async move { create(&elsewhere, "x").await });
    eventually("it is unavailable", || system.shards()[1].status().phase == Phase::Unavailable).await;
    // The first shard takes the order to resume as soon as its view takes anything.
    let resume = {
        let handle = system.subscription("s").unwrap().clone();
        actix_rt::spawn(async move { handle.resume().await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    faults.end("view::apply");
    late.await.unwrap().unwrap();
    resume.await.unwrap().unwrap();
    until(&system, "s", |status| status.delivered == 9 && status.unsettled == 0).await;
    stop(system).await;
}
