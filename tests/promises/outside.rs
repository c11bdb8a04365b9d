//! What a hostile caller can make the log and the answers say: nothing of its own, and nothing of the inside.

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project;
use super::server::{AMPLE, answer};

const LOADS: &str = "/freight/v1/loads";
/// Stands in everything that a caller can choose.
const CANARY: &str = "canary4711";

#[tokio::test]
async fn one_request_is_one_log_line() {
    let house = project::house("", "").with("LANEKEEPER_LOG", "info");
    let server = house.start().await;
    let forged = format!("%0d%0a%7b%22message%22%3a%22{CANARY}%22%7d");
    let id = format!("{CANARY}\r\n{{\"level\":\"ERROR\"}}\u{1b}[31m\u{202e}\u{2028}");
    let requests = [
        server.request(Method::GET, &format!("{LOADS}/lane/{forged}")),
        server.request(Method::GET, &format!("{LOADS}/lane/%1b[31m{CANARY}")),
        server.request(Method::GET, &format!("{LOADS}/lane/{CANARY}%E2%80%AE%E2%80%A8")),
        server.request(Method::GET, &format!("/{CANARY}?x={forged}")),
        server.request(Method::GET, &format!("{LOADS}/lane?continuation={forged}")),
        server.request(Method::POST, LOADS).json(&json!({ "id": id, "lane": "lane" })),
        server.request(Method::POST, LOADS).json(&json!({ "id": "good", "lane": CANARY, "text": id })),
        server.request(Method::POST, LOADS).header("content-type", CANARY).body("{}"),
        server.request(Method::GET, LOADS).header("traceparent", format!("{CANARY}\u{9b}31m")),
        server.request(Method::GET, LOADS).header("user-agent", format!("{CANARY}\t\"}}")),
        server.anonymous(Method::GET, &format!("{LOADS}/lane")).header("x-api-key", format!("{CANARY}\t{{")),
        server.request(Method::from_bytes(b"CANARY4711").unwrap(), LOADS),
    ];
    let sent = requests.len();
    for request in requests {
        let answer = answer(request).await;
        assert!(answer.status < 500, "{}", answer.text);
        for (name, value) in &answer.headers {
            assert!(!value.as_bytes().contains(&0x1b), "{name}");
        }
    }
    // An escape in a header is not HTTP; it must not reach the log either.
    let raw = format!("GET {LOADS} HTTP/1.1\r\nhost: a\r\nx-api-key: {CANARY}\u{1b}[31m\r\n\r\n");
    let refused = server.raw(raw.as_bytes(), "\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 4"), "{refused}");
    assert!(server.stop().await.success());
    let log = house.log();
    let answered = log.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        line["message"] == "request answered"
    });
    let answered = answered.count();
    assert!(answered == sent || answered == sent + 1, "{sent} requests, {answered} lines:\n{log}");
    assert!(!log.to_lowercase().contains(CANARY), "a caller's own words are in the log:\n{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('\u{9b}'), "{log}");
}

#[tokio::test]
async fn errors_tell_no_internals() {
    let house = project::house("", "");
    let points =
        "partition::evaluate=panic(secret-panic-text at src/secret.rs);log::sync=8*off->1*return->off";
    let server = house.with("FAILPOINTS", points);
    let server = server.start().await;
    let poison = server.send(Method::POST, LOADS, &json!({ "id": "poison-1", "lane": "a" })).await;
    is_problem(&poison, 500, "crashed", "a panic");
    assert!(!poison.text.contains("secret"), "{}", poison.text);
    let head = poison.headers.iter().map(|(_, value)| value.to_str().unwrap().to_owned());
    assert!(!head.collect::<String>().contains("secret"));
    // A disk that fails once: one write learns that nobody knows, and then all is well again.
    let deadline = tokio::time::Instant::now() + AMPLE;
    let mut unknown = 0;
    for number in 0.. {
        assert!(tokio::time::Instant::now() < deadline, "{unknown} unknown outcomes, and no end");
        let body = json!({ "id": format!("d{number}"), "lane": format!("l{}", number % 8) });
        let written = server.send(Method::POST, LOADS, &body).await;
        match written.status {
            201 if unknown > 0 => break,
            201 => {}
            504 => {
                is_problem(&written, 504, "outcome_unknown", "a failed sync");
                unknown += 1;
            }
            _ => is_problem(&written, 503, "unavailable", "a shard that reopens"),
        }
    }
    assert_eq!(unknown, 1);
    for path in ["/v1/keys", "/v1/nothing", "/v1/subscriptions/none", "/x"] {
        let stranger = answer(server.operator(Method::GET, path).bearer_auth("guess")).await;
        assert_eq!(stranger.status, 401, "{path}");
    }
    let none = server.ask("/v1/subscriptions/none").await;
    is_problem(&none, 404, "subscription_not_found", "an operator's mistake");
    is_problem(&server.ask("/v1/nothing").await, 404, "route_not_found", "an operator's mistake");
    let rubbish = server.operator(Method::POST, "/v1/keys").json(&json!({ "product": 1 }));
    is_problem(&answer(rubbish).await, 400, "invalid_request", "an operator's mistake");
}
