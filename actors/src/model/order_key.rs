//! Values as bytes that sort like them: what the keys of indexes are made of.
//!
//! Invariants: the order of the bytes is the order of `ORDER BY` (undefined, null, false, true, numbers,
//! strings, arrays, objects); values that are equal have the same bytes; no key of a value is the
//! beginning of another's, so that keys can be put one behind the other and still sort; a bounded key
//! has at most its limit and [`HASH`] bytes, whatever the value.
//!
//! A string of more than the limit is cut there. So two values whose keys agree up to the limit are in
//! no particular order; all others are. Whoever reads a range of an index asks [`Span`] for its ends,
//! which says when rows must be looked at again.

use serde_json::Value;

use super::address::{STRING_END, escape, sortable};

/// Longest key of one value before it is cut, in bytes. Enough for any id.
pub const MAX_KEY: usize = 1_024;
/// Bytes of the hash that stands for what was cut off.
pub const HASH: usize = 8;

/// Ends an array or an object; less than every class, so that a beginning comes before the whole.
const END: u8 = 0x00;
const UNDEFINED: u8 = 0x01;
const NULL: u8 = 0x02;
const FALSE: u8 = 0x03;
const TRUE: u8 = 0x04;
const NUMBER: u8 = 0x05;
const STRING: u8 = 0x06;
const ARRAY: u8 = 0x07;
const OBJECT: u8 = 0x08;

/// Whether a key was cut, and so stands for more than one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Truncated(pub bool);

/// Appends the key of a value; `None` is *undefined*.
pub fn encode(value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(UNDEFINED),
        Some(Value::Null) => out.push(NULL),
        Some(Value::Bool(false)) => out.push(FALSE),
        Some(Value::Bool(true)) => out.push(TRUE),
        Some(Value::Number(number)) => {
            out.push(NUMBER);
            // Every number of this JSON library is a double, or an integer that becomes one.
            out.extend_from_slice(&sortable(number.as_f64().unwrap_or_default()).to_be_bytes());
        }
        Some(Value::String(text)) => encode_string(text, out),
        Some(Value::Array(items)) => {
            out.push(ARRAY);
            for item in items {
                encode(Some(item), out);
            }
            out.push(END);
        }
        Some(Value::Object(properties)) => {
            out.push(OBJECT);
            let mut properties: Vec<_> = properties.iter().collect();
            properties.sort_unstable_by_key(|(name, _)| name.as_str());
            for (name, value) in properties {
                encode_string(name, out);
                encode(Some(value), out);
            }
            out.push(END);
        }
    }
}

/// Appends the key of a value, cut to `limit` bytes and an XXH3 hash of the whole when it is longer.
pub fn encode_bounded(value: Option<&Value>, limit: usize, out: &mut Vec<u8>) -> Truncated {
    let start = out.len();
    encode(value, out);
    let whole = out.get(start..).unwrap_or_default();
    if whole.len() <= limit {
        return Truncated(false);
    }
    let hash = twox_hash::XxHash3_64::oneshot(whole);
    out.truncate(start + limit);
    out.extend_from_slice(&hash.to_be_bytes());
    Truncated(true)
}

/// Splits what [`encode_bounded`] wrote with the same `limit` from the bytes behind it. `None` when the
/// bytes are no key.
pub fn split(bytes: &[u8], limit: usize) -> Option<(&[u8], &[u8])> {
    let whole = length(bytes.get(..limit).unwrap_or(bytes));
    match whole {
        Some(len) => bytes.split_at_checked(len),
        None => bytes.split_at_checked(limit + HASH),
    }
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first key of the range.
    pub lower: Vec<u8>,
    /// The first key behind it; `None` when the range has no end.
    pub upper: Option<Vec<u8>>,
    /// Whether every key in the range is one of those that were asked for. When not, the range also
    /// holds others, and each row must be looked at.
    pub exact: bool,
}

/// The keys of one value, whatever bytes follow them. A range query of values greater than this one
/// begins at `upper` of an exact span, and else at `lower`; one of lesser values ends at `lower` of
/// an exact span, and else at `upper`.
pub fn span(value: Option<&Value>, limit: usize) -> Span {
    let mut lower = Vec::new();
    encode(value, &mut lower);
    beginning(lower, limit)
}

/// The keys of the strings that begin with `prefix`.
pub fn prefix_range(prefix: &str, limit: usize) -> Span {
    let mut lower = vec![STRING];
    escape(prefix, &mut lower);
    beginning(lower, limit)
}

/// The least bytes that are greater than all that begin with `bytes`; `None` when there are none.
pub fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let kept = bytes.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut next = bytes.get(..=kept)?.to_vec();
    let last = next.last_mut()?;
    *last = last.saturating_add(1);
    Some(next)
}

fn beginning(mut lower: Vec<u8>, limit: usize) -> Span {
    let exact = lower.len() <= limit;
    lower.truncate(limit);
    let upper = successor(&lower);
    Span { lower, upper, exact }
}

fn encode_string(text: &str, out: &mut Vec<u8>) {
    out.push(STRING);
    escape(text, out);
    out.extend_from_slice(&STRING_END);
}

