//! What a caller sends back to go on with a query: opaque text, bound to its query and its scope.
//!
//! It says by which way the documents were found, because positions mean nothing to another way.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::query::Resume;

/// The layout: this byte, a checksum over scope and state, the length of the passage, the passage, the
/// state.
const LAYOUT: u8 = 1;

/// A text that no query of this scope has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the continuation was not given out by this query: send it back whole, with the same query and partition"
)]
pub struct InvalidContinuation;

/// How documents are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    Scan,
    Ids,
    /// By the index with this number.
    Index(u32),
}

/// Where a source is when its page was interrupted between two documents: it may have passed some that
/// nobody sees, so that this is more than the last document that the query has met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) shard: u16,
    /// The rest of the partition's bytes behind those of the scope.
    pub(super) partition: Option<ByteBuf>,
    /// The rest of the last key, or of the last entry.
    pub(super) after: Option<ByteBuf>,
    /// The range of the index; `None` when the partition is done.
    pub(super) range: Option<usize>,
}

/// What is sent back.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    pub(super) way: Way,
    pub(super) place: Option<Place>,
    pub(super) resume: Resume,
}

pub(super) fn encode(scope: &[u8], passage: &Passage) -> Option<String> {
    let went = rmp_serde::to_vec(&(passage.way, &passage.place)).ok()?;
    let length = u16::try_from(went.len()).ok()?;
    let mut state = length.to_le_bytes().to_vec();
    state.extend_from_slice(&went);
    serde_json::to_writer(&mut state, &passage.resume).ok()?;
    let mut out = vec![LAYOUT];
    out.extend_from_slice(&checksum(scope, &state).to_le_bytes());
    out.extend_from_slice(&state);
    Some(URL_SAFE_NO_PAD.encode(out))
}

pub(super) fn decode(scope: &[u8], text: &str) -> Result<Passage, InvalidContinuation> {
    read(scope, text).ok_or(InvalidContinuation)
}

fn read(scope: &[u8], text: &str) -> Option<Passage> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (&[LAYOUT], rest) = bytes.split_first_chunk::<1>()? else { return None };
    let (sum, state) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != checksum(scope, state) {
        return None;
    }
    let (length, rest) = state.split_first_chunk::<2>()?;
    let (went, resume) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let (way, place) = rmp_serde::from_slice(went).ok()?;
    let resume = serde_json::from_slice(resume).ok()?;
    Some(Passage { way, place, resume })
}

fn checksum(scope: &[u8], state: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(scope), state)
}
