//! A request that comes again with its idempotency key is answered, and not done again.

use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_actors::model::change::ChangeKind::{self, Create, Delete, Replace};
use lanekeeper_actors::policy::charge::RequestUnits;
use lanekeeper_actors::policy::idempotency::Fingerprint;
use lanekeeper_actors::protocol::partition::{Repeat, Write, WriteError, WriteResult, Written};
use serde_json::json;

use crate::support::eventually;
use crate::world::{
    AMPLE, Door, World, create, delete, expiring, patch, plain, read, replace, settle, unique, upsert,
};

const KEEP: Duration = Duration::from_secs(60);

fn key(key: &'static str, what: &str) -> Repeat {
    let fingerprint = Fingerprint::of(what, None, b"");
    Repeat { key: key.into(), fingerprint, keep: KEEP }
}

async fn ask(door: &Door, write: Write, repeat: Repeat) -> WriteResult {
    let written = door.0.transact(vec![write], Some(repeat), AMPLE).await;
    written.map(|mut all| all.remove(0)).map_err(|refused| refused.error)
}

/// A replay differs from the first answer in its cost, and in saying that it is one.
fn as_replay(first: &Written) -> Written {
    Written { replayed: true, charge: RequestUnits::ZERO, ..first.clone() }
}

fn without_charge(result: WriteResult) -> Written {
    Written { charge: RequestUnits::ZERO, ..result.unwrap() }
}

#[actix::test]
async fn the_same_request_gets_the_same_answer_and_the_log_knows_it_once() {
    for container in [plain("loads"), unique("loads", &[&["n"]])] {
        let world = World::new(vec![container]).await;
        let door = world.door("loads", "a");
        for (name, write, kind) in [
            ("create", create("x", json!({"n": 1})), Create),
            ("replace", replace("x", json!({"n": 2})), Replace),
            ("patch", patch("x", &json!([{"op": "incr", "path": "/n", "value": 1}])), Replace),
            ("upsert", upsert("x", json!({"n": 4})), Replace),
            ("delete", delete("x"), Delete),
        ] {
            let first = ask(&door, write.clone(), key(name, name)).await.unwrap();
            assert_eq!((first.kind, first.replayed), (Some(kind), false), "{name}");
            let log = world.log(&door);
            for settled in [false, true] {
                if settled {
                    settle(&world).await;
                }
                let again = ask(&door, write.clone(), key(name, name)).await;
                assert_eq!(without_charge(again), as_replay(&first), "{name}");
            }
            assert_eq!(world.log(&door), log, "{name}");
        }
        assert_eq!(door.get("x"), None);
        world.end().await;
    }
}

#[actix::test]
async fn another_request_with_the_key_is_refused_and_other_partitions_have_their_own_keys() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    ask(&door, create("x", json!({})), key("k", "create x")).await.unwrap();
    let reused = ask(&door, create("y", json!({})), key("k", "create y")).await;
    assert_eq!(reused, Err(WriteError::KeyReused));
    assert_eq!(door.get("y"), None);
    // A longer key is another one.
    ask(&door, create("y", json!({})), key("k2", "create y")).await.unwrap();
    let there = world.door("loads", "b");
    let written = ask(&there, create("x", json!({})), key("k", "something else")).await.unwrap();
    assert!(!written.replayed);
    world.end().await;
}

#[actix::test]
async fn a_key_is_free_again_when_its_time_is_over() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let first = ask(&door, upsert("x", json!({})), key("k", "upsert")).await.unwrap();
    world.pass(59_999);
    assert!(ask(&door, upsert("x", json!({})), key("k", "upsert")).await.unwrap().replayed);
    world.pass(1);
    let second = ask(&door, upsert("x", json!({})), key("k", "another")).await.unwrap();
    assert_eq!((second.kind, second.replayed), (Some(Replace), false));
    assert!(second.lsn > first.lsn);
    let again = ask(&door, upsert("x", json!({})), key("k", "another")).await;
    assert_eq!(without_charge(again), as_replay(&second));
    world.end().await;
}

#[actix::test]
async fn what_was_refused_or_changed_nothing_is_not_remembered() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let missing = ask(&door, replace("x", json!({})), key("k", "replace")).await;
    assert_eq!(missing, Err(WriteError::NotFound));
    door.one(create("x", json!({}))).await.unwrap();
    ask(&door, read("x"), key("k", "read")).await.unwrap();
    let done = ask(&door, replace("x", json!({})), key("k", "replace")).await.unwrap();
    assert!(!done.replayed);
    world.end().await;
}

