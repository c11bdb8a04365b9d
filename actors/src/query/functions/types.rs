//! Questions about the type of a value. They answer for undefined too.

use serde_json::Value;

use super::arguments::{Arguments, integer};
use super::dates::Moment;
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    row("IS_ARRAY", (1, 1), |a, _| is(a, Value::is_array)),
    row("IS_BOOL", (1, 1), |a, _| is(a, Value::is_boolean)),
    row("IS_DATETIME", (1, 1), |a, _| is(a, |value| value.as_str().is_some_and(is_moment))),
    row("IS_DEFINED", (1, 1), |a, _| is(a, |_| true)),
    // JSON has no other numbers.
    row("IS_FINITE_NUMBER", (1, 1), |a, _| is(a, Value::is_number)),
    row("IS_INTEGER", (1, 1), |a, _| is(a, |value| integer(value).is_some())),
    row("IS_NULL", (1, 1), |a, _| is(a, Value::is_null)),
    row("IS_NUMBER", (1, 1), |a, _| is(a, Value::is_number)),
    row("IS_OBJECT", (1, 1), |a, _| is(a, Value::is_object)),
    row("IS_PRIMITIVE", (1, 1), |a, _| is(a, |value| !value.is_array() && !value.is_object())),
    row("IS_STRING", (1, 1), |a, _| is(a, Value::is_string)),
];

fn is(arguments: &Arguments<'_>, holds: fn(&Value) -> bool) -> Option<Value> {
    Some(Value::Bool(arguments.value(0).is_some_and(holds)))
}

fn is_moment(text: &str) -> bool {
    Moment::parse(text).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::query::functions::tests::{UNDEFINED, call, check};

    #[test]
    fn questions_are_answered_for_every_type_and_for_undefined() {
        let names = [
            "IS_ARRAY",
            "IS_BOOL",
            "IS_DATETIME",
            "IS_DEFINED",
            "IS_FINITE_NUMBER",
            "IS_INTEGER",
            "IS_NULL",
            "IS_NUMBER",
            "IS_OBJECT",
            "IS_PRIMITIVE",
            "IS_STRING",
        ];
        for (value, answers) in [
            (json!([1]), ["IS_ARRAY", "IS_DEFINED"].as_slice()),
            (json!(false), &["IS_BOOL", "IS_DEFINED", "IS_PRIMITIVE"]),
            (json!(null), &["IS_DEFINED", "IS_NULL", "IS_PRIMITIVE"]),
            (json!(1.5), &["IS_DEFINED", "IS_FINITE_NUMBER", "IS_NUMBER", "IS_PRIMITIVE"]),
            (json!(1.0), &["IS_DEFINED", "IS_FINITE_NUMBER", "IS_INTEGER", "IS_NUMBER", "IS_PRIMITIVE"]),
            (json!({}), &["IS_DEFINED", "IS_OBJECT"]),
            (json!("x"), &["IS_DEFINED", "IS_PRIMITIVE", "IS_STRING"]),
            (json!("2023-03-06"), &["IS_DATETIME", "IS_DEFINED", "IS_PRIMITIVE", "IS_STRING"]),
            (json!(UNDEFINED), &[]),
        ] {
            for name in names {
                let expected = Value::Bool(answers.contains(&name));
                assert_eq!(call(name, &json!([value])), Some(expected), "{name}({value})");
            }
        }
    }

    #[test]
    fn integers_have_64_bits() {
        check(&[
            ("IS_INTEGER", json!([3454.123]), json!(false)),
            ("IS_INTEGER", json!([5_523_432]), json!(true)),
            ("IS_INTEGER", json!([i64::MIN]), json!(true)),
            ("IS_INTEGER", json!([i64::MAX]), json!(true)),
            ("IS_INTEGER", json!([9.223_372_036_854_776e18]), json!(true)),
            ("IS_INTEGER", json!([u64::MAX]), json!(false)),
            ("IS_INTEGER", json!([1e300]), json!(false)),
        ]);
    }
}
