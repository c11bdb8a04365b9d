//! Who is next when many wait for few places: deficit round robin over tenants, then over subscriptions.
//!
//! Stands before a bounded number of places. Invariants: a tenant waits for no more than one turn of each
//! other tenant, however many of its requests wait; the same holds among the subscriptions of a tenant.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What waits, first attempts and retries apart.
#[derive(Debug)]
struct Lane<T> {
    first: VecDeque<T>,
    retries: VecDeque<T>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { first: VecDeque::new(), retries: VecDeque::new() }
    }
}

/// Whether an attempt is an event's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The first attempt of an event.
    First,
    /// Every later one, and every probe.
    Retry,
}

/// A ring of equals that have their turns, each with a deficit.
#[derive(Debug)]
struct Ring<K, V> {
    order: VecDeque<K>,
    members: HashMap<K, V>,
}

impl<K, V> Default for Ring<K, V> {
    fn default() -> Self {
        Self { order: VecDeque::new(), members: HashMap::new() }
    }
}

#[derive(Debug)]
struct Tenant<S, T> {
    weight: u32,
    /// Places that it may take before the next tenant has its turn.
    deficit: u32,
    subscriptions: Ring<S, Lane<T>>,
}

/// What waits for a place, by tenant and subscription.
#[derive(Debug)]
pub struct FairQueue<K, S, T> {
    tenants: Ring<K, Tenant<S, T>>,
    waiting: usize,
}

impl<K, S, T> Default for FairQueue<K, S, T> {
    fn default() -> Self {
        Self { tenants: Ring::default(), waiting: 0 }
    }
}

impl<K: Eq + Hash + Clone, S: Eq + Hash + Clone, T> FairQueue<K, S, T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// One more waits. A tenant with twice the weight has twice the places in a turn.
    pub fn push(&mut self, tenant: &K, weight: u32, subscription: &S, class: Class, item: T) {
        let Ring { order, members } = &mut self.tenants;
        let entry = members.entry(tenant.clone()).or_insert_with(|| {
            order.push_back(tenant.clone());
            Tenant { weight: weight.max(1), deficit: 0, subscriptions: Ring::default() }
        });
        let Ring { order, members } = &mut entry.subscriptions;
        let lane = members.entry(subscription.clone()).or_insert_with(|| {
            order.push_back(subscription.clone());
            Lane::default()
        });
        match class {
            Class::First => lane.first.push_back(item),
            Class::Retry => lane.retries.push_back(item),
        }
        self.waiting += 1;
    }

    /// The next one, among the tenants that `may` have a place now. Retries are passed over unless
    /// `retries` allows one.
    pub fn pop(&mut self, retries: bool, may: impl Fn(&K) -> bool) -> Option<(K, Class, T)> {
        for _ in 0..self.tenants.order.len() {
            let key = self.tenants.order.front()?.clone();
            let tenant = self.tenants.members.get_mut(&key)?;
            if !may(&key) {
                self.tenants.order.rotate_left(1);
                continue;
            }
            if tenant.deficit == 0 {
                tenant.deficit = tenant.weight;
            }
            let Some((class, item)) = next_of(&mut tenant.subscriptions, retries) else {
                tenant.deficit = 0;
                self.tenants.order.rotate_left(1);
                continue;
            };
            tenant.deficit -= 1;
            let spent = tenant.deficit == 0;
            if tenant.subscriptions.order.is_empty() {
                self.tenants.members.remove(&key);
                self.tenants.order.pop_front();
            } else if spent {
                self.tenants.order.rotate_left(1);
            }
            self.waiting -= 1;
            return Some((key, class, item));
        }
        None
    }

    /// Takes out everything that is `gone`, wherever it stands. Looks at all that wait.
    pub fn extract(&mut self, gone: impl Fn(&T) -> bool) -> Vec<(K, T)> {
        let mut taken = Vec::new();
        for (key, tenant) in &mut self.tenants.members {
            let Ring { order, members } = &mut tenant.subscriptions;
            for lane in members.values_mut().flat_map(|lane| [&mut lane.first, &mut lane.retries]) {
                let (out, stay) = std::mem::take(lane).into_iter().partition::<VecDeque<T>, _>(&gone);
                taken.extend(out.into_iter().map(|item| (key.clone(), item)));
                *lane = stay;
            }
            members.retain(|_, lane| !(lane.first.is_empty() && lane.retries.is_empty()));
            order.retain(|subscription| members.contains_key(subscription));
        }
        let Ring { order, members } = &mut self.tenants;
        members.retain(|_, tenant| !tenant.subscriptions.order.is_empty());
        order.retain(|tenant| members.contains_key(tenant));
        self.waiting = self.waiting.saturating_sub(taken.len());
        taken
    }
}

