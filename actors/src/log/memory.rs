//! A commit log in memory, with faults on demand: for simulations and for the suite that every
//! log must pass.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AppendError, CommitLog, LogReader, MAX_MUTATIONS, ReadError};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::Lsn;

/// Heaviest group that is taken, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// What goes wrong at one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the writer is told that it cannot know.
    LostBefore,
    /// The group is written, and the writer is told that it cannot know.
    LostAfter,
    /// Another writer appends first.
    Overtaken,
    /// There is no room.
    NoRoom,
}

#[derive(Debug, Default)]
struct State {
    groups: Vec<CommittedGroup>,
    last: Lsn,
    trimmed: Lsn,
    faults: Vec<(u64, Fault)>,
    appends: u64,
}

/// What survives of a [`MemoryLog`] when its process dies: the disk, as it were.
#[derive(Debug, Clone, Default)]
pub struct Storage(Arc<Mutex<State>>);

impl Storage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a fault for the `nth` append from now, counted from 1.
    pub fn plan(&self, nth: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.appends + nth;
        state.faults.push((at, fault));
    }

    /// Opens a writer on what is there.
    pub fn open(&self) -> MemoryLog {
        MemoryLog { storage: self.clone(), last: self.state().last, stopped: false }
    }
}

/// A writer on a [`Storage`].
#[derive(Debug)]
pub struct MemoryLog {
    storage: Storage,
    last: Lsn,
    stopped: bool,
}

impl MemoryLog {
    fn store(state: &mut State, mutations: &[Mutation]) -> Lsn {
        let first = state.last.next();
        state.groups.push(CommittedGroup { first, mutations: Arc::from(mutations) });
        state.last = state.last.plus(mutations.len() as u64);
        first
    }
}

impl CommitLog for MemoryLog {
    fn tail(&self) -> Lsn {
        self.last
    }

    fn append(&mut self, expect: Lsn, mutations: &[Mutation]) -> Result<Lsn, AppendError> {
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        let mut state = self.storage.state();
        if expect != state.last {
            return Err(AppendError::Fenced { expected: expect, tail: state.last });
        }
        let bytes = mutations.iter().map(Mutation::weight).sum();
        if mutations.len() > MAX_MUTATIONS || bytes > MAX_BYTES {
            return Err(AppendError::TooLarge { bytes, limit: MAX_BYTES });
        }
        if mutations.is_empty() {
            return Ok(expect.next());
        }
        state.appends += 1;
        let now = state.appends;
        let fault = state.faults.iter().find(|(at, _)| *at == now).map(|(_, fault)| *fault);
        match fault {
            Some(Fault::NoRoom) => return Err(AppendError::NoRoom(io::ErrorKind::StorageFull.into())),
            Some(Fault::Overtaken) => {
                Self::store(&mut state, mutations);
                return Err(AppendError::Fenced { expected: expect, tail: state.last });
            }
            Some(fault @ (Fault::LostBefore | Fault::LostAfter)) => {
                if fault == Fault::LostAfter {
                    Self::store(&mut state, mutations);
                } else {
                    // Its positions are not given to another group.
                    state.last = state.last.plus(mutations.len() as u64);
                }
                self.stopped = true;
                return Err(AppendError::Unknown(io::Error::other("injected")));
            }
            None => {}
        }
        let first = Self::store(&mut state, mutations);
        self.last = state.last;
        Ok(first)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.storage.clone())
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        *self = self.storage.open();
        Ok(())
    }

    fn trim(&mut self, before: Lsn) -> Result<Lsn, ReadError> {
        let mut state = self.storage.state();
        state.groups.retain(|group| group.last() >= before);
        let first = state.groups.first().map_or(state.last.next(), |group| group.first);
        state.trimmed = first.previous();
        Ok(first)
    }
}

impl LogReader for Storage {
    fn tail(&self) -> Lsn {
        self.state().last
    }

    fn first(&self) -> Lsn {
        self.state().trimmed.next()
    }

    fn read(&self, from: Lsn, max_bytes: usize) -> Result<Vec<CommittedGroup>, ReadError> {
        let state = self.state();
        if from <= state.trimmed {
            return Err(ReadError::Trimmed { from, first: state.trimmed.next() });
        }
        let mut budget = max_bytes.max(1);
        let mut groups = Vec::new();
        for group in state.groups.iter().filter(|group| group.last() >= from) {
            if budget == 0 {
                break;
            }
            budget = budget.saturating_sub(group.mutations.iter().map(Mutation::weight).sum());
            groups.push(group.clone());
        }
        Ok(groups)
    }
}
