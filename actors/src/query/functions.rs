//! Scalar functions, for the time being a handful.

use serde_json::Value;

use crate::model::time::Timestamp;

use super::value;

/// A scalar function, resolved when the query is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function(usize);

/// What functions may know of the world.
#[derive(Debug, Clone)]
pub struct Context {
    /// The time of the query.
    pub now: Timestamp,
    /// Where random numbers begin.
    pub seed: u64,
}

const NAMES: [(&str, usize, usize); 12] = [
    ("IS_DEFINED", 1, 1),
    ("STARTSWITH", 2, 3),
    ("LOWER", 1, 1),
    ("LENGTH", 1, 1),
    ("ARRAY_LENGTH", 1, 1),
    ("ARRAY_CONTAINS", 2, 3),
    ("IS_NULL", 1, 1),
    ("CONCAT", 2, 64),
    ("ABS", 1, 1),
    ("IIF", 3, 3),
    ("ToString", 1, 1),
    ("GetCurrentTimestamp", 0, 0),
];

impl Function {
    /// The function of a name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().position(|(known, ..)| known.eq_ignore_ascii_case(name)).map(Self)
    }

    /// Its name as it is usually written.
    pub fn name(self) -> &'static str {
        NAMES.get(self.0).map_or("", |(name, ..)| name)
    }

    /// The names of all.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, ..)| *name)
    }

    /// Whether it takes that many arguments.
    pub fn accepts(self, arguments: usize) -> bool {
        NAMES.get(self.0).is_some_and(|(_, least, most)| (*least..=*most).contains(&arguments))
    }

    /// How many it takes, in words.
    pub fn arity_text(self) -> String {
        NAMES.get(self.0).map_or(String::new(), |(_, least, most)| {
            if least == most { least.to_string() } else { format!("{least} to {most}") }
        })
    }

    /// Its value, undefined for arguments of wrong types.
    pub fn call(self, arguments: &[Option<&Value>], context: &Context) -> Option<Value> {
        let first = arguments.first().copied().flatten();
        let second = arguments.get(1).copied().flatten();
        match self.0 {
            0 => Some(Value::Bool(first.is_some())),
            1 => Some(Value::Bool(first?.as_str()?.starts_with(second?.as_str()?))),
            2 => Some(Value::from(first?.as_str()?.to_lowercase())),
            3 => Some(Value::from(first?.as_str()?.chars().count())),
            4 => Some(Value::from(first?.as_array()?.len())),
            5 => {
                let wanted = second?;
                Some(Value::Bool(first?.as_array()?.iter().any(|item| value::equal(item, wanted))))
            }
            6 => Some(Value::Bool(first.is_some_and(Value::is_null))),
            7 => {
                let texts: Option<Vec<&str>> =
                    arguments.iter().map(|text| text.and_then(Value::as_str)).collect();
                Some(Value::from(texts?.concat()))
            }
            8 => value::from_number(value::number(first?)?.abs()),
            9 => {
                let chosen = if first == Some(&Value::Bool(true)) {
                    second
                } else {
                    arguments.get(2).copied().flatten()
                };
                chosen.cloned()
            }
            10 => Some(Value::from(
                first?
                    .as_str()
                    .map_or_else(|| first.map(Value::to_string).unwrap_or_default(), str::to_owned),
            )),
            _ => Some(Value::from(context.now.0)),
        }
    }
}
