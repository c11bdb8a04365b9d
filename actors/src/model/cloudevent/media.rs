//! Media types: which mode a request is in, and which data is JSON or text.

/// How an event travels over HTTP (HTTP binding section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One event in the body, as JSON.
    Structured,
    /// A list of events in the body, as JSON.
    Batch,
    /// Attributes in headers, data in the body.
    Binary,
    /// One or more events in the body in a format that nobody here reads, such as Avro.
    Unknown,
}

/// The mode that a `Content-Type` announces. Case does not matter.
pub fn mode(content_type: Option<&str>) -> Mode {
    let essence = essence(content_type.unwrap_or_default());
    let rest = |prefix: &str| {
        let head = essence.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix));
        head.and_then(|_| essence.get(prefix.len()..))
    };
    let (mode, format) = match (rest("application/cloudevents-batch"), rest("application/cloudevents")) {
        (Some(format), _) => (Mode::Batch, format),
        (None, Some(format)) => (Mode::Structured, format),
        (None, None) => return Mode::Binary,
    };
    // Without a format, it can only be the one that everybody must know.
    if format.is_empty() || format.eq_ignore_ascii_case("+json") { mode } else { Mode::Unknown }
}

/// Whether data of this media type is JSON: its subtype is `json`, or ends with `+json` (JSON format section
/// 3.1.1).
pub fn declares_json(media_type: &str) -> bool {
    let Some((_, subtype)) = essence(media_type).split_once('/') else { return false };
    has_format(subtype, "json")
}

/// Whether data of this media type is text, which can stand in JSON as a string. What is not known to be
/// text is taken as bytes.
pub(super) fn declares_text(media_type: &str) -> bool {
    let Some((kind, subtype)) = essence(media_type).split_once('/') else { return false };
    kind.eq_ignore_ascii_case("text") || has_format(subtype, "xml")
}

/// Whether text or JSON of this media type is in UTF-8, as both are when nobody says otherwise.
pub(super) fn is_utf8(media_type: &str) -> bool {
    let known =
        |name: &str| ["utf-8", "utf8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known));
    parameter(media_type, "charset").is_none_or(known)
}

/// A media type that can be written into a header: `type/subtype`, and parameters.
pub(super) fn is_media_type(text: &str) -> bool {
    let Some((kind, subtype)) = essence(text).split_once('/') else { return false };
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    is_token(kind) && is_token(subtype) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// RFC 9110 section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t'])
}

fn has_format(subtype: &str, format: &str) -> bool {
    let tail = subtype.rsplit('+').next().unwrap_or_default();
    tail.eq_ignore_ascii_case(format)
}

fn parameter<'m>(media_type: &'m str, name: &str) -> Option<&'m str> {
    media_type.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}
