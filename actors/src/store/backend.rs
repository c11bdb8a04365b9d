//! redb's storage over a [`DiskFile`], so that the view meets the same faults as the log; and the
//! open database, which keeps redb's panics to itself.
//!
//! Invariant: after an error nothing more is written through the same handle. (After a failed sync
//! the kernel may call pages clean that never reached the disk. A checkpoint syncs twice, first the
//! pages and then the header that names them, so no header is ever trusted whose pages a sync
//! failed for; the handle is closed and the view opened again from the last good one.)

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, StorageBackend, StorageError};

use super::OpenError;
use crate::log::disk::DiskFile;

#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    /// Something was not written. redb would pass over some of these and go on.
    failed: AtomicBool,
}

impl Backend {
    /// Does one change of the file, unless one has failed before.
    fn change(&self, work: impl FnOnce(&dyn DiskFile) -> io::Result<()>) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write failed"));
        }
        work(&*self.file).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|file| file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| file.write_at(offset, data))
    }
}

/// A redb database in a file.
pub(super) struct Contained {
    database: Option<Database>,
}

impl Contained {
    /// Opens the database in `file`, or makes one if the file is empty.
    pub(super) fn open(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Self, OpenError> {
        let backend = Backend { file, failed: AtomicBool::new(false) };
        let open = || {
            let mut builder = Database::builder();
            builder.set_cache_size(cache_bytes);
            builder.create_with_backend(backend)
        };
        let database = catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| OpenError::Broken("the file's structure is damaged".into()))?
            .map_err(|error| OpenError::Broken(error.to_string()))?;
        Ok(Self { database: Some(database) })
    }

    /// The database.
    pub(super) fn get(&self) -> Result<&Database, StorageError> {
        self.database.as_ref().ok_or(StorageError::DatabaseClosed)
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close_without_writing(database);
        }
    }
}

/// Lets go of the database as a crash would: what matters is in the last checkpoint and in the
/// log, and a checkpoint opens again at once.
///
/// An ordinary close commits once more. On a damaged page that panics in the middle of redb's own
/// cleaning up, which ends the process; after an error it could only make things worse. redb
/// closes without a write while a panic unwinds, so this unwinds, without a panic's noise.
fn close_without_writing(database: Database) {
    let close = move || {
        let _closed_by_unwinding = database;
        resume_unwind(Box::new("closed"));
    };
    // The result says only that this unwound, as it must.
    catch_unwind(AssertUnwindSafe(close)).ok();
}
