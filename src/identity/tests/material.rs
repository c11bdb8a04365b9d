//! Keys that are made for a test, and tokens signed with them.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Two RSA keys, as making one takes a while.
pub(super) static RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);
pub(super) static OTHER_RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);
pub(super) static P256: LazyLock<Signer> = LazyLock::new(Signer::p256);
pub(super) static P384: LazyLock<Signer> = LazyLock::new(Signer::p384);
pub(super) static EDWARDS: LazyLock<Signer> = LazyLock::new(Signer::edwards);

/// The private half of a key.
pub(super) enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
    Secret(Vec<u8>),
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(super) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(super) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(super) fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(super) fn edwards() -> Self {
        Self::Edwards(Ed25519KeyPair::generate().unwrap())
    }

    /// The algorithm that the key is used with unless a test says otherwise.
    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Edwards(_) => "EdDSA",
            Self::Secret(_) => "HS256",
        }
    }

    /// The public half as it comes out of the library: for RSA a DER structure, else a point.
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_ref().to_vec(),
            Self::Edwards(pair) => pair.public_key().as_ref().to_vec(),
            Self::Secret(secret) => secret.clone(),
        }
    }

    /// The public half as an issuer publishes it.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        let public = self.public();
        match self {
            Self::Rsa(_) => {
                // SEQUENCE, INTEGER of 257 bytes of which the first is zero, INTEGER 65537.
                assert_eq!(&public[4..9], [2, 0x82, 1, 1, 0]);
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": encode(&public[9..265]), "e": "AQAB" })
            }
            Self::P256(_) | Self::P384(_) => {
                let (x, y) = public[1..].split_at((public.len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "kid": kid, "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Self::Edwards(_) => json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(public) }),
            Self::Secret(secret) => json!({ "kty": "oct", "kid": kid, "k": encode(secret) }),
        }
    }

    pub(super) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding =
                    if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Edwards(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
        }
    }

    /// A token with this header and these claims.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of_texts(&header.to_string(), &claims.to_string())
    }

    /// The same from texts, which need not be good JSON.
    pub(super) fn token_of_texts(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let algorithm = serde_json::from_str::<Value>(header).ok();
        let algorithm = algorithm.and_then(|header| header["alg"].as_str().map(str::to_owned));
        let signed = self.sign(&algorithm.unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", encode(signed))
    }
}
