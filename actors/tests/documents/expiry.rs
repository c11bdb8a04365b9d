//! A document whose time to live is over is gone for everybody from one exact moment on.

use lanekeeper_actors::model::change::ChangeKind::{self, Create, Expire, Replace};
use lanekeeper_actors::policy::container::Catalog;
use lanekeeper_actors::policy::ttl::InvalidTtl;
use lanekeeper_actors::protocol::partition::{Content, Operation, Refused, WriteError};
use serde_json::json;

use crate::transactions::as_one_batch;
use crate::world::{
    BEGIN, World, create, delete, expiring, if_match, patch, plain, read, replace, rules, settle, unique,
    upsert, write,
};

#[actix::test]
async fn each_document_lives_as_long_as_it_and_its_container_say() {
    let containers = vec![expiring("off", None), expiring("none", Some(-1)), expiring("ten", Some(10))];
    let world = World::new(containers).await;
    let ttls = [("absent", None), ("never", Some(-1)), ("short", Some(5)), ("long", Some(20))];
    for container in ["off", "none", "ten"] {
        let door = world.door(container, "a");
        for (name, ttl) in ttls {
            let document = ttl.map_or(json!({}), |ttl| json!({"ttl": ttl}));
            door.one(create(name, document)).await.unwrap();
        }
    }
    let seen = |container: &str| world.door(container, "a").ids();
    let all = ["absent", "long", "never", "short"];
    // The clock stands at a half second; times count from the whole second that `_ts` shows.
    assert_eq!(BEGIN.0 % 1_000, 500);
    world.pass(4_499);
    for container in ["off", "none", "ten"] {
        assert_eq!(seen(container), all, "{container}");
    }
    world.pass(1);
    assert_eq!((seen("off").len(), seen("none")), (4, vec!["absent".into(), "long".into(), "never".into()]));
    assert_eq!(seen("ten"), ["absent", "long", "never"]);
    world.pass(5_000);
    assert_eq!((seen("none").len(), seen("ten")), (3, vec!["long".into(), "never".into()]));
    world.pass(10_000);
    assert_eq!((seen("off").len(), seen("none")), (4, vec!["absent".into(), "never".into()]));
    assert_eq!(seen("ten"), ["never"]);
    for (name, there) in [("absent", false), ("never", true), ("short", false), ("long", false)] {
        assert_eq!(world.door("ten", "a").get(name).is_some(), there, "{name}");
    }
    world.end().await;
}

#[test]
fn other_times_to_live_are_refused_at_the_edge() {
    for ttl in ["0", "-2", "null", "1.5", "\"5\"", "2147483648"] {
        let body = format!("{{\"id\":\"x\",\"lane\":\"a\",\"ttl\":{ttl}}}").into();
        let parsed = lanekeeper_actors::model::document::parse(&body, &rules(), || unreachable!()).unwrap();
        assert_eq!(Content::try_from(parsed), Err(InvalidTtl), "{ttl}");
    }
}

#[actix::test]
async fn an_expired_document_is_not_there_for_any_operation() {
    let world = World::new(vec![expiring("loads", Some(10))]).await;
    let door = world.door("loads", "a");
    let tag = door.one(create("x", json!({"n": 1}))).await.unwrap().etag.to_string();
    world.pass(9_500);
    assert_eq!(door.get("x"), None);
    let incr = json!([{"op": "incr", "path": "/n", "value": 1}]);
    let before = world.log(&door).len();
    for write in [replace("x", json!({})), patch("x", &incr), delete("x"), read("x")] {
        assert_eq!(door.one(write.clone()).await, Err(WriteError::NotFound), "{write:?}");
        assert_eq!(door.one(if_match(write.clone(), &tag)).await, Err(WriteError::NotFound), "{write:?}");
    }
    assert_eq!(world.log(&door).len(), before, "a refusal writes nothing");
    // An upsert with its old tag makes a new one, as if it had been deleted.
    assert_eq!(door.kind(if_match(upsert("x", json!({"n": 5})), &tag)).await, Ok(Create));
    assert_eq!(door.get("x"), Some(json!({"n": 5})));
    world.end().await;
}

