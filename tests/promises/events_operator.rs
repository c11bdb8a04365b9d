//! What an operator sees of events and can do with those of the past.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::events_project::{self as project, QUEUE, event, load, publish, subscription};
use super::server::answer;
use super::sink::Sink;

#[tokio::test]
async fn history_is_replayed_and_marked_as_such() {
    let sink = Sink::start(|_| 200);
    let subscriptions = [
        subscription(&sink, "told", "partner-events", ("", "")),
        subscription(&sink, "loads", "load-events", ("", "")),
    ];
    let house = project::house("", QUEUE, &subscriptions);
    let server = house.start().await;
    for number in 0..5 {
        publish(&server, &event(&format!("e{number}"), &json!(number))).await;
        load(&server, "A", &format!("a{number}"), number).await;
    }
    sink.taken("loads", 5).await;
    let first = sink.taken("told", 5).await;
    assert!(first.iter().all(|hit| !hit.headers.contains_key("x-replay-id")));
    let replay =
        server.operator(Method::POST, "/v1/subscriptions/told:replay").json(&json!({ "rate": 1000 }));
    let begun = answer(replay).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    let id = begun.body["id"].as_str().unwrap();
    let all = sink.taken("told", 10).await;
    let mut again: Vec<_> =
        all.iter().filter(|hit| hit.headers.get("x-replay-id").is_some_and(|found| found == id)).collect();
    again.sort_by_key(|hit| hit.id.clone());
    let ids: Vec<_> = again.iter().map(|hit| hit.id.as_str()).collect();
    assert_eq!(ids, ["e0", "e1", "e2", "e3", "e4"]);
    server.until("/v1/subscriptions/told", |answer| answer.body["replays"] == json!([])).await;
    // Nobody else is told anything again.
    assert_eq!(sink.hits().iter().filter(|hit| hit.path == "loads").count(), 5);
}

#[tokio::test]
async fn a_replay_can_be_cancelled_and_survives_a_restart() {
    let sink = Sink::start(|_| 200);
    let house = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", ("", ""))]);
    let server = house.start().await;
    for number in 0..20 {
        publish(&server, &event(&format!("e{number}"), &json!(number))).await;
    }
    sink.taken("told", 20).await;
    let replay = json!({ "from": "2020-01-01T00:00:00Z", "rate": 1 });
    let begun = answer(server.operator(Method::POST, "/v1/subscriptions/told:replay").json(&replay)).await;
    let id = begun.body["id"].as_str().unwrap().to_owned();
    let under_way = |answer: &super::server::Answer| answer.body["replays"][0]["id"] == json!(id);
    server.until("/v1/subscriptions/told", under_way).await;
    server.kill();
    let server = house.start().await;
    server.until("/v1/subscriptions/told", under_way).await;
    let cancel = |id: &str| {
        let request = server.operator(Method::POST, "/v1/subscriptions/told:cancel-replay");
        answer(request.json(&json!({ "id": id })))
    };
    assert_eq!(cancel(&id).await.status, 200);
    server.until("/v1/subscriptions/told", |answer| answer.body["replays"] == json!([])).await;
    assert_eq!(cancel(&id).await.refused(), (404, "replay_not_found"));
    for wrong in [
        json!({ "from": "soon" }),
        json!({ "rate": 0 }),
        json!({ "until": "x" }),
        json!({ "from": "2030-01-01", "to": "2029-01-01" }),
    ] {
        let request = server.operator(Method::POST, "/v1/subscriptions/told:replay").json(&wrong);
        assert_eq!(answer(request).await.refused(), (400, "invalid_request"), "{wrong}");
    }
}

