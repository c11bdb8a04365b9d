//! What an endpoint does to whoever calls it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const POST: &[u8] = b"POST /s/7 HTTP/1.1\r\nHost: x\r\nWebhook-Id: 0-1\r\nX-Delivery-Attempt: 2\r\ncontent-length: 2\r\n\r\n{}";

async fn endpoint(script: Script) -> Endpoint {
    Endpoint::open(script, Clock::start()).await.unwrap()
}

async fn connect(endpoint: &Endpoint) -> TcpStream {
    TcpStream::connect(endpoint.address()).await.unwrap()
}

/// Reads until the endpoint ends the connection, or until this text has come.
async fn read_until(stream: &mut TcpStream, enough: &str) -> String {
    let mut text = String::new();
    let mut piece = [0; 256];
    while !text.contains(enough) || enough.is_empty() {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(std::str::from_utf8(&piece[..length]).unwrap()),
        }
    }
    text
}

#[tokio::test]
async fn a_request_is_noted_with_its_subscription_and_attempt_and_the_connection_is_kept() {
    let endpoint = endpoint(scripts::well()).await;
    let mut stream = connect(&endpoint).await;
    for count in 1..=3 {
        // In two pieces, so that a request that is not complete is waited for.
        let (first, second) = POST.split_at(30);
        stream.write_all(first).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(second).await.unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
        assert_eq!(endpoint.count(), count);
    }
    let hit = endpoint.hits()[0];
    assert_eq!((hit.subscriber, hit.attempt, hit.status, hit.connection), (7, 2, 204, 1));
    assert!(hit.is_taken() && hit.event != 0 && hit.number.is_none());
    assert_eq!((endpoint.accepted(), endpoint.most_under_way()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_is_held_is_told_with_how_long_and_how_much() {
    let endpoint = endpoint(scripts::slow_body(200, Duration::from_millis(5))).await;
    let mut stream = connect(&endpoint).await;
    stream.write_all(POST).await.unwrap();
    assert!(read_until(&mut stream, "1\r\nx\r\n1\r\nx\r\n").await.contains("chunked"));
    drop(stream);
    while endpoint.held().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let held = endpoint.held()[0];
    assert!(held.written >= 12 && held.lasted >= Duration::from_millis(5), "{held:?}");
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_an_end() {
    let endpoint = endpoint(scripts::reset()).await;
    let mut stream = connect(&endpoint).await;
    stream.write_all(POST).await.unwrap();
    let error = stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_taken_port_refuses_and_a_full_queue_swallows() {
    let refusing = doors::Refusing::take().unwrap();
    let url = refusing.url(1);
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/s/1").unwrap().to_owned();
    let error = TcpStream::connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let address = refusing.give_back();
    Endpoint::at(address, scripts::well(), false, Clock::start()).unwrap();

    let hole = doors::Blackhole::dig().await.unwrap();
    let address = hole.url(1).strip_prefix("http://").unwrap().strip_suffix("/s/1").unwrap().to_owned();
    let connecting = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(&address));
    assert!(connecting.await.is_err());
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_ends_the_connection() {
    let endpoint = endpoint(scripts::well()).await;
    for nonsense in [&b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n"[..], b"\xff\xff\r\n\r\n"] {
        let mut stream = connect(&endpoint).await;
        stream.write_all(nonsense).await.unwrap();
        assert!(read_until(&mut stream, "").await.starts_with("HTTP/1.1 400 "));
    }
    assert_eq!(endpoint.count(), 0);
}
