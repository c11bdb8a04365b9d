//! Who may call, and how much: keys and tokens together, products, limits, quotas, addresses.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use super::bad_input::is_problem;
use super::server::{Answer, House, KEY, Server, answer};

const SECRET: &str = "a-secret-of-the-issuer-with-more-than-32-bytes";

const MANIFEST: &str = r#"
manifest: 1
project: callers
server: { shards: 1 }
named_values: { issuer: { secret: { env: ISSUER } } }
identities:
  staff:
    issuer: https://login.example
    secrets: [{ secret: "{{issuer}}" }]
    audience: [api]
    algorithms: [HS256]
    tenant_claim: tid
containers:
  notes: { partition_key: [/topic], tenancy: isolated }
apis:
  notes:
    path: /notes
    operations:
      create: { method: POST, path: /, to: { container: notes, do: create } }
      read: { method: GET, path: "/{topic}/{id}", to: { container: notes, do: read, partition: "{topic}", id: "{id}" } }
  free: { path: /free, key: none, operations: { ping: { method: GET, path: /ping, to: { mock: { status: 200, body: {} } } } } }
  far: { path: /far, operations: { ping: { method: GET, path: /ping, to: { mock: { status: 200 } } } } }
  old:
    path: /old
    errors: apim
    operations: { ping: { method: GET, path: /ping, to: { mock: { status: 200 } } } }
  narrow:
    path: /narrow
    operations:
      few: { method: GET, path: /few, to: { mock: { status: 200 } }, rate: { calls: 2, per: 1h, algorithm: sliding, by: "header:x-team" } }
products:
  main: { apis: [notes, narrow], concurrency: 100 }
  staff: { apis: [notes], key: none, jwt: { identity: staff, claims: { roles: { any: [ops] } } } }
  both: { apis: [far], key: header_or_query, jwt: { identity: staff } }
  elsewhere: { apis: [far], ip_deny: [127.0.0.0/8], approval: true }
  old: { apis: [old], rate: { calls: 2, per: 1h }, quota: { calls: 100, per: day } }
  metered: { apis: [narrow], quota: { calls: 3, per: day } }
api_keys:
  main: { product: main, tenant: acme, primary: { env: MAIN } }
"#;

fn house() -> House {
    House::new(MANIFEST).with("ISSUER", SECRET)
}

