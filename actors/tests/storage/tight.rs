//! A disk in memory that has only so much room, and counts it in pages that were written, as file systems do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use lanekeeper_actors::log::disk::{Disk, DiskFile, Space};
use lanekeeper_actors::log::sim::SimDisk;

const PAGE: u64 = 4_096;

/// Files by number, and the pages that each has.
#[derive(Debug, Default)]
struct Room {
    total: u64,
    /// Pages that somebody else has.
    taken: u64,
    pages: BTreeMap<u64, BTreeSet<u64>>,
    names: BTreeMap<(u8, String), u64>,
    made: u64,
    /// Whether the file system says how much room it has.
    silent: bool,
}

impl Room {
    fn free(&self) -> u64 {
        let used = self.pages.values().map(|pages| pages.len() as u64).sum::<u64>() + self.taken;
        self.total.saturating_sub(used)
    }
}

/// One folder of the disk. Folders of one disk share its room.
#[derive(Debug, Clone)]
pub(crate) struct TightDisk {
    inner: SimDisk,
    folder: u8,
    room: Arc<Mutex<Room>>,
}

impl TightDisk {
    /// Two folders on an empty disk.
    pub(crate) fn pair(bytes: u64) -> [Self; 2] {
        let room = Arc::new(Mutex::new(Room { total: bytes / PAGE, ..Room::default() }));
        [0, 1].map(|folder| Self { inner: SimDisk::new(), folder, room: room.clone() })
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap()
    }

    /// Lets somebody else take all the room that there is.
    pub(crate) fn clog(&self) {
        let mut room = self.room();
        room.taken += room.free();
    }

    /// Takes it back.
    pub(crate) fn unclog(&self) {
        self.room().taken = 0;
    }

    /// From now on nobody is told how much room there is.
    pub(crate) fn fall_silent(&self) {
        self.room().silent = true;
    }

    /// Gives the disk another size.
    pub(crate) fn resize(&self, bytes: u64) {
        self.room().total = bytes / PAGE;
    }

    /// Length of a file that is there.
    pub(crate) fn length(&self, name: &str) -> Option<u64> {
        self.inner.open(name).and_then(|file| file.len()).ok()
    }

    fn file(&self, number: u64, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TightFile { number, file, disk: self.clone() })
    }
}

impl Disk for TightDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.inner.create(name)?;
        let mut room = self.room();
        room.made += 1;
        let number = room.made;
        let before = room.names.insert((self.folder, name.to_owned()), number);
        before.and_then(|before| room.pages.remove(&before));
        Ok(self.file(number, file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.inner.open(name)?;
        let number = self.room().names[&(self.folder, name.to_owned())];
        Ok(self.file(number, file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut room = self.room();
        let number = room.names.remove(&(self.folder, from.to_owned())).unwrap();
        let before = room.names.insert((self.folder, to.to_owned()), number);
        before.and_then(|before| room.pages.remove(&before));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)?;
        let mut room = self.room();
        let number = room.names.remove(&(self.folder, name.to_owned())).unwrap();
        room.pages.remove(&number);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn space(&self) -> io::Result<Space> {
        let room = self.room();
        if room.silent {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Space { free: room.free() * PAGE, total: room.total * PAGE })
    }
}

#[derive(Debug)]
struct TightFile {
    number: u64,
    file: Arc<dyn DiskFile>,
    disk: TightDisk,
}

impl DiskFile for TightFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    /// Writes as many pages as there is room for.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut room = self.disk.room();
        let end = offset + bytes.len() as u64;
        let mut free = room.free();
        let pages = room.pages.entry(self.number).or_default();
        let mut reached = offset;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            if !pages.contains(&page) {
                if free == 0 {
                    break;
                }
                free -= 1;
                pages.insert(page);
            }
            reached = end.min((page + 1) * PAGE);
        }
        drop(room);
        let fits = usize::try_from(reached - offset).unwrap();
        self.file.write_at(offset, &bytes[..fits])?;
        if reached < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.room().pages.entry(self.number).or_default().retain(|page| page * PAGE < len);
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
