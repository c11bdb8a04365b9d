//! `cargo bench -p lanekeeper --bench deliver`: deliveries of 1 KB events through the webhook transport alone, to
//! subscribers on loopback that do as little as a server can, and what a delivery costs each side.
//!
//! Options: `--seconds N`, `--subscribers N`, `--window N` (attempts under way for each), `--bytes N`,
//! `--signed` (one symmetric key for each endpoint).
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark talks to a person and may stop at an error"
)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use lanekeeper::delivery::{WebhookSettings, Webhooks};
use lanekeeper_actors::model::delivery::{Attempt, Endpoint, Transport};
use lanekeeper_actors::model::secret::SigningKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// The allocator of the server, so that the benchmark measures the same program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a usual web framework answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nok";

struct Options {
    seconds: f64,
    subscribers: usize,
    window: usize,
    bytes: usize,
    signed: bool,
}

fn options() -> Options {
    let mut options = Options { seconds: 5.0, subscribers: 4, window: 64, bytes: 1024, signed: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().unwrap().parse::<f64>().unwrap();
        match arg.as_str() {
            "--seconds" => options.seconds = number(),
            "--subscribers" => options.subscribers = number() as usize,
            "--window" => options.window = number() as usize,
            "--bytes" => options.bytes = number() as usize,
            "--signed" => options.signed = true,
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Answers whatever ends like a request with its body.
async fn serve(mut socket: TcpStream) {
    let mut bytes = BytesMut::with_capacity(64 << 10);
    let mut wanted = usize::MAX;
    while socket.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        if wanted == usize::MAX {
            let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
            wanted = head + 4 + length.parse::<usize>().unwrap();
        }
        if bytes.len() >= wanted {
            bytes.clear();
            wanted = usize::MAX;
            socket.write_all(ANSWER).await.unwrap();
        }
    }
}

/// Nanoseconds on a processor of each thread of this process, by the thread's name.
fn spent() -> BTreeMap<String, u64> {
    let mut spent = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let text = fs::read_to_string(task.join("schedstat")).unwrap();
        *spent.entry(name).or_default() += text.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    spent
}

fn main() {
    let options = options();
    let mut endpoints = Vec::new();
    for _ in 0..options.subscribers {
        let (runtime, listener) = (runtime(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let mut endpoint = Endpoint::plain(
            format!("http://{}/hook?code=1", listener.local_addr().unwrap()),
            vec!["127.0.0.0/8".to_owned()],
        );
        if options.signed {
            endpoint.signing.push(SigningKey::symmetric([7; 32]));
        }
        endpoints.push(Arc::new(endpoint));
        let serve_all = async move {
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                tokio::spawn(serve(socket));
            }
        };
        thread::Builder::new()
            .name("subscriber".to_owned())
            .spawn(move || runtime.block_on(serve_all))
            .unwrap();
    }
    let settings =
        WebhookSettings { connections: options.subscribers * options.window, ..WebhookSettings::default() };
    let webhooks = Arc::new(Webhooks::new(settings, Arc::new(SystemTime::now)).unwrap());
    let (delivered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let driver = {
        let (delivered, stop) = (Arc::clone(&delivered), Arc::clone(&stop));
        let (window, body) = (options.window, Bytes::from(vec![b'x'; options.bytes]));
        thread::Builder::new()
            .name("driver".to_owned())
            .spawn(move || {
                runtime().block_on(async move {
                    let mut lanes = Vec::new();
                    for endpoint in endpoints.iter().flat_map(|e| std::iter::repeat_n(e, window)) {
                        lanes.push(tokio::spawn(lane(
                            Arc::clone(&webhooks),
                            Arc::clone(endpoint),
                            body.clone(),
                            Arc::clone(&delivered),
                            Arc::clone(&stop),
                        )));
                    }
                    for lane in lanes {
                        lane.await.unwrap();
                    }
                });
            })
            .unwrap()
    };
    thread::sleep(Duration::from_millis(500));
    let (before, made, started) = (spent(), delivered.load(Ordering::SeqCst), Instant::now());
    thread::sleep(Duration::from_secs_f64(options.seconds));
    let (after, took) = (spent(), started.elapsed());
    let made = delivered.load(Ordering::SeqCst) - made;
    stop.store(true, Ordering::SeqCst);
    driver.join().unwrap();
    print!("{:.0} deliveries/s; microseconds of processor each:", made as f64 / took.as_secs_f64());
    for (name, nanos) in after {
        let nanos = nanos - before.get(&name).copied().unwrap_or_default();
        if nanos > 0 {
            print!(" {name} {:.1}", nanos as f64 / 1000.0 / made as f64);
        }
    }
    println!();
}

/// Delivers one event after the other.
async fn lane(
    webhooks: Arc<Webhooks>,
    endpoint: Arc<Endpoint>,
    body: Bytes,
    delivered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let subscription: Arc<str> = "matching".into();
    let trace: Arc<str> = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let attempt = Attempt {
            endpoint: Arc::clone(&endpoint),
            subscription: Arc::clone(&subscription),
            event_id: format!("0-{number}"),
            number: 1,
            traceparent: Some(Arc::clone(&trace)),
            content_type: Some("application/cloudevents+json; charset=utf-8".into()),
            body: body.clone(),
            headers: Vec::new(),
            replay: None,
            timeout: Duration::from_secs(30),
        };
        let outcome = webhooks.deliver(attempt).await;
        assert!(outcome.is_delivered(), "{outcome:?}");
        delivered.fetch_add(1, Ordering::Relaxed);
    }
}
