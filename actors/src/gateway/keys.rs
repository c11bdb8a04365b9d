//! The door for whoever manages keys, and the grants' rows in the store.
//!
//! Invariants: a grant's row is durable before the gateways know of it; changes happen one at a
//! time; and a change that was begun is finished even if nobody waits for it any more.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::random::Randomness;
use super::state::{GatewayOpenError, GatewayState};
use crate::kernel::ask::{NoAnswer, answer};
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Name, TenantId};
use crate::model::time::Timestamp;
use crate::policy::keys::{
    ApiKeySecret, Grant, HashedKey, InvalidKey, KeyRing, KeyRingError, KeySlot, LastUsed, Scope, Standing,
};
use crate::shard::{CommitError, Phase, ShardHandle};

/// What the keys of grants' rows begin with.
const PREFIX: &[u8] = b"grant/";
/// Rows read at once.
const PAGE: usize = 1_024;
/// Version of a row's layout.
const VERSION: u8 = 1;
/// Time for a change to become durable.
const DEADLINE: Duration = Duration::from_secs(10);

/// A grant as it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    grant: Grant,
}

/// What a new grant is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// What may be called.
    pub scope: Scope,
    /// Who calls.
    pub tenant: TenantId,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// Whether it waits for an approval, where its product asks for one; an operator's own does not.
    pub submitted: bool,
}

/// A new grant with its two keys, which nobody can show again.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What is stored.
    pub grant: Arc<Grant>,
    /// The first key.
    pub primary: ApiKeySecret,
    /// The second key.
    pub secondary: ApiKeySecret,
}

/// A grant with one new key, which nobody can show again.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// What is stored.
    pub grant: Arc<Grant>,
    /// The new key.
    pub secret: ApiKeySecret,
}

/// A grant that the manifest names.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its name, which is the grant's id.
    pub name: String,
    /// What may be called.
    pub product: Name,
    /// Who calls.
    pub tenant: TenantId,
    /// The first key, as the user chose it.
    pub primary: ApiKeySecret,
    /// The second key; without one there is one that nobody knows.
    pub secondary: Option<ApiKeySecret>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

/// Why a grant was not changed. All but [`KeysError::Unknown`] changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is no such product.
    #[error("there is no product `{0}`")]
    UnknownProduct(Name),
    /// There is no such API.
    #[error("there is no api `{0}`")]
    UnknownApi(Name),
    /// The tenant is that of callers whom nobody knows.
    #[error("the tenant `{}` is that of callers without key and token", TenantId::ANONYMOUS)]
    Anonymous,
    /// The tenant has as many grants as the product allows.
    #[error("the tenant has {0} api keys of this product, which is the most that it allows")]
    TooMany(usize),
    /// There is no way from what a grant is to what it should be.
    #[error("the api key is {0}, so it cannot become {1}")]
    Standing(&'static str, &'static str),
    /// There is no such grant.
    #[error("there is no api key `{0}`")]
    UnknownGrant(String),
    /// Its keys come from the manifest, which would bring the old ones back.
    #[error("the api key `{0}` is named in the manifest: change it there")]
    Managed(String),
    /// A revoked grant stays refused whatever its keys are.
    #[error("the api key `{0}` was revoked")]
    Revoked(String),
    /// It would be refused from the start.
    #[error("the time of expiry is over already")]
    Expired,
    /// A seed's name belongs to a grant that was made at run time, or its key to another grant.
    #[error("{0}")]
    Taken(String),
    /// A text that cannot be a key.
    #[error("{0}")]
    InvalidKey(#[from] InvalidKey),
    /// Too many batches are waiting.
    #[error("too many writes are waiting")]
    Busy,
    /// The store takes no writes now.
    #[error("the store takes no writes now")]
    Unavailable,
    /// The disk is full.
    #[error("the disk is full")]
    NoRoom,
    /// The change may or may not have happened.
    #[error("the outcome is unknown")]
    Unknown,
}

impl From<CommitError> for KeysError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Busy => Self::Busy,
            CommitError::Unavailable => Self::Unavailable,
            // A grant's row is far smaller than a record may be.
            CommitError::NoRoom | CommitError::TooLarge => Self::NoRoom,
            CommitError::Unknown => Self::Unknown,
        }
    }
}

