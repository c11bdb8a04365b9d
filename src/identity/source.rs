//! Stands between the keys that an issuer has now and those that tokens are checked with: says when to fetch.
//! Invariant: one fetch at a time for an issuer, whoever waits; strangers cause at most one in five minutes; keys
//! that were taken back are used for an hour at most while their issuer can be reached, and for a day while it cannot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use lanekeeper_actors::kernel::clock::SharedClock;
use tracing::{info, warn};

use super::fetch::{FetchProblem, Place, read_file};
use super::keys::KeySet;
use super::refusal::Refusal;

/// Keys are not used for longer without asking again.
const REFRESH: Duration = Duration::from_secs(3600);
/// They are asked for this long before that, while nobody has to wait.
const AHEAD: Duration = Duration::from_secs(300);
/// Keys that cannot be asked for again are used for this long.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Between two fetches that a token with an unknown key causes, and between a failure and the next try.
const PAUSE: Duration = Duration::from_secs(300);
/// Between the first failure and the next try while there are no keys at all; doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Keys, and which ones.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Arc<KeySet>,
    /// Grows whenever the keys are others than before.
    pub(super) generation: u64,
    /// When they were last known to be right.
    since: Duration,
}

/// What is known about the keys of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysState {
    /// The identity.
    pub identity: String,
    /// The ids of its keys.
    pub ids: Vec<String>,
    /// Grows whenever the keys are others than before; 0 while there are none.
    pub generation: u64,
    /// How long ago the keys were known to be right; none for keys that were configured.
    pub age: Option<Duration>,
    /// Fetches that failed since the last one that did not.
    pub failures: u32,
}

type Flight = Shared<BoxFuture<'static, Result<(), Arc<FetchProblem>>>>;

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct Source {
    /// The identity, for the log.
    name: String,
    /// Keys that were configured come from nowhere.
    place: Option<Place>,
    clock: SharedClock,
    held: ArcSwapOption<Held>,
    schedule: Mutex<Schedule>,
}

#[derive(Debug, Default)]
struct Schedule {
    /// The fetch under way.
    flight: Option<Flight>,
    /// No fetch before that because one is due.
    due: Duration,
    /// No fetch before that because of an unknown key.
    unknown: Duration,
    failures: u32,
}

/// Why keys are fetched.
#[derive(Debug, Clone, Copy)]
enum Why {
    Due,
    UnknownKey,
    Asked,
}

impl Source {
    /// Keys that do not change.
    pub(super) fn fixed(name: &str, keys: KeySet, clock: SharedClock) -> Self {
        let source = Self::at(name, None, clock);
        source.keep(keys);
        source
    }

    /// Keys that are fetched when they are first needed.
    pub(super) fn fetched(name: &str, place: Place, clock: SharedClock) -> Self {
        Self::at(name, Some(place), clock)
    }

    fn at(name: &str, place: Option<Place>, clock: SharedClock) -> Self {
        let (held, schedule) = (ArcSwapOption::empty(), Mutex::default());
        Self { name: name.to_owned(), place, clock, held, schedule }
    }

    /// Reads the file that the keys are in, if they are in one, so that what is wrong with it shows at once.
    ///
    /// # Errors
    /// When there is such a file and it cannot be used; the keys stay as they are.
    pub(super) fn read_now(&self) -> Result<(), FetchProblem> {
        if let Some(Place::File(path)) = &self.place {
            let keys = read_file(path)?;
            let mut schedule = self.schedule();
            self.keep(keys);
            schedule.due = self.clock.elapsed() + REFRESH.saturating_sub(AHEAD);
        }
        Ok(())
    }

