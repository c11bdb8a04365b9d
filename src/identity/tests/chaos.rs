//! No input makes any of it panic, and nothing but the very token is accepted.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::token::Compact;
use super::material::{EDWARDS, P256, RSA, encode};
use super::*;
use crate::identity::{Algorithm, Claims, KeySet, Requirement, Rules, Wanted};

/// A verifier with a set in a file, and a good token.
static WORLD: LazyLock<(Verifier, String, tempfile::NamedTempFile)> = LazyLock::new(|| {
    let set = file(&[P256.jwk("e1"), EDWARDS.jwk("d1"), RSA.jwk("r1")]);
    let mut identity = file_identity(&set);
    identity.algorithms = vec![Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];
    (verifier(vec![identity], &clock()), plain(&EDWARDS, "d1", &good()), set)
});

fn check(token: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(WORLD.0.verify(token)).is_ok()
}

/// Any JSON of a small size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(NOW + 1)),
        Just(json!(STAFF)),
        Just(json!(AUDIENCE)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop_oneof![
            Just("kid".to_owned()),
            Just("alg".to_owned()),
            Just("kty".to_owned()),
            Just("crv".to_owned()),
            Just("x".to_owned()),
            Just("n".to_owned()),
            Just("e".to_owned()),
            Just("k".to_owned()),
            ".{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_accepted_and_none_panics(text in ".{0,200}", dotted in "[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(!check(&text));
        prop_assert!(!check(&dotted));
    }

    #[test]
    fn a_token_with_one_other_byte_is_refused(place in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f) {
        let good = &WORLD.1;
        prop_assert!(check(good));
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        prop_assert!(!check(std::str::from_utf8(&bytes).unwrap()));
    }

    #[test]
    fn no_header_or_claims_panic(header in any_json(), claims in any_json(), signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut named = header.clone();
        if let Some(map) = named.as_object_mut() {
            map.insert("alg".to_owned(), json!("ES256"));
            map.insert("kid".to_owned(), json!("e1"));
        }
        for header in [header, named] {
            let token = format!("{}.{}.{}", encode(header.to_string()), encode(claims.to_string()), encode(&signature));
            prop_assert!(!check(&token));
            if let Ok(compact) = Compact::parse(&token) {
                compact.claims().ok();
            }
        }
        if let Value::Object(map) = claims {
            let claims = Claims::new(map.into_iter().chain([("exp".to_owned(), json!(NOW + 9))]).collect());
            let rules = Rules {
                audience: vec![AUDIENCE.to_owned()],
                skew: std::time::Duration::MAX,
                max_lifetime: Some(std::time::Duration::ZERO),
                tenant_claim: Some("/kid/alg".to_owned()),
            };
            super::super::claims::check(&claims, &rules, Timestamp(u64::MAX)).ok();
            Requirement { claim: "/kid".to_owned(), wanted: Wanted::Any(vec![json!(1)]), separator: Some(' ') }
                .is_met(&claims);
        }
    }

    #[test]
    fn no_set_of_keys_panics(keys in prop::collection::vec(any_json(), 0..4), kind in "RSA|EC|OKP|oct", curve in "P-256|P-384|Ed25519") {
        let mut dressed = keys.clone();
        for key in dressed.iter_mut().filter_map(Value::as_object_mut) {
            key.insert("kty".to_owned(), json!(kind));
            key.insert("crv".to_owned(), json!(curve));
        }
        for keys in [keys, dressed] {
            let text = json!({ "keys": keys }).to_string();
            KeySet::from_jwks(text.as_bytes()).ok();
            KeySet::from_secret_jwks(&text.as_str().into()).ok();
        }
    }

    #[test]
    fn no_bytes_are_a_set_of_keys(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(KeySet::from_jwks(&bytes).is_err());
    }
}
