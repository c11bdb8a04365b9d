//! Where events may go, and what an operator is told of them.

use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use super::project;
use super::server::{Answer, Server, answer};
use super::sink::Sink;

const LOADS: &str = "/freight/v1/loads";
/// Wrong configuration (`EX_USAGE` of sysexits).
const EXIT_USAGE: i32 = 64;
const RETRY: &str = "retry: { max_attempts: 2, ttl: 1h, scale: 0.0001 }";

async fn write(server: &Server, from: usize, to: usize) {
    for number in from..to {
        let body = json!({ "id": format!("d{number}"), "lane": "a" });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
}

fn is(answer: &Answer, pointer: &str, wanted: &Value) -> bool {
    answer.body.pointer(pointer) == Some(wanted)
}

#[tokio::test]
async fn a_webhook_to_a_private_address_needs_leave() {
    let canary = Sink::start(|_| 200);
    let port = canary.address.port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "0x7f.1",
        "2130706433",
        "a.localhost",
        "10.0.0.1",
        "169.254.169.254",
    ] {
        let to = format!("w: {{ topic: load-events, to: {{ webhook: \"http://{host}:{port}/hook\" }} }}");
        let house = project::house("", &to);
        let status = house.try_start().await.err().unwrap_or_else(|| panic!("`{host}` was accepted"));
        assert_eq!(status.code(), Some(EXIT_USAGE), "{host}");
    }
    // Leave for one block is no leave for another.
    let to = format!(
        "w: {{ topic: load-events, to: {{ webhook: \"http://127.0.0.1:{port}/\", allow: [10.0.0.0/8] }} }}"
    );
    assert!(project::house("", &to).try_start().await.is_err());
    assert_eq!(canary.connections(), 0);
}

