//! The manifest while the process runs: planned, applied, exported, taken back, and never half.

use std::process::Output;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::server::{AMPLE, Answer, House, KEY, Server, answer};

fn manifest(calls: u32, more: &str) -> String {
    format!(
        "manifest: 1
project: p
server: {{ shards: 1 }}
containers: {{ notes: {{ partition_key: [/t] }} }}
topics: {{ said: {{}} }}
apis:
  a:
    path: /a
    operations:
      ping: {{ method: GET, path: /ping, to: {{ mock: {{ status: 200 }} }} }}
      publish: {{ method: POST, path: /said, to: {{ topic: said, do: publish }} }}
      {more}
products: {{ p: {{ apis: [a], rate: {{ calls: {calls}, per: 1s }} }} }}
api_keys: {{ main: {{ product: p, tenant: acme, primary: {{ env: MAIN }} }} }}
"
    )
}

const PONG: &str = "pong: { method: GET, path: /pong, to: { mock: { status: 200 } } }";

fn verb(house: &House, server: &Server, arguments: &[&str]) -> Output {
    house.verb(&[arguments, &["--admin", &server.admin]].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn put(server: &Server, text: &str, more: Value) -> Answer {
    let mut body = json!({ "text": text });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    answer(server.operator(Method::PUT, "/v1/manifest").json(&body)).await
}

async fn status(server: &Server, path: &str) -> u16 {
    server.get(path).await.status
}

#[tokio::test]
async fn a_manifest_is_planned_applied_exported_and_taken_back() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    let file = house.manifest();
    let file = file.to_str().unwrap();
    let plan = verb(&house, &server, &["plan", file]);
    assert_eq!((plan.status.code(), stdout(&plan).trim()), (Some(0), "no change"));
    std::fs::write(file, manifest(500, PONG)).unwrap();
    let plan = verb(&house, &server, &["plan", file]);
    assert_eq!(plan.status.code(), Some(2));
    let text = stdout(&plan);
    assert!(
        text.contains("~ apis.a") && text.contains("~ products.p") && text.contains("1000 -> 500"),
        "{text}"
    );
    assert_eq!(status(&server, "/a/pong").await, 404, "a plan changes nothing");
    let applied = verb(&house, &server, &["apply", file]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert_eq!(status(&server, "/a/pong").await, 200);
    let exported = verb(&house, &server, &["export"]);
    assert_eq!(stdout(&exported).trim(), manifest(500, PONG).trim());
    std::fs::write(file, stdout(&exported)).unwrap();
    assert_eq!(verb(&house, &server, &["plan", file]).status.code(), Some(0), "export, then plan, is empty");
    let back = verb(&house, &server, &["rollback", "1"]);
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    assert_eq!(status(&server, "/a/pong").await, 404);
    let kept = server.ask("/v1/manifest/generations").await.body;
    let kept: Vec<_> =
        kept["generations"].as_array().unwrap().iter().map(|one| one["generation"].clone()).collect();
    assert_eq!(kept, [json!(3), json!(2), json!(1)]);
}

#[tokio::test]
async fn a_wrong_manifest_leaves_everything_as_it_was() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    let wrong = put(&server, &manifest(1_000, "x: { method: GIT, path: /x }"), json!({})).await;
    is_problem(&wrong, 400, "invalid_manifest", "a wrong method");
    let problems = wrong.body["problems"].to_string();
    assert!(problems.contains(":12:") && problems.contains("GET"), "{problems}");
    let restart = put(&server, &manifest(1_000, "").replace("[/t]", "[/u]"), json!({})).await;
    is_problem(&restart, 409, "restart_needed", "another partition key");
    assert!(restart.text.contains("containers.notes"));
    let moved = put(&server, &manifest(500, ""), json!({ "if_generation": 7 })).await;
    is_problem(&moved, 409, "generation_moved", "of another generation");
    assert_eq!(server.ask("/v1/manifest").await.body["generation"], 1);
    assert_eq!(status(&server, "/a/ping").await, 200);
}

#[tokio::test]
async fn of_two_that_follow_the_same_generation_one_is_refused() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    let base = json!({ "if_generation": 1 });
    let (first, second) = (manifest(400, ""), manifest(300, ""));
    let (one, two) = tokio::join!(put(&server, &first, base.clone()), put(&server, &second, base.clone()));
    let mut seen = [one.status, two.status];
    seen.sort_unstable();
    assert_eq!(seen, [200, 409], "{} {}", one.text, two.text);
}

#[tokio::test]
async fn what_was_made_at_run_time_survives_and_counters_go_on() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    let wanted = json!({ "product": "p", "tenant": "other" });
    let issued = answer(server.operator(Method::POST, "/v1/keys").json(&wanted)).await;
    let key = issued.body["primary"].as_str().unwrap().to_owned();
    assert_eq!(put(&server, &manifest(900, PONG), json!({})).await.status, 200);
    let call = server.anonymous(Method::GET, "/a/pong").header("x-api-key", &key);
    assert_eq!(answer(call).await.status, 200);
    let gone = manifest(900, PONG).replace("main: { product: p, tenant: acme, primary: { env: MAIN } }", "");
    assert_eq!(put(&server, &gone, json!({})).await.status, 200);
    is_problem(&server.get("/a/ping").await, 401, "invalid_key", "a key that the manifest has no more");
    let call = server.anonymous(Method::GET, "/a/pong").header("x-api-key", &key);
    assert_eq!(answer(call).await.status, 200);
    assert!(!server.ask("/v1/manifest").await.text.contains(KEY), "a secret is a reference");
}

