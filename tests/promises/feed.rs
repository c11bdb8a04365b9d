//! The change feed over the admin API: complete, in order, resumable, patient, and never in the way of an end.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::project;
use super::query::fill;
use super::server::{AMPLE, Server, TOKEN, answer};

const LOADS: &str = "/freight/v1/loads";
const CHANGES: &str = "/v1/containers/loads/changes";
/// Keeps the log, which a feed of all versions reads.
const PAUSED: &str =
    "kept: { topic: load-events, to: { webhook: \"http://127.0.0.1:9/x\", allow: [127.0.0.0/8] } }";

/// All changes from a place on, page by page, and the cursor behind them.
async fn drain(server: &Server, query: &str, from: &str) -> (Vec<Value>, String) {
    let (mut changes, mut cursor) = (Vec::new(), from.to_owned());
    loop {
        let page = server.ask(&format!("{CHANGES}?{query}&from={cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        cursor = page.body["cursor"].as_str().unwrap().to_owned();
        let found = page.body["changes"].as_array().unwrap();
        if found.is_empty() {
            return (changes, cursor);
        }
        changes.extend(found.iter().cloned());
    }
}

#[tokio::test]
async fn the_feed_shows_each_document_as_it_is_now_and_goes_on_from_a_cursor() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 7).await;
    let (changes, cursor) = drain(&server, "limit=2", "beginning").await;
    assert_eq!(changes.len(), 7);
    for change in &changes {
        let (id, lane) = (change["id"].as_str().unwrap(), change["partition"][0].as_str().unwrap());
        let read = server.get(&format!("{LOADS}/{lane}/{id}")).await;
        assert_eq!(change["document"], read.body);
        assert_eq!((&change["etag"], &change["ts"]), (&read.body["_etag"], &read.body["_ts"]));
        assert!(change.get("kind").is_none() && change["lsn"] == read.body["_lsn"], "{change}");
    }
    // A restart does not touch a cursor.
    server.kill();
    let server = house.start().await;
    let body = json!({ "lane": "l0", "weight": 99 });
    assert_eq!(server.send(Method::PUT, &format!("{LOADS}/l0/d3"), &body).await.status, 200);
    let (news, cursor) = drain(&server, "", &cursor).await;
    assert_eq!((news.len(), &news[0]["document"]["weight"]), (1, &json!(99)));
    assert!(drain(&server, "", &cursor).await.0.is_empty());
    assert!(drain(&server, "", "now").await.0.is_empty());
    assert!(drain(&server, "", "2999-01-01T00:00:00Z").await.0.is_empty());
    assert_eq!(drain(&server, "", "2020-01-01T00:00:00Z").await.0.len(), 7);
    let (lane, _) = drain(&server, "partition=%5B%22l1%22%5D", "beginning").await;
    assert_eq!(lane.iter().map(|change| &change["id"]).collect::<Vec<_>>(), ["d1", "d4"]);
}

