//! One line of the log: a JSON object with the number of the record, its time, what it says, and the hash of the line
//! before.
//!
//! Invariant: the hash is that of all bytes of a line but its line feed, so nothing in a line is outside of the chain.

use std::borrow::Cow;

use lanekeeper_actors::model::time::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::record::{Record, hex};

/// SHA-256 of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash([u8; 32]);

/// A place in the chain: the record that has it, and the hash of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) sequence: u64,
    pub(super) hash: Hash,
}

impl Link {
    /// Before the first record.
    pub(super) const START: Self = Self { sequence: 0, hash: Hash([0; 32]) };
}

impl Hash {
    pub(super) fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }

    pub(super) fn text(self) -> String {
        hex(&self.0)
    }

    /// Reads 64 hexadecimal digits, as they are written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok());
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// What the log itself asks of a line.
#[derive(Debug, Deserialize)]
pub(super) struct Known<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) action: Cow<'a, str>,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    /// Where files before this were taken away: the last record in them.
    through: Option<u64>,
    /// And its hash.
    hash: Option<String>,
}

impl<'a> Known<'a> {
    /// Reads a line without its line feed.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The hash that the line before must have.
    pub(super) fn prev(&self) -> Option<Hash> {
        Hash::parse(&self.prev)
    }

    /// Where files were taken away: the last record in them.
    pub(super) fn taken_away(&self) -> Option<Link> {
        Some(Link { sequence: self.through?, hash: Hash::parse(self.hash.as_deref()?)? })
    }
}

/// Adds the line of a record to `text`, and returns its place.
pub(super) fn write(text: &mut Vec<u8>, before: Link, at: Timestamp, record: &Record) -> Link {
    let sequence = before.sequence + 1;
    let body = record.body();
    let body = body.strip_suffix('}').unwrap_or_default();
    let line = format!(
        "{{\"seq\":{sequence},\"time\":\"{at}\",{body},\"prev\":\"{prev}\"}}",
        prev = before.hash.text()
    );
    let hash = Hash::of(line.as_bytes());
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    Link { sequence, hash }
}
