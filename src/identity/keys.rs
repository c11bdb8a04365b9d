//! Stands between a set of keys as an issuer publishes it (RFC 7517) and the signatures that are checked with them.
//! Invariant: a key that is held is strong, is for signatures, and says by itself for which algorithms it is used; a
//! secret is never taken from what an issuer publishes, nor a public key used as a secret.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use lanekeeper_actors::model::secret::Secret;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Family};
use super::refusal::Refusal;
use super::token::{Compact, is_kid};
use super::{json, roca};

/// Keys that a set may have.
const KEYS: usize = 128;
/// Keys that are tried for a token that names none.
const TRIED: usize = 4;
/// Bits that the modulus of an RSA key may have.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a set of keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysProblem {
    /// The text is not a JSON object with a list `keys` of objects, or repeats a name in one.
    #[error("not a set of keys: a JSON object with a list `keys` is expected, and no name twice")]
    Malformed,
    /// There are too many.
    #[error("there are more than {KEYS} keys")]
    TooMany,
    /// Two keys have the same id, so that nobody knows which one is meant.
    #[error("the key id `{0}` stands twice")]
    Repeated(String),
    /// No key is left once those that cannot be used are left out; says why the first one was.
    #[error("there is no key that can be used{}", .0.as_ref().map(|dropped| format!(": {dropped}")).unwrap_or_default())]
    Nothing(Option<Dropped>),
    /// A key that somebody configured cannot be used. One that an issuer publishes is left out instead.
    #[error("{0}")]
    Unusable(Dropped),
    /// A secret is shorter than the hash of its algorithm.
    #[error("a secret for {algorithm} needs at least {needed} bytes")]
    ShortSecret {
        /// The algorithm.
        algorithm: Algorithm,
        /// Bytes that it needs.
        needed: usize,
    },
}

/// A key of a set that is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key {} is {why}", .kid.as_ref().map_or_else(|| "without an id".to_owned(), |kid| format!("`{kid}`")))]
pub struct Dropped {
    /// Its id, if it has one that can be shown.
    pub kid: Option<String>,
    /// Why it is not used.
    pub why: Unfit,
}

/// Why a key is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is for encryption, or for making signatures only.
    #[error("not for checking signatures")]
    Use,
    /// A secret among public keys.
    #[error("a secret, which is not taken from a published set")]
    Symmetric,
    /// It has its private part with it, so it is nobody's secret any more.
    #[error("published with its private part")]
    Private,
    /// Its kind, curve or algorithm is not supported, or they do not belong together.
    #[error("of a kind that is not supported, or that does not fit its algorithm")]
    Unsupported,
    /// A member is missing or cannot be read, or the point is not on the curve.
    #[error("malformed")]
    Malformed,
    /// Its modulus is too short, or its exponent no good one.
    #[error("too weak: RSA needs 2048 to 8192 bits and an odd exponent above one")]
    Weak,
    /// It was made by a library whose keys can be factored (CVE-2017-15361).
    #[error("one that can be factored (ROCA)")]
    Factorable,
}

/// A secret that is shared with an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SharedSecret {
    /// The key id that tokens name it by. Without one it is tried for each token.
    pub kid: Option<String>,
    /// At least as long as the hash of each algorithm that it is used for.
    pub secret: Secret<Vec<u8>>,
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    by_kid: HashMap<String, usize>,
}

/// One key that can be used.
struct Key {
    kid: Option<String>,
    /// Whether it is also tried for tokens that name a key that is not there: it was configured without an id.
    is_default: bool,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// What is done with secrets in a set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    /// Public keys only.
    Public,
    /// Secrets only.
    Secrets,
}

impl KeySet {
    /// Reads a set that an issuer publishes. Keys that cannot be used are left out, and returned with the reason.
    ///
    /// # Errors
    /// When it is no set, is ambiguous, or nothing is left of it.
    pub fn from_jwks(text: &[u8]) -> Result<(Self, Vec<Dropped>), KeysProblem> {
        Self::read(text, Accepting::Public)
    }

    /// Reads a set of secrets, which is itself a secret. Each must be one that can be used.
    ///
    /// # Errors
    /// When it is no set, is ambiguous, or holds anything but good secrets.
    pub fn from_secret_jwks(text: &Secret) -> Result<Self, KeysProblem> {
        let (keys, dropped) = Self::read(text.expose().as_bytes(), Accepting::Secrets)?;
        dropped.into_iter().next().map_or(Ok(keys), |dropped| Err(KeysProblem::Unusable(dropped)))
    }

