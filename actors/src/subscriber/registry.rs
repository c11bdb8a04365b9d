//! All subscriptions of a system: those that are declared, and those that are made while it runs.
//!
//! Invariants: a subscription has its beginning in every shard before anything is routed to it; one that is
//! ended is sent nothing more, and leaves nothing behind.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use actix::ArbiterHandle;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::rows::{Progress, advance, prefix};
use super::{
    DeliverySettings, SubscriptionConfig, SubscriptionHandle, Surroundings, handle, handshake, replay,
};
use crate::model::change::{Mutation, Table};
use crate::model::ids::Name;
use crate::protocol::subscriber::SubscriptionError;
use crate::shard::{CommitError, ShardHandle, ShardReadError};

/// Rows that one commit deletes.
const PAGE: usize = 1_000;

/// The subscriptions of a system.
pub struct Subscriptions {
    around: Surroundings,
    delivery: DeliverySettings,
    arbiter: Option<ArbiterHandle>,
    all: Mutex<Arc<[SubscriptionHandle]>>,
    /// Held by whoever makes or ends one: a name is made and ended by one at a time.
    changing: tokio::sync::Mutex<()>,
}

/// What makes each of these subscriptions begin with the next change of a shard; nothing for those that have
/// begun there.
///
/// # Errors
/// When the shard cannot be read.
pub fn beginnings(names: &[Name], shard: &ShardHandle) -> Result<Vec<Mutation>, ShardReadError> {
    let view = shard.view()?;
    let progress = Progress { cursor: shard.log().tail(), done: Vec::new() };
    let mut begun = Vec::new();
    for name in names {
        if view.row(Table::Progress, name.as_bytes())?.is_none() {
            begun.push(advance(name, &progress));
        }
    }
    Ok(begun)
}

impl Subscriptions {
    /// No subscriptions yet. They run on the current arbiter, until [`Self::on`] says another.
    pub fn new(around: Surroundings, delivery: DeliverySettings) -> Self {
        let (all, changing) = (Mutex::new(Arc::from([])), tokio::sync::Mutex::new(()));
        Self { around, delivery, arbiter: None, all, changing }
    }

    /// Later ones are started on this arbiter.
    pub fn on(self, arbiter: ArbiterHandle) -> Self {
        Self { arbiter: Some(arbiter), ..self }
    }

    /// All of them.
    pub fn all(&self) -> Arc<[SubscriptionHandle]> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<SubscriptionHandle> {
        self.all().iter().find(|subscription| subscription.name() == name).cloned()
    }

    /// Starts those that have their beginning in every shard, on the current arbiter.
    pub fn start_all(&self, configs: Vec<SubscriptionConfig>) {
        let first = self.all().len();
        let started = configs
            .into_iter()
            .enumerate()
            .map(|(number, config)| start(config, self.settings(first + number), self.around.clone()));
        let started: Vec<_> = started.collect();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.iter().cloned().chain(started).collect();
    }

    /// Starts one that has its beginning in every shard, on the current arbiter.
    pub fn start(&self, config: SubscriptionConfig) -> SubscriptionHandle {
        let started = start(config, self.settings(self.all().len()), self.around.clone());
        self.add(started)
    }

    fn settings(&self, number: usize) -> DeliverySettings {
        let seed = self.delivery.seed.wrapping_add(number as u64);
        DeliverySettings { seed, ..self.delivery.clone() }
    }

    fn add(&self, started: SubscriptionHandle) -> SubscriptionHandle {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.iter().cloned().chain([started.clone()]).collect();
        started
    }

    /// Makes one that begins with the next change.
    ///
    /// # Errors
    /// [`SubscriptionError::Busy`] when there is one of this name.
    pub async fn make(
        &self,
        config: SubscriptionConfig,
        also: Vec<Mutation>,
    ) -> Result<SubscriptionHandle, SubscriptionError> {
        let _changing = self.changing.lock().await;
        if self.find(&config.name).is_some() {
            return Err(SubscriptionError::Busy);
        }
        let names = [config.name.clone()];
        let mut also = Some(also);
        // The first shard last: with it, and not before, the subscription is there.
        for router in self.around.routers.iter().rev() {
            let mut begun = beginnings(&names, router.shard())?;
            if router.id().0 == 0 {
                begun.extend(also.take().unwrap_or_default());
            }
            commit(router.shard(), begun).await?;
        }
        // What the log loses from here on is told to the new one first.
        for router in self.around.routers.iter() {
            self.around.floors.begin(router.shard(), &config.name);
        }
        let (settings, around) = (self.settings(self.all().len()), self.around.clone());
        let Some(arbiter) = &self.arbiter else { return Ok(self.start(config)) };
        let (send, started) = oneshot::channel();
        arbiter.spawn_fn(move || {
            send.send(start(config, settings, around)).ok();
        });
        let started = started.await.map_err(|_| SubscriptionError::Unavailable)?;
        Ok(self.add(started))
    }

