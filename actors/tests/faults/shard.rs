//! A shard whose disk fails acknowledges nothing that is not there, and comes back by itself.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::directory::ReadError;
use lanekeeper_actors::kernel::clock::SystemClock;
use lanekeeper_actors::model::change::{Mutation, Table};
use lanekeeper_actors::model::ids::ShardId;
use lanekeeper_actors::protocol::partition::{Operation, WriteError};
use lanekeeper_actors::shard::{Phase, Shard, ShardOpenError, ShardReadError, ShardSettings};
use lanekeeper_actors::system::System;

use crate::Faults;
use crate::support::{
    AMPLE, Endpoints, assert_view_is_the_log, config, create, eventually, id, lane, quick, start, stop,
    subscription, until, write,
};

/// The `nth` partition of a shard.
fn in_shard(system: &System, shard: u16, nth: usize) -> PartitionHandle {
    let all = (0..100).map(|n| lane(system, &format!("lane-{n}")));
    all.filter(|partition| partition.shard() == ShardId(shard)).nth(nth).unwrap()
}

/// A partition in each of two shards.
fn two(system: &System) -> [PartitionHandle; 2] {
    [in_shard(system, 0, 0), in_shard(system, 1, 0)]
}

/// What writers were told.
#[derive(Debug, Default)]
struct Told {
    kept: Vec<String>,
    refused: Vec<(String, WriteError)>,
}

/// Writers of one partition, each waiting for its answer before the next write.
struct Writers {
    over: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    tasks: Vec<actix_rt::task::JoinHandle<()>>,
}

impl Writers {
    fn begin(partition: &PartitionHandle) -> Self {
        let (over, told) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Told>>::default());
        let task = |number: usize| {
            let (partition, over, told) = (partition.clone(), over.clone(), told.clone());
            actix_rt::spawn(async move {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("load-{number}-{n}");
                    match create(&partition, &name).await {
                        Ok(_) => told.lock().unwrap().kept.push(name),
                        Err(error) => {
                            told.lock().unwrap().refused.push((name, error));
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                }
            })
        };
        let tasks = (0..4).map(task).collect();
        Self { over, told, tasks }
    }

    fn kept(&self) -> usize {
        self.told.lock().unwrap().kept.len()
    }

    fn refused(&self) -> usize {
        self.told.lock().unwrap().refused.len()
    }

    async fn gain(&self, more: usize) {
        let before = self.kept();
        eventually("writes are taken", || self.kept() >= before + more).await;
    }

    /// Ends the writers and checks what they were told against what is there.
    async fn end(self, partition: &PartitionHandle) -> Vec<WriteError> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        for name in &told.kept {
            assert!(partition.read(&id(name)).unwrap().is_some(), "the acknowledged write {name} is lost");
        }
        for (name, error) in &told.refused {
            let there = partition.read(&id(name)).unwrap().is_some();
            assert!(!there || *error == WriteError::Unknown, "{name} is there although {error}");
        }
        told.refused.into_iter().map(|(_, error)| error).collect()
    }
}

#[actix::test]
async fn a_failed_append_or_sync_is_unknown_to_its_writers_and_costs_nobody_else() {
    for place in ["log::append", "log::sync"] {
        let faults = Faults::none();
        let folder = tempfile::tempdir().unwrap();
        let system = start(config(folder.path(), vec![]), &Endpoints::all_well()).await;
        let [here, there] = two(&system);
        let writers = [Writers::begin(&here), Writers::begin(&there)];
        writers[0].gain(10).await;
        faults.begin(place, "1*return");
        eventually("it failed", || writers.iter().any(|writers| writers.refused() > 0)).await;
        for writers in &writers {
            writers.gain(20).await;
        }
        let reopened: Vec<_> = system.shards().iter().map(|shard| shard.status().reopened).collect();
        assert_eq!(reopened.iter().sum::<u64>(), 1, "{place}: {reopened:?}");
        let [one, two] = writers;
        let refused = [one.end(&here).await, two.end(&there).await];
        for (refused, reopened) in refused.iter().zip(reopened) {
            assert_eq!(refused.is_empty(), reopened == 0);
            let known = [WriteError::Unknown, WriteError::Unavailable];
            assert!(refused.iter().all(|error| known.contains(error)), "{refused:?}");
        }
        for shard in system.shards() {
            assert_eq!(shard.status().phase, Phase::Open);
            assert_view_is_the_log(shard);
        }
        stop(system).await;
    }
}

