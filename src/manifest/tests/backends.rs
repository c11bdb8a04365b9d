//! What a manifest may say of servers behind the gateway.

use lanekeeper_actors::policy::upstream::{BreakerRules, Causes, HealthRules, RetryRules, Trip};

use super::*;

fn operation(to: &str) -> String {
    let operation = format!("x: {{ method: GET, path: '/loads/{{lane}}', to: {{ {to} }} }}");
    format!(
        "backends: {{ legacy: {{ pool: [{{ url: 'http://a' }}] }} }}\napis: {{ a: {{ path: /a, operations: {{ {operation} }} }} }}"
    )
}

fn backend(rest: &str) -> String {
    format!("backends: {{ legacy: {{ {rest} }} }}")
}

fn read(manifest: &str) -> Manifest {
    load(&sources([text(&format!("manifest: 1\n{manifest}\n"))], &[])).unwrap()
}

fn upstream(to: &str) -> Upstream {
    let target = read(&operation(to)).apis["a"].operations["x"].target.clone();
    let Target::Upstream(upstream) = target else { panic!("{target:?}") };
    upstream
}

#[test]
fn a_backend_is_read_with_all_that_it_may_say() {
    let manifest = read(&backend(
        "pool: [{ url: 'http://10.0.0.5:8080/base/', weight: 3 }, { url: 'http://10.0.0.6', priority: 2 }], \
         timeout: 10s, idle_timeout: 20s, body: 8MiB, \
         retry: { count: 2, interval: 100ms, max_interval: 2s, delta: 200ms, first_fast: true, on: [connect, 503] }, \
         breaker: { count: 5, in: 10s, on: [5xx, timeout, 429, 420-423], open: 30s, retry_after: honour }, \
         health: { path: '/healthz?deep=1', every: 5s, healthy: 1, unhealthy: 4 }",
    ));
    let legacy = &manifest.backends["legacy"];
    let places: Vec<_> =
        legacy.pool.iter().map(|place| (place.address.to_string(), place.weight, place.priority)).collect();
    assert_eq!(
        places,
        [("http://10.0.0.5:8080/base".to_owned(), 3, 1), ("http://10.0.0.6".to_owned(), 1, 2)]
    );
    assert_eq!(legacy.timeout, Some(Duration::from_secs(10)));
    assert_eq!((legacy.idle_timeout, legacy.body), (Some(Duration::from_secs(20)), Some(8 << 20)));
    let retry = legacy.retry.as_ref().unwrap();
    let (interval, delta) = (Duration::from_millis(100), Some(Duration::from_millis(200)));
    let max_interval = Some(Duration::from_secs(2));
    assert_eq!(retry.rules, RetryRules { count: 2, interval, max_interval, delta, first_fast: true });
    assert_eq!(retry.on, Causes { statuses: vec![(503, 503)], connect: true, timeout: false });
    let breaker = legacy.breaker.as_ref().unwrap();
    let (window, open) = (Duration::from_secs(10), Duration::from_secs(30));
    assert_eq!(breaker.rules, BreakerRules { trip: Trip::Count(5), window, open, honour_retry_after: true });
    let statuses = vec![(500, 599), (429, 429), (420, 423)];
    assert_eq!(breaker.on, Causes { statuses, connect: false, timeout: true });
    let health = legacy.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.every), ("/healthz?deep=1", Duration::from_secs(5)));
    assert_eq!(health.rules, HealthRules { healthy: 1, unhealthy: 4 });
}

#[test]
fn what_a_backend_does_not_say_has_a_default() {
    let manifest = read(&backend(
        "pool: [{ url: 'https://a.example' }], retry: { count: 1, interval: 1s }, \
         breaker: { percentage: 50, in: 10s, open: 30s }, health: { path: /h, every: 1s }",
    ));
    let legacy = &manifest.backends["legacy"];
    assert_eq!(legacy.retry.as_ref().unwrap().on, Causes::usual());
    let breaker = legacy.breaker.as_ref().unwrap();
    assert_eq!(breaker.rules.trip, Trip::Percentage { percent: 50, minimum: 10 });
    assert_eq!((&breaker.on, breaker.rules.honour_retry_after), (&Causes::usual(), false));
    assert_eq!(legacy.health.as_ref().unwrap().rules, HealthRules { healthy: 2, unhealthy: 3 });
    let plain = &read(&backend("pool: [{ url: 'http://a' }]")).backends["legacy"];
    assert_eq!(*plain, Backend::plain(plain.pool[0].address.clone()));
}

