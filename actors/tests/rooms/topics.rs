//! What is published to a topic is told to its subscribers, once, and what the system tells of itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::model::cloudevent::{CloudEvent, Data, Extension};
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::model::topic::{SYSTEM_TOPIC, Topic};
use lanekeeper_actors::policy::retry::{DeadLetterReason, RetryPolicy};
use lanekeeper_actors::protocol::subscriber::ReplayRequest;
use lanekeeper_actors::protocol::topic::Published;
use lanekeeper_actors::subscriber::{BatchSettings, Destination, SubscriptionConfig, Webhook};
use lanekeeper_actors::system::{System, SystemConfig};
use serde_json::Value;

use crate::support::{
    AMPLE, Endpoints, config, create, cut, lane, quick, start, status, stop, subscription, until,
};

fn topic(name: &str) -> Arc<Topic> {
    Arc::new(Topic::published(name.into()))
}

fn listening(name: &str, topic: &Arc<Topic>) -> SubscriptionConfig {
    SubscriptionConfig { topic: topic.clone(), ..subscription(name, quick(3)) }
}

fn with_topics(
    folder: &std::path::Path,
    topics: &[&Arc<Topic>],
    all: Vec<SubscriptionConfig>,
) -> SystemConfig {
    let mut config = config(folder, all);
    config.topics = topics.iter().map(|topic| (*topic).clone()).collect();
    config
}