#[actix::test]
async fn the_answer_survives_a_crash_and_later_changes_but_not_the_document() {
    let world = World::with(vec![expiring("loads", Some(-1))], |config| {
        config.shard.checkpoint_interval = Duration::from_secs(3_600);
    });
    let world = world.await;
    let door = world.door("loads", "a");
    let document = json!({"ttl": 5});
    let first = ask(&door, create("x", document.clone()), key("k", "create")).await.unwrap();
    let world = world.kill().await;
    let door = world.door("loads", "a");
    let again = ask(&door, create("x", document.clone()), key("k", "create")).await;
    assert_eq!(without_charge(again), as_replay(&first));
    // What nobody may read any more is not told by a replay either.
    world.pass(5_000);
    let after_the_end = ask(&door, create("x", document.clone()), key("k", "create")).await;
    let empty = Written { body: bytes::Bytes::new(), ..as_replay(&first) };
    assert_eq!(without_charge(after_the_end), empty);
    // A create over it makes two changes, and is answered with its place again.
    let over = ask(&door, create("x", document.clone()), key("over", "create")).await.unwrap();
    assert_eq!(over.etag.0.lsn, over.lsn.plus(1));
    let again = ask(&door, create("x", document.clone()), key("over", "create")).await;
    assert_eq!(without_charge(again), as_replay(&over));
    let world = world.restart().await;
    let door = world.door("loads", "a");
    door.one(delete("x")).await.unwrap();
    let again = ask(&door, create("x", document), key("over", "create")).await;
    assert_eq!(without_charge(again), Written { body: bytes::Bytes::new(), ..as_replay(&over) });
    assert_eq!(door.get("x"), None);
    world.end().await;
}

#[actix::test]
async fn within_a_batch_a_repeated_request_waits_for_the_first() {
    let world = World::alone(vec![expiring("loads", Some(5))], |_| {}).await;
    let door = world.door("loads", "a");
    door.one(create("x", json!({}))).await.unwrap();
    world.pass(5_000);
    let done = ask(&door, create("q", json!({"ttl": -1})), key("q", "q")).await.unwrap();
    settle(&world).await;
    fail::cfg("log::append", "pause").unwrap();
    let blocker = {
        let door = door.clone();
        actix_rt::spawn(async move { door.one(upsert("zz-blocker", json!({}))).await })
    };
    eventually("it is in flight", || world.shard(&door).status().lag > 0).await;
    let asks = join_all([
        ask(&door, replace("q", json!({"n": "new"})), key("q2", "q2")),
        ask(&door, create("q", json!({"ttl": -1})), key("q", "q")),
        ask(&door, create("x", json!({})), key("k", "create")),
        ask(&door, create("x", json!({})), key("k", "create")),
        ask(&door, create("y", json!({})), key("k", "other")),
        ask(&door, create("y", json!({})), key("k2", "y")),
        ask(&door, create("y", json!({})), key("k2", "y")),
        ask(&door, replace("y", json!({"n": 1})), key("k3", "y")),
        ask(&door, create("y", json!({})), key("k2", "y")),
    ]);
    let let_go = async {
        eventually("all wait", || world.system.directory().writes_in_flight() == 10).await;
        fail::remove("log::append");
    };
    let (results, ()) = tokio::join!(asks, let_go);
    blocker.await.unwrap().unwrap();
    let old = without_charge(results[1].clone());
    assert_eq!(
        old,
        Written { body: bytes::Bytes::new(), ..as_replay(&done) },
        "not the body of another version"
    );
    let results = &results[2..];
    let first = results[0].clone().unwrap();
    assert_eq!(first.etag.0.lsn, first.lsn.plus(1), "it was created over one that had ended");
    assert_eq!(without_charge(results[1].clone()), as_replay(&first));
    assert_eq!(results[2], Err(WriteError::KeyReused));
    let made = results[3].clone().unwrap();
    assert_eq!(without_charge(results[4].clone()), as_replay(&made));
    assert_eq!(results[5].clone().unwrap().kind, Some(Replace));
    let late = without_charge(results[6].clone());
    assert_eq!(late, Written { body: bytes::Bytes::new(), ..as_replay(&made) });
    settle(&world).await;
    let again = ask(&door, create("x", json!({})), key("k", "create")).await;
    assert_eq!(without_charge(again), as_replay(&first));
    world.end().await;
}

#[actix::test]
async fn of_a_hundred_equal_requests_at_once_one_is_done() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let asks = (0..100).map(|_| ask(&door, create("x", json!({"n": 1})), key("k", "create")));
    let results: Vec<Written> = join_all(asks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|written| !written.replayed).count(), 1);
    assert!(results.iter().all(|written| written.etag == results[0].etag && written.body == results[0].body));
    let log = world.log(&door);
    let kinds: Vec<ChangeKind> = log.iter().map(|(_, change)| change.kind).collect();
    assert_eq!(kinds, [Create]);
    world.end().await;
}
