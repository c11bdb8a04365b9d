//! Servers behind the gateway: what reaches them, what comes back, and what callers hear when they are away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::server::{AMPLE, House, KEY, answer, read_until};

/// A server that notes what comes, byte by byte, and answers as it is told.
struct Recorder {
    address: String,
    /// What came on each connection.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    closed: Arc<AtomicUsize>,
}

/// What a server does with a connection after it has read a whole request, whose text it is given.
type Answer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

impl Recorder {
    /// Answers each request.
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (heard, closed) = (Arc::<Mutex<Vec<Vec<u8>>>>::default(), Arc::<AtomicUsize>::default());
        let (log, ends): (_, _) = (heard.clone(), closed.clone());
        let answer: Arc<Answer> = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut heard = log.lock().unwrap();
                    heard.push(Vec::new());
                    heard.len() - 1
                };
                tokio::spawn(converse(stream, number, log.clone(), ends.clone(), answer.clone()));
            }
        });
        Self { address, heard, closed }
    }

    /// Answers with 200 and these bytes.
    async fn saying(body: &'static str) -> Self {
        Self::start(move |_| reply(200, body)).await
    }

    /// All requests that whoever reads by the letter finds in what came, over all connections.
    fn requests(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let mut all = Vec::new();
        for mut bytes in heard.iter().map(Vec::as_slice) {
            while let Some((request, rest)) = first(bytes) {
                all.push(String::from_utf8_lossy(request).into_owned());
                bytes = rest;
            }
            assert!(bytes.is_empty(), "no request: {:?}", String::from_utf8_lossy(bytes));
        }
        all
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !done(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(AMPLE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

fn reply(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn converse(
    mut stream: TcpStream,
    number: usize,
    log: Arc<Mutex<Vec<Vec<u8>>>>,
    ends: Arc<AtomicUsize>,
    answer: Arc<Answer>,
) {
    let (mut piece, mut done) = (vec![0; 64 * 1024], 0);
    loop {
        let length = stream.read(&mut piece).await.unwrap_or(0);
        if length == 0 {
            ends.fetch_add(1, Ordering::SeqCst);
            return;
        }
        loop {
            let request = {
                let mut heard = log.lock().unwrap();
                if !piece.is_empty() {
                    heard[number].extend_from_slice(&piece[..length]);
                    piece.clear();
                }
                first(&heard[number][done..])
                    .map(|(request, _)| String::from_utf8_lossy(request).into_owned())
            };
            let Some(request) = request else { break };
            done += request.len();
            stream.write_all(&answer(&request)).await.ok();
        }
        piece.resize(64 * 1024, 0);
    }
}

/// The first whole request, and what follows it. A head with two framings is none.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let chunked = text.contains("\r\ntransfer-encoding: chunked\r\n");
    assert!(!(chunked && length.is_some()), "two framings: {text}");
    let end = if chunked {
        let last = bytes[head..].windows(5).position(|window| window == b"0\r\n\r\n")?;
        head + last + 5
    } else {
        head + length.map_or(0, |length| length.parse::<usize>().unwrap())
    };
    bytes.split_at_checked(end)
}

fn manifest(backends: &str, operations: &str) -> String {
    format!(
        r#"
manifest: 1
project: test
limits: {{ body: 64KiB, body_timeout: 30s }}
backends: {{ {backends} }}
apis:
  a:
    path: /a
    operations:
{operations}
products: {{ all: {{ apis: [a] }} }}
api_keys: {{ main: {{ product: all, tenant: acme, primary: {{ env: MAIN }} }} }}
"#
    )
}

fn to(address: &str) -> String {
    let url = format!("http://{address}");
    [
        format!("      get: {{ method: GET, path: '/get/{{id}}', to: {{ upstream: '{url}/x/{{id}}?fixed=1' }} }}"),
        format!("      post: {{ method: POST, path: /post, to: {{ upstream: '{url}/post' }} }}"),
        format!("      token: {{ method: GET, path: /token, to: {{ upstream: '{url}/', forward_authorization: true }} }}"),
        format!("      slow: {{ method: GET, path: /slow, to: {{ upstream: '{url}/', timeout: 300ms }} }}"),
    ]
    .join("\n")
}

#[tokio::test]
async fn a_request_goes_on_with_what_the_gateway_says_of_it_and_nothing_of_its_connection() {
    let recorder = Recorder::saying("hello").await;
    let server = House::new(&manifest("", &to(&recorder.address))).start().await;
    let authority = server.gateway.strip_prefix("http://").unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let head = format!(
        "GET /a/get/b%2Fc?q=1&subscription-key=k&r HTTP/1.1\r\nHost: {authority}\r\nX-Api-Key: {KEY}\r\n\
         Connection: keep-alive, X-Hop, X-Forwarded-For\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
         Proxy-Authorization: x\r\nAuthorization: Bearer secret\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nX-Real-Ip: 6.6.6.6\r\nVia: 1.0 before\r\nAccept: text/plain\r\nCookie: a=1\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: x=1\r\n\r\n"
    );
    let answer = server.raw(head.as_bytes(), "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let requests = recorder.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    let (line, fields) = request.split_once("\r\n").unwrap();
    assert_eq!(line, "GET /x/b%2Fc?fixed=1&q=1&r HTTP/1.1");
    let mut fields: Vec<&str> = fields.lines().filter(|line| !line.is_empty()).collect();
    fields.sort_unstable();
    let wanted = [
        "accept: text/plain".to_owned(),
        "cookie: a=1".to_owned(),
        format!("host: {}", recorder.address),
        "traceparent".to_owned(),
        "tracestate: x=1".to_owned(),
        "via: 1.0 before".to_owned(),
        "via: 1.1 lanekeeper-".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        format!("x-forwarded-host: {authority}"),
        "x-forwarded-proto: http".to_owned(),
    ];
    assert_eq!(fields.len(), wanted.len(), "{fields:#?}");
    for (found, wanted) in fields.iter().zip(&wanted) {
        assert!(found.starts_with(wanted.as_str()), "{found} is not {wanted}");
    }
    assert!(fields[3].contains(trace) && !fields[3].contains("00f067aa0ba902b7"), "{}", fields[3]);

    let request =
        server.request(Method::GET, "/a/token").bearer_auth("mine").header("ocp-apim-subscription-key", KEY);
    assert_eq!(super::server::answer(request).await.status, 200);
    let requests = recorder.requests();
    assert!(requests[1].contains("\r\nauthorization: Bearer mine\r\n"), "{}", requests[1]);
    assert!(!requests[1].contains(KEY), "{}", requests[1]);
}

/// What is sent to the gateway in one go, and how many requests may come of it.
#[tokio::test]
async fn no_request_is_smuggled_past_the_gateway() {
    let recorder = Recorder::saying("ok").await;
    let server = House::new(&manifest("", &to(&recorder.address))).start().await;
    let host = format!("Host: x\r\nX-Api-Key: {KEY}\r\n");
    let inner = format!("GET /a/get/smuggled HTTP/1.1\r\n{host}\r\n");
    for (name, request) in [
        (
            "both",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}",
                inner.len()
            ),
        ),
        (
            "list of lengths",
            format!("POST /a/post HTTP/1.1\r\n{host}Content-Length: 0, {}\r\n\r\n{inner}", inner.len()),
        ),
        (
            "signed length",
            format!("POST /a/post HTTP/1.1\r\n{host}Content-Length: +{}\r\n\r\n{inner}", inner.len()),
        ),
        (
            "other coding",
            format!("POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "coding before",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "space before colon",
            format!("POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "folded",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "bad chunk",
            format!("POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{inner}"),
        ),
    ] {
        let before = recorder.requests().len();
        server.raw(request.as_bytes(), "\u{0}").await;
        assert_eq!(recorder.requests().len(), before, "{name}");
    }
    // What looks like a request inside a body stays in the body; two in a row stay two.
    let length = inner.len();
    for (name, request, count) in [
        ("body", format!("POST /a/post HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n{inner}"), 1),
        (
            "chunks",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
            ),
            1,
        ),
        (
            "underscores",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Content-Length: {length}\r\nTransfer_Encoding: chunked\r\nContent_Length: 0\r\n\r\n{inner}"
            ),
            1,
        ),
        (
            "get with body",
            format!("GET /a/get/1 HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n{inner}"),
            1,
        ),
        ("two", format!("GET /a/get/1 HTTP/1.1\r\n{host}\r\n{inner}"), 2),
        (
            "named length",
            format!(
                "POST /a/post HTTP/1.1\r\n{host}Connection: content-length\r\nContent-Length: {length}\r\n\r\n{inner}"
            ),
            1,
        ),
    ] {
        let before = recorder.requests().len();
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        for _ in 0..count {
            let answer = read_until(&mut stream, "\r\n\r\nok").await;
            assert!(answer.contains("200"), "{name}: {answer}");
            if answer.matches("\r\n\r\nok").count() == count {
                break;
            }
        }
        assert_eq!(recorder.requests().len(), before + count, "{name}");
    }
    assert!(!recorder.requests().iter().any(|request| request.to_lowercase().contains("_length")));
}

#[tokio::test]
async fn answers_pass_back_without_what_belongs_to_the_servers_connection() {
    let recorder = Recorder::start(|request| match request.split(' ').nth(1).unwrap() {
        "/x/plain?fixed=1" => b"HTTP/1.1 201 Made\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\
            Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nLocation: /y\r\nContent-Type: text/plain\r\n\r\n2\r\nhi\r\n0\r\nTrailer: x\r\n\r\n".to_vec(),
        "/x/empty?fixed=1" => b"HTTP/1.1 204 No\r\nx-kept: 1\r\n\r\n".to_vec(),
        "/x/same?fixed=1" => b"HTTP/1.1 304 No\r\netag: \"1\"\r\ncontent-length: 7\r\n\r\n".to_vec(),
        "/x/broken?fixed=1" => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\npart".to_vec(),
        "/x/lying?fixed=1" => b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        _ => reply(500, "secret words of the server"),
    })
    .await;
    let server = House::new(&manifest("", &to(&recorder.address))).start().await;
    let plain = server.get("/a/get/plain").await;
    assert_eq!((plain.status, plain.text.as_str()), (201, "hi"));
    for gone in ["x-hop", "keep-alive", "connection", "trailer"] {
        assert_eq!(plain.header(gone), "", "{gone}");
    }
    assert_eq!((plain.header("location"), plain.header("content-type")), ("/y", "text/plain"));
    assert_eq!(plain.headers.get_all("set-cookie").iter().count(), 2);
    assert!(plain.header("traceparent").starts_with("00-"));
    assert_eq!(server.get("/a/get/empty").await.status, 204);
    let same = server.get("/a/get/same").await;
    assert_eq!((same.status, same.header("etag"), same.header("content-length")), (304, "\"1\"", "7"));
    let head = answer(server.request(Method::HEAD, "/a/get/other")).await;
    assert_eq!((head.status, head.header("content-length"), head.text.as_str()), (500, "26", ""));
    // The server's own refusals pass; what is no answer is said in the gateway's words.
    assert_eq!(server.get("/a/get/other").await.text, "secret words of the server");
    let lying = server.get("/a/get/lying").await;
    assert_eq!(lying.refused(), (502, "upstream_invalid"));
    assert!(!lying.text.contains(&recorder.address), "{}", lying.text);
    let metrics = server.ask("/metrics").await.text;
    assert!(metrics.contains(r#"upstream_requests_total{backend="a.get",outcome="invalid"} 1"#), "{metrics}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_caller_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let server = House::new(&manifest("", &to(&address))).start().await;
    for _ in 0..2 {
        // It may break off before its head was on its way.
        let whole = match server.request(Method::GET, "/a/get/1").send().await {
            Ok(response) => response.bytes().await,
            Err(error) => Err(error),
        };
        assert!(whole.is_err(), "{whole:?}");
    }
}

#[tokio::test]
async fn callers_hear_clearly_that_a_server_is_away_slow_or_left_alone() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let silent = Recorder::start(|_| Vec::new()).await;
    let failing = Recorder::start(|_| reply(500, "")).await;
    let operations = format!(
        "      gone: {{ method: POST, path: /gone, to: {{ upstream: 'http://{gone}/' }} }}\n\
         {}\n      failing: {{ method: GET, path: /failing, to: {{ backend: failing }} }}",
        to(&silent.address)
    );
    let backend = format!(
        "failing: {{ pool: [{{ url: 'http://{}' }}], breaker: {{ count: 2, in: 60s, open: 40s }} }}",
        failing.address
    );
    let server = House::new(&manifest(&backend, &operations)).start().await;
    let refused = server.send(Method::POST, "/a/gone", &json!({})).await;
    assert_eq!(refused.refused(), (502, "upstream_unreachable"));
    assert!(!refused.text.contains(&gone), "{}", refused.text);
    assert_eq!(server.get("/a/slow").await.refused(), (504, "upstream_timeout"));
    for _ in 0..2 {
        assert_eq!(server.get("/a/failing").await.status, 500);
    }
    let alone = server.get("/a/failing").await;
    assert_eq!(alone.refused(), (503, "upstream_unavailable"));
    let wait: u64 = alone.header("retry-after").parse().unwrap();
    assert!((1..=40).contains(&wait), "{wait}");
    assert_eq!(failing.requests().len(), 2);
    let state = server.ask("/v1/backends").await.body;
    let member =
        state["backends"].as_array().unwrap().iter().find(|backend| backend["name"] == "failing").unwrap();
    let member = &member["members"][0];
    assert_eq!((&member["breaker"], &member["healthy"]), (&json!("open"), &json!(true)));
    assert_eq!(member["url"], json!(format!("http://{}", failing.address)));
    let metrics = server.ask("/metrics").await.text;
    assert!(metrics.contains(r#"upstream_healthy{backend="failing"} 0"#), "{metrics}");
}

#[tokio::test]
async fn requests_that_go_in_circles_or_want_another_protocol_are_refused() {
    // The gateway is its own server: the second time the request is known.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let operations = format!(
        "      round: {{ method: GET, path: /round, to: {{ upstream: 'http://{address}/a/round' }} }}\n{}",
        to(&address)
    );
    let server = House::new(&manifest("", &operations)).start().await;
    // Passes bytes on to the gateway, with the key that no caller's request takes along.
    let gateway = server.gateway.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut piece = vec![0; 8192];
            let length = from.read(&mut piece).await.unwrap();
            let text = String::from_utf8_lossy(&piece[..length]).replacen(
                "\r\n",
                &format!("\r\nx-api-key: {KEY}\r\n"),
                1,
            );
            let mut to = TcpStream::connect(&gateway).await.unwrap();
            to.write_all(text.as_bytes()).await.unwrap();
            tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
        }
    });
    assert_eq!(server.get("/a/round").await.refused(), (508, "upstream_loop"));
    let upgrade = server
        .request(Method::GET, "/a/get/1")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    assert_eq!(answer(upgrade).await.refused(), (501, "upgrade_not_supported"));
}

#[tokio::test]
async fn bodies_have_a_limit_and_are_never_half_a_request() {
    let recorder = Recorder::saying("ok").await;
    let server = House::new(&manifest("", &to(&recorder.address))).start().await;
    let large = "x".repeat(64 * 1024);
    let sent = server.request(Method::POST, "/a/post").body(large.clone());
    assert_eq!(answer(sent).await.text, "ok");
    let sent = server.request(Method::POST, "/a/post").body(format!("{large}x"));
    assert_eq!(answer(sent).await.refused(), (413, "body_too_large"));
    // Without a length it is found out on the way.
    let host = format!("Host: x\r\nX-Api-Key: {KEY}\r\n");
    let mut stream = server.connect().await;
    let head = format!("POST /a/post HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
    let chunks = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(3);
    stream.write_all(format!("{head}{chunks}").as_bytes()).await.unwrap();
    let text = read_until(&mut stream, "body_too_large").await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    recorder.until("the half one is closed", |recorder| recorder.closed.load(Ordering::SeqCst) > 0).await;
    let whole = recorder.heard.lock().unwrap().iter().filter(|bytes| first(bytes).is_some()).count();
    assert_eq!(whole, 1, "only the one within the limit is a request");
    // `Expect` is the gateway's own affair.
    let mut stream = server.connect().await;
    stream
        .write_all(
            format!("POST /a/post HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"hi").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
    let heard = recorder.heard.lock().unwrap();
    let text: Vec<_> = heard.iter().map(|bytes| String::from_utf8_lossy(bytes).to_lowercase()).collect();
    assert!(!text.iter().any(|text| text.contains("\r\nexpect")), "{text:?}");
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_what_is_done_for_it() {
    let silent = Recorder::start(|_| Vec::new()).await;
    let server = House::new(&manifest("", &to(&silent.address))).start().await;
    let mut stream = server.connect().await;
    let head = format!("GET /a/get/1 HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    silent.until("it was asked", |silent| silent.requests().len() == 1).await;
    drop(stream);
    silent.until("it is closed", |silent| silent.closed.load(Ordering::SeqCst) == 1).await;
    let metrics = server.ask("/metrics").await.text;
    assert!(
        metrics.contains(r#"upstream_requests_total{backend="a.get",outcome="abandoned"} 1"#),
        "{metrics}"
    );
}

/// Memory of a process in KiB.
fn memory(server: &super::server::Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn large_bodies_pass_both_ways_in_little_memory() {
    const SIZE: usize = 256 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Counts what comes, and sends as much back.
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut piece = vec![0; 1 << 16];
        let (mut total, mut head) = (0, String::new());
        while !head.contains("\r\n\r\n") {
            let length = stream.read(&mut piece).await.unwrap();
            head.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        total += head.len() - head.find("\r\n\r\n").unwrap() - 4;
        while total < SIZE {
            total += stream.read(&mut piece).await.unwrap();
        }
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        while total > 0 {
            let length = total.min(piece.len());
            stream.write_all(&piece[..length]).await.unwrap();
            total -= length;
        }
    });
    let backend = format!("large: {{ pool: [{{ url: 'http://{address}' }}], body: 1GiB, timeout: 1h }}");
    let operation = "      large: { method: POST, path: /large, to: { backend: large } }";
    let server = House::new(&manifest(&backend, operation)).start().await;
    let before = memory(&server);
    let mut stream = server.connect().await;
    let head =
        format!("POST /a/large HTTP/1.1\r\nHost: x\r\nX-Api-Key: {KEY}\r\nContent-Length: {SIZE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let sending = async {
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..SIZE >> 16 {
            to.write_all(&piece).await.unwrap();
        }
    };
    let (mut largest, mut total) = (0, 0);
    let receiving = async {
        let mut piece = vec![0; 1 << 16];
        while total < SIZE {
            let length = from.read(&mut piece).await.unwrap();
            assert!(length > 0, "it broke off after {total}");
            total += length;
            if total >> 24 > (total - length) >> 24 {
                largest = largest.max(memory(&server));
            }
        }
    };
    tokio::join!(sending, receiving);
    largest = largest.max(memory(&server));
    assert!(largest < before + 16 * 1024, "{before} KiB before, {largest} KiB at most");
}
