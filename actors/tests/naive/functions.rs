//! What the functions of tiers 1 and 2 do, once more. A wrong type gives undefined.

use serde_json::Value;

use super::naive::{number, same};

/// The value of a function for these arguments.
pub(crate) fn call(name: &str, arguments: &[Option<Value>]) -> Option<Value> {
    let get = |at: usize| arguments.get(at).cloned().flatten();
    let text = |at: usize| get(at)?.as_str().map(|text| text.chars().collect::<Vec<char>>());
    let double = |at: usize| get(at)?.as_f64();
    // A position or length has 64 bits.
    let whole =
        |at: usize| double(at).filter(|number| number.fract() == 0.0 && number.abs() <= 2_f64.powi(63));
    let array = |at: usize| get(at)?.as_array().cloned();
    let string = |chars: &[char]| Some(Value::from(chars.iter().collect::<String>()));
    let is = |holds: fn(&Value) -> bool| Some(Value::Bool(get(0).is_some_and(|value| holds(&value))));
    match name {
        "IS_DEFINED" => is(|_| true),
        "IS_NULL" => is(|value| *value == Value::Null),
        "IS_BOOL" => is(|value| matches!(value, Value::Bool(_))),
        "IS_NUMBER" => is(|value| matches!(value, Value::Number(_))),
        "IS_STRING" => is(|value| matches!(value, Value::String(_))),
        "IS_ARRAY" => is(|value| matches!(value, Value::Array(_))),
        "IS_OBJECT" => is(|value| matches!(value, Value::Object(_))),
        "IS_PRIMITIVE" => is(|value| !matches!(value, Value::Array(_) | Value::Object(_))),
        "IS_INTEGER" => is(|value| {
            value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= 2_f64.powi(63))
        }),
        "CONTAINS" | "STARTSWITH" | "ENDSWITH" | "StringEquals" => {
            let (mut long, mut short) = (text(0)?, text(1)?);
            let folds = if arguments.len() > 2 { get(2)?.as_bool()? } else { false };
            if folds {
                (long, short) = (lower(&long), lower(&short));
            }
            Some(Value::Bool(match name {
                "CONTAINS" => (0..=long.len()).any(|at| long[at..].starts_with(&short)),
                "STARTSWITH" => long.starts_with(&short),
                "ENDSWITH" => long.ends_with(&short),
                _ => long == short,
            }))
        }
        "LOWER" => string(&lower(&text(0)?)),
        "UPPER" => string(&text(0)?.iter().flat_map(|c| c.to_uppercase()).collect::<Vec<_>>()),
        "LENGTH" => Some(Value::from(text(0)?.len())),
        "REVERSE" => string(&text(0)?.into_iter().rev().collect::<Vec<_>>()),
        "CONCAT" => {
            let mut all = Vec::new();
            for at in 0..arguments.len() {
                all.extend(text(at)?);
            }
            string(&all)
        }
        "LEFT" => {
            let (text, length) = (text(0)?, whole(1)?);
            string(&text[..(length.max(0.0) as usize).min(text.len())])
        }
        "RIGHT" => {
            let (text, length) = (text(0)?, whole(1)?);
            string(&text[text.len() - (length.max(0.0) as usize).min(text.len())..])
        }
        "SUBSTRING" => {
            let (text, start, length) = (text(0)?, whole(1)?, whole(2)?);
            if start < 0.0 || length <= 0.0 || start as usize >= text.len() {
                return string(&[]);
            }
            let start = start as usize;
            string(&text[start..start.saturating_add(length as usize).min(text.len())])
        }
        "INDEX_OF" => {
            let (long, short) = (text(0)?, text(1)?);
            let start = if arguments.len() > 2 { whole(2)?.max(0.0) as usize } else { 0 };
            let found = (start..=long.len()).find(|at| long[*at..].starts_with(&short));
            Some(found.map_or(Value::from(-1), Value::from))
        }
        "REPLACE" => {
            let (long, old, new) = (text(0)?, text(1)?, text(2)?);
            if old.is_empty() {
                return None;
            }
            let (mut all, mut at) = (Vec::new(), 0);
            while at < long.len() {
                if long[at..].starts_with(&old) {
                    all.extend(&new);
                    at += old.len();
                } else {
                    all.push(long[at]);
                    at += 1;
                }
            }
            string(&all)
        }
        "TRIM" | "LTRIM" | "RTRIM" => {
            let mut text = text(0)?;
            while name != "RTRIM" && text.first().is_some_and(|c| c.is_whitespace()) {
                text.remove(0);
            }
            while name != "LTRIM" && text.last().is_some_and(|c| c.is_whitespace()) {
                text.pop();
            }
            string(&text)
        }
        "ToString" => match get(0)? {
            Value::String(text) => Some(Value::from(text)),
            other => Some(Value::from(other.to_string())),
        },
        "StringToNumber" => {
            let text: String = text(0)?.into_iter().collect();
            let text = text.trim_matches(|c: char| " \t\n\r".contains(c));
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_plain = !digits.is_empty()
                && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
                && digits.chars().filter(|c| *c == '.').count() <= 1
                && !digits.starts_with('.')
                && !digits.ends_with('.')
                && (!digits.starts_with('0') || digits == "0" || digits.starts_with("0."));
            number(text.parse().ok().filter(|_| is_plain)?)
        }
        "ABS" => number(double(0)?.abs()),
        "CEILING" => number(double(0)?.ceil()),
        "FLOOR" => number(double(0)?.floor()),
        "TRUNC" => number(double(0)?.trunc()),
        "SQRT" => number(double(0)?.sqrt()),
        "POWER" => number(double(0)?.powf(double(1)?)),
        "ROUND" => {
            // Half goes away from zero; beyond this there are no halves.
            let number_of = double(0)?;
            if number_of.abs() >= 2_f64.powi(52) {
                return number(number_of);
            }
            let (whole, rest) = (number_of.trunc(), number_of - number_of.trunc());
            number(if rest.abs() >= 0.5 { whole + rest.signum() } else { whole })
        }
        "ARRAY_LENGTH" => Some(Value::from(array(0)?.len())),
        "ARRAY_CONCAT" => {
            let mut all = Vec::new();
            for at in 0..arguments.len() {
                all.extend(array(at)?);
            }
            Some(Value::Array(all))
        }
        "ARRAY_SLICE" => {
            let (items, start) = (array(0)?, whole(1)?);
            let length = if arguments.len() > 2 { whole(2)?.max(0.0) as usize } else { items.len() };
            let count = items.len() as f64;
            let start = if start < 0.0 { (count + start).max(0.0) } else { start.min(count) } as usize;
            Some(Value::Array(items[start..start.saturating_add(length).min(items.len())].to_vec()))
        }
        "ARRAY_CONTAINS" => {
            let (items, wanted) = (array(0)?, get(1)?);
            let partly = if arguments.len() > 2 { get(2)?.as_bool()? } else { false };
            let fits = |item: &Value| same(item, &wanted) || (partly && is_part(item, &wanted));
            Some(Value::Bool(items.iter().any(fits)))
        }
        "IIF" => get(if get(0) == Some(Value::Bool(true)) { 1 } else { 2 }),
        other => panic!("`{other}` is not known here"),
    }
}

/// Whether an object has all properties of another one.
fn is_part(item: &Value, wanted: &Value) -> bool {
    let (Some(item), Some(wanted)) = (item.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, value)| item.get(name).is_some_and(|other| same(value, other)))
}

fn lower(text: &[char]) -> Vec<char> {
    text.iter().flat_map(|c| c.to_lowercase()).collect()
}
