//! Within a partition no two documents have the same values at the paths of a unique key.

use futures_util::future::join_all;
use lanekeeper_actors::model::change::ChangeKind::{Create, Replace};
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::ttl::ContainerTtl;
use lanekeeper_actors::protocol::partition::{Refused, WriteError};
use serde_json::{Value, json};

use crate::transactions::as_one_batch;
use crate::world::{Door, World, create, delete, patch, replace, settle, unique, upsert};

fn taken(paths: &str) -> WriteError {
    WriteError::NotUnique(paths.into())
}

async fn refused(door: &Door, document: Value, paths: &str) {
    assert_eq!(door.kind(create("other", document.clone())).await, Err(taken(paths)), "{document}");
    assert_eq!(door.kind(upsert("other", document)).await, Err(taken(paths)));
    assert_eq!(door.get("other"), None);
}

#[actix::test]
async fn values_are_told_apart_as_values_not_as_texts() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    let values = [
        json!({"code": null}),
        json!({"code": false}),
        json!({"code": true}),
        json!({"code": 0}),
        json!({"code": 1}),
        json!({"code": -1.5}),
        json!({"code": ""}),
        json!({"code": "1"}),
        json!({"code": "a"}),
        json!({"code": "A"}),
        json!({"code": "a "}),
        json!({"code": "a\0"}),
        json!({"code": "a\0b"}),
        json!({"code": []}),
        json!({"code": [1]}),
        json!({"code": [[1]]}),
        json!({"code": {}}),
        json!({"code": {"a": 1}}),
        json!({"code": {"a": null}}),
    ];
    for (n, document) in values.iter().enumerate() {
        assert_eq!(door.kind(create(&format!("d{n}"), document.clone())).await, Ok(Create), "{document}");
    }
    let same = [json!({}), json!({"code": 1.0}), json!({"code": -0.0}), json!({"code": {"a": 1e0}})];
    for document in values.into_iter().chain(same) {
        refused(&door, document, "`/code`").await;
    }
    world.end().await;
}

#[actix::test]
async fn several_paths_are_one_key_and_what_is_missing_counts_as_null() {
    let keys: &[&[&str]] = &[&["a", "b/c"], &["mail"]];
    let world = World::new(vec![unique("loads", keys)]).await;
    let door = world.door("loads", "a");
    let documents = [
        json!({"mail": 1, "a": 1, "b": {"c": 1}}),
        json!({"mail": 2, "a": 1, "b": {"c": 2}}),
        json!({"mail": 3, "a": 2, "b": {"c": 1}}),
        json!({"mail": 4, "a": 1}),
        json!({"mail": 5, "b": {"c": 1}}),
        json!({"a": null, "b": {"c": null}}),
        // No boundary between two values can be moved.
        json!({"mail": 6, "a": "x", "b": {"c": "yz"}}),
        json!({"mail": 7, "a": "xy", "b": {"c": "z"}}),
    ];
    for (n, document) in documents.into_iter().enumerate() {
        assert_eq!(door.kind(create(&format!("d{n}"), document)).await, Ok(Create), "{n}");
    }
    refused(&door, json!({"mail": 99, "a": 1, "b": {"c": 1}}), "`/a`, `/b/c`").await;
    refused(&door, json!({"mail": 99, "a": 1, "b": 5}), "`/a`, `/b/c`").await;
    refused(&door, json!({"mail": 99, "a": 1, "b": [{"c": 1}]}), "`/a`, `/b/c`").await;
    refused(&door, json!({"mail": 99, "b": {"d": 1}}), "`/a`, `/b/c`").await;
    refused(&door, json!({"a": 99}), "`/mail`").await;
    refused(&door, json!({"a": 99, "mail": null}), "`/mail`").await;
    world.end().await;
}