    /// Ends one, and forgets all that it has. False: none of this name runs; what was left of one is forgotten.
    ///
    /// # Errors
    /// When the shards take no writes.
    pub async fn end(&self, name: &str, also: Vec<Mutation>) -> Result<bool, SubscriptionError> {
        let _changing = self.changing.lock().await;
        let subscription = self.find(name);
        if let Some(first) = self.around.routers.first() {
            commit(first.shard(), also).await?;
        }
        // Those under way come to their end; nothing begins any more.
        if let Some(subscription) = &subscription {
            subscription.end().await;
        }
        for router in self.around.routers.iter() {
            forget(router.shard(), name, &[]).await?;
            router.leave(name).await;
            self.around.floors.end(router.shard(), name);
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all = all.iter().filter(|it| it.name() != name).cloned().collect();
        Ok(subscription.is_some())
    }
}

fn start(config: SubscriptionConfig, settings: DeliverySettings, around: Surroundings) -> SubscriptionHandle {
    SubscriptionHandle::start(Arc::new(config), settings, around)
}

async fn commit(shard: &ShardHandle, mutations: Vec<Mutation>) -> Result<(), SubscriptionError> {
    if mutations.is_empty() {
        return Ok(());
    }
    shard.commit(mutations)?.await.unwrap_or(Err(CommitError::Unknown))?;
    Ok(())
}

/// Subscriptions that have begun in a shard, and of which nobody knows any more.
///
/// # Errors
/// When the shard cannot be read.
pub fn strangers(known: &HashSet<Name>, shard: &ShardHandle) -> Result<Vec<Name>, ShardReadError> {
    let begun = shard.view()?.rows(Table::Progress, b"", None, usize::MAX)?;
    let names = begun.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
    Ok(names.filter(|name| !known.contains(*name)).map(Name::from).collect())
}

/// Lets go of what is pending for a subscription that is declared no longer. Its dead letters stay.
///
/// # Errors
/// When the shard takes no writes.
pub async fn abandon(shard: &ShardHandle, name: &str) -> Result<(), SubscriptionError> {
    forget(shard, name, &[Table::Exports, Table::DeadLetters]).await
}

/// Deletes all rows of a subscription in a shard but those of some tables, a page at a time.
async fn forget(shard: &ShardHandle, name: &str, but: &[Table]) -> Result<(), SubscriptionError> {
    let tables = [
        (Table::Due, prefix(name)),
        (Table::Held, prefix(name)),
        (Table::Deliveries, prefix(name)),
        (Table::Exports, prefix(name)),
        (Table::DeadLetters, prefix(name)),
        (Table::System, replay::job_prefix(name)),
    ];
    for (table, prefix) in tables.into_iter().filter(|(table, _)| !but.contains(table)) {
        loop {
            let rows = shard.view()?.rows(table, &prefix, None, PAGE).map_err(ShardReadError::from)?;
            let gone = |(rest, _): &(Bytes, Bytes)| Mutation::Delete {
                table,
                key: [prefix.as_slice(), rest].concat().into(),
            };
            commit(shard, rows.iter().map(gone).collect()).await?;
            if rows.len() < PAGE {
                break;
            }
        }
    }
    let single = [
        (Table::Progress, name.as_bytes().to_vec()),
        (Table::System, handle::pause_key(name)),
        (Table::System, handle::disabled_key(name)),
        (Table::System, handshake::validated_key(name)),
    ];
    let gone = single.map(|(table, key)| Mutation::Delete { table, key: key.into() });
    commit(shard, gone.to_vec()).await
}