/// A token of the issuer with these claims and the usual ones.
fn token(claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({ "iss": "https://login.example", "aud": "api", "exp": now + 600, "sub": "u1" });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    jsonwebtoken::encode(&Header::default(), &all, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = server.anonymous(Method::GET, path);
    answer(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn issue(server: &Server, body: Value) -> (String, String) {
    let issued = answer(server.operator(Method::POST, "/v1/keys").json(&body)).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    let text = |name: &str| issued.body[name].as_str().unwrap().to_owned();
    (text("id"), text("primary"))
}

#[tokio::test]
async fn a_token_opens_its_product_and_names_the_tenant_whose_data_is_seen() {
    let house = house();
    let server = house.start().await;
    let bearer = |claims: &Value| format!("Bearer {}", token(claims));
    let ops = bearer(&json!({ "tid": "acme", "roles": ["ops"] }));
    let note = json!({ "id": "1", "topic": "t", "text": "ours" });
    let made = server.anonymous(Method::POST, "/notes").header("authorization", &ops).json(&note);
    assert_eq!(answer(made).await.status, 201);
    let seen = get(&server, "/notes/t/1", &[("authorization", &ops)]).await;
    assert_eq!((seen.status, &seen.body["text"]), (200, &json!("ours")));
    // The key of the same tenant sees the same documents, a token of another tenant none of them.
    assert_eq!(get(&server, "/notes/t/1", &[("x-api-key", KEY)]).await.status, 200);
    let other = bearer(&json!({ "tid": "other", "roles": ["ops"] }));
    assert_eq!(get(&server, "/notes/t/1", &[("authorization", &other)]).await.status, 404);
    // What a caller says of its tenant by itself counts for nothing.
    let spoofed = [("authorization", &*other), ("x-tenant", "acme"), ("x-jwt-tid", "acme")];
    assert_eq!(get(&server, "/notes/t/1", &spoofed).await.status, 404);
    for (claims, code) in [
        (json!({ "tid": "acme", "roles": ["guest"] }), "token_claim_required"),
        (json!({ "tid": "acme" }), "token_claim_required"),
        (json!({ "roles": ["ops"] }), "token_tenant_missing"),
        (json!({ "tid": "acme", "roles": ["ops"], "exp": 1 }), "token_expired"),
        (json!({ "tid": "acme", "roles": ["ops"], "aud": "x" }), "token_audience_refused"),
        (json!({ "tid": "acme", "roles": ["ops"], "iss": "x" }), "token_issuer_unknown"),
    ] {
        let refused = get(&server, "/notes/t/1", &[("authorization", &bearer(&claims))]).await;
        is_problem(&refused, 401, code, code);
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
    }
    is_problem(&get(&server, "/notes/t/1", &[]).await, 401, "missing_token", "no token");
    let twice = get(&server, "/notes/t/1", &[("authorization", &ops), ("authorization", &ops)]).await;
    is_problem(&twice, 400, "authorization_repeated", "two tokens");
}

#[tokio::test]
async fn a_product_may_ask_for_a_key_and_a_token_of_the_same_tenant() {
    let house = house();
    let server = house.start().await;
    let (_, key) = issue(&server, json!({ "product": "both", "tenant": "acme" })).await;
    let ours = format!("Bearer {}", token(&json!({ "tid": "acme" })));
    let theirs = format!("Bearer {}", token(&json!({ "tid": "other" })));
    let call = async |headers: &[(&str, &str)]| get(&server, "/far/ping", headers).await;
    assert_eq!(call(&[("x-api-key", &key), ("authorization", &ours)]).await.status, 200);
    is_problem(&call(&[("x-api-key", &key)]).await, 401, "missing_token", "no token");
    is_problem(&call(&[("authorization", &ours)]).await, 401, "missing_key", "no key");
    let mixed = call(&[("x-api-key", &key), ("authorization", &theirs)]).await;
    is_problem(&mixed, 403, "tenant_mismatch", "two tenants");
    let in_query =
        get(&server, &format!("/far/ping?subscription-key={key}"), &[("authorization", &ours)]).await;
    assert_eq!(in_query.status, 200);
    assert!(!house.log().contains(&key), "a key in the query stays out of the log");
}

#[tokio::test]
async fn an_open_api_needs_no_key_and_judges_one_all_the_same() {
    let house = house();
    let server = house.start().await;
    assert_eq!(get(&server, "/free/ping", &[]).await.status, 200);
    let wrong = get(&server, "/free/ping", &[("x-api-key", "not-a-key-of-anybody")]).await;
    is_problem(&wrong, 401, "invalid_key", "a wrong key");
    is_problem(&get(&server, "/free/ping", &[("x-api-key", KEY)]).await, 401, "invalid_key", "another's key");
    for scope in
        [json!({ "api": "free" }), json!({ "access": "all_apis" }), json!({ "access": "all_access" })]
    {
        let mut body = json!({ "tenant": "acme" });
        body.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        let (_, key) = issue(&server, body).await;
        assert_eq!(get(&server, "/free/ping", &[("x-api-key", &key)]).await.status, 200, "{scope}");
    }
}

#[tokio::test]
async fn a_key_waits_for_its_approval_is_suspended_and_resumed() {
    let house = house();
    let server = house.start().await;
    let wanted = json!({ "product": "elsewhere", "tenant": "acme", "submit": true });
    let (id, key) = issue(&server, wanted).await;
    let call = async || get(&server, "/far/ping", &[("x-api-key", &key)]).await;
    is_problem(&call().await, 401, "key_inactive", "submitted");
    let step =
        async |step: &str| answer(server.operator(Method::POST, &format!("/v1/keys/{id}:{step}"))).await;
    let wrong = step("suspend").await;
    is_problem(&wrong, 409, "invalid_standing", "nothing runs yet");
    assert_eq!(step("approve").await.body["state"], "active");
    is_problem(&call().await, 403, "address_refused", "the product is not sold to this address");
    assert_eq!(step("suspend").await.body["state"], "suspended");
    is_problem(&call().await, 401, "key_inactive", "suspended");
    let output = house.verb(&["keys", "--admin", &server.admin, "resume", &id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_problem(&call().await, 403, "address_refused", "resumed");
}

#[tokio::test]
async fn limits_of_an_operation_count_by_what_they_say() {
    let house = house();
    let server = house.start().await;
    let call = async |team: &str| get(&server, "/narrow/few", &[("x-api-key", KEY), ("x-team", team)]).await;
    for team in ["a", "a", "b"] {
        let answer = call(team).await;
        assert_eq!(answer.status, 200, "{team}");
        assert_eq!(answer.headers["ratelimit-policy"], r#""api-narrow-few";q=2;w=3600"#);
    }
    let refused = call("a").await;
    is_problem(&refused, 429, "rate_limited", "the third of a");
    assert_eq!(refused.body["violated-policies"], json!(["api-narrow-few"]));
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 1_800);
    assert_eq!(call("b").await.status, 200);
}

#[tokio::test]
async fn a_quota_says_when_it_is_filled_and_survives_a_restart() {
    let house = house();
    let server = house.start().await;
    let (_, key) = issue(&server, json!({ "product": "metered", "tenant": "acme" })).await;
    let call = async |server: &Server| get(server, "/narrow/few", &[("x-api-key", &key)]).await;
    for _ in 0..2 {
        assert_eq!(call(&server).await.status, 200);
    }
    // This one is refused by the rate of the operation, and so is not counted.
    is_problem(&call(&server).await, 429, "rate_limited", "the operation's own limit");
    server.stop().await;
    let server = house.start().await;
    assert_eq!(call(&server).await.status, 200);
    let refused = call(&server).await;
    is_problem(&refused, 403, "quota_exceeded", "the fourth");
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 86_400);
    assert!(refused.body["detail"].as_str().unwrap().starts_with("Out of call volume quota. Quota will be"));
}

#[tokio::test]
async fn refusals_can_have_the_words_of_api_management() {
    let house = house();
    let server = house.start().await;
    let (_, key) = issue(&server, json!({ "product": "old", "tenant": "acme" })).await;
    let call = async |headers: &[(&str, &str)]| get(&server, "/old/ping", headers).await;
    let missing = call(&[]).await;
    let text = "Access denied due to missing subscription key. Make sure to include subscription key when making requests to an API.";
    assert_eq!((missing.status, missing.body), (401, json!({ "statusCode": 401, "message": text })));
    let realm = missing.headers["www-authenticate"].to_str().unwrap().to_owned();
    let gateway = &server.gateway;
    assert_eq!(
        realm,
        format!(
            r#"AzureApiManagementKey realm="{gateway}/old",name="Ocp-Apim-Subscription-Key",type="header""#
        )
    );
    let invalid = call(&[("Ocp-Apim-Subscription-Key", "not-a-key-of-anybody")]).await;
    let text = "Access denied due to invalid subscription key. Make sure to provide a valid key for an active subscription.";
    assert_eq!((invalid.status, invalid.body), (401, json!({ "statusCode": 401, "message": text })));
    for _ in 0..2 {
        assert_eq!(call(&[("Ocp-Apim-Subscription-Key", &key)]).await.status, 200);
    }
    let limited = call(&[("Ocp-Apim-Subscription-Key", &key)]).await;
    let wait = limited.headers["retry-after"].to_str().unwrap();
    let text = format!("Rate limit is exceeded. Try again in {wait} seconds.");
    assert_eq!((limited.status, &limited.body), (429, &json!({ "statusCode": 429, "message": text })));
}
