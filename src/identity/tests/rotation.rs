//! Keys that come over the network: rotation, floods, outages, and servers that are not to be trusted.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::material::{EDWARDS, OTHER_RSA, RSA, encode};
use super::server::{Server, answer, answer_with_keys};
use super::*;
use crate::identity::{AddressProblem, FetchProblem, IdentityFault, KeysProblem};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn url_identity(url: &str) -> Identity {
    let mut identity = Identity::new("staff", STAFF, KeySource::Url(url.to_owned()), &[AUDIENCE]);
    identity.allow = vec!["127.0.0.0/8".to_owned()];
    identity
}

/// A token that is valid for days, so that only its key can be at fault.
fn lasting(kid: &str) -> String {
    plain(&RSA, kid, &with(json!({ "exp": NOW + 7 * 86_400 })))
}

fn down() -> Vec<u8> {
    answer("503 Service Unavailable", "text/plain", "")
}

/// Waits until a condition holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_new_key_is_accepted_within_one_fetch_and_a_removed_one_refused_within_an_hour() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    accepted(&verifier, &lasting("one")).await;
    server.answer(answer_with_keys(&[RSA.jwk("one"), OTHER_RSA.jwk("two")]));
    let new = plain(&OTHER_RSA, "two", &good());
    accepted(&verifier, &new).await;
    assert_eq!(server.visits(), 2);

    server.answer(answer_with_keys(&[OTHER_RSA.jwk("two")]));
    clock.advance(HOUR);
    assert_eq!(refusal(&verifier, &lasting("one")).await, Some(Refusal::Key), "attack 18");
    let states = verifier.states();
    assert_eq!(states[0].ids, ["two"]);
    assert_eq!(states[0].generation, 3);
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_key_its_minute_and_its_time() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    let token = lasting("one");
    let first = accepted(&verifier, &token).await;
    assert!(Arc::ptr_eq(&first, &accepted(&verifier, &token).await), "it is remembered");
    clock.advance(MINUTE);
    let second = accepted(&verifier, &token).await;
    assert!(!Arc::ptr_eq(&first, &second), "not for longer than a minute");

    let short = plain(&RSA, "one", &with(json!({ "exp": NOW + 70 })));
    accepted(&verifier, &short).await;
    clock.advance(Duration::from_secs(10));
    assert_eq!(refusal(&verifier, &short).await, Some(Refusal::Expired), "not beyond its end");

    // The keys that are there again are another generation.
    server.answer(answer_with_keys(&[OTHER_RSA.jwk("two")]));
    verifier.refresh("staff").await.unwrap().unwrap();
    assert_eq!(refusal(&verifier, &token).await, Some(Refusal::Key), "attack 24");
    server.answer(answer_with_keys(&[RSA.jwk("one")]));
    let state = verifier.refresh("staff").await.unwrap().unwrap();
    assert_eq!((state.generation, state.ids), (3, vec!["one".to_owned()]));
    assert!(!Arc::ptr_eq(&second, &accepted(&verifier, &token).await));
    assert!(verifier.refresh("nobody").await.is_none());
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_fetch_in_five_minutes() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    accepted(&verifier, &lasting("one")).await;
    assert_eq!(server.visits(), 1);
    let flood: Vec<String> = (0..200).map(|n| lasting(&format!("k{n}"))).collect();
    for round in 0..3 {
        server.close();
        let tokens = join_all((0..1_000).map(|n| refusal(&verifier, &flood[n % flood.len()])));
        let open = async {
            until("somebody asks", || server.visits() > 1 + round).await;
            server.open();
        };
        let (refused, ()) = tokio::join!(tokens, open);
        assert!(refused.iter().all(|refusal| *refusal == Some(Refusal::Key)), "attack 17");
        assert_eq!(server.visits(), 2 + round);
        for token in &flood {
            assert_eq!(refusal(&verifier, token).await, Some(Refusal::Key));
        }
        assert_eq!(server.visits(), 2 + round, "attack 17: no second one");
        clock.advance(5 * MINUTE);
    }
}

