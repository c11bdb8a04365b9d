//! Stands between verbs that need a running backend and the backend: it has threads of its own here.
//!
//! Invariant: whoever started a backend learns how it ended, whether it became ready or not.

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::output;
use crate::app::{self, Address, Addresses, Ended, RunError, RunOptions, Start};
use crate::manifest::{Manifest, Written};
use crate::telemetry::{self, TelemetryError};

/// A backend in this process.
#[derive(Debug)]
pub(super) struct Backend {
    /// Where it listens.
    pub(super) at: Addresses,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), Failure>>,
}

/// What a backend runs.
enum Backing {
    /// This manifest and no other.
    Fixed(Box<Manifest>),
    /// This one, and those that follow it.
    Live(Box<Start>, mpsc::Receiver<Written>),
}

impl Backend {
    /// Starts a backend and waits until it is ready. The admin token is looked for in `environment`.
    pub(super) async fn start(
        manifest: Manifest,
        environment: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        Self::begin(Backing::Fixed(Box::new(manifest)), environment).await
    }

    /// As [`start`](Self::start), with a manifest that others can follow.
    pub(super) async fn start_live(
        start: Start,
        reloads: mpsc::Receiver<Written>,
        environment: Vec<(String, String)>,
    ) -> Result<Self, Failure> {
        Self::begin(Backing::Live(Box::new(start), reloads), environment).await
    }

    async fn begin(backing: Backing, environment: Vec<(String, String)>) -> Result<Self, Failure> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let work = move || {
            // Nobody listens any more when the whole process is about to end.
            end.send(run(backing, environment, ready, stopped)).unwrap_or_default();
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

    /// The first public address.
    pub(super) fn gateway(&self) -> Result<Address, Failure> {
        let first = self.at.gateway.first().copied();
        first.ok_or_else(|| Failure::Failed("the backend has no public address".into()))
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
    backing: Backing,
    environment: Vec<(String, String)>,
    ready: oneshot::Sender<Addresses>,
    stop: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let (what, reloads) = match backing {
        Backing::Fixed(manifest) => (Err(manifest), None),
        Backing::Live(start, reloads) => (Ok(start), Some(reloads)),
    };
    let options = RunOptions {
        ready: Box::new(move |addresses| {
            // Whoever asked may be gone already; then the stop is on its way.
            ready.send(addresses.clone()).unwrap_or_default();
        }),
        shutdown: Box::pin(async {
            // Nobody is left who could stop it later, so this is a stop too.
            stop.await.unwrap_or_default();
        }),
        environment,
        fatal: app::exit_on_fatal(),
        transport: None,
        reloads,
    };
    let running = async {
        match what {
            Ok(start) => Box::pin(app::run_live(*start, options)).await,
            Err(manifest) => app::run(*manifest, options).await,
        }
    };
    match actix_web::rt::System::new().block_on(running) {
        Ok(Ended::Drained) => Ok(()),
        Ok(Ended::CutOff) => {
            output::complain("what was still under way was cut off; nothing acknowledged is lost");
            Ok(())
        }
        Err(RunError::Wiring(error)) => Err(Failure::Usage(error.to_string())),
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}

/// Begins to log to stderr.
pub(super) fn log(environment: &[(String, String)]) -> Result<(), Failure> {
    let filter = environment.iter().rev().find(|(name, _)| name == telemetry::VARIABLE);
    telemetry::start(filter.map(|(_, value)| value.as_str())).map_err(|error| match error {
        TelemetryError::Filter(_) => Failure::Usage(error.to_string()),
        TelemetryError::Thread(_) | TelemetryError::Twice => Failure::Failed(error.to_string()),
    })
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
    reload: tokio::signal::unix::Signal,
}

/// An order from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Come to an end.
    End,
    /// Read the manifest again.
    Reload,
}

impl Signals {
    /// Listens from now on; the signals no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let open = |kind| signal(kind).map_err(|error| Failure::Failed(format!("no signals: {error}")));
        Ok(Self {
            interrupt: open(SignalKind::interrupt())?,
            terminate: open(SignalKind::terminate())?,
            reload: open(SignalKind::hangup())?,
        })
    }

    /// Waits for the next order, which may be to read the manifest again: SIGHUP.
    pub(super) async fn order(&mut self) -> Order {
        tokio::select! {
            _ = self.interrupt.recv() => Order::End,
            _ = self.terminate.recv() => Order::End,
            _ = self.reload.recv() => Order::Reload,
        }
    }

    /// Waits for the next order to end.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}
