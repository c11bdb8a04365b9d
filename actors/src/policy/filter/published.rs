//! An event as filters see it: the CloudEvent that a subscriber gets.

use std::borrow::Cow;

use super::facts::{Attribute, Filterable};
use crate::model::cloudevent::{CloudEvent, Data, Extension, JSON};
use crate::model::event::Event;

impl Filterable for CloudEvent {
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let implied = || matches!(self.data, Data::Json(_)).then_some(JSON);
        let known = match name {
            "id" => Some(&*self.id),
            "source" => Some(&*self.source),
            "time" => self.time.as_deref(),
            "datacontenttype" => self.datacontenttype.as_deref().or_else(implied),
            "dataschema" => self.dataschema.as_deref(),
            _ => {
                return self.extension(name).map(|value| match value {
                    Extension::Text(text) => Attribute::Text(text.into()),
                    Extension::Integer(number) => Attribute::Integer(*number),
                    Extension::Boolean(value) => Attribute::Boolean(*value),
                });
            }
        };
        known.map(|text| Attribute::Text(text.into()))
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        self.json_data().map(|json| Cow::Borrowed(&**json))
    }
}

impl Filterable for Event {
    fn event_type(&self) -> &str {
        self.cloud.event_type()
    }

    fn subject(&self) -> Option<&str> {
        self.cloud.subject()
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        self.cloud.attribute(name)
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        self.cloud.data()
    }
}
