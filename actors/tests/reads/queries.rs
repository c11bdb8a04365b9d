//! A query gives the same rows by whatever way, in whatever pages, and only those of its scope.

use std::sync::Arc;

use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::query::{Context, End, Execution, PageLimits, Query};
use lanekeeper_actors::reader::Scope;
use lanekeeper_actors::system::System;
use serde_json::{Map, Value, json};

use crate::scene::{access, config, container, indexes, page, pages, put, rows, scope, scope_of, start};
use crate::support::{eventually, stop};

const INDEXES: [&[&str]; 6] = [&["n"], &["s"], &["k", "n"], &["o.x"], &["s", "k"], &["k", "s", "n"]];
const REGIONS: [&str; 3] = ["east", "west", "we"];
const CITIES: [&str; 3] = ["a", "ab", "b\0c"];

/// A random choice.
fn any<'a, T>(random: &mut fastrand::Rng, of: &'a [T]) -> &'a T {
    &of[random.usize(..of.len())]
}

fn scalar(random: &mut fastrand::Rng) -> Value {
    let texts = ["", "a", "ab", "abc", "abd", "b", "B", "b\u{0}", "\u{e9}", "zz"];
    match random.u8(..10) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(*any(random, &texts)),
        3 => json!(f64::from(random.i32(-10..10)) + 0.25),
        _ => json!(random.i32(-10..10)),
    }
}

fn document(random: &mut fastrand::Rng, id: String, region: &str, city: &str) -> Value {
    let texts = ["", "a", "ab", "abc", "abd", "b", "B", "b\u{0}", "\u{e9}", "zz"];
    let mut all = Map::new();
    all.insert("id".into(), json!(id));
    all.insert("region".into(), json!(region));
    all.insert("city".into(), json!(city));
    all.insert("k".into(), json!(random.u8(..5)));
    if random.u8(..6) > 0 {
        let value = match random.u8(..20) {
            0 => json!([random.u8(..3), random.u8(..3)]),
            1 => json!({"y": random.u8(..3)}),
            _ => scalar(random),
        };
        all.insert("n".into(), value);
    }
    if random.u8(..6) > 0 {
        all.insert("s".into(), json!(*any(random, &texts)));
    }
    if random.bool() {
        all.insert("o".into(), json!({"x": random.u8(..4)}));
    }
    let tags: Vec<u8> = (0..random.usize(..4)).map(|_| random.u8(..3)).collect();
    all.insert("tags".into(), json!(tags));
    Value::Object(all)
}

fn literal(random: &mut fastrand::Rng) -> String {
    scalar(random).to_string()
}

fn atom(random: &mut fastrand::Rng, ids: &[String]) -> String {
    let path = *any(random, &["c.n", "c.s", "c.k", "c.o.x", "c.n"]);
    let operator = *any(random, &["=", "<", "<=", ">", ">=", "!="]);
    match random.u8(..14) {
        0..=4 => format!("{path} {operator} {}", literal(random)),
        5 => format!("{path} IN ({}, {}, {})", literal(random), literal(random), literal(random)),
        6 => format!("STARTSWITH(c.s, {})", json!(any(random, &["a", "ab", "b", "", "\u{e9}"]))),
        7 => format!("{path} BETWEEN {} AND {}", literal(random), literal(random)),
        8 => format!("IS_DEFINED({path})"),
        9 => format!("({path} = {} OR {path} = {})", literal(random), literal(random)),
        10 => format!("c.k = {}", random.u8(..5)),
        11 => format!("c.id IN ({}, {}, 'none')", json!(any(random, ids)), json!(any(random, ids))),
        12 => format!("(c.k = {} OR c.s = 'ab')", random.u8(..5)),
        _ => format!("{path} > {} AND {path} < {}", literal(random), literal(random)),
    }
}

/// A query, the paths of its order, and whether that order leaves nothing open.
struct Asked {
    text: String,
    order: Vec<&'static str>,
    total: bool,
    cut: bool,
}