#[tokio::test]
async fn whoever_hangs_up_does_not_spend_the_fetch_of_the_others() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    accepted(&verifier, &lasting("one")).await;
    server.answer(answer_with_keys(&[RSA.jwk("one"), OTHER_RSA.jwk("two")]));
    server.close();
    let impatient = lasting("junk");
    tokio::select! {
        biased;
        _ = verifier.verify(&impatient) => panic!("the gate is closed"),
        () = until("somebody asks", || server.visits() == 2) => {}
    }
    server.open();
    accepted(&verifier, &plain(&OTHER_RSA, "two", &good())).await;
    assert_eq!(server.visits(), 2);
}

#[tokio::test]
async fn a_thousand_first_requests_share_one_fetch() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    let token = lasting("one");
    server.close();
    let tokens = join_all((0..1_000).map(|_| refusal(&verifier, &token)));
    let open = async {
        until("somebody asks", || server.visits() > 0).await;
        server.open();
    };
    let (refused, ()) = tokio::join!(tokens, open);
    assert!(refused.iter().all(Option::is_none));
    assert_eq!(server.visits(), 1);
}

#[tokio::test]
async fn keys_are_used_for_a_day_while_their_server_is_down_and_no_longer() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    let token = lasting("one");
    accepted(&verifier, &token).await;
    server.answer(down());
    clock.advance(HOUR);
    accepted(&verifier, &token).await;
    assert_eq!(server.visits(), 2);
    for _ in 0..10 {
        clock.advance(MINUTE / 4);
        accepted(&verifier, &token).await;
    }
    assert_eq!(server.visits(), 2, "a failure is not tried again at once");
    assert_eq!(verifier.states()[0].failures, 1);
    clock.advance(22 * HOUR);
    accepted(&verifier, &token).await;
    until("the second failure", || verifier.states()[0].failures == 2).await;
    clock.advance(HOUR);
    assert_eq!(refusal(&verifier, &token).await, Some(Refusal::KeysUnavailable));
    server.answer(answer_with_keys(&[RSA.jwk("one")]));
    clock.advance(5 * MINUTE);
    accepted(&verifier, &token).await;
    assert_eq!(verifier.states()[0].generation, 1, "they are the same keys");
}

