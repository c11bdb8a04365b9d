//! Takes away the documents of partitions that were deleted as a whole.

use super::{StepFailed, Upkeep};

/// Documents looked at in one step.
const CHUNK: usize = 256;
/// Bytes of them, about.
const CHUNK_BYTES: usize = 4 << 20;

impl Upkeep {
    /// Works on the first purge; true while there is one.
    pub(super) async fn purge(&self) -> Result<bool, StepFailed> {
        let Some((prefix, upto)) = self.shard.purges().into_iter().next() else { return Ok(false) };
        let (mut after, mut taken) = (None::<Vec<u8>>, 0);
        loop {
            let page = self.shard.scan(&prefix, after.as_deref(), CHUNK, CHUNK_BYTES)?;
            after = page.documents.last().map(|found| found.key.to_vec());
            let mut covered = page.documents;
            covered.retain(|found| found.document.lsn <= upto);
            taken += covered.len();
            self.sweep(&covered).await?;
            if !page.more {
                break;
            }
            if taken >= self.settings.batch {
                return Ok(true);
            }
        }
        if taken == 0 {
            self.shard.end_purge(&prefix, upto).await?;
        }
        Ok(true)
    }
}
