//! How much is done at once, for whom, and who is turned away first when it is too much.
//!
//! Stands before the places in which requests are worked on. Invariants: no more places are taken than there are, and
//! no more by one tenant than it may; what is held is given back exactly once; nobody waits beyond its time, and no
//! more wait than may; while places are short a tenant below its part, by weight, comes before one above it, however
//! much the other one asks for.
//!
//! [`Concurrency`] counts by any key and never makes anybody wait. [`Turnstile`] is the decision about waiting: a value
//! without threads or clocks, which its owner carries out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fairness::{Class, FairQueue};
use crate::model::ids::Name;

/// The part of the places that only tenants below their part may take: one in this many.
const RESERVE: usize = 8;
/// Looks at all who wait, within the longest time to wait.
const STEPS: u32 = 16;

/// Calls under way, by key. Cheap to clone. Holds a key only while something is under way for it.
#[derive(Debug, Clone, Default)]
pub struct Concurrency(Arc<Mutex<HashMap<Name, usize>>>);

/// One call under way, counted until it is dropped.
#[derive(Debug)]
#[must_use = "what is dropped is no longer counted"]
pub struct Held {
    counts: Concurrency,
    key: Name,
}

impl Concurrency {
    /// Counts one more call of `key`, or `None` when `most` are under way.
    pub fn try_take(&self, key: &Name, most: usize) -> Option<Held> {
        let mut counts = self.counts();
        let under_way = counts.get(key).copied().unwrap_or(0);
        if under_way >= most {
            return None;
        }
        counts.insert(key.clone(), under_way + 1);
        Some(Held { counts: self.clone(), key: key.clone() })
    }

    /// Calls under way of one key.
    pub fn under_way(&self, key: &str) -> usize {
        self.counts().get(key).copied().unwrap_or(0)
    }

    /// Keys that have calls under way.
    pub fn keys(&self) -> usize {
        self.counts().len()
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Name, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.counts();
        match counts.get_mut(&self.key) {
            Some(under_way) if *under_way > 1 => *under_way -= 1,
            Some(_) | None => {
                counts.remove(&self.key);
            }
        }
    }
}

/// What matters more when not all can be done. The order is that in which they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// What must work when nothing else does.
    Critical,
    /// What people wait for.
    Normal,
    /// What can be done later. It never waits for a place.
    Low,
}

impl Priority {
    /// All, in the order in which they are served.
    pub const ALL: [Self; 3] = [Self::Critical, Self::Normal, Self::Low];
}

/// From which part of the places on a priority is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// Places in a hundred that calls of normal priority may fill, together with those of low priority.
    pub normal_percent: u8,
    /// Places in a hundred up to which calls of low priority are taken.
    pub low_percent: u8,
}

impl Default for Shedding {
    /// A fifth is kept for what is critical, and another fifth from what can be done later.
    fn default() -> Self {
        Self { normal_percent: 80, low_percent: 60 }
    }
}

impl Shedding {
    /// So many of `places` may be taken before a call of `priority` is not let in; at least one, if there is one.
    pub fn places(self, priority: Priority, places: usize) -> usize {
        let percent = match priority {
            Priority::Critical => 100,
            Priority::Normal => self.normal_percent,
            Priority::Low => self.low_percent.min(self.normal_percent),
        };
        let part = places.saturating_mul(usize::from(percent.min(100))) / 100;
        part.max(places.min(1))
    }
}

/// The bounds of a [`Turnstile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Calls that are worked on at once.
    pub places: usize,
    /// Of one tenant.
    pub places_per_tenant: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// Of one tenant.
    pub waiting_per_tenant: usize,
    /// Longest time to wait.
    pub wait: Duration,
    /// Who is turned away first.
    pub shedding: Shedding,
}

/// Who comes.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a, K, S> {
    /// Who pays.
    pub tenant: &'a K,
    /// Its part of the places when they are short, by those of the others.
    pub weight: u32,
    /// Whose turn it is within the tenant, such as a grant.
    pub member: &'a S,
    /// How much it matters.
    pub priority: Priority,
}

/// Why a call is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// Its priority does not wait, and there is no place for it.
    #[error("there is no place for calls of this priority")]
    Priority,
    /// Too many wait already.
    #[error("too many calls wait")]
    Full,
    /// Too many of this tenant wait already.
    #[error("too many calls of this tenant wait")]
    TenantFull,
}