/// Length of the whole key at the front of `bytes`; `None` when it does not end there.
fn length(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut open = 0_usize;
    loop {
        let (&class, after) = rest.split_first()?;
        rest = match class {
            END => {
                open = open.checked_sub(1)?;
                after
            }
            UNDEFINED | NULL | FALSE | TRUE => after,
            NUMBER => after.get(size_of::<u64>()..)?,
            STRING => {
                // An escaped zero is followed by 0xFF, so the first such pair is the end.
                let end = after.windows(STRING_END.len()).position(|pair| pair == STRING_END)?;
                after.get(end + STRING_END.len()..)?
            }
            ARRAY | OBJECT => {
                open += 1;
                after
            }
            _ => return None,
        };
        if open == 0 {
            return Some(bytes.len() - rest.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        encode(Some(value), &mut out);
        out
    }

    fn bounded(value: &Value, limit: usize) -> (Vec<u8>, bool) {
        let mut out = b"before".to_vec();
        let Truncated(cut) = encode_bounded(Some(value), limit, &mut out);
        (out.split_off(6), cut)
    }

    /// The stored form: a change here makes every index on disk wrong.
    #[test]
    fn keys_have_the_bytes_that_they_always_had() {
        let mut undefined = Vec::new();
        encode(None, &mut undefined);
        assert_eq!(undefined, [1]);
        for (value, bytes) in [
            (json!(null), &b"\x02"[..]),
            (json!(false), b"\x03"),
            (json!(true), b"\x04"),
            (json!(0), b"\x05\x80\0\0\0\0\0\0\0"),
            (json!(1), b"\x05\xBF\xF0\0\0\0\0\0\0"),
            (json!(-1), b"\x05\x40\x0F\xFF\xFF\xFF\xFF\xFF\xFF"),
            (json!("a\0b"), b"\x06a\0\xFFb\0\x01"),
            (json!([null, []]), b"\x07\x02\x07\0\0"),
            (json!({"b": true, "a": null}), b"\x08\x06a\0\x01\x02\x06b\0\x01\x04\0"),
        ] {
            assert_eq!(key(&value), bytes, "{value}");
        }
    }

    #[test]
    fn equal_values_have_one_key() {
        for (left, right) in [
            (json!(0.0), json!(-0.0)),
            (json!(1), json!(1.0)),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)),
            (json!({"a": 1, "b": [2.0]}), json!({"b": [2], "a": 1.0})),
        ] {
            assert_eq!(key(&left), key(&right), "{left} {right}");
        }
    }

    #[test]
    fn a_long_value_is_cut_and_told_apart_by_its_hash() {
        let (left, right) = (json!(format!("{}x", "a".repeat(50))), json!(format!("{}y", "a".repeat(50))));
        let ((left, cut), (right, _)) = (bounded(&left, 20), bounded(&right, 20));
        assert!(cut);
        assert_eq!((left.len(), right.len()), (28, 28));
        assert_eq!(left[..20], right[..20]);
        assert_ne!(left, right);
        // A key of exactly the limit is whole.
        assert_eq!(bounded(&json!("a".repeat(17)), 20), (key(&json!("a".repeat(17))), false));
        assert!(bounded(&json!("a".repeat(18)), 20).1);
    }

    #[test]
    fn ranges_end_where_the_keys_do() {
        let within = |span: &Span, key: &[u8]| {
            *span.lower <= *key && span.upper.as_ref().is_none_or(|upper| *key < **upper)
        };
        for (prefix, text, expected) in [
            ("", "", true),
            ("", "z", true),
            ("a", "a", true),
            ("a", "ab", true),
            ("a", "b", false),
            ("a", "", false),
            ("a", "A", false),
            ("a\0", "a", false),
            ("a\0", "a\0", true),
            ("a\0", "a\0b", true),
            ("a\0", "a\u{1}", false),
            ("\u{10FFFF}", "\u{10FFFF}x", true),
        ] {
            let range = prefix_range(prefix, MAX_KEY);
            assert!(range.exact);
            assert_eq!(within(&range, &key(&json!(text))), expected, "{prefix:?} {text:?}");
        }
        for other in [json!(null), json!(5), json!([]), json!({})] {
            assert!(!within(&prefix_range("", MAX_KEY), &key(&other)), "{other}");
        }
        // A prefix beyond the limit finds all that begin like it does, and says so.
        let range = prefix_range(&"a".repeat(30), 20);
        assert!(!range.exact);
        assert!(within(&range, &bounded(&json!("a".repeat(40)), 20).0));
        assert!(!within(&range, &key(&json!("a"))));

        let exact = span(Some(&json!("a")), 20);
        assert!(exact.exact && within(&exact, &key(&json!("a"))) && !within(&exact, &key(&json!("aa"))));
        let cut = span(Some(&json!("a".repeat(40))), 20);
        assert!(!cut.exact && within(&cut, &bounded(&json!("a".repeat(41)), 20).0));
    }

    #[test]
    fn a_successor_is_behind_all_that_begin_alike() {
        for (bytes, next) in [
            (&b"a"[..], Some(&b"b"[..])),
            (b"a\xFF", Some(b"b")),
            (b"a\xFE\xFF\xFF", Some(b"a\xFF")),
            (b"\xFF\xFF", None),
            (b"", None),
        ] {
            assert_eq!(successor(bytes).as_deref(), next, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_key_are_not_split() {
        for bytes in [&b""[..], b"\x00", b"\x05\x01", b"\x06abc", b"\x07\x02", b"\x09", b"\xFF"] {
            assert_eq!(split(bytes, MAX_KEY), None, "{bytes:?}");
        }
    }
}
