//! Tenants make webhooks themselves: theirs alone, within what their product allows, for as long as they want.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::project::OTHER_KEY;
use super::server::{AMPLE, Answer, House, KEY, Server, answer};
use super::sink::{Hit, Sink};

/// A key of a product that allows few destinations.
const STRICT_KEY: &str = "a-strict-partners-key-1";
const HOOKS: &str = "/webhooks";

const MANIFEST: &str = r#"
manifest: 1
project: promises
server: { shards: 2 }
containers:
  notes: { partition_key: [/owner], tenancy: isolated }
topics:
  note-events: { from: { container: notes, types: { created: NoteAdded, replaced: NoteChanged } } }
  more-events: { from: { container: notes, types: { created: NoteAdded } } }
apis:
  notes:
    path: /notes
    operations:
      add: { method: POST, path: /, to: { container: notes, do: create } }
  hooks:
    path: /webhooks
    operations:
      make: { method: POST, path: /, to: { subscriptions: note-events, do: create } }
      all: { method: GET, path: /, to: { subscriptions: note-events, do: list } }
      one: { method: GET, path: "/{id}", to: { subscriptions: note-events, do: show, id: "{id}" } }
      change: { method: PATCH, path: "/{id}", to: { subscriptions: note-events, do: update, id: "{id}" } }
      rotate: { method: POST, path: "/{id}/secret", to: { subscriptions: note-events, do: rotate_secret, id: "{id}" } }
      test: { method: POST, path: "/{id}/test", to: { subscriptions: note-events, do: test, id: "{id}" } }
      attempts: { method: GET, path: "/{id}/attempts", to: { subscriptions: note-events, do: attempts, id: "{id}" } }
      letters: { method: GET, path: "/{id}/letters", to: { subscriptions: note-events, do: dead_letters, id: "{id}" } }
      replay: { method: POST, path: "/{id}/replay", to: { subscriptions: note-events, do: replay, id: "{id}" } }
      end: { method: DELETE, path: "/{id}", to: { subscriptions: note-events, do: delete, id: "{id}" } }
  more:
    path: /more
    operations:
      one: { method: GET, path: "/{id}", to: { subscriptions: more-events, do: show, id: "{id}" } }
products:
  open: { apis: [notes, hooks, more], webhooks: { max: 3, handshake: none, allow: [127.0.0.0/8] } }
  strict: { apis: [notes, hooks], webhooks: { hosts: ["*.partner.example"], handshake: event_grid } }
api_keys:
  main: { product: open, tenant: acme, primary: { env: MAIN } }
  other: { product: open, tenant: other, primary: { env: OTHER } }
  strict: { product: strict, tenant: strict, primary: { env: STRICT } }
"#;

fn house() -> House {
    House::new(MANIFEST).with("OTHER", OTHER_KEY).with("STRICT", STRICT_KEY)
}

