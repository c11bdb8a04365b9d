//! Questions over HTTP: their parameters, their pages, and what they cost.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::bad_input::is_problem;
use super::server::{Answer, answer};
use super::store::{self, create, ids};

#[tokio::test]
async fn a_query_answers_in_pages_that_survive_a_restart() {
    let house = store::house("query_page_default: 7");
    let server = house.start().await;
    for n in 0..30 {
        let status = if n % 3 == 0 { "closed" } else { "open" };
        let body = json!({ "id": format!("l{n:02}"), "lane": "a", "ref": n, "status": status, "weight": n });
        create(&server, "/store/loads", &body).await;
    }
    let found = server.get("/store/find/a?status=open&limit=1000").await;
    let heavy_first: Vec<_> = (0..30).rev().filter(|n| n % 3 != 0).map(|n| format!("l{n:02}")).collect();
    assert_eq!(ids(&found), heavy_first);
    assert_eq!((&found.body["count"], found.header("x-continuation")), (&json!(20), ""));
    assert!(found.header("x-request-charge").parse::<f64>().unwrap() > 2.3);
    assert!(found.body["documents"][0]["_etag"].is_string(), "{}", found.text);
    let mut paged = ids(&server.get("/store/find/a?status=open").await);
    assert_eq!(paged.len(), 7);
    let mut token = server.get("/store/find/a?status=open").await.header("x-continuation").to_owned();
    server.kill();
    let server = house.start().await;
    while !token.is_empty() {
        let next = server.request(Method::GET, "/store/find/a?status=open").header("x-continuation", &token);
        let next = answer(next).await;
        paged.extend(ids(&next));
        token = next.header("x-continuation").to_owned();
    }
    assert_eq!(paged, heavy_first);
    assert_eq!(paged.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(server.get("/store/count").await.body["documents"], json!([25]));
}

#[tokio::test]
async fn a_value_of_the_request_is_never_read_as_a_part_of_the_query() {
    let house = store::house("");
    let server = house.start().await;
    create(&server, "/store/loads", &json!({ "id": "1", "lane": "a", "status": "open" })).await;
    for status in ["x' OR 'a' = 'a", "@status", "\" OR true -- "] {
        let encoded: String = status.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert!(ids(&server.get(&format!("/store/find/a?status={encoded}")).await).is_empty(), "{status}");
    }
    assert_eq!(ids(&server.get("/store/find/a?status=open").await), ["1"]);
    let missing = server.get("/store/find/a").await;
    is_problem(&missing, 400, "missing_parameter", "no status");
    assert!(missing.body["detail"].as_str().unwrap().contains("`status`"), "{}", missing.text);
    is_problem(&server.get("/store/find/a?status=open&limit=0").await, 400, "invalid_query", "no rows");
    for token in ["x", "AQAA", ""] {
        let answer = server.get(&format!("/store/find/a?status=open&continuation={token}")).await;
        is_problem(&answer, 400, "invalid_continuation", token);
    }
}

#[tokio::test]
async fn a_query_that_would_read_for_ever_is_cut_with_a_continuation() {
    let house = store::house("query_rows: 50");
    let server = house.start().await;
    for batch in 0..4 {
        let operations: Vec<_> = (0..100)
            .map(|n| json!({ "op": "create", "document": { "id": format!("l{batch}{n:02}"), "lane": "a", "ref": batch * 100 + n, "weight": n } }))
            .collect();
        let done = server.send(Method::POST, "/store/loads/a", &json!({ "operations": operations })).await;
        assert_eq!(done.status, 200, "{}", done.text);
    }
    let (mut counted, mut pages, mut token) = (0, 0, String::new());
    loop {
        let page = server
            .get(
                &format!("/store/count?continuation={token}")
                    .replace("?continuation=", if token.is_empty() { "?c=" } else { "?continuation=" }),
            )
            .await;
        assert_eq!(page.status, 200, "{}", page.text);
        counted +=
            page.body["documents"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
        pages += 1;
        token = page.header("x-continuation").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(counted, 4 * 95);
    assert!(pages > 3, "{pages} pages");
}

#[tokio::test]
async fn a_parameter_of_a_request_has_the_type_that_the_manifest_names() {
    let house = store::house("");
    let server = house.start().await;
    for (id, weight, status, tags) in
        [("a", 1.5, "open", json!(["x"])), ("b", 2.5, "closed", json!([])), ("c", 30.0, "open", json!(["x"]))]
    {
        let load =
            json!({ "id": id, "lane": "l", "ref": id, "weight": weight, "status": status, "tags": tags });
        create(&server, "/store/loads", &load).await;
    }
    let rows = |page: &Answer| {
        assert_eq!(page.status, 200, "{}", page.text);
        page.body["documents"].clone()
    };
    for (path, expected) in [
        ("1.5?n=9&open=false&tags=null", json!(["a", "b", "c"])),
        ("2?n=9&open=false&tags=null", json!(["b", "c"])),
        ("-1e3?n=2&open=false&tags=null", json!(["a", "b"])),
        ("0?n=9&open=true&tags=null", json!(["a", "c"])),
        ("0?n=9&open=false&tags=%5B%22x%22%5D", json!(["a", "c"])),
        ("0?n=9&open=false&tags=%5B+%5D", json!(["b"])),
    ] {
        assert_eq!(rows(&server.get(&format!("/store/weigh/{path}")).await), expected, "{path}");
    }
    for (path, word) in [
        ("heavy?n=9&open=false&tags=null", "`least` is not a number"),
        ("+1?n=9&open=false&tags=null", "`least` is not a number"),
        ("%201?n=9&open=false&tags=null", "`least` is not a number"),
        ("1e999?n=9&open=false&tags=null", "`least` is not a number"),
        ("true?n=9&open=false&tags=null", "`least` is not a number"),
        ("0?n=&open=false&tags=null", "`n` is not a number"),
        ("0?n=%221%22&open=false&tags=null", "`n` is not a number"),
        ("0?n=1.5&open=false&tags=null", "`@n` counts rows"),
        ("0?n=9&open=1&tags=null", "`open` is not `true` or `false`"),
        ("0?n=9&open=TRUE&tags=null", "`open` is not `true` or `false`"),
        ("0?n=9&open=false&tags=x", "`tags` is not JSON"),
        ("0?n=9&open=false&tags=", "`tags` is not JSON"),
    ] {
        let refused = server.get(&format!("/store/weigh/{path}")).await;
        is_problem(&refused, 400, "invalid_parameter", path);
        assert!(refused.body["detail"].as_str().unwrap().contains(word), "{path}: {}", refused.text);
    }
}
