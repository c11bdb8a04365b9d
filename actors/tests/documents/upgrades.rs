//! What an older program wrote is read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use lanekeeper_actors::model::change::ChangeKind::{Create, Delete, Replace};
use lanekeeper_actors::model::ids::Lsn;
use serde::Serialize;
use serde_bytes::Bytes;
use serde_json::json;

use crate::world::{World, delete, patch, plain, replace, upsert};

/// Where the records of a segment begin, and the length of their heads.
const START: usize = 64;
const HEAD: usize = 48;

/// A mutation as version 1 wrote it: without place, time to live and rows.
type Version1<'a> = (u8, u8, &'a Bytes, &'a str, &'a Bytes, u64, i64, Option<&'a str>);

/// A record of version 1.
fn record(first: u64, before: &[u8], mutations: &[Version1<'_>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for mutation in mutations {
        mutation.serialize(&mut rmp_serde::Serializer::new(&mut payload)).unwrap();
    }
    let last = first + mutations.len() as u64 - 1;
    let length = u32::try_from(payload.len()).unwrap();
    let rest = [
        &length.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &first.to_le_bytes(),
        &last.to_le_bytes(),
        before,
        &payload,
    ]
    .concat();
    let record = [b"LKR1", &crc32c::crc32c(&rest).to_le_bytes()[..], &rest].concat();
    assert_eq!(record.len(), HEAD + payload.len());
    record
}

/// Puts records into the first segment of a log that is empty.
fn write_records(segment: &Path, groups: &[Vec<Version1<'_>>]) {
    let file = File::options().read(true).write(true).open(segment).unwrap();
    let mut head = [0; START];
    file.read_exact_at(&mut head, 0).unwrap();
    let mut before = head[24..40].to_vec();
    let (mut at, mut first) = (START as u64, 1);
    for group in groups {
        let record = record(first, &before, group);
        file.write_all_at(&record, at).unwrap();
        before = twox_hash::XxHash3_128::oneshot(&record).to_le_bytes().to_vec();
        at += record.len() as u64;
        first += group.len() as u64;
    }
}

#[actix::test]
async fn a_log_of_version_1_is_replayed_and_goes_on() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let (address, shard) = (door.0.address().as_bytes().clone(), door.0.shard());
    let key = Bytes::new(&address);
    let body = |text: &'static str| Bytes::new(text.as_bytes());
    let groups = vec![
        vec![
            (1, 1, key, "x", body(r#"{"id":"x","lane":"a","n":1}"#), 1_000, 0, None),
            (1, 1, key, "y", body(r#"{"id":"y","lane":"a"}"#), 1_000, 0, Some("00-trace")),
            (1, 2, key, "x", body(r#"{"id":"x","lane":"a","n":2}"#), 2_000, -2, None),
        ],
        // A row of the system, and one that goes again.
        vec![(2, 6, Bytes::new(b"k"), "", body("value"), 0, 0, None)],
        vec![(1, 3, key, "y", body(""), 3_000, 2, None)],
        vec![(1, 2, key, "x", body(r#"{"id":"x","lane":"a","n":3}"#), 4_000, 3, None)],
    ];
    let world = world
        .restart_after(|folder| {
            let segment = folder.join(format!("shard-{shard:02}/log/00000001.log"));
            write_records(&segment, &groups);
        })
        .await;
    let door = world.door("loads", "a");
    assert_eq!(door.get("x"), Some(json!({"n": 3})));
    assert_eq!(door.get("y"), None);
    let found = door.0.read(&crate::support::id("x")).unwrap().unwrap();
    assert_eq!((found.lsn, found.at.0, found.within, found.ttl), (Lsn(6), 4_000, 0, 0));
    let log = world.log(&door);
    let told: Vec<_> = log.iter().map(|(lsn, change)| (lsn.0, change.kind, change.within)).collect();
    assert_eq!(told, [(1, Create, 0), (2, Create, 0), (3, Replace, 0), (5, Delete, 0), (6, Replace, 0)]);
    assert_eq!(log[1].1.traceparent.as_deref(), Some("00-trace"));
    // New records stand behind the old ones.
    let incr = json!([{"op": "incr", "path": "/n", "value": 1}]);
    door.all(vec![patch("x", &incr), upsert("y", json!({})), replace("y", json!({"n": 0}))]).await.unwrap();
    let world = world.restart().await;
    let door = world.door("loads", "a");
    assert_eq!((door.get("x"), door.get("y")), (Some(json!({"n": 4})), Some(json!({"n": 0}))));
    door.all(vec![delete("x"), delete("y")]).await.unwrap();
    world.end().await;
}
