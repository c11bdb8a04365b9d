//! A document's JSON: checked once at the edge, kept as the bytes that came, shown with its
//! system properties.
//!
//! Invariant: what is stored is one valid JSON object with an `id`, without system properties.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::address::{InvalidPartitionKey, KeyPart};
use super::ids::{DocumentId, Etag, InvalidDocumentId, Lsn};
use super::time::Timestamp;

/// Properties that the store owns; a client's own values for them are ignored.
pub const SYSTEM_PROPERTIES: [&str; 6] = ["_etag", "_ts", "_lsn", "_rid", "_self", "_attachments"];

/// What a container asks of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRules {
    /// Where each part of the partition key stands, one to three.
    pub key: Vec<KeyPath>,
    /// Longest document, in bytes.
    pub max_bytes: usize,
    /// Deepest nesting of objects and arrays; at most 128, where the parser itself stops.
    pub max_depth: usize,
}

/// Where one part of a partition key stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyPath {
    /// Property names from the root.
    pub path: Vec<String>,
    /// The part is the value's bucket among so many, not the value itself.
    pub buckets: Option<NonZeroU16>,
}

impl KeyPath {
    /// A part that is the value at `path`.
    pub fn property(path: Vec<String>) -> Self {
        Self { path, buckets: None }
    }

    /// The part that a document with this value at the path has.
    pub fn part(&self, value: KeyPart) -> KeyPart {
        match self.buckets {
            None => value,
            Some(buckets) => value.bucket(buckets),
        }
    }

    /// Whether the part follows from the document's id alone.
    pub fn is_bucket_of_id(&self) -> bool {
        self.buckets.is_some() && self.path.len() == 1 && self.path.first().is_some_and(|name| name == "id")
    }
}

