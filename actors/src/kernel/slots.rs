//! Places for attempts, for all subscriptions together, given out fairly.
//!
//! Stands between subscribers, which know when an attempt may be made, and the transport, which makes it.
//! Invariants: no more places are taken than there are; retries take at most half of them; a tenant that
//! holds less than its even part is served as long as there is a place at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::ids::{Name, TenantId};
use crate::policy::fairness::{Class, FairQueue};

/// The part of the places that only tenants below their even part may take: one in this many.
const RESERVE: usize = 8;

type Owner = Option<TenantId>;

/// A bounded number of places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    places: usize,
    taken: usize,
    retries: usize,
    held: HashMap<Owner, usize>,
    waiting: FairQueue<Owner, Name, oneshot::Sender<Slot>>,
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Slot {
    /// `None` once it was given back.
    slots: Option<Slots>,
    owner: Owner,
    class: Class,
}

impl Slots {
    /// `places` places; at least two, so that retries and first attempts have one each.
    pub fn new(places: usize) -> Self {
        let places = places.max(2);
        Self(Arc::new(Mutex::new(State {
            places,
            taken: 0,
            retries: 0,
            held: HashMap::new(),
            waiting: FairQueue::default(),
        })))
    }

    /// A place for an attempt; waits for its turn. Whoever no longer waits loses nothing.
    pub async fn take(&self, owner: &Owner, subscription: &Name, class: Class) -> Slot {
        let (give, given) = oneshot::channel();
        {
            let mut state = self.state();
            state.waiting.push(owner, 1, subscription, class, give);
            self.hand_out(&mut state);
        }
        match given.await {
            Ok(slot) => slot,
            // Cannot happen: the sender waits in the queue until it is used.
            Err(_) => std::future::pending().await,
        }
    }

    /// Places that are taken, and attempts that wait for one.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state();
        (state.taken, state.waiting.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_out(&self, state: &mut State) {
        while state.taken < state.places {
            let retries = state.retries < state.places / 2;
            let State { places, taken, held, waiting, .. } = state;
            let reserved = *taken >= *places - *places / RESERVE;
            // Somebody who has no place yet may be about to come, so one owner alone has half.
            let part = (*places / (held.len() + 1).max(2)).max(1);
            let may = |owner: &Owner| !reserved || held.get(owner).copied().unwrap_or(0) < part;
            let Some((owner, class, give)) = waiting.pop(retries, may) else { return };
            if give.is_closed() {
                continue;
            }
            state.taken += 1;
            state.retries += usize::from(class == Class::Retry);
            *state.held.entry(owner.clone()).or_insert(0) += 1;
            let slot = Slot { slots: Some(self.clone()), owner, class };
            if let Err(mut slot) = give.send(slot) {
                // Gone in this very moment. Its drop would take the lock again.
                slot.slots = None;
                state.give_back(&slot.owner, slot.class);
            }
        }
    }
}

impl State {
    fn give_back(&mut self, owner: &Owner, class: Class) {
        self.taken = self.taken.saturating_sub(1);
        self.retries = self.retries.saturating_sub(usize::from(class == Class::Retry));
        if let Some(held) = self.held.get_mut(owner) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.held.remove(owner);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        let mut state = slots.state();
        state.give_back(&self.owner, self.class);
        slots.hand_out(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn owner(name: &str) -> Owner {
        Some(TenantId::new(name).unwrap())
    }

    fn now(slots: &Slots, owner: &Owner, name: &str, class: Class) -> Option<Slot> {
        slots.take(owner, &Name::from(name), class).now_or_never()
    }

    #[test]
    fn retries_take_at_most_half() {
        let slots = Slots::new(8);
        let held: Vec<_> = (0..8).map_while(|_| now(&slots, &None, "s", Class::Retry)).collect();
        assert_eq!(held.len(), 4);
        assert!(now(&slots, &None, "s", Class::First).is_some());
        drop(held);
        assert_eq!(slots.load().0, 0);
    }

    #[test]
    fn one_tenant_cannot_take_the_places_that_are_kept_for_others() {
        let slots = Slots::new(16);
        let (a, b) = (owner("a"), owner("b"));
        let held: Vec<_> = (0..100).map_while(|n| now(&slots, &a, &format!("s{n}"), Class::First)).collect();
        assert_eq!(held.len(), 14);
        let first = now(&slots, &b, "t", Class::First);
        assert!(first.is_some());
        drop(held);
    }

    #[tokio::test]
    async fn who_waits_is_served_when_a_place_comes_free_and_who_left_is_passed_over() {
        let slots = Slots::new(2);
        let name = Name::from("s");
        let one = slots.take(&None, &name, Class::First).await;
        let two = slots.take(&owner("b"), &name, Class::First).await;
        let (c, d) = (owner("c"), owner("d"));
        let mut left = Box::pin(slots.take(&c, &name, Class::First));
        assert!(left.as_mut().now_or_never().is_none());
        let mut stays = Box::pin(slots.take(&d, &name, Class::First));
        assert!(stays.as_mut().now_or_never().is_none());
        drop(left);
        drop(one);
        let slot = stays.await;
        assert_eq!(slots.load().0, 2);
        drop((two, slot));
        assert_eq!(slots.load(), (0, 0));
    }
}