    /// The keys to be used now. Waits for them only when there are none that may still be used without asking.
    ///
    /// # Errors
    /// [`Refusal::KeysUnavailable`] when there are none.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Held>, Refusal> {
        let now = self.clock.elapsed();
        let age =
            |held: &Held| if self.place.is_some() { now.saturating_sub(held.since) } else { Duration::ZERO };
        let held = self.held.load_full();
        let known = held.as_deref().map(age);
        if let (Some(held), Some(age)) = (held, known)
            && age < REFRESH.saturating_sub(AHEAD)
        {
            return Ok(held);
        }
        let failed = self.schedule().failures > 0;
        if let Some(flight) = self.start(Why::Due, now) {
            let waits = match known {
                None => true,
                Some(age) => age > STALE || (age >= REFRESH && !failed),
            };
            if waits {
                // Whether it worked shows in what is held afterwards.
                flight.await.ok();
            }
        }
        self.held.load_full().filter(|held| age(held) <= STALE).ok_or(Refusal::KeysUnavailable)
    }

    /// Looks for a key that is not among `held`, if that may be done now.
    pub(super) async fn look_again(self: &Arc<Self>, held: &Held) {
        let is_other = self.held.load().as_ref().is_some_and(|now| now.generation != held.generation);
        if is_other {
            return;
        }
        if let Some(flight) = self.start(Why::UnknownKey, self.clock.elapsed()) {
            flight.await.ok();
        }
    }

    /// Fetches the keys now, as an operator asked for it.
    ///
    /// # Errors
    /// When that failed; the keys stay as they are.
    pub(super) async fn refresh(self: &Arc<Self>) -> Result<(), Arc<FetchProblem>> {
        match self.start(Why::Asked, self.clock.elapsed()) {
            Some(flight) => flight.await,
            None => Ok(()),
        }
    }

    /// Which keys there are now; 0 for none.
    pub(super) fn generation(&self) -> u64 {
        self.held.load().as_ref().map_or(0, |held| held.generation)
    }

    pub(super) fn state(&self) -> KeysState {
        let held = self.held.load_full();
        let now = self.clock.elapsed();
        let age = held.as_ref().filter(|_| self.place.is_some()).map(|held| now.saturating_sub(held.since));
        KeysState {
            identity: self.name.clone(),
            ids: held.iter().flat_map(|held| held.keys.ids().map(str::to_owned)).collect(),
            generation: held.as_ref().map_or(0, |held| held.generation),
            age,
            failures: self.schedule().failures,
        }
    }

    /// Joins the fetch under way, or begins one if this reason may now. The fetch goes on when the caller is dropped,
    /// so that nobody can spend the one that is allowed and then hang up.
    fn start(self: &Arc<Self>, why: Why, now: Duration) -> Option<Flight> {
        self.place.as_ref()?;
        let mut schedule = self.schedule();
        if let Some(flight) = &schedule.flight {
            return Some(flight.clone());
        }
        let may = match why {
            Why::Due => now >= schedule.due,
            Why::UnknownKey => now >= schedule.unknown,
            Why::Asked => true,
        };
        if !may {
            return None;
        }
        if matches!(why, Why::UnknownKey) {
            schedule.unknown = now + PAUSE;
        }
        let task = tokio::spawn(fetch(Arc::clone(self)));
        let flight = async move { task.await.unwrap_or_else(|_| Err(Arc::new(FetchProblem::GivenUp))) };
        let flight = flight.boxed().shared();
        schedule.flight = Some(flight.clone());
        Some(flight)
    }

    /// Holds keys from now on.
    fn keep(&self, keys: KeySet) {
        let since = self.clock.elapsed();
        let before = self.held.load_full();
        let next = match before {
            Some(held) if held.keys.is_same(&keys) => {
                Held { keys: Arc::clone(&held.keys), generation: held.generation, since }
            }
            before => {
                let generation = before.map_or(0, |held| held.generation) + 1;
                info!(identity = %self.name, generation, keys = keys.len(), "keys of an issuer taken over");
                Held { keys: Arc::new(keys), generation, since }
            }
        };
        self.held.store(Some(Arc::new(next)));
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // What is planned stays true under a panic elsewhere: each change to it is one assignment.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches the keys of a source and plans the next time.
async fn fetch(source: Arc<Source>) -> Result<(), Arc<FetchProblem>> {
    let leave = Leave(source);
    let source = &leave.0;
    let Some(place) = &source.place else { return Ok(()) };
    let fetched = place.fetch().await;
    let mut schedule = source.schedule();
    let now = source.clock.elapsed();
    match fetched {
        Ok((keys, dropped)) => {
            for dropped in dropped {
                info!(identity = %source.name, %dropped, "a key of an issuer is left out");
            }
            source.keep(keys);
            schedule.failures = 0;
            schedule.due = now + REFRESH.saturating_sub(AHEAD);
            Ok(())
        }
        Err(problem) => {
            warn!(identity = %source.name, %problem, "keys of an issuer could not be fetched");
            let doublings = schedule.failures.min(16);
            schedule.failures = schedule.failures.saturating_add(1);
            let has_keys = source.held.load().is_some();
            schedule.due =
                now + if has_keys { PAUSE } else { PAUSE.min(FIRST_PAUSE.saturating_mul(1 << doublings)) };
            Err(Arc::new(problem))
        }
    }
}

/// Leaves room for the next fetch when one ends, also when its task is dropped.
struct Leave(Arc<Source>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.schedule().flight = None;
    }
}
