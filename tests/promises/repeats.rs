//! Idempotency keys: a request that is sent again is not done again.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::OTHER_KEY;
use super::server::{Answer, Server, answer};
use super::store;

async fn send(server: &Server, method: Method, path: &str, key: &str, body: &Value) -> Answer {
    answer(server.request(method, path).header("idempotency-key", key).json(body)).await
}

#[tokio::test]
async fn a_request_with_the_same_key_gets_the_first_answer() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "lane": "a", "ref": "r-1" });
    let first = send(&server, Method::POST, "/store/loads", "key-1", &body).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""), "{}", first.text);
    let again = send(&server, Method::POST, "/store/loads", "key-1", &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"), "{}", again.text);
    assert_eq!((again.header("etag"), &again.text), (first.header("etag"), &first.text));
    let other = json!({ "lane": "a", "ref": "r-2" });
    let reused = send(&server, Method::POST, "/store/loads", "key-1", &other).await;
    is_problem(&reused, 422, "idempotency_key_reused", "another body");
    assert_eq!(send(&server, Method::POST, "/store/loads", "key-2", &other).await.status, 201);
    // The key is this tenant's and this operation's: others have never heard of it.
    let elsewhere = json!({ "lane": "a", "ref": "r-3" });
    let foreign = server.anonymous(Method::POST, "/store/loads").header("x-api-key", OTHER_KEY);
    let foreign = answer(foreign.header("idempotency-key", "key-1").json(&elsewhere)).await;
    assert_eq!((foreign.status, foreign.header("idempotency-replayed")), (201, ""), "{}", foreign.text);
    let strict = json!({ "lane": "a", "ref": "r-4" });
    assert_eq!(send(&server, Method::POST, "/store/strict", "key-1", &strict).await.status, 201);
}

#[tokio::test]
async fn the_answer_survives_a_crash_of_the_process() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "lane": "a", "ref": "r-1" });
    let first = send(&server, Method::POST, "/store/loads", "key-1", &body).await;
    assert_eq!(first.status, 201);
    server.kill();
    let server = house.start().await;
    let again = send(&server, Method::POST, "/store/loads", "key-1", &body).await;
    assert_eq!((again.header("idempotency-replayed"), &again.text), ("true", &first.text));
}

#[tokio::test]
async fn a_hundred_requests_at_once_with_one_key_create_one_document() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "lane": "a", "tenantId": "t", "weight": 1 });
    for path in ["/store/loads", "/store/quotes"] {
        let all = (0..100).map(|_| send(&server, Method::POST, path, "one-key", &body));
        let answers = join_all(all).await;
        for answer in &answers {
            assert_eq!((answer.status, &answer.body["id"]), (201, &answers[0].body["id"]), "{}", answer.text);
        }
        let new = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
        assert_eq!(new, 1, "{path}");
    }
    assert_eq!(store::ids(&server.get("/store/loads/a").await).len(), 1);
    assert_eq!(server.get("/store/quotes").await.body["documents"], json!([1]));
}

#[tokio::test]
async fn patches_and_batches_are_done_once() {
    let house = store::house("");
    let server = house.start().await;
    store::create(&server, "/store/loads", &json!({ "id": "one", "lane": "a", "n": 1 })).await;
    let patch = json!([{ "op": "incr", "path": "/n", "value": 1 }]);
    for replayed in ["", "true", "true"] {
        let answer = send(&server, Method::PATCH, "/store/loads/a/one", "p-1", &patch).await;
        let seen = (answer.status, &answer.body["n"], answer.header("idempotency-replayed"));
        assert_eq!(seen, (200, &json!(2), replayed), "{}", answer.text);
    }
    let batch = json!({ "operations": [
        { "op": "patch", "id": "one", "operations": [{ "op": "incr", "path": "/n", "value": 1 }] },
        { "op": "create", "document": { "lane": "a", "ref": "r" } },
    ] });
    for replayed in ["", "true"] {
        let answer = send(&server, Method::POST, "/store/loads/a", "b-1", &batch).await;
        assert_eq!(
            (answer.status, answer.header("idempotency-replayed")),
            (200, replayed),
            "{}",
            answer.text
        );
        let results = answer.body["results"].as_array().unwrap();
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(200), &json!(201)));
    }
    assert_eq!(server.get("/store/loads/a/one").await.body["n"], 3);
    // What the first request wrote is gone: the answer says that it was done, and shows nothing else.
    let put = json!({ "lane": "a", "n": 7 });
    let first = send(&server, Method::PUT, "/store/loads/a/one", "u-1", &put).await;
    assert_eq!(first.status, 200);
    assert_eq!(send(&server, Method::PATCH, "/store/loads/a/one", "p-2", &patch).await.body["n"], 8);
    let again = send(&server, Method::PUT, "/store/loads/a/one", "u-1", &put).await;
    let seen = (again.status, again.header("idempotency-replayed"), again.text.as_str());
    assert_eq!(seen, (204, "true", ""));
    assert_eq!(again.header("etag"), first.header("etag"));
}

#[tokio::test]
async fn a_key_must_be_one_and_is_asked_for_where_it_is_required() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "lane": "a" });
    let without = server.send(Method::POST, "/store/strict", &body).await;
    is_problem(&without, 400, "idempotency_key_required", "no key");
    for key in ["", "a b", &"k".repeat(256)] {
        let refused = send(&server, Method::POST, "/store/strict", key, &body).await;
        is_problem(&refused, 400, "invalid_idempotency_key", key);
    }
    let twice = server.request(Method::POST, "/store/strict").header("idempotency-key", "a");
    let twice = answer(twice.header("idempotency-key", "b").json(&body)).await;
    is_problem(&twice, 400, "invalid_idempotency_key", "two keys");
    assert!(store::ids(&server.get("/store/loads/a").await).is_empty());
}
