//! Who is told what, how, and in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::bucket::{BUCKET, Bucket};
use super::events_project::{self as project, BEFORE, QUEUE, SIGNING, event, load, publish, subscription};
use super::server::{Answer, Server, answer};
use super::sink::{Hit, Sink};

async fn operate(server: &Server, path: &str) -> u16 {
    answer(server.operator(Method::POST, path)).await.status
}

fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.event["data"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn filters_choose_by_what_is_in_the_data() {
    let sink = Sink::start(|_| 200);
    let heavy = "filter: [{ key: data.weight, operator: NumberGreaterThan, value: 1000 }, \
                 { key: subject, operator: StringBeginsWith, values: [OSL, ams] }]";
    let subscriptions = [
        subscription(&sink, "heavy", "load-events", ("", &format!(", {heavy}"))),
        subscription(&sink, "all", "load-events", ("", "")),
    ];
    let server = project::house("", QUEUE, &subscriptions).start().await;
    for (lane, id, weight) in
        [("OSL-BER", "a", 1001), ("OSL-BER", "b", 1000), ("AMS-PAR", "c", 5000), ("PAR-AMS", "d", 5000)]
    {
        load(&server, lane, id, weight).await;
    }
    sink.taken("all", 4).await;
    let status =
        server.until("/v1/subscriptions/heavy", |answer| answer.body["lag"]["events"] == json!(0)).await;
    assert_eq!(status.body["delivered"], json!(2), "{}", status.text);
    let mut taken = sink.taken("heavy", 2).await;
    taken.sort_by_key(|hit| hit.id.clone());
    let mut found = ids(&taken);
    found.sort_unstable();
    assert_eq!(found, ["a", "c"]);
    // And it can be asked why.
    let body =
        json!({ "event": { "type": "LoadCreated", "subject": "OSL-BER/x", "data": { "weight": 12 } } });
    let why = answer(server.operator(Method::POST, "/v1/subscriptions/heavy:test-filter").json(&body)).await;
    assert_eq!(why.body["matches"], json!(false));
    let failing: Vec<_> =
        why.body["reasons"].as_array().unwrap().iter().filter(|reason| reason["holds"] == false).collect();
    assert_eq!((failing.len(), &failing[0]["key"]), (1, &json!("data.weight")), "{}", why.text);
}

#[tokio::test]
async fn a_batch_carries_what_waits() {
    let sink = Sink::start(|_| 200);
    let batched = subscription(&sink, "batched", "partner-events", ("", ", batch: { events: 4 }"));
    let server = project::house("", QUEUE, &[batched]).start().await;
    assert_eq!(operate(&server, "/v1/subscriptions/batched:pause").await, 200);
    for number in 0..10 {
        publish(&server, &event(&format!("e{number}"), &json!(number))).await;
    }
    server.until("/v1/subscriptions/batched", |answer| answer.body["lag"]["events"] == json!(10)).await;
    assert_eq!(operate(&server, "/v1/subscriptions/batched:resume").await, 200);
    server.until("/v1/subscriptions/batched", |answer| answer.body["delivered"] == json!(10)).await;
    let hits = sink.hits();
    let sizes: Vec<_> = hits.iter().map(|hit| hit.event.as_array().map_or(0, Vec::len)).collect();
    assert!(sizes.iter().all(|size| (1..=4).contains(size)) && sizes.contains(&4), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert!(
        hits.iter().all(|hit| hit.headers["content-type"].starts_with("application/cloudevents-batch+json"))
    );
}

#[tokio::test]
async fn in_binary_mode_the_body_is_the_data_and_the_attributes_are_headers() {
    let sink = Sink::start(|_| 200);
    let to = "mode: binary, sign: \"{{signing}}\"";
    let lines = [
        subscription(&sink, "told", "partner-events", (to, "")),
        subscription(&sink, "loads", "load-events", ("mode: binary", "")),
    ];
    let server = project::house("", QUEUE, &lines).start().await;
    let data = r#"{ "n": 1.50,  "text": "as it came" }"#;
    let body = format!(
        r#"{{"specversion":"1.0","id":"a 1","source":"/partners","type":"Said","subject":"J\u00fcrgen","note":"50%","data":{data}}}"#
    );
    assert_eq!(answer(project::publishing(&server, project::STRUCTURED, body)).await.status, 200);
    let [hit] = &sink.taken("told", 1).await[..] else { panic!("one attempt") };
    let header = |name: &str| hit.headers.get(name).map(String::as_str);
    assert_eq!((str::from_utf8(&hit.body), header("content-type")), (Ok(data), Some("application/json")));
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "a%201"),
        ("ce-source", "/partners"),
        ("ce-type", "Said"),
        ("ce-subject", "J%C3%BCrgen"),
        ("ce-note", "50%25"),
    ] {
        assert_eq!(header(name), Some(value), "{name}");
    }
    assert_eq!(header("ce-datacontenttype"), None);
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers = names.map(|name| (name.parse().unwrap(), hit.headers[name].parse().unwrap()));
    Webhook::new(SIGNING).unwrap().verify(&hit.body, &headers.into_iter().collect()).unwrap();
    load(&server, "A", "x", 7).await;
    let [hit] = &sink.taken("loads", 1).await[..] else { panic!("one attempt") };
    assert_eq!((&hit.event["weight"], hit.headers["ce-type"].as_str()), (&json!(7), "LoadCreated"));
}

