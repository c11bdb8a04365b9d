//! Bytes that two servers could read in two ways, and what must come of each: one row, one request, and behind it a
//! second one that is harmless. Whoever counts the requests finds out who was fooled.

/// What must come of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// This status, and the connection ends: the second request is never read.
    Refused(u16),
    /// This status, and the second request is answered after it, as a request of its own.
    Answered(u16),
    /// One answer with this status, or none, and the end. What came before the end was not understood at all.
    Ended(u16),
}

/// One request as it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What is tried.
    pub(crate) name: &'static str,
    /// The bytes. `KEY` stands for an API key, `LONG_HEADER`, `HUGE_HEADER` and `LONG_URI` for so many letters.
    pub(crate) bytes: &'static str,
    /// What must come of it.
    pub(crate) fate: Fate,
}

/// Where a body is read.
pub(crate) const BODIES: &str = "/freight/v1/loads";
/// The request behind each row; it is answered 200 wherever it is read as one.
pub(crate) const SECOND: &str = "GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n";
/// Letters that `LONG_HEADER` stands for: more than is let in.
pub(crate) const LONG_HEADER: usize = 17_000;
/// Letters that `HUGE_HEADER` stands for: more than is read.
pub(crate) const HUGE_HEADER: usize = 140_000;
/// Letters that `LONG_URI` stands for.
pub(crate) const LONG_URI: usize = 100_000;

use Fate::{Answered, Ended, Refused};

const fn row(name: &'static str, bytes: &'static str, fate: Fate) -> Row {
    Row { name, bytes, fate }
}

macro_rules! get {
    ($head:literal) => {
        concat!("GET /freight/v1/ping HTTP/1.1\r\nx-api-key: KEY\r\n", $head, "\r\n")
    };
}

macro_rules! post {
    ($head:literal, $body:literal) => {
        concat!(
            "POST /freight/v1/loads HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\ncontent-type: application/json\r\n",
            $head,
            "\r\n",
            $body
        )
    };
}

