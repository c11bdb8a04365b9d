//! How much of each shard's log its subscriptions still need, taken together.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::ids::{Lsn, Name, ShardId};
use crate::shard::ShardHandle;

/// The first position that each subscription still needs, by shard. Shared by all subscribers.
#[derive(Debug, Clone, Default)]
pub struct Floors(Arc<Mutex<HashMap<ShardId, Needs>>>);

/// What is needed of one shard, by name and in order.
#[derive(Debug, Default)]
struct Needs {
    by_name: HashMap<Name, Lsn>,
    /// How many need each position, so that the lowest is found at once.
    by_position: BTreeMap<Lsn, usize>,
}

impl Needs {
    fn put(&mut self, name: &Name, floor: Option<Lsn>) {
        let before = match floor {
            Some(floor) => {
                *self.by_position.entry(floor).or_insert(0) += 1;
                self.by_name.insert(name.clone(), floor)
            }
            None => self.by_name.remove(name),
        };
        if let Some(before) = before
            && let Some(count) = self.by_position.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.by_position.remove(&before);
            }
        }
    }

    /// Everything before this may go.
    fn lowest(&self) -> Lsn {
        self.by_position.keys().next().copied().unwrap_or(Lsn(u64::MAX))
    }
}

impl Floors {
    /// Floors for these subscriptions. Nothing is released before each of them has spoken.
    pub fn new(shards: &[ShardHandle], subscriptions: &[Name]) -> Self {
        let floors = Self::default();
        for shard in shards {
            if subscriptions.is_empty() {
                // Nobody reads the log: only the view needs it.
                shard.release(Lsn(u64::MAX));
            }
            for name in subscriptions {
                floors.begin(shard, name);
            }
        }
        floors
    }

    /// States that `subscription` may need everything, until it has spoken.
    pub fn begin(&self, shard: &ShardHandle, subscription: &Name) {
        self.put(shard, subscription, Some(Lsn::ZERO));
    }

    /// States that `subscription` needs nothing before `floor`, and tells the shard.
    pub fn set(&self, shard: &ShardHandle, subscription: &Name, floor: Lsn) {
        self.put(shard, subscription, Some(floor));
    }

    /// `subscription` needs nothing any more.
    pub fn end(&self, shard: &ShardHandle, subscription: &str) {
        self.put(shard, &subscription.into(), None);
    }

    fn put(&self, shard: &ShardHandle, subscription: &Name, floor: Option<Lsn>) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let needs = floors.entry(shard.id()).or_default();
        needs.put(subscription, floor);
        shard.release(needs.lowest());
    }
}
