//! Reads answers of the admin API for people. Answers may grow: what a verb does not know it passes over.

use serde_json::Value;

use super::output;

/// What stands for a value that is not there.
const NOTHING: &str = "-";

/// The things in an answer: the list under `name`, or the answer itself if it is a list.
pub(super) fn things<'v>(answer: &'v Value, name: &str) -> &'v [Value] {
    answer.get(name).unwrap_or(answer).as_array().map_or(&[], Vec::as_slice)
}

/// The first of these JSON pointers that leads to a value, as a cell of a table.
pub(super) fn cell(value: &Value, pointers: &[&str]) -> String {
    let found = pointers.iter().find_map(|pointer| value.pointer(pointer).filter(|value| !value.is_null()));
    found.map_or_else(|| NOTHING.to_owned(), text)
}

/// The number at the first of these JSON pointers that leads to one.
pub(super) fn number(value: &Value, pointers: &[&str]) -> Option<u64> {
    pointers.iter().find_map(|pointer| value.pointer(pointer)?.as_u64())
}

/// The text at a JSON pointer.
pub(super) fn str_at<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str()
}

/// A value on one line: a text as it is, a list with commas, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => output::plain(text),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// An object as `name: value` lines, with aligned values, beginning with these. Lists of objects get a line for each.
pub(super) fn outline(value: &Value, first: &[&str]) -> String {
    let mut text = String::new();
    lines(value, first, 0, &mut text);
    text
}

fn lines(value: &Value, first: &[&str], depth: usize, out: &mut String) {
    let Value::Object(map) = value else { return };
    let width = map.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    let rank = |key: &str| first.iter().position(|name| *name == key).unwrap_or(first.len());
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    for (key, value) in entries {
        let indent = "  ".repeat(depth);
        let label = output::plain(key).replace('_', " ");
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push_str(&format!("{indent}{label}:\n"));
                lines(value, first, depth + 1, out);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                out.push_str(&format!("{indent}{label}:\n"));
                for item in items {
                    out.push_str(&format!("{indent}  - {}\n", row(item)));
                }
            }
            Value::Object(_)
            | Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => {
                let gap = " ".repeat(width.saturating_sub(label.chars().count()) + 1);
                out.push_str(&format!("{indent}{label}:{gap}{}\n", text(value)));
            }
        }
    }
}

/// An object on one line.
fn row(value: &Value) -> String {
    let Value::Object(map) = value else { return text(value) };
    let shown = map.iter().filter(|(_, value)| !value.is_null());
    shown
        .map(|(key, value)| format!("{} {}", output::plain(key).replace('_', " "), text(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_answer_lacks_is_a_dash() {
        let answer = json!({"keys": [{"id": "k", "lag": {"events": 3}, "expires": null}]});
        let [key] = things(&answer, "keys") else { panic!("one key") };
        assert_eq!(cell(key, &["/id"]), "k");
        assert_eq!(cell(key, &["/lag_events", "/lag/events"]), "3");
        assert_eq!(cell(key, &["/expires"]), "-");
        assert_eq!(number(key, &["/id", "/lag/events"]), Some(3));
        assert!(things(&json!({"other": []}), "keys").is_empty());
    }

    #[test]
    fn an_object_is_an_outline() {
        let value = json!({
            "in_flight": 2, "name": "matching", "types": ["A", "B"], "lag": {"events": 1},
            "recent": [{"event": "0-7", "status": 500, "detail": null}], "error": "a\u{1b}b",
        });
        assert_eq!(
            outline(&value, &["name", "types"]),
            "name:      matching\n\
             types:     A, B\n\
             error:     a\\u{1b}b\n\
             in flight: 2\n\
             lag:\n  events: 1\n\
             recent:\n  - event 0-7, status 500\n"
        );
    }
}
