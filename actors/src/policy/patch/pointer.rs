//! A path into a document: JSON Pointer (RFC 6901).
//!
//! Invariant: a pointer is kept as the names it goes through, so that two spellings of one place are
//! one pointer, and nobody compares escaped text.

use std::fmt;

use serde_json::Value;

/// A place in a document. The empty pointer is the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pointer(Vec<String>);

/// A text that is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    /// Neither empty nor absolute.
    #[error("a path begins with `/`, for instance `/address/city`; `{0}` does not")]
    Start(String),
    /// `~` that is neither `~0` nor `~1`.
    #[error("in the path `{0}`, `~` must be written `~0`, and a `/` inside of a name `~1`")]
    Escape(String),
}

impl Pointer {
    /// Reads a pointer (RFC 6901 section 3).
    pub fn parse(text: &str) -> Result<Self, InvalidPointer> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let names = text.strip_prefix('/').ok_or_else(|| InvalidPointer::Start(clip(text)))?;
        let names = names.split('/').map(unescape).collect::<Option<Vec<_>>>();
        names.map(Self).ok_or_else(|| InvalidPointer::Escape(clip(text)))
    }

    /// Names and indexes from the document down.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The value at this place, if there is one.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, name| child(value, name))
    }

    /// Whether `other` is this place or lies below it.
    pub fn is_above(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Whether writing here changes the property at `path`, or writing there changes what is here.
    pub fn touches<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.0.iter().zip(path).all(|(name, other)| name == other.as_ref())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// An index of an array: digits without leading zeros (RFC 6901 section 4).
pub(super) fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|b| b.is_ascii_digit());
    let leading = name.len() > 1 && name.starts_with('0');
    if digits && !leading { name.parse().ok() } else { None }
}

/// Enough of a text for its owner to know it again.
pub(super) fn clip(text: &str) -> String {
    const SHOWN: usize = 128;
    text.chars().take(SHOWN).collect()
}

fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(properties) => properties.get(name),
        Value::Array(items) => items.get(index(name)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '~' => match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_found() {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6,
            " ": 7, "m~n": 8
        });
        for (text, value) in [
            ("", document.clone()),
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/g|h", json!(4)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ] {
            let pointer = Pointer::parse(text).unwrap();
            assert_eq!(pointer.find(&document), Some(&value), "{text}");
            assert_eq!(pointer.to_string(), text);
        }
        for text in ["/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/bar", "/nowhere", "//x", "/foo/0/x"] {
            assert_eq!(Pointer::parse(text).unwrap().find(&document), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "#/a", " /a", "a/b"] {
            assert!(matches!(Pointer::parse(text), Err(InvalidPointer::Start(_))), "{text}");
        }
        for text in ["/~", "/a~", "/~2", "/a/~01~x"] {
            assert!(matches!(Pointer::parse(text), Err(InvalidPointer::Escape(_))), "{text}");
        }
        assert_eq!(Pointer::parse("/~01").unwrap().names(), ["~1"]);
    }

    #[test]
    fn an_index_has_one_spelling() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10", Some(10)),
            ("01", None),
            ("-1", None),
            ("-", None),
            ("", None),
            ("1e0", None),
            ("\u{661}", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(index(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pointer_survives_its_text(names in proptest::collection::vec("[a-z~/01é ]{0,4}", 0..5)) {
            let pointer = Pointer(names);
            prop_assert_eq!(Pointer::parse(&pointer.to_string()).unwrap(), pointer);
        }
    }
}