    /// Keys out of secrets for these algorithms; the asymmetric ones among them are passed over.
    ///
    /// # Errors
    /// When a secret is too short for one of the algorithms, an id is no id or stands twice, or there is no secret.
    pub fn from_secrets(secrets: &[SharedSecret], algorithms: &[Algorithm]) -> Result<Self, KeysProblem> {
        let mut set = Self::default();
        let algorithms: Vec<_> = algorithms.iter().copied().filter(|one| one.is_symmetric()).collect();
        for SharedSecret { kid, secret } in secrets {
            for algorithm in &algorithms {
                let needed = algorithm.secret_bytes().unwrap_or_default();
                if secret.expose().len() < needed {
                    return Err(KeysProblem::ShortSecret { algorithm: *algorithm, needed });
                }
            }
            if kid.as_ref().is_some_and(|kid| !is_kid(kid)) {
                return Err(KeysProblem::Unusable(Dropped { kid: None, why: Unfit::Malformed }));
            }
            set.add(Key {
                kid: kid.clone(),
                is_default: kid.is_none(),
                algorithms: algorithms.clone(),
                decoding: DecodingKey::from_secret(secret.expose()),
            })?;
        }
        if set.keys.is_empty() { Err(KeysProblem::Nothing(None)) } else { Ok(set) }
    }

    fn read(text: &[u8], accepting: Accepting) -> Result<(Self, Vec<Dropped>), KeysProblem> {
        let set = json::object(text).ok_or(KeysProblem::Malformed)?;
        let Some(Value::Array(list)) = set.get("keys") else { return Err(KeysProblem::Malformed) };
        if list.len() > KEYS {
            return Err(KeysProblem::TooMany);
        }
        let (mut keys, mut dropped) = (Self::default(), Vec::new());
        for one in list {
            let jwk = one.as_object().ok_or(KeysProblem::Malformed)?;
            match Key::read(jwk, accepting) {
                Ok(key) => keys.add(key)?,
                Err(why) => {
                    let kid = jwk.get("kid").and_then(Value::as_str).filter(|kid| is_kid(kid));
                    dropped.push(Dropped { kid: kid.map(str::to_owned), why });
                }
            }
        }
        if keys.keys.is_empty() {
            return Err(KeysProblem::Nothing(dropped.into_iter().next()));
        }
        Ok((keys, dropped))
    }

    fn add(&mut self, key: Key) -> Result<(), KeysProblem> {
        if let Some(kid) = &key.kid
            && self.by_kid.insert(kid.clone(), self.keys.len()).is_some()
        {
            return Err(KeysProblem::Repeated(kid.clone()));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Whether these are the very same keys, in whatever order.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let has = |set: &Self, key: &Key| set.keys.iter().any(|one| one.is_same(key));
        self.len() == other.len()
            && self.keys.iter().all(|key| has(other, key))
            && other.keys.iter().all(|key| has(self, key))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The ids of the keys, in their order; a key without one is left out.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.kid.as_deref())
    }

    /// Whether a key can be used for an algorithm.
    pub(super) fn has_key_for(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.algorithms.contains(&algorithm))
    }

    /// Checks a token's signature with the key that it names, or with the few that fit when it names none.
    ///
    /// # Errors
    /// [`Refusal::Key`] without such a key, [`Refusal::Algorithm`] when the key is for others, [`Refusal::Signature`]
    /// when no key fits.
    pub(super) fn verify(&self, token: &Compact<'_>) -> Result<(), Refusal> {
        let algorithm = token.header.algorithm;
        let named = token.header.kid.as_ref().and_then(|kid| self.by_kid.get(kid));
        if let Some(key) = named.and_then(|place| self.keys.get(*place)) {
            if !key.algorithms.contains(&algorithm) {
                return Err(Refusal::Algorithm);
            }
            return if key.verifies(token) { Ok(()) } else { Err(Refusal::Signature) };
        }
        let names_one = token.header.kid.is_some();
        let fits = |key: &&Key| (key.is_default || !names_one) && key.algorithms.contains(&algorithm);
        let fitting: Vec<_> = self.keys.iter().filter(fits).collect();
        // Nobody may make us try a whole set of keys by not saying which one.
        if fitting.is_empty() || fitting.len() > TRIED {
            return Err(Refusal::Key);
        }
        if fitting.iter().any(|key| key.verifies(token)) { Ok(()) } else { Err(Refusal::Signature) }
    }
}

impl Key {
    fn is_same(&self, other: &Self) -> bool {
        let is_same_material = match (self.decoding.kind(), other.decoding.kind()) {
            (DecodingKeyKind::SecretOrDer(one), DecodingKeyKind::SecretOrDer(two)) => one == two,
            (
                DecodingKeyKind::RsaModulusExponent { n: one, e: with },
                DecodingKeyKind::RsaModulusExponent { n: two, e: and },
            ) => one == two && with == and,
            (DecodingKeyKind::SecretOrDer(_), DecodingKeyKind::RsaModulusExponent { .. })
            | (DecodingKeyKind::RsaModulusExponent { .. }, DecodingKeyKind::SecretOrDer(_)) => false,
        };
        is_same_material
            && self.kid == other.kid
            && self.is_default == other.is_default
            && self.algorithms == other.algorithms
    }

    fn verifies(&self, token: &Compact<'_>) -> bool {
        let algorithm = token.header.algorithm.of_library();
        jsonwebtoken::crypto::verify(token.signature, token.message, &self.decoding, algorithm)
            .unwrap_or(false)
    }

