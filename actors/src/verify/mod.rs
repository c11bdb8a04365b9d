//! Checks a stopped data directory: every byte of the logs, every row of the views, and that both agree.
//!
//! Stands between the files and the operator who wants to know whether they can be trusted.
//! Invariant: nothing in the directory is changed; a shard is opened the way a start would open it,
//! on a disk that keeps all writes in memory.

mod derived;
mod disk;
mod shard;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::model::ids::{Lsn, ShardId};
use crate::store::superblock::{DataDirectory, DirectoryError};

/// Problems kept of one check; the rest is only counted.
const PROBLEMS_MAX: usize = 1_000;

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Identity of the directory.
    pub id: String,
    /// What is in each shard, as far as it could be read.
    pub shards: Vec<ShardSummary>,
    /// Everything that is wrong, in the order in which it was met.
    pub problems: Vec<Problem>,
    /// Problems beyond those that are kept.
    pub left_out: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The shard it is in; `None` for the directory itself.
    pub shard: Option<ShardId>,
    /// What is wrong, in one line.
    pub what: String,
}

/// What is in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ShardSummary {
    /// Its number.
    pub shard: ShardId,
    /// Position of the first mutation that the log still has.
    pub first: Lsn,
    /// Position of the last one.
    pub tail: Lsn,
    /// Groups that were read from the log.
    pub groups: u64,
    /// Mutations in them.
    pub mutations: u64,
    /// Where the view's last checkpoint was; what follows was replayed for the check.
    pub checkpoint: Lsn,
    /// Documents in the view.
    pub documents: u64,
    /// Events that wait for another attempt.
    pub deliveries: u64,
    /// Events that were given up and wait in a mailbox.
    pub dead_letters: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, shard: Option<ShardId>, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { shard, what });
        } else {
            self.left_out += 1;
        }
    }
}

/// Checks the data directory at `path` and holds its lock meanwhile.
///
/// # Errors
/// When there is nothing to check: no such directory, in use, a damaged superblock, a file that must be
/// there and is not. Everything else is in the report.
pub fn directory(path: &Path) -> Result<Report, DirectoryError> {
    let directory = DataDirectory::open(path)?;
    let mut report = Report { id: directory.id().to_owned(), ..Report::default() };
    for number in 0..directory.shards() {
        let id = ShardId(number);
        if let Some(summary) = shard::check(id, &directory, &mut |what| report.add(Some(id), what)) {
            report.shards.push(summary);
        }
    }
    let surplus = directory.shard(directory.shards());
    if surplus.exists() {
        let what = format!(
            "`{}` is there, but the superblock names {} shards only",
            surplus.display(),
            directory.shards()
        );
        report.add(None, what);
    }
    Ok(report)
}
