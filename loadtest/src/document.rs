//! Stands between a create and the event it becomes: builds the document, and reads its probe back out of a webhook.
//! Invariant: what `Probe::find` reads is what `Template::body` wrote, however the server orders or spaces the JSON.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::clock::Moment;
use crate::schedule::DocumentKey;

/// The fields of the probe share a beginning and are written in alphabetical order, so that one search finds where they
/// begin, in the client's order and in a sorted one.
const PROBE: &[u8] = b"\"probe_";
/// Document numbers are written above this, so that each has the same number of digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000_000;

/// What a document says about its own sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// When the schedule wanted it sent.
    pub(crate) due: Moment,
    /// Its number within the run.
    pub(crate) number: u64,
    /// Which run wrote it; documents of an earlier run may still be on their way.
    pub(crate) run: u32,
    /// When it was sent.
    pub(crate) sent: Moment,
}

/// A document of a fixed size, made once; each create fills in its few varying fields.
#[derive(Debug)]
pub(crate) struct Template {
    run: u32,
    tail: String,
    size: usize,
}

impl Template {
    /// A template whose bodies have `size` bytes, or the smallest size that holds the fields if that is larger.
    pub(crate) fn new(run: u32, size: usize) -> Self {
        let mut template = Self { run, tail: String::new(), size };
        let probe = Probe {
            due: Moment::from_number(FIRST_NUMBER),
            number: 0,
            run,
            sent: Moment::from_number(FIRST_NUMBER),
        };
        let head = template.head(DocumentKey { number: 0, partition: 0 }, &probe).len();
        template.tail = tail(size.saturating_sub(head));
        template.size = head + template.tail.len();
        template
    }

    /// Bytes of a body.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The body of one create.
    pub(crate) fn body(&self, key: DocumentKey, due: Moment, sent: Moment) -> Bytes {
        let mut body = self.head(key, &Probe { due, number: key.number, run: self.run, sent });
        body.push_str(&self.tail);
        Bytes::from(body)
    }

    /// The id of a document.
    pub(crate) fn id(&self, key: DocumentKey) -> String {
        format!("load-{:08x}-{:010}", self.run, key.number)
    }

    fn head(&self, key: DocumentKey, probe: &Probe) -> String {
        let mut head = String::with_capacity(self.size);
        // Writing to a string cannot fail.
        write!(
            head,
            r#"{{"id":"{}","lane":"{}","probe_due_ns":{},"probe_number":{},"probe_run":{},"probe_sent_ns":{},"#,
            self.id(key),
            lane(key.partition),
            probe.due.number(),
            FIRST_NUMBER + probe.number,
            probe.run,
            probe.sent.number(),
        )
        .unwrap_or_default();
        head
    }
}

/// The partition key of a partition.
pub(crate) fn lane(partition: u32) -> String {
    format!("lane-{partition:06}")
}

/// The fields that are the same in every document, padded with an instruction to the driver.
fn tail(size: usize) -> String {
    const NOTE: &str = "Call the dock an hour ahead. Straps and blankets on board, no double stacking. ";
    let fields = concat!(
        r#""status":"open","weight":12400,"equipment":"van","pieces":18,"hazmat":false,"#,
        r#""pickup":{"city":"Tacoma","state":"WA","window":["2025-03-03T08:00:00Z","2025-03-03T12:00:00Z"]},"#,
        r#""dropoff":{"city":"Fresno","state":"CA","window":["2025-03-05T08:00:00Z","2025-03-05T17:00:00Z"]},"#,
        r#""offer":{"amount":2150.5,"currency":"USD"},"notes":""#,
    );
    let end = "\"}";
    let padding = size.saturating_sub(fields.len() + end.len());
    let notes: String = NOTE.chars().cycle().take(padding).collect();
    format!("{fields}{notes}{end}")
}

impl Probe {
    /// Looks for a probe in the body of an event without parsing it.
    pub(crate) fn find(body: &[u8]) -> Option<Self> {
        let fields = body.get(position(body, PROBE)?..)?;
        Some(Self {
            due: Moment::from_number(number(fields, b"\"probe_due_ns\"")?),
            number: number(fields, b"\"probe_number\"")?.checked_sub(FIRST_NUMBER)?,
            run: u32::try_from(number(fields, b"\"probe_run\"")?).ok()?,
            sent: Moment::from_number(number(fields, b"\"probe_sent_ns\"")?),
        })
    }
}

/// Whether `needle` occurs in `text`.
pub(crate) fn contains(text: &[u8], needle: &[u8]) -> bool {
    position(text, needle).is_some()
}

fn position(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// The whole number that follows a quoted field name. A number with a fraction or an exponent is not one we wrote.
fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    let after = text.get(position(text, name)? + name.len()..)?.trim_ascii_start();
    let digits = after.strip_prefix(b":")?.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    if digits.get(end).is_some_and(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        return None;
    }
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: DocumentKey = DocumentKey { number: 42, partition: 7 };

    fn body(size: usize) -> Bytes {
        Template::new(9, size).body(
            KEY,
            Moment::from_number(FIRST_NUMBER + 5),
            Moment::from_number(FIRST_NUMBER + 6),
        )
    }

    #[test]
    fn a_document_is_json_of_exactly_the_size_asked_for() {
        for size in [700, 1000, 1024, 65_536] {
            let body = body(size);
            assert_eq!(body.len(), size);
            assert_eq!(Template::new(9, size).size(), size);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["lane"], "lane-000007");
            assert_eq!(json["id"], Template::new(9, size).id(KEY));
        }
    }

    #[test]
    fn a_probe_survives_reordering_and_spaces() {
        let expected = Probe {
            due: Moment::from_number(FIRST_NUMBER + 5),
            number: 42,
            run: 9,
            sent: Moment::from_number(FIRST_NUMBER + 6),
        };
        let json: serde_json::Value = serde_json::from_slice(&body(1000)).unwrap();
        let event = serde_json::json!({ "specversion": "1.0", "data": json });
        assert_eq!(Probe::find(&serde_json::to_vec(&event).unwrap()), Some(expected));
        assert_eq!(Probe::find(&serde_json::to_vec_pretty(&event).unwrap()), Some(expected));
        assert_eq!(Probe::find(&body(1000)), Some(expected));
    }

    #[test]
    fn an_event_without_a_whole_probe_has_none() {
        assert_eq!(Probe::find(b"{}"), None);
        assert_eq!(Probe::find(b"{\"probe_due_ns\":1"), None);
        let text = String::from_utf8(body(1000).to_vec()).unwrap();
        assert_eq!(Probe::find(text.replace("\"probe_number\":1", "\"probe_number\":1.5e").as_bytes()), None);
        assert_eq!(Probe::find(text.replace("probe_sent_ns", "probe_lost").as_bytes()), None);
    }
}
