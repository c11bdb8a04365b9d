//! Plans: which they are, and that none of them changes a result.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::value;
use super::super::{Access, BoundQuery, End, Execution, Flow, IndexDefinition, Plan, Start};
use super::{CONTEXT, all, bound};

fn index(paths: &[&str]) -> IndexDefinition {
    let path = |path: &&str| path.split('/').map(str::to_owned).collect();
    IndexDefinition { paths: paths.iter().map(path).collect() }
}

fn indexes() -> Vec<IndexDefinition> {
    vec![index(&["a"]), index(&["b"]), index(&["a", "b"]), index(&["o/x"]), index(&["a", "b", "o/x"])]
}

fn explained(text: &str, indexes: &[IndexDefinition]) -> Value {
    let mut plan = Plan::of(&bound(text, &[]), indexes).explain();
    plan.as_object_mut().unwrap().remove("filter");
    plan
}

#[test]
fn a_plan_takes_the_most_equalities_then_a_range_then_the_order() {
    let plan = |paths: &[&str], at: usize, ranges: Value, descending: bool, ordered: bool| json!({"access": "index", "index": at, "paths": paths, "ranges": ranges, "descending": descending, "ordered": ordered});
    let scan = json!({"access": "scan", "ordered": false});
    for (text, wanted) in [
        ("SELECT VALUE 1", json!({"access": "nothing", "ordered": false})),
        ("SELECT * FROM c", scan.clone()),
        ("SELECT * FROM c WHERE c.id = 'x'", json!({"access": "ids", "ids": ["x"], "ordered": false})),
        (
            "SELECT * FROM c WHERE c.id IN ('y', 'x', 'y', 1) AND c.a = 1",
            json!({"access": "ids", "ids": ["x", "y"], "ordered": false}),
        ),
        (
            "SELECT * FROM c WHERE c.id = 'x' OR 'y' = c.id",
            json!({"access": "ids", "ids": ["x", "y"], "ordered": false}),
        ),
        ("SELECT * FROM c WHERE c.id = 'x' OR c.a = 1", scan.clone()),
        (
            "SELECT * FROM c WHERE ARRAY_CONTAINS(['y', 'x'], c.id)",
            json!({"access": "ids", "ids": ["x", "y"], "ordered": false}),
        ),
        ("SELECT * FROM c WHERE c.a = 1", plan(&["/a"], 0, json!([{"equal": [1]}]), false, false)),
        (
            "SELECT * FROM c WHERE c.a = 1 ORDER BY c.b",
            plan(&["/a", "/b"], 2, json!([{"equal": [1]}]), false, true),
        ),
        (
            "SELECT * FROM c WHERE c.a = 1 ORDER BY c.a, c.b DESC",
            plan(&["/a", "/b"], 2, json!([{"equal": [1]}]), true, true),
        ),
        (
            "SELECT * FROM c WHERE 1 < c.a AND c.a <= 5 AND c.a > 0",
            plan(&["/a"], 0, json!([{">": 1, "<=": 5}]), false, false),
        ),
        (
            "SELECT * FROM c WHERE c.a BETWEEN 1 AND 5 ORDER BY c.a",
            plan(&["/a"], 0, json!([{">=": 1, "<=": 5}]), false, true),
        ),
        (
            "SELECT * FROM c WHERE c.a IN (2, 1, 2) AND c.b > 'x'",
            plan(&["/a", "/b"], 2, json!([{"equal": [1], ">": "x"}, {"equal": [2], ">": "x"}]), false, false),
        ),
        (
            "SELECT * FROM c WHERE c.a IN (2, 1) ORDER BY c.a DESC, c.b DESC",
            plan(&["/a", "/b"], 2, json!([{"equal": [2]}, {"equal": [1]}]), true, true),
        ),
        (
            "SELECT * FROM c WHERE c.a IN (2, 1) ORDER BY c.b",
            plan(&["/a"], 0, json!([{"equal": [1]}, {"equal": [2]}]), false, false),
        ),
        (
            "SELECT * FROM c WHERE STARTSWITH(c.b, 'ab')",
            plan(&["/b"], 1, json!([{"prefix": "ab"}]), false, false),
        ),
        ("SELECT * FROM c WHERE STARTSWITH(c.b, 'ab', true)", scan.clone()),
        ("SELECT * FROM c WHERE c.b LIKE 'ab%c'", plan(&["/b"], 1, json!([{"prefix": "ab"}]), false, false)),
        ("SELECT * FROM c WHERE c.b LIKE 'ab'", plan(&["/b"], 1, json!([{"equal": ["ab"]}]), false, false)),
        ("SELECT * FROM c WHERE c.b NOT LIKE 'ab%'", scan.clone()),
        ("SELECT * FROM c WHERE c.o.x", plan(&["/o/x"], 3, json!([{"equal": [true]}]), false, false)),
        (
            "SELECT * FROM c WHERE NOT c['o']['x']",
            plan(&["/o/x"], 3, json!([{"equal": [false]}]), false, false),
        ),
        ("SELECT * FROM c.o WHERE o.x = 1", plan(&["/o/x"], 3, json!([{"equal": [1]}]), false, false)),
        ("SELECT * FROM c ORDER BY c.b DESC", plan(&["/b"], 1, json!([{}]), true, true)),
        ("SELECT * FROM c ORDER BY c.a DESC, c.b", scan.clone()),
        ("SELECT * FROM c ORDER BY c.a + 1", scan.clone()),
        ("SELECT DISTINCT c.a FROM c ORDER BY c.a", scan.clone()),
        (
            "SELECT c.a, t FROM c JOIN t IN c.tags WHERE t = 1 AND c.a = 2",
            plan(&["/a"], 0, json!([{"equal": [2]}]), false, false),
        ),
        ("SELECT VALUE t FROM t IN c.tags WHERE t.a = 1", scan.clone()),
        ("SELECT * FROM c WHERE c.a = 1 AND c.a = 2", plan(&["/a"], 0, json!([]), false, false)),
        ("SELECT * FROM c WHERE c.a = [1]", scan.clone()),
        ("SELECT * FROM c WHERE c.a = c.b", scan.clone()),
        ("SELECT * FROM c WHERE c.a > null", scan.clone()),
        (
            "SELECT COUNT(1) FROM c WHERE c.a = 1 AND c.b = 'x' AND c.o.x >= 3",
            plan(&["/a", "/b", "/o/x"], 4, json!([{"equal": [1, "x"], ">=": 3}]), false, false),
        ),
    ] {
        assert_eq!(explained(text, &indexes()), wanted, "{text}");
    }
}

