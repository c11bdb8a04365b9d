//! How much of each shard's log its subscriptions still need, taken together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ids::{Lsn, Name, ShardId};
use crate::shard::ShardHandle;

/// The first position that each subscription still needs, by shard. Shared by all subscribers.
#[derive(Debug, Clone, Default)]
pub struct Floors(Arc<Mutex<HashMap<ShardId, HashMap<Name, Lsn>>>>);

impl Floors {
    /// Floors for these subscriptions. Nothing is released before each of them has spoken.
    pub fn new(shards: &[ShardHandle], subscriptions: &[Name]) -> Self {
        let needs_all: HashMap<Name, Lsn> =
            subscriptions.iter().map(|name| (name.clone(), Lsn::ZERO)).collect();
        let floors = shards.iter().map(|shard| (shard.id(), needs_all.clone())).collect();
        if subscriptions.is_empty() {
            // Nobody reads the log: only the view needs it.
            for shard in shards {
                shard.release(Lsn(u64::MAX));
            }
        }
        Self(Arc::new(Mutex::new(floors)))
    }

    /// States that `subscription` needs nothing before `floor`, and tells the shard.
    pub fn set(&self, shard: &ShardHandle, subscription: &Name, floor: Lsn) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_shard = floors.entry(shard.id()).or_default();
        of_shard.insert(subscription.clone(), floor);
        if let Some(lowest) = of_shard.values().min() {
            shard.release(*lowest);
        }
    }
}
