//! What a container may use is bounded: beyond it callers wait, and nothing of what they asked happens.

use std::time::Duration;

use lanekeeper_actors::directory::ReadError;
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::throughput::Throughput;
use lanekeeper_actors::protocol::partition::{Operation, WriteError};
use serde_json::json;

use crate::support::id;
use crate::world::{AMPLE, Door, World, create, expiring, plain, read, upsert, write};

fn bounded(name: &str, throughput: Throughput) -> Container {
    Container { throughput: Some(throughput), ..plain(name) }
}

/// Writes until it is refused; says how many went through, and how long to wait.
async fn exhaust(door: &Door) -> (usize, Duration) {
    for n in 0..10_000 {
        match door.one(upsert("x", json!({"n": n}))).await {
            Ok(_) => {}
            Err(WriteError::Throttled(wait)) => return (n, wait),
            Err(other) => panic!("{other}"),
        }
    }
    panic!("nothing stops it");
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap()
}

#[actix::test]
async fn beyond_the_budget_writes_and_reads_wait_and_nothing_happens() {
    let containers = vec![
        bounded("small", Throughput::manual(400).unwrap()),
        bounded("same", Throughput::manual(400).unwrap()),
    ];
    let world = World::new(containers).await;
    let door = world.door("small", "a");
    let first = door.one(create("x", json!({"n": 0}))).await.unwrap();
    let (count, wait) = exhaust(&door).await;
    // A second's worth: one create, and replaces at one and a half times its cost.
    let expected = (40_000 - first.charge.hundredths()) / (first.charge.hundredths() * 3 / 2) + 1;
    assert!(count.abs_diff(usize::try_from(expected).unwrap()) <= 1, "{count} {expected}");
    assert!(wait > Duration::ZERO && wait < Duration::from_millis(50), "{wait:?}");
    let log = world.log(&door);
    for write in [create("y", json!({})), upsert("x", json!({})), read("x")] {
        assert!(matches!(door.one(write).await, Err(WriteError::Throttled(_))));
    }
    assert!(matches!(door.0.read(&id("x")), Err(ReadError::Throttled(_))));
    assert!(matches!(door.0.list(None, 10, 1 << 20), Err(ReadError::Throttled(_))));
    // The budget is the container's, not the partition's.
    let other = world.door("small", "b");
    assert!(matches!(other.one(create("y", json!({}))).await, Err(WriteError::Throttled(_))));
    assert_eq!(world.log(&door), log);
    let reading = world.system.directory().account("small").reading();
    assert!(reading.throttled >= 7, "{reading:?}");
    // Another container has its own.
    world.door("same", "a").one(create("x", json!({}))).await.unwrap();
    world.door("undeclared", "a").one(create("x", json!({}))).await.unwrap();
    // One millisecond too early, and then in time.
    world.pass(millis(wait) - 1);
    assert!(matches!(door.0.read(&id("x")), Err(ReadError::Throttled(_))));
    world.pass(1);
    assert!(door.0.read(&id("x")).unwrap().is_some());
    world.pass(10_000);
    let (again, _) = exhaust(&door).await;
    assert!(again.abs_diff(count) <= 1, "nothing piles up: {again} {count}");
    world.end().await;
}

#[actix::test]
async fn reads_spend_too_and_what_is_refused_costs_one() {
    let world = World::new(vec![bounded("small", Throughput::manual(400).unwrap())]).await;
    let door = world.door("small", "a");
    door.one(create("x", json!({}))).await.unwrap();
    world.pass(10_000);
    let reads = (0..1_000).take_while(|_| door.0.read(&id("x")).is_ok()).count();
    assert_eq!(reads, 400);
    world.pass(10_000);
    let misses = (0..1_000).take_while(|_| door.0.read(&id("none")).is_ok()).count();
    assert_eq!(misses, 400);
    world.pass(10_000);
    let mut refused = 0;
    while door.one(create("x", json!({}))).await == Err(WriteError::Exists) {
        refused += 1;
    }
    assert_eq!(refused, 400);
    world.end().await;
}

#[actix::test]
async fn a_partition_has_a_ceiling_below_its_container() {
    let world = World::new(vec![bounded("large", Throughput::manual(20_000).unwrap())]).await;
    let hot = world.door("large", "hot");
    let pad = "x".repeat(60 << 10);
    let many = || (0..20).map(|n| upsert(&format!("d{n}"), json!({"pad": pad}))).collect::<Vec<_>>();
    let mut spent = 0;
    let wait = loop {
        match hot.all(many()).await {
            Ok(written) => spent += written.iter().map(|written| written.charge.hundredths()).sum::<u64>(),
            Err(refused) => break refused.error,
        }
    };
    assert!(matches!(wait, WriteError::Throttled(_)));
    assert!((1_000_000..1_200_000).contains(&spent), "{spent}");
    world.door("large", "cold").one(create("x", json!({}))).await.unwrap();
    let hottest = world.system.directory().account("large").hottest(1);
    assert_eq!(hottest[0].partition, *hot.0.address());
    world.end().await;
}

#[actix::test]
async fn the_sweep_of_what_expired_goes_on_without_a_budget() {
    let container = Container {
        ttl: expiring("small", Some(1)).ttl,
        ..bounded("small", Throughput::manual(400).unwrap())
    };
    let world = World::new(vec![container]).await;
    let door = world.door("small", "a");
    door.one(create("old", json!({}))).await.unwrap();
    world.pass(1_000);
    exhaust(&door).await;
    let swept = door.0.sweep(vec![write("old", Operation::Sweep)], AMPLE).await.unwrap();
    assert!(swept[0].kind.is_some());
    world.end().await;
}
