//! A feed shows what happened, in order, once, and its cursor is good for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lanekeeper_actors::kernel::clock::ManualClock;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::feed::{FeedCursor, FeedMode, FeedStart, ForeignCursor};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::reader::{Change, FeedFailed, FeedRequest, Scope};
use lanekeeper_actors::system::System;
use serde_json::{Value, json};

use crate::scene::{
    config, container, delete, feed, follow, partition, put, scope, scope_of, start, start_at, transact,
    upsert,
};
use crate::support::{eventually, stop};

fn numbered(lane: &str, n: usize, version: usize) -> Value {
    json!({"id": format!("{lane}{n:04}"), "lane": lane, "city": lane, "v": version})
}

/// What a change shows: the document's id and its property `v`, or nothing when it is gone.
fn shown(change: &Change) -> (String, Option<u64>) {
    let body = change.document.as_ref().map(|body| serde_json::from_slice::<Value>(body).unwrap());
    (change.id.as_str().to_owned(), body.map(|body| body["v"].as_u64().unwrap()))
}

fn all_of(pages: &[Vec<Change>]) -> Vec<(String, Option<u64>)> {
    pages.iter().flatten().map(shown).collect()
}

async fn latest(system: &System, scope: &Scope, limit: usize) -> Vec<Vec<Change>> {
    follow(system, feed(scope, FeedMode::Latest, FeedStart::Beginning), limit).await.unwrap().0
}

/// Within each partition changes come in the order of the log, and no transaction stands on two pages.
fn assert_in_order(pages: &[Vec<Change>]) {
    let mut last = BTreeMap::new();
    let mut transactions = BTreeSet::new();
    for page in pages {
        let of_page: BTreeSet<_> = page.iter().map(|change| (change.shard(), change.lsn)).collect();
        for change in page {
            let before = last.insert(change.partition.clone(), change.etag.0.lsn);
            assert!(before < Some(change.etag.0.lsn), "{change:?} comes after {before:?}");
            assert!(change.lsn <= change.etag.0.lsn);
        }
        for transaction in of_page {
            assert!(transactions.insert(transaction), "{transaction:?} is split");
        }
    }
}

#[actix::test]
async fn the_latest_feed_shows_every_document_once_with_its_newest_version() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), [container("loads", &["lane"])])).await;
    let lanes = ["a", "b", "c", "d"];
    let mut model = BTreeMap::new();
    for (number, lane) in lanes.iter().enumerate() {
        let scope = scope("loads", &[lane]);
        for n in 0..20 {
            let writes: Vec<_> = (0..=n % 4).map(|more| numbered(lane, n * 5 + more, 1)).collect();
            model.extend(writes.iter().map(|found| (found["id"].as_str().unwrap().to_owned(), 1)));
            transact(&system, &scope, writes.iter().map(upsert).collect()).await;
        }
        for n in (0..20).step_by(3 + number) {
            transact(&system, &scope, vec![upsert(&numbered(lane, n * 5, 2))]).await;
            model.insert(format!("{lane}{:04}", n * 5), 2);
        }
        transact(&system, &scope, vec![delete(&format!("{lane}0005"))]).await;
        model.remove(&format!("{lane}0005"));
    }
    for limit in [1, 2, 3, 4, 5, 1_000] {
        let pages = latest(&system, &scope("loads", &[]), limit).await;
        assert_in_order(&pages);
        assert!(pages.iter().all(|page| page.len() < limit + 4), "a page of {limit} is too large");
        let all = all_of(&pages);
        assert_eq!(all.len(), model.len());
        let found: BTreeMap<_, _> = all.into_iter().map(|(id, v)| (id, v.unwrap())).collect();
        assert_eq!(found, model);
        for lane in lanes {
            let pages = latest(&system, &scope("loads", &[lane]), limit).await;
            assert_in_order(&pages);
            assert!(pages.iter().all(|page| page.len() < limit + 4));
            let own = model.iter().filter(|(id, _)| id.starts_with(lane)).count();
            assert_eq!(all_of(&pages).len(), own);
        }
    }
    // A replaced document moves to the end.
    transact(&system, &scope("loads", &["a"]), vec![upsert(&numbered("a", 0, 3))]).await;
    let pages = latest(&system, &scope("loads", &["a"]), 7).await;
    assert_eq!(shown(pages.last().unwrap().last().unwrap()), ("a0000".into(), Some(3)));
    stop(system).await;
}

