//! Readers that follow a feed while everything is written at once, over a restart: each acknowledged
//! write is seen exactly once among all changes, and the last version of each document among the latest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lanekeeper_actors::model::address::EncodedPartition;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::feed::{FeedCursor, FeedMode, FeedStart};
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::reader::{Change, Scope};
use lanekeeper_actors::system::System;
use serde_json::json;

use crate::scene::{config, container, delete, feed, partition, scope, start, transact, upsert};
use crate::support::stop;

const LANES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A document: its lane and its id.
type Name = (EncodedPartition, String);

/// What was acknowledged.
#[derive(Default)]
struct Model {
    all: BTreeMap<(u16, u64), (Name, ChangeKind)>,
    last: BTreeMap<Name, Option<(u16, u64)>>,
}

fn place(position: Position) -> (u16, u64) {
    (position.shard.0, position.lsn.0)
}

async fn write(system: System, model: Arc<Mutex<Model>>, lane: &'static str, seed: u64, writes: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let scope = scope("loads", &[lane]);
    let address = partition(&system, &scope).address().clone();
    for round in 0..writes {
        let mut there: BTreeSet<String> = {
            let model = model.lock().unwrap();
            let own = model.last.iter().filter(|((of, _), last)| *of == address && last.is_some());
            own.map(|((_, id), _)| id.clone()).collect()
        };
        let mut operations = Vec::new();
        for _ in 0..random.usize(1..5) {
            let id = format!("{lane}{}", random.u8(..12));
            if there.contains(&id) && random.u8(..3) == 0 {
                there.remove(&id);
                operations.push(delete(&id));
            } else {
                there.insert(id.clone());
                operations.push(upsert(
                    &json!({"id": id, "lane": lane, "v": round, "pad": "p".repeat(random.usize(..300))}),
                ));
            }
        }
        let done = transact(&system, &scope, operations).await;
        let mut model = model.lock().unwrap();
        for written in done {
            let (at, kind) = (place(written.etag.0), written.kind.unwrap());
            let name = (address.clone(), written.id.as_str().to_owned());
            assert!(model.all.insert(at, (name.clone(), kind)).is_none());
            model.last.insert(name, (!kind.is_removal()).then_some(at));
        }
    }
}

/// A reader with all that it has seen.
struct Reader {
    scope: Scope,
    mode: FeedMode,
    cursor: Option<FeedCursor>,
    seen: Vec<Change>,
}

impl Reader {
    fn new(parts: &[&str], mode: FeedMode) -> Self {
        Self { scope: scope("loads", parts), mode, cursor: None, seen: Vec::new() }
    }

    /// Follows until it is told that nothing is written any more, and then to the end.
    async fn follow(mut self, system: System, ended: Arc<AtomicBool>, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let last_time = ended.load(Ordering::SeqCst);
            let from = match (&self.cursor, self.mode) {
                (Some(cursor), _) => FeedStart::Cursor(cursor.to_string().parse().unwrap()),
                (None, FeedMode::Latest) => FeedStart::Beginning,
                (None, FeedMode::All) => FeedStart::Now,
            };
            let mut request = feed(&self.scope, self.mode, from);
            request.limit = random.usize(1..20);
            request.wait = Duration::from_millis(random.u64(..10));
            let page = system.reader().changes(request).await.unwrap();
            let still = self.cursor.as_ref() == Some(&page.cursor);
            self.cursor = Some(page.cursor);
            if page.changes.is_empty() && last_time && still {
                return self;
            }
            self.seen.extend(page.changes);
        }
    }

    fn check(&self, model: &Model, address: Option<&EncodedPartition>) {
        let mut last = BTreeMap::new();
        let mut found = BTreeMap::new();
        for change in &self.seen {
            let (at, name) =
                (place(change.etag.0), (change.partition.clone(), change.id.as_str().to_owned()));
            assert!(last.insert(change.partition.clone(), at.1).is_none_or(|before| before < at.1));
            assert!(found.insert(at, (name, change.kind)).is_none(), "{change:?} comes twice");
        }
        let own = |partition: &EncodedPartition| address.is_none_or(|address| address == partition);
        if self.mode == FeedMode::All {
            let expected: BTreeMap<_, _> = model.all.iter().filter(|(_, ((of, _), _))| own(of)).collect();
            let found: BTreeMap<_, _> =
                found.iter().map(|(at, (name, kind))| (*at, (name.clone(), kind.unwrap()))).collect();
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(found, expected)| (found.0, found.1) == expected));
            return;
        }
        let mut newest = BTreeMap::new();
        for (at, (name, _)) in found {
            newest.insert(name, at);
        }
        for (name, last) in model.last.iter().filter(|((of, _), _)| own(of)) {
            if let Some(at) = last {
                assert_eq!(newest.get(name), Some(at), "{name:?}");
            }
        }
    }
}

#[actix::test]
async fn every_acknowledged_write_is_seen_exactly_once_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Mutex::new(Model::default()));
    let mut readers: Vec<Reader> = Vec::new();
    for mode in [FeedMode::All, FeedMode::Latest] {
        readers.extend([Reader::new(&[], mode), Reader::new(&[], mode), Reader::new(&["a"], mode)]);
    }
    let mut system = None;
    for phase in 0..2 {
        let running = start(config(folder.path(), [container("loads", &["lane"])])).await;
        if phase == 0 {
            for reader in &mut readers {
                // They begin before anything is written.
                let from = if reader.mode == FeedMode::All { FeedStart::Now } else { FeedStart::Beginning };
                let page = running.reader().changes(feed(&reader.scope, reader.mode, from)).await.unwrap();
                reader.cursor = Some(page.cursor);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let follow = readers.drain(..).enumerate().map(|(number, reader)| {
            actix::spawn(reader.follow(running.clone(), ended.clone(), number as u64 + phase * 10))
        });
        let following: Vec<_> = follow.collect();
        let writers = LANES.iter().enumerate().map(|(number, lane)| {
            actix::spawn(write(running.clone(), model.clone(), lane, phase * 100 + number as u64, 80))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        ended.store(true, Ordering::SeqCst);
        for reader in following {
            readers.push(reader.await.unwrap());
        }
        if phase == 0 { stop(running).await } else { system = Some(running) }
    }
    let system = system.unwrap();
    let address = partition(&system, &scope("loads", &["a"])).address().clone();
    for reader in &readers {
        let narrow = (!reader.scope.key.is_empty()).then_some(&address);
        reader.check(&model.lock().unwrap(), narrow);
    }
    stop(system).await;
}
