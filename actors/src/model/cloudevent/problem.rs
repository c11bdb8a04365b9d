//! Why something is not a CloudEvent, and where.

use std::fmt;

use super::attributes::{MAX_ATTRIBUTES, MAX_NAME, MAX_VALUE};

/// What is wrong, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEventProblem {
    /// Which event of a batch, from 0.
    pub index: Option<usize>,
    /// Which part of it.
    pub part: Part,
    /// What is wrong with the part.
    pub fault: Fault,
}

/// A part of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The whole.
    Event,
    /// An attribute by its name, cut where it is long.
    Attribute(String),
    /// A header by its name, cut where it is long.
    Header(String),
    /// The data: `data`, `data_base64`, or the body in binary mode.
    Data,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not JSON; the parser's words.
    #[error("not valid JSON: {0}")]
    Json(String),
    /// JSON, but not an object.
    #[error("an event is a JSON object")]
    NotAnObject,
    /// JSON, but not an array.
    #[error("a batch is a JSON array of events")]
    NotAnArray,
    /// A batch of more events than allowed.
    #[error("a batch has at most {0} events")]
    TooManyEvents(usize),
    /// A required attribute that is not there, or null.
    #[error("is required")]
    Missing,
    /// Empty, where that is not allowed.
    #[error("must not be empty")]
    Empty,
    /// A name that stands twice.
    #[error("stands twice")]
    Twice,
    /// A name that is not made of lower-case letters and digits.
    #[error("the name of an attribute has only lower-case letters a to z and digits")]
    Name,
    /// A name that attributes cannot have.
    #[error("no attribute can have this name")]
    Reserved,
    /// More than [`MAX_NAME`].
    #[error("the name of an attribute has at most {MAX_NAME} characters")]
    NameTooLong,
    /// More than [`MAX_VALUE`].
    #[error("the value of an attribute has at most {MAX_VALUE} bytes, this one has {0}")]
    ValueTooLong(usize),
    /// More than [`MAX_ATTRIBUTES`].
    #[error("an event has at most {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
    /// A version other than `1.0`.
    #[error("only version `1.0` is known")]
    Version,
    /// A value that must be text.
    #[error("must be a text")]
    NotText,
    /// An extension that is an array, an object, or a number that is not whole or too large.
    #[error("an extension is a text, true, false, or a whole number from -2147483648 to 2147483647")]
    NotScalar,
    /// A character that no text of an event can have.
    #[error("has the character U+{:04X}, which is a control character or no character", u32::from(*.0))]
    Character(char),
    /// Half of a surrogate pair, or what else JSON can write and Unicode cannot.
    #[error("is not Unicode text")]
    Unicode,
    /// Not a URI reference (RFC 3986 section 4.1).
    #[error("is not a URI reference (RFC 3986)")]
    UriReference,
    /// Not a URI with a scheme (RFC 3986 section 3).
    #[error("is not a URI with a scheme (RFC 3986)")]
    Uri,
    /// Not a time (RFC 3339).
    #[error("is not a time as in `2026-01-31T08:30:00Z` (RFC 3339)")]
    Time,
    /// Not a media type (RFC 2046).
    #[error("is not a media type as in `application/json` (RFC 2046)")]
    MediaType,
    /// Both `data` and `data_base64`.
    #[error("`data` and `data_base64` exclude each other")]
    TwoData,
    /// Not Base64 (RFC 4648 section 4, with padding).
    #[error("`data_base64` is not Base64")]
    Base64,
    /// Data that is no text, of a media type that is not JSON.
    #[error("`data` must be a text, because `datacontenttype` does not say that it is JSON")]
    DataNotText,
    /// Text, of a media type that is JSON.
    #[error("must be JSON, because `datacontenttype` says so, or is not there")]
    DataNotJson,
    /// A header that must not be there.
    #[error("must not be there: `Content-Type` says what the data is")]
    ContentTypeTwice,
    /// A header with bytes other than printable ASCII.
    #[error("has bytes that are not printable ASCII; write them as `%` and two hexadecimal digits")]
    NotAscii,
    /// A quote that is not closed.
    #[error("has a quote that is not closed")]
    Quote,
    /// A `%` without two hexadecimal digits.
    #[error("has a `%` that is not followed by two hexadecimal digits")]
    Percent,
    /// Percent-encoded bytes that are not UTF-8.
    #[error("is not UTF-8 once it is decoded")]
    Utf8,
}

impl CloudEventProblem {
    pub(super) fn event(fault: Fault) -> Self {
        Self { index: None, part: Part::Event, fault }
    }

    pub(super) fn attribute(name: &str, fault: Fault) -> Self {
        Self { index: None, part: Part::Attribute(cut(name)), fault }
    }

    pub(super) fn header(name: &str, fault: Fault) -> Self {
        Self { index: None, part: Part::Header(cut(name)), fault }
    }

    pub(super) fn data(fault: Fault) -> Self {
        Self { index: None, part: Part::Data, fault }
    }

    pub(super) fn at(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }
}

/// A name as a message shows it: what came may be of any length.
fn cut(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

impl std::error::Error for CloudEventProblem {}

impl fmt::Display for CloudEventProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "event {index}: ")?;
        }
        match &self.part {
            Part::Event => {}
            Part::Attribute(name) => write!(f, "attribute `{name}`: ")?,
            Part::Header(name) => write!(f, "header `{name}`: ")?,
            Part::Data => f.write_str("data: ")?,
        }
        self.fault.fmt(f)
    }
}