#[tokio::test]
async fn a_delivery_has_the_headers_that_were_asked_for() {
    let sink = Sink::start(|_| 200);
    let to = "headers: { x-color: \"{{color}}\", x-plain: as it is, X-Customer: { from: data.customer.id }, \
              x-absent: { from: data.none }, x-key: { secret: \"{{signing}}\" } }, origin: northwind.example";
    let house = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", (to, ""))]);
    let server = house.start().await;
    publish(&server, &event("a", &json!({ "customer": { "id": 7 } }))).await;
    let [hit] = &sink.taken("told", 1).await[..] else { panic!("one attempt") };
    let header = |name: &str| hit.headers.get(name).map(String::as_str);
    assert_eq!(header("x-color"), Some("green"));
    assert_eq!(header("x-plain"), Some("as it is"));
    assert_eq!(header("x-customer"), Some("7"));
    assert_eq!(header("x-absent"), None);
    assert_eq!(header("x-key"), Some(SIGNING));
    assert_eq!((header("x-subscription"), header("x-delivery-attempt")), (Some("told"), Some("1")));
    let shown = server.ask("/v1/subscriptions/told").await.text + &server.ask("/v1/manifest").await.text;
    assert!(!shown.contains(SIGNING) && !house.log().contains(SIGNING));
}

#[tokio::test]
async fn a_signature_is_what_others_understand_and_keys_rotate() {
    let sink = Sink::start(|_| 200);
    let to = "sign: [\"{{signing}}\", \"{{before}}\"]";
    let server =
        project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", (to, ""))]).start().await;
    publish(&server, &event("a", &json!({ "n": 1 }))).await;
    let [hit] = &sink.taken("told", 1).await[..] else { panic!("one attempt") };
    let headers = hit
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap()));
    let headers = headers.collect();
    for key in [SIGNING, BEFORE] {
        Webhook::new(key).unwrap().verify(&hit.body, &headers).unwrap();
    }
    let stranger = Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    assert!(stranger.verify(&hit.body, &headers).is_err());
    assert!(Webhook::new(SIGNING).unwrap().verify(b"{}", &headers).is_err());
}

