//! A patch changes a part of a document where the document is, so that none is lost.

use futures_util::future::join_all;
use lanekeeper_actors::policy::patch::Refusal;
use lanekeeper_actors::policy::precondition::Failed;
use lanekeeper_actors::protocol::partition::{Refused, WriteError};
use serde_json::{Value, json};

use crate::world::{Door, World, create, if_match, patch, plain, unique};

async fn world(names: &[&str]) -> (World, Door) {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    for name in names {
        door.one(create(name, json!({"n": 1, "tags": ["a"]}))).await.unwrap();
    }
    (world, door)
}

fn incr(by: i64) -> Value {
    json!([{"op": "incr", "path": "/n", "value": by}])
}

#[actix::test]
async fn all_operations_happen_in_their_order_or_none() {
    let (world, door) = world(&["x"]).await;
    let all = json!([
        {"op": "add", "path": "/tags/-", "value": "b"},
        {"op": "set", "path": "/new", "value": {"deep": []}},
        {"op": "move", "from": "/tags/0", "path": "/new/deep/0"},
        {"op": "incr", "path": "/n", "value": 1.5},
    ]);
    let written = door.one(patch("x", &all)).await.unwrap();
    let expected = json!({"n": 2.5, "tags": ["b"], "new": {"deep": ["a"]}});
    assert_eq!(crate::world::stripped(&written.body), expected);
    assert_eq!(door.get("x"), Some(expected.clone()));
    let failing = json!([
        {"op": "incr", "path": "/n", "value": 1},
        {"op": "replace", "path": "/missing", "value": 1},
    ]);
    let refused = door.one(patch("x", &failing)).await;
    let Err(WriteError::Patch(error)) = refused else { panic!("{refused:?}") };
    assert_eq!((error.operation, error.reason), (Some(2), Refusal::Missing));
    assert_eq!(door.get("x"), Some(expected));
    assert_eq!(door.0.read(&written.id).unwrap().unwrap().lsn, written.etag.0.lsn);
    world.end().await;
}

#[actix::test]
async fn a_condition_is_asked_of_the_document_as_it_is_then() {
    let (world, door) = world(&["x"]).await;
    let given = |condition: &str| json!({"condition": condition, "operations": incr(1)});
    door.one(patch("x", &given("from c where c.n = 1"))).await.unwrap();
    for condition in ["from c where c.n = 1", "from root where root.missing", "from c where c.tags = 'a'"] {
        assert_eq!(door.one(patch("x", &given(condition))).await, Err(WriteError::ConditionFailed));
    }
    assert_eq!(door.get("x").unwrap()["n"], json!(2));
    // Within a transaction it sees what came before.
    let two = vec![patch("x", &incr(5)), patch("x", &given("from c where c.n = 7"))];
    door.all(two).await.unwrap();
    let refused = door.all(vec![patch("x", &incr(1)), patch("x", &given("from c where c.n = 8"))]).await;
    assert_eq!(refused.unwrap_err(), Refused { at: 1, error: WriteError::ConditionFailed });
    assert_eq!(door.get("x").unwrap()["n"], json!(8));
    world.end().await;
}

#[actix::test]
async fn conditions_on_the_version_hold_for_patches_too() {
    let (world, door) = world(&["x"]).await;
    let first = door.one(patch("x", &incr(1))).await.unwrap().etag.to_string();
    let second = door.one(if_match(patch("x", &incr(1)), &first)).await.unwrap();
    let failed = Err(WriteError::Precondition(Failed::Changed));
    assert_eq!(door.one(if_match(patch("x", &incr(1)), &first)).await, failed);
    assert_eq!(door.one(if_match(patch("none", &incr(1)), &first)).await, Err(WriteError::NotFound));
    assert_eq!(door.0.read(&second.id).unwrap().unwrap().lsn, second.etag.0.lsn);
    world.end().await;
}

#[actix::test]
async fn the_id_the_key_and_system_properties_cannot_be_patched() {
    let (world, door) = world(&["x"]).await;
    for path in ["/id", "/lane", "/_etag", "/_ts", "/_lsn", "/_rid", "/_self"] {
        for operation in [
            json!({"op": "set", "path": path, "value": "b"}),
            json!({"op": "set", "path": path, "value": "a"}),
            json!({"op": "remove", "path": path}),
            json!({"op": "incr", "path": path, "value": 1}),
            json!({"op": "move", "from": path, "path": "/free"}),
            json!({"op": "move", "from": "/n", "path": path}),
        ] {
            let refused = door.one(patch("x", &json!([operation]))).await;
            let Err(WriteError::Patch(error)) = refused else { panic!("{operation}: {refused:?}") };
            assert_eq!(error.reason, Refusal::Protected, "{operation}");
        }
    }
    assert_eq!(door.get("x"), Some(json!({"n": 1, "tags": ["a"]})));
    world.end().await;
}

#[actix::test]
async fn what_would_be_no_document_is_refused() {
    let (world, door) = world(&["x"]).await;
    let large = "x".repeat(40 << 10);
    let grow = |name: &str| json!([{"op": "set", "path": format!("/{name}"), "value": large}]);
    door.one(patch("x", &grow("a"))).await.unwrap();
    let refused = door.one(patch("x", &grow("b"))).await;
    assert!(matches!(refused, Err(WriteError::PatchedInvalid(_))), "{refused:?}");
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let refused = door.one(patch("x", &json!([{"op": "set", "path": "/d", "value": deep}]))).await;
    assert!(matches!(refused, Err(WriteError::PatchedInvalid(_) | WriteError::Patch(_))), "{refused:?}");
    door.one(patch("x", &json!([{"op": "remove", "path": "/a"}]))).await.unwrap();
    door.one(patch("x", &grow("b"))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn numbers_and_the_order_of_properties_stay_what_they_were() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let text = r#"{"id":"x","z":1.0,"lane":"a","a":9007199254740991,"m":0.1,"e":1e21,"n":1}"#;
    let content = lanekeeper_actors::protocol::partition::Content::plain(text.into());
    door.one(crate::world::write("x", lanekeeper_actors::protocol::partition::Operation::Create(content)))
        .await
        .unwrap();
    let body = door.one(patch("x", &incr(1))).await.unwrap().body;
    let expected = r#"{"id":"x","z":1.0,"lane":"a","a":9007199254740991,"m":0.1,"e":1e+21,"n":2}"#;
    assert_eq!(String::from_utf8_lossy(&body).replace("1e21", "1e+21"), expected);
    world.end().await;
}

#[actix::test]
async fn of_many_increments_at_once_none_is_lost() {
    for container in [plain("loads"), unique("loads", &[&["code"]])] {
        let world = World::new(vec![container]).await;
        let door = world.door("loads", "a");
        door.one(create("x", json!({"n": 0}))).await.unwrap();
        let increments = (0..200).map(|n| {
            let door = door.clone();
            let by = if n % 2 == 0 { 1 } else { 3 };
            async move { crate::world::stripped(&door.one(patch("x", &incr(by))).await.unwrap().body) }
        });
        let results = join_all(increments).await;
        let mut seen: Vec<_> = results.iter().map(|document| document["n"].as_i64().unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!((seen.len(), seen.last()), (200, Some(&400)));
        assert_eq!(door.get("x"), Some(json!({"n": 400})));
        world.end().await;
    }
}
