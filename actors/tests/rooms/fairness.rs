//! What subscriptions are promised about each other: nobody waits for anybody else's endpoint.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use lanekeeper_actors::model::topic::{EventTypes, Topic};
use lanekeeper_actors::policy::filter::Filter;
use lanekeeper_actors::policy::retry::DeadLetterReason;
use lanekeeper_actors::protocol::partition::{Content, Operation};
use lanekeeper_actors::protocol::subscriber::Selection;

use crate::support::{
    AMPLE, Endpoints, assert_nothing_lost, at, config, create, event, lane, large, patient, quick, start,
    status, stop, subscription, until, upsert, write,
};

#[actix::test]
async fn an_endpoint_that_never_answers_delays_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::paced(|attempt| match &*attempt.subscription {
        "hung" => (Outcome::failed(OutcomeKind::TimedOut, "deadline"), attempt.timeout),
        _ => (status(204), Duration::ZERO),
    });
    let mut config =
        config(folder.path(), vec![subscription("hung", patient()), subscription("well", quick(3))]);
    config.delivery.timeout = Duration::from_millis(700);
    (config.delivery.window, config.delivery.queue) = (4, 8);
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let begin = Instant::now();
    for n in 0..200 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    let written = begin.elapsed();
    until(&system, "well", |status| status.delivered == 200).await;
    let late = begin.elapsed().saturating_sub(written);
    assert!(late < Duration::from_millis(700), "the healthy one was {late:?} behind");
    // The hung one takes up no more than its window, and goes through it a deadline at a time.
    assert!(endpoints.most_at_once("hung") <= 4);
    let status = until(&system, "hung", |status| status.retrying >= 4).await;
    assert_eq!(status.delivered, 0);
    // The attempts under way end within their deadline, so a drain does too.
    stop(system).await;
}

#[actix::test]
async fn never_more_than_the_window_is_under_way_or_undecided() {
    for (window, queue) in [(1, 1), (3, 2), (7, 64)] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::paced(|attempt| {
            let odd = attempt.event_id.ends_with(['1', '3', '5', '7', '9']);
            (status(if odd && attempt.number < 3 { 500 } else { 200 }), Duration::from_millis(1))
        });
        let mut config = config(folder.path(), vec![subscription("s", quick(9))]);
        (config.delivery.window, config.delivery.queue) = (window, queue);
        let system = start(config, &endpoints).await;
        let partition = lane(&system, "a");
        let count = 60 * window as u64;
        let names: Vec<_> = (0..count).map(|n| format!("load-{n}")).collect();
        for names in names.chunks(32) {
            assert!(
                join_all(names.iter().map(|name| create(&partition, name))).await.iter().all(Result::is_ok)
            );
            let status = system.subscription("s").unwrap().status().await;
            assert!(status.in_flight + status.unsettled <= window);
            assert!(status.ready <= queue.max(2));
        }
        until(&system, "s", |status| status.delivered == count && status.unsettled == 0).await;
        assert!(endpoints.most_at_once("s") <= window);
        stop(system).await;
    }
}

#[actix::test]
async fn each_subscription_gets_what_its_filter_lets_through_from_every_shard() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let with = |name: &str, types: Option<&[&str]>, begins: Option<&str>, ends: Option<&str>| {
        let types = types.map(|types| types.iter().map(|name| (*name).into()).collect());
        let filter = Filter::new(types, begins.map(str::to_owned), ends.map(str::to_owned), false);
        lanekeeper_actors::subscriber::SubscriptionConfig {
            filter: filter.into(),
            ..subscription(name, quick(3))
        }
    };
    let mut creates_only = with("topic-without-deletes", None, None, None);
    let types = EventTypes { created: Some("LoadCreated".into()), ..EventTypes::default() };
    creates_only.topic = Topic::of_changes("creates".into(), "loads".into(), types).into();
    let subscriptions = vec![
        with("all", None, None, None),
        with("deleted", Some(&["LoadDeleted"]), None, None),
        with("lane-1", None, Some("LANE-1/"), None),
        with("created-5", Some(&["LoadCreated"]), None, Some("load-5")),
        with("nothing", Some(&[]), None, None),
        creates_only,
    ];
    let mut config = config(folder.path(), subscriptions);
    config.default_shards = 4;
    let system = start(config, &endpoints).await;
    let (mut all, mut deleted, mut lane_1, mut created_5, mut created) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for number in 0..12 {
        let partition = lane(&system, &format!("lane-{number}"));
        for n in 0..8 {
            let name = format!("load-{n}");
            let mut mine = vec![event(create(&partition, &name).await)];
            created.insert(mine[0].clone());
            if n == 5 {
                created_5.insert(mine[0].clone());
            }
            mine.push(event(upsert(&partition, &name).await));
            if n % 2 == 0 {
                mine.push(event(partition.write(write(&name, Operation::Delete), AMPLE).await));
                deleted.insert(mine[2].clone());
            }
            if number == 1 {
                lane_1.extend(mine.clone());
            }
            all.extend(mine);
        }
        // Another container's changes are nobody's business.
        create(&at(&system, "carriers", None, &format!("lane-{number}")), "x").await.unwrap();
    }
    let used: BTreeSet<_> = all.iter().map(|event| event.split('-').next().unwrap().to_owned()).collect();
    assert_eq!(used.len(), 4, "all shards have a part");
    for (name, expected) in [
        ("all", all),
        ("deleted", deleted),
        ("lane-1", lane_1),
        ("created-5", created_5),
        ("nothing", BTreeSet::new()),
        ("topic-without-deletes", created),
    ] {
        let count = expected.len() as u64;
        until(&system, name, |status| status.delivered == count && status.lag_events == 0).await;
        assert_eq!(endpoints.taken(name).into_keys().collect::<BTreeSet<_>>(), expected, "{name}");
    }
    stop(system).await;
}

