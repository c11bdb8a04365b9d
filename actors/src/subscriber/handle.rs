//! The door to a subscription.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Context, Recipient, Supervisor};
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::rows::{DeadLetter, decode, parse_lsn, prefix};
use super::{DeliverySettings, Subscriber, SubscriptionConfig, Surroundings};
use crate::model::change::{Mutation, Table};
use crate::model::cloudevent::CloudEvent;
use crate::model::delivery::Outcome;
use crate::model::ids::{Name, Position};
use crate::protocol::subscriber::{
    AttemptRecord, CancelReplay, ConfirmEndpoint, Decision, DrainDeliveries, EndSubscription, LetterReplay,
    ListAttempts, LockLost, Pause, PurgeDeadLetters, ReceiveEvents, ReceiveRefused, Received, Reconfigure,
    ReplayDeadLetters, ReplayHistory, ReplayRequest, ReportStatus, Resume, Revision, Selection, SendTrial,
    SettleEvents, SubscriptionError, SubscriptionStatus, TakeLetters, TrialRefused,
};
use crate::router::RouterHandle;
use crate::shard::{CommitError, ShardReadError};

/// Mailbox of a subscriber: hand-overs are bounded by credit, the rest are operators.
const MAILBOX: usize = 1_024;

/// Everybody's way to one subscription; cheap to clone.
#[derive(Clone)]
pub struct SubscriptionHandle {
    addr: Addr<Subscriber>,
    name: Name,
    config: Arc<ArcSwap<SubscriptionConfig>>,
    routers: Arc<[RouterHandle]>,
}

/// Row of shard 0 that says that an operator paused the subscription.
pub(super) fn pause_key(name: &str) -> Vec<u8> {
    [b"paused/".as_slice(), name.as_bytes()].concat()
}

/// Row of shard 0 that says why the subscription gives up every event.
pub(super) fn disabled_key(name: &str) -> Vec<u8> {
    [b"disabled/".as_slice(), name.as_bytes()].concat()
}

