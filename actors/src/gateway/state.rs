//! What all gateways of a process share, and the decision itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
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
use crate::kernel::entrance::{Entering, Entrance};
use crate::model::ids::Name;
use crate::policy::keys::{ApiKeySecret, Grant, KeyRefused, KeyRing, KeyRingError, Pepper};
use crate::policy::limits::{self, Facts, Limit};
use crate::policy::permits::{Arrival, Bounds, Concurrency, Held, Priority, Shedding};
use crate::policy::rate::{Rate, Ticks};
use crate::policy::terms::{ApiRules, Book, KeyRule, Meter, ProductRules, Terms};
use crate::protocol::gateway::{Call, Counted, Credential, Door, Entry, Refused};
use crate::shard::{ShardHandle, ShardReadError};

/// File of the pepper in the data directory.
const PEPPER: &str = "pepper";
/// When to try again after all places were taken. Requests take milliseconds, so one second frees many.
const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds and products; see the manifest.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// What is sold, by name.
    pub products: BTreeMap<Name, ProductRules>,
    /// What holds for APIs, by name. An API that is not here has no rules of its own.
    pub apis: BTreeMap<Name, ApiRules>,
    /// Refused keys of one client address before it has to wait; and of keys that begin alike, before each further one
    /// makes its address wait.
    pub auth_failures: (Rate, Rate),
    /// Counters held in memory for each limit and each quota, and for client addresses.
    pub rate_keys: usize,
    /// Requests being worked on.
    pub requests_in_flight: usize,
    /// Requests that wait until one is.
    pub requests_waiting: usize,
    /// Longest time that a request waits.
    pub wait: Duration,
    /// Who is turned away first.
    pub shedding: Shedding,
}

impl GatewaySettings {
    fn bounds(&self) -> Bounds {
        Bounds {
            places: self.requests_in_flight,
            places_per_tenant: self.requests_in_flight,
            waiting: self.requests_waiting,
            // One tenant's calls leave room for those of others.
            waiting_per_tenant: self.requests_waiting.div_ceil(2),
            wait: self.wait,
            shedding: self.shedding,
        }
    }
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
    /// Requests that wait for a place.
    pub waiting: usize,
    /// How often a gateway started again after a panic.
    pub restarts: u64,
    /// Grants, revoked ones included.
    pub grants: usize,
}

/// What all gateways of a process share.
pub struct GatewayState {
    rate_keys: usize,
    mailbox: usize,
    keys: ArcSwap<KeyRing>,
    pepper: Pepper,
    book: ArcSwap<Book>,
    ticks: Ticks,
    failures: Failures,
    entrance: Entrance,
    concurrency: Concurrency,
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
    let state = Arc::new(GatewayState::new(&settings, ring, pepper, clock));
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
    pub fn new(settings: &GatewaySettings, ring: KeyRing, pepper: Pepper, clock: SharedClock) -> Self {
        let time = clock.clone();
        let ticks: Ticks = Arc::new(move || time.elapsed());
        let book = Book::new(&settings.products, &settings.apis, settings.rate_keys, &ticks, None);
        Self {
            rate_keys: settings.rate_keys,
            mailbox: settings.requests_in_flight,
            keys: ArcSwap::from_pointee(ring),
            pepper,
            book: ArcSwap::from_pointee(book),
            failures: Failures::new(settings.auth_failures, settings.rate_keys, ticks.clone()),
            ticks,
            entrance: Entrance::new(settings.bounds(), clock.clone()),
            concurrency: Concurrency::default(),
            clock,
            admitted: AtomicU64::new(0),
            refused: Default::default(),
            restarts: AtomicU64::new(0),
        }
    }

    /// Sells something else from now on. What goes by the same name goes on counting; calls under way end on the terms
    /// that they came on. Bounds are those of the start.
    pub(super) fn follow(&self, book: Book) {
        self.book.store(Arc::new(book));
    }

    /// What would be sold by these settings, with the counters of what is.
    pub(super) fn book_of(&self, settings: &GatewaySettings) -> Book {
        let before = self.book.load();
        Book::new(&settings.products, &settings.apis, self.rate_keys, &self.ticks, Some(&before))
    }

    /// What is sold now.
    pub(super) fn book(&self) -> Arc<Book> {
        self.book.load_full()
    }

