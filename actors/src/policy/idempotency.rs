//! Decides what a repeated request with an idempotency key gets: the first answer, or a refusal.
//!
//! Stands between a write and the record of an earlier one with the same key. Invariant: a record is
//! only replayed to the request that made it; a key that comes back with another request is an error, never
//! somebody else's answer.

use std::fmt;

use crate::model::change::ChangeKind;
use crate::model::ids::{DocumentId, Lsn};
use crate::model::time::Timestamp;

/// The layout below, which is stored.
const LAYOUT: u8 = 1;

/// A caller's name for one request, from its header `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A text that cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdempotencyKey {
    /// Empty or too long.
    #[error("an idempotency key has 1 to 255 characters, this one has {0}")]
    Length(usize),
    /// A space, a control character, or no ASCII.
    #[error("an idempotency key has visible ASCII characters only, for instance a UUID")]
    Character,
}

impl IdempotencyKey {
    /// Longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks and wraps a key.
    pub fn new(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(InvalidIdempotencyKey::Length(text.chars().count()));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidIdempotencyKey::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hash of what a request asks for. Two requests with different ones are different.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The hash of an operation's name, the id that it names, if any, and its body as it came.
    pub fn of(operation: &str, id: Option<&str>, body: &[u8]) -> Self {
        let mut hash = twox_hash::xxhash3_128::Hasher::new();
        // With their lengths, so that no end of one part reads as the beginning of the next.
        for part in [Some(operation.as_bytes()), id.map(str::as_bytes), Some(body)] {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.write(&length.to_be_bytes());
            hash.write(part.unwrap_or_default());
        }
        Self(hash.finish_128().to_be_bytes())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What the first request did; stored in the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it asked for.
    pub fingerprint: Fingerprint,
    /// What it did.
    pub kind: ChangeKind,
    /// To which document.
    pub id: DocumentId,
    /// Where it was committed.
    pub lsn: Lsn,
    /// When.
    pub at: Timestamp,
    /// From when on the key is free again.
    pub expires: Timestamp,
}

/// Bytes that are no record of this version of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency record cannot be read")]
pub struct InvalidRecord;

impl Record {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let id = self.id.as_str().as_bytes();
        let mut out = Vec::with_capacity(42 + id.len());
        out.push(LAYOUT);
        out.push(match self.kind {
            ChangeKind::Create => 0,
            ChangeKind::Replace => 1,
            ChangeKind::Delete | ChangeKind::Expire => 2,
        });
        out.extend_from_slice(&self.fingerprint.0);
        for number in [self.lsn.0, self.at.0, self.expires.0] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(id);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Self::read(bytes).ok_or(InvalidRecord)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[LAYOUT, kind], rest) = bytes.split_first_chunk()? else { return None };
        let kind = match kind {
            0 => ChangeKind::Create,
            1 => ChangeKind::Replace,
            2 => ChangeKind::Delete,
            _ => return None,
        };
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (lsn, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (expires, id) = rest.split_first_chunk()?;
        Some(Self {
            fingerprint: Fingerprint(*fingerprint),
            kind,
            id: DocumentId::new(std::str::from_utf8(id).ok()?).ok()?,
            lsn: Lsn(u64::from_be_bytes(*lsn)),
            at: Timestamp(u64::from_be_bytes(*at)),
            expires: Timestamp(u64::from_be_bytes(*expires)),
        })
    }
}

/// What a request with a known key gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// The same request: it was done, and this is what it did. It is not done again.
    Replay(&'a Record),
    /// Another request: refused, and the caller must take a new key.
    Mismatch,
    /// The record is too old: the request is done as if the key were new.
    Expired,
}

/// Decides about a request whose key has a record.
pub fn verdict(record: &Record, fingerprint: Fingerprint, now: Timestamp) -> Verdict<'_> {
    if now >= record.expires {
        return Verdict::Expired;
    }
    if record.fingerprint == fingerprint { Verdict::Replay(record) } else { Verdict::Mismatch }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            fingerprint: Fingerprint::of("create", None, b"{}"),
            kind: ChangeKind::Create,
            id: DocumentId::new("x").unwrap(),
            lsn: Lsn(812),
            at: Timestamp(1_000),
            expires: Timestamp(5_000),
        }
    }

    #[test]
    fn keys_are_visible_ascii_of_a_bounded_length() {
        for good in ["a", "0191e7e0-7b3c-7aaa-8bbb-0123456789ab", "\"quoted\"", "~!", &"k".repeat(255)] {
            assert_eq!(IdempotencyKey::new(good).unwrap().as_str(), good);
        }
        assert_eq!(IdempotencyKey::new(""), Err(InvalidIdempotencyKey::Length(0)));
        assert_eq!(IdempotencyKey::new(&"k".repeat(256)), Err(InvalidIdempotencyKey::Length(256)));
        for bad in ["a b", " ", "a\n", "a\0", "é", "\u{7f}"] {
            assert_eq!(IdempotencyKey::new(bad), Err(InvalidIdempotencyKey::Character), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_tells_requests_apart() {
        let all = [
            Fingerprint::of("create", None, b"{}"),
            Fingerprint::of("create", Some(""), b"{}"),
            Fingerprint::of("create", Some("{}"), b""),
            Fingerprint::of("create", None, b"{ }"),
            Fingerprint::of("upsert", None, b"{}"),
            Fingerprint::of("upsert", Some("x"), b"{}"),
            Fingerprint::of("upsertx", Some(""), b"{}"),
        ];
        for (i, left) in all.iter().enumerate() {
            for (j, right) in all.iter().enumerate() {
                assert_eq!(left == right, i == j, "{i} {j}");
            }
        }
        // Stored, so it must never change.
        assert_eq!(format!("{:?}", all[0]), "18c1d07c1cd8029c233b9c6388e9f674");
    }

    #[test]
    fn a_record_is_replayed_to_its_own_request_until_it_expires() {
        let record = record();
        let (own, other) = (record.fingerprint, Fingerprint::of("create", None, b"[]"));
        for (fingerprint, now, expected) in [
            (own, 0, Verdict::Replay(&record)),
            (own, 4_999, Verdict::Replay(&record)),
            (own, 5_000, Verdict::Expired),
            (other, 4_999, Verdict::Mismatch),
            (other, 5_000, Verdict::Expired),
        ] {
            assert_eq!(verdict(&record, fingerprint, Timestamp(now)), expected, "{now}");
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        let good = record().encode();
        assert_eq!((good.len(), Record::decode(&good)), (43, Ok(record())));
        for len in 0..good.len() {
            assert_eq!(Record::decode(&good[..len]), Err(InvalidRecord), "{len}");
        }
        for (at, byte) in [(0, 2), (1, 3), (42, 0), (42, 0xFF), (42, b'/')] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Record::decode(&bad), Err(InvalidRecord), "{at} {byte}");
        }
    }

    proptest! {
        #[test]
        fn a_record_survives_its_encoding(
            id in "[a-zé ]{0,9}x",
            kind in 0usize..3,
            numbers: [u64; 3],
            body in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let record = Record {
                fingerprint: Fingerprint::of("replace", Some(&id), &body),
                kind: [ChangeKind::Create, ChangeKind::Replace, ChangeKind::Delete][kind],
                id: DocumentId::new(&id).unwrap(),
                lsn: Lsn(numbers[0]),
                at: Timestamp(numbers[1]),
                expires: Timestamp(numbers[2]),
            };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn arbitrary_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ignored = Record::decode(&bytes);
        }
    }
}