/// The next one of a tenant: its subscriptions take turns, and each has its first attempts first.
fn next_of<S: Eq + Hash + Clone, T>(ring: &mut Ring<S, Lane<T>>, retries: bool) -> Option<(Class, T)> {
    for _ in 0..ring.order.len() {
        let key = ring.order.pop_front()?;
        let lane = ring.members.get_mut(&key)?;
        let mut taken = lane.first.pop_front().map(|item| (Class::First, item));
        if taken.is_none() && retries {
            taken = lane.retries.pop_front().map(|item| (Class::Retry, item));
        }
        if lane.first.is_empty() && lane.retries.is_empty() {
            ring.members.remove(&key);
        } else {
            ring.order.push_back(key);
        }
        if taken.is_some() {
            return taken;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<u8, u32, u32>, retries: bool) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| queue.pop(retries, |_| true).map(|(tenant, _, item)| (tenant, item))).collect()
    }

    #[test]
    fn a_tenant_with_a_thousand_subscriptions_waits_in_turn_with_one_that_has_one() {
        let mut queue = FairQueue::default();
        for n in 0..1_000 {
            queue.push(&1, 1, &n, Class::First, n);
        }
        for n in 0..3 {
            queue.push(&2, 1, &0, Class::First, n);
        }
        let order = drain(&mut queue, true);
        let places: Vec<usize> = order
            .iter()
            .enumerate()
            .filter(|(_, (tenant, _))| *tenant == 2)
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places, [1, 3, 5]);
        assert_eq!((order.len(), queue.len()), (1_003, 0));
    }

    #[test]
    fn subscriptions_of_a_tenant_take_turns() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push(&1, 1, &1, Class::First, n);
        }
        queue.push(&1, 1, &2, Class::First, 100);
        queue.push(&1, 1, &3, Class::First, 200);
        let items: Vec<u32> = drain(&mut queue, true).into_iter().map(|(_, item)| item).collect();
        assert_eq!(items, [0, 100, 200, 1, 2, 3]);
    }

    #[test]
    fn what_is_taken_out_leaves_the_turns_of_the_others_as_they_were() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push(&1, 1, &(n % 2), Class::First, n);
            queue.push(&2, 1, &1, Class::Retry, 10 + n);
        }
        queue.push(&3, 1, &1, Class::First, 20);
        let mut taken = queue.extract(|item| *item == 1 || *item > 11);
        taken.sort_unstable();
        assert_eq!((taken, queue.len()), (vec![(1, 1), (2, 12), (2, 13), (3, 20)], 5));
        assert_eq!(drain(&mut queue, true), [(1, 0), (2, 10), (1, 3), (2, 11), (1, 2)]);
        assert!(queue.is_empty() && queue.extract(|_| true).is_empty());
    }

    #[test]
    fn retries_that_may_not_go_stay_where_they_are() {
        let mut queue = FairQueue::default();
        queue.push(&1, 1, &1, Class::Retry, 1);
        queue.push(&2, 1, &1, Class::Retry, 2);
        queue.push(&2, 1, &1, Class::First, 3);
        assert_eq!(drain(&mut queue, false), [(2, 3)]);
        assert_eq!(queue.len(), 2);
        assert_eq!(drain(&mut queue, true), [(1, 1), (2, 2)]);
    }

    #[test]
    fn weight_is_places_in_a_turn_and_who_may_not_is_passed_over() {
        let mut queue = FairQueue::default();
        for n in 0..4 {
            queue.push(&1, 2, &1, Class::First, n);
            queue.push(&2, 1, &1, Class::First, n);
        }
        let tenants: Vec<u8> = drain(&mut queue, true).into_iter().map(|(tenant, _)| tenant).collect();
        assert_eq!(tenants, [1, 1, 2, 1, 1, 2, 2, 2]);
        queue.push(&1, 1, &1, Class::First, 9);
        queue.push(&2, 1, &1, Class::First, 9);
        assert_eq!(queue.pop(true, |tenant| *tenant == 2).map(|(tenant, ..)| tenant), Some(2));
        assert_eq!(queue.len(), 1);
    }
}
