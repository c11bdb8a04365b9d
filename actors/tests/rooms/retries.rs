//! What becomes of an event that failed: its schedule, its end, and what operators do about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_actors::kernel::clock::{Clock, SharedClock, SystemClock};
use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::retry::{DeadLetterReason, RetryPolicy};
use lanekeeper_actors::protocol::subscriber::Selection;

use crate::support::{
    Endpoints, assert_nothing_lost, config, create, event, lane, owed, patient, quick, start, start_at,
    status, stop, subscription, until,
};

#[actix::test]
async fn an_event_older_than_its_time_to_live_is_given_up_when_its_attempt_falls_due() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    // Attempts after 0, 50 and 200 ms; the next would be after 500 ms.
    let policy =
        RetryPolicy { max_attempts: 10, ttl: Duration::from_millis(350), scale: 0.005, probation: false };
    let system = start(config(folder.path(), vec![subscription("s", policy)]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..10 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| status.dead_letters == 10).await;
    let numbers = endpoints.by_event("s");
    for letter in system.subscription("s").unwrap().dead_letters(None, 100).unwrap() {
        assert_eq!(letter.reason, DeadLetterReason::TimeToLiveExceeded);
        assert_eq!(letter.last_outcome, Some(OutcomeKind::Rejected));
        assert_eq!(letter.attempts as usize, numbers[&letter.event.position().to_string()].len());
        assert!((1..=3).contains(&letter.attempts), "{}", letter.attempts);
        assert!(letter.at.since(letter.published) > Duration::from_millis(350));
    }
    stop(system).await;
}

/// A clock that goes on by itself while it is looked at, as one does that is looked at seldom.
#[derive(Debug)]
struct Hasty {
    real: SharedClock,
    looks: AtomicU64,
}

impl Hasty {
    fn ahead(&self) -> Duration {
        Duration::from_millis(3 * self.looks.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        self.real.now().after(self.ahead())
    }

    fn elapsed(&self) -> Duration {
        self.real.elapsed() + self.ahead()
    }
}

#[actix::test]
async fn a_retry_that_falls_due_between_two_looks_at_the_clock_is_not_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let policy = RetryPolicy { max_attempts: 6, scale: 0.0005, ..quick(6) };
    // One event each, so that no other event makes its subscription look again.
    let names: Vec<_> = (0..20).map(|n| format!("s{n}")).collect();
    let subscriptions = names.iter().map(|name| subscription(name, policy.clone())).collect();
    let clock = Hasty { real: SystemClock::shared(), looks: AtomicU64::new(0) };
    let system = start_at(config(folder.path(), subscriptions), &endpoints, Arc::new(clock)).await;
    create(&lane(&system, "a"), "load").await.unwrap();
    for name in &names {
        until(&system, name, |status| status.dead_letters == 1).await;
    }
    stop(system).await;
}

#[actix::test]
async fn an_event_that_waited_past_its_time_to_live_is_not_sent_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let policy =
        RetryPolicy { max_attempts: 10, ttl: Duration::from_millis(100), scale: 1.0, probation: false };
    let system = start(config(folder.path(), vec![subscription("s", policy)]), &endpoints).await;
    let handle = system.subscription("s").unwrap();
    handle.pause().await.unwrap();
    let partition = lane(&system, "a");
    for n in 0..100 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(120)).await;
    handle.resume().await.unwrap();
    until(&system, "s", |status| status.dead_letters == 100 && status.unsettled == 0).await;
    assert!(endpoints.seen("s").is_empty());
    let letters = handle.dead_letters(None, 1_000).unwrap();
    assert!(letters.iter().all(|letter| letter.attempts == 0));
    assert!(letters.iter().all(|letter| letter.reason == DeadLetterReason::TimeToLiveExceeded));
    // A replay counts its age anew.
    assert_eq!(handle.replay(Selection::All).await, Ok(100));
    until(&system, "s", |status| status.delivered == 100).await;
    stop(system).await;
}

#[actix::test]
async fn a_hopeless_answer_is_given_up_after_one_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| status(attempt.subscription.parse().unwrap()));
    let codes = [
        ("400", DeadLetterReason::UndeliverableDueToHttpBadRequest),
        ("401", DeadLetterReason::UndeliverableDueToHttpUnauthorized),
        ("403", DeadLetterReason::UndeliverableDueToHttpForbidden),
        ("413", DeadLetterReason::UndeliverableDueToHttpPayloadTooLarge),
    ];
    let subscriptions = codes.iter().map(|(code, _)| subscription(code, quick(9))).collect();
    let system = start(config(folder.path(), subscriptions), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..40 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    for (code, reason) in codes {
        until(&system, code, |status| status.dead_letters == 40 && status.unsettled == 0).await;
        assert!(endpoints.by_event(code).values().all(|numbers| numbers == &[1]));
        let letters = system.subscription(code).unwrap().dead_letters(None, 100).unwrap();
        assert!(
            letters.iter().all(|letter| letter.reason == reason && letter.last_status == code.parse().ok())
        );
    }
    stop(system).await;
}

