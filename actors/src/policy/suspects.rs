//! What an actor was working on when it crashed, and when it is the message's fault.
//!
//! Stands between a crash and the crash budget: a message that crashes its actor again and again is set aside, so
//! that everybody else's go on. Invariant: bounded; whoever is forgotten is only tried again.

use std::collections::VecDeque;

/// Crashes after which it is the message.
pub const POISON: u32 = 3;
/// Messages that are remembered, the latest.
const MOST: usize = 1_024;

/// The messages that were at work in a crash. Whoever is in it is under suspicion and best handled alone, so that it
/// harms no other and clears itself.
#[derive(Debug, Clone)]
pub struct Suspects<K> {
    /// With how often they crashed, the latest last. Few, because each costs a restart.
    known: VecDeque<(K, u32)>,
}

impl<K> Default for Suspects<K> {
    fn default() -> Self {
        Self { known: VecDeque::new() }
    }
}

impl<K: Eq + Copy> Suspects<K> {
    /// It was at work in a crash. True: that makes it poison, from now on.
    pub fn blame(&mut self, key: K) -> bool {
        let crashes = self.clear(&key) + 1;
        self.remember(key, crashes);
        crashes == POISON
    }

    /// Somebody else knows that it is poison.
    pub fn condemn(&mut self, key: K) {
        self.clear(&key);
        self.remember(key, POISON);
    }

    /// Whether nobody is under suspicion.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether it was at work in a crash.
    pub fn is_suspect(&self, key: &K) -> bool {
        self.crashes(key) > 0
    }

    /// Whether it must not be tried again.
    pub fn is_poison(&self, key: &K) -> bool {
        self.crashes(key) >= POISON
    }

    /// It has an end. Gives back how often it crashed.
    pub fn clear(&mut self, key: &K) -> u32 {
        let place = self.known.iter().position(|(known, _)| known == key);
        place.and_then(|place| self.known.remove(place)).map_or(0, |(_, crashes)| crashes)
    }

    fn crashes(&self, key: &K) -> u32 {
        self.known.iter().find(|(known, _)| known == key).map_or(0, |(_, crashes)| *crashes)
    }

    fn remember(&mut self, key: K, crashes: u32) {
        if self.known.len() >= MOST {
            self.known.pop_front();
        }
        self.known.push_back((key, crashes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_crash_convicts_once_and_a_good_end_clears() {
        let mut suspects = Suspects::default();
        assert!(!suspects.is_suspect(&7));
        assert_eq!([7, 7, 8].map(|key| suspects.blame(key)), [false; 3]);
        assert!(suspects.is_suspect(&7) && !suspects.is_poison(&7));
        assert_eq!([7, 7].map(|key| suspects.blame(key)), [true, false]);
        assert!(suspects.is_poison(&7) && !suspects.is_poison(&8));
        assert_eq!((suspects.clear(&7), suspects.clear(&7)), (4, 0));
        assert!(!suspects.is_suspect(&7) && suspects.is_suspect(&8));
        suspects.condemn(8);
        assert!(suspects.is_poison(&8));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut suspects = Suspects::default();
        for key in 0..=MOST {
            suspects.blame(key);
        }
        assert!(!suspects.is_suspect(&0));
        assert!(suspects.is_suspect(&1) && suspects.is_suspect(&MOST));
    }
}
