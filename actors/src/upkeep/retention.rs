//! Keeps the log as long as containers promise their feeds of all versions.
//!
//! When a position was written is told by the documents there, and by where the log ended at some times
//! since the start; the later of both counts, because each is no later than the truth.

use std::collections::VecDeque;
use std::time::Duration;

use super::{StepFailed, Upkeep};
use crate::log::LogReader;
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;
use crate::model::time::Timestamp;
use crate::shard::ShardReadError;

/// Bytes of log that are read to find out when a position was written.
const PROBE_BYTES: usize = 64 * 1_024;
/// Rounds between two looks.
const ROUNDS: u32 = 60;
/// Ends of the log that are remembered at most.
const MARKS: usize = 1_024;

/// When to look again, and what is remembered.
#[derive(Debug, Default)]
pub(super) struct Progress {
    next: Duration,
    marks: VecDeque<(Timestamp, Lsn)>,
}

impl Progress {
    /// Remembers where the log ends now. When there are too many of these, every other one goes.
    fn mark(&mut self, now: Timestamp, tail: Lsn) {
        if self.marks.len() >= MARKS {
            let mut nth = 0_usize;
            self.marks.retain(|_| {
                nth += 1;
                nth.is_multiple_of(2)
            });
        }
        self.marks.push_back((now, tail));
    }

    /// The first position that was written at `since` or later, as far as that is remembered.
    fn since(&mut self, since: Timestamp) -> Lsn {
        let mut known = Lsn::ZERO;
        while let Some((_, tail)) = self.marks.front().filter(|(at, _)| *at < since) {
            known = known.max(tail.next());
            if self.marks.len() == 1 {
                break;
            }
            self.marks.pop_front();
        }
        known
    }
}

impl Upkeep {
    /// Finds the first position that the longest retention still wants, and tells the shard.
    pub(super) async fn retain(&mut self) -> Result<bool, StepFailed> {
        let elapsed = self.clock.elapsed();
        if elapsed < self.retention.next {
            return Ok(false);
        }
        self.retention.next = elapsed + self.settings.interval * ROUNDS;
        let containers = self.directory.catalog().iter().map(|container| container.retention);
        let longest = containers.chain([self.settings.retention]).max();
        let Some(longest) = longest.filter(|longest| *longest > Duration::ZERO) else {
            self.shard.retain(Lsn(u64::MAX));
            return Ok(false);
        };
        let now = self.clock.now();
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let since = Timestamp(now.0.saturating_sub(millis));
        self.retention.mark(now, self.shard.log().tail());
        let known = self.retention.since(since);
        let first = self.read(move |shard| Ok(first_since(&*shard.log(), since)?)).await?;
        self.shard.retain(first.max(known));
        Ok(false)
    }
}

/// The first position of the log whose next document was written at `since` or later, by halving.
fn first_since(log: &dyn LogReader, since: Timestamp) -> Result<Lsn, ShardReadError> {
    let (mut low, mut high) = (log.first().0, log.tail().next().0);
    while low < high {
        let middle = low + (high - low) / 2;
        let groups = log.read(Lsn(middle), PROBE_BYTES)?;
        let mut dated = groups.iter().flat_map(CommittedGroup::positions);
        let dated = dated.find_map(|(lsn, mutation)| mutation.at().filter(|_| lsn.0 >= middle));
        match dated {
            Some(at) if at < since => low = middle + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(Lsn(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_never_later_than_the_truth_and_stays_small() {
        let mut progress = Progress::default();
        assert_eq!(progress.since(Timestamp(5)), Lsn::ZERO);
        for at in 0..5_000 {
            progress.mark(Timestamp(at * 10), Lsn(at));
            assert!(progress.marks.len() <= MARKS);
        }
        let first = progress.since(Timestamp(30_000));
        assert!(Lsn(2_500) < first && first <= Lsn(3_000), "{first:?}");
        assert_eq!(progress.since(Timestamp(60_000)), Lsn(5_000));
        assert_eq!(progress.since(Timestamp(70_000)), Lsn(5_000), "the last one stays");
    }
}
