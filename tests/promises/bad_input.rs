//! Whatever is sent, the answer says what is wrong in a fixed form, and nothing is written.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::project::{self, EXPIRED_KEY, NOTES_KEY, OTHER_KEY};
use super::server::{Answer, KEY, Server, answer};

const LOADS: &str = "/freight/v1/loads";
const ONE: &str = "/freight/v1/loads/lane/one";
/// `limits.body` of the house.
const BODY_MAX: usize = 64 * 1024;
const TOO_LARGE: &str = "\"code\":\"body_too_large\"";
/// Words that would tell of the inside: source files, panics, folders, libraries.
const INTERNALS: [&str; 12] = [
    ".rs",
    "panick",
    "backtrace",
    "unwrap",
    "/tmp",
    "/data",
    "redb",
    "actix",
    "serde",
    "tokio",
    "src/",
    "::",
];

/// The answer is a problem of RFC 9457 with this status and code, and tells nothing of the inside.
pub(crate) fn is_problem(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.refused(), (status, code), "{what}: {}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(answer.body["status"], json!(status), "{what}");
    for field in ["type", "title", "detail", "instance"] {
        assert!(answer.body[field].is_string(), "{what}: no `{field}`: {}", answer.text);
    }
    let trace = answer.body["trace_id"].as_str().unwrap();
    assert!(trace.len() == 32 && answer.header("traceparent").contains(trace), "{what}: {}", answer.text);
    let mut told = answer.body.clone();
    // The caller's own path, and the address of the documentation.
    told.as_object_mut().unwrap().retain(|name, _| name != "instance" && name != "type");
    let told = told.to_string();
    assert!(!INTERNALS.iter().any(|word| told.contains(word)), "{what}: {told}");
}

fn json_body(request: RequestBuilder, body: impl Into<reqwest::Body>) -> RequestBuilder {
    request.header("content-type", "application/json").body(body)
}

