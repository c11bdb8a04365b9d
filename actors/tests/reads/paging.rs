//! Pages go on where they ended: while others write, over a restart, and when a budget cut them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanekeeper_actors::query::QueryError;
use lanekeeper_actors::reader::{QueryFailed, Scope};
use lanekeeper_actors::system::System;
use serde_json::{Value, json};

use crate::scene::{
    access, config, container, delete, indexes, page, pages, put, rows, scope, scope_of, start, transact,
    upsert,
};
use crate::support::{eventually, stop};

/// A document with a number and a value that an index is of.
pub(crate) fn numbered(n: usize, lane: &str, value: usize) -> Value {
    json!({"id": format!("{lane}-{n:05}"), "lane": lane, "n": value, "kept": n.is_multiple_of(2)})
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Replaces, deletes and makes documents with odd numbers until it is told to stop.
async fn disturb(system: System, lanes: &'static [&'static str], done: Arc<AtomicBool>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    while !done.load(Ordering::Relaxed) {
        let lane = lanes[random.usize(..lanes.len())];
        let n = random.usize(..300) * 2 + 1;
        let scope = scope("loads", &[lane]);
        let writes = match random.u8(..3) {
            0 => vec![upsert(&numbered(n, lane, random.usize(..200)))],
            1 => vec![upsert(&numbered(n, lane, random.usize(..200))), delete(&format!("{lane}-{n:05}"))],
            _ => (0..5).map(|more| upsert(&numbered(n + 2 * more, lane, random.usize(..200)))).collect(),
        };
        transact(&system, &scope, writes).await;
        // A document may also be written as it was.
        let same = random.usize(..300) * 2;
        transact(&system, &scope, vec![upsert(&numbered(same, lane, same % 97))]).await;
    }
}

/// Paths of indexes.
type Paths = &'static [&'static [&'static str]];

#[actix::test]
async fn documents_that_stay_are_neither_skipped_nor_repeated_while_others_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["n"]]);
    let system = start(config(folder.path(), [loads])).await;
    const LANES: &[&str] = &["x", "y", "z"];
    for lane in LANES {
        let documents: Vec<Value> = (0..600).map(|n| numbered(n, lane, n % 97)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let writer = actix::spawn(disturb(system.clone(), LANES, done.clone(), 3));
    let expected = |lanes: &[&str]| {
        let mut all: Vec<String> = Vec::new();
        for lane in lanes {
            all.extend((0..600).step_by(2).map(|n| format!("{lane}-{n:05}")));
        }
        all.sort_unstable();
        all
    };
    for (text, way, parts) in [
        ("SELECT c.id, c.n, c.kept FROM c", "scan", &["x"][..]),
        ("SELECT c.id, c.n, c.kept FROM c", "scan", &[]),
        ("SELECT c.id, c.n, c.kept FROM c ORDER BY c.n", "index", &["x"]),
        ("SELECT c.id, c.n, c.kept FROM c ORDER BY c.n DESC", "index", &["x"]),
        ("SELECT c.id, c.n, c.kept FROM c WHERE c.n >= 0", "index", &["x"]),
        ("SELECT c.id, c.n, c.kept FROM c WHERE c.n >= 0", "index", &[]),
    ] {
        let scope = scope("loads", parts);
        assert_eq!(access(&system, &scope, text).await, way);
        for limit in [7, 60] {
            let (found, count) = pages(&system, &scope, text, limit).await;
            assert!(count > 5);
            let kept: Vec<Value> = found.iter().filter(|row| row["kept"] == true).cloned().collect();
            if text.contains("ORDER") {
                let order: Vec<u64> = kept.iter().map(|row| row["n"].as_u64().unwrap()).collect();
                let down = text.contains("DESC");
                assert!(if down { order.is_sorted_by(|a, b| a >= b) } else { order.is_sorted() }, "{text}");
            }
            let mut kept = ids(&kept);
            kept.sort_unstable();
            let lanes = if parts.is_empty() { LANES } else { parts };
            assert_eq!(kept, expected(lanes), "{text} in pages of {limit}");
        }
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    stop(system).await;
}

#[actix::test]
async fn what_was_written_a_moment_ago_is_found_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["n"]]);
    let mut config = config(folder.path(), [loads]);
    config.default_shards = 1;
    let system = start(config).await;
    let lane = scope("loads", &["x"]);
    let mut in_overlay = 0;
    for round in 0..40_usize {
        // The upper half is in the view; what is written now lies before, between and behind it.
        let mut documents: Vec<Value> = (0..30).map(|n| numbered(n, "x", (n * 7 + round) % 30)).collect();
        put(&system, &lane, &documents).await;
        transact(&system, &lane, vec![delete("x-00004"), delete("x-00029")]).await;
        documents.retain(|found| found["id"] != "x-00004" && found["id"] != "x-00029");
        in_overlay += usize::from(system.shards()[0].status().lag > 0);
        let all = ids(&rows(&system, &lane, "SELECT c.id FROM c").await);
        assert_eq!(all, ids(&documents));
        for (text, down) in [
            ("SELECT c.id, c.n FROM c ORDER BY c.n", false),
            ("SELECT c.id, c.n FROM c ORDER BY c.n DESC", true),
        ] {
            let plan = page(&system, &lane, text, 1, None).await.unwrap().plan.unwrap();
            assert_eq!((&plan["access"], &plan["ordered"]), (&json!("index"), &json!(true)));
            let mut expected = documents.clone();
            expected.sort_by_key(|found| found["n"].as_u64().unwrap());
            if down {
                expected.reverse();
            }
            assert_eq!(ids(&rows(&system, &lane, text).await), ids(&expected), "{text}");
            assert_eq!(ids(&pages(&system, &lane, text, 5).await.0), ids(&expected), "{text}");
        }
        let some = rows(&system, &lane, "SELECT c.id FROM c WHERE c.n IN (3, 4) ORDER BY c.id").await;
        let mut expected = documents.clone();
        expected.retain(|found| found["n"] == 3 || found["n"] == 4);
        assert_eq!(ids(&some), ids(&expected));
    }
    assert!(in_overlay > 10, "{in_overlay} rounds only found something in the overlay");
    stop(system).await;
}

