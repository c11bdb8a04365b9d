//! What one tenant has, another can neither see, change, count nor guess at, whatever it asks for and whatever it has
//! picked up.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use super::apart::{
    CANARY, ISOLATED, Loot, Operation, Place, SEEDED, count, declared, house, kept, requests, seed, verbs,
};
use super::server::{Answer, KEY, Server, answer};

/// Cases that are tried at the same time.
const TOGETHER: usize = 8;

/// Ways to use it: a name, and what is added to a request.
fn uses(loot: &Loot) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let header = |name, value: &str| vec![(name, value.to_owned())];
    let mut uses = vec![
        ("nothing", vec![]),
        ("its etag must match", header("if-match", &loot.etag)),
        ("its etag must not match", header("if-none-match", &loot.etag)),
        ("any version must match", header("if-match", "*")),
        ("its session", header("x-session-token", &loot.session)),
        ("its idempotency key", header("idempotency-key", &loot.idempotency_key)),
    ];
    uses.extend(loot.continuation.iter().map(|token| ("its continuation", header("x-continuation", token))));
    uses
}

/// What an answer tells, but for the names that were asked for and what is new each time.
fn told(answer: &Answer, place: &Place) -> (u16, BTreeMap<String, String>, Value) {
    let volatile = ["date", "traceparent", "etag", "x-session-token", "ratelimit", "location"];
    let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        // That there is one tells something, even where what it says must differ.
        let value = if volatile.contains(&name.as_str()) { "" } else { value.to_str().unwrap() };
        (name.to_string(), value.to_owned())
    };
    let mut text = answer.text.clone();
    for value in place.0.values() {
        text = text.replace(value.as_str(), "-place-");
    }
    let mut body: Value = serde_json::from_str(&text).unwrap_or_default();
    strip(&mut body);
    let headers = answer.headers.iter().map(header).filter(|(name, _)| name != "content-length").collect();
    (answer.status, headers, body)
}

/// Takes away what differs from one document and one request to the next.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !["trace_id", "_etag", "_lsn", "_ts", "etag"].contains(&name.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// One operation in one way by another tenant, beside the same where there is nothing.
async fn attempt(
    server: &Server,
    operation: &Operation,
    (way, kind): (usize, usize),
    number: usize,
    strangers: &[String; 2],
) {
    let container = operation.container.as_deref().unwrap();
    let place = Place::new("acme", number);
    let loot = seed(server, operation, &place, number).await;
    let uses = uses(&loot);
    let Some((what, added)) = uses.get(way) else { return };
    let Operation { method, route, name, .. } = operation;
    let what = format!("{method} {route} ({name}), request {kind}, with {what}");
    let before = kept(server, container, &place).await;
    let nowhere = Place::new("none", number);
    // Whoever asks for everything must have nothing of his own.
    let fresh = match name.ends_with("-everything") {
        true => Some([
            stranger(server, &format!("o{number}")).await,
            stranger(server, &format!("b{number}")).await,
        ]),
        false => None,
    };
    let mut answers = Vec::new();
    for (key, place) in fresh.as_ref().unwrap_or(strangers).iter().zip([&place, &nowhere]) {
        let mut request = requests(server, operation, key, place, SEEDED[0], "mine").swap_remove(kind);
        for (name, value) in added {
            request = request.header(*name, value);
        }
        let found = answer(request).await;
        let all = format!("{:?} {}", found.headers, found.text);
        assert!(!all.contains(CANARY) && found.status < 500, "{what}: {} {all}", found.status);
        assert_ne!(found.header("idempotency-replayed"), "true", "{what}");
        answers.push(told(&found, place));
    }
    assert_eq!(answers[0], answers[1], "{what}: there is something, and it shows");
    assert_eq!(kept(server, container, &place).await, before, "{what}: it was changed");
    if added.is_empty() {
        // The request is one that does something: who has the documents hears another answer, or has them no more.
        let own = requests(server, operation, KEY, &place, SEEDED[0], "mine").swap_remove(kind);
        let own = told(&answer(own).await, &place);
        let gone = async || count(server, container, &place).await == 0;
        assert!(own != answers[0] || gone().await, "{what}: `acme` is told the same: {own:?}");
    }
}

/// A key of a tenant that nobody has met.
async fn stranger(server: &Server, name: &str) -> String {
    let grant = json!({ "product": "all", "tenant": name });
    let issued = answer(server.operator(Method::POST, "/v1/keys").json(&grant)).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued.body["primary"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn another_tenant_cannot_tell_what_is_there_from_what_is_not() {
    let house = house();
    let server = house.start().await;
    let operations = declared(&server).await;
    let verbs = verbs(&house);
    for (container, _) in ISOLATED {
        let has = |operation: &&Operation| operation.container.as_deref() == Some(container);
        let built: BTreeSet<_> =
            operations.iter().filter(has).map(|operation| operation.verb.clone()).collect();
        assert_eq!(built, verbs, "`{container}` is not asked in every way that there is");
    }
    let strangers = [stranger(&server, "other").await, stranger(&server, "blank").await];
    let documents = operations.iter().filter(|operation| operation.container.is_some());
    let ways = uses(&Loot { continuation: Some(String::new()), ..Loot::default() }).len();
    let cases = documents.flat_map(|operation| {
        let kinds = requests(&server, operation, KEY, &Place::new("none", 0), "one", "").len();
        (0..ways).flat_map(move |way| (0..kinds).map(move |kind| (operation, way, kind)))
    });
    let cases: Vec<_> = cases.enumerate().collect();
    println!("{} cases", cases.len());
    stream::iter(cases)
        .for_each_concurrent(TOGETHER, |(number, (operation, way, kind))| {
            attempt(&server, operation, (way, kind), number, &strangers)
        })
        .await;
    // What all of them wrote is counted for each alone.
    let blank = stranger(&server, "late").await;
    for (container, _) in ISOLATED {
        let count =
            answer(server.anonymous(Method::GET, &format!("/{container}/find")).header("x-api-key", &blank))
                .await;
        assert_eq!(count.body["documents"], json!([0]), "{}", count.text);
    }
    assert!(server.stop().await.success());
}
