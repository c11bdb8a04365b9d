//! What is over goes by itself, is told in the feed of all changes, and keeps nobody from his turn.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_actors::directory::DirectoryHandle;
use lanekeeper_actors::kernel::clock::{Clock, ManualClock};
use lanekeeper_actors::model::change::{ChangeKind, Mutation, Table};
use lanekeeper_actors::model::feed::{FeedMode, FeedStart};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::idempotency::Fingerprint;
use lanekeeper_actors::policy::ttl::ContainerTtl;
use lanekeeper_actors::protocol::partition::{Repeat, WriteError};
use lanekeeper_actors::reader::{FeedFailed, Scope};
use lanekeeper_actors::shard::ShardHandle;
use lanekeeper_actors::system::System;
use lanekeeper_actors::upkeep::UpkeepSettings;
use serde_json::{Value, json};

use crate::scene::{
    config, container, feed, follow, indexes, partition, put, quick, rows, scope, start, start_at, upsert,
};
use crate::support::{AMPLE, eventually, stop, tiny_segments};

const BEGIN: Timestamp = Timestamp(1_700_000_000_000);

/// Rows of a table over all shards.
fn count(system: &System, table: Table, prefix: &[u8]) -> u64 {
    let view = |shard: &ShardHandle| shard.view().unwrap().count(table, prefix).unwrap();
    system.shards().iter().map(view).sum()
}

/// Documents that are physically there.
fn stored(system: &System, container: &str) -> BTreeSet<String> {
    let prefix = [container.as_bytes(), &[0]].concat();
    let mut ids = BTreeSet::new();
    for shard in system.shards() {
        let page = shard.view().unwrap().scan(&prefix, None, usize::MAX, usize::MAX).unwrap();
        ids.extend(page.documents.into_iter().map(|found| found.document.id.as_str().to_owned()));
    }
    ids
}

/// Ids of the removals that a feed of all changes shows, of a kind.
async fn removals(system: &System, scope: &Scope, from: FeedStart, kind: ChangeKind) -> Vec<String> {
    let (pages, _) = follow(system, feed(scope, FeedMode::All, from), 50).await.unwrap();
    let changes = pages.iter().flatten().filter(|change| change.kind == Some(kind));
    let mut ids: Vec<_> = changes.map(|change| change.id.as_str().to_owned()).collect();
    ids.sort_unstable();
    ids
}

async fn now(system: &System, scope: &Scope) -> FeedStart {
    let page = system.reader().changes(feed(scope, FeedMode::All, FeedStart::Now)).await.unwrap();
    FeedStart::Cursor(page.cursor)
}

fn living(id: String, lane: &str, ttl: Option<i64>) -> Value {
    let mut document = json!({"id": id, "lane": lane, "n": 1});
    if let Some(ttl) = ttl {
        document["ttl"] = json!(ttl);
    }
    document
}

#[actix::test]
async fn expired_documents_are_taken_away_with_all_that_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN);
    let mut brief = container("brief", &["lane"]);
    (brief.ttl, brief.indexes) = (ContainerTtl::Seconds(10), indexes(&[&["n"]]));
    let mut own = container("own", &["lane"]);
    own.ttl = ContainerTtl::NoDefault;
    let mut config = config(folder.path(), [brief, own, container("off", &["lane"])]);
    config.upkeep = Some(UpkeepSettings { batch: 300, ..quick() });
    let system = start_at(config, clock.clone()).await;
    let whole = scope("brief", &[]);
    let begin = now(&system, &whole).await;
    for lane in ["a", "b"] {
        for container in ["brief", "own", "off"] {
            let mut documents = Vec::new();
            for n in 0..400 {
                let (kind, ttl) = [("i", None), ("s", Some(5)), ("l", Some(20)), ("n", Some(-1))][n % 4];
                documents.push(living(format!("{lane}-{kind}-{n}"), lane, ttl));
            }
            put(&system, &scope(container, &[lane]), &documents).await;
        }
    }
    eventually("in the view", || system.shards().iter().all(|shard| shard.status().lag == 0)).await;
    let left = |container: &str| -> BTreeSet<String> {
        stored(&system, container).iter().map(|id| id[2..3].to_owned()).collect()
    };
    let set = |kinds: &[&str]| -> BTreeSet<String> { kinds.iter().map(|kind| (*kind).to_owned()).collect() };
    let all = set(&["i", "s", "l", "n"]);
    for (seconds, brief, own) in [
        (4, all.clone(), all.clone()),
        (2, set(&["i", "l", "n"]), set(&["i", "l", "n"])),
        (5, set(&["l", "n"]), set(&["i", "l", "n"])),
        (10, set(&["n"]), set(&["i", "n"])),
    ] {
        clock.advance(Duration::from_secs(seconds));
        // Nobody sees them from that moment on.
        let seen = rows(&system, &whole, "SELECT VALUE COUNT(1) FROM c").await;
        assert_eq!(seen, [json!(brief.len() * 200)]);
        eventually("expired documents are gone", || left("brief") == brief && left("own") == own).await;
        assert_eq!(left("off"), all);
    }
    eventually("their rows are gone", || count(&system, Table::Index, b"brief\0") == 200).await;
    let expiring = ["brief\0", "own\0"].map(|prefix| count(&system, Table::Expiry, prefix.as_bytes()));
    assert_eq!(expiring, [0, 0]);
    let gone = removals(&system, &whole, begin, ChangeKind::Expire).await;
    assert_eq!(gone.len(), 600);
    assert_eq!(gone.iter().collect::<BTreeSet<_>>().len(), 600);
    assert!(gone.iter().all(|id| !id.contains("-n-")));
    stop(system).await;
}

