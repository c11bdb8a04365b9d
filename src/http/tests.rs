//! Requests through the handlers, on a real data directory.

use std::net::SocketAddr;
use std::rc::Rc;

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::test::{TestRequest, init_service};
use actix_web::web::{self, Data};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use lanekeeper_actors::gateway::GatewayHandle;
use serde_json::{Value, json};

use super::*;
use crate::app::testing::{House, KEY, TOKEN};

const LOADS: &str = "/freight/v1/loads";

/// An answer, read whole.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    fn refused(&self) -> (u16, &str) {
        (self.status, self.code())
    }
}

/// A listener's handler.
type Listener = Box<dyn Fn(TestRequest) -> LocalBoxFuture<'static, Answer>>;

macro_rules! listener {
    ($app:expr) => {{
        let service = Rc::new(init_service($app).await);
        let listener: Listener = Box::new(move |request| {
            let peer: SocketAddr = "192.0.2.1:5000".parse().unwrap();
            let answer = service.call(request.peer_addr(peer).to_request());
            async move {
                let (_, response) = answer.await.unwrap().into_parts();
                let (head, body) = response.into_parts();
                let body = to_bytes(body).await.ok().unwrap();
                let text = || Value::String(String::from_utf8(body.to_vec()).unwrap());
                let body = if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body).unwrap_or_else(|_| text())
                };
                Answer { status: head.status().as_u16(), headers: head.headers().clone(), body }
            }
            .boxed_local()
        });
        listener
    }};
}

async fn service(house: &House) -> Listener {
    let admission = Data::new(GatewayHandle::start(house.admin.gateway.clone()));
    let app = App::new().app_data(house.gateway.clone()).app_data(admission);
    listener!(app.default_service(web::to(gateway::serve)))
}

async fn admin_service(house: &House) -> Listener {
    listener!(App::new().app_data(house.admin.clone()).default_service(web::to(admin::serve)))
}

async fn call(listener: &Listener, request: TestRequest) -> Answer {
    listener(request).await
}

fn request(method: Method, uri: &str) -> TestRequest {
    TestRequest::default().method(method).uri(uri).insert_header(("x-api-key", KEY))
}

fn get(uri: &str) -> TestRequest {
    request(Method::GET, uri)
}

fn send(method: Method, uri: &str, body: &Value) -> TestRequest {
    raw(method, uri, body.to_string())
}

fn raw(method: Method, uri: &str, body: impl Into<web::Bytes>) -> TestRequest {
    request(method, uri).insert_header(("content-type", "application/json")).set_payload(body)
}

fn post(uri: &str, body: &Value) -> TestRequest {
    send(Method::POST, uri, body)
}

fn put(uri: &str, body: &Value) -> TestRequest {
    send(Method::PUT, uri, body)
}

fn ask(method: Method, uri: &str) -> TestRequest {
    let token = ("authorization", format!("Bearer {TOKEN}"));
    TestRequest::default().method(method).uri(uri).insert_header(token)
}

#[actix_web::test]
async fn a_document_lives_its_life_over_http() {
    let house = House::new().await;
    let service = service(&house).await;
    let created = call(&service, post(LOADS, &json!({ "id": "l-1", "lane": "OSL-BER", "weight": 5 }))).await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.header("location"), "/freight/v1/loads/OSL-BER/l-1");
    assert_eq!(created.body["_etag"], created.header("etag"));
    assert!(created.body["_lsn"].is_u64() && created.body["_ts"].is_u64());
    let path = created.header("location").to_owned();
    let read = call(&service, get(&path)).await;
    assert_eq!((read.status, &read.body), (200, &created.body));
    let head = call(&service, request(Method::HEAD, &path)).await;
    assert_eq!((head.status, head.header("etag")), (200, read.header("etag")));
    let replaced = call(&service, put(&path, &json!({ "lane": "OSL-BER", "weight": 6 }))).await;
    assert_eq!((replaced.status, &replaced.body["id"]), (200, &json!("l-1")));
    assert_ne!(replaced.header("etag"), read.header("etag"));
    let again = call(&service, post(LOADS, &json!({ "id": "l-1", "lane": "OSL-BER" }))).await;
    assert_eq!(again.refused(), (409, "document_exists"));
    let deleted = call(&service, request(Method::DELETE, &path)).await;
    assert_eq!((deleted.status, deleted.body), (204, Value::Null));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(call(&service, request(method, &path)).await.refused(), (404, "document_not_found"));
    }
    let upserted = call(&service, put(&path, &json!({ "id": "l-1", "lane": "OSL-BER" }))).await;
    assert_eq!((upserted.status, upserted.header("location")), (201, path.as_str()));
    house.drain().await;
}