/// A name of this machine that only a look-up shows to be private. Not every machine has one.
fn private_name(port: u16) -> Option<String> {
    let own = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let names = ["ip6-localhost".to_owned(), "ip6-loopback".to_owned(), own];
    let near = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    let private = |name: &String| {
        let addresses = (name.as_str(), port).to_socket_addrs();
        addresses.is_ok_and(|mut all| all.all(|at| near(at.ip())))
    };
    names.into_iter().find(|name| !name.is_empty() && private(name))
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_never_contacted() {
    // Listens on every address of this machine, old and new.
    let Ok(canary) = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")) else { return };
    canary.set_nonblocking(true).unwrap();
    let port = canary.local_addr().unwrap().port();
    let Some(name) = private_name(port) else { return println!("this machine has no such name") };
    let to =
        format!("w: {{ topic: load-events, to: {{ webhook: \"http://{name}:{port}/hook\" }}, {RETRY} }}");
    let house = project::house("", &to);
    let server = house.start().await;
    write(&server, 0, 3).await;
    let status = server.until("/v1/subscriptions/w", |answer| is(answer, "/dead_lettered", &json!(3))).await;
    assert!(is(&status, "/delivered", &json!(0)), "{}", status.text);
    let letters = server.ask("/v1/subscriptions/w/dead-letters").await;
    for letter in letters.body["dead_letters"].as_array().unwrap() {
        assert_eq!(letter["reason"], "UndeliverableDueToForbiddenAddress", "{letter}");
        assert_eq!((&letter["attempts"], &letter["last_outcome"]), (&json!(1), &json!("Forbidden")));
    }
    let contacted = canary.accept();
    assert!(contacted.is_err(), "`{name}` was contacted: {contacted:?}");
}

#[tokio::test]
async fn metrics_and_status_tell_the_truth() {
    let mood = Arc::new(AtomicU16::new(500));
    let chosen = mood.clone();
    let sink =
        Sink::start(move |hit| if hit.path.starts_with("ill") { chosen.load(Ordering::SeqCst) } else { 200 });
    let subscription = |name: &str| {
        let to = format!(
            "to: {{ webhook: \"http://{}/{name}?code=secret\", allow: [127.0.0.0/8] }}",
            sink.address
        );
        format!("{name}: {{ topic: load-events, types: [LoadCreated], {to}, {RETRY} }}")
    };
    let house = project::house("", &format!("{}, {}", subscription("ill"), subscription("well")));
    let server = house.start().await;
    write(&server, 0, 10).await;
    let ill = server.until("/v1/subscriptions/ill", |answer| is(answer, "/dead_lettered", &json!(10))).await;
    tells(
        &ill,
        &[
            ("/delivered", 0),
            ("/failed_attempts", 20),
            ("/given_up", 10),
            ("/retrying", 0),
            ("/lag/events", 0),
        ],
    );
    let well = server.until("/v1/subscriptions/well", |answer| is(answer, "/delivered", &json!(10))).await;
    tells(&well, &[("/dead_lettered", 0), ("/failed_attempts", 0), ("/in_flight", 0), ("/lag/events", 0)]);
    assert!(!ill.text.contains("secret") && !well.text.contains("secret"), "{}", ill.text);
    shows(
        &server,
        &[
            ("delivered_total", "ill", "0"),
            ("delivered_total", "well", "10"),
            ("attempts_failed_total", "ill", "20"),
            ("dead_lettered_total", "ill", "10"),
            ("dead_letters", "ill", "10"),
            ("dead_letters", "well", "0"),
            ("lag_events", "ill", "0"),
            ("lag_events", "well", "0"),
        ],
    )
    .await;
    // What waits is lag.
    let paused = answer(server.operator(Method::POST, "/v1/subscriptions/well:pause")).await;
    assert!(is(&paused, "/state", &json!("paused")), "{}", paused.text);
    write(&server, 10, 15).await;
    let well = server.until("/v1/subscriptions/well", |answer| is(answer, "/lag/events", &json!(5))).await;
    tells(&well, &[("/delivered", 10)]);
    shows(&server, &[("lag_events", "well", "5"), ("paused", "well", "1")]).await;
    let resumed = answer(server.operator(Method::POST, "/v1/subscriptions/well:resume")).await;
    assert!(is(&resumed, "/state", &json!("running")), "{}", resumed.text);
    let well = server.until("/v1/subscriptions/well", |answer| is(answer, "/delivered", &json!(15))).await;
    tells(&well, &[("/lag/events", 0), ("/dead_lettered", 0)]);
    // What was given up comes back when it is asked for.
    server.until("/v1/subscriptions/ill", |answer| is(answer, "/dead_lettered", &json!(15))).await;
    mood.store(204, Ordering::SeqCst);
    let all = server
        .operator(Method::POST, "/v1/subscriptions/ill/dead-letters:replay")
        .json(&json!({ "all": true }));
    assert_eq!(answer(all).await.body["replayed"], json!(15));
    // The mailbox and the retries are empty once what was delivered is noted on disk, which is a moment later.
    let done = |answer: &Answer| is(answer, "/delivered", &json!(15)) && is(answer, "/retrying", &json!(0));
    let ill = server.until("/v1/subscriptions/ill", done).await;
    tells(&ill, &[("/dead_lettered", 0), ("/lag/events", 0)]);
    shows(&server, &[("delivered_total", "ill", "15"), ("dead_letters", "ill", "0")]).await;
    let taken =
        |name: &str| sink.hits().iter().filter(|hit| hit.path.starts_with(name) && hit.status < 300).count();
    assert_eq!((taken("well"), taken("ill")), (15, 15));
}

/// The status has these numbers.
fn tells(status: &Answer, numbers: &[(&str, u64)]) {
    for (pointer, number) in numbers {
        assert!(is(status, pointer, &json!(number)), "{pointer} is not {number}: {}", status.text);
    }
}

/// The metrics have these values, as metric, subscription, value.
async fn shows(server: &Server, values: &[(&str, &str, &str)]) {
    let metrics = server.ask("/metrics").await.text;
    for (metric, subscription, value) in values {
        let line = format!("lanekeeper_subscription_{metric}{{subscription=\"{subscription}\"}} {value}");
        assert!(metrics.lines().any(|found| found == line), "no `{line}` in\n{metrics}");
    }
}
