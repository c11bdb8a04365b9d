//! Functions of arrays.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value;

use super::arguments::{Arguments, array_of, count, index};
use super::sets::key;
use super::{Context, MANY, Row, row};
use crate::query::value::{equal, from_number, number, order};

/// From so many values on, looking them up costs less than comparing each with each.
const LOOK_UP: usize = 8;

pub(super) const ROWS: &[Row] = &[
    row("ARRAY_AVG", (1, 1), |a, _| of_numbers(a, average)),
    row("ARRAY_CONCAT", (2, MANY), concat),
    row("ARRAY_CONTAINS", (2, 3), contains),
    row("ARRAY_CONTAINS_ALL", (2, MANY), contains_all),
    row("ARRAY_CONTAINS_ANY", (2, MANY), contains_any),
    row("ARRAY_LENGTH", (1, 1), |a, _| count(a.array(0)?.len())),
    row("ARRAY_MAX", (1, 1), |a, _| furthest(a, Ordering::Greater)),
    row("ARRAY_MEDIAN", (1, 1), |a, _| of_numbers(a, median)),
    row("ARRAY_MIN", (1, 1), |a, _| furthest(a, Ordering::Less)),
    row("ARRAY_SLICE", (2, 3), slice),
    row("ARRAY_SUM", (1, 1), |a, _| of_numbers(a, |numbers| Some(numbers.iter().sum()))),
];

fn concat(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let arrays: Option<Vec<_>> =
        arguments.from(0).iter().map(|argument| argument.and_then(Value::as_array)).collect();
    array_of(arrays?.into_iter().flatten())
}

fn contains(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (items, wanted, partial) = (arguments.array(0)?, arguments.value(1)?, arguments.switch(2)?);
    let fits = |item: &Value| equal(item, wanted) || (partial && has_properties(item, wanted));
    Some(Value::Bool(items.iter().any(fits)))
}

/// Whether all properties of `wanted` are in `item` with the same values.
fn has_properties(item: &Value, wanted: &Value) -> bool {
    let (Some(item), Some(wanted)) = (item.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, value)| item.get(name).is_some_and(|other| equal(other, value)))
}

/// True with all values in the array, false with one missing, and otherwise undefined when one of them is.
fn contains_all(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let found = look(arguments)?;
    if found.contains(&Some(false)) {
        return Some(Value::Bool(false));
    }
    found.iter().all(Option::is_some).then_some(Value::Bool(true))
}

/// True with one of the values in the array, false with none, and otherwise undefined when one of them is.
fn contains_any(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let found = look(arguments)?;
    if found.contains(&Some(true)) {
        return Some(Value::Bool(true));
    }
    found.iter().all(Option::is_some).then_some(Value::Bool(false))
}

/// For each value after the array whether it is in there; undefined stays undefined.
fn look(arguments: &Arguments<'_>) -> Option<Vec<Option<bool>>> {
    let (items, wanted) = (arguments.array(0)?, arguments.from(1));
    if wanted.len() < LOOK_UP {
        let is_in = |value: &Value| items.iter().any(|item| equal(item, value));
        return Some(wanted.iter().map(|value| value.map(is_in)).collect());
    }
    let keys: HashSet<String> = items.iter().map(key).collect();
    Some(wanted.iter().map(|value| value.map(|value| keys.contains(&key(value)))).collect())
}

/// From a position on, counted from the end when it is negative, as many elements as there are and as
/// the third argument allows.
fn slice(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    let (items, start) = (arguments.array(0)?, arguments.integer(1)?);
    let length = arguments.integer_or(2, i64::MAX)?;
    let skipped = if start < 0 {
        items.len().saturating_sub(usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        index(start)
    };
    array_of(items.iter().skip(skipped).take(index(length)))
}

/// Applies a function to an array of nothing but numbers.
fn of_numbers(arguments: &Arguments<'_>, function: fn(&[f64]) -> Option<f64>) -> Option<Value> {
    let numbers: Option<Vec<f64>> = arguments.array(0)?.iter().map(number).collect();
    from_number(function(&numbers?)?)
}

fn average(numbers: &[f64]) -> Option<f64> {
    if numbers.is_empty() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "no array is that long")]
    Some(numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// The number in the middle, or the mean of the two that share it.
fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((*sorted.get(half.checked_sub(1)?)? + upper) / 2.0)
}