/// Bodies that are no documents of the lane `lane`.
fn bodies() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let with = |inside: &str| format!(r#"{{"id":"one","lane":"lane","x":{inside}}}"#).into_bytes();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let far_too_deep = "[".repeat(BODY_MAX - 100);
    let id = |id: &str| format!(r#"{{"id":"{id}","lane":"lane"}}"#).into_bytes();
    vec![
        ("nothing", text(""), 400, "invalid_json"),
        ("half an object", text(r#"{"id":"one","lane":"#), 400, "invalid_json"),
        ("two objects", text(r#"{"id":"one","lane":"lane"}{}"#), 400, "invalid_json"),
        ("a comment", text(r#"{"id":"one","lane":"lane"/**/}"#), 400, "invalid_json"),
        ("an array", text("[]"), 400, "not_an_object"),
        ("a string", text("\"x\""), 400, "not_an_object"),
        (
            "no UTF-8",
            with("\"\u{1}\"").iter().map(|b| if *b == 1 { 0xff } else { *b }).collect(),
            400,
            "invalid_json",
        ),
        ("a raw control character", with("\"\u{1}\""), 400, "invalid_json"),
        ("an infinite number", with("1e999"), 400, "invalid_json"),
        ("NaN", with("NaN"), 400, "invalid_json"),
        ("half a surrogate pair", with(r#""\ud800""#), 400, "invalid_json"),
        ("deep nesting", with(&deep), 400, "json_too_deep"),
        ("deep nesting that never ends", with(&far_too_deep), 400, "invalid_json"),
        ("an id twice", text(r#"{"id":"one","lane":"lane","id":"two"}"#), 400, "duplicate_property"),
        ("a key twice", text(r#"{"id":"one","lane":"lane","\u006cane":"x"}"#), 400, "duplicate_property"),
        ("NUL in the id", id(r"a\u0000b"), 400, "invalid_id"),
        ("a line end in the id", id(r"a\r\nb"), 400, "invalid_id"),
        ("a slash in the id", id("a/b"), 400, "invalid_id"),
        ("a long id", id(&"x".repeat(4096)), 400, "invalid_id"),
        ("an empty id", id(""), 400, "invalid_id"),
        ("an id of dots", id(".."), 400, "invalid_id"),
        ("an id that is a number", text(r#"{"id":1,"lane":"lane"}"#), 400, "invalid_id"),
        ("a key that is an object", text(r#"{"id":"one","lane":{}}"#), 400, "invalid_partition_key"),
        (
            "a long key",
            format!(r#"{{"id":"one","lane":"{}"}}"#, "x".repeat(4096)).into_bytes(),
            400,
            "invalid_partition_key",
        ),
        ("a large body", vec![b' '; BODY_MAX + 1], 413, "body_too_large"),
    ]
}

async fn refuse_heads(server: &Server) {
    let good = json!({ "id": "one", "lane": "lane" });
    let put = || server.request(Method::PUT, ONE);
    let anonymous = || server.anonymous(Method::POST, LOADS).json(&good);
    let cases = [
        ("no type", put().body("{}"), 415, "unsupported_media_type"),
        (
            "a form",
            put().header("content-type", "application/x-www-form-urlencoded").body("id=one"),
            415,
            "unsupported_media_type",
        ),
        (
            "compressed",
            json_body(put(), "{}").header("content-encoding", "gzip"),
            415,
            "unsupported_content_encoding",
        ),
        ("another id", put().json(&json!({ "id": "two", "lane": "lane" })), 400, "id_mismatch"),
        ("another key", put().json(&json!({ "id": "one", "lane": "other" })), 400, "partition_key_mismatch"),
        ("no key", put().json(&json!({ "id": "one" })), 400, "partition_key_mismatch"),
        ("a bad condition", put().json(&good).header("if-match", "unquoted"), 400, "invalid_precondition"),
        ("a failed condition", put().json(&good).header("if-match", "*"), 412, "precondition_failed"),
        ("an unknown route", server.request(Method::GET, "/freight/v2/loads"), 404, "route_not_found"),
        ("the root", server.request(Method::GET, "/"), 404, "route_not_found"),
        ("another method", server.request(Method::PATCH, ONE).json(&good), 405, "method_not_allowed"),
        (
            "no such method",
            server.request(Method::from_bytes(b"BREW").unwrap(), ONE),
            405,
            "method_not_allowed",
        ),
        (
            "a path upwards",
            server.request(Method::GET, "/freight/v1/loads/lane/..%2f..%2fetc%2fpasswd"),
            400,
            "invalid_id",
        ),
        ("NUL in a path", server.request(Method::GET, "/freight/v1/loads/lane/a%00b"), 400, "invalid_path"),
        ("half an escape", server.request(Method::GET, "/freight/v1/loads/lane/%4"), 400, "invalid_path"),
        ("overlong UTF-8", server.request(Method::GET, "/freight/v1/loads/lane/%c0%ae"), 400, "invalid_path"),
        (
            "a long id in a path",
            server.request(Method::GET, &format!("/freight/v1/loads/lane/{}", "x".repeat(4096))),
            400,
            "invalid_id",
        ),
        ("a long path", server.request(Method::GET, &format!("/{}", "x".repeat(9000))), 414, "uri_too_long"),
        (
            "long headers",
            server.request(Method::GET, ONE).header("x-long", "x".repeat(17_000)),
            431,
            "headers_too_large",
        ),
        (
            "a bad continuation",
            server.request(Method::GET, "/freight/v1/loads/lane?continuation=nonsense"),
            400,
            "invalid_continuation",
        ),
        ("a bad limit", server.request(Method::GET, "/freight/v1/loads/lane?limit=0"), 400, "invalid_query"),
        ("no api key", anonymous(), 401, "missing_key"),
        ("a wrong api key", anonymous().header("x-api-key", "lk_nobody-has-this-key"), 401, "invalid_key"),
        ("two api keys", anonymous().header("x-api-key", KEY).header("x-api-key", KEY), 401, "invalid_key"),
        ("an expired api key", anonymous().header("x-api-key", EXPIRED_KEY), 401, "key_expired"),
        ("a key of another product", anonymous().header("x-api-key", NOTES_KEY), 401, "invalid_key"),
    ];
    for (what, request, status, code) in cases {
        let refused = answer(request).await;
        is_problem(&refused, status, code, what);
        assert_eq!(refused.header("www-authenticate").is_empty(), status != 401, "{what}");
        assert_eq!(refused.header("allow").is_empty(), status != 405, "{what}");
    }
}

/// What a client library would not send.
async fn refuse_bytes(server: &Server) {
    let head = |rest: &str| {
        let host = server.gateway.strip_prefix("http://").unwrap();
        format!(
            "POST {LOADS} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n{rest}"
        )
    };
    let announced =
        server.raw(head(&format!("content-length: {}\r\n\r\n", BODY_MAX + 1)).as_bytes(), TOO_LARGE).await;
    assert!(announced.starts_with("HTTP/1.1 413 ") && announced.contains(TOO_LARGE), "{announced}");
    let mut chunked = head("transfer-encoding: chunked\r\n\r\n").into_bytes();
    let chunk = " ".repeat(0x4000);
    for _ in 0..5 {
        chunked.extend_from_slice(format!("4000\r\n{chunk}\r\n").as_bytes());
    }
    let chunked = server.raw(&chunked, TOO_LARGE).await;
    assert!(chunked.starts_with("HTTP/1.1 413 ") && chunked.contains(TOO_LARGE), "{chunked}");
    // Two lengths, or a length and chunks, could be read in two ways: the classic way to smuggle a request.
    let body = r#"{"id":"one","lane":"lane"}"#;
    let length = body.len();
    for rest in [
        format!("content-length: {length}\r\ncontent-length: {}\r\n\r\n{body}", length - 1),
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
        format!("transfer-encoding: nonsense\r\n\r\n{body}"),
    ] {
        let smuggled = server.raw(head(&rest).as_bytes(), "\r\n\r\n").await;
        assert!(smuggled.starts_with("HTTP/1.1 400 "), "{rest}\n{smuggled}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_and_nothing_is_written() {
    let house = project::house("body: 64KiB", "");
    let server = house.start().await;
    for (what, body, status, code) in bodies() {
        let refused = answer(json_body(server.request(Method::POST, LOADS), body)).await;
        is_problem(&refused, status, code, what);
    }
    refuse_heads(&server).await;
    refuse_bytes(&server).await;
    for lane in ["lane", "other", "x"] {
        let list = server.get(&format!("{LOADS}/{lane}")).await;
        assert_eq!((list.status, &list.body["count"]), (200, &json!(0)), "{}", list.text);
    }
    assert!(server.stop().await.success());
    assert!(house.verb(&["verify", "data"]).status.success());
}

#[tokio::test]
async fn another_tenants_partition_looks_like_one_that_is_not_there() {
    let house = project::house("", "");
    let server = house.start().await;
    let as_other = |method, path: &str| server.anonymous(method, path).header("x-api-key", OTHER_KEY);
    let mine = json!({ "id": "one", "owner": "ann", "text": "mine" });
    let created = server.send(Method::POST, "/notes", &mine).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let theirs = answer(as_other(Method::GET, "/notes/ann/one")).await;
    is_problem(&theirs, 404, "document_not_found", "read");
    let absent = answer(as_other(Method::GET, "/notes/bob/one")).await;
    let same = |answer: &Answer| {
        let mut body = answer.body.clone();
        body.as_object_mut().unwrap().retain(|name, _| name != "trace_id" && name != "instance");
        (answer.status, body)
    };
    assert_eq!(same(&theirs), same(&absent));
    let list = answer(as_other(Method::GET, "/notes/ann")).await;
    assert_eq!((list.status, &list.body["count"]), (200, &json!(0)));
    let replaced = answer(as_other(Method::PUT, "/notes/ann/one").json(&mine)).await;
    is_problem(&replaced, 404, "document_not_found", "replace");
    let deleted = answer(as_other(Method::DELETE, "/notes/ann/one")).await;
    is_problem(&deleted, 404, "document_not_found", "delete");
    // The same names are free for the other tenant.
    let theirs = answer(as_other(Method::POST, "/notes").json(&json!({ "id": "one", "owner": "ann" }))).await;
    assert_eq!(theirs.status, 201, "{}", theirs.text);
    let read = server.get("/notes/ann/one").await;
    assert_eq!((read.status, &read.body["text"]), (200, &json!("mine")));
    assert_eq!(read.header("etag"), created.header("etag"));
}
