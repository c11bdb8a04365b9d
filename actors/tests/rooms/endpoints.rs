//! An endpoint is asked before it is sent anything; it may be exchanged while events wait for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::kernel::clock::{ManualClock, SystemClock};
use lanekeeper_actors::model::cloudevent::CloudEvent;
use lanekeeper_actors::model::delivery::{Endpoint, Handshake, OutcomeKind, Validated};
use lanekeeper_actors::model::ids::Lsn;
use lanekeeper_actors::policy::filter::Filter;
use lanekeeper_actors::protocol::subscriber::{Revision, SubscriptionStatus, TrialRefused, ValidationState};
use lanekeeper_actors::subscriber::{Destination, HandshakeKind, Order, SubscriptionConfig, Webhook};
use lanekeeper_actors::system::{System, SystemConfig};

use crate::support::{
    Endpoints, Wire, config, create, cut, event, lane, owed, patient, quick, start, status, stop,
    subscription, until,
};

fn asking(name: &str, kind: HandshakeKind) -> SubscriptionConfig {
    SubscriptionConfig { handshake: Some(kind), ..subscription(name, quick(3)) }
}

fn to(mut config: SubscriptionConfig, url: &str) -> SubscriptionConfig {
    config.to = Destination::Webhook(Webhook::plain(Endpoint::plain(url, vec![])));
    config
}

fn with_url(folder: &Path, subscriptions: Vec<SubscriptionConfig>) -> SystemConfig {
    let mut config = config(folder, subscriptions);
    config.delivery.public_url = Some("https://api.example/".into());
    config
}

async fn start_at(config: SystemConfig, endpoints: &Arc<Endpoints>, clock: &Arc<ManualClock>) -> System {
    let fatal = Arc::new(|text: &str| panic!("{text}"));
    System::start(config, Arc::new(Wire(endpoints.clone())), clock.clone(), fatal).await.unwrap()
}

fn clock() -> Arc<ManualClock> {
    ManualClock::at(SystemClock::shared().now())
}

fn is_failed(status: &SubscriptionStatus) -> bool {
    matches!(status.validation, Some(ValidationState::Failed(_)))
}

fn is_awaiting(status: &SubscriptionStatus) -> bool {
    matches!(status.validation, Some(ValidationState::AwaitingManualAction(_)))
}

/// The code of the last handshake, from the URL that the endpoint was given.
fn last_code(endpoints: &Endpoints) -> String {
    let url = match endpoints.asked().last().unwrap().handshake.clone() {
        Handshake::EventGrid { url, .. } => url.unwrap(),
        Handshake::CloudEvents { callback, .. } => callback.unwrap(),
    };
    assert!(url.starts_with("https://api.example/.well-known/lanekeeper/validate?subscription=s&code="));
    url.split_once("code=").unwrap().1.to_owned()
}

#[actix::test]
async fn nothing_is_sent_before_the_endpoint_agreed_and_then_everything() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![asking("s", HandshakeKind::EventGrid)]), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..20 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "s", |status| is_failed(status) && status.lag_events == 20).await;
    let handle = system.subscription("s").unwrap();
    assert_eq!(handle.send_trial(CloudEvent::new("t", "/t", "test")).await, Err(TrialRefused::NotValidated));
    assert!(endpoints.seen("s").is_empty());
    // It is asked again when somebody says so.
    endpoints.say(Validated::Succeeded { rate: None });
    handle.resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 20 && status.validation.is_none()).await;
    let sent = handle.send_trial(CloudEvent::new("t", "/t", "test")).await.unwrap();
    assert_eq!(sent.kind, OutcomeKind::Delivered);
    assert_eq!(endpoints.asked().len(), 2);
    stop(system).await;
}

