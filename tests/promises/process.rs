//! The process itself: one for a data directory, ready when it says so, gone in order, and never half alive.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::project;
use super::server::{KEY, answer};

const LOADS: &str = "/freight/v1/loads";
/// What a process ends with when a thread that it cannot be without died.
const EXIT_FATAL: i32 = 70;
const EXIT_FAILED: i32 = 1;
/// Clients of the server that is told to go.
const WRITERS: usize = 8;

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let house = project::house("", "");
    let first = house.start().await;
    let status = house.try_start().await.err().expect("a second server was let in");
    assert_eq!(status.code(), Some(EXIT_FAILED));
    let log = house.log();
    assert!(log.contains("in use") || log.contains("another process"), "{log}");
    let verified = house.verb(&["verify", "data"]);
    assert_eq!(verified.status.code(), Some(EXIT_FAILED), "a directory in use was verified");
    // The first one did not notice.
    let body = json!({ "id": "one", "lane": "a" });
    assert_eq!(first.send(Method::POST, LOADS, &body).await.status, 201);
    first.kill();
    let again = house.start().await;
    assert_eq!(again.get(&format!("{LOADS}/a/one")).await.status, 200);
}

#[tokio::test]
async fn the_ready_line_comes_when_ready() {
    let house = project::house("", "");
    // Nothing is tried twice here: the first request after the line is answered.
    for round in 0..3 {
        let server = house.start().await;
        let body = json!({ "id": format!("d{round}"), "lane": "a" });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
        for path in ["/healthz", "/readyz"] {
            assert_eq!(server.ask(path).await.status, 200, "{path}");
        }
        assert!(server.ready_after < Duration::from_secs(2), "{:?}", server.ready_after);
        let list = server.get(&format!("{LOADS}/a")).await;
        assert_eq!(list.body["count"], json!(round + 1));
        server.kill();
    }
}

#[tokio::test]
async fn a_sigterm_drains() {
    let house = project::house("page_max: 100000", "");
    let mut server = house.start().await;
    let url = format!("{}{LOADS}", server.gateway);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (url, client) = (url.clone(), client.clone());
            tokio::spawn(async move {
                let mut acknowledged = BTreeSet::new();
                for number in 0.. {
                    let id = format!("d{writer}-{number}");
                    let body = json!({ "id": id, "lane": format!("l{writer}") });
                    match client.post(&url).header("x-api-key", KEY).json(&body).send().await {
                        Ok(answer) if answer.status() == 201 => {
                            acknowledged.insert(id);
                        }
                        // Told to go, in order.
                        Ok(answer) => {
                            assert_eq!(answer.status(), 503);
                            break;
                        }
                        // It waited in the kernel or came on a connection that was just being closed; it was
                        // never begun, as the look at what is stored shows.
                        Err(_) => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    server.until("/metrics", |answer| count(&answer.text, "lanekeeper_admitted_total") > 100).await;
    server.terminate();
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert_eq!(server.ended().await.code(), Some(0), "{}", house.log());
    let verified = house.verb(&["verify", "data"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    // Every write that was begun was answered: what is stored is what was acknowledged.
    let server = house.start().await;
    let mut stored = BTreeSet::new();
    for writer in 0..WRITERS {
        let list = server.get(&format!("{LOADS}/l{writer}?limit=100000")).await;
        let documents = list.body["documents"].as_array().unwrap();
        stored.extend(documents.iter().map(|document| document["id"].as_str().unwrap().to_owned()));
    }
    assert!(acknowledged.len() > 50);
    assert_eq!(stored, acknowledged);
}

#[tokio::test]
async fn a_dead_writer_thread_ends_the_process() {
    let house = project::house("", "");
    let house = house.with("FAILPOINTS", "writer::panic=20*off->panic(the thread dies)");
    let mut server = house.start().await;
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let id = format!("d{number}");
        let body = json!({ "id": id, "lane": format!("l{}", number % 8) });
        let request = server.request(Method::POST, LOADS).json(&body).send().await;
        match request {
            Ok(answer) if answer.status() == 201 => acknowledged.push((number % 8, id)),
            // Nobody is told of a success that was none.
            Ok(answer) => assert!(answer.status().is_server_error(), "{}", answer.status()),
            Err(_) => break,
        }
        assert!(number < 1000, "the process goes on without its writer");
    }
    assert_eq!(server.ended().await.code(), Some(EXIT_FATAL), "{}", house.log());
    assert!(!acknowledged.is_empty());
    let house = house.with("FAILPOINTS", "");
    let server = house.start().await;
    for (lane, id) in &acknowledged {
        assert_eq!(server.get(&format!("{LOADS}/l{lane}/{id}")).await.status, 200, "{id}");
    }
    let body = json!({ "id": "after", "lane": "a" });
    assert_eq!(answer(server.request(Method::POST, LOADS).json(&body)).await.status, 201);
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(house.verb(&["verify", "data"]).status.success());
}

/// A number of the metrics; 0 when it is absent.
pub(crate) fn count(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}