/// Why a body cannot be a document.
#[derive(Debug, thiserror::Error)]
pub enum InvalidDocument {
    /// More than [`DocumentRules::max_bytes`].
    #[error("the document has {bytes} bytes, the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Not JSON, or a number or a string that JSON cannot carry.
    #[error("not valid JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// JSON, but not an object.
    #[error("a document is a JSON object")]
    NotAnObject,
    /// Nested deeper than [`DocumentRules::max_depth`].
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// The same property twice in one object that the store reads.
    #[error("property `{0}` stands twice")]
    DuplicateProperty(String),
    /// An `id` that is not a string.
    #[error("`id` must be a string")]
    IdType,
    /// An `id` that breaks the rules of ids.
    #[error("{0}")]
    Id(#[from] InvalidDocumentId),
    /// A partition key that breaks the rules of keys.
    #[error("{0}")]
    PartitionKey(#[from] InvalidPartitionKey),
}

/// A body that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDocument {
    /// The document's id.
    pub id: DocumentId,
    /// The partition key that the body carries, one part for each path.
    pub key: Vec<KeyPart>,
    /// The JSON object that is stored.
    pub body: Bytes,
    /// Its property `ttl`, if it has one.
    pub ttl: Option<Value>,
    /// How many properties it has.
    pub properties: usize,
}

/// Checks `body` against `rules`. Where it has no `id`, `make_id` gives one, and it is added.
///
/// # Errors
/// [`InvalidDocument`] says what is wrong; nothing is kept of a refused body.
pub fn parse(
    body: &Bytes,
    rules: &DocumentRules,
    make_id: impl FnOnce() -> DocumentId,
) -> Result<NewDocument, InvalidDocument> {
    if body.len() > rules.max_bytes {
        return Err(InvalidDocument::TooLarge { bytes: body.len(), limit: rules.max_bytes });
    }
    let properties = object(body)?;
    let mut given = None;
    for (name, value) in &properties {
        check(value, rules.max_depth)?;
        if name == "id" {
            given = Some(value);
        }
    }
    let (id, missing) = match given {
        Some(raw) => {
            let text: Cow<'_, str> = serde_json::from_str(raw.get()).map_err(|_| InvalidDocument::IdType)?;
            (DocumentId::new(&text)?, false)
        }
        None => (make_id(), true),
    };
    let key_part = |path: &KeyPath| {
        let at_id = missing && path.path.first().is_some_and(|name| name == "id") && path.path.len() == 1;
        let value = if at_id { KeyPart::string(id.as_str())? } else { key_at(&properties, &path.path)? };
        Ok::<_, InvalidDocument>(path.part(value))
    };
    let key = rules.key.iter().map(key_part).collect::<Result<Vec<_>, _>>()?;
    let ttl = properties.iter().find(|(name, _)| name == "ttl");
    let ttl = ttl.map(|(_, raw)| serde_json::from_str(raw.get())).transpose().map_err(unreadable)?;
    let foreign = properties.iter().any(|(name, _)| SYSTEM_PROPERTIES.contains(&name.as_ref()));
    let body = if missing || foreign { rebuild(&properties, missing.then_some(&id)) } else { trimmed(body) };
    if body.len() > rules.max_bytes {
        return Err(InvalidDocument::TooLarge { bytes: body.len(), limit: rules.max_bytes });
    }
    Ok(NewDocument { id, key, body, ttl, properties: properties.len() })
}

/// The document as clients see it: `body` with `_etag`, `_ts` and `_lsn` at its end.
pub fn render(body: &[u8], etag: Etag, at: Timestamp, lsn: Lsn, out: &mut Vec<u8>) {
    use std::io::Write;
    let open = body.strip_suffix(b"}").unwrap_or(body);
    out.reserve(open.len() + 96);
    out.extend_from_slice(open);
    let comma = if open.trim_ascii_end().ends_with(b"{") { "" } else { "," };
    let tag = etag.to_string();
    let tag = tag.trim_matches('"');
    // Writing to a vector cannot fail.
    write!(out, "{comma}\"_etag\":\"\\\"{tag}\\\"\",\"_ts\":{},\"_lsn\":{lsn}}}", at.seconds()).ok();
}

/// Reads a stored document whole. The parser by itself stops one level short of what is accepted; the
/// properties of a document that goes that deep are read one by one.
///
/// # Errors
/// [`InvalidDocument`] where it is no JSON object.
pub fn read(body: &[u8]) -> Result<Value, InvalidDocument> {
    let unread = match serde_json::from_slice(body) {
        Ok(document) => return Ok(document),
        Err(error) => unreadable(error),
    };
    let InvalidDocument::TooDeep(_) = unread else { return Err(unread) };
    let value = |(name, raw): (Cow<'_, str>, &RawValue)| {
        let value = serde_json::from_str(raw.get()).map_err(unreadable)?;
        Ok((name.into_owned(), value))
    };
    object(body)?.into_iter().map(value).collect::<Result<serde_json::Map<_, _>, _>>().map(Value::Object)
}

/// The parser has a nesting limit of its own, and tells of it only in words.
fn unreadable(error: serde_json::Error) -> InvalidDocument {
    const PARSER_DEPTH: usize = 128;
    if error.to_string().starts_with("recursion limit") {
        return InvalidDocument::TooDeep(PARSER_DEPTH);
    }
    InvalidDocument::Json(error)
}

type Properties<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Splits one object into its properties, without looking into them.
fn object(json: &[u8]) -> Result<Properties<'_>, InvalidDocument> {
    if !json.trim_ascii_start().starts_with(b"{") {
        // A broken document is reported as broken, not as "not an object".
        serde_json::from_slice::<de::IgnoredAny>(json).map_err(unreadable)?;
        return Err(InvalidDocument::NotAnObject);
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let properties = reader.deserialize_map(Split).map_err(unreadable)?;
    reader.end().map_err(unreadable)?;
    let mut names: Vec<&str> = properties.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first());
    match twice {
        Some(name) => Err(InvalidDocument::DuplicateProperty(name.chars().take(64).collect())),
        None => Ok(properties),
    }
}

