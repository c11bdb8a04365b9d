//! How connections are made, shared, given up and closed.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::model::delivery::OutcomeKind::*;
use lanekeeper_actors::model::delivery::{Outcome, Transport};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::server::Server;
use super::{AMPLE, EMPTY_200, SHORT, assert_timed_out, attempt, clock, deliver_shortly, until, webhooks};
use crate::delivery::{WebhookSettings, Webhooks};

#[tokio::test]
async fn a_connection_that_is_never_accepted_times_out_at_the_connect_limit() {
    // A listener whose short queue is full drops further handshakes, as a black hole does.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    let settings = WebhookSettings { connect_timeout: SHORT, ..WebhookSettings::default() };
    let webhooks = Webhooks::new(settings, clock()).unwrap();
    let started = Instant::now();
    let outcome = webhooks.deliver(attempt(&format!("http://{address}/"))).await;
    assert_timed_out(&outcome, started.elapsed());
    assert_eq!(outcome.detail, "connecting took too long");
}

#[tokio::test]
async fn a_refused_connection_is_a_socket_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let outcome = webhooks().deliver(attempt(&format!("http://{address}/secret?code=1"))).await;
    assert_eq!(
        Outcome { took: Duration::ZERO, ..outcome },
        Outcome::failed(SocketError, "connection refused")
    );
}

#[tokio::test]
async fn connections_are_reused_and_one_that_was_closed_meanwhile_is_replaced_unnoticed() {
    let webhooks = webhooks();
    let other = Server::answering(EMPTY_200).await;
    for _ in 0..3 {
        assert!(webhooks.deliver(attempt(&other.url())).await.is_delivered());
    }
    assert_eq!(other.accepted(), 1);

    let (closing, closed) = oneshot::channel();
    let closing = Arc::new(std::sync::Mutex::new(Some(closing)));
    let server = Server::start(move |mut connection| {
        let closing = closing.lock().unwrap().take();
        async move {
            connection.request().await;
            connection.say(EMPTY_200).await;
            drop(connection);
            if let Some(closing) = closing {
                closing.send(()).unwrap();
            }
        }
    })
    .await;
    assert!(webhooks.deliver(attempt(&server.url())).await.is_delivered());
    closed.await.unwrap();
    assert!(webhooks.deliver(attempt(&other.url())).await.is_delivered());
    assert!(webhooks.deliver(attempt(&server.url())).await.is_delivered());
    assert_eq!((server.accepted(), server.requests().len()), (2, 2));
}

#[tokio::test]
async fn attempts_beyond_the_limit_wait_and_their_wait_counts_against_the_deadline() {
    let hung = Server::start(|mut connection| async move { connection.closed().await }).await;
    let quick = Server::answering(EMPTY_200).await;
    let settings = WebhookSettings { connections: 2, ..WebhookSettings::default() };
    let webhooks = Webhooks::new(settings, clock()).unwrap();
    let first = tokio::spawn(webhooks.deliver(attempt(&hung.url())));
    let second = tokio::spawn(webhooks.deliver(attempt(&hung.url())));
    until(|| hung.accepted() == 2).await;
    let (outcome, took) = deliver_shortly(&webhooks, attempt(&quick.url())).await;
    assert_timed_out(&outcome, took);
    assert_eq!(quick.accepted(), 0);
    // Giving one up frees its place at once.
    first.abort();
    assert!(webhooks.deliver(attempt(&quick.url())).await.is_delivered());
    second.abort();
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_closes_its_connection() {
    let (gone, going) = oneshot::channel();
    let gone = Arc::new(std::sync::Mutex::new(Some(gone)));
    let server = Server::start(move |mut connection| {
        let gone = gone.lock().unwrap().take();
        async move {
            connection.request().await;
            connection.closed().await;
            gone.unwrap().send(()).unwrap();
        }
    })
    .await;
    let webhooks = webhooks();
    let delivery = tokio::spawn(webhooks.deliver(attempt(&server.url())));
    until(|| !server.requests().is_empty()).await;
    delivery.abort();
    tokio::time::timeout(AMPLE, going).await.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn dropping_the_transport_aborts_what_is_under_way_without_waiting() {
    let hung = Server::start(|mut connection| async move { connection.closed().await }).await;
    let webhooks = webhooks();
    let delivery = tokio::spawn(webhooks.deliver(attempt(&hung.url())));
    until(|| hung.accepted() == 1).await;
    let late = webhooks.deliver(attempt(&hung.url()));
    drop(webhooks);
    let outcome = tokio::time::timeout(AMPLE, delivery).await.unwrap().unwrap();
    assert_eq!(outcome.kind, Aborted);
    assert_eq!(tokio::time::timeout(AMPLE, late).await.unwrap().kind, Aborted);
}

#[test]
fn connections_outlive_the_runtimes_of_their_callers() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers = runtime();
    let server = servers.block_on(Server::answering(EMPTY_200));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = std::thread::spawn(move || servers.block_on(stopped));
    let webhooks = webhooks();
    for _ in 0..3 {
        // Each caller brings a runtime that ends before the next one comes.
        assert!(runtime().block_on(webhooks.deliver(attempt(&server.url()))).is_delivered());
    }
    assert_eq!(server.accepted(), 1);
    stop.send(()).unwrap();
    serving.join().unwrap().unwrap();
}
