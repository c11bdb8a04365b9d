//! The view of a shard: the state that its log adds up to, in a redb file.
//!
//! Stands between the log, whose groups it applies, and readers, who get short snapshots.
//! Invariant: the view holds exactly the mutations up to its applied LSN, and no bytes leave it
//! whose checksum does not hold.

mod apply;
mod backend;
mod buffer;
mod envelope;
pub mod export;
pub mod superblock;
mod view;

pub use apply::Extent;
pub(crate) use view::FILE as VIEW_FILE;
pub use view::{EntryPage, KeyedDocument, Page, Row, StoredDocument, Version, View};

use crate::model::ids::Lsn;

/// Why the view cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is not there, or is not a view.
    #[error("the view `{0}` is missing or not a view: restore it from a backup")]
    NotAView(String),
    /// A newer program wrote it.
    #[error("the view has format {found}, this program reads up to {supported}: use a newer release")]
    Newer { found: u32, supported: u32 },
    /// The disk or the file's structure failed.
    #[error("the view could not be opened: {0}")]
    Broken(String),
}

/// Why the view could not take a group or a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk failed, or an earlier error stopped the file; it must be opened again.
    #[error("the view could not be written: {0}")]
    Broken(String),
    /// A group that does not follow what was applied.
    #[error("group at {group} does not follow the applied position {applied}")]
    OutOfOrder { group: Lsn, applied: Lsn },
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewReadError {
    /// What is stored does not match its checksum, or the file's structure is damaged.
    #[error("stored data is damaged")]
    Corrupt,
    /// A newer program wrote this value.
    #[error("stored data has a newer format")]
    Newer,
    /// The disk failed.
    #[error("the view could not be read: {0}")]
    Disk(String),
}