#[actix::test]
async fn replacing_patching_and_deleting_keep_the_key_and_give_it_up() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    let set = |value: i64| json!([{"op": "set", "path": "/code", "value": value}]);
    door.one(create("x", json!({"code": 1}))).await.unwrap();
    door.one(create("y", json!({"code": 2}))).await.unwrap();
    // Its own value is nobody else's.
    assert_eq!(door.kind(replace("x", json!({"code": 1, "n": 1}))).await, Ok(Replace));
    assert_eq!(door.kind(patch("x", &set(1))).await, Ok(Replace));
    assert_eq!(door.kind(upsert("x", json!({"code": 1}))).await, Ok(Replace));
    for write in [replace("x", json!({"code": 2})), upsert("x", json!({"code": 2})), patch("x", &set(2))] {
        assert_eq!(door.kind(write).await, Err(taken("`/code`")));
    }
    assert_eq!(door.get("x"), Some(json!({"code": 1})));
    // Given up by a replace, a patch and a delete.
    door.one(replace("x", json!({"code": 3}))).await.unwrap();
    door.one(create("z", json!({"code": 1}))).await.unwrap();
    door.one(patch("x", &set(4))).await.unwrap();
    door.one(create("u", json!({"code": 3}))).await.unwrap();
    door.one(delete("x")).await.unwrap();
    door.one(create("v", json!({"code": 4}))).await.unwrap();
    assert_eq!(door.kind(create("x", json!({"code": 4}))).await, Err(taken("`/code`")));
    let remove = json!([{"op": "remove", "path": "/code"}]);
    door.one(patch("v", &remove)).await.unwrap();
    assert_eq!(door.kind(patch("u", &remove)).await, Err(taken("`/code`")), "both would have none");
    world.end().await;
}

#[actix::test]
async fn within_a_transaction_each_operation_meets_what_those_before_it_left() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    let two = vec![create("x", json!({"code": 1})), create("y", json!({"code": 2}))];
    door.all(two).await.unwrap();
    // A swap would need a moment in which both have the same value.
    let swap = vec![replace("x", json!({"code": 2})), replace("y", json!({"code": 1}))];
    assert_eq!(door.all(swap).await, Err(Refused { at: 0, error: taken("`/code`") }));
    let by_way_of_a_third = vec![
        replace("x", json!({"code": 3})),
        replace("y", json!({"code": 1})),
        replace("x", json!({"code": 2})),
    ];
    door.all(by_way_of_a_third).await.unwrap();
    let given_on = vec![
        delete("x"),
        create("z", json!({"code": 2})),
        delete("z"),
        create("x", json!({"code": 2})),
        create("w", json!({"code": 3})),
    ];
    door.all(given_on).await.unwrap();
    assert_eq!((door.get("x"), door.get("y")), (Some(json!({"code": 2})), Some(json!({"code": 1}))));
    let late = vec![create("v", json!({"code": 7})), create("u", json!({"code": 3}))];
    assert_eq!(door.all(late).await, Err(Refused { at: 1, error: taken("`/code`") }));
    door.one(create("u", json!({"code": 7}))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn within_a_batch_a_key_goes_from_hand_to_hand() {
    let world = World::alone(vec![unique("loads", &[&["code"]])], |_| {}).await;
    let door = world.door("loads", "a");
    door.one(create("x", json!({"code": 1}))).await.unwrap();
    let messages = vec![
        vec![create("y", json!({"code": 1}))],
        vec![replace("x", json!({"code": 2}))],
        vec![create("y", json!({"code": 1}))],
        vec![delete("y")],
        vec![create("z", json!({"code": 1}))],
        vec![create("w", json!({"code": 1}))],
    ];
    let results = as_one_batch(&world, &door, messages).await;
    let oks: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(oks, [false, true, true, true, true, false]);
    settle(&world).await;
    refused(&door, json!({"code": 1}), "`/code`").await;
    world.end().await;
}

#[actix::test]
async fn a_key_holds_in_its_partition_only_and_after_restarts() {
    let world = World::with(vec![unique("loads", &[&["code"]])], |config| {
        config.shard.checkpoint_interval = std::time::Duration::from_secs(3_600);
    });
    let world = world.await;
    for lane in ["a", "b", "c"] {
        world.door("loads", lane).one(create("x", json!({"code": 1}))).await.unwrap();
    }
    world.door("loads", "b").one(delete("x")).await.unwrap();
    let mut world = world.kill().await;
    for _ in 0..2 {
        for lane in ["a", "c"] {
            refused(&world.door("loads", lane), json!({"code": 1}), "`/code`").await;
        }
        world = world.restart().await;
    }
    world.door("loads", "b").one(create("y", json!({"code": 1}))).await.unwrap();
    world.end().await;
}

#[actix::test]
async fn of_many_creates_with_one_value_exactly_one_wins() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    for round in 0..4 {
        let creates = (0..64).map(|n| {
            let door = door.clone();
            async move { door.kind(create(&format!("d{round}-{n}"), json!({"code": round}))).await }
        });
        let results = join_all(creates).await;
        assert_eq!(results.iter().filter(|result| **result == Ok(Create)).count(), 1);
        assert_eq!(results.iter().filter(|result| **result == Err(taken("`/code`"))).count(), 63);
    }
    assert_eq!(door.ids().len(), 4);
    world.end().await;
}

