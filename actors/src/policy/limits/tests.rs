//! Several limits together: all or nothing, the longest wait, and counters that outlive a change.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Duration>>);

impl Clock {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }

    fn ticks(&self) -> Ticks {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

fn limit(name: &str, calls: u32, per: Duration, algorithm: Algorithm, by: By) -> Limit {
    Limit { name: name.into(), rate: Rate::new(calls, per).unwrap(), algorithm, by }
}

#[derive(Debug, Clone, Copy, Default)]
struct Caller<'a> {
    grant: Option<&'a str>,
    tenant: Option<&'a str>,
    address: Option<&'a str>,
    region: Option<&'a str>,
    sub: Option<&'a str>,
}

fn call(limiters: &[Arc<Limiter>], caller: Caller<'_>, clock: &Clock) -> Result<Granted, Exceeded> {
    let grant = caller.grant.map(Name::from);
    let tenant = caller.tenant.map(|name| TenantId::new(name).unwrap());
    let facts = Facts {
        grant: grant.as_ref(),
        tenant: tenant.as_ref(),
        address: caller.address.unwrap_or("192.0.2.1").parse().unwrap(),
        header: &|name| caller.region.filter(|_| name == "region").map(Cow::Borrowed),
        claim: &|name| caller.sub.filter(|_| name == "sub").map(Cow::Borrowed),
    };
    decide(limiters, &facts, NonZeroU32::MIN, clock.now())
}

fn allowed(limiters: &[Arc<Limiter>], caller: Caller<'_>, clock: &Clock, calls: usize) -> usize {
    (0..calls).filter(|_| call(limiters, caller, clock).is_ok()).count()
}

fn limiters(limits: Vec<Limit>, clock: &Clock, before: Option<&Limiters>) -> (Limiters, Vec<Arc<Limiter>>) {
    let names: Vec<Name> = limits.iter().map(|limit| limit.name.clone()).collect();
    let made = Limiters::new(limits, 100, &clock.ticks(), before);
    let list = names.iter().map(|name| made.get(name).unwrap().clone()).collect();
    (made, list)
}

#[test]
fn a_call_refused_by_one_limit_is_counted_by_none_and_told_the_longest_wait() {
    use Algorithm::{Sliding, TokenBucket};
    for (first, second, third) in [
        (Sliding, Sliding, Sliding),
        (TokenBucket, TokenBucket, TokenBucket),
        (TokenBucket, Sliding, TokenBucket),
    ] {
        let clock = Clock::default();
        let (made, list) = limiters(
            vec![
                limit("wide", 10, 10 * SECOND, first, By::Everybody),
                limit("narrow", 2, 2 * SECOND, second, By::Tenant),
                limit("narrowest", 1, 30 * SECOND, third, By::ApiKey),
            ],
            &clock,
            None,
        );
        let caller = Caller { grant: Some("g"), tenant: Some("t"), ..Caller::default() };
        assert!(call(&list, caller, &clock).is_ok());
        for _ in 0..20 {
            let refused = call(&list, caller, &clock).unwrap_err();
            assert_eq!(refused.retry_after, 30 * SECOND);
            let violated: Vec<_> = refused.violated().map(|judged| &*judged.limit).collect();
            assert_eq!(violated, ["narrowest"]);
            assert_eq!(
                (refused.judged[0].admission.remaining, refused.judged[1].admission.remaining),
                (9, 1)
            );
        }
        let other = Caller { grant: Some("h"), ..caller };
        assert!(call(&list, other, &clock).is_ok(), "the tenant's second call");
        let refused = call(&list, Caller { grant: Some("i"), ..caller }, &clock).unwrap_err();
        assert_eq!(refused.violated().count(), 1);
        let both = call(&list, caller, &clock).unwrap_err();
        assert_eq!((both.violated().count(), both.retry_after), (2, 30 * SECOND));
        let wide = [made.get("wide").unwrap().clone()];
        assert_eq!(allowed(&wide, caller, &clock, 50), 8, "ten less the two that went through");
    }
}

