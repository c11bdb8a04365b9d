//! What is asked of every request before anybody looks at what it wants: whose it is, and how it comes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::bad_input::is_problem;
use super::server::{AMPLE, House, KEY, Server, answer, read_until};

const PING: &str = "/freight/ping";

const MANIFEST: &str = r#"
manifest: 1
project: edge
server: { shards: 1 }
named_values: { front-door: { secret: { env: FRONT_DOOR } } }
edge: { EDGE }
limits: { LIMITS }
containers: { loads: { partition_key: [/lane] } }
apis:
  freight:
    path: /freight
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      one: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      ping: { method: GET, path: /ping, to: { mock: { status: 200, body: { ok: true } } } }
products: { all: { apis: [freight] } }
api_keys: { main: { product: all, tenant: acme, primary: { env: MAIN } } }
"#;
const FRONT_DOOR: &str = "only-the-front-door-knows";

fn house(edge: &str, limits: &str) -> House {
    House::new(&MANIFEST.replace("EDGE", edge).replace("LIMITS", limits)).with("FRONT_DOOR", FRONT_DOOR)
}

/// A request that says that it comes from somewhere else.
async fn from(server: &Server, header: (&str, &str), key: &str) -> super::server::Answer {
    let request = server.anonymous(Method::GET, PING).header("x-api-key", key);
    answer(request.header(header.0, header.1)).await
}

#[tokio::test]
async fn only_the_front_door_is_let_in() {
    let house = house("origin_lock: [{ header: X-Azure-FDID, equals: '{{front-door}}' }]", "");
    let house = house.with("LANEKEEPER_LOG", "debug");
    let server = house.start().await;
    assert_eq!(from(&server, ("x-azure-fdid", FRONT_DOOR), KEY).await.status, 200);
    for request in [
        server.request(Method::GET, PING),
        server.request(Method::GET, PING).header("x-azure-fdid", "guess"),
        server
            .request(Method::GET, PING)
            .header("x-azure-fdid", FRONT_DOOR)
            .header("x-azure-fdid", FRONT_DOOR),
        server.anonymous(Method::GET, "/nowhere").header("x-azure-fdid", ""),
        server.anonymous(Method::GET, "/freight/%00"),
    ] {
        let refused = answer(request).await;
        is_problem(&refused, 403, "origin_refused", "a back door");
        assert_eq!(refused.body["detail"], "Invalid request.");
    }
    // The private listener has its own guard.
    assert_eq!(server.ask("/v1/containers").await.status, 200);
    assert!(server.stop().await.success());
    assert!(!house.log().contains(FRONT_DOOR));
    let elsewhere = self::house("origin_lock: [{ from: [192.0.2.0/24] }]", "").start().await;
    is_problem(&elsewhere.get(PING).await, 403, "origin_refused", "a peer of another network");
}

