//! A partition that is deleted as a whole is gone at once, although its documents go one after the other.

use std::time::Duration;

use lanekeeper_actors::model::change::ChangeKind::{Create, Delete};
use lanekeeper_actors::protocol::partition::{Operation, WriteError};
use serde_json::json;

use crate::support::id;
use crate::world::{
    AMPLE, Door, World, create, delete, patch, plain, read, replace, settle, unique, upsert, write,
};

fn prefix(door: &Door) -> Vec<u8> {
    door.0.address().as_bytes().to_vec()
}

async fn purge(world: &World, door: &Door) {
    world.shard(door).purge(prefix(door)).await.unwrap();
}

/// Takes away what the purges of a partition cover, as the upkeep does.
async fn take_away(world: &World, door: &Door) -> usize {
    let shard = world.shard(door);
    let page = shard.list(door.0.address(), None, 1_000, 1 << 20).unwrap();
    let sweeps = page.documents.iter();
    let sweeps = sweeps.map(|found| write(found.document.id.as_str(), Operation::Sweep)).collect();
    let swept = door.0.sweep(sweeps, AMPLE).await.unwrap();
    swept.iter().filter(|swept| swept.kind == Some(Delete)).count()
}

#[actix::test]
async fn from_the_answer_on_nobody_sees_the_documents_and_others_are_untouched() {
    for container in [plain("loads"), unique("loads", &[&["code"]])] {
        let world = World::new(vec![container, plain("others")]).await;
        let door = world.door("loads", "a");
        let neighbours = [world.door("loads", "aa"), world.door("loads", "A"), world.door("others", "a")];
        for door in neighbours.iter().chain([&door]) {
            for n in 0..7 {
                door.one(create(&format!("d{n}"), json!({"code": n}))).await.unwrap();
            }
        }
        settle(&world).await;
        door.one(replace("d6", json!({"code": 6}))).await.unwrap();
        let tag = door.0.read(&id("d1")).unwrap().unwrap().lsn;
        purge(&world, &door).await;
        assert_eq!((door.ids(), door.get("d1"), door.get("d6")), (vec![], None, None));
        let incr = json!([{"op": "incr", "path": "/code", "value": 1}]);
        for write in [replace("d1", json!({})), patch("d1", &incr), delete("d1"), read("d1")] {
            assert_eq!(door.one(write.clone()).await, Err(WriteError::NotFound), "{write:?}");
        }
        assert!(neighbours.iter().all(|door| door.ids().len() == 7));
        // Ids and unique keys are free; the log tells of the end before the new beginning.
        let new = door.one(create("d1", json!({"code": 5}))).await.unwrap();
        assert_eq!(new.kind, Some(Create));
        assert!(new.etag.0.lsn > tag);
        assert_eq!(door.kind(upsert("d2", json!({"code": 2}))).await, Ok(Create));
        assert_eq!(door.ids(), ["d1", "d2"]);
        let told: Vec<_> = world.log(&door).into_iter().filter(|(lsn, _)| *lsn >= new.lsn).collect();
        let at = told.iter().position(|(_, change)| change.kind == Create).unwrap();
        assert!(at > 0 && told[..at].iter().all(|(_, change)| change.kind == Delete));
        let taken = take_away(&world, &door).await;
        assert_eq!(door.ids(), ["d1", "d2"]);
        let [(key, upto)] = world.shard(&door).purges().try_into().unwrap();
        world.shard(&door).end_purge(&key, upto).await.unwrap();
        assert_eq!(world.shard(&door).purges(), []);
        assert_eq!(door.ids(), ["d1", "d2"]);
        let ends = world.log(&door).iter().filter(|(_, change)| change.kind == Delete).count();
        assert_eq!(ends, 7, "each has its change, once");
        assert!((4..=5).contains(&taken));
        world.end().await;
    }
}

#[actix::test]
async fn a_purge_survives_a_crash_until_it_has_ended() {
    let world = World::with(vec![plain("loads")], |config| {
        config.shard.checkpoint_interval = Duration::from_secs(3_600);
    });
    let world = world.await;
    let door = world.door("loads", "a");
    for n in 0..5 {
        door.one(create(&format!("d{n}"), json!({}))).await.unwrap();
    }
    purge(&world, &door).await;
    door.one(create("d3", json!({"n": "new"}))).await.unwrap();
    let mut world = world.kill().await;
    for _ in 0..2 {
        let door = world.door("loads", "a");
        assert_eq!(door.ids(), ["d3"]);
        assert_eq!(world.shard(&door).purges().len(), 1);
        world = world.restart().await;
    }
    let door = world.door("loads", "a");
    assert_eq!(take_away(&world, &door).await, 4);
    let [(key, upto)] = world.shard(&door).purges().try_into().unwrap();
    world.shard(&door).end_purge(&key, upto).await.unwrap();
    let world = world.restart().await;
    let door = world.door("loads", "a");
    assert_eq!((world.shard(&door).purges(), door.ids()), (vec![], vec!["d3".to_owned()]));
    world.end().await;
}

#[actix::test]
async fn the_end_of_a_purge_does_not_bring_back_what_a_later_one_deleted() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    door.one(create("first", json!({}))).await.unwrap();
    purge(&world, &door).await;
    let [(key, earlier)] = world.shard(&door).purges().try_into().unwrap();
    assert_eq!(take_away(&world, &door).await, 1);
    door.one(create("second", json!({}))).await.unwrap();
    purge(&world, &door).await;
    world.shard(&door).end_purge(&key, earlier).await.unwrap();
    assert_eq!(door.ids(), Vec::<String>::new());
    let world = world.restart().await;
    let door = world.door("loads", "a");
    assert_eq!(door.ids(), Vec::<String>::new());
    assert_eq!(take_away(&world, &door).await, 1);
    let [(key, later)] = world.shard(&door).purges().try_into().unwrap();
    assert!(later > earlier);
    world.shard(&door).end_purge(&key, later).await.unwrap();
    world.shard(&door).end_purge(&key, later).await.unwrap();
    assert_eq!(world.shard(&door).purges(), []);
    world.end().await;
}

#[actix::test]
async fn a_purge_goes_on_when_its_caller_gives_up() {
    let world = World::alone(vec![plain("loads")], |_| {}).await;
    let door = world.door("loads", "a");
    door.one(create("x", json!({}))).await.unwrap();
    settle(&world).await;
    fail::cfg("log::append", "pause").unwrap();
    let shard = world.shard(&door).clone();
    let given_up = tokio::time::timeout(Duration::from_millis(20), shard.purge(prefix(&door))).await;
    assert!(given_up.is_err());
    fail::remove("log::append");
    crate::support::eventually("it is seen", || shard.purges().len() == 1).await;
    assert_eq!(door.get("x"), None);
    world.end().await;
}

#[actix::test]
async fn pages_pass_over_what_was_deleted() {
    let world = World::new(vec![plain("loads")]).await;
    let door = world.door("loads", "a");
    let creates = (0..40).map(|n| create(&format!("d{n:02}"), json!({}))).collect();
    door.all(creates).await.unwrap();
    purge(&world, &door).await;
    door.all(vec![create("d20", json!({})), create("z", json!({}))]).await.unwrap();
    assert_eq!(door.ids(), ["d20", "z"]);
    settle(&world).await;
    assert_eq!(door.ids(), ["d20", "z"]);
    world.end().await;
}
