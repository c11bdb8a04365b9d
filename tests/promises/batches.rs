//! Transactional batches: everything or nothing, and an answer for each operation.

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::server::{Answer, Server, answer};
use super::store::{self, create, ids};

async fn batch(server: &Server, operations: Value) -> Answer {
    server.send(Method::POST, "/store/plain/a", &json!({ "operations": operations })).await
}

fn statuses(answer: &Answer) -> Vec<u64> {
    let results = answer.body["results"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_does_everything_and_says_what_became_of_each() {
    let house = store::house("");
    let server = house.start().await;
    create(&server, "/store/plain", &json!({ "id": "old", "lane": "a", "n": 1 })).await;
    let done = batch(
        &server,
        json!([
            { "op": "create", "document": { "id": "new", "lane": "a", "n": 5 } },
            { "op": "patch", "id": "new", "operations": [{ "op": "incr", "path": "/n", "value": 1 }], "condition": "FROM c WHERE c.n = 5" },
            { "op": "read", "id": "new" },
            { "op": "upsert", "id": "up", "document": { "id": "up", "lane": "a" } },
            { "op": "upsert", "id": "up", "document": { "id": "up", "lane": "a", "again": true } },
            { "op": "replace", "document": { "id": "old", "lane": "a", "n": 2 }, "if_match": "*" },
            { "op": "delete", "id": "old" },
        ]),
    )
    .await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(statuses(&done), [201, 200, 200, 201, 200, 200, 204]);
    let results = done.body["results"].as_array().unwrap();
    assert_eq!(results[2]["document"]["n"], 6);
    assert_eq!(results[2]["etag"], results[2]["document"]["_etag"]);
    assert!(results[6].get("document").is_none() && results[6].get("etag").is_none());
    let positions: Vec<_> = results[..6].iter().map(|result| &result["document"]["_lsn"]).collect();
    assert!(positions.iter().all(|lsn| *lsn == positions[0]), "one transaction, one position: {positions:?}");
    assert!(!done.header("x-request-charge").is_empty() && !done.header("x-session-token").is_empty());
    let read = server.get("/store/plain/a/new").await;
    assert_eq!((&read.body["n"], read.header("etag")), (&json!(6), results[1]["etag"].as_str().unwrap()));
    assert_eq!(server.get("/store/plain/a/old").await.status, 404);
}

#[tokio::test]
async fn a_batch_with_one_refused_operation_does_nothing() {
    let house = store::house("");
    let server = house.start().await;
    create(&server, "/store/plain", &json!({ "id": "old", "lane": "a", "n": 1 })).await;
    let fine = json!({ "op": "create", "document": { "id": "new", "lane": "a" } });
    for (bad, status, code) in [
        (json!({ "op": "create", "document": { "id": "old", "lane": "a" } }), 409, "document_exists"),
        (json!({ "op": "replace", "document": { "id": "none", "lane": "a" } }), 404, "document_not_found"),
        (json!({ "op": "read", "id": "none" }), 404, "document_not_found"),
        (json!({ "op": "delete", "id": "old", "if_match": "\"0-0\"" }), 412, "precondition_failed"),
        (json!({ "op": "delete", "id": "old", "if_match": "nonsense" }), 400, "invalid_precondition"),
        (json!({ "op": "create", "document": { "id": "x", "lane": "b" } }), 400, "partition_key_mismatch"),
        (json!({ "op": "upsert", "id": "x", "document": { "id": "y", "lane": "a" } }), 400, "id_mismatch"),
        (json!({ "op": "create", "document": { "id": "a/b", "lane": "a" } }), 400, "invalid_id"),
        (json!({ "op": "create", "document": { "id": "x", "lane": "a", "ttl": 0 } }), 400, "invalid_ttl"),
        (json!({ "op": "create", "document": [] }), 400, "not_an_object"),
        (json!({ "op": "patch", "id": "old", "operations": [] }), 400, "invalid_patch"),
        (
            json!({ "op": "patch", "id": "old", "operations": [{ "op": "remove", "path": "/x" }] }),
            400,
            "patch_failed",
        ),
        (
            json!({ "op": "patch", "id": "old", "condition": "FROM c WHERE c.n = 2",
                    "operations": [{ "op": "remove", "path": "/n" }] }),
            412,
            "condition_failed",
        ),
    ] {
        let refused = batch(&server, json!([fine, bad, { "op": "delete", "id": "old" }])).await;
        assert_eq!((refused.status, statuses(&refused)), (207, vec![424, status, 424]), "{}", refused.text);
        let codes: Vec<_> = refused.body["results"].as_array().unwrap().iter().map(|r| &r["code"]).collect();
        assert_eq!(codes, ["failed_dependency", code, "failed_dependency"], "{}", refused.text);
        assert_eq!(server.get("/store/plain/a/new").await.status, 404, "nothing is applied: {bad}");
        assert_eq!(server.get("/store/plain/a/old").await.status, 200, "nothing is applied: {bad}");
    }
}

#[tokio::test]
async fn a_batch_keeps_unique_keys() {
    let house = store::house("");
    let server = house.start().await;
    let create =
        |id: &str, name: &str| json!({ "op": "create", "document": { "id": id, "lane": "a", "ref": name } });
    let body = json!({ "operations": [create("one", "r"), create("two", "r")] });
    let refused = server.send(Method::POST, "/store/loads/a", &body).await;
    assert_eq!((refused.status, statuses(&refused)), (207, vec![424, 409]), "{}", refused.text);
    assert_eq!(refused.body["results"][1]["code"], "unique_key_conflict");
    assert!(ids(&server.get("/store/loads/a").await).is_empty());
    // One gives up the value that the next one takes.
    let body =
        json!({ "operations": [create("one", "r"), { "op": "delete", "id": "one" }, create("two", "r")] });
    assert_eq!(server.send(Method::POST, "/store/loads/a", &body).await.status, 200);
    assert_eq!(ids(&server.get("/store/loads/a").await), ["two"]);
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_refused_as_a_whole() {
    let house = store::house("body: 64KiB");
    let server = house.start().await;
    let create = |n: usize| json!({ "op": "create", "document": { "id": format!("d{n}"), "lane": "a" } });
    let many = |count: usize| json!({ "operations": (0..count).map(create).collect::<Vec<_>>() });
    for body in [
        json!({ "operations": [] }),
        many(101),
        json!({}),
        json!([create(1)]),
        json!({ "operations": [create(1)], "more": 1 }),
        json!({ "operations": [{ "op": "destroy", "id": "x" }] }),
        json!({ "operations": [{ "op": "create" }] }),
        json!({ "operations": [{ "op": "delete" }] }),
        json!({ "operations": [{ "op": "delete", "id": "x", "document": {} }] }),
        json!({ "operations": [{ "op": "read", "id": "x", "surprise": 1 }] }),
        json!({ "operations": [5] }),
    ] {
        let refused = server.send(Method::POST, "/store/plain/a", &body).await;
        is_problem(&refused, 400, "invalid_batch", &body.to_string().chars().take(80).collect::<String>());
    }
    let whole = server.send(Method::POST, "/store/plain/a", &many(100)).await;
    assert_eq!((whole.status, statuses(&whole).len()), (200, 100), "{}", whole.text);
    let large =
        json!({ "operations": [{ "op": "create", "document": { "lane": "a", "x": "x".repeat(64 << 10) } }] });
    let request = server.request(Method::POST, "/store/plain/a").json(&large);
    is_problem(&answer(request).await, 413, "body_too_large", "a batch of more than `body`");
}
