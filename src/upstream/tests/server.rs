//! A server made of raw sockets, which reads requests by the letter and does what a test tells it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::Address;

pub(super) struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The number of its connection, from 1.
    pub(super) connection: usize,
    /// Its head, without the empty line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// One accepted connection.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) number: usize,
    input: Vec<u8>,
    requests: Arc<Mutex<Vec<Request>>>,
    closed: Arc<AtomicUsize>,
}

impl Server {
    /// Gives each connection to `behave`.
    pub(super) async fn start<F, Fut>(behave: F) -> Self
    where
        F: Fn(Connection) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, closed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (count, ended, log) = (Arc::clone(&accepted), Arc::clone(&closed), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let (requests, closed) = (Arc::clone(&log), Arc::clone(&ended));
                tokio::spawn(behave(Connection { socket, number, input: Vec::new(), requests, closed }));
            }
        });
        Self { address, accepted, closed, requests }
    }

    /// Answers every request on every connection with these bytes.
    pub(super) async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                while connection.request().await.is_some() {
                    connection.say(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers with these statuses, over all connections, and with the last one from then on.
    pub(super) async fn statuses(statuses: &'static [u16]) -> Self {
        let turn = Arc::new(AtomicUsize::new(0));
        Self::start(move |mut connection| {
            let turn = Arc::clone(&turn);
            async move {
                while connection.request().await.is_some() {
                    let turn = turn.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
                    connection.say(&status(statuses[turn])).await;
                }
            }
        })
        .await
    }

    /// An address that nobody listens on.
    pub(super) async fn dead() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, accepted: Arc::default(), closed: Arc::default(), requests: Arc::default() }
    }

    pub(super) fn address(&self) -> Address {
        Address::parse(&format!("http://{}", self.address)).unwrap().0
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections that the other side has closed.
    pub(super) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// All whole requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// An answer with this status and a short body.
pub(super) fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\n{status}")
}

impl Connection {
    /// The next whole request; `None` when the other side closes.
    pub(super) async fn request(&mut self) -> Option<Request> {
        let head = loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.input.drain(..end + 4).collect();
                break String::from_utf8(head[..end].to_vec()).unwrap();
            }
            self.more().await?;
        };
        let body = if head.contains("\r\ntransfer-encoding: chunked") {
            assert!(!head.contains("\r\ncontent-length"), "two framings: {head}");
            self.chunks().await?
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            self.exactly(length.map_or(0, |length| length.parse().unwrap())).await?
        };
        let request = Request { connection: self.number, head, body };
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            while !self.input.windows(2).any(|window| window == b"\r\n") {
                self.more().await?;
            }
            let end = self.input.windows(2).position(|window| window == b"\r\n").unwrap();
            let line: Vec<u8> = self.input.drain(..end + 2).collect();
            let length = usize::from_str_radix(std::str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
            body.extend(self.exactly(length).await?);
            assert_eq!(self.exactly(2).await?, b"\r\n");
            if length == 0 {
                return Some(body);
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.input.len() < length {
            self.more().await?;
        }
        Some(self.input.drain(..length).collect())
    }

    /// Reads on; `None` at the end.
    pub(super) async fn more(&mut self) -> Option<usize> {
        let mut piece = [0; 8192];
        let length = self.socket.read(&mut piece).await.unwrap_or(0);
        self.input.extend_from_slice(&piece[..length]);
        if length == 0 {
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
        (length > 0).then_some(length)
    }

    pub(super) async fn say(&mut self, bytes: &str) {
        // Whoever went away hears nothing.
        self.socket.write_all(bytes.as_bytes()).await.ok();
    }
}
