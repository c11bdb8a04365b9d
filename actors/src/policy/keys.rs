//! API keys: two per grant, found by their hash.
//!
//! Stands between the gateway's admission and the grants in the store. Invariant: both keys of a
//! grant work at all times unless the grant is revoked or expired, so that one can be rotated while
//! the other serves; and a hash belongs to one grant only.

mod secret;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::model::ids::{Name, TenantId};
use crate::model::time::Timestamp;

pub use secret::{ApiKeySecret, FOREIGN_LENGTH, InvalidKey, KeyHash, PREFIX, Pepper};

/// Permission for a tenant to call the APIs of a product, with two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Unique in the project.
    pub id: String,
    /// What may be called.
    #[serde(flatten)]
    pub scope: Scope,
    /// Who calls.
    pub tenant: TenantId,
    /// Whether it may be used, apart from its times.
    #[serde(default)]
    pub standing: Standing,
    /// Hash of the first key.
    pub primary: KeyHash,
    /// Hash of the second key.
    pub secondary: KeyHash,
    /// The first characters of both keys, see [`ApiKeySecret::hint`].
    pub hint: [String; 2],
    /// When the grant was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// When it was revoked: refused for ever.
    pub revoked: Option<Timestamp>,
    /// When a key was last changed.
    pub rotated: Option<Timestamp>,
    /// Made from the manifest, and removed with it; others are made at run time.
    pub managed_by_manifest: bool,
    /// When it last admitted a call.
    #[serde(skip)]
    pub used: LastUsed,
}

/// What the keys of a grant open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The APIs of a product, on its terms.
    Product(Name),
    /// One API, on the terms of no product.
    Api(Name),
    /// Every API, on the terms of no product.
    AllApis,
    /// Everything that keys open, on the terms of no product: for the operator's own use.
    AllAccess,
}

impl Scope {
    /// The product on whose terms is called, if there is one.
    pub fn product(&self) -> Option<&Name> {
        match self {
            Self::Product(product) => Some(product),
            Self::Api(_) | Self::AllApis | Self::AllAccess => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product(name) => write!(f, "product {name}"),
            Self::Api(name) => write!(f, "api {name}"),
            Self::AllApis => f.write_str("all apis"),
            Self::AllAccess => f.write_str("all access"),
        }
    }
}

/// Whether a grant may be used, as far as people decide it. Only an active one admits calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may.
    #[default]
    Active,
    /// It waits for an approval.
    Submitted,
    /// The approval was refused.
    Rejected,
    /// It may not for now.
    Suspended,
}

impl Standing {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Submitted => "submitted",
            Self::Rejected => "rejected",
            Self::Suspended => "suspended",
        }
    }

    /// Whether a grant may go from here to there: what waits is approved or rejected, and what runs is suspended and
    /// resumed.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Submitted, Self::Active | Self::Rejected)
            | (Self::Active, Self::Suspended)
            | (Self::Suspended, Self::Active) => true,
            (Self::Submitted, Self::Submitted | Self::Suspended)
            | (Self::Active, Self::Active | Self::Submitted | Self::Rejected)
            | (Self::Suspended, Self::Suspended | Self::Submitted | Self::Rejected)
            | (Self::Rejected, _) => false,
        }
    }
}

/// When a grant last admitted a call, shared by all copies of the grant. Two grants are equal whenever it was.
#[derive(Debug, Clone, Default)]
pub struct LastUsed(Arc<AtomicU64>);

impl LastUsed {
    /// Notes a call.
    pub fn note(&self, now: Timestamp) {
        self.0.fetch_max(now.0, Ordering::Relaxed);
    }

    /// When it was, if anybody knows.
    pub fn get(&self) -> Option<Timestamp> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp)
    }
}

impl PartialEq for LastUsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LastUsed {}

/// One of the two keys of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySlot {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}

/// What is kept of a key when it takes a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedKey {
    /// Its hash.
    pub hash: KeyHash,
    /// Its first characters.
    pub hint: String,
}

impl HashedKey {
    /// What is kept of this secret.
    pub fn new(secret: &ApiKeySecret, pepper: &Pepper) -> Self {
        Self { hash: pepper.hash(secret.expose()), hint: secret.hint() }
    }
}

