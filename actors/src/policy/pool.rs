//! A bounded number of counters, each with its key.
//!
//! Stands between keys that callers may invent and the memory they take. Invariants: never more than `max`
//! counters; one that still says something is never dropped for another; and no call looks at more than
//! [`LOOKS`] others.

use std::collections::HashMap;

use crate::model::ids::Name;

/// Counters that are looked at, when all places are taken, to find one that says nothing any more. The next search
/// goes on where this one ended, so all are looked at in turn.
const LOOKS: usize = 8;

/// Counters by key.
#[derive(Debug)]
pub(super) struct Pool<V> {
    index: HashMap<Name, usize>,
    places: Vec<(Name, V)>,
    hand: usize,
    max: usize,
}

impl<V> Pool<V> {
    /// At most `max` counters.
    pub(super) fn new(max: usize) -> Self {
        Self { index: HashMap::new(), places: Vec::new(), hand: 0, max }
    }

    /// Number of counters.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The counter of a key that has one.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let at = *self.index.get(key)?;
        self.places.get_mut(at).map(|(_, value)| value)
    }

    /// Every counter and its key.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut V)> {
        self.places.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// The counter of a key, which is `new` for a key without one. `None` when there is no place, because none
    /// of the counters looked at is `idle`.
    pub(super) fn entry(&mut self, key: &Name, new: V, idle: impl Fn(&V) -> bool) -> Option<&mut V> {
        let known = self.index.get(key).copied();
        let at = match known {
            Some(at) => at,
            None if self.places.len() < self.max => {
                self.places.push((key.clone(), new));
                self.index.insert(key.clone(), self.places.len() - 1);
                self.places.len() - 1
            }
            None => {
                let at = self.find(idle)?;
                let place = self.places.get_mut(at)?;
                self.index.remove(&place.0);
                *place = (key.clone(), new);
                self.index.insert(key.clone(), at);
                at
            }
        };
        self.places.get_mut(at).map(|(_, value)| value)
    }

    /// Drops every counter that is `idle`. Looks at all of them.
    pub(super) fn sweep(&mut self, idle: impl Fn(&V) -> bool) {
        self.places.retain(|(_, value)| !idle(value));
        self.places.shrink_to_fit();
        self.index = self.places.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
    }

    fn find(&mut self, idle: impl Fn(&V) -> bool) -> Option<usize> {
        for _ in 0..LOOKS.min(self.places.len()) {
            let at = self.hand % self.places.len();
            self.hand = at + 1;
            if self.places.get(at).is_some_and(|(_, value)| idle(value)) {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zero(value: &u32) -> bool {
        *value == 0
    }

    #[test]
    fn an_idle_counter_gives_its_place_and_a_busy_one_keeps_it() {
        let mut pool = Pool::new(2);
        assert_eq!(pool.entry(&"a".into(), 1, zero), Some(&mut 1));
        assert_eq!(pool.entry(&"b".into(), 2, zero), Some(&mut 2));
        assert_eq!(pool.entry(&"c".into(), 3, zero), None);
        *pool.get_mut("a").unwrap() = 0;
        assert_eq!(pool.entry(&"a".into(), 9, zero), Some(&mut 0), "a key keeps what it has");
        assert_eq!(pool.entry(&"c".into(), 3, zero), Some(&mut 3));
        assert_eq!(pool.get_mut("a"), None);
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn an_idle_counter_is_found_wherever_it_is() {
        let mut pool = Pool::new(1_000);
        for n in 0..1_000 {
            pool.entry(&n.to_string().into(), u32::from(n != 999), zero);
        }
        let tries = (0..1_000).position(|_| pool.entry(&"new".into(), 1, zero).is_some());
        assert!(tries.unwrap() <= 1_000 / LOOKS);
    }

    proptest! {
        #[test]
        fn keys_and_counters_stay_together(steps in proptest::collection::vec((0u8..12, 0u32..3, any::<bool>()), 1..200)) {
            let mut pool = Pool::new(5);
            let mut model: HashMap<String, u32> = HashMap::new();
            for (key, value, sweep) in steps {
                let key = key.to_string();
                if sweep {
                    pool.sweep(zero);
                    model.retain(|_, value| *value != 0);
                }
                if let Some(counter) = pool.entry(&key.as_str().into(), 0, zero) {
                    *counter = value;
                    model.insert(key, value);
                }
                prop_assert!(pool.len() <= 5);
                for (key, value) in &model {
                    let found = pool.get_mut(key).copied();
                    prop_assert!(found == Some(*value) || (*value == 0 && found.is_none()));
                }
                let kept: Vec<_> = model.keys().filter(|key| pool.index.contains_key(key.as_str())).cloned().collect();
                model.retain(|key, _| kept.contains(key));
            }
        }
    }
}