macro_rules! refused {
    ($head:literal, $before:literal) => {
        concat!(
            "POST /freight/v1/loads HTTP/1.1\r\nhost: a\r\nx-api-key: of-nobody\r\ncontent-type: application/json\r\n",
            $head,
            "\r\n",
            $before,
            "GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n"
        )
    };
}

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    // What is right, so that the rest is not refused for something else.
    row("a get", get!("host: a\r\n"), Answered(200)),
    row("a length", post!("content-length: 2\r\n", "[]"), Answered(400)),
    row("chunks", post!("transfer-encoding: chunked\r\n", "2\r\n[]\r\n0\r\n\r\n"), Answered(400)),
    row(
        "chunks with extensions and trailers",
        post!("transfer-encoding: chunked\r\n", "2;x=y\r\n[]\r\n0\r\nx: y\r\n\r\n"),
        Answered(400),
    ),
    row(
        "a body where none is read",
        concat!(
            "GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\n",
            "x-api-key: KEY\r\ncontent-length: 5\r\n\r\nGET /"
        ),
        Answered(200),
    ),
    row(
        "an absolute form of the same host",
        concat!("GET http://a/freight/v1/ping HTTP/1.1\r\nhost: a\r\n", "x-api-key: KEY\r\n\r\n"),
        Answered(200),
    ),
    // A body that looks like a request and is not read, because nobody may or wants to.
    row("a body of a stranger", refused!("content-length: 75\r\n", ""), Answered(401)),
    row("a body of a stranger that goes on", refused!("content-length: 1000\r\n", ""), Refused(401)),
    row("chunks of a stranger", refused!("transfer-encoding: chunked\r\n", "4b\r\n"), Ended(401)),
    row(
        "a body that is too large",
        post!(
            "content-length: 9999999\r\n",
            "GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n"
        ),
        Refused(413),
    ),
    row(
        "a body that waits to be asked for",
        post!(
            "content-length: 75\r\nexpect: 100-continue\r\n",
            "GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n"
        ),
        Answered(400),
    ),
    // Two framings of one body.
    row(
        "a length and chunks",
        post!("content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        Refused(400),
    ),
    row(
        "chunks and a length",
        post!("transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n"),
        Refused(400),
    ),
    row("two lengths", post!("content-length: 2\r\ncontent-length: 3\r\n", "[]"), Refused(400)),
    row("a length twice", post!("content-length: 2\r\ncontent-length: 2\r\n", "[]"), Refused(400)),
    row("a list of lengths", post!("content-length: 2, 2\r\n", "[]"), Refused(400)),
    row("a signed length", post!("content-length: +2\r\n", "[]"), Refused(400)),
    row("a negative length", post!("content-length: -1\r\n", "[]"), Refused(400)),
    row("a length in hex", post!("content-length: 0x2\r\n", "[]"), Refused(400)),
    row("a length beyond numbers", post!("content-length: 99999999999999999999\r\n", "[]"), Refused(400)),
    row("an empty length", post!("content-length: \r\n", "[]"), Refused(400)),
    row("a length in letters", post!("content-length: two\r\n", "[]"), Refused(400)),
    // Encodings that one reads and another does not.
    row("an unknown encoding", post!("transfer-encoding: xchunked\r\n", "0\r\n\r\n"), Refused(400)),
    row(
        "chunked and then identity",
        post!("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        Refused(400),
    ),
    row("gzip and then chunked", post!("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refused(400)),
    row(
        "two encodings in two lines",
        post!("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"),
        Refused(400),
    ),
    row("a space before the colon", post!("transfer-encoding : chunked\r\n", "0\r\n\r\n"), Refused(400)),
    row("a folded line", post!("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"), Refused(400)),
    row("a vertical tab", post!("transfer-encoding: \u{b}chunked\r\n", "0\r\n\r\n"), Refused(400)),
    row(
        "a line that begins with a space",
        post!(" transfer-encoding: chunked\r\n", "0\r\n\r\n"),
        Refused(400),
    ),
    row("a quoted encoding", post!("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n"), Refused(400)),
    row(
        "chunks in HTTP/1.0",
        concat!(
            "POST /freight/v1/loads HTTP/1.0\r\nhost: a\r\nx-api-key: KEY\r\n",
            "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        Refused(400),
    ),
    // Chunks that end somewhere else for others.
    row("a chunk in C", post!("transfer-encoding: chunked\r\n", "0x2\r\n[]\r\n0\r\n\r\n"), Ended(400)),
    row("a signed chunk", post!("transfer-encoding: chunked\r\n", "+2\r\n[]\r\n0\r\n\r\n"), Ended(400)),
    row(
        "a chunk beyond numbers",
        post!("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n[]\r\n0\r\n\r\n"),
        Ended(400),
    ),
    row("chunks with bare line feeds", post!("transfer-encoding: chunked\r\n", "2\n[]\n0\n\n"), Ended(400)),
    row(
        "a chunk longer than it says",
        post!("transfer-encoding: chunked\r\n", "1\r\n[]\r\n0\r\n\r\n"),
        Ended(400),
    ),
    row(
        "a bare return behind a chunk",
        post!("transfer-encoding: chunked\r\n", "2\r\n[]\r0\r\n\r\n"),
        Ended(400),
    ),
    row("an empty chunk size", post!("transfer-encoding: chunked\r\n", "\r\n[]\r\n0\r\n\r\n"), Ended(400)),
    // Heads.
    row("no host", get!(""), Refused(400)),
    row("two hosts", get!("host: a\r\nhost: b\r\n"), Refused(400)),
    row("one host twice", get!("host: a\r\nhost: a\r\n"), Refused(400)),
    row("a bare return in a value", get!("host: a\r\nx: a\rb: c\r\n"), Refused(400)),
    row("NUL in a value", get!("host: a\r\nx: a\0b\r\n"), Refused(400)),
    row("NUL in a name", get!("host: a\r\nx\0y: a\r\n"), Refused(400)),
    row("a space in a name", get!("host: a\r\nx y: a\r\n"), Refused(400)),
    row("no colon", get!("host: a\r\nnonsense\r\n"), Refused(400)),
    row("no name", get!("host: a\r\n: a\r\n"), Refused(400)),
    row(
        "an absolute form of another host",
        concat!("GET http://evil/freight/v1/ping HTTP/1.1\r\nhost: a\r\n", "x-api-key: KEY\r\n\r\n"),
        Answered(400),
    ),
    row(
        "an absolute form with credentials",
        concat!("GET http://a@evil/freight/v1/ping HTTP/1.1\r\nhost: evil\r\n", "x-api-key: KEY\r\n\r\n"),
        Answered(400),
    ),
    row("a tunnel", "CONNECT evil:443 HTTP/1.1\r\nhost: evil:443\r\nx-api-key: KEY\r\n\r\n", Refused(501)),
    row("a header that is too long", get!("host: a\r\nx: LONG_HEADER\r\n"), Answered(431)),
    row("a header that is not even read", get!("host: a\r\nx: HUGE_HEADER\r\n"), Refused(431)),
    row(
        "a path that is too long",
        "GET /LONG_URI HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Refused(400),
    ),
    row(
        "another version",
        "GET /freight/v1/ping HTTP/3.0\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Refused(400),
    ),
    row("no version", "GET /freight/v1/ping\r\nhost: a\r\nx-api-key: KEY\r\n\r\n", Refused(400)),
    row(
        "a space more in the request line",
        "GET  /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Refused(400),
    ),
    row("HTTP/2 without having asked", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Ended(400)),
    row(
        "an upgrade to HTTP/2",
        get!(
            "host: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        ),
        Answered(200),
    ),
    // Paths.
    row("dots", "GET /freight/v1/../ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n", Answered(400)),
    row(
        "encoded dots",
        "GET /freight/v1/%2e%2E/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Answered(400),
    ),
    row(
        "NUL in the path",
        "GET /freight/v1/ping%00 HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Answered(400),
    ),
    row("two slashes", "GET //freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n", Answered(400)),
    row(
        "an encoded slash",
        "GET /freight%2Fv1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Answered(404),
    ),
    row("an asterisk", "OPTIONS * HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n", Answered(400)),
    row(
        "a method that nobody has",
        "BREW /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Answered(405),
    ),
    row(
        "a method in small letters",
        "get /freight/v1/ping HTTP/1.1\r\nhost: a\r\nx-api-key: KEY\r\n\r\n",
        Answered(405),
    ),
    // The parser takes a bare line feed for the end of a line (RFC 9112 section 2.2 lets it). What is passed on is
    // written anew, so nobody behind sees it; and the request behind is read as one.
    row(
        "bare line feeds in a head",
        "GET /freight/v1/ping HTTP/1.1\nhost: a\nx-api-key: KEY\n\n",
        Answered(200),
    ),
];
