//! What a record says, and what it must never say.
//!
//! Invariant: a record holds names that the process knows, numbers and digests. The few texts that somebody chose
//! are cut to a length, and what looks like a secret in them is blotted out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::policy::keys::PREFIX;
use serde::{Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longest text that somebody chose, in characters.
const TEXT_MAX: usize = 256;
/// Most bytes of `before`, `after` or `asked`; what is longer is there as its digest.
const VALUE_MAX: usize = 2 * 1024;
/// What keys, tokens and signing keys begin with.
const SECRETS: [&str; 4] = [PREFIX, "whsec_", "whsk_", "eyJ"];
/// What such a beginning needs behind it to be one.
const SECRET_MIN: usize = 12;
/// What stands for a secret.
const BLOT: &str = "***";

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Whoever has the admin token.
    Operator,
    /// Somebody on a listener who is not, or not yet, known.
    Caller,
    /// A tenant with a valid credential.
    Tenant,
    /// The process itself.
    #[default]
    Process,
}

/// How far a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is about to be made. A crash may leave it at that.
    Begun,
    /// It was made.
    Done,
    /// It was not made: see `code`.
    Refused,
    /// It may or may not have been made, or only a part of it: see `code`.
    Failed,
}

/// One record, before it has a number, a time and a place in the chain. What is `None` is not written.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// Who.
    pub actor: Actor,
    /// What, as `key.rotate`.
    pub action: &'static str,
    /// How far it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Number of the record that says that it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// The tenant that called.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "tenant")]
    pub tenant: Option<TenantId>,
    /// Id of the grant that it called with; never the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Name>,
    /// The API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<Name>,
    /// The operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Name>,
    /// Status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Stable code of the refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Time to the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Bytes of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Bytes of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Id of the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Where old files are taken away: the last record in them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<u64>,
    /// The hash of that record's line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// What was asked for, as far as `target` does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Value>,
    /// How it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// How it is now, or what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn tenant<S: Serializer>(tenant: &Option<TenantId>, out: S) -> Result<S::Ok, S::Error> {
    tenant.as_ref().map(TenantId::as_str).serialize(out)
}

impl Record {
    /// The record as JSON without its first brace, on one line, with every character that could mislead a reader as
    /// an escape.
    pub(super) fn body(&self) -> String {
        let mut record = Cow::Borrowed(self);
        if record.target.is_some()
            || record.asked.is_some()
            || record.before.is_some()
            || record.after.is_some()
        {
            let record = record.to_mut();
            record.target = record.target.as_deref().map(redacted);
            for value in [&mut record.asked, &mut record.before, &mut record.after] {
                *value = value.take().map(tidied);
            }
        }
        // Names, numbers and texts always have a JSON form.
        let text = serde_json::to_string(&*record).unwrap_or_default();
        escaped(text.strip_prefix('{').unwrap_or_default())
    }
}

/// A text that somebody chose, cut, and with what looks like a secret blotted out.
pub fn redacted(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.+/=".contains(c);
    let text = text.char_indices().nth(TEXT_MAX).map_or(text, |(end, _)| text.get(..end).unwrap_or_default());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let (found, behind) = rest.split_at_checked(word).unwrap_or((rest, ""));
        out.push_str(&unsecret(found));
        let gap = behind.find(is_word).unwrap_or(behind.len());
        let (between, behind) = behind.split_at_checked(gap).unwrap_or((behind, ""));
        out.push_str(between);
        rest = behind;
    }
    out
}

/// A word without the secret in it.
fn unsecret(word: &str) -> Cow<'_, str> {
    let starts = SECRETS.iter().filter_map(|begin| word.find(begin));
    match starts.min() {
        Some(at) if word.len() - at >= SECRET_MIN => {
            Cow::Owned(format!("{}{BLOT}", word.get(..at).unwrap_or_default()))
        }
        Some(_) | None => Cow::Borrowed(word),
    }
}

/// A value with every text in it redacted, or its digest where it is too long.
fn tidied(value: Value) -> Value {
    let length = serde_json::to_string(&value).map_or(0, |text| text.len());
    if length > VALUE_MAX {
        return Value::String(digest(value.to_string().as_bytes()));
    }
    redact(value)
}

fn redact(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redacted(&text)),
        Value::Array(items) => items.into_iter().map(redact).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(name, value)| (redacted(&name), redact(value))).collect::<Value>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// `sha256:` and the digest.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    text.push_str(&hex(&Sha256::digest(bytes)));
    text
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

/// JSON on which no terminal and no viewer shows anything else than what is there: control characters of all kinds,
/// separators of lines, what turns the direction of text, and what is not seen are written as `\u` and four digits. JSON itself
/// only asks for the first 32 (RFC 8259 section 7).
fn escaped(json: &str) -> String {
    let misleads = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
    };
    if !json.chars().any(misleads) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if misleads(c) {
            write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    out
}
