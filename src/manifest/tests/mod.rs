//! What a manifest promises its reader: defaults that hold, problems with places, secrets that stay secret.

use std::time::{Duration, SystemTime};

use lanekeeper_actors::policy::throughput::Throughput;
use lanekeeper_actors::policy::ttl::ContainerTtl;
use proptest::prelude::*;

use super::*;
use crate::blob::Place;

mod backends;
mod documents;
mod edge;
mod events;
mod layering;
mod refusals;
mod sections;
mod webhooks;

const MINIMAL: &str = include_str!("../../../config/examples/minimal.yaml");
const SECRET: &str = "test_0123456789_abc";
const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NORTHWIND_TEXT: &str = include_str!("../../../config/northwind.yaml");
const NORTHWIND_SECRETS: [(&str, &str); 2] = [("ACME_KEY", SECRET), ("PARTNER_SIGNING", SIGNING)];

/// The manifest of the freight exchange, whose files lie beside it.
fn northwind() -> Source {
    Source::File(concat!(env!("CARGO_MANIFEST_DIR"), "/config/northwind.yaml").into())
}

fn text(text: &str) -> Source {
    Source::Text { name: "m.yaml".to_owned(), text: text.to_owned() }
}

fn sources(files: impl IntoIterator<Item = Source>, environment: &[(&str, &str)]) -> Sources {
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { files: files.into_iter().collect(), environment, flags: Flags::default() }
}

