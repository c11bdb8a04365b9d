//! Carries out one operation of a patch on a document in memory.
//!
//! RFC 6902 where Cosmos DB has nothing of its own; `set` and `incr` as Cosmos DB has them. Invariants:
//! properties keep their order; a document never becomes deeper than [`MAX_DEPTH`], however its parts
//! are copied into each other, so that whoever walks it may recurse.

use serde_json::{Number, Value};

use super::Refusal;
use super::pointer::{Pointer, index};
use crate::model::json::equal;

/// Deepest nesting that a patch may make, counted from the document itself; what the parser reads.
pub(super) const MAX_DEPTH: usize = 128;

/// One step of a patch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) path: Pointer,
    pub(super) action: Action,
}

/// What is done at the path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Creates or replaces a property; inserts before an element, or at the end with `-`.
    Add(Value),
    /// As `Add`, but replaces an element.
    Set(Value),
    /// Replaces what is there.
    Replace(Value),
    /// Takes away what is there.
    Remove,
    /// Adds to a number; a property that is missing becomes the number.
    Increment(Number),
    /// Takes a value away and adds it at the path.
    Move(Pointer),
    /// Adds a value also at the path.
    Copy(Pointer),
    /// Goes on only if this is what is there.
    Test(Value),
}

/// What an array does with an element that is already at the index.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Insert,
    Overwrite,
    Existing,
}

impl Operation {
    /// The places that this operation writes.
    pub(super) fn writes(&self) -> impl Iterator<Item = &Pointer> {
        let (path, from) = match &self.action {
            Action::Test(_) => (None, None),
            Action::Move(from) => (Some(&self.path), Some(from)),
            Action::Add(_)
            | Action::Set(_)
            | Action::Replace(_)
            | Action::Remove
            | Action::Increment(_)
            | Action::Copy(_) => (Some(&self.path), None),
        };
        path.into_iter().chain(from)
    }

    /// Changes `document`, or refuses; a refused document is thrown away. `copies` is what the
    /// patch may still copy, in bytes.
    pub(super) fn apply(&self, document: &mut Value, copies: &mut usize) -> Result<(), Refusal> {
        let path = &self.path;
        match &self.action {
            Action::Add(value) => place(document, path, value.clone(), Place::Insert),
            Action::Set(value) => place(document, path, value.clone(), Place::Overwrite),
            Action::Replace(value) => place(document, path, value.clone(), Place::Existing),
            Action::Remove => remove(document, path).map(drop),
            Action::Increment(by) => increment(document, path, by),
            Action::Move(from) if from == path => from.find(document).map(drop).ok_or(Refusal::NoSource),
            Action::Move(from) => {
                let value = remove(document, from).map_err(source)?;
                place(document, path, value, Place::Insert)
            }
            Action::Copy(from) => {
                let value = from.find(document).ok_or(Refusal::NoSource)?;
                *copies = copies.checked_sub(weight(value)).ok_or(Refusal::CopiesTooMuch)?;
                place(document, path, value.clone(), Place::Insert)
            }
            Action::Test(value) => match path.find(document) {
                Some(found) if equal(found, value) => Ok(()),
                Some(_) => Err(Refusal::Differs),
                None => Err(Refusal::Missing),
            },
        }
    }
}

/// What is missing at `from` is told apart from what is missing at the path.
fn source(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Missing | Refusal::NoParent | Refusal::NotAContainer => Refusal::NoSource,
        Refusal::Index { .. } | Refusal::NotAnIndex => Refusal::NoSource,
        other @ (Refusal::Protected
        | Refusal::NoSource
        | Refusal::NotANumber
        | Refusal::NotFinite
        | Refusal::Differs
        | Refusal::TooDeep
        | Refusal::CopiesTooMuch) => other,
    }
}

/// The container that holds the last name of `path`, and that name.
fn parent<'d, 'p>(document: &'d mut Value, path: &'p Pointer) -> Result<(&'d mut Value, &'p str), Refusal> {
    let (last, above) = path.names().split_last().ok_or(Refusal::Protected)?;
    let mut value = document;
    for name in above {
        value = match value {
            Value::Object(properties) => properties.get_mut(name),
            Value::Array(items) => index(name).and_then(|at| items.get_mut(at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
        .ok_or(Refusal::NoParent)?;
    }
    Ok((value, last))
}

fn place(document: &mut Value, path: &Pointer, value: Value, how: Place) -> Result<(), Refusal> {
    if path.names().len() + depth(&value) > MAX_DEPTH {
        return Err(Refusal::TooDeep);
    }
    let (parent, name) = parent(document, path)?;
    match parent {
        Value::Object(properties) => {
            if how == Place::Existing && !properties.contains_key(name) {
                return Err(Refusal::Missing);
            }
            properties.insert(name.to_owned(), value);
            Ok(())
        }
        Value::Array(items) => {
            let len = items.len();
            let at = if name == "-" { len } else { index(name).ok_or(Refusal::NotAnIndex)? };
            match items.get_mut(at) {
                Some(old) if how != Place::Insert => *old = value,
                None if how == Place::Existing => return Err(Refusal::Missing),
                None if at > len => return Err(Refusal::Index { len }),
                Some(_) | None => items.insert(at, value),
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(Refusal::NotAContainer),
    }
}

fn remove(document: &mut Value, path: &Pointer) -> Result<Value, Refusal> {
    let (parent, name) = parent(document, path)?;
    match parent {
        Value::Object(properties) => properties.shift_remove(name).ok_or(Refusal::Missing),
        Value::Array(items) => {
            let at = index(name).ok_or(Refusal::NotAnIndex)?;
            if at < items.len() { Ok(items.remove(at)) } else { Err(Refusal::Missing) }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(Refusal::NotAContainer),
    }
}

fn increment(document: &mut Value, path: &Pointer, by: &Number) -> Result<(), Refusal> {
    let (parent, name) = parent(document, path)?;
    let found = match parent {
        Value::Object(properties) => match properties.get_mut(name) {
            Some(found) => found,
            None => {
                properties.insert(name.to_owned(), Value::Number(by.clone()));
                return Ok(());
            }
        },
        Value::Array(items) => {
            let at = index(name).ok_or(Refusal::NotAnIndex)?;
            items.get_mut(at).ok_or(Refusal::Missing)?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(Refusal::NotAContainer);
        }
    };
    let Value::Number(number) = found else { return Err(Refusal::NotANumber) };
    *number = sum(number, by).ok_or(Refusal::NotFinite)?;
    Ok(())
}

/// Integers stay integers while they fit 64 bits; everything else is a double.
fn sum(left: &Number, right: &Number) -> Option<Number> {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64())
        && let Some(sum) = left.checked_add(right)
    {
        return Some(sum.into());
    }
    Number::from_f64(left.as_f64()? + right.as_f64()?)
}

/// Levels of objects and arrays; a scalar has none.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(properties) => 1 + properties.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// About the bytes of a value, as JSON.
fn weight(value: &Value) -> usize {
    const SCALAR: usize = 8;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
        Value::String(text) => SCALAR + text.len(),
        Value::Array(items) => items.iter().fold(SCALAR, |sum, item| sum + weight(item)),
        Value::Object(properties) => {
            properties.iter().fold(SCALAR, |sum, (name, value)| sum + name.len() + weight(value))
        }
    }
}
