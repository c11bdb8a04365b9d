//! Events that are received: one receiver at a time, settled by whoever holds the lock, never lost.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::events_project::{self as project, OTHER_KEY, QUEUE, event, publish};
use super::server::{AMPLE, Answer, Server, answer};

async fn receive(server: &Server, query: &str) -> Vec<Value> {
    let answer = answer(server.request(Method::POST, &format!("/pull/receive{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["value"].as_array().unwrap().clone()
}

async fn settle(server: &Server, what: &str, tokens: &[&str]) -> Answer {
    server.send(Method::POST, &format!("/pull/{what}"), &json!({ "lockTokens": tokens })).await
}

fn token(received: &Value) -> &str {
    received["brokerProperties"]["lockToken"].as_str().unwrap()
}

fn deliveries(received: &Value) -> u64 {
    received["brokerProperties"]["deliveryCount"].as_u64().unwrap()
}

fn id(received: &Value) -> &str {
    received["event"]["id"].as_str().unwrap()
}

/// The code that each failed token has.
fn codes(answer: &Answer) -> Vec<&str> {
    let failed = answer.body["failedLockTokens"].as_array().unwrap();
    failed.iter().map(|token| token["error"]["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn events_are_received_and_settled() {
    let server = project::house("", QUEUE, &[]).start().await;
    assert_eq!(receive(&server, "?maxWaitTime=0").await, Vec::<Value>::new());
    for name in ["a", "b", "c", "d"] {
        assert_eq!(publish(&server, &event(name, &json!({ "n": 1 }))).await.status, 200);
    }
    let mut all: Vec<Value> = Vec::new();
    while all.len() < 4 {
        let received = receive(&server, "?maxEvents=4").await;
        assert!(!received.is_empty(), "nothing came in time");
        all.extend(received);
    }
    let ids: Vec<_> = all.iter().map(id).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    assert!(all.iter().all(|received| deliveries(received) == 1 && received["event"]["data"]["n"] == 1));
    // Nobody else gets what is locked.
    assert_eq!(receive(&server, "?maxWaitTime=0").await, Vec::<Value>::new());
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| token(&all[index]));
    let done = settle(&server, "acknowledge", &[a, "nonsense"]).await;
    assert_eq!((done.status, &done.body["succeededLockTokens"]), (200, &json!([a])));
    assert_eq!(codes(&done), ["BadToken"]);
    // Twice is too often, and says so.
    let again = settle(&server, "acknowledge", &[a]).await;
    assert_eq!((again.refused(), codes(&again)), ((400, "locks_lost"), vec!["TokenLost"]));
    assert_eq!(settle(&server, "renew", &[b]).await.status, 200);
    assert_eq!(settle(&server, "reject", &[c]).await.status, 200);
    assert_eq!(settle(&server, "release?releaseDelayInSeconds=0", &[d, b]).await.status, 200);
    let mut back: Vec<Value> = Vec::new();
    while back.len() < 2 {
        back.extend(receive(&server, "?maxEvents=100").await);
    }
    let mut ids: Vec<_> = back.iter().map(id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "d"]);
    assert!(back.iter().all(|received| deliveries(received) == 2), "{back:?}");
    let letters =
        server.until("/v1/subscriptions/pull/dead-letters", |answer| answer.body["count"] == json!(1)).await;
    let letter = &letters.body["dead_letters"][0];
    assert_eq!((&letter["event"]["id"], &letter["reason"]), (&json!("c"), &json!("Rejected")));
}

#[tokio::test]
async fn wrong_questions_to_a_queue_are_refused() {
    let server = project::house("", QUEUE, &[]).start().await;
    for query in ["maxEvents=0", "maxEvents=101", "maxEvents=x", "maxWaitTime=121", "maxWaitTime=-1"] {
        let answer = answer(server.request(Method::POST, &format!("/pull/receive?{query}"))).await;
        assert_eq!(answer.refused(), (400, "invalid_query"), "{query}");
    }
    for delay in ["7", "1", "-1", "x", "3601"] {
        let answer = settle(&server, &format!("release?releaseDelayInSeconds={delay}"), &["t"]).await;
        assert_eq!(answer.refused(), (400, "invalid_query"), "{delay}");
    }
    for body in [json!({}), json!({ "lockTokens": [] }), json!({ "lockTokens": [1] }), json!([])] {
        let answer = server.send(Method::POST, "/pull/acknowledge", &body).await;
        assert_eq!(answer.refused(), (400, "invalid_tokens"), "{body}");
    }
}

#[tokio::test]
async fn a_lock_ends_and_the_event_is_given_again_until_it_is_given_up() {
    let pull = "to: { queue: { lock: 1s, max_deliveries: 2 } }";
    let server = project::house("", pull, &[]).start().await;
    publish(&server, &event("a", &json!(1))).await;
    let first = receive(&server, "").await;
    let second = receive(&server, "").await;
    assert_eq!((id(&second[0]), deliveries(&first[0]), deliveries(&second[0])), ("a", 1, 2));
    let late = settle(&server, "acknowledge", &[token(&first[0])]).await;
    assert_eq!((late.status, codes(&late)), (400, vec!["TokenLost"]));
    // Nobody settles it: that was the last time.
    let (letters, nothing) = tokio::join!(
        server.until("/v1/subscriptions/pull/dead-letters", |answer| answer.body["count"] == json!(1)),
        receive(&server, "?maxWaitTime=5"),
    );
    assert_eq!(nothing, Vec::<Value>::new());
    assert_eq!(letters.body["dead_letters"][0]["reason"], "MaxDeliveryAttemptsExceeded");
}

#[tokio::test]
async fn a_receiver_that_waits_gets_the_event_when_it_comes_and_only_one_does() {
    let server = project::house("", QUEUE, &[]).start().await;
    let begun = Instant::now();
    let (first, second, published) =
        tokio::join!(receive(&server, "?maxWaitTime=10"), receive(&server, "?maxWaitTime=10"), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            publish(&server, &event("a", &json!(1))).await
        },);
    assert_eq!(published.status, 200);
    assert_eq!(first.len() + second.len(), 1, "{first:?} {second:?}");
    assert!(begun.elapsed() < AMPLE);
}

#[tokio::test]
async fn what_was_not_settled_before_a_crash_is_given_again() {
    let house = project::house("", QUEUE, &[]);
    let server = house.start().await;
    for name in ["a", "b"] {
        publish(&server, &event(name, &json!(1))).await;
    }
    let first = receive(&server, "").await;
    let second = receive(&server, "").await;
    assert_eq!((id(&first[0]), id(&second[0])), ("a", "b"));
    assert_eq!(settle(&server, "acknowledge", &[token(&second[0])]).await.status, 200);
    server.until("/v1/subscriptions/pull", |answer| answer.body["unsettled"] == json!(0)).await;
    server.kill();
    let server = house.start().await;
    let again = receive(&server, "").await;
    assert_eq!(id(&again[0]), "a");
    let token_of_before = settle(&server, "acknowledge", &[token(&first[0])]).await;
    assert_eq!(codes(&token_of_before), ["TokenLost"]);
}

#[tokio::test]
async fn a_queue_of_a_tenant_is_there_for_that_tenant_only() {
    let server = project::house("", "tenant: acme, to: { queue: {} }", &[]).start().await;
    let other = |method: Method, path: &str| server.anonymous(method, path).header("x-api-key", OTHER_KEY);
    let foreign = other(Method::POST, "/events").header("content-type", project::STRUCTURED);
    let foreign = foreign.body(event("theirs", &json!(1)).to_string());
    assert_eq!(answer(foreign).await.status, 200);
    publish(&server, &event("mine", &json!(1))).await;
    let received = receive(&server, "?maxEvents=10").await;
    assert_eq!(received.iter().map(id).collect::<Vec<_>>(), ["mine"]);
    let refused = answer(other(Method::POST, "/pull/receive?maxWaitTime=0")).await;
    assert_eq!(refused.refused(), (404, "queue_not_found"));
    let tokens = json!({ "lockTokens": [token(&received[0])] });
    let refused = answer(other(Method::POST, "/pull/acknowledge").json(&tokens)).await;
    assert_eq!(refused.refused(), (404, "queue_not_found"));
}

#[tokio::test]
async fn waiting_receivers_do_not_hold_up_the_end() {
    let house = project::house("", QUEUE, &[]);
    let mut server = house.start().await;
    let request = server.request(Method::POST, "/pull/receive?maxWaitTime=120");
    let waiting = tokio::spawn(answer(request));
    server.until("/metrics", |answer| answer.text.contains("lanekeeper_requests_in_flight 1\n")).await;
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0), "{}", house.log());
    assert_eq!(waiting.await.unwrap().body, json!({ "value": [] }));
}