#[test]
fn a_plan_shows_the_condition_that_is_left() {
    let plan = Plan::of(&bound("SELECT * FROM c WHERE c.z = 1 ORDER BY c.q", &[]), &[]);
    assert_eq!(plan.to_string(), r#"{"access":"scan","ordered":false,"filter":"c.z = 1"}"#);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4).prop_map(|n| json!(n)),
        Just(json!(1.5)),
        "[ab]{0,2}".prop_map(|s| json!(s)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(json!(null)),
    ]
}

fn documents() -> impl Strategy<Value = Vec<Value>> {
    let field =
        || prop_oneof![2 => scalar().prop_map(Some), 1 => Just(None), 1 => Just(Some(json!([1, {"x": 2}])))];
    let document = (field(), field(), field()).prop_map(|(a, b, x)| {
        let mut document = json!({});
        for (name, value) in [("a", a), ("b", b)] {
            if let Some(value) = value {
                document[name] = value;
            }
        }
        if let Some(x) = x {
            document["o"] = json!({"x": x});
        }
        document
    });
    proptest::collection::vec(document, 0..40).prop_map(|mut documents| {
        for (id, document) in documents.iter_mut().enumerate() {
            document["id"] = json!(format!("{id:02}"));
        }
        documents
    })
}

fn condition() -> impl Strategy<Value = String> {
    let path = prop::sample::select(&["c.a", "c.b", "c.o.x"][..]);
    let operator = prop::sample::select(&["=", "!=", "<", "<=", ">", ">="][..]);
    let literal = || scalar().prop_map(|value| value.to_string());
    let id = (0..50).prop_map(|id| format!("'{id:02}'"));
    prop_oneof![
        4 => (path.clone(), operator.clone(), literal()).prop_map(|(p, o, l)| format!("{p} {o} {l}")),
        1 => (path.clone(), operator, literal()).prop_map(|(p, o, l)| format!("{l} {o} {p}")),
        1 => (path.clone(), literal(), literal()).prop_map(|(p, a, b)| format!("{p} BETWEEN {a} AND {b}")),
        2 => (path.clone(), literal(), literal(), literal()).prop_map(|(p, a, b, c)| format!("{p} IN ({a}, {b}, {c})")),
        1 => (path.clone(), literal(), literal()).prop_map(|(p, a, b)| format!("({p} = {a} OR {b} = {p})")),
        1 => (path.clone(), literal(), literal()).prop_map(|(p, a, b)| format!("ARRAY_CONTAINS([{a}, {b}], {p})")),
        1 => (path.clone(), "[ab]{0,2}").prop_map(|(p, s)| format!("STARTSWITH({p}, '{s}')")),
        1 => (path.clone(), "[ab%_]{0,3}").prop_map(|(p, s)| format!("{p} LIKE '{s}'")),
        1 => path.clone().prop_map(|p| format!("NOT {p}")),
        1 => path.prop_map(str::to_owned),
        1 => (id.clone(), id).prop_map(|(a, b)| format!("c.id IN ({a}, {b})")),
    ]
}

const ORDERS: &[&str] = &[
    "",
    "c.a",
    "c.a DESC",
    "c.b",
    "c.a, c.b",
    "c.a DESC, c.b DESC",
    "c.a, c.b DESC",
    "c.b, c.o.x",
    "c.a, c.b, c.o.x",
    "c.o.x DESC",
];

/// The documents as a source gives them that follows the plan.
fn source(plan: &Plan, indexes: &[IndexDefinition], documents: &[Value]) -> Vec<Value> {
    let components = |document: &'_ Value, at: usize| -> Vec<Option<Value>> {
        let paths = indexes[at].paths.iter();
        paths.map(|path| path.iter().try_fold(document, |value, name| value.get(name)).cloned()).collect()
    };
    match &plan.access {
        Access::Nothing => Vec::new(),
        Access::Scan => documents.to_vec(),
        Access::Ids(ids) => {
            documents.iter().filter(|document| ids.iter().any(|id| document["id"] == **id)).cloned().collect()
        }
        Access::Index { index, ranges, descending } => {
            let mut entries: Vec<(Vec<Option<Value>>, &Value)> =
                documents.iter().map(|document| (components(document, *index), document)).collect();
            entries.sort_by(|(left, _), (right, _)| {
                let pairs = left.iter().zip(right).map(|(a, b)| value::order(a.as_ref(), b.as_ref()));
                pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
            });
            if *descending {
                entries.reverse();
            }
            let mut found = Vec::new();
            for range in ranges {
                let held = entries.iter().filter(|(components, _)| {
                    range.holds(&components.iter().map(Option::as_ref).collect::<Vec<_>>())
                });
                found.extend(held.map(|(_, document)| (*document).clone()));
            }
            let ids: std::collections::BTreeSet<String> = found.iter().map(|d| d["id"].to_string()).collect();
            assert_eq!(ids.len(), found.len(), "ranges overlap: {plan}");
            found
        }
    }
}