fn ask(random: &mut fastrand::Rng, ids: &[String]) -> Asked {
    let atoms: Vec<String> = (0..random.usize(..3)).map(|_| atom(random, ids)).collect();
    let filter = if atoms.is_empty() { String::new() } else { format!(" WHERE {}", atoms.join(" AND ")) };
    let plain = |text: String| Asked { text, order: Vec::new(), total: false, cut: false };
    match random.u8(..12) {
        0 => return plain(format!("SELECT DISTINCT VALUE c.s FROM c{filter}")),
        1 => return plain(format!("SELECT DISTINCT c.k, c.o FROM c{filter}")),
        2 => {
            let group = "SELECT c.k, COUNT(1) AS m, SUM(c.k) AS q, AVG(c.o.x) AS a, MIN(c.n) AS low";
            return plain(format!("{group} FROM c{filter} GROUP BY c.k"));
        }
        3 => return plain(format!("SELECT COUNT(1) AS m, MAX(c.s) AS top, SUM(c.k) AS q FROM c{filter}")),
        4 => return plain(format!("SELECT VALUE COUNT(1) FROM c{filter}")),
        5 => return plain(format!("SELECT c.id, t AS tag FROM c JOIN t IN c.tags{filter}")),
        _ => {}
    }
    let orders: [(&[&str], bool); 8] = [
        (&[], false),
        (&["n"], false),
        (&["s"], false),
        (&["n", "id"], true),
        (&["k", "n"], false),
        (&["s", "k"], false),
        (&["k", "s"], false),
        (&["id"], true),
    ];
    let (order, total) = *any(random, &orders);
    let direction = if random.bool() { " DESC" } else { "" };
    let by: Vec<String> = order.iter().map(|path| format!("c.{path}{direction}")).collect();
    let by = if by.is_empty() { String::new() } else { format!(" ORDER BY {}", by.join(", ")) };
    let (top, limit, cut) = match random.u8(..4) {
        0 if !order.is_empty() => (format!("TOP {} ", random.u8(..12)), String::new(), true),
        1 if !order.is_empty() => {
            (String::new(), format!(" OFFSET {} LIMIT {}", random.u8(..9), random.u8(1..9)), true)
        }
        _ => (String::new(), String::new(), false),
    };
    let text = format!("SELECT {top}c.id, c.n, c.s, c.k FROM c{filter}{by}{limit}");
    Asked { text, order: order.to_vec(), total, cut }
}

/// What the query gives when every document is looked at.
fn naive(text: &str, documents: &[&Value]) -> Vec<Value> {
    let bound = Arc::new(Query::parse(text).unwrap().bind(&[]).unwrap());
    let limits = PageLimits { rows: usize::MAX, bytes: usize::MAX, groups: usize::MAX, carried: usize::MAX };
    let context = Context { now: Timestamp(0), seed: 0 };
    let mut execution = Execution::start(bound, context, limits, false, None).unwrap();
    for (at, document) in documents.iter().enumerate() {
        execution.offer(&at.to_be_bytes(), document).unwrap();
    }
    execution.finish(End::Reached).unwrap().rows
}

fn sorted(rows: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = rows.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    texts
}

fn assert_same(asked: &Asked, found: &[Value], expected: &[Value]) {
    let text = &asked.text;
    if asked.total {
        assert_eq!(found, expected, "{text}");
        return;
    }
    if !asked.cut {
        assert_eq!(sorted(found), sorted(expected), "{text}");
    }
    let keys = |rows: &[Value]| -> Vec<Vec<Value>> {
        let row = |row: &Value| {
            asked.order.iter().map(|path| row.get(path).cloned().unwrap_or(json!("undefined"))).collect()
        };
        rows.iter().map(row).collect()
    };
    assert_eq!(keys(found), keys(expected), "{text}");
}

struct World {
    /// Each document with the scopes' parts that it belongs to.
    documents: Vec<(Option<&'static str>, &'static str, &'static str, Value)>,
}

impl World {
    fn make(random: &mut fastrand::Rng, tenants: &[Option<&'static str>], each: usize) -> Self {
        let mut documents = Vec::new();
        for tenant in tenants {
            for region in REGIONS {
                for city in CITIES {
                    for number in 0..each {
                        let id = format!("{}-{region}-{number}-{}", tenant.unwrap_or(""), city.len());
                        documents.push((*tenant, region, city, document(random, id, region, city)));
                    }
                }
            }
        }
        Self { documents }
    }

    async fn write(&self, system: &System, container: &str) {
        for same in self.documents.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
            let (tenant, region, city, _) = &same[0];
            let documents: Vec<Value> = same.iter().map(|(.., document)| document.clone()).collect();
            let scope = of(container, *tenant, &[region, city]);
            put(system, &scope, &documents).await;
        }
    }

    /// The documents whose key begins like this.
    fn within(&self, tenant: Option<&str>, parts: &[&str]) -> Vec<&Value> {
        let inside = |of: &&(Option<&'static str>, &'static str, &'static str, Value)| {
            of.0 == tenant && [of.1, of.2].starts_with(parts)
        };
        self.documents.iter().filter(inside).map(|(.., document)| document).collect()
    }
}

fn of(container: &str, tenant: Option<&str>, parts: &[&str]) -> Scope {
    match tenant {
        Some(tenant) => scope_of(container, tenant, parts),
        None => scope(container, parts),
    }
}

#[actix::test]
async fn every_way_to_the_documents_gives_the_same_rows() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_801);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut indexed = container("indexed", &["region", "city"]);
    indexed.indexes = indexes(&INDEXES);
    let system = start(config(folder.path(), [container("plain", &["region", "city"]), indexed])).await;
    let world = World::make(&mut random, &[None], 14);
    world.write(&system, "plain").await;
    world.write(&system, "indexed").await;
    let ids: Vec<String> =
        world.documents.iter().map(|(.., found)| found["id"].as_str().unwrap().to_owned()).collect();
    let mut by_index = 0;
    for _ in 0..400 {
        let asked = ask(&mut random, &ids);
        let (region, city) = (*any(&mut random, &REGIONS), *any(&mut random, &CITIES));
        let parts: &[&str] = match random.u8(..4) {
            0 => &[],
            1 => &[region],
            _ => &[region, city],
        };
        let expected = naive(&asked.text, &world.within(None, parts));
        for name in ["plain", "indexed"] {
            let scope = scope(name, parts);
            let whole = page(&system, &scope, &asked.text, 10_000, None).await.unwrap();
            let plan = whole.plan.unwrap();
            by_index += usize::from(plan["access"] == "index");
            assert_same(&asked, &whole.rows, &expected);
            assert_eq!(whole.continuation, None);
            let (paged, _) = pages(&system, &scope, &asked.text, random.usize(1..8)).await;
            assert_eq!(paged, whole.rows, "{} in pages: {plan}", asked.text);
        }
    }
    assert!(by_index > 100, "only {by_index} queries went by an index");
    stop(system).await;
}

