//! Binary mode: attributes in headers, data as the body (HTTP binding section 3.1).

use bytes::Bytes;

use super::attributes::{KNOWN, REQUIRED, check_count, check_known, check_name, check_text, is_json_text};
use super::media::{declares_text, is_utf8};
use super::{CloudEvent, CloudEventProblem, Data, Extension, Fault, JSON, SPEC_VERSION, declares_json};

/// What the headers of attributes begin with.
const PREFIX: &str = "ce-";

/// An event as a message in binary mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryMessage {
    /// The attributes: `ce-` and the name, with a value that is printable ASCII without blanks.
    pub headers: Vec<(String, String)>,
    /// What stands in `Content-Type`.
    pub content_type: Option<String>,
    /// The data.
    pub body: Bytes,
}

/// The event of a request in binary mode. Headers that do not begin with `ce-` are passed over. An empty body
/// is no data; a body whose media type says JSON has to be JSON.
///
/// # Errors
/// [`CloudEventProblem`] is the first thing that is wrong.
pub fn from_binary<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<CloudEvent, CloudEventProblem> {
    let mut event = CloudEvent::new("", "", "");
    let mut seen = [false; KNOWN.len()];
    let mut attributes = 0;
    for (header, value) in headers {
        let name = header.get(PREFIX.len()..).filter(|_| is_attribute(header));
        let Some(name) = name.map(str::to_ascii_lowercase) else { continue };
        attributes += 1;
        check_count(attributes)?;
        let refused = |fault| CloudEventProblem::header(header, fault);
        check_name(&name).map_err(refused)?;
        if name == "datacontenttype" {
            return Err(refused(Fault::ContentTypeTwice));
        }
        let text = decode(value).map_err(refused)?;
        let known = KNOWN.iter().zip(&mut seen).find(|(known, _)| **known == name);
        if let Some((_, seen)) = known {
            if std::mem::replace(seen, true) {
                return Err(refused(Fault::Twice));
            }
            check_known(&name, &text).map_err(refused)?;
            event.set_known(&name, text);
        } else {
            if event.extension(&name).is_some() {
                return Err(refused(Fault::Twice));
            }
            check_text(&text).map_err(refused)?;
            event.extensions.push((name, Extension::Text(text)));
        }
    }
    for (name, seen) in KNOWN.iter().zip(seen).take(REQUIRED) {
        if !seen {
            return Err(CloudEventProblem::header(&format!("{PREFIX}{name}"), Fault::Missing));
        }
    }
    if let Some(content_type) = content_type {
        let refused = |fault| CloudEventProblem::header("content-type", fault);
        check_known("datacontenttype", content_type).map_err(refused)?;
        event.datacontenttype = Some(content_type.to_owned());
    }
    event.data = read_body(content_type, body).map_err(CloudEventProblem::data)?;
    Ok(event)
}

/// Whether a header is an attribute.
fn is_attribute(header: &str) -> bool {
    header.get(..PREFIX.len()).is_some_and(|head| head.eq_ignore_ascii_case(PREFIX))
}

/// The data of a body. Without a media type it is bytes.
fn read_body(content_type: Option<&str>, body: &Bytes) -> Result<Data, Fault> {
    if body.is_empty() {
        return Ok(Data::None);
    }
    let utf8 = content_type.filter(|content_type| is_utf8(content_type));
    if utf8.is_some_and(declares_json) {
        is_json_text(body)?;
        return Ok(Data::Json(body.clone()));
    }
    match str::from_utf8(body) {
        Ok(text) if utf8.is_some_and(declares_text) => Ok(Data::Text(text.to_owned())),
        Ok(_) | Err(_) => Ok(Data::Binary(body.clone())),
    }
}

/// A header's value as text: first quotes, then percent-encoding, each once (section 3.1.3.2).
fn decode(value: &[u8]) -> Result<String, Fault> {
    if !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        return Err(Fault::NotAscii);
    }
    let unquoted = unquote(value.trim_ascii())?;
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut bytes = unquoted.into_iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or(Fault::Percent)?;
                u8::try_from(high * 16 + low).map_err(|_| Fault::Percent)?
            }
            _ => byte,
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| Fault::Utf8)
}

/// The value without its quotes, in which a backslash stands before a character that is meant as it is
/// (RFC 7230 section 3.2.6).
fn unquote(value: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => out.push(bytes.next().ok_or(Fault::Quote)?),
            _ => out.push(byte),
        }
    }
    if quoted { Err(Fault::Quote) } else { Ok(out) }
}

/// A text as the value of a header: what is not printable ASCII, blanks, quotes and percent signs are
/// percent-encoded.
fn encode(text: &str) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => out.extend(['%', digit(byte >> 4), digit(byte & 15)]),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.extend(['%', digit(byte >> 4), digit(byte & 15)]),
        }
    }
    out
}

impl CloudEvent {
    /// The event as in binary mode. Data that is JSON because nobody said otherwise is named as JSON.
    pub fn to_headers(&self) -> BinaryMessage {
        let mut headers = vec![(format!("{PREFIX}specversion"), SPEC_VERSION.to_owned())];
        let mut add = |name: &str, value: &str| headers.push((format!("{PREFIX}{name}"), encode(value)));
        add("id", &self.id);
        add("source", &self.source);
        add("type", &self.event_type);
        for (name, value) in
            [("subject", &self.subject), ("time", &self.time), ("dataschema", &self.dataschema)]
        {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, value) in &self.extensions {
            add(name, &value.as_text());
        }
        let (implied, body) = match &self.data {
            Data::None => (None, Bytes::new()),
            Data::Json(json) => (Some(JSON), json.clone()),
            Data::Text(text) => (None, Bytes::copy_from_slice(text.as_bytes())),
            Data::Binary(bytes) => (None, bytes.clone()),
        };
        let content_type = self.datacontenttype.as_deref().or(implied).map(str::to_owned);
        BinaryMessage { headers, content_type, body }
    }
}
