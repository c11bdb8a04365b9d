//! Events that are received from a queue: locks, and what becomes of them.

use std::time::Duration;

use lanekeeper_actors::model::delivery::Endpoint;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::retry::DeadLetterReason;
use lanekeeper_actors::protocol::subscriber::{Decision, LockLost, ReceiveRefused, Received, ReplayRequest};
use lanekeeper_actors::subscriber::{Destination, QueueSettings, SubscriptionConfig, Webhook};
use lanekeeper_actors::system::System;

use crate::support::{
    AMPLE, Endpoints, config, create, cut, event, lane, quick, start, stop, subscription, until,
};

fn queue(name: &str, lock: Duration, max_deliveries: u32) -> SubscriptionConfig {
    let to = Destination::Queue(QueueSettings { lock, max_deliveries });
    SubscriptionConfig { to, ..subscription(name, quick(30)) }
}

async fn receive(system: &System, most: usize) -> Vec<Received> {
    system.subscription("q").unwrap().receive(most, AMPLE).await.unwrap()
}

async fn settle(system: &System, received: &[Received], decision: Decision) -> Vec<Result<(), LockLost>> {
    let tokens = received.iter().map(|one| one.token.clone()).collect();
    system.subscription("q").unwrap().settle(tokens, decision).await
}

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| one.event.position.to_string()).collect()
}

const LONG: Duration = Duration::from_secs(60);

#[actix::test]
async fn a_replayed_event_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![queue("q", LONG, 10)]), &Endpoints::all_well()).await;
    create(&lane(&system, "a"), "load").await.unwrap();
    let first = receive(&system, 1).await;
    assert_eq!(first[0].replay, None);
    settle(&system, &first, Decision::Acknowledge).await;
    until(&system, "q", |status| status.unsettled == 0 && status.locked == 0).await;
    let all = ReplayRequest {
        from: Timestamp(0),
        to: Timestamp(u64::MAX),
        from_position: None,
        to_position: None,
        rate: 100_000,
    };
    let id = system.subscription("q").unwrap().replay_history(all).await.unwrap();
    let again = receive(&system, 1).await;
    assert_eq!((again[0].replay.as_ref(), ids(&again)), (Some(&id), ids(&first)));
    stop(system).await;
}

#[actix::test]
async fn each_event_is_received_once_and_gone_when_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![queue("q", LONG, 10)]), &endpoints).await;
    let mut written = Vec::new();
    for n in 0..200 {
        written.push(event(create(&lane(&system, "a"), &format!("load-{n}")).await));
    }
    let mut got = Vec::new();
    while got.len() < 200 {
        let received = receive(&system, 7).await;
        assert!(!received.is_empty() && received.iter().all(|one| one.deliveries == 1));
        got.extend(ids(&received));
        assert!(settle(&system, &received, Decision::Acknowledge).await.iter().all(Result::is_ok));
        assert_eq!(
            settle(&system, &received, Decision::Acknowledge).await,
            vec![Err(LockLost::Lost); received.len()]
        );
    }
    assert_eq!(got, written, "one partition, one receiver: in order");
    until(&system, "q", |status| status.unsettled == 0 && status.locked == 0).await;
    let none = system.subscription("q").unwrap().receive(1, Duration::from_millis(20)).await.unwrap();
    assert!(none.is_empty());
    assert!(endpoints.seen("q").is_empty());
    stop(system).await;
}

#[actix::test]
async fn a_lock_that_ends_gives_the_event_out_again_and_its_token_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let short = queue("q", Duration::from_millis(60), 3);
    let system = start(config(folder.path(), vec![short]), &Endpoints::all_well()).await;
    let written = event(create(&lane(&system, "a"), "load").await);
    let mut tokens = Vec::new();
    for deliveries in 1..=3 {
        let received = receive(&system, 5).await;
        assert_eq!((ids(&received), received[0].deliveries), (vec![written.clone()], deliveries));
        tokens.push(received[0].token.clone());
    }
    // The third time was the last.
    let end = until(&system, "q", |status| status.dead_letters == 1).await;
    assert_eq!(end.locked, 0);
    let letter = &system.subscription("q").unwrap().dead_letters(None, 9).unwrap()[0];
    assert_eq!((letter.reason, letter.attempts), (DeadLetterReason::MaxDeliveryAttemptsExceeded, 3));
    let lost = system.subscription("q").unwrap().settle(tokens, Decision::Acknowledge).await;
    assert_eq!(lost, [Err(LockLost::Lost); 3]);
    stop(system).await;
}

