//! Room that is kept back while there is some, for what must be written when there is none.
//!
//! Stands between a full disk and the writes that make it less full. Invariant: the reserve is given up only
//! when a write found no room, and that write is then tried again; nothing else is promised the same bytes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Disk, DiskFile, Space, is_full};

/// Name of the file that takes up the room.
const FILE: &str = "reserve.tmp";
/// The reserve is at most this part of the file system, so that a small one is not all reserve.
const PART: u64 = 32;
/// The reserve is made when there is so many times its room.
const TIMES: u64 = 2;
/// Bytes that are written in one call.
const WINDOW: usize = 1 << 20;

/// A file of zeros in the folder whose writes it secures.
#[derive(Debug)]
pub struct Reserve {
    disk: Arc<dyn Disk>,
    wanted: u64,
    /// Length of the file; 0 while there is none.
    held: AtomicU64,
    /// Held while the file is made or removed.
    turn: Mutex<()>,
}

impl Reserve {
    /// A reserve of `wanted` bytes, or a small part of a small disk, in this folder. Takes over a file that is
    /// there; [`hold`](Self::hold) makes one that is not. Of 0 bytes there is none, and that is all right.
    pub fn new(disk: Arc<dyn Disk>, wanted: u64) -> Arc<Self> {
        let reserve = Self { disk, wanted, held: AtomicU64::new(0), turn: Mutex::new(()) };
        let found = reserve.disk.open(FILE).and_then(|file| file.len()).unwrap_or(0);
        let size = reserve.size(reserve.space());
        // Another size was wanted before, or it was being made when the process ended.
        let usable = found <= size && found >= size / 2;
        if usable {
            reserve.held.store(found, Ordering::Release);
        } else if found > 0 {
            reserve.remove();
        }
        Arc::new(reserve)
    }

    /// How large it is to be in this file system.
    pub fn size(&self, space: Space) -> u64 {
        self.wanted.min(space.total / PART)
    }

    /// Room in the file system, the reserve not counted. Plenty where nobody can tell.
    pub fn space(&self) -> Space {
        self.disk.space().unwrap_or(Space::PLENTY)
    }

    /// Whether the room is kept back.
    pub fn is_held(&self) -> bool {
        self.wanted == 0 || self.held.load(Ordering::Acquire) > 0
    }

    /// Whether so much can be written, as far as anybody knows, or there is a reserve to try it with.
    pub fn covers(&self, bytes: u64) -> bool {
        self.held.load(Ordering::Acquire) > 0 || self.space().free >= bytes
    }

    /// Keeps the room back if there is enough; says whether it is.
    pub fn hold(&self) -> bool {
        if self.is_held() {
            return true;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let space = self.space();
        let size = self.size(space).max(1);
        if space.free < size.saturating_mul(TIMES) {
            return false;
        }
        match self.make(size) {
            Ok(()) => self.held.store(size, Ordering::Release),
            Err(error) => {
                tracing::warn!(%error, "no reserve of disk space");
                self.remove();
            }
        }
        self.is_held()
    }

    /// Gives the room back to the file system. False if there was nothing to give.
    pub fn release(&self) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.held.swap(0, Ordering::AcqRel);
        if bytes > 0 {
            tracing::warn!(bytes, "the disk is full: its reserve is used");
            self.remove();
        }
        bytes > 0
    }

    /// The same folder, whose writes use the reserve when they find no room.
    pub fn secure(self: &Arc<Self>) -> Arc<dyn Disk> {
        Arc::new(SecuredDisk(self.clone()))
    }

    fn make(&self, size: u64) -> io::Result<()> {
        let file = self.disk.create(FILE)?;
        let zeros = vec![0; WINDOW];
        let mut at = 0;
        while at < size {
            let take = usize::try_from((size - at).min(WINDOW as u64)).unwrap_or(0);
            file.write_at(at, zeros.get(..take).unwrap_or_default())?;
            at += take as u64;
        }
        Ok(())
    }

    fn remove(&self) {
        // It may not be there. Where it cannot be removed, the room stays taken until the next start.
        self.disk.remove(FILE).ok();
    }

    fn retry<R>(&self, work: impl Fn() -> io::Result<R>) -> io::Result<R> {
        match work() {
            Err(error) if is_full(&error) => {
                // Where there was nothing to give, it was given or being made this very moment.
                self.release();
                work()
            }
            other => other,
        }
    }
}

#[derive(Debug)]
struct SecuredDisk(Arc<Reserve>);

impl SecuredDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SecuredFile { file, reserve: self.0.clone() })
    }
}

impl Disk for SecuredDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.retry(|| self.0.disk.create(name)).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.disk.open(name).map(|file| self.file(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.disk.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.disk.sync_names()
    }

    fn space(&self) -> io::Result<Space> {
        self.0.disk.space()
    }
}

#[derive(Debug)]
struct SecuredFile {
    file: Arc<dyn DiskFile>,
    reserve: Arc<Reserve>,
}

impl DiskFile for SecuredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.reserve.retry(|| self.file.write_at(offset, bytes))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.reserve.retry(|| self.file.set_len(len))
    }

    /// A failed sync is never repeated; but whoever opens the file again shall find room.
    fn sync(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|error| {
            if is_full(error) {
                self.reserve.release();
            }
        })
    }
}
