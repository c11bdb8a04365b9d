//! An event with everything that filters have asked of it so far.
//!
//! Stands between an event and the filters of its topic, on any thread. Invariants: what a filter reads is
//! what a subscriber would get; the data of an event is read at most once however many filters ask, and not
//! at all when none does.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use super::fact::{Fact, read_data};
use super::fold;
use super::key::{Key, KeyTable, Shape, What};

/// What a filter may ask of an event.
pub trait Filterable {
    /// Its type.
    fn event_type(&self) -> &str;

    /// Its subject, if it has one.
    fn subject(&self) -> Option<&str>;

    /// Another attribute by its name in lower case: `id`, `source`, `time`, `datacontenttype`, `dataschema`
    /// or an extension. Not asked for `type`, `subject` and `specversion`.
    fn attribute(&self, name: &str) -> Option<Attribute<'_>>;

    /// Its data as JSON text, as a subscriber gets it; `None` when it has none, or none that is JSON.
    fn data(&self) -> Option<Cow<'_, [u8]>>;
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute<'e> {
    /// A text, and everything that is written as one.
    Text(Cow<'e, str>),
    /// An integer.
    Integer(i32),
    /// True or false.
    Boolean(bool),
}

impl<E: Filterable + ?Sized> Filterable for &E {
    fn event_type(&self) -> &str {
        (**self).event_type()
    }

    fn subject(&self) -> Option<&str> {
        (**self).subject()
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        (**self).attribute(name)
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        (**self).data()
    }
}

impl<E: Filterable + ?Sized> Filterable for Arc<E> {
    fn event_type(&self) -> &str {
        (**self).event_type()
    }

    fn subject(&self) -> Option<&str> {
        (**self).subject()
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        (**self).attribute(name)
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        (**self).data()
    }
}

/// Other names of attributes: those of the Event Grid schema. An event's own attribute of that name goes
/// before.
const ALIASES: [(&str, &str); 4] =
    [("eventtype", "type"), ("eventtime", "time"), ("topic", "source"), ("dataversion", "dataschema")];

/// An event, and the answers that its filters share. Made once per event and topic; cheap as long as nobody
/// asks.
#[derive(Debug)]
pub struct Facts<E> {
    event: E,
    shape: Option<Arc<Shape>>,
    subject: OnceLock<Box<str>>,
    attributes: OnceLock<Box<[Fact]>>,
    data: OnceLock<Box<[Fact]>>,
}

impl<E: Filterable> Facts<E> {
    /// The facts of an event of the topic whose filters were compiled with `keys`. Filters that were
    /// compiled later, or with another table, get the same answers, but not as fast.
    pub fn new(event: E, keys: &KeyTable) -> Self {
        Self { shape: Some(keys.shape()), ..Self::alone(event) }
    }

    /// The facts of an event that few filters ask about: nothing is kept for the next one.
    pub fn alone(event: E) -> Self {
        let (subject, attributes, data) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { event, shape: None, subject, attributes, data }
    }

    /// The event.
    pub fn event(&self) -> &E {
        &self.event
    }

    /// The event again.
    pub fn into_event(self) -> E {
        self.event
    }

    /// The subject, folded; an event without a subject has an empty one.
    pub(super) fn folded_subject(&self) -> &str {
        self.subject.get_or_init(|| fold(self.event.subject().unwrap_or_default()))
    }

    /// Answers for a key.
    pub(super) fn ask<R>(&self, key: &Key, read: impl FnOnce(&Fact) -> R) -> R {
        let held = self.shape.as_ref().and_then(|shape| {
            let slot = shape.slot(key)?;
            let facts = match key.what() {
                What::Attribute(_) => self.attributes.get_or_init(|| self.read_attributes(shape)),
                What::Data(_) => self.data.get_or_init(|| self.read_data(shape)),
            };
            facts.get(slot)
        });
        match held {
            Some(fact) => read(fact),
            None => read(&self.read_now(key)),
        }
    }

    fn read_now(&self, key: &Key) -> Fact {
        match key.what() {
            What::Attribute(name) => self.read_attribute(name),
            What::Data(path) => {
                let mut facts = self.read_data(&Shape::of_path(path));
                facts.first_mut().map(std::mem::take).unwrap_or_default()
            }
        }
    }

    fn read_attributes(&self, shape: &Shape) -> Box<[Fact]> {
        shape.attributes().map(|name| name.map_or(Fact::Absent, |name| self.read_attribute(name))).collect()
    }

    fn read_data(&self, shape: &Shape) -> Box<[Fact]> {
        let data = self.event.data();
        read_data(shape, data.as_deref().unwrap_or_default())
    }

    fn read_attribute(&self, name: &str) -> Fact {
        match self.attribute(name) {
            None => Fact::Absent,
            Some(Attribute::Text(text)) => Fact::text(&text),
            Some(Attribute::Integer(number)) => Fact::Number(number.into()),
            Some(Attribute::Boolean(value)) => Fact::Bool(value),
        }
    }

    /// An attribute by its name in lower case, or by another name that it has.
    pub(super) fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let event = &self.event;
        match name {
            "type" => Some(Attribute::Text(event.event_type().into())),
            "subject" => event.subject().map(|subject| Attribute::Text(subject.into())),
            "specversion" => Some(Attribute::Text("1.0".into())),
            _ => event.attribute(name).or_else(|| {
                let (_, other) = ALIASES.iter().find(|(alias, _)| *alias == name)?;
                self.attribute(other)
            }),
        }
    }
}
