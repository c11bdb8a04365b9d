//! Keeps one tenant from taking every place.
//!
//! Stands beside [`Permits`](super::permits::Permits), which bound how much is done at once for
//! everybody together. Invariant: a tenant that holds less than its even part is served as long as
//! there is a place at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ids::TenantId;

/// The part of the places that only tenants below their even part may take: one in this many.
const RESERVE: usize = 8;

/// Who holds how many of a fixed number of places.
#[derive(Debug, Clone)]
pub struct Shares {
    held: Arc<Mutex<Held>>,
    places: usize,
}

#[derive(Debug, Default)]
struct Held {
    by_tenant: HashMap<TenantId, usize>,
    total: usize,
}

/// One place of a tenant, given back on drop.
#[derive(Debug)]
pub struct Share {
    held: Arc<Mutex<Held>>,
    tenant: TenantId,
}

impl Shares {
    /// Shares of `places` places.
    pub fn new(places: usize) -> Self {
        Self { held: Arc::default(), places }
    }

    /// Counts a place for `tenant`, or `None` when it has its even part and the rest is reserved.
    pub fn try_take(&self, tenant: &TenantId) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.by_tenant.get(tenant).copied().unwrap_or(0);
        if held.total >= self.places - self.places / RESERVE {
            // Somebody who has no place yet may be about to come, so one tenant alone has half.
            let tenants = (held.by_tenant.len() + usize::from(mine == 0)).max(2);
            if mine >= (self.places / tenants).max(1) {
                return None;
            }
        }
        held.by_tenant.insert(tenant.clone(), mine + 1);
        held.total += 1;
        Some(Share { held: self.held.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total = held.total.saturating_sub(1);
        let left = held.by_tenant.get(&self.tenant).map_or(0, |n| n.saturating_sub(1));
        if left == 0 {
            held.by_tenant.remove(&self.tenant);
        } else {
            held.by_tenant.insert(self.tenant.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn take(shares: &Shares, name: &str, times: usize) -> Vec<Share> {
        (0..times).map_while(|_| shares.try_take(&tenant(name))).collect()
    }

    #[test]
    fn a_flood_of_one_tenant_leaves_places_for_another() {
        let shares = Shares::new(16);
        let flood = take(&shares, "loud", 100);
        assert_eq!(flood.len(), 14, "an eighth is reserved");
        let quiet = take(&shares, "quiet", 2);
        assert_eq!(quiet.len(), 2);
        assert!(take(&shares, "loud", 1).is_empty());
        drop(flood);
        assert_eq!(take(&shares, "quiet", 100).len(), 12, "the rest is open to everybody again");
    }

    #[test]
    fn places_come_back() {
        let shares = Shares::new(4);
        for _ in 0..3 {
            assert!(!take(&shares, "a", 100).is_empty());
        }
        assert!(shares.held.lock().unwrap().by_tenant.is_empty());
    }
}
