//! Stands between the server's webhooks and the report: takes every event in, counts it, and times it.
//! Invariant: an event is counted before it is acknowledged, so what the server believes delivered is never missing here.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::clock::{Clock, Moment, nanos};
use crate::document::Probe;
use crate::tally::{Window, histogram};

/// Connections that are served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// The largest event that is read, in bytes: a document of 2 MiB and its envelope.
const MAX_EVENT: usize = 3 << 20;
/// Documents have smaller numbers than this, which bounds the memory that a foreign number can ask for.
const MAX_DOCUMENTS: u64 = 1 << 30;

/// A webhook server with one path for each subscriber. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Sink {
    address: SocketAddr,
    subscribers: Arc<Subscribers>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Subscribers {
    clock: Clock,
    run: u32,
    each: Vec<Mutex<Deliveries>>,
}

/// What one subscriber got.
#[derive(Debug)]
pub(crate) struct Deliveries {
    /// First deliveries of documents whose due time is in here are timed.
    window: Window,
    /// Requests taken in.
    pub(crate) received: u64,
    /// Events that came more than once, by their `webhook-id`.
    pub(crate) duplicates: u64,
    /// Events without an id or a probe, and probes of another run.
    pub(crate) strange: u64,
    /// From the moment a create was sent to the moment its event had arrived.
    pub(crate) from_sent: Histogram<u64>,
    /// The same from the moment the create was due.
    pub(crate) from_due: Histogram<u64>,
    /// Hashes of the ids seen; sixty-four bits are enough to tell millions of events apart.
    events: HashSet<u64>,
    /// The documents seen, a bit for each number.
    documents: Vec<u64>,
}

/// The path of a subscriber's webhook, counted from 0.
pub(crate) fn path(subscriber: usize) -> String {
    format!("/subscriber-{}", subscriber + 1)
}

