//! Writes of the view's file, held in memory until they are synced.
//!
//! Between two checkpoints redb writes many pages that the next transaction frees again; nothing
//! of it need reach the disk, because a crash goes back to the last checkpoint and the log. So
//! writes are kept here by page, later ones replace earlier ones, and a sync (or a full buffer)
//! writes what is left in long runs.
//! Invariant: a read sees every write before it; nothing is called durable that is only here. What finds no
//! room on the disk stays here, and nothing else is the worse for it, until it has some.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::log::disk::{DiskFile, is_full};

/// redb's page size, which its writes are multiples of.
pub(super) const PAGE: usize = 4_096;
/// Longest single write, in bytes.
const RUN: usize = 1 << 20;

type Pages = HashMap<u64, Box<[u8]>>;

#[derive(Debug, Default)]
struct State {
    /// Pages written since the last flush began.
    fresh: Pages,
    /// Pages that a flush is writing; readable until it is done.
    leaving: Arc<Pages>,
    /// How many flushes have ended.
    flushes: u64,
    /// Memory of pages that left, for the next ones: new memory costs a fault for each page.
    spare: Vec<Box<[u8]>>,
}

#[derive(Debug)]
pub(super) struct WriteBuffer {
    file: Arc<dyn DiskFile>,
    limit: usize,
    /// Pages with which the buffer is full: `limit`, or more after the disk had no room for them.
    full_at: AtomicUsize,
    state: RwLock<State>,
    /// Held while pages are on their way to the disk, until their sync has returned: nobody must
    /// overtake them, since the kernel reports a lost page to one caller only. True once something
    /// failed; then nothing is called durable any more.
    failed: Mutex<bool>,
}

