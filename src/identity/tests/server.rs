//! A server of keys that does what a test tells it, and counts who came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Passes that an open gate has.
const OPEN: usize = 1_000_000;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answer: Mutex<Vec<u8>>,
    visits: AtomicUsize,
    gate: Semaphore,
}

impl Server {
    /// A server that answers every request in the same way.
    pub(super) async fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            State { answer: Mutex::new(answer), visits: AtomicUsize::new(0), gate: Semaphore::new(OPEN) };
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    state.visits.fetch_add(1, Ordering::SeqCst);
                    // A pass is used up, so that none comes back when the gate is closed.
                    state.gate.acquire().await.unwrap().forget();
                    let answer = state.answer.lock().unwrap().clone();
                    // A client that has seen enough hangs up.
                    socket.write_all(&answer).await.ok();
                });
            }
        });
        Self { address, state }
    }

    /// A server of these keys.
    pub(super) async fn of(keys: &[Value]) -> Self {
        Self::start(answer_with_keys(keys)).await
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    /// Answers in another way from now on.
    pub(super) fn answer(&self, answer: Vec<u8>) {
        *self.state.answer.lock().unwrap() = answer;
    }

    /// Requests that came so far.
    pub(super) fn visits(&self) -> usize {
        self.state.visits.load(Ordering::SeqCst)
    }

    /// Lets nobody have an answer until the gate is opened.
    pub(super) fn close(&self) {
        self.state.gate.forget_permits(usize::MAX);
    }

    pub(super) fn open(&self) {
        self.state.gate.add_permits(OPEN);
    }
}

pub(super) fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}");
    format!("{head}\r\nconnection: close\r\n\r\n{body}").into_bytes()
}

pub(super) fn answer_with_keys(keys: &[Value]) -> Vec<u8> {
    answer("200 OK", "application/json; charset=utf-8", &json!({ "keys": keys }).to_string())
}
