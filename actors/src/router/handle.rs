//! The door to a router, and the doorbell that the shard rings.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Addr, Context, Supervisor};

use super::{Router, RouterSettings};
use crate::kernel::clock::SharedClock;
use crate::model::change::CommittedGroup;
use crate::model::ids::{Lsn, Name, ShardId};
use crate::protocol::router::{ChangesCommitted, GrantCredit, JoinLane, LeaveLane, ReopenRouter};
use crate::shard::ShardHandle;

/// The mailbox holds one ring, and grants and joins of all subscribers now and then.
const MAILBOX: usize = 16_384;

/// Fresh groups on their way from the shard's thread to the router. Bounded: what does not fit is
/// only counted, because the log has it.
#[derive(Debug, Default)]
pub(super) struct Hints {
    groups: Mutex<(VecDeque<CommittedGroup>, bool)>,
    rung: AtomicBool,
    positions: Positions,
}

impl Hints {
    /// The groups since the last call, and whether some were left out.
    pub(super) fn take(&self) -> (VecDeque<CommittedGroup>, bool) {
        self.rung.store(false, Ordering::Release);
        std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    fn push(&self, new: &[CommittedGroup], limit: usize) {
        let mut hints = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let (groups, missed) = &mut *hints;
        // No groups at all means that some are only in the log.
        if *missed || new.is_empty() || groups.len() + new.len() > limit {
            groups.clear();
            *missed = true;
        } else {
            groups.extend(new.iter().cloned());
        }
    }
}

/// How far each lane is, readable from anywhere.
#[derive(Debug, Clone)]
pub struct Positions {
    lanes: Arc<Mutex<HashMap<Name, Arc<AtomicU64>>>>,
    /// The fastest of those that have room; the greatest number when none has.
    routed: Arc<AtomicU64>,
}

impl Default for Positions {
    fn default() -> Self {
        Self { lanes: Arc::default(), routed: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

impl Positions {
    pub(super) fn of(&self, subscription: &Name) -> Arc<AtomicU64> {
        let mut all = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(subscription.clone()).or_default().clone()
    }

    pub(super) fn show(&self, routed: Option<Lsn>) {
        self.routed.store(routed.map_or(u64::MAX, |lsn| lsn.0), Ordering::Relaxed);
    }

    pub(super) fn forget(&self, subscription: &Name) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(subscription);
    }

    /// The last position that the subscription's lane has looked at.
    pub fn get(&self, subscription: &Name) -> Lsn {
        Lsn(self.of(subscription).load(Ordering::Relaxed))
    }
}

/// Everybody's way to the router of a shard.
#[derive(Debug, Clone)]
pub struct RouterHandle {
    addr: Addr<Router>,
    shard: ShardHandle,
    positions: Positions,
}

impl RouterHandle {
    /// Starts the router of `shard` on the current arbiter.
    pub fn start(shard: ShardHandle, settings: RouterSettings, clock: SharedClock) -> Self {
        let hints = Arc::new(Hints::default());
        let limit = settings.hints;
        let router = Router::new(shard.clone(), settings, clock, hints.clone());
        let positions = hints.positions.clone();
        let addr = Supervisor::start(move |ctx: &mut Context<Router>| {
            ctx.set_mailbox_capacity(MAILBOX);
            router
        });
        let bell = addr.clone();
        shard.on_commit(Arc::new(move |groups| {
            hints.push(groups, limit);
            if !hints.rung.swap(true, Ordering::AcqRel) && bell.try_send(ChangesCommitted).is_err() {
                // The mailbox is full, so the router is awake and will come to the hints; let the
                // next commit ring again all the same.
                hints.rung.store(false, Ordering::Release);
            }
        }));
        Self { addr, shard, positions }
    }

    /// The router's shard.
    pub fn shard(&self) -> &ShardHandle {
        &self.shard
    }

    /// The shard's number.
    pub fn id(&self) -> ShardId {
        self.shard.id()
    }

    /// How many positions the subscription's lane has not looked at.
    pub fn behind(&self, subscription: &Name) -> u64 {
        self.shard.log().tail().0.saturating_sub(self.positions.get(subscription).0)
    }

    /// How many positions routing itself is behind: not a subscriber that has no room.
    pub fn lag(&self) -> u64 {
        self.shard.log().tail().0.saturating_sub(self.positions.routed.load(Ordering::Relaxed))
    }

    /// Begins a lane; false when the router could not be told.
    pub(crate) fn join(&self, join: JoinLane) -> bool {
        self.addr.try_send(join).is_ok()
    }

    /// Room for more events; false when it could not be told.
    pub(crate) fn grant(&self, subscription: Name, epoch: u64, credit: usize) -> bool {
        self.addr.try_send(GrantCredit { subscription, epoch, credit }).is_ok()
    }

    /// Ends a lane.
    pub(crate) async fn leave(&self, subscription: &str) {
        let name = Name::from(subscription);
        self.positions.forget(&name);
        // A lane whose subscriber is gone ends by itself with its next event.
        self.addr.send(LeaveLane(name)).await.ok();
    }

    /// Ends a quarantine.
    pub async fn reopen(&self) {
        self.addr.send(ReopenRouter).await.ok();
    }
}
