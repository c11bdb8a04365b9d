//! A write that makes the rules panic costs nobody but itself.

use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::model::address::{EncodedPartition, KeyPart, PartitionAddress};
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::partition::Phase;
use lanekeeper_actors::protocol::partition::{Content, Operation, WriteError, WriteResult};
use lanekeeper_actors::system::System;

use crate::Faults;
use crate::support::{
    AMPLE, Endpoints, assert_view_is_the_log, body, config, create, eventually, lane, start, stop, write,
};

fn address(lane: &str) -> EncodedPartition {
    let key = vec![KeyPart::String(lane.into())];
    PartitionAddress { container: "loads".into(), tenant: None, key }.encode()
}

fn queue(system: &System, lane: &str) -> usize {
    let status = system.directory().status(100);
    status.iter().find(|status| status.address == address(lane)).map_or(0, |status| status.queue)
}

/// Lets `writes` gather into one batch behind a write whose append is held up.
async fn as_one_batch(
    faults: &Faults,
    system: &System,
    partition: &PartitionHandle,
    writes: Vec<(&str, Operation)>,
) -> Vec<WriteResult> {
    create(partition, "wakes-it").await.unwrap();
    // It was answered before the view had it; from then on only the first batch lags.
    eventually("the view has it", || system.shards().iter().all(|shard| shard.status().lag == 0)).await;
    faults.begin("log::append", "pause");
    let first = {
        let partition = partition.clone();
        actix_rt::spawn(async move { create(&partition, "blocker").await })
    };
    eventually("the first batch is in flight", || system.shards().iter().any(|shard| shard.status().lag > 0))
        .await;
    let count = writes.len();
    let rest =
        join_all(writes.into_iter().map(|(id, operation)| partition.write(write(id, operation), AMPLE)));
    let let_go = async {
        eventually("all wait", || queue(system, "a") == count + 1).await;
        faults.end("log::append");
    };
    let (results, ()) = tokio::join!(rest, let_go);
    first.await.unwrap().unwrap();
    results
}

#[actix::test]
async fn batch_mates_of_a_poisoned_write_succeed_and_only_it_fails() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![]), &Endpoints::all_well()).await;
    let partition = lane(&system, "a");
    faults.begin("partition::evaluate", "panic");
    let all = ["one", "poison-1", "two", "poison-2", "three"];
    let writes = all.iter().map(|id| (*id, Operation::Create(Content::plain(body(id))))).collect();
    let results = as_one_batch(&faults, &system, &partition, writes).await;
    for (id, result) in all.iter().zip(&results) {
        let poisoned = id.starts_with("poison");
        assert_eq!(result.clone().err(), poisoned.then_some(WriteError::Crashed), "{id}");
        assert_eq!(partition.read(&write(id, Operation::Delete).id).unwrap().is_some(), !poisoned);
    }
    let lsns: Vec<_> = results.iter().flatten().map(|written| written.etag.0.lsn.0).collect();
    assert_eq!(lsns[2], lsns[0] + 2, "they were one batch");
    // The same handle, and the same actor behind it, go on.
    create(&partition, "later").await.unwrap();
    let status = system.directory().status(10);
    assert_eq!((status[0].phase, status[0].restarts), (Phase::Open, 1));
    assert!(status[0].last_crash.as_ref().unwrap().contains("partition::evaluate"));
    stop(system).await;
}

#[actix::test]
async fn a_batch_that_makes_changes_and_removes_one_document_keeps_its_versions_apart() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![]), &Endpoints::all_well()).await;
    let partition = lane(&system, "a");
    let v = |n: u32| bytes::Bytes::from(format!("{{\"v\":{n}}}"));
    let writes = vec![
        ("x", Operation::Create(Content::plain(v(1)))),
        ("x", Operation::Replace(Content::plain(v(2)))),
        ("x", Operation::Delete),
        ("x", Operation::Create(Content::plain(v(3)))),
        ("x", Operation::Create(Content::plain(v(4)))),
        ("blocker", Operation::Delete),
    ];
    let results = as_one_batch(&faults, &system, &partition, writes).await;
    let kinds: Vec<_> =
        results.iter().map(|result| result.clone().map(|written| written.kind.unwrap())).collect();
    use ChangeKind::{Create, Delete, Replace};
    assert_eq!(kinds, [Ok(Create), Ok(Replace), Ok(Delete), Ok(Create), Err(WriteError::Exists), Ok(Delete)]);
    let first = results[0].clone().unwrap().etag.0;
    let shard = &system.shards()[usize::from(first.shard.0)];
    let groups = shard.log().read(first.lsn, 1).unwrap();
    let feed: Vec<_> = groups[0]
        .changes()
        .map(|(lsn, change)| (lsn, change.kind, change.previous.map(|previous| previous.resolve(lsn))))
        .collect();
    let lsn = |n: u64| first.lsn.plus(n);
    let blocker = first.lsn.previous();
    let expected = [
        (lsn(0), Create, None),
        (lsn(1), Replace, Some(lsn(0))),
        (lsn(2), Delete, Some(lsn(1))),
        (lsn(3), Create, None),
        (lsn(4), Delete, Some(blocker)),
    ];
    assert_eq!(feed, expected, "one record holds the whole batch");
    assert_view_is_the_log(shard);
    stop(system).await;
}

