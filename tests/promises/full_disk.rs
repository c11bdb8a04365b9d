//! A full disk refuses what takes room and nothing else, loses nothing, and is over when there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::server::{AMPLE, Answer, House, Server, answer};
use super::sink::Sink;
use super::small_disk::SmallDisk;

/// Sizes of the file system before and after, in megabytes.
const SMALL: u32 = 8;
const LARGE: u32 = 64;
/// Writers at the same time, each in a partition of its own.
const WRITERS: usize = 6;
/// Refusals in a row after which a writer believes that the disk is full.
const SURE: usize = 5;
/// Most documents of one writer in one go: far more than there is room for.
const MOST: usize = 2_000;
const NO_ROOM: (u16, &str) = (507, "no_room");

fn manifest(sink: &Sink) -> String {
    let at = sink.address;
    format!(
        r#"
manifest: 1
project: tight
containers:
  loads: {{ partition_key: [/lane], indexes: [/status], unique: [[/ref]] }}
topics:
  load-events: {{ from: {{ container: loads, types: {{ created: Created, replaced: Replaced, deleted: Deleted }} }} }}
event_subscriptions:
  all: {{ topic: load-events, to: {{ webhook: "http://{at}/all", allow: [127.0.0.0/8] }} }}
apis:
  loads:
    path: /loads
    operations:
      create: {{ method: POST, path: /, to: {{ container: loads, do: create }} }}
      read: {{ method: GET, path: "/{{lane}}/{{id}}", to: {{ container: loads, do: read, partition: "{{lane}}", id: "{{id}}" }} }}
      gone: {{ method: DELETE, path: "/{{lane}}/{{id}}", to: {{ container: loads, do: delete, partition: "{{lane}}", id: "{{id}}" }} }}
      list: {{ method: GET, path: "/{{lane}}", to: {{ container: loads, do: list, partition: "{{lane}}" }} }}
products:
  all: {{ apis: [loads] }}
api_keys:
  main: {{ product: all, tenant: acme, primary: {{ env: MAIN }} }}
"#
    )
}

/// What was asked and answered, kept outside of the server.
#[derive(Debug, Default)]
struct Told {
    /// Documents that are there, by id, with their lanes.
    there: BTreeMap<String, usize>,
    deleted: BTreeSet<String>,
    refused: BTreeMap<String, usize>,
}

fn document(lane: usize, id: &str) -> Value {
    // Of different sizes, and nothing that a file system could make smaller.
    let length = 500 + fastrand::usize(..12_000);
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(length).collect();
    json!({ "id": id, "lane": format!("l{lane}"), "ref": id, "status": "new", "text": text })
}

fn path(lane: usize, id: &str) -> String {
    format!("/loads/l{lane}/{id}")
}

async fn create(server: &Server, lane: usize, id: &str) -> Answer {
    server.send(Method::POST, "/loads", &document(lane, id)).await
}

async fn delete(server: &Server, lane: usize, id: &str) -> Answer {
    answer(server.request(Method::DELETE, &path(lane, id))).await
}

