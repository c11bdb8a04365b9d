//! One value of an event as conditions see it, and how the values of a shape are read out of JSON.
//!
//! Invariants: the data is read once from its beginning to its end, and nothing is kept of it but what a
//! filter asks for; of a property that stands twice in an object, the last one counts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fold;
use super::key::{Node, Shape};

/// A value, with texts ready to be compared without regard to case.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Fact {
    /// It is not there.
    #[default]
    Absent,
    /// It is JSON null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number. A number that no double holds is infinite.
    Number(f64),
    /// A text, folded.
    Text(Box<str>),
    /// An array; see [`Elements`].
    Array(Box<Elements>),
    /// Something that no operator compares: an object.
    Other,
}

/// The elements of an array that some operator compares, by kind; the others are left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Elements {
    pub(super) numbers: Vec<f64>,
    /// Folded.
    pub(super) texts: Vec<Box<str>>,
    pub(super) has_true: bool,
    pub(super) has_false: bool,
}

impl Fact {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(fold(text))
    }

    /// The value of a JSON text that was found to be one.
    fn read(raw: &str) -> Self {
        if !raw.starts_with('[') {
            return Self::scalar(raw);
        }
        let mut elements = Elements::default();
        for element in serde_json::from_str::<Vec<&RawValue>>(raw).unwrap_or_default() {
            match Self::scalar(element.get()) {
                Self::Number(number) => elements.numbers.push(number),
                Self::Text(text) => elements.texts.push(text),
                Self::Bool(true) => elements.has_true = true,
                Self::Bool(false) => elements.has_false = true,
                Self::Absent | Self::Null | Self::Array(_) | Self::Other => {}
            }
        }
        Self::Array(Box::new(elements))
    }

    fn scalar(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            // A text that is none in Unicode (half of a surrogate pair) compares with nothing.
            Some(b'"') => {
                serde_json::from_str::<Borrowed<'_>>(raw).map_or(Self::Other, |text| Self::text(&text.0))
            }
            Some(b'-' | b'0'..=b'9') => raw.parse().map_or(Self::Other, Self::Number),
            Some(_) | None => Self::Other,
        }
    }
}

/// A text that is borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Borrowed<'t>(#[serde(borrow)] Cow<'t, str>);

/// The values that a shape asks for, by slot. Data that is no JSON has none.
pub(super) fn read_data(shape: &Shape, data: &[u8]) -> Box<[Fact]> {
    let mut facts = vec![Fact::Absent; shape.paths()];
    let text = str::from_utf8(data).unwrap_or_default();
    let root: Result<&RawValue, _> = serde_json::from_str(text);
    if root.and_then(|root| read_node(shape.root(), root.get(), &mut facts)).is_err() {
        facts.fill(Fact::Absent);
    }
    facts.into()
}

fn read_node(node: &Node, raw: &str, facts: &mut [Fact]) -> Result<(), serde_json::Error> {
    if let Some(fact) = node.slot().and_then(|slot| facts.get_mut(slot)) {
        *fact = Fact::read(raw);
    }
    if node.is_leaf() || !raw.starts_with('{') {
        return Ok(());
    }
    serde_json::Deserializer::from_str(raw).deserialize_map(Members { node, facts })
}

/// A property stood before with another value: what was read of that is forgotten.
fn forget(node: &Node, facts: &mut [Fact]) {
    if let Some(fact) = node.slot().and_then(|slot| facts.get_mut(slot)) {
        *fact = Fact::Absent;
    }
    node.children().for_each(|child| forget(child, facts));
}

/// Reads the members of an object that the children of a node ask for.
struct Members<'s> {
    node: &'s Node,
    facts: &'s mut [Fact],
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Name(self.node))? {
            match child {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(child) => {
                    let raw: &RawValue = map.next_value()?;
                    forget(child, self.facts);
                    read_node(child, raw.get(), self.facts).map_err(A::Error::custom)?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the child that a member's name leads to. As bytes, so that no name is a reason to stop.
struct Name<'s>(&'s Node);

impl<'de, 's> DeserializeSeed<'de> for Name<'s> {
    type Value = Option<&'s Node>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'s> Visitor<'_> for Name<'s> {
    type Value = Option<&'s Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.child(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(name.as_bytes()))
    }
}
