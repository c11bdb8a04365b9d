//! A server made of raw sockets, which does to its connections whatever a test tells it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// One accepted connection.
pub(super) struct Connection<S = TcpStream> {
    pub(super) socket: S,
    requests: Arc<Mutex<Vec<String>>>,
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
        let accepted = Arc::new(AtomicUsize::new(0));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let server = Self { address, accepted: Arc::clone(&accepted), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(behave(Connection { socket, requests: Arc::clone(&requests) }));
            }
        });
        server
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

    /// Answers the first request of each connection with these bytes and closes it.
    pub(super) async fn answering_once(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                connection.request().await;
                connection.say(&answer).await;
            }
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?code=1", self.address)
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Server {
    /// Answers every request on every connection over TLS. The setting is read for each connection.
    pub(super) async fn secure(setting: Arc<Mutex<Arc<ServerConfig>>>, answer: &'static str) -> Self {
        Self::start(move |connection| {
            let acceptor = TlsAcceptor::from(Arc::clone(&setting.lock().unwrap()));
            async move {
                let Connection { socket, requests } = connection;
                let socket = match acceptor.accept(socket).into_fallible().await {
                    Ok(socket) => socket,
                    // What it says about it reaches the peer only if it does not close before the peer does.
                    Err((_, socket)) => return Connection { socket, requests }.closed().await,
                };
                let mut connection = Connection { socket, requests };
                while connection.request().await.is_some() {
                    connection.say(answer).await;
                }
            }
        })
        .await
    }

    pub(super) fn secure_url(&self) -> String {
        self.url().replace("http:", "https:")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads one request with its body; `None` when the peer has closed.
    pub(super) async fn request(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                    .unwrap_or(0_usize);
                if body.len() >= length {
                    self.requests.lock().unwrap().push(text.clone());
                    return Some(text);
                }
            }
            if self.socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Writes, and does not mind that the peer is gone.
    pub(super) async fn say(&mut self, text: &str) -> bool {
        self.socket.write_all(text.as_bytes()).await.is_ok()
    }

    /// Waits until the peer closes the connection.
    pub(super) async fn closed(&mut self) {
        let mut rest = [0; 1024];
        while self.socket.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

impl Connection {
    /// Closes the connection with a reset.
    pub(super) fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }
}