fn executed(bound: &Arc<BoundQuery>, plan: &Plan, source: &[Value], rows: usize) -> Vec<Value> {
    let (mut found, mut resume) = (Vec::new(), None);
    loop {
        let page = super::super::PageLimits { rows, ..super::LARGE };
        let mut execution =
            Execution::start(Arc::clone(bound), CONTEXT, page, plan.ordered, resume.as_ref()).unwrap();
        let position = |at: &[u8]| at[0] as usize;
        let first = match execution.resume_after() {
            Start::Beginning => 0,
            Start::At(at) => position(at),
            Start::After(at) => position(at) + 1,
        };
        let is_full =
            (first..source.len()).any(|at| execution.offer(&[at as u8], &source[at]).unwrap() == Flow::Full);
        let page = execution.finish(if is_full { End::Cut } else { End::Reached }).unwrap();
        found.extend(page.rows);
        resume = page.resume;
        if resume.is_none() {
            return found;
        }
    }
}

fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_plan_never_changes_a_result(
        documents in documents(),
        conditions in proptest::collection::vec(condition(), 0..4),
        order in prop::sample::select(ORDERS),
        picked in proptest::collection::vec(any::<bool>(), 5),
        rows in 1_usize..20,
    ) {
        let mut text = "SELECT c.id, c.a, c.b, c.o.x FROM c".to_owned();
        if !conditions.is_empty() {
            text = format!("{text} WHERE {}", conditions.join(" AND "));
        }
        if !order.is_empty() {
            text = format!("{text} ORDER BY {order}");
        }
        let indexes: Vec<_> =
            indexes().into_iter().zip(picked).filter(|(_, picked)| *picked).map(|(index, _)| index).collect();
        let bound = bound(&text, &[]);
        let plan = Plan::of(&bound, &indexes);
        let found = executed(&bound, &plan, &source(&plan, &indexes, &documents), rows);
        let wanted = all(&bound, &documents);
        prop_assert_eq!(sorted(&found), sorted(&wanted), "{} {}", text, plan);
        // Rows that ORDER BY does not tell apart may come in any order among themselves.
        let keys = |rows: &[Value]| -> Vec<Value> {
            let key = |row: &Value| -> Value {
                let paths = order.split(", ").filter_map(|item| item.trim_end_matches(" DESC").rsplit('.').next());
                paths.map(|name| row.get(name).cloned().unwrap_or(json!("undefined"))).collect()
            };
            rows.iter().map(key).collect()
        };
        prop_assert_eq!(keys(&found), keys(&wanted), "{} {}", text, plan);
    }
}
