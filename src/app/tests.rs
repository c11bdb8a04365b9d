//! The running process, spoken to over sockets.

use std::io::ErrorKind;
use std::time::Duration;

use actix_web::rt::task::JoinHandle;
use lanekeeper_actors::store::superblock::DirectoryError;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::testing::{KEY, TOKEN, manifest};
use super::*;

/// Nothing here takes that long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Process {
    gateway: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Ended, RunError>>,
}

fn options(ready: impl FnOnce(&Addresses) + 'static, stop: oneshot::Receiver<()>) -> RunOptions {
    RunOptions {
        ready: Box::new(ready),
        shutdown: Box::pin(async move {
            stop.await.ok();
        }),
        environment: vec![(admin::TOKEN_VARIABLE.to_owned(), TOKEN.to_owned())],
        fatal: Arc::new(|why| panic!("{why}")),
        transport: None,
        reloads: None,
    }
}

impl Process {
    async fn start(folder: &TempDir) -> Self {
        let (told, tell) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let options = options(move |addresses| told.send(addresses.clone()).unwrap(), stopped);
        let task = actix_web::rt::spawn(run(manifest(folder), options));
        let addresses = tokio::time::timeout(PATIENCE, tell).await.unwrap().unwrap();
        Self { gateway: addresses.gateway[0].addr, admin: addresses.admin.addr, stop, task }
    }

    async fn stop(self) -> Ended {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap()
    }

    /// Waits until a request is being answered: bytes that were sent need not have been read yet.
    async fn until_in_flight(&self) {
        let mut admin = Connection(TcpStream::connect(self.admin).await.unwrap());
        let waiting = async {
            while !admin.ask("GET /metrics HTTP/1.1\nHost: a\n\n").await.contains("requests_in_flight 1\n") {}
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("nothing is in flight");
    }

    async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.gateway).await.unwrap())
    }
}

struct Connection(TcpStream);

impl Connection {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.replace('\n', "\r\n").as_bytes()).await.unwrap();
    }

    /// Reads one answer: its head, and as much body as the head says.
    async fn answer(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.read_answer(true)).await.expect("no answer")
    }

    async fn read_answer(&mut self, with_body: bool) -> String {
        let mut text = Vec::new();
        loop {
            let mut byte = [0];
            match self.0.read(&mut byte).await {
                Ok(0) => break,
                Ok(_) => text.push(byte[0]),
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&text)),
            }
            if text.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let mut head = String::from_utf8(text).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if with_body {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            head.push_str(&String::from_utf8(body).unwrap());
        }
        head
    }

    /// Whether the other side closes, without another byte.
    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("still open") {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The answer, or nothing where the other side has closed and answers no byte.
    async fn ask_if_open(&mut self, text: &str) -> Option<String> {
        let sent = self.0.write_all(text.replace('\n', "\r\n").as_bytes()).await;
        let mut first = [0];
        let answers = sent.is_ok() && matches!(self.0.peek(&mut first).await, Ok(1));
        if answers { Some(self.answer().await) } else { None }
    }

    async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        self.answer().await
    }
}

fn ping() -> String {
    format!("GET /freight/v1/ping HTTP/1.1\nHost: a\nx-api-key: {KEY}\n\n")
}

fn post(length: usize) -> String {
    let head = "POST /freight/v1/loads HTTP/1.1\nHost: a\nContent-Type: application/json\n";
    format!("{head}x-api-key: {KEY}\nContent-Length: {length}\n\n")
}

