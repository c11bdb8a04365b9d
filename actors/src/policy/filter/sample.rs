//! An event that a person made up to try a filter: CloudEvents JSON, as far as it was written.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::facts::{Attribute, Filterable};

/// A JSON object with the attributes of an event and `data`. Nothing but `type` has to be there.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    event_type: String,
    members: Map<String, Value>,
}

impl Sample {
    /// The event of a JSON object; `None` when it has no `type` that is a text.
    pub fn new(members: Map<String, Value>) -> Option<Self> {
        let event_type = members.get("type")?.as_str()?.to_owned();
        Some(Self { event_type, members })
    }
}

impl Filterable for Sample {
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn subject(&self) -> Option<&str> {
        self.members.get("subject")?.as_str()
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        match self.members.get(name)? {
            Value::String(text) => Some(Attribute::Text(text.into())),
            Value::Number(number) => i32::try_from(number.as_i64()?).ok().map(Attribute::Integer),
            Value::Bool(value) => Some(Attribute::Boolean(*value)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        self.members.get("data").map(|data| data.to_string().into_bytes().into())
    }
}
