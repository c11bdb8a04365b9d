//! Stands between those who have something to record and the thread that writes it.
//!
//! Invariants: whoever notes something never waits, and is dropped and counted when the queue is full; whoever demands
//! an answer gets one, even if the thread ends.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_actors::model::time::Timestamp;
use tokio::sync::oneshot;

use super::Unwritten;
use super::record::Record;

/// How long notes gather before they are written, so that a busy process does not sync for each of them.
const GATHER: Duration = Duration::from_millis(100);
/// Notes that are written without waiting for more.
const ENOUGH: usize = 1_024;

/// A record and its time.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) record: Record,
}

/// Who waits for an answer: the number of the record.
pub(super) type Answer = oneshot::Sender<Result<u64, Unwritten>>;

/// Records that the thread took, in their order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<(Entry, Option<Answer>)>,
    /// Notes that did not fit, and that no record tells of yet.
    pub(super) dropped: u64,
    /// Nothing comes after this.
    pub(super) is_last: bool,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// Notes among them.
    notes: usize,
    /// Somebody waits.
    is_urgent: bool,
    dropped: u64,
}

impl Queue {
    /// At most this many notes wait.
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), most }
    }

    /// Adds a note, or counts it.
    pub(super) fn note(&self, entry: Entry) {
        let mut state = self.lock();
        if state.notes >= self.most || state.batch.is_last {
            state.dropped += 1;
            state.batch.dropped += 1;
            return;
        }
        let was_empty = state.batch.entries.is_empty();
        state.batch.entries.push((entry, None));
        state.notes += 1;
        let wakes = was_empty || state.notes == ENOUGH;
        drop(state);
        if wakes {
            self.ready.notify_one();
        }
    }

    /// Adds a record for which somebody waits.
    pub(super) fn demand(&self, entry: Entry, answer: Answer) -> Result<(), Unwritten> {
        let mut state = self.lock();
        if state.batch.is_last {
            return Err(Unwritten::Closed);
        }
        state.batch.entries.push((entry, Some(answer)));
        state.is_urgent = true;
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Nothing more is taken.
    pub(super) fn close(&self) {
        self.lock().batch.is_last = true;
        self.ready.notify_one();
    }

    /// Waits until there is something to write, or nothing more to come.
    pub(super) fn take(&self) -> Batch {
        let mut state = self.lock();
        let is_due = |state: &State| state.is_urgent || state.batch.is_last || state.notes >= ENOUGH;
        while !is_due(&state) && state.batch.entries.is_empty() {
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !is_due(&state) {
            let waited = self.ready.wait_timeout_while(state, GATHER, |state| !is_due(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_last = state.batch.is_last;
        state.notes = 0;
        state.is_urgent = false;
        std::mem::replace(&mut state.batch, Batch { is_last, ..Batch::default() })
    }

    /// Notes that the disk did not take either.
    pub(super) fn lost(&self, notes: u64, untold: u64) {
        let mut state = self.lock();
        state.dropped += notes;
        state.batch.dropped += notes + untold;
    }

    /// All that did not fit, ever.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Records that the thread has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.lock().batch.entries.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
