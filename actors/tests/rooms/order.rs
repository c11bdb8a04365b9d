//! Events of one key come one after the other, and a failing one holds back its key alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use lanekeeper_actors::model::delivery::{Attempt, OutcomeKind};
use lanekeeper_actors::protocol::subscriber::SubscriptionStatus;
use lanekeeper_actors::subscriber::{Order, SubscriptionConfig};

use crate::support::{
    Endpoints, Seen, config, create, cut, event, lane, quick, start, status, stop, subscription, until,
};

fn ordered(name: &str, attempts: u32) -> SubscriptionConfig {
    SubscriptionConfig { order: Order::Partition, ..subscription(name, quick(attempts)) }
}

/// The events of each lane in the order in which they were taken at last.
fn taken_in_order(seen: &[Seen], lanes: &HashMap<String, String>) -> HashMap<String, Vec<String>> {
    let mut order: HashMap<String, Vec<String>> = HashMap::new();
    for one in seen.iter().filter(|one| one.outcome == Some(OutcomeKind::Delivered)) {
        order.entry(lanes[&one.event].clone()).or_default().push(one.event.clone());
    }
    order
}

fn lane_of(attempt: &Attempt) -> String {
    let event: serde_json::Value = serde_json::from_slice(&attempt.body).unwrap();
    event["partitionkey"].as_str().unwrap().to_owned()
}

#[actix::test]
async fn events_of_a_key_keep_their_order_whatever_fails_and_no_two_are_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let chance = Mutex::new(fastrand::Rng::with_seed(4));
    let endpoints = Endpoints::paced(move |_| {
        let mut chance = chance.lock().unwrap();
        let code = if chance.u8(..4) == 0 { 500 } else { 200 };
        (status(code), Duration::from_micros(chance.u64(100..2_000)))
    });
    let mut config = config(folder.path(), vec![ordered("s", 30)]);
    config.default_shards = 2;
    let system = start(config, &endpoints).await;
    let mut lanes = HashMap::new();
    let mut written: HashMap<String, Vec<String>> = HashMap::new();
    for n in 0..120 {
        let name = format!("lane-{}", n % 5);
        let id = event(create(&lane(&system, &name), &format!("load-{n}")).await);
        lanes.insert(id.clone(), name.clone());
        written.entry(name).or_default().push(id);
    }
    until(&system, "s", |status| status.delivered == 120 && status.unsettled == 0).await;
    let seen = endpoints.seen("s");
    assert_eq!(taken_in_order(&seen, &lanes), written);
    // No event was tried before the one ahead of it was taken.
    let place = |one: &Seen| written[&lanes[&one.event]].iter().position(|id| *id == one.event);
    for lane in written.keys() {
        assert!(seen.iter().filter(|one| lanes[&one.event] == *lane).map(place).is_sorted(), "{lane}");
    }
    let after = system.subscription("s").unwrap().status().await;
    assert_eq!((after.held, after.retrying, after.dead_letters), (0, 0, 0));
    stop(system).await;
    let report = lanekeeper_actors::verify::directory(folder.path()).unwrap();
    assert_eq!(report.problems, []);
}

#[actix::test]
async fn a_failing_event_holds_back_its_own_key_and_no_other_and_goes_first_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| status(if lane_of(attempt) == "bad" { 500 } else { 200 }));
    // So many attempts, so far apart, that the test sees the wait.
    let mut held = ordered("s", 30);
    held.retry.scale = 0.02;
    let mut config = config(folder.path(), vec![held]);
    config.delivery.queue = 8;
    let system = start(config, &endpoints).await;
    let mut bad = Vec::new();
    for n in 0..40 {
        bad.push(event(create(&lane(&system, "bad"), &format!("bad-{n}")).await));
        create(&lane(&system, "good"), &format!("good-{n}")).await.unwrap();
    }
    // More wait behind the failing one than there is room for in memory.
    let all_wait = |status: &SubscriptionStatus| status.held == 40 && status.retrying == 40;
    until(&system, "s", |status| status.delivered == 40 && all_wait(status)).await;
    assert_eq!(endpoints.by_event("s").iter().filter(|(event, _)| bad.contains(event)).count(), 1);
    // The order outlasts a crash.
    cut(system).await;
    endpoints.change(|_| status(200));
    let mut again = ordered("s", 30);
    again.retry.scale = 0.0005;
    let mut config = crate::support::config(folder.path(), vec![again]);
    config.delivery.queue = 8;
    let system = start(config, &endpoints).await;
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.held == 0 && status.retrying == 0 && status.unsettled == 0).await;
    let seen = endpoints.seen("s");
    let taken: Vec<&String> = seen
        .iter()
        .filter(|one| one.outcome == Some(OutcomeKind::Delivered))
        .map(|one| &one.event)
        .filter(|event| bad.contains(event))
        .collect();
    assert_eq!(taken, bad.iter().collect::<Vec<_>>());
    stop(system).await;
}

#[actix::test]
async fn the_next_event_of_a_key_goes_when_the_failing_one_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let first: Mutex<Option<String>> = Mutex::default();
    let endpoints = Endpoints::new(move |attempt| {
        let mut first = first.lock().unwrap();
        let poison = first.get_or_insert_with(|| attempt.event_id.clone());
        status(if *poison == attempt.event_id { 500 } else { 200 })
    });
    let system = start(config(folder.path(), vec![ordered("s", 3)]), &endpoints).await;
    for n in 0..10 {
        create(&lane(&system, "a"), &format!("load-{n}")).await.unwrap();
    }
    let end = until(&system, "s", |status| status.delivered == 9 && status.dead_letters == 1).await;
    assert_eq!(end.held, 0);
    stop(system).await;
}
