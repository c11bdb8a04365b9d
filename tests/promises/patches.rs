//! Patches: what they may change, what they may not, and what must be true before.

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::server::{Answer, Server, answer};
use super::store::{self, create};

const ONE: &str = "/store/loads/a/one";

async fn patch(server: &Server, body: &Value) -> Answer {
    server.send(Method::PATCH, ONE, body).await
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "id": "one", "lane": "a", "n": 1, "tags": ["x"], "deep": { "a": 1 }, "gone": true });
    let first = create(&server, "/store/loads", &body).await;
    let operations = json!([
        { "op": "incr", "path": "/n", "value": 2 },
        { "op": "add", "path": "/tags/-", "value": "y" },
        { "op": "set", "path": "/deep/b", "value": null },
        { "op": "replace", "path": "/deep/a", "value": 2 },
        { "op": "remove", "path": "/gone" },
        { "op": "move", "from": "/deep/a", "path": "/a" },
    ]);
    // No content type at all, as clients of Cosmos DB send it.
    let bare = server.request(Method::PATCH, ONE).body(operations.to_string());
    let patched = answer(bare).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    let changed = |document: &Value| {
        let shown = ["id", "lane", "n", "tags", "deep", "a"].map(|name| document[name].clone());
        assert_eq!(json!(shown), json!(["one", "a", 3, ["x", "y"], { "b": null }, 2]), "{document}");
        assert!(document.get("gone").is_none());
    };
    changed(&patched.body);
    changed(&server.get(ONE).await.body);
    assert_ne!(patched.header("etag"), first.header("etag"));
    assert!(!patched.header("x-request-charge").is_empty());
    let merge = server.request(Method::PATCH, ONE).header("content-type", "application/merge-patch+json");
    let merged = answer(merge.body(r#"{"n":null,"deep":{"c":1}}"#)).await;
    assert_eq!((merged.status, &merged.body["deep"]), (200, &json!({ "b": null, "c": 1 })));
    assert!(merged.body.get("n").is_none(), "{}", merged.text);
    let enveloped = json!({ "operations": [{ "op": "set", "path": "/n", "value": 9 }] });
    assert_eq!(patch(&server, &enveloped).await.body["n"], 9);
}

#[tokio::test]
async fn a_patch_happens_only_where_its_conditions_hold() {
    let house = store::house("");
    let server = house.start().await;
    let first = create(&server, "/store/loads", &json!({ "id": "one", "lane": "a", "n": 1 })).await;
    let with = |condition: &str| json!({ "condition": condition, "operations": [{ "op": "incr", "path": "/n", "value": 1 }] });
    let refused = patch(&server, &with("FROM c WHERE c.n > 1")).await;
    is_problem(&refused, 412, "condition_failed", "a condition that is false");
    assert_eq!(refused.header("x-request-charge"), "1.00");
    assert_eq!(server.get(ONE).await.header("etag"), first.header("etag"), "nothing was done");
    let done = patch(&server, &with("from anything where anything.n = 1")).await;
    assert_eq!((done.status, &done.body["n"]), (200, &json!(2)));
    let wrong = patch(&server, &with("FROM c WHERE c.n >")).await;
    is_problem(&wrong, 400, "invalid_condition", "half a condition");
    assert!(wrong.body["detail"].as_str().unwrap().contains("line 1, column 1"), "{}", wrong.text);
    let stale = server.request(Method::PATCH, ONE).header("if-match", first.header("etag"));
    let stale = answer(stale.json(&with("FROM c"))).await;
    is_problem(&stale, 412, "precondition_failed", "an old tag");
    let now = server.request(Method::PATCH, ONE).header("if-match", done.header("etag"));
    assert_eq!(answer(now.json(&with("FROM c"))).await.status, 200);
    let absent = server.send(Method::PATCH, "/store/loads/a/none", &with("FROM c")).await;
    is_problem(&absent, 404, "document_not_found", "a patch of nothing");
}

#[tokio::test]
async fn a_patch_that_cannot_be_applied_does_nothing() {
    let house = store::house("");
    let server = house.start().await;
    let body = json!({ "id": "one", "lane": "a", "ref": "r-1", "n": "text" });
    create(&server, "/store/loads", &body).await;
    create(&server, "/store/loads", &json!({ "id": "two", "lane": "a", "ref": "r-2" })).await;
    let before = server.get(ONE).await.text;
    let set = |path: &str| json!([{ "op": "set", "path": "/fine", "value": 1 }, { "op": "set", "path": path, "value": 1 }]);
    let many: Vec<_> =
        (0..11).map(|n| json!({ "op": "set", "path": format!("/p{n}"), "value": n })).collect();
    for (body, status, code) in [
        (set("/id"), 400, "patch_failed"),
        (set("/lane"), 400, "patch_failed"),
        (set("/_etag"), 400, "patch_failed"),
        (set("/no/such/parent"), 400, "patch_failed"),
        (json!([{ "op": "incr", "path": "/n", "value": 1 }]), 400, "patch_failed"),
        (json!([{ "op": "remove", "path": "/missing" }]), 400, "patch_failed"),
        (json!([{ "op": "set", "path": "/ttl", "value": 0 }]), 400, "patch_failed"),
        (json!([{ "op": "set", "path": "/ref", "value": "r-2" }]), 409, "unique_key_conflict"),
        (json!([]), 400, "invalid_patch"),
        (json!(many), 400, "invalid_patch"),
        (json!([{ "op": "jump", "path": "/a" }]), 400, "invalid_patch"),
        (json!([{ "op": "set", "path": "no-slash", "value": 1 }]), 400, "invalid_patch"),
        (json!({ "set": { "a": 1 } }), 400, "invalid_json"),
        (json!({}), 400, "invalid_patch"),
        (json!(7), 400, "invalid_patch"),
    ] {
        is_problem(&patch(&server, &body).await, status, code, &body.to_string());
    }
    let half = server.request(Method::PATCH, ONE).body("[{");
    is_problem(&answer(half).await, 400, "invalid_json", "half a patch");
    let other = server.request(Method::PATCH, ONE).header("content-type", "text/plain").body("[]");
    is_problem(&answer(other).await, 415, "unsupported_media_type", "a patch that says it is text");
    let merge = server.request(Method::PATCH, ONE).header("content-type", "application/merge-patch+json");
    is_problem(&answer(merge.body(r#"{"lane":"b"}"#)).await, 400, "patch_failed", "another partition");
    assert_eq!(server.get(ONE).await.text, before);
}