/// The first or last element in the order of values. Arrays and objects inside make it undefined.
fn furthest(arguments: &Arguments<'_>, side: Ordering) -> Option<Value> {
    let items = arguments.array(0)?;
    if items.iter().any(|item| item.is_array() || item.is_object()) {
        return None;
    }
    let further = |best, item| if order(Some(item), Some(best)) == side { item } else { best };
    items.iter().reduce(further).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn an_array_contains_values_deeply_and_objects_in_part() {
        let shirts = json!([{"category": "shirts", "color": "blue", "tags": {"a": 1, "b": 2}}]);
        check(&[
            ("ARRAY_CONTAINS", json!([["coats", "jackets"], "coats"]), json!(true)),
            ("ARRAY_CONTAINS", json!([["coats", "jackets"], "hoodies"]), json!(false)),
            ("ARRAY_CONTAINS", json!([[1.0, [2]], 1]), json!(true)),
            ("ARRAY_CONTAINS", json!([[{"a": 1, "b": 2}], {"b": 2, "a": 1}]), json!(true)),
            ("ARRAY_CONTAINS", json!([shirts, {"category": "shirts"}]), json!(false)),
            ("ARRAY_CONTAINS", json!([shirts, {"category": "shirts"}, true]), json!(true)),
            ("ARRAY_CONTAINS", json!([shirts, {"category": "shorts", "color": "blue"}, true]), json!(false)),
            ("ARRAY_CONTAINS", json!([shirts, {"tags": {"a": 1}}, true]), json!(false)),
            ("ARRAY_CONTAINS", json!([shirts, {}, true]), json!(true)),
            ("ARRAY_CONTAINS", json!([[1], 1, true]), json!(true)),
            ("ARRAY_CONTAINS", json!([[1], UNDEFINED]), json!(UNDEFINED)),
            ("ARRAY_CONTAINS", json!([[1], 1, "true"]), json!(UNDEFINED)),
            ("ARRAY_CONTAINS", json!(["abc", "a"]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn an_array_contains_all_or_any_of_the_values() {
        let many = json!([[1, 2, 3], 9, 8, 7, 6, 5, 4, 3, {"a": 1}]);
        check(&[
            ("ARRAY_CONTAINS_ANY", json!([[1, true, "3", [1, 2, 3]], 1, true, "3", [1, 2, 3]]), json!(true)),
            ("ARRAY_CONTAINS_ANY", json!([[1, 2, 3, 4], 2, 3, 4, 5]), json!(true)),
            ("ARRAY_CONTAINS_ANY", json!([[1, 2, 3, 4], 1, UNDEFINED]), json!(true)),
            ("ARRAY_CONTAINS_ANY", json!([[1, 2, 3, 4], 5, 6, 7, 8]), json!(false)),
            ("ARRAY_CONTAINS_ANY", json!([[], 1, 2, 3]), json!(false)),
            ("ARRAY_CONTAINS_ANY", json!([[1, 2, 3, 4], 5, UNDEFINED]), json!(UNDEFINED)),
            ("ARRAY_CONTAINS_ANY", many.clone(), json!(true)),
            ("ARRAY_CONTAINS_ALL", many, json!(false)),
            ("ARRAY_CONTAINS_ALL", json!([[1, 2, 3, 4], 2, 3]), json!(true)),
            ("ARRAY_CONTAINS_ALL", json!([[1, 2, 3, 4], 2, 5]), json!(false)),
            ("ARRAY_CONTAINS_ALL", json!([[1, 2, 3, 4], 2, UNDEFINED]), json!(UNDEFINED)),
            ("ARRAY_CONTAINS_ALL", json!([[1, 2, 3, 4], 5, UNDEFINED]), json!(false)),
            ("ARRAY_CONTAINS_ALL", json!([[0, 1], 1, 0, 1, 0, 1.0, 0, 1, -0.0]), json!(true)),
            ("ARRAY_CONTAINS_ALL", json!([1, 1]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn arrays_are_joined_and_sliced() {
        let scores = json!([70, 86, 92, 99, 85, 90, 82]);
        check(&[
            ("ARRAY_SLICE", json!([scores, 0]), scores.clone()),
            ("ARRAY_SLICE", json!([scores, 1]), json!([86, 92, 99, 85, 90, 82])),
            ("ARRAY_SLICE", json!([scores, -1]), json!([82])),
            ("ARRAY_SLICE", json!([scores, -2]), json!([90, 82])),
            ("ARRAY_SLICE", json!([scores, -99]), scores.clone()),
            ("ARRAY_SLICE", json!([scores, 0, 3]), json!([70, 86, 92])),
            ("ARRAY_SLICE", json!([scores, 0, 12]), scores.clone()),
            ("ARRAY_SLICE", json!([scores, 3, 5]), json!([99, 85, 90, 82])),
            ("ARRAY_SLICE", json!([scores, -2, 1]), json!([90])),
            ("ARRAY_SLICE", json!([scores, 7]), json!([])),
            ("ARRAY_SLICE", json!([scores, 1, -1]), json!([])),
            ("ARRAY_SLICE", json!([scores, 1, UNDEFINED]), json!(UNDEFINED)),
            ("ARRAY_SLICE", json!([scores, i64::MIN, i64::MAX]), scores.clone()),
            ("ARRAY_SLICE", json!([scores, 0.5]), json!(UNDEFINED)),
            ("ARRAY_CONCAT", json!([[1], [], [2, [3]]]), json!([1, 2, [3]])),
            ("ARRAY_CONCAT", json!([[1], UNDEFINED]), json!(UNDEFINED)),
            ("ARRAY_CONCAT", json!([[1], 2]), json!(UNDEFINED)),
            ("ARRAY_LENGTH", json!([scores]), json!(7)),
            ("ARRAY_LENGTH", json!(["abc"]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn arrays_of_numbers_have_a_sum_a_mean_and_a_middle() {
        check(&[
            ("ARRAY_MEDIAN", json!([[1, 2, 3, 4]]), json!(2.5)),
            ("ARRAY_MEDIAN", json!([[1.0, 2.0, 3.3, 4.7, 7.8]]), json!(3.3)),
            ("ARRAY_MEDIAN", json!([[1, -2.7, 3, -4]]), json!(-0.8500000000000001)),
            ("ARRAY_MEDIAN", json!([["abc", "ABC"]]), json!(UNDEFINED)),
            ("ARRAY_MEDIAN", json!([[12, null]]), json!(UNDEFINED)),
            ("ARRAY_MEDIAN", json!([[]]), json!(UNDEFINED)),
            ("ARRAY_AVG", json!([[1, 2, 3, 4]]), json!(2.5)),
            ("ARRAY_AVG", json!([[]]), json!(UNDEFINED)),
            ("ARRAY_AVG", json!([[1, "2"]]), json!(UNDEFINED)),
            ("ARRAY_SUM", json!([[1, 2.5]]), json!(3.5)),
            ("ARRAY_SUM", json!([[]]), json!(0)),
            ("ARRAY_SUM", json!([[1e308, 1e308]]), json!(UNDEFINED)),
            ("ARRAY_SUM", json!([[1, true]]), json!(UNDEFINED)),
            ("ARRAY_MAX", json!([[1, 2, 3]]), json!(3)),
            ("ARRAY_MAX", json!([["abc", 9, true, null]]), json!("abc")),
            ("ARRAY_MIN", json!([["abc", 9, true, null]]), json!(null)),
            ("ARRAY_MIN", json!([[3, 1.5, 2]]), json!(1.5)),
            ("ARRAY_MIN", json!([[]]), json!(UNDEFINED)),
            ("ARRAY_MAX", json!([[1, [2]]]), json!(UNDEFINED)),
        ]);
    }
}