#[actix::test]
async fn tenants_see_their_own_documents_only_and_a_prefix_is_its_subtree() {
    let mut random = fastrand::Rng::with_seed(7);
    let folder = tempfile::tempdir().unwrap();
    let mut apart = container("apart", &["region", "city"]);
    apart.isolated = true;
    apart.indexes = indexes(&INDEXES);
    let system = start(config(folder.path(), [apart])).await;
    // One name begins like the other.
    let owners = [Some("acme"), Some("acme2")];
    let world = World::make(&mut random, &owners, 4);
    world.write(&system, "apart").await;
    let mut scopes: Vec<Vec<&str>> = vec![vec![]];
    scopes.extend(REGIONS.iter().map(|region| vec![*region]));
    scopes.extend(REGIONS.iter().flat_map(|region| CITIES.map(|city| vec![*region, city])));
    for owner in owners {
        for parts in &scopes {
            for text in ["SELECT VALUE c.id FROM c", "SELECT VALUE c.id FROM c WHERE c.k >= 0 ORDER BY c.k"] {
                let found = rows(&system, &of("apart", owner, parts), text).await;
                assert_eq!(sorted(&found), sorted(&naive(text, &world.within(owner, parts))), "{parts:?}");
                let (paged, _) = pages(&system, &of("apart", owner, parts), text, 3).await;
                assert_eq!(paged, found);
            }
        }
    }
    // Nobody, or a part of a name, is nobody's.
    for nobody in ["acm", "acme3"] {
        let found = rows(&system, &scope_of("apart", nobody, &[]), "SELECT VALUE c.id FROM c").await;
        assert_eq!(found, Vec::<Value>::new());
    }
    for parts in [vec!["eas"], vec!["w"], vec!["west", "a", "b"]] {
        let found = rows(&system, &scope_of("apart", "acme", &parts), "SELECT VALUE c.id FROM c").await;
        assert_eq!(found, Vec::<Value>::new(), "{parts:?}");
    }
    // Without a tenant an operator sees all of them, and a key still means what it says.
    for parts in &scopes {
        let found = rows(&system, &scope("apart", parts), "SELECT VALUE c.id FROM c").await;
        let mut expected = world.within(owners[0], parts);
        expected.extend(world.within(owners[1], parts));
        assert_eq!(sorted(&found), sorted(&naive("SELECT VALUE c.id FROM c", &expected)), "{parts:?}");
    }
    stop(system).await;
}

#[actix::test]
async fn what_cannot_be_true_reads_nothing_and_what_is_not_there_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut loads = container("loads", &["lane"]);
    loads.indexes = indexes(&[&["n"]]);
    let system = start(config(folder.path(), [loads])).await;
    let lane = scope("loads", &["x"]);
    let documents: Vec<Value> = (0..9).map(|n| json!({"id": format!("d{n}"), "lane": "x", "n": n})).collect();
    put(&system, &lane, &documents).await;
    for text in [
        "SELECT VALUE c.id FROM c WHERE c.n > 5 AND c.n < 3",
        "SELECT VALUE c.id FROM c WHERE c.n > 5 AND c.n < 3 ORDER BY c.n DESC",
        "SELECT VALUE c.id FROM c WHERE c.n > 3 AND c.n < 3",
        "SELECT VALUE c.id FROM c WHERE c.n = 3 AND c.n = 4",
        "SELECT VALUE c.id FROM c WHERE c.id = ''",
        "SELECT VALUE c.id FROM c WHERE c.id = 'a/b'",
    ] {
        for scope in [lane.clone(), scope("loads", &[])] {
            assert_eq!(rows(&system, &scope, text).await, Vec::<Value>::new(), "{text}");
        }
    }
    assert_eq!(rows(&system, &lane, "SELECT VALUE c.id FROM c WHERE c.n >= 3 AND c.n <= 3").await, ["d3"]);
    assert_eq!(rows(&system, &lane, "SELECT VALUE 1").await, [1]);
    assert_eq!(access(&system, &scope("loads", &[]), "SELECT * FROM c WHERE c.id = 'd3'").await, "scan");
    eventually("all in the view", || system.shards().iter().all(|shard| shard.status().lag == 0)).await;
    assert_eq!(rows(&system, &lane, "SELECT VALUE c.id FROM c WHERE c.n > 7").await, ["d8"]);
    stop(system).await;
}