/// Why a key does not admit its caller. Callers of the gateway see one answer for all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// No grant has this key.
    #[error("no grant has this api key")]
    Unknown,
    /// The grant's time is over.
    #[error("the api key has expired")]
    Expired,
    /// The grant was revoked.
    #[error("the api key was revoked")]
    Revoked,
    /// The grant does not work now.
    #[error("the api key is {}", .0.word())]
    Inactive(Standing),
}

/// Why the key ring was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// There is no such grant.
    #[error("there is no grant `{0}`")]
    UnknownGrant(String),
    /// One key cannot belong to two grants.
    #[error("the api key already belongs to the grant `{0}`")]
    KeyTaken(String),
}

impl Grant {
    /// Whether the grant admits calls at this time.
    pub fn admits(&self, now: Timestamp) -> Result<(), KeyRefused> {
        if self.revoked.is_some() {
            return Err(KeyRefused::Revoked);
        }
        if self.expires.is_some_and(|at| now >= at) {
            return Err(KeyRefused::Expired);
        }
        match self.standing {
            Standing::Active => Ok(()),
            other @ (Standing::Submitted | Standing::Rejected | Standing::Suspended) => {
                Err(KeyRefused::Inactive(other))
            }
        }
    }

    /// This grant with another key in a slot; the other slot is untouched.
    #[must_use]
    pub fn rotated(mut self, slot: KeySlot, key: HashedKey, now: Timestamp) -> Self {
        let [first, second] = &mut self.hint;
        match slot {
            KeySlot::Primary => (self.primary, *first) = (key.hash, key.hint),
            KeySlot::Secondary => (self.secondary, *second) = (key.hash, key.hint),
        }
        self.rotated = Some(now);
        self
    }
}

/// All grants, indexed by the hashes of their keys. Cheap to clone for a new snapshot.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    grants: BTreeMap<String, Arc<Grant>>,
    by_hash: HashMap<KeyHash, Arc<Grant>>,
}

impl KeyRing {
    /// The grant that a key belongs to, if it admits calls at this time.
    pub fn lookup(&self, hash: &KeyHash, now: Timestamp) -> Result<&Arc<Grant>, KeyRefused> {
        let grant = self.by_hash.get(hash).ok_or(KeyRefused::Unknown)?;
        grant.admits(now)?;
        Ok(grant)
    }

    /// Adds a grant, or replaces the one with the same id. Changes nothing on error.
    pub fn insert(&mut self, grant: Grant) -> Result<(), KeyRingError> {
        for hash in [&grant.primary, &grant.secondary] {
            if let Some(owner) = self.by_hash.get(hash).filter(|owner| owner.id != grant.id) {
                return Err(KeyRingError::KeyTaken(owner.id.clone()));
            }
        }
        self.remove(&grant.id);
        let grant = Arc::new(grant);
        self.by_hash.insert(grant.primary, Arc::clone(&grant));
        self.by_hash.insert(grant.secondary, Arc::clone(&grant));
        self.grants.insert(grant.id.clone(), grant);
        Ok(())
    }

