//! A backup of a running system is a whole system of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use futures_util::future::join_all;
use lanekeeper_actors::backup::{BackupError, BackupFile, Folder, Piece, Shelf, backup, restore};
use lanekeeper_actors::protocol::partition::{Content, Operation};
use lanekeeper_actors::system::System;

use crate::support::{
    AMPLE, Endpoints, body, config, create, event, id, lane, quick, start, stop, subscription, until, write,
};

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

/// A shelf that takes no rows before somebody says so.
struct Slow {
    folder: Folder,
    asked: mpsc::Sender<()>,
    may_go_on: mpsc::Receiver<()>,
}

impl Shelf for Slow {
    fn require_empty(&self) -> Result<(), BackupError> {
        self.folder.require_empty()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Piece + '_>> {
        let piece = self.folder.create(path)?;
        let is_first = path.ends_with("view.rows");
        Ok(Box::new(SlowPiece { piece, gate: is_first.then_some((&self.asked, &self.may_go_on)) }))
    }

    fn complete(&self, files: &[BackupFile], list: &[u8]) -> Result<(), BackupError> {
        self.folder.complete(files, list)
    }
}

struct SlowPiece<'s> {
    piece: Box<dyn Piece + 's>,
    gate: Option<(&'s mpsc::Sender<()>, &'s mpsc::Receiver<()>)>,
}

impl io::Write for SlowPiece<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((asked, may_go_on)) = self.gate.take() {
            asked.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        self.piece.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.piece.flush()
    }
}

impl Piece for SlowPiece<'_> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.piece.finish()
    }
}

#[actix::test]
async fn while_a_slow_shelf_takes_its_time_the_view_does_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut settings = config(&data, vec![]);
    settings.default_shards = 1;
    let system = start(settings, &Endpoints::all_well()).await;
    let partition = lane(&system, "a");
    let round = async |count: usize| {
        for at in 0..count * 20 {
            let writes = (0..20).map(|n| {
                let content = Content::plain(body(&"x".repeat(4_000)));
                let name = format!("load-{}", at % 20 * 20 + n);
                let write = write(&name, Operation::Upsert(content));
                async { partition.write(write, AMPLE).await }
            });
            assert!(join_all(writes).await.iter().all(Result::is_ok));
        }
    };
    let length = || fs::metadata(data.join("shard-00/view.redb")).unwrap().len();
    // The file is as long as it gets by writing alone.
    round(20).await;
    let before = length();
    let (asked, was_asked) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let shelf = Slow { folder: Folder::at(folder.path().join("backup")), asked, may_go_on };
    let (shards, of, id) = (system.shards().to_vec(), system.data().to_owned(), system.data_id().to_owned());
    let made = tokio::task::spawn_blocking(move || backup(&shards, &of, &id, &shelf, 7));
    tokio::task::spawn_blocking(move || was_asked.recv().unwrap()).await.unwrap();
    round(20).await;
    let after = length();
    assert!(after < before * 2, "{before} became {after}");
    go_on.send(()).unwrap();
    assert!(made.await.unwrap().unwrap().rows > 400);
    assert!(!data.join("backup.tmp").exists());
    stop(system).await;
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
