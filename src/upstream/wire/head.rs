//! The head of an answer: its status, its fields, and the framing of what follows (RFC 9112 sections 4 to 6).

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Response, Status};

use super::fields::{is_hop_by_hop, tokens};

/// Bytes of a head.
const HEAD_MAX: usize = 64 * 1024;
/// Fields of a head.
const FIELDS_MAX: usize = 128;
/// Interim answers before the final one.
pub(crate) const INTERIM_MAX: u32 = 16;

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// The head as it came.
    bytes: Bytes,
    fields: Vec<(Range<usize>, Range<usize>)>,
    pub(crate) framing: Framing,
    /// The length that it announces: of its body, or of the one that a GET would have had.
    pub length: Option<u64>,
    /// Whether the connection can be used again after the body.
    pub(crate) reusable: bool,
}

/// Where the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// Where the chunked coding says.
    Chunked,
    /// With the connection.
    Close,
}

/// What is wrong with a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadFault {
    /// It is not HTTP.
    #[error("the answer is not HTTP/1")]
    Syntax,
    /// It has too many bytes or fields.
    #[error("the head of the answer is too large")]
    TooLarge,
    /// Its length can be read in more than one way.
    #[error("the answer has no single length")]
    Framing,
    /// It switches protocols, which nobody asked for.
    #[error("the answer switches protocols")]
    Switch,
}

impl Head {
    /// All fields that go on to the caller: none of the connection's, and none that says a length.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Bytes)> {
        let mut named: Vec<&str> = Vec::new();
        for (name, value) in self.all() {
            if name.eq_ignore_ascii_case("connection") {
                named.extend(tokens(value));
            }
        }
        self.fields.iter().filter_map(move |(name, value)| {
            let name = text(&self.bytes, name);
            let ours = is_hop_by_hop(name)
                || name.eq_ignore_ascii_case("content-length")
                || named.iter().any(|other| other.eq_ignore_ascii_case(name));
            (!ours).then(|| (name, self.bytes.slice(value.clone())))
        })
    }

    /// The value of a field, if it is there once or several times.
    pub fn field(&self, wanted: &str) -> Option<&[u8]> {
        self.all().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let field = |(name, value): &(Range<usize>, Range<usize>)| {
            (text(&self.bytes, name), self.bytes.get(value.clone()).unwrap_or_default())
        };
        self.fields.iter().map(field)
    }
}

fn text<'b>(bytes: &'b Bytes, range: &Range<usize>) -> &'b str {
    bytes.get(range.clone()).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
}

/// Reads a head off the front of the input; `None` when more is needed. `headless` says that no body follows
/// whatever the fields say, as after HEAD.
pub(crate) fn parse(input: &mut BytesMut, headless: bool) -> Result<Option<Head>, HeadFault> {
    let mut room = [EMPTY_HEADER; FIELDS_MAX];
    let mut response = Response::new(&mut room);
    let length = match response.parse(input) {
        Ok(Status::Complete(length)) if length <= HEAD_MAX => length,
        Ok(Status::Partial) if input.len() < HEAD_MAX => return Ok(None),
        Ok(Status::Complete(_) | Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadFault::TooLarge);
        }
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token
            | httparse::Error::Version,
        ) => return Err(HeadFault::Syntax),
    };
    let status = response.code.ok_or(HeadFault::Syntax)?;
    let modern = response.version == Some(1);
    if !(100..=599).contains(&status) {
        return Err(HeadFault::Syntax);
    }
    if status == 101 {
        return Err(HeadFault::Switch);
    }
    let start = input.as_ptr().addr();
    let within = |part: &[u8]| {
        let from = part.as_ptr().addr().saturating_sub(start);
        from..from.saturating_add(part.len())
    };
    let fields = response.headers.iter();
    let fields = fields.map(|field| (within(field.name.as_bytes()), within(field.value))).collect();
    let Announced { length: announced, chunked, close, keep } = announced(response.headers, modern)?;
    let bytes = input.get(..length).map(Bytes::copy_from_slice).unwrap_or_default();
    input.advance(length);
    let empty = headless || status < 200 || status == 204 || status == 304;
    let framing = match announced {
        _ if empty => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    let reusable = framing != Framing::Close && !close && (modern || keep);
    Ok(Some(Head { status, bytes, fields, framing, length: announced, reusable }))
}

