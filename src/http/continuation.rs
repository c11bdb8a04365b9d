//! Stands between a page of a list and the request for the next one.
//!
//! Invariant: a token continues only the list that it came from. It grants nothing: whoever sends one is asked
//! for a key like anybody else, and reads from the partition that the path and the key name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanekeeper_actors::model::address::EncodedPartition;
use lanekeeper_actors::model::ids::DocumentId;

/// Layout: version, CRC32C of partition and id, id.
const VERSION: u8 = 1;

/// A token that no list has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the continuation was not given out by this list")]
pub struct InvalidContinuation;

/// The token that continues after the document `last`.
pub(super) fn encode(partition: &EncodedPartition, last: &DocumentId) -> String {
    let mut token = vec![VERSION];
    token.extend_from_slice(&checksum(partition, last.as_str()).to_le_bytes());
    token.extend_from_slice(last.as_str().as_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// The document after which a token continues.
pub(super) fn decode(partition: &EncodedPartition, token: &str) -> Result<DocumentId, InvalidContinuation> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidContinuation)?;
    let (&[VERSION], rest) = bytes.split_first_chunk::<1>().ok_or(InvalidContinuation)? else {
        return Err(InvalidContinuation);
    };
    let (sum, id) = rest.split_first_chunk::<4>().ok_or(InvalidContinuation)?;
    let id = std::str::from_utf8(id).map_err(|_| InvalidContinuation)?;
    if u32::from_le_bytes(*sum) != checksum(partition, id) {
        return Err(InvalidContinuation);
    }
    DocumentId::new(id).map_err(|_| InvalidContinuation)
}

fn checksum(partition: &EncodedPartition, id: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(partition.as_bytes()), id.as_bytes())
}

#[cfg(test)]
mod tests {
    use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
    use proptest::prelude::*;

    use super::*;

    fn partition(lane: &str) -> EncodedPartition {
        let key = vec![KeyPart::string(lane).unwrap()];
        PartitionAddress { container: "loads".into(), tenant: None, key }.encode()
    }

    #[test]
    fn a_token_continues_its_own_list_only() {
        let id = DocumentId::new("é x").unwrap();
        let token = encode(&partition("a"), &id);
        assert_eq!(decode(&partition("a"), &token), Ok(id));
        assert_eq!(decode(&partition("b"), &token), Err(InvalidContinuation));
    }

    #[test]
    fn a_changed_token_is_refused() {
        let token = encode(&partition("a"), &DocumentId::new("load-1").unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(decode(&partition("a"), &changed), Err(InvalidContinuation), "bit {bit}");
        }
        for cut in 0..token.len() {
            assert!(decode(&partition("a"), &token[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(token in "\\PC{0,40}") {
            prop_assert!(decode(&partition("a"), &token).is_err());
        }
    }
}