/// Writes until nothing is taken any more.
async fn fill(server: &Server, round: &str, told: &mut Told) {
    let before = told.there.len();
    let writer = |lane: usize| async move {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        let mut row = 0;
        for number in 0.. {
            assert!(number < MOST, "so much has no room");
            let id = format!("{round}-{lane}-{number}");
            let answer = create(server, lane, &id).await;
            match answer.refused() {
                (201, _) => {
                    taken.push((id, lane));
                    row = 0;
                }
                NO_ROOM => {
                    refused.push((id, lane));
                    row += 1;
                    // There may have been log to let go of, behind the next checkpoint.
                    if row == SURE {
                        return (taken, refused);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => panic!("{}", answer.text),
            }
        }
        (taken, refused)
    };
    for (taken, refused) in futures_util::future::join_all((0..WRITERS).map(writer)).await {
        told.there.extend(taken);
        told.refused.extend(refused);
    }
    assert!(
        told.there.len() > before + 2 * WRITERS,
        "hardly anything had room: {}",
        told.there.len() - before
    );
}

/// Writes until every shard has found out that there is no room. What fits into what is there already is taken.
async fn refuse(server: &Server, told: &mut Told) {
    let lanes: BTreeSet<usize> = (0..WRITERS).collect();
    let mut open = lanes.clone();
    while !open.is_empty() {
        for lane in open.clone() {
            let id = format!("clogged-{lane}-{}", told.there.len() + told.refused.len());
            let answer = create(server, lane, &id).await;
            match answer.refused() {
                (201, _) => assert!(told.there.insert(id, lane).is_none()),
                NO_ROOM => {
                    told.refused.insert(id, lane);
                    open.remove(&lane);
                }
                _ => panic!("{}", answer.text),
            }
        }
        assert!(told.there.len() < MOST, "so much has no room");
    }
}

/// Reads everything that was ever sent.
async fn check(server: &Server, told: &Told) {
    for (id, lane) in &told.there {
        let found = server.get(&path(*lane, id)).await;
        assert_eq!(found.status, 200, "{id} is lost: {}", found.text);
        assert_eq!(found.body["ref"], json!(id));
    }
    for (id, lane) in &told.refused {
        assert_eq!(server.get(&path(*lane, id)).await.status, 404, "{id} was refused and is there");
    }
    let mut listed = 0;
    for lane in 0..WRITERS {
        let mut next = format!("/loads/l{lane}?limit=1000");
        loop {
            let page = server.get(&next).await;
            assert_eq!(page.status, 200, "{}", page.text);
            listed += page.body["documents"].as_array().unwrap().len();
            let Some(more) = page.headers.get("x-continuation") else { break };
            next = format!("/loads/l{lane}?limit=1000&continuation={}", more.to_str().unwrap());
        }
    }
    assert_eq!(listed, told.there.len());
}

/// Deletes as many as this of those that are there; each must be taken at once.
async fn remove(server: &Server, count: usize, told: &mut Told) {
    for (id, lane) in told.there.clone().into_iter().take(count) {
        let answer = delete(server, lane, &id).await;
        assert_eq!(answer.status, 204, "a delete on a full disk: {}", answer.text);
        told.there.remove(&id);
        told.deleted.insert(id);
    }
}

/// Waits until a document is taken again.
async fn until_taken(server: &Server, round: &str, told: &mut Told) {
    let deadline = Instant::now() + AMPLE;
    for number in 0.. {
        let id = format!("{round}-after-{number}");
        let answer = create(server, 0, &id).await;
        if answer.status == 201 {
            told.there.insert(id, 0);
            return;
        }
        assert_eq!(answer.refused(), NO_ROOM, "{}", answer.text);
        assert!(Instant::now() < deadline, "there is room, and no write is taken: {}", answer.text);
        told.refused.insert(id, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the subscriber has heard of everything.
async fn settle(server: &Server) {
    let settled = |answer: &Answer| {
        let subscription = &answer.body["subscriptions"][0];
        let rest = ["/lag/events", "/in_flight", "/ready", "/unsettled", "/retrying"];
        rest.iter().all(|pointer| subscription.pointer(pointer).unwrap() == &json!(0))
    };
    server.until("/v1/subscriptions", settled).await;
}

/// The subscriber hears of everything that happened and of nothing else.
async fn check_events(server: &Server, sink: &Sink, told: &Told) {
    settle(server).await;
    let heard: BTreeSet<(String, String)> = sink
        .hits()
        .iter()
        .map(|hit| (hit.event["type"].to_string(), hit.event["data"]["id"].as_str().unwrap().to_owned()))
        .collect();
    let created = told.there.keys().chain(&told.deleted).map(|id| ("\"Created\"".to_owned(), id.clone()));
    let deleted = told.deleted.iter().map(|id| ("\"Deleted\"".to_owned(), id.clone()));
    assert_eq!(heard, created.chain(deleted).collect());
}

/// A data directory on a disk of this size; `None`, with the reason said, where there can be none.
fn house_on(megabytes: u32, sink: &Sink) -> Option<(House, SmallDisk)> {
    let house = House::new(&manifest(sink)).with("LANEKEEPER_LOG", "info");
    match SmallDisk::mount(&house.data(), megabytes) {
        Ok(disk) => Some((house.inside(&disk), disk)),
        Err(reason) => {
            println!("skipped: no small file system can be mounted here ({reason})");
            None
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_growth_takes_deletes_and_is_over_when_there_is_room() {
    let sink = Sink::start(|_| 200);
    let Some((house, disk)) = house_on(SMALL, &sink) else { return };
    let mut told = Told::default();
    let server = house.start().await;
    fill(&server, "first", &mut told).await;
    let ready = server.ask("/readyz").await;
    assert!(ready.status == 200 && ready.text.contains(" is full"), "{}", ready.text);
    check(&server, &told).await;
    remove(&server, 2 * WRITERS, &mut told).await;

    // What was deleted makes room, although the files stay as long as they are.
    remove(&server, told.there.len() * 2 / 3, &mut told).await;
    until_taken(&server, "second", &mut told).await;
    fill(&server, "second", &mut told).await;
    check(&server, &told).await;

    // A start needs no room, and what is there is as it was.
    server.kill();
    let server = house.start().await;
    check(&server, &told).await;
    remove(&server, WRITERS, &mut told).await;

    disk.resize(LARGE);
    until_taken(&server, "third", &mut told).await;
    server.until("/readyz", |answer| !answer.text.contains(" is full")).await;
    for number in 0..100 {
        let id = format!("roomy-{number}");
        assert_eq!(create(&server, number % WRITERS, &id).await.status, 201);
        told.there.insert(id, number % WRITERS);
    }
    server.kill();
    let server = house.start().await;
    check(&server, &told).await;
    check_events(&server, &sink, &told).await;
    assert!(server.stop().await.success(), "{}", house.log());
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[tokio::test]
async fn a_disk_that_others_fill_takes_deletes_from_the_reserve_until_there_is_room() {
    let sink = Sink::start(|_| 200);
    let Some((house, disk)) = house_on(LARGE, &sink) else { return };
    let mut told = Told::default();
    let server = house.start().await;
    for number in 0..200 {
        let id = format!("before-{number}");
        assert_eq!(create(&server, number % WRITERS, &id).await.status, 201);
        told.there.insert(id, number % WRITERS);
    }
    // Once all is in the views, nothing is written while the room goes: what is given up then, others would take.
    let quiet = |answer: &Answer| {
        let saved = |shard: &Value| shard["tail"] == shard["checkpointed"];
        answer.body["shards"].as_array().unwrap().iter().all(saved)
    };
    settle(&server).await;
    server.until("/v1/shards", quiet).await;
    disk.clog();
    refuse(&server, &mut told).await;
    check(&server, &told).await;
    remove(&server, 100, &mut told).await;
    server.kill();
    let server = house.start().await;
    check(&server, &told).await;
    remove(&server, 10, &mut told).await;
    refuse(&server, &mut told).await;
    disk.unclog();
    until_taken(&server, "free", &mut told).await;
    server.until("/readyz", |answer| !answer.text.contains(" is full")).await;
    server.kill();
    let server = house.start().await;
    check(&server, &told).await;
    check_events(&server, &sink, &told).await;
    assert!(server.stop().await.success(), "{}", house.log());
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
