//! The commit log of a shard: what is here is committed, what is not never happened.
//!
//! [`CommitLog`] is the seam behind which a replicated log will stand: append with the expected
//! position as a fence, read from a position, trim what nobody needs. Nothing after the append
//! knows which log it was.

pub mod disk;
pub mod file;
#[cfg(any(test, feature = "failpoints"))]
pub mod memory;
mod record;
mod recovery;
pub mod reserve;
mod segment;
#[cfg(any(test, feature = "failpoints"))]
pub mod sim;

use std::io;
use std::sync::Arc;

pub use record::MAX_MUTATIONS;

use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::Lsn;

/// An ordered, durable sequence of groups of mutations with one writer.
pub trait CommitLog: Send {
    /// The position to append after. It may be past the last mutation, never before it.
    fn tail(&self) -> Lsn;

    /// Appends one group and returns once it is durable. An empty group changes nothing.
    ///
    /// # Errors
    /// See [`AppendError`]; after [`AppendError::Unknown`] the log takes nothing until reopened.
    fn append(&mut self, expect: Lsn, mutations: &[Mutation]) -> Result<Lsn, AppendError>;

    /// A door for readers, usable from any thread while this log appends.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Makes the log usable again after [`AppendError::Unknown`]. A group whose append failed is
    /// gone afterwards, or there as a whole; [`CommitLog::tail`] tells.
    fn reopen(&mut self) -> Result<(), ReadError>;

    /// Forgets mutations before `before`, as far as that is cheap; returns the first one kept.
    fn trim(&mut self, before: Lsn) -> Result<Lsn, ReadError>;

    /// Takes at most so many bytes of room at once from now on, as far as one record allows. For a
    /// log that takes none beforehand there is nothing to do.
    fn limit_room(&mut self, _bytes: u64) {}
}

/// Reads what a [`CommitLog`] made durable.
pub trait LogReader: Send + Sync {
    /// The position of the last durable mutation.
    fn tail(&self) -> Lsn;

    /// The first position that is still there.
    fn first(&self) -> Lsn;

    /// Groups from the one that holds `from` (or the next, where `from` was skipped), until about
    /// `max_bytes`; at least one group if there is any, none at the end of the log.
    fn read(&self, from: Lsn, max_bytes: usize) -> Result<Vec<CommittedGroup>, ReadError>;
}

/// Why a group was not appended, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else wrote: this writer is stale. Nothing was appended.
    #[error("the log is at {tail}, not at {expected}: another writer owns it")]
    Fenced { expected: Lsn, tail: Lsn },
    /// The group is larger than a record may be. Nothing was appended.
    #[error("a group of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// There was no room, and nothing was written.
    #[error("no room for a new log segment")]
    NoRoom(#[source] io::Error),
    /// The write or the sync failed: the group may or may not survive a crash.
    #[error("the log could not be written")]
    Unknown(#[source] io::Error),
    /// An earlier append failed; the log must be reopened first.
    #[error("the log stopped after an earlier error")]
    Stopped,
}

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position was trimmed away.
    #[error("position {from} is gone, the log begins at {first}")]
    Trimmed { from: Lsn, first: Lsn },
    /// Bytes that were written are not what is there now.
    #[error("damage in `{file}` at byte {offset}: {what}")]
    Damaged { file: String, offset: u64, what: &'static str },
    /// A file that must be there is not.
    #[error("log segment `{0}` is missing")]
    Missing(String),
    /// A newer program wrote this.
    #[error("`{file}` has format {found}, this program reads up to {supported}: use a newer release")]
    Newer { file: String, found: u32, supported: u32 },
    /// The disk failed.
    #[error("the log could not be read")]
    Io(#[from] io::Error),
}
