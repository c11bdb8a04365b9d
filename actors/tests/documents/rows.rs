//! The rows of indexes, unique keys and times to live are those that follow from the documents, no more
//! and no fewer, whatever happened before.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use lanekeeper_actors::model::change::Table;
use lanekeeper_actors::model::json::value_at;
use lanekeeper_actors::model::order_key::{MAX_KEY, Truncated, encode_bounded};
use lanekeeper_actors::partition::{cut_note, index_prefix};
use lanekeeper_actors::policy::container::{Container, Index, paths_id};
use lanekeeper_actors::protocol::partition::{Operation, Write, WriteError};
use lanekeeper_actors::store::StoredDocument;
use serde_json::{Value, json};

use crate::world::{
    AMPLE, Door, World, create, delete, expiring, patch, path, replace, settle, unique, upsert, write,
};

type Rows = BTreeMap<Bytes, Bytes>;

/// What must stand in the tables, made from what stands in the documents.
#[derive(Default)]
struct Derived {
    unique: Rows,
    index: Rows,
    expiry: Rows,
    /// Notes that must be there; there may be others, of documents that were there once.
    notes: Rows,
}

fn paths(names: &[&str]) -> Vec<Vec<String>> {
    names.iter().map(|text| path(text)).collect()
}

fn container() -> Container {
    let index = |names: &[&str]| Index { paths: paths(names) };
    Container {
        indexes: vec![index(&["n"]), index(&["deep/er", "n"]), index(&["ttl"])],
        ttl: expiring("loads", Some(30)).ttl,
        ..unique("loads", &[&["code"], &["n", "deep/er", "code"]])
    }
}

fn add(container: &Container, door: &Door, found: &StoredDocument, derived: &mut Derived) {
    let partition = door.0.address();
    let document: Value = serde_json::from_slice(&found.body).unwrap();
    let id = Bytes::copy_from_slice(found.id.as_str().as_bytes());
    for paths in &container.unique {
        let mut key = index_prefix(partition, paths_id(paths));
        for path in paths {
            let Truncated(_) =
                encode_bounded(Some(value_at(&document, path).unwrap_or(&Value::Null)), MAX_KEY, &mut key);
        }
        assert_eq!(derived.unique.insert(key.into(), id.clone()), None, "two documents have one key");
    }
    for index in &container.indexes {
        let mut key = index_prefix(partition, index.id());
        for path in &index.paths {
            let Truncated(cut) = encode_bounded(value_at(&document, path), MAX_KEY, &mut key);
            if cut {
                derived.notes.insert(cut_note(partition, index.id()), Bytes::new());
            }
        }
        key.extend_from_slice(&id);
        derived.index.insert(key.into(), id.clone());
    }
    if let Some(ttl) = document.get("ttl").and_then(Value::as_f64).filter(|ttl| *ttl > 0.0) {
        let end = (found.at.seconds() + ttl as u64) * 1_000;
        let rest = &partition.as_bytes()[b"loads\0".len()..];
        let key = [b"loads\0", &end.to_be_bytes()[..], rest, &id].concat();
        derived.expiry.insert(key.into(), Bytes::new());
    }
}

async fn check(world: &World, doors: &[Door], container: &Container) {
    let tails = || world.system.shards().iter().map(|shard| shard.log().tail()).collect::<Vec<_>>();
    // The upkeep may take documents away meanwhile: what is compared must be of one moment.
    let (expected, found, notes) = loop {
        settle(world).await;
        let before = tails();
        let gathered = gather(world, doors, container);
        if tails() == before {
            break gathered;
        }
    };
    assert!(expected.notes.keys().all(|note| notes.contains_key(note)), "a note is missing");
    for (found, expected) in
        [(found.unique, expected.unique), (found.index, expected.index), (found.expiry, expected.expiry)]
    {
        let surplus: Vec<_> = found.iter().filter(|(key, value)| expected.get(*key) != Some(value)).collect();
        let missing: Vec<_> = expected.iter().filter(|(key, value)| found.get(*key) != Some(value)).collect();
        assert!(surplus.is_empty() && missing.is_empty(), "surplus {surplus:?}, missing {missing:?}");
    }
}

