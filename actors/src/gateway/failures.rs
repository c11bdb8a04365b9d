//! Refused keys, counted for each client address and for each beginning of keys, so that guessing is pointless.
//!
//! Invariants: an address that failed too often is not looked at until its bucket has a token again; where
//! many addresses guess keys that begin alike, each has one guess; whoever has the right key is never kept out by what
//! others guess; the memory for all addresses is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::ids::Name;
use crate::policy::limits::network;
use crate::policy::rate::{Rate, Ticks, TokenBuckets};

pub(super) struct Failures {
    addresses: TokenBuckets,
    prefixes: TokenBuckets,
    ticks: Ticks,
    /// Until when an address is not looked at.
    barred: Mutex<HashMap<IpAddr, Duration>>,
    /// Size of `barred`, so that the common case takes no lock.
    count: AtomicUsize,
    max: usize,
}

impl Failures {
    /// Allows each address and each beginning of keys so many failures; remembers at most `max` addresses.
    pub(super) fn new((per_address, per_prefix): (Rate, Rate), max: usize, ticks: Ticks) -> Self {
        let addresses = TokenBuckets::new(per_address, max, ticks.clone());
        let prefixes = TokenBuckets::new(per_prefix, max, ticks.clone());
        Self { addresses, prefixes, ticks, barred: Mutex::default(), count: AtomicUsize::new(0), max }
    }

    /// How long this address must wait before it is looked at, if it must.
    pub(super) fn wait(&self, ip: IpAddr) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = (self.ticks)();
        let barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        let until = barred.get(&network(ip))?;
        until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Notes a refused key that begins like this. Returns how long the address must wait, when this was one too many.
    pub(super) fn note(&self, ip: IpAddr, prefix: Option<&str>) -> Option<Duration> {
        let ip = network(ip);
        let of_address = self.addresses.check(&Name::from(ip.to_string()));
        let of_prefix = prefix.map(|prefix| self.prefixes.check(&Name::from(prefix)));
        let refused =
            [Some(of_address), of_prefix].into_iter().flatten().filter(|admission| !admission.allowed);
        let wait = refused.map(|admission| admission.retry_after).max()?;
        let now = (self.ticks)();
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        if barred.len() >= self.max {
            barred.retain(|_, until| *until > now);
        }
        // With too many barred addresses at once the rest share one bucket, which refuses them too.
        if barred.len() < self.max || barred.contains_key(&ip) {
            barred.insert(ip, now.saturating_add(wait));
        }
        self.count.store(barred.len(), Ordering::Relaxed);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn failures(max: usize) -> (Failures, Arc<AtomicU64>) {
        let millis = Arc::new(AtomicU64::new(0));
        let source = millis.clone();
        let ticks: Ticks = Arc::new(move || Duration::from_millis(source.load(Ordering::SeqCst)));
        let rate = Rate::new(2, Duration::from_secs(2)).unwrap();
        let per_prefix = Rate::new(5, Duration::from_secs(5)).unwrap();
        (Failures::new((rate, per_prefix), max, ticks), millis)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn guessing_is_stopped_and_may_go_on_after_the_told_time() {
        let (failures, millis) = failures(10);
        let ip = ip("192.0.2.1");
        assert_eq!((failures.note(ip, None), failures.note(ip, None)), (None, None));
        assert_eq!(failures.wait(ip), None);
        let wait = failures.note(ip, None).unwrap();
        assert_eq!(failures.wait(ip), Some(wait));
        millis.fetch_add(wait.as_millis() as u64, Ordering::SeqCst);
        assert_eq!(failures.wait(ip), None);
        assert_eq!(failures.note(ip, None), None, "one token came back");
    }

    #[test]
    fn other_addresses_are_not_stopped_except_neighbours_in_one_ipv6_network() {
        let (failures, _) = failures(10);
        for _ in 0..3 {
            failures.note(ip("2001:db8::1"), None);
            failures.note(ip("::ffff:192.0.2.1"), None);
        }
        assert!(failures.wait(ip("2001:db8::ffff")).is_some());
        assert!(failures.wait(ip("2001:db8:0:1::1")).is_none());
        assert!(failures.wait(ip("192.0.2.1")).is_some());
        assert!(failures.wait(ip("192.0.2.2")).is_none());
    }

    #[test]
    fn many_addresses_that_guess_one_key_have_one_guess_each() {
        let (failures, millis) = failures(100);
        let guess = |n: u8, prefix| failures.note(ip(&format!("192.0.2.{n}")), Some(prefix));
        for n in 0..5 {
            assert_eq!(guess(n, "lk_AbCdE"), None, "{n}");
        }
        for n in 5..50 {
            assert!(guess(n, "lk_AbCdE").is_some(), "{n}");
            assert!(failures.wait(ip(&format!("192.0.2.{n}"))).is_some(), "{n}");
        }
        assert_eq!(guess(50, "lk_other"), None);
        // Whoever did not guess is looked at.
        assert_eq!(failures.wait(ip("192.0.2.99")), None);
        millis.fetch_add(5_000, Ordering::SeqCst);
        assert_eq!(guess(51, "lk_AbCdE"), None);
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory() {
        let (failures, _) = failures(4);
        for n in 0..1_000_u32 {
            for _ in 0..4 {
                failures.note(IpAddr::V4(n.into()), None);
            }
        }
        assert!(failures.barred.lock().unwrap().len() <= 4);
    }
}