#[actix::test]
async fn release_reject_and_renew_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let lock = Duration::from_millis(400);
    let system = start(config(folder.path(), vec![queue("q", lock, 10)]), &Endpoints::all_well()).await;
    create(&lane(&system, "a"), "load").await.unwrap();
    let first = receive(&system, 1).await;
    // Renewed in time, again and again, it stays locked for longer than a lock.
    for _ in 0..6 {
        tokio::time::sleep(lock / 4).await;
        assert_eq!(settle(&system, &first, Decision::Renew).await, [Ok(())]);
    }
    assert_eq!(settle(&system, &first, Decision::Release(Duration::from_millis(150))).await, [Ok(())]);
    let handle = system.subscription("q").unwrap();
    assert!(handle.receive(1, Duration::from_millis(20)).await.unwrap().is_empty());
    let second = receive(&system, 1).await;
    assert_eq!(second[0].deliveries, 2);
    assert_eq!(settle(&system, &second, Decision::Reject).await, [Ok(())]);
    until(&system, "q", |status| status.dead_letters == 1).await;
    let letter = &handle.dead_letters(None, 9).unwrap()[0];
    assert_eq!((letter.reason, letter.attempts), (DeadLetterReason::Rejected, 2));
    let nonsense = vec!["nonsense".to_owned(), second[0].token.clone()];
    let answers = handle.settle(nonsense, Decision::Acknowledge).await;
    assert_eq!(answers, [Err(LockLost::Bad), Err(LockLost::Lost)]);
    stop(system).await;
}

#[actix::test]
async fn what_was_received_and_not_settled_comes_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![queue("q", LONG, 10)]), &endpoints).await;
    for n in 0..20 {
        create(&lane(&system, "a"), &format!("load-{n}")).await.unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 10 {
        received.extend(receive(&system, 10 - received.len()).await);
    }
    let (done, open) = received.split_at(4);
    assert!(settle(&system, done, Decision::Acknowledge).await.iter().all(Result::is_ok));
    until(&system, "q", |status| status.unsettled == 0).await;
    cut(system).await;
    let system = start(config(folder.path(), vec![queue("q", LONG, 10)]), &endpoints).await;
    let mut again = Vec::new();
    while again.len() < 16 {
        again.extend(ids(&receive(&system, 100).await));
    }
    assert!(open.iter().all(|one| again.contains(&one.event.position.to_string())));
    assert!(done.iter().all(|one| !again.contains(&one.event.position.to_string())));
    stop(system).await;
}

#[actix::test]
async fn of_many_receivers_one_gets_the_event_and_one_that_left_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![queue("q", LONG, 10)]), &Endpoints::all_well()).await;
    let handle = system.subscription("q").unwrap();
    {
        let left = handle.receive(1, AMPLE);
        assert!(tokio::time::timeout(Duration::from_millis(20), left).await.is_err());
    }
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let handle = handle.clone();
            actix::spawn(async move { handle.receive(3, Duration::from_secs(1)).await.unwrap() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    create(&lane(&system, "a"), "load").await.unwrap();
    let mut got = 0;
    for one in waiting {
        got += one.await.unwrap().len();
    }
    assert_eq!(got, 1);
    stop(system).await;
}

#[actix::test]
async fn what_is_sent_somewhere_cannot_be_received() {
    let folder = tempfile::tempdir().unwrap();
    let to = Destination::Webhook(Webhook::plain(Endpoint::plain("http://q.example/", vec![])));
    let sent = SubscriptionConfig { to, ..queue("q", LONG, 1) };
    let system = start(config(folder.path(), vec![sent]), &Endpoints::all_well()).await;
    let refused = system.subscription("q").unwrap().receive(1, AMPLE).await;
    assert_eq!(refused.unwrap_err(), ReceiveRefused::NotAQueue);
    stop(system).await;
}
