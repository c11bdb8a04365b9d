//! Stands between a secret that the process was given and everything that prints values.
//! Invariant: a secret is neither shown by `{:?}` or `{}` nor serialised; whoever needs it says [`Secret::expose`].

use std::fmt;
use std::ops::Deref;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A text, or bytes (`Secret<Vec<u8>>`), that is never printed.
///
/// Equality is for noticing that a configuration changed. It takes the time that it takes, so it is no way to
/// check what a stranger sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret<T = String>(T);

impl<T: Deref> Secret<T> {
    /// Hides a value from now on.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the one place that sends, hashes or signs with it.
    pub fn expose(&self) -> &T::Target {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Begins the text of a symmetric key (Standard Webhooks, "Signature scheme").
const SYMMETRIC: &str = "whsec_";
/// Begins the text of a private key.
const PRIVATE: &str = "whsk_";
/// Begins the text of a public key, which subscribers hold and which signs nothing.
const PUBLIC: &str = "whpk_";
/// Bytes that a symmetric key may have.
const SYMMETRIC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of an Ed25519 seed, and of a seed with its public key behind it.
const SEED_BYTES: usize = 32;
const PAIR_BYTES: usize = 64;

/// People copy keys with and without the padding at their end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key that signs deliveries as Standard Webhooks say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SigningKey {
    /// HMAC-SHA256 with a key of 24 to 64 bytes, written `whsec_<base64>`.
    V1(Secret<Vec<u8>>),
    /// Ed25519 with a seed of 32 bytes, written `whsk_<base64>`, with or without the 32 bytes of the public key
    /// behind it. Whether that public key is the right one is checked by the transport.
    V1a(Secret<Vec<u8>>),
}

/// Why a text is not a [`SigningKey`]. No message repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyProblem {
    /// The text begins like neither kind of key.
    #[error("a signing key begins with `whsec_` or `whsk_`")]
    Prefix,
    /// The text is the public half of a key.
    #[error("`whpk_` begins a public key, which is for those who check: sign with the `whsk_` key")]
    Public,
    /// What follows the beginning is not base64.
    #[error("what follows the beginning of the signing key is not base64")]
    Base64,
    /// A symmetric key is too short to be safe or longer than it may be.
    #[error("a `whsec_` key has 24 to 64 bytes, this one has {0}")]
    SymmetricLength(usize),
    /// A private key has neither of its two lengths.
    #[error("a `whsk_` key has 32 or 64 bytes, this one has {0}")]
    PrivateLength(usize),
}

impl SigningKey {
    /// Reads `whsec_…` or `whsk_…`.
    ///
    /// # Errors
    /// See [`SigningKeyProblem`].
    pub fn parse(text: &str) -> Result<Self, SigningKeyProblem> {
        let decode = |text: &str| BASE64.decode(text).map_err(|_| SigningKeyProblem::Base64);
        if let Some(text) = text.strip_prefix(SYMMETRIC) {
            let key = decode(text)?;
            if !SYMMETRIC_BYTES.contains(&key.len()) {
                return Err(SigningKeyProblem::SymmetricLength(key.len()));
            }
            return Ok(Self::V1(Secret::new(key)));
        }
        if let Some(text) = text.strip_prefix(PRIVATE) {
            let key = decode(text)?;
            if key.len() != SEED_BYTES && key.len() != PAIR_BYTES {
                return Err(SigningKeyProblem::PrivateLength(key.len()));
            }
            return Ok(Self::V1a(Secret::new(key)));
        }
        Err(if text.starts_with(PUBLIC) { SigningKeyProblem::Public } else { SigningKeyProblem::Prefix })
    }

    /// A new symmetric key out of random bytes.
    pub fn symmetric(random: [u8; 32]) -> Self {
        Self::V1(Secret::new(random.to_vec()))
    }

    /// The text that [`SigningKey::parse`] reads, for its owner to see once or for a store of secrets.
    pub fn reveal(&self) -> String {
        match self {
            Self::V1(key) => format!("{SYMMETRIC}{}", BASE64.encode(key.expose())),
            Self::V1a(key) => format!("{PRIVATE}{}", BASE64.encode(key.expose())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::from("hush");
        assert_eq!(format!("{secret} {secret:?} {:?}", SigningKey::symmetric([1; 32])), "*** *** V1(***)");
        assert_eq!(secret.expose(), "hush");
    }

    #[test]
    fn signing_keys_are_read_and_revealed_and_the_rest_is_refused_with_the_reason() {
        let text = |prefix: &str, bytes: usize| format!("{prefix}{}", BASE64.encode(vec![7; bytes]));
        for key in [text("whsec_", 24), text("whsec_", 64), text("whsk_", 32), text("whsk_", 64)] {
            assert_eq!(SigningKey::parse(&key).unwrap().reveal(), key);
            SigningKey::parse(key.trim_end_matches('=')).unwrap();
        }
        for (key, problem) in [
            (text("whsec_", 23), SigningKeyProblem::SymmetricLength(23)),
            (text("whsec_", 65), SigningKeyProblem::SymmetricLength(65)),
            (text("whsec_", 0), SigningKeyProblem::SymmetricLength(0)),
            (text("whsk_", 33), SigningKeyProblem::PrivateLength(33)),
            (text("whpk_", 32), SigningKeyProblem::Public),
            (text("", 32), SigningKeyProblem::Prefix),
            ("whsec_?".to_owned(), SigningKeyProblem::Base64),
            ("whsk_ü".to_owned(), SigningKeyProblem::Base64),
        ] {
            assert_eq!(SigningKey::parse(&key), Err(problem), "{key}");
        }
    }
}
