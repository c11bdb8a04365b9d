//! One subscription's way along a shard's log: how far it is, how much room it has.
//!
//! Invariant: a lane's position moves only over changes that did not match, or that were handed
//! over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::Recipient;
use actix::prelude::SendError;
use fail::fail_point;

use super::reading::{Candidate, Reading};
use crate::kernel::contain::insist;
use crate::model::event::Event;
use crate::model::ids::{Lsn, Name, ShardId};
use crate::policy::suspects::POISON;
use crate::protocol::router::{Interest, JoinLane};
use crate::protocol::subscriber::HandOver;

/// Positions without a match after which the subscriber is told all the same, so that its
/// cursor, and with it the log's beginning, moves on.
const TELL_AFTER: u64 = 1_024;

/// Whether a lane takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Its subscriber's mailbox is full, or its part of the log cannot be read: it waits a little.
    Stalled,
    /// Its subscriber is gone.
    Gone,
}

/// What became of a group that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// The lane is past it.
    Whole,
    /// The lane stopped in it, or before it.
    NotAll,
}

/// Whether an event is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
    /// It crashes whoever looks at it. It is handed over all the same, to end as a dead letter.
    Unknown,
}

pub(super) struct Lane {
    subscription: Name,
    epoch: u64,
    interest: Interest,
    to: Recipient<HandOver>,
    position: Lsn,
    credit: usize,
    phase: Phase,
    told: Lsn,
    /// The position, for whoever asks how far behind the lane is.
    shown: Arc<AtomicU64>,
}

impl Lane {
    pub(super) fn new(join: JoinLane, shown: Arc<AtomicU64>) -> Self {
        let JoinLane { subscription, epoch, from, credit, interest, to } = join;
        shown.store(from.0, Ordering::Relaxed);
        let phase = Phase::Open;
        Self { subscription, epoch, interest, to, position: from, credit, phase, told: from, shown }
    }

    pub(super) fn subscription(&self) -> &Name {
        &self.subscription
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn position(&self) -> Lsn {
        self.position
    }

    /// Whether it would take more events now.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Open && self.credit > 0
    }

    /// Whether the log is worth reading for it, up to `tail`.
    pub(super) fn wants(&self, tail: Lsn) -> bool {
        self.has_room() && self.position < tail
    }

    pub(super) fn grant(&mut self, credit: usize) {
        self.credit += credit;
    }

    pub(super) fn stall(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Stalled;
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.phase == Phase::Stalled
    }

    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// The wait of a stalled lane is over.
    pub(super) fn go_on(&mut self) {
        if self.phase == Phase::Stalled {
            self.phase = Phase::Open;
        }
    }

    /// Nothing stands between the lane's position and `lsn`.
    pub(super) fn skip_to(&mut self, lsn: Lsn) {
        self.position = lsn;
        self.shown.store(lsn.0, Ordering::Relaxed);
    }

    /// Looks at a group that follows the lane's position.
    pub(super) fn offer(&mut self, reading: &mut Reading<'_>) -> Offered {
        let last = reading.last();
        if last <= self.position {
            return Offered::Whole;
        }
        if self.phase != Phase::Open {
            return Offered::NotAll;
        }
        let (mut events, mut poison) = (Vec::new(), Vec::new());
        let mut routed = last;
        for candidate in reading.of(&self.interest) {
            let lsn = candidate.event().position.lsn;
            if lsn <= self.position {
                continue;
            }
            let wanted = self.wants_event(candidate);
            if wanted == Wanted::No {
                continue;
            }
            if events.len() >= self.credit {
                routed = lsn.previous();
                break;
            }
            events.push(candidate.event().clone());
            if wanted == Wanted::Unknown {
                poison.push(lsn);
            }
        }
        let whole = routed == last;
        if !self.hand_over(reading.shard(), events, poison, routed) {
            return Offered::NotAll;
        }
        self.skip_to(routed);
        if whole { Offered::Whole } else { Offered::NotAll }
    }

    fn wants_event(&self, candidate: &Candidate) -> Wanted {
        let Interest { tenant, filter, .. } = &self.interest;
        let event = candidate.event();
        if tenant.is_some() && *tenant != event.tenant {
            return Wanted::No;
        }
        let Candidate::Sound(facts) = candidate else { return Wanted::Unknown };
        let matches = insist(POISON, || {
            fail_point!("router::filter", is_poison(event, &self.subscription), |_| false);
            filter.matches(facts)
        });
        match matches {
            Ok(true) => Wanted::Yes,
            Ok(false) => Wanted::No,
            Err(panicked) => {
                let subscription = &self.subscription;
                tracing::error!(%subscription, event = %event.position, panic = panicked.0, "event crashes the filter");
                Wanted::Unknown
            }
        }
    }

    fn hand_over(&mut self, shard: ShardId, events: Vec<Arc<Event>>, poison: Vec<Lsn>, routed: Lsn) -> bool {
        if events.is_empty() && routed.0 < self.told.0 + TELL_AFTER {
            return true;
        }
        let count = events.len();
        match self.to.try_send(HandOver { shard, epoch: self.epoch, events, poison, routed }) {
            Ok(()) => {
                self.credit -= count;
                self.told = routed;
                true
            }
            // Far behind with what it was told already: the log keeps the events until it is not.
            Err(SendError::Full(_)) => {
                self.phase = Phase::Stalled;
                false
            }
            Err(SendError::Closed(_)) => {
                self.phase = Phase::Gone;
                false
            }
        }
    }
}

/// What a test makes the filter of the subscription `s` stumble over.
#[cfg(feature = "failpoints")]
fn is_poison(event: &Event, subscription: &Name) -> bool {
    let has = |text: &str| event.cloud.subject.as_ref().is_some_and(|subject| subject.contains(text));
    &**subscription == "s" && has("poison-filter")
}
