//! The whole process: from a checked manifest to two listeners, and from a signal to a drained disk.
//!
//! Stands between the command line (or a test) and everything else. Invariants: `ready` is called when requests
//! are answered and not before; after `shutdown` nothing new is begun, and what was begun is finished.

mod events;
mod live;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod wiring;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use lanekeeper_actors::gateway::{
    self, GatewayOpenError, GatewaySettings, KeysError, LedgerHandle, Seed, SystemRandom, UsageHandle,
};
use lanekeeper_actors::kernel::clock::{SharedClock, SystemClock};
use lanekeeper_actors::model::delivery::Transport;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::shard::{Fatal, ShardHandle};
use lanekeeper_actors::system::{StartError, System};
use serde_json::json;

use crate::audit::{Audit, Outcome, Record};
use crate::configuration::{Configuration as _, NotApplied, Wanted};
use crate::delivery::{Webhooks, WebhooksProblem};
use crate::edge::tls::{self, Certificates, FilesProblem};
use crate::http::admin::{self, Admin, Token, TokenError};
use crate::http::{
    self, Edge, Flight, Gateway, Listening, Live, Metrics, Routes, Shelf, Webhooks as TenantWebhooks,
};
use crate::manifest::{Listener, Manifest, Written};
use crate::telemetry;
use crate::upstream::{InvalidBackend, Upstreams};

use live::{Applier, Rooms};

pub use live::{Origin, Start, choose};
pub use wiring::WiringError;
#[cfg(test)]
pub(crate) use wiring::catalog;

/// Exit code of a process whose shard thread died (`EX_SOFTWARE` of sysexits).
pub const EXIT_FATAL: i32 = 70;
/// Time for the last words to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The addresses that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The public listeners, in the manifest's order; at least one.
    pub gateway: Vec<Address>,
    /// The private one.
    pub admin: Address,
}

/// Where one listener is, and what it speaks; shown as a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub addr: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.addr)
    }
}

