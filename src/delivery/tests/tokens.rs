//! Endpoints that want a token, and the servers that give tokens out, or do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lanekeeper_actors::model::delivery::OutcomeKind::{self, *};
use lanekeeper_actors::model::delivery::{Attempt, Credentials, Endpoint, Transport};
use lanekeeper_actors::model::secret::Secret;

use super::server::Server;
use super::{EMPTY_200, attempt_to, deliver_shortly, endpoint, webhooks};
use crate::delivery::check_endpoint;

fn credentials(token_url: &str) -> Credentials {
    Credentials::OAuth2 {
        token_url: token_url.to_owned(),
        client_id: "lane:keeper".to_owned(),
        client_secret: Secret::from("hush hush"),
        scope: Some("events.write https://x/.default".to_owned()),
        audience: None,
    }
}

fn guarded(url: &str, token_url: &str) -> Endpoint {
    let mut endpoint = endpoint(url);
    endpoint.auth = Some(credentials(token_url));
    endpoint
}

fn json(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Gives out `t1`, `t2` and so on.
async fn tokens(expires_in: &'static str) -> Server {
    let given = Arc::new(AtomicUsize::new(0));
    Server::start(move |mut connection| {
        let given = Arc::clone(&given);
        async move {
            while connection.request().await.is_some() {
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                let body = format!(
                    r#"{{"access_token":"t{number}","token_type":"bearer","expires_in":{expires_in}}}"#
                );
                connection.say(&json(&body)).await;
            }
        }
    })
    .await
}

/// Takes this token and answers 401 to any other.
async fn wanting(token: &'static str) -> Server {
    Server::start(move |mut connection| async move {
        while let Some(request) = connection.request().await {
            let answer = if request.contains(&format!("\r\nauthorization: Bearer {token}\r\n")) {
                EMPTY_200
            } else {
                "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
            };
            connection.say(answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_fetched_once_for_many_attempts_with_the_clients_name_and_password() {
    for expires_in in ["3600", "\"3600\""] {
        let (tokens, server, webhooks) = (tokens(expires_in).await, wanting("t1").await, webhooks());
        let attempt = attempt_to(guarded(&server.url(), &tokens.url()));
        let many = futures_util::future::join_all((0..20).map(|_| webhooks.deliver(attempt.clone())));
        for outcome in many.await {
            assert!(outcome.is_delivered(), "{outcome:?}");
        }
        let requests = tokens.requests();
        assert_eq!(requests.len(), 1);
        // lane%3Akeeper:hush%20hush
        assert!(requests[0].contains("\r\nauthorization: Basic bGFuZSUzQWtlZXBlcjpodXNoJTIwaHVzaA==\r\n"));
        assert!(requests[0].contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"));
        let body = "\r\n\r\ngrant_type=client_credentials&scope=events.write%20https%3A%2F%2Fx%2F.default";
        assert!(requests[0].ends_with(body), "{}", requests[0]);
    }
}

#[tokio::test]
async fn a_token_that_expired_is_replaced_before_the_next_attempt() {
    let (tokens, server, webhooks) = (tokens("0").await, Server::answering(EMPTY_200).await, webhooks());
    let attempt = attempt_to(guarded(&server.url(), &tokens.url()));
    for number in 1..=3 {
        assert!(webhooks.deliver(attempt.clone()).await.is_delivered());
        let token = format!("\r\nauthorization: Bearer t{number}\r\n");
        assert!(server.requests().last().unwrap().contains(&token));
    }
}

#[tokio::test]
async fn a_token_that_the_endpoint_refuses_is_replaced_once_within_the_attempt() {
    let (tokens, server, webhooks) = (tokens("3600").await, wanting("t2").await, webhooks());
    let attempt = attempt_to(guarded(&server.url(), &tokens.url()));
    assert!(webhooks.deliver(attempt.clone()).await.is_delivered());
    assert!(webhooks.deliver(attempt).await.is_delivered());
    assert_eq!((tokens.requests().len(), server.requests().len()), (2, 3));

    let never = wanting("none").await;
    let outcome = webhooks.deliver(attempt_to(guarded(&never.url(), &tokens.url()))).await;
    assert_eq!((outcome.kind, outcome.status), (Unauthorized, Some(401)), "{outcome:?}");
    assert_eq!(never.requests().len(), 2);
}

#[tokio::test]
async fn a_token_endpoint_that_fails_fails_the_attempt_and_is_not_asked_again_at_once() {
    let webhooks = webhooks();
    let answers: [(String, OutcomeKind, &str); 7] = [
        ("HTTP/1.1 400 No\r\ncontent-length: 9\r\n\r\nhush hush".to_owned(), SocketError, "status 400"),
        (
            "HTTP/1.1 302 No\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".to_owned(),
            SocketError,
            "status 302",
        ),
        ("HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned(), Busy, "status 503"),
        (json("hush hush"), SocketError, "the answer holds no token"),
        (json(r#"{"access_token":"x","token_type":"mac"}"#), SocketError, "the token is not a bearer token"),
        (
            json(r#"{"access_token":"x\ny","token_type":"Bearer"}"#),
            SocketError,
            "no header can hold the token",
        ),
        ("nonsense\r\n\r\n".to_owned(), SocketError, "invalid HTTP version parsed"),
    ];
    for (answer, kind, detail) in answers {
        let (tokens, server) = (Server::answering(answer).await, Server::answering(EMPTY_200).await);
        let attempt = attempt_to(guarded(&server.url(), &tokens.url()));
        for _ in 0..2 {
            let outcome = webhooks.deliver(attempt.clone()).await;
            assert_eq!((outcome.kind, outcome.status), (kind, None), "{outcome:?}");
            assert_eq!(outcome.detail, format!("token endpoint: {detail}"));
            assert_eq!(outcome.retry_after.map(|delay| delay.as_secs()), (kind == Busy).then_some(7));
        }
        assert_eq!((tokens.requests().len(), server.accepted()), (1, 0));
    }
}

#[tokio::test]
async fn a_token_endpoint_that_hangs_costs_no_more_than_the_deadline() {
    let hung = Server::start(|mut connection| async move { connection.closed().await }).await;
    let server = Server::answering(EMPTY_200).await;
    let attempt = attempt_to(guarded(&server.url(), &hung.url()));
    let (outcome, took) = deliver_shortly(&webhooks(), attempt).await;
    super::assert_timed_out(&outcome, took);
    assert!(outcome.detail.starts_with("token endpoint: "), "{outcome:?}");
}

#[tokio::test]
async fn a_token_endpoint_is_contacted_only_where_the_subscription_may_contact_anybody() {
    let canary = tokens("3600").await;
    let server = Server::answering(EMPTY_200).await;
    let mut endpoint = guarded(&server.url(), &canary.url().replace("127.0.0.1", "127.0.0.2"));
    endpoint.allow = vec!["127.0.0.1".to_owned()];
    assert!(check_endpoint(&endpoint).is_err());
    let outcome = webhooks().deliver(attempt_to(endpoint)).await;
    assert_eq!((outcome.kind, outcome.status), (Forbidden, None), "{outcome:?}");
    assert!(outcome.detail.starts_with("token endpoint: address `127.0.0.2`"), "{outcome:?}");
    assert_eq!((canary.accepted(), server.accepted()), (0, 0));
}

#[test]
fn nothing_of_an_attempt_that_is_printed_is_secret() {
    let attempt = attempt_to(guarded("http://127.0.0.1/", "http://127.0.0.1/"));
    let attempt = Attempt { headers: vec![("x-key".into(), "hush hush".to_owned())], ..attempt };
    let printed = format!("{attempt:?} {:?}", attempt.endpoint);
    assert!(!printed.contains("hush"), "{printed}");
}