#[actix::test]
async fn the_id_is_free_at_once_and_the_log_tells_of_the_end_before_the_beginning() {
    for with_rows in [false, true] {
        let container = if with_rows {
            lanekeeper_actors::policy::container::Container {
                ttl: expiring("loads", Some(10)).ttl,
                ..unique("loads", &[&["n"]])
            }
        } else {
            expiring("loads", Some(10))
        };
        let world = World::new(vec![container]).await;
        let door = world.door("loads", "a");
        for name in ["x", "y"] {
            door.one(create(name, json!({"n": name, "ttl": 3}))).await.unwrap();
        }
        settle(&world).await;
        world.pass(2_500);
        let writes = vec![
            create("before", json!({"n": 0})),
            create("x", json!({"n": "x"})),
            upsert("y", json!({"n": "y"})),
            replace("y", json!({"n": "z"})),
            read("x"),
        ];
        let written = door.all(writes).await.unwrap();
        let kinds: Vec<_> = written.iter().map(|written| written.kind).collect();
        assert_eq!(kinds, [Some(Create), Some(Create), Some(Create), Some(Replace), None]);
        let first = written[0].lsn;
        assert!(written.iter().all(|written| written.lsn == first));
        let log: Vec<_> = world.log(&door).into_iter().filter(|(lsn, _)| *lsn >= first).collect();
        let told: Vec<(ChangeKind, &str, u64, u32)> = log
            .iter()
            .map(|(lsn, change)| (change.kind, change.id.as_str(), lsn.0 - first.0, change.within))
            .collect();
        let expected = [
            (Create, "before", 0, 0),
            (Expire, "x", 1, 1),
            (Create, "x", 2, 2),
            (Expire, "y", 3, 3),
            (Create, "y", 4, 4),
            (Replace, "y", 5, 5),
        ];
        assert_eq!(told, expected);
        assert_eq!(written[1].etag.0.lsn, first.plus(2));
        assert!(log[2].1.previous.is_none(), "it is a new document");
        settle(&world).await;
        assert_eq!(door.get("y"), Some(json!({"n": "z"})));
        world.end().await;
    }
}

#[actix::test]
async fn any_write_starts_the_time_anew_and_a_patch_can_change_it() {
    let world = World::new(vec![expiring("loads", Some(10))]).await;
    let door = world.door("loads", "a");
    for name in ["replaced", "patched", "upserted", "left"] {
        door.one(create(name, json!({"n": 0}))).await.unwrap();
    }
    for name in ["longer", "shorter", "for-ever", "inherits"] {
        door.one(create(name, json!({"ttl": 12}))).await.unwrap();
    }
    world.pass(9_000);
    door.one(replace("replaced", json!({"n": 0}))).await.unwrap();
    door.one(patch("patched", &json!([{"op": "set", "path": "/n", "value": 0}]))).await.unwrap();
    door.one(upsert("upserted", json!({"n": 0}))).await.unwrap();
    let ttl = |value: i64| json!([{"op": "set", "path": "/ttl", "value": value}]);
    door.one(patch("longer", &ttl(100))).await.unwrap();
    door.one(patch("shorter", &ttl(1))).await.unwrap();
    door.one(patch("for-ever", &ttl(-1))).await.unwrap();
    door.one(patch("inherits", &json!([{"op": "remove", "path": "/ttl"}]))).await.unwrap();
    for bad in [json!(0), json!(null), json!("5"), json!(-2)] {
        let set = json!([{"op": "set", "path": "/ttl", "value": bad}]);
        let refused = door.one(patch("longer", &set)).await;
        assert!(matches!(refused, Err(WriteError::PatchedInvalid(_))), "{refused:?}");
    }
    world.pass(1_000);
    let rest = ["for-ever", "inherits", "longer", "patched", "replaced", "upserted"];
    assert_eq!(door.ids(), rest, "`left` and `shorter` are gone");
    world.pass(8_499);
    assert_eq!(door.ids(), rest);
    world.pass(1);
    assert_eq!(door.ids(), ["for-ever", "longer"]);
    world.pass(90_000);
    assert_eq!(door.ids(), ["for-ever"]);
    world.end().await;
}