struct Split;

impl<'de> Visitor<'de> for Split {
    type Value = Properties<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut properties = Vec::with_capacity(16);
        while let Some(Key(name)) = map.next_key()? {
            properties.push((name, map.next_value::<&RawValue>()?));
        }
        Ok(properties)
    }
}

/// A property's name, borrowed from the body unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> de::Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a property name")
            }
            fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(v.to_owned()))
            }
        }
        deserializer.deserialize_str(Name).map(Self)
    }
}

fn key_at(properties: &Properties<'_>, path: &[String]) -> Result<KeyPart, InvalidDocument> {
    let Some((first, rest)) = path.split_first() else { return Ok(KeyPart::Undefined) };
    let Some((_, raw)) = properties.iter().find(|(name, _)| name == first) else {
        return Ok(KeyPart::Undefined);
    };
    if rest.is_empty() {
        let value: Value = serde_json::from_str(raw.get()).map_err(unreadable)?;
        return Ok(KeyPart::from_json(&value)?);
    }
    if !raw.get().starts_with('{') {
        return Ok(KeyPart::Undefined);
    }
    key_at(&object(raw.get().as_bytes())?, rest)
}

fn rebuild(properties: &Properties<'_>, add: Option<&DocumentId>) -> Bytes {
    let mut out = String::from("{");
    let mut push = |name: &str, value: &str| {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        out.push_str(value);
    };
    if let Some(id) = add {
        push("id", &Value::from(id.as_str()).to_string());
    }
    for (name, value) in properties {
        if !SYSTEM_PROPERTIES.contains(&name.as_ref()) {
            push(name, value.get());
        }
    }
    out.push('}');
    out.into()
}

fn trimmed(body: &Bytes) -> Bytes {
    let trimmed = body.trim_ascii();
    if trimmed.len() == body.len() { body.clone() } else { body.slice_ref(trimmed) }
}

/// Walks a value: numbers must fit a double, strings must be Unicode, nesting is bounded.
/// (Splitting an object only skips over its values, so this is where they are read.)
fn check(raw: &RawValue, max_depth: usize) -> Result<(), InvalidDocument> {
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    let mut too_deep = false;
    // The value already stands one level deep, inside the document itself.
    let walk = Walk { left: max_depth.saturating_sub(1), too_deep: &mut too_deep };
    match walk.deserialize(&mut reader) {
        Ok(()) => Ok(()),
        Err(_) if too_deep => Err(InvalidDocument::TooDeep(max_depth)),
        Err(error) => Err(unreadable(error)),
    }
}

struct Walk<'a> {
    left: usize,
    too_deep: &'a mut bool,
}