    /// Messages that a gateway may have before it.
    pub(super) fn mailbox(&self) -> usize {
        self.mailbox
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
            in_flight: self.entrance.load().0,
            waiting: self.entrance.load().1,
            restarts: self.restarts.load(Ordering::Relaxed),
            grants: self.keys.load().len(),
        }
    }

    /// Says on what terms a caller may come, in the order of what it costs an attacker: failures of the address, then
    /// the key.
    pub(super) fn identify(&self, call: &Call) -> Result<Door, Refused> {
        if let Some(retry_after) = self.failures.wait(call.ip) {
            return Err(Refused::TooManyFailures { retry_after });
        }
        // A key is judged even where none is needed.
        let door = self.look(call.credential.as_ref(), &call.api);
        door.map_err(|refused| match &call.credential {
            Some(credential) => self.failed(call.ip, credential.prefix(), refused),
            None => refused,
        })
    }

    /// On what terms a caller with this key, or without one, may call an API. Counts nothing, so that operators may ask.
    ///
    /// # Errors
    /// [`Refused`] says why it may not.
    pub fn look(&self, credential: Option<&Credential>, api: &Name) -> Result<Door, Refused> {
        let Some(credential) = credential else {
            let open = self.book.load().open_terms(api);
            return if open.is_empty() { Err(Refused::MissingKey) } else { Ok(Door::Open(open)) };
        };
        let (terms, grant) = self.terms(credential, api)?;
        Ok(Door::Key(terms, grant))
    }

    /// The limits of a call on these terms, from what is broad to what is narrow, and how much it matters.
    pub fn limits_of(&self, terms: &Terms, at: (&Name, &Name)) -> (Vec<Limit>, Priority) {
        let (limiters, priority) = self.book.load().limits(terms, at);
        (limiters.iter().map(|limiter| limiter.limit().clone()).collect(), priority)
    }

    /// Notes that a credential was refused; what to answer is worse when there were too many.
    pub(super) fn failed(&self, ip: IpAddr, prefix: Option<&str>, refused: Refused) -> Refused {
        match self.failures.note(ip, prefix) {
            Some(retry_after) => Refused::TooManyFailures { retry_after },
            None => refused,
        }
    }

    /// The grant of a key and its terms, if it opens this API.
    fn terms(&self, credential: &Credential, api: &Name) -> Result<(Arc<Terms>, Arc<Grant>), Refused> {
        let secret = ApiKeySecret::parse_foreign(credential.expose()).map_err(|_| Refused::InvalidKey)?;
        let ring = self.keys.load();
        let hash = self.pepper.hash(secret.expose());
        let grant = ring.lookup(&hash, self.clock.now()).map_err(|refused| match refused {
            KeyRefused::Unknown => Refused::InvalidKey,
            KeyRefused::Expired => Refused::ExpiredKey,
            KeyRefused::Revoked => Refused::RevokedKey,
            KeyRefused::Inactive(standing) => Refused::InactiveKey(standing),
        })?;
        let terms = self.book.load().terms_of(&grant.scope, api).ok_or(Refused::InvalidKey)?;
        if credential.in_query && terms.rules.key != KeyRule::HeaderOrQuery {
            return Err(Refused::InvalidKey);
        }
        Ok((terms, grant.clone()))
    }

    /// Counts one call by its limits, its quotas and its places, or by none of them.
    pub(super) fn admit(&self, entry: Entry) -> Result<Counted, Refused> {
        fail_point!("gateway::admit", &*entry.api == "poison", |_| Err(Refused::Crashed));
        let id = entry.grant.as_ref().map(|grant| Name::from(grant.id.as_str()));
        let value = |pairs: &[(Name, String)], name: &str| {
            pairs.iter().find(|(found, _)| **found == *name).map(|(_, value)| Cow::from(value.clone()))
        };
        let facts = Facts {
            grant: id.as_ref(),
            tenant: Some(&entry.tenant),
            address: entry.ip,
            header: &|name| value(&entry.headers, name),
            claim: &|name| value(&entry.claims, name),
        };
        let (limiters, priority) = self.book.load().limits(&entry.terms, (&entry.api, &entry.operation));
        let granted = limits::decide(&limiters, &facts, NonZeroU32::MIN, (self.ticks)());
        let granted = granted.map_err(Refused::RateLimited)?;
        let now = self.clock.now();
        let meter = match Meter::take(&entry.terms, &facts, entry.bytes, now) {
            Ok(meter) => meter,
            Err((quota, exhausted)) => {
                granted.give_back();
                return Err(Refused::QuotaExhausted { quota, exhausted });
            }
        };
        match self.places(&entry, id.as_ref(), priority) {
            Ok((held, entering)) => {
                if let Some(grant) = &entry.grant {
                    grant.used.note(now);
                }
                Ok(Counted { entry, granted, meter, held, entering })
            }
            Err(refused) => {
                granted.give_back();
                meter.give_back();
                Err(refused)
            }
        }
    }

    fn places(
        &self,
        entry: &Entry,
        grant: Option<&Name>,
        priority: Priority,
    ) -> Result<(Option<Held>, Entering), Refused> {
        let rules = &entry.terms.rules;
        let held = rules.concurrency.map(|most| {
            let product = entry.terms.product.as_deref().unwrap_or_default();
            let key = Name::from(format!("{product}\0{}", entry.tenant.as_str()));
            self.concurrency.try_take(&key, most).ok_or(Refused::TooManyAtOnce(most))
        });
        let held = held.transpose()?;
        let nobody = Name::from("");
        let who = Arrival {
            tenant: &entry.tenant,
            weight: rules.weight.max(1),
            member: grant.unwrap_or(&nobody),
            priority,
        };
        let entering = self.entrance.enter(who).map_err(|_| Self::overloaded())?;
        Ok((held, entering))
    }

    pub(super) fn overloaded() -> Refused {
        Refused::Overloaded { retry_after: OVERLOADED_RETRY_AFTER }
    }

    /// Forgets counters that say nothing any more.
    pub(super) fn sweep(&self) {
        let (book, now, ticks) = (self.book.load(), self.clock.now(), (self.ticks)());
        for limiter in book.limiters().iter() {
            limiter.sweep(ticks);
        }
        for sold in book.quotas() {
            sold.accounts.sweep(sold.rule.quota.period, now);
        }
    }

    pub(super) fn note_admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self, refused: &Refused) {
        let reasons = Refused::REASONS.iter().zip(&self.refused);
        for (_, count) in reasons.filter(|(reason, _)| **reason == refused.reason()) {
            count.fetch_add(1, Ordering::Relaxed);
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
