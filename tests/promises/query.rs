//! Queries of an operator: over a partition, a tenant, a container; paged, explained, refused with their place.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project::{self, OTHER_KEY};
use super::server::{Answer, Server, answer};

const LOADS: &str = "/freight/v1/loads";

/// Asks a query of a container.
pub(crate) async fn ask(server: &Server, container: &str, body: &Value) -> Answer {
    answer(server.operator(Method::POST, &format!("/v1/containers/{container}/query")).json(body)).await
}

/// Writes loads `0..count` over the lanes `l0`, `l1` and `l2`.
pub(crate) async fn fill(server: &Server, count: usize) {
    for number in 0..count {
        let body =
            json!({ "id": format!("d{number}"), "lane": format!("l{}", number % 3), "weight": number });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
}

#[tokio::test]
async fn a_query_finds_what_it_asks_for_in_a_partition_and_in_the_container() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 9).await;
    let heavy = json!({
        "query": "SELECT VALUE c.weight FROM c WHERE c.weight >= @least ORDER BY c.weight DESC",
        "parameters": [{ "name": "@least", "value": 3 }],
    });
    let all = ask(&server, "loads", &heavy).await;
    assert_eq!((all.status, &all.body["documents"]), (200, &json!([8, 7, 6, 5, 4, 3])), "{}", all.text);
    assert_eq!((&all.body["count"], &all.body["continuation"]), (&json!(6), &Value::Null));
    assert!(all.body["request_charge"].as_f64().unwrap() > 2.0, "{}", all.text);
    assert!(all.body.get("plan").is_none());
    let mut one = heavy.clone();
    one["partition"] = json!(["l1"]);
    one["explain"] = json!(true);
    let one = ask(&server, "loads", &one).await;
    assert_eq!(one.body["documents"], json!([7, 4]), "{}", one.text);
    assert_eq!((&one.body["plan"]["partitions"], &one.body["plan"]["shards"]), (&json!("one"), &json!(1)));
    let whole = json!({ "query": "SELECT * FROM c WHERE c.id = 'd4'", "partition": ["l1"] });
    let whole = ask(&server, "loads", &whole).await;
    let read = server.get(&format!("{LOADS}/l1/d4")).await;
    assert_eq!(whole.body["documents"], json!([read.body]));
}

#[tokio::test]
async fn the_pages_of_a_query_are_all_of_it_and_nothing_twice() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 20).await;
    let mut body = json!({ "query": "SELECT VALUE c.id FROM c", "limit": 3 });
    let (mut seen, mut pages) = (BTreeSet::new(), 0);
    loop {
        let page = ask(&server, "loads", &body).await;
        assert_eq!(page.status, 200, "{}", page.text);
        for id in page.body["documents"].as_array().unwrap() {
            assert!(seen.insert(id.as_str().unwrap().to_owned()), "{id} twice");
        }
        pages += 1;
        match page.body["continuation"].as_str() {
            Some(continuation) => body["continuation"] = json!(continuation),
            None => break,
        }
    }
    assert_eq!(seen.len(), 20);
    assert!(pages >= 7, "{pages} pages");
    body["query"] = json!("SELECT VALUE c.lane FROM c");
    is_problem(&ask(&server, "loads", &body).await, 400, "invalid_continuation", "of another query");
}

