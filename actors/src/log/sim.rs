//! A disk in memory that can fail a call, lose power, or flip a bit.
//!
//! Power loss keeps what was synced; of everything since, each 512-byte sector is kept or lost
//! by a seeded chance, and each file name likewise. (The same rules hold for the view's file.)

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Which kind of call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Write,
    Sync,
    Create,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Ranges written since the last sync.
    dirty: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    calls: BTreeMap<u8, u64>,
    fault: Option<(Call, u64, io::ErrorKind)>,
    lie: bool,
}

/// The simulated disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `nth` call of a kind (counted from now, from 1) fail once.
    pub fn fail(&self, call: Call, nth: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.calls.get(&(call as u8)).copied().unwrap_or(0) + nth;
        state.fault = Some((call, at, kind));
    }

    /// Whether a planned fault has not come up yet.
    pub fn fault_pending(&self) -> bool {
        self.state().fault.is_some()
    }

    /// Makes syncs do nothing while saying that they did: the mutant that tests must catch.
    pub fn lie_about_syncs(&self) {
        self.state().lie = true;
    }

    /// The disk as a machine might find it after losing power now.
    pub fn lose_power(&self, rng: &mut fastrand::Rng) -> Self {
        let state = self.state();
        let mut after = State::default();
        for content in &state.files {
            let mut bytes = content.durable.clone();
            // A grown length may or may not have reached the disk.
            if content.now.len() > bytes.len() && rng.bool() {
                bytes.resize(content.now.len(), 0);
            }
            // 0: nothing survives, 1: everything, 2: each sector by chance.
            let mode = rng.u8(0..3);
            for &(start, end) in &content.dirty {
                for sector in start / SECTOR..end.div_ceil(SECTOR) {
                    let (from, to) = (start.max(sector * SECTOR), end.min((sector + 1) * SECTOR));
                    let kept = mode == 1 || mode == 2 && rng.bool();
                    if let (true, Some(new)) = (kept, content.now.get(from..to)) {
                        if bytes.len() < to {
                            bytes.resize(to, 0);
                        }
                        if let Some(place) = bytes.get_mut(from..to) {
                            place.copy_from_slice(new);
                        }
                    }
                }
            }
            after.files.push(Content { now: bytes.clone(), durable: bytes, dirty: Vec::new() });
        }
        after.names = state.durable_names.clone();
        for (name, file) in &state.names {
            if state.durable_names.get(name) != Some(file) && rng.bool() {
                after.names.insert(name.clone(), *file);
            }
        }
        after.durable_names = after.names.clone();
        Self(Arc::new(Mutex::new(after)))
    }

    /// The disk as a new process finds it after this one was killed: nothing is lost.
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.fault = None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).and_then(|file| state.files.get(*file)).map(|content| content.now.clone())
    }

    /// Replaces the bytes of a file, as damage would.
    pub fn overwrite(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        if let Some(file) = state.names.get(name).copied()
            && let Some(content) = state.files.get_mut(file)
        {
            *content = Content { now: bytes.clone(), durable: bytes, dirty: Vec::new() };
        }
    }

    fn call(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let count = state.calls.entry(call as u8).or_insert(0);
        *count += 1;
        let now = *count;
        match state.fault {
            Some((planned, at, kind)) if planned == call && at == now => {
                state.fault = None;
                Err(kind.into())
            }
            Some(_) | None => Ok(state),
        }
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.call(Call::Create)?;
        let number = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), number);
        Ok(Arc::new(SimFile { disk: self.clone(), number }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), number }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if !state.lie {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: usize,
}

impl SimFile {
    fn with<R>(state: &mut State, number: usize, work: impl FnOnce(&mut Content) -> R) -> io::Result<R> {
        state.files.get_mut(number).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Self::with(&mut self.disk.state(), self.number, |content| content.now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Self::with(&mut self.disk.state(), self.number, |content| {
            let bytes = content.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })?
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Self::with(&mut *self.disk.call(Call::Write)?, self.number, |content| {
            let end = offset + bytes.len();
            if content.now.len() < end {
                content.now.resize(end, 0);
            }
            if let Some(place) = content.now.get_mut(offset..end) {
                place.copy_from_slice(bytes);
            }
            content.dirty.push((offset, end));
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Self::with(&mut *self.disk.call(Call::Write)?, self.number, |content| {
            content.now.resize(len, 0);
            content.dirty.retain(|(start, _)| *start < len);
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = match self.disk.call(Call::Sync) {
            Ok(state) => state,
            Err(error) => {
                // The kernel marks the pages clean all the same: they are never written.
                Self::with(&mut self.disk.state(), self.number, |content| content.dirty.clear())?;
                return Err(error);
            }
        };
        if state.lie {
            return Ok(());
        }
        Self::with(&mut state, self.number, |content| {
            content.durable.resize(content.now.len(), 0);
            for (start, end) in std::mem::take(&mut content.dirty) {
                let end = end.min(content.now.len());
                if let (Some(place), Some(new)) =
                    (content.durable.get_mut(start..end), content.now.get(start..end))
                {
                    place.copy_from_slice(new);
                }
            }
        })
    }
}
