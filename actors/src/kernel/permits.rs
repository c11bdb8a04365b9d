//! Bounds that travel inside messages.
//!
//! A mailbox is not a bound: every clone of an address has a free place in it. A permit is taken
//! before a message is made, rides inside it, and is given back when the message is dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A fixed number of places.
#[derive(Debug, Clone)]
pub struct Permits {
    places: Arc<Semaphore>,
    limit: usize,
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

impl Permits {
    /// `limit` places.
    pub fn new(limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))), limit }
    }

    /// A place, or `None` at once when all are taken.
    pub fn try_take(&self) -> Option<Permit> {
        self.places.clone().try_acquire_owned().ok().map(|place| Permit { _place: place })
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}