#[actix::test]
async fn long_values_are_told_apart_by_their_ends() {
    let world = World::new(vec![unique("loads", &[&["code"]])]).await;
    let door = world.door("loads", "a");
    let long = |end: &str| json!({"code": format!("{}{end}", "x".repeat(5_000))});
    for (n, end) in ["a", "b", "", "\0", "aa"].into_iter().enumerate() {
        assert_eq!(door.kind(create(&format!("d{n}"), long(end))).await, Ok(Create), "{end:?}");
        refused(&door, long(end), "`/code`").await;
    }
    door.one(replace("d0", long("c"))).await.unwrap();
    door.one(create("again", long("a"))).await.unwrap();
    refused(&door, long("b"), "`/code`").await;
    refused(&door, long("c"), "`/code`").await;
    world.end().await;
}

#[actix::test]
async fn a_holder_whose_time_is_over_gives_up_its_key() {
    let container = Container { ttl: ContainerTtl::NoDefault, ..unique("loads", &[&["code"], &["mail"]]) };
    let world = World::new(vec![container]).await;
    let door = world.door("loads", "a");
    let short = |n: i64| json!({"code": n, "mail": n, "ttl": 2});
    door.all(vec![create("x", short(1)), create("y", short(2)), create("z", short(3))]).await.unwrap();
    refused(&door, json!({"code": 1, "mail": 9}), "`/code`").await;
    world.pass(2_000);
    // Two holders go at once, one of them in a transaction that another write makes fail.
    let both = create("new", json!({"code": 1, "mail": 2}));
    let failing = vec![both.clone(), delete("none")];
    assert_eq!(door.all(failing).await, Err(Refused { at: 1, error: WriteError::NotFound }));
    let written = door.one(both).await.unwrap();
    assert_eq!((written.kind, written.lsn.0 + 2), (Some(Create), written.etag.0.lsn.0));
    refused(&door, json!({"code": 1, "mail": 9}), "`/code`").await;
    refused(&door, json!({"code": 9, "mail": 2}), "`/mail`").await;
    // What a holder had beside is free too.
    door.one(create("rest", json!({"code": 2, "mail": 1}))).await.unwrap();
    assert_eq!(door.kind(replace("new", json!({"code": 3, "mail": 3}))).await, Ok(Replace));
    assert_eq!(door.ids(), ["new", "rest"]);
    let kinds: Vec<_> = world
        .log(&door)
        .iter()
        .map(|(_, change)| (change.kind.as_str(), change.id.as_str().to_owned()))
        .collect();
    let gone: Vec<_> =
        kinds.iter().filter(|(kind, _)| *kind == "delete").map(|(_, id)| id.as_str()).collect();
    assert_eq!(gone, ["x", "y", "z"]);
    world.end().await;
}