#[test]
fn what_is_given_back_was_never_counted() {
    let clock = Clock::default();
    let (_, list) = limiters(
        vec![
            limit("a", 3, SECOND, Algorithm::Sliding, By::Everybody),
            limit("b", 3, SECOND, Algorithm::TokenBucket, By::Everybody),
        ],
        &clock,
        None,
    );
    for _ in 0..50 {
        call(&list, Caller::default(), &clock).unwrap().give_back();
    }
    assert_eq!(allowed(&list, Caller::default(), &clock, 50), 3);
}

#[test]
fn a_limit_named_twice_counts_once() {
    let clock = Clock::default();
    let (_, list) = limiters(vec![limit("a", 4, SECOND, Algorithm::Sliding, By::Everybody)], &clock, None);
    let twice = [list[0].clone(), list[0].clone()];
    assert_eq!(allowed(&twice, Caller::default(), &clock, 50), 4);
}

#[test]
fn callers_are_told_apart_by_what_the_limit_says() {
    let me = Caller {
        grant: Some("g"),
        tenant: Some("t"),
        address: Some("2001:db8::1"),
        region: Some("eu"),
        sub: Some("ann"),
    };
    let long = "x".repeat(5_000);
    let longer = "x".repeat(5_001);
    let cases = [
        (By::ApiKey, Caller { grant: Some("h"), ..me }, true),
        (By::ApiKey, Caller { tenant: Some("u"), ..me }, false),
        (By::Tenant, Caller { tenant: Some("u"), ..me }, true),
        (By::Tenant, Caller { grant: Some("h"), ..me }, false),
        (By::Address, Caller { address: Some("2001:db8:0:1::1"), ..me }, true),
        (By::Address, Caller { address: Some("2001:db8::ffff"), ..me }, false),
        (By::Header("region".into()), Caller { region: Some("us"), ..me }, true),
        (By::Header("region".into()), Caller { region: None, ..me }, true),
        (By::Header("region".into()), Caller { sub: None, ..me }, false),
        (By::Claim("sub".into()), Caller { sub: Some(&long), ..me }, true),
        (By::Claim("sub".into()), Caller { region: None, ..me }, false),
        (By::Everybody, Caller::default(), false),
    ];
    for (by, other, apart) in cases {
        let clock = Clock::default();
        let (_, list) = limiters(vec![limit("a", 1, SECOND, Algorithm::Sliding, by.clone())], &clock, None);
        assert_eq!(allowed(&list, me, &clock, 3), 1);
        assert_eq!(allowed(&list, other, &clock, 3), usize::from(apart), "{by:?} {other:?}");
    }
    let clock = Clock::default();
    let (_, list) =
        limiters(vec![limit("a", 1, SECOND, Algorithm::Sliding, By::Header("region".into()))], &clock, None);
    let with = |region| Caller { region, ..Caller::default() };
    assert_eq!(allowed(&list, with(Some(&long)), &clock, 3), 1);
    assert_eq!(allowed(&list, with(Some(&longer)), &clock, 3), 1);
    assert_eq!(allowed(&list, with(None), &clock, 3), 1, "without the field all are one caller");
    assert_eq!(allowed(&list, with(None), &clock, 3), 0);
}

#[test]
fn a_call_without_key_or_tenant_is_not_limited_by_it() {
    for by in [By::ApiKey, By::Tenant] {
        let clock = Clock::default();
        let (_, list) = limiters(vec![limit("a", 1, SECOND, Algorithm::Sliding, by)], &clock, None);
        let granted = call(&list, Caller::default(), &clock).unwrap();
        assert!(granted.judged.is_empty());
        assert_eq!(allowed(&list, Caller::default(), &clock, 9), 9);
    }
}

#[test]
fn counters_survive_a_change_of_the_configuration_and_the_new_rate_holds_at_once() {
    let clock = Clock::default();
    let sliding = |calls, by| limit("s", calls, SECOND, Algorithm::Sliding, by);
    let bucket = |calls| limit("b", calls, SECOND, Algorithm::TokenBucket, By::Everybody);
    let (first, list) = limiters(vec![sliding(5, By::Everybody), bucket(5)], &clock, None);
    assert_eq!(allowed(&list, Caller::default(), &clock, 9), 5);
    let (same, list) = limiters(vec![sliding(5, By::Everybody), bucket(5)], &clock, Some(&first));
    assert_eq!(allowed(&list, Caller::default(), &clock, 9), 0);
    assert_eq!(allowed(&list[1..], Caller::default(), &clock, 9), 0);
    let (more, list) = limiters(vec![sliding(7, By::Everybody)], &clock, Some(&same));
    assert_eq!(allowed(&list, Caller::default(), &clock, 9), 2);
    let (_, list) = limiters(vec![sliding(7, By::Address)], &clock, Some(&more));
    assert_eq!(allowed(&list, Caller::default(), &clock, 9), 7, "another way of counting begins anew");
}

