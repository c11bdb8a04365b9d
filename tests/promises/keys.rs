//! API keys: shown once, rotated one at a time, refused from the moment they are revoked, and not to be guessed.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::{self, SLOW_KEY};
use super::server::{Answer, House, KEY, Server, TOKEN, answer};

const PING: &str = "/freight/v1/ping";

async fn ping(server: &Server, key: &str) -> Answer {
    answer(server.anonymous(Method::GET, PING).header("x-api-key", key)).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Runs a verb of the command line on the server, and reads its JSON.
fn verb(house: &House, server: &Server, arguments: &[&str]) -> Value {
    let output = house.verb(&[&["keys", "--json", "--admin", &server.admin], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Looks for secrets in all files below a folder.
fn search(folder: &Path, secrets: &[String]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, secrets);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret lies in {}", path.display());
        }
    }
}

#[tokio::test]
async fn keys_are_shown_once_and_rotate() {
    let house = project::house("log_segment: 8MiB", "").with("LANEKEEPER_LOG", "trace");
    let server = house.start().await;
    let mut secrets = vec![KEY.to_owned(), TOKEN.to_owned()];
    let wanted = json!({ "product": "all", "tenant": "acme" });
    let issued = answer(server.operator(Method::POST, "/v1/keys").json(&wanted)).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    let (id, first, second) =
        (text(&issued.body["id"]), text(&issued.body["primary"]), text(&issued.body["secondary"]));
    assert!(first.starts_with("lk_") && second.starts_with("lk_") && first != second);
    for key in [&first, &second] {
        assert_eq!(ping(&server, key).await.status, 200);
    }
    let rotated = answer(server.operator(Method::POST, &format!("/v1/keys/{id}:rotate"))).await;
    let third = text(&rotated.body["primary"]);
    assert!(rotated.status == 200 && rotated.body["secondary"].is_null(), "{}", rotated.text);
    is_problem(&ping(&server, &first).await, 401, "invalid_key", "the primary before");
    for key in [&second, &third] {
        assert_eq!(ping(&server, key).await.status, 200);
    }
    let by_verb = verb(&house, &server, &["rotate", &id, "--slot", "secondary"]);
    let fourth = text(&by_verb["secondary"]);
    is_problem(&ping(&server, &second).await, 401, "invalid_key", "the secondary before");
    assert_eq!(ping(&server, &fourth).await.status, 200);
    let revoked = answer(server.operator(Method::DELETE, &format!("/v1/keys/{id}"))).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    for key in [&third, &fourth] {
        is_problem(&ping(&server, key).await, 401, "key_revoked", "revoked");
    }
    let other = verb(&house, &server, &["issue", "--product", "notes", "--tenant", "other"]);
    let (fifth, sixth) = (text(&other["primary"]), text(&other["secondary"]));
    is_problem(&ping(&server, &fifth).await, 401, "invalid_key", "a key of another product");
    let short = json!({ "product": "all", "tenant": "acme", "expires": "300ms" });
    let short = answer(server.operator(Method::POST, "/v1/keys").json(&short)).await;
    let seventh = text(&short.body["primary"]);
    let deadline = tokio::time::Instant::now() + super::server::AMPLE;
    while ping(&server, &seventh).await.status == 200 {
        assert!(tokio::time::Instant::now() < deadline, "a key outlives its expiry");
    }
    is_problem(&ping(&server, &seventh).await, 401, "key_expired", "expired");
    secrets.extend([first, second, third, fourth.clone(), fifth.clone(), sixth, seventh]);
    for path in ["/v1/keys", &format!("/v1/keys/{id}"), "/metrics", "/v1/manifest", "/v1/actors"] {
        let shown = server.ask(path).await;
        assert_eq!(shown.status, 200, "{path}");
        assert!(!secrets.iter().any(|secret| shown.text.contains(secret)), "{path}: {}", shown.text);
    }
    let listed = verb(&house, &server, &["list"]).to_string();
    assert!(!secrets.iter().any(|secret| listed.contains(secret)), "{listed}");
    assert_eq!(server.stop().await.code(), Some(0));
    let log = house.log();
    assert!(log.contains("request answered"), "{log}");
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "a secret was logged");
    search(&house.data(), &secrets);
    // What was revoked stays so, and what was issued stays good.
    let server = house.start().await;
    is_problem(&ping(&server, &fourth).await, 401, "key_revoked", "revoked before the restart");
    let notes = server.anonymous(Method::GET, "/notes/ann").header("x-api-key", &fifth);
    assert_eq!(answer(notes).await.status, 200);
}

#[tokio::test]
async fn a_rate_is_told_and_kept() {
    let house = project::house("", "");
    let server = house.start().await;
    for left in [1, 0] {
        let served = ping(&server, SLOW_KEY).await;
        assert_eq!(served.status, 200);
        assert_eq!(served.header("ratelimit-policy"), "\"slow\";q=2;w=3600");
        assert!(served.header("ratelimit").starts_with(&format!("\"slow\";r={left};t=")));
        assert_eq!(served.header("retry-after"), "");
    }
    let refused = ping(&server, SLOW_KEY).await;
    is_problem(&refused, 429, "rate_limited", "the third call");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").starts_with("\"slow\";r=0;t="));
    // Others have their own.
    assert_eq!(ping(&server, KEY).await.status, 200);
}

#[tokio::test]
async fn guessing_keys_is_pointless() {
    let house = project::house("auth_failures_per_ip: { calls: 20, per: 1h }", "");
    let server = house.start().await;
    for guess in 0..20 {
        let refused = ping(&server, &format!("lk_guess-number-{guess:020}")).await;
        assert_eq!(refused.refused(), (401, "invalid_key"), "guess {guess}");
    }
    for guess in 20..10_000 {
        let refused = ping(&server, &format!("lk_guess-number-{guess:020}")).await;
        assert_eq!(refused.refused(), (429, "too_many_failures"), "guess {guess}");
        assert_ne!(refused.header("retry-after"), "");
    }
    // The credential is not even looked at, so a lucky guess looks like any other.
    is_problem(&ping(&server, KEY).await, 429, "too_many_failures", "the right key");
    assert_eq!(server.ask("/healthz").await.status, 200);
}
