//! Admission and keys over a real shard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::kernel::clock::{ManualClock, SystemClock};
use crate::model::ids::{Name, ShardId, TenantId};
use crate::model::time::Timestamp;
use crate::policy::keys::{ApiKeySecret, KeySlot};
use crate::policy::rate::Rate;
use crate::protocol::gateway::{Call, Credential, Refused};
use crate::shard::{Fatal, Shard, ShardHandle, ShardSettings};

const SECOND: Duration = Duration::from_secs(1);

struct House {
    folder: tempfile::TempDir,
    shard: ShardHandle,
    clock: Arc<ManualClock>,
    state: Arc<GatewayState>,
    keys: KeysHandle,
    gateway: GatewayHandle,
}

fn settings() -> GatewaySettings {
    let product = |apis: &[&str], calls: Option<u32>| ProductRules {
        apis: apis.iter().map(|api| Name::from(*api)).collect(),
        rate: calls.map(|calls| Rate::new(calls, SECOND).unwrap()),
    };
    GatewaySettings {
        products: BTreeMap::from([
            ("carrier".into(), product(&["freight", "poison"], Some(2))),
            ("shipper".into(), product(&["tracking"], None)),
        ]),
        auth_failures: Rate::new(3, 3 * SECOND).unwrap(),
        rate_keys: 1_000,
        requests_in_flight: 16,
    }
}

fn shard(folder: &Path, new: bool) -> ShardHandle {
    let settings = ShardSettings::default();
    let opened = if new { Shard::create } else { Shard::open };
    let fatal: Fatal = Arc::new(|text| panic!("{text}"));
    opened(ShardId(0), &folder.join("shard"), settings).unwrap().start(SystemClock::shared(), fatal).unwrap()
}

fn house_in(folder: tempfile::TempDir, new: bool) -> Result<House, GatewayOpenError> {
    let shard = shard(folder.path(), new);
    let clock = ManualClock::at(Timestamp(1_700_000_000_000));
    let (state, keys) =
        open(folder.path(), shard.clone(), settings(), clock.clone(), SystemRandom::shared())?;
    let gateway = GatewayHandle::start(state.clone());
    Ok(House { folder, shard, clock, state, keys, gateway })
}

fn house() -> House {
    house_in(tempfile::tempdir().unwrap(), true).unwrap()
}

impl House {
    async fn reopened(self) -> Result<House, GatewayOpenError> {
        let folder = self.closed().await;
        house_in(folder, false)
    }

    async fn closed(self) -> tempfile::TempDir {
        self.shard.drain().await;
        self.folder
    }

    async fn admit_for(&self, api: &str, key: &str) -> Result<super::Admitted, Refused> {
        let credential = Some(Credential::new(key)).filter(|_| !key.is_empty());
        self.gateway.admit(Call { credential, ip: [192, 0, 2, 1].into(), api: api.into() }).await
    }

    async fn admit(&self, key: &ApiKeySecret) -> Result<super::Admitted, Refused> {
        self.admit_for("freight", key.expose()).await
    }

    async fn issue(&self) -> Issued {
        self.keys.issue(new_grant("carrier", None)).await.unwrap()
    }
}

fn new_grant(product: &str, expires: Option<Timestamp>) -> NewGrant {
    NewGrant { product: product.into(), tenant: TenantId::new("acme").unwrap(), expires }
}

fn seed(name: &str, key: &str) -> Seed {
    Seed {
        name: name.to_owned(),
        product: "carrier".into(),
        tenant: TenantId::new("acme").unwrap(),
        primary: ApiKeySecret::parse_foreign(key).unwrap(),
        secondary: None,
        expires: None,
    }
}

#[actix::test]
async fn both_keys_of_a_grant_admit_its_tenant_and_survive_a_restart() {
    let house = house();
    let issued = house.issue().await;
    for key in [&issued.primary, &issued.secondary] {
        let admitted = house.admit(key).await.unwrap();
        assert_eq!((admitted.tenant.as_str(), &*admitted.product), ("acme", "carrier"));
        assert_eq!(*admitted.grant, *issued.grant.id);
    }
    let house = house.reopened().await.unwrap();
    assert!(house.admit(&issued.primary).await.is_ok());
    assert_eq!(house.keys.list(), [issued.grant]);
}

