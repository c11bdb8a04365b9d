//! What is published is there, once, as it came.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::events_project::{
    self as project, BATCH, QUEUE, STRUCTURED, event, publish, publishing, subscription,
};
use super::server::{AMPLE, Server, answer};
use super::sink::Sink;

/// JSON as nobody here would write it.
const DATA: &str = r#"{"n":1.0,  "big":123456789012345678901234567890,"t":"\u00e9" }"#;

fn told(sink: &Sink) -> Vec<String> {
    vec![subscription(sink, "told", "partner-events", ("", ""))]
}

#[tokio::test]
async fn an_event_is_published_in_three_modes_and_its_data_arrives_as_it_came() {
    let sink = Sink::start(|_| 200);
    let server = project::house("", QUEUE, &told(&sink)).start().await;
    let head = r#""specversion":"1.0","source":"/partners","type":"Said","mine":7"#;
    let structured = format!(r#"{{{head},"id":"one","data":{DATA}}}"#);
    let batch = format!(r#"[{{{head},"id":"two","data":{DATA}}},{{{head},"id":"three","data":{DATA}}}]"#);
    let binary = publishing(&server, "application/json", DATA)
        .header("ce-specversion", "1.0")
        .header("ce-id", "four")
        .header("ce-source", "/partners")
        .header("ce-type", "Said")
        .header("ce-mine", "7")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for request in [publishing(&server, STRUCTURED, structured), publishing(&server, BATCH, batch), binary] {
        let answer = answer(request).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    }
    let hits = sink.taken("told", 4).await;
    for hit in &hits {
        let body = String::from_utf8(hit.body.clone()).unwrap();
        assert!(body.contains(&format!(r#""data":{DATA}"#)), "{body}");
        assert_eq!(hit.headers["content-type"], "application/cloudevents+json; charset=utf-8");
        assert_eq!((&hit.event["source"], &hit.event["type"]), (&json!("/partners"), &json!("Said")));
        assert!(hit.event["traceparent"].is_string() && hit.event["sequence"].is_string(), "{body}");
        assert_eq!(hit.id, hit.event["id"].as_str().unwrap());
    }
    let mut ids: Vec<_> = hits.iter().map(|hit| hit.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["four", "one", "three", "two"]);
    let four = hits.iter().find(|hit| hit.id == "four").unwrap();
    let trace = four.event["traceparent"].as_str().unwrap();
    assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{trace}");
}

#[tokio::test]
async fn what_is_published_twice_is_told_once() {
    let sink = Sink::start(|_| 200);
    let house = project::house("", QUEUE, &told(&sink));
    let server = house.start().await;
    let batch = json!([event("a", &json!(1)), event("b", &json!(2)), event("a", &json!(3))]).to_string();
    for _ in 0..3 {
        assert_eq!(answer(publishing(&server, BATCH, batch.clone())).await.status, 200);
    }
    sink.taken("told", 2).await;
    server.kill();
    // It is known after a crash too.
    let server = house.start().await;
    assert_eq!(publish(&server, &event("a", &json!(4))).await.status, 200);
    assert_eq!(publish(&server, &event("z", &json!(5))).await.status, 200);
    let metrics = server.ask("/metrics").await.text;
    for line in [
        r#"lanekeeper_events_published_total{topic="partner-events"} 1"#,
        r#"lanekeeper_events_duplicate_total{topic="partner-events"} 1"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "no `{line}` in\n{metrics}");
    }
    // The kill may have sent some again, so that a number says nothing.
    let end = Instant::now() + AMPLE;
    while !sink.hits().iter().any(|hit| hit.id == "z") {
        assert!(Instant::now() < end, "the last one is not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let datas = |id: &str| -> Vec<Value> {
        sink.hits().iter().filter(|hit| hit.id == id).map(|hit| hit.event["data"].clone()).collect()
    };
    // The kill may have sent one again, but never another one of the same id.
    assert!(datas("a").iter().all(|data| *data == json!(1)), "{:?}", datas("a"));
    assert!(datas("b").iter().all(|data| *data == json!(2)), "{:?}", datas("b"));
    assert_eq!(datas("z"), [json!(5)]);
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let sink = Sink::start(|_| 200);
    let server = project::house("event_size: 2KiB, publish_batch: 5", QUEUE, &told(&sink)).start().await;
    let long = "x".repeat(2_048);
    let good = |id: &str| event(id, &json!(1));
    let batch = |events: Vec<Value>| publishing(&server, BATCH, Value::from(events).to_string());
    let bad = json!({ "specversion": "1.0", "id": "b", "type": "T" });
    let refused = answer(batch(vec![good("a"), bad, good("c")])).await;
    assert_eq!((refused.refused(), &refused.body["index"]), ((400, "invalid_event"), &json!(1)));
    assert!(refused.body["detail"].as_str().unwrap().contains("`source`"), "{}", refused.text);
    let large = answer(batch(vec![good("a"), event("b", &json!(long))])).await;
    assert_eq!((large.refused(), &large.body["index"]), ((413, "event_too_large"), &json!(1)));
    let many = answer(batch((0..6).map(|number| good(&number.to_string())).collect())).await;
    assert_eq!(many.refused(), (413, "too_many_events"));
    refuses(&server, &long).await;
    assert_eq!(answer(batch(Vec::new())).await.status, 200);
    // Only this one is there.
    assert_eq!(publish(&server, &good("last")).await.status, 200);
    sink.taken("told", 1).await;
    let ids: Vec<_> = sink.hits().iter().map(|hit| hit.id.clone()).collect();
    assert_eq!(ids, ["last"]);
}

/// Single events that are refused, with what and where.
async fn refuses(server: &Server, long: &str) {
    for (content_type, body, refused) in [
        (STRUCTURED, event("a", &json!(long)).to_string(), (413, "event_too_large")),
        (STRUCTURED, "{".to_owned(), (400, "invalid_event")),
        (STRUCTURED, "[]".to_owned(), (400, "invalid_event")),
        (BATCH, "{}".to_owned(), (400, "invalid_event")),
        ("application/cloudevents+avro", "x".to_owned(), (415, "unsupported_media_type")),
        ("application/json", "{}".to_owned(), (400, "invalid_event")),
    ] {
        let answer = answer(publishing(server, content_type, body)).await;
        assert_eq!(answer.refused(), refused, "{content_type}: {}", answer.text);
    }
}