#[actix::test]
async fn retry_after_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let wait = Duration::from_millis(250);
    let endpoints = Endpoints::new(move |attempt| match attempt.number {
        1 => Outcome::from_status(503, Some(wait)),
        _ => status(200),
    });
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..20 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| status.delivered == 20).await;
    let mut first = HashMap::new();
    for seen in endpoints.seen("s") {
        match seen.number {
            1 => drop(first.insert(seen.event, seen.at)),
            _ => {
                let waited = seen.at.duration_since(first[&seen.event]);
                // The schedule counts whole milliseconds of the wall clock.
                assert!(waited >= wait - Duration::from_millis(2), "{waited:?}");
            }
        }
    }
    stop(system).await;
}

#[actix::test]
async fn more_retries_than_fit_into_memory_are_all_made_in_the_order_of_their_times() {
    const COUNT: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| {
        let event: Position = attempt.event_id.parse().unwrap();
        // Times that do not follow the order of the events.
        let wait = Duration::from_millis(500 + event.lsn.0 * 7_919 % 600);
        if attempt.number == 1 { Outcome::from_status(503, Some(wait)) } else { status(200) }
    });
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    (config.delivery.retry_page, config.delivery.window, config.default_shards) = (8, 32, 3);
    let system = start(config, &endpoints).await;
    let partitions: Vec<_> = (0..15).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    let names: Vec<_> = (0..COUNT / 15).map(|n| format!("load-{n}")).collect();
    let writes = partitions.iter().flat_map(|partition| names.iter().map(|name| create(partition, name)));
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    until(&system, "s", |status| status.retrying == COUNT as u64 && status.unsettled == 0).await;
    let mut times = HashMap::new();
    for shard in system.shards() {
        for (lsn, row) in owed(shard, "s").retries {
            times.insert(Position { shard: shard.id(), lsn }.to_string(), row.next_at);
        }
    }
    assert_eq!(times.len(), COUNT, "all first attempts were over before the first retry fell due");
    until(&system, "s", |status| status.delivered == COUNT as u64).await;
    let made: Vec<_> = endpoints.seen("s").into_iter().filter(|seen| seen.number == 2).collect();
    assert_eq!(made.len(), COUNT);
    let mut sorted: Vec<_> = made.iter().map(|seen| times[&seen.event]).collect();
    let order = sorted.clone();
    sorted.sort_unstable();
    let place: BTreeMap<_, _> = sorted.iter().enumerate().map(|(place, time)| (*time, place)).collect();
    for (made, time) in order.iter().enumerate() {
        // Those that are due together are read from the disk together and may change places.
        let displaced = place[time].abs_diff(made);
        assert!(displaced <= 32, "the retry of place {} was made as number {made}", place[time]);
    }
    stop(system).await;
}

#[actix::test]
async fn resume_tries_everything_now_also_what_did_not_fit_into_memory() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let mut config = config(folder.path(), vec![subscription("s", patient())]);
    config.delivery.retry_page = 8;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..100 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| status.retrying == 100 && status.unsettled == 0).await;
    endpoints.change(|_| status(200));
    system.subscription("s").unwrap().resume().await.unwrap();
    let status = until(&system, "s", |status| status.delivered == 100 && status.unsettled == 0).await;
    assert_eq!((status.retrying, status.dead_letters), (0, 0));
    assert!(endpoints.by_event("s").values().all(|numbers| numbers == &[1, 2]));
    stop(system).await;
}

#[actix::test]
async fn resume_at_an_endpoint_that_is_still_broken_tries_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let mut config = config(folder.path(), vec![subscription("s", patient())]);
    config.delivery.retry_page = 64;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..60 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| status.retrying == 60 && status.unsettled == 0).await;
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.failed_attempts == 120 && status.unsettled == 0).await;
    // Were anything tried a third time, it would be at once.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(endpoints.by_event("s").values().all(|numbers| numbers == &[1, 2]));
    stop(system).await;
}

#[actix::test]
async fn an_attempt_that_was_not_made_counts_for_nothing_and_is_made_later() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Arc::new(AtomicBool::new(true));
    let script = {
        let gone = gone.clone();
        move |attempt: &lanekeeper_actors::model::delivery::Attempt| match attempt.number {
            1 => status(500),
            _ if gone.load(Ordering::Relaxed) => Outcome::failed(OutcomeKind::Aborted, "stopping"),
            _ => status(200),
        }
    };
    let endpoints = Endpoints::new(script);
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    create(&lane(&system, "a"), "x").await.unwrap();
    until(&system, "s", |status| status.retrying == 1 && status.failed_attempts == 1).await;
    crate::support::eventually("it is tried again", || endpoints.seen("s").len() > 3).await;
    gone.store(false, Ordering::Relaxed);
    let shown = until(&system, "s", |status| status.delivered == 1).await;
    assert_eq!((shown.failed_attempts, shown.dead_letters), (1, 0));
    assert!(endpoints.seen("s").iter().all(|seen| seen.number <= 2));
    stop(system).await;
}