impl From<KeyRingError> for KeysError {
    fn from(error: KeyRingError) -> Self {
        match error {
            KeyRingError::UnknownGrant(id) => Self::UnknownGrant(id),
            taken @ KeyRingError::KeyTaken(_) => Self::Taken(taken.to_string()),
        }
    }
}

/// Everybody's way to change keys; cheap to clone.
#[derive(Clone)]
pub struct KeysHandle(Arc<Keys>);

impl fmt::Debug for KeysHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeysHandle")
    }
}

struct Keys {
    state: Arc<GatewayState>,
    shard: ShardHandle,
    random: Randomness,
    /// Held by whoever changes something.
    changing: Mutex<()>,
    /// A change's outcome is unknown, so the rows must be read again before the next one.
    stale: AtomicBool,
}

impl KeysHandle {
    pub(super) fn new(state: Arc<GatewayState>, shard: ShardHandle, random: Randomness) -> Self {
        Self(Arc::new(Keys { state, shard, random, changing: Mutex::new(()), stale: AtomicBool::new(false) }))
    }

    /// Makes a grant with two new keys.
    pub async fn issue(&self, new: NewGrant) -> Result<Issued, KeysError> {
        let keys = self.0.clone();
        finish(async move { keys.issue(new).await }).await
    }

    /// Puts a new key into a slot of a grant; the key in the other slot stays valid.
    pub async fn rotate(&self, id: &str, slot: KeySlot) -> Result<Rotated, KeysError> {
        let (keys, id) = (self.0.clone(), id.to_owned());
        finish(async move { keys.rotate(&id, slot).await }).await
    }

    /// Refuses both keys of a grant for ever.
    pub async fn revoke(&self, id: &str) -> Result<Arc<Grant>, KeysError> {
        let (keys, id) = (self.0.clone(), id.to_owned());
        finish(async move { keys.revoke(&id).await }).await
    }

    /// Approves or rejects a grant that waits, suspends one that runs, resumes one that is suspended.
    pub async fn stand(&self, id: &str, standing: Standing) -> Result<Arc<Grant>, KeysError> {
        let (keys, id) = (self.0.clone(), id.to_owned());
        finish(async move { keys.stand(&id, standing).await }).await
    }

    /// Makes the grants of the manifest what these seeds say, and drops those that it no longer
    /// names. A seed that was revoked stays revoked as long as its first key stays the same.
    pub async fn seed(&self, seeds: Vec<Seed>) -> Result<(), KeysError> {
        let keys = self.0.clone();
        finish(async move { keys.seed(seeds).await }).await
    }

    /// All grants, by id.
    pub fn list(&self) -> Vec<Arc<Grant>> {
        self.0.state.ring().list().cloned().collect()
    }

    /// One grant.
    pub fn get(&self, id: &str) -> Option<Arc<Grant>> {
        self.0.state.ring().get(id).cloned()
    }
}

/// Runs a change to its end, even if its caller goes away between the disk and the memory.
async fn finish<T: Send + 'static>(
    change: impl Future<Output = Result<T, KeysError>> + Send + 'static,
) -> Result<T, KeysError> {
    tokio::spawn(change).await.unwrap_or(Err(KeysError::Unknown))
}

impl Keys {
    async fn issue(&self, new: NewGrant) -> Result<Issued, KeysError> {
        let _turn = self.changing.lock().await;
        let mut ring = self.ring()?;
        let now = self.state.clock().now();
        let standing = self.check(&new, &ring)?;
        if new.expires.is_some_and(|at| at <= now) {
            return Err(KeysError::Expired);
        }
        let (primary, secondary) = (self.secret(), self.secret());
        let [first, second] = [self.hashed(&primary), self.hashed(&secondary)];
        let grant = Grant {
            id: self.id(now),
            scope: new.scope,
            tenant: new.tenant,
            standing,
            primary: first.hash,
            secondary: second.hash,
            hint: [first.hint, second.hint],
            created: now,
            expires: new.expires,
            revoked: None,
            rotated: None,
            managed_by_manifest: false,
            used: LastUsed::default(),
        };
        ring.insert(grant.clone())?;
        self.commit(vec![put(&grant)], ring).await?;
        Ok(Issued { grant: Arc::new(grant), primary, secondary })
    }