#[test]
fn the_path_that_is_sent_is_written_in_the_url_or_is_the_operations_own() {
    let text = |text: &str| Piece::Text(text.to_owned());
    let lane = || Piece::Parameter("lane".to_owned());
    for (to, path, query) in [
        ("upstream: 'http://a:1/rates'", vec![text("/rates")], None),
        ("upstream: 'http://a:1'", vec![text("/")], None),
        ("upstream: 'http://a/x/{lane}/y/?k=v&l'", vec![text("/x/"), lane(), text("/y/")], Some("k=v&l")),
        ("backend: legacy", vec![text("/loads/"), lane()], None),
        ("backend: legacy, path: '/{lane}'", vec![text("/"), lane()], None),
        ("backend: legacy, path: '/?q=%20'", vec![text("/")], Some("q=%20")),
    ] {
        let found = upstream(to);
        assert_eq!((&found.path, found.query.as_deref()), (&path, query), "{to}");
        assert!(!found.forward_authorization);
    }
    let inline = upstream("upstream: 'http://a/', timeout: 2s, forward_authorization: true");
    assert!(inline.forward_authorization);
    let UpstreamTo::Inline(backend) = &inline.to else { panic!("{:?}", inline.to) };
    assert_eq!(backend.timeout, Some(Duration::from_secs(2)));
    assert_eq!(inline.backend_name("a", "x"), "a.x");
    assert_eq!(upstream("backend: legacy").backend_name("a", "x"), "legacy");
}

#[test]
fn operations_that_cannot_be_sent_on_are_refused() {
    for (to, wanted) in [
        ("upstream: 'ftp://a/'", "expected a URL that begins with `http://` or `https://`"),
        ("upstream: 'http://{lane}/'", "expected a host after `//`"),
        ("upstream: 'http://u:p@a/'", "a secret is a reference, never a literal"),
        ("upstream: 'http://a/{lan}'", "there is no parameter `{lan}` in the path, did you mean `{lane}`?"),
        ("upstream: 'http://a/x{lane}'", "or one `{parameter}`"),
        ("upstream: 'http://a/../x'", "or one `{parameter}`"),
        ("upstream: 'http://a/%2'", "or one `{parameter}`"),
        ("upstream: 'http://a/x y'", "or one `{parameter}`"),
        ("upstream: 'http://a/?{lane}'", "a query of characters that need no encoding"),
        ("upstream: 'http://a/#x'", "or one `{parameter}`"),
        ("upstream: 'http://a/', path: /x", "the path stands in the URL of `upstream`"),
        ("upstream: 'http://a/', backend: legacy", "`backend` does not go with `upstream`"),
        ("upstream: 'http://a/', do: read", "`do` does not go with `upstream`"),
        ("upstream: 'http://a/', mock: { status: 200 }", "`mock` does not go with `upstream`"),
        ("upstream: 'http://a/', forward_authorisation: true", "did you mean `forward_authorization`?"),
        ("backend: legasy", "there is no backend `legasy`, did you mean `legacy`?"),
        ("backend: legacy, timeout: 1s", "the timeout stands in the backend"),
        ("backend: legacy, path: x", "a path begins with `/`"),
    ] {
        let found = problems(&format!("manifest: 1\n{}\n", operation(to))).join("\n");
        assert!(found.contains(wanted), "{to}: {found}");
    }
}

#[test]
fn backends_that_cannot_be_are_refused() {
    let with = |rest: &str| format!("pool: [{{ url: 'http://a' }}], {rest}");
    let pool = |url: &str| format!("pool: [{{ url: '{url}' }}]");
    for (rest, wanted) in [
        ("pool: []".to_owned(), "expected 1 to 30 servers"),
        ("timeout: 1s".to_owned(), "missing key `pool`"),
        (pool("http://a/?x"), "expected a URL of scheme, host, port and path, and no more"),
        (pool("http://a/{x}"), "expected a URL of scheme, host, port and path, and no more"),
        (pool("http://a/../b"), "expected a URL of scheme, host, port and path, and no more"),
        ("pool: [{ url: 'http://a', weight: 0 }]".to_owned(), "a whole number from 1 to 1000"),
        (with("retry: { count: 51, interval: 1s }"), "a whole number from 1 to 50"),
        (
            with("retry: { count: 1, interval: 1s, max_interval: 2s }"),
            "`max_interval` goes with `delta` only",
        ),
        (
            with("retry: { count: 1, interval: 3s, delta: 1s, max_interval: 2s }"),
            "`max_interval` is less than `interval`",
        ),
        (with("retry: { count: 1, interval: 1s, on: [600] }"), "a status from 400 to 599"),
        (with("retry: { count: 1, interval: 1s, on: [504-502] }"), "a status from 400 to 599"),
        (with("retry: { count: 1, interval: 1s, on: [] }"), "at least one entry"),
        (with("breaker: { in: 1s, open: 1s }"), "either `count` or `percentage`"),
        (with("breaker: { count: 1, percentage: 1, in: 1s, open: 1s }"), "either `count` or `percentage`"),
        (
            with("breaker: { count: 1, minimum: 1, in: 1s, open: 1s }"),
            "`minimum` goes with `percentage` only",
        ),
        (
            with("breaker: { count: 1, in: 1s, open: 1s, retry_after: yes }"),
            "expected one of `honour`, `ignore`",
        ),
        (with("health: { path: healthz, every: 1s }"), "a path such as `/healthz`"),
        (with("health: { path: /, every: 1ms }"), "a duration from"),
        (with("tls: { ca: nowhere.pem }"), "cannot be read"),
        (with("http: 2"), "`http` is not built yet"),
    ] {
        let found = problems(&format!("manifest: 1\n{}\n", backend(&rest))).join("\n");
        assert!(found.contains(wanted), "{rest}: {found}");
    }
}
