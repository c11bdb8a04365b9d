//! CloudEvents 1.0.2: an event as somebody published it, and its three modes over HTTP.
//!
//! Stands between whoever publishes or receives over HTTP and everything inside that keeps or routes events.
//! Invariants: what is in a [`CloudEvent`] that was parsed obeys the specification, so that every mode can
//! write it; data is kept as the bytes that came and never written anew; extensions that nobody here knows
//! are kept.

mod attributes;
mod binary;
mod json;
mod media;
mod problem;
#[cfg(test)]
mod tests;
mod uri;

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use attributes::{MAX_ATTRIBUTES, MAX_NAME, MAX_VALUE};
pub use binary::{BinaryMessage, from_binary};
pub use json::{from_json, from_json_batch};
pub use media::{Mode, declares_json, mode};
pub use problem::{CloudEventProblem, Fault, Part};

/// The one version of the specification.
pub const SPEC_VERSION: &str = "1.0";
/// Media type of one event (JSON format section 3).
pub const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
/// Media type of a list of events (JSON format section 4).
pub const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
/// What data is when nobody says (JSON format section 3.1).
pub const JSON: &str = "application/json";

/// One CloudEvent as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Its id; with [`Self::source`] it names the event.
    pub id: String,
    /// Where it comes from: a URI reference.
    pub source: String,
    /// What happened.
    pub event_type: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When: RFC 3339, as it was written.
    pub time: Option<String>,
    /// The media type of the data. `None` with [`Data::Json`] is JSON.
    pub datacontenttype: Option<String>,
    /// The schema of the data: a URI.
    pub dataschema: Option<String>,
    /// The other attributes, in the order they came. No name stands twice.
    pub extensions: Vec<(String, Extension)>,
    /// What it carries.
    pub data: Data,
}

/// The value of an extension attribute. What has another type in the specification travels as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extension {
    /// Text; every value that came in a header.
    Text(String),
    /// A whole number.
    Integer(i32),
    /// True or false.
    Boolean(bool),
}

/// What an event carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// Nothing.
    None,
    /// A JSON text, byte for byte.
    Json(Bytes),
    /// A text that is no JSON, such as XML.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

impl CloudEvent {
    /// An event with the attributes that each event has, and nothing else.
    pub fn new(id: impl Into<String>, source: impl Into<String>, event_type: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            event_type: event_type.into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: Data::None,
        }
    }

    /// An extension by its name.
    pub fn extension(&self, name: &str) -> Option<&Extension> {
        self.extensions.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Sets an extension, in its old place if there was one. Whoever takes the name or the value from
    /// outside calls [`Self::check`] afterwards.
    pub fn set_extension(&mut self, name: &str, value: Extension) {
        match self.extensions.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.extensions.push((name.to_owned(), value)),
        }
    }

    /// The data as a JSON text: what JSON data is, and bytes whose media type says that they are JSON.
    /// Whether such bytes are valid JSON, nobody has looked.
    pub fn json_data(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Json(json) => Some(json),
            Data::Binary(bytes) if self.datacontenttype.as_deref().is_some_and(declares_json) => Some(bytes),
            Data::Binary(_) | Data::Text(_) | Data::None => None,
        }
    }

    /// How many bytes the event has: its attributes, with their names, and its data.
    pub fn size(&self) -> usize {
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let optional: usize = optional.into_iter().flatten().map(String::len).sum();
        let extensions: usize =
            self.extensions.iter().map(|(name, value)| name.len() + value.as_text().len()).sum();
        let data = match &self.data {
            Data::None => 0,
            Data::Json(bytes) | Data::Binary(bytes) => bytes.len(),
            Data::Text(text) => text.len(),
        };
        self.id.len() + self.source.len() + self.event_type.len() + optional + extensions + data
    }
}

impl Extension {
    /// The value as the specification writes it where there is only text (section 3.1).
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Boolean(true) => "true".into(),
            Self::Boolean(false) => "false".into(),
        }
    }
}

impl From<&str> for Extension {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Extension {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