fn made(id: &str) -> CloudEvent {
    CloudEvent { data: Data::Json(r#"{"n": 1.50}"#.into()), ..CloudEvent::new(id, "/partner", "Booked") }
}

async fn publish(system: &System, topic: &str, ids: &[&str]) -> Published {
    let events = ids.iter().map(|id| made(id)).collect();
    system.topic(topic).unwrap().publish(events, None, AMPLE).await.unwrap()
}

#[actix::test]
async fn an_event_is_taken_once_however_often_it_is_published_and_after_a_crash_too() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoints, partner) = (Endpoints::all_well(), topic("partner"));
    let all = || vec![listening("s", &partner)];
    let system = start(with_topics(folder.path(), &[&partner], all()), &endpoints).await;
    assert_eq!(publish(&system, "partner", &["a", "b", "a"]).await, Published { taken: 2, duplicates: 1 });
    assert_eq!(publish(&system, "partner", &["b"]).await, Published { taken: 0, duplicates: 1 });
    let many = (0..20).map(|_| {
        let topic = system.topic("partner").unwrap().clone();
        actix::spawn(async move { topic.publish(vec![made("c")], None, AMPLE).await.unwrap().taken })
    });
    let taken: usize = futures_util::future::join_all(many).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(taken, 1);
    until(&system, "s", |status| status.delivered == 3).await;
    cut(system).await;
    let system = start(with_topics(folder.path(), &[&partner], all()), &endpoints).await;
    assert_eq!(publish(&system, "partner", &["c", "d"]).await, Published { taken: 1, duplicates: 1 });
    until(&system, "s", |status| status.delivered >= 1 && status.lag_events == 0).await;
    let ids: HashSet<String> = endpoints.taken("s").into_keys().collect();
    assert_eq!(ids, ["a", "b", "c", "d"].map(str::to_owned).into());
    let seen = endpoints.seen("s");
    let body = String::from_utf8(seen[0].body.to_vec()).unwrap();
    assert!(body.contains(r#""data":{"n": 1.50}"#), "{body}");
    stop(system).await;
}

#[actix::test]
async fn what_goes_round_in_a_circle_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let partner = topic("partner");
    let endpoints = Endpoints::all_well();
    let system =
        start(with_topics(folder.path(), &[&partner], vec![listening("s", &partner)]), &endpoints).await;
    let mut event = made("0");
    for n in 1..=17 {
        system.topic("partner").unwrap().publish(vec![event], None, AMPLE).await.unwrap();
        event = made(&n.to_string());
        event.set_extension("hops", Extension::Integer(n));
    }
    let end = until(&system, "s", |status| status.dead_letters == 1 && status.delivered == 16).await;
    assert_eq!(end.lag_events, 0);
    let letters = system.subscription("s").unwrap().dead_letters(None, 9).unwrap();
    assert_eq!((letters[0].reason, letters[0].attempts), (DeadLetterReason::LoopDetected, 0));
    stop(system).await;
}

#[actix::test]
async fn a_tenants_subscription_sees_its_own_tenants_events_only() {
    let folder = tempfile::tempdir().unwrap();
    let partner = topic("partner");
    let tenant = |name: &str| Some(TenantId::new(name).unwrap());
    let of = |name: &str| SubscriptionConfig { tenant: tenant(name), ..listening(name, &partner) };
    let endpoints = Endpoints::all_well();
    let all = vec![of("a"), of("b"), listening("all", &partner)];
    let system = start(with_topics(folder.path(), &[&partner], all), &endpoints).await;
    for (id, owner) in [("1", tenant("a")), ("2", tenant("b")), ("3", None), ("4", tenant("a"))] {
        system.topic("partner").unwrap().publish(vec![made(id)], owner, AMPLE).await.unwrap();
    }
    until(&system, "all", |status| status.delivered == 4).await;
    until(&system, "a", |status| status.delivered == 2).await;
    until(&system, "b", |status| status.delivered == 1).await;
    assert_eq!(endpoints.taken("b").into_keys().collect::<Vec<_>>(), ["2"]);
    stop(system).await;
}

#[actix::test]
async fn the_system_tells_of_dead_letters_probation_and_what_is_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let own = topic(SYSTEM_TOPIC);
    let endpoints = Endpoints::new(|attempt| match &*attempt.subscription {
        "gone" => status(410),
        "failing" => status(500),
        _ => status(200),
    });
    let all = vec![
        subscription("gone", quick(3)),
        subscription("failing", RetryPolicy { probation: true, ..quick(2) }),
        listening("operators", &own),
    ];
    let system = start(with_topics(folder.path(), &[&own], all), &endpoints).await;
    for n in 0..12 {
        create(&lane(&system, "a"), &format!("load-{n}")).await.unwrap();
    }
    until(&system, "gone", |status| status.disabled.is_some() && status.dead_letters == 12).await;
    until(&system, "failing", |status| status.dead_letters == 12).await;
    until(&system, "operators", |status| status.delivered >= 26).await;
    let told: Vec<(String, String)> = endpoints
        .seen("operators")
        .iter()
        .map(|seen| {
            let event: Value = serde_json::from_slice(&seen.body).unwrap();
            (event["type"].as_str().unwrap().to_owned(), event["subject"].as_str().unwrap().to_owned())
        })
        .collect();
    let count =
        |kind: &str, of: &str| told.iter().filter(|(a, b)| (a.as_str(), b.as_str()) == (kind, of)).count();
    assert_eq!(count("dead_letter.created", "gone"), 12);
    assert_eq!(count("dead_letter.created", "failing"), 12);
    assert_eq!(count("subscription.disabled", "gone"), 1);
    assert_eq!(count("subscription.probation", "failing"), 1);
    // Disabled for good, until somebody knows better.
    cut(system).await;
    let again = vec![subscription("gone", quick(3)), listening("operators", &own)];
    let system = start(with_topics(folder.path(), &[&own], again), &endpoints).await;
    let handle = system.subscription("gone").unwrap();
    until(&system, "gone", |status| status.disabled.is_some()).await;
    endpoints.change(|_| status(200));
    handle.resume().await.unwrap();
    create(&lane(&system, "a"), "later").await.unwrap();
    until(&system, "gone", |status| status.delivered == 1 && status.disabled.is_none()).await;
    stop(system).await;
}

