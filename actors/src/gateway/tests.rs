//! Admission and keys over a real shard.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::kernel::clock::{Clock, ManualClock, SystemClock};
use crate::model::ids::{Name, ShardId, TenantId};
use crate::model::time::Timestamp;
use crate::policy::keys::{ApiKeySecret, KeySlot};
use crate::policy::keys::{Scope, Standing};
use crate::policy::limits::{Algorithm, By, Limit};
use crate::policy::permits::Shedding;
use crate::policy::quota::{Period, Quota, Resource};
use crate::policy::rate::Rate;
use crate::policy::terms::{ApiRules, KeyRule, ProductRules, QuotaRule};
use crate::protocol::gateway::{Admitted, Call, Credential, Door, Entry, Refused};
use crate::shard::{Fatal, Shard, ShardHandle, ShardSettings};

const SECOND: Duration = Duration::from_secs(1);

struct House {
    folder: tempfile::TempDir,
    shard: ShardHandle,
    clock: Arc<ManualClock>,
    state: Arc<GatewayState>,
    keys: KeysHandle,
    gateway: GatewayHandle,
    ledger: LedgerHandle,
}

fn limit(name: &str, calls: u32) -> Limit {
    let rate = Rate::new(calls, SECOND).unwrap();
    Limit { name: name.into(), rate, algorithm: Algorithm::TokenBucket, by: By::ApiKey }
}

fn product(apis: &[&str]) -> ProductRules {
    ProductRules { apis: apis.iter().map(|api| Name::from(*api)).collect(), ..ProductRules::default() }
}