/// What becomes of a call that comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<T> {
    /// It has a place, to be given back with [`Turnstile::leave`].
    Enters(T),
    /// It waits until it is [`Next`], at most until this time.
    Waits(Duration),
    /// It is turned away.
    TurnedAway(T, Shed),
}

/// What becomes of a call that waited.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K, T> {
    /// It has a place of this tenant, to be given back with [`Turnstile::leave`].
    Enters(K, T),
    /// Its time is over.
    TooLate(T),
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    held: usize,
    waiting: usize,
    weight: u32,
}

/// What is held by all together.
#[derive(Debug, Clone, Copy)]
struct Shares {
    taken: usize,
    /// Of those who hold a place.
    weights: u64,
}

impl Shares {
    /// Whether a tenant may take a place now.
    fn may(self, bounds: &Bounds, part: Part, priority: Priority) -> bool {
        let Bounds { places, places_per_tenant, shedding, .. } = *bounds;
        if self.taken >= shedding.places(priority, places) || part.held >= places_per_tenant {
            return false;
        }
        let reserved = self.taken >= places - places / RESERVE;
        !reserved || part.held < self.part(places, part)
    }

    /// The places that a tenant may hold when they are short.
    fn part(self, places: usize, part: Part) -> usize {
        let own = u64::from(part.weight.max(1));
        let others = if part.held > 0 { self.weights.saturating_sub(own) } else { self.weights };
        // Somebody who has no place yet may be about to come, so one tenant alone has half.
        let all = own + if others == 0 { own } else { others };
        let places = u64::try_from(places).unwrap_or(u64::MAX);
        usize::try_from(places.saturating_mul(own) / all).unwrap_or(usize::MAX).max(1)
    }
}

#[derive(Debug)]
struct Waiter<T> {
    until: Duration,
    item: T,
}

/// Decides who has a place, who waits and who is turned away. `K` is a tenant, `S` its member, `T` what waits.
#[derive(Debug)]
pub struct Turnstile<K, S, T> {
    bounds: Bounds,
    taken: usize,
    /// Of every tenant that holds a place or waits for one.
    parts: HashMap<K, Part>,
    /// Sum of the weights of those who hold a place.
    weights: u64,
    /// In the order of [`Priority::ALL`].
    queues: [FairQueue<K, S, Waiter<T>>; 3],
    /// Those whose time was found to be over.
    late: Vec<T>,
    /// When it is worth looking for those who are too late.
    earliest: Duration,
}