impl Walk<'_> {
    fn deeper<E: de::Error>(&mut self) -> Result<Walk<'_>, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Walk { left, too_deep: self.too_deep }),
            None => {
                *self.too_deep = true;
                Err(E::custom("too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut walk = self.deeper()?;
        while seq.next_element_seed(Walk { left: walk.left, too_deep: walk.too_deep })?.is_some() {
            walk = Walk { left: walk.left, too_deep: walk.too_deep };
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut walk = self.deeper()?;
        while map.next_key::<Key<'_>>()?.is_some() {
            map.next_value_seed(Walk { left: walk.left, too_deep: walk.too_deep })?;
            walk = Walk { left: walk.left, too_deep: walk.too_deep };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::{Position, ShardId};
    use super::*;

    fn rules() -> DocumentRules {
        DocumentRules { key: vec![KeyPath::property(vec!["lane".into()])], max_bytes: 4_096, max_depth: 128 }
    }

    fn made() -> DocumentId {
        DocumentId::new("made").unwrap()
    }

    fn parsed(text: &str) -> Result<NewDocument, InvalidDocument> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &rules(), made)
    }

    #[test]
    fn a_document_is_kept_as_it_came() {
        let text = "{\"b\" : 1.0, \"id\":\"x\", \"lane\":\"A-B\", \"a\":[1e2, 12345678901234567890]}";
        let document = parsed(&format!("  {text}\n")).unwrap();
        assert_eq!(document.body, text.as_bytes());
        assert_eq!(document.id.as_str(), "x");
        assert_eq!(document.key, vec![KeyPart::String("A-B".into())]);
    }

    #[test]
    fn a_missing_id_is_added_and_system_properties_are_dropped() {
        let document = parsed(r#"{"lane":null,"_etag":"mine","_ts":{"x":1},"q\"":2}"#).unwrap();
        assert_eq!(document.body, r#"{"id":"made","lane":null,"q\"":2}"#.as_bytes());
        assert_eq!(document.key, vec![KeyPart::Null]);
        assert_eq!(parsed("{}").unwrap().key, vec![KeyPart::Undefined]);
    }

    #[test]
    fn a_bucket_is_the_same_for_the_same_value_and_spreads_over_all() {
        let buckets = |path: &str| KeyPath { path: vec![path.into()], buckets: NonZeroU16::new(16) };
        let rules = DocumentRules { key: vec![buckets("id")], ..rules() };
        let key = |text: String| parse(&Bytes::from(text), &rules, made).unwrap().key;
        assert_eq!(key("{}".into()), key(r#"{"id":"made"}"#.into()));
        let mut seen = [0; 16];
        for n in 0..1_600 {
            let [KeyPart::Number(bucket)] = key(format!("{{\"id\":\"{n}\"}}"))[..] else { panic!() };
            seen[bucket as usize] += 1;
        }
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
    }

    #[test]
    fn bad_bodies_are_refused_with_their_reason() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
        for (text, reason) in [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("[1]", "a document is a JSON object"),
            ("3", "a document is a JSON object"),
            (r#"{"a":1e999}"#, "not valid JSON"),
            (r#"{"a":"\ud800"}"#, "not valid JSON"),
            (r#"{"a":1} {}"#, "not valid JSON"),
            (r#"{"id":7}"#, "`id` must be a string"),
            (r#"{"id":"a/b"}"#, "must not contain `/`"),
            (r#"{"id":"a\u0000b"}"#, "must not contain"),
            (r#"{"lane":{}}"#, "a partition key is a string"),
            (r#"{"id":"a","id":"b"}"#, "stands twice"),
            (&deep, "nested deeper than 128"),
            (&format!("{{\"a\":\"{}\"}}", "x".repeat(4_096)), "the limit is 4096"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_is_counted_from_the_document_itself() {
        let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        let shallow = DocumentRules { max_depth: 3, ..rules() };
        let try_parse = |text: String| parse(&Bytes::from(text), &shallow, made);
        assert!(try_parse(nested(2)).is_ok());
        assert!(matches!(try_parse(nested(3)), Err(InvalidDocument::TooDeep(3))));
    }

    #[test]
    fn what_is_accepted_can_be_read_again() {
        for levels in [1, 126, 127] {
            let text = format!("{{\"id\":\"a\",\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
            let accepted = parsed(&text).unwrap();
            let value = read(&accepted.body).unwrap();
            assert_eq!(value.to_string(), text);
        }
        for text in ["", "{", "{\"a\":1}}"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rendered_document_is_json_with_its_system_properties() {
        let position = Position { shard: ShardId(1), lsn: Lsn(26) };
        for body in ["{}", "{ }", r#"{"id":"x"}"#] {
            let mut out = Vec::new();
            render(body.as_bytes(), Etag(position), Timestamp(5_000), Lsn(26), &mut out);
            let value: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["_etag"], "\"1-1a\"");
            assert_eq!(value["_ts"], 5);
            assert_eq!(value["_lsn"], 26);
        }
    }
}
