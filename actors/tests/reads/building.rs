//! An index is used when it holds everything, and not a moment before; queries are right all the time.

use std::path::Path;

use lanekeeper_actors::system::System;
use serde_json::{Value, json};

use crate::scene::{
    access, config, container, delete, indexes, page, pages, put, rows, scope, start, transact, upsert,
};
use crate::support::{cut, eventually, stop};

const BY_N: &str = "SELECT VALUE c.id FROM c WHERE c.n >= 10 AND c.n < 20";
const ORDERED: &str = "SELECT VALUE c.id FROM c ORDER BY c.n, c.id";

async fn begin(folder: &Path, all: &[&[&str]]) -> System {
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(all);
    start(config(folder, [loads])).await
}

fn numbered(lane: &str, n: usize, value: usize) -> Value {
    json!({"id": format!("{lane}{n:04}"), "lane": lane, "n": value})
}

async fn built(system: &System) {
    let container = system.directory().catalog().get("loads").unwrap().clone();
    eventually("the index is ready", || {
        let states = system.directory().indexes();
        let ready = |shard: &lanekeeper_actors::shard::ShardHandle| {
            container.indexes.iter().all(|index| states.is_ready(shard.id(), &container.name, index.id()))
        };
        system.shards().iter().all(ready)
    })
    .await;
}

/// What must be there, by lane and number.
type Model = std::collections::BTreeMap<(&'static str, usize), usize>;

async fn check(system: &System, model: &Model) {
    for lane in ["x", "y"] {
        let own = || model.iter().filter(|((of, _), _)| *of == lane);
        let mut expected: Vec<_> = own().filter(|(_, value)| (10..20).contains(*value)).collect();
        expected.sort_by_key(|((_, n), value)| (**value, *n));
        let name = |((lane, n), _): &(&(&str, usize), &usize)| json!(format!("{lane}{n:04}"));
        let mut found = rows(system, &scope("loads", &[lane]), BY_N).await;
        found.sort_unstable_by_key(Value::to_string);
        let mut unordered: Vec<Value> = expected.iter().map(name).collect();
        unordered.sort_unstable_by_key(Value::to_string);
        assert_eq!(found, unordered);
        let mut all: Vec<_> = own().collect();
        all.sort_by_key(|((_, n), value)| (**value, *n));
        let all: Vec<Value> = all.iter().map(name).collect();
        assert_eq!(rows(system, &scope("loads", &[lane]), ORDERED).await, all);
    }
}

async fn set(system: &System, model: &mut Model, lane: &'static str, n: usize, value: Option<usize>) {
    let write = match value {
        Some(value) => upsert(&numbered(lane, n, value)),
        None => delete(&format!("{lane}{n:04}")),
    };
    transact(system, &scope("loads", &[lane]), vec![write]).await;
    match value {
        Some(value) => model.insert((lane, n), value),
        None => model.remove(&(lane, n)),
    };
}

#[actix::test]
async fn an_index_over_documents_that_were_there_before_is_built_while_queries_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let system = begin(folder.path(), &[]).await;
    for lane in ["x", "y"] {
        let documents: Vec<Value> = (0..700).map(|n| numbered(lane, n, n * 13 % 50)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
        model.extend((0..700).map(|n| ((lane, n), n * 13 % 50)));
    }
    check(&system, &model).await;
    stop(system).await;

    let system = begin(folder.path(), &[&["n"], &["n", "id"]]).await;
    let mut random = fastrand::Rng::with_seed(5);
    let mut scans = 0;
    for _ in 0..60 {
        scans += usize::from(access(&system, &scope("loads", &["x"]), BY_N).await == "scan");
        let lane = ["x", "y"][random.usize(..2)];
        let n = random.usize(..700);
        let value = random.bool().then(|| random.usize(..50));
        if value.is_some() || model.contains_key(&(lane, n)) {
            set(&system, &mut model, lane, n, value).await;
        }
        if random.u8(..4) == 0 {
            check(&system, &model).await;
        }
    }
    assert!(scans > 0, "the index was ready at once");
    built(&system).await;
    assert_eq!(access(&system, &scope("loads", &["x"]), BY_N).await, "index");
    assert_eq!(access(&system, &scope("loads", &[]), BY_N).await, "index");
    check(&system, &model).await;
    for shard in system.shards() {
        shard.view().unwrap().verify(&mut |problem| panic!("{problem}")).unwrap();
    }
    stop(system).await;

    // It stays ready.
    let system = begin(folder.path(), &[&["n"], &["n", "id"]]).await;
    assert_eq!(access(&system, &scope("loads", &["x"]), BY_N).await, "index");
    check(&system, &model).await;
    stop(system).await;
}

#[actix::test]
async fn an_index_that_was_away_is_built_anew_whatever_happened_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new();
    let system = begin(folder.path(), &[&["n"]]).await;
    assert_eq!(access(&system, &scope("loads", &["x"]), BY_N).await, "index", "an empty container is ready");
    for n in 0..300 {
        for lane in ["x", "y"] {
            model.insert((lane, n), n % 50);
        }
    }
    for lane in ["x", "y"] {
        let documents: Vec<Value> = (0..300).map(|n| numbered(lane, n, n % 50)).collect();
        put(&system, &scope("loads", &[lane]), &documents).await;
    }
    let noted = || {
        system
            .shards()
            .iter()
            .all(|shard| !lanekeeper_actors::directory::ready_rows(shard).unwrap().is_empty())
    };
    eventually("readiness is noted", noted).await;
    stop(system).await;

    for round in 0..3 {
        // Without the index and without upkeep.
        let mut config = config(folder.path(), [container("loads", &["lane"])]);
        config.upkeep = None;
        let system = start(config).await;
        for n in (0..300).step_by(7) {
            set(&system, &mut model, "x", n, Some((n + round * 11) % 50)).await;
            if model.contains_key(&("y", n)) {
                set(&system, &mut model, "y", n, (round < 2).then_some((n + 17) % 50)).await;
            }
        }
        if round == 1 {
            cut(system).await
        } else {
            stop(system).await
        };
        let system = begin(folder.path(), &[&["n"]]).await;
        check(&system, &model).await;
        built(&system).await;
        check(&system, &model).await;
        assert_eq!(access(&system, &scope("loads", &["x"]), BY_N).await, "index");
        stop(system).await;
    }
}