#[actix::test]
async fn past_its_crash_budget_a_partition_is_quarantined_until_it_is_reopened() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), vec![]);
    config.directory.idle = Duration::from_millis(20);
    let budget = config.directory.partition.crash_budget;
    let system = start(config, &Endpoints::all_well()).await;
    let (partition, other) = (lane(&system, "a"), lane(&system, "b"));
    create(&partition, "before").await.unwrap();
    faults.begin("partition::evaluate", "panic");
    for n in 0..=budget {
        assert_eq!(create(&partition, &format!("poison-{n}")).await, Err(WriteError::Crashed));
    }
    assert_eq!(create(&partition, "x").await, Err(WriteError::Quarantined));
    create(&other, "x").await.unwrap();
    assert!(partition.read(&write("before", Operation::Delete).id).unwrap().is_some(), "reads go on");
    // Idleness does not end it.
    eventually("the other one sleeps", || system.directory().awake() == 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(create(&partition, "x").await, Err(WriteError::Quarantined));
    assert!(!system.directory().reopen(address("b")).await, "whoever sleeps is not quarantined");
    assert!(system.directory().reopen(address("a")).await);
    eventually("it is open", || system.directory().status(10).iter().all(|one| one.phase == Phase::Open))
        .await;
    create(&partition, "x").await.unwrap();
    assert_eq!(create(&partition, "poison").await, Err(WriteError::Crashed), "the budget is new");
    create(&partition, "y").await.unwrap();
    stop(system).await;
}

#[actix::test]
async fn a_write_that_crashed_three_times_is_refused_and_the_partition_stays_open() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), vec![]);
    let budget = config.directory.partition.crash_budget;
    let system = start(config, &Endpoints::all_well()).await;
    let partition = lane(&system, "a");
    faults.begin("partition::evaluate", "panic");
    // Somebody tries again and again, far beyond the budget.
    for n in 0..budget * 3 {
        assert_eq!(create(&partition, "poison").await, Err(WriteError::Crashed), "{n}");
        create(&partition, &format!("load-{n}")).await.unwrap();
    }
    let shown = system.directory().status(10);
    assert_eq!(shown.iter().map(|one| (one.phase, one.restarts)).collect::<Vec<_>>(), [(Phase::Open, 3)]);
    // Another write of the same document is another write.
    let other = write("poison", Operation::Delete);
    faults.end("partition::evaluate");
    assert_eq!(partition.write(other, AMPLE).await, Err(WriteError::NotFound));
    assert_eq!(create(&partition, "poison").await, Err(WriteError::Crashed), "until it falls asleep");
    stop(system).await;
}

#[actix::test]
async fn crashes_under_load_lose_and_repeat_nothing() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), vec![]);
    config.directory.partition.crash_budget = 1_000;
    config.directory.partition.crash_backoff = Duration::from_micros(10);
    config.directory.partition.crash_window = Duration::from_millis(50);
    let system = start(config, &Endpoints::all_well()).await;
    faults.begin("partition::evaluate", "panic");
    let work = (0..30).map(|task| {
        let partition = lane(&system, &format!("lane-{}", task % 3));
        async move {
            for n in 0..10 {
                if n == 5 {
                    let poison = format!("poison-{task}");
                    assert_eq!(create(&partition, &poison).await, Err(WriteError::Crashed));
                }
                create(&partition, &format!("load-{task}-{n}")).await.unwrap();
            }
        }
    });
    tokio::time::timeout(AMPLE, join_all(work)).await.expect("a writer is stuck");
    for number in 0..3 {
        let page = lane(&system, &format!("lane-{number}")).list(None, 1_000, usize::MAX).unwrap();
        assert_eq!(page.documents.len(), 100);
    }
    stop(system).await;
}
