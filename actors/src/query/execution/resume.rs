//! Where a query goes on: small, and valid after a restart, because it names no state outside itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::super::aggregate::Gathering;
use super::super::error::QueryError;
use super::super::limits;
use super::super::ranking::WrittenRank;

/// The state of a query between two pages. Its text is opaque; it fits one query with one set of
/// parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resume {
    /// Hash of the query that it belongs to.
    #[serde(rename = "q")]
    pub(super) query: u64,
    /// Rows that OFFSET still passes over.
    #[serde(rename = "s", default, skip_serializing_if = "is_zero")]
    pub(super) skip: u64,
    /// Rows that TOP or LIMIT still allows.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) take: Option<u64>,
    #[serde(flatten)]
    pub(super) kept: Kept,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Kept {
    /// Rows come as they are met.
    #[serde(rename = "r")]
    Rows(Option<Position>),
    /// Rows are sorted.
    #[serde(rename = "o")]
    Ranked {
        #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
        after: Option<WrittenRank>,
        #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
        ceiling: Option<WrittenRank>,
        /// Where the scan was interrupted.
        #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
        position: Option<Bytes>,
        #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<(WrittenRank, Value)>,
    },
    /// Rows are gathered to groups.
    #[serde(rename = "g")]
    Groups {
        #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
        after: Option<WrittenRank>,
        #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
        position: Option<Bytes>,
        #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
        gathering: Option<Gathering>,
    },
}

/// A document in the order of the scan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Position {
    #[serde(rename = "p")]
    pub(super) at: Bytes,
    /// How many of its rows were passed, when it has more; `None` when the document is done.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) passed: Option<u64>,
}

/// Bytes as base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        URL_SAFE_NO_PAD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Resume {
    /// This state, unless it is too large for a continuation.
    pub(super) fn bounded(self) -> Result<Self, QueryError> {
        let bytes = serde_json::to_string(&self).map_or(usize::MAX, |text| text.len());
        if bytes > limits::STATE_BYTES { Err(QueryError::StateTooLarge { bytes }) } else { Ok(self) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