#[actix::test]
async fn a_page_stays_small_although_every_transaction_lost_its_first_document() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), [container("loads", &["lane"])]);
    config.default_shards = 1;
    let system = start(config).await;
    let lane = scope("loads", &["a"]);
    for n in 1..200 {
        transact(&system, &lane, vec![upsert(&numbered("a", 0, n)), upsert(&numbered("a", n, n))]).await;
    }
    for scope in [lane, scope("loads", &[])] {
        let pages = latest(&system, &scope, 5).await;
        assert_in_order(&pages);
        assert_eq!(all_of(&pages).len(), 200);
        assert!(pages.iter().all(|page| page.len() <= 6), "{:?}", pages.iter().map(Vec::len).max());
        let mut few = feed(&scope, FeedMode::Latest, FeedStart::Beginning);
        few.bytes = 200;
        let page = system.reader().changes(few).await.unwrap();
        assert!(page.changes.len() < 10, "{} documents in 200 bytes", page.changes.len());
    }
    stop(system).await;
}

#[actix::test]
async fn a_feed_begins_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(Timestamp(1_700_000_000_000));
    let system = start_at(config(folder.path(), [container("loads", &["lane"])]), clock.clone()).await;
    let whole = scope("loads", &[]);
    let mut times = Vec::new();
    for version in 0..4 {
        times.push(Timestamp(1_700_000_000_000 + version * 10_000));
        for lane in ["a", "b", "c"] {
            let n = version as usize;
            put(&system, &scope("loads", &[lane]), &[numbered(lane, n, n), numbered(lane, n + 10, n)]).await;
        }
        clock.advance(Duration::from_secs(10));
    }
    let from = |from: FeedStart| follow(&system, feed(&whole, FeedMode::Latest, from), 3);
    for (version, time) in times.iter().enumerate() {
        for (early, first) in
            [(0, version), (1, version), (9_999, version), (10_000, version.saturating_sub(1))]
        {
            let (pages, _) = from(FeedStart::Time(Timestamp(time.0 - early))).await.unwrap();
            let found: BTreeSet<u64> = all_of(&pages).into_iter().map(|(_, v)| v.unwrap()).collect();
            assert_eq!(found, (first as u64..4).collect(), "{early} ms before version {version}");
            assert_eq!(all_of(&pages).len(), (4 - first) * 6);
        }
    }
    assert!(from(FeedStart::Time(Timestamp(1_800_000_000_000))).await.unwrap().0.is_empty());
    for mode in [FeedMode::Latest, FeedMode::All] {
        let (pages, cursor) = follow(&system, feed(&whole, mode, FeedStart::Now), 3).await.unwrap();
        assert!(pages.is_empty());
        put(&system, &scope("loads", &["b"]), &[numbered("b", 0, 9)]).await;
        let (pages, _) = follow(&system, feed(&whole, mode, FeedStart::Cursor(cursor)), 3).await.unwrap();
        assert_eq!(all_of(&pages), [("b0000".into(), Some(9))]);
    }
    for from in [FeedStart::Beginning, FeedStart::Time(times[0])] {
        let refused = system.reader().changes(feed(&whole, FeedMode::All, from)).await;
        assert!(matches!(refused, Err(FeedFailed::Start)));
    }
    stop(system).await;
}

#[actix::test]
async fn a_waiting_feed_wakes_with_the_first_change_of_its_scope() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), [container("loads", &["lane"])])).await;
    put(&system, &scope("loads", &["a"]), &[numbered("a", 0, 0)]).await;
    for mode in [FeedMode::Latest, FeedMode::All] {
        for parts in [&["a"][..], &[]] {
            let (_, cursor) =
                follow(&system, feed(&scope("loads", parts), mode, FeedStart::Now), 9).await.unwrap();
            let mut request = feed(&scope("loads", parts), mode, FeedStart::Cursor(cursor.clone()));
            request.wait = Duration::from_secs(25);
            let began = Instant::now();
            let reader = system.reader().clone();
            let waiting = actix::spawn(async move { reader.changes(request).await.unwrap() });
            for n in 0..5 {
                // Others' changes wake nobody for long.
                if !parts.is_empty() {
                    put(&system, &scope("loads", &["b"]), &[numbered("b", n, n)]).await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!waiting.is_finished());
            put(&system, &scope("loads", &["a"]), &[numbered("a", 1, 7)]).await;
            let page = waiting.await.unwrap();
            assert_eq!(page.changes.iter().map(shown).collect::<Vec<_>>(), [("a0001".into(), Some(7))]);
            assert!(began.elapsed() < Duration::from_secs(10));
            // Without a change it ends when its time is over, further on than before.
            let mut request = feed(&scope("loads", parts), mode, FeedStart::Cursor(page.cursor));
            request.wait = Duration::from_millis(50);
            assert!(system.reader().changes(request).await.unwrap().changes.is_empty());
        }
    }
    stop(system).await;
}

