//! Takes away the documents of partitions that were deleted as a whole.

use super::{StepFailed, Suspect, Upkeep};
use crate::model::ids::Lsn;

/// Documents looked at in one step.
const CHUNK: usize = 256;
/// Bytes of them, about.
const CHUNK_BYTES: usize = 4 << 20;

/// How far a purge has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    current: Option<Pass>,
    /// The prefix that was worked on last, so that each has its turn.
    last: Option<Vec<u8>>,
}

/// One way through all documents of a prefix.
#[derive(Debug)]
struct Pass {
    prefix: Vec<u8>,
    upto: Lsn,
    after: Option<Vec<u8>>,
    /// Documents that were met and had to go.
    met: usize,
    /// Those of them that could not.
    kept: usize,
}

impl Upkeep {
    /// Works on one purge for a while; true while there is more to do at once.
    pub(super) async fn purge(&mut self) -> Result<bool, StepFailed> {
        let Some(mut pass) = self.purges.current.take().or_else(|| self.next_pass()) else {
            return Ok(false);
        };
        let mut taken = 0;
        while taken < self.settings.batch {
            let (prefix, after, upto) = (pass.prefix.clone(), pass.after.clone(), pass.upto);
            let read = self.read(move |shard| {
                let page = shard.scan(&prefix, after.as_deref(), CHUNK, CHUNK_BYTES)?;
                let covered = page.documents.iter().filter(|found| found.document.lsn <= upto);
                let suspects: Vec<_> = covered.map(Suspect::new).collect();
                let looked_at = page.documents.len();
                let last = page.documents.last().map(|found| found.key.to_vec());
                Ok((suspects, last, looked_at, page.more))
            });
            // After an error the purge is begun again.
            let (suspects, last, looked_at, more) = read.await?;
            taken += looked_at;
            pass.met += suspects.len();
            pass.kept += self.sweep(suspects).await.len();
            pass.after = last;
            if !more {
                return self.end_pass(pass).await;
            }
        }
        self.purges.current = Some(pass);
        Ok(true)
    }

    fn next_pass(&mut self) -> Option<Pass> {
        let mut all = self.shard.purges();
        let behind = self.purges.last.as_ref();
        let next = all.iter().position(|(prefix, _)| behind.is_none_or(|last| prefix > last)).unwrap_or(0);
        if all.is_empty() {
            return None;
        }
        let (prefix, upto) = all.swap_remove(next);
        self.purges.last = Some(prefix.clone());
        Some(Pass { prefix, upto, after: None, met: 0, kept: 0 })
    }

    /// What nothing was met of is at its end; the others have their next pass.
    async fn end_pass(&self, pass: Pass) -> Result<bool, StepFailed> {
        if pass.met == 0 {
            self.shard.end_purge(&pass.prefix, pass.upto).await?;
        }
        Ok(pass.met > pass.kept || (pass.met == 0 && !self.shard.purges().is_empty()))
    }
}
