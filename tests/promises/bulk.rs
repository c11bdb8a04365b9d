//! Bulks: many operations in one request, each with an outcome of its own.

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::OTHER_KEY;
use super::server::{Answer, Server, answer};
use super::store::{self, create, ids};

async fn bulk(server: &Server, path: &str, operations: &Value) -> Answer {
    let done = server.send(Method::POST, path, &json!({ "operations": operations })).await;
    assert_eq!(done.status, 200, "{}", done.text);
    done
}

/// Status, and code where there is one, of each result.
fn outcomes(answer: &Answer) -> Vec<(u64, &str)> {
    let results = answer.body["results"].as_array().unwrap_or_else(|| panic!("{}", answer.text));
    results.iter().map(outcome).collect()
}

fn outcome(result: &Value) -> (u64, &str) {
    (result["status"].as_u64().unwrap(), result["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn each_operation_of_a_bulk_has_its_own_outcome() {
    let house = store::house("");
    let server = house.start().await;
    create(&server, "/store/plain", &json!({ "id": "old", "lane": "a", "n": 1 })).await;
    let done = bulk(
        &server,
        "/store/bulk/plain",
        &json!([
            { "op": "create", "document": { "id": "one", "lane": "a" } },
            { "op": "create", "document": { "id": "one", "lane": "b" } },
            { "op": "create", "document": { "id": "old", "lane": "a" } },
            { "op": "create", "document": { "id": "number", "lane": 7 } },
            { "op": "create", "document": { "id": "nowhere" } },
            { "op": "patch", "id": "old", "partition": "a", "operations": [{ "op": "incr", "path": "/n", "value": 1 }] },
            { "op": "read", "id": "old", "partition": ["a"] },
            { "op": "read", "id": "number", "partition": 7 },
            { "op": "read", "id": "nowhere", "partition": {} },
            { "op": "read", "id": "old", "partition": "b" },
            { "op": "replace", "document": { "id": "none", "lane": "c" } },
            { "op": "delete", "id": "old", "partition": "a", "if_match": "\"0-0\"" },
            { "op": "upsert", "partition": "c", "document": { "id": "up", "lane": "c" } },
            { "op": "delete", "id": "old", "partition": "a" },
        ]),
    )
    .await;
    let fine = |status| (status, "");
    assert_eq!(
        outcomes(&done),
        [
            fine(201),
            fine(201),
            (409, "document_exists"),
            fine(201),
            fine(201),
            fine(200),
            fine(200),
            fine(200),
            fine(200),
            (404, "document_not_found"),
            (404, "document_not_found"),
            (412, "precondition_failed"),
            fine(201),
            fine(204),
        ],
        "{}",
        done.text
    );
    let results = done.body["results"].as_array().unwrap();
    assert_eq!(results[6]["document"]["n"], 2, "those of a partition happen in order");
    assert_eq!(results[0]["etag"], results[0]["document"]["_etag"]);
    assert!(results[13].get("document").is_none());
    let charges: f64 = results.iter().map(|result| result["request_charge"].as_f64().unwrap()).sum();
    let told: f64 = done.header("x-request-charge").parse().unwrap();
    assert!((charges - told).abs() < 0.001, "{charges} is not {told}");
    let read = server.get("/store/plain/b/one").await;
    assert_eq!((read.status, read.header("etag")), (200, results[1]["etag"].as_str().unwrap()));
    assert_eq!(server.get("/store/plain/a/old").await.status, 404);
    // The token has seen every write, of whatever shard.
    let again = server.request(Method::GET, "/store/plain/a/one");
    let again = answer(again.header("x-session-token", done.header("x-session-token"))).await;
    assert_eq!(again.status, 200, "{}", again.text);
}

#[tokio::test]
async fn what_is_wrong_with_one_operation_keeps_no_other_from_happening() {
    let house = store::house("");
    let server = house.start().await;
    let fine = json!({ "op": "create", "document": { "id": "x", "lane": "a" } });
    for (bad, code) in [
        (json!(5), "invalid_operation"),
        (json!({ "op": "destroy", "id": "x" }), "invalid_operation"),
        (json!({ "op": "create" }), "invalid_operation"),
        (json!({ "op": "read", "id": "x" }), "invalid_operation"),
        (json!({ "op": "read", "id": "x", "partition": "a", "document": {} }), "invalid_operation"),
        (json!({ "op": "read", "id": "x", "partition": ["a", "b"] }), "invalid_partition_key"),
        (json!({ "op": "read", "id": "x", "partition": [] }), "invalid_partition_key"),
        (json!({ "op": "read", "id": "x", "partition": [["a"]] }), "invalid_partition_key"),
        (json!({ "op": "read", "id": "x", "partition": { "a": 1 } }), "invalid_partition_key"),
        (json!({ "op": "create", "document": { "id": "y", "lane": ["a"] } }), "invalid_partition_key"),
        (
            json!({ "op": "create", "partition": "b", "document": { "id": "y", "lane": "a" } }),
            "partition_key_mismatch",
        ),
        (json!({ "op": "create", "id": "z", "document": { "id": "y", "lane": "a" } }), "id_mismatch"),
        (json!({ "op": "create", "document": { "id": "a/b", "lane": "a" } }), "invalid_id"),
        (json!({ "op": "create", "document": { "id": "y", "lane": "a", "ttl": 0 } }), "invalid_ttl"),
        (json!({ "op": "create", "document": [] }), "not_an_object"),
        (json!({ "op": "delete", "id": "x", "partition": "a", "if_match": "?" }), "invalid_precondition"),
        (json!({ "op": "patch", "id": "x", "partition": "a", "operations": [] }), "invalid_patch"),
    ] {
        let gone = json!({ "op": "delete", "id": "x", "partition": "a" });
        let done = bulk(&server, "/store/bulk/plain", &json!([fine, bad, gone])).await;
        assert_eq!(outcomes(&done), [(201, ""), (400, code), (204, "")], "{bad}: {}", done.text);
    }
}

#[tokio::test]
async fn a_body_that_is_no_bulk_is_refused_as_a_whole() {
    let house = store::house("body: 64KiB, bulk_operations: 20, bulk_partitions: 2");
    let server = house.start().await;
    let create = |n: usize| json!({ "op": "create", "document": { "id": format!("d{n}"), "lane": n } });
    let many = |count: usize| json!({ "operations": (0..count).map(create).collect::<Vec<_>>() });
    for body in [
        json!({ "operations": [] }),
        many(21),
        json!({}),
        json!([create(1)]),
        json!({ "operations": [create(1)], "more": 1 }),
        json!({ "operations": 5 }),
    ] {
        let refused = server.send(Method::POST, "/store/bulk/plain", &body).await;
        is_problem(&refused, 400, "invalid_batch", &body.to_string().chars().take(80).collect::<String>());
    }
    let whole = server.send(Method::POST, "/store/bulk/plain", &many(20)).await;
    assert!(outcomes(&whole).iter().all(|outcome| *outcome == (201, "")), "{}", whole.text);
    assert_eq!(outcomes(&whole).len(), 20);
    let large = "x".repeat(64 << 10);
    let large = json!({ "operations": [{ "op": "create", "document": { "lane": "a", "x": large } }] });
    let request = server.request(Method::POST, "/store/bulk/plain").json(&large);
    is_problem(&answer(request).await, 413, "body_too_large", "a bulk of more than `body`");
    let keyed = server.request(Method::POST, "/store/bulk/plain").header("idempotency-key", "k");
    let keyed = answer(keyed.json(&many(1))).await;
    is_problem(&keyed, 400, "invalid_idempotency_key", "a bulk with an idempotency key");
}

#[tokio::test]
async fn a_bulk_leads_no_further_than_its_path_and_its_tenant() {
    let house = store::house("");
    let server = house.start().await;
    let operations = json!([
        { "op": "create", "document": { "id": "one", "lane": "a" } },
        { "op": "create", "document": { "id": "two", "lane": "b" } },
        { "op": "read", "id": "one" },
        { "op": "read", "id": "one", "partition": "a" },
        { "op": "read", "id": "one", "partition": "b" },
    ]);
    let done = bulk(&server, "/store/bulk/plain/a", &operations).await;
    let mismatch = (400, "partition_key_mismatch");
    assert_eq!(outcomes(&done), [(201, ""), mismatch, (200, ""), (200, ""), mismatch], "{}", done.text);

    let place = |country: &str| json!({ "id": "p", "country": country, "city": "Oslo", "street": "S" });
    let operations = json!([
        { "op": "create", "document": place("no") },
        { "op": "create", "document": place("se") },
        { "op": "read", "id": "p" },
        { "op": "read", "id": "p", "partition": ["no", "Oslo"] },
        { "op": "read", "id": "p", "partition": ["no", "Oslo", "S"] },
    ]);
    let done = bulk(&server, "/store/bulk/places/no", &operations).await;
    let few = (400, "invalid_partition_key");
    let expected = [(201, ""), mismatch, (400, "invalid_operation"), few, (200, "")];
    assert_eq!(outcomes(&done), expected, "{}", done.text);

    // The bucket of an id is computed; the tenant is the credential's, whatever stands in the body.
    let quote = |id: &str| json!({ "op": "upsert", "document": { "id": id, "tenantId": "other" } });
    let read = |id: &str| json!({ "op": "read", "id": id, "partition": "other" });
    let done = bulk(&server, "/store/bulk/quotes", &json!([quote("q1"), quote("q2"), read("q1")])).await;
    assert_eq!(outcomes(&done), [(201, ""), (201, ""), (200, "")], "{}", done.text);
    assert_eq!(server.get("/store/quotes/other/q2").await.status, 200);
    let foreign = server.anonymous(Method::POST, "/store/bulk/quotes").header("x-api-key", OTHER_KEY);
    let operations = json!([read("q1"), { "op": "delete", "id": "q2", "partition": "other" }, quote("q1")]);
    let foreign = answer(foreign.json(&json!({ "operations": operations }))).await;
    let missing = (404, "document_not_found");
    assert_eq!(outcomes(&foreign), [missing, missing, (201, "")], "{}", foreign.text);
}

#[tokio::test]
async fn a_bulk_beyond_the_budget_is_throttled_one_by_one() {
    let house = store::house("");
    let server = house.start().await;
    let text = "x".repeat(4_000);
    let create =
        |n: usize| json!({ "op": "create", "document": { "id": n.to_string(), "lane": "a", "x": text } });
    // Each costs more than 5 of the 400 units that there are.
    let done = bulk(&server, "/store/bulk/narrow", &json!((0..100).map(create).collect::<Vec<_>>())).await;
    let outcomes = outcomes(&done);
    assert_eq!(outcomes.first(), Some(&(201, "")), "{}", done.text);
    assert_eq!(outcomes.last(), Some(&(429, "throughput_exceeded")), "{}", done.text);
    let results = done.body["results"].as_array().unwrap();
    for (result, outcome) in results.iter().zip(&outcomes) {
        let waits = result["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0);
        assert_eq!(waits, outcome.0 == 429, "{result}");
    }
    let written = outcomes.iter().filter(|outcome| outcome.0 == 201).count();
    let read = server.get("/store/narrow/a/99").await;
    assert!(read.status == 404 || read.status == 429, "nothing of a throttled one is written: {}", read.text);
    assert!(written < 100);
}

#[tokio::test]
async fn unique_keys_hold_within_a_bulk_and_the_order_decides() {
    let house = store::house("");
    let server = house.start().await;
    let create = |id: usize, name: usize| json!({ "op": "create", "document": { "id": format!("d{id:02}"), "lane": "a", "ref": name } });
    let operations: Vec<_> = (0..50).map(|n| create(n, n / 2)).collect();
    let done = bulk(&server, "/store/bulk/loads", &json!(operations)).await;
    for (at, outcome) in outcomes(&done).into_iter().enumerate() {
        let expected = if at % 2 == 0 { (201, "") } else { (409, "unique_key_conflict") };
        assert_eq!(outcome, expected, "operation {at}: {}", done.text);
    }
    let found = ids(&server.get("/store/loads/a").await);
    assert_eq!(found, (0..50).step_by(2).map(|n| format!("d{n:02}")).collect::<Vec<_>>());
}
