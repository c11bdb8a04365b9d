//! Keeps the log as long as containers promise their feeds of all versions.

use std::time::Duration;

use super::{StepFailed, Upkeep};
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;
use crate::model::time::Timestamp;
use crate::shard::ShardReadError;

/// Bytes of log that are read to find out when a position was written.
const PROBE_BYTES: usize = 64 * 1_024;

impl Upkeep {
    /// Finds the first position that the longest retention still wants, and tells the shard.
    pub(super) fn retain(&self) -> Result<bool, StepFailed> {
        let longest = self.directory.catalog().iter().map(|container| container.retention).max();
        let Some(longest) = longest.filter(|longest| *longest > Duration::ZERO) else {
            self.shard.retain(Lsn(u64::MAX));
            return Ok(false);
        };
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let since = Timestamp(self.clock.now().0.saturating_sub(millis));
        let log = self.shard.log();
        let (mut low, mut high) = (log.first().0, log.tail().0);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.written_at(Lsn(middle))? {
                Some(at) if at < since => low = middle + 1,
                Some(_) | None => high = middle,
            }
        }
        self.shard.retain(Lsn(low));
        Ok(false)
    }

    /// When the first document at or soon after a position was written.
    fn written_at(&self, lsn: Lsn) -> Result<Option<Timestamp>, StepFailed> {
        let groups = self.shard.log().read(lsn, PROBE_BYTES).map_err(ShardReadError::from)?;
        let first = groups.iter().flat_map(CommittedGroup::changes).find(|(at, _)| *at >= lsn);
        Ok(first.map(|(_, change)| change.at))
    }
}
