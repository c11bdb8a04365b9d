//! What writers of documents are promised by partitions and the directory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::ids::{Etag, Position};
use lanekeeper_actors::policy::precondition::Precondition;
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, WriteError, WriteResult};
use lanekeeper_actors::system::{System, SystemConfig};

use crate::support::{
    AMPLE, Endpoints, assert_view_is_the_log, at, body, config, create, eventually, id, lane, large, start,
    stop, upsert, write,
};

async fn system(folder: &tempfile::TempDir, change: impl FnOnce(&mut SystemConfig)) -> System {
    let mut config = config(folder.path(), vec![]);
    change(&mut config);
    start(config, &Endpoints::all_well()).await
}

async fn end(system: System) {
    for shard in system.shards() {
        assert_view_is_the_log(shard);
    }
    stop(system).await;
}

fn with_match(name: &str, operation: Operation, etag: Etag) -> Write {
    let precondition = Precondition::parse(Some(&etag.to_string()), None).unwrap();
    Write { precondition, ..write(name, operation) }
}

#[actix::test]
async fn of_many_creates_of_one_document_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let partition = lane(&system, "a");
    for round in 0..5 {
        let name = format!("load-{round}");
        let results = join_all((0..40).map(|_| create(&partition, &name))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert_eq!(results.iter().filter(|result| **result == Err(WriteError::Exists)).count(), 39);
    }
    end(system).await;
}

#[actix::test]
async fn a_counter_behind_if_match_loses_no_increment() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let partition = lane(&system, "a");
    let zero = Operation::Create(Content::plain("{\"id\":\"n\",\"n\":0}".into()));
    partition.write(write("n", zero), AMPLE).await.unwrap();
    let conflicts = AtomicUsize::new(0);
    let increment = async || {
        for _ in 0..10 {
            loop {
                let found = partition.read(&id("n")).unwrap().unwrap();
                let json: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
                let next = json["n"].as_u64().unwrap() + 1;
                let etag = Etag(Position { shard: partition.shard(), lsn: found.lsn });
                let replace =
                    Operation::Replace(Content::plain(format!("{{\"id\":\"n\",\"n\":{next}}}").into()));
                match partition.write(with_match("n", replace, etag), AMPLE).await {
                    Ok(written) => {
                        assert_eq!(written.kind, Some(ChangeKind::Replace));
                        break;
                    }
                    Err(WriteError::Precondition(_)) => conflicts.fetch_add(1, Ordering::Relaxed),
                    Err(other) => panic!("{other}"),
                };
            }
        }
    };
    join_all((0..12).map(|_| increment())).await;
    let found = partition.read(&id("n")).unwrap().unwrap();
    assert_eq!(found.body, "{\"id\":\"n\",\"n\":120}");
    assert!(conflicts.into_inner() > 0, "nobody ever met another: the test proves nothing");
    end(system).await;
}

#[actix::test]
async fn writes_sent_together_happen_in_the_order_sent() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let partition = lane(&system, "a");
    create(&partition, "first").await.unwrap();
    let one = |operation| partition.write(write("x", operation), AMPLE);
    let results: Vec<WriteResult> = join_all([
        // Not waited for: the others gather behind it into one batch.
        partition.write(write("blocker", Operation::Create(Content::plain(body("blocker")))), AMPLE),
        one(Operation::Create(Content::plain("{\"v\":1}".into()))),
        one(Operation::Replace(Content::plain("{\"v\":2}".into()))),
        one(Operation::Create(Content::plain("{\"v\":0}".into()))),
        one(Operation::Delete),
        one(Operation::Delete),
        one(Operation::Upsert(Content::plain("{\"v\":3}".into()))),
    ])
    .await;
    let kinds: Vec<_> =
        results.iter().map(|result| result.clone().map(|written| written.kind.unwrap())).collect();
    let expected = [
        Ok(ChangeKind::Create),
        Ok(ChangeKind::Create),
        Ok(ChangeKind::Replace),
        Err(WriteError::Exists),
        Ok(ChangeKind::Delete),
        Err(WriteError::NotFound),
        Ok(ChangeKind::Create),
    ];
    assert_eq!(kinds, expected);
    let lsns: Vec<_> = results.iter().flatten().map(|written| written.etag.0.lsn).collect();
    assert!(lsns.is_sorted_by(|a, b| a < b));
    let found = partition.read(&id("x")).unwrap().unwrap();
    assert_eq!((found.lsn, &*found.body), (*lsns.last().unwrap(), b"{\"v\":3}".as_slice()));
    end(system).await;
}