impl WriteBuffer {
    /// A buffer of at most about `limit` bytes before `file`.
    pub(super) fn new(file: Arc<dyn DiskFile>, limit: usize) -> Self {
        let limit = (limit / PAGE).max(1);
        let (state, failed, full_at) = (RwLock::default(), Mutex::default(), AtomicUsize::new(limit));
        Self { file, limit, full_at, state, failed }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        {
            let state = self.state();
            let covered = pieces(offset, out.len()).all(|piece| state.page(piece.page).is_some());
            if covered {
                overlay(&state, offset, out);
                return Ok(());
            }
        }
        // A flush that ended meanwhile may have put pages into the file after they were read there.
        loop {
            let before = self.state().flushes;
            self.file.read_at(offset, out)?;
            let state = self.state();
            if state.flushes == before {
                overlay(&state, offset, out);
                return Ok(());
            }
        }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let full = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for piece in pieces(offset, data.len()) {
                let Some(bytes) = data.get(piece.data.clone()) else { continue };
                if bytes.len() == PAGE {
                    state.put(piece.page, bytes);
                    continue;
                }
                if !state.fresh.contains_key(&piece.page) {
                    let whole = self.whole_page(&state, piece.page)?;
                    state.fresh.insert(piece.page, whole);
                }
                let place = state.fresh.get_mut(&piece.page).and_then(|page| page.get_mut(piece.within));
                if let Some(place) = place {
                    place.copy_from_slice(bytes);
                }
            }
            state.fresh.len() >= self.full_at.load(Ordering::Relaxed)
        };
        if full { self.write_out() } else { Ok(()) }
    }

    /// Writes what is held, if there is room for it.
    fn write_out(&self) -> io::Result<()> {
        match self.flush() {
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        }
    }

    /// Writes what is held, without making it durable.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.to_disk(&mut self.failed(), None)
    }

    /// A page that is about to be changed in part.
    fn whole_page(&self, state: &State, page: u64) -> io::Result<Box<[u8]>> {
        if let Some(leaving) = state.leaving.get(&page) {
            return Ok(leaving.clone());
        }
        let mut bytes = vec![0; PAGE];
        let start = page * PAGE as u64;
        let there = usize::try_from(self.file.len()?.saturating_sub(start)).unwrap_or(PAGE).min(PAGE);
        if let Some(bytes) = bytes.get_mut(..there) {
            self.file.read_at(start, bytes)?;
        }
        Ok(bytes.into())
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let pages = len.div_ceil(PAGE as u64);
        // A flush must not write behind the new end: redb refuses a file of an odd length.
        let _no_flush = self.failed();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.fresh.retain(|page, _| *page < pages);
        self.file.set_len(len)
    }

    /// Writes and syncs everything. `lost` is set if it was the sync that failed: then nobody knows what of all
    /// that was written is there.
    pub(super) fn sync(&self, lost: &AtomicBool) -> io::Result<()> {
        self.to_disk(&mut self.failed(), Some(lost))
    }

    fn failed(&self) -> MutexGuard<'_, bool> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_disk(&self, failed: &mut bool, sync: Option<&AtomicBool>) -> io::Result<()> {
        if *failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        let written = self.move_out();
        if written.as_ref().is_err_and(is_full) {
            return written;
        }
        let done = written.and_then(|()| match sync {
            Some(lost) => self.file.sync().inspect_err(|_| lost.store(true, Ordering::Release)),
            None => Ok(()),
        });
        *failed = done.is_err();
        done
    }

    /// Writes everything that is held, and holds it no longer; after an error, all of it still.
    fn move_out(&self) -> io::Result<()> {
        let leaving = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.leaving = Arc::new(std::mem::take(&mut state.fresh));
            state.leaving.clone()
        };
        let written = self.write_pages(&leaving);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.leaving = Arc::default();
        state.flushes += 1;
        let pages = Arc::try_unwrap(leaving).unwrap_or_else(|shared| (*shared).clone());
        if written.is_err() {
            for (page, bytes) in pages {
                // What was written meanwhile is newer.
                state.fresh.entry(page).or_insert(bytes);
            }
            self.full_at.store(state.fresh.len() + self.limit, Ordering::Relaxed);
            return written;
        }
        self.full_at.store(self.limit, Ordering::Relaxed);
        let room = (self.limit / 4).saturating_sub(state.spare.len());
        state.spare.extend(pages.into_values().take(room));
        Ok(())
    }

    fn write_pages(&self, leaving: &Pages) -> io::Result<()> {
        let mut pages: Vec<(&u64, &Box<[u8]>)> = leaving.iter().collect();
        pages.sort_unstable_by_key(|(page, _)| **page);
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (page, bytes) in pages {
            let next = start + run.len() as u64;
            let offset = page * PAGE as u64;
            if !run.is_empty() && (offset != next || run.len() >= RUN) {
                self.file.write_at(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = offset;
            }
            run.extend_from_slice(bytes);
        }
        if !run.is_empty() {
            // The last page of the file may be held whole although the file ends within it.
            let end = usize::try_from(self.file.len()?.saturating_sub(start)).unwrap_or(run.len());
            self.file.write_at(start, run.get(..end.min(run.len())).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl State {
    fn put(&mut self, page: u64, bytes: &[u8]) {
        if let Some(held) = self.fresh.get_mut(&page) {
            held.copy_from_slice(bytes);
        } else if let Some(mut spare) = self.spare.pop() {
            spare.copy_from_slice(bytes);
            self.fresh.insert(page, spare);
        } else {
            self.fresh.insert(page, bytes.into());
        }
    }

    fn page(&self, page: u64) -> Option<&[u8]> {
        self.fresh.get(&page).or_else(|| self.leaving.get(&page)).map(AsRef::as_ref)
    }
}

/// The part of a read or write that falls into one page.
struct Piece {
    page: u64,
    /// Where in the page.
    within: std::ops::Range<usize>,
    /// Where in the caller's bytes.
    data: std::ops::Range<usize>,
}

fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let take = (PAGE - start).min(len - done);
        let piece = Piece { page: at / PAGE as u64, within: start..start + take, data: done..done + take };
        done += take;
        Some(piece)
    })
}

fn overlay(state: &State, offset: u64, out: &mut [u8]) {
    for piece in pieces(offset, out.len()) {
        let held = state.page(piece.page).and_then(|page| page.get(piece.within));
        if let (Some(held), Some(place)) = (held, out.get_mut(piece.data)) {
            place.copy_from_slice(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::disk::Disk;
    use crate::log::sim::SimDisk;

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize, Vec<u8>),
        Read(usize, usize),
        Sync,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = (1usize..3 * PAGE, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
        let write = (0usize..8, prop_oneof![Just(0usize), 0..PAGE], bytes);
        prop_oneof![
            write.prop_map(|(page, within, bytes)| Step::Write(page * PAGE + within, bytes)),
            (0usize..10 * PAGE, 1usize..2 * PAGE).prop_map(|(at, len)| Step::Read(at, len)),
            Just(Step::Sync),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_read_sees_every_write_before_it(steps in proptest::collection::vec(step(), 1..40)) {
            const LEN: usize = 12 * PAGE + 100;
            let disk = SimDisk::new();
            let file = disk.create("view").unwrap();
            file.set_len(LEN as u64).unwrap();
            let buffer = WriteBuffer::new(file.clone(), 3 * PAGE);
            let mut model = vec![0; LEN];
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        buffer.write(at as u64, &bytes).unwrap();
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                    Step::Read(at, len) => {
                        let mut out = vec![0; len];
                        buffer.read(at as u64, &mut out).unwrap();
                        prop_assert_eq!(&out, &model[at..at + len]);
                    }
                    Step::Sync => {
                        buffer.sync(&AtomicBool::new(false)).unwrap();
                        prop_assert_eq!(disk.bytes("view").unwrap(), model.clone());
                    }
                }
            }
        }
    }
}