    fn read(jwk: &Map<String, Value>, accepting: Accepting) -> Result<Self, Unfit> {
        let kind = jwk.get("kty").and_then(Value::as_str).ok_or(Unfit::Malformed)?;
        match (kind, accepting) {
            ("oct", Accepting::Public) => return Err(Unfit::Symmetric),
            ("oct", Accepting::Secrets) | (_, Accepting::Public) => {}
            (_, Accepting::Secrets) => return Err(Unfit::Unsupported),
        }
        if !is_for_signatures(jwk)? {
            return Err(Unfit::Use);
        }
        if ["d", "p", "q"].iter().any(|part| jwk.contains_key(*part)) {
            return Err(Unfit::Private);
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if is_kid(kid) => Some(kid.clone()),
            Some(_) => return Err(Unfit::Malformed),
        };
        let (family, decoding, bytes) = match kind {
            "RSA" => (Family::Rsa, rsa(jwk)?, 0),
            "EC" => elliptic(jwk)?,
            "OKP" => (Family::Ed25519, edwards(jwk)?, 0),
            "oct" => {
                let secret = member(jwk, "k")?;
                (Family::Hmac, DecodingKey::from_secret(&secret), secret.len())
            }
            _ => return Err(Unfit::Unsupported),
        };
        let algorithms = algorithms(jwk, family)?;
        let is_long = |one: &Algorithm| one.secret_bytes().is_none_or(|needed| bytes >= needed);
        let algorithms: Vec<_> = algorithms.into_iter().filter(is_long).collect();
        if algorithms.is_empty() {
            return Err(Unfit::Weak);
        }
        Ok(Self { kid, is_default: false, algorithms, decoding })
    }
}

/// Whether a key may check signatures (RFC 7517, sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Map<String, Value>) -> Result<bool, Unfit> {
    let of_use = match jwk.get("use") {
        None => true,
        Some(Value::String(wanted)) => wanted == "sig",
        Some(_) => return Err(Unfit::Malformed),
    };
    let of_operations = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|operation| operation == "verify"),
        Some(_) => return Err(Unfit::Malformed),
    };
    Ok(of_use && of_operations)
}

/// The algorithms of a key: the one that it names, or all that its kind can do.
fn algorithms(jwk: &Map<String, Value>, family: Family) -> Result<Vec<Algorithm>, Unfit> {
    let named = match jwk.get("alg") {
        None => return Ok(Algorithm::ALL.into_iter().filter(|one| one.family() == family).collect()),
        Some(Value::String(name)) => name.parse::<Algorithm>().map_err(|_| Unfit::Unsupported)?,
        Some(_) => return Err(Unfit::Malformed),
    };
    if named.family() == family { Ok(vec![named]) } else { Err(Unfit::Unsupported) }
}

/// A member that is base64url.
fn member(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unfit> {
    let text = jwk.get(name).and_then(Value::as_str).ok_or(Unfit::Malformed)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unfit::Malformed)
}

/// A number without leading zeros, which some libraries write.
fn number(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unfit> {
    let mut bytes = member(jwk, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

fn rsa(jwk: &Map<String, Value>) -> Result<DecodingKey, Unfit> {
    let (modulus, exponent) = (number(jwk, "n")?, number(jwk, "e")?);
    let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|last| last % 2 == 1);
    let zeros = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(zeros);
    // The library takes exponents of up to 33 bits.
    let is_sane = is_odd(&exponent) && exponent != [1] && exponent.len() <= 4;
    if !RSA_BITS.contains(&bits) || !is_odd(&modulus) || !is_sane {
        return Err(Unfit::Weak);
    }
    if roca::is_factorable(&modulus) {
        return Err(Unfit::Factorable);
    }
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<(Family, DecodingKey, usize), Unfit> {
    let (family, length, algorithm) = match jwk.get("crv").and_then(Value::as_str) {
        Some("P-256") => (Family::P256, 32, &signature::ECDSA_P256_SHA256_FIXED),
        Some("P-384") => (Family::P384, 48, &signature::ECDSA_P384_SHA384_FIXED),
        Some(_) => return Err(Unfit::Unsupported),
        None => return Err(Unfit::Malformed),
    };
    let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
    if x.len() != length || y.len() != length {
        return Err(Unfit::Malformed);
    }
    // An uncompressed point (SEC 1, section 2.3.3), which must lie on the curve.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    ParsedPublicKey::new(algorithm, &point).map_err(|_| Unfit::Malformed)?;
    Ok((family, DecodingKey::from_ec_der(&point), 0))
}

fn edwards(jwk: &Map<String, Value>) -> Result<DecodingKey, Unfit> {
    match jwk.get("crv").and_then(Value::as_str) {
        Some("Ed25519") => {}
        Some(_) => return Err(Unfit::Unsupported),
        None => return Err(Unfit::Malformed),
    }
    let point = member(jwk, "x")?;
    ParsedPublicKey::new(&signature::ED25519, &point).map_err(|_| Unfit::Malformed)?;
    Ok(DecodingKey::from_ed_der(&point))
}