/// A partition that takes no writes any more.
async fn quarantine(system: &System, scope: &Scope) {
    fail::cfg("partition::evaluate", "panic").unwrap();
    for n in 0.. {
        // Each is another, or it would be known as the one that crashes.
        let poison = upsert(&json!({"id": format!("poison-{n}"), "lane": "a"}));
        let refused = partition(system, scope).write(poison, AMPLE).await.unwrap_err();
        if refused == WriteError::Quarantined {
            return;
        }
    }
}

async fn heal(directory: &DirectoryHandle, system: &System, scope: &Scope) {
    assert!(directory.reopen(partition(system, scope).address().clone()).await);
}

#[actix::test]
async fn a_partition_that_takes_no_writes_keeps_no_other_from_being_swept() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN);
    let mut brief = container("brief", &["lane"]);
    brief.ttl = ContainerTtl::Seconds(10);
    let mut config = config(folder.path(), [brief, container("loads", &["lane"])]);
    config.default_shards = 1;
    config.upkeep = Some(UpkeepSettings { batch: 300, ..quick() });
    let system = start_at(config, clock.clone()).await;
    let stuck = scope("brief", &["a"]);
    let documents: Vec<Value> = (0..600)
        .map(|n| living(format!("a-{n}"), "a", (n < 300).then_some(5)))
        .chain((0..600).map(|n| living(format!("a-for-ever-{n}"), "a", Some(-1))))
        .collect();
    put(&system, &stuck, &documents).await;
    quarantine(&system, &stuck).await;
    for lane in ["b", "c"] {
        let documents: Vec<Value> =
            (0..40).map(|n| living(format!("{lane}-{n}"), lane, (n < 20).then_some(6))).collect();
        put(&system, &scope("brief", &[lane]), &documents).await;
    }
    let left = || stored(&system, "brief");
    eventually("the view has them all", || left().len() == 1_280).await;
    clock.advance(Duration::from_secs(11));
    eventually("others are swept", || left().iter().all(|id| id.starts_with("a-"))).await;
    assert_eq!(left().len(), 1_200);
    heal(system.directory(), &system, &stuck).await;
    eventually("all are swept", || left().len() == 600).await;

    // The same for a purge.
    let (first, second) = (scope("loads", &["a"]), scope("loads", &["b"]));
    for (scope, lane) in [(&first, "a"), (&second, "b")] {
        put(&system, scope, &(0..40).map(|n| living(format!("{lane}{n}"), lane, None)).collect::<Vec<_>>())
            .await;
    }
    quarantine(&system, &first).await;
    for scope in [&first, &second] {
        let address = partition(&system, scope).address().clone();
        system.shards()[0].purge(address.as_bytes().to_vec()).await.unwrap();
    }
    let left = || stored(&system, "loads");
    eventually("the other is purged", || left().iter().all(|id| id.starts_with('a'))).await;
    heal(system.directory(), &system, &first).await;
    eventually("both are purged", || left().is_empty() && system.shards()[0].purges().is_empty()).await;
    fail::remove("partition::evaluate");
    stop(system).await;
}

