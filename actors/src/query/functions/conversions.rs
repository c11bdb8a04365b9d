//! Between values and their text: `ToString`, and what reads a value from a text as JSON.

use serde_json::{Number, Value};

use super::arguments::{Arguments, Room, text_of};
use super::{Context, Row, row};
use crate::query::value::{from_number, number};

pub(super) const ROWS: &[Row] = &[
    row("ToString", (1, 1), to_string),
    row("StringToArray", (1, 1), |a, _| read(a).filter(Value::is_array)),
    row("StringToBoolean", (1, 1), |a, _| read(a).filter(Value::is_boolean)),
    row("StringToNull", (1, 1), |a, _| read(a).filter(Value::is_null)),
    row("StringToNumber", (1, 1), |a, _| from_number(number(&read(a)?)?)),
    row("StringToObject", (1, 1), |a, _| read(a).filter(Value::is_object)),
];

/// A text is itself, everything else its JSON without white space.
fn to_string(arguments: &Arguments<'_>, _: &Context) -> Option<Value> {
    match arguments.value(0)? {
        Value::String(text) => text_of(text.as_str()),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            let mut out = String::new();
            write(value, &mut out, &mut Room::new())?;
            Some(Value::String(out))
        }
    }
}

/// The value that a text is as JSON. White space around it is allowed.
fn read(arguments: &Arguments<'_>) -> Option<Value> {
    serde_json::from_str(arguments.text(0)?).ok()
}

/// Writes JSON in which 1.0 and 1 are the same.
fn write(value: &Value, out: &mut String, room: &mut Room) -> Option<()> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => append(&value.to_string(), out, room),
        Value::Number(number) => append(&written(number), out, room),
        Value::Array(items) => {
            append("[", out, room)?;
            for (i, item) in items.iter().enumerate() {
                append(if i > 0 { "," } else { "" }, out, room)?;
                write(item, out, room)?;
            }
            append("]", out, room)
        }
        Value::Object(properties) => {
            append("{", out, room)?;
            for (i, (name, value)) in properties.iter().enumerate() {
                append(if i > 0 { "," } else { "" }, out, room)?;
                append(&Value::from(name.as_str()).to_string(), out, room)?;
                append(":", out, room)?;
                write(value, out, room)?;
            }
            append("}", out, room)
        }
    }
}

fn written(number: &Number) -> String {
    match number.as_f64().and_then(from_number) {
        Some(whole) if number.is_f64() => whole.to_string(),
        _ => number.to_string(),
    }
}

fn append(text: &str, out: &mut String, room: &mut Room) -> Option<()> {
    room.take(text.len())?;
    out.push_str(text);
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::query::functions::tests::{UNDEFINED, check};

    #[test]
    fn values_are_written_as_json() {
        check(&[
            ("ToString", json!([125]), json!("125")),
            ("ToString", json!([0.1234]), json!("0.1234")),
            ("ToString", json!([2.0]), json!("2")),
            ("ToString", json!([i64::MAX]), json!("9223372036854775807")),
            ("ToString", json!([false]), json!("false")),
            ("ToString", json!([null]), json!("null")),
            ("ToString", json!([[1, 2.0, "a\""]]), json!("[1,2,\"a\\\"\"]")),
            (
                "ToString",
                json!([{"department": "Bicycles", "n": []}]),
                json!("{\"department\":\"Bicycles\",\"n\":[]}"),
            ),
            ("ToString", json!(["Hello World"]), json!("Hello World")),
            ("ToString", json!([UNDEFINED]), json!(UNDEFINED)),
        ]);
    }

    #[test]
    fn values_are_read_from_json_of_their_type() {
        check(&[
            ("StringToNumber", json!(["100"]), json!(100)),
            ("StringToNumber", json!(["3.25"]), json!(3.25)),
            ("StringToNumber", json!(["   60   "]), json!(60)),
            ("StringToNumber", json!(["-1.79769e+308"]), json!(-1.79769e308)),
            ("StringToNumber", json!(["1e400"]), json!(UNDEFINED)),
            ("StringToNumber", json!(["Hello"]), json!(UNDEFINED)),
            ("StringToNumber", json!(["0x10"]), json!(UNDEFINED)),
            ("StringToNumber", json!(["NaN"]), json!(UNDEFINED)),
            ("StringToNumber", json!([""]), json!(UNDEFINED)),
            ("StringToNumber", json!(["1 2"]), json!(UNDEFINED)),
            ("StringToNumber", json!(["true"]), json!(UNDEFINED)),
            ("StringToNumber", json!([null]), json!(UNDEFINED)),
            ("StringToBoolean", json!(["true  "]), json!(true)),
            ("StringToBoolean", json!(["  false  "]), json!(false)),
            ("StringToBoolean", json!(["TRUE"]), json!(UNDEFINED)),
            ("StringToBoolean", json!([true]), json!(UNDEFINED)),
            ("StringToNull", json!(["  null  "]), json!(null)),
            ("StringToNull", json!(["NULL"]), json!(UNDEFINED)),
            ("StringToNull", json!([null]), json!(UNDEFINED)),
            ("StringToArray", json!(["[1,\"2\",[3]]"]), json!([1, "2", [3]])),
            ("StringToArray", json!(["{}"]), json!(UNDEFINED)),
            ("StringToObject", json!(["{}"]), json!({})),
            (
                "StringToObject",
                json!(["{\"division\": {\"name\": \"Sales\"}}"]),
                json!({"division": {"name": "Sales"}}),
            ),
            ("StringToObject", json!(["{'price': 27.55}"]), json!(UNDEFINED)),
            ("StringToObject", json!(["{".repeat(10_000)]), json!(UNDEFINED)),
            ("StringToArray", json!(["[".repeat(10_000)]), json!(UNDEFINED)),
        ]);
    }
}
