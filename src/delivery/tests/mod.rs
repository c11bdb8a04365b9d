//! The transport against real sockets: servers that behave, and servers that do not.

mod answers;
mod connections;
mod guarded;
mod handshakes;
mod headers;
mod pooled;
mod secure;
mod server;
mod stale;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lanekeeper_actors::model::delivery::{Attempt, Endpoint, Outcome, OutcomeKind, Transport};

use super::{WallClock, WebhookSettings, Webhooks};

/// Sun, 06 Nov 1994 08:49:37 GMT.
const NOW: Duration = Duration::from_secs(784_111_777);
/// How long a test waits for what must happen.
const AMPLE: Duration = Duration::from_secs(20);
/// A deadline that no test waits for: what ends before it ended for another reason.
const DISTANT: Duration = Duration::from_secs(120);
/// A deadline that tests do wait for.
const SHORT: Duration = Duration::from_millis(300);
/// How late an outcome may be on a busy machine.
const SLACK: Duration = Duration::from_millis(1500);

/// The shortest success.
const EMPTY_200: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn clock() -> WallClock {
    Arc::new(|| SystemTime::UNIX_EPOCH + NOW)
}

fn webhooks() -> Webhooks {
    Webhooks::new(WebhookSettings::default(), clock()).unwrap()
}

/// An attempt for an endpoint that may be on this host.
fn attempt(url: &str) -> Attempt {
    attempt_allowing(url, &["127.0.0.0/8"])
}

fn attempt_allowing(url: &str, allow: &[&str]) -> Attempt {
    attempt_to(Endpoint::plain(url, allow.iter().map(|block| (*block).to_owned()).collect()))
}

/// An endpoint that may be on this host.
fn endpoint(url: &str) -> Endpoint {
    Endpoint::plain(url, vec!["127.0.0.0/8".to_owned()])
}

fn attempt_to(endpoint: Endpoint) -> Attempt {
    Attempt {
        endpoint: Arc::new(endpoint),
        subscription: "matching".into(),
        event_id: "0-812".to_owned(),
        number: 3,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        content_type: Some("application/cloudevents+json; charset=utf-8".into()),
        body: Bytes::from_static(b"{\"id\":\"0-812\"}"),
        headers: Vec::new(),
        replay: None,
        timeout: DISTANT,
    }
}

/// The outcome of an attempt that has little time, and the time it took.
async fn deliver_shortly(webhooks: &Webhooks, mut attempt: Attempt) -> (Outcome, Duration) {
    attempt.timeout = SHORT;
    let started = tokio::time::Instant::now();
    let outcome = webhooks.deliver(attempt).await;
    (outcome, started.elapsed())
}

fn assert_timed_out(outcome: &Outcome, took: Duration) {
    assert_eq!((outcome.kind, outcome.status), (OutcomeKind::TimedOut, None), "{outcome:?}");
    assert!(took >= SHORT && took < SHORT + SLACK, "{took:?}");
}

/// Waits until something that happens on this thread's runtime has happened.
async fn until(happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(AMPLE, waiting).await.expect("it happens in time");
}