#[tokio::test]
async fn a_query_of_an_isolated_container_sees_the_tenant_that_it_names() {
    let house = project::house("", "");
    let server = house.start().await;
    let note = json!({ "id": "one", "owner": "ann" });
    assert_eq!(server.send(Method::POST, "/notes", &note).await.status, 201);
    let theirs = server.anonymous(Method::POST, "/notes").header("x-api-key", OTHER_KEY).json(&note);
    assert_eq!(answer(theirs).await.status, 201);
    let count = async |extra: Value| {
        let mut body = json!({ "query": "SELECT VALUE COUNT(1) FROM c" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let found = ask(&server, "notes", &body).await;
        assert_eq!(found.status, 200, "{}", found.text);
        found.body["documents"][0].clone()
    };
    assert_eq!(count(json!({})).await, json!(2), "operators may look at all tenants");
    assert_eq!(count(json!({ "tenant": "acme" })).await, json!(1));
    assert_eq!(count(json!({ "tenant": "acme", "partition": ["ann"] })).await, json!(1));
    assert_eq!(count(json!({ "tenant": "nobody" })).await, json!(0));
    let vague = json!({ "query": "SELECT * FROM c", "partition": ["ann"] });
    is_problem(&ask(&server, "notes", &vague).await, 400, "invalid_request", "whose partition?");
}

#[tokio::test]
async fn a_bad_query_is_refused_with_its_place() {
    let house = project::house("body: 64KiB", "");
    let server = house.start().await;
    let wrong = ask(&server, "loads", &json!({ "query": "SELECT *\nFROM c WHRE c.x = 1" })).await;
    is_problem(&wrong, 400, "invalid_query_text", "a typing error");
    assert_eq!(wrong.body["line"], json!(2), "{}", wrong.text);
    let (column, detail) = (&wrong.body["column"], wrong.body["detail"].as_str().unwrap());
    assert!(detail.contains(&format!("line 2, column {column}")), "{detail}");
    let good = "SELECT * FROM c WHERE c.x = @x";
    for (body, status, code) in [
        (json!({ "query": good }), 400, "invalid_parameter"),
        (json!({ "query": good, "limit": 0 }), 400, "invalid_request"),
        (json!({ "query": good, "parameter": [] }), 400, "invalid_request"),
        (json!({ "query": good, "partition": ["a", "b"] }), 400, "invalid_request"),
        (json!({ "query": good, "partition": [["a"]] }), 400, "invalid_partition_key"),
        (json!({ "query": good, "tenant": "acme" }), 400, "invalid_request"),
        (json!({ "query": "SELECT * FROM c", "continuation": "AAAA" }), 400, "invalid_continuation"),
        (json!({ "query": format!("SELECT '{}'", "x".repeat(1 << 20)) }), 413, "body_too_large"),
    ] {
        let what: String = body.to_string().chars().take(60).collect();
        is_problem(&ask(&server, "loads", &body).await, status, code, &what);
    }
    // The limit of documents is not that of queries.
    let long = json!({ "query": format!("SELECT VALUE COUNT(1) FROM c{}", " ".repeat(100_000)) });
    let long = ask(&server, "loads", &long).await;
    assert_eq!((long.status, &long.body["documents"]), (200, &json!([0])), "{}", long.text);
    is_problem(
        &ask(&server, "lods", &json!({ "query": "SELECT 1" })).await,
        404,
        "container_not_found",
        "lods",
    );
    let stranger = server.anonymous(Method::POST, "/v1/containers/loads/query");
    assert_eq!(answer(stranger.json(&json!({ "query": "SELECT 1" }))).await.status, 404);
    let url = format!("{}/v1/containers/loads/query", server.admin);
    assert_eq!(answer(reqwest::Client::new().post(url).body("{}")).await.refused(), (401, "invalid_token"));
}

#[tokio::test]
async fn the_command_line_asks_the_same_queries() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 9).await;
    let run = |arguments: &[&str]| {
        let all = [&["query", "--admin", &server.admin], arguments].concat();
        let output = house.verb(&all);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let sql = "SELECT c.id, c.weight FROM c WHERE c.weight > @w AND c.lane = @lane ORDER BY c.weight";
    let parameters = ["--param", "w=2", "--param", "lane=l1"];
    let (code, out, err) = run(&[&["loads", sql], &parameters[..]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("id  weight\nd4       4\nd7       7\n"), "{out}");
    let (_, out, _) = run(&[&["loads", sql, "--json"], &parameters[..]].concat());
    assert_eq!(out, "{\"id\":\"d4\",\"weight\":4}\n{\"id\":\"d7\",\"weight\":7}\n");
    let (_, out, err) = run(&["loads", "SELECT VALUE c.id FROM c", "--limit", "2", "--json"]);
    assert_eq!(out.lines().count(), 2);
    assert!(err.contains("--all"), "{err}");
    let (_, out, _) = run(&["loads", "SELECT VALUE c.id FROM c", "--limit", "2", "--json", "--all"]);
    assert_eq!(out.lines().collect::<BTreeSet<_>>().len(), 9);
    let (_, out, _) = run(&["loads", "SELECT VALUE COUNT(1) FROM c", "--partition", "[\"l0\"]", "--explain"]);
    assert!(out.starts_with("3\n") && out.contains("partitions:") && out.contains("one"), "{out}");
    let (code, out, err) = run(&["loads", "SELEKT"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("line 1, column 1") && err.contains("invalid_query_text"), "{err}");
    assert_eq!(run(&["loads", "SELECT 1", "--param", "novalue"]).0, Some(64));
    assert_eq!(run(&["loads", "SELECT 1", "--partition", "l0"]).0, Some(64));
}
