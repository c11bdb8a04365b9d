//! Stands between a body and those who want to know whence it comes: signs it as Standard Webhooks say.
//! Invariant: what is signed is what is sent, byte for byte: the id header, the timestamp header and the body.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lanekeeper_actors::model::secret::SigningKey;

/// Bytes of the seed at the beginning of a private key.
const SEED: usize = 32;

/// Why a private key cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a `whsk_` key does not fit its public half")]
pub struct BadKey;

/// The keys of one endpoint, ready to sign.
pub(crate) struct Signer {
    keys: Vec<Key>,
}

enum Key {
    V1(Box<hmac::Key>),
    V1a(Ed25519KeyPair),
}

impl Signer {
    /// Makes the keys ready. `None` when there are none.
    ///
    /// # Errors
    /// [`BadKey`] when the two halves of a private key are not of one pair.
    pub(crate) fn new(keys: &[SigningKey]) -> Result<Option<Self>, BadKey> {
        let keys = keys.iter().map(ready).collect::<Result<Vec<_>, _>>()?;
        Ok((!keys.is_empty()).then_some(Self { keys }))
    }

    /// The value of `webhook-signature`: one signature for each key, in their order, with spaces between them.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let mut list = String::new();
        for key in &self.keys {
            if !list.is_empty() {
                list.push(' ');
            }
            match key {
                Key::V1(key) => {
                    let mut context = hmac::Context::with_key(key);
                    context.update(head.as_bytes());
                    context.update(body);
                    list.push_str("v1,");
                    STANDARD.encode_string(context.sign(), &mut list);
                }
                Key::V1a(key) => {
                    list.push_str("v1a,");
                    STANDARD.encode_string(key.sign(&[head.as_bytes(), body].concat()), &mut list);
                }
            }
        }
        list
    }
}

fn ready(key: &SigningKey) -> Result<Key, BadKey> {
    match key {
        SigningKey::V1(secret) => Ok(Key::V1(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())))),
        SigningKey::V1a(secret) => {
            let (seed, public) = secret.expose().split_at_checked(SEED).ok_or(BadKey)?;
            let pair = if public.is_empty() {
                Ed25519KeyPair::from_seed_unchecked(seed)
            } else {
                Ed25519KeyPair::from_seed_and_public_key(seed, public)
            };
            pair.map(Key::V1a).map_err(|_| BadKey)
        }
    }
}

/// The text of an event id as `webhook-id` may hold it beside a signature: a dot would leave open where it ends.
pub(crate) fn undotted(id: &str) -> String {
    id.replace('.', "%2E")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(keys: &[&str]) -> Signer {
        let keys: Vec<SigningKey> = keys.iter().map(|key| SigningKey::parse(key).unwrap()).collect();
        Signer::new(&keys).unwrap().unwrap()
    }

    const ONE: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const TWO: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const BY_TWO: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const BY_PRIVATE: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn the_published_vectors_are_met() {
        assert_eq!(
            signer(&[ONE]).sign(
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                br#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        assert_eq!(signer(&[TWO]).sign(ID, AT, BODY), BY_TWO);
        assert_eq!(signer(&[PRIVATE]).sign(ID, AT, BODY), BY_PRIVATE);
        // The seed alone makes the same signature.
        let seed = &STANDARD.decode(PRIVATE.strip_prefix("whsk_").unwrap()).unwrap()[..SEED];
        assert_eq!(signer(&[&format!("whsk_{}", STANDARD.encode(seed))]).sign(ID, AT, BODY), BY_PRIVATE);
    }

    #[test]
    fn during_a_rotation_every_key_signs_in_its_order() {
        let both = signer(&[PRIVATE, TWO]).sign(ID, AT, BODY);
        assert_eq!(both, format!("{BY_PRIVATE} {BY_TWO}"));
        assert!(Signer::new(&[]).unwrap().is_none());
    }

    #[test]
    fn a_private_key_with_a_foreign_public_half_is_refused() {
        let mut pair = STANDARD.decode(PRIVATE.strip_prefix("whsk_").unwrap()).unwrap();
        *pair.last_mut().unwrap() ^= 1;
        let key = SigningKey::parse(&format!("whsk_{}", STANDARD.encode(pair))).unwrap();
        assert!(Signer::new(&[key]).is_err());
    }
}
