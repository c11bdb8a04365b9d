//! The names that things have: shards, log positions, entity tags, tenants.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name given in the manifest (container, topic, subscription, product), cheap to clone.
pub type Name = Arc<str>;

/// Number of a physical shard, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Log sequence number: the place of one mutation in its shard's log.
/// Grows with every mutation, may skip numbers, is never used twice. 0 is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before the first mutation.
    pub const ZERO: Self = Self(0);

    /// The position `n` mutations later.
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// The next position.
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The position before this one.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of one committed change: unique in the process, and the id of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The shard whose log holds the change.
    pub shard: ShardId,
    /// The change's number in that log.
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.lsn)
    }
}

/// A text that is not `<shard>-<lsn>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event id: expected `<shard>-<lsn>`, for instance `0-812`")]
pub struct InvalidPosition(String);

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (shard, lsn) = text.split_once('-')?;
            Some(Self { shard: ShardId(shard.parse().ok()?), lsn: Lsn(lsn.parse().ok()?) })
        };
        parse().ok_or_else(|| InvalidPosition(text.chars().take(64).collect()))
    }
}

/// Entity tag of one version of a document (RFC 9110 section 8.8.3), always strong.
/// Shown with its quotes, in the header and in `_etag` alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Etag(pub Position);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:x}-{:x}\"", self.0.shard.0, self.0.lsn.0)
    }
}

/// Who pays: the owner of API keys, and of documents in isolated containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenantId(Arc<str>);

/// A text that cannot name a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is 1 to 128 characters of `A-Z a-z 0-9 . _ -`")]
pub struct InvalidTenant;

impl TenantId {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The tenant of calls for which nobody says whose they are. No key can be of it.
    pub const ANONYMOUS: &str = "anonymous";

    /// The tenant of calls for which nobody says whose they are.
    pub fn anonymous() -> Self {
        Self(Self::ANONYMOUS.into())
    }

    /// Checks and wraps a tenant's name.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > Self::MAX_BYTES || !name.bytes().all(legal) {
            return Err(InvalidTenant);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of a document: unique within its logical partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId(Arc<str>);

/// Why a text cannot be a document id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocumentId {
    /// Empty, or longer than [`DocumentId::MAX_BYTES`].
    #[error("an id has 1 to 1023 bytes, this one has {0}")]
    Length(usize),
    /// A character that would be ambiguous in a URL or a log.
    #[error("an id must not contain `{}`: no `/`, `\\`, `?`, `#` and no control characters", .0.escape_default())]
    Character(char),
    /// A space at the end.
    #[error("an id must not end with a space")]
    TrailingSpace,
}

impl DocumentId {
    /// Longest id, in bytes.
    pub const MAX_BYTES: usize = 1_023;

    /// Checks and wraps an id.
    pub fn new(id: &str) -> Result<Self, InvalidDocumentId> {
        if id.is_empty() || id.len() > Self::MAX_BYTES {
            return Err(InvalidDocumentId::Length(id.len()));
        }
        if let Some(c) = id.chars().find(|c| matches!(c, '/' | '\\' | '?' | '#') || c.is_control()) {
            return Err(InvalidDocumentId::Character(c));
        }
        if id.ends_with(' ') {
            return Err(InvalidDocumentId::TrailingSpace);
        }
        Ok(Self(id.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_ambiguous_in_urls_are_refused() {
        for bad in ["", "a/b", "a\\b", "a?b", "a#b", "a\0b", "a\nb", "a ", &"x".repeat(1_024)] {
            assert!(DocumentId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a b", "é😀", "..", &"x".repeat(1_023)] {
            assert!(DocumentId::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_position_survives_its_text() {
        let position = Position { shard: ShardId(3), lsn: Lsn(812) };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert!("3".parse::<Position>().is_err());
        assert_eq!(Etag(position).to_string(), "\"3-32c\"");
    }
}
