//! Documents over HTTP: statuses, tags, conditions, pages, and bodies that come back as they were sent.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use super::bad_input::is_problem;
use super::project;
use super::server::{Server, answer};

const LOADS: &str = "/freight/v1/loads";

#[tokio::test]
async fn documents_keep_their_contract() {
    let house = project::house("", "");
    let server = house.start().await;
    let body = json!({ "id": "one", "lane": "OSL-BER", "weight": 5 });
    let created = server.send(Method::POST, LOADS, &body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let path = created.header("location").to_owned();
    assert_eq!(path, "/freight/v1/loads/OSL-BER/one");
    let first = created.header("etag").to_owned();
    assert_eq!(created.body["_etag"], json!(first));
    assert!(created.body["_ts"].is_u64() && created.body["_lsn"].is_u64(), "{}", created.text);
    let read = server.get(&path).await;
    assert_eq!((read.status, read.header("etag"), &read.text), (200, first.as_str(), &created.text));
    let again = server.send(Method::POST, LOADS, &body).await;
    is_problem(&again, 409, "document_exists", "created twice");
    let upserted = server.send(Method::PUT, &path, &json!({ "lane": "OSL-BER", "weight": 6 })).await;
    assert_eq!((upserted.status, &upserted.body["id"]), (200, &json!("one")), "{}", upserted.text);
    let second = upserted.header("etag").to_owned();
    assert_ne!(first, second);
    conditions_are_honoured(&server, &path, [&first, &second]).await;
    let swap = path.replace("loads", "swaps");
    assert_eq!(server.send(Method::PUT, &swap, &body).await.status, 200);
    assert_eq!(answer(server.request(Method::DELETE, &path)).await.status, 204);
    for request in [
        server.request(Method::GET, &path),
        server.request(Method::DELETE, &path),
        server.request(Method::PUT, &swap).json(&body),
    ] {
        is_problem(&answer(request).await, 404, "document_not_found", "after its delete");
    }
    let upserted = server.send(Method::PUT, &path, &body).await;
    assert_eq!((upserted.status, upserted.header("location")), (201, path.as_str()));
    let nameless = server.send(Method::POST, LOADS, &json!({ "lane": "OSL-BER" })).await;
    let id = nameless.body["id"].as_str().unwrap();
    assert_eq!((nameless.status, id.len(), &id[14..15]), (201, 36, "7"), "a UUID of version 7: {id}");
    assert_eq!(server.get(nameless.header("location")).await.text, nameless.text);
}

async fn conditions_are_honoured(server: &Server, path: &str, [old, now]: [&str; 2]) {
    let body = json!({ "lane": "OSL-BER", "weight": 7 });
    let with = |method, name: &str, value: &str| server.request(method, path).header(name, value);
    for (method, name, value) in [
        (Method::PUT, "if-match", old),
        (Method::DELETE, "if-match", old),
        (Method::PUT, "if-none-match", "*"),
        (Method::PUT, "if-none-match", now),
        (Method::GET, "if-match", old),
    ] {
        let what = format!("{method} with {name}: {value}");
        let refused = answer(with(method, name, value).json(&body)).await;
        is_problem(&refused, 412, "precondition_failed", &what);
    }
    for value in [now, "*", &format!("{old}, {now}")] {
        let same = answer(with(Method::GET, "if-none-match", value)).await;
        assert_eq!((same.status, same.header("etag"), same.text.as_str()), (304, now, ""), "{value}");
    }
    assert_eq!(answer(with(Method::GET, "if-none-match", old)).await.status, 200);
    assert_eq!(answer(with(Method::GET, "if-match", now)).await.status, 200);
    // Nothing of the refused writes was done, and the condition that holds lets one through.
    assert_eq!(server.get(path).await.header("etag"), now);
    assert_eq!(answer(with(Method::PUT, "if-match", now).json(&body)).await.status, 200);
}

#[tokio::test]
async fn a_body_comes_back_as_it_was_sent() {
    let house = project::house("", "");
    let server = house.start().await;
    let sent = concat!(
        r#"{ "z": 1.10, "big": 123456789012345678901234567890, "e": 1E+2, "neg": -0, "lane":"a", "#,
        r#""text": "\u00e9 é \ud83d\ude9a /\/", "nested": {"b": [1 , 2], "a": null}, "id": "one" }"#
    );
    let post = server.request(Method::POST, LOADS).header("content-type", "application/json").body(sent);
    assert_eq!(answer(post).await.status, 201);
    let read = server.get("/freight/v1/loads/a/one").await;
    let kept = sent.strip_suffix('}').unwrap();
    assert!(read.text.starts_with(kept), "{}", read.text);
    assert!(read.text[kept.len()..].starts_with(",\"_etag\":"), "{}", read.text);
    // Properties of the system are the system's, whoever sends them.
    let forged = json!({ "id": "two", "lane": "a", "_etag": "mine", "_lsn": -1 });
    assert_eq!(server.send(Method::POST, LOADS, &forged).await.status, 201);
    let read = server.get("/freight/v1/loads/a/two").await;
    assert_eq!(read.body["_etag"], json!(read.header("etag")));
    assert!(read.text.matches("_etag").count() == 1 && read.body["_lsn"].is_u64(), "{}", read.text);
}

#[tokio::test]
async fn a_list_is_continued_until_all_is_seen_once() {
    let house = project::house("", "");
    let server = house.start().await;
    for number in 0..250 {
        let body = json!({ "id": format!("d{number:03}"), "lane": "a", "number": number });
        assert_eq!(server.send(Method::POST, LOADS, &body).await.status, 201);
    }
    let other = json!({ "id": "d000", "lane": "b" });
    assert_eq!(server.send(Method::POST, LOADS, &other).await.status, 201);
    for (limit, pages) in
        [("", vec![100, 100, 50]), ("&limit=250", vec![250]), ("&limit=125", vec![125, 125])]
    {
        let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
        let mut token = String::new();
        loop {
            let path = match token.as_str() {
                "" => format!("{LOADS}/a?{}", limit.trim_start_matches('&')),
                token => format!("{LOADS}/a?continuation={token}{limit}"),
            };
            let page = server.get(&path).await;
            let documents = page.body["documents"].as_array().unwrap();
            assert_eq!((page.status, &page.body["count"]), (200, &json!(documents.len())));
            sizes.push(documents.len());
            for document in documents {
                assert_eq!(document["lane"], "a");
                assert!(document["_etag"].is_string());
                assert!(seen.insert(document["id"].as_str().unwrap().to_owned()), "twice: {document}");
            }
            token = page.header("x-continuation").to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((seen.len(), sizes), (250, pages));
    }
    let token = server.get(&format!("{LOADS}/a?limit=1")).await.header("x-continuation").to_owned();
    let elsewhere = server.get(&format!("{LOADS}/b?continuation={token}")).await;
    is_problem(&elsewhere, 400, "invalid_continuation", "a token of another list");
    let by_header = server.request(Method::GET, &format!("{LOADS}/a?limit=1")).header("continuation", &token);
    assert_eq!(answer(by_header).await.body["documents"][0]["id"], "d001");
}