#[tokio::test]
async fn the_feed_of_all_versions_shows_every_step_and_what_it_replaced() {
    let house = project::house("", PAUSED);
    let server = house.start().await;
    answer(server.operator(Method::POST, "/v1/subscriptions/kept:pause")).await;
    let (none, cursor) = drain(&server, "mode=all", "now").await;
    assert!(none.is_empty());
    let path = format!("{LOADS}/a/x");
    for weight in [1, 2] {
        let body = json!({ "lane": "a", "weight": weight });
        assert!(server.send(Method::PUT, &path, &body).await.status < 300);
    }
    assert_eq!(answer(server.request(Method::DELETE, &path)).await.status, 204);
    let (changes, _) = drain(&server, "mode=all&previous=true", &cursor).await;
    let kinds: Vec<_> = changes.iter().map(|change| change["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["create", "replace", "delete"]);
    assert_eq!(changes[1]["document"]["weight"], json!(2));
    assert_eq!(
        (&changes[1]["previous"]["weight"], &changes[2]["previous"]["weight"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(changes[2]["previous_lsn"], changes[1]["lsn"]);
    assert!(changes[2].get("document").is_none() && changes[2].get("ttl_expired").is_none());
}

#[tokio::test]
async fn who_waits_gets_the_change_when_it_happens() {
    let house = project::house("", "");
    let server = house.start().await;
    let waiting = server.operator(Method::GET, &format!("{CHANGES}?from=now&wait=25s"));
    let waiting = tokio::spawn(answer(waiting));
    // The wait has begun when its first look was charged.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    fill(&server, 1).await;
    let page = waiting.await.unwrap();
    assert_eq!((page.status, &page.body["changes"][0]["id"]), (200, &json!("d0")), "{}", page.text);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let none = server.ask(&format!("{CHANGES}?from=now&wait=200ms")).await;
    assert_eq!(none.body["count"], json!(0));
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn who_waits_does_not_hold_up_the_end_and_loses_no_place() {
    let house = project::house("", "");
    let mut server = house.start().await;
    let waiting = tokio::spawn(answer(server.operator(Method::GET, &format!("{CHANGES}?from=now&wait=60s"))));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    server.terminate();
    let page = waiting.await.unwrap();
    assert_eq!((page.status, &page.body["count"]), (200, &json!(0)), "{}", page.text);
    assert!(server.ended().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let server = house.start().await;
    fill(&server, 1).await;
    let (news, _) = drain(&server, "", page.body["cursor"].as_str().unwrap()).await;
    assert_eq!(news.len(), 1);
}

#[tokio::test]
async fn who_goes_away_frees_his_place() {
    /// More than there are places for feeds that wait.
    const MANY: usize = 1_100;
    let house = project::house("", "");
    let server = house.start().await;
    let address = server.admin.strip_prefix("http://").unwrap();
    let head = format!(
        "GET {CHANGES}?from=now&wait=60s HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
    );
    let begun = Instant::now();
    for _ in 0..MANY {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    }
    assert!(begun.elapsed() < AMPLE);
    let page = server.until(&format!("{CHANGES}?from=beginning"), |answer| answer.status == 200).await;
    assert_eq!(page.body["count"], json!(0));
}

#[tokio::test]
async fn a_bad_request_for_changes_is_refused() {
    let house = project::house("", "");
    let server = house.start().await;
    let (_, cursor) = drain(&server, "", "now").await;
    for (query, code) in [
        ("from=yesterday", "invalid_start"),
        ("from=2026-13-01T00:00:00Z", "invalid_start"),
        ("from=AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "invalid_cursor"),
        ("mode=all&from=beginning", "invalid_start"),
        ("mode=some", "invalid_request"),
        ("limit=0", "invalid_request"),
        ("limit=x", "invalid_request"),
        ("wait=61s", "invalid_request"),
        ("wait=5", "invalid_request"),
        ("previous=yes", "invalid_request"),
        ("partition=l0", "invalid_request"),
        ("tenant=acme", "invalid_request"),
        (&format!("mode=all&from={cursor}"), "invalid_cursor"),
        (&format!("partition=%5B%22a%22%5D&from={cursor}"), "invalid_cursor"),
    ] {
        is_problem(&server.ask(&format!("{CHANGES}?{query}")).await, 400, code, query);
    }
    let none = server.ask("/v1/containers/lods/changes").await;
    is_problem(&none, 404, "container_not_found", "lods");
}

#[tokio::test]
async fn the_command_line_prints_changes_as_lines() {
    let house = project::house("", "");
    let server = house.start().await;
    fill(&server, 5).await;
    let output = house.verb(&["changes", "loads", "--admin", &server.admin]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids.len(), 5, "{lines}");
    let told = String::from_utf8(output.stderr).unwrap();
    let cursor = told.split_whitespace().last().unwrap();
    let none = house.verb(&["changes", "loads", "--from", cursor, "--admin", &server.admin]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0), "{told}");
    let wrong = house.verb(&["changes", "loads", "--from", "x", "--admin", &server.admin]);
    assert_eq!(wrong.status.code(), Some(1));
}