#[actix::test]
async fn what_was_deleted_can_be_created_again_as_another_version() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let partition = lane(&system, "a");
    let first = create(&partition, "x").await.unwrap();
    let stale =
        with_match("x", Operation::Delete, Etag(Position { lsn: first.etag.0.lsn.next(), ..first.etag.0 }));
    let refused = partition.write(stale, AMPLE).await;
    assert!(matches!(refused, Err(WriteError::Precondition(_))), "{refused:?}");
    let delete = with_match("x", Operation::Delete, first.etag);
    assert_eq!(partition.write(delete.clone(), AMPLE).await.unwrap().kind, Some(ChangeKind::Delete));
    assert_eq!(partition.read(&id("x")).unwrap(), None);
    assert_eq!(partition.write(delete, AMPLE).await, Err(WriteError::NotFound));
    let second = create(&partition, "x").await.unwrap();
    assert_ne!(first.etag, second.etag);
    end(system).await;
}

#[actix::test]
async fn a_burst_at_a_partition_that_sleeps_is_taken_whole() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |config| config.partition_threads = 2).await;
    for round in 0..20 {
        let partition = lane(&system, &format!("lane-{round}"));
        let results = join_all((0..64).map(|n| {
            let partition = partition.clone();
            async move { create(&partition, &format!("load-{n}")).await }
        }))
        .await;
        let failed: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    end(system).await;
}

#[actix::test]
async fn a_full_queue_is_busy_at_once_and_nothing_of_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |config| config.directory.queue = 8).await;
    let partition = lane(&system, "a");
    let names: Vec<_> = (0..200).map(|n| format!("load-{n}")).collect();
    let results = join_all(names.iter().map(|name| create(&partition, name))).await;
    let mut taken = 0;
    for (name, result) in names.iter().zip(results) {
        let found = partition.read(&id(name)).unwrap();
        match result {
            Ok(_) => taken += 1,
            Err(ref error) => assert_eq!(*error, WriteError::Busy),
        }
        assert_eq!(found.is_some(), result.is_ok());
    }
    assert!((8..200).contains(&taken), "{taken}");
    create(&partition, "later").await.unwrap();
    end(system).await;
}

