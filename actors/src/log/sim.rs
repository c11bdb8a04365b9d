//! A disk in memory that can fail a call, lose power, or flip a bit.
//!
//! Power loss keeps what was synced; of every write since, each 512-byte sector is kept or lost
//! by a seeded chance, so a sector may also show an older one of several writes. Each change of a
//! file's name is kept or lost likewise; changes of one file's length are kept up to some point, as
//! file systems with a journal do. (The same rules hold for the view's file.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile, is_full};

const SECTOR: usize = 512;

/// Which kind of call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A write or a change of length.
    Write,
    /// A sync of a file.
    Sync,
    /// Making a file.
    Create,
    /// A sync of the folder.
    Names,
}

/// One change of a file since its last sync.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Arc<[u8]>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, new) => write(bytes, *offset, new),
            Self::Length(len) => bytes.resize(*len, 0),
        }
    }

    /// What power loss may leave of a write.
    fn apply_by_chance(&self, bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        let Self::Write(offset, new) = self else { return };
        let end = offset + new.len();
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            let (from, to) = (from.max(*offset), to.min(end));
            if let (true, Some(part)) = (rng.bool(), new.get(from - offset..to - offset)) {
                write(bytes, from, part);
            }
        }
    }

    /// Length of a file of `len` bytes after the change.
    fn length(&self, len: usize) -> usize {
        match self {
            Self::Write(offset, new) => len.max(offset + new.len()),
            Self::Length(len) => *len,
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(new);
    }
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Content {
    fn durable(bytes: Vec<u8>) -> Self {
        Self { now: bytes.clone(), durable: bytes, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }

    fn after_power_loss(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        // 0: nothing survives, 1: everything, 2: each sector by chance.
        match rng.u8(0..3) {
            0 => self.durable.clone(),
            1 => {
                let mut bytes = self.durable.clone();
                self.unsynced.iter().for_each(|change| change.apply(&mut bytes));
                bytes
            }
            _ => {
                // File systems keep the order of lengths, but not of what is written.
                let lengths = rng.usize(0..=self.unsynced.len());
                let known = self.unsynced.iter().take(lengths);
                let length = known.fold(self.durable.len(), |len, change| change.length(len));
                let mut bytes = self.durable.clone();
                for (i, change) in self.unsynced.iter().enumerate() {
                    match change {
                        Change::Length(len) if i < lengths => bytes.resize(*len, 0),
                        Change::Length(_) => {}
                        Change::Write(..) => change.apply_by_chance(&mut bytes, rng),
                    }
                }
                bytes.resize(length, 0);
                bytes
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    call: Call,
    at: u64,
    kind: io::ErrorKind,
    lasting: bool,
}

#[derive(Debug, Clone, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    calls: BTreeMap<u8, u64>,
    fault: Option<Fault>,
    synced_again: u64,
    lie: bool,
}

impl State {
    fn count(&self, call: Call) -> u64 {
        self.calls.get(&(call as u8)).copied().unwrap_or(0)
    }
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

    /// Makes the `nth` call of a kind (counted from now, from 1) fail once. Half of a failing
    /// write is written, and some of what a failing sync was to make durable is.
    pub fn fail(&self, call: Call, nth: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.count(call) + nth;
        state.fault = Some(Fault { call, at, kind, lasting: false });
    }

    /// Makes every call of a kind fail from now on, until [`SimDisk::heal`].
    pub fn break_down(&self, call: Call, kind: io::ErrorKind) {
        let mut state = self.state();
        let at = state.count(call) + 1;
        state.fault = Some(Fault { call, at, kind, lasting: true });
    }

    /// Takes back what [`SimDisk::fail`] and [`SimDisk::break_down`] planned.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Whether a planned fault has not come up yet, or lasts.
    pub fn fault_pending(&self) -> bool {
        self.state().fault.is_some()
    }

    /// How many calls of a kind there were, failed ones too.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().count(call)
    }

    /// How often a handle was synced after a write or sync through it had failed. The kernel may
    /// have dropped what was to be written, so such a sync promises nothing.
    pub fn synced_again(&self) -> u64 {
        self.state().synced_again
    }

    /// Makes syncs do nothing while saying that they did: the mutant that tests must catch.
    pub fn lie_about_syncs(&self) {
        self.state().lie = true;
    }

    /// The disk as a machine might find it after losing power now.
    pub fn lose_power(&self, rng: &mut fastrand::Rng) -> Self {
        let state = self.state();
        let bytes = state.files.iter().map(|content| content.after_power_loss(rng));
        let files = bytes.map(Content::durable).collect();
        let mut names = state.durable_names.clone();
        let changed: BTreeSet<&String> = state.names.keys().chain(state.durable_names.keys()).collect();
        for name in changed {
            match (state.names.get(name), state.durable_names.get(name)) {
                (now, durable) if now == durable => {}
                (Some(file), _) if rng.bool() => {
                    names.insert(name.clone(), *file);
                }
                (None, _) if rng.bool() => {
                    names.remove(name);
                }
                (Some(_) | None, _) => {}
            }
        }
        let after = State { files, names: names.clone(), durable_names: names, ..State::default() };
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
            *content = Content::durable(bytes);
        }
    }

    /// Counts a call; the error that was planned for it, if any.
    fn call(&self, call: Call) -> (MutexGuard<'_, State>, io::Result<()>) {
        let mut state = self.state();
        let count = state.calls.entry(call as u8).or_insert(0);
        *count += 1;
        let now = *count;
        let Some(fault) = state.fault else { return (state, Ok(())) };
        if fault.call != call || now < fault.at {
            return (state, Ok(()));
        }
        if !fault.lasting {
            state.fault = None;
        }
        (state, Err(fault.kind.into()))
    }

    fn file(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), number, failed: AtomicBool::new(false) })
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let (mut state, planned) = self.call(Call::Create);
        planned?;
        let number = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), number);
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(number))
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
        let (mut state, planned) = self.call(Call::Names);
        planned?;
        if !state.lie {
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}