#[actix::test]
async fn a_narrow_scope_among_many_changes_shows_its_own_and_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut apart = container("apart", &["lane", "city"]);
    apart.isolated = true;
    let system = start(config(folder.path(), [apart])).await;
    // One partition is too large to be read for a page, one is small, and both tenants have them.
    let (big, small): (Vec<Value>, Vec<Value>) =
        ((0..1_400).map(|n| numbered("a", n, 1)).collect(), (0..30).map(|n| numbered("b", n, 1)).collect());
    for (some, few) in big.chunks(70).zip(small.chunks(2).cycle()) {
        for owner in ["acme", "acme2"] {
            put(&system, &scope_of("apart", owner, &["a", "a"]), some).await;
            put(&system, &scope_of("apart", owner, &["b", "b"]), few).await;
        }
    }
    for n in 0..50 {
        put(&system, &scope_of("apart", "acme", &["a", "a"]), &[numbered("a", n, 2)]).await;
    }
    for (parts, count) in [(&["a", "a"][..], 1_400), (&["b", "b"], 30), (&["a"], 1_400), (&[], 1_430)] {
        for limit in [4, 300] {
            let pages = latest(&system, &scope_of("apart", "acme", parts), limit).await;
            assert_in_order(&pages);
            assert!(pages.iter().all(|page| page.len() < limit + 70));
            let all = all_of(&pages);
            let ids: BTreeSet<_> = all.iter().map(|(id, _)| id.clone()).collect();
            assert_eq!((all.len(), ids.len()), (count, count), "{parts:?}");
            let newer = all.iter().filter(|(_, v)| *v == Some(2)).count();
            assert_eq!(newer, if parts.first() == Some(&"b") { 0 } else { 50 });
        }
    }
    let other = latest(&system, &scope_of("apart", "acme2", &[]), 500).await;
    assert!(all_of(&other).iter().all(|(_, v)| *v == Some(1)));
    assert_eq!(all_of(&latest(&system, &scope("apart", &[]), 500).await).len(), 2_860);
    assert_eq!(all_of(&latest(&system, &scope("apart", &["b"]), 500).await).len(), 60);
    assert!(latest(&system, &scope_of("apart", "acm", &[]), 500).await.is_empty());
    stop(system).await;
}

#[actix::test]
async fn a_cursor_is_good_after_a_restart_and_for_its_own_feed_only() {
    let folder = tempfile::tempdir().unwrap();
    let containers = || [container("loads", &["lane"]), container("other", &["lane"])];
    let system = start(config(folder.path(), containers())).await;
    for lane in ["a", "b"] {
        put(&system, &scope("loads", &[lane]), &(0..50).map(|n| numbered(lane, n, 1)).collect::<Vec<_>>())
            .await;
    }
    let whole = scope("loads", &[]);
    let mut request = feed(&whole, FeedMode::Latest, FeedStart::Beginning);
    request.limit = 30;
    let first = system.reader().changes(request).await.unwrap();
    let text = first.cursor.to_string();
    stop(system).await;
    let system = start(config(folder.path(), containers())).await;
    let cursor: FeedCursor = text.parse().unwrap();
    let from = FeedStart::Cursor(cursor.clone());
    let (rest, _) = follow(&system, feed(&whole, FeedMode::Latest, from.clone()), 8).await.unwrap();
    let mut all = all_of(&[first.changes]);
    all.extend(all_of(&rest));
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), all_of(&rest).len() + 40 <= 100), (100, true));
    for (scope, mode) in [
        (scope("loads", &["a"]), FeedMode::Latest),
        (scope_of("loads", "acme", &[]), FeedMode::Latest),
        (scope("other", &[]), FeedMode::Latest),
        (whole, FeedMode::All),
    ] {
        let refused = system.reader().changes(feed(&scope, mode, from.clone())).await;
        assert!(matches!(refused, Err(FeedFailed::Cursor(ForeignCursor::Scope | ForeignCursor::Mode(_)))));
    }
    let nowhere = system.reader().changes(feed(&scope("none", &[]), FeedMode::Latest, from)).await;
    assert!(matches!(nowhere, Err(FeedFailed::UnknownContainer(_))));
    stop(system).await;
}

