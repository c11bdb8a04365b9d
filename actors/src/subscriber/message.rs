//! What a delivery carries besides its event.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::config::{DeliveryHeader, HeaderValue};
use crate::model::cloudevent::{Data, Extension};
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

/// Several events as one JSON array.
pub(super) fn joined<'e>(events: impl Iterator<Item = &'e Bytes>) -> Bytes {
    let mut out = vec![b'['];
    for event in events {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(event);
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
        Data::Json(json) => serde_json::from_slice(json).unwrap_or_default(),
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