    /// Whether a grant may be made, and whether it may be used at once.
    fn check(&self, new: &NewGrant, ring: &KeyRing) -> Result<Standing, KeysError> {
        let book = self.state.book();
        if new.tenant.as_str() == TenantId::ANONYMOUS {
            return Err(KeysError::Anonymous);
        }
        let product = match &new.scope {
            Scope::Product(name) => {
                Some(book.product(name).ok_or_else(|| KeysError::UnknownProduct(name.clone()))?)
            }
            Scope::Api(name) if !book.has_api(name) => return Err(KeysError::UnknownApi(name.clone())),
            Scope::Api(_) | Scope::AllApis | Scope::AllAccess => None,
        };
        let Some(product) = product else { return Ok(Standing::Active) };
        let now = self.state.clock().now();
        let is_open = |grant: &&Arc<Grant>| {
            let ended = grant.revoked.is_some() || grant.expires.is_some_and(|at| at <= now);
            grant.scope == new.scope
                && grant.tenant == new.tenant
                && !ended
                && grant.standing != Standing::Rejected
        };
        if let Some(most) = product.grants_per_tenant
            && ring.list().filter(is_open).count() >= most
        {
            return Err(KeysError::TooMany(most));
        }
        let waits = new.submitted && product.approval;
        Ok(if waits { Standing::Submitted } else { Standing::Active })
    }

    async fn stand(&self, id: &str, standing: Standing) -> Result<Arc<Grant>, KeysError> {
        let _turn = self.changing.lock().await;
        let mut ring = self.ring()?;
        let before = ring.get(id).ok_or_else(|| KeysError::UnknownGrant(id.to_owned()))?.clone();
        if before.revoked.is_some() {
            return Err(KeysError::Revoked(id.to_owned()));
        }
        let stepped = ring.stand(id, standing)?;
        let grant = stepped.ok_or(KeysError::Standing(before.standing.word(), standing.word()))?;
        self.commit(vec![put(&grant)], ring).await?;
        Ok(grant)
    }

    async fn rotate(&self, id: &str, slot: KeySlot) -> Result<Rotated, KeysError> {
        let _turn = self.changing.lock().await;
        let mut ring = self.ring()?;
        let grant = ring.get(id).ok_or_else(|| KeysError::UnknownGrant(id.to_owned()))?;
        if grant.managed_by_manifest {
            return Err(KeysError::Managed(id.to_owned()));
        }
        if grant.revoked.is_some() {
            return Err(KeysError::Revoked(id.to_owned()));
        }
        let secret = self.secret();
        let grant = ring.rotate(id, slot, self.hashed(&secret), self.state.clock().now())?;
        self.commit(vec![put(&grant)], ring).await?;
        Ok(Rotated { grant, secret })
    }

    async fn revoke(&self, id: &str) -> Result<Arc<Grant>, KeysError> {
        let _turn = self.changing.lock().await;
        let mut ring = self.ring()?;
        let grant = ring.revoke(id, self.state.clock().now())?;
        self.commit(vec![put(&grant)], ring).await?;
        Ok(grant)
    }