#[actix::test]
async fn a_sweep_takes_away_what_nobody_sees_and_leaves_the_rest() {
    let world = World::new(vec![expiring("loads", Some(10)), plain("others")]).await;
    let door = world.door("loads", "a");
    door.all(vec![create("old", json!({})), create("older", json!({"ttl": 1}))]).await.unwrap();
    world.pass(9_500);
    door.one(create("young", json!({}))).await.unwrap();
    let sweep = |name: &str| write(name, Operation::Sweep);
    let all = vec![sweep("old"), sweep("young"), sweep("none"), sweep("older"), sweep("old")];
    let swept = door.0.sweep(all, crate::world::AMPLE).await.unwrap();
    let kinds: Vec<_> = swept.iter().map(|swept| swept.kind).collect();
    assert_eq!(kinds, [Some(Expire), None, None, Some(Expire), None]);
    assert!(swept.iter().all(|swept| swept.charge.hundredths() == 0));
    assert_eq!(door.ids(), ["young"]);
    let shard = world.shard(&door).clone();
    settle(&world).await;
    assert_eq!(shard.document(door.0.address(), &crate::support::id("old")).unwrap(), None);
    let again = door.0.sweep(vec![sweep("old")], crate::world::AMPLE).await.unwrap();
    assert_eq!(again[0].kind, None);
    world.end().await;
}

#[actix::test]
async fn what_expires_survives_restarts_and_a_batch() {
    let world = World::alone(vec![expiring("loads", Some(-1))], |config| {
        config.shard.checkpoint_interval = std::time::Duration::from_secs(3_600);
    });
    let world = world.await;
    let door = world.door("loads", "a");
    door.one(create("x", json!({"ttl": 5}))).await.unwrap();
    let world = world.kill().await;
    let door = world.door("loads", "a");
    assert_eq!(door.get("x"), Some(json!({"ttl": 5})));
    world.pass(4_500);
    assert_eq!(door.get("x"), None);
    let messages = vec![
        vec![replace("x", json!({"ttl": 5}))],
        vec![create("x", json!({"ttl": 5}))],
        vec![create("x", json!({}))],
        vec![patch("x", &json!([{"op": "remove", "path": "/ttl"}])), read("x")],
    ];
    let results = as_one_batch(&world, &door, messages).await;
    assert_eq!(results[0], Err(Refused { at: 0, error: WriteError::NotFound }));
    assert_eq!(results[2], Err(Refused { at: 0, error: WriteError::Exists }));
    assert!(results[1].is_ok() && results[3].is_ok());
    let world = world.restart().await;
    world.pass(60_000);
    assert_eq!(world.door("loads", "a").get("x"), Some(json!({})));
    world.end().await;
}

#[actix::test]
async fn a_container_that_begins_to_expire_does_so_by_what_its_documents_always_said() {
    let world = World::new(vec![expiring("loads", None)]).await;
    let door = world.door("loads", "a");
    door.all(vec![create("own", json!({"ttl": 5})), create("none", json!({}))]).await.unwrap();
    world.pass(60_000);
    assert_eq!(door.ids(), ["none", "own"]);
    let world = world.restart_with(Catalog::new([expiring("loads", Some(-1))])).await;
    let door = world.door("loads", "a");
    assert_eq!(door.ids(), ["none"]);
    assert_eq!(door.kind(create("own", json!({}))).await, Ok(Create));
    world.end().await;
}