/// What the fields say of the framing and of the connection.
struct Announced {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
}

fn announced(fields: &[httparse::Header<'_>], modern: bool) -> Result<Announced, HeadFault> {
    let mut found = Announced { length: None, chunked: false, close: false, keep: false };
    for field in fields {
        let name = field.name;
        if name.eq_ignore_ascii_case("content-length") {
            let length = digits(field.value).ok_or(HeadFault::Framing)?;
            if found.length.is_some_and(|other| other != length) {
                return Err(HeadFault::Framing);
            }
            found.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            // Any other coding is one that this side never said it could read.
            if found.chunked || !modern || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Framing);
            }
            found.chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for token in tokens(field.value) {
                found.close |= token.eq_ignore_ascii_case("close");
                found.keep |= token.eq_ignore_ascii_case("keep-alive");
            }
        }
    }
    // Whoever reads the other one sees an answer that was never given (RFC 9112 section 6.3).
    if found.chunked && found.length.is_some() { Err(HeadFault::Framing) } else { Ok(found) }
}

/// A number of digits and nothing else.
fn digits(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(head: &str) -> Result<Option<Head>, HeadFault> {
        parse(&mut BytesMut::from(head), false)
    }

    fn whole(head: &str) -> Head {
        read(head).unwrap().unwrap()
    }

    #[test]
    fn the_framing_is_the_one_that_the_fields_leave() {
        for (head, framing, reusable) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), true),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, false),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close\r\n\r\n",
                Framing::Length(5),
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5), false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n",
                Framing::Length(5),
                true,
            ),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Framing::Length(0), true),
        ] {
            let found = whole(head);
            assert_eq!((found.framing, found.reusable), (framing, reusable), "{head}");
        }
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        let head = parse(&mut input, true).unwrap().unwrap();
        assert_eq!((head.framing, head.length, &input[..]), (Framing::Length(0), Some(5), &b"hello"[..]));
    }

    #[test]
    fn a_head_that_can_be_read_in_two_ways_is_none() {
        let framing = |fields: &str| read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n")).unwrap_err();
        for fields in [
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: -1\r\n",
            "content-length: 0x5\r\n",
            "content-length:\r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: xchunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            assert_eq!(framing(fields), HeadFault::Framing, "{fields}");
        }
        assert_eq!(
            read("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err(),
            HeadFault::Framing
        );
        for head in [
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: \x00\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "hello",
            "SSH-2.0-OpenSSH",
        ] {
            assert_eq!(read(head).unwrap_err(), HeadFault::Syntax, "{head:?}");
        }
        assert_eq!(read("HTTP/1.1 101 X\r\n\r\n").unwrap_err(), HeadFault::Switch);
    }

    #[test]
    fn a_head_without_end_is_given_up() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(70_000));
        assert_eq!(read(&long).unwrap_err(), HeadFault::TooLarge);
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
        assert_eq!(read(&many).unwrap_err(), HeadFault::TooLarge);
        assert!(read("HTTP/1.1 200 OK\r\nx: y\r\n").unwrap().is_none());
    }

    #[test]
    fn fields_of_the_connection_stay_behind() {
        let head = whole(concat!(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nX-Secret: 1\r\n",
            "Content-Length: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nUpgrade: h2c\r\nTrailer: x\r\n",
            "Proxy-Authenticate: x\r\nX-Kept: \u{e9}\r\n\r\n",
        ));
        let kept: Vec<_> = head.fields().map(|(name, value)| (name.to_owned(), value)).collect();
        let wanted = [("Set-Cookie", "a=1"), ("set-cookie", "b=2"), ("X-Kept", "\u{e9}")];
        assert_eq!(kept, wanted.map(|(name, value)| (name.to_owned(), Bytes::from(value))));
        assert_eq!(head.field("x-secret"), Some(&b"1"[..]));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&mut BytesMut::from(&input[..]), false).ok();
            let mut likely = BytesMut::from("HTTP/1.1 200 OK\r\n");
            likely.extend_from_slice(&input);
            parse(&mut likely, false).ok();
        }
    }
}