#[tokio::test]
async fn subscriptions_begin_change_and_end_while_the_process_runs() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    let with = |queue: &str| format!("{}event_subscriptions: {queue}\n", manifest(1_000, ""));
    let pull = with("{ pull: { topic: said, to: { queue: { lock: 60s } } } }");
    assert_eq!(put(&server, &pull, json!({})).await.status, 200);
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t" });
    let published =
        server.request(Method::POST, "/a/said").header("content-type", "application/cloudevents+json");
    assert_eq!(answer(published.body(event.to_string())).await.status, 200);
    let typed = with("{ pull: { topic: said, types: [x], to: { queue: { lock: 60s } } } }");
    assert_eq!(put(&server, &typed, json!({})).await.status, 200);
    let end = put(&server, &with("{}"), json!({})).await;
    is_problem(&end, 409, "destroys", "what is pending would be lost");
    assert_eq!(put(&server, &with("{}"), json!({ "allow_destroy": true })).await.status, 200);
    assert_eq!(server.ask("/v1/subscriptions/pull").await.status, 404);
}

#[tokio::test]
async fn what_was_applied_is_there_after_a_kill_until_the_files_change() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    assert_eq!(put(&server, &manifest(1_000, PONG), json!({})).await.status, 200);
    server.kill();
    let server = house.start().await;
    assert_eq!(status(&server, "/a/pong").await, 200, "applied is applied");
    assert_eq!(server.ask("/v1/manifest").await.body["generation"], 2);
    server.stop().await;
    std::fs::write(house.manifest(), manifest(800, "")).unwrap();
    let server = house.start().await;
    assert_eq!(status(&server, "/a/pong").await, 404, "the file was changed later");
    assert_eq!(server.ask("/v1/manifest").await.body["generation"], 3);
}

#[tokio::test]
async fn a_kill_while_one_is_applied_leaves_the_old_or_the_new() {
    let house = House::new(&manifest(1_000, ""));
    let mut generation = 1;
    for round in 0..5_u32 {
        let server = house.start().await;
        let next = manifest(100 + round, if round % 2 == 0 { PONG } else { "" });
        let applying = async {
            let body = json!({ "text": next });
            server.operator(Method::PUT, "/v1/manifest").json(&body).send().await.ok();
        };
        let pause = Duration::from_micros(u64::from(round) * 700);
        tokio::select! { () = applying => {}, () = tokio::time::sleep(pause) => {} }
        server.kill();
        let server = house.start().await;
        let shown = server.ask("/v1/manifest").await.body;
        let now = shown["generation"].as_u64().unwrap();
        assert!(now == generation || now == generation + 1, "{now} after {generation}");
        let has_pong = shown["text"].as_str().unwrap().contains("pong");
        assert_eq!(status(&server, "/a/pong").await == 200, has_pong, "never a mixture");
        generation = now;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_signal_and_a_changed_file_are_followed_and_a_wrong_file_is_not() {
    let house = House::new(&manifest(1_000, ""));
    let server = house.start().await;
    std::fs::write(house.manifest(), manifest(1_000, PONG)).unwrap();
    server.hang_up();
    server.until("/v1/manifest", |shown| shown.body["generation"] == json!(2)).await;
    assert_eq!(status(&server, "/a/pong").await, 200);
    std::fs::write(house.manifest(), "manifest: 1\nproject: [").unwrap();
    server.hang_up();
    let deadline = tokio::time::Instant::now() + AMPLE;
    while !house.log().contains("what was there stays") && !house.log().contains("the one before stays") {
        assert!(tokio::time::Instant::now() < deadline, "{}", house.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&server, "/a/pong").await, 200);
}

#[tokio::test]
async fn ten_applies_a_second_lose_no_request() {
    let house = House::new(&manifest(100_000, ""));
    let server = house.start().await;
    let texts = [manifest(100_000, PONG), manifest(99_999, "")];
    let calls = async {
        for _ in 0..400 {
            assert_eq!(status(&server, "/a/ping").await, 200);
        }
    };
    let applies = async {
        for round in 0..20 {
            let applied = put(&server, &texts[round % 2], json!({})).await;
            assert_eq!(applied.status, 200, "{}", applied.text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(calls, applies);
}

#[tokio::test]
async fn a_call_is_explained_and_nothing_is_counted() {
    let house = House::new(&manifest(1, ""));
    let server = house.start().await;
    for _ in 0..3 {
        let explained = verb(&house, &server, &["explain", "GET", "/a/ping", "--key", KEY]);
        let text = stdout(&explained);
        assert!(text.contains("product      p") && text.contains("p: 1 in 1s by caller"), "{text}");
    }
    assert_eq!(status(&server, "/a/ping").await, 200, "the only call of this second");
    let ask = async |body: Value| answer(server.operator(Method::POST, "/v1/explain").json(&body)).await.body;
    let unknown = ask(json!({ "method": "GET", "path": "/a/nothing" })).await;
    assert_eq!(unknown["refused"]["code"], "route_not_found");
    let keyless = ask(json!({ "method": "GET", "path": "/a/ping" })).await;
    assert_eq!((&keyless["refused"]["code"], &keyless["operation"]), (&json!("missing_key"), &json!("ping")));
}