#[actix::test]
async fn what_an_endpoint_agreed_to_holds_over_a_restart_for_its_url_alone() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    endpoints.say(Validated::Succeeded { rate: Some(60_000) });
    let one = || asking("s", HandshakeKind::CloudEvents);
    let system = start(config(folder.path(), vec![one()]), &endpoints).await;
    until(&system, "s", |status| status.validation.is_none()).await;
    stop(system).await;
    assert_eq!(endpoints.asked().len(), 1);

    endpoints.say(Validated::Failed);
    let system = start(config(folder.path(), vec![one()]), &endpoints).await;
    create(&lane(&system, "a"), "x").await.unwrap();
    until(&system, "s", |status| status.delivered == 1).await;
    assert_eq!(endpoints.asked().len(), 1);
    stop(system).await;

    let moved = to(one(), "http://elsewhere.example/");
    let system = start(config(folder.path(), vec![moved]), &endpoints).await;
    until(&system, "s", is_failed).await;
    assert_eq!(endpoints.asked().len(), 2);
    stop(system).await;
}

#[actix::test]
async fn the_url_of_a_handshake_opens_the_way_for_ten_minutes() {
    for (minutes, opened) in [(9, true), (11, false)] {
        let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
        let endpoints = Endpoints::all_well();
        endpoints.say(Validated::AwaitingManualAction);
        let config = with_url(folder.path(), vec![asking("s", HandshakeKind::EventGrid)]);
        let system = start_at(config, &endpoints, &clock).await;
        until(&system, "s", is_awaiting).await;
        let handle = system.subscription("s").unwrap();
        assert!(!handle.confirm("guessed", None).await);
        clock.advance(Duration::from_secs(minutes * 60));
        assert_eq!(handle.confirm(&last_code(&endpoints), None).await, opened, "{minutes}");
        if opened {
            until(&system, "s", |status| status.validation.is_none()).await;
        } else {
            assert!(is_failed(&handle.status().await));
        }
        assert!(endpoints.seen("s").is_empty());
        stop(system).await;
    }
}

#[actix::test]
async fn without_a_public_url_there_is_nothing_to_wait_for() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    endpoints.say(Validated::AwaitingManualAction);
    let system = start(config(folder.path(), vec![asking("s", HandshakeKind::EventGrid)]), &endpoints).await;
    until(&system, "s", is_failed).await;
    stop(system).await;
}

#[actix::test]
async fn the_rate_that_an_endpoint_grants_is_kept() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let endpoints = Endpoints::all_well();
    endpoints.say(Validated::AwaitingManualAction);
    let config = with_url(folder.path(), vec![asking("s", HandshakeKind::CloudEvents)]);
    let system = start_at(config, &endpoints, &clock).await;
    until(&system, "s", is_awaiting).await;
    let partition = lane(&system, "a");
    for n in 0..4 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    let handle = system.subscription("s").unwrap();
    assert!(handle.confirm(&last_code(&endpoints), Some(60)).await);
    // One a second, by a clock that stands still until it is moved.
    for sent in 1..=4 {
        until(&system, "s", |status| status.delivered == sent).await;
        assert_eq!(endpoints.seen("s").len() as u64, sent);
        clock.advance(Duration::from_secs(1));
        // Whatever is told to the subscriber makes it look at the clock.
        handle.resume().await.unwrap();
    }
    stop(system).await;
}

#[actix::test]
async fn what_waits_goes_to_the_new_endpoint_and_the_new_filter_holds_from_then_on() {
    for order in [Order::None, Order::Partition] {
        let folder = tempfile::tempdir().unwrap();
        let endpoints =
            Endpoints::new(|attempt| status(if attempt.endpoint.url.contains("old") { 500 } else { 204 }));
        let filtered = |begins: &str, url: &str| {
            let filter = Filter::new(None, Some(begins.to_owned()), None, false).into();
            to(SubscriptionConfig { filter, order, ..subscription("s", patient()) }, url)
        };
        let system =
            start(config(folder.path(), vec![filtered("a/", "http://old.example/")]), &endpoints).await;
        let (a, b) = (lane(&system, "a"), lane(&system, "b"));
        let mut wanted = Vec::new();
        for n in 0..40 {
            wanted.push(event(create(&a, &format!("load-{n}")).await));
            create(&b, &format!("early-{n}")).await.unwrap();
        }
        until(&system, "s", |status| status.retrying >= 1).await;
        let handle = system.subscription("s").unwrap();
        handle.reconfigure(filtered("b/", "http://new.example/"), Revision::Filter, vec![]).await.unwrap();
        for n in 0..5 {
            create(&a, &format!("late-{n}")).await.unwrap();
            wanted.push(event(create(&b, &format!("load-{n}")).await));
        }
        handle.resume().await.unwrap();
        until(&system, "s", |status| status.retrying == 0 && status.lag_events == 0 && status.unsettled == 0)
            .await;
        let taken = endpoints.taken("s");
        let mut got: Vec<_> = taken.keys().cloned().collect();
        got.sort();
        // What was not routed before the change passes the new filter, and may be among it.
        for event in &wanted {
            assert!(got.contains(event), "{event} is lost");
        }
        assert!(taken.values().all(|times| *times == 1));
        assert!(system.routers().iter().all(|router| router.shard().log().tail() > Lsn(0)));
        stop(system).await;
    }
}

