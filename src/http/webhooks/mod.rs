//! Webhooks that tenants make themselves, through operations of the gateway.
//!
//! Stands between admitted requests and the subscriptions that they make. Invariants: a tenant sees and changes
//! its own webhooks alone, and those of others look like none at all; what a webhook is, is durable together with
//! the beginning of its subscription; a secret is shown once, when it is made, and never again.

mod actions;
mod confirm;
mod hook;
mod seal;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lanekeeper_actors::gateway::{Randomness, stored_pepper};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::change::Table;
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::model::topic::Topic;
use lanekeeper_actors::policy::filter::KeyTable;
use lanekeeper_actors::policy::keys::Pepper;
use lanekeeper_actors::shard::ShardHandle;
use lanekeeper_actors::system::{Stored, System};

use super::body::BodyLimits;
use crate::manifest::WebhookRules;
use hook::{Hook, PREFIX};
use seal::Seal;
pub use seal::Unsealable;

pub(super) use actions::{Call, answer};
pub(super) use confirm::{PATH as CONFIRM, confirm};

/// Rows that are read at once.
const PAGE: usize = 1_000;
/// Time between two looks for keys whose time is over.
const RENEWAL: Duration = Duration::from_secs(30);

/// A topic, and what the filters of its subscriptions ask of its events.
#[derive(Debug, Clone)]
pub struct Listened {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The table that all its subscriptions share.
    pub keys: Arc<KeyTable>,
}

/// What the manifest says of webhooks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The topics.
    pub topics: BTreeMap<Name, Listened>,
    /// The rules of each product.
    pub products: BTreeMap<Name, WebhookRules>,
    /// Who sends, as endpoints are told.
    pub origin: String,
    /// Bounds of a body.
    pub body: BodyLimits,
    /// Most things in one answer.
    pub page_max: usize,
}

/// Why a request about webhooks is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookRefused {
    /// There is none, or it is somebody else's.
    #[error("there is no webhook with this id")]
    NotFound,
    /// The body does not say what it must.
    #[error("{0}")]
    Invalid(String),
    /// The product does not allow the destination.
    #[error("`url` may not be a destination: {0}")]
    Destination(String),
    /// The tenant has as many as the product allows.
    #[error("there are {0} webhooks already, which is the most that your product allows")]
    TooMany(usize),
    /// What it needs is no longer there.
    #[error("the webhook does not run: {0}")]
    Orphaned(String),
    /// No handshake waits for this code.
    #[error("no handshake waits for this code: it is wrong, used, or too old")]
    NoHandshake,
}

type Key = (TenantId, String);
type Hooks = BTreeMap<Key, Arc<Hook>>;

/// What is stored of webhooks, before the rooms are there.
#[derive(Debug)]
pub struct Shelf {
    settings: Settings,
    hooks: HooksRead,
}

#[derive(Default)]
struct HooksRead {
    hooks: Hooks,
    /// Names of all subscriptions that have a row, those that cannot be read among them.
    names: BTreeSet<Name>,
}

impl std::fmt::Debug for HooksRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HooksRead").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Shelf {
    /// Nothing is read yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, hooks: HooksRead::default() }
    }

    /// Reads all webhooks and gives the subscriptions of those that can run. One that cannot be read, or cannot
    /// run under this manifest, keeps all that it has and waits.
    ///
    /// # Errors
    /// When the rows or the pepper cannot be read.
    pub fn load(&mut self, shards: &[ShardHandle], data: &Path, now: Timestamp) -> Result<Stored, String> {
        let Some(first) = shards.first() else { return Ok(Stored::default()) };
        let rows = rows(first)?;
        if rows.is_empty() {
            return Ok(Stored::default());
        }
        let pepper = stored_pepper(data).map_err(|error| error.to_string())?;
        let seal = pepper.and_then(|pepper| Seal::new(&pepper).ok()).ok_or("there is no pepper")?;
        let mut configs = Vec::with_capacity(rows.len());
        for (rest, value) in rows {
            let name: Name = String::from_utf8_lossy(&rest).replacen('/', ".", 1).into();
            self.hooks.names.insert(name.clone());
            let hook = match Hook::read(&rest, &value, &seal) {
                Ok(hook) => hook,
                Err(error) => {
                    tracing::error!(webhook = %name, %error, "webhook not read: it is not started");
                    continue;
                }
            };
            match hook.config(&self.settings, now) {
                Ok(config) => configs.push(config),
                Err(why) => tracing::warn!(webhook = %name, %why, "webhook not started"),
            }
            self.hooks.hooks.insert((hook.tenant.clone(), hook.id.clone()), Arc::new(hook));
        }
        Ok(Stored { run: configs, keep: self.hooks.names.iter().cloned().collect() })
    }
}