#[tokio::test]
async fn dead_letters_are_replayed_by_what_is_in_them() {
    let mood = Arc::new(AtomicU16::new(400));
    let chosen = mood.clone();
    let sink = Sink::start(move |_| chosen.load(Ordering::SeqCst));
    let house = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", ("", ""))]);
    let server = house.start().await;
    for number in 0..6 {
        publish(&server, &event(&format!("e{number}"), &json!({ "n": number }))).await;
    }
    server.until("/v1/subscriptions/told", |answer| answer.body["dead_lettered"] == json!(6)).await;
    mood.store(200, Ordering::SeqCst);
    let replay = |body: Value| {
        let request = server.operator(Method::POST, "/v1/subscriptions/told/dead-letters:replay");
        answer(request.json(&body))
    };
    let filter = json!([{ "key": "data.n", "operator": "NumberIn", "values": [1, 4, 9] }]);
    assert_eq!(replay(json!({ "filter": filter })).await.body["replayed"], json!(2));
    let mut ids: Vec<_> = sink.taken("told", 2).await.iter().map(|hit| hit.id.clone()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e1", "e4"]);
    server.until("/v1/subscriptions/told", |answer| answer.body["dead_lettered"] == json!(4)).await;
    for wrong in [
        json!([{ "key": "data.n", "operator": "Is" }]),
        json!([{ "key": "" , "operator": "IsNotNull" }]),
        json!({}),
    ] {
        assert_eq!(replay(json!({ "filter": wrong })).await.refused(), (400, "invalid_request"));
    }
    assert_eq!(replay(json!({ "filter": [], "all": true })).await.refused(), (400, "invalid_request"));
}

#[tokio::test]
async fn dead_letters_are_replayed_at_a_rate_and_by_another_subscription() {
    let sink = Sink::start(|hit| if hit.path == "ill" { 400 } else { 200 });
    let none = r#"types: ["never.made"]"#;
    let subscriptions = [
        subscription(&sink, "ill", "partner-events", ("", "")),
        subscription(&sink, "spare", "partner-events", ("", &format!(", {none}"))),
        subscription(&sink, "foreign", "partner-events", ("", &format!(", {none}, tenant: globex"))),
    ];
    let server = project::house("", QUEUE, &subscriptions).start().await;
    for number in 0..4 {
        publish(&server, &event(&format!("e{number}"), &json!({ "n": number }))).await;
    }
    server.until("/v1/subscriptions/ill", |answer| answer.body["dead_lettered"] == json!(4)).await;
    let replay = |body: Value| {
        answer(server.operator(Method::POST, "/v1/subscriptions/ill/dead-letters:replay").json(&body))
    };
    for (to, status, code) in [("ill", 400, "invalid_request"), ("nobody", 404, "subscription_not_found")] {
        assert_eq!(replay(json!({ "all": true, "to": to })).await.refused(), (status, code));
    }
    assert_eq!(replay(json!({ "all": true, "rate": 0 })).await.refused(), (400, "invalid_request"));
    // Events of another tenant, or of none, are not for it: they stay where they are.
    assert_eq!(replay(json!({ "all": true, "to": "foreign" })).await.body["replayed"], json!(0));
    server.until("/v1/subscriptions/ill", |answer| answer.body["dead_lettered"] == json!(4)).await;
    let begin = Instant::now();
    assert_eq!(replay(json!({ "all": true, "to": "spare", "rate": 2 })).await.body["replayed"], json!(4));
    let hits = sink.taken("spare", 4).await;
    // The last of four falls due after a second and a half.
    assert!(begin.elapsed() >= Duration::from_millis(1400), "{:?}", begin.elapsed());
    assert!(hits.iter().all(|hit| hit.headers.contains_key("x-replay-id")));
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.id.clone()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e0", "e1", "e2", "e3"]);
    server.until("/v1/subscriptions/ill", |answer| answer.body["dead_lettered"] == json!(0)).await;
}

#[tokio::test]
async fn topics_and_attempts_are_shown() {
    let sink = Sink::start(|_| 500);
    let house = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", ("", ""))]);
    let server = house.start().await;
    let topics = server.ask("/v1/topics").await;
    let found = |name: &str| {
        let topics = topics.body["topics"].as_array().unwrap();
        topics.iter().find(|topic| topic["name"] == name).unwrap().clone()
    };
    let partner = found("partner-events");
    assert_eq!((&partner["source"], &partner["retention_seconds"]), (&json!("published"), &json!(86_400)));
    assert_eq!(partner["subscriptions"], json!(["pull", "told"]));
    assert!(partner["shard"].is_u64());
    assert_eq!(found("load-events")["from"]["container"], "loads");
    assert_eq!(found("lanekeeper.system")["source"], "system");
    publish(&server, &event("a", &json!(1))).await;
    server.until("/v1/subscriptions/told", |answer| answer.body["dead_lettered"] == json!(1)).await;
    let attempts = server.ask("/v1/subscriptions/told/attempts").await;
    let shown: Vec<_> = attempts.body["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| (attempt["event_id"].clone(), attempt["attempt"].clone(), attempt["status"].clone()))
        .collect();
    assert_eq!(shown, [(json!("a"), json!(2), json!(500)), (json!("a"), json!(1), json!(500))]);
    by_the_command_line(&house, &server.admin);
}

/// The same by the command line.
fn by_the_command_line(house: &super::server::House, admin: &str) {
    let verb = |arguments: &[&str]| {
        let output = house.verb(&[arguments, &["--admin", admin]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(verb(&["topics", "list"]).contains("partner-events     published"));
    assert!(verb(&["subscriptions", "attempts", "told"]).contains("Rejected"));
    std::fs::write(house.data().join("../event.json"), r#"{"type":"Said"}"#).unwrap();
    let why = verb(&["subscriptions", "test-filter", "told", "event.json"]);
    assert!(why.starts_with("the event matches\n"), "{why}");
    assert!(verb(&["subscriptions", "replay", "told", "--rate", "5"]).contains("is under way"));
}
