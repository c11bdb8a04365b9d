//! Servers of all kinds, over real sockets.

mod exchanges;
mod failures;
mod pools;
mod server;

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use lanekeeper_actors::kernel::clock::{ManualClock, SharedClock, SystemClock};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::upstream::{Causes, RetryRules};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::*;
use server::Server;

/// Long enough for anything on a busy machine, so that only what is stuck meets it.
const AMPLE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits {
        timeout: AMPLE,
        connect_timeout: AMPLE,
        idle_timeout: AMPLE,
        idle_connections: 4,
        keep_alive: AMPLE,
        buffer: 1_000,
        body: 1 << 20,
        body_timeout: AMPLE,
    }
}

/// Runs a test on one thread, as a worker runs its requests.
fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async { tokio::time::timeout(AMPLE, test).await.expect("it never ended") });
}

/// The backend of this definition.
fn backend_with(definition: Definition, limits: Limits, clock: SharedClock) -> Arc<Backend> {
    let upstreams = Upstreams::new(limits, clock);
    upstreams.prepare([(Name::from("b"), definition)]).unwrap().find("b").unwrap()
}

fn backend(definition: Definition) -> Arc<Backend> {
    backend_with(definition, limits(), SystemClock::shared())
}

fn of(servers: &[&Server]) -> Definition {
    let place = |server: &&Server| Place { address: server.address(), weight: 1, priority: 1 };
    Definition { pool: servers.iter().map(place).collect(), ..Definition::plain(servers[0].address()) }
}

fn retrying(count: u32, on: Causes) -> Option<Retry> {
    let interval = Duration::from_millis(1);
    let rules = RetryRules { count, interval, max_interval: None, delta: None, first_fast: false };
    Some(Retry { rules, on })
}

fn manual() -> Arc<ManualClock> {
    ManualClock::at(Timestamp(1_700_000_000_000))
}

fn request(method: &str) -> Outgoing<'_> {
    Outgoing { method, target: "/x", fields: b"", length: Length::None, named: false }
}

/// Pieces of a body; it is never at its end when the last one is `None`.
struct Pieces(Vec<Option<Bytes>>);

impl Pieces {
    fn of(pieces: &[&str]) -> Self {
        Self(pieces.iter().map(|piece| Some(Bytes::copy_from_slice(piece.as_bytes()))).collect())
    }

    fn stuck(pieces: &[&str]) -> Self {
        let mut all = Self::of(pieces);
        all.0.push(None);
        all
    }
}

impl Source for Pieces {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        match self.0.first() {
            None => Poll::Ready(None),
            Some(None) => Poll::Pending,
            Some(Some(_)) => Poll::Ready(self.0.remove(0).map(Ok)),
        }
    }
}

/// Reads a body to its end.
async fn read(mut body: Body, source: &mut dyn Source) -> Result<Vec<u8>, BrokenOff> {
    let mut whole = Vec::new();
    while let Some(piece) = std::future::poll_fn(|cx| body.poll_piece(source, cx)).await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

/// Status and body of the answer to a request.
async fn ask(backend: &Arc<Backend>, request: &Outgoing<'_>) -> Result<(u16, String), Failed> {
    send(backend, request, &mut Nothing).await
}

async fn send(
    backend: &Arc<Backend>,
    request: &Outgoing<'_>,
    source: &mut dyn Source,
) -> Result<(u16, String), Failed> {
    let answer = backend.forward(request, source).await?;
    let status = answer.head.status;
    let body = read(answer.body, source).await.unwrap();
    Ok((status, String::from_utf8(body).unwrap()))
}

async fn get(backend: &Arc<Backend>) -> Result<(u16, String), Failed> {
    ask(backend, &request("GET")).await
}

/// Waits until something is true that comes true by itself.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    panic!("never: {what}");
}