/// What a run needs besides its manifest.
pub struct RunOptions {
    /// Called once, when requests are answered.
    pub ready: Box<dyn FnOnce(&Addresses)>,
    /// Ends the run when it is done.
    pub shutdown: Pin<Box<dyn Future<Output = ()>>>,
    /// Environment variables; the admin token is looked for here.
    pub environment: Vec<(String, String)>,
    /// What happens when a shard's thread dies; [`exit_on_fatal`] in the product.
    pub fatal: Fatal,
    /// How events are delivered; webhooks in the product.
    pub transport: Option<Arc<dyn Transport>>,
    /// Manifests that follow each other while the process runs, besides those that the admin API is given.
    pub reloads: Option<tokio::sync::mpsc::Receiver<Written>>,
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunOptions")
    }
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The manifest asks for something that a room cannot do.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// An address cannot be listened on.
    #[error("cannot listen on `{addr}`: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    /// The certificates of a listener cannot be used.
    #[error("the TLS of `{addr}`: {source}")]
    Tls { addr: SocketAddr, source: Box<FilesProblem> },
    /// The delivery of events cannot start.
    #[error(transparent)]
    Webhooks(#[from] WebhooksProblem),
    /// The data directory or a room cannot start.
    #[error(transparent)]
    System(#[from] StartError),
    /// The gateway cannot start.
    #[error(transparent)]
    Gateway(#[from] GatewayOpenError),
    /// The system has no first shard; it never is so.
    #[error("the data directory `{0}` has no shards")]
    NoShards(PathBuf),
    /// The keys of the manifest cannot be stored.
    #[error("the api keys of the manifest: {0}")]
    Seeds(#[source] KeysError),
    /// Nothing can be sealed with the pepper; it never is so.
    #[error("the pepper cannot seal the webhooks of tenants")]
    Seal,
    /// There is no thread for the audit log.
    #[error("the audit log cannot start: {0}")]
    Audit(#[source] io::Error),
    /// What was applied cannot be kept.
    #[error("the manifest: {0}")]
    Configuration(#[from] NotApplied),
    /// A backend cannot be used as it is defined.
    #[error(transparent)]
    Backend(#[from] InvalidBackend),
    /// There is no admin token.
    #[error("the admin token: {0}")]
    Token(#[from] TokenError),
    /// A listener ended by itself.
    #[error("a listener failed: {0}")]
    Server(#[source] io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything that was begun was finished.
    Drained,
    /// `drain_timeout` passed first. What was acknowledged is on disk all the same.
    CutOff,
}

/// Ends the process with [`EXIT_FATAL`]: nobody may go on acknowledging writes without a shard's threads.
pub fn exit_on_fatal() -> Fatal {
    Arc::new(|why| {
        tracing::error!(why, "the process cannot go on");
        telemetry::flush(LAST_WORDS);
        std::process::exit(EXIT_FATAL)
    })
}

/// Runs a manifest until `options.shutdown` is done. Must be called inside an actix system.
///
/// # Errors
/// [`RunError`] when it does not come up, or a listener fails.
pub async fn run(manifest: Manifest, options: RunOptions) -> Result<Ended, RunError> {
    attend(manifest, None, options).await
}

/// As [`run`], with a manifest that can be followed by others.
///
/// # Errors
/// As [`run`].
pub async fn run_live(start: Start, options: RunOptions) -> Result<Ended, RunError> {
    attend(start.manifest.clone(), Some(start), options).await
}

async fn attend(manifest: Manifest, start: Option<Start>, options: RunOptions) -> Result<Ended, RunError> {
    let RunOptions { ready, shutdown, environment, fatal, transport, reloads } = options;
    let clock = SystemClock::shared();
    // Addresses first: a port that is taken must not cost a look at the data.
    let listeners = manifest.server.listen.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
    let admin_listener = listen(&manifest.server.admin)?;
    let addresses = Addresses {
        gateway: listeners.iter().map(address).collect::<Result<_, _>>()?,
        admin: address(&admin_listener)?,
    };
    let certificates = listeners.iter().chain([&admin_listener]).filter_map(|listener| listener.tls.clone());
    let certificates: Vec<_> = certificates.collect();
    let built = build(&manifest, &environment, clock, fatal, transport).await?;
    let Built { gateway, mut admin, topics } = built;
    let gateway = Arc::new(gateway);
    if let Some(start) = start {
        let applier = Arc::new(Applier::begin(start, admin.system.data(), rooms(&gateway, &admin, topics))?);
        admin.configuration = Some(applier.clone());
        if let Some(reloads) = reloads {
            actix_web::rt::spawn(follow(applier, reloads, admin.audit.clone()));
        }
    }
    let (system, flight) = (admin.system.clone(), gateway.flight.clone());
    let usage = admin.usage.clone();
    let counting = actix_web::rt::spawn(usage.clone().keep());
    let audit = admin.audit.clone();
    let ledger = admin.ledger.clone();
    let remembering = actix_web::rt::spawn(ledger.clone().keep());
    let renewing = actix_web::rt::spawn(gateway.webhooks.clone().keep());
    // Without TLS, SIGHUP keeps its usual meaning.
    let reloading =
        (!certificates.is_empty()).then(|| actix_web::rt::spawn(tls::keep(certificates, tls::LOOK_EVERY)));
    let probing = actix_web::rt::spawn(admin.upstreams.clone().watch());
    let limits = wiring::listeners(&manifest);
    let (connections, state) = (admin.connections.clone(), admin.gateway.clone());
    let public = http::serve_gateway(listeners, Data::from(gateway), state, connections, limits);
    let public = Running::start(public.map_err(RunError::Server)?);
    let private = http::serve_admin(admin_listener, Data::new(admin), limits);
    let private = Running::start(private.map_err(RunError::Server)?);
    record(&audit, wiring::started(&manifest, &system)).await;
    ready(&addresses);
    let gateways: Vec<_> = addresses.gateway.iter().map(ToString::to_string).collect();
    tracing::info!(project = %manifest.project, gateway = ?gateways, admin = %addresses.admin, "ready");
    let failed = tokio::select! {
        () = shutdown => None,
        error = public.failed() => Some(error),
        error = private.failed() => Some(error),
    };
    tracing::info!("shutting down");
    counting.abort();
    remembering.abort();
    renewing.abort();
    probing.abort();
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    let drained =
        drain((&system, &usage, &ledger), &flight, &public, &private, manifest.limits.drain_timeout).await;
    let outcome = Some(if drained { Outcome::Done } else { Outcome::Failed });
    if let Err(error) = audit.close(Record { action: "process.stopped", outcome, ..Record::default() }).await
    {
        tracing::error!(%error, "the end is not recorded");
    }
    tracing::info!(drained, "stopped");
    match failed {
        Some(error) => Err(RunError::Server(error)),
        None => Ok(if drained { Ended::Drained } else { Ended::CutOff }),
    }
}

/// What a process consists of.
struct Built {
    gateway: Gateway,
    admin: Admin,
    topics: BTreeMap<Name, events::Listened>,
}

fn rooms(gateway: &Arc<Gateway>, admin: &Admin, topics: BTreeMap<Name, events::Listened>) -> Rooms {
    Rooms {
        gateway: gateway.clone(),
        admission: admin.gateway.clone(),
        metrics: admin.metrics.clone(),
        upstreams: admin.upstreams.clone(),
        keys: admin.keys.clone(),
        ledger: admin.ledger.clone(),
        system: admin.system.clone(),
        topics,
        clock: admin.clock.clone(),
    }
}

/// Applies what comes. What is wrong with it is logged, and what was there stays.
async fn follow(applier: Arc<Applier>, mut reloads: tokio::sync::mpsc::Receiver<Written>, audit: Audit) {
    while let Some(written) = reloads.recv().await {
        let reload = Record { action: "manifest.reload", ..Record::default() };
        let begun = match audit.write(Record { outcome: Some(Outcome::Begun), ..reload.clone() }).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%error, "not reloaded: the change cannot be recorded");
                continue;
            }
        };
        let wanted = Wanted { written, if_generation: None, allow_destroy: false };
        let applied = applier.apply(wanted).await;
        let (outcome, after) = match applied {
            Ok(applied) => {
                let (generation, changes) = (applied.generation, applied.changes.len());
                tracing::info!(generation, changes, "reloaded");
                (Outcome::Done, Some(json!({ "generation": generation, "count": changes })))
            }
            Err(NotApplied::Invalid(problems)) => {
                tracing::error!(%problems, "the manifest is wrong: the one before stays");
                (Outcome::Refused, None)
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded");
                (Outcome::Failed, None)
            }
        };
        record(&audit, Record { begun: Some(begun), outcome: Some(outcome), after, ..reload }).await;
    }
}

/// Starts the rooms and makes what the listeners share.
async fn build(
    manifest: &Manifest,
    environment: &[(String, String)],
    clock: SharedClock,
    fatal: Fatal,
    transport: Option<Arc<dyn Transport>>,
) -> Result<Built, RunError> {
    let settings = wiring::gateway(manifest)?;
    let edge = wiring::edge(manifest, clock.clone())?;
    let transport = match transport {
        Some(transport) => transport,
        None => Arc::new(Webhooks::new(wiring::webhooks(manifest), wiring::wall_clock(clock.clone()))?),
    };
    let seeds = wiring::seeds(manifest)?;
    let events = events::events(manifest)?;
    let topics = events.topics.clone();
    let mut shelf = Shelf::new(wiring::tenant_webhooks(manifest, &events.topics));
    let (data, now) = (manifest.server.data.clone(), clock.now());
    let rooms = (transport, clock.clone(), fatal);
    let stored = |shards: &[ShardHandle]| shelf.load(shards, &data, now);
    let system = System::start_with(wiring::system(manifest, events), rooms, stored).await?;
    match assemble(manifest, environment, clock, (system.clone(), settings, edge, seeds, shelf)).await {
        Ok((gateway, admin)) => Ok(Built { gateway, admin, topics }),
        Err(error) => {
            // The data directory is let go in order.
            system.drain(manifest.limits.drain_timeout).await;
            Err(error)
        }
    }
}

async fn assemble(
    manifest: &Manifest,
    environment: &[(String, String)],
    clock: SharedClock,
    (system, settings, edge, seeds, shelf): (System, GatewaySettings, Edge, Vec<Seed>, Shelf),
) -> Result<(Gateway, Admin), RunError> {
    let data = system.data().to_owned();
    let first = system.shards().first().ok_or_else(|| RunError::NoShards(data.clone()))?.clone();
    let random = SystemRandom::shared();
    let (state, keys) = gateway::open(&data, first.clone(), settings, clock.clone(), random.clone())?;
    keys.seed(seeds).await.map_err(RunError::Seeds)?;
    let usage = UsageHandle::new(first.clone(), clock.clone(), &random);
    let ledger = LedgerHandle::open(state.clone(), first, random.clone()).map_err(GatewayOpenError::from)?;
    let token = Token::load(&data, environment, &*random, state.pepper())?;
    let sources = (clock.clone(), random.clone());
    let webhooks = TenantWebhooks::open(shelf, system.clone(), state.pepper(), sources);
    let webhooks = webhooks.map_err(|_| RunError::Seal)?;
    let audit = Audit::start(&data, manifest.audit, clock.clone()).map_err(RunError::Audit)?;
    let metrics = Metrics::default();
    let limits = wiring::documents(manifest);
    let upstreams = Upstreams::new(wiring::upstream(&manifest.limits), clock.clone());
    let fleet = upstreams.prepare(wiring::backends(manifest))?;
    let routes = Routes::new(manifest, &wiring::catalog(manifest), &metrics, &fleet);
    upstreams.adopt(fleet);
    let events = (system.clone(), wiring::event_limits(manifest));
    let callers = wiring::callers(manifest, &clock, None)?;
    let gateway = Gateway::new(
        edge,
        (Live { routes, callers }, &metrics),
        system.reader().clone(),
        limits,
        events,
        clock.clone(),
        (usage.clone(), webhooks, audit.clone()),
    );
    let admin = Admin {
        system,
        keys,
        gateway: state,
        token,
        metrics,
        connections: wiring::connections(manifest),
        flight: gateway.flight.clone(),
        manifest: admin::manifest(manifest),
        body: limits.body,
        page_max: manifest.limits.page_max,
        usage,
        audit,
        ledger,
        configuration: None,
        upstreams,
        clock,
    };
    Ok((gateway, admin))
}

/// What has happened cannot be undone for want of a record: it is told in the log of the process only.
async fn record(audit: &Audit, record: Record) {
    let action = record.action;
    if let Err(error) = audit.write(record).await {
        tracing::error!(%error, action, "not recorded");
    }
}

fn listen(listener: &Listener) -> Result<Listening, RunError> {
    let addr = listener.addr;
    let tls = listener.tls.clone().map(Certificates::open).transpose();
    let tls = tls.map_err(|source| RunError::Tls { addr, source: Box::new(source) })?.map(Arc::new);
    let socket = http::bind(addr).map_err(|source| RunError::Listen { addr, source })?;
    Ok(Listening { socket, tls })
}

fn address(listening: &Listening) -> Result<Address, RunError> {
    let addr = listening.socket.local_addr().map_err(RunError::Server)?;
    Ok(Address { addr, tls: listening.tls.is_some() })
}

/// In the order of the write: no new requests, answers to those under way, then the rooms. The admin listener goes
/// last, so that probes and operators can watch.
async fn drain(
    (system, usage, ledger): (&System, &UsageHandle, &LedgerHandle),
    flight: &Flight,
    public: &Running,
    private: &Running,
    deadline: Duration,
) -> bool {
    let begun = tokio::time::Instant::now();
    public.handle.pause().await;
    flight.close();
    let landed = tokio::time::timeout(deadline, flight.landed()).await.is_ok();
    public.handle.stop(true).await;
    let left = deadline.saturating_sub(begun.elapsed()).max(LAST_WORDS);
    if let Err(error) = usage.flush().await {
        tracing::warn!(%error, "the last usage is not stored");
    }
    if let Err(error) = ledger.flush().await {
        tracing::warn!(%error, "the last use of quotas is not stored");
    }
    let drained = system.drain(left).await;
    private.handle.stop(false).await;
    landed && drained
}

/// A server on a task of its own.
struct Running {
    handle: ServerHandle,
    task: tokio::sync::Mutex<actix_web::rt::task::JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start(server: Server) -> Self {
        let handle = server.handle();
        Self { handle, task: tokio::sync::Mutex::new(actix_web::rt::spawn(server)) }
    }

    /// Waits for an end that nobody asked for.
    async fn failed(&self) -> io::Error {
        match (&mut *self.task.lock().await).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("it ended without being asked"),
        }
    }
}