#[actix::test]
async fn no_key_and_any_wrong_key_are_refused_without_a_hint() {
    let house = house();
    let other = house.keys.issue(new_grant("shipper", None)).await.unwrap();
    let unknown = ApiKeySecret::generate([1; 32]);
    for (key, expected) in [
        ("", Refused::MissingKey),
        ("lk_mistyped", Refused::InvalidKey),
        (unknown.expose(), Refused::InvalidKey),
        (other.primary.expose(), Refused::InvalidKey),
    ] {
        let refused = house.admit_for("freight", key).await.unwrap_err();
        assert_eq!(refused, expected, "{key}");
        assert!(!format!("{refused:?} {refused}").contains(&key[..key.len().min(8)]) || key.is_empty());
    }
    assert!(house.admit_for("tracking", other.primary.expose()).await.is_ok());
}

#[actix::test]
async fn expired_and_revoked_keys_say_so() {
    let house = house();
    let soon = Timestamp(1_700_000_001_000);
    let expiring = house.keys.issue(new_grant("carrier", Some(soon))).await.unwrap();
    assert!(house.admit(&expiring.primary).await.is_ok());
    house.clock.advance(SECOND);
    assert_eq!(house.admit(&expiring.primary).await.unwrap_err(), Refused::ExpiredKey);
    let past = house.keys.issue(new_grant("carrier", Some(soon))).await;
    assert_eq!(past.unwrap_err(), KeysError::Expired);
    let revoked = house.issue().await;
    house.keys.revoke(&revoked.grant.id).await.unwrap();
    assert_eq!(house.admit(&revoked.secondary).await.unwrap_err(), Refused::RevokedKey);
    let rotated = house.keys.rotate(&revoked.grant.id, KeySlot::Primary).await;
    assert_eq!(rotated.unwrap_err(), KeysError::Revoked(revoked.grant.id.clone()));
    let house = house.reopened().await.unwrap();
    assert_eq!(house.admit(&revoked.primary).await.unwrap_err(), Refused::RevokedKey);
}

#[actix::test]
async fn rotating_one_key_leaves_the_other_valid() {
    let house = house();
    let issued = house.issue().await;
    let rotated = house.keys.rotate(&issued.grant.id, KeySlot::Primary).await.unwrap();
    assert_eq!(house.admit(&issued.primary).await.unwrap_err(), Refused::InvalidKey);
    assert!(house.admit(&issued.secondary).await.is_ok());
    assert!(house.admit(&rotated.secret).await.is_ok());
    let house = house.reopened().await.unwrap();
    assert_eq!(house.admit(&issued.primary).await.unwrap_err(), Refused::InvalidKey);
    assert!(house.admit(&rotated.secret).await.is_ok());
}

#[actix::test]
async fn a_refused_call_costs_nothing_and_both_keys_share_one_rate() {
    let house = house();
    let issued = house.issue().await;
    let first = house.admit(&issued.primary).await.unwrap().rate.unwrap();
    assert_eq!((first.admission.limit, first.admission.remaining), (2, 1));
    assert!(house.admit(&issued.secondary).await.is_ok());
    for _ in 0..10 {
        let refused = house.admit(&issued.primary).await.unwrap_err();
        let Refused::RateLimited(rated) = refused else { panic!("{refused:?}") };
        assert_eq!(rated.admission.retry_after, Duration::from_millis(500));
    }
    house.clock.advance(Duration::from_millis(500));
    assert!(house.admit(&issued.primary).await.is_ok());
    let status = house.state.status();
    assert_eq!(status.admitted, 3);
    assert!(status.refused.contains(&("rate_limited", 10)));
    assert_eq!(status.in_flight, 0);
}

#[actix::test]
async fn guessing_keys_is_stopped_before_the_key_is_looked_at() {
    let house = house();
    let issued = house.issue().await;
    for _ in 0..3 {
        assert_eq!(house.admit_for("freight", "lk_guess").await.unwrap_err(), Refused::InvalidKey);
    }
    let refused = house.admit_for("freight", "lk_guess").await.unwrap_err();
    assert_eq!(refused, Refused::TooManyFailures { retry_after: SECOND });
    let refused = house.admit(&issued.primary).await.unwrap_err();
    assert_eq!(refused, Refused::TooManyFailures { retry_after: SECOND });
    house.clock.advance(SECOND);
    assert!(house.admit(&issued.primary).await.is_ok());
}

#[actix::test]
async fn places_are_bounded_and_one_tenant_cannot_take_them_all() {
    let house = house();
    let loud = house.keys.issue(new_grant("shipper", None)).await.unwrap();
    let quiet = NewGrant { tenant: TenantId::new("quiet").unwrap(), ..new_grant("shipper", None) };
    let quiet = house.keys.issue(quiet).await.unwrap();
    let mut held = Vec::new();
    while let Ok(admitted) = house.admit_for("tracking", loud.primary.expose()).await {
        held.push(admitted);
    }
    assert_eq!(held.len(), 14);
    for _ in 0..2 {
        held.push(house.admit_for("tracking", quiet.primary.expose()).await.unwrap());
    }
    let refused = house.admit_for("tracking", quiet.primary.expose()).await.unwrap_err();
    assert_eq!(refused, Refused::Overloaded { retry_after: SECOND });
    held.clear();
    assert!(house.admit_for("tracking", loud.primary.expose()).await.is_ok());
}

