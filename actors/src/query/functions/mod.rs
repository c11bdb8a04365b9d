//! The scalar functions of the query language: one row per function, one file per family. Stands
//! between the evaluator and what a name means.
//!
//! Invariant: a function is pure, never panics, gives undefined (`None`) for what it cannot use, and
//! makes nothing that takes more than [`MAX_RESULT_BYTES`] as JSON, escapes not counted.

mod arguments;
mod arrays;
mod choices;
mod conversions;
mod dates;
mod integers;
mod math;
mod patterns;
mod sets;
mod spatial;
#[cfg(test)]
mod tests;
mod text;
mod types;

use serde_json::Value;

use self::arguments::Arguments;
use crate::model::time::Timestamp;

/// The largest result of a function, in bytes of JSON: the size of the largest document.
pub const MAX_RESULT_BYTES: usize = 2 * 1024 * 1024;

/// A scalar function, resolved when the query is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function(&'static Row);

/// What functions may know of the world.
#[derive(Debug, Clone)]
pub struct Context {
    /// The time of the query. It stands still while the query runs, so every page and every row see
    /// the same time.
    pub now: Timestamp,
    /// What `RAND` makes its number of. Whoever wants another number passes another seed.
    pub seed: u64,
}

/// One function: its name as the documentation writes it, how many arguments it takes, and what it does.
#[derive(Debug)]
struct Row {
    name: &'static str,
    fewest: usize,
    most: usize,
    call: fn(&Arguments<'_>, &Context) -> Option<Value>,
}

/// Names are unique, so a row is its name.
impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Row {}

/// As many arguments as the query can hold.
const MANY: usize = usize::MAX;

const FAMILIES: [&[Row]; 11] = [
    arrays::ROWS,
    choices::ROWS,
    conversions::ROWS,
    dates::ROWS,
    integers::ROWS,
    math::ROWS,
    patterns::ROWS,
    sets::ROWS,
    spatial::ROWS,
    text::ROWS,
    types::ROWS,
];

const fn row(
    name: &'static str,
    arity: (usize, usize),
    call: fn(&Arguments<'_>, &Context) -> Option<Value>,
) -> Row {
    Row { name, fewest: arity.0, most: arity.1, call }
}

impl Function {
    /// The function of this name in any case; `None` when there is none.
    pub fn named(name: &str) -> Option<Self> {
        rows().find(|row| row.name.eq_ignore_ascii_case(name)).map(Self)
    }

    /// The name as the documentation writes it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether the function takes this many arguments.
    pub fn accepts(self, arguments: usize) -> bool {
        (self.0.fewest..=self.0.most).contains(&arguments)
    }

    /// How many arguments it takes, in words: `no`, `1`, `2 or 3`, `3 to 7`, `at least 2`.
    pub fn arity_text(self) -> String {
        match (self.0.fewest, self.0.most) {
            (0, 0) => "no".into(),
            (fewest, MANY) => format!("at least {fewest}"),
            (fewest, most) if fewest == most => fewest.to_string(),
            (fewest, most) if fewest + 1 == most => format!("{fewest} or {most}"),
            (fewest, most) => format!("{fewest} to {most}"),
        }
    }

    /// The function's value for these arguments; `None` is undefined, in the arguments and as a result.
    /// A number of arguments that it does not accept gives undefined too.
    pub fn call(self, arguments: &[Option<&Value>], context: &Context) -> Option<Value> {
        if !self.accepts(arguments.len()) {
            return None;
        }
        (self.0.call)(&Arguments(arguments), context)
    }

    /// All names, for suggestions and documentation.
    pub fn names() -> impl Iterator<Item = &'static str> {
        rows().map(|row| row.name)
    }
}

fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().flat_map(|family| family.iter())
}