#[actix::test]
async fn a_replay_beside_running_retries_delivers_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| {
        let event: Position = attempt.event_id.parse().unwrap();
        status(if event.lsn.0.is_multiple_of(2) { 400 } else { 500 })
    });
    let mut config = config(folder.path(), vec![subscription("s", quick(30))]);
    config.delivery.retry_page = 8;
    config.shard.lazy_delay = Duration::from_millis(2);
    let system = start(config, &endpoints).await;
    let partitions: Vec<_> = (0..4).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    let names: Vec<_> = (0..50).map(|n| format!("load-{n}")).collect();
    let mut matched = Vec::new();
    for partition in &partitions {
        let written = join_all(names.iter().map(|name| create(partition, name))).await;
        matched.extend(written.into_iter().map(|written| written.unwrap().etag.0));
    }
    let dead = matched.iter().filter(|event| event.lsn.0.is_multiple_of(2)).count();
    until(&system, "s", |status| status.dead_letters >= dead as u64).await;
    // From here on all is well: retries run, and two operators replay at the same time.
    endpoints.change(|_| status(200));
    let handle = system.subscription("s").unwrap();
    let (one, two) = tokio::join!(handle.replay(Selection::All), handle.replay(Selection::All));
    assert_eq!(one.unwrap() + two.unwrap(), dead);
    let shown = until(&system, "s", |status| status.delivered == 200 && status.unsettled == 0).await;
    assert_eq!((shown.retrying, shown.dead_letters), (0, 0));
    assert!(endpoints.taken("s").values().all(|times| *times == 1));
    assert_nothing_lost(system.shards(), &endpoints, "s", &matched, 30);
    stop(system).await;
}

#[actix::test]
async fn a_replay_by_ids_finds_them_among_others_that_are_no_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| {
        let event: Position = attempt.event_id.parse().unwrap();
        status(if event.lsn.0 > 200 { 400 } else { 200 })
    });
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    config.default_shards = 1;
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let mut matched = Vec::new();
    while matched.last().is_none_or(|last: &Position| last.lsn.0 <= 220) {
        let name = format!("load-{}", matched.len());
        matched.push(create(&partition, &name).await.unwrap().etag.0);
    }
    let dead = matched.iter().filter(|event| event.lsn.0 > 200).count();
    until(&system, "s", |status| status.dead_letters == dead as u64 && status.unsettled == 0).await;
    endpoints.change(|_| status(200));
    assert_eq!(system.subscription("s").unwrap().replay(Selection::Events(matched.clone())).await, Ok(dead));
    until(&system, "s", |status| status.delivered == matched.len() as u64).await;
    stop(system).await;
}

#[actix::test]
async fn a_purge_forgets_dead_letters_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints =
        Endpoints::new(|attempt| status(if attempt.subscription.starts_with('b') { 400 } else { 200 }));
    let subscriptions = vec![subscription("broken", quick(3)), subscription("b", quick(3))];
    let system = start(config(folder.path(), subscriptions), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..100 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    for name in ["broken", "b"] {
        until(&system, name, |status| status.dead_letters == 100 && status.unsettled == 0).await;
    }
    let (broken, other) = (system.subscription("broken").unwrap(), system.subscription("b").unwrap());
    let some = broken.dead_letters(None, 10).unwrap().iter().map(|letter| letter.event.position()).collect();
    assert_eq!(broken.purge(Selection::Events(some)).await, Ok(10));
    assert_eq!(broken.status().await.dead_letters, 90);
    assert_eq!(broken.purge(Selection::All).await, Ok(90));
    assert_eq!(broken.purge(Selection::All).await, Ok(0));
    assert_eq!(broken.status().await.dead_letters, 0);
    assert!(broken.dead_letters(None, 10).unwrap().is_empty());
    assert_eq!(other.dead_letters(None, 1_000).unwrap().len(), 100, "names that begin alike are not one");
    stop(system).await;
}

#[actix::test]
async fn events_of_one_partition_are_first_sent_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let endpoints = {
        let order = order.clone();
        Endpoints::new(move |attempt| {
            order.lock().unwrap().push(attempt.event_id.clone());
            status(200)
        })
    };
    let mut config = config(folder.path(), vec![subscription("s", quick(3))]);
    (config.delivery.window, config.delivery.queue) = (1, 4);
    let system = start(config, &endpoints).await;
    let partition = lane(&system, "a");
    let mut events = Vec::new();
    for n in 0..60 {
        events.push(event(create(&partition, &format!("load-{n}")).await));
    }
    until(&system, "s", |status| status.delivered == 60).await;
    assert_eq!(*order.lock().unwrap(), events);
    stop(system).await;
}