#[actix::test]
async fn several_events_go_in_one_request_and_one_that_spoils_it_is_soon_alone() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| {
        let events: Vec<Value> = serde_json::from_slice(&attempt.body).unwrap();
        assert_eq!(
            attempt.content_type.as_deref(),
            Some("application/cloudevents-batch+json; charset=utf-8")
        );
        let spoilt = events.iter().any(|event| event["subject"].as_str().unwrap().ends_with("/bad"));
        status(if spoilt { 500 } else { 200 })
    });
    let mut batched = subscription("s", quick(8));
    let Destination::Webhook(webhook) = batched.to else { panic!("a webhook") };
    batched.to = Destination::Webhook(Webhook {
        batch: Some(BatchSettings { events: 10, bytes: 1 << 20 }),
        ..webhook
    });
    let system = start(config(folder.path(), vec![batched]), &endpoints).await;
    system.subscription("s").unwrap().pause().await.unwrap();
    for n in 0..50 {
        let name = if n == 25 { "bad".to_owned() } else { format!("load-{n}") };
        create(&lane(&system, "a"), &name).await.unwrap();
    }
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 49 && status.dead_letters == 1).await;
    let seen = endpoints.seen("s");
    let sizes = seen.iter().map(|seen| serde_json::from_slice::<Vec<Value>>(&seen.body).unwrap().len());
    assert_eq!(sizes.max(), Some(10));
    stop(system).await;
}

#[actix::test]
async fn history_is_delivered_once_more_as_a_job_that_outlasts_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoints, partner) = (Endpoints::all_well(), topic("partner"));
    let config = || {
        let mut config = with_topics(folder.path(), &[&partner], vec![listening("s", &partner)]);
        config.upkeep.as_mut().unwrap().retention = Duration::from_secs(3_600);
        config
    };
    let system = start(config(), &endpoints).await;
    let ids: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    for chunk in ids.chunks(50) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        publish(&system, "partner", &chunk).await;
    }
    until(&system, "s", |status| status.delivered == 300 && status.unsettled == 0).await;
    let request = ReplayRequest {
        from: Timestamp(0),
        to: Timestamp(u64::MAX),
        from_position: None,
        to_position: None,
        rate: 100_000,
    };
    let id = system.subscription("s").unwrap().replay_history(request).await.unwrap();
    assert!(id.starts_with("replay-"));
    cut(system).await;
    let system = start(config(), &endpoints).await;
    until(&system, "s", |status| status.replays.is_empty() && status.retrying == 0 && status.unsettled == 0)
        .await;
    let taken = endpoints.taken("s");
    assert_eq!(taken.len(), 300);
    assert!(taken.values().all(|times| *times >= 2), "{taken:?}");
    stop(system).await;
}

#[actix::test]
async fn a_subscription_that_is_made_later_begins_with_the_next_event_and_leaves_nothing_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoints, partner) = (Endpoints::all_well(), topic("partner"));
    let system =
        start(with_topics(folder.path(), &[&partner], vec![listening("old", &partner)]), &endpoints).await;
    publish(&system, "partner", &["before"]).await;
    system.subscribe(listening("new", &partner), Vec::new()).await.unwrap();
    assert!(system.subscribe(listening("new", &partner), Vec::new()).await.is_err());
    publish(&system, "partner", &["after"]).await;
    until(&system, "new", |status| status.delivered == 1).await;
    assert_eq!(endpoints.taken("new").into_keys().collect::<Vec<_>>(), ["after"]);
    endpoints.change(|attempt| status(if &*attempt.subscription == "new" { 400 } else { 200 }));
    publish(&system, "partner", &["refused"]).await;
    until(&system, "new", |status| status.dead_letters == 1).await;
    assert_eq!(system.unsubscribe("new", Vec::new()).await, Ok(true));
    assert_eq!(system.unsubscribe("new", Vec::new()).await, Ok(false));
    assert!(system.subscription("new").is_none());
    let seen = endpoints.seen("new").len();
    publish(&system, "partner", &["late"]).await;
    until(&system, "old", |status| status.delivered == 4).await;
    assert_eq!(endpoints.seen("new").len(), seen);
    stop(system).await;
    let report = lanekeeper_actors::verify::directory(folder.path()).unwrap();
    assert_eq!(report.problems, []);
}
