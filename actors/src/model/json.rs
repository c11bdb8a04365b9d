//! What every reader of JSON here means by the same value, and by the value at a path.

use serde_json::Value;

/// Whether two values are the same: numbers as doubles, arrays and objects deeply, and the order of
/// properties does not matter (RFC 6902 section 4.6).
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// The value at a path of property names; an array has no properties.
pub fn value_at<'v, S: AsRef<str>>(document: &'v Value, path: &[S]) -> Option<&'v Value> {
    path.iter().try_fold(document, |value, name| value.as_object()?.get(name.as_ref()))
}