#[test]
fn the_header_fields_tell_every_limit_and_of_a_refusal_only_the_cause() {
    let clock = Clock::default();
    let (_, list) = limiters(
        vec![
            limit("burst", 2, 10 * SECOND, Algorithm::Sliding, By::Everybody),
            limit("day \"x\"", 100, 86_400 * SECOND, Algorithm::Sliding, By::Everybody),
            limit("quick", 50, SECOND / 2, Algorithm::TokenBucket, By::Everybody),
        ],
        &clock,
        None,
    );
    let granted = call(&list, Caller::default(), &clock).unwrap();
    assert_eq!(policy_text(&granted.judged), r#""burst";q=2;w=10, "day \"x\"";q=100;w=86400, "quick";q=50"#);
    // The day's window has more than 64 calls, so its places come back by parts.
    assert_eq!(left_text(&granted.judged), r#""burst";r=1;t=10, "day \"x\"";r=99;t=86400, "quick";r=49;t=1"#);
    clock.advance(SECOND);
    assert!(call(&list, Caller::default(), &clock).is_ok());
    let refused = call(&list, Caller::default(), &clock).unwrap_err();
    assert_eq!(left_text(&refused.judged), r#""burst";r=0;t=9"#);
    assert!(policy_text(&refused.judged).contains("86400"));
    assert_eq!(whole_seconds(refused.retry_after), 9);
}

#[test]
fn waiting_times_are_rounded_up() {
    for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
    }
}

#[test]
fn limiters_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Limiter>();
    shared::<Granted>();
    let clock = Clock::default();
    let (_, list) = limiters(
        vec![
            limit("a", 100, SECOND, Algorithm::Sliding, By::Everybody),
            limit("b", 80, SECOND, Algorithm::TokenBucket, By::Everybody),
        ],
        &clock,
        None,
    );
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| allowed(&list, Caller::default(), &clock, 100))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 80);
    assert_eq!(allowed(&list[..1], Caller::default(), &clock, 100), 20, "refused calls left nothing behind");
}

proptest! {
    #[test]
    fn each_limit_holds_and_nothing_is_lost_to_refused_calls(
        steps in proptest::collection::vec((0u64..400, 0usize..3), 1..200),
    ) {
        let clock = Clock::default();
        let (made, list) = limiters(
            vec![
                limit("all", 7, SECOND, Algorithm::Sliding, By::Everybody),
                limit("each", 3, SECOND, Algorithm::Sliding, By::Tenant),
            ],
            &clock,
            None,
        );
        let mut passed: Vec<(Duration, usize)> = Vec::new();
        for (gap, who) in steps {
            clock.advance(Duration::from_millis(gap));
            let caller = Caller { tenant: Some(["a", "b", "c"][who]), ..Caller::default() };
            let now = clock.now();
            let recent = |one: Option<usize>| {
                passed.iter().filter(|(at, of)| *at + SECOND > now && one.is_none_or(|one| *of == one)).count()
            };
            let expected = recent(None) < 7 && recent(Some(who)) < 3;
            let said = call(&list, caller, &clock);
            prop_assert_eq!(said.is_ok(), expected);
            if let Err(refused) = said {
                // Waiting as told is enough, if nobody else comes.
                let then = now + refused.retry_after;
                let left = passed.iter().filter(|(at, _)| *at + SECOND > then).count();
                let mine = passed.iter().filter(|(at, of)| *at + SECOND > then && *of == who).count();
                prop_assert!(left < 7 && mine < 3);
            } else {
                passed.push((now, who));
            }
        }
        prop_assert!(made.iter().map(|limiter| limiter.keys()).sum::<usize>() <= 4);
    }
}
