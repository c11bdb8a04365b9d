//! Stands between the path of a request as it came and the segments that routes compare.
//!
//! Invariant: a path is split before anything is decoded, and each segment is decoded once. So an encoded slash
//! is a character of a segment and never a new segment, and there is one reading of every path that is let in.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the unreserved characters (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path that has no single meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Does not begin with a slash, such as `*`.
    #[error("the path does not begin with `/`")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits.
    #[error("a `%` in the path is not followed by two hexadecimal digits")]
    Encoding,
    /// Decoded bytes that are not UTF-8.
    #[error("the path does not decode to UTF-8")]
    NotUtf8,
    /// NUL or another control character.
    #[error("the path decodes to a control character")]
    Control,
    /// `.` or `..`, which some would resolve and others not.
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    /// Two slashes in a row, which some would merge and others not.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A slash or backslash that is encoded, which some would decode before they split. See [`strict`].
    #[error("the path has a slash or backslash that is encoded")]
    EncodedSlash,
    /// A percent sign that is encoded, before two hexadecimal digits: some decode twice. See [`strict`].
    #[error("the path is encoded twice")]
    EncodedTwice,
}

/// Splits a path into decoded segments. The root has none; a slash at the end makes an empty last one.
pub(super) fn segments(path: &str) -> Result<Vec<String>, InvalidPath> {
    let rest = path.strip_prefix('/').ok_or(InvalidPath::NotAbsolute)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments = Vec::new();
    let mut raw = rest.split('/').peekable();
    while let Some(segment) = raw.next() {
        if segment.is_empty() && raw.peek().is_some() {
            return Err(InvalidPath::EmptySegment);
        }
        let segment = decode(segment)?;
        if is_dots(&segment) {
            return Err(InvalidPath::DotSegment);
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Refuses segments that others might read in another way, although there is one reading here: for paths that are
/// passed on, or that somebody in front has judged.
pub(super) fn strict(segments: &[String]) -> Result<(), InvalidPath> {
    for segment in segments {
        if segment.contains(['/', '\\']) {
            return Err(InvalidPath::EncodedSlash);
        }
        let mut behind = segment.split('%').skip(1).filter_map(|rest| rest.as_bytes().get(..2));
        if behind.any(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(InvalidPath::EncodedTwice);
        }
    }
    Ok(())
}

/// Writes a text so that it is one segment of a path.
pub(super) fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, RESERVED).to_string()
}

/// Whether a text can stand as a segment of a path that [`segments`] lets in.
pub(super) fn can_be_segment(text: &str) -> bool {
    !text.is_empty() && !is_dots(text) && !text.chars().any(char::is_control)
}

fn is_dots(text: &str) -> bool {
    text == "." || text == ".."
}

fn decode(raw: &str) -> Result<String, InvalidPath> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(InvalidPath::Encoding) };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| InvalidPath::Encoding)?);
    }
    let text = String::from_utf8(bytes).map_err(|_| InvalidPath::NotUtf8)?;
    if text.chars().any(char::is_control) { Err(InvalidPath::Control) } else { Ok(text) }
}

/// The value of a query parameter, decoded: `+` is a space (the form encoding of the URL standard). `None` when it
/// is absent; of several the first.
pub(super) fn query_value(query: &str, name: &str) -> Option<Result<String, InvalidPath>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(&value.replace('+', " ")))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_split_first_and_decoded_once() {
        for (path, expected) in [
            ("/", vec![]),
            ("/a", vec!["a"]),
            ("/a/", vec!["a", ""]),
            ("/freight/v1/loads/A%2DB/x%20y", vec!["freight", "v1", "loads", "A-B", "x y"]),
            ("/a%2Fb/c", vec!["a/b", "c"]),
            ("/%252e%252e", vec!["%2e%2e"]),
            ("/%C3%A9", vec!["é"]),
            ("/a;x=1/b+c", vec!["a;x=1", "b+c"]),
            ("/...", vec!["..."]),
        ] {
            assert_eq!(segments(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn paths_with_more_than_one_reading_are_refused() {
        for (path, error) in [
            ("*", InvalidPath::NotAbsolute),
            ("", InvalidPath::NotAbsolute),
            ("/a/%", InvalidPath::Encoding),
            ("/a/%4", InvalidPath::Encoding),
            ("/a/%zz", InvalidPath::Encoding),
            ("/a/%+4", InvalidPath::Encoding),
            ("/%ff", InvalidPath::NotUtf8),
            ("/%c0%ae", InvalidPath::NotUtf8),
            ("/a%00", InvalidPath::Control),
            ("/a%0d%0ax", InvalidPath::Control),
            ("/a%7f", InvalidPath::Control),
            ("/a/../b", InvalidPath::DotSegment),
            ("/a/%2e%2E/b", InvalidPath::DotSegment),
            ("/.", InvalidPath::DotSegment),
            ("//a", InvalidPath::EmptySegment),
            ("/a//b", InvalidPath::EmptySegment),
        ] {
            assert_eq!(segments(path), Err(error), "{path}");
        }
    }

    #[test]
    fn a_strict_path_is_one_that_all_read_alike() {
        for (path, error) in [
            ("/a/b", None),
            ("/a%20b/%C3%A9", None),
            ("/100%25", None),
            ("/100%25%20off", None),
            ("/a%2Fb", Some(InvalidPath::EncodedSlash)),
            ("/a%2f..%2fb", Some(InvalidPath::EncodedSlash)),
            ("/a%5Cb", Some(InvalidPath::EncodedSlash)),
            ("/a\\b", Some(InvalidPath::EncodedSlash)),
            ("/%252e%252e", Some(InvalidPath::EncodedTwice)),
            ("/%25%32%66", Some(InvalidPath::EncodedTwice)),
            ("/%25", None),
            ("/%25f", None),
            ("/%2525", Some(InvalidPath::EncodedTwice)),
            ("/%25%C3%A9", None),
            ("/a%252Fb", Some(InvalidPath::EncodedTwice)),
        ] {
            assert_eq!(strict(&segments(path).unwrap()).err(), error, "{path}");
        }
    }

    #[test]
    fn query_values_are_found_by_exact_name() {
        let query = "a=1&limit=5&continuation=x%2By+z&empty&limit=6&dots=%2e%2e";
        let value = |name| query_value(query, name);
        assert_eq!(value("limit"), Some(Ok("5".to_owned())));
        assert_eq!(value("continuation"), Some(Ok("x+y z".to_owned())));
        assert_eq!(value("empty"), Some(Ok(String::new())));
        assert_eq!(value("dots"), Some(Ok("..".to_owned())));
        assert_eq!(value("imit"), None);
        assert_eq!(query_value("a=%0", "a"), Some(Err(InvalidPath::Encoding)));
    }

    proptest! {
        #[test]
        fn what_can_be_a_segment_comes_back_from_its_encoding(text in "\\PC{1,20}") {
            let path = format!("/{}", encode(&text));
            prop_assert_eq!(segments(&path).is_ok(), can_be_segment(&text));
            if let Ok(found) = segments(&path) {
                prop_assert_eq!(found, [text]);
            }
        }

        #[test]
        fn any_path_is_segments_or_an_error(path in "/[/.%a-f0-9é]{0,20}") {
            if let Ok(found) = segments(&path) {
                prop_assert!(found.iter().all(|segment| segment != ".."));
            }
        }
    }
}
