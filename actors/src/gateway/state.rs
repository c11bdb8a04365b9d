//! What all gateways of a process share, and the decision itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fail::fail_point;

use super::failures::Failures;
use super::keys::{self, KeysHandle};
use super::random::Randomness;
use super::secret_file;
use crate::kernel::clock::SharedClock;
use crate::kernel::permits::{Permit, Permits};
use crate::kernel::shares::Shares;
use crate::model::ids::Name;
use crate::policy::keys::{ApiKeySecret, Grant, KeyRefused, KeyRing, KeyRingError, Pepper};
use crate::policy::rate::{Rate, Ticks, TokenBuckets};
use crate::protocol::gateway::{Admitted, Call, Place, Rated, Refused};
use crate::shard::{ShardHandle, ShardReadError};

/// File of the pepper in the data directory.
const PEPPER: &str = "pepper";
/// When to try again after all places were taken. Requests take milliseconds, so one second frees many.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a product sells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRules {
    /// Names of its APIs.
    pub apis: BTreeSet<Name>,
    /// The rate of each grant, if limited.
    pub rate: Option<Rate>,
}

/// Bounds and products; see the manifest.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// What is sold, by name.
    pub products: BTreeMap<Name, ProductRules>,
    /// Refused keys of one client address before it has to wait.
    pub auth_failures: Rate,
    /// Token buckets held in memory for each product, and for client addresses.
    pub rate_keys: usize,
    /// Requests being worked on.
    pub requests_in_flight: usize,
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayOpenError {
    /// Without its pepper no stored key could be recognised.
    #[error("`{0}` is missing but there are api keys: restore it from a backup, no key works without it")]
    PepperMissing(PathBuf),
    /// The file is not a pepper.
    #[error("`{0}` does not have 32 bytes: restore it from a backup")]
    PepperDamaged(PathBuf),
    /// The file system failed.
    #[error("`{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// The grants cannot be read.
    #[error("the api keys cannot be read: {0}")]
    Read(#[from] ShardReadError),
    /// A stored grant is damaged or of a newer release.
    #[error("the stored api key `{0}` cannot be read: it is damaged or of a newer release")]
    Grant(String),
    /// Two stored grants have the same key.
    #[error("the stored api keys contradict each other: {0}")]
    Ring(#[from] KeyRingError),
}

/// What the gateways show of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Calls that went on.
    pub admitted: u64,
    /// Calls that did not, by [`Refused::reason`].
    pub refused: Vec<(&'static str, u64)>,
    /// Requests being worked on.
    pub in_flight: usize,
    /// How often a gateway started again after a panic.
    pub restarts: u64,
    /// Grants, revoked ones included.
    pub grants: usize,
}

struct Product {
    rules: ProductRules,
    buckets: Option<TokenBuckets>,
}

/// What all gateways of a process share.
pub struct GatewayState {
    settings: GatewaySettings,
    keys: ArcSwap<KeyRing>,
    pepper: Pepper,
    products: BTreeMap<Name, Product>,
    failures: Failures,
    places: Permits,
    shares: Shares,
    clock: SharedClock,
    admitted: AtomicU64,
    refused: [AtomicU64; Refused::REASONS.len()],
    restarts: AtomicU64,
}

impl fmt::Debug for GatewayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayState").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Reads pepper and grants, and makes the state and the door for whoever manages keys. On the
/// first start of `data` the pepper is made; `shard` is the one that holds the process's own rows.
///
/// # Errors
/// [`GatewayOpenError`]; a pepper that is gone while there are grants is never replaced.
pub fn open(
    data: &Path,
    shard: ShardHandle,
    settings: GatewaySettings,
    clock: SharedClock,
    random: Randomness,
) -> Result<(Arc<GatewayState>, KeysHandle), GatewayOpenError> {
    let ring = keys::load(&shard)?;
    let pepper = pepper(data, ring.is_empty(), &random)?;
    let state = Arc::new(GatewayState::new(settings, ring, pepper, clock));
    let handle = KeysHandle::new(state.clone(), shard, random);
    Ok((state, handle))
}

/// The pepper of a data directory, if it has one that can be one.
///
/// # Errors
/// When the file cannot be read.
pub fn stored_pepper(data: &Path) -> std::io::Result<Option<Pepper>> {
    let bytes = secret_file::read(&data.join(PEPPER))?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(Pepper::new))
}

fn pepper(data: &Path, first_start: bool, random: &Randomness) -> Result<Pepper, GatewayOpenError> {
    let path = data.join(PEPPER);
    let io = |source| GatewayOpenError::Io { path: path.clone(), source };
    match secret_file::read(&path).map_err(io)? {
        Some(bytes) => {
            let bytes = bytes.try_into().map_err(|_| GatewayOpenError::PepperDamaged(path.clone()))?;
            Ok(Pepper::new(bytes))
        }
        None if first_start => {
            let bytes = random.bytes();
            secret_file::create(&path, &bytes).map_err(io)?;
            Ok(Pepper::new(bytes))
        }
        None => Err(GatewayOpenError::PepperMissing(path)),
    }
}

impl GatewayState {
    /// A state with these grants.
    pub fn new(settings: GatewaySettings, ring: KeyRing, pepper: Pepper, clock: SharedClock) -> Self {
        let time = clock.clone();
        let ticks: Ticks = Arc::new(move || time.elapsed());
        let products = settings.products.iter().map(|(name, rules)| {
            let buckets = rules.rate.map(|rate| TokenBuckets::new(rate, settings.rate_keys, ticks.clone()));
            (name.clone(), Product { rules: rules.clone(), buckets })
        });
        let products = products.collect();
        Self {
            keys: ArcSwap::from_pointee(ring),
            pepper,
            products,
            failures: Failures::new(settings.auth_failures, settings.rate_keys, ticks.clone()),
            places: Permits::new(settings.requests_in_flight),
            shares: Shares::new(settings.requests_in_flight),
            clock,
            admitted: AtomicU64::new(0),
            refused: Default::default(),
            restarts: AtomicU64::new(0),
            settings,
        }
    }

    /// Bounds and products.
    pub fn settings(&self) -> &GatewaySettings {
        &self.settings
    }

    /// The process's secret, for other secrets that are kept as hashes.
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }

    /// What the gateways show of themselves.
    pub fn status(&self) -> GatewayStatus {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        GatewayStatus {
            admitted: self.admitted.load(Ordering::Relaxed),
            refused: Refused::REASONS.into_iter().zip(counts).collect(),
            in_flight: self.places.taken(),
            restarts: self.restarts.load(Ordering::Relaxed),
            grants: self.keys.load().len(),
        }
    }

    /// Decides about one call. In the order of what it costs an attacker: failures of the address,
    /// the key, the API, places, and only then the rate.
    pub(super) fn admit(&self, call: &Call, permit: Permit) -> Result<Admitted, Refused> {
        fail_point!("gateway::admit", &*call.api == "poison", |_| Err(Refused::Crashed));
        if let Some(retry_after) = self.failures.wait(call.ip) {
            return Err(Refused::TooManyFailures { retry_after });
        }
        let credential = call.credential.as_ref().ok_or(Refused::MissingKey)?;
        let grant = self.grant(credential.expose(), &call.api).map_err(|refused| {
            match self.failures.note(call.ip) {
                Some(retry_after) => Refused::TooManyFailures { retry_after },
                None => refused,
            }
        })?;
        let (name, product) = self.products.get_key_value(&grant.product).ok_or(Refused::InvalidKey)?;
        let share = self.shares.try_take(&grant.tenant).ok_or_else(|| self.overloaded())?;
        let id = Name::from(grant.id.as_str());
        let rate = product.buckets.as_ref().map(|buckets| {
            let admission = buckets.check(&id);
            Rated { product: name.clone(), rate: buckets.rate(), admission }
        });
        if let Some(rated) = rate.as_ref().filter(|rated| !rated.admission.allowed) {
            return Err(Refused::RateLimited(rated.clone()));
        }
        let place = Place { permit, share };
        Ok(Admitted { tenant: grant.tenant.clone(), product: name.clone(), grant: id, rate, place })
    }

    /// The grant of a key, if its product has this API.
    fn grant(&self, key: &str, api: &Name) -> Result<Arc<Grant>, Refused> {
        let secret = ApiKeySecret::parse_foreign(key).map_err(|_| Refused::InvalidKey)?;
        let ring = self.keys.load();
        let hash = self.pepper.hash(secret.expose());
        let grant = ring.lookup(&hash, self.clock.now()).map_err(|refused| match refused {
            KeyRefused::Unknown => Refused::InvalidKey,
            KeyRefused::Expired => Refused::ExpiredKey,
            KeyRefused::Revoked => Refused::RevokedKey,
        })?;
        let sold = self.products.get(&grant.product).is_some_and(|product| product.rules.apis.contains(api));
        if sold { Ok(grant.clone()) } else { Err(Refused::InvalidKey) }
    }

    pub(super) fn try_take_place(&self) -> Option<Permit> {
        self.places.try_take()
    }

    #[expect(
        clippy::unused_self,
        reason = "what to tell belongs to the state, which may come to know better"
    )]
    pub(super) fn overloaded(&self) -> Refused {
        Refused::Overloaded { retry_after: OVERLOADED_RETRY_AFTER }
    }

    pub(super) fn count(&self, admitted: &Result<Admitted, Refused>) {
        match admitted {
            Ok(_) => {
                self.admitted.fetch_add(1, Ordering::Relaxed);
            }
            Err(refused) => {
                let reasons = Refused::REASONS.iter().zip(&self.refused);
                for (_, count) in reasons.filter(|(reason, _)| **reason == refused.reason()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn note_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) -> Arc<KeyRing> {
        self.keys.load_full()
    }

    pub(super) fn replace_ring(&self, ring: KeyRing) {
        self.keys.store(Arc::new(ring));
    }

    pub(super) fn clock(&self) -> &SharedClock {
        &self.clock
    }
}