#[actix_web::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let body = r#"{"id":"l-1","lane":"a"}"#;
    let created = process.connect().await.ask(&(post(body.len()) + body)).await;
    assert!(created.starts_with("HTTP/1.1 201 "), "{created}");
    let other = run(manifest(&folder), options(|_| {}, oneshot::channel().1)).await;
    assert!(matches!(other, Err(RunError::System(StartError::Directory(DirectoryError::InUse(_))))));
    assert_eq!(process.stop().await, Ended::Drained);
    let process = Process::start(&folder).await;
    let get = format!("GET /freight/v1/loads/a/l-1 HTTP/1.1\nHost: a\nx-api-key: {KEY}\n\n");
    let read = process.connect().await.ask(&get).await;
    assert!(read.starts_with("HTTP/1.1 200 ") && read.contains(r#""id":"l-1""#), "{read}");
    assert_eq!(process.stop().await, Ended::Drained);
}

#[actix_web::test]
async fn a_connection_serves_many_requests_and_head_has_no_body() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let mut connection = process.connect().await;
    connection.send(&(ping() + &ping())).await;
    for _ in 0..2 {
        assert!(connection.answer().await.ends_with(r#"{"ok":true}"#));
    }
    connection.send(&ping().replace("GET", "HEAD")).await;
    let head = connection.read_answer(false).await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-length: 11\r\n"), "{head}");
    let missing = connection.ask(&ping().replace("ping", "none/of/it")).await;
    assert!(missing.starts_with("HTTP/1.1 404 "), "{missing}");
    let ready = Connection(TcpStream::connect(process.admin).await.unwrap())
        .ask("GET /readyz HTTP/1.1\nHost: a\n\n")
        .await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    process.stop().await;
}

#[actix_web::test]
async fn a_body_that_is_too_large_or_too_slow_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let mut announced = process.connect().await;
    let refused = announced.ask(&post(100_000)).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("body_too_large"), "{refused}");
    assert!(announced.is_closed().await);
    let mut chunked = process.connect().await;
    let head = post(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let refused = chunked.ask(&format!("{head}11170\n{}", "x".repeat(70_000))).await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    let mut slow = process.connect().await;
    let refused = slow.ask(&(post(100) + "{")).await;
    assert!(refused.starts_with("HTTP/1.1 408 ") && refused.contains("body_timeout"), "{refused}");
    assert!(slow.is_closed().await);
    process.stop().await;
}

#[actix_web::test]
async fn heads_that_are_slow_or_ambiguous_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let mut slow = process.connect().await;
    slow.send("GET /freight/v1/ping HTTP/1.1\nHost: a\n").await;
    assert!(slow.answer().await.starts_with("HTTP/1.1 408 "));
    assert!(slow.is_closed().await);
    for (request, status, code) in [
        ("CONNECT a:80 HTTP/1.1\nHost: a\n\n".to_owned(), 501, "method_not_implemented"),
        (ping().replace("GET /", "GET http://evil/"), 400, "authority_mismatch"),
        (ping().replace("/freight", "/x/../freight"), 400, "invalid_path"),
        (ping().replace("GET /freight/v1/ping", "OPTIONS *"), 400, "invalid_path"),
        (ping().replace("GET", "BREW"), 405, "method_not_allowed"),
    ] {
        let answer = process.connect().await.ask(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code),
            "{request}\n{answer}"
        );
    }
    let same = process.connect().await.ask(&ping().replace("GET /", "GET http://a/")).await;
    assert!(same.starts_with("HTTP/1.1 200 "), "{same}");
    process.stop().await;
}

#[actix_web::test]
async fn one_address_has_so_many_connections_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut connection = process.connect().await;
        assert!(connection.ask(&ping()).await.starts_with("HTTP/1.1 200 "));
        held.push(connection);
    }
    let mut refused = process.connect().await;
    let answer = refused.answer().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too_many_connections"), "{answer}");
    assert!(refused.is_closed().await);
    drop(held.pop());
    // The server learns of the end a moment later.
    let retried = async {
        loop {
            let mut connection = process.connect().await;
            connection.0.write_all(ping().replace('\n', "\r\n").as_bytes()).await.ok();
            let mut start = [0; 12];
            if connection.0.read_exact(&mut start).await.is_ok() && &start == b"HTTP/1.1 200" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, retried).await.unwrap();
    drop(held);
    process.stop().await;
}

#[actix_web::test]
async fn a_request_under_way_is_answered_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(&folder).await;
    let mut writer = process.connect().await;
    let body = r#"{"id":"last","lane":"a"}"#;
    writer.send(&post(body.len())).await;
    let mut idle = process.connect().await;
    assert!(idle.ask(&ping()).await.starts_with("HTTP/1.1 200 "));
    process.until_in_flight().await;
    let (gateway, stopping) = (process.gateway, actix_web::rt::spawn(process.stop()));
    // The idle connection may ask as long as it lives, and is told; or it is closed between two requests.
    let told = async {
        loop {
            let answer = idle.ask_if_open(&ping()).await;
            if answer.as_ref().is_none_or(|answer| !answer.starts_with("HTTP/1.1 200 ")) {
                return answer;
            }
        }
    };
    if let Some(told) = tokio::time::timeout(PATIENCE, told).await.unwrap() {
        assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("shutting_down"), "{told}");
        assert!(idle.is_closed().await, "{told}");
    }
    let created = writer.ask(body).await;
    assert!(created.starts_with("HTTP/1.1 201 ") && created.contains("connection: close"), "{created}");
    assert_eq!(tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap(), Ended::Drained);
    assert!(TcpStream::connect(gateway).await.is_err());
}

#[actix_web::test]
async fn a_port_that_is_taken_stops_the_start_before_the_data_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut manifest = manifest(&folder);
    manifest.server.admin.addr = taken.local_addr().unwrap();
    let ended = run(manifest, options(|_| panic!("not ready"), oneshot::channel().1)).await;
    assert!(matches!(ended, Err(RunError::Listen { .. })), "{ended:?}");
    assert!(!folder.path().join("data").exists());
}

#[actix_web::test]
async fn a_start_that_fails_lets_go_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    Process::start(&folder).await.stop().await;
    let pepper = folder.path().join("data/pepper");
    let bytes = std::fs::read(&pepper).unwrap();
    std::fs::remove_file(&pepper).unwrap();
    let ended = run(manifest(&folder), options(|_| panic!("not ready"), oneshot::channel().1)).await;
    assert!(matches!(ended, Err(RunError::Gateway(GatewayOpenError::PepperMissing(_)))), "{ended:?}");
    std::fs::write(&pepper, bytes).unwrap();
    assert_eq!(Process::start(&folder).await.stop().await, Ended::Drained);
}