#[actix::test]
async fn a_crash_right_after_a_change_of_the_filter_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| status(500));
    let filtered = |begins: &str| {
        let filter = Filter::new(None, Some(begins.to_owned()), None, false).into();
        SubscriptionConfig { filter, ..subscription("s", patient()) }
    };
    let system = start(config(folder.path(), vec![filtered("a/")]), &endpoints).await;
    let a = lane(&system, "a");
    let mut wanted = Vec::new();
    for n in 0..25 {
        wanted.push(event(create(&a, &format!("load-{n}")).await));
    }
    until(&system, "s", |status| status.ready + status.in_flight + status.unsettled > 0).await;
    let routed = |status: &SubscriptionStatus| {
        status.retrying + (status.ready + status.in_flight + status.unsettled) as u64 >= 25
    };
    until(&system, "s", routed).await;
    let handle = system.subscription("s").unwrap();
    handle.reconfigure(filtered("b/"), Revision::Filter, vec![]).await.unwrap();
    cut(system).await;
    drop((a, handle));

    endpoints.change(|_| status(204));
    let system = start(config(folder.path(), vec![filtered("b/")]), &endpoints).await;
    system.subscription("s").unwrap().resume().await.unwrap();
    until(&system, "s", |status| status.delivered == 25 && status.unsettled == 0).await;
    assert!(wanted.iter().all(|event| endpoints.taken("s").contains_key(event)));
    for shard in system.shards() {
        assert!(owed(shard, "s").retries.is_empty());
    }
    stop(system).await;
}

#[actix::test]
async fn other_keys_wake_nobody_who_is_disabled_and_hurry_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints =
        Endpoints::new(|attempt| status(if &*attempt.subscription == "gone" { 410 } else { 500 }));
    let one = |name: &str| subscription(name, patient());
    let system = start(config(folder.path(), vec![one("gone"), one("failing")]), &endpoints).await;
    create(&lane(&system, "a"), "x").await.unwrap();
    until(&system, "gone", |status| status.disabled.is_some()).await;
    until(&system, "failing", |status| status.retrying == 1 && status.unsettled == 0).await;
    let change = async |name: &str, revision: Revision| {
        let handle = system.subscription(name).unwrap();
        handle.reconfigure(one(name), revision, vec![]).await.unwrap();
        // Whatever was to follow from it has been done when the next question is answered.
        handle.status().await
    };
    for _ in 0..3 {
        assert!(change("gone", Revision::Keys).await.disabled.is_some());
        assert_eq!(change("failing", Revision::Keys).await.in_flight, 0);
    }
    assert_eq!(endpoints.seen("failing").len(), 1);
    assert_eq!(endpoints.seen("gone").len(), 1);
    endpoints.change(|attempt| status(if &*attempt.subscription == "gone" { 200 } else { 500 }));
    assert!(change("gone", Revision::Delivery).await.disabled.is_none());
    change("failing", Revision::Delivery).await;
    until(&system, "failing", |status| status.retrying == 1 && status.in_flight == 0).await;
    assert_eq!(endpoints.seen("failing").len(), 2);
    stop(system).await;
    // It is written down, too.
    let system = start(config(folder.path(), vec![one("gone")]), &endpoints).await;
    assert!(system.subscription("gone").unwrap().status().await.disabled.is_none());
    stop(system).await;
}
