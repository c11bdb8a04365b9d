//! Events that are in the log and no longer in memory: found once for all who are to be told of them again.
//!
//! Stands between retries and the log. A group of the log is read and checked as a whole, and what failed together
//! was mostly written together: so the groups that were read last are kept. Invariant: they have a bound, and what is
//! found in one is what the log has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::{LogReader, ReadError};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::topic::Topic;

/// Groups that are kept for each shard, however small.
const KEPT: usize = 1_024;

/// The part of the log that retries look at. All subscriptions share one.
#[derive(Debug)]
pub struct Past {
    /// Bytes that are kept for each shard. A larger group is read each time.
    bytes: usize,
    shards: Mutex<BTreeMap<ShardId, Arc<Mutex<Groups>>>>,
    reads: AtomicU64,
}

/// The groups of a shard that were used last.
#[derive(Debug, Default)]
struct Groups {
    /// By their first position; with the number of the use.
    kept: BTreeMap<Lsn, (CommittedGroup, u64)>,
    bytes: usize,
    uses: u64,
}

impl Past {
    /// Nothing is kept yet; later so many bytes for each shard.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, shards: Mutex::default(), reads: AtomicU64::new(0) }
    }

    /// The event at a position of a shard's log. `None`: it is no event of the topic any more. May read the disk.
    pub(super) fn event(
        &self,
        log: &dyn LogReader,
        topic: &Topic,
        position: Position,
    ) -> Result<Option<Event>, String> {
        let group = self.group(log, position).map_err(|error| error.to_string())?;
        let found = group.as_ref().and_then(|group| at(group, position.lsn));
        let mutation = found.ok_or_else(|| "the log has nothing there".to_owned())?;
        Ok(Event::of(topic, position, mutation).map(Event::detached))
    }

    /// How often the log was read.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    fn group(&self, log: &dyn LogReader, position: Position) -> Result<Option<CommittedGroup>, ReadError> {
        let groups = {
            let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
            shards.entry(position.shard).or_default().clone()
        };
        // Held while the log is read: whoever wants the same group at the same time finds it then.
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.find(position.lsn) {
            return Ok(Some(group));
        }
        self.reads.fetch_add(1, Ordering::Relaxed);
        let group = log.read(position.lsn, 1)?.into_iter().next();
        if let Some(group) = &group {
            groups.keep(group.clone(), self.bytes);
        }
        Ok(group)
    }
}

impl Groups {
    fn find(&mut self, lsn: Lsn) -> Option<CommittedGroup> {
        let (_, (group, used)) = self.kept.range_mut(..=lsn).next_back()?;
        at(group, lsn)?;
        self.uses += 1;
        *used = self.uses;
        Some(group.clone())
    }

    fn keep(&mut self, group: CommittedGroup, most: usize) {
        let bytes = weight(&group);
        if bytes > most {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        if let Some((replaced, _)) = self.kept.insert(group.first, (group, self.uses)) {
            self.bytes = self.bytes.saturating_sub(weight(&replaced));
        }
        while self.bytes > most || self.kept.len() > KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(first, _)| *first);
            let Some((gone, _)) = oldest.and_then(|first| self.kept.remove(&first)) else { break };
            self.bytes = self.bytes.saturating_sub(weight(&gone));
        }
    }
}

fn at(group: &CommittedGroup, lsn: Lsn) -> Option<&Mutation> {
    let place = usize::try_from(lsn.0.checked_sub(group.first.0)?).ok()?;
    group.mutations.get(place)
}

fn weight(group: &CommittedGroup) -> usize {
    group.mutations.iter().map(Mutation::weight).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::change::Table;

    const BYTES: usize = 1 << 20;

    /// A log of groups of ten mutations, each of so many bytes, that begin at 1, 11, 21 and so on.
    struct Written {
        groups: u64,
        bytes: usize,
    }

    impl LogReader for Written {
        fn tail(&self) -> Lsn {
            Lsn(self.groups * 10)
        }

        fn first(&self) -> Lsn {
            Lsn(1)
        }

        fn read(&self, from: Lsn, _: usize) -> Result<Vec<CommittedGroup>, ReadError> {
            let number = from.0.saturating_sub(1) / 10;
            if number >= self.groups {
                return Ok(Vec::new());
            }
            let first = number * 10 + 1;
            let put = |lsn: u64| {
                let key = Bytes::from(lsn.to_string());
                Mutation::Put { table: Table::System, key, value: vec![0; self.bytes].into() }
            };
            Ok(vec![CommittedGroup { first: Lsn(first), mutations: (first..first + 10).map(put).collect() }])
        }
    }

    fn look(past: &Past, log: &Written, shard: u16, lsn: u64) -> Option<String> {
        let position = Position { shard: ShardId(shard), lsn: Lsn(lsn) };
        let group = past.group(log, position).unwrap()?;
        match at(&group, Lsn(lsn))? {
            Mutation::Put { key, .. } => Some(String::from_utf8(key.to_vec()).unwrap()),
            other @ (Mutation::Document(_) | Mutation::Event(_) | Mutation::Delete { .. }) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn a_group_is_read_once_for_all_that_is_in_it_whoever_asks_at_the_same_time() {
        let (past, log) = (Past::new(BYTES), Written { groups: 3, bytes: 100 });
        std::thread::scope(|scope| {
            for start in 0..8 {
                let (past, log) = (&past, &log);
                scope.spawn(move || {
                    for step in 0..30 {
                        let lsn = (start * 7 + step) % 30 + 1;
                        assert_eq!(look(past, log, 0, lsn), Some(lsn.to_string()));
                    }
                });
            }
        });
        assert_eq!(past.reads(), 3);
        assert_eq!(look(&past, &log, 1, 1), Some("1".to_owned()), "another shard has another log");
        assert_eq!(look(&past, &log, 0, 31), None);
        assert_eq!(past.reads(), 5);
    }

    #[test]
    fn what_is_kept_has_a_bound_and_is_what_was_used_last() {
        // Four groups fit.
        let (past, log) = (Past::new(BYTES), Written { groups: 100, bytes: BYTES / 45 });
        for round in 0..100 {
            look(&past, &log, 0, 1);
            look(&past, &log, 0, round * 10 + 1);
            let shards = past.shards.lock().unwrap();
            let groups = shards[&ShardId(0)].lock().unwrap();
            let bytes: usize = groups.kept.values().map(|(group, _)| weight(group)).sum();
            assert!(bytes == groups.bytes && bytes <= BYTES && groups.kept.len() <= 4);
        }
        assert_eq!(past.reads(), 100, "the first group was never forgotten");
        let huge = Written { groups: 1, bytes: BYTES };
        for _ in 0..2 {
            assert!(look(&past, &huge, 7, 1).is_some());
        }
        assert_eq!(past.reads(), 102);
    }
}
