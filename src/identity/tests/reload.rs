//! What is refused when it is configured, and what stays when identities change.

use std::time::Duration;

use lanekeeper_actors::model::secret::Secret;
use serde_json::json;

use super::material::{EDWARDS, OTHER_RSA, P256, RSA, Signer, encode};
use super::server::Server;
use super::*;
use crate::identity::{Algorithm, FetchProblem, IdentityFault, KeysProblem, SharedSecret, Unfit};

fn fault(identities: Vec<Identity>) -> IdentityFault {
    Verifier::new(identities, clock()).expect_err("it cannot be used").fault
}

fn secret(kid: Option<&str>, bytes: usize) -> SharedSecret {
    SharedSecret { kid: kid.map(str::to_owned), secret: Secret::new(vec![7; bytes]) }
}

fn sharing(secrets: Vec<SharedSecret>, algorithms: &[Algorithm]) -> Identity {
    let mut identity = Identity::new("shared", "partner", KeySource::Secrets(secrets), &[AUDIENCE]);
    identity.algorithms = algorithms.to_vec();
    identity
}

#[test]
fn weak_keys_are_refused_when_they_are_configured() {
    let mut short = RSA.jwk("k");
    short["n"] = json!(encode([0xff; 128]));
    let mut one = RSA.jwk("k");
    one["e"] = json!("AQ");
    let mut even = RSA.jwk("k");
    even["e"] = json!("AQAA");
    let mut none = RSA.jwk("k");
    none["e"] = json!("");
    let mut off = P256.jwk("k");
    off["y"] = json!(encode([1; 32]));
    let mut shifted = P256.jwk("k");
    shifted["crv"] = json!("P-384");
    let mut private = EDWARDS.jwk("k");
    private["d"] = json!("AA");
    for (key, expected) in [
        (short, Unfit::Weak),
        (one, Unfit::Weak),
        (even, Unfit::Weak),
        (none, Unfit::Weak),
        (off, Unfit::Malformed),
        (shifted, Unfit::Malformed),
        (private, Unfit::Private),
        (json!({ "kty": "oct", "k": encode([7; 64]) }), Unfit::Symmetric),
        (json!({ "kty": "RSA" }), Unfit::Malformed),
        (json!({}), Unfit::Malformed),
    ] {
        let file = file(&[key.clone(), OTHER_RSA.jwk("good")]);
        let fault = fault(vec![file_identity(&file)]);
        let IdentityFault::File(FetchProblem::Keys(KeysProblem::Unusable(dropped))) = &fault else {
            panic!("attack 14: {key}: {fault:?}")
        };
        assert_eq!(dropped.why, expected, "attack 14: {key}");
    }
    for (bytes, algorithm, needed) in [
        (0, Algorithm::HS256, 32),
        (31, Algorithm::HS256, 32),
        (47, Algorithm::HS384, 48),
        (63, Algorithm::HS512, 64),
    ] {
        let fault = fault(vec![sharing(vec![secret(None, 64), secret(Some("k"), bytes)], &[algorithm])]);
        let IdentityFault::Keys(problem) = fault else { panic!("attack 14: {fault:?}") };
        assert_eq!(problem, KeysProblem::ShortSecret { algorithm, needed }, "attack 14");
    }
}

#[test]
fn identities_that_leave_a_doubt_are_refused() {
    let set = file(&[RSA.jwk("one")]);
    let plain = || file_identity(&set);
    let changed = |change: fn(&mut Identity)| {
        let mut identity = plain();
        change(&mut identity);
        vec![identity]
    };
    assert!(matches!(fault(changed(|one| one.issuer.clear())), IdentityFault::NoIssuer));
    assert!(matches!(fault(changed(|one| one.rules.audience.clear())), IdentityFault::NoAudience));
    assert!(matches!(
        fault(changed(|one| one.rules.audience.push(String::new()))),
        IdentityFault::NoAudience
    ));
    assert!(matches!(fault(changed(|one| one.algorithms.clear())), IdentityFault::NoAlgorithm));
    let mixed = fault(changed(|one| one.algorithms.push(Algorithm::HS256)));
    assert!(matches!(mixed, IdentityFault::Algorithm(Algorithm::HS256)));
    let mixed = fault(vec![sharing(vec![secret(None, 64)], &[Algorithm::HS256, Algorithm::RS256])]);
    assert!(matches!(mixed, IdentityFault::Algorithm(Algorithm::RS256)));
    let repeated =
        fault(vec![sharing(vec![secret(Some("k"), 64), secret(Some("k"), 65)], &[Algorithm::HS256])]);
    assert!(matches!(repeated, IdentityFault::Keys(KeysProblem::Repeated(_))));
    assert!(matches!(fault(vec![sharing(vec![], &[Algorithm::HS256])]), IdentityFault::Keys(_)));
    let mut other = plain();
    other.name = "other".to_owned();
    assert!(matches!(fault(vec![plain(), other]), IdentityFault::IssuerRepeated(name) if name == "staff"));
    let mut other = plain();
    other.issuer = "other".to_owned();
    assert!(matches!(fault(vec![plain(), other]), IdentityFault::NameRepeated));
    let missing = fault(changed(|one| one.keys = KeySource::File("/nowhere/keys.json".into())));
    assert!(matches!(missing, IdentityFault::File(FetchProblem::File(_))));
    let mut with_set = sharing(Vec::new(), &[Algorithm::HS384]);
    with_set.keys = KeySource::SecretJwks(Secret::new(
        json!({ "keys": [{ "kty": "oct", "kid": "k", "k": encode([7; 32]) }] }).to_string(),
    ));
    assert!(matches!(fault(vec![with_set]), IdentityFault::NoKeyFor(Algorithm::HS384)));
}