#[actix::test]
async fn values_too_long_for_an_index_are_found_and_ordered_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["s"], &["k", "s"]]);
    let system = start(config(folder.path(), [loads])).await;
    let lane = scope("loads", &["x"]);
    let long = |tail: &str| format!("{}{tail}", "m".repeat(1_500));
    let texts = [long("c"), "n".into(), long("a"), "a".into(), long("b"), long(""), "m".into()];
    let text = "SELECT VALUE c.id FROM c ORDER BY c.s";
    let mut documents: Vec<Value> = Vec::new();
    for (n, s) in texts.iter().enumerate() {
        documents.push(json!({"id": format!("d{n}"), "lane": "x", "s": s, "k": n % 2}));
        put(&system, &lane, &documents[n..]).await;
        let mut expected = documents.clone();
        expected.sort_by(|a, b| a["s"].as_str().cmp(&b["s"].as_str()));
        let ids = |of: &[Value]| of.iter().map(|found| found["id"].clone()).collect::<Vec<_>>();
        // At once, in pages, and downwards.
        assert_eq!(rows(&system, &lane, text).await, ids(&expected));
        assert_eq!(pages(&system, &lane, text, 2).await.0, ids(&expected));
        expected.reverse();
        assert_eq!(rows(&system, &lane, &format!("{text} DESC")).await, ids(&expected));
        for s in &texts[..=n] {
            let one = format!("SELECT VALUE c.s FROM c WHERE c.s = {}", json!(s));
            assert_eq!(rows(&system, &lane, &one).await, [json!(s)]);
        }
        for (operator, bound) in [(">", long("b")), ("<=", long("a")), (">=", long("")), ("<", long("zz"))] {
            let range = format!("SELECT VALUE c.s FROM c WHERE c.s {operator} {} ORDER BY c.s", json!(bound));
            let mut expected: Vec<&String> = texts[..=n]
                .iter()
                .filter(|s| match operator {
                    ">" => **s > bound,
                    ">=" => **s >= bound,
                    "<" => **s < bound,
                    _ => **s <= bound,
                })
                .collect();
            expected.sort_unstable();
            let expected: Vec<Value> = expected.into_iter().map(|s| json!(s)).collect();
            assert_eq!(rows(&system, &lane, &range).await, expected);
        }
        let begins = format!("SELECT VALUE COUNT(1) FROM c WHERE STARTSWITH(c.s, {})", json!(long("")));
        let count = texts[..=n].iter().filter(|s| s.len() >= 1_500).count();
        assert_eq!(rows(&system, &lane, &begins).await, [json!(count)]);
    }
    let plan = page(&system, &lane, text, 1, None).await.unwrap().plan.unwrap();
    assert_eq!((&plan["access"], &plan["ordered"]), (&json!("index"), &json!(false)));
    stop(system).await;
}

#[actix::test]
async fn a_document_of_the_deepest_nesting_is_found_with_an_index_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let deep = (0..127).fold(json!(1), |inside, _| json!([inside]));
    let document = |id: &str, n: u32| json!({"id": id, "lane": "x", "n": n, "deep": deep});
    let scope = scope("loads", &["x"]);
    let system = begin(folder.path(), &[]).await;
    put(&system, &scope, &[document("a", 11)]).await;
    assert_eq!(rows(&system, &scope, BY_N).await, [json!("a")]);
    stop(system).await;
    let system = begin(folder.path(), &[&["n"], &["deep"]]).await;
    built(&system).await;
    put(&system, &scope, &[document("b", 12)]).await;
    transact(&system, &scope, vec![upsert(&document("a", 13))]).await;
    assert_ne!(access(&system, &scope, BY_N).await, "scan");
    assert_eq!(rows(&system, &scope, BY_N).await, [json!("b"), json!("a")]);
    let whole = rows(&system, &scope, "SELECT VALUE c.deep FROM c WHERE c.n = 13").await;
    assert_eq!(whole, [deep]);
    stop(system).await;
}