/// What must be there, what is there, and the notes that are.
fn gather(world: &World, doors: &[Door], container: &Container) -> (Derived, Derived, Rows) {
    let mut expected = Derived::default();
    for door in doors {
        // Those that nobody sees any more are still there, and so are their rows.
        for found in world.shard(door).list(door.0.address(), None, 1_000, 1 << 20).unwrap().documents {
            add(container, door, &found.document, &mut expected);
        }
    }
    let mut found = Derived::default();
    let mut notes = Rows::new();
    for shard in world.system.shards() {
        let view = shard.view().unwrap();
        let rows = |table| view.rows(table, &[], None, usize::MAX).unwrap();
        found.unique.extend(rows(Table::Unique));
        found.expiry.extend(rows(Table::Expiry));
        for (key, value) in rows(Table::Index) {
            let is_note = value.is_empty();
            if is_note {
                notes.insert(key, value)
            } else {
                found.index.insert(key, value)
            };
        }
    }
    (expected, found, notes)
}

fn document(rng: &mut Rng) -> Value {
    let long = "x".repeat(1_100);
    let values =
        [json!(1), json!(1.0), json!("a"), json!(null), json!([1, "a"]), json!({"a": 1}), json!(long)];
    let mut document = json!({});
    for name in ["n", "code"] {
        if rng.u8(0..4) > 0 {
            document[name] = values[rng.usize(0..values.len())].clone();
        }
    }
    if rng.bool() {
        document["deep"] = if rng.bool() { json!({"er": rng.u8(0..3)}) } else { json!("flat") };
    }
    if rng.bool() {
        document["ttl"] = [json!(1), json!(2), json!(7), json!(-1), json!(3.0)][rng.usize(0..5)].clone();
    }
    document
}

fn random(rng: &mut Rng) -> Write {
    let name = format!("d{}", rng.u8(0..9));
    match rng.u8(0..12) {
        0..4 => create(&name, document(rng)),
        4 | 5 => upsert(&name, document(rng)),
        6 | 7 => replace(&name, document(rng)),
        8 => {
            let path = ["/n", "/code", "/deep", "/ttl"][rng.usize(0..4)];
            patch(&name, &json!([{"op": "remove", "path": path}]))
        }
        9 => {
            let new = document(rng);
            patch(&name, &json!([{"op": "set", "path": "/n", "value": new["n"]}]))
        }
        10 => write(&name, Operation::Sweep),
        _ => delete(&name),
    }
}

#[actix::test]
async fn after_any_writes_the_rows_are_those_of_the_documents() {
    let seed = std::env::var("LANEKEEPER_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(20_250_117);
    println!("LANEKEEPER_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let container = container();
    let mut world = World::with(vec![container.clone()], |config| {
        config.shard.checkpoint_interval = std::time::Duration::from_secs(3_600);
    })
    .await;
    let (mut done, mut not_unique) = (0, 0);
    for round in 0..24 {
        let doors = ["a", "b", "c"].map(|lane| world.door("loads", lane));
        for _ in 0..12 {
            let door = &doors[rng.usize(0..doors.len())];
            let count = if rng.bool() { 1 } else { rng.usize(2..5) };
            let writes: Vec<_> = (0..count).map(|_| random(&mut rng)).collect();
            match door.0.transact(writes, None, AMPLE).await.map_err(|refused| refused.error) {
                Ok(_) => done += 1,
                Err(WriteError::NotUnique(_)) => not_unique += 1,
                Err(
                    WriteError::Exists
                    | WriteError::NotFound
                    | WriteError::Patch(_)
                    | WriteError::PatchedInvalid(_),
                ) => {}
                Err(other) => panic!("{other:?}"),
            }
            world.pass(rng.u64(0..900));
        }
        check(&world, &doors, &container).await;
        match round % 8 {
            3 => world = world.kill().await,
            7 => {
                let door = &doors[rng.usize(0..doors.len())];
                world.shard(door).purge(door.0.address().as_bytes().to_vec()).await.unwrap();
                world = world.restart().await;
            }
            _ => {}
        }
    }
    assert!(done > 50 && not_unique > 5, "{done} {not_unique}");
    world.end().await;
}
