//! A connection that was used before may have been closed by its peer while the next request was on its way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_actors::model::delivery::OutcomeKind::*;
use lanekeeper_actors::model::delivery::Transport;

use super::server::{Connection, Server};
use super::{EMPTY_200, attempt, secure, webhooks};

/// What a server does with the second request of its first connection.
type Behaviour = fn(Connection) -> futures_util::future::BoxFuture<'static, ()>;

/// Serves one request of its first connection as asked, and hands the connection over at the second one.
/// Later connections are served by `later`.
async fn server(at_second: Behaviour, later: Behaviour) -> Server {
    let connections = Arc::new(AtomicUsize::new(0));
    Server::start(move |mut connection| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            if number > 0 {
                return later(connection).await;
            }
            connection.request().await;
            connection.say(EMPTY_200).await;
            connection.request().await;
            at_second(connection).await;
        }
    })
    .await
}

/// Answers all requests.
fn serve(mut connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        while connection.request().await.is_some() {
            connection.say(EMPTY_200).await;
        }
    })
}

fn reset(connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(async move { connection.reset() })
}

fn close(connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
    Box::pin(async move { drop(connection) })
}

#[tokio::test]
async fn a_request_on_an_old_connection_that_is_closed_without_a_byte_is_sent_once_more_on_a_new_one() {
    for at_second in [reset as Behaviour, close] {
        let server = server(at_second, serve).await;
        let webhooks = webhooks();
        for _ in 0..2 {
            let outcome = webhooks.deliver(attempt(&server.url())).await;
            assert!(outcome.is_delivered(), "{outcome:?}");
        }
        let requests = server.requests();
        assert_eq!((server.accepted(), requests.len()), (2, 3));
        assert_eq!(requests[1], requests[2], "the very same request, and the same attempt");
    }
}

/// Under HTTP/2 the peer can say that it did not look at a request.
#[tokio::test]
async fn a_request_that_the_peer_refused_to_look_at_is_sent_once_more() {
    let ours = secure::authority();
    let mut setting = Arc::unwrap_or_clone(secure::Leaf::good(&ours).server(None));
    setting.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(setting));
    let seen = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let seen = Arc::clone(&seen);
        move |connection| {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            async move {
                let stream = acceptor.accept(connection.socket).await.unwrap();
                let mut requests = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut reply))) = requests.accept().await {
                    if seen.fetch_add(1, Ordering::SeqCst) == 1 {
                        reply.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        reply.send_response(hyper::Response::new(()), true).unwrap();
                    }
                }
            }
        }
    })
    .await;
    let webhooks = webhooks();
    let attempt = super::attempt_to(secure::trusting(&server.secure_url(), &ours));
    for _ in 0..3 {
        let outcome = webhooks.deliver(attempt.clone()).await;
        assert!(outcome.is_delivered(), "{outcome:?}");
    }
    assert_eq!((server.accepted(), seen.load(Ordering::SeqCst)), (2, 4));
}

#[tokio::test]
async fn it_is_not_sent_a_third_time() {
    fn refuse(mut connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            connection.request().await;
            connection.reset();
        })
    }
    let server = server(reset, refuse).await;
    let webhooks = webhooks();
    assert!(webhooks.deliver(attempt(&server.url())).await.is_delivered());
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert_eq!((outcome.kind, outcome.detail.as_str()), (SocketError, "connection reset"));
    assert_eq!((server.accepted(), server.requests().len()), (2, 3));
}

#[tokio::test]
async fn once_a_byte_of_an_answer_came_the_request_is_not_sent_again() {
    fn half(mut connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            connection.say("H").await;
        })
    }
    let server = server(half, serve).await;
    let webhooks = webhooks();
    assert!(webhooks.deliver(attempt(&server.url())).await.is_delivered());
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert_eq!(outcome.kind, SocketError, "{outcome:?}");
    assert_eq!((server.accepted(), server.requests().len()), (1, 2));
}

#[tokio::test]
async fn a_peer_that_kept_the_request_for_a_while_had_it_and_does_not_get_it_again() {
    fn ponder(connection: Connection) -> futures_util::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1200)).await;
            connection.reset();
        })
    }
    let server = server(ponder, serve).await;
    let webhooks = webhooks();
    assert!(webhooks.deliver(attempt(&server.url())).await.is_delivered());
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert_eq!((outcome.kind, outcome.detail.as_str()), (SocketError, "connection reset"));
    assert_eq!((server.accepted(), server.requests().len()), (1, 2));
}