#[actix::test]
async fn large_documents_that_are_just_written_change_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["n"]]);
    let system = start(config(folder.path(), [loads])).await;
    let lane = scope("loads", &["x"]);
    let documents: Vec<Value> = (0..50).map(|n| numbered(n, "x", n)).collect();
    put(&system, &lane, &documents).await;
    eventually("in the view", || system.shards().iter().all(|shard| shard.status().lag == 0)).await;
    let text = "SELECT c.id FROM c WHERE c.n < 50 ORDER BY c.n";
    let (mut found, mut continuation) = (Vec::new(), None);
    loop {
        let next = page(&system, &lane, text, 3, continuation).await.unwrap();
        found.extend(next.rows);
        let Some(text) = next.continuation else { break };
        continuation = Some(text);
        // Its indexed value is short: the index is as good as before.
        let large = json!({"id": "large", "lane": "x", "n": 99, "pad": "x".repeat(5_000)});
        put(&system, &lane, &[large]).await;
    }
    assert_eq!(ids(&found), ids(&documents));
    stop(system).await;
}

#[actix::test]
async fn a_continuation_is_good_over_a_restart_and_for_its_own_query_and_scope_only() {
    let folder = tempfile::tempdir().unwrap();
    let containers = || {
        let mut loads = container("loads", &["lane"]);
        loads.indexes = indexes(&[&["n"]]);
        let mut apart = container("apart", &["lane"]);
        apart.isolated = true;
        [loads, apart]
    };
    let mut system = start(config(folder.path(), containers())).await;
    let lanes = ["x", "y"];
    for lane in lanes {
        let documents: Vec<Value> = (0..40).map(|n| numbered(n, lane, n % 11)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
        for owner in ["acme", "zeta"] {
            put(&system, &scope_of("apart", owner, &[lane]), &documents).await;
        }
    }
    let texts = [
        "SELECT c.id FROM c",
        "SELECT c.id, c.n FROM c ORDER BY c.n",
        "SELECT c.id, c.n FROM c ORDER BY c.n DESC",
        "SELECT c.id FROM c WHERE c.n IN (3, 4, 5)",
        "SELECT c.n, COUNT(1) AS m FROM c GROUP BY c.n",
        "SELECT DISTINCT c.n FROM c",
        "SELECT c.id, c.n FROM c ORDER BY c.id DESC OFFSET 2 LIMIT 17",
    ];
    let scopes = [
        scope("loads", &["x"]),
        scope("loads", &[]),
        scope_of("apart", "acme", &["x"]),
        scope_of("apart", "acme", &[]),
    ];
    for (round, text) in texts.iter().enumerate() {
        for scope in &scopes {
            let expected = rows(&system, scope, text).await;
            let first = page(&system, scope, text, 4, None).await.unwrap();
            let continuation = first.continuation.unwrap();
            refuse_elsewhere(&system, scope, text, &continuation).await;
            if round < 3 {
                stop(system).await;
                system = start(config(folder.path(), containers())).await;
            }
            let mut all = first.rows;
            let mut next = Some(continuation);
            while let Some(continuation) = next {
                let page = page(&system, scope, text, 4, Some(continuation)).await.unwrap();
                all.extend(page.rows);
                next = page.continuation;
            }
            assert_eq!(all, expected, "{text}");
        }
    }
    stop(system).await;
}

async fn refuse_elsewhere(system: &System, here: &Scope, text: &str, continuation: &str) {
    let refused = |result: Result<_, QueryFailed>| match result {
        Err(QueryFailed::Continuation(_)) => true,
        Err(QueryFailed::Query(QueryError::OtherQuery)) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    };
    let others = [
        scope("loads", &["x"]),
        scope("loads", &["y"]),
        scope("loads", &[]),
        scope_of("apart", "acme", &["x"]),
        scope_of("apart", "zeta", &["x"]),
        scope_of("apart", "acme", &[]),
        scope_of("apart", "zeta", &[]),
    ];
    let mark = |scope: &Scope| format!("{scope:?}");
    for other in others.iter().filter(|other| mark(other) != mark(here)) {
        assert!(refused(page(system, other, text, 4, Some(continuation.into())).await), "{other:?}");
    }
    let other = "SELECT c.id FROM c WHERE c.n != 77";
    assert!(refused(page(system, here, other, 4, Some(continuation.into())).await));
    let bytes = URL_SAFE_NO_PAD.decode(continuation).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let damaged = URL_SAFE_NO_PAD.encode(damaged);
        assert!(refused(page(system, here, text, 4, Some(damaged)).await), "byte {at}");
    }
    for cut in ["", "AQ", "!", &continuation[..continuation.len() - 4]] {
        assert!(refused(page(system, here, text, 4, Some(cut.into())).await), "{cut}");
    }
}