    async fn seed(&self, seeds: Vec<Seed>) -> Result<(), KeysError> {
        let _turn = self.changing.lock().await;
        let before = self.ring()?;
        let now = self.state.clock().now();
        let mut ring = before.clone();
        let mut rows = Vec::new();
        // All old seeds go first, so that two of them may change keys with each other.
        for old in before.list().filter(|grant| grant.managed_by_manifest) {
            ring.remove(&old.id);
            if seeds.iter().all(|seed| seed.name != old.id) {
                rows.push(Mutation::Delete { table: Table::System, key: key(&old.id) });
            }
        }
        for seed in &seeds {
            let old = before.get(&seed.name);
            if old.is_some_and(|old| !old.managed_by_manifest) {
                return Err(KeysError::Taken(format!("there is an api key `{}` already", seed.name)));
            }
            let grant = self.seeded(seed, old.map(|old| &**old), now);
            if old.is_none_or(|old| **old != grant) {
                rows.push(put(&grant));
            }
            ring.insert(grant)?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.commit(rows, ring).await
    }

    fn seeded(&self, seed: &Seed, old: Option<&Grant>, now: Timestamp) -> Grant {
        let primary = self.hashed(&seed.primary);
        let old = old.filter(|old| old.primary == primary.hash);
        let secondary = match (&seed.secondary, old) {
            (Some(secret), _) => self.hashed(secret),
            (None, Some(old)) => {
                let [_, hint] = old.hint.clone();
                HashedKey { hash: old.secondary, hint }
            }
            // Nobody knows this key, so there is nothing to show of it.
            (None, None) => HashedKey { hint: String::new(), ..self.hashed(&self.secret()) },
        };
        Grant {
            id: seed.name.clone(),
            scope: Scope::Product(seed.product.clone()),
            tenant: seed.tenant.clone(),
            standing: old.map_or(Standing::Active, |old| old.standing),
            primary: primary.hash,
            secondary: secondary.hash,
            hint: [primary.hint, secondary.hint],
            created: old.map_or(now, |old| old.created),
            expires: seed.expires,
            revoked: old.and_then(|old| old.revoked),
            rotated: old.and_then(|old| old.rotated),
            managed_by_manifest: true,
            used: old.map(|old| old.used.clone()).unwrap_or_default(),
        }
    }

    /// The ring to change: what the gateways have, or what the rows say after an unknown outcome.
    fn ring(&self) -> Result<KeyRing, KeysError> {
        if self.stale.load(Ordering::Acquire) {
            // Only a shard that takes writes again has its view brought up to its log.
            match self.shard.status().phase {
                Phase::Open | Phase::Full => {}
                Phase::ReadOnly | Phase::Unavailable | Phase::Closed => return Err(KeysError::Unavailable),
            }
            let ring = load(&self.shard).map_err(|_| KeysError::Unavailable)?;
            self.state.replace_ring(ring);
            self.stale.store(false, Ordering::Release);
        }
        Ok(KeyRing::clone(&self.state.ring()))
    }

    async fn commit(&self, rows: Vec<Mutation>, ring: KeyRing) -> Result<(), KeysError> {
        let reply = self.shard.commit(rows)?;
        let committed = match answer(reply, DEADLINE).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(KeysError::from(error)),
            Err(NoAnswer::TimedOut | NoAnswer::Closed) => Err(KeysError::Unknown),
        };
        match committed {
            Ok(()) => self.state.replace_ring(ring),
            Err(KeysError::Unknown) => self.stale.store(true, Ordering::Release),
            Err(_) => {}
        }
        committed
    }

    fn secret(&self) -> ApiKeySecret {
        ApiKeySecret::generate(self.random.bytes())
    }

    fn hashed(&self, secret: &ApiKeySecret) -> HashedKey {
        HashedKey::new(secret, self.state.pepper())
    }

    fn id(&self, now: Timestamp) -> String {
        let [a, b, c, d, e, f, g, h, i, j, ..] = self.random.bytes();
        let random = [a, b, c, d, e, f, g, h, i, j];
        uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid().to_string()
    }
}

fn key(id: &str) -> Bytes {
    [PREFIX, id.as_bytes()].concat().into()
}

fn put(grant: &Grant) -> Mutation {
    let row = Row { version: VERSION, grant: grant.clone() };
    // A grant has no map keys or floats that JSON could refuse.
    let value = serde_json::to_vec(&row).unwrap_or_default();
    Mutation::Put { table: Table::System, key: key(&grant.id), value: value.into() }
}

/// Reads all grants.
pub(super) fn load(shard: &ShardHandle) -> Result<KeyRing, GatewayOpenError> {
    let mut ring = KeyRing::default();
    let mut after: Option<Bytes> = None;
    loop {
        let view = shard.view()?;
        let rows = view.rows(Table::System, PREFIX, after.as_deref(), PAGE);
        let rows = rows.map_err(crate::shard::ShardReadError::from)?;
        let Some((last, _)) = rows.last() else { return Ok(ring) };
        after = Some(last.clone());
        for (id, value) in rows {
            let damaged = || GatewayOpenError::Grant(String::from_utf8_lossy(&id).into_owned());
            let row: Row = serde_json::from_slice(&value).map_err(|_| damaged())?;
            if row.version != VERSION {
                return Err(damaged());
            }
            ring.insert(row.grant)?;
        }
    }
}
