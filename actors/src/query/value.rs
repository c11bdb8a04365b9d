//! JSON values as the query language sees them. *Undefined*, the value of what is not there, is
//! `None` throughout.
//!
//! Invariant: two values that are [`equal`] have the same [`order`] and the same [`canonical`] text,
//! whatever the order of their properties and however their numbers are written.

use std::cmp::Ordering;

use serde_json::{Number, Value};

pub use crate::model::json::equal;

/// Integers up to this size are exact in a double, and are written without a fraction.
const EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The double that a number is; `None` for what is no number.
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// A double as JSON: whole numbers without a fraction, undefined when it is not finite.
pub fn from_number(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && number.abs() <= EXACT_INTEGER {
        // The bound above makes the conversion exact.
        #[expect(clippy::cast_possible_truncation, reason = "within the range of exact integers")]
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

/// The order of `ORDER BY`, `MIN` and `MAX`: undefined, null, false, true, numbers, strings (by code
/// points), arrays, objects. Arrays go by their elements; objects by their sorted properties.
pub fn order(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let (Some(a), Some(b)) = (left, right) else { return rank(left).cmp(&rank(right)) };
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => {
            let (a, b) = (number(a).unwrap_or_default(), number(b).unwrap_or_default());
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| order(Some(a), Some(b)));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (Value::Object(_), Value::Object(_)) => {
            let (a, b) = (sorted(a), sorted(b));
            let pairs = a.iter().zip(&b).map(|(a, b)| a.0.cmp(b.0).then(order(Some(a.1), Some(b.1))));
            pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

/// A text that two values share only when they are [`equal`]: the key of `DISTINCT` and `GROUP BY`.
pub fn canonical(value: Option<&Value>, out: &mut String) {
    match value {
        None => out.push('u'),
        Some(Value::Null | Value::Bool(_) | Value::String(_)) => {
            out.push_str(&value.unwrap_or(&Value::Null).to_string());
        }
        Some(found @ Value::Number(_)) => {
            // Adding zero makes -0 and 0 the same.
            out.push_str(&(number(found).unwrap_or_default() + 0.0).to_string());
        }
        Some(Value::Array(items)) => {
            out.push('[');
            for item in items {
                canonical(Some(item), out);
                out.push(',');
            }
            out.push(']');
        }
        Some(found @ Value::Object(_)) => {
            out.push('{');
            for (name, value) in sorted(found) {
                out.push_str(&Value::from(name).to_string());
                out.push(':');
                canonical(Some(value), out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

fn rank(value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(false)) => 2,
        Some(Value::Bool(true)) => 3,
        Some(Value::Number(_)) => 4,
        Some(Value::String(_)) => 5,
        Some(Value::Array(_)) => 6,
        Some(Value::Object(_)) => 7,
    }
}

fn sorted(object: &Value) -> Vec<(&str, &Value)> {
    let properties = object.as_object().into_iter().flatten();
    let mut properties: Vec<_> = properties.map(|(name, value)| (name.as_str(), value)).collect();
    properties.sort_unstable_by_key(|(name, _)| *name);
    properties
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_come_in_the_order_of_their_types() {
        let sorted = [
            None,
            Some(json!(null)),
            Some(json!(false)),
            Some(json!(true)),
            Some(json!(-1e300)),
            Some(json!(-1)),
            Some(json!(2)),
            Some(json!(10)),
            Some(json!("")),
            Some(json!("B")),
            Some(json!("a")),
            Some(json!([])),
            Some(json!([1])),
            Some(json!([1, 0])),
            Some(json!([2])),
            Some(json!({})),
            Some(json!({"a": 1})),
            Some(json!({"b": 0, "a": 1})),
        ];
        for (i, left) in sorted.iter().enumerate() {
            for (j, right) in sorted.iter().enumerate() {
                assert_eq!(order(left.as_ref(), right.as_ref()), i.cmp(&j), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn equal_values_are_one_however_they_are_written() {
        let text = |value: &Value| {
            let mut out = String::new();
            canonical(Some(value), &mut out);
            out
        };
        for (left, right) in [
            (
                json!({"a": 1, "b": [1.0, {"x": -0.0, "y": null}]}),
                json!({"b": [1, {"y": null, "x": 0}], "a": 1.0}),
            ),
            (json!(12_345_678_901_234_567_890_u64), json!(1.234_567_890_123_456_8e19)),
        ] {
            assert!(equal(&left, &right));
            assert_eq!(order(Some(&left), Some(&right)), Ordering::Equal);
            assert_eq!(text(&left), text(&right));
        }
        for (left, right) in
            [(json!({"a": 1}), json!({"a": 1, "b": 1})), (json!(1), json!("1")), (json!([]), json!({}))]
        {
            assert!(!equal(&left, &right));
            assert_ne!(text(&left), text(&right));
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        assert_eq!(from_number(3.0).map(|n| n.to_string()), Some("3".into()));
        assert_eq!(from_number(-0.5).map(|n| n.to_string()), Some("-0.5".into()));
        assert_eq!(from_number(1e300).map(|n| n.to_string()), Some("1e+300".into()));
        assert_eq!(from_number(f64::NAN), None);
    }
}