#[tokio::test]
async fn secrets_are_tried_for_whatever_key_a_token_names_unless_they_have_names() {
    let (old, new) = (Signer::Secret(vec![1; 32]), Signer::Secret(vec![2; 32]));
    let claims = with(json!({ "iss": "partner" }));
    let shared = |kid: Option<&str>, signer: &Signer| SharedSecret {
        kid: kid.map(str::to_owned),
        secret: Secret::new(signer.public()),
    };
    let rotating = vec![shared(None, &old), shared(None, &new)];
    let rotating = verifier(vec![sharing(rotating, &[Algorithm::HS256])], &clock());
    let named = vec![shared(Some("old"), &old), shared(Some("new"), &new)];
    let named = verifier(vec![sharing(named, &[Algorithm::HS256])], &clock());
    for signer in [&old, &new] {
        assert_eq!(refusal(&rotating, &plain(signer, "whatever", &claims)).await, None);
        assert_eq!(refusal(&named, &plain(signer, "whatever", &claims)).await, Some(Refusal::Key));
        assert_eq!(refusal(&rotating, &signer.token(&json!({ "alg": "HS256" }), &claims)).await, None);
    }
    assert_eq!(refusal(&named, &plain(&old, "old", &claims)).await, None);
    assert_eq!(refusal(&named, &plain(&old, "new", &claims)).await, Some(Refusal::Signature));
    let longer = old.token(&json!({ "alg": "HS512", "kid": "old" }), &claims);
    assert_eq!(refusal(&named, &longer).await, Some(Refusal::Algorithm));
    assert!(!format!("{named:?}").contains("[1, 1"), "no secret is shown");
}

#[tokio::test]
async fn identities_that_stay_keep_their_keys_and_their_tokens() {
    let server = Server::of(&[RSA.jwk("one")]).await;
    let mut identity = Identity::new("staff", STAFF, KeySource::Url(server.url()), &[AUDIENCE]);
    identity.allow = vec!["127.0.0.0/8".to_owned()];
    let first = verifier(vec![identity.clone()], &clock());
    let token = plain(&RSA, "one", &good());
    let found = accepted(&first, &token).await;
    let set = file(&[P256.jwk("p")]);
    let mut other = file_identity(&set);
    (other.name, other.issuer) = ("other".to_owned(), "other".to_owned());
    let second = first.followed_by(vec![identity.clone(), other]).unwrap();
    assert!(Arc::ptr_eq(&found, &accepted(&second, &token).await));
    assert_eq!(server.visits(), 1);

    identity.rules.audience = vec!["api://else".to_owned()];
    let third = second.followed_by(vec![identity]).unwrap();
    assert_eq!(
        refusal(&third, &token).await,
        Some(Refusal::Audience),
        "what was found under other rules is not used"
    );
    assert_eq!(server.visits(), 1, "the keys are still good");
    assert_eq!(refusal(&second, &token).await, None, "requests under way keep theirs");
    let none = third.followed_by(Vec::new()).unwrap();
    assert_eq!(refusal(&none, &token).await, Some(Refusal::Issuer));
}

#[tokio::test]
async fn a_file_is_read_again_when_identities_are_applied_and_every_hour() {
    let (set, clock) = (file(&[RSA.jwk("one")]), clock());
    let first = verifier(vec![file_identity(&set)], &clock);
    let lasting = |signer: &Signer, kid: &str| plain(signer, kid, &with(json!({ "exp": NOW + 86_400 })));
    let (one, two, three) = (lasting(&RSA, "one"), lasting(&OTHER_RSA, "two"), lasting(&RSA, "three"));
    accepted(&first, &one).await;
    let write =
        |keys: serde_json::Value| std::fs::write(set.path(), json!({ "keys": keys }).to_string()).unwrap();
    write(json!([OTHER_RSA.jwk("two")]));
    let second = first.followed_by(vec![file_identity(&set)]).unwrap();
    accepted(&second, &two).await;
    assert_eq!(refusal(&second, &one).await, Some(Refusal::Key));
    write(json!([RSA.jwk("three")]));
    clock.advance(Duration::from_secs(3_600));
    accepted(&second, &three).await;
    std::fs::write(set.path(), "{").unwrap();
    let problem = second.followed_by(vec![file_identity(&set)]).expect_err("the file is broken");
    assert_eq!(problem.to_string(), "identity `staff`");
    accepted(&second, &three).await;
}