/// Writes in a partition until it is taken; other answers than "busy" are failures.
async fn insist(partition: &PartitionHandle, name: &str) {
    loop {
        match upsert(partition, name).await {
            Ok(_) => return,
            Err(WriteError::Busy | WriteError::Overloaded) => {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[actix::test]
async fn two_hundred_partitions_share_twenty_places_and_none_starves() {
    let folder = tempfile::tempdir().unwrap();
    let change = |config: &mut SystemConfig| {
        config.directory.awake = 20;
        config.directory.idle = Duration::from_millis(40);
        config.partition_threads = 2;
    };
    let system = system(&folder, change).await;
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (directory, over) = (system.directory().clone(), over.clone());
        actix_rt::spawn(async move {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(directory.awake());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            most
        })
    };
    let work = (0..200).map(|number| {
        let partition = lane(&system, &format!("lane-{number}"));
        async move {
            for n in 0..6 {
                insist(&partition, &format!("load-{n}")).await;
            }
            partition
        }
    });
    let partitions = tokio::time::timeout(AMPLE, join_all(work)).await.expect("a partition starves");
    over.store(true, Ordering::Relaxed);
    assert!(watch.await.unwrap() <= 20);
    for partition in partitions {
        assert_eq!(partition.list(None, 10, 1 << 20).unwrap().documents.len(), 6);
    }
    end(system).await;
}

#[actix::test]
async fn idle_partitions_fall_asleep_and_wake_with_what_they_had() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |config| config.directory.idle = Duration::from_millis(30)).await;
    let partitions: Vec<_> = (0..30).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    for round in 0..3 {
        for partition in &partitions {
            upsert(partition, "x").await.unwrap();
            create(partition, &format!("load-{round}")).await.unwrap();
        }
        eventually("everybody sleeps", || system.directory().awake() == 0).await;
    }
    for partition in &partitions {
        assert_eq!(create(partition, "x").await, Err(WriteError::Exists));
        assert_eq!(partition.list(None, 10, 1 << 20).unwrap().documents.len(), 4);
    }
    end(system).await;
}

#[actix::test]
async fn many_writers_of_one_partition_and_of_many_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let change = |config: &mut SystemConfig| {
        config.directory.queue = 600;
        config.directory.awake = 300;
        config.partition_threads = 2;
        config.default_shards = 4;
    };
    let system = system(&folder, change).await;
    let hot = lane(&system, "hot");
    let names: Vec<_> = (0..600).map(|n| format!("load-{n}")).collect();
    let one = join_all(names.iter().map(|name| create(&hot, name)));
    let cold: Vec<_> = (0..200).map(|number| lane(&system, &format!("lane-{number}"))).collect();
    let many =
        join_all(cold.iter().flat_map(|partition| names.iter().take(5).map(|name| create(partition, name))));
    let (one, many) = tokio::join!(one, many);
    assert!(one.iter().chain(&many).all(Result::is_ok));
    let page = hot.list(None, 1_000, usize::MAX).unwrap();
    assert_eq!((page.documents.len(), page.more), (600, false));
    let by_lsn: HashMap<_, _> = one.iter().flatten().map(|written| (written.etag, ())).collect();
    assert_eq!(by_lsn.len(), 600, "no version is given twice");
    end(system).await;
}

#[actix::test]
async fn tenants_of_an_isolated_container_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let of = |tenant| at(&system, "loads", tenant, "a");
    let (acme, bolt, shared) = (of(Some("acme")), of(Some("bolt")), of(None));
    for (partition, value) in [(&acme, "1"), (&bolt, "2"), (&shared, "3")] {
        assert_eq!(partition.read(&id("x")).unwrap(), None);
        let create = Operation::Create(Content::plain(format!("{{\"v\":{value}}}").into()));
        partition.write(write("x", create), AMPLE).await.unwrap();
    }
    create(&acme, "only-acme").await.unwrap();
    for (partition, value, count) in [(&acme, "1", 2), (&bolt, "2", 1), (&shared, "3", 1)] {
        let found = partition.read(&id("x")).unwrap().unwrap();
        assert_eq!(found.body, format!("{{\"v\":{value}}}"));
        assert_eq!(partition.list(None, 10, 1 << 20).unwrap().documents.len(), count);
    }
    bolt.write(write("x", Operation::Delete), AMPLE).await.unwrap();
    assert!(acme.read(&id("x")).unwrap().is_some() && shared.read(&id("x")).unwrap().is_some());
    end(system).await;
}

#[actix::test]
async fn documents_of_two_megabytes_are_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let system = system(&folder, |_| {}).await;
    let partition = lane(&system, "a");
    let size = (2 << 20) - 64;
    let writes = (0..6).map(|n| {
        let name = format!("load-{n}");
        let create = Operation::Create(Content::plain(large(&name, size)));
        let partition = partition.clone();
        async move { partition.write(write(&name, create), AMPLE).await }
    });
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    for n in 0..6 {
        let name = format!("load-{n}");
        assert_eq!(partition.read(&id(&name)).unwrap().unwrap().body, large(&name, size));
    }
    end(system).await;
}