#[tokio::test]
async fn a_failing_event_holds_back_its_own_key_and_no_other() {
    let mood = Arc::new(AtomicU16::new(500));
    let chosen = mood.clone();
    let sink = Sink::start(
        move |hit| {
            if hit.event["data"]["id"] == "a0" { chosen.load(Ordering::SeqCst) } else { 200 }
        },
    );
    let line = subscription(&sink, "told", "load-events", ("", ", order: partition"));
    let line =
        line.replace("max_attempts: 2, ttl: 1h, scale: 0.0001", "max_attempts: 30, ttl: 1h, scale: 0.0001");
    let server = project::house("", QUEUE, &[line]).start().await;
    for number in 0..5 {
        load(&server, "A", &format!("a{number}"), number).await;
        load(&server, "B", &format!("b{number}"), number).await;
    }
    let taken = sink.taken("told", 5).await;
    assert_eq!(ids(&taken), ["b0", "b1", "b2", "b3", "b4"]);
    mood.store(200, Ordering::SeqCst);
    let taken = sink.taken("told", 10).await;
    let of_a: Vec<_> = ids(&taken).into_iter().filter(|id| id.starts_with('a')).collect();
    assert_eq!(of_a, ["a0", "a1", "a2", "a3", "a4"]);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_disables_its_subscription_and_the_system_tells_of_it() {
    let mood = Arc::new(AtomicU16::new(410));
    let chosen = mood.clone();
    let sink = Sink::start(move |hit| if hit.path == "told" { chosen.load(Ordering::SeqCst) } else { 200 });
    let subscriptions = [
        subscription(&sink, "told", "partner-events", ("", "")),
        subscription(&sink, "watch", "lanekeeper.system", ("", "")),
    ];
    let house = project::house("", QUEUE, &subscriptions);
    let server = house.start().await;
    publish(&server, &event("a", &json!(1))).await;
    let disabled = |answer: &super::server::Answer| answer.body["state"] == json!("disabled");
    server.until("/v1/subscriptions/told", disabled).await;
    server.until("/v1/subscriptions/told", |answer| answer.body["dead_lettered"] == json!(1)).await;
    // What comes meanwhile is not tried, and not lost.
    publish(&server, &event("b", &json!(2))).await;
    server.until("/v1/subscriptions/told", |answer| answer.body["dead_lettered"] == json!(2)).await;
    assert_eq!(sink.hits().iter().filter(|hit| hit.path == "told").count(), 1);
    let line = r#"lanekeeper_subscription_disabled{subscription="told"} 1"#;
    assert!(server.ask("/metrics").await.text.lines().any(|found| found == line));
    let mut types: Vec<_> = sink
        .taken("watch", 3)
        .await
        .iter()
        .map(|hit| hit.event["type"].as_str().unwrap().to_owned())
        .collect();
    types.sort_unstable();
    assert_eq!(types, ["dead_letter.created", "dead_letter.created", "subscription.disabled"]);
    let about = |hit: &Hit| hit.event["data"]["event_id"].clone();
    let mut events: Vec<_> = sink.hits().iter().filter(|hit| hit.path == "watch").map(about).collect();
    events.retain(|event| !event.is_null());
    events.sort_by_key(Value::to_string);
    assert_eq!(events, [json!("a"), json!("b")]);
    // It survives a restart, and ends when an operator says so.
    mood.store(200, Ordering::SeqCst);
    server.kill();
    let server = house.start().await;
    server.until("/v1/subscriptions/told", disabled).await;
    assert_eq!(operate(&server, "/v1/subscriptions/told:resume").await, 200);
    publish(&server, &event("c", &json!(3))).await;
    sink.taken("told", 1).await;
    let all = server.operator(Method::POST, "/v1/subscriptions/told/dead-letters:replay");
    assert_eq!(answer(all.json(&json!({ "all": true }))).await.body["replayed"], json!(2));
    let mut told: Vec<_> = sink.taken("told", 3).await.iter().map(|hit| hit.id.clone()).collect();
    told.sort_unstable();
    assert_eq!(told, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_endpoint_that_does_not_agree_is_sent_nothing() {
    let sink = Sink::start(|_| 200);
    let asked = |name| subscription(&sink, name, "partner-events", ("handshake: cloudevents", ""));
    let server = project::house("", QUEUE, &[asked("agrees"), asked("declines")]).start().await;
    publish(&server, &event("a", &json!({ "n": 1 }))).await;
    sink.taken("agrees", 1).await;
    let declined = server
        .until("/v1/subscriptions/declines", |answer| answer.body["validation"]["state"] == json!("failed"))
        .await;
    assert_eq!(declined.body["state"], json!("awaiting_validation"), "{}", declined.text);
    assert!(sink.hits().iter().all(|hit| hit.path == "agrees"));
}

#[tokio::test]
async fn a_dead_letter_is_written_to_the_directory_of_its_subscription() {
    let sink = Sink::start(|_| 400);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("letters");
    let rest = format!(", dead_letter: {{ blob: \"{}\" }}", place.display());
    let server = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", ("", &rest))])
        .start()
        .await;
    publish(&server, &event("a", &json!({ "n": 1 }))).await;
    let written = |answer: &Answer| {
        answer.body["dead_lettered"] == json!(1) && answer.body["exports_waiting"] == json!(0)
    };
    server.until("/v1/subscriptions/told", written).await;
    let mut path = place.join("TOLD");
    while path.is_dir() {
        path = std::fs::read_dir(&path).unwrap().next().unwrap().unwrap().path();
    }
    let letters: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((&letters[0]["id"], &letters[0]["data"]["n"]), (&json!("a"), &json!(1)), "{letters}");
    assert!(letters[0]["deadletterreason"].is_string(), "{letters}");
}

#[tokio::test]
async fn a_dead_letter_is_written_to_an_object_store_however_often_that_fails() {
    let (sink, bucket) = (Sink::start(|_| 400), Bucket::start());
    let away = Arc::new(AtomicBool::new(true));
    let is_away = away.clone();
    bucket.fail(move |_, _| is_away.load(Ordering::SeqCst).then_some(403));
    let rest = format!(", dead_letter: {{ blob: \"s3://{BUCKET}/letters\" }}");
    let house = project::house("", QUEUE, &[subscription(&sink, "told", "partner-events", ("", &rest))]);
    let server = bucket.known_to(house).start().await;
    publish(&server, &event("a", &json!({ "n": 1 }))).await;
    let told = |answer: &Answer| {
        answer.body["exports_waiting"] == json!(1) && answer.body["export_error"].is_string()
    };
    server.until("/v1/subscriptions/told", told).await;
    away.store(false, Ordering::SeqCst);
    let written = |answer: &Answer| {
        answer.body["dead_lettered"] == json!(1) && answer.body["exports_waiting"] == json!(0)
    };
    server.until("/v1/subscriptions/told", written).await;
    let keys = bucket.keys();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].starts_with("letters/TOLD/"), "{keys:?}");
    assert!(bucket.asked().iter().all(|asked| asked.signed));
}
