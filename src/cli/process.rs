//! Stands between verbs that need a running backend and the backend: it has threads of its own here.
//!
//! Invariant: whoever started a backend learns how it ended, whether it became ready or not.

use std::net::SocketAddr;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::failure::Failure;
use crate::manifest::Manifest;

/// Where a backend listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// A backend in this process.
#[derive(Debug)]
pub(super) struct Backend {
    /// Where it listens.
    pub(super) at: Addresses,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), Failure>>,
}

impl Backend {
    /// Starts a backend and waits until it is ready.
    pub(super) async fn start(manifest: Manifest) -> Result<Self, Failure> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let work = move || {
            // Nobody listens any more when the whole process is about to end.
            end.send(run(manifest, ready, stopped)).unwrap_or_default();
        };
        std::thread::Builder::new()
            .name("backend".into())
            .spawn(work)
            .map_err(|error| Failure::Failed(format!("no thread for the backend: {error}")))?;
        tokio::select! {
            biased;
            Ok(at) = is_ready => Ok(Self { at, stop: Some(stop), ended }),
            result = &mut ended => match flatten(result) {
                Ok(()) => Err(Failure::Failed("the backend ended before it was ready".into())),
                Err(failure) => Err(failure),
            },
        }
    }

    /// Orders the end: no new work, what is under way is finished, everything is made durable.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended by itself already.
            stop.send(()).unwrap_or_default();
        }
    }

    /// Waits for the end.
    pub(super) async fn ended(&mut self) -> Result<(), Failure> {
        flatten((&mut self.ended).await)
    }
}

fn flatten(result: Result<Result<(), Failure>, oneshot::error::RecvError>) -> Result<(), Failure> {
    result.unwrap_or_else(|_| Err(Failure::Failed("the thread of the backend died".into())))
}

/// Runs a backend on this thread until it is told to stop.
fn run(
    _manifest: Manifest,
    _ready: oneshot::Sender<Addresses>,
    _stop: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    Err(Failure::Failed("the backend is not wired".into()))
}

/// What verbs wait on: one thread, sockets, time and signals.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("no runtime: {error}")))
}

/// The orders to end that come from outside: SIGINT (Ctrl-C) and SIGTERM.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on; the signals no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let open = |kind| signal(kind).map_err(|error| Failure::Failed(format!("no signals: {error}")));
        Ok(Self { interrupt: open(SignalKind::interrupt())?, terminate: open(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}