fn rows(shard: &ShardHandle) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, String> {
    let view = shard.view().map_err(|error| error.to_string())?;
    let mut all: Vec<(bytes::Bytes, bytes::Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(rest, _)| rest.clone());
        let page = view.rows(Table::System, PREFIX, after.as_deref(), PAGE);
        let page = page.map_err(|error| error.to_string())?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

/// The webhooks of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    settings: Settings,
    seal: Seal,
    system: System,
    clock: SharedClock,
    random: Randomness,
    hooks: Mutex<Hooks>,
    /// Names of subscriptions that have a row.
    named: BTreeSet<Name>,
    /// Held by whoever changes a tenant's webhooks: one at a time for each tenant.
    turns: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Webhooks {
    /// What was read, over running rooms.
    ///
    /// # Errors
    /// When no key can be made of the pepper.
    pub fn open(
        shelf: Shelf,
        system: System,
        pepper: &Pepper,
        (clock, random): (SharedClock, Randomness),
    ) -> Result<Self, Unsealable> {
        let Shelf { settings, hooks: HooksRead { hooks, names } } = shelf;
        let (hooks, turns) = (Mutex::new(hooks), Mutex::default());
        let seal = Seal::new(pepper)?;
        Ok(Self(Arc::new(Inner { settings, seal, system, clock, random, hooks, named: names, turns })))
    }

    /// Takes away keys whose time is over, for ever; first, what was left of webhooks whose deletion was cut off.
    pub async fn keep(self) {
        self.sweep().await;
        loop {
            tokio::time::sleep(RENEWAL).await;
            let now = self.0.clock.now();
            let old: Vec<Arc<Hook>> =
                self.0.hooks().values().filter(|hook| hook.has_old_keys(now)).cloned().collect();
            for hook in old {
                if let Err(problem) = self.0.drop_old_keys(&hook).await {
                    tracing::warn!(webhook = %hook.name(), ?problem, "old keys go on signing for now");
                }
            }
        }
    }

    async fn sweep(&self) {
        let Some(first) = self.0.system.shards().first() else { return };
        let Ok(view) = first.view() else { return };
        let mut after: Option<bytes::Bytes> = None;
        while let Ok(page) = view.rows(Table::Progress, b"", after.as_deref(), PAGE) {
            for (name, _) in &page {
                let name = String::from_utf8_lossy(name);
                // Those of the manifest have no dot, and may come back with it.
                let left = name.contains('.') && !self.0.named.contains(&*name);
                if left && self.0.system.subscription(&name).is_none() {
                    tracing::info!(webhook = %name, "what was left of a deleted webhook goes");
                    if let Err(error) = self.0.system.unsubscribe(&name, Vec::new()).await {
                        tracing::warn!(webhook = %name, %error, "it could not go");
                    }
                }
            }
            if page.len() < PAGE {
                return;
            }
            after = page.last().map(|(name, _)| name.clone());
        }
    }
}

impl Inner {
    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The webhook of this caller, on this topic.
    fn find(&self, tenant: &TenantId, topic: &str, id: &str) -> Result<Arc<Hook>, WebhookRefused> {
        let found = self.hooks().get(&(tenant.clone(), id.to_owned())).cloned();
        found.filter(|hook| self.is_on(hook, topic)).ok_or(WebhookRefused::NotFound)
    }

    /// Whether an operation on this topic may see the webhook. One whose topic is gone is seen by all of its
    /// tenant's: no operation can name its topic any more.
    fn is_on(&self, hook: &Hook, topic: &str) -> bool {
        &*hook.topic == topic || !self.settings.topics.contains_key(&hook.topic)
    }

    fn keep_hook(&self, hook: Arc<Hook>) {
        self.hooks().insert((hook.tenant.clone(), hook.id.clone()), hook);
    }

    async fn turn(&self, tenant: &TenantId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(tenant.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
