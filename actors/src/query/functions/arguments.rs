//! What the functions share: arguments by type, and results of a bounded size.
//!
//! Invariant: an accessor gives `None` for an argument that is missing, undefined or of another type.

use serde_json::{Map, Number, Value};

use super::MAX_RESULT_BYTES;
use crate::query::value::number;

/// Below two to the power of 63 every whole double is a 64-bit integer.
const INTEGER_END: f64 = 9_223_372_036_854_775_808.0;

/// What an element costs beside its value: its comma.
pub(super) const COMMA: usize = 1;
/// What a text costs beside its characters: its quotes.
pub(super) const QUOTES: usize = 2;

/// The arguments of one call.
pub(super) struct Arguments<'a>(pub(super) &'a [Option<&'a Value>]);

impl<'a> Arguments<'a> {
    /// How many arguments the query wrote.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn value(&self, index: usize) -> Option<&'a Value> {
        self.0.get(index).copied().flatten()
    }

    pub(super) fn text(&self, index: usize) -> Option<&'a str> {
        self.value(index)?.as_str()
    }

    pub(super) fn number(&self, index: usize) -> Option<f64> {
        number(self.value(index)?)
    }

    /// A number without a fraction that 64 bits hold.
    pub(super) fn integer(&self, index: usize) -> Option<i64> {
        integer(self.value(index)?)
    }

    pub(super) fn array(&self, index: usize) -> Option<&'a Vec<Value>> {
        self.value(index)?.as_array()
    }

    pub(super) fn object(&self, index: usize) -> Option<&'a Map<String, Value>> {
        self.value(index)?.as_object()
    }

    /// A switch at the end of the arguments: off when it is missing or undefined.
    pub(super) fn switch(&self, index: usize) -> Option<bool> {
        self.value(index).map_or(Some(false), Value::as_bool)
    }

    /// An integer that the query may leave out. One that it writes has to be an integer.
    pub(super) fn integer_or(&self, index: usize, default: i64) -> Option<i64> {
        if index < self.len() { self.integer(index) } else { Some(default) }
    }

    /// A text that the query may leave out. One that it writes has to be a text.
    pub(super) fn text_or(&self, index: usize, default: &'a str) -> Option<&'a str> {
        if index < self.len() { self.text(index) } else { Some(default) }
    }

    /// The arguments from `index` on, undefined ones included.
    pub(super) fn from(&self, index: usize) -> &'a [Option<&'a Value>] {
        self.0.get(index..).unwrap_or_default()
    }
}

/// The 64-bit integer that a number is. Two to the power of 63 counts as the largest one: it is how a
/// double spells it.
pub(super) fn integer(value: &Value) -> Option<i64> {
    if let Some(exact) = value.as_i64() {
        return Some(exact);
    }
    let number = number(value)?;
    if number.fract() != 0.0 || number.abs() > INTEGER_END {
        return None;
    }
    // The conversion saturates, and nothing but the bound itself is outside.
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within 64 bits")]
    Some(number as i64)
}

/// A position or length as an index; negative ones are zero, huge ones the end.
pub(super) fn index(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

/// A length as a value.
pub(super) fn count(length: usize) -> Option<Value> {
    Some(Value::from(length))
}

/// About how many bytes a value takes as JSON; what has to be escaped is not counted.
pub(super) fn size(value: &Value) -> usize {
    /// `false`, the longest word.
    const WORD: usize = 5;
    /// Braces around an array or object.
    const BRACES: usize = 2;
    match value {
        Value::Null | Value::Bool(_) => WORD,
        Value::Number(number) => digits(number),
        Value::String(text) => text.len() + QUOTES,
        Value::Array(items) => items.iter().map(|item| size(item) + COMMA).sum::<usize>() + BRACES,
        Value::Object(properties) => {
            properties.iter().map(|(name, value)| property(name, value)).sum::<usize>() + BRACES
        }
    }
}

/// About how many bytes a property takes as JSON.
pub(super) fn property(name: &str, value: &Value) -> usize {
    const COLON: usize = 1;
    name.len() + QUOTES + COLON + size(value) + COMMA
}

fn digits(number: &Number) -> usize {
    /// No double is written longer.
    const DOUBLE: usize = 24;
    const SIGN: usize = 1;
    match number.as_i64() {
        Some(whole) => whole.unsigned_abs().checked_ilog10().map_or(1, |digits| digits as usize + 1) + SIGN,
        None => DOUBLE,
    }
}

/// A list or text that grows until it would be too large.
pub(super) struct Room(usize);

impl Room {
    pub(super) fn new() -> Self {
        Self(MAX_RESULT_BYTES)
    }

    /// Takes room for `bytes`; `None` when there is not enough left, which makes the result undefined.
    pub(super) fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes)?;
        Some(())
    }
}

/// Copies of these values as an array, undefined when they are too much for a result.
pub(super) fn array_of<'a>(items: impl Iterator<Item = &'a Value>) -> Option<Value> {
    let (mut room, mut copies) = (Room::new(), Vec::new());
    for item in items {
        room.take(size(item) + COMMA)?;
        copies.push(item.clone());
    }
    Some(Value::Array(copies))
}

/// A text as a value, undefined when it is too long for a result.
pub(super) fn text_of(text: impl Into<String>) -> Option<Value> {
    let text = text.into();
    (text.len() <= MAX_RESULT_BYTES).then_some(Value::String(text))
}
