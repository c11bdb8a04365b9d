//! Values: what expressions, sources, groups and orders give.

use serde_json::{Value, json};

use super::{all, bound, run};

/// The value of an expression without a document; `None` when it is undefined.
fn value(expr: &str) -> Option<Value> {
    let mut rows = run(&format!("SELECT VALUE {expr}"), &[]);
    assert!(rows.len() <= 1, "{expr}");
    rows.pop()
}

fn values(table: &[(&str, Option<Value>)]) {
    for (expr, wanted) in table {
        assert_eq!(value(expr), *wanted, "{expr}");
    }
}

#[test]
fn literals_are_json_with_more_quotes() {
    values(&[
        ("1", Some(json!(1))),
        ("-9223372036854775808", Some(json!(i64::MIN))),
        ("18446744073709551615", Some(json!(u64::MAX))),
        (".5", Some(json!(0.5))),
        ("1e3", Some(json!(1000.0))),
        ("'it\\'s'", Some(json!("it's"))),
        (r#""tab\tA😀""#, Some(json!("tab\tA😀"))),
        (r#"'\ud83d'"#, Some(json!("\u{fffd}"))),
        ("TRUE", Some(json!(true))),
        ("Null", Some(json!(null))),
        ("undefined", None),
        ("NaN", None),
        ("ToString(Infinity)", Some(json!("Infinity"))),
        ("[1, undefined, 'a']", Some(json!([1, "a"]))),
        ("{a: 1, 'b c': undefined, value: [2]}", Some(json!({"a": 1, "value": [2]}))),
        ("{a: {b: [5, 6]}}.a['b'][1]", Some(json!(6))),
        ("[1][5]", None),
        ("{a: 1}[0]", None),
        ("[1]['a']", None),
        ("1 -- a comment\n + 1", Some(json!(2))),
    ]);
}

#[test]
fn undefined_is_neither_true_nor_false() {
    values(&[
        ("false AND undefined", Some(json!(false))),
        ("undefined AND false", Some(json!(false))),
        ("true AND undefined", None),
        ("1 AND true", None),
        ("1 AND false", Some(json!(false))),
        ("1 OR true", Some(json!(true))),
        ("undefined OR true", Some(json!(true))),
        ("undefined OR false", None),
        ("NOT undefined", None),
        ("NOT 1", None),
        ("NOT false", Some(json!(true))),
        ("NOT 1 = 2", Some(json!(true))),
        ("NOT NOT true", Some(json!(true))),
        ("undefined = undefined", None),
        ("undefined != 1", None),
        ("undefined < 1", None),
        ("undefined + 1", None),
        ("undefined ?? 5", Some(json!(5))),
        ("null ?? 5", Some(json!(null))),
        ("undefined ?? undefined ?? 6", Some(json!(6))),
        ("true ? 1 : 2", Some(json!(1))),
        ("'x' ? 1 : 2", Some(json!(2))),
        ("false ? 1 : true ? 2 : 3", Some(json!(2))),
        ("undefined ? 1 : 2", Some(json!(2))),
        ("IS_DEFINED(undefined)", Some(json!(false))),
    ]);
}

#[test]
fn types_compare_as_the_service_does() {
    values(&[
        ("1 = 1.0", Some(json!(true))),
        ("1 = '1'", Some(json!(false))),
        ("1 != null", Some(json!(true))),
        ("5 <> 5", Some(json!(false))),
        ("null = null", Some(json!(true))),
        ("{a: 1, b: [2]} = {b: [2.0], a: 1}", Some(json!(true))),
        ("[1, 2] = [2, 1]", Some(json!(false))),
        ("'a' < 'b'", Some(json!(true))),
        ("'B' < 'a'", Some(json!(true))),
        ("2 < 10", Some(json!(true))),
        ("2 < '10'", None),
        ("false < true", None),
        ("null <= null", None),
        ("[1] < [2]", None),
        ("3 BETWEEN 1 AND 3", Some(json!(true))),
        ("3 NOT BETWEEN 1 AND 2", Some(json!(true))),
        ("'b' BETWEEN 'a' AND 'c' AND true", Some(json!(true))),
        ("3 BETWEEN 'a' AND 5", None),
        ("9 BETWEEN 'a' AND 5", Some(json!(false))),
        ("2 IN (1, 2)", Some(json!(true))),
        ("2 IN (1, '2')", Some(json!(false))),
        ("{a: 1} IN ({a: 1.0})", Some(json!(true))),
        ("2 IN (1, undefined)", None),
        ("2 IN (2, undefined)", Some(json!(true))),
        ("undefined IN (1)", None),
        ("2 NOT IN (1, 3)", Some(json!(true))),
    ]);
}

#[test]
fn arithmetic_is_on_doubles_and_bits_are_on_whole_numbers() {
    values(&[
        ("1 + 2 * 3 - 4", Some(json!(3))),
        ("(1 + 2) * 3", Some(json!(9))),
        ("7 / 2", Some(json!(3.5))),
        ("6 / 2", Some(json!(3))),
        ("1 / 0", None),
        ("7 % 4", Some(json!(3))),
        ("-7 % 4", Some(json!(-3))),
        ("-(3)", Some(json!(-3))),
        ("+'a'", None),
        ("'a' + 'b'", None),
        ("true + 1", None),
        ("'a' || 'b' || 'c'", Some(json!("abc"))),
        ("'a' || 1", None),
        ("6 & 3", Some(json!(2))),
        ("6 | 3", Some(json!(7))),
        ("6 ^ 3", Some(json!(5))),
        ("~5", Some(json!(-6))),
        ("1 << 4", Some(json!(16))),
        ("-8 >> 1", Some(json!(-4))),
        ("-1 >>> 28", Some(json!(15))),
        ("1 << 31", Some(json!(-2_147_483_648_i64))),
        ("4294967296 << 1", Some(json!(8_589_934_592_i64))),
        ("1.5 & 1", None),
        ("5 & 4 = 4", Some(json!(true))),
        ("10 - 3 - 2", Some(json!(5))),
    ]);
}

#[test]
fn like_fits_whole_strings() {
    values(&[
        ("'hello' LIKE 'h%o'", Some(json!(true))),
        ("'hello' LIKE 'H%'", Some(json!(false))),
        ("'hello' NOT LIKE '_ello'", Some(json!(false))),
        ("'10%' LIKE '10!%' ESCAPE '!'", Some(json!(true))),
        ("'100' LIKE '10!%' ESCAPE '!'", Some(json!(false))),
        ("'a' || 'b' LIKE 'a' || '%'", Some(json!(true))),
        ("5 LIKE '5'", None),
        ("5 NOT LIKE '5'", None),
    ]);
}

#[test]
fn only_true_keeps_a_row() {
    let documents = [json!({"id": "a", "x": 1}), json!({"id": "b"}), json!({"id": "c", "x": null})];
    for (condition, wanted) in [
        ("c.x = 1", vec!["a"]),
        ("c.x != 1", vec!["c"]),
        ("c.x != null", vec!["a"]),
        ("NOT (c.x = 1)", vec!["c"]),
        ("c.x", vec![]),
        ("1", vec![]),
        ("true", vec!["a", "b", "c"]),
        ("NOT IS_DEFINED(c.x)", vec!["b"]),
        ("c['x'] = null", vec!["c"]),
        ("c.x > 0 OR c.id = 'b'", vec!["a", "b"]),
    ] {
        let rows = run(&format!("SELECT VALUE c.id FROM c WHERE {condition}"), &documents);
        assert_eq!(rows, wanted, "{condition}");
    }
}

#[test]
fn projections_have_names() {
    let documents = [json!({"a": {"b": 1}, "list": [7], "order": 3})];
    for (text, wanted) in [
        (
            "SELECT c.a.b, 1, c.list[0], 2 AS two, c['order'] FROM c",
            json!({"b": 1, "$1": 1, "$2": 7, "two": 2, "order": 3}),
        ),
        ("SELECT c.missing FROM c", json!({})),
        ("SELECT c.a FROM c", json!({"a": {"b": 1}})),
        ("SELECT x.list[0] n FROM anything AS x", json!({"n": 7})),
        ("SELECT * FROM c.a", json!({"b": 1})),
        ("SELECT a FROM c.a", json!({"a": {"b": 1}})),
        ("SELECT {x: c.order} FROM c", json!({"$1": {"x": 3}})),
        ("SELECT VALUE c.a.b + c.order FROM c", json!(4)),
        ("SELECT c.order AS value FROM root c", json!({"value": 3})),
    ] {
        assert_eq!(run(text, &documents), [wanted], "{text}");
    }
    assert!(run("SELECT VALUE c.missing FROM c", &documents).is_empty());
}

#[test]
fn a_parameter_may_stand_wherever_a_value_may() {
    let documents = [json!({"id": "a", "n": 1}), json!({"id": "b", "n": 2}), json!({"id": "c", "n": 3})];
    let parameters = [
        ("@n", json!(2)),
        ("field", json!("n")),
        ("list", json!(["a", "c"])),
        ("prefix", json!("b%")),
        ("unused", json!(1)),
    ];
    for (text, wanted) in [
        ("SELECT VALUE c.id FROM c WHERE c.n >= @n", json!(["b", "c"])),
        ("SELECT c[@field] FROM c WHERE c.id = 'a'", json!([{"n": 1}])),
        ("SELECT TOP @n VALUE c.id FROM c", json!(["a", "b"])),
        ("SELECT VALUE c.id FROM c OFFSET 1 LIMIT @n", json!(["b", "c"])),
        ("SELECT VALUE c.id FROM c WHERE ARRAY_CONTAINS(@list, c.id)", json!(["a", "c"])),
        ("SELECT VALUE c.id FROM c WHERE c.id IN (@list[0], 'b')", json!(["a", "b"])),
        ("SELECT VALUE c.id FROM c WHERE c.id LIKE @prefix", json!(["b"])),
        ("SELECT VALUE (SELECT VALUE @n) FROM c WHERE c.n = -@n + 3", json!([2])),
    ] {
        assert_eq!(Value::Array(all(&bound(text, &parameters), &documents)), wanted, "{text}");
    }
}

#[test]
fn joins_are_cross_products_within_a_document() {
    let documents = [
        json!({"id": "a", "tags": ["x", "y"], "sizes": [1, 2]}),
        json!({"id": "b", "tags": [], "sizes": [1]}),
        json!({"id": "c", "tags": ["z"], "sizes": 5}),
    ];
    for (text, wanted) in [
        (
            "SELECT c.id, t FROM c JOIN t IN c.tags",
            json!([{"id": "a", "t": "x"}, {"id": "a", "t": "y"}, {"id": "c", "t": "z"}]),
        ),
        (
            "SELECT VALUE t || ToString(s) FROM c JOIN t IN c.tags JOIN s IN c.sizes",
            json!(["x1", "x2", "y1", "y2"]),
        ),
        ("SELECT VALUE t FROM t IN c.tags", json!(["x", "y", "z"])),
        ("SELECT * FROM t IN c.tags WHERE t > 'x'", json!(["y", "z"])),
        ("SELECT VALUE s FROM c JOIN s IN (SELECT VALUE s FROM s IN c.sizes WHERE s > 1)", json!([])),
        ("SELECT VALUE s FROM c JOIN (SELECT VALUE s FROM s IN c.sizes WHERE s > 1) s", json!([2])),
        ("SELECT VALUE s FROM c JOIN s IN (SELECT VALUE c.sizes)", json!([1, 2, 1])),
        ("SELECT VALUE s FROM c JOIN c.sizes s WHERE c.id = 'c'", json!([5])),
        ("SELECT VALUE x.id FROM (SELECT c.id, c.sizes FROM c WHERE c.id != 'a') AS x", json!(["b", "c"])),
    ] {
        assert_eq!(Value::Array(run(text, &documents)), wanted, "{text}");
    }
}

#[test]
fn subqueries_see_what_is_around_them() {
    let documents =
        [json!({"id": "a", "n": 2, "list": [3, 1, 2, 3]}), json!({"id": "b", "n": 9, "list": []})];
    for (expr, wanted) in [
        ("(SELECT VALUE COUNT(1) FROM x IN c.list)", json!([4, 0])),
        ("(SELECT VALUE MAX(x) FROM x IN c.list)", json!([3])),
        ("ARRAY(SELECT VALUE x * c.n FROM x IN c.list WHERE x > 1)", json!([[6, 4, 6], []])),
        ("ARRAY(SELECT DISTINCT VALUE x FROM x IN c.list)", json!([[3, 1, 2], []])),
        ("ARRAY(SELECT VALUE x FROM x IN c.list ORDER BY x DESC OFFSET 1 LIMIT 2)", json!([[3, 2], []])),
        (
            "ARRAY(SELECT x, COUNT(1) AS n FROM x IN c.list GROUP BY x)",
            json!([[{"x": 1, "n": 1}, {"x": 2, "n": 1}, {"x": 3, "n": 2}], []]),
        ),
        ("EXISTS(SELECT VALUE x FROM x IN c.list WHERE x = c.n)", json!([true, false])),
        ("EXISTS(SELECT VALUE undefined)", json!([false, false])),
        ("ALL(SELECT VALUE x < 3 FROM x IN c.list)", json!([false, true])),
        ("FIRST(SELECT VALUE x FROM x IN c.list)", json!([3])),
        ("LAST(SELECT VALUE x FROM x IN c.list ORDER BY x)", json!([3])),
        ("(SELECT VALUE (SELECT VALUE c.n + x FROM x IN c.list WHERE x = 1))", json!([3])),
        ("(SELECT TOP 1 VALUE x FROM x IN root.list)", json!([3])),
    ] {
        let text = format!("SELECT VALUE {expr} FROM c");
        assert_eq!(Value::Array(run(&text, &documents)), wanted, "{text}");
    }
}

#[test]
fn aggregates_pass_over_what_is_not_there() {
    let documents = [json!({"n": 1, "m": "x"}), json!({"n": 3.5, "m": 2}), json!({"k": true, "m": null})];
    for (text, wanted) in [
        ("SELECT COUNT(1) FROM c", json!([{"$1": 3}])),
        ("SELECT VALUE COUNT(c.n) FROM c", json!([2])),
        ("SELECT VALUE COUNTIF(c.n > 2) FROM c", json!([1])),
        ("SELECT VALUE SUM(c.n) FROM c", json!([4.5])),
        ("SELECT VALUE AVG(c.n) FROM c", json!([2.25])),
        ("SELECT VALUE SUM(c.m) FROM c", json!([])),
        (
            "SELECT AVG(c.m) AS a, MIN(c.m) AS low, MAX(c.m) AS high FROM c",
            json!([{"low": null, "high": "x"}]),
        ),
        ("SELECT VALUE {n: COUNT(1), twice: SUM(c.n) * 2 + MIN(c.n)} FROM c", json!([{"n": 3, "twice": 10}])),
        ("SELECT VALUE [COUNT(1), SUM(c.n), AVG(c.n), MIN(c.n)] FROM c WHERE false", json!([[0, 0]])),
        ("SELECT VALUE MAX(c.n) FROM c WHERE false", json!([])),
        (
            "SELECT VALUE {countScalar: COUNT(1), countExpression: COUNT(2 + 3)}",
            json!([{"countScalar": 1, "countExpression": 1}]),
        ),
        ("SELECT TOP 0 COUNT(1) FROM c", json!([])),
    ] {
        assert_eq!(Value::Array(run(text, &documents)), wanted, "{text}");
    }
}

#[test]
fn groups_have_keys_of_any_type() {
    let documents = [
        json!({"city": "B", "n": 1, "o": {"x": 1, "y": 2}}),
        json!({"city": "A", "n": 2, "o": {"y": 2, "x": 1.0}}),
        json!({"city": "B", "n": 3}),
        json!({"n": 4}),
        json!({"city": null, "n": 5}),
    ];
    for (text, wanted) in [
        (
            "SELECT c.city, COUNT(1) AS k, SUM(c.n) AS s FROM c GROUP BY c.city",
            json!([{"city": "A", "k": 1, "s": 2}, {"city": "B", "k": 2, "s": 4}, {"city": null, "k": 1, "s": 5}, {"k": 1, "s": 4}]),
        ),
        ("SELECT VALUE COUNT(1) FROM c GROUP BY c.o", json!([3, 2])),
        ("SELECT VALUE LOWER(c.city) || '!' FROM c GROUP BY LOWER(c.city)", json!(["a!", "b!"])),
        (
            "SELECT c.city FROM c GROUP BY c.city ORDER BY c.city DESC",
            json!([{"city": "B"}, {"city": "A"}, {"city": null}, {}]),
        ),
        (
            "SELECT c.city, COUNT(1) AS n FROM c WHERE IS_DEFINED(c.city) GROUP BY c.city ORDER BY COUNT(1) DESC, c.city",
            json!([{"city": "B", "n": 2}, {"city": null, "n": 1}, {"city": "A", "n": 1}]),
        ),
        (
            "SELECT c.city, COUNT(1) AS n FROM c GROUP BY c.city ORDER BY n DESC OFFSET 0 LIMIT 1",
            json!([{"city": "B", "n": 2}]),
        ),
        ("SELECT DISTINCT VALUE COUNT(1) FROM c GROUP BY c.city", json!([1, 2])),
        ("SELECT VALUE 1 FROM c WHERE false GROUP BY c.city", json!([])),
    ] {
        assert_eq!(Value::Array(run(text, &documents)), wanted, "{text}");
    }
}

#[test]
fn distinct_is_deep() {
    let documents = [
        json!({"v": {"a": 1, "b": 2}}),
        json!({"v": {"b": 2.0, "a": 1}}),
        json!({"v": [1, 2]}),
        json!({"v": [2, 1]}),
        json!({}),
        json!({"w": 1}),
    ];
    assert_eq!(run("SELECT DISTINCT VALUE c.v FROM c", &documents).len(), 3);
    assert_eq!(run("SELECT DISTINCT c.v FROM c", &documents).len(), 4);
    assert_eq!(run("SELECT DISTINCT TOP 2 c.v FROM c", &documents).len(), 2);
    let numbers = [json!({"n": 2, "m": 1}), json!({"n": 1, "m": 1}), json!({"n": 2, "m": 0})];
    assert_eq!(run("SELECT DISTINCT VALUE c.n FROM c ORDER BY c.n DESC", &numbers), [json!(2), json!(1)]);
    assert_eq!(
        run("SELECT DISTINCT c.n, c.m FROM c ORDER BY c.m, c.n", &numbers),
        [numbers[2].clone(), numbers[1].clone(), numbers[0].clone()]
    );
}

#[test]
fn order_is_by_type_and_then_by_value() {
    let sorted = [
        json!({"i": 0}),
        json!({"i": 1, "v": null}),
        json!({"i": 2, "v": false}),
        json!({"i": 3, "v": true}),
        json!({"i": 4, "v": -1}),
        json!({"i": 5, "v": 10}),
        json!({"i": 6, "v": "A"}),
        json!({"i": 7, "v": "a"}),
        json!({"i": 8, "v": [1]}),
        json!({"i": 9, "v": {"a": 1}}),
    ];
    let mut mixed = sorted.to_vec();
    mixed.rotate_left(4);
    mixed.swap(0, 3);
    let up: Vec<Value> = (0..10).map(|i| json!(i)).collect();
    let down: Vec<Value> = up.iter().rev().cloned().collect();
    assert_eq!(run("SELECT VALUE c.i FROM c ORDER BY c.v", &mixed), up);
    assert_eq!(run("SELECT VALUE c.i FROM c ORDER BY c.v ASC", &mixed), up);
    assert_eq!(run("SELECT VALUE c.i FROM c ORDER BY c.v DESC", &mixed), down);
    assert_eq!(run("SELECT TOP 3 VALUE c.i FROM c ORDER BY c.v DESC", &mixed), down[..3]);
    assert_eq!(
        run("SELECT VALUE c.i FROM c ORDER BY c.i % 2 DESC, c.i OFFSET 4 LIMIT 3", &mixed),
        [9, 0, 2].map(|i| json!(i))
    );
    assert_eq!(run("SELECT c.i AS n FROM c ORDER BY n OFFSET 9 LIMIT 5", &mixed), [json!({"n": 9})]);
}

#[test]
fn a_document_that_multiplies_without_end_is_refused() {
    let list: Vec<u32> = (0..1000).collect();
    let document = json!({"list": list});
    let bound = bound("SELECT VALUE COUNT(1) FROM c JOIN a IN c.list JOIN b IN c.list JOIN d IN c.list", &[]);
    let mut execution = super::Execution::start(bound, super::CONTEXT, super::LARGE, false, None).unwrap();
    assert_eq!(execution.offer(b"1", &document), Err(super::super::QueryError::TooManyCombinations));
}