#[actix::test]
async fn records_of_requests_go_when_nobody_repeats_them_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN);
    let system = start_at(config(folder.path(), [container("loads", &["lane"])]), clock.clone()).await;
    let handle = partition(&system, &scope("loads", &["a"]));
    let repeat = |n: usize, minutes: u64| Repeat {
        key: Bytes::from(format!("key-{n}")),
        fingerprint: Fingerprint::of("put", None, b""),
        keep: Duration::from_secs(minutes * 60),
    };
    for n in 0..600 {
        let write = upsert(&living(format!("d{n}"), "a", None));
        let minutes = if n < 500 { 60 } else { 180 };
        handle.transact(vec![write], Some(repeat(n, minutes)), AMPLE).await.unwrap();
    }
    let records = || count(&system, Table::Idempotency, b"");
    eventually("in the view", || records() == 600).await;
    clock.advance(Duration::from_secs(59 * 60));
    let write = || vec![upsert(&living("d0".into(), "a", None))];
    assert!(handle.transact(write(), Some(repeat(0, 60)), AMPLE).await.unwrap()[0].replayed);
    // A record that was made anew stays as long as the new one says.
    clock.advance(Duration::from_secs(2 * 60));
    assert!(!handle.transact(write(), Some(repeat(0, 60)), AMPLE).await.unwrap()[0].replayed);
    clock.advance(Duration::from_secs(15 * 60));
    eventually("old ones are gone", || records() == 101).await;
    assert!(handle.transact(write(), Some(repeat(0, 60)), AMPLE).await.unwrap()[0].replayed);
    clock.advance(Duration::from_secs(180 * 60));
    eventually("all are gone", || records() == 0 && count(&system, Table::Expiry, b"") == 0).await;
    stop(system).await;
}

#[actix::test]
async fn a_purge_takes_away_what_was_there_and_then_itself() {
    let folder = tempfile::tempdir().unwrap();
    let containers = || [container("loads", &["lane", "day"])];
    let mut config = config(folder.path(), containers());
    config.upkeep = Some(UpkeepSettings { batch: 100, ..quick() });
    let system = start(config.clone()).await;
    let whole = scope("loads", &[]);
    let begin = now(&system, &whole).await;
    for (lane, day) in [("a", "1"), ("a", "2"), ("b", "1")] {
        let documents: Vec<Value> = (0..300).map(|n| json!({"id": format!("{lane}{day}-{n}")})).collect();
        put(&system, &scope("loads", &[lane, day]), &documents).await;
    }
    // All partitions of a lane, once more when something was written in between, while the first goes on.
    let all = scope("loads", &["a"]);
    let day = scope("loads", &["a", "1"]);
    let prefix = {
        let address = partition(&system, &day).address().clone();
        let behind = address.as_bytes().windows(4).position(|bytes| bytes == b"1\0\x01\0").unwrap() - 1;
        address.as_bytes()[..behind].to_vec()
    };
    for shard in system.shards() {
        shard.purge(prefix.clone()).await.unwrap();
    }
    assert_eq!(rows(&system, &all, "SELECT VALUE c.id FROM c").await, Vec::<Value>::new());
    put(&system, &day, &[json!({"id": "a1-7"}), json!({"id": "new"})]).await;
    assert_eq!(rows(&system, &all, "SELECT VALUE c.id FROM c").await, ["a1-7", "new"]);
    for shard in system.shards() {
        shard.purge(prefix.clone()).await.unwrap();
    }
    assert_eq!(rows(&system, &all, "SELECT VALUE c.id FROM c").await, Vec::<Value>::new());
    put(&system, &day, &[json!({"id": "newer"})]).await;
    stop(system).await;

    // It goes on after a restart.
    let system = start(config).await;
    assert_eq!(rows(&system, &all, "SELECT VALUE c.id FROM c").await, ["newer"]);
    let over = || system.shards().iter().all(|shard| shard.purges().is_empty());
    eventually("the purges are over", over).await;
    assert_eq!(count(&system, Table::System, b"purge/"), 0);
    eventually("the view has it", || stored(&system, "loads").len() == 301).await;
    assert_eq!(rows(&system, &all, "SELECT VALUE c.id FROM c").await, ["newer"]);
    let gone = removals(&system, &whole, begin, ChangeKind::Delete).await;
    assert_eq!(gone.len(), 602, "every document is told once, and the one that came back twice");
    stop(system).await;
}