#[actix::test]
async fn a_panic_while_admitting_costs_one_call() {
    fail::cfg("gateway::admit", "panic").unwrap();
    let house = house();
    let issued = house.issue().await;
    for restarts in 1..4 {
        let poisoned = house.admit_for("poison", issued.primary.expose()).await;
        assert_eq!(poisoned.unwrap_err(), Refused::Crashed);
        house.clock.advance(SECOND);
        assert!(house.admit(&issued.primary).await.is_ok());
        assert_eq!(house.state.status().restarts, restarts);
        assert_eq!(house.state.status().in_flight, 0);
    }
}

#[actix::test]
async fn a_damaged_pepper_stops_the_start() {
    let house = house();
    house.issue().await;
    let folder = house.closed().await;
    std::fs::write(folder.path().join("pepper"), b"short").unwrap();
    let damaged = house_in(folder, false);
    assert!(matches!(damaged, Err(GatewayOpenError::PepperDamaged(_))));
}

#[actix::test]
async fn a_lost_pepper_is_never_replaced_while_there_are_keys() {
    let house = house();
    house.issue().await;
    let folder = house.closed().await;
    let pepper = folder.path().join("pepper");
    std::fs::remove_file(&pepper).unwrap();
    let path = folder.path().to_owned();
    let missing = house_in(folder, false);
    assert!(matches!(missing, Err(GatewayOpenError::PepperMissing(_))));
    assert!(!path.join("pepper").exists());
}

#[actix::test]
async fn seeds_follow_the_manifest_and_a_revoked_one_stays_revoked() {
    let house = house();
    let (a, b) = ("first-key-0123456789", "second-key-0123456789");
    house.keys.seed(vec![seed("a", a), seed("b", b)]).await.unwrap();
    assert!(house.admit_for("freight", a).await.is_ok());
    let group = house.shard.status().groups;
    house.keys.seed(vec![seed("a", a), seed("b", b)]).await.unwrap();
    assert_eq!(house.shard.status().groups, group, "nothing changed, so nothing was written");
    house.keys.revoke("a").await.unwrap();
    let rotated = house.keys.rotate("b", KeySlot::Primary).await;
    assert_eq!(rotated.unwrap_err(), KeysError::Managed("b".to_owned()));
    let house = house.reopened().await.unwrap();
    house.keys.seed(vec![seed("a", a), seed("c", b)]).await.unwrap();
    assert_eq!(house.admit_for("freight", a).await.unwrap_err(), Refused::RevokedKey);
    assert_eq!(&*house.admit_for("freight", b).await.unwrap().grant, "c");
    let ids: Vec<_> = house.keys.list().iter().map(|grant| grant.id.clone()).collect();
    assert_eq!(ids, ["a", "c"]);
    house.keys.seed(vec![seed("a", b), seed("c", a)]).await.unwrap();
    assert_eq!(&*house.admit_for("freight", b).await.unwrap().grant, "a");
    let house = house.reopened().await.unwrap();
    assert_eq!(&*house.admit_for("freight", a).await.unwrap().grant, "c");
}

#[actix::test]
async fn two_grants_cannot_have_one_key() {
    let house = house();
    let key = "first-key-0123456789";
    let taken = house.keys.seed(vec![seed("a", key), seed("b", key)]).await;
    assert!(matches!(taken, Err(KeysError::Taken(_))));
    assert!(house.keys.list().is_empty(), "nothing was changed");
    let unknown = house.keys.issue(new_grant("nothing", None)).await;
    assert_eq!(unknown.unwrap_err(), KeysError::UnknownProduct("nothing".into()));
    assert_eq!(house.keys.revoke("x").await.unwrap_err(), KeysError::UnknownGrant("x".to_owned()));
}

#[actix::test]
async fn nothing_stored_contains_a_key() {
    let house = house();
    let issued = house.issue().await;
    let folder = house.closed().await;
    let mut files = vec![folder.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for key in [&issued.primary, &issued.secondary] {
            let tail = &key.expose().as_bytes()[8..40];
            assert!(!bytes.windows(tail.len()).any(|window| window == tail), "{}", path.display());
        }
    }
}
