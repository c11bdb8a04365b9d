//! Structured and batch mode: the JSON format of CloudEvents.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::attributes::{KNOWN, MAX_ATTRIBUTES, REQUIRED, check_count, check_known, check_name, check_text};
use super::{CloudEvent, CloudEventProblem, Data, Extension, Fault, SPEC_VERSION, declares_json};

/// The event of a body in structured mode. JSON data is a slice of the body, not a copy.
///
/// # Errors
/// [`CloudEventProblem`] is the first thing that is wrong.
pub fn from_json(body: &Bytes) -> Result<CloudEvent, CloudEventProblem> {
    let raw: &RawValue = serde_json::from_str(text_of(body)?).map_err(not_json)?;
    read_event(body, raw)
}

/// The events of a body in batch mode, at most `limit`; there may be none.
///
/// # Errors
/// [`CloudEventProblem`] is the first thing that is wrong; its `index` says in which event.
pub fn from_json_batch(body: &Bytes, limit: usize) -> Result<Vec<CloudEvent>, CloudEventProblem> {
    let text = text_of(body)?;
    if !text.trim_start().starts_with('[') {
        // What is no JSON at all is told as that.
        serde_json::from_str::<&RawValue>(text).map_err(not_json)?;
        return Err(CloudEventProblem::event(Fault::NotAnArray));
    }
    let events: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
    if events.len() > limit {
        return Err(CloudEventProblem::event(Fault::TooManyEvents(limit)));
    }
    let read = |(index, raw)| read_event(body, raw).map_err(|problem: CloudEventProblem| problem.at(index));
    events.into_iter().enumerate().map(read).collect()
}

fn text_of(body: &Bytes) -> Result<&str, CloudEventProblem> {
    str::from_utf8(body).map_err(|error| CloudEventProblem::event(Fault::Json(error.to_string())))
}

fn not_json(error: serde_json::Error) -> CloudEventProblem {
    CloudEventProblem::event(Fault::Json(error.to_string()))
}

fn read_event(body: &Bytes, raw: &RawValue) -> Result<CloudEvent, CloudEventProblem> {
    if !raw.get().starts_with('{') {
        return Err(CloudEventProblem::event(Fault::NotAnObject));
    }
    let Members { members, is_cut } = serde_json::from_str(raw.get()).map_err(not_json)?;
    if is_cut {
        return Err(CloudEventProblem::event(Fault::TooManyAttributes));
    }
    let mut event = CloudEvent::new("", "", "");
    let (mut data, mut base64, mut attributes) = (None, None, 0);
    for (place, (name, value)) in members.iter().enumerate() {
        let name = &**name;
        let refused = |fault| CloudEventProblem::attribute(name, fault);
        if members.iter().take(place).any(|(other, _)| other == name) {
            return Err(refused(Fault::Twice));
        }
        let raw = value.get();
        match name {
            // JSON null is a value that data can have.
            "data" => data = Some(*value),
            "data_base64" => base64 = (raw != "null").then_some(raw),
            _ => {
                check_name(name).map_err(refused)?;
                // A null is an attribute that is not there.
                if raw != "null" {
                    attributes += 1;
                    set(&mut event, name, raw).map_err(refused)?;
                }
            }
        }
    }
    check_count(attributes)?;
    for name in KNOWN.iter().take(REQUIRED) {
        let there = members.iter().any(|(other, value)| other == name && value.get() != "null");
        if !there {
            return Err(CloudEventProblem::attribute(name, Fault::Missing));
        }
    }
    let is_json = event.datacontenttype.as_deref().is_none_or(declares_json);
    event.data = read_data(body, data, base64, is_json).map_err(CloudEventProblem::data)?;
    Ok(event)
}

/// Sets an attribute to what stands in the JSON.
fn set(event: &mut CloudEvent, name: &str, raw: &str) -> Result<(), Fault> {
    if !KNOWN.contains(&name) {
        event.extensions.push((name.to_owned(), read_extension(raw)?));
        return Ok(());
    }
    let text = read_text(raw)?;
    check_known(name, &text)?;
    event.set_known(name, text.into_owned());
    Ok(())
}

