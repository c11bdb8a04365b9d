//! What the functions of tiers 1 and 2 do, once more. A wrong type gives undefined.

use serde_json::Value;

use super::naive::{number, same};

/// The value of a function for these arguments.
pub(crate) fn call(name: &str, arguments: &[Option<Value>]) -> Option<Value> {
    let given = Given(arguments);
    let families = [kinds, texts, parts, numbers, arrays];
    let found = families.iter().find_map(|family| family(name, &given));
    found.unwrap_or_else(|| panic!("`{name}` is not known here"))
}

/// The arguments of a call, by type.
struct Given<'a>(&'a [Option<Value>]);

impl Given<'_> {
    fn get(&self, at: usize) -> Option<Value> {
        self.0.get(at).cloned().flatten()
    }

    fn text(&self, at: usize) -> Option<Vec<char>> {
        self.get(at)?.as_str().map(|text| text.chars().collect())
    }

    fn double(&self, at: usize) -> Option<f64> {
        self.get(at)?.as_f64()
    }

    /// A position or length has 64 bits.
    fn whole(&self, at: usize) -> Option<f64> {
        self.double(at).filter(|number| number.fract() == 0.0 && number.abs() <= 2_f64.powi(63))
    }

    fn array(&self, at: usize) -> Option<Vec<Value>> {
        self.get(at)?.as_array().cloned()
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

fn string(chars: &[char]) -> Option<Value> {
    Some(Value::from(chars.iter().collect::<String>()))
}

/// Questions about the type of a value, which undefined has none of. `None` for the name of another family.
fn kinds(name: &str, given: &Given<'_>) -> Option<Option<Value>> {
    let is = |holds: fn(&Value) -> bool| Some(Value::Bool(given.get(0).is_some_and(|value| holds(&value))));
    let known = || match name {
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
        _ => None,
    };
    matches!(
        name,
        "IS_DEFINED"
            | "IS_NULL"
            | "IS_BOOL"
            | "IS_NUMBER"
            | "IS_STRING"
            | "IS_ARRAY"
            | "IS_OBJECT"
            | "IS_PRIMITIVE"
            | "IS_INTEGER"
    )
    .then(known)
}

/// Texts as a whole. `None` for the name of another family.
fn texts(name: &str, given: &Given<'_>) -> Option<Option<Value>> {
    let known = || match name {
        "CONTAINS" | "STARTSWITH" | "ENDSWITH" | "StringEquals" => {
            let (mut long, mut short) = (given.text(0)?, given.text(1)?);
            let folds = if given.count() > 2 { given.get(2)?.as_bool()? } else { false };
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
        "LOWER" => string(&lower(&given.text(0)?)),
        "UPPER" => string(&given.text(0)?.iter().flat_map(|c| c.to_uppercase()).collect::<Vec<_>>()),
        "LENGTH" => Some(Value::from(given.text(0)?.len())),
        "REVERSE" => string(&given.text(0)?.into_iter().rev().collect::<Vec<_>>()),
        "CONCAT" => {
            let mut all = Vec::new();
            for at in 0..given.count() {
                all.extend(given.text(at)?);
            }
            string(&all)
        }
        "ToString" => match given.get(0)? {
            Value::String(text) => Some(Value::from(text)),
            other => Some(Value::from(other.to_string())),
        },
        _ => None,
    };
    matches!(
        name,
        "CONTAINS"
            | "STARTSWITH"
            | "ENDSWITH"
            | "StringEquals"
            | "LOWER"
            | "UPPER"
            | "LENGTH"
            | "REVERSE"
            | "CONCAT"
            | "ToString"
    )
    .then(known)
}

/// Parts of texts, in characters. `None` for the name of another family.
fn parts(name: &str, given: &Given<'_>) -> Option<Option<Value>> {
    let known = || match name {
        "LEFT" => {
            let (text, length) = (given.text(0)?, given.whole(1)?);
            string(&text[..(length.max(0.0) as usize).min(text.len())])
        }
        "RIGHT" => {
            let (text, length) = (given.text(0)?, given.whole(1)?);
            string(&text[text.len() - (length.max(0.0) as usize).min(text.len())..])
        }
        "SUBSTRING" => {
            let (text, start, length) = (given.text(0)?, given.whole(1)?, given.whole(2)?);
            if start < 0.0 || length <= 0.0 || start as usize >= text.len() {
                return string(&[]);
            }
            let start = start as usize;
            string(&text[start..start.saturating_add(length as usize).min(text.len())])
        }
        "INDEX_OF" => {
            let (long, short) = (given.text(0)?, given.text(1)?);
            let start = if given.count() > 2 { given.whole(2)?.max(0.0) as usize } else { 0 };
            let found = (start..=long.len()).find(|at| long[*at..].starts_with(&short));
            Some(found.map_or(Value::from(-1), Value::from))
        }
        "REPLACE" => {
            let (long, old, new) = (given.text(0)?, given.text(1)?, given.text(2)?);
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
            let mut text = given.text(0)?;
            while name != "RTRIM" && text.first().is_some_and(|c| c.is_whitespace()) {
                text.remove(0);
            }
            while name != "LTRIM" && text.last().is_some_and(|c| c.is_whitespace()) {
                text.pop();
            }
            string(&text)
        }
        _ => None,
    };
    matches!(name, "LEFT" | "RIGHT" | "SUBSTRING" | "INDEX_OF" | "REPLACE" | "TRIM" | "LTRIM" | "RTRIM")
        .then(known)
}

/// Numbers. `None` for the name of another family.
fn numbers(name: &str, given: &Given<'_>) -> Option<Option<Value>> {
    let known = || match name {
        "StringToNumber" => {
            let text: String = given.text(0)?.into_iter().collect();
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
        "ABS" => number(given.double(0)?.abs()),
        "CEILING" => number(given.double(0)?.ceil()),
        "FLOOR" => number(given.double(0)?.floor()),
        "TRUNC" => number(given.double(0)?.trunc()),
        "SQRT" => number(given.double(0)?.sqrt()),
        "POWER" => number(given.double(0)?.powf(given.double(1)?)),
        "ROUND" => {
            // Half goes away from zero; beyond this there are no halves.
            let number_of = given.double(0)?;
            if number_of.abs() >= 2_f64.powi(52) {
                return number(number_of);
            }
            let (whole, rest) = (number_of.trunc(), number_of - number_of.trunc());
            number(if rest.abs() >= 0.5 { whole + rest.signum() } else { whole })
        }
        _ => None,
    };
    matches!(name, "StringToNumber" | "ABS" | "CEILING" | "FLOOR" | "TRUNC" | "SQRT" | "POWER" | "ROUND")
        .then(known)
}

/// Arrays, and the choice between two values. `None` for the name of another family.
fn arrays(name: &str, given: &Given<'_>) -> Option<Option<Value>> {
    let known = || match name {
        "ARRAY_LENGTH" => Some(Value::from(given.array(0)?.len())),
        "ARRAY_CONCAT" => {
            let mut all = Vec::new();
            for at in 0..given.count() {
                all.extend(given.array(at)?);
            }
            Some(Value::Array(all))
        }
        "ARRAY_SLICE" => {
            let (items, start) = (given.array(0)?, given.whole(1)?);
            let length = if given.count() > 2 { given.whole(2)?.max(0.0) as usize } else { items.len() };
            let count = items.len() as f64;
            let start = if start < 0.0 { (count + start).max(0.0) } else { start.min(count) } as usize;
            Some(Value::Array(items[start..start.saturating_add(length).min(items.len())].to_vec()))
        }
        "ARRAY_CONTAINS" => {
            let (items, wanted) = (given.array(0)?, given.get(1)?);
            let partly = if given.count() > 2 { given.get(2)?.as_bool()? } else { false };
            let fits = |item: &Value| same(item, &wanted) || (partly && is_part(item, &wanted));
            Some(Value::Bool(items.iter().any(fits)))
        }
        "IIF" => given.get(if given.get(0) == Some(Value::Bool(true)) { 1 } else { 2 }),
        _ => None,
    };
    matches!(name, "ARRAY_LENGTH" | "ARRAY_CONCAT" | "ARRAY_SLICE" | "ARRAY_CONTAINS" | "IIF").then(known)
}

/// Whether an object has all properties of another one.
fn is_part(item: &Value, wanted: &Value) -> bool {
    let (Some(item), Some(wanted)) = (item.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, value)| item.get(name).is_some_and(|other| same(value, other)))
}

fn lower(text: &[char]) -> Vec<char> {
    text.iter().flat_map(|c| c.to_lowercase()).collect()
}