#[tokio::test]
async fn keys_are_asked_for_again_before_anybody_has_to_wait() {
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    let token = lasting("one");
    accepted(&verifier, &token).await;
    clock.advance(54 * MINUTE);
    accepted(&verifier, &token).await;
    assert_eq!(server.visits(), 1);
    server.close();
    clock.advance(2 * MINUTE);
    accepted(&verifier, &token).await;
    until("somebody asks", || server.visits() == 2).await;
    server.open();
    until("the keys are young", || verifier.states()[0].age == Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn without_any_keys_the_next_try_is_near_and_each_failure_moves_it_away() {
    let (server, clock) = (Server::start(down()).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    let token = lasting("one");
    verifier.warm().await;
    for (visits, pause) in [(2, 1), (3, 2), (4, 4), (5, 8)] {
        clock.advance(Duration::from_secs(pause) - Duration::from_millis(1));
        assert_eq!(refusal(&verifier, &token).await, Some(Refusal::KeysUnavailable));
        assert_eq!(server.visits(), visits - 1);
        clock.advance(Duration::from_millis(1));
        assert_eq!(refusal(&verifier, &token).await, Some(Refusal::KeysUnavailable));
        assert_eq!(server.visits(), visits);
    }
    server.answer(answer_with_keys(&[RSA.jwk("one")]));
    clock.advance(5 * MINUTE);
    accepted(&verifier, &token).await;
}

#[tokio::test]
async fn answers_that_are_not_to_be_trusted_are_not_taken() {
    type Expected = fn(&FetchProblem) -> bool;
    let keys = json!({ "keys": [RSA.jwk("one")] }).to_string();
    let elsewhere = Server::of(&[RSA.jwk("one")]).await;
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    let large = format!("{{\"x\":\"{}\",{}", "a".repeat(1024 * 1024), &keys[1..]);
    let endless =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", " ".repeat(2 * 1024 * 1024));
    let json = |body: &str| answer("200 OK", "application/jwk-set+json", body);
    let repeated = json!({ "keys": [RSA.jwk("one"), OTHER_RSA.jwk("one")] }).to_string();
    let secret = json!({ "keys": [{ "kty": "oct", "kid": "one", "k": encode([7; 64]) }] }).to_string();
    let mut encrypting = RSA.jwk("one");
    encrypting["use"] = json!("enc");
    let encrypting = json!({ "keys": [encrypting] }).to_string();
    let rows: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("a redirect", redirect.into_bytes(), |p| matches!(p, FetchProblem::Status(302))),
        ("no success", answer("404 Not Found", "application/json", &keys), |p| {
            matches!(p, FetchProblem::Status(404))
        }),
        ("a page", answer("200 OK", "text/html", &keys), |p| matches!(p, FetchProblem::ContentType)),
        ("too large", json(&large), |p| matches!(p, FetchProblem::TooLarge)),
        ("too large without saying so", endless.into_bytes(), |p| matches!(p, FetchProblem::TooLarge)),
        ("no HTTP", b"hello\r\n\r\n".to_vec(), |p| matches!(p, FetchProblem::Transport(_))),
        (
            "broken off",
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{".to_vec(),
            |p| matches!(p, FetchProblem::Transport(_)),
        ),
        ("no set", json("{}"), |p| matches!(p, FetchProblem::Keys(KeysProblem::Malformed))),
        ("an empty set", json(r#"{"keys":[]}"#), |p| {
            matches!(p, FetchProblem::Keys(KeysProblem::Nothing(None)))
        }),
        ("keys twice", json(r#"{"keys":[],"keys":[]}"#), |p| {
            matches!(p, FetchProblem::Keys(KeysProblem::Malformed))
        }),
        ("an id twice", json(&repeated), |p| matches!(p, FetchProblem::Keys(KeysProblem::Repeated(_)))),
        ("secrets only", json(&secret), |p| matches!(p, FetchProblem::Keys(KeysProblem::Nothing(Some(_))))),
        ("keys for something else", json(&encrypting), |p| {
            matches!(p, FetchProblem::Keys(KeysProblem::Nothing(Some(_))))
        }),
    ];
    let (server, clock) = (Server::of(&[RSA.jwk("one")]).await, clock());
    let verifier = verifier(vec![url_identity(&server.url())], &clock);
    accepted(&verifier, &lasting("one")).await;
    for (what, answer, expected) in rows {
        server.answer(answer);
        let problem = verifier.refresh("staff").await.unwrap().unwrap_err();
        assert!(expected(&problem), "attack 19: {what}: {problem:?}");
        assert!(!problem.to_string().contains("127.0.0.1"), "no address is repeated: {problem}");
        accepted(&verifier, &lasting("one")).await;
    }
    assert_eq!(elsewhere.visits(), 0, "redirects are not followed");
}

#[tokio::test]
async fn a_server_that_keeps_silent_is_given_up() {
    let server = Server::of(&[RSA.jwk("one")]).await;
    server.close();
    let verifier = verifier(vec![url_identity(&server.url())], &clock());
    let problem = verifier.refresh("staff").await.unwrap().unwrap_err();
    assert!(matches!(*problem, FetchProblem::TimedOut), "attack 19: {problem:?}");
}

#[tokio::test]
async fn of_a_mixed_set_only_good_public_keys_are_used() {
    let secret = json!({ "kty": "oct", "kid": "s", "k": encode([7; 64]) });
    let mut encrypting = OTHER_RSA.jwk("enc");
    encrypting["use"] = json!("enc");
    let mut private = EDWARDS.jwk("d");
    private["d"] = json!(encode([7; 32]));
    let future = json!({ "kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA" });
    let server = Server::of(&[secret, encrypting, private, future, RSA.jwk("one")]).await;
    let verifier = verifier(vec![url_identity(&server.url())], &clock());
    accepted(&verifier, &lasting("one")).await;
    assert_eq!(verifier.states()[0].ids, ["one"]);
}

#[test]
fn addresses_of_keys_are_judged_when_they_are_configured() {
    let fault = |url: &str, allow: &[&str], source: fn(String) -> KeySource| {
        let mut identity = Identity::new("staff", STAFF, source(url.to_owned()), &[AUDIENCE]);
        identity.allow = allow.iter().map(|block| (*block).to_owned()).collect();
        Verifier::new(vec![identity], clock()).err().map(|problem| problem.fault)
    };
    for source in [KeySource::Url as fn(String) -> KeySource, KeySource::OpenId] {
        for url in
            ["http://login.example/keys", "HTTP://login.example/keys", "http://127.0.0.1.login.example/keys"]
        {
            let fault = fault(url, &["0.0.0.0/0"], source);
            assert!(matches!(fault, Some(IdentityFault::Address(AddressProblem::Plain))), "{url}: {fault:?}");
        }
        for url in [
            "https://127.0.0.1/keys",
            "https://localhost/keys",
            "https://10.0.0.1/keys",
            "https://169.254.169.254/latest",
            "https://[::1]/keys",
            "https://2130706433/",
            "http://127.0.0.1/keys",
            "https://user@login.example/keys",
            "ftp://login.example/keys",
            "/etc/passwd",
        ] {
            let fault = fault(url, &[], source);
            assert!(
                matches!(fault, Some(IdentityFault::Address(AddressProblem::Url(_)))),
                "{url}: {fault:?}"
            );
        }
        for (url, allow) in [
            ("https://login.example/keys", &[][..]),
            ("HTTPS://login.example/keys", &[]),
            ("https://10.0.0.1/keys", &["10.0.0.0/8"]),
            ("http://127.0.0.1:8080/keys", &["127.0.0.0/8"]),
            ("http://localhost/keys", &["127.0.0.0/8"]),
            ("http://[::1]/keys", &["::1"]),
        ] {
            assert!(fault(url, allow, source).is_none(), "{url}");
        }
    }
    let fault = fault("https://login.example", &["10.0.0.0/99"], KeySource::Url);
    assert!(matches!(fault, Some(IdentityFault::Address(_))));
}

/// A name server that says the same of every name.
struct Lying(std::net::IpAddr);

impl crate::delivery::Names for Lying {
    fn lookup(
        &self,
        _: String,
    ) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<std::net::IpAddr>>> {
        let answer = self.0;
        Box::pin(async move { Ok(vec![answer]) })
    }
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("https://login.example:{}/keys", trap.local_addr().unwrap().port());
    let names = Arc::new(Lying([127, 0, 0, 1].into()));
    let identity = Identity::new("staff", STAFF, KeySource::Url(url), &[AUDIENCE]);
    let verifier = Verifier::with_names(vec![identity], clock(), names).unwrap();
    let problem = verifier.refresh("staff").await.unwrap().unwrap_err();
    assert!(problem.to_string().contains("loopback"), "attack 19: {problem}");
    assert_eq!(trap.accept().expect_err("nobody was to come").kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn discovery_leads_to_the_keys_of_the_very_issuer() {
    let keys = Server::of(&[RSA.jwk("one")]).await;
    let document = |document: Value| answer("200 OK", "application/json", &document.to_string());
    let server = Server::start(document(json!({ "issuer": STAFF, "jwks_uri": keys.url() }))).await;
    let mut identity = url_identity("");
    identity.keys = KeySource::OpenId(server.url());
    let verifier = verifier(vec![identity], &clock());
    accepted(&verifier, &lasting("one")).await;
    assert_eq!((server.visits(), keys.visits()), (1, 1));
    for (bad, is_address) in [
        (json!({ "issuer": format!("{STAFF}/"), "jwks_uri": keys.url() }), false),
        (json!({ "jwks_uri": keys.url() }), false),
        (json!({ "issuer": STAFF }), false),
        (json!({ "issuer": STAFF, "jwks_uri": [keys.url()] }), false),
        (json!({ "issuer": STAFF, "jwks_uri": "http://login.example/keys" }), true),
        (json!({ "issuer": STAFF, "jwks_uri": "https://169.254.169.254/keys" }), true),
        (json!({ "issuer": STAFF, "jwks_uri": "file:///etc/passwd" }), true),
    ] {
        server.answer(document(bad.clone()));
        let problem = verifier.refresh("staff").await.unwrap().unwrap_err();
        assert_eq!(matches!(*problem, FetchProblem::Address(_)), is_address, "{bad}: {problem:?}");
        assert_eq!(matches!(*problem, FetchProblem::Discovery(_)), !is_address, "{bad}: {problem:?}");
    }
    assert_eq!(keys.visits(), 1);
}