impl<K: Eq + Hash + Clone, S: Eq + Hash + Clone, T> Turnstile<K, S, T> {
    /// Nobody has come yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            taken: 0,
            parts: HashMap::new(),
            weights: 0,
            queues: Default::default(),
            late: Vec::new(),
            earliest: Duration::MAX,
        }
    }

    /// Places that are taken, and calls that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.taken, self.waiting())
    }

    /// New bounds. Who is inside or waits stays.
    pub fn rebound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Somebody comes at `now`. Nobody is overtaken who could enter: after each [`leave`](Self::leave) those who can
    /// have done so, when the owner asked for them.
    pub fn arrive(&mut self, who: Arrival<'_, K, S>, now: Duration, item: T) -> Arrived<T> {
        let part = self.parts.entry(who.tenant.clone()).or_default();
        let weight = who.weight.max(1);
        if part.held > 0 {
            self.weights = self.weights.saturating_sub(u64::from(part.weight)) + u64::from(weight);
        }
        part.weight = weight;
        if self.may(who.tenant, who.priority) {
            self.enter(who.tenant);
            return Arrived::Enters(item);
        }
        if let Err(shed) = self.may_wait(&who, now) {
            self.forget_if_idle(who.tenant);
            return Arrived::TurnedAway(item, shed);
        }
        let until = now.saturating_add(self.bounds.wait);
        self.earliest = self.earliest.min(until);
        if let Some(part) = self.parts.get_mut(who.tenant) {
            part.waiting += 1;
        }
        if let Some(queue) = self.queues.get_mut(place(who.priority)) {
            queue.push(who.tenant, weight, who.member, Class::First, Waiter { until, item });
        }
        Arrived::Waits(until)
    }

    /// A place of `tenant` is given back. Ask for who is [`next`](Self::next) afterwards.
    pub fn leave(&mut self, tenant: &K) {
        let Some(part) = self.parts.get_mut(tenant).filter(|part| part.held > 0) else { return };
        part.held -= 1;
        self.taken = self.taken.saturating_sub(1);
        if part.held == 0 {
            self.weights = self.weights.saturating_sub(u64::from(part.weight));
        }
        self.forget_if_idle(tenant);
    }

    /// Who enters next, or is found to be too late. To be asked until there is nobody, after every
    /// [`leave`](Self::leave), and after time has passed if those who are too late do not go by themselves.
    pub fn next(&mut self, now: Duration) -> Option<Next<K, T>> {
        if now >= self.earliest {
            self.expire(now);
        }
        if let Some(item) = self.late.pop() {
            return Some(Next::TooLate(item));
        }
        for (priority, queue) in Priority::ALL.into_iter().zip(&mut self.queues) {
            let (parts, shares) = (&self.parts, Shares { taken: self.taken, weights: self.weights });
            let may = |tenant: &K| {
                let part = parts.get(tenant).copied().unwrap_or_default();
                shares.may(&self.bounds, part, priority)
            };
            let Some((tenant, _, waiter)) = queue.pop(false, may) else { continue };
            if let Some(part) = self.parts.get_mut(&tenant) {
                part.waiting = part.waiting.saturating_sub(1);
            }
            if waiter.until <= now {
                self.forget_if_idle(&tenant);
                return Some(Next::TooLate(waiter.item));
            }
            self.enter(&tenant);
            return Some(Next::Enters(tenant, waiter.item));
        }
        None
    }

    fn waiting(&self) -> usize {
        self.queues.iter().map(FairQueue::len).sum()
    }

    fn enter(&mut self, tenant: &K) {
        let part = self.parts.entry(tenant.clone()).or_default();
        part.held += 1;
        self.taken += 1;
        if part.held == 1 {
            self.weights += u64::from(part.weight.max(1));
        }
    }

    fn may(&self, tenant: &K, priority: Priority) -> bool {
        let part = self.parts.get(tenant).copied().unwrap_or_default();
        Shares { taken: self.taken, weights: self.weights }.may(&self.bounds, part, priority)
    }

    fn may_wait(&mut self, who: &Arrival<'_, K, S>, now: Duration) -> Result<(), Shed> {
        if who.priority == Priority::Low {
            return Err(Shed::Priority);
        }
        let most = self.bounds.shedding.places(who.priority, self.bounds.waiting);
        let full = |turnstile: &Self| {
            let own = turnstile.parts.get(who.tenant).map_or(0, |part| part.waiting);
            if own >= turnstile.bounds.waiting_per_tenant {
                Some(Shed::TenantFull)
            } else if turnstile.waiting() >= most {
                Some(Shed::Full)
            } else {
                None
            }
        };
        if full(self).is_some() && now >= self.earliest {
            self.expire(now);
        }
        full(self).map_or(Ok(()), Err)
    }

    /// Takes out those whose time is over. Looks at all who wait, but only when one of them may be too late.
    fn expire(&mut self, now: Duration) {
        let mut gone = Vec::new();
        for queue in &mut self.queues {
            gone.extend(queue.extract(|waiter| waiter.until <= now));
        }
        // Who is late within this step is found at its end, or when its turn comes.
        let step = self.bounds.wait / STEPS;
        self.earliest = if self.waiting() == 0 { Duration::MAX } else { now.saturating_add(step) };
        for (tenant, waiter) in gone {
            if let Some(part) = self.parts.get_mut(&tenant) {
                part.waiting = part.waiting.saturating_sub(1);
            }
            self.forget_if_idle(&tenant);
            self.late.push(waiter.item);
        }
    }

    fn forget_if_idle(&mut self, tenant: &K) {
        if self.parts.get(tenant).is_some_and(|part| part.held == 0 && part.waiting == 0) {
            self.parts.remove(tenant);
        }
    }
}

/// The place of a priority among the queues.
fn place(priority: Priority) -> usize {
    match priority {
        Priority::Critical => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

#[cfg(test)]
mod tests;