/// One handle on a file; several may share the file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: usize,
    failed: AtomicBool,
}

impl SimFile {
    fn with<R>(&self, state: &mut State, work: impl FnOnce(&mut Content) -> R) -> io::Result<R> {
        state.files.get_mut(self.number).map(work).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let (mut state, planned) = self.disk.call(Call::Write);
        if let Err(error) = planned {
            // What found no room can be written again: nothing was lost that was written before.
            self.failed.fetch_or(!is_full(&error), Ordering::Relaxed);
            if let Change::Write(offset, bytes) = &change {
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                self.with(&mut state, |content| content.change(Change::Write(*offset, half.into())))?;
            }
            return Err(error);
        }
        self.with(&mut state, |content| content.change(change))
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(&mut self.disk.state(), |content| content.now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.with(&mut self.disk.state(), |content| {
            let end = offset.saturating_add(out.len());
            let bytes = content.now.get(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })?
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(Change::Write(offset, bytes.into()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(Change::Length(len))
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, planned) = self.disk.call(Call::Sync);
        if self.failed.load(Ordering::Relaxed) {
            state.synced_again += 1;
        }
        if let Err(error) = planned {
            self.failed.store(true, Ordering::Relaxed);
            // The kernel marks the pages clean all the same: what was not written never is.
            let mut rng = fastrand::Rng::with_seed(state.count(Call::Sync));
            self.with(&mut state, |content| {
                content.durable = content.after_power_loss(&mut rng);
                content.unsynced.clear();
            })?;
            return Err(error);
        }
        if state.lie {
            return Ok(());
        }
        self.with(&mut state, |content| {
            for change in std::mem::take(&mut content.unsynced) {
                change.apply(&mut content.durable);
            }
        })
    }
}