#[actix::test]
async fn a_long_backlog_of_one_does_not_hold_up_another_that_missed_a_hint() {
    const BACKLOG: u64 = 800;
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let subscriptions = vec![subscription("behind", quick(3)), subscription("well", quick(3))];
    let mut config = config(folder.path(), subscriptions);
    // No hints at all: everybody reads the log, one record at a time, so that reading is what takes long.
    (config.router.hints, config.router.read_chunk, config.default_shards) = (0, 1, 1);
    config.delivery.queue = 256;
    let system = start(config, &endpoints).await;
    let behind = system.subscription("behind").unwrap();
    behind.pause().await.unwrap();
    let partition = lane(&system, "a");
    for n in 0..BACKLOG {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "well", |status| status.delivered == BACKLOG).await;
    behind.resume().await.unwrap();
    create(&partition, "now").await.unwrap();
    until(&system, "well", |status| status.delivered == BACKLOG + 1).await;
    let done = behind.status().await.delivered;
    assert!(done < BACKLOG * 9 / 10, "`well` had to wait until `behind` had {done}");
    until(&system, "behind", |status| status.delivered == BACKLOG + 1).await;
    stop(system).await;
}

#[actix::test]
async fn a_transport_that_panics_or_never_ends_costs_one_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::paced(|attempt| {
        if attempt.number == 1 && attempt.event_id.ends_with('1') {
            // Unwinds like a panic, but does not fill the test's output.
            std::panic::resume_unwind(Box::new("a transport that panics"));
        }
        let never = attempt.number == 1 && attempt.event_id.ends_with('2');
        (status(200), if never { Duration::from_secs(3_600) } else { Duration::ZERO })
    });
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    (config.delivery.window, config.delivery.timeout) = (40, Duration::from_millis(50));
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let mut matched = Vec::new();
    for n in 0..60 {
        matched.push(create(&partition, &format!("load-{n}")).await.unwrap().etag.0);
    }
    let shown = until(&system, "s", |status| status.delivered == 60 && status.unsettled == 0).await;
    let failed = endpoints.by_event("s").values().filter(|numbers| **numbers == [1, 2]).count();
    assert_eq!((shown.restarts, shown.failed_attempts), (0, failed as u64));
    assert!(failed >= 2);
    assert_nothing_lost(system.shards(), &endpoints, "s", &matched, 3);
    stop(system).await;
}

#[actix::test]
async fn a_window_full_of_large_events_can_be_given_up_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(400));
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    let partition = lane(&system, "a");
    let mut matched = Vec::new();
    for n in 0..14 {
        let name = format!("load-{n}");
        let create = Operation::Create(Content::plain(large(&name, 1 << 20)));
        matched.push(partition.write(write(&name, create), AMPLE).await.unwrap().etag.0);
    }
    until(&system, "s", |status| status.dead_letters == 14 && status.unsettled == 0).await;
    let handle = system.subscription("s").unwrap();
    for letter in handle.dead_letters(None, 100).unwrap() {
        assert_eq!(letter.reason, DeadLetterReason::UndeliverableDueToHttpBadRequest);
        assert_eq!(letter.attempts, 1);
    }
    endpoints.change(|_| status(200));
    assert_eq!(handle.replay(Selection::All).await, Ok(14));
    until(&system, "s", |status| status.delivered == 14 && status.unsettled == 0).await;
    assert_nothing_lost(system.shards(), &endpoints, "s", &matched, 3);
    for seen in endpoints.seen("s") {
        assert!(seen.body.len() > 1 << 20);
    }
    stop(system).await;
}