impl Sink {
    /// Listens on `address` for `subscribers` webhooks and takes documents of `run` for its own.
    pub(crate) async fn start(
        address: SocketAddr,
        subscribers: usize,
        run: u32,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))?;
        let address = listener.local_addr()?;
        let each = (0..subscribers)
            .map(|_| Ok(Mutex::new(Deliveries::new()?)))
            .collect::<anyhow::Result<Vec<Mutex<Deliveries>>>>()?;
        let subscribers = Arc::new(Subscribers { clock, run, each });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&subscribers))).abort_handle();
        Ok(Self { address, subscribers, accepting })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of subscribers.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.each.len()
    }

    /// Says which documents are timed.
    pub(crate) fn measure(&self, window: Window) {
        for subscriber in &self.subscribers.each {
            locked(subscriber, |deliveries| deliveries.window = window);
        }
    }

    /// For each subscriber, how many of the documents with these numbers have not come yet.
    pub(crate) fn missing(&self, numbers: &[u64]) -> Vec<u64> {
        let count = |deliveries: &mut Deliveries| {
            numbers.iter().filter(|number| !deliveries.has(**number)).count() as u64
        };
        self.subscribers.each.iter().map(|subscriber| locked(subscriber, count)).collect()
    }

    /// Reads each subscriber's deliveries.
    pub(crate) fn for_each<T>(&self, mut read: impl FnMut(&Deliveries) -> T) -> Vec<T> {
        self.subscribers
            .each
            .iter()
            .map(|subscriber| locked(subscriber, |deliveries| read(deliveries)))
            .collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Deliveries {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            window: Window::EMPTY,
            received: 0,
            duplicates: 0,
            strange: 0,
            from_sent: histogram()?,
            from_due: histogram()?,
            events: HashSet::new(),
            documents: Vec::new(),
        })
    }

    fn take(&mut self, event: Option<u64>, probe: Option<Probe>, now: Moment) {
        self.received += 1;
        let (Some(event), Some(probe)) = (event, probe) else {
            self.strange += 1;
            return;
        };
        if !self.events.insert(event) {
            self.duplicates += 1;
            return;
        }
        self.mark(probe.number);
        if self.window.contains(probe.due) {
            self.from_sent.saturating_record(nanos(now.since(probe.sent)));
            self.from_due.saturating_record(nanos(now.since(probe.due)));
        }
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = place(number);
        if self.documents.len() <= word {
            self.documents.resize(word + 1, 0);
        }
        if let Some(bits) = self.documents.get_mut(word) {
            *bits |= bit;
        }
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.documents.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

/// The word and the bit that stand for a document.
fn place(number: u64) -> (usize, u64) {
    let bits = u64::from(u64::BITS);
    ((number / bits) as usize, 1 << (number % bits))
}

/// A panic while counting would be a bug of ours; the counts are still the best we have.
fn locked<T>(subscriber: &Mutex<Deliveries>, work: impl FnOnce(&mut Deliveries) -> T) -> T {
    work(&mut subscriber.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn accept(listener: TcpListener, subscribers: Arc<Subscribers>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // An accept fails when the peer is already gone or descriptors run out; the next may succeed.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let subscribers = Arc::clone(&subscribers);
        connections.spawn(async move {
            serve(stream, subscribers).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, subscribers: Arc<Subscribers>) {
    // Without TCP_NODELAY acknowledgements would wait for the peer's delayed ACK; a socket that refuses it still works.
    stream.set_nodelay(true).unwrap_or_default();
    let answer = service_fn(move |request| {
        let subscribers = Arc::clone(&subscribers);
        async move { subscribers.take(request).await }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    // The server under test may hang up as it likes; what it did not get acknowledged it sends again.
    connection.await.unwrap_or_default();
}

impl Subscribers {
    async fn take(&self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::Error> {
        let subscriber =
            request.uri().path().strip_prefix("/subscriber-").and_then(|n| n.parse::<usize>().ok());
        let Some(subscriber) = subscriber.and_then(|n| self.each.get(n.checked_sub(1)?)) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        if request.method() != Method::POST {
            return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
        }
        let event = request.headers().get("webhook-id").map(|id| {
            let mut hasher = DefaultHasher::new();
            id.as_bytes().hash(&mut hasher);
            hasher.finish()
        });
        let Ok(body) = Limited::new(request.into_body(), MAX_EVENT).collect().await else {
            return Ok(empty(StatusCode::PAYLOAD_TOO_LARGE));
        };
        let now = self.clock.now();
        let probe = Probe::find(&body.to_bytes())
            .filter(|probe| probe.run == self.run && probe.number < MAX_DOCUMENTS);
        locked(subscriber, |deliveries| deliveries.take(event, probe, now));
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

fn empty(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;

    use super::*;
    use crate::document::Template;
    use crate::schedule::DocumentKey;

    const RUN: u32 = 5;

    async fn post(address: SocketAddr, path: &str, id: Option<&str>, body: Bytes) -> u16 {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::post(path).header("host", "sink");
        if let Some(id) = id {
            request = request.header("webhook-id", id);
        }
        let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        response.status().as_u16()
    }

    fn event(number: u64, due: Moment) -> Bytes {
        Template::new(RUN, 1000).body(DocumentKey { number, partition: 0 }, due, due)
    }

    async fn sink(clock: Clock) -> Sink {
        Sink::start("127.0.0.1:0".parse().unwrap(), 2, RUN, clock).await.unwrap()
    }

    #[tokio::test]
    async fn events_are_counted_per_subscriber_with_duplicates_and_missing() {
        let clock = Clock::start();
        let sink = sink(clock).await;
        let now = clock.now();
        assert_eq!(post(sink.address(), &path(0), Some("0-1"), event(1, now)).await, 204);
        assert_eq!(post(sink.address(), &path(0), Some("0-2"), event(2, now)).await, 204);
        assert_eq!(post(sink.address(), &path(0), Some("0-2"), event(2, now)).await, 204);
        assert_eq!(post(sink.address(), &path(1), Some("0-1"), event(1, now)).await, 204);
        assert_eq!(sink.for_each(|deliveries| deliveries.received), [3, 1]);
        assert_eq!(sink.for_each(|deliveries| deliveries.duplicates), [1, 0]);
        assert_eq!(sink.missing(&[1, 2, 300]), [1, 2]);
        assert_eq!(sink.missing(&[1]), [0, 0]);
    }

    #[tokio::test]
    async fn deliveries_of_the_window_are_timed_from_due_and_from_sent() {
        let clock = Clock::start();
        let sink = sink(clock).await;
        let from = clock.now();
        sink.measure(Window { from, to: from.plus(Duration::from_secs(60)) });
        let early = Moment::from_number(from.number() - 1);
        post(sink.address(), &path(0), Some("0-1"), event(1, early)).await;
        post(sink.address(), &path(0), Some("0-2"), event(2, from)).await;
        let elapsed = nanos(clock.now().since(from));
        let times = sink.for_each(|deliveries| (deliveries.from_sent.len(), deliveries.from_due.max()));
        assert_eq!(times[0].0, 1);
        assert!(times[0].1 > 0 && times[0].1 <= elapsed + elapsed / 100);
        assert_eq!(times[1].0, 0);
    }

    #[tokio::test]
    async fn strange_events_are_taken_but_prove_nothing() {
        let clock = Clock::start();
        let sink = sink(clock).await;
        let now = clock.now();
        let foreign = Template::new(RUN + 1, 1000).body(DocumentKey { number: 1, partition: 0 }, now, now);
        assert_eq!(post(sink.address(), &path(0), Some("0-1"), foreign).await, 204);
        assert_eq!(post(sink.address(), &path(0), None, event(1, now)).await, 204);
        assert_eq!(post(sink.address(), &path(0), Some("0-3"), Bytes::from_static(b"[]")).await, 204);
        assert_eq!(sink.for_each(|deliveries| deliveries.strange), [3, 0]);
        assert_eq!(sink.missing(&[1]), [1, 1]);
    }

    #[tokio::test]
    async fn unknown_paths_are_not_found() {
        let sink = sink(Clock::start()).await;
        for wrong in ["/", "/subscriber-0", "/subscriber-3", "/subscriber-x"] {
            assert_eq!(post(sink.address(), wrong, Some("0-1"), Bytes::new()).await, 404, "{wrong}");
        }
    }
}
