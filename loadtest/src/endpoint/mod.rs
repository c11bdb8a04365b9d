//! Stands between the server's webhooks and a row: an endpoint on raw sockets that does what its script says, politely or not.
//! Invariant: a request is noted, with what it will be answered, before the first byte of the answer is sent.
//!
//! It shares two cores with the server, so it does little: one task for each connection, one buffer, no HTTP library.

mod connection;
pub(crate) mod doors;
mod request;
mod script;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::clock::{Clock, Moment};

pub(crate) use request::Request;
pub(crate) use script::{Act, Script, Step, scripts};

/// Handshakes that the kernel keeps for an endpoint until they are accepted.
const BACKLOG: u32 = 1024;

/// A request that an endpoint took in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    /// Which subscription: the number that its URL ends in.
    pub(crate) subscriber: u32,
    /// `x-delivery-attempt`; 0 when there is none.
    pub(crate) attempt: u32,
    /// Hash of `webhook-id`; 0 when there is none.
    pub(crate) event: u64,
    /// The document's number; `None` for an event that carries none.
    pub(crate) number: Option<u64>,
    /// When the document's creation was sent.
    pub(crate) sent: Moment,
    /// When the request was complete.
    pub(crate) at: Moment,
    /// The status that the endpoint means to answer; 0 for none.
    pub(crate) status: u16,
    /// Which of the endpoint's connections it came on, counted from 1.
    pub(crate) connection: u64,
}

impl Hit {
    /// Whether the subscriber has taken the event.
    pub(crate) fn is_taken(&self) -> bool {
        (200..=204).contains(&self.status)
    }
}

/// A connection that was left to the server to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// From the complete request to the server's end of the connection.
    pub(crate) lasted: Duration,
    /// Bytes of the answer that could be written.
    pub(crate) written: u64,
}

/// A running endpoint. Dropping it closes it and its connections.
pub(crate) struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// What the connections of an endpoint share.
struct Shared {
    clock: Clock,
    script: RwLock<Script>,
    hits: Mutex<Vec<Hit>>,
    held: Mutex<Vec<Held>>,
    heads: Mutex<Vec<String>>,
    keeps_heads: bool,
    accepted: AtomicU64,
    under_way: AtomicU64,
    most_under_way: AtomicU64,
}

impl Endpoint {
    /// Opens an endpoint on a free port of 127.0.0.1.
    pub(crate) async fn open(script: Script, clock: Clock) -> anyhow::Result<Self> {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), script, false, clock)
    }

    /// As [`open`](Self::open), and every request is kept word for word.
    pub(crate) async fn attentive(script: Script, clock: Clock) -> anyhow::Result<Self> {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), script, true, clock)
    }

    /// Opens an endpoint at this address.
    pub(crate) fn at(
        address: SocketAddr,
        script: Script,
        keeps_heads: bool,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            clock,
            script: RwLock::new(script),
            hits: Mutex::default(),
            held: Mutex::default(),
            heads: Mutex::default(),
            keeps_heads,
            accepted: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            most_under_way: AtomicU64::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _accepting: accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a subscription with this number.
    pub(crate) fn url(&self, subscriber: u32) -> String {
        format!("http://{}/s/{subscriber}", self.address)
    }

    /// From now on it does something else.
    pub(crate) fn set(&self, script: Script) {
        *self.shared.script.write().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Every request so far, in the order in which they came.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        self.with_hits(<[Hit]>::to_vec)
    }

    /// Looks at the requests so far without copying them.
    pub(crate) fn with_hits<T>(&self, look: impl FnOnce(&[Hit]) -> T) -> T {
        look(&self.shared.hits.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets every request so far.
    pub(crate) fn forget(&self) {
        self.shared.hits.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.most_under_way.store(0, Ordering::Relaxed);
    }

    /// How many requests came so far.
    pub(crate) fn count(&self) -> usize {
        self.with_hits(<[Hit]>::len)
    }

    /// The connections that were left to the server to end, and that it has ended.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests word for word, of an attentive endpoint.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// The most requests that were being answered at one time.
    pub(crate) fn most_under_way(&self) -> u64 {
        self.shared.most_under_way.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn script(&self) -> Script {
        Arc::clone(&self.script.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, hit: Hit, request: &Request<'_>) {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner).push(hit);
        if self.keeps_heads {
            let text = request.text();
            self.heads.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    }

    fn begin(&self) {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_under_way.fetch_max(now, Ordering::Relaxed);
    }

    fn end(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        // An accept fails when the peer is already gone or descriptors run out; the next may succeed.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        connections.spawn(connection::serve(stream, number, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
