//! A backup of a running system is a whole system of its own.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use lanekeeper_actors::backup::{BackupError, Folder, backup, restore};
use lanekeeper_actors::system::System;

use crate::support::{Endpoints, config, create, event, id, lane, quick, start, stop, subscription, until};

const LANES: usize = 20;

async fn back_up(system: &System, out: &std::path::Path) -> Result<(), BackupError> {
    let (shards, data, id) =
        (system.shards().to_vec(), system.data().to_owned(), system.data_id().to_owned());
    let out = out.to_owned();
    tokio::task::spawn_blocking(move || backup(&shards, &data, &id, &Folder::at(out), 7).map(|_| ()))
        .await
        .unwrap()
}

#[actix::test]
async fn a_backup_under_load_holds_what_was_acknowledged_and_owes_what_was_owed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("backup");
    let endpoints = Endpoints::all_well();
    let settings = config(&folder.path().join("data"), vec![subscription("s", quick(3))]);
    let system = start(settings, &endpoints).await;
    system.subscription("s").unwrap().pause().await.unwrap();
    let mut before = BTreeSet::new();
    for n in 0..100 {
        before.insert(event(
            create(&lane(&system, &format!("lane-{}", n % LANES)), &format!("before-{n}")).await,
        ));
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let load = {
        let (stopped, system) = (stopped.clone(), system.clone());
        async move {
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                let writes = (0..LANES).map(|at| {
                    let (partition, name) = (lane(&system, &format!("lane-{at}")), format!("during-{n}"));
                    async move { create(&partition, &name).await }
                });
                assert!(join_all(writes).await.iter().all(Result::is_ok));
                n += 1;
            }
            n
        }
    };
    let made = async {
        let made = back_up(&system, &out).await;
        stopped.store(true, Ordering::Relaxed);
        made
    };
    let (rounds, made) = futures_util::future::join(load, made).await;
    made.unwrap();
    assert!(rounds > 0, "nothing was written meanwhile");
    stop(system).await;

    let copy = folder.path().join("copy");
    restore(&out, &copy).unwrap();
    let well = Endpoints::all_well();
    let system = start(config(&copy, vec![subscription("s", quick(3))]), &well).await;
    system.subscription("s").unwrap().resume().await.unwrap();
    for n in 0..100 {
        let partition = lane(&system, &format!("lane-{}", n % LANES));
        assert!(partition.read(&id(&format!("before-{n}"))).unwrap().is_some(), "before-{n}");
    }
    until(&system, "s", |status| status.lag_events == 0 && status.unsettled == 0 && status.delivered >= 100)
        .await;
    let taken: BTreeSet<_> = well.taken("s").into_keys().collect();
    assert!(before.is_subset(&taken), "an event that was owed is lost");
    create(&lane(&system, "lane-0"), "after").await.unwrap();
    stop(system).await;
    let report = lanekeeper_actors::verify::directory(&copy).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[actix::test]
async fn a_backup_is_refused_where_something_is_and_when_it_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("backup"));
    let system = start(config(&data, vec![]), &Endpoints::all_well()).await;
    create(&lane(&system, "a"), "x").await.unwrap();
    back_up(&system, &out).await.unwrap();
    assert!(matches!(back_up(&system, &out).await, Err(BackupError::NotEmpty(_))));
    assert!(matches!(restore(&out, &data), Err(BackupError::NotEmpty(_))), "a live directory");
    assert!(matches!(restore(&data, &folder.path().join("n")), Err(BackupError::NoBackup(_))));
    stop(system).await;
    let rows = out.join("shard-00/view.rows");
    let whole = fs::read(&rows).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40 + 1) {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        fs::write(&rows, &flipped).unwrap();
        let refused = restore(&out, &folder.path().join(format!("copy-{at}")));
        assert!(matches!(refused, Err(BackupError::Damaged(_))), "byte {at}: {refused:?}");
        assert!(!folder.path().join(format!("copy-{at}")).exists(), "something was made of a damaged backup");
    }
    fs::write(&rows, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(restore(&out, &folder.path().join("cut")), Err(BackupError::Damaged(_))));
    fs::write(&rows, &whole).unwrap();
    restore(&out, &folder.path().join("copy")).unwrap();
    let list = fs::read_to_string(out.join("backup.json")).unwrap();
    for outside in ["../pepper", "/tmp/pepper", "shard-00/../../pepper", ""] {
        fs::write(out.join("backup.json"), list.replace("\"shard-00/view.rows\"", &format!("{outside:?}")))
            .unwrap();
        let refused = restore(&out, &folder.path().join("outside"));
        assert!(matches!(refused, Err(BackupError::Damaged(_))), "{outside}: {refused:?}");
        assert!(!folder.path().join("outside").exists(), "{outside}");
    }
    fs::write(out.join("backup.json"), list.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let newer = restore(&out, &folder.path().join("newer"));
    assert!(matches!(newer, Err(BackupError::Newer { found: 2 })), "{newer:?}");
}
