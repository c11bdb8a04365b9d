//! The servers behind the gateway: stands between an operation and who answers it elsewhere.
//!
//! Invariants: a request is on the wire with one framing, without the fields of the caller's connection, and with what
//! the gateway alone says of the caller; nothing is held whole that could be passed on piece by piece; a server that is
//! down costs its own callers a clear answer and others nothing.
//!
//! A request is carried by the thread that took it, on a connection of that thread, without a task of its own: it is
//! given up by dropping it. What is known of servers is shared by all threads.

mod address;
mod answer;
mod backend;
mod connection;
mod definition;
mod dial;
mod exchange;
mod forward;
mod metrics;
mod pool;
mod probes;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::Name;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::delivery::{Lookups, SystemNames, TlsProblem, TlsSettings};

pub use address::{Address, InvalidAddress};
pub use answer::{Answer, Body, BrokenOff};
pub use backend::{Backend, MemberState};
pub use definition::{Breaking, Definition, Limits, MEMBERS_MAX, Place, Probing, Retry};
pub use forward::{Failed, Outgoing};
pub use wire::{Forwarding, Head, Length, Lost, Nothing, Source, Unforwardable, fields};

use backend::Shared;
use metrics::Metrics;

/// All backends, by name.
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

/// The backends of one manifest, by name.
#[derive(Debug, Clone, Default)]
pub struct Fleet(Arc<BTreeMap<Name, Arc<Backend>>>);

impl Fleet {
    /// The backend of this name.
    pub fn find(&self, name: &str) -> Option<Arc<Backend>> {
        self.0.get(name).cloned()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.0.values()
    }
}

struct Inner {
    shared: Arc<Shared>,
    metrics: Metrics,
    /// Read when the first server with TLS needs it.
    tls: OnceLock<Arc<TlsSettings>>,
    fleet: Mutex<Fleet>,
    /// Rings when there are other backends.
    changed: Notify,
}

/// A backend that cannot be used as it is defined.
#[derive(Debug, thiserror::Error)]
#[error("the backend `{backend}`")]
pub struct InvalidBackend {
    /// Which one.
    pub backend: Name,
    /// Why.
    #[source]
    pub source: TlsProblem,
}

impl Upstreams {
    /// No backends yet.
    pub fn new(limits: Limits, clock: SharedClock) -> Self {
        // Whoever meets this name in `Via` is this process and no other.
        let gateway = format!("lanekeeper-{:016x}", fastrand::u64(..));
        let lookups = Lookups::new(Arc::new(SystemNames));
        let shared = Arc::new(Shared { clock, lookups, limits, gateway });
        let (fleet, changed) = (Mutex::default(), Notify::new());
        let inner = Inner { shared, metrics: Metrics::default(), tls: OnceLock::new(), fleet, changed };
        Self { inner: Arc::new(inner) }
    }

    /// Makes the backends of a manifest, which nobody uses yet. One whose definition is the same as before keeps what
    /// is known of it.
    ///
    /// # Errors
    /// When a certificate or a key cannot be used.
    pub fn prepare(
        &self,
        definitions: impl IntoIterator<Item = (Name, Definition)>,
    ) -> Result<Fleet, InvalidBackend> {
        let now = self.fleet();
        let mut backends = BTreeMap::new();
        for (name, definition) in definitions {
            let known = now.find(&name).filter(|backend| backend.definition == definition);
            let backend = match known {
                Some(backend) => backend,
                None => Arc::new(self.make(name.clone(), definition)?),
            };
            backends.insert(name, backend);
        }
        Ok(Fleet(Arc::new(backends)))
    }

    /// From now on these are the backends that are watched and shown. Requests that are under way end with the one
    /// they began with.
    pub fn adopt(&self, fleet: Fleet) {
        *self.inner.fleet.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
        self.inner.changed.notify_waiters();
    }

    fn make(&self, name: Name, definition: Definition) -> Result<Backend, InvalidBackend> {
        let Inner { shared, metrics, .. } = &*self.inner;
        let (shared, metrics) = (Arc::clone(shared), metrics.backend(&name));
        Backend::new(name.clone(), definition, shared, metrics, || self.tls())
            .map_err(|source| InvalidBackend { backend: name, source })
    }

    /// The backends that are watched and shown.
    pub fn fleet(&self) -> Fleet {
        self.inner.fleet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds what was counted, and what is true now, to a registry that is about to be written.
    pub fn register(&self, registry: &mut Registry) {
        self.inner.metrics.register(self.fleet().iter(), registry);
    }

    fn tls(&self) -> Result<Arc<TlsSettings>, TlsProblem> {
        if let Some(settings) = self.inner.tls.get() {
            return Ok(Arc::clone(settings));
        }
        let settings = Arc::new(TlsSettings::new()?);
        Ok(Arc::clone(self.inner.tls.get_or_init(|| settings)))
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fleet().iter().map(|backend| backend.name().to_owned())).finish()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.name())
    }
}
