//! Stands between what a tenant trusts the process with (its secrets, its endpoint) and the disk.
//!
//! Invariant: nothing of it is on disk in clear, and what was sealed for one webhook opens for no other.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanekeeper_actors::policy::keys::Pepper;

/// What the key is made for. Its first character is in no API key, so that no stored hash is this key.
const PURPOSE: &str = "\0webhooks of tenants: seal 1";

/// Seals and opens with a key that follows from the pepper of the data directory.
pub(super) struct Seal(RandomizedNonceKey);

/// What cannot be sealed or opened: another key, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored webhook cannot be opened with the pepper of this data directory")]
pub struct Unsealable;

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Seal {
    pub(super) fn new(pepper: &Pepper) -> Result<Self, Unsealable> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &pepper.hash(PURPOSE).0);
        Ok(Self(key.map_err(|_| Unsealable)?))
    }

    /// Seals bytes for one place.
    pub(super) fn close(&self, place: &[u8], clear: &[u8]) -> Result<String, Unsealable> {
        let mut bytes = clear.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(place), &mut bytes).map_err(|_| Unsealable)?;
        Ok(STANDARD.encode([nonce.as_ref().as_slice(), &bytes].concat()))
    }

    /// Opens what was sealed for this place.
    pub(super) fn open(&self, place: &[u8], sealed: &str) -> Result<Vec<u8>, Unsealable> {
        let bytes = STANDARD.decode(sealed).map_err(|_| Unsealable)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        let (nonce, mut rest) = (Nonce::assume_unique_for_key(*nonce), rest.to_vec());
        let clear = self.0.open_in_place(nonce, Aad::from(place), &mut rest).map_err(|_| Unsealable)?;
        Ok(clear.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_for_one_place_opens_there_alone_and_with_its_pepper() {
        let seal = Seal::new(&Pepper::new([1; 32])).unwrap();
        let closed = seal.close(b"webhook/acme/1", b"whsec_secret").unwrap();
        assert!(!closed.contains("whsec"));
        assert_ne!(closed, seal.close(b"webhook/acme/1", b"whsec_secret").unwrap());
        assert_eq!(seal.open(b"webhook/acme/1", &closed).unwrap(), b"whsec_secret");
        assert_eq!(seal.open(b"webhook/other/1", &closed), Err(Unsealable));
        let other = Seal::new(&Pepper::new([2; 32])).unwrap();
        assert_eq!(other.open(b"webhook/acme/1", &closed), Err(Unsealable));
        for damaged in ["", "?", "AAAA"] {
            assert_eq!(seal.open(b"webhook/acme/1", damaged), Err(Unsealable));
        }
    }
}
