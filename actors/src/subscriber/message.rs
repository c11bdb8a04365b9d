//! What a delivery carries: its events in one of three modes, and what stands beside them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::config::{ContentMode, DeliveryHeader, HeaderValue, Webhook};
use crate::model::cloudevent::{BATCH, CloudEvent, Data, Extension, STRUCTURED};
use crate::model::document;
use crate::model::event::Event;
use crate::model::json::value_at;

/// Longest event id that is sent as the id of a delivery.
const ID_MAX: usize = 128;
/// Longest value of a header that is taken from an event (Event Grid's limit).
const HEADER_MAX: usize = 4_096;

/// The id of a delivery: the event's, if a header can carry it and it has no dot, which separates the parts
/// of what is signed (Standard Webhooks); else its position.
pub(super) fn delivery_id(event: &Event) -> String {
    let id = &event.cloud.id;
    let plain = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    if plain && id.len() <= ID_MAX { id.clone() } else { event.position.to_string() }
}

/// Events as an HTTP message.
pub(super) struct Message {
    pub(super) content_type: Option<Cow<'static, str>>,
    pub(super) body: Bytes,
    /// Headers of attributes.
    pub(super) attributes: Vec<(Arc<str>, String)>,
}

impl Message {
    /// The message of one event, or of the first of them unless they go as a batch.
    pub(super) fn new<'e>(
        webhook: &Webhook,
        first: &CloudEvent,
        mut all: impl Iterator<Item = Cow<'e, Bytes>>,
    ) -> Self {
        let (content_type, body) = match (webhook.batch, webhook.mode) {
            (Some(_), _) => (BATCH, joined(all)),
            (None, ContentMode::Structured) => (STRUCTURED, all.next().unwrap_or_default().into_owned()),
            (None, ContentMode::Binary) => return Self::binary(first),
        };
        Self { content_type: Some(content_type.into()), body, attributes: Vec::new() }
    }

    fn binary(event: &CloudEvent) -> Self {
        let message = event.to_headers();
        let attributes = message.headers.into_iter().map(|(name, value)| (name.into(), value));
        Self {
            content_type: message.content_type.map(Cow::Owned),
            body: message.body,
            attributes: attributes.collect(),
        }
    }
}

/// Several events as one JSON array.
fn joined<'e>(events: impl Iterator<Item = Cow<'e, Bytes>>) -> Bytes {
    let mut out = vec![b'['];
    for event in events {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(&event);
    }
    out.push(b']');
    out.into()
}

/// The headers of a delivery.
pub(super) fn headers_of(headers: &[DeliveryHeader], event: &Event) -> Vec<(Arc<str>, String)> {
    let mut data = None;
    let value = |header: &DeliveryHeader| {
        let text = match &header.value {
            HeaderValue::Static(text) | HeaderValue::Secret(text) => text.to_string(),
            HeaderValue::Event(key) => value_of(event, key, &mut data)?,
        };
        (text.len() <= HEADER_MAX).then(|| (header.name.clone(), text))
    };
    headers.iter().filter_map(value).collect()
}

fn value_of(event: &Event, key: &str, data: &mut Option<Value>) -> Option<String> {
    let Some(path) = key.strip_prefix("data.") else { return attribute(event, key) };
    let data = data.get_or_insert_with(|| match &event.cloud.data {
        Data::Json(json) => document::read(json).unwrap_or_default(),
        Data::None | Data::Text(_) | Data::Binary(_) => Value::Null,
    });
    let path: Vec<&str> = path.split('.').collect();
    match value_at(data, &path)? {
        Value::String(text) => Some(text.clone()),
        scalar @ (Value::Number(_) | Value::Bool(_)) => Some(scalar.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn attribute(event: &Event, name: &str) -> Option<String> {
    let cloud = &event.cloud;
    match name {
        "id" => Some(cloud.id.clone()),
        "source" => Some(cloud.source.clone()),
        "type" => Some(cloud.event_type.clone()),
        "subject" => cloud.subject.clone(),
        "time" => cloud.time.clone(),
        "datacontenttype" => cloud.datacontenttype.clone(),
        "dataschema" => cloud.dataschema.clone(),
        name => cloud.extension(name).map(|value| match value {
            Extension::Text(text) => text.clone(),
            Extension::Integer(number) => number.to_string(),
            Extension::Boolean(value) => value.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cloudevent::{from_binary, from_json};
    use crate::model::delivery::Endpoint;

    #[test]
    fn an_event_is_the_body_or_its_data_is() {
        let text =
            br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","note":"a b","data":{"n": 1.0}}"#;
        let body = Bytes::from_static(text);
        let event = from_json(&body).unwrap();
        let mut webhook = Webhook::plain(Endpoint::plain("http://example.com/", Vec::new()));
        let bodies = || std::iter::once(Cow::Borrowed(&body));
        let message = Message::new(&webhook, &event, bodies());
        assert_eq!((message.content_type.as_deref(), &message.body), (Some(STRUCTURED), &body));
        assert!(message.attributes.is_empty());
        webhook.mode = ContentMode::Binary;
        let message = Message::new(&webhook, &event, bodies());
        assert_eq!(&message.body[..], br#"{"n": 1.0}"#);
        let lines = message.attributes.iter().map(|(name, value)| (&**name, value.as_bytes()));
        let read = from_binary(lines, message.content_type.as_deref(), &message.body).unwrap();
        assert_eq!(read.extension("note"), event.extension("note"));
        assert_eq!((read.data, read.datacontenttype.as_deref()), (event.data, Some("application/json")));
    }
}
