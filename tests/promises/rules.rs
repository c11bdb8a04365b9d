//! What containers ask of their documents: uniqueness, times to live, budgets; and what readers have seen.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::bad_input::is_problem;
use super::server::{AMPLE, Server, answer};
use super::store::{self, create, ids};

#[tokio::test]
async fn a_unique_key_is_unique_within_its_partition() {
    let house = store::house("");
    let server = house.start().await;
    create(&server, "/store/loads", &json!({ "id": "1", "lane": "a", "ref": "r" })).await;
    let taken =
        server.send(Method::POST, "/store/loads", &json!({ "id": "2", "lane": "a", "ref": "r" })).await;
    is_problem(&taken, 409, "unique_key_conflict", "the same value");
    assert!(taken.body["detail"].as_str().unwrap().contains("`/ref`"), "{}", taken.text);
    create(&server, "/store/loads", &json!({ "id": "2", "lane": "a", "ref": "R" })).await;
    create(&server, "/store/loads", &json!({ "id": "2", "lane": "b", "ref": "r" })).await;
    // A missing value counts as null, and null is a value.
    create(&server, "/store/loads", &json!({ "id": "3", "lane": "a" })).await;
    let null =
        server.send(Method::POST, "/store/loads", &json!({ "id": "4", "lane": "a", "ref": null })).await;
    is_problem(&null, 409, "unique_key_conflict", "null");
    let replaced = server.send(Method::PUT, "/store/loads/a/2", &json!({ "lane": "a", "ref": "r" })).await;
    is_problem(&replaced, 409, "unique_key_conflict", "an upsert");
    // Its own value is no obstacle, and what is given up is free.
    assert_eq!(
        server
            .send(Method::PUT, "/store/loads/a/1", &json!({ "lane": "a", "ref": "r", "n": 1 }))
            .await
            .status,
        200
    );
    assert_eq!(
        server.send(Method::PUT, "/store/loads/a/1", &json!({ "lane": "a", "ref": "s" })).await.status,
        200
    );
    create(&server, "/store/loads", &json!({ "id": "5", "lane": "a", "ref": "r" })).await;
    assert_eq!(answer(server.request(Method::DELETE, "/store/loads/a/5")).await.status, 204);
    create(&server, "/store/loads", &json!({ "id": "6", "lane": "a", "ref": "r" })).await;
}

/// Waits until a document is gone by itself; says when it was last seen and first not.
async fn until_gone(server: &Server, path: &str) {
    let deadline = Instant::now() + AMPLE;
    while server.get(path).await.status == 200 {
        assert!(Instant::now() < deadline, "`{path}` does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.get(path).await.status, 404);
}

#[tokio::test]
async fn an_expired_document_is_invisible_at_once_and_its_id_is_free() {
    // The upkeep never comes: nobody sees the document all the same.
    let house = store::house("upkeep_interval: 1h");
    let server = house.start().await;
    create(&server, "/store/fleeting", &json!({ "id": "stays", "lane": "a", "ttl": -1 })).await;
    let created = create(&server, "/store/fleeting", &json!({ "id": "goes", "lane": "a" })).await;
    until_gone(&server, "/store/fleeting/a/goes").await;
    assert_eq!(ids(&server.get("/store/fleeting/a").await), ["stays"]);
    let again = create(&server, "/store/fleeting", &json!({ "id": "goes", "lane": "a", "ttl": 3600 })).await;
    assert_ne!(again.header("etag"), created.header("etag"));
    create(&server, "/store/lasting", &json!({ "id": "stays", "lane": "a" })).await;
    create(&server, "/store/lasting", &json!({ "id": "goes", "lane": "a", "ttl": 1 })).await;
    until_gone(&server, "/store/lasting/a/goes").await;
    assert_eq!(server.get("/store/lasting/a/stays").await.status, 200);
    // Where nothing expires, `ttl` must be right all the same.
    create(&server, "/store/plain", &json!({ "id": "stays", "lane": "a", "ttl": 1 })).await;
    for ttl in [json!(0), json!(-2), json!(1.5), json!(null), json!("1"), json!(2_147_483_648_u32)] {
        for path in ["/store/plain", "/store/lasting"] {
            let body = json!({ "id": "x", "lane": "a", "ttl": ttl });
            is_problem(&server.send(Method::POST, path, &body).await, 400, "invalid_ttl", &body.to_string());
        }
    }
    assert_eq!(server.get("/store/plain/a/stays").await.status, 200);
    assert_eq!(server.get("/store/fleeting/a/stays").await.status, 200);
}

#[tokio::test]
async fn a_spent_budget_is_a_429_that_says_when_to_come_back() {
    let house = store::house("");
    let server = house.start().await;
    let text = "x".repeat(50_000);
    let mut refused = None;
    for n in 0..50 {
        let body = json!({ "id": format!("d{n}"), "lane": "a", "text": text });
        let answer = server.send(Method::POST, "/store/narrow", &body).await;
        if answer.status == 429 {
            refused = Some((n, answer));
            break;
        }
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert!(answer.header("x-request-charge").parse::<f64>().unwrap() > 10.0);
    }
    let (n, refused) = refused.expect("a budget of 400 RU/s ends");
    is_problem(&refused, 429, "throughput_exceeded", "beyond the budget");
    let millis: u64 = refused.header("x-ms-retry-after-ms").parse().unwrap();
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!(millis > 0 && seconds == millis.div_ceil(1000), "{millis} ms, {seconds} s");
    assert_eq!(refused.header("x-request-charge"), "", "a refusal costs nothing");
    // Others are not held up, and whoever waits as long as they were told is let in.
    create(&server, "/store/plain", &json!({ "id": "d", "lane": "a" })).await;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    let path = format!("/store/narrow/a/d{n}");
    assert_eq!(server.get(&path).await.status, 404, "nothing was applied");
}

#[tokio::test]
async fn a_session_reads_what_it_wrote() {
    let house = store::house("");
    let server = house.start().await;
    let written = create(&server, "/store/plain", &json!({ "id": "one", "lane": "a" })).await;
    let token = written.header("x-session-token").to_owned();
    let path = "/store/plain/a/one";
    let with = |token: &str| server.request(Method::GET, path).header("x-session-token", token);
    let read = answer(with(&token)).await;
    assert_eq!(read.status, 200);
    assert!(!read.header("x-session-token").is_empty());
    // From another life of the data, as before a restore.
    let (front, _) = token.split_once('#').unwrap();
    let ahead = answer(with(&format!("{front}#999999"))).await;
    is_problem(&ahead, 503, "session_not_available", "a token from the future");
    assert_eq!(ahead.header("retry-after"), "1");
    is_problem(&answer(with("nonsense")).await, 400, "invalid_session_token", "no token");
    server.kill();
    let server = house.start().await;
    let with = server.request(Method::GET, path).header("x-session-token", &token);
    assert_eq!(answer(with).await.status, 200, "a token outlives the process");
}
