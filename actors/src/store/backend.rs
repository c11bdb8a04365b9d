//! redb's storage over a [`DiskFile`], so that the view meets the same faults as the log; and the
//! open database, which keeps redb's panics to itself.
//!
//! Invariants: after an error nothing more is written through the same handle; and bytes whose
//! sync failed are written again, once it is closed, before anybody trusts them. (The kernel
//! may call such pages clean, so that a later sync would pass over them, and redb reads them back
//! from memory as if they were on disk.)

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, StorageBackend, StorageError};

use super::OpenError;
use super::buffer::{PAGE, WriteBuffer};
use crate::log::disk::{DiskFile, is_full};

const WINDOW: usize = 1 << 20;
/// Part of the cache that unsynced writes may take up beside it.
const WRITE_SHARE: usize = 4;

/// What went wrong with a file so far.
#[derive(Debug, Default)]
struct Trouble {
    /// Something was not written; redb would pass over some of these and go on.
    any: AtomicBool,
    /// A sync failed.
    sync: AtomicBool,
}

#[derive(Debug)]
struct Backend {
    file: WriteBuffer,
    trouble: Arc<Trouble>,
}

impl Backend {
    /// Does one change of the file, unless one has failed before.
    fn change(&self, work: impl FnOnce(&WriteBuffer) -> io::Result<()>) -> io::Result<()> {
        if self.trouble.any.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier write failed"));
        }
        work(&self.file).inspect_err(|_| self.trouble.any.store(true, Ordering::Release))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|file| file.sync(&self.trouble.sync))
    }

    /// The same before redb asks for it: what finds no room is kept, and redb does not hear of it.
    fn sync_early(&self) -> io::Result<()> {
        let mut kept = None;
        self.change(|file| match file.sync(&self.trouble.sync) {
            Err(error) if is_full(&error) && !self.trouble.sync.load(Ordering::Acquire) => {
                kept = Some(error);
                Ok(())
            }
            other => other,
        })?;
        kept.map_or(Ok(()), Err)
    }
}

/// The backend as redb owns it, beside the one that writes back ahead of a checkpoint.
#[derive(Debug)]
struct SharedBackend(Arc<Backend>);

impl StorageBackend for SharedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(|file| file.write(offset, data))
    }
}

/// A redb database in a file.
pub(super) struct Contained {
    database: Option<Database>,
    backend: Arc<Backend>,
    file: Arc<dyn DiskFile>,
    trouble: Arc<Trouble>,
}

impl Contained {
    /// Opens the database in `file`, or makes one if the file is empty.
    pub(super) fn open(file: Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Self, OpenError> {
        let trouble = Arc::new(Trouble::default());
        let buffer = WriteBuffer::new(file.clone(), cache_bytes / WRITE_SHARE);
        let backend = Arc::new(Backend { file: buffer, trouble: trouble.clone() });
        let shared = SharedBackend(backend.clone());
        // From here on the end of `this` looks after the file, even if it cannot be opened.
        let mut this = Self { database: None, backend, file, trouble };
        let open = || {
            let mut builder = Database::builder();
            builder.set_cache_size(cache_bytes);
            builder.create_with_backend(shared)
        };
        let database = catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| OpenError::Broken("the file's structure is damaged".into()))?
            .map_err(|error| OpenError::Broken(error.to_string()))?;
        this.database = Some(database);
        Ok(this)
    }

    /// The database.
    pub(super) fn get(&self) -> Result<&Database, StorageError> {
        self.database.as_ref().ok_or(StorageError::DatabaseClosed)
    }

    /// Writes and syncs what redb wrote so far.
    pub(super) fn write_back(&self) -> io::Result<()> {
        self.backend.sync_early()
    }

    /// Writes what redb wrote so far; false if there is no room for it.
    pub(super) fn write_out(&self) -> bool {
        !self.backend.file.flush().is_err_and(|error| is_full(&error))
    }

    fn write_again(&self) -> io::Result<()> {
        let len = self.file.len()?;
        let mut window = vec![0; WINDOW];
        let mut at = 0;
        while at < len {
            let take = usize::try_from((len - at).min(WINDOW as u64)).unwrap_or(0);
            let Some(bytes) = window.get_mut(..take) else { break };
            self.file.read_at(at, bytes)?;
            // Most of the zeros were never written: to write them would take room for nothing. A page that
            // redb refers to is not all zeros.
            for (i, page) in bytes.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0)) {
                self.file.write_at(at + (i * PAGE) as u64, page)?;
            }
            at += take as u64;
        }
        Ok(())
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close_without_writing(database);
        }
        if self.trouble.sync.load(Ordering::Acquire)
            && let Err(error) = self.write_again()
        {
            tracing::error!(%error, "the view could not be written again after a failed sync");
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
