//! Arrays as sets: duplicates count once, and results keep the order in which elements come first.

use std::collections::HashSet;

use serde_json::Value;

use super::arguments::{Arguments, array_of};
use super::{Context, Row, row};
use crate::query::value::canonical;

pub(super) const ROWS: &[Row] = &[
    row("SetDifference", (2, 2), |a, _| keep(a, false)),
    row("SetEqual", (2, 2), set_equal),
    row("SetIntersect", (2, 2), |a, _| keep(a, true)),
    row("SetUnion", (2, 2), union),
];

/// A text that only equal values share.
pub(super) fn key(value: &Value) -> String {
    let mut out = String::new();
    canonical(Some(value), &mut out);
    out
}

/// The elements of the first array that are, or are not, in the second.
fn keep(arguments: &Arguments<'_>, inside: bool) -> Option<Value> {
    let (left, right) = (arguments.array(0)?, keys(arguments.array(1)?));
    let mut seen = HashSet::new();
    array_of(left.iter().filter(|item| {
        let key = key(item);
        right.contains(&key) == inside && seen.insert(key)
    }))
}

fn union(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (left, right) = (arguments.array(0)?, arguments.array(1)?);
    let mut seen = HashSet::new();
    array_of(left.iter().chain(right).filter(|item| seen.insert(key(item))))
}

fn set_equal(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    Some(Value::Bool(keys(arguments.array(0)?) == keys(arguments.array(1)?)))
}

fn keys(items: &[Value]) -> HashSet<String> {
    items.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn sets_keep_the_first_of_equal_elements_in_order() {
        check(&[
            ("SetIntersect", json!([[3, 1, 2, 1], [1.0, 3, 4]]), json!([3, 1])),
            ("SetIntersect", json!([[1], []]), json!([])),
            ("SetUnion", json!([[1, 2, 1], [2, "2", null]]), json!([1, 2, "2", null])),
            ("SetUnion", json!([[{"a": 1, "b": 2}], [{"b": 2, "a": 1}]]), json!([{"a": 1, "b": 2}])),
            ("SetDifference", json!([[1, 2, 2, 3], [3]]), json!([1, 2])),
            ("SetDifference", json!([[], [3]]), json!([])),
            ("SetEqual", json!([[1, 2, 2], [2, 1]]), json!(true)),
            ("SetEqual", json!([[1, 2], [1, "2"]]), json!(false)),
            ("SetEqual", json!([[], []]), json!(true)),
            ("SetUnion", json!([[1], UNDEFINED]), json!(UNDEFINED)),
            ("SetEqual", json!([[1], 1]), json!(UNDEFINED)),
        ]);
    }
}