/// A query goes on by the way by which it began, or is refused; it never goes on wrongly.
#[actix::test]
async fn an_index_that_comes_or_goes_between_two_pages_makes_no_wrong_rows() {
    let folder = tempfile::tempdir().unwrap();
    let containers = |all: &[&[&str]]| {
        let mut loads = container("loads", &["lane"]);
        loads.indexes = indexes(all);
        [loads]
    };
    let texts = [
        "SELECT c.id, c.n FROM c WHERE c.n >= 0",
        "SELECT c.id, c.n FROM c ORDER BY c.n, c.id",
        "SELECT c.id, c.n FROM c ORDER BY c.n DESC",
        "SELECT c.n, COUNT(1) AS m FROM c GROUP BY c.n",
        "SELECT DISTINCT c.n FROM c WHERE c.n >= 0",
    ];
    let mut system = start(config(folder.path(), containers(&[]))).await;
    for lane in ["x", "y"] {
        let documents: Vec<Value> = (0..60).map(|n| numbered(n, lane, n % 7)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
    }
    let scopes = [scope("loads", &["x"]), scope("loads", &[])];
    let (mut refused, mut went_on) = (0, 0);
    let steps: [(Paths, Paths); 4] = [
        (&[], &[&["n"]]),
        (&[&["n"]], &[]),
        (&[], &[&["n"], &["n", "id"]]),
        (&[&["n"], &["n", "id"]], &[&["n", "id"]]),
    ];
    for (before, after) in steps {
        stop(system).await;
        system = start(config(folder.path(), containers(before))).await;
        ready(&system, "loads").await;
        let mut begun = Vec::new();
        for scope in &scopes {
            for text in texts {
                let first = page(&system, scope, text, 4, None).await.unwrap();
                let (expected, _) = pages(&system, scope, text, 4).await;
                begun.push((scope.clone(), text, first.rows, first.continuation.unwrap(), expected));
            }
        }
        stop(system).await;
        system = start(config(folder.path(), containers(after))).await;
        ready(&system, "loads").await;
        for (scope, text, mut found, continuation, expected) in begun {
            let mut next = Some(continuation);
            let went = loop {
                let Some(continuation) = next else { break true };
                match page(&system, &scope, text, 4, Some(continuation)).await {
                    Ok(page) => {
                        found.extend(page.rows);
                        next = page.continuation;
                    }
                    Err(QueryFailed::Query(QueryError::OtherOrder)) => break false,
                    Err(error) => panic!("{text}: {error}"),
                }
            };
            if went {
                assert_eq!(found, expected, "{text}");
                went_on += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(refused > 5 && went_on > 20, "{refused} refused, {went_on} went on");
    stop(system).await;
}

async fn ready(system: &System, name: &str) {
    let container = system.directory().catalog().get(name).unwrap().clone();
    eventually("indexes are ready", || {
        let ready = |shard: &lanekeeper_actors::shard::ShardHandle| {
            let states = system.directory().indexes();
            container.indexes.iter().all(|index| states.is_ready(shard.id(), &container.name, index.id()))
        };
        system.shards().iter().all(ready)
    })
    .await;
}
