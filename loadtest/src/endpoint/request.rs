//! Stands between the bytes of a connection and the script: one HTTP/1.1 request, borrowed from the buffer.
//! Invariant: what is read of a request is bounded, and a request that is not understood is not answered.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::clock::Moment;
use crate::document::Probe;

/// The largest request that is taken in, in bytes: a batch of documents and its head.
pub(crate) const MAX_REQUEST: usize = 16 << 20;

/// A request that is complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// Request line and header fields, without the empty line.
    head: &'a str,
    /// The body.
    pub(crate) body: &'a [u8],
    /// Which request of its connection it is, counted from 1.
    pub(crate) nth: u32,
    /// The document that the event carries, if it carries one.
    pub(crate) probe: Option<Probe>,
}

/// What the buffer holds.
pub(crate) enum Parsed<'a> {
    /// A request, and the bytes that it takes up.
    Whole(Request<'a>, usize),
    /// More must be read.
    Partial,
    /// Nothing that can be answered.
    Nonsense,
}

/// Looks for a whole request at the beginning of `buffer`.
pub(crate) fn parse(buffer: &[u8], nth: u32) -> Parsed<'_> {
    if buffer.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
        return Parsed::Nonsense;
    }
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if buffer.len() > MAX_REQUEST { Parsed::Nonsense } else { Parsed::Partial };
    };
    let Some(head) = buffer.get(..end).and_then(|head| std::str::from_utf8(head).ok()) else {
        return Parsed::Nonsense;
    };
    let length = match field(head, "content-length") {
        None => 0,
        Some(text) => match text.parse::<usize>() {
            Ok(length) if length <= MAX_REQUEST => length,
            Ok(_) | Err(_) => return Parsed::Nonsense,
        },
    };
    let (from, to) = (end + 4, end + 4 + length);
    match buffer.get(from..to) {
        Some(body) => Parsed::Whole(Request { head, body, nth, probe: Probe::find(body) }, to),
        None => Parsed::Partial,
    }
}

/// A header field; the name in lower case.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl<'a> Request<'a> {
    /// The method.
    pub(crate) fn method(&self) -> &'a str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The path.
    pub(crate) fn path(&self) -> &'a str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header field; the name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        field(self.head, name)
    }

    /// The number that its URL ends in; 0 when it ends in none.
    pub(crate) fn subscriber(&self) -> u32 {
        let path = self.path().split('?').next().unwrap_or_default();
        path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// `x-delivery-attempt`; 0 when there is none.
    pub(crate) fn attempt(&self) -> u32 {
        self.header("x-delivery-attempt").and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// Hash of `webhook-id`; 0 when there is none.
    pub(crate) fn event(&self) -> u64 {
        self.header("webhook-id").map_or(0, |id| {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            hasher.finish()
        })
    }

    /// The document's number.
    pub(crate) fn number(&self) -> Option<u64> {
        self.probe.map(|probe| probe.number)
    }

    /// When the document's creation was sent.
    pub(crate) fn sent(&self) -> Moment {
        self.probe.map_or(Moment::from_number(0), |probe| probe.sent)
    }

    /// A number that is the same for the same event and attempt, and evenly spread.
    pub(crate) fn chance(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.event(), self.attempt()).hash(&mut hasher);
        hasher.finish()
    }

    /// The request word for word.
    pub(crate) fn text(&self) -> String {
        format!("{}\r\n\r\n{}", self.head, String::from_utf8_lossy(self.body))
    }
}
