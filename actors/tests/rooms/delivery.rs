//! Every event a subscription matches ends delivered, dead-lettered or still pending.

use std::time::Duration;

use lanekeeper_actors::model::delivery::Outcome;
use lanekeeper_actors::policy::retry::{DeadLetterReason, RetryPolicy};
use lanekeeper_actors::protocol::partition::Operation;
use lanekeeper_actors::protocol::subscriber::Selection;

use crate::support::{Endpoints, body, config, create, lane, quick, start, subscription, until, write};

#[actix::test]
async fn one_write_reaches_every_subscriber_once() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let subscriptions = vec![subscription("search", quick(3)), subscription("notify", quick(3))];
    let system = start(config(folder.path(), subscriptions), &endpoints).await;
    for n in 0..300 {
        let partition = lane(&system, &format!("lane-{}", n % 7));
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    for name in ["search", "notify"] {
        until(&system, name, |status| status.delivered == 300 && status.unsettled == 0).await;
        let by_event = endpoints.by_event(name);
        assert_eq!(by_event.len(), 300);
        assert!(by_event.values().all(|attempts| attempts == &[1]));
    }
    assert!(system.drain(Duration::from_secs(10)).await);
}

#[actix::test]
async fn a_broken_endpoint_ends_in_dead_letters_and_a_replay_delivers_them() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|attempt| {
        let status = if &*attempt.subscription == "partner" { 500 } else { 204 };
        Outcome::from_status(status, None)
    });
    let subscriptions = vec![subscription("partner", quick(3)), subscription("search", quick(3))];
    let system = start(config(folder.path(), subscriptions), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..100 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    until(&system, "search", |status| status.delivered == 100).await;
    let status = until(&system, "partner", |status| status.dead_letters == 100).await;
    assert_eq!((status.retrying, status.delivered, status.failed_attempts), (0, 0, 300));
    assert!(endpoints.by_event("partner").values().all(|attempts| attempts == &[1, 2, 3]));
    let handle = system.subscription("partner").unwrap();
    let letters = handle.dead_letters(None, 1_000).unwrap();
    assert_eq!(letters.len(), 100);
    let first = letters.first().unwrap();
    assert_eq!(first.reason, DeadLetterReason::MaxDeliveryAttemptsExceeded);
    assert_eq!((first.attempts, first.last_status), (3, Some(500)));

    endpoints.change(|_| Outcome::from_status(200, None));
    let some: Vec<_> = letters.iter().take(3).map(|letter| letter.event.position()).collect();
    assert_eq!(handle.replay(Selection::Events(some)).await, Ok(3));
    until(&system, "partner", |status| status.delivered == 3 && status.dead_letters == 97).await;
    assert_eq!(handle.replay(Selection::All).await, Ok(97));
    let status = until(&system, "partner", |status| status.delivered == 100 && status.unsettled == 0).await;
    assert_eq!((status.dead_letters, status.retrying), (0, 0));
    assert!(handle.dead_letters(None, 10).unwrap().is_empty());
    assert!(system.drain(Duration::from_secs(10)).await);
}

#[actix::test]
async fn a_restart_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::new(|_| Outcome::from_status(503, None));
    let slow =
        RetryPolicy { max_attempts: 30, ttl: Duration::from_secs(3_600), scale: 0.02, probation: false };
    let settings = || config(folder.path(), vec![subscription("partner", slow.clone())]);
    let system = start(settings(), &endpoints).await;
    let partition = lane(&system, "a");
    for n in 0..50 {
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    partition.write(write("load-7", Operation::Delete), Duration::from_secs(5)).await.unwrap();
    let shown = until(&system, "partner", |status| status.retrying == 51 && status.unsettled == 0).await;
    // They wait although none is in memory: the oldest of them counts.
    until(&system, "partner", |status| status.lag_millis >= shown.lag_millis + 50).await;
    assert!(system.drain(Duration::from_secs(10)).await);
    drop((system, partition));

    endpoints.change(|_| Outcome::from_status(200, None));
    let system = start(settings(), &endpoints).await;
    let status = until(&system, "partner", |status| status.delivered == 51 && status.unsettled == 0).await;
    assert_eq!((status.retrying, status.dead_letters), (0, 0));
    assert!(endpoints.by_event("partner").len() == 51);
    let partition = lane(&system, "a");
    assert_eq!(partition.read(&write("load-7", Operation::Delete).id).unwrap(), None);
    let found = partition.read(&write("load-8", Operation::Delete).id).unwrap().unwrap();
    assert_eq!(found.body, body("load-8"));
    assert!(system.drain(Duration::from_secs(10)).await);
}
