//! What a caller sends back to go on with a query: opaque text, bound to its query and its scope.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::query::Resume;

/// The layout: this byte, a checksum over scope and state, the state.
const LAYOUT: u8 = 1;

/// A text that no query of this scope has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the continuation was not given out by this query: send it back whole, with the same query and partition"
)]
pub struct InvalidContinuation;

pub(super) fn encode(prefix: &[u8], resume: &Resume) -> Result<String, serde_json::Error> {
    let state = serde_json::to_vec(resume)?;
    let mut out = vec![LAYOUT];
    out.extend_from_slice(&checksum(prefix, &state).to_le_bytes());
    out.extend_from_slice(&state);
    Ok(URL_SAFE_NO_PAD.encode(out))
}

pub(super) fn decode(prefix: &[u8], text: &str) -> Result<Resume, InvalidContinuation> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidContinuation)?;
    let Some((&[LAYOUT], rest)) = bytes.split_first_chunk::<1>() else { return Err(InvalidContinuation) };
    let (sum, state) = rest.split_first_chunk::<4>().ok_or(InvalidContinuation)?;
    if u32::from_le_bytes(*sum) != checksum(prefix, state) {
        return Err(InvalidContinuation);
    }
    serde_json::from_slice(state).map_err(|_| InvalidContinuation)
}

fn checksum(prefix: &[u8], state: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(prefix), state)
}
