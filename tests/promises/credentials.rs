//! Who has no credential, or one for something else, gets nothing: on the public listener nor on the private one. The
//! cases are made from what the server says of itself.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::apart::{
    CANARY, EXPIRED_KEY, ISOLATED, NARROW_KEY, Place, SEEDED, declared, house, kept, requests, seed,
};
use super::server::{KEY, TOKEN, answer};

#[tokio::test]
async fn no_operation_answers_who_may_not_call_it() {
    let house = house();
    let server = house.start().await;
    let place = Place::new("acme", 1);
    let operations = declared(&server).await;
    for (container, _) in ISOLATED {
        let read = operations
            .iter()
            .find(|found| found.verb == "read" && found.container.as_deref() == Some(container));
        seed(&server, read.unwrap(), &place, 1).await;
    }
    for operation in operations {
        let container = operation.container.clone();
        let before = match &container {
            Some(container) => kept(&server, container, &place).await,
            None => String::new(),
        };
        let credentials = [
            ("no key", None, "missing_key"),
            ("an unknown key", Some(("x-api-key", "lk_nobody-has-this-key")), "invalid_key"),
            ("an expired key", Some(("x-api-key", EXPIRED_KEY)), "key_expired"),
            ("a key of another product", Some(("x-api-key", NARROW_KEY)), "invalid_key"),
            ("the operator's token", Some(("x-api-key", TOKEN)), "invalid_key"),
        ];
        for (who, credential, code) in credentials {
            if container.is_none() && credential.is_some_and(|(_, key)| key == NARROW_KEY) {
                continue;
            }
            // The key of the case is the empty one, and gives way to that which is tried.
            for request in requests(&server, &operation, "", &place, SEEDED[0], "mine") {
                let (client, request) = request.build_split();
                let mut request = request.unwrap();
                request.headers_mut().remove("x-api-key");
                if let Some((name, key)) = credential {
                    request.headers_mut().insert(name, key.parse().unwrap());
                }
                let refused = answer(RequestBuilder::from_parts(client, request)).await;
                let what = format!("{} {} with {who}", operation.method, operation.route);
                assert_eq!(refused.refused(), (401, code), "{what}: {}", refused.text);
                assert!(!refused.text.contains(CANARY), "{what}: {}", refused.text);
            }
        }
        if let Some(container) = &container {
            assert_eq!(
                kept(&server, container, &place).await,
                before,
                "{} {}",
                operation.method,
                operation.route
            );
        }
    }
    assert!(server.stop().await.success());
}

/// Operations of the admin API: method, path, and whether a token is asked for.
fn described(description: &Value) -> Vec<(Method, String, bool)> {
    let mut found = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
        {
            let open = operation.get("security").is_some_and(|security| security == &json!([]));
            found.push((method.to_uppercase().parse().unwrap(), path.clone(), open));
            if method == "get" {
                found.push((Method::HEAD, path.clone(), open));
            }
        }
    }
    found
}

#[tokio::test]
async fn no_public_credential_opens_the_admin_api() {
    let house = house();
    let server = house.start().await;
    let place = Place::new("acme", 1);
    let operations = declared(&server).await;
    let read =
        operations.iter().find(|found| found.verb == "read" && found.container.as_deref() == Some("notes"));
    seed(&server, read.unwrap(), &place, 1).await;
    let key = server.ask("/v1/keys").await.body["keys"][0]["id"].as_str().unwrap().to_owned();
    let state = async || {
        let mut state = kept(&server, "notes", &place).await;
        for path in ["/v1/keys", "/v1/manifest", "/v1/subscriptions/nobody"] {
            let shown = server.ask(path).await;
            assert_eq!(shown.status, 200, "{path}");
            state += &json!([shown.body, shown.body["state"]]).to_string();
        }
        state
    };
    let before = state().await;
    let routes = described(&server.ask("/openapi.json").await.body);
    assert!(routes.len() > 30, "{routes:?}");
    let mut open = BTreeSet::new();
    for (method, template, is_open) in routes {
        let path = template
            .replace("{key}", &key)
            .replace("{container}", "notes")
            .replace("{subscription}", "nobody");
        assert!(!path.contains('{'), "nobody knows what to put into `{path}`");
        let bare = |base: &str| {
            reqwest::Client::builder()
                .no_proxy()
                .build()
                .unwrap()
                .request(method.clone(), format!("{base}{path}"))
        };
        let with_body = |request: RequestBuilder| {
            if method == Method::POST {
                request.json(&json!({ "all": true, "product": "all", "tenant": "acme" }))
            } else {
                request
            }
        };
        let admin = |add: fn(RequestBuilder) -> RequestBuilder| with_body(add(bare(&server.admin)));
        let tries: [(&str, RequestBuilder); 7] = [
            ("no token", admin(|request| request)),
            ("a key as the token", admin(|request| request.bearer_auth(KEY))),
            ("a key", admin(|request| request.header("x-api-key", KEY))),
            ("a subscription key", admin(|request| request.header("ocp-apim-subscription-key", KEY))),
            ("a key for a password", admin(|request| request.basic_auth("admin", Some(KEY)))),
            ("the token where keys stand", admin(|request| request.header("x-api-key", TOKEN))),
            ("an empty token", admin(|request| request.bearer_auth(""))),
        ];
        for (who, request) in tries {
            let found = answer(request).await;
            let what = format!("{method} {path} with {who}: {} {}", found.status, found.text);
            if is_open {
                open.insert(template.clone());
                assert_eq!(found.status, 200, "{what}");
                assert!(!found.text.contains(CANARY) && !found.text.contains("acme"), "{what}");
            } else {
                assert_eq!(found.status, 401, "{what}");
                // An answer to HEAD has no text to look at.
                assert!(method == Method::HEAD || found.refused().1.ends_with("_token"), "{what}");
            }
        }
        // Nor is any of it on the public listener, whoever asks.
        for request in
            [bare(&server.gateway).header("x-api-key", KEY), bare(&server.gateway).bearer_auth(TOKEN)]
        {
            let found = answer(with_body(request)).await;
            assert_eq!(found.status, 404, "{method} {path} on the public listener: {}", found.text);
        }
        if method == Method::GET && !is_open {
            let found = answer(server.operator(method.clone(), &path)).await;
            assert_eq!(found.status, 200, "{path} with the token: {}", found.text);
        }
    }
    assert_eq!(open, BTreeSet::from(["/healthz", "/readyz", "/metrics"].map(str::to_owned)));
    assert_eq!(state().await, before, "something was done");
    assert!(server.stop().await.success());
}
