//! Stands between a row and the bytes that an endpoint sends: what to do with a request, and a library of ways to misbehave.
//! Invariant: a script is a pure function of the request; whatever it plays ends when the server ends the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Request;

/// Decides what becomes of a request.
pub(crate) type Script = Arc<dyn Fn(&Request<'_>) -> Act + Send + Sync>;

/// What an endpoint does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this status and an empty body, and keeps the connection.
    Answer(u16),
    /// Answers so after a while.
    Late(Duration, u16),
    /// Plays these steps. The status is the one that the endpoint means, 0 for none.
    Play(u16, Vec<Step>),
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Does nothing for a while.
    Pause(Duration),
    /// Sends these bytes again and again, with a pause between, until the server ends the connection.
    Drip(Bytes, Duration),
    /// Sends these bytes again and again, as fast as they are taken, until the server ends the connection.
    Flood(Bytes),
    /// Does nothing until the server ends the connection.
    Hold,
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection in order.
    Close,
}

/// Ways to behave.
pub(crate) mod scripts {
    use super::{Act, Arc, Bytes, Duration, Request, Script, Step};

    /// Wraps a function as a script.
    pub(crate) fn with(script: impl Fn(&Request<'_>) -> Act + Send + Sync + 'static) -> Script {
        Arc::new(script)
    }

    /// Always the same status.
    pub(crate) fn always(status: u16) -> Script {
        with(move |_| Act::Answer(status))
    }

    /// Always 204.
    pub(crate) fn well() -> Script {
        always(204)
    }

    /// These steps, meaning this status.
    pub(crate) fn play(status: u16, steps: Vec<Step>) -> Script {
        with(move |_| Act::Play(status, steps.clone()))
    }

    /// Takes the request and never answers.
    pub(crate) fn silent() -> Script {
        play(0, vec![Step::Hold])
    }

    /// A header block of one byte after the other.
    pub(crate) fn slow_header(every: Duration) -> Script {
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\nx-slow: ");
        play(0, vec![Step::Send(head), Step::Drip(Bytes::from_static(b"a"), every)])
    }

    /// A status, then a body of one byte after the other that never ends.
    pub(crate) fn slow_body(status: u16, every: Duration) -> Script {
        let head = format!("HTTP/1.1 {status} Slow\r\ntransfer-encoding: chunked\r\n\r\n");
        play(status, vec![Step::Send(head.into()), Step::Drip(Bytes::from_static(b"1\r\nx\r\n"), every)])
    }

    /// 200 and ten gigabytes as fast as they are taken.
    pub(crate) fn ten_gigabytes() -> Script {
        let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n");
        play(200, vec![Step::Send(head), Step::Flood(Bytes::from(vec![b'x'; 64 << 10]))])
    }

    /// 200 and a small gzip body that unpacks to some hundred megabytes.
    pub(crate) fn gzip_bomb() -> Script {
        let bomb = bomb();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            bomb.len()
        );
        play(200, vec![Step::Send(head.into()), Step::Send(bomb)])
    }

    /// 200 with a header field of a megabyte.
    pub(crate) fn huge_header() -> Script {
        let head = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "h".repeat(1 << 20));
        play(0, vec![Step::Send(head.into()), Step::Close])
    }

    /// Takes the request and resets the connection.
    pub(crate) fn reset() -> Script {
        play(0, vec![Step::Reset])
    }

    /// 200, half a body, and a reset once the server had time to read that much.
    pub(crate) fn reset_in_body() -> Script {
        let half = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        play(200, vec![Step::Send(half), Step::Pause(Duration::from_millis(200)), Step::Reset])
    }

    /// These bytes, then the end of the connection; `status` is what the endpoint means.
    pub(crate) fn raw(status: u16, bytes: &'static str) -> Script {
        play(status, vec![Step::Send(Bytes::from_static(bytes.as_bytes())), Step::Close])
    }

    /// An answer of a status with further header fields, each with its line end.
    pub(crate) fn said(status: u16, fields: &str) -> Act {
        let answer = format!("HTTP/1.1 {status} Said\r\n{fields}content-length: 0\r\n\r\n");
        Act::Play(status, vec![Step::Send(answer.into())])
    }

    /// Always such an answer.
    pub(crate) fn with_fields(status: u16, fields: &str) -> Script {
        let answer = said(status, fields);
        with(move |_| answer.clone())
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, to: &str) -> Script {
        with_fields(status, &format!("location: {to}\r\n"))
    }

    /// A status with `Retry-After`.
    pub(crate) fn retry_after(status: u16, value: &str) -> Script {
        with_fields(status, &format!("retry-after: {value}\r\n"))
    }

    /// Interim answers without end.
    pub(crate) fn endless_interim(every: Duration) -> Script {
        play(0, vec![Step::Drip(Bytes::from_static(b"HTTP/1.1 102 Processing\r\n\r\n"), every)])
    }

    /// Half of all attempts fail, chosen by event and attempt.
    pub(crate) fn flapping() -> Script {
        with(|request| Act::Answer(if request.chance().is_multiple_of(2) { 204 } else { 500 }))
    }

    /// Fails on the events of these documents, whenever they come.
    pub(crate) fn poisoned_by(numbers: Vec<u64>, status: u16) -> Script {
        with(move |request| match request.number() {
            Some(number) if numbers.contains(&number) => Act::Answer(status),
            Some(_) | None => Act::Answer(204),
        })
    }

    /// A gzip stream of zeros: one literal, then copies of 258 bytes, in one block with the fixed codes (RFC 1951, 3.2.6).
    fn bomb() -> Bytes {
        const COPIES: usize = 600_000;
        let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        let (mut bits, mut count) = (0_u32, 0_u32);
        let mut put = |value: u32, length: u32, packed: &mut Vec<u8>| {
            bits |= value << count;
            count += length;
            while count >= 8 {
                packed.push(bits.to_le_bytes()[0]);
                bits >>= 8;
                count -= 8;
            }
        };
        put(0b011, 3, &mut packed);
        // Codes are sent from their highest bit: literal 0 is 00110000, length 258 is 11000101, distance 1 is 00000.
        put(0b0000_1100, 8, &mut packed);
        for _ in 0..COPIES {
            put(0b1010_0011, 8, &mut packed);
            put(0, 5, &mut packed);
        }
        // The end of the block is seven zeros; the check sums are left out, which nobody gets to see.
        put(0, 7, &mut packed);
        put(0, 8, &mut packed);
        Bytes::from(packed)
    }
}
