//! A committed change as filters see it: the CloudEvent that a subscriber would get.

use std::borrow::Cow;

use super::facts::{Attribute, Filterable};
use crate::model::document;
use crate::model::event::Event;
use crate::model::ids::Etag;

/// A change as an event of a topic.
#[derive(Debug, Clone, Copy)]
pub struct Change<'e> {
    /// The change.
    pub event: &'e Event,
    /// What the topic calls it.
    pub event_type: &'e str,
}

impl Filterable for Change<'_> {
    fn event_type(&self) -> &str {
        self.event_type
    }

    fn subject(&self) -> Option<&str> {
        Some(&self.event.subject)
    }

    fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let Event { position, address, change, .. } = self.event;
        let text: Cow<'_, str> = match name {
            "id" => position.to_string().into(),
            "source" => format!("/containers/{}", address.container).into(),
            "time" => change.at.to_string().into(),
            "datacontenttype" => "application/json".into(),
            "partitionkey" => address.key_text().into(),
            "sequence" => format!("{:020}", position.lsn.0).into(),
            "etag" => Etag(*position).to_string().trim_matches('"').to_owned().into(),
            "traceparent" => change.traceparent.as_deref()?.into(),
            _ => return None,
        };
        Some(Attribute::Text(text))
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        let Event { position, address, change, .. } = self.event;
        if change.kind.is_removal() {
            let gone = serde_json::json!({ "id": change.id.as_str(), "partition": address.key_json() });
            return Some(gone.to_string().into_bytes().into());
        }
        let mut data = Vec::with_capacity(change.body.len() + 128);
        document::render(&change.body, Etag(*position), change.at, position.lsn, &mut data);
        Some(data.into())
    }
}