    /// Takes a grant out; its keys become unknown.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Grant>> {
        let grant = self.grants.remove(id)?;
        self.by_hash.remove(&grant.primary);
        self.by_hash.remove(&grant.secondary);
        Some(grant)
    }

    /// Puts another key into a slot of a grant. The old key is refused from now on, the key in the
    /// other slot stays valid. Returns the grant as it is to be stored.
    pub fn rotate(
        &mut self,
        id: &str,
        slot: KeySlot,
        key: HashedKey,
        now: Timestamp,
    ) -> Result<Arc<Grant>, KeyRingError> {
        let next = self.find(id)?.rotated(slot, key, now);
        self.insert(next)?;
        self.find(id).map(Arc::new)
    }

    /// Refuses both keys of a grant for ever, but keeps it in the list. Returns the grant as it is to
    /// be stored. A grant that was revoked before keeps its time.
    pub fn revoke(&mut self, id: &str, now: Timestamp) -> Result<Arc<Grant>, KeyRingError> {
        let grant = self.find(id)?;
        let revoked = grant.revoked.or(Some(now));
        self.insert(Grant { revoked, ..grant })?;
        self.find(id).map(Arc::new)
    }

    /// Gives a grant another standing. Returns the grant as it is to be stored, or `None` when there is no way from
    /// where it is.
    pub fn stand(&mut self, id: &str, standing: Standing) -> Result<Option<Arc<Grant>>, KeyRingError> {
        let grant = self.find(id)?;
        if grant.revoked.is_some() || !grant.standing.may_become(standing) {
            return Ok(None);
        }
        self.insert(Grant { standing, ..grant })?;
        self.find(id).map(Arc::new).map(Some)
    }

    /// One grant.
    pub fn get(&self, id: &str) -> Option<&Arc<Grant>> {
        self.grants.get(id)
    }

    /// All grants, by id.
    pub fn list(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.grants.values()
    }

    /// Number of grants.
    pub fn len(&self) -> usize {
        self.grants.len()
    }

    /// Whether there is no grant.
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    fn find(&self, id: &str) -> Result<Grant, KeyRingError> {
        let grant = self.grants.get(id).ok_or_else(|| KeyRingError::UnknownGrant(id.to_owned()))?;
        Ok(Grant::clone(grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn pepper() -> Pepper {
        Pepper::new([3; 32])
    }

    fn secret(seed: u8) -> ApiKeySecret {
        ApiKeySecret::generate([seed; 32])
    }

    fn hashed(seed: u8) -> HashedKey {
        HashedKey::new(&secret(seed), &pepper())
    }

    fn grant(id: &str, primary: u8, secondary: u8) -> Grant {
        let (primary, secondary) = (hashed(primary), hashed(secondary));
        Grant {
            id: id.to_owned(),
            scope: Scope::Product("carrier".into()),
            tenant: TenantId::new("acme").unwrap(),
            standing: Standing::Active,
            primary: primary.hash,
            secondary: secondary.hash,
            hint: [primary.hint, secondary.hint],
            created: Timestamp(0),
            expires: None,
            revoked: None,
            rotated: None,
            managed_by_manifest: false,
            used: LastUsed::default(),
        }
    }

    fn ring() -> KeyRing {
        let mut ring = KeyRing::default();
        ring.insert(grant("b", 1, 2)).unwrap();
        ring.insert(grant("a", 3, 4)).unwrap();
        ring
    }

    fn who(ring: &KeyRing, seed: u8) -> Result<&str, KeyRefused> {
        ring.lookup(&hashed(seed).hash, NOW).map(|grant| grant.id.as_str())
    }

    #[test]
    fn both_keys_of_a_grant_admit() {
        let ring = ring();
        for (seed, expected) in
            [(1, Ok("b")), (2, Ok("b")), (3, Ok("a")), (4, Ok("a")), (5, Err(KeyRefused::Unknown))]
        {
            assert_eq!(who(&ring, seed), expected, "{seed}");
        }
        assert_eq!(ring.list().map(|grant| grant.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(ring.get("a").unwrap().id, "a");
        assert_eq!((ring.len(), ring.is_empty()), (2, false));
    }

    #[test]
    fn rotating_one_key_leaves_the_other_valid() {
        for (slot, gone, stays) in [(KeySlot::Primary, 1, 2), (KeySlot::Secondary, 2, 1)] {
            let mut ring = ring();
            let stored = ring.rotate("b", slot, hashed(9), NOW).unwrap();
            assert_eq!(who(&ring, gone), Err(KeyRefused::Unknown));
            assert_eq!(who(&ring, stays), Ok("b"));
            assert_eq!(who(&ring, 9), Ok("b"));
            assert_eq!(stored.rotated, Some(NOW));
            assert!(stored.hint.contains(&secret(9).hint()));
            assert!(stored.hint.contains(&secret(stays).hint()));
            assert_eq!(ring.len(), 2);
        }
    }

    #[test]
    fn expired_and_revoked_keys_are_refused() {
        let mut ring = ring();
        ring.insert(Grant { expires: Some(NOW), ..grant("a", 3, 4) }).unwrap();
        assert_eq!(who(&ring, 3), Err(KeyRefused::Expired));
        let before = Timestamp(NOW.0 - 1);
        assert!(ring.lookup(&hashed(3).hash, before).is_ok());
        assert_eq!(ring.revoke("a", before).unwrap().revoked, Some(before));
        assert_eq!(ring.revoke("a", NOW).unwrap().revoked, Some(before));
        assert_eq!(who(&ring, 3), Err(KeyRefused::Revoked));
        assert_eq!(who(&ring, 4), Err(KeyRefused::Revoked));
        assert_eq!(ring.lookup(&hashed(3).hash, Timestamp(0)), Err(KeyRefused::Revoked));
        assert_eq!(who(&ring, 1), Ok("b"));
    }

    #[test]
    fn a_removed_grant_leaves_no_key_behind() {
        let mut ring = ring();
        assert!(ring.remove("b").is_some());
        assert!(ring.remove("b").is_none());
        assert_eq!(who(&ring, 1), Err(KeyRefused::Unknown));
        assert_eq!(who(&ring, 2), Err(KeyRefused::Unknown));
        assert_eq!(who(&ring, 3), Ok("a"));
        ring.insert(grant("a", 5, 6)).unwrap();
        assert_eq!(who(&ring, 3), Err(KeyRefused::Unknown));
        assert_eq!(who(&ring, 6), Ok("a"));
        assert_eq!(ring.by_hash.len(), 2);
    }

    #[test]
    fn a_key_belongs_to_one_grant_only() {
        let mut ring = ring();
        let taken = Err(KeyRingError::KeyTaken("b".to_owned()));
        assert_eq!(ring.insert(grant("c", 7, 1)), taken);
        assert_eq!(ring.rotate("a", KeySlot::Primary, hashed(2), NOW).map(drop), taken);
        assert_eq!(who(&ring, 7), Err(KeyRefused::Unknown));
        assert_eq!(who(&ring, 3), Ok("a"));
        let unknown = KeyRingError::UnknownGrant("x".to_owned());
        assert_eq!(ring.rotate("x", KeySlot::Primary, hashed(9), NOW), Err(unknown.clone()));
        assert_eq!(ring.revoke("x", NOW), Err(unknown));
    }

    #[test]
    fn a_grant_survives_its_encoding() {
        for scope in [Scope::Product("p".into()), Scope::Api("a".into()), Scope::AllApis, Scope::AllAccess] {
            for standing in [Standing::Active, Standing::Submitted, Standing::Rejected, Standing::Suspended] {
                let grant = Grant { scope: scope.clone(), standing, ..grant("a", 1, 2) };
                let stored = serde_json::to_string(&grant).unwrap();
                assert_eq!(serde_json::from_str::<Grant>(&stored).unwrap(), grant, "{stored}");
            }
        }
    }

    #[test]
    fn only_an_active_grant_admits_and_people_change_its_standing_step_by_step() {
        use Standing::{Active, Rejected, Submitted, Suspended};
        let all = [Active, Submitted, Rejected, Suspended];
        for standing in all {
            let admits = Grant { standing, ..grant("a", 1, 2) }.admits(NOW);
            assert_eq!(admits.is_ok(), standing == Active, "{standing:?}");
        }
        let steps = all.into_iter().flat_map(|from| all.map(|to| (from, to)));
        let allowed: Vec<_> = steps.filter(|(from, to)| from.may_become(*to)).collect();
        let expected = [(Active, Suspended), (Submitted, Active), (Submitted, Rejected), (Suspended, Active)];
        assert_eq!(allowed, expected);
    }

    #[test]
    fn nothing_prints_or_stores_a_key() {
        let ring = ring();
        let stored = serde_json::to_string(&**ring.get("b").unwrap()).unwrap();
        let printed = format!("{ring:?} {:?} {stored}", hashed(1));
        for seed in [1, 2, 3, 4] {
            let key = secret(seed);
            assert!(!printed.contains(key.expose()));
            assert!(!printed.contains(&key.expose()[..12]));
        }
    }
}
