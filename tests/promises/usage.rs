//! What tenants use is counted exactly, and stays counted.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::{self, OTHER_KEY};
use super::query::fill;
use super::server::{AMPLE, Server, answer};

const LOADS: &str = "/freight/v1/loads";

/// The line of a tenant and a key.
async fn used(server: &Server, query: &str, key: &str) -> Value {
    let usage = server.ask(&format!("/v1/usage{query}")).await;
    assert_eq!(usage.status, 200, "{}", usage.text);
    let lines = usage.body["usage"].as_array().unwrap();
    lines.iter().find(|line| line["key"] == key).cloned().unwrap_or_default()
}

#[tokio::test]
async fn usage_is_counted_by_tenant_and_key_and_outlives_the_process() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 3).await;
    let body = r#"{"id":"x","lane":"a"}"#;
    let post = server.anonymous(Method::POST, LOADS).header("x-api-key", OTHER_KEY);
    let created = answer(post.header("content-type", "application/json").body(body)).await;
    assert_eq!(created.status, 201);
    let missing = server.anonymous(Method::GET, &format!("{LOADS}/a/none")).header("x-api-key", OTHER_KEY);
    let missing = answer(missing).await;
    assert_eq!(missing.status, 404);
    // Nobody pays for who is not known.
    assert_eq!(answer(server.anonymous(Method::GET, &format!("{LOADS}/a/x"))).await.status, 401);
    let charge = |answer: &super::server::Answer| answer.header("x-request-charge").parse().unwrap_or(0.0);
    let other = used(&server, "", "other").await;
    assert_eq!(
        (&other["tenant"], &other["calls"], &other["events"]),
        (&json!("other"), &json!(2), &json!(0))
    );
    assert_eq!(other["bytes_in"], json!(body.len()));
    assert_eq!(other["bytes_out"], json!(created.text.len() + missing.text.len()));
    let cost: f64 = charge(&created) + charge(&missing);
    let counted = other["request_units"].as_f64().unwrap();
    assert!((counted - cost).abs() < 0.001, "{counted}, not {cost}");
    assert_eq!(used(&server, "", "main").await["calls"], json!(3));
    assert!(used(&server, "?tenant=acme", "other").await.is_null());
    assert!(used(&server, "?to=2020-01-02", "other").await.is_null());
    // In order, everything is written; after a crash, what was written in time.
    assert!(server.stop().await.success());
    let server = house.start().await;
    assert_eq!(used(&server, "?tenant=other", "other").await, other);
    fill_other(&server).await;
    let deadline = Instant::now() + AMPLE;
    let tail = shard_tail(&server).await;
    while shard_tail(&server).await == tail {
        assert!(Instant::now() < deadline, "nothing is written");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    server.kill();
    let server = house.start().await;
    assert_eq!(used(&server, "", "other").await["calls"], json!(3));
    assert!(server.stop().await.success());
    assert!(house.verb(&["verify", "data"]).status.success());
}

async fn fill_other(server: &Server) {
    let read = server.anonymous(Method::GET, &format!("{LOADS}/a/x")).header("x-api-key", OTHER_KEY);
    assert_eq!(answer(read).await.status, 200);
}

/// The last position of the shard that has the counts.
async fn shard_tail(server: &Server) -> Value {
    server.ask("/v1/shards").await.body["shards"][0]["tail"].clone()
}

#[tokio::test]
async fn a_bad_question_about_usage_is_refused() {
    let house = project::house("", "");
    let server = house.start().await;
    for query in ["?from=yesterday", "?to=x", "?from=2026-01-02&to=2026-01-01", "?tenant=a%20b"] {
        is_problem(&server.ask(&format!("/v1/usage{query}")).await, 400, "invalid_request", query);
    }
}
