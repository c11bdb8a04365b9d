//! Events of one key, one after the other: who waits for whom.
//!
//! Invariants: of each key at most one event is under way; once one has failed, those behind it wait in
//! the store until it is delivered or given up, so that they take no place from other keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use actix::Context;
use bytes::Bytes;

use super::Subscriber;
use super::config::Order;
use super::rows::RetryRow;
use super::settle::{Effect, Settled};
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::time::Timestamp;

/// What stands for a key: a hash of it.
pub(super) type Fingerprint = [u8; 16];

/// The fingerprint of an event's key.
pub(super) fn fingerprint(key: &Bytes) -> Fingerprint {
    twox_hash::XxHash3_128::oneshot(key).to_be_bytes()
}

/// The keys that have something under way or waiting.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Behind the event of the key that is under way for the first time, in their order.
    busy: HashMap<Fingerprint, VecDeque<Arc<Event>>>,
    /// In the store: the event that failed, and all behind it, with the times of their publishing.
    held: HashMap<(ShardId, Fingerprint), BTreeMap<Lsn, Timestamp>>,
}

/// Whether an event's turn has come.
pub(super) enum Turn {
    /// It may be tried now.
    Now(Arc<Event>),
    /// It waits in memory behind one that is under way.
    Waits,
    /// It waits in the store behind one that failed.
    Behind(Arc<Event>),
}

impl Keys {
    /// Asks for an event's turn; with [`Turn::Now`] its key is taken.
    pub(super) fn ask(&mut self, event: Arc<Event>) -> Turn {
        let print = fingerprint(&event.key);
        if self.held.contains_key(&(event.position.shard, print)) {
            return Turn::Behind(event);
        }
        match self.busy.get_mut(&print) {
            Some(behind) => {
                behind.push_back(event);
                Turn::Waits
            }
            None => {
                self.busy.insert(print, VecDeque::new());
                Turn::Now(event)
            }
        }
    }

    /// The event under way has left it. Gives back those that waited behind it, in their order.
    pub(super) fn leave(&mut self, print: &Fingerprint) -> VecDeque<Arc<Event>> {
        self.busy.remove(print).unwrap_or_default()
    }

    /// Events that wait in memory.
    pub(super) fn waiting(&self) -> usize {
        self.busy.values().map(VecDeque::len).sum()
    }

    /// Events in the store.
    pub(super) fn held(&self) -> usize {
        self.held.values().map(BTreeMap::len).sum()
    }

    /// An event is in the store, or will be with the next commit.
    pub(super) fn hold(&mut self, position: Position, print: Fingerprint, published: Timestamp) {
        self.held.entry((position.shard, print)).or_default().insert(position.lsn, published);
    }

    /// An event leaves the store. Gives back the one behind it.
    fn release(&mut self, position: Position, print: Fingerprint) -> Option<(Lsn, Timestamp)> {
        let held = self.held.get_mut(&(position.shard, print))?;
        held.remove(&position.lsn)?;
        let next = held.first_key_value().map(|(lsn, published)| (*lsn, *published));
        if next.is_none() {
            self.held.remove(&(position.shard, print));
        }
        next
    }
}

impl Subscriber {
    pub(super) fn is_ordered(&self) -> bool {
        self.config.order == Order::Partition
    }

    /// The next event that is tried for the first time.
    pub(super) fn next_ready(&mut self, ctx: &mut Context<Self>) -> Option<Arc<Event>> {
        while let Some(event) = self.ready.pop_front() {
            if !self.is_ordered() {
                return Some(event);
            }
            match self.keys.ask(event) {
                Turn::Now(event) => return Some(event),
                Turn::Waits => {}
                Turn::Behind(event) => self.park(&event, ctx),
            }
        }
        None
    }

    /// The event waits in the store.
    fn park(&mut self, event: &Event, ctx: &mut Context<Self>) {
        let print = fingerprint(&event.key);
        let published = self.time.of(event.at);
        self.keys.hold(event.position, print, published);
        let settled = Settled::new(event.position, None, Effect::Hold(waiting_row(published)));
        let settled = Settled { key: Some(print), ..settled };
        let index = usize::from(event.position.shard.0);
        if let Some(lot) = self.shards.get_mut(index) {
            lot.ledger.enter(settled);
            self.settle(index, ctx);
        }
    }

    /// An event has failed: those behind it wait in the store.
    pub(super) fn hold_back(&mut self, settled: Settled, event: &Event, ctx: &mut Context<Self>) -> Settled {
        if !self.is_ordered() {
            return settled;
        }
        let print = fingerprint(&event.key);
        self.keys.hold(event.position, print, self.time.of(event.at));
        if settled.row.is_none() {
            for behind in self.keys.leave(&print) {
                self.park(&behind, ctx);
            }
        }
        Settled { key: Some(print), ..settled }
    }

    /// An event is at its end: the next one of its key has its turn.
    pub(super) fn let_next_go(&mut self, settled: Settled, event: &Event) -> Settled {
        if !self.is_ordered() {
            return settled;
        }
        let print = fingerprint(&event.key);
        if settled.row.is_none() {
            for behind in self.keys.leave(&print).into_iter().rev() {
                self.ready.push_front(behind);
            }
            return settled;
        }
        let next = self.keys.release(event.position, print).map(|(lsn, published)| {
            let row = RetryRow { next_at: self.time.now(), held: false, ..waiting_row(published) };
            (lsn, row)
        });
        Settled { key: Some(print), next, ..settled }
    }
}

/// The row of an event that waits for another: no time is set for it.
fn waiting_row(published: Timestamp) -> RetryRow {
    let next_at = Timestamp(u64::MAX);
    RetryRow { attempts: 0, next_at, published, last: None, event: None, replay: None, held: true }
}