#[actix::test]
async fn the_feed_of_all_shows_every_version_and_what_was_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let system = start(config(folder.path(), [container("loads", &["lane"])])).await;
    let lane = scope("loads", &["a"]);
    let now = |mode| feed(&lane, mode, FeedStart::Now);
    let cursor = system.reader().changes(now(FeedMode::All)).await.unwrap().cursor;
    transact(&system, &lane, vec![upsert(&numbered("a", 1, 1)), upsert(&numbered("a", 2, 1))]).await;
    transact(
        &system,
        &lane,
        vec![upsert(&numbered("a", 1, 2)), delete("a0002"), upsert(&numbered("a", 2, 3))],
    )
    .await;
    transact(&system, &lane, vec![delete("a0001")]).await;
    put(&system, &scope("loads", &["b"]), &[numbered("b", 1, 1)]).await;
    for limit in [1, 2, 100] {
        let mut request =
            FeedRequest { previous: true, ..feed(&lane, FeedMode::All, FeedStart::Cursor(cursor.clone())) };
        let (pages, _) = follow(&system, request.clone(), limit).await.unwrap();
        assert_in_order(&pages);
        let changes: Vec<&Change> = pages.iter().flatten().collect();
        let kinds: Vec<_> = changes.iter().map(|change| (change.kind.unwrap(), shown(change))).collect();
        let (create, replace, gone) = (ChangeKind::Create, ChangeKind::Replace, ChangeKind::Delete);
        assert_eq!(
            kinds,
            [
                (create, ("a0001".into(), Some(1))),
                (create, ("a0002".into(), Some(1))),
                (replace, ("a0001".into(), Some(2))),
                (gone, ("a0002".into(), None)),
                (create, ("a0002".into(), Some(3))),
                (gone, ("a0001".into(), None)),
            ]
        );
        assert_eq!(changes[0].lsn, changes[1].lsn);
        let before = |at: usize| {
            let body =
                changes[at].previous.as_ref().map(|body| serde_json::from_slice::<Value>(body).unwrap());
            (changes[at].previous_lsn, body.map(|body| body["v"].as_u64().unwrap()))
        };
        assert_eq!(before(0), (None, None));
        assert_eq!(before(2), (Some(changes[0].etag.0.lsn), Some(1)));
        assert_eq!(before(3), (Some(changes[1].etag.0.lsn), Some(1)));
        assert_eq!(before(4).1, None);
        assert_eq!(before(5), (Some(changes[2].etag.0.lsn), Some(2)));
        request.previous = false;
        let (pages, _) = follow(&system, request, limit).await.unwrap();
        assert!(pages.iter().flatten().all(|change| change.previous.is_none()));
    }
    stop(system).await;
}

#[actix::test]
async fn no_shard_waits_for_another_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), [container("loads", &["lane"])]);
    config.default_shards = 4;
    let system = start(config).await;
    let lanes: Vec<String> = (0..16).map(|n| format!("l{n}")).collect();
    for lane in &lanes {
        put(&system, &scope("loads", &[lane]), &(0..20).map(|n| numbered(lane, n, 1)).collect::<Vec<_>>())
            .await;
    }
    eventually("in the view", || system.shards().iter().all(|shard| shard.status().lag == 0)).await;
    let shards: BTreeSet<_> =
        lanes.iter().map(|lane| partition(&system, &scope("loads", &[lane])).shard()).collect();
    let mut cursor = FeedStart::Beginning;
    let mut seen = BTreeSet::new();
    // Transactions hold 20 documents: that many pages show each shard at least once.
    for _ in 0..8 {
        let mut request = feed(&scope("loads", &[]), FeedMode::Latest, cursor);
        request.limit = 1;
        let page = system.reader().changes(request).await.unwrap();
        seen.extend(page.changes.iter().map(Change::shard));
        cursor = FeedStart::Cursor(page.cursor);
    }
    assert!(seen.len() > shards.len() / 2, "only {seen:?} of {shards:?}");
    stop(system).await;
}
