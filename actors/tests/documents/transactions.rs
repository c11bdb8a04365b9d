//! All of a transaction happens or nothing; its operations see each other; it has one place in the log.

use futures_util::future::join_all;
use lanekeeper_actors::model::change::ChangeKind::{Create, Delete, Replace};
use lanekeeper_actors::policy::precondition::Failed;
use lanekeeper_actors::protocol::partition::{Refused, TransactionResult, Write, WriteError};
use serde_json::json;

use crate::support::eventually;
use crate::world::{
    AMPLE, Door, World, create, delete, if_match, patch, plain, read, replace, settle, stripped, unique,
    upsert,
};

fn lsns(result: &TransactionResult) -> Vec<u64> {
    result.as_ref().unwrap().iter().map(|written| written.lsn.0).collect()
}

/// Lets messages gather into one batch behind a write whose append is held up. For one test at a time.
pub(crate) async fn as_one_batch(
    world: &World,
    door: &Door,
    messages: Vec<Vec<Write>>,
) -> Vec<TransactionResult> {
    door.one(upsert("zz-wakes-it", json!({"code": "zz-1"}))).await.unwrap();
    settle(world).await;
    fail::cfg("log::append", "pause").unwrap();
    let first = {
        let door = door.clone();
        actix_rt::spawn(async move { door.one(upsert("zz-blocker", json!({"code": "zz-2"}))).await })
    };
    eventually("the first batch is in flight", || world.shard(door).status().lag > 0).await;
    let count = messages.len();
    let rest = join_all(messages.into_iter().map(|writes| door.0.transact(writes, None, AMPLE)));
    let let_go = async {
        let queue = || {
            let status = world.system.directory().status(100);
            status.iter().find(|one| one.address == *door.0.address()).map_or(0, |one| one.queue)
        };
        eventually("all wait", || queue() == count + 1).await;
        fail::remove("log::append");
    };
    let (results, ()) = tokio::join!(rest, let_go);
    first.await.unwrap().unwrap();
    results
}

#[actix::test]
async fn later_operations_see_what_earlier_ones_did_and_all_share_one_position() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    door.one(create("old", json!({"n": 1}))).await.unwrap();
    let before = world.log(&door).len();
    let result = door
        .all(vec![
            create("x", json!({"n": 1})),
            patch("x", &json!([{"op": "incr", "path": "/n", "value": 4}])),
            read("x"),
            replace("old", json!({"n": 2})),
            delete("x"),
            upsert("x", json!({"n": 9})),
            read("x"),
            create("y", json!({})),
        ])
        .await;
    let written = result.clone().unwrap();
    let kinds: Vec<_> = written.iter().map(|written| written.kind).collect();
    let expected =
        [Some(Create), Some(Replace), None, Some(Replace), Some(Delete), Some(Create), None, Some(Create)];
    assert_eq!(kinds, expected);
    let ids: Vec<_> = written.iter().map(|written| written.id.as_str()).collect();
    assert_eq!(ids, ["x", "x", "x", "old", "x", "x", "x", "y"]);
    for (at, n) in [(0, 1), (1, 5), (2, 5), (3, 2), (5, 9), (6, 9)] {
        assert_eq!(stripped(&written[at].body), json!({"n": n}), "{at}");
    }
    assert!(written[4].body.is_empty());
    assert_eq!(written[2].etag, written[1].etag, "a read names the version that it saw");
    let lsns = lsns(&result);
    assert!(lsns.iter().all(|lsn| *lsn == lsns[0]), "{lsns:?}");
    assert_eq!((door.get("x"), door.get("old")), (Some(json!({"n": 9})), Some(json!({"n": 2}))));
    // In the log they stand one behind the other, and each says how far back the first one is.
    let log = world.log(&door);
    let places: Vec<_> = log[before..].iter().map(|(lsn, change)| (lsn.0, change.within)).collect();
    let expected: Vec<_> = (0..6).map(|n| (lsns[0] + u64::from(n), n)).collect();
    assert_eq!(places, expected);
    let found = door.0.read(&crate::support::id("x")).unwrap().unwrap();
    assert_eq!(found.version().transaction().0, lsns[0]);
    world.end().await;
}