#[actix_web::test]
async fn conditions_are_honoured() {
    let house = House::new().await;
    let service = service(&house).await;
    let body = json!({ "id": "l-1", "lane": "a" });
    let path = "/freight/v1/loads/a/l-1";
    let first = call(&service, post(LOADS, &body)).await.header("etag").to_owned();
    let with = |request: TestRequest, name: &'static str, value: &str| request.insert_header((name, value));
    let same = call(&service, with(get(path), "if-none-match", &first)).await;
    assert_eq!(
        (same.status, same.body, same.headers.get("etag").unwrap().to_str().unwrap()),
        (304, Value::Null, first.as_str())
    );
    assert_eq!(
        call(&service, with(get(path), "if-match", "\"0-0\"")).await.refused(),
        (412, "precondition_failed")
    );
    let second = call(&service, with(put(path, &body), "if-match", &first)).await;
    assert_eq!(second.status, 200);
    for request in [
        with(put(path, &body), "if-match", &first),
        with(request(Method::DELETE, path), "if-match", &first),
        with(put(path, &body), "if-none-match", "*"),
    ] {
        assert_eq!(call(&service, request).await.refused(), (412, "precondition_failed"));
    }
    let malformed = call(&service, with(put(path, &body), "if-match", "nonsense")).await;
    assert_eq!(malformed.refused(), (400, "invalid_precondition"));
    let missing = call(
        &service,
        with(send(Method::PUT, "/freight/v1/swaps/a/none", &json!({"lane": "a"})), "if-match", "*"),
    )
    .await;
    assert_eq!(missing.refused(), (404, "document_not_found"));
    house.drain().await;
}

#[actix_web::test]
async fn a_list_is_read_in_pages_and_only_with_its_own_continuation() {
    let house = House::new().await;
    let service = service(&house).await;
    for n in 0..5 {
        let lane = if n == 4 { "other" } else { "a" };
        assert_eq!(
            call(&service, post(LOADS, &json!({ "id": format!("l-{n}"), "lane": lane }))).await.status,
            201
        );
    }
    let first = call(&service, get("/freight/v1/loads/a?limit=3")).await;
    assert_eq!((first.status, &first.body["count"]), (200, &json!(3)));
    assert_eq!(first.body["documents"][0]["id"], "l-0");
    let token = first.header("x-continuation").to_owned();
    assert!(!token.is_empty());
    let by_query = get(&format!("/freight/v1/loads/a?limit=3&continuation={token}"));
    let by_header = get("/freight/v1/loads/a").insert_header(("x-continuation", token.clone()));
    for rest in [by_query, by_header] {
        let rest = call(&service, rest).await;
        assert_eq!(rest.body["documents"].as_array().unwrap().len(), 1);
        assert_eq!(
            (rest.body["documents"][0]["id"].as_str(), rest.header("x-continuation")),
            (Some("l-3"), "")
        );
    }
    let foreign = call(&service, get(&format!("/freight/v1/loads/other?continuation={token}"))).await;
    assert_eq!(foreign.refused(), (400, "invalid_continuation"));
    for query in ["limit=0", "limit=x", "limit=-1", "limit=", "limit=1.5"] {
        let refused = call(&service, get(&format!("/freight/v1/loads/a?{query}"))).await;
        assert_eq!(refused.refused(), (400, "invalid_query"), "{query}");
    }
    let bounded = call(&service, get("/freight/v1/loads/a?limit=99999999999")).await;
    assert_eq!(bounded.body["count"], 4);
    let empty = call(&service, get("/freight/v1/loads/nothing")).await;
    assert_eq!(empty.body, json!({ "documents": [], "count": 0 }));
    house.drain().await;
}

