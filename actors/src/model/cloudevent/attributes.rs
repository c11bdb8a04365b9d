//! The rules that attributes keep, whatever mode they came in (CloudEvents section 3).

use super::media::is_media_type;
use super::uri::{is_uri, is_uri_reference};
use super::{CloudEvent, CloudEventProblem, Data, Extension, Fault, declares_json};

/// Attributes of one event. In binary mode each is a header, and many servers take a hundred headers.
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest name of an attribute. The specification recommends 20, so this refuses no name that is meant.
pub const MAX_NAME: usize = 64;
/// Longest value of an attribute, in bytes. In binary mode it is a header, and many servers take no longer
/// line than this.
pub const MAX_VALUE: usize = 8_192;

/// The attributes of the specification; every other one is an extension. The first [`REQUIRED`] are required.
pub(super) const KNOWN: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
/// How many of [`KNOWN`] no event is without.
pub(super) const REQUIRED: usize = 4;

impl CloudEvent {
    /// Whether the event obeys the specification. What was parsed does; whoever made one by hand of what
    /// came from outside asks here.
    ///
    /// # Errors
    /// [`CloudEventProblem`] is the first thing that is wrong.
    pub fn check(&self) -> Result<(), CloudEventProblem> {
        let required = [("id", &self.id), ("source", &self.source), ("type", &self.event_type)];
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        for (name, value) in required.into_iter().chain(optional) {
            check_known(name, value).map_err(|fault| CloudEventProblem::attribute(name, fault))?;
        }
        for (place, (name, value)) in self.extensions.iter().enumerate() {
            let twice = self.extensions.iter().take(place).any(|(other, _)| other == name);
            let fault = if twice { Err(Fault::Twice) } else { check_extension(name, value) };
            fault.map_err(|fault| CloudEventProblem::attribute(name, fault))?;
        }
        check_count(self.count())?;
        self.check_data().map_err(CloudEventProblem::data)
    }

    /// Sets an attribute of [`KNOWN`]; the version is always the same.
    pub(super) fn set_known(&mut self, name: &str, value: String) {
        match name {
            "id" => self.id = value,
            "source" => self.source = value,
            "type" => self.event_type = value,
            "subject" => self.subject = Some(value),
            "time" => self.time = Some(value),
            "datacontenttype" => self.datacontenttype = Some(value),
            "dataschema" => self.dataschema = Some(value),
            _ => {}
        }
    }

    fn count(&self) -> usize {
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        REQUIRED + optional.into_iter().flatten().count() + self.extensions.len()
    }

    /// Whether the data is what its media type says, as far as a mode depends on it.
    fn check_data(&self) -> Result<(), Fault> {
        let is_json = self.datacontenttype.as_deref().is_none_or(declares_json);
        match &self.data {
            Data::Json(json) if is_json => is_json_text(json),
            Data::Json(_) => Err(Fault::DataNotText),
            Data::Text(_) if is_json => Err(Fault::DataNotJson),
            Data::Text(_) | Data::Binary(_) | Data::None => Ok(()),
        }
    }
}

pub(super) fn check_count(attributes: usize) -> Result<(), CloudEventProblem> {
    if attributes > MAX_ATTRIBUTES {
        return Err(CloudEventProblem::event(Fault::TooManyAttributes));
    }
    Ok(())
}

/// Whether bytes are one JSON text in UTF-8.
pub(super) fn is_json_text(bytes: &[u8]) -> Result<(), Fault> {
    let text = str::from_utf8(bytes).map_err(|error| Fault::Json(error.to_string()))?;
    let parsed = serde_json::from_str::<&serde_json::value::RawValue>(text);
    parsed.map(|_| ()).map_err(|error| Fault::Json(error.to_string()))
}

/// The value of an attribute of [`KNOWN`].
pub(super) fn check_known(name: &str, value: &str) -> Result<(), Fault> {
    if value.is_empty() {
        return Err(Fault::Empty);
    }
    check_text(value)?;
    match name {
        "specversion" if value != super::SPEC_VERSION => Err(Fault::Version),
        "source" if !is_uri_reference(value) => Err(Fault::UriReference),
        "dataschema" if !is_uri(value) => Err(Fault::Uri),
        "time" if !is_time(value) => Err(Fault::Time),
        "datacontenttype" if !is_media_type(value) => Err(Fault::MediaType),
        _ => Ok(()),
    }
}

fn check_extension(name: &str, value: &Extension) -> Result<(), Fault> {
    check_name(name)?;
    if KNOWN.contains(&name) {
        return Err(Fault::Reserved);
    }
    match value {
        Extension::Text(text) => check_text(text),
        Extension::Integer(_) | Extension::Boolean(_) => Ok(()),
    }
}

/// The name of an attribute (section 3.1, attribute naming).
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    if name.len() > MAX_NAME {
        return Err(Fault::NameTooLong);
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(Fault::Name);
    }
    if name == "data" { Err(Fault::Reserved) } else { Ok(()) }
}

/// A value of the type String (section 3.1): no control characters, and no code points that are no
/// characters.
pub(super) fn check_text(text: &str) -> Result<(), Fault> {
    if text.len() > MAX_VALUE {
        return Err(Fault::ValueTooLong(text.len()));
    }
    let is_wrong = |c: char| {
        let point = u32::from(c);
        c.is_control() || matches!(point, 0xFDD0..=0xFDEF) || point & 0xFFFE == 0xFFFE
    };
    match text.chars().find(|c| is_wrong(*c)) {
        Some(c) => Err(Fault::Character(c)),
        None => Ok(()),
    }
}

/// Whether a text is a time of RFC 3339 section 5.6, on a day that there is.
pub(super) fn is_time(text: &str) -> bool {
    parse_time(text.as_bytes()).is_some()
}

fn parse_time(text: &[u8]) -> Option<()> {
    let (year, text) = number(text, 4)?;
    let (month, text) = number(symbol(text, b"-")?, 2)?;
    let (day, text) = number(symbol(text, b"-")?, 2)?;
    let (hour, text) = number(symbol(text, b"Tt")?, 2)?;
    let (minute, text) = number(symbol(text, b":")?, 2)?;
    let (second, mut text) = number(symbol(text, b":")?, 2)?;
    if let Some(fraction) = symbol(text, b".") {
        let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text = fraction.get(digits..).filter(|_| digits > 0)?;
    }
    let zone = match symbol(text, b"Zz") {
        Some(rest) => rest.is_empty(),
        None => {
            let (hours, text) = number(symbol(text, b"+-")?, 2)?;
            let (minutes, text) = number(symbol(text, b":")?, 2)?;
            text.is_empty() && hours < 24 && minutes < 60
        }
    };
    let days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // Second 60 is a leap second.
    (zone && (1..=days).contains(&day) && hour < 24 && minute < 60 && second <= 60).then_some(())
}

/// The number of so many digits at the beginning, and what follows.
fn number(text: &[u8], digits: usize) -> Option<(u32, &[u8])> {
    let (head, rest) = text.split_at_checked(digits)?;
    let number = head
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')));
    Some((number?, rest))
}

/// What follows one of these symbols.
fn symbol<'t>(text: &'t [u8], symbols: &[u8]) -> Option<&'t [u8]> {
    let (first, rest) = text.split_first()?;
    symbols.contains(first).then_some(rest)
}