fn read_text(raw: &str) -> Result<Cow<'_, str>, Fault> {
    if !raw.starts_with('"') {
        return Err(Fault::NotText);
    }
    // It is a JSON string, so only its escapes can be wrong.
    serde_json::from_str(raw).map(|Text(text)| text).map_err(|_| Fault::Unicode)
}

fn read_extension(raw: &str) -> Result<Extension, Fault> {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text = read_text(raw)?;
            check_text(&text)?;
            Ok(Extension::Text(text.into_owned()))
        }
        Some(b't') => Ok(Extension::Boolean(true)),
        Some(b'f') => Ok(Extension::Boolean(false)),
        // Of all numbers of JSON, this takes only the whole ones, written without fraction and exponent.
        Some(_) | None => raw.parse().map(Extension::Integer).map_err(|_| Fault::NotScalar),
    }
}

fn read_data(
    body: &Bytes,
    data: Option<&RawValue>,
    base64: Option<&str>,
    is_json: bool,
) -> Result<Data, Fault> {
    match (data, base64) {
        (None, None) => Ok(Data::None),
        (Some(_), Some(_)) => Err(Fault::TwoData),
        (None, Some(base64)) => {
            let text = read_text(base64).map_err(|_| Fault::Base64)?;
            STANDARD.decode(&*text).map(|bytes| Data::Binary(bytes.into())).map_err(|_| Fault::Base64)
        }
        (Some(data), None) if is_json => Ok(Data::Json(body.slice_ref(data.get().as_bytes()))),
        (Some(data), None) => match read_text(data.get()) {
            Ok(text) => Ok(Data::Text(text.into_owned())),
            Err(Fault::NotText) => Err(Fault::DataNotText),
            Err(fault) => Err(fault),
        },
    }
}

/// The members of an object, in their order, with their values unread.
struct Members<'b> {
    members: Vec<(Cow<'b, str>, &'b RawValue)>,
    /// There are more than any event may have.
    is_cut: bool,
}

/// Members that are kept of an object. More than attributes, because those that are null do not count.
const MAX_MEMBERS: usize = 4 * MAX_ATTRIBUTES;

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while members.len() < MAX_MEMBERS {
                    let Some((Text(name), value)) = map.next_entry()? else {
                        return Ok(Members { members, is_cut: false });
                    };
                    members.push((name, value));
                }
                let mut is_cut = false;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    is_cut = true;
                }
                Ok(Members { members, is_cut })
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

impl CloudEvent {
    /// Appends the event as in structured mode. JSON data is copied as it is.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"specversion\":\"");
        out.extend_from_slice(SPEC_VERSION.as_bytes());
        out.push(b'"');
        let required = [("id", &self.id), ("source", &self.source), ("type", &self.event_type)];
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (name, value) in required.into_iter().chain(optional) {
            write_name(name, out);
            write_string(value, out);
        }
        for (name, value) in &self.extensions {
            write_name(name, out);
            match value {
                Extension::Text(text) => write_string(text, out),
                Extension::Integer(_) | Extension::Boolean(_) => {
                    out.extend_from_slice(value.as_text().as_bytes());
                }
            }
        }
        match &self.data {
            Data::None => {}
            Data::Json(json) => {
                write_name("data", out);
                out.extend_from_slice(json);
            }
            Data::Text(text) => {
                write_name("data", out);
                write_string(text, out);
            }
            Data::Binary(bytes) => {
                write_name("data_base64", out);
                write_string(&STANDARD.encode(bytes), out);
            }
        }
        out.push(b'}');
    }

    /// The event as in structured mode.
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size() + self.size() / 4 + 256);
        self.write_json(&mut out);
        out.into()
    }
}

/// A member's name, after a comma. Names need no escapes, as [`CloudEvent::check`] sees to.
fn write_name(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    // A text always has a JSON string, and memory takes what is written.
    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}
