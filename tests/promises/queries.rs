//! Questions over HTTP: their parameters, their pages, and what they cost.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::bad_input::is_problem;
use super::server::answer;
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
