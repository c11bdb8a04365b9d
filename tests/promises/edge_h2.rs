//! HTTP/2 connections: many requests on one, but not too many, and none that cost more than they should.

use std::sync::Arc;

use h2::client::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use reqwest::Method;

use super::edge_tls::{Issuer, authority, client as tls_client, house, shake};
use super::server::{AMPLE, KEY, Server, answer};

/// Requests of one connection at a time, in these houses.
const STREAMS: usize = 4;
/// Requests that are taken back as soon as they are sent.
const RESETS: usize = 20_000;

async fn connect(server: &Server, issuer: &Issuer) -> SendRequest<bytes::Bytes> {
    let mut config = tls_client(issuer, &rustls::version::TLS13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake(server, &Arc::new(config).into()).await.unwrap();
    let (sender, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        connection.await.ok();
    });
    sender.ready().await.unwrap()
}

fn post(server: &Server) -> Request<()> {
    let request = Request::post(format!("{}/freight/loads", server.gateway));
    request.header("x-api-key", KEY).header("content-type", "application/json").body(()).unwrap()
}

async fn code(response: Response<h2::RecvStream>) -> (StatusCode, String) {
    let status = response.status();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        text.extend_from_slice(&piece.unwrap());
    }
    let problem: serde_json::Value = serde_json::from_slice(&text).unwrap();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn one_connection_has_so_many_requests_at_a_time() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", &format!("streams_per_connection: {STREAMS}"));
    let server = house.start().await;
    let mut sender = connect(&server, &issuer).await;
    // Their bodies are still to come, so they are being worked on.
    let mut waiting = Vec::new();
    for _ in 0..STREAMS {
        sender = sender.ready().await.unwrap();
        waiting.push(sender.send_request(post(&server), false).unwrap());
    }
    sender = sender.ready().await.unwrap();
    let (response, _body) = sender.send_request(post(&server), false).unwrap();
    let refused = tokio::time::timeout(AMPLE, response).await.unwrap().unwrap();
    assert_eq!(code(refused).await, (StatusCode::SERVICE_UNAVAILABLE, "too_many_streams".to_owned()));
    for (response, mut body) in waiting {
        body.send_data(bytes::Bytes::from_static(br#"{"lane":"a"}"#), true).unwrap();
        assert_eq!(tokio::time::timeout(AMPLE, response).await.unwrap().unwrap().status(), 201);
    }
    // Their places are free again.
    sender = sender.ready().await.unwrap();
    let (response, mut body) = sender.send_request(post(&server), false).unwrap();
    body.send_data(bytes::Bytes::from_static(br#"{"lane":"a"}"#), true).unwrap();
    assert_eq!(tokio::time::timeout(AMPLE, response).await.unwrap().unwrap().status(), 201);
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_harm_nobody_else() {
    let issuer = authority();
    let house = house(&issuer, "min: '1.2'", "");
    let server = house.start().await;
    let mut sender = connect(&server, &issuer).await;
    let mut sent = 0;
    // The server may have enough of it at any time.
    while sent < RESETS {
        sender = match sender.clone().ready().await {
            Ok(sender) => sender,
            Err(_) => break,
        };
        let Ok((_response, mut body)) = sender.send_request(post(&server), false) else { break };
        body.send_reset(h2::Reason::CANCEL);
        sent += 1;
        if sent % 1_000 == 0 {
            let ping = server.request(Method::GET, "/freight/ping");
            assert_eq!(answer(ping).await.status, 200, "after {sent} resets");
        }
    }
    assert!(sent > 0);
    let ping = server.request(Method::GET, "/freight/ping");
    assert_eq!(answer(ping).await.status, 200);
    // Nothing of them is left behind.
    let calm = |answer: &super::server::Answer| {
        super::process::count(&answer.text, "lanekeeper_requests_in_flight") == 0
    };
    drop(sender);
    server.until("/metrics", calm).await;
}