fn settings() -> GatewaySettings {
    let carrier = ProductRules { limits: vec![limit("carrier", 2)], ..product(&["freight", "poison"]) };
    GatewaySettings {
        products: BTreeMap::from([("carrier".into(), carrier), ("shipper".into(), product(&["tracking"]))]),
        apis: BTreeMap::new(),
        auth_failures: (Rate::new(3, 3 * SECOND).unwrap(), Rate::new(1_000, SECOND).unwrap()),
        rate_keys: 1_000,
        requests_in_flight: 16,
        requests_waiting: 0,
        wait: Duration::ZERO,
        shedding: Shedding { normal_percent: 100, low_percent: 100 },
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
    let random = SystemRandom::shared();
    let (state, keys) = open(folder.path(), shard.clone(), settings(), clock.clone(), random.clone())?;
    let gateway = GatewayHandle::start(state.clone());
    let ledger = LedgerHandle::open(state.clone(), shard.clone(), random)?;
    Ok(House { folder, shard, clock, state, keys, gateway, ledger })
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

    async fn admit_for(&self, api: &str, key: &str) -> Result<Admitted, Refused> {
        let credential = Some(Credential::new(key)).filter(|_| !key.is_empty());
        self.call(api, credential).await
    }

    async fn call(&self, api: &str, credential: Option<Credential>) -> Result<Admitted, Refused> {
        let ip = [192, 0, 2, 1].into();
        let (terms, grant) = match self.gateway.identify(Call { credential, ip, api: api.into() }).await? {
            Door::Key(terms, grant) => (terms, Some(grant)),
            Door::Open(open) => (open[0].clone(), None),
        };
        let tenant = grant.as_ref().map_or_else(TenantId::anonymous, |grant| grant.tenant.clone());
        let (api, operation) = (api.into(), "get".into());
        let (headers, claims) = (Vec::new(), Vec::new());
        let entry = Entry { terms, grant, tenant, api, operation, ip, headers, claims, bytes: 0 };
        self.gateway.admit(entry).await
    }

    fn apply(&self, change: impl FnOnce(&mut GatewaySettings)) {
        let mut settings = settings();
        change(&mut settings);
        self.ledger.apply(&settings).unwrap();
    }

    async fn admit(&self, key: &ApiKeySecret) -> Result<Admitted, Refused> {
        self.admit_for("freight", key.expose()).await
    }

    async fn issue(&self) -> Issued {
        self.keys.issue(new_grant("carrier", None)).await.unwrap()
    }
}

fn new_grant(product: &str, expires: Option<Timestamp>) -> NewGrant {
    let scope = Scope::Product(product.into());
    NewGrant { scope, tenant: TenantId::new("acme").unwrap(), expires, submitted: false }
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
        assert_eq!((admitted.tenant.as_str(), admitted.product.as_deref()), ("acme", Some("carrier")));
        assert_eq!(admitted.grant.as_deref(), Some(&*issued.grant.id));
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
    let first = house.admit(&issued.primary).await.unwrap().judged.pop().unwrap();
    assert_eq!((first.admission.limit, first.admission.remaining), (2, 1));
    assert!(house.admit(&issued.secondary).await.is_ok());
    for _ in 0..10 {
        let refused = house.admit(&issued.primary).await.unwrap_err();
        let Refused::RateLimited(rated) = refused else { panic!("{refused:?}") };
        assert_eq!(rated.retry_after, Duration::from_millis(500));
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
    assert_eq!(house.admit_for("freight", b).await.unwrap().grant.as_deref().unwrap(), "c");
    let ids: Vec<_> = house.keys.list().iter().map(|grant| grant.id.clone()).collect();
    assert_eq!(ids, ["a", "c"]);
    house.keys.seed(vec![seed("a", b), seed("c", a)]).await.unwrap();
    assert_eq!(house.admit_for("freight", b).await.unwrap().grant.as_deref().unwrap(), "a");
    let house = house.reopened().await.unwrap();
    assert_eq!(house.admit_for("freight", a).await.unwrap().grant.as_deref().unwrap(), "c");
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

/// What a caller may be told.
fn told(result: &Result<Admitted, Refused>) -> &'static str {
    match result {
        Ok(admitted) if admitted.product.is_some() => "in product",
        Ok(_) => "in api",
        Err(refused) => refused.reason(),
    }
}

#[actix::test]
async fn the_key_matrix_holds_in_all_24_cases() {
    let house = house();
    let grant = |scope| NewGrant { scope, ..new_grant("shipper", None) };
    let scopes = [
        Scope::Product("carrier".into()),
        Scope::Api("freight".into()),
        Scope::AllApis,
        Scope::AllAccess,
        Scope::Product("shipper".into()),
    ];
    let mut keys = Vec::new();
    house.apply(|settings| {
        settings.apis.insert("freight".into(), ApiRules::default());
    });
    for scope in scopes {
        keys.push(house.keys.issue(grant(scope)).await.unwrap().primary.expose().to_owned());
    }
    keys.push(String::new());
    // Whether the API is in a product without key, whether it wants a key itself; then what holds for a key of its
    // product, of itself, of all APIs, of everything, of another product, and for none.
    let rows = [
        (false, true, ["in product", "in api", "in api", "in api", "invalid_key", "missing_key"]),
        (false, false, ["in product", "in api", "in api", "in api", "invalid_key", "in api"]),
        (true, true, ["in product", "in api", "in api", "in api", "invalid_key", "in product"]),
        (true, false, ["in product", "in api", "in api", "in api", "invalid_key", "in product"]),
    ];
    for (in_open, wants_key, expected) in rows {
        house.apply(|settings| {
            if let Some(carrier) = settings.products.get_mut("carrier") {
                carrier.limits.clear();
            }
            settings.apis.insert("freight".into(), ApiRules { open: !wants_key, ..ApiRules::default() });
            if in_open {
                let open = ProductRules { key: KeyRule::None, ..product(&["freight"]) };
                settings.products.insert("anyone".into(), open);
            }
        });
        for (key, expected) in keys.iter().zip(expected) {
            // Refused keys of one address are counted, which is another promise.
            house.clock.advance(10 * SECOND);
            let result = house.admit_for("freight", key).await;
            assert_eq!(told(&result), expected, "open product {in_open}, key wanted {wants_key}");
        }
    }
}

#[actix::test]
async fn only_active_keys_admit_and_an_approval_makes_one_active() {
    let house = house();
    house.apply(|settings| {
        let carrier = settings.products.get_mut("carrier").unwrap();
        (carrier.approval, carrier.grants_per_tenant) = (true, Some(2));
        carrier.limits.clear();
    });
    let waits = NewGrant { submitted: true, ..new_grant("carrier", None) };
    let issued = house.keys.issue(waits.clone()).await.unwrap();
    let id = issued.grant.id.as_str();
    let refused = |standing| Some(Refused::InactiveKey(standing));
    assert_eq!(house.admit(&issued.primary).await.err(), refused(Standing::Submitted));
    house.keys.stand(id, Standing::Active).await.unwrap();
    assert!(house.admit(&issued.primary).await.is_ok());
    house.keys.stand(id, Standing::Suspended).await.unwrap();
    assert_eq!(house.admit(&issued.secondary).await.err(), refused(Standing::Suspended));
    house.clock.advance(10 * SECOND);
    let wrong = house.keys.stand(id, Standing::Rejected).await;
    assert_eq!(wrong.unwrap_err(), KeysError::Standing("suspended", "rejected"));
    house.keys.stand(id, Standing::Active).await.unwrap();
    assert!(house.admit(&issued.primary).await.is_ok());
    let second = house.keys.issue(waits.clone()).await.unwrap();
    house.keys.stand(&second.grant.id, Standing::Rejected).await.unwrap();
    assert_eq!(house.admit(&second.primary).await.err(), refused(Standing::Rejected));
    house.keys.issue(waits.clone()).await.unwrap();
    assert_eq!(house.keys.issue(waits).await.unwrap_err(), KeysError::TooMany(2));
}

#[actix::test]
async fn a_key_in_the_query_opens_only_what_allows_it() {
    let house = house();
    let issued = house.issue().await;
    let in_query = || Some(Credential::of_query(issued.primary.expose()));
    assert_eq!(house.call("freight", in_query()).await.unwrap_err(), Refused::InvalidKey);
    house.apply(|settings| {
        settings.products.get_mut("carrier").unwrap().key = KeyRule::HeaderOrQuery;
    });
    assert!(house.call("freight", in_query()).await.is_ok());
}

fn quota(calls: u64) -> QuotaRule {
    let quota = Quota { calls: Some(calls), bytes: Some(1_000), period: Period::Day };
    QuotaRule { name: "carrier".into(), quota, by: By::ApiKey }
}

fn with_quota(house: &House, calls: u64) {
    house.apply(|settings| {
        let carrier = settings.products.get_mut("carrier").unwrap();
        carrier.limits = vec![limit("carrier", 1_000)];
        carrier.quotas = vec![quota(calls)];
    });
}

fn exhausted(result: Result<Admitted, Refused>) -> Resource {
    let refused = result.unwrap_err();
    let Refused::QuotaExhausted { quota, exhausted } = refused else { panic!("{refused:?}") };
    assert_eq!(&*quota, "carrier");
    exhausted.resource
}

#[actix::test]
async fn a_quota_holds_over_a_restart_and_counts_no_refused_call() {
    let house = house();
    with_quota(&house, 3);
    let issued = house.issue().await;
    for _ in 0..3 {
        assert!(house.admit(&issued.primary).await.is_ok());
    }
    for _ in 0..5 {
        assert_eq!(exhausted(house.admit(&issued.primary).await), Resource::Calls);
    }
    house.ledger.flush().await.unwrap();
    let house = house.reopened().await.unwrap();
    with_quota(&house, 4);
    assert!(house.admit(&issued.primary).await.is_ok());
    assert_eq!(exhausted(house.admit(&issued.primary).await), Resource::Calls);
    let judged = house.gateway.state().status();
    assert!(judged.refused.contains(&("quota_exceeded", 1)));
    house.clock.advance(Duration::from_secs(86_400));
    assert!(house.admit(&issued.primary).await.is_ok(), "a new day");
}

#[actix::test]
async fn bytes_of_answers_count_and_a_quota_that_comes_back_has_forgotten_nothing() {
    let house = house();
    with_quota(&house, 100);
    let issued = house.issue().await;
    let admitted = house.admit(&issued.primary).await.unwrap();
    admitted.meter.note_bytes(1_001, house.clock.now());
    assert_eq!(exhausted(house.admit(&issued.primary).await), Resource::Bytes);
    house.ledger.flush().await.unwrap();
    house.apply(|_| {});
    assert!(house.admit(&issued.primary).await.is_ok());
    with_quota(&house, 100);
    assert_eq!(exhausted(house.admit(&issued.primary).await), Resource::Bytes);
}

#[actix::test]
async fn calls_of_a_tenant_at_once_are_limited_and_come_free_with_their_answers() {
    let house = house();
    house.apply(|settings| settings.products.get_mut("shipper").unwrap().concurrency = Some(2));
    let issued = house.keys.issue(new_grant("shipper", None)).await.unwrap();
    let call = || house.admit_for("tracking", issued.primary.expose());
    let held = [call().await.unwrap(), call().await.unwrap()];
    assert_eq!(call().await.unwrap_err(), Refused::TooManyAtOnce(2));
    drop(held);
    assert!(call().await.is_ok());
}

#[actix::test]
async fn the_last_use_of_a_key_is_known_after_a_restart() {
    let house = house();
    let issued = house.issue().await;
    assert_eq!(issued.grant.used.get(), None);
    house.admit(&issued.secondary).await.unwrap();
    let at = house.clock.now();
    house.ledger.flush().await.unwrap();
    let house = house.reopened().await.unwrap();
    assert_eq!(house.keys.get(&issued.grant.id).unwrap().used.get(), Some(at));
}

/// Welch's t of two samples: how many standard errors their means are apart.
fn welch(one: &[f64], two: &[f64]) -> f64 {
    let moments = |sample: &[f64]| {
        let count = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / count;
        let variance = sample.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((one, error_one), (two, error_two)) = (moments(one), moments(two));
    (one - two) / (error_one + error_two).sqrt()
}

#[test]
fn welch_tells_what_differs_from_what_does_not() {
    let noise = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
    let one: Vec<_> = (0..10_000).map(noise).collect();
    let two: Vec<_> = (10_000..20_000).map(noise).collect();
    let later: Vec<_> = two.iter().map(|value| value + 0.05).collect();
    assert!(welch(&one, &two).abs() < 4.0, "{}", welch(&one, &two));
    assert!(welch(&one, &later).abs() > 8.0, "{}", welch(&one, &later));
}

/// Run it on a quiet machine, of a release build.
#[ignore = "measures time"]
#[actix::test]
async fn how_much_of_a_guess_is_right_cannot_be_told_from_the_time_it_takes() {
    const PAIRS: usize = 100_000;
    const RIGHT: &str = "a-key-of-somebody-who-moved-here-0123456789";
    let house = house();
    house.keys.seed(vec![seed("moved", RIGHT)]).await.unwrap();
    // One is wrong in its first character, one in its last.
    let early = Credential::new(format!("b{}", &RIGHT[1..]));
    let late = Credential::new(format!("{}0", &RIGHT[..RIGHT.len() - 1]));
    let api = Name::from("freight");
    let clock = SystemClock::shared();
    let time = |credential: &Credential| {
        let begin = clock.elapsed();
        assert!(std::hint::black_box(house.state.look(Some(credential), &api)).is_err());
        (clock.elapsed() - begin).as_nanos() as f64
    };
    let (mut one, mut two) = (Vec::with_capacity(PAIRS), Vec::with_capacity(PAIRS));
    for pair in 0..PAIRS {
        // Neither is always the first.
        let (first, second) = if pair % 2 == 0 { (&early, &late) } else { (&late, &early) };
        let (of_first, of_second) = (time(first), time(second));
        let (of_early, of_late) = if pair % 2 == 0 { (of_first, of_second) } else { (of_second, of_first) };
        one.push(of_early);
        two.push(of_late);
    }
    // What the scheduler does to a few of them says nothing of the program.
    for sample in [&mut one, &mut two] {
        sample.sort_by(f64::total_cmp);
        sample.truncate(PAIRS * 95 / 100);
    }
    let t = welch(&one, &two);
    assert!(t.abs() < 10.0, "t = {t}");
    house.closed().await;
}
