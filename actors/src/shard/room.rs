//! What a shard writes when there is hardly any room on its disk, and what it refuses.
//!
//! Stands between the writer and a disk that fills up. Invariants: a batch that takes more room is taken only
//! while the view can still bring in everything that is in the log, and the reserve is left for what makes room
//! (deletes), for what follows from deliveries, and for checkpoints; and the way back needs nobody.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::applier::Job;
use super::writer::{Group, Writer};
use super::{CommitError, Load, Phase};
use crate::log::disk::is_full;
use crate::log::reserve::Reserve;
use crate::model::change::{Mutation, Table};

/// Time between two looks for room while the disk is full.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Bytes of pages that the view copies for one mutation until the next checkpoint lets go of the old ones: that
/// of the document, that of its place in the order, that of an index.
const COPIED: u64 = 3 * 4_096;
/// How often a body stands in the view's file, the gaps of its pages counted.
const STORED: u64 = 2;
/// Part of the room that may be taken before somebody looks again, and never more than the reserve has: others
/// fill the disk too.
const CREDIT_PART: u64 = 16;
/// Part of the room that a new segment of the log may take beforehand.
const SEGMENT_PART: u64 = 4;
/// Length of a segment when there is hardly any room.
const SEGMENT_LEAST: u64 = 64 << 10;
/// Room for the log below which nothing grows, whatever room there is inside of the view's file.
const LOG_LEAST: u64 = 2 * SEGMENT_LEAST;

/// What the writer knows of the room on its disk.
#[derive(Debug)]
pub(super) struct Room {
    reserve: Arc<Reserve>,
    /// Shards that take room from the same disk.
    shares: u64,
    /// Room that may be taken without looking.
    credit: u64,
    /// Whether batches that take more room are refused.
    full: bool,
    /// What the last group that was refused would have needed.
    refused: u64,
    /// When a checkpoint may be asked for again to find room for growth.
    look_at: Duration,
}

impl Room {
    pub(super) fn new(reserve: Arc<Reserve>, shares: u16) -> Self {
        let shares = u64::from(shares.max(1));
        Self { reserve, shares, credit: 0, full: false, refused: 0, look_at: Duration::ZERO }
    }

    /// A write met this error: if there was no room, it gets that of the reserve.
    pub(super) fn met(&self, error: &io::Error) {
        if is_full(error) {
            self.reserve.release();
        }
    }

    fn take(&mut self, need: u64) -> bool {
        let enough = self.reserve.is_held() && need <= self.credit;
        if enough {
            self.credit -= need;
        }
        enough
    }
}

/// Room that the view's file may need for a load until the next checkpoint.
pub(super) fn need(load: Load) -> u64 {
    (load.bytes as u64).saturating_mul(STORED).saturating_add((load.mutations as u64).saturating_mul(COPIED))
}

/// Whether a mutation takes more room for good. Rows of deliveries and of the system do not count: what happened
/// must be noted, and they are few and small.
fn grows(mutation: &Mutation) -> bool {
    match mutation.change() {
        Some(change) => !change.kind.is_removal(),
        None => {
            let derived = |table: &Table| {
                matches!(table, Table::Idempotency | Table::Unique | Table::Index | Table::Expiry)
            };
            matches!(mutation, Mutation::Put { table, .. } if derived(table))
        }
    }
}

/// The same for a batch, which is written as a whole or not at all.
pub(super) fn any_grows(mutations: &[Mutation]) -> bool {
    mutations.iter().any(grows)
}

impl Writer {
    /// What of a group may be written; the rest is told that there is no room.
    pub(super) fn admit(&mut self, group: Group) -> Option<Group> {
        let need = need(group.load());
        if self.room.take(need) {
            return Some(group);
        }
        let grows = any_grows(group.mutations());
        // What does not grow is not refused: it has paused for a checkpoint if there was one to make.
        if self.find_room(need, grows) || !grows {
            return Some(group);
        }
        self.room.refused = need;
        self.without_growth(group)
    }

    /// Refuses the batches of a group that grow, and those to come. `None` when nothing is left.
    pub(super) fn without_growth(&mut self, group: Group) -> Option<Group> {
        self.close_up();
        let mut rest = Group::default();
        for (mutations, reply) in group.into_batches() {
            if any_grows(&mutations) {
                // Whoever asked may be gone; there is nobody else to tell.
                reply.send(Err(CommitError::NoRoom)).ok();
            } else {
                rest.push(mutations, reply);
            }
        }
        (!rest.is_empty()).then_some(rest)
    }

    pub(super) fn is_full(&self) -> bool {
        self.room.full
    }

    /// Looks whether there is room again, or at the start whether there is any.
    pub(super) fn look(&mut self) {
        if !self.find_room(0, true) {
            self.close_up();
        }
    }

    /// Whether there is room for so much that is to stay, or to work with; makes some if it can.
    fn find_room(&mut self, need: u64, grows: bool) -> bool {
        // A view that found no room comes first: what it waits for was acknowledged.
        if self.shared.view_down.load(Ordering::Acquire) {
            return false;
        }
        // Log that nobody needs any more is trimmed behind an append; on a full disk there may be none.
        self.trim();
        if self.fits(need, grows) {
            return true;
        }
        let unsaved = self.shared.unsaved.load(Ordering::Acquire) > 0;
        let now = self.clock.elapsed();
        let often = self.room.full && grows && now < self.room.look_at;
        if !unsaved || often {
            return false;
        }
        self.room.look_at = now + LOOK;
        // The pages that a checkpoint lets go of are the room for what comes next.
        if !self.checkpoint() {
            return false;
        }
        self.trim();
        self.fits(need, grows)
    }

    /// Has everything made durable that the applier was given; false if the view finds no room for it.
    fn checkpoint(&self) -> bool {
        let (done, wait) = sync_channel(1);
        if self.jobs.send(Job::Checkpoint).and_then(|()| self.jobs.send(Job::Barrier { done })).is_err() {
            return false;
        }
        while wait.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.shared.view_down.load(Ordering::Acquire) {
                return false;
            }
        }
        true
    }

    fn fits(&mut self, need: u64, grows: bool) -> bool {
        let held = self.room.reserve.hold();
        let taken = self.shared.unsaved.load(Ordering::Acquire).saturating_add(need);
        let slack = self.shared.view.load().as_ref().map_or(0, |view| view.slack());
        let space = self.room.reserve.space();
        let (free, size) = (space.free / self.room.shares, self.room.reserve.size(space));
        let Some(left) = free.saturating_add(slack).checked_sub(taken) else { return false };
        // More for the way back, or it would open and close with every document that comes and goes.
        let twice = size.saturating_mul(2);
        let margin = if self.room.full { twice + self.room.refused.min(twice) } else { size };
        if let (true, Some(spare)) = (held && free >= LOG_LEAST, left.checked_sub(margin)) {
            self.log.limit_room((free / SEGMENT_PART).max(SEGMENT_LEAST));
            self.room.credit = size.min(spare / CREDIT_PART);
            self.open_up();
            return true;
        }
        !grows
    }

    /// There is room for more.
    fn open_up(&mut self) {
        if self.room.full {
            self.room.full = false;
            self.room.refused = 0;
            self.shared.no_growth.store(false, Ordering::Release);
            self.shared.enter(Phase::Open);
        }
    }

    /// There is no room for more.
    fn close_up(&mut self) {
        self.log.limit_room(SEGMENT_LEAST);
        self.room.credit = 0;
        if !self.room.full {
            self.room.full = true;
            self.shared.no_growth.store(true, Ordering::Release);
            self.shared.enter(Phase::Full);
        }
    }
}
