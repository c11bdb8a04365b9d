//! An endpoint of webhooks with a memory: what came, how often, and what was answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::server::AMPLE;

/// One attempt as the endpoint saw it.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    /// Path of the request; here the name of the subscription.
    pub(crate) path: String,
    /// Header `webhook-id`.
    pub(crate) id: String,
    /// Header `x-delivery-attempt`.
    pub(crate) attempt: u32,
    /// All headers, by their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body as it came.
    pub(crate) body: Vec<u8>,
    /// The event, or a list of them.
    pub(crate) event: Value,
    /// What was answered.
    pub(crate) status: u16,
}

/// Runs on a thread of its own until the test ends.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    hits: Arc<Mutex<Vec<Hit>>>,
    connections: Arc<Mutex<usize>>,
}

type Script = dyn Fn(&Hit) -> (u16, Duration) + Send + Sync;

impl Sink {
    /// An endpoint that answers each attempt at once with the status that the script chooses.
    pub(crate) fn start(script: impl Fn(&Hit) -> u16 + Send + Sync + 'static) -> Self {
        Self::slow(move |hit| (script(hit), Duration::ZERO))
    }

    /// An endpoint that takes its time before it answers.
    pub(crate) fn slow(script: impl Fn(&Hit) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (hits, connections) = (Arc::<Mutex<Vec<Hit>>>::default(), Arc::<Mutex<usize>>::default());
        let (ledger, counter): (_, _) = (hits.clone(), connections.clone());
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    *counter.lock().unwrap() += 1;
                    tokio::spawn(serve(stream, script.clone(), ledger.clone()));
                }
            });
        });
        Self { address, hits, connections }
    }

    /// All attempts so far.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.hits.lock().unwrap().clone()
    }

    /// The attempts on this path, once there are as many that were answered with success.
    pub(crate) async fn taken(&self, path: &str, number: usize) -> Vec<Hit> {
        let deadline = Instant::now() + AMPLE;
        loop {
            let hits = self.hits();
            let taken = |hit: &&Hit| hit.path == path && hit.status < 300;
            let hits: Vec<_> = hits.iter().filter(taken).cloned().collect();
            if hits.len() >= number {
                return hits;
            }
            assert!(Instant::now() < deadline, "{} of {number} came to `{path}`", hits.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// Answers the requests of one connection, one after the other. `None` when the peer is gone, as after a kill.
async fn serve(stream: TcpStream, script: Arc<Script>, ledger: Arc<Mutex<Vec<Hit>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let path = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let is_question = line.starts_with("OPTIONS ");
        let (headers, body) = (BTreeMap::new(), Vec::new());
        let mut hit =
            Hit { path, id: String::new(), attempt: 0, headers, body, event: Value::Null, status: 0 };
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            hit.headers.insert(name.to_ascii_lowercase(), value.to_owned());
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok()?,
                "webhook-id" => hit.id = value.to_owned(),
                "x-delivery-attempt" => hit.attempt = value.parse().ok()?,
                _ => {}
            }
        }
        if is_question {
            // Only endpoints that are called so agree to be sent something (CloudEvents HTTP webhooks, section 4).
            let allowed =
                hit.headers.get("webhook-request-origin").filter(|_| hit.path.starts_with("agrees"));
            let allowed = allowed.map(|origin| format!("webhook-allowed-origin: {origin}\r\n"));
            let answer =
                format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", allowed.unwrap_or_default());
            stream.write_all(answer.as_bytes()).await.ok()?;
            continue;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        hit.event = serde_json::from_slice(&body).ok()?;
        hit.body = body;
        let (status, pause) = script(&hit);
        hit.status = status;
        let answer = format!("HTTP/1.1 {} Said\r\ncontent-length: 0\r\n\r\n", hit.status);
        // Noted before it is answered: what the server believes delivered is in the ledger.
        ledger.lock().unwrap().push(hit);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}