#[actix::test]
async fn while_every_append_fails_reads_go_on_and_afterwards_writes_do() {
    for place in ["log::append", "log::sync"] {
        let faults = Faults::none();
        let folder = tempfile::tempdir().unwrap();
        let endpoints = Endpoints::all_well();
        let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
        let [here, _] = two(&system);
        create(&here, "before").await.unwrap();
        let writers = Writers::begin(&here);
        writers.gain(5).await;
        faults.begin(place, "return");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(150) {
            assert!(here.read(&id("before")).unwrap().is_some());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        faults.end(place);
        writers.gain(20).await;
        let refused = writers.end(&here).await;
        assert!(refused.contains(&WriteError::Unknown));
        // Outcomes of deliveries met the same faults, and none was dropped for it.
        let shown = until(&system, "s", |status| status.lag_events == 0 && status.unsettled == 0).await;
        assert_eq!(shown.retrying + shown.dead_letters, 0);
        for shard in system.shards() {
            assert_view_is_the_log(shard);
        }
        stop(system).await;
    }
}

/// The folder of a shard's log, and where a test hides it.
fn log_folder(folder: &tempfile::TempDir, shard: u16) -> (PathBuf, PathBuf) {
    let shard = folder.path().join(format!("shard-{shard:02}"));
    (shard.join("log"), shard.join("hidden"))
}

#[actix::test]
async fn a_shard_whose_log_is_gone_is_read_only_until_it_is_back_and_the_other_does_not_notice() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![]), &Endpoints::all_well()).await;
    let [here, there] = two(&system);
    create(&here, "before").await.unwrap();
    let (log, hidden) = log_folder(&folder, 0);
    std::fs::rename(&log, &hidden).unwrap();
    faults.begin("log::sync", "1*return");
    assert_eq!(create(&here, "failed").await, Err(WriteError::Unknown));
    let shard = &system.shards()[0];
    eventually("it is read-only", || shard.status().phase == Phase::ReadOnly).await;
    let begin = Instant::now();
    assert_eq!(create(&here, "refused").await, Err(WriteError::Unavailable));
    assert!(begin.elapsed() < Duration::from_secs(1), "a refusal comes at once");
    assert!(here.read(&id("before")).unwrap().is_some());
    assert_eq!(here.list(None, 10, 1 << 20).unwrap().documents.len(), 1);
    create(&there, "unaffected").await.unwrap();
    assert_eq!(system.shards()[1].status().phase, Phase::Open);
    std::fs::rename(&hidden, &log).unwrap();
    eventually("it is open again", || shard.status().phase == Phase::Open).await;
    create(&here, "after").await.unwrap();
    assert_view_is_the_log(shard);
    stop(system).await;
}

#[actix::test]
async fn a_drain_ends_in_its_time_although_a_shard_is_broken() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    let [here, _] = two(&system);
    let (log, hidden) = log_folder(&folder, 0);
    std::fs::rename(&log, &hidden).unwrap();
    faults.begin("log::sync", "1*return");
    assert_eq!(create(&here, "failed").await, Err(WriteError::Unknown));
    let begin = Instant::now();
    system.drain(Duration::from_secs(2)).await;
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[actix::test]
async fn a_view_that_cannot_be_written_refuses_writers_and_loses_none() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let endpoints = Endpoints::all_well();
    let system = start(config(folder.path(), vec![subscription("s", quick(3))]), &endpoints).await;
    let [here, there] = two(&system);
    create(&there, "unaffected").await.unwrap();
    until(&system, "s", |status| status.delivered == 1 && status.unsettled == 0).await;
    create(&here, "before").await.unwrap();
    until(&system, "s", |status| status.delivered == 2 && status.unsettled == 0).await;
    faults.begin("view::apply", "return");
    // It is durable, and so it is acknowledged and seen, although the view does not take it.
    create(&here, "late").await.unwrap();
    let shard = &system.shards()[0];
    eventually("it is unavailable", || shard.status().phase == Phase::Unavailable).await;
    assert!(here.read(&id("late")).unwrap().is_some());
    assert!(matches!(here.read(&id("before")), Err(ReadError::Shard(ShardReadError::Unavailable))));
    assert_eq!(create(&here, "refused").await, Err(WriteError::Unavailable));
    assert!(there.read(&id("unaffected")).unwrap().is_some());
    faults.end("view::apply");
    eventually("it is open again", || shard.status().phase == Phase::Open).await;
    assert!(here.read(&id("late")).unwrap().is_some());
    create(&here, "after").await.unwrap();
    until(&system, "s", |status| status.delivered == 4 && status.unsettled == 0).await;
    assert_view_is_the_log(shard);
    stop(system).await;
}

