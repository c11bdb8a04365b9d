//! Stands between the names of signature algorithms (RFC 7518, section 3.1 and RFC 8037) and the library that checks
//! them.
//! Invariant: what is not in this list is not an algorithm; `none` is not.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken as library;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    RS256,
    /// RSA, PKCS #1 v1.5, with SHA-384.
    RS384,
    /// RSA, PKCS #1 v1.5, with SHA-512.
    RS512,
    /// RSA-PSS with SHA-256.
    PS256,
    /// RSA-PSS with SHA-384.
    PS384,
    /// RSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

/// A name that is none of an algorithm that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA")]
pub struct UnknownAlgorithm;

/// What kind of key an algorithm takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Its name, as a token's header has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Whether it is checked with the very secret that it is signed with.
    pub fn is_symmetric(self) -> bool {
        self.family() == Family::Hmac
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Hmac,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => Family::Rsa,
            Self::ES256 => Family::P256,
            Self::ES384 => Family::P384,
            Self::EdDSA => Family::Ed25519,
        }
    }

    /// Bytes that a secret must have: those of the hash (RFC 7518, section 3.2). None for the others.
    pub(super) fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            Self::RS256
            | Self::RS384
            | Self::RS512
            | Self::PS256
            | Self::PS384
            | Self::PS512
            | Self::ES256
            | Self::ES384
            | Self::EdDSA => None,
        }
    }

    pub(super) fn of_library(self) -> library::Algorithm {
        match self {
            Self::HS256 => library::Algorithm::HS256,
            Self::HS384 => library::Algorithm::HS384,
            Self::HS512 => library::Algorithm::HS512,
            Self::RS256 => library::Algorithm::RS256,
            Self::RS384 => library::Algorithm::RS384,
            Self::RS512 => library::Algorithm::RS512,
            Self::PS256 => library::Algorithm::PS256,
            Self::PS384 => library::Algorithm::PS384,
            Self::PS512 => library::Algorithm::PS512,
            Self::ES256 => library::Algorithm::ES256,
            Self::ES384 => library::Algorithm::ES384,
            Self::EdDSA => library::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
