//! The published vectors of Wycheproof for signatures, keys and both together. They are not part of this repository;
//! without them the tests say so and pass.

use std::collections::BTreeSet;
use std::path::Path;

use lanekeeper_actors::model::secret::Secret;
use serde_json::{Value, json};

use super::super::token::Compact;
use crate::identity::KeySet;

/// Valid for Wycheproof and refused here, on purpose: P-521, a key whose algorithm is another one than the token's,
/// and characters that are no base64url.
const REFUSED_ON_PURPOSE: [u64; 6] = [346, 347, 350, 351, 372, 373];
/// To the byte the same as a vector that is valid.
const DEFECTIVE: [u64; 2] = [367, 370];

fn vectors(name: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/jose").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(_) => {
            println!("skipped: there are no vectors at {}", path.display());
            None
        }
    }
}

/// The keys of a group, as an issuer or, when all are secrets, as somebody who shares them would give them.
fn keys(group: &Value) -> Option<KeySet> {
    let key = group.get("public").unwrap_or(&group["private"]);
    let set = if key.get("keys").is_some() { key.clone() } else { json!({ "keys": [key] }) };
    let is_secret = |key: &Value| key["kty"] == "oct";
    if set["keys"].as_array().unwrap().iter().all(is_secret) {
        KeySet::from_secret_jwks(&Secret::new(set.to_string())).ok()
    } else {
        KeySet::from_jwks(set.to_string().as_bytes()).ok().map(|(keys, _)| keys)
    }
}

fn is_accepted(keys: Option<&KeySet>, token: &str) -> bool {
    let (Some(keys), Ok(compact)) = (keys, Compact::parse(token)) else { return false };
    keys.verify(&compact).is_ok()
}

/// Runs all vectors of a file, and returns how many there were and the ids of those that came out otherwise.
fn run(name: &str) -> Option<(usize, BTreeSet<u64>)> {
    let file = vectors(name)?;
    let (mut count, mut differing) = (0, BTreeSet::new());
    for group in file["testGroups"].as_array().unwrap() {
        let keys = keys(group);
        for test in group["tests"].as_array().unwrap() {
            // A token that is encrypted, or not in the compact form, is never accepted.
            let (token, expected) = match test.get("jws") {
                Some(Value::String(token)) => (token.clone(), test["result"] == "valid"),
                Some(other) => (other.to_string(), false),
                None => (test["jwe"].as_str().map_or_else(|| test["jwe"].to_string(), str::to_owned), false),
            };
            count += 1;
            if is_accepted(keys.as_ref(), &token) != expected {
                differing.insert(test["tcId"].as_u64().unwrap());
            }
        }
    }
    Some((count, differing))
}

#[test]
fn signatures_come_out_as_wycheproof_says() {
    let Some((count, differing)) = run("json_web_signature_test.json") else { return };
    assert_eq!(count, 401);
    assert_eq!(differing, REFUSED_ON_PURPOSE.into_iter().chain(DEFECTIVE).collect());
}

#[test]
fn keys_come_out_as_wycheproof_says() {
    let Some((count, differing)) = run("json_web_key_test.json") else { return };
    assert_eq!((count, differing), (26, BTreeSet::new()));
}

#[test]
fn keys_and_signatures_come_out_as_wycheproof_says() {
    let Some((count, differing)) = run("json_web_crypto_test.json") else { return };
    assert_eq!((count, differing), (83, BTreeSet::new()));
}