#[actix::test]
async fn a_refused_operation_is_named_and_nothing_of_the_others_is_left() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    let there = door.one(create("there", json!({"code": 1}))).await.unwrap();
    let before = world.log(&door);
    let stale = if_match(replace("there", json!({"code": 3})), "\"7-7\"");
    let not_unique = WriteError::NotUnique("`/code`".into());
    let missing = patch("there", &json!([{"op": "remove", "path": "/none"}]));
    for (refused, error) in [
        (create("there", json!({"code": 2})), WriteError::Exists),
        (replace("none", json!({"code": 2})), WriteError::NotFound),
        (read("none"), WriteError::NotFound),
        (delete("none"), WriteError::NotFound),
        (stale, WriteError::Precondition(Failed::Changed)),
        (create("z", json!({"code": 1})), not_unique.clone()),
    ] {
        let all = vec![create("x", json!({"code": 10})), delete("x"), create("x", json!({"code": 10}))];
        for at in [3, 0] {
            let mut all = all.clone();
            all.insert(at, refused.clone());
            assert_eq!(door.all(all).await, Err(Refused { at, error: error.clone() }));
        }
    }
    let twice = vec![create("x", json!({"code": 10})), create("z", json!({"code": 10}))];
    assert_eq!(door.all(twice).await, Err(Refused { at: 1, error: not_unique }));
    let result = door.all(vec![create("x", json!({"code": 10})), missing]).await.unwrap_err();
    assert!(matches!(result, Refused { at: 1, error: WriteError::Patch(_) }), "{result:?}");
    assert_eq!(world.log(&door), before, "the log knows nothing of them");
    assert_eq!(door.ids(), ["there"]);
    assert_eq!(door.0.read(&there.id).unwrap().unwrap().lsn, there.etag.0.lsn);
    // What a refused transaction would have held is free.
    door.one(create("x", json!({"code": 10}))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn a_transaction_without_changes_writes_nothing() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let made = door.one(create("x", json!({"n": 1}))).await.unwrap();
    let before = world.log(&door);
    let read = door.all(vec![read("x"), read("x")]).await.unwrap();
    assert_eq!((read[0].etag, read[0].lsn, read[0].kind), (made.etag, made.lsn, None));
    assert_eq!(read[0].body, made.body);
    assert_eq!(door.all(vec![]).await, Ok(vec![]));
    assert_eq!(world.log(&door), before);
    world.end().await;
}

#[actix::test]
async fn a_panic_costs_its_transaction_alone() {
    let world = World::alone(vec![plain("loads")], |_| {}).await;
    let door = world.door("loads", "a");
    fail::cfg("partition::evaluate", "panic").unwrap();
    let messages = vec![
        vec![create("one", json!({})), create("two", json!({}))],
        vec![create("lost", json!({})), create("poison", json!({})), create("also", json!({}))],
        vec![replace("one", json!({"n": 2})), create("three", json!({}))],
    ];
    let results = as_one_batch(&world, &door, messages).await;
    assert_eq!(results[1], Err(WriteError::Crashed.into()));
    let (first, last) = (lsns(&results[0]), lsns(&results[2]));
    assert_eq!(last, [first[0] + 2; 2], "the others are one batch, and two transactions");
    let ids: Vec<_> = door.ids().into_iter().filter(|id| !id.starts_with("zz")).collect();
    assert_eq!(ids, ["one", "three", "two"]);
    assert_eq!(door.get("one"), Some(json!({"n": 2})));
    door.one(create("later", json!({}))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn a_refusal_that_rests_on_a_batch_is_told_only_when_the_batch_is_decided() {
    let world = World::alone(vec![unique("loads", &[&["code"]])], |_| {}).await;
    let door = world.door("loads", "a");
    let messages = || {
        vec![
            vec![create("x", json!({"code": 1}))],
            vec![create("x", json!({"code": 2}))],
            vec![create("y", json!({"code": 1}))],
            vec![create("z", json!({"code": 3})), read("none")],
        ]
    };
    let results = as_one_batch(&world, &door, messages()).await;
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(WriteError::Exists.into()));
    assert_eq!(results[2], Err(WriteError::NotUnique("`/code`".into()).into()));
    assert_eq!(results[3], Err(Refused { at: 1, error: WriteError::NotFound }));
    door.one(delete("x")).await.unwrap();
    // The same while the batch does not happen: whoever was refused because of it must not be told so.
    fail::cfg("log::sync", "2*off->1*return->off").unwrap();
    let results = as_one_batch(&world, &door, messages()).await;
    assert_eq!(results[0], Err(WriteError::Unknown.into()));
    assert_eq!(results[1], Err(WriteError::Unknown.into()));
    assert_eq!(results[2], Err(WriteError::Unknown.into()));
    assert_eq!(results[3], Err(Refused { at: 1, error: WriteError::NotFound }));
    fail::remove("log::sync");
    eventually("the shard is open", || world.shard(&door).status().phase.as_str() == "open").await;
    assert_eq!(door.get("x"), None);
    door.one(create("y", json!({"code": 1}))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn a_transaction_that_is_too_large_fails_alone() {
    let world = World::alone(vec![plain("loads")], |_| {}).await;
    let door = world.door("loads", "a");
    let pad = "x".repeat(60 << 10);
    let large = (0..120).map(|n| create(&format!("large-{n}"), json!({"pad": pad}))).collect();
    let messages = vec![vec![create("one", json!({}))], large, vec![create("two", json!({}))]];
    let results = as_one_batch(&world, &door, messages).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{:?}", results[2]);
    let refused = results[1].clone().unwrap_err();
    assert!(refused.error == WriteError::TooLarge && (95..120).contains(&refused.at), "{refused:?}");
    assert_eq!(door.get("large-0"), None);
    let fits = (0..90).map(|n| create(&format!("large-{n}"), json!({"pad": pad}))).collect();
    assert_eq!(door.all(fits).await.unwrap().len(), 90);
    world.end().await;
}