#[actix::test]
async fn failing_checkpoints_and_appends_together_end_in_an_open_shard() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), vec![]);
    config.shard.checkpoint_interval = Duration::from_millis(5);
    let system = start(config, &Endpoints::all_well()).await;
    let [here, _] = two(&system);
    let writers = Writers::begin(&here);
    writers.gain(5).await;
    faults.begin("view::checkpoint", "return");
    writers.gain(10).await;
    faults.begin("log::sync", "20%return");
    faults.begin("view::apply", "20%return");
    eventually("much went wrong", || system.shards()[0].status().reopened > 12).await;
    for place in ["view::apply", "log::sync", "view::checkpoint"] {
        faults.end(place);
    }
    writers.gain(20).await;
    writers.end(&here).await;
    for shard in system.shards() {
        assert_eq!(shard.status().phase, Phase::Open);
        assert_view_is_the_log(shard);
    }
    stop(system).await;
}

#[actix::test]
async fn an_acknowledged_write_needs_no_checkpoint_to_survive() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let settings = || config(folder.path(), vec![]);
    let system = start(settings(), &Endpoints::all_well()).await;
    let [here, there] = two(&system);
    faults.begin("view::checkpoint", "delay(1)");
    for n in 0..50 {
        create(&here, &format!("load-{n}")).await.unwrap();
        create(&there, &format!("load-{n}")).await.unwrap();
    }
    stop(system).await;
    let system = start(settings(), &Endpoints::all_well()).await;
    for partition in two(&system) {
        assert_eq!(partition.list(None, 100, 1 << 20).unwrap().documents.len(), 50);
    }
    for shard in system.shards() {
        assert_view_is_the_log(shard);
    }
    stop(system).await;
}

#[actix::test]
async fn a_thread_of_a_shard_that_dies_ends_the_process_and_leaves_no_writer_waiting() {
    for (place, thread, durable) in [
        ("writer::panic", "shard-7-writer", false),
        ("writer::handed_over", "shard-7-writer", true),
        ("applier::panic", "shard-7-applier", true),
        ("applier::reply", "shard-7-applier", true),
    ] {
        let faults = Faults::none();
        let folder = tempfile::tempdir().unwrap();
        let died: Arc<Mutex<Vec<String>>> = Arc::default();
        let fatal = {
            let died = died.clone();
            Arc::new(move |text: &str| died.lock().unwrap().push(text.to_owned()))
        };
        let shard = Shard::create(ShardId(7), folder.path(), ShardSettings::default()).unwrap();
        let shard = shard.start(SystemClock::shared(), fatal).unwrap();
        let put = |key: &'static str| {
            let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"v"));
            vec![Mutation::Put { table: Table::System, key, value }]
        };
        shard.commit(put("first")).unwrap().await.unwrap().unwrap();
        faults.begin(place, "panic");
        let answer = tokio::time::timeout(AMPLE, shard.commit(put("second")).unwrap())
            .await
            .expect("nobody waits for ever");
        assert!(answer.is_err(), "its sender is gone: nobody knows");
        eventually("somebody is told", || !died.lock().unwrap().is_empty()).await;
        let text = died.lock().unwrap().join(", ");
        assert!(text.contains(thread), "{text}");
        drop((shard, faults));
        // What a new process finds. Its first try fails half way, and that changes nothing.
        let faults = Faults::none();
        faults.begin("shard::open", "return");
        let open = || Shard::open(ShardId(7), folder.path(), ShardSettings::default());
        let refused = |error: &ShardOpenError| matches!(error, ShardOpenError::Replay { .. });
        eventually("the other thread has let go", || open().is_err_and(|error| refused(&error))).await;
        faults.end("shard::open");
        let shard = open().unwrap().start(SystemClock::shared(), Arc::new(|_: &str| ())).unwrap();
        let view = shard.view().unwrap();
        for (key, there) in [("first", true), ("second", durable)] {
            let row = view.row(Table::System, key.as_bytes()).unwrap();
            assert_eq!(row.is_some(), there, "{key} after {place}");
        }
    }
}

#[actix::test]
async fn a_write_behind_a_failed_one_of_the_same_document_sees_what_is_really_there() {
    let faults = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), vec![]), &Endpoints::all_well()).await;
    let [here, _] = two(&system);
    for round in 0..10 {
        let name = format!("load-{round}");
        faults.begin("log::sync", "1*return");
        assert_eq!(create(&here, &name).await, Err(WriteError::Unknown));
        let there = || here.read(&id(&name)).unwrap().is_some();
        eventually("it is open again", || system.shards()[0].status().phase == Phase::Open).await;
        let again = create(&here, &name).await;
        let expected = if again == Err(WriteError::Exists) { again.is_err() } else { again.is_ok() };
        assert!(expected && there(), "{again:?}");
        here.write(write(&name, Operation::Delete), AMPLE).await.unwrap();
        assert!(!there());
    }
    assert_view_is_the_log(&system.shards()[0]);
    stop(system).await;
}