async fn call(server: &Server, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = server.anonymous(method, path).header("x-api-key", key);
    answer(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

async fn make(server: &Server, key: &str, body: Value) -> Answer {
    call(server, key, Method::POST, HOOKS, Some(body)).await
}

/// Makes a webhook that goes to this path of the sink, and returns its id.
async fn hook(server: &Server, key: &str, sink: &Sink, path: &str) -> String {
    let made = make(server, key, json!({ "url": format!("http://{}/{path}", sink.address) })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].as_str().unwrap().to_owned()
}

async fn add(server: &Server, key: &str, id: &str) {
    let added = call(server, key, Method::POST, "/notes", Some(json!({ "id": id, "owner": "o" }))).await;
    assert_eq!(added.status, 201, "{}", added.text);
}

/// Waits until the sink has so many attempts at a path, and returns them.
async fn hits(sink: &Sink, path: &str, count: usize) -> Vec<Hit> {
    let deadline = Instant::now() + AMPLE;
    loop {
        let hits: Vec<Hit> = sink.hits().into_iter().filter(|hit| hit.path == path).collect();
        if hits.len() >= count {
            return hits;
        }
        assert!(Instant::now() < deadline, "`{path}` has {} of {count} attempts", hits.len());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn until(server: &Server, key: &str, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + AMPLE;
    loop {
        let answer = call(server, key, Method::GET, path, None).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "`{path}` never became what it must: {}", answer.text);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn ids(hits: &[Hit]) -> BTreeSet<String> {
    hits.iter().map(|hit| hit.event["data"]["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn a_tenant_sees_its_own_events_and_webhooks_and_no_others() {
    let sink = Sink::start(|_| 204);
    let server = house().start().await;
    let acme = hook(&server, KEY, &sink, "acme").await;
    let other = hook(&server, OTHER_KEY, &sink, "other").await;
    add(&server, KEY, "a1").await;
    add(&server, OTHER_KEY, "o1").await;
    add(&server, KEY, "a2").await;
    assert_eq!(ids(&hits(&sink, "acme", 2).await), set(&["a1", "a2"]));
    assert_eq!(ids(&hits(&sink, "other", 1).await), set(&["o1"]));
    let list = call(&server, KEY, Method::GET, HOOKS, None).await;
    assert_eq!((&list.body["count"], &list.body["webhooks"][0]["id"]), (&json!(1), &json!(acme)));
    // Another tenant's id, and an id that nobody has, look the same.
    for id in [other.as_str(), "wh_none", "other.wh_none", "%2e%2e%2fother"] {
        for (method, rest, body) in [
            (Method::GET, "", None),
            (Method::PATCH, "", Some(json!({ "description": "mine" }))),
            (Method::POST, "/secret", None),
            (Method::POST, "/test", None),
            (Method::GET, "/attempts", None),
            (Method::GET, "/letters", None),
            (Method::POST, "/replay", Some(json!({ "all": true }))),
            (Method::DELETE, "", None),
        ] {
            let answer = call(&server, KEY, method.clone(), &format!("{HOOKS}/{id}{rest}"), body).await;
            assert_eq!(answer.refused(), (404, "webhook_not_found"), "{method} {id}{rest}: {}", answer.text);
        }
    }
    // An operation on another topic does not lead to it either.
    let elsewhere = call(&server, KEY, Method::GET, &format!("/more/{acme}"), None).await;
    assert_eq!(elsewhere.refused(), (404, "webhook_not_found"));
    let untouched = call(&server, OTHER_KEY, Method::GET, &format!("{HOOKS}/{other}"), None).await;
    assert_eq!((&untouched.body["description"], &untouched.body["state"]), (&Value::Null, &json!("running")));
}

#[tokio::test]
async fn what_a_product_does_not_allow_is_refused() {
    let sink = Sink::start(|_| 204);
    let server = house().start().await;
    for n in 0..3 {
        hook(&server, KEY, &sink, &format!("n{n}")).await;
    }
    let url = format!("http://{}/more", sink.address);
    assert_eq!(make(&server, KEY, json!({ "url": url })).await.refused(), (409, "too_many_webhooks"));
    // Another tenant of the same product has its own number.
    let fourth = hook(&server, OTHER_KEY, &sink, "fourth").await;
    let path = format!("{HOOKS}/{fourth}");
    assert_eq!(call(&server, OTHER_KEY, Method::DELETE, &path, None).await.status, 204);
    for url in ["http://169.254.169.254/", "http://10.0.0.1/", "ftp://a.example/", "nowhere"] {
        let refused = make(&server, OTHER_KEY, json!({ "url": url })).await;
        assert_eq!(refused.refused(), (400, "destination_not_allowed"), "{url}: {}", refused.text);
    }
    for url in [url.as_str(), "https://other.example/", "https://partner.example/"] {
        let refused = make(&server, STRICT_KEY, json!({ "url": url })).await;
        assert_eq!(refused.refused(), (400, "destination_not_allowed"), "{url}: {}", refused.text);
    }
    for body in
        [json!({}), json!({ "url": url, "tenant": "acme" }), json!({ "url": url, "types": ["NoteGone"] })]
    {
        let refused = make(&server, OTHER_KEY, body.clone()).await;
        assert_eq!(refused.refused(), (400, "invalid_webhook"), "{body}");
    }
    // An endpoint that was not asked, or did not agree, is sent nothing.
    let strict = make(&server, STRICT_KEY, json!({ "url": "http://a.partner.example/hook" })).await;
    assert_eq!(strict.status, 201, "{}", strict.text);
    let path = format!("{HOOKS}/{}", strict.body["id"].as_str().unwrap());
    until(&server, STRICT_KEY, &path, |answer| answer.body["state"] == "not_validated").await;
    let test = call(&server, STRICT_KEY, Method::POST, &format!("{path}/test"), None).await;
    assert_eq!(test.refused(), (409, "webhook_not_validated"));
}

#[tokio::test]
async fn a_secret_is_shown_once_and_is_nowhere_on_disk_or_in_the_log() {
    let sink = Sink::start(|_| 204);
    let house = house();
    let server = house.start().await;
    let body = json!({
        "url": format!("http://{}/hook?key=url-hush", sink.address), "headers": { "x-partner": "header-hush" },
    });
    let made = make(&server, KEY, body).await;
    let secret = made.body["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    let path = format!("{HOOKS}/{}", made.body["id"].as_str().unwrap());
    let shown = call(&server, KEY, Method::GET, &path, None).await;
    assert_eq!(
        (&shown.body["secret"], &shown.body["headers"]),
        (&Value::Null, &json!({ "x-partner": "***" }))
    );
    let rotated =
        call(&server, KEY, Method::POST, &format!("{path}/secret"), Some(json!({ "overlap": "1h" }))).await;
    let second = rotated.body["secret"].as_str().unwrap().to_owned();
    assert_ne!(second, secret);
    assert!(rotated.body["old_secret_until"].is_string(), "{}", rotated.text);
    let wrong =
        call(&server, KEY, Method::POST, &format!("{path}/secret"), Some(json!({ "overlap": "9d" }))).await;
    assert_eq!(wrong.refused(), (400, "invalid_webhook"));
    let texts = [
        call(&server, KEY, Method::GET, &path, None).await.text,
        call(&server, KEY, Method::GET, HOOKS, None).await.text,
        server.ask("/v1/subscriptions").await.text,
    ];
    assert_eq!(server.stop().await.code(), Some(0));
    let hidden = |text: &str| {
        ![&secret, &second].iter().any(|it| text.contains(it.as_str())) && !text.contains("hush")
    };
    assert!(texts.iter().all(|text| hidden(text)));
    assert!(hidden(&house.log()));
    let mut folders = vec![house.data()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(hidden(&String::from_utf8_lossy(&bytes)), "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_and_without_overlap_the_new_one_alone() {
    let sink = Sink::start(|_| 204);
    let server = house().start().await;
    let id = hook(&server, KEY, &sink, "hook").await;
    let path = format!("{HOOKS}/{id}");
    for (overlap, signatures) in [(None, 1), (Some("24h"), 2), (Some("0s"), 1)] {
        if let Some(overlap) = overlap {
            let body = Some(json!({ "overlap": overlap }));
            assert_eq!(call(&server, KEY, Method::POST, &format!("{path}/secret"), body).await.status, 200);
        }
        let before = sink.hits().len();
        let test = call(&server, KEY, Method::POST, &format!("{path}/test"), None).await;
        assert_eq!(test.body["delivered"], true, "{}", test.text);
        let hit = sink.hits()[before].clone();
        let signature = &hit.headers["webhook-signature"];
        assert_eq!(signature.split(' ').count(), signatures, "{signature}");
        assert!(signature.split(' ').all(|part| part.starts_with("v1,")));
    }
}

#[tokio::test]
async fn a_test_event_is_sent_once_and_told_as_it_was_answered() {
    let mood = Arc::new(AtomicU16::new(204));
    let chosen = mood.clone();
    let sink = Sink::start(move |_| chosen.load(Ordering::SeqCst));
    let server = house().start().await;
    let id = hook(&server, KEY, &sink, "hook").await;
    let path = format!("{HOOKS}/{id}");
    let test = call(&server, KEY, Method::POST, &format!("{path}/test"), None).await;
    assert_eq!(
        (test.status, &test.body["delivered"], &test.body["status"]),
        (200, &json!(true), &json!(204))
    );
    mood.store(500, Ordering::SeqCst);
    let test = call(&server, KEY, Method::POST, &format!("{path}/test"), None).await;
    assert_eq!((&test.body["delivered"], &test.body["status"]), (&json!(false), &json!(500)));
    assert_eq!(test.body["outcome"], "Rejected");
    let hits = sink.hits();
    assert_eq!(hits.len(), 2);
    assert_eq!(
        (&hits[0].event["type"], &hits[0].event["data"]["webhook"]),
        (&json!("webhook.test"), &json!(id))
    );
    let shown = call(&server, KEY, Method::GET, &path, None).await;
    assert_eq!((&shown.body["retrying"], &shown.body["dead_lettered"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_tenant_looks_at_its_attempts_and_replays_its_dead_letters() {
    let mood = Arc::new(AtomicU16::new(400));
    let chosen = mood.clone();
    let sink = Sink::start(move |_| chosen.load(Ordering::SeqCst));
    let server = house().start().await;
    let mine = hook(&server, KEY, &sink, "mine").await;
    let theirs = hook(&server, OTHER_KEY, &sink, "theirs").await;
    for n in 0..3 {
        add(&server, KEY, &format!("a{n}")).await;
        add(&server, OTHER_KEY, &format!("o{n}")).await;
    }
    for (key, id) in [(KEY, &mine), (OTHER_KEY, &theirs)] {
        until(&server, key, &format!("{HOOKS}/{id}"), |answer| answer.body["dead_lettered"] == 3).await;
    }
    let attempts = call(&server, KEY, Method::GET, &format!("{HOOKS}/{mine}/attempts"), None).await;
    assert_eq!((&attempts.body["count"], &attempts.body["attempts"][0]["status"]), (&json!(3), &json!(400)));
    let first = call(&server, KEY, Method::GET, &format!("{HOOKS}/{mine}/letters?limit=2"), None).await;
    assert_eq!(first.body["count"], 2);
    let next = first.body["continuation"].as_str().unwrap();
    let path = format!("{HOOKS}/{mine}/letters?continuation={next}");
    assert_eq!(call(&server, KEY, Method::GET, &path, None).await.body["count"], 1);
    assert_eq!(first.body["dead_letters"][0]["reason"], "UndeliverableDueToHttpBadRequest");
    mood.store(204, Ordering::SeqCst);
    let one = json!({ "ids": [first.body["dead_letters"][0]["id"]] });
    let replayed = call(&server, KEY, Method::POST, &format!("{HOOKS}/{mine}/replay"), Some(one)).await;
    assert_eq!(replayed.body["replayed"], 1, "{}", replayed.text);
    let rest =
        call(&server, KEY, Method::POST, &format!("{HOOKS}/{mine}/replay"), Some(json!({ "all": true })))
            .await;
    assert_eq!(rest.body["replayed"], 2, "{}", rest.text);
    until(&server, KEY, &format!("{HOOKS}/{mine}"), |answer| answer.body["delivered"] == 3).await;
    let others = call(&server, OTHER_KEY, Method::GET, &format!("{HOOKS}/{theirs}"), None).await;
    assert_eq!((&others.body["dead_lettered"], &others.body["delivered"]), (&json!(3), &json!(0)));
}

#[tokio::test]
async fn a_change_moves_what_waits_and_a_restart_keeps_it_until_it_is_deleted() {
    let sink = Sink::start(|hit| if hit.path == "old" { 500 } else { 204 });
    let house = house();
    let server = house.start().await;
    let id = hook(&server, KEY, &sink, "old").await;
    let path = format!("{HOOKS}/{id}");
    add(&server, KEY, "a1").await;
    until(&server, KEY, &path, |answer| answer.body["retrying"] == 1).await;
    let change = json!({
        "url": format!("http://{}/new", sink.address),
        "filter": [{ "key": "data.id", "operator": "StringBeginsWith", "values": ["b"] }],
    });
    let changed = call(&server, KEY, Method::PATCH, &path, Some(change)).await;
    assert_eq!(
        (changed.status, &changed.body["filter"][0]["key"]),
        (200, &json!("data.id")),
        "{}",
        changed.text
    );
    add(&server, KEY, "a2").await;
    add(&server, KEY, "b1").await;
    hits(&sink, "new", 1).await;
    let order = call(&server, KEY, Method::PATCH, &path, Some(json!({ "order": "partition" }))).await;
    assert_eq!(order.refused(), (400, "invalid_webhook"));
    assert_eq!(server.stop().await.code(), Some(0), "{}", house.log());

    let server = house.start().await;
    let shown = call(&server, KEY, Method::GET, &path, None).await;
    assert_eq!((&shown.body["state"], &shown.body["filter"]), (&json!("running"), &changed.body["filter"]));
    add(&server, KEY, "b2").await;
    // What waited when the filter was changed goes to the new endpoint, at its time; nothing else of the old kind.
    let resumed = answer(server.operator(Method::POST, &format!("/v1/subscriptions/acme.{id}:resume"))).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text);
    assert_eq!(ids(&hits(&sink, "new", 3).await), set(&["a1", "b1", "b2"]));

    assert_eq!(call(&server, KEY, Method::DELETE, &path, None).await.status, 204);
    assert_eq!(call(&server, KEY, Method::GET, &path, None).await.refused(), (404, "webhook_not_found"));
    let fresh = hook(&server, KEY, &sink, "fresh").await;
    add(&server, KEY, "b3").await;
    hits(&sink, "fresh", 1).await;
    assert_eq!(server.stop().await.code(), Some(0));
    let server = house.start().await;
    let list = call(&server, KEY, Method::GET, HOOKS, None).await;
    assert_eq!((&list.body["count"], &list.body["webhooks"][0]["id"]), (&json!(1), &json!(fresh)));
    assert_eq!(hits(&sink, "new", 3).await.len(), 3);
}

#[tokio::test]
async fn a_webhook_whose_topic_is_gone_waits_and_runs_again_when_it_is_back() {
    let sink = Sink::start(|_| 204);
    let house = house();
    let server = house.start().await;
    let id = hook(&server, KEY, &sink, "hook").await;
    assert_eq!(server.stop().await.code(), Some(0));
    let whole = std::fs::read_to_string(house.manifest()).unwrap();
    std::fs::write(house.manifest(), whole.replace("note-events", "later-events")).unwrap();
    let server = house.start().await;
    let shown = call(&server, KEY, Method::GET, &format!("{HOOKS}/{id}"), None).await;
    assert_eq!((&shown.body["state"], &shown.body["topic"]), (&json!("orphaned"), &json!("note-events")));
    let test = call(&server, KEY, Method::POST, &format!("{HOOKS}/{id}/test"), None).await;
    assert_eq!(test.refused(), (409, "webhook_orphaned"));
    assert_eq!(server.stop().await.code(), Some(0));
    std::fs::write(house.manifest(), whole).unwrap();
    let server = house.start().await;
    add(&server, KEY, "a1").await;
    assert_eq!(ids(&hits(&sink, "hook", 1).await), set(&["a1"]));
}

#[tokio::test]
async fn the_door_of_handshakes_opens_without_a_key_and_only_with_a_code() {
    let server = house().start().await;
    let door = "/.well-known/lanekeeper/validate";
    for query in ["", "?subscription=x", "?subscription=x&code=y", "?code=y"] {
        let answer = answer(server.anonymous(Method::GET, &format!("{door}{query}"))).await;
        assert_eq!(answer.refused(), (404, "handshake_not_found"), "{query}");
    }
    let answer = answer(server.anonymous(Method::DELETE, door)).await;
    assert_eq!(answer.status, 405);
}
