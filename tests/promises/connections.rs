//! Clients that are slow or many: cut off in time, and nobody else suffers.

use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::project;
use super::server::{AMPLE, KEY, answer, read_until};

const PING: &str = "/freight/v1/ping";
/// `header_timeout` and `body_timeout` of the houses here.
const TIMEOUT: Duration = Duration::from_secs(1);
/// By when a slow client must be gone, on a busy machine.
const GONE: Duration = Duration::from_secs(8);

/// Sends bytes one by one, slowly, until the peer has had enough. Returns what it said.
async fn drip(mut stream: TcpStream, bytes: &'static [u8]) -> (String, Duration) {
    let begun = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        for byte in bytes.iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The peer is gone; what it said is still to be read.
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut text = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut text).await.ok();
        String::from_utf8_lossy(&text).into_owned()
    };
    tokio::select! {
        () = dripping => unreachable!(),
        said = reading => (said, begun.elapsed()),
        () = tokio::time::sleep(AMPLE) => panic!("a slow client is never cut off"),
    }
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let house = project::house("header_timeout: 1s", "");
    let server = house.start().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /freight/v1/ping HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        slow.push(tokio::spawn(drip(stream, b"x-slow: loris\r\n")));
    }
    // Others are served meanwhile.
    for _ in 0..20 {
        assert_eq!(server.get(PING).await.status, 200);
    }
    for client in slow {
        let (said, after) = client.await.unwrap();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(after >= TIMEOUT / 2 && after < GONE, "cut off after {after:?}");
    }
}

#[tokio::test]
async fn slow_bodies_are_cut_off() {
    let house = project::house("body_timeout: 1s", "");
    let server = house.start().await;
    let begun = Instant::now();
    let mut stream = server.connect().await;
    let host = server.gateway.strip_prefix("http://").unwrap();
    let head = format!(
        "POST /freight/v1/loads HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"id\":"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = read_until(&mut stream, "body_timeout").await;
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("\"code\":\"body_timeout\""), "{said}");
    let after = begun.elapsed();
    assert!(after >= TIMEOUT / 2 && after < GONE, "cut off after {after:?}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let house = project::house("body: 64KiB, body_timeout: 1s", "");
    let server = house.start().await;
    let host = server.gateway.strip_prefix("http://").unwrap();
    let head = |path: &str, key: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n10\r\n{:16}\r\n",
            ""
        )
    };
    let big = format!("8000\r\n{:32768}\r\n", "");
    for (path, key, more, status) in [
        ("/freight/v1/loads", "nobody-has-such-a-key", "", "401"),
        ("/nowhere", KEY, "", "404"),
        (PING, KEY, "", "405"),
        ("/freight/v1/loads", KEY, big.as_str(), "413"),
        ("/freight/v1/loads", KEY, "", "408"),
    ] {
        let begun = Instant::now();
        let mut stream = server.connect().await;
        stream.write_all([&head(path, key), more, more, more].concat().as_bytes()).await.unwrap();
        let (said, _) = drip(stream, b"1\r\n \r\n").await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {said}");
        assert!(begun.elapsed() < GONE, "{status}: cut off after {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_flood_of_connections_leaves_admin_alive() {
    let house = project::house("connections_per_ip: 20, header_timeout: 2s", "");
    let server = house.start().await;
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(server.connect().await);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = answer(server.operator(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    // Those over the limit are told so and closed at once; the others have the time for a head.
    let mut refused = 0;
    for stream in &mut flood {
        let said = read_until(stream, "\"code\":\"too_many_connections\"").await;
        refused += usize::from(said.starts_with("HTTP/1.1 503 ") && said.contains("retry-after: 1"));
    }
    assert!(refused >= 280 - 20, "only {refused} were told");
    drop(flood);
    let calm =
        |answer: &super::server::Answer| super::process::count(&answer.text, "lanekeeper_connections") == 0;
    server.until("/metrics", calm).await;
    assert_eq!(server.get(PING).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_cut_off() {
    let house = project::house("write_timeout: 1s", "");
    let server = house.start().await;
    let text = "x".repeat(500_000);
    let large = serde_json::json!({ "id": "large", "lane": "a", "text": text });
    assert_eq!(server.send(Method::POST, "/freight/v1/loads", &large).await.status, 201);
    let mut lazy = server.connect().await;
    let ask = format!("GET /freight/v1/loads/a/large HTTP/1.1\r\nhost: a\r\nx-api-key: {KEY}\r\n\r\n");
    let begun = Instant::now();
    // It asks on and on and never reads: buffers fill up on both sides, and then nothing moves.
    let cut = async {
        loop {
            if lazy.write_all(ask.as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(AMPLE, cut).await.expect("a client that reads nothing is never cut off");
    assert!(begun.elapsed() >= TIMEOUT, "cut off too soon");
    assert_eq!(server.get(PING).await.status, 200);
}