#[tokio::test]
async fn a_strangers_word_about_addresses_counts_for_nothing() {
    let house = house("", "auth_failures_per_ip: { calls: 3, per: 1h }").with("LANEKEEPER_LOG", "info");
    let server = house.start().await;
    // Another address each time, so it says: and yet the failures are those of one client.
    let mut statuses = Vec::new();
    for number in 0..5 {
        let forged = format!("198.51.100.{number}");
        statuses.push(from(&server, ("x-forwarded-for", &forged), "lk_wrong").await.status);
        statuses.push(from(&server, ("forwarded", &format!("for={forged}")), "lk_wrong").await.status);
        statuses.push(from(&server, ("x-real-ip", &forged), "lk_wrong").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 3, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 12, "{statuses:?}");
    assert!(server.stop().await.success());
    let log = house.log();
    assert!(log.contains("127.0.0.1") && !log.contains("198.51.100"), "{log}");
}

#[tokio::test]
async fn behind_trusted_proxies_each_client_has_its_own_budgets() {
    for (word, header, other) in
        [("x-forwarded-for", "x-forwarded-for", "forwarded"), ("forwarded", "forwarded", "x-forwarded-for")]
    {
        let edge = format!("trusted_proxies: [127.0.0.0/8, 10.0.0.0/8], client_address: {word}");
        let house = house(&edge, "auth_failures_per_ip: { calls: 2, per: 1h }, requests_per_ip: 6/h");
        let house = house.with("LANEKEEPER_LOG", "info");
        let server = house.start().await;
        let hops = |client: &str| match header {
            "forwarded" => format!("for=1.2.3.4, for={client}, for=\"10.0.0.1:80\""),
            _ => format!("1.2.3.4, {client}, 10.0.0.1"),
        };
        for client in ["198.51.100.1", "198.51.100.2"] {
            let mut statuses = Vec::new();
            for _ in 0..3 {
                statuses.push(from(&server, (header, &hops(client)), "lk_wrong").await.status);
            }
            assert_eq!(statuses, [401, 401, 429], "{word} {client}");
            // A good key is not let in from where so many were wrong, and then the budget itself is spent.
            for _ in 0..3 {
                assert_eq!(from(&server, (header, &hops(client)), KEY).await.status, 429);
            }
            let spent = from(&server, (header, &hops(client)), KEY).await;
            is_problem(&spent, 429, "too_many_requests", word);
            assert!(spent.header("retry-after").parse::<u64>().unwrap() >= 1);
        }
        assert_eq!(from(&server, (header, &hops("198.51.100.3")), KEY).await.status, 200, "{word}");
        // The header that nobody asked for is not read: this is the proxy itself.
        assert_eq!(from(&server, (other, "198.51.100.9"), KEY).await.status, 200, "{word}");
        assert!(server.stop().await.success());
        let clients: Vec<String> = house
            .log()
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line).ok()?["client"].as_str().map(str::to_owned)
            })
            .collect();
        assert!(clients.contains(&"198.51.100.3".to_owned()), "{clients:?}");
        assert!(!clients.contains(&"198.51.100.9".to_owned()) && !clients.contains(&"1.2.3.4".to_owned()));
    }
}

#[tokio::test]
async fn a_body_without_pace_is_cut_off_long_before_its_time() {
    let house = house("", "body_timeout: 1h, body_grace: 1s, body_rate: 1KiB/s");
    let server = house.start().await;
    let host = server.gateway.strip_prefix("http://").unwrap();
    for framing in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut stream = server.connect().await;
        let head = format!(
            "POST /freight/loads HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\n\
             content-type: application/json\r\n{framing}\r\n\r\n"
        );
        let begun = Instant::now();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let dripping = tokio::spawn(async move {
            // Ten bytes a second or so, for as long as somebody takes them.
            while writer.write_all(b"1\r\n \r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(600)).await;
            }
        });
        let mut said = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut said);
        tokio::time::timeout(AMPLE, reading).await.expect("a slow body is never cut off").ok();
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("\"body_too_slow\""), "{framing}: {said}");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{framing}: {:?}", begun.elapsed());
        dripping.abort();
    }
    // One with a pace may take its time.
    let mut stream = server.connect().await;
    let text = "x".repeat(64 * 1024);
    let body = format!("{{\"lane\":\"a\",\"text\":\"{text}\"}}");
    let head = format!(
        "POST /freight/loads HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (first, last) = body.split_at(body.len() - 1);
    stream.write_all(first.as_bytes()).await.unwrap();
    // Longer than the grace, and well within what so many bytes have earned.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stream.write_all(last.as_bytes()).await.unwrap();
    let said = read_until(&mut stream, "\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 201 "), "{said}");
}

#[tokio::test]
async fn strict_paths_leave_nothing_to_their_reader() {
    let (once, strict) = (house("", "").start().await, house("paths: strict", "").start().await);
    for path in ["/freight/loads/a%2Fb/x", "/freight/loads/a%5cb/x", "/freight/loads/%252e/x"] {
        is_problem(&once.get(path).await, 404, "document_not_found", path);
        is_problem(&strict.get(path).await, 400, "invalid_path", path);
    }
    for path in ["/freight/loads/a%20b/x", "/freight/loads/100%25/x"] {
        is_problem(&strict.get(path).await, 404, "document_not_found", path);
    }
}

#[tokio::test]
async fn bounds_of_heads_are_those_of_the_manifest() {
    let server = house("limits: { uri: 512B, header: 1KiB }", "").start().await;
    assert_eq!(server.get(PING).await.status, 200);
    let long = format!("{PING}?{}", "x".repeat(600));
    is_problem(&server.get(&long).await, 414, "uri_too_long", "a path");
    let fat = server.request(Method::GET, PING).header("x-fat", "x".repeat(1100));
    is_problem(&answer(fat).await, 431, "headers_too_large", "headers");
}