#[actix::test]
async fn the_log_is_kept_as_long_as_a_container_promises_and_not_longer() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN);
    let mut kept = container("kept", &["lane"]);
    kept.retention = Duration::from_secs(3_600);
    let mut config = config(folder.path(), [kept, container("loads", &["lane"])]);
    config.default_shards = 1;
    config.shard.log = tiny_segments();
    config.shard.checkpoint_interval = Duration::from_millis(5);
    let system = start_at(config, clock.clone()).await;
    let (lane, shard) = (scope("kept", &["a"]), &system.shards()[0]);
    let fill = |n: usize| {
        let pad = "p".repeat(8_000);
        let write = upsert(&json!({"id": format!("d{n}"), "lane": "a", "pad": pad}));
        let (handle, clock) = (partition(&system, &lane), clock.clone());
        async move {
            handle.write(write, AMPLE).await.unwrap();
            clock.advance(Duration::from_secs(60));
        }
    };
    let begin = now(&system, &lane).await;
    for n in 0..50 {
        fill(n).await;
    }
    assert_eq!(shard.log().first().0, 1, "nothing is older than an hour");
    let all = removals(&system, &lane, begin.clone(), ChangeKind::Delete).await;
    assert_eq!(all, Vec::<String>::new());
    let recent = now(&system, &lane).await;
    let later = shard.log().tail();
    // Older ones go, segment by segment, and none that is younger than an hour.
    let mut written = std::collections::BTreeMap::new();
    for n in 50..110 {
        written.insert(shard.log().tail().0 + 1, clock.now());
        fill(n).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let since = clock.now().0 - 3_600_000;
        let first = shard.log().first().0;
        let lost = written.range(..first).next_back();
        assert!(lost.is_none_or(|(_, at)| at.0 < since), "{lost:?} is gone too early");
    }
    assert!(shard.log().first().0 > 1, "nothing was let go");
    assert!(shard.log().first() <= later.next());
    let refused = system.reader().changes(feed(&lane, FeedMode::All, begin)).await;
    assert!(matches!(refused, Err(FeedFailed::Gone)));
    assert!(system.reader().changes(feed(&lane, FeedMode::All, recent)).await.is_ok());
    let latest = follow(&system, feed(&lane, FeedMode::Latest, FeedStart::Beginning), 20).await.unwrap();
    assert_eq!(latest.0.iter().flatten().count(), 110);
    stop(system).await;
}

#[actix::test]
async fn the_log_is_let_go_although_only_state_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(BEGIN);
    let mut kept = container("kept", &["lane"]);
    kept.retention = Duration::from_secs(60);
    let mut config = config(folder.path(), [kept]);
    config.default_shards = 1;
    config.shard.log = tiny_segments();
    config.shard.checkpoint_interval = Duration::from_millis(5);
    let system = start_at(config, clock.clone()).await;
    let shard = &system.shards()[0];
    let value = Bytes::from(vec![7; 8_000]);
    let mut trimmed = false;
    for n in 0..2_000_u64 {
        let key = Bytes::from(format!("state-{}", n % 5));
        let put = Mutation::Put { table: Table::System, key, value: value.clone() };
        shard.commit(vec![put]).unwrap().await.unwrap().unwrap();
        clock.advance(Duration::from_secs(10));
        if shard.log().first().0 > 1 {
            trimmed = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(trimmed, "the log grows for ever");
    stop(system).await;
}

#[actix::test]
async fn a_system_with_nothing_to_do_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut brief = container("brief", &["lane"]);
    (brief.ttl, brief.indexes) = (ContainerTtl::Seconds(1_000), indexes(&[&["n"]]));
    let mut config = config(folder.path(), [brief]);
    config.upkeep = Some(UpkeepSettings { interval: Duration::from_millis(1), ..quick() });
    let system = start(config).await;
    put(
        &system,
        &scope("brief", &["a"]),
        &[living("x".into(), "a", None), living("y".into(), "a", Some(900))],
    )
    .await;
    let tails = || system.shards().iter().map(|shard| shard.log().tail().0).collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = tails();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(tails(), before);
    stop(system).await;
}
