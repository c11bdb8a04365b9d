//! Deletes the marks of events that were published too long ago to be taken for new ones.

use bytes::Bytes;

use super::{StepFailed, Upkeep};
use crate::model::change::{Mutation, Table};
use crate::model::time::Timestamp;
use crate::shard::ShardHandle;
use crate::topic::past;

/// Marks that one commit deletes.
const CHUNK: usize = 1_000;

impl Upkeep {
    /// Deletes some marks; true when there may be more to delete at once.
    pub(super) async fn forget_marks(&self) -> Result<bool, StepFailed> {
        let now = self.clock.now();
        let gone = self.read(move |shard| past_marks(shard, now)).await?;
        let more = gone.len() >= CHUNK;
        self.commit(gone).await?;
        Ok(more)
    }
}

/// Marks of past periods. Those of a topic lie by their periods, so that its first one tells whether there
/// are any.
fn past_marks(shard: &ShardHandle, now: Timestamp) -> Result<Vec<Mutation>, StepFailed> {
    let view = shard.view()?;
    let mut gone = Vec::new();
    let mut after: Option<Bytes> = None;
    while let Some((first, _)) = view.rows(Table::Published, b"", after.as_deref(), 1)?.first() {
        let name = first.split(|byte| *byte == 0).next().unwrap_or_default();
        let prefix = [name, &[0]].concat();
        for (rest, _) in view.rows(Table::Published, &prefix, None, CHUNK - gone.len())? {
            let key = Bytes::from([prefix.as_slice(), &rest].concat());
            if !past(&key, now) {
                break;
            }
            gone.push(Mutation::Delete { table: Table::Published, key });
        }
        if gone.len() >= CHUNK {
            break;
        }
        // The next topic: names have no byte below this one.
        after = Some([name, &[1]].concat().into());
    }
    Ok(gone)
}