/// Everything that is wrong with a text, one problem to a line.
fn problems(manifest: &str) -> Vec<String> {
    let sources = sources([text(manifest)], &[("ACME_KEY", SECRET), ("EMPTY_KEY", ""), ("SIGNING", SIGNING)]);
    match load(&sources) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// Each text is put after `manifest: 1`, so its first line is line 2.
fn table(rows: &[(&str, &[&str])]) {
    let mut wrong = String::new();
    for (manifest, expected) in rows {
        let found = problems(&format!("manifest: 1\n{manifest}\n"));
        let expected: Vec<String> = expected.iter().map(|line| format!("m.yaml:{line}")).collect();
        if found != expected {
            wrong.push_str(&format!("---{manifest}\nexpected {expected:#?}\nfound {found:#?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn without_a_manifest_the_defaults_hold_an_empty_project() {
    let manifest = load(&Sources::default()).unwrap();
    assert_eq!(manifest.project, "local");
    assert_eq!(manifest.server.listen, vec![Listener { addr: "127.0.0.1:8080".parse().unwrap(), tls: None }]);
    assert_eq!(manifest.server.admin.addr, "127.0.0.1:9080".parse().unwrap());
    assert_eq!(manifest.server.data, PathBuf::from("./data"));
    assert!(!manifest.server.shards_given, "the default is only for new directories");
    assert_eq!(manifest.limits.body, 2 * 1024 * 1024);
    assert_eq!(manifest.limits.auth_failures_per_ip.per, Duration::from_secs(60));
    assert_eq!(manifest.limits.progress_delay, Duration::from_millis(100));
    assert!(manifest.containers.is_empty() && manifest.apis.is_empty() && manifest.api_keys.is_empty());
}

#[test]
fn the_freight_exchange_loads() {
    let manifest = load(&sources([northwind()], &NORTHWIND_SECRETS)).unwrap();
    assert_eq!(manifest.project, "northwind");
    assert_eq!(manifest.containers["loads"].partition_key[0].to_string(), "/lane");
    let (loads, quotes) = (&manifest.containers["loads"], &manifest.containers["quotes"]);
    assert_eq!(quotes.tenancy, Tenancy::Isolated);
    let key: Vec<_> = quotes.partition_key.iter().map(ToString::to_string).collect();
    assert_eq!(key, ["/tenantId", "hash(/id) % 16"]);
    assert_eq!(quotes.ttl, ContainerTtl::Seconds(7 * 86_400));
    assert_eq!((loads.unique.len(), loads.indexes.len()), (1, 2));
    assert_eq!(loads.throughput, Throughput::autoscale(20_000).ok());
    assert_eq!(loads.change_retention, Duration::from_secs(7 * 86_400));
    let TopicSource::Changes { types, .. } = &manifest.topics["load-events"].source else {
        panic!("changes")
    };
    assert_eq!(types.replaced.as_deref(), Some("LoadUpdated"));
    assert_eq!(manifest.topics["partner-events"].source, TopicSource::Published);
    let partner = &manifest.event_subscriptions["partner-webhook"];
    let Destination::Webhook(webhook) = &partner.to else { panic!("a webhook") };
    assert_eq!(webhook.url, "http://127.0.0.1:7002/hook");
    assert!(webhook.allow[0].contains("127.9.9.9".parse().unwrap()));
    assert_eq!(
        (webhook.sign.len(), &partner.dead_letter),
        (1, &Some(Place::Directory("./data/dead-letters".into())))
    );
    assert_eq!(
        partner.retry,
        Retry { max_attempts: 30, ttl: Duration::from_secs(86_400), scale: 1.0, probation: true }
    );
    assert_eq!(manifest.event_subscriptions["search-indexer"].types, None);
    let operations = &manifest.apis["freight"].operations;
    assert_eq!(operations["getLoad"].route.to_string(), "/freight/v1/loads/{lane}/{id}");
    let at = DocumentAt {
        partition: vec![Template::Parameter("lane".to_owned())],
        id: Template::Parameter("id".to_owned()),
    };
    let target = Target::Documents { container: "loads".to_owned(), action: Action::Upsert(at) };
    assert_eq!(operations["putLoad"].target, target);
    assert_eq!(operations["createLoad"].idempotency, Some(Idempotency::Optional));
    let Target::Documents { action: Action::Query { query, parameters, .. }, .. } =
        &operations["findLoads"].target
    else {
        panic!("findLoads is a query")
    };
    assert!(query.text().contains("@status"));
    assert_eq!(
        parameters,
        &[("status".to_owned(), Parameter::Query("status".to_owned(), ParameterType::String))]
    );
    let Target::Mock(mock) = &operations["ping"].target else { panic!("ping is a mock") };
    assert_eq!((mock.status, mock.body.as_ref().unwrap().to_string()), (200, r#"{"ok":true}"#.to_owned()));
    let [limit] = manifest.products["carrier"].limits.as_slice() else { panic!("one limit") };
    assert_eq!(
        (&*limit.name, limit.rate),
        ("carrier", lanekeeper_actors::policy::rate::Rate::new(200, Duration::from_secs(1)).unwrap())
    );
    let [rule] = manifest.products["carrier"].quotas.as_slice() else { panic!("one quota") };
    assert_eq!(rule.quota.calls, Some(2_000_000));
    assert_eq!(manifest.identities["staff"].rules.tenant_claim.as_deref(), Some("tid"));
    assert_eq!(manifest.products["internal"].key, lanekeeper_actors::policy::terms::KeyRule::None);
    assert_eq!(manifest.api_keys["acme-carrier"].primary.expose(), SECRET);
}

#[test]
fn the_smallest_example_loads() {
    let manifest = load(&sources([text(MINIMAL)], &[("NOTES_KEY", SECRET)])).unwrap();
    assert_eq!(manifest.apis["notes"].operations["create"].route.to_string(), "/notes");
}

#[test]
fn every_field_that_may_be_left_out_can_be_given() {
    let manifest = "
manifest: 1
containers:
  deep: { partition_key: [/a~1b/c~0d] }
topics:
  t: { from: { container: deep, types: { deleted: Gone } } }
event_subscriptions:
  s:
    topic: t
    types: [Gone]
    subject: { begins: x/, ends: .png, case_sensitive: true }
    to: { webhook: https://example.com/hook }
    retry: { max_attempts: 3, ttl: 1500ms, scale: 0.5 }
apis:
  a:
    path: /
    operations:
      make: { method: POST, path: '/{p}', to: { container: deep, do: create, partition: '{p}' } }
      fixed: { method: GET, path: /fixed, to: { container: deep, do: read, partition: home, id: '1' } }
      teapot: { method: OPTIONS, path: /tea, to: { mock: { status: 418, headers: { X-Pot: short } } } }
products:
  p: { apis: [a] }
api_keys:
  k: { product: p, tenant: t, primary: { env: ONE }, secondary: { env: TWO }, expires: 2027-03-01T00:30:00+01:00 }
";
    let loaded = load(&sources(
        [text(manifest)],
        &[("ONE", "the-first-of-two-keys"), ("TWO", "the-second-of-two-keys")],
    ))
    .unwrap();
    assert_eq!(loaded.containers["deep"].partition_key[0].pointer.segments, ["a/b", "c~d"]);
    assert_eq!(loaded.containers["deep"].partition_key[0].to_string(), "/a~1b/c~0d");
    let subscription = &loaded.event_subscriptions["s"];
    assert!(subscription.subject.case_sensitive);
    assert_eq!(
        subscription.retry,
        Retry { max_attempts: 3, ttl: Duration::from_millis(1500), scale: 0.5, probation: true }
    );
    let operations = &loaded.apis["a"].operations;
    let partition = Some(vec![Template::Parameter("p".to_owned())]);
    let make = Target::Documents { container: "deep".to_owned(), action: Action::Create { partition } };
    assert_eq!(operations["make"].target, make);
    let Target::Mock(mock) = &operations["teapot"].target else { panic!("teapot is a mock") };
    assert_eq!((mock.headers["x-pot"].as_str(), mock.body.as_ref()), ("short", None));
    let key = &loaded.api_keys["k"];
    assert_eq!(key.secondary.as_ref().unwrap().expose(), "the-second-of-two-keys");
    // `date -u -d 2027-02-28T23:30:00Z +%s`
    assert_eq!(key.expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_803_857_400)));
}

#[test]
fn a_secret_is_never_printed() {
    let manifest = load(&sources([northwind()], &NORTHWIND_SECRETS)).unwrap();
    let printed = format!("{manifest:?} {}", manifest.api_keys["acme-carrier"].primary);
    assert!(!printed.contains(SECRET) && printed.contains("***"));
}

#[test]
fn a_secret_written_out_is_refused_and_not_repeated() {
    for literal in ["lk_live_very_secret", "{ env: 'lk live very secret' }", "[lk_live_very_secret]"] {
        let manifest = format!(
            "manifest: 1\nproducts: {{ p: {{ apis: [a] }} }}\napi_keys: {{ k: {{ product: p, tenant: t, primary: {literal} }} }}\n"
        );
        let found = problems(&manifest).join("\n");
        assert!(found.contains("m.yaml:3:50: ") || found.contains("m.yaml:3:57: "), "{found}");
        assert!(!found.contains("very"), "{found}");
    }
}

#[test]
fn problems_are_json_for_scripts() {
    let problems = load(&sources([text("manifest: 1\nserverr: 1\nproject: 5\n")], &[])).unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    let unknown = serde_json::json!({
        "file": "m.yaml", "line": 2, "column": 1, "message": "unknown key `serverr`", "suggestion": "server"
    });
    assert_eq!(json[0], unknown);
    assert_eq!(json[1].get("suggestion"), None);
    assert_eq!(problems.as_slice().len(), 2);
}

/// Fragments that reach deep into the readers more often than arbitrary characters would.
const PIECES: [&str; 82] = [
    "manifest",
    "project",
    "server",
    "listen",
    "limits",
    "containers",
    "topics",
    "apis",
    "api_keys",
    "products",
    "event_subscriptions",
    "include",
    "partition_key",
    "operations",
    "path",
    "method",
    "to",
    "do",
    "mock",
    "retry",
    "a",
    "loads",
    ": ",
    ":\n  ",
    ":\n    ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "!t ",
    "!!str ",
    "\"",
    "'",
    "| ",
    "> ",
    "# ",
    "1",
    "-1",
    "1e400",
    "5s",
    "2MiB",
    "/lane",
    "{lane}",
    "http://127.0.0.1/",
    "10.0.0.0/8",
    "null",
    "\t",
    "---\n",
    "...\n",
    "\u{85}\u{2028}é😀\u{0}",
    "sql",
    "params",
    "unique",
    "indexes",
    "throughput",
    "ttl",
    "hash",
    "buckets",
    "query",
    "idempotency",
    "SELECT * FROM c WHERE c.a = @a",
    "{query.a}",
    "filter",
    "operator",
    "NumberInRange",
    "values",
    "webhook",
    "headers",
    "sign",
    "{{a}}",
    "named_values",
    "queue",
    "batch",
    "auth",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(manifest in "\\PC*|(?s).{0,200}") {
        drop(load(&sources([text(&manifest)], &[("LANEKEEPER__LIMITS__BODY", &manifest)])));
    }

    #[test]
    fn arbitrary_yaml_never_panics(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        drop(load(&sources([text(&pieces.concat())], &[])));
    }

    #[test]
    fn a_good_manifest_with_a_change_anywhere_never_panics(
        at in 0..NORTHWIND_TEXT.len(), until in 0_usize..12, piece in prop::sample::select(&PIECES[..]),
    ) {
        let mut manifest: Vec<u8> = NORTHWIND_TEXT.into();
        manifest.splice(at..(at + until).min(NORTHWIND_TEXT.len()), piece.bytes());
        let manifest = String::from_utf8_lossy(&manifest);
        drop(load(&sources([text(&manifest)], &NORTHWIND_SECRETS)));
    }

    #[test]
    fn quantities_are_read_as_they_are_written(amount in 1_u64..=u64::MAX / 2, millis in 1_u64..=u64::from(u32::MAX)) {
        prop_assert_eq!(units::size(&units::write_size(amount)), Some(amount));
        let length = Duration::from_millis(millis);
        prop_assert_eq!(units::duration(&units::write_duration(length)), Some(length));
    }
}

#[test]
fn dates_are_read_as_rfc_3339_says() {
    let seconds = |text: &str| {
        units::timestamp(text).map(|moment| moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    };
    assert_eq!(seconds("1970-01-01"), Some(0));
    assert_eq!(seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
    assert_eq!(seconds("2024-02-29T23:59:60.5z"), Some(1_709_251_200));
    assert_eq!(seconds("2038-01-19 03:14:07-00:00"), Some(2_147_483_647));
    assert_eq!(seconds("9999-12-31T23:59:59+23:59"), Some(253_402_214_459));
    for wrong in ["2023-02-29", "2100-02-29", "2024-13-01", "2024-00-10", "24-01-01", "2024-01-01T24:00:00Z"]
    {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
    for wrong in
        ["", "2024-01-01T", "2024-01-01T00:00:00", "2024-01-01T00:00:00.Z", "2024-1-1", "2024-01-01é"]
    {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
}
