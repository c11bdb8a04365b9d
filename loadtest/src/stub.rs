//! Plays the gateway for the tool's own tests: creates and reads documents in memory, and sends events to the sink.
//! Invariant: it does nothing wrong but the one fault that it was given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What a stub does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The first event never reaches the first subscriber, and reaches the second twice.
    LoseOneAndDoubleOne,
    /// The tenth read is answered with 503, the eleventh with another document.
    RefuseTenthReadAndGarbleTheNext,
    StallFirstRead(Duration),
    CloseAfterEachAnswer,
}

/// A running stub. Dropping it closes it.
pub(crate) struct Stub {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

struct State {
    fault: Fault,
    documents: Mutex<HashMap<String, Bytes>>,
    reads: AtomicU64,
    events: AtomicU64,
    subscribers: Vec<mpsc::UnboundedSender<(u64, Bytes)>>,
}

impl Stub {
    /// The only key it takes.
    pub(crate) const KEY: &str = "lk_stub";

    /// Starts a stub that sends events to so many subscribers of a sink.
    pub(crate) async fn start(sink: Option<(SocketAddr, usize)>, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let mut subscribers = Vec::new();
        for index in 0..sink.map_or(0, |(_, count)| count) {
            let (sender, events) = mpsc::unbounded_channel();
            subscribers.push(sender);
            serving.spawn(deliver(sink.unwrap().0, index, events, fault));
        }
        let state = State {
            fault,
            documents: Mutex::default(),
            reads: AtomicU64::new(0),
            events: AtomicU64::new(0),
            subscribers,
        };
        serving.spawn(accept(listener, Arc::new(state)));
        Self { address, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn deliver(
    sink: SocketAddr,
    subscriber: usize,
    mut events: mpsc::UnboundedReceiver<(u64, Bytes)>,
    fault: Fault,
) {
    let mut sender = connect(sink).await;
    while let Some((number, body)) = events.recv().await {
        let times = match (fault, number, subscriber) {
            (Fault::LoseOneAndDoubleOne, 0, 0) => 0,
            (Fault::LoseOneAndDoubleOne, 0, 1) => 2,
            _ => 1,
        };
        for _ in 0..times {
            sender.ready().await.unwrap();
            let request = Request::post(crate::sink::path(subscriber))
                .header("host", sink.to_string())
                .header("webhook-id", format!("0-{number}"))
                .body(Full::new(body.clone()))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 204);
            response.into_body().collect().await.unwrap();
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let state = Arc::clone(&state);
        let keep_alive = state.fault != Fault::CloseAfterEachAnswer;
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, hyper::Error>(state.answer(request).await) }
        });
        connections.spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .keep_alive(keep_alive)
                .serve_connection(TokioIo::new(stream), service)
                .await
                .unwrap_or_default();
        });
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/metrics" {
            return response(200, Bytes::from_static(b"stub 1\n"));
        }
        if request.headers().get("x-api-key").is_none_or(|key| key != Stub::KEY) {
            return response(401, Bytes::new());
        }
        if request.method() == Method::POST { self.create(request).await } else { self.read(request).await }
    }

    async fn create(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/freight/v1/loads"
            || request.headers()["content-type"] != "application/json"
        {
            return response(404, Bytes::new());
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let path =
            format!("/freight/v1/loads/{}/{}", json["lane"].as_str().unwrap(), json["id"].as_str().unwrap());
        if self.documents.lock().unwrap().insert(path, body.clone()).is_some() {
            return response(409, Bytes::new());
        }
        let event = serde_json::json!({ "specversion": "1.0", "type": "LoadCreated", "data": json });
        let event = Bytes::from(serde_json::to_vec(&event).unwrap());
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        for subscriber in &self.subscribers {
            subscriber.send((number, event.clone())).unwrap();
        }
        response(201, body)
    }

    async fn read(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed);
        match (self.fault, read) {
            (Fault::StallFirstRead(stall), 0) => tokio::time::sleep(stall).await,
            (Fault::RefuseTenthReadAndGarbleTheNext, 9) => return response(503, Bytes::new()),
            (Fault::RefuseTenthReadAndGarbleTheNext, 10) => return response(200, Bytes::from_static(b"{}")),
            _ => (),
        }
        match self.documents.lock().unwrap().get(request.uri().path()) {
            Some(document) => response(200, document.clone()),
            None => response(404, Bytes::new()),
        }
    }
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body)).unwrap()
}
