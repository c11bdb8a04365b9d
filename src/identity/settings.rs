//! Stands between the section `identities` of a manifest and the verifier: which issuers are trusted, and with what.
//! Invariant: an identity that passes names one issuer, at least one audience, and algorithms that go with its keys.

use std::path::PathBuf;

use lanekeeper_actors::model::secret::Secret;

use super::algorithm::Algorithm;
use super::claims::Rules;
use super::fetch::{AddressProblem, FetchProblem};
use super::keys::{KeysProblem, SharedSecret};

/// An issuer whose tokens are accepted, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name in the manifest.
    pub name: String,
    /// What the claim `iss` must be, to the letter.
    pub issuer: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// How its tokens are signed.
    pub algorithms: Vec<Algorithm>,
    /// The values of `typ` that are accepted, in any case and with or without `application/`.
    pub types: Vec<String>,
    /// Whether a token without `typ` is accepted.
    pub untyped: bool,
    /// What is done with a token that brings a key.
    pub own_keys: OwnKeys,
    /// What its tokens must claim.
    pub rules: Rules,
    /// Blocks of addresses that are not public and from which keys may be fetched all the same.
    pub allow: Vec<String>,
    /// Certificates (PEM) of the only authorities that are trusted for the address of the keys.
    pub authority: Option<Vec<u8>>,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Secrets that are shared with the issuer.
    Secrets(Vec<SharedSecret>),
    /// A set of such secrets with their ids, as JSON.
    SecretJwks(Secret),
    /// A set of public keys in a file. It is read again when keys are refreshed.
    File(PathBuf),
    /// The address of a set of public keys.
    Url(String),
    /// The address of an OpenID discovery document.
    OpenId(String),
}

/// What is done with a token whose header brings a key, or says where one is (`jku`, `jwk`, `x5u`, `x5c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnKeys {
    /// The issuer's keys are used all the same.
    #[default]
    Ignored,
    /// The token is refused.
    Refused,
}

impl Identity {
    /// An issuer with the usual settings: RS256, access tokens and untyped ones, no skew.
    pub fn new(name: &str, issuer: &str, keys: KeySource, audience: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            issuer: issuer.to_owned(),
            keys,
            algorithms: vec![Algorithm::RS256],
            types: vec!["JWT".to_owned(), "at+jwt".to_owned()],
            untyped: true,
            own_keys: OwnKeys::default(),
            rules: Rules {
                audience: audience.iter().map(|one| (*one).to_owned()).collect(),
                ..Rules::default()
            },
            allow: Vec::new(),
            authority: None,
        }
    }

    /// Whether another identity has its keys from the same place, in the same way.
    pub(super) fn has_keys_of(&self, other: &Self) -> bool {
        self.name == other.name
            && self.issuer == other.issuer
            && self.keys == other.keys
            && self.algorithms == other.algorithms
            && self.allow == other.allow
            && self.authority == other.authority
    }
}

/// Why identities cannot be used as they are configured.
#[derive(Debug, thiserror::Error)]
#[error("identity `{identity}`")]
pub struct IdentityProblem {
    /// The identity's name.
    pub identity: String,
    /// What is wrong.
    #[source]
    pub fault: IdentityFault,
}

/// What is wrong with an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFault {
    /// Another identity has the same name.
    #[error("the name stands twice")]
    NameRepeated,
    /// Another identity has the same issuer, so that nobody knows which rules are meant.
    #[error("the issuer is also that of `{0}`")]
    IssuerRepeated(String),
    /// There is no issuer.
    #[error("the issuer is empty")]
    NoIssuer,
    /// Without an audience, tokens for other services would be accepted.
    #[error("the audience is empty")]
    NoAudience,
    /// There is no algorithm.
    #[error("there is no algorithm")]
    NoAlgorithm,
    /// A secret is used with an algorithm for public keys, or the other way round.
    #[error("the algorithm {0} does not go with the keys")]
    Algorithm(Algorithm),
    /// The configured keys cannot be used.
    #[error("the keys cannot be used")]
    Keys(#[from] KeysProblem),
    /// No configured key is for this algorithm.
    #[error("there is no key for the algorithm {0}")]
    NoKeyFor(Algorithm),
    /// The file of the keys cannot be used.
    #[error("the file of the keys cannot be used")]
    File(#[from] FetchProblem),
    /// The address of the keys cannot be used.
    #[error("the address of the keys cannot be used")]
    Address(#[from] AddressProblem),
}

/// Checks what can be checked without keys.
pub(super) fn check(identity: &Identity) -> Result<(), IdentityFault> {
    if identity.issuer.is_empty() {
        return Err(IdentityFault::NoIssuer);
    }
    if identity.rules.audience.is_empty() || identity.rules.audience.iter().any(String::is_empty) {
        return Err(IdentityFault::NoAudience);
    }
    if identity.algorithms.is_empty() {
        return Err(IdentityFault::NoAlgorithm);
    }
    let is_secret = match identity.keys {
        KeySource::Secrets(_) | KeySource::SecretJwks(_) => true,
        KeySource::File(_) | KeySource::Url(_) | KeySource::OpenId(_) => false,
    };
    match identity.algorithms.iter().find(|algorithm| algorithm.is_symmetric() != is_secret) {
        Some(stranger) => Err(IdentityFault::Algorithm(*stranger)),
        None => Ok(()),
    }
}
