//! Stands between requests and the connections that can be used again.
//! Invariant: a connection is used again only for the very scheme, host, port, allow list, authorities and
//! identity that it was made for, and there are never more idle ones than the bounds below say.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::cidr::Cidr;
use super::connect::{Dialer, Host, Link, Speaking, Target};
use super::tls::{Settings, TlsProblem, Trust};

/// Idle connections are closed before common servers close them, to lose few requests to that race.
const IDLE: Duration = Duration::from_secs(20);
/// Idle connections kept for one origin: the widest window of one subscription.
const IDLE_PER_ORIGIN: usize = 64;
/// Idle connections kept for all origins together.
const IDLE_ALTOGETHER: usize = 1024;

/// What connections have in common that may stand in for each other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Route {
    secure: bool,
    host: String,
    port: u16,
    allow: Vec<Cidr>,
    trust: Trust,
}

/// One server, as one kind of endpoint sees it, and the idle connections to it.
pub(crate) struct Origin {
    target: Target,
    /// Used by one request at a time, the most recent one last.
    idle: Mutex<Vec<(Link, Instant)>>,
    /// Used by many requests at a time, and when it last was.
    shared: Mutex<Option<(Link, Instant)>>,
    /// Whether its connections are known to be shared, so that one is enough.
    shares: AtomicBool,
    /// Held while such a connection is made.
    opening: tokio::sync::Mutex<()>,
}

/// A connection for one request.
pub(crate) struct Lease {
    pub(crate) link: Link,
    /// Whether it served another request before.
    pub(crate) reused: bool,
}

/// All connections.
pub(crate) struct Pool {
    dialer: Dialer,
    settings: Settings,
    origins: Mutex<HashMap<Route, Arc<Origin>>>,
    idle: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(dialer: Dialer, settings: Settings) -> Self {
        Self { dialer, settings, origins: Mutex::default(), idle: AtomicUsize::new(0) }
    }

    /// The origin of a URL that was checked, with its allow list in canonical order.
    ///
    /// # Errors
    /// See [`TlsProblem`].
    pub(crate) fn origin(&self, url: &Url, allow: &[Cidr], trust: Trust) -> Result<Arc<Origin>, TlsProblem> {
        let secure = url.scheme() == "https";
        // Without TLS it makes no difference whom one would trust.
        let trust = if secure { trust } else { Trust::default() };
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let route = Route { secure, host: host.to_owned(), port, allow: allow.to_vec(), trust };
        let mut origins = lock(&self.origins);
        if let Some(origin) = origins.get(&route) {
            return Ok(Arc::clone(origin));
        }
        let host = host_of(host);
        let tls = if secure {
            let name = match &host {
                Host::Address(ip) => ServerName::IpAddress((*ip).into()),
                Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| {
                    rustls::Error::General("the host is no name for a certificate".to_owned())
                })?,
            };
            Some((name, self.settings.of(&route.trust)?))
        } else {
            None
        };
        let origin = Arc::new(Origin {
            target: Target { host, port, allow: route.allow.clone(), tls },
            idle: Mutex::default(),
            shared: Mutex::default(),
            shares: AtomicBool::new(false),
            opening: tokio::sync::Mutex::new(()),
        });
        origins.insert(route, Arc::clone(&origin));
        Ok(origin)
    }

    /// A connection to `origin`, used before if there is one.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn lease(&self, origin: &Origin, deadline: Instant) -> Result<Lease, Outcome> {
        if let Some(link) = origin.share() {
            return Ok(Lease { link, reused: true });
        }
        while let Some((mut link, since)) = self.take(origin) {
            if since.elapsed() < IDLE && is_ready(&mut link, deadline).await {
                return Ok(Lease { link, reused: true });
            }
        }
        if origin.shares.load(Ordering::Relaxed) {
            let wait = timeout_at(deadline, origin.opening.lock()).await;
            let _opening =
                wait.map_err(|_| Outcome::failed(OutcomeKind::TimedOut, "connecting took too long"))?;
            if let Some(link) = origin.share() {
                return Ok(Lease { link, reused: true });
            }
            return self.fresh(origin, deadline).await;
        }
        self.fresh(origin, deadline).await
    }

    /// A connection to `origin` that nobody used before.
    ///
    /// # Errors
    /// The outcome of an attempt that ends here.
    pub(crate) async fn fresh(&self, origin: &Origin, deadline: Instant) -> Result<Lease, Outcome> {
        // A handshake is large, and rare: those who find an open connection do not carry the room for it.
        let link = Box::pin(self.dialer.connect(&origin.target, deadline)).await?;
        if let Some(other) = link.share() {
            origin.shares.store(true, Ordering::Relaxed);
            *lock(&origin.shared) = Some((other, Instant::now()));
        }
        Ok(Lease { link, reused: false })
    }

    /// Takes back a connection whose answer was read to its end.
    pub(crate) fn give_back(&self, origin: &Origin, link: Link) {
        match &link.speaking {
            Speaking::Http2(_) => {}
            Speaking::Http1(_) => {
                let mut idle = lock(&origin.idle);
                if idle.len() < IDLE_PER_ORIGIN && self.idle.load(Ordering::Relaxed) < IDLE_ALTOGETHER {
                    idle.push((link, Instant::now()));
                    self.idle.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Closes what was idle for too long and forgets origins that nobody needs.
    pub(crate) fn sweep(&self) {
        lock(&self.origins).retain(|_, origin| {
            let mut idle = lock(&origin.idle);
            let before = idle.len();
            idle.retain(|(link, since)| !link.is_closed() && since.elapsed() < IDLE);
            self.idle.fetch_sub(before - idle.len(), Ordering::Relaxed);
            let mut shared = lock(&origin.shared);
            if shared.as_ref().is_some_and(|(link, used)| link.is_closed() || used.elapsed() >= IDLE) {
                *shared = None;
            }
            // Nobody gets hold of an origin while the table is locked.
            !idle.is_empty() || shared.is_some() || Arc::strong_count(origin) > 1
        });
    }

    fn take(&self, origin: &Origin) -> Option<(Link, Instant)> {
        let taken = lock(&origin.idle).pop()?;
        self.idle.fetch_sub(1, Ordering::Relaxed);
        Some(taken)
    }
}

impl Origin {
    /// A hold on the connection that many requests share, if there is one.
    fn share(&self) -> Option<Link> {
        let mut shared = lock(&self.shared);
        if shared.as_ref().is_some_and(|(link, _)| link.is_closed()) {
            *shared = None;
        }
        let (link, used) = shared.as_mut()?;
        *used = Instant::now();
        link.share()
    }

    /// Forgets the connection that many requests share, because one of them saw it break.
    pub(crate) fn unshare(&self) {
        *lock(&self.shared) = None;
    }
}

/// Waits until the connection can take a request. It was given back a moment ago and may still be putting its
/// last answer away, or find that the peer has closed it.
async fn is_ready(link: &mut Link, deadline: Instant) -> bool {
    match &mut link.speaking {
        Speaking::Http1(sender) => {
            sender.is_ready() || timeout_at(deadline, sender.ready()).await.is_ok_and(|ready| ready.is_ok())
        }
        Speaking::Http2(_) => true,
    }
}

/// Reads the host of a URL, whose IPv6 addresses stand in brackets.
fn host_of(text: &str) -> Host {
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    literal.parse::<IpAddr>().map_or_else(|_| Host::Name(text.to_owned()), Host::Address)
}

/// Each change under these locks is one operation, so what they guard stays true under a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
