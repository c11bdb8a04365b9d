//! The text of an API key, and the keyed hash that is all that is kept of it.
//!
//! Stands between a caller's header and the key ring. Invariant: no `Debug` output and no error
//! contains a secret, and hashes are compared in constant time.

use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What keys made here begin with, so that scanners for leaked secrets find them.
pub const PREFIX: &str = "lk_";
/// 32 bytes in base64.
const BODY: usize = 43;
/// 24 bits in hexadecimal.
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + BODY + CHECKSUM;

/// Lengths that a key made elsewhere may have, in bytes.
pub const FOREIGN_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;
/// Longest hint, in characters.
const HINT: usize = 8;

/// An API key in clear. It exists while a key is made or a request is admitted, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeySecret(String);

/// Why a text is no API key. Found without looking anything up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Does not begin with [`PREFIX`].
    #[error("an api key begins with `{PREFIX}`")]
    Prefix,
    /// Cut, or with something added.
    #[error("an api key has {LENGTH} characters, one from elsewhere {} to {}", FOREIGN_LENGTH.start(), FOREIGN_LENGTH.end())]
    Length,
    /// A character that keys do not have.
    #[error("an api key from elsewhere has visible ascii characters only, one made here `A-Z a-z 0-9 _ -`")]
    Character,
    /// Mistyped, or guessed.
    #[error("the api key's checksum is wrong: it was mistyped or cut")]
    Checksum,
}

impl ApiKeySecret {
    /// Makes a key from 32 random bytes, which must come from the system's generator:
    /// [`PREFIX`], the bytes in base64url, and 6 hexadecimal digits of checksum.
    pub fn generate(random: [u8; 32]) -> Self {
        let mut text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let sum = checksum(&text);
        text.push_str(&sum);
        Self(text)
    }

    /// Reads a key that was made by [`generate`](Self::generate).
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        if !text.starts_with(PREFIX) {
            return Err(InvalidKey::Prefix);
        }
        if text.len() != LENGTH {
            return Err(InvalidKey::Length);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(InvalidKey::Character);
        }
        let (body, sum) = text.split_at_checked(LENGTH - CHECKSUM).ok_or(InvalidKey::Length)?;
        if checksum(body) != sum {
            return Err(InvalidKey::Checksum);
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads whatever a caller sent as a key: one made here, or one that a user chose, of 16 to 256
    /// visible ASCII characters. What begins with [`PREFIX`] must be made here, so that a mistyped
    /// key costs no lookup; for the same reason users cannot choose such a key.
    pub fn parse_foreign(text: &str) -> Result<Self, InvalidKey> {
        if text.starts_with(PREFIX) {
            return Self::parse(text);
        }
        if !FOREIGN_LENGTH.contains(&text.len()) {
            return Err(InvalidKey::Length);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidKey::Character);
        }
        Ok(Self(text.to_owned()))
    }

