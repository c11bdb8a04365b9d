//! Small things that others get wrong.

use reqwest::Method;
use serde_json::json;

use super::bad_input::is_problem;
use super::server::{KEY, answer};
use super::store::{self, create, ids};

#[tokio::test]
async fn an_id_has_up_to_1023_bytes() {
    let house = store::house("");
    let server = house.start().await;
    for id in ["i".repeat(1023), format!("{}x", "é".repeat(511)), "🚚".repeat(255)] {
        let created = create(&server, "/store/plain", &json!({ "id": id, "lane": "a" })).await;
        let read = server.get(created.header("location")).await;
        assert_eq!((read.status, &read.body["id"]), (200, &json!(id)));
    }
    let long =
        server.send(Method::POST, "/store/plain", &json!({ "id": "i".repeat(1024), "lane": "a" })).await;
    is_problem(&long, 400, "invalid_id", "1,024 bytes");
    for id in ["a/b", "a\\b", "a ", "", "a?b", "a#b"] {
        let body = json!({ "id": id, "lane": "a" });
        is_problem(&server.send(Method::POST, "/store/plain", &body).await, 400, "invalid_id", id);
    }
    // Case matters.
    create(&server, "/store/plain", &json!({ "id": "X", "lane": "a" })).await;
    create(&server, "/store/plain", &json!({ "id": "x", "lane": "a" })).await;
}

#[tokio::test]
async fn order_of_properties_and_forms_of_numbers_are_kept() {
    let house = store::house("");
    let server = house.start().await;
    let one = r#"{"id":"one","lane":"a","b":1.0,"a":1,"c":1e2,"d":-0.0,"e":9007199254740993}"#;
    let two = r#"{"lane":"a","e":9007199254740993,"d":-0.0,"c":1e2,"a":1,"b":1.0,"id":"two"}"#;
    for (id, text) in [("one", one), ("two", two)] {
        let post = server.request(Method::POST, "/store/plain").header("content-type", "application/json");
        assert_eq!(answer(post.body(text)).await.status, 201);
        let read = server.get(&format!("/store/plain/a/{id}")).await;
        assert!(read.text.starts_with(text.strip_suffix('}').unwrap()), "{}", read.text);
    }
    // In a batch too.
    let batch = format!(r#"{{"operations":[{{"op":"create","document":{}}}]}}"#, one.replace("one", "three"));
    let post = server.request(Method::POST, "/store/plain/a").header("content-type", "application/json");
    let done = answer(post.body(batch)).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.contains(r#""b":1.0,"a":1,"c":1e2,"d":-0.0,"e":9007199254740993"#), "{}", done.text);
}

#[tokio::test]
async fn statuses_are_those_that_clients_expect() {
    let house = store::house("");
    let server = house.start().await;
    let (path, body) = ("/store/loads/a/one", json!({ "lane": "a" }));
    assert_eq!(server.get(path).await.status, 404);
    assert_eq!(
        server.send(Method::PATCH, path, &json!([{ "op": "remove", "path": "/x" }])).await.status,
        404
    );
    assert_eq!(answer(server.request(Method::DELETE, path)).await.status, 404);
    let put = server.send(Method::PUT, path, &body).await;
    assert_eq!((put.status, put.header("location")), (201, path));
    assert_eq!(server.send(Method::PUT, path, &body).await.status, 200);
    let read = server.get(path).await;
    let same = answer(server.request(Method::GET, path).header("if-none-match", read.header("etag"))).await;
    assert_eq!((same.status, same.text.as_str(), same.header("x-request-charge")), (304, "", "1.00"));
    assert!(!same.header("x-session-token").is_empty());
    let minimal = server.request(Method::PUT, path).header("prefer", "return=minimal").json(&body);
    let minimal = answer(minimal).await;
    assert_eq!((minimal.status, minimal.text.as_str()), (204, ""));
    assert!(!minimal.header("etag").is_empty() && !minimal.header("x-request-charge").is_empty());
    let deleted = answer(server.request(Method::DELETE, path)).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    let missing = server.get(path).await;
    assert_eq!((missing.status, missing.header("x-request-charge")), (404, "1.00"));
    assert_eq!(server.get("/store/loads/a/").await.status, 404);
}

#[tokio::test]
async fn a_directory_keeps_its_number_of_shards() {
    let house = store::house("");
    let manifest = std::fs::read_to_string(house.manifest()).unwrap();
    let shards = |line: &str| {
        let text = manifest.replace("server: { shards: 2 }\n", line);
        std::fs::write(house.manifest(), text).unwrap();
    };
    shards("server: { shards: 3 }\n");
    let server = house.start().await;
    create(&server, "/store/plain", &json!({ "id": "one", "lane": "a" })).await;
    drop(server);
    shards("server: { shards: 4 }\n");
    assert!(house.try_start().await.is_err(), "another number is refused");
    // The same project without a number takes what is there, not the default.
    shards("");
    let server = house.start().await;
    assert_eq!(server.get("/store/plain/a/one").await.status, 200);
    let unkeyed = server.anonymous(Method::GET, "/store/plain/a/one").header("x-api-key", format!("{KEY}x"));
    assert_eq!(answer(unkeyed).await.status, 401);
    assert!(ids(&server.get("/store/loads/a").await).is_empty());
}