#[actix_web::test]
async fn bad_input_is_refused_and_nothing_is_written() {
    let house = House::new().await;
    let service = service(&house).await;
    let path = "/freight/v1/loads/a/l-1";
    let deep = format!("{{\"id\":\"d\",\"lane\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let large = format!("{{\"id\":\"d\",\"lane\":\"a\",\"x\":\"{}\"}}", "x".repeat(70_000));
    for (name, request, expected) in [
        ("json", raw(Method::POST, LOADS, "{\"id\":"), (400, "invalid_json")),
        ("empty", raw(Method::POST, LOADS, ""), (400, "invalid_json")),
        ("number", raw(Method::POST, LOADS, "{\"id\":\"a\",\"x\":1e999}"), (400, "invalid_json")),
        ("array", raw(Method::POST, LOADS, "[]"), (400, "not_an_object")),
        ("twice", raw(Method::POST, LOADS, "{\"id\":\"a\",\"id\":\"b\"}"), (400, "duplicate_property")),
        ("deep", raw(Method::POST, LOADS, deep), (400, "json_too_deep")),
        ("large", raw(Method::POST, LOADS, large), (413, "body_too_large")),
        ("nul in id", post(LOADS, &json!({ "id": "a\0b", "lane": "a" })), (400, "invalid_id")),
        ("slash in id", post(LOADS, &json!({ "id": "../../etc/passwd", "lane": "a" })), (400, "invalid_id")),
        ("dots", post(LOADS, &json!({ "id": "..", "lane": "a" })), (400, "invalid_id")),
        ("id type", post(LOADS, &json!({ "id": 5, "lane": "a" })), (400, "invalid_id")),
        ("key type", post(LOADS, &json!({ "id": "a", "lane": {} })), (400, "invalid_partition_key")),
        ("id in path", put(path, &json!({ "id": "l-2", "lane": "a" })), (400, "id_mismatch")),
        ("key in path", put(path, &json!({ "id": "l-1", "lane": "b" })), (400, "partition_key_mismatch")),
        ("no key", put(path, &json!({ "id": "l-1" })), (400, "partition_key_mismatch")),
        ("fixed key", post("/freight/v1/fixed", &json!({ "lane": "b" })), (400, "partition_key_mismatch")),
        ("encoded slash", get("/freight/v1/loads/a/..%2f..%2fetc"), (400, "invalid_id")),
        ("encoded dots", get("/freight/v1/loads/a/%2e%2e"), (400, "invalid_path")),
        ("encoded nul", get("/freight/v1/loads/a/x%00"), (400, "invalid_path")),
        ("encoding", get("/freight/v1/loads/a/%zz"), (400, "invalid_path")),
        ("nothing", get("/nothing"), (404, "route_not_found")),
        ("method", request(Method::PATCH, path), (405, "method_not_allowed")),
        (
            "type",
            raw(Method::POST, LOADS, "{}").insert_header(("content-type", "text/plain")),
            (415, "unsupported_media_type"),
        ),
        (
            "encoding",
            raw(Method::POST, LOADS, "{}").insert_header(("content-encoding", "gzip")),
            (415, "unsupported_content_encoding"),
        ),
        ("uri", get(&format!("/{}", "x".repeat(9_000))), (414, "uri_too_long")),
        ("headers", get(path).insert_header(("x-long", "x".repeat(20_000))), (431, "headers_too_large")),
    ] {
        let answer = call(&service, request).await;
        assert_eq!(answer.refused(), expected, "{name}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("traceparent").len(), 55);
        assert!(answer.header("traceparent").contains(answer.body["trace_id"].as_str().unwrap()));
    }
    assert_eq!(
        house.admin.system.shards().iter().map(|shard| shard.status().mutations).sum::<u64>(),
        house.seeded
    );
    house.drain().await;
}

#[actix_web::test]
async fn a_missing_id_is_made_and_system_properties_are_the_stores_own() {
    let house = House::new().await;
    let service = service(&house).await;
    let forged = json!({ "lane": "a", "_etag": "forged", "_lsn": 99, "_ts": 1 });
    let created = call(&service, post(LOADS, &forged)).await;
    let id = created.body["id"].as_str().unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    assert_eq!(created.body["_etag"], created.header("etag"));
    assert_eq!(call(&service, get(created.header("location"))).await.body, created.body);
    house.drain().await;
}

#[actix_web::test]
async fn a_preference_for_little_is_honoured() {
    let house = House::new().await;
    let service = service(&house).await;
    let body = json!({ "id": "l-1", "lane": "a" });
    let prefer = ("prefer", "respond-async, return=minimal");
    for (request, status) in [
        (post(LOADS, &body), 201),
        (put("/freight/v1/loads/a/l-1", &body), 204),
        (put("/freight/v1/loads/a/l-2", &json!({ "lane": "a" })), 201),
    ] {
        let answer = call(&service, request.insert_header(prefer)).await;
        assert_eq!((answer.status, &answer.body), (status, &Value::Null));
        assert_eq!(answer.header("preference-applied"), "return=minimal");
        assert!(answer.header("etag").starts_with('"'));
    }
    house.drain().await;
}

#[actix_web::test]
async fn one_tenant_cannot_see_another() {
    let house = House::new().await;
    let service = service(&house).await;
    let note = json!({ "id": "n", "owner": "shared", "text": "mine" });
    assert_eq!(call(&service, post("/notes", &note)).await.status, 201);
    let other = |request: TestRequest| request.insert_header(("x-api-key", "another-tenants-key-1"));
    for (request, expected) in [
        (get("/notes/shared/n"), (404, "document_not_found")),
        (request(Method::DELETE, "/notes/shared/n"), (404, "document_not_found")),
        (send(Method::PUT, "/notes/shared/n", &note), (404, "document_not_found")),
    ] {
        assert_eq!(call(&service, other(request)).await.refused(), expected);
    }
    assert_eq!(call(&service, other(get("/notes/shared"))).await.body["count"], 0);
    assert_eq!(call(&service, other(post("/notes", &note))).await.status, 201, "each has its own");
    assert_eq!(call(&service, get("/notes/shared/n")).await.body["text"], "mine");
    house.drain().await;
}

#[actix_web::test]
async fn only_keys_of_a_product_with_the_api_are_let_in() {
    let house = House::new().await;
    let service = service(&house).await;
    let path = "/freight/v1/ping";
    let anonymous = || TestRequest::default().uri(path);
    for (name, request, expected) in [
        ("none", anonymous(), (401, "missing_key")),
        ("wrong", anonymous().insert_header(("x-api-key", "0123456789abcdef")), (401, "invalid_key")),
        ("malformed", anonymous().insert_header(("x-api-key", "lk_x")), (401, "invalid_key")),
        (
            "other product",
            anonymous().insert_header(("x-api-key", "only-for-notes-key-1")),
            (401, "invalid_key"),
        ),
        ("twice", get(path).append_header(("x-api-key", KEY)), (401, "invalid_key")),
        (
            "in the query",
            TestRequest::default().uri(&format!("{path}?subscription-key={KEY}")),
            (401, "invalid_key"),
        ),
    ] {
        let answer = call(&service, request).await;
        assert_eq!(answer.refused(), expected, "{name}");
        assert!(answer.header("www-authenticate").starts_with("ApiKey "));
        assert!(!answer.body.to_string().contains(KEY));
    }
    for name in ["x-api-key", "Ocp-Apim-Subscription-Key"] {
        let answer = call(&service, anonymous().insert_header((name, KEY))).await;
        assert_eq!((answer.status, answer.body), (200, json!({ "ok": true })));
    }
    house.drain().await;
}

#[actix_web::test]
async fn a_rate_is_told_and_enforced() {
    let house = House::new().await;
    let service = service(&house).await;
    let ping = || {
        TestRequest::default().uri("/freight/v1/ping").insert_header(("x-api-key", "slow-callers-key-001"))
    };
    for left in [1, 0] {
        let answer = call(&service, ping()).await;
        assert_eq!((answer.status, answer.header("ratelimit-policy")), (200, "\"slow\";q=2;w=3600"));
        assert!(answer.header("ratelimit").starts_with(&format!("\"slow\";r={left};t=")));
    }
    let refused = call(&service, ping()).await;
    assert_eq!(refused.refused(), (429, "rate_limited"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=1_800).contains(&wait));
    assert!(refused.header("ratelimit").starts_with("\"slow\";r=0;t="));
    let other = call(&service, get("/freight/v1/ping")).await;
    assert_eq!((other.status, other.header("ratelimit")), (200, ""), "no rate, no header");
    house.drain().await;
}

#[actix_web::test]
async fn a_trace_goes_on_into_the_store() {
    let house = House::new().await;
    let service = service(&house).await;
    let incoming = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = post(LOADS, &json!({ "id": "t", "lane": "a" })).insert_header(("traceparent", incoming));
    let answer = call(&service, traced).await;
    let ours = answer.header("traceparent").to_owned();
    assert!(ours.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && ours != incoming);
    assert_eq!(house.traces(), [ours]);
    house.drain().await;
}

#[actix_web::test]
async fn the_admin_door_opens_to_its_token_only() {
    let house = House::new().await;
    let service = admin_service(&house).await;
    for uri in ["/healthz", "/readyz"] {
        assert_eq!(call(&service, TestRequest::default().uri(uri)).await.status, 200, "{uri}");
    }
    for uri in ["/v1/keys", "/v1/nothing", "/v1/shards", "/v1/manifest", "/elsewhere"] {
        let closed = call(&service, TestRequest::default().uri(uri).insert_header(("x-api-key", KEY))).await;
        assert_eq!(closed.refused(), (401, "invalid_token"), "{uri}");
    }
    assert_eq!(call(&service, ask(Method::GET, "/v1/nothing")).await.refused(), (404, "route_not_found"));
    let wrong = call(&service, ask(Method::PUT, "/v1/keys")).await;
    assert_eq!((wrong.refused(), wrong.header("allow")), ((405, "method_not_allowed"), "GET, HEAD, POST"));
    let manifest = call(&service, ask(Method::GET, "/v1/manifest")).await;
    assert_eq!(manifest.body["api_keys"][0], "main");
    assert!(!manifest.body.to_string().contains(KEY));
    house.drain().await;
}

#[actix_web::test]
async fn a_key_is_shown_once_and_works_until_it_is_rotated_or_revoked() {
    let house = House::new().await;
    let (admin, public) = (admin_service(&house).await, service(&house).await);
    let new = json!({ "product": "all", "tenant": "acme", "expires": "1d" });
    let issued = call(&admin, ask(Method::POST, "/v1/keys").set_json(&new)).await;
    assert_eq!((issued.status, issued.header("cache-control")), (201, "no-store"));
    let id = issued.body["id"].as_str().unwrap().to_owned();
    let (primary, secondary) =
        (issued.body["primary"].as_str().unwrap(), issued.body["secondary"].as_str().unwrap());
    let ping = |key: &str| TestRequest::default().uri("/freight/v1/ping").insert_header(("x-api-key", key));
    assert_eq!(call(&public, ping(primary)).await.status, 200);
    let listed = call(&admin, ask(Method::GET, "/v1/keys")).await.body.to_string();
    assert!(listed.contains(&id) && !listed.contains(primary) && !listed.contains(secondary));
    let rotated = call(
        &admin,
        ask(Method::POST, &format!("/v1/keys/{id}:rotate")).set_json(json!({ "slot": "secondary" })),
    )
    .await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    assert_eq!(call(&public, ping(secondary)).await.refused(), (401, "invalid_key"));
    assert_eq!(call(&public, ping(rotated.body["secondary"].as_str().unwrap())).await.status, 200);
    let revoked = call(&admin, ask(Method::DELETE, &format!("/v1/keys/{id}"))).await;
    assert_eq!((revoked.status, &revoked.body["state"]), (200, &json!("revoked")));
    assert_eq!(call(&public, ping(primary)).await.refused(), (401, "key_revoked"));
    for (request, expected) in [
        (
            ask(Method::POST, "/v1/keys").set_json(json!({ "product": "none", "tenant": "a" })),
            (400, "unknown_product"),
        ),
        (
            ask(Method::POST, "/v1/keys").set_json(json!({ "product": "all", "tenant": "a b" })),
            (400, "invalid_request"),
        ),
        (
            ask(Method::POST, "/v1/keys").set_json(json!({ "product": "all", "tenant": "a", "x": 1 })),
            (400, "invalid_request"),
        ),
        (ask(Method::POST, "/v1/keys").set_payload("{"), (400, "invalid_request")),
        (ask(Method::POST, "/v1/keys/main:rotate"), (409, "managed_by_manifest")),
        (ask(Method::DELETE, "/v1/keys/none"), (404, "key_not_found")),
    ] {
        assert_eq!(call(&admin, request).await.refused(), expected);
    }
    house.drain().await;
}

#[actix_web::test]
async fn subscriptions_and_dead_letters_are_managed() {
    let house = House::new().await;
    let (admin, public) = (admin_service(&house).await, service(&house).await);
    let subscription = "/v1/subscriptions/refusing";
    let letters = format!("{subscription}/dead-letters");
    for n in 0..3 {
        call(&public, post(LOADS, &json!({ "id": format!("d-{n}"), "lane": "a" }))).await;
    }
    house
        .until(|| async { call(&admin, ask(Method::GET, subscription)).await.body["dead_lettered"] == 3 })
        .await;
    let shown = call(&admin, ask(Method::GET, subscription)).await.body;
    assert_eq!((&shown["state"], &shown["retrying"]), (&json!("running"), &json!(0)));
    assert_eq!(shown["endpoint"], "http://127.0.0.1:9/hook");
    let page = call(&admin, ask(Method::GET, &format!("{letters}?limit=2"))).await.body;
    assert_eq!((&page["count"], &page["dead_letters"][0]["last_status"]), (&json!(2), &json!(400)));
    let after = page["continuation"].as_str().unwrap();
    let rest = call(&admin, ask(Method::GET, &format!("{letters}?continuation={after}"))).await.body;
    assert_eq!((&rest["count"], &rest["continuation"]), (&json!(1), &Value::Null));
    let id = rest["dead_letters"][0]["id"].as_str().unwrap();
    let purged = call(&admin, ask(Method::DELETE, &letters).set_json(json!({ "ids": [id] }))).await;
    assert_eq!(purged.body, json!({ "purged": 1 }));
    house.accept();
    let replayed =
        call(&admin, ask(Method::POST, &format!("{letters}:replay")).set_json(json!({ "all": true }))).await;
    assert_eq!(replayed.body, json!({ "replayed": 2 }));
    house.until(|| async { call(&admin, ask(Method::GET, subscription)).await.body["delivered"] == 2 }).await;
    let test = json!({ "event": { "type": "LoadCreated", "subject": "a/b" } });
    let tested =
        call(&admin, ask(Method::POST, &format!("{subscription}:test-filter")).set_json(&test)).await.body;
    assert_eq!((&tested["matches"], &tested["reasons"][0]["condition"]), (&json!(true), &json!("type")));
    let paused = call(&admin, ask(Method::POST, &format!("{subscription}:pause"))).await;
    assert_eq!(paused.body["state"], "paused");
    assert_eq!(
        call(&admin, ask(Method::POST, &format!("{subscription}:resume"))).await.body["state"],
        "running"
    );
    for (request, expected) in [
        (ask(Method::GET, "/v1/subscriptions/none"), (404, "subscription_not_found")),
        (ask(Method::POST, &format!("{letters}:replay")), (400, "invalid_request")),
        (ask(Method::GET, &format!("{letters}?continuation=x")), (400, "invalid_request")),
        (
            ask(Method::POST, &format!("{subscription}:test-filter")).set_json(json!({})),
            (400, "invalid_request"),
        ),
    ] {
        assert_eq!(call(&admin, request).await.refused(), expected);
    }
    house.drain().await;
}

#[actix_web::test]
async fn what_is_awake_is_shown_and_a_quarantine_can_be_ended() {
    let house = House::new().await;
    let (admin, public) = (admin_service(&house).await, service(&house).await);
    call(&public, post("/notes", &json!({ "id": "n", "owner": "me" }))).await;
    let actors = call(&admin, ask(Method::GET, "/v1/actors")).await.body;
    assert_eq!(actors["partitions_awake"], 1);
    let partition = &actors["partitions"][0];
    assert_eq!((&partition["container"], &partition["tenant"]), (&json!("notes"), &json!("acme")));
    assert_eq!((&partition["partition"], &partition["phase"]), (&json!(["me"]), &json!("open")));
    let reopen = |body: Value| ask(Method::POST, "/v1/actors:reopen").set_json(body);
    let known = json!({ "container": "notes", "tenant": "acme", "partition": ["me"] });
    assert_eq!(call(&admin, reopen(known)).await.body, json!({ "reopened": true }));
    let asleep = json!({ "container": "notes", "tenant": "other", "partition": ["me"] });
    assert_eq!(call(&admin, reopen(asleep)).await.refused(), (404, "partition_not_awake"));
    let nowhere = json!({ "container": "none", "partition": ["me"] });
    assert_eq!(call(&admin, reopen(nowhere)).await.refused(), (404, "container_not_found"));
    let shards = call(&admin, ask(Method::GET, "/v1/shards")).await.body;
    assert_eq!(
        (&shards["shards"][0]["phase"], shards["shards"].as_array().unwrap().len()),
        (&json!("open"), 2)
    );
    house.drain().await;
    let ready = call(&admin, TestRequest::default().uri("/readyz")).await;
    assert_eq!((ready.status, &ready.body["reasons"][0]), (503, &json!("shard 0 is closed")));
}

#[actix_web::test]
async fn metrics_tell_what_happened() {
    let house = House::new().await;
    let (admin, public) = (admin_service(&house).await, service(&house).await);
    call(&public, post(LOADS, &json!({ "id": "m", "lane": "a" }))).await;
    call(&public, TestRequest::default().uri("/freight/v1/ping")).await;
    call(&public, TestRequest::default().uri("/x/y/z")).await;
    let scraped = call(&admin, TestRequest::default().uri("/metrics")).await;
    assert_eq!(scraped.status, 200);
    let text = scraped.body.as_str().unwrap();
    for line in [
        r#"lanekeeper_requests_total{method="POST",route="/freight/v1/loads",status="2xx"} 1"#,
        r#"lanekeeper_requests_total{method="any",route="unmatched",status="4xx"} 1"#,
        r#"lanekeeper_request_seconds_count{method="POST",route="/freight/v1/loads"} 1"#,
        r#"lanekeeper_refusals_total{reason="missing_key"} 1"#,
        "lanekeeper_partitions_awake 1",
        r#"lanekeeper_shard_phase{shard="0",phase="open"} 1"#,
        r#"lanekeeper_shard_reopened_total{shard="1"} 0"#,
        r#"lanekeeper_subscription_lag_seconds{subscription="refusing"}"#,
        "lanekeeper_requests_in_flight 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains(KEY));
    house.drain().await;
}

#[actix_web::test]
async fn while_shutting_down_nothing_new_is_begun() {
    let house = House::new().await;
    let service = service(&house).await;
    house.gateway.flight.close();
    let answer = call(&service, get("/freight/v1/ping")).await;
    assert_eq!((answer.refused(), answer.header("retry-after")), ((503, "shutting_down"), "1"));
    house.drain().await;
}