    /// The key itself: to be hashed, or to be shown once to whoever made it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first characters, by which people tell their keys apart: 8, or fewer where that would be
    /// more than a quarter of the key.
    pub fn hint(&self) -> String {
        self.0.chars().take(HINT.min(self.0.len() / 4)).collect()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn checksum(text: &str) -> String {
    format!("{:06x}", crc32c::crc32c(text.as_bytes()) & 0x00FF_FFFF)
}

/// The process's own secret, without which a stolen store is of no use for guessing keys.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// Wraps 32 random bytes, which are kept outside the store.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// HMAC-SHA256 of a secret. The same for every secret: API keys and the admin token.
    pub fn hash(&self, secret: &str) -> KeyHash {
        // HMAC fills a short key with zeros up to its block of 64 bytes (RFC 2104 section 2).
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(secret.as_bytes());
        KeyHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What is kept of a key. Compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_was_made_here_is_read_back() {
        let key = ApiKeySecret::generate([7; 32]);
        assert_eq!(key.expose().len(), LENGTH);
        assert!(key.expose().starts_with(PREFIX));
        assert_eq!(ApiKeySecret::parse(key.expose()), Ok(key.clone()));
        assert_eq!(ApiKeySecret::parse_foreign(key.expose()), Ok(key.clone()));
        assert_eq!(key.hint(), &key.expose()[..8]);
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_lookup() {
        let key = ApiKeySecret::generate([7; 32]).expose().to_owned();
        let other_end = key.replace(&key[LENGTH - 1..], if key.ends_with('0') { "1" } else { "0" });
        for (text, error) in [
            ("", InvalidKey::Prefix),
            ("sk_live_0123456789", InvalidKey::Prefix),
            (&key.to_uppercase(), InvalidKey::Prefix),
            (PREFIX, InvalidKey::Length),
            (&key[..LENGTH - 1], InvalidKey::Length),
            (&format!("{key}0"), InvalidKey::Length),
            (&format!("lk_é{}", &key[5..]), InvalidKey::Character),
            (&key.replacen("lk_", "lk_\n", 1)[..LENGTH], InvalidKey::Character),
            (&other_end, InvalidKey::Checksum),
        ] {
            assert_eq!(ApiKeySecret::parse(text), Err(error), "{text}");
        }
        assert_eq!(ApiKeySecret::parse_foreign(&other_end), Err(InvalidKey::Checksum));
    }

    #[test]
    fn keys_from_elsewhere_are_visible_ascii() {
        for (text, expected) in [
            ("0123456789abcdef", Ok(())),
            (&"~".repeat(256), Ok(())),
            ("0123456789abcde", Err(InvalidKey::Length)),
            (&"x".repeat(257), Err(InvalidKey::Length)),
            ("0123456789 abcdef", Err(InvalidKey::Character)),
            ("0123456789abcdefé", Err(InvalidKey::Character)),
            ("0123456789abcdef\n", Err(InvalidKey::Character)),
            ("lk_my-own-idea-of-a-key", Err(InvalidKey::Length)),
        ] {
            assert_eq!(ApiKeySecret::parse_foreign(text).map(drop), expected, "{text}");
        }
        assert_eq!(ApiKeySecret::parse_foreign("0123456789abcdef").unwrap().hint(), "0123");
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231 section 4.2.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        let hash = Pepper::new(key).hash("Hi There");
        assert_eq!(hash.0.iter().map(|b| format!("{b:02x}")).collect::<String>(), expected);
        assert_ne!(hash, Pepper::new([1; 32]).hash("Hi There"));
        assert_ne!(hash, Pepper::new(key).hash("Hi there"));
    }

    #[test]
    fn a_hash_survives_its_encodings() {
        let hash = Pepper::new([1; 32]).hash("x");
        let packed = rmp_serde::to_vec_named(&hash).unwrap();
        assert_eq!(packed.len(), 34, "two bytes of header");
        assert_eq!(rmp_serde::from_slice::<KeyHash>(&packed).unwrap(), hash);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<KeyHash>(&json).unwrap(), hash);
    }

    #[test]
    fn nothing_prints_a_secret() {
        let key = ApiKeySecret::generate([7; 32]);
        let pepper = Pepper::new([9; 32]);
        assert_eq!(format!("{key:?} {pepper:?}"), "*** ***");
        assert_eq!(format!("{:?}", pepper.hash(key.expose())), "KeyHash(***)");
    }

    proptest! {
        #[test]
        fn one_changed_character_never_passes(random: [u8; 32], at in 3usize..LENGTH, to in "[A-Za-z0-9_-]") {
            let key = ApiKeySecret::generate(random);
            let mut text = key.expose().to_owned();
            text.replace_range(at..=at, &to);
            prop_assert_eq!(ApiKeySecret::parse(&text).is_ok(), text == key.expose());
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in "(lk_)?\\PC{0,60}") {
            if let Ok(key) = ApiKeySecret::parse_foreign(&text) {
                prop_assert_eq!(key.expose(), text);
            }
        }
    }
}