impl SubscriptionHandle {
    /// Starts the subscriber on the current arbiter. Each shard must have a cursor for it.
    pub fn start(config: Arc<SubscriptionConfig>, settings: DeliverySettings, around: Surroundings) -> Self {
        let routers = around.routers.clone();
        let subscriber = Subscriber::new(config.clone(), settings, around);
        let addr = Supervisor::start(move |ctx: &mut Context<Subscriber>| {
            ctx.set_mailbox_capacity(MAILBOX);
            subscriber
        });
        Self { addr, name: config.name.clone(), config: Arc::new(ArcSwap::new(config)), routers }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is said of it now.
    pub fn config(&self) -> Arc<SubscriptionConfig> {
        self.config.load_full()
    }

    /// Becomes another one, with the name, topic, tenant and order that it had; what that means for what waits,
    /// [`Revision`] says. `also` becomes durable with it.
    ///
    /// # Errors
    /// [`SubscriptionError::Busy`] while an earlier change is under way; with
    /// [`SubscriptionError::Unavailable`] nothing is changed.
    pub async fn reconfigure(
        &self,
        config: SubscriptionConfig,
        revision: Revision,
        also: Vec<Mutation>,
    ) -> Result<(), SubscriptionError> {
        let config = Arc::new(config);
        let change = Reconfigure { config: config.clone(), revision, also };
        self.addr.send(change).await.unwrap_or(Err(SubscriptionError::Unknown))?;
        self.config.store(config);
        Ok(())
    }

    /// Somebody opened the URL of a handshake. False: not the right code, or too late.
    pub async fn confirm(&self, code: &str, rate: Option<u32>) -> bool {
        let confirm = ConfirmEndpoint { code: code.to_owned(), rate };
        self.addr.send(confirm).await.unwrap_or(false)
    }

    /// Sends one event at once, whatever the filter says, and says what came of it.
    ///
    /// # Errors
    /// See [`TrialRefused`].
    pub async fn send_trial(&self, event: CloudEvent) -> Result<Outcome, TrialRefused> {
        self.addr.send(SendTrial(event)).await.unwrap_or(Err(TrialRefused::Unavailable))
    }

    /// What it is doing.
    pub async fn status(&self) -> SubscriptionStatus {
        self.addr.send(ReportStatus).await.unwrap_or_default()
    }

    /// Stops attempts until [`resume`](Self::resume); survives a restart of the process.
    pub async fn pause(&self) -> Result<(), SubscriptionError> {
        let (key, value) = (self.pause_row(), Bytes::new());
        self.commit(Mutation::Put { table: Table::System, key, value }).await?;
        self.addr.send(Pause).await.unwrap_or(Err(SubscriptionError::Unavailable))
    }

    /// Ends a pause, a quarantine, a probation, or that it is disabled, and tries now what waits for a retry.
    pub async fn resume(&self) -> Result<(), SubscriptionError> {
        self.commit(Mutation::Delete { table: Table::System, key: self.pause_row() }).await?;
        let key = disabled_key(&self.name).into();
        self.commit(Mutation::Delete { table: Table::System, key }).await?;
        for router in self.routers.iter() {
            router.reopen().await;
        }
        self.addr.send(Resume).await.unwrap_or(Err(SubscriptionError::Unavailable))
    }

    fn pause_row(&self) -> Bytes {
        pause_key(&self.name).into()
    }

    async fn commit(&self, mutation: Mutation) -> Result<(), SubscriptionError> {
        let router = self.routers.first().ok_or(SubscriptionError::Unavailable)?;
        let reply = router.shard().commit(vec![mutation])?;
        reply.await.unwrap_or(Err(CommitError::Unknown))?;
        Ok(())
    }

    /// Dead letters in the order of their positions, after `after`.
    pub fn dead_letters(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, ShardReadError> {
        let mut letters = Vec::new();
        for router in self.routers.iter() {
            let shard = router.shard();
            let start = match after {
                Some(after) if after.shard > shard.id() => continue,
                Some(after) if after.shard == shard.id() => Some(after.lsn.0.to_be_bytes()),
                Some(_) | None => None,
            };
            let room = limit.saturating_sub(letters.len());
            let start = start.as_ref().map(<[u8; 8]>::as_slice);
            let rows = shard.view()?.rows(Table::DeadLetters, &prefix(&self.name), start, room)?;
            for (rest, value) in rows {
                let whole = parse_lsn(&rest).and_then(|_| decode(&value));
                letters.push(whole.ok_or(crate::store::ViewReadError::Corrupt)?);
            }
        }
        Ok(letters)
    }

    /// Delivers dead letters again, with all attempts anew. Returns how many.
    pub async fn replay(&self, which: impl Into<LetterReplay>) -> Result<usize, SubscriptionError> {
        self.addr.send(ReplayDeadLetters(which.into())).await.unwrap_or(Err(SubscriptionError::Unknown))
    }

    /// Where other subscriptions send what this one shall deliver for them.
    pub fn taker(&self) -> Recipient<TakeLetters> {
        self.addr.clone().recipient()
    }

    /// Forgets dead letters. Returns how many.
    pub async fn purge(&self, selection: Selection) -> Result<usize, SubscriptionError> {
        self.addr.send(PurgeDeadLetters(selection)).await.unwrap_or(Err(SubscriptionError::Unknown))
    }

    /// The last attempts, newest first.
    pub async fn attempts(&self) -> Vec<AttemptRecord> {
        self.addr.send(ListAttempts).await.unwrap_or_default()
    }

    /// Receives events from a queue: at most `most`, none if there are none within `wait`.
    ///
    /// # Errors
    /// See [`ReceiveRefused`].
    pub async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Received>, ReceiveRefused> {
        let (reply, given) = oneshot::channel();
        self.addr.send(ReceiveEvents { most, reply }).await.unwrap_or(Err(ReceiveRefused::Unavailable))?;
        let given = tokio::time::timeout(wait, given).await;
        Ok(given.ok().and_then(Result::ok).unwrap_or_default())
    }

    /// Settles received events, the same for all tokens. The answers are in their order; a token without
    /// one may or may not be settled.
    pub async fn settle(&self, tokens: Vec<String>, decision: Decision) -> Vec<Result<(), LockLost>> {
        self.addr.send(SettleEvents { tokens, decision }).await.unwrap_or_default()
    }

    /// Delivers events of the past again. Returns the id of the job.
    ///
    /// # Errors
    /// [`SubscriptionError::Unavailable`] when it cannot be made durable.
    pub async fn replay_history(&self, request: ReplayRequest) -> Result<Arc<str>, SubscriptionError> {
        self.addr.send(ReplayHistory(request)).await.unwrap_or(Err(SubscriptionError::Unknown))
    }

    /// Ends a replay of history. False: there is none with this id.
    ///
    /// # Errors
    /// [`SubscriptionError::Unavailable`] when it cannot be made durable.
    pub async fn cancel_replay(&self, id: &str) -> Result<bool, SubscriptionError> {
        self.addr.send(CancelReplay(id.to_owned())).await.unwrap_or(Err(SubscriptionError::Unknown))
    }

    /// Ends it for good: replies when nothing of it is under way.
    pub(crate) async fn end(&self) {
        self.addr.send(EndSubscription).await.ok();
    }

    pub(crate) async fn drain(&self) {
        self.addr.send(DrainDeliveries).await.ok();
    }
}
