//! What a manifest says of events: topics, filters, destinations, secrets, and operations on queues.

use lanekeeper_actors::model::delivery::Credentials;
use lanekeeper_actors::subscriber::{ContentMode, Gone, HeaderValue, Order};

use super::*;

const GIVEN: &str = "
containers: { c: { partition_key: [/k] } }
topics: { t: { from: { container: c, types: { created: Made } } }, p: {} }
named_values: { plain: { value: abc }, key: { secret: { env: SIGNING } }, token: { secret: { env: ACME_KEY } } }
";

fn subscription(body: &str) -> String {
    format!("{GIVEN}event_subscriptions:\n  s: {body}")
}

fn to(keys: &str) -> String {
    subscription(&format!("{{ topic: t, to: {{ webhook: 'https://example.com/', {keys} }} }}"))
}

fn loaded(manifest: &str) -> Manifest {
    load(&sources([text(&format!("manifest: 1\n{manifest}"))], &[("ACME_KEY", SECRET), ("SIGNING", SIGNING)]))
        .unwrap()
}

fn webhook(manifest: &Manifest) -> Webhook {
    match &manifest.event_subscriptions["s"].to {
        Destination::Webhook(webhook) => (**webhook).clone(),
        Destination::Queue(queue) => panic!("{queue:?}"),
    }
}

#[test]
fn a_destination_can_have_everything() {
    let manifest = loaded(&to(
        "allow: [10.0.0.0/8], sign: ['{{key}}', '{{ key }}'], auth: { bearer: '{{token}}' }, on_gone: retry, \
         rate: 10/s, origin: northwind.example, \
         headers: { X-Fixed: '{{plain}}', x-from: { from: data.a.b }, x-secret: { secret: '{{token}}' } }",
    ));
    let webhook = webhook(&manifest);
    assert_eq!((webhook.sign.len(), webhook.rate, webhook.on_gone), (2, Some(600), Gone::Retry));
    assert_eq!(webhook.auth, Some(Credentials::Bearer(SECRET.into())));
    let values: Vec<_> = webhook.headers.iter().map(|header| (&*header.name, header.value.clone())).collect();
    let expected = [
        ("x-fixed", HeaderValue::Static("abc".into())),
        ("x-from", HeaderValue::Event("data.a.b".into())),
        ("x-secret", HeaderValue::Secret(SECRET.into())),
    ];
    assert_eq!(values, expected);
    let printed = format!("{manifest:?}");
    assert!(!printed.contains(SECRET) && !printed.contains(SIGNING), "{printed}");
}

#[test]
fn a_subscription_can_have_everything() {
    let manifest = loaded(&subscription(
        "{ topic: p, tenant: acme, types: [All], arrays: true, order: partition, batch: { events: 10 }, \
         filter: [{ key: data.n, operator: numberinrange, values: [[1, 2]] }, { key: subject, operator: IsNotNull }], \
         to: { webhook: 'https://example.com/' }, dead_letter: { blob: 'file:///letters/x' } }",
    ));
    let subscription = &manifest.event_subscriptions["s"];
    assert_eq!((subscription.tenant.as_deref(), subscription.arrays), (Some("acme"), true));
    assert_eq!((subscription.filter.len(), subscription.order), (2, Order::Partition));
    assert_eq!(subscription.dead_letter, Some(Place::Directory("/letters/x".into())));
    assert_eq!(webhook(&manifest).batch.unwrap().bytes, 65_536);
    let queue = loaded(&subscription_of("p", "queue: { lock: 5s }"));
    let Destination::Queue(queue) = queue.event_subscriptions["s"].to.clone() else { panic!("a queue") };
    assert_eq!((queue.lock, queue.max_deliveries), (Duration::from_secs(5), 10));
    assert_eq!(manifest.topics["p"].retention, Duration::from_secs(86_400));
    assert_eq!(manifest.topics["t"].retention, Duration::ZERO);
}

fn subscription_of(topic: &str, to: &str) -> String {
    subscription(&format!("{{ topic: {topic}, to: {{ {to} }} }}"))
}

#[test]
fn the_topic_of_the_system_is_there_for_subscriptions_only() {
    assert_eq!(
        problems(&format!("manifest: 1\n{}", subscription_of("lanekeeper.system", "queue: {}"))),
        [""; 0]
    );
    let declared = problems("manifest: 1\ntopics: { lanekeeper.system: {} }");
    assert!(declared[0].contains("`lanekeeper.system` is not a name"), "{declared:?}");
    table(&[
        (
            &format!(
                "{GIVEN}apis: {{ a: {{ path: /, operations: {{ o: {{ method: POST, path: /, to: {{ topic: lanekeeper.system, do: publish }} }} }} }} }}"
            ),
            &["6:78: `lanekeeper.system` has events of the system alone"],
        ),
        (
            &subscription("{ topic: t, to: { queue: {} }, dead_letter: { blob: 'ftp://host/x' } }"),
            &[
                "7:58: `ftp://host/x` is no place: name a directory, `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`",
            ],
        ),
        (
            &subscription("{ topic: lanekeeper.system, types: [dead_letter.creatd], to: { queue: {} } }"),
            &["7:42: the topic makes no event `dead_letter.creatd`, did you mean `dead_letter.created`?"],
        ),
    ]);
}

#[test]
fn filters_are_checked_with_their_place() {
    let filter = |filter: &str| {
        subscription(&format!(
            "{{ topic: t, to: {{ webhook: 'https://example.com/' }}, filter: [{filter}] }}"
        ))
    };
    let many = ["{ key: subject, operator: IsNotNull }"; 26].join(", ");
    table(&[
        (
            &filter("{ key: data.n, operator: NumberGreatrThan, value: 1 }"),
            &["7:93: there is no operator `NumberGreatrThan`, did you mean `NumberGreaterThan`?"],
        ),
        (
            &filter("{ key: data.n, operator: StringIn, value: a }"),
            &["7:93: `StringIn` takes `values`, a list of at least one text"],
        ),
        (
            &filter("{ key: 'da ta', operator: IsNotNull }"),
            &[
                "7:68: condition on `da ta`: a key is the name of an attribute (letters and digits), or `data.` and names parted by dots",
            ],
        ),
        (
            &filter("{ operator: IsNotNull, kee: 1 }"),
            &["7:68: missing key `key`", "7:91: unknown key `kee`, did you mean `key`?"],
        ),
        (&filter(&many), &["7:67: 26 conditions, the limit is 25"]),
    ]);
}

#[test]
fn secrets_of_destinations_are_references() {
    table(&[
        (
            &to("sign: whsec_very_secret"),
            &[
                "7:63: a secret is a reference, never a literal: write `\"{{name}}\"`, a name of `named_values`",
            ],
        ),
        (&to("sign: '{{kee}}'"), &["7:63: there is no named value `kee`, did you mean `{{key}}`?"]),
        (
            &to("sign: '{{token}}'"),
            &["7:63: this secret cannot sign: a signing key begins with `whsec_` or `whsk_`"],
        ),
        (
            &to("auth: { bearer: '{{plain}}' }"),
            &["7:73: named value `plain` is no secret: give it `secret` instead of `value`"],
        ),
        (
            &to("headers: { x-a: '{{token}}' }"),
            &["7:73: named value `token` is a secret, which would show here"],
        ),
        (
            "named_values: { a: {}, b: { secret: { env: NOPE } }, c: { secret: { env: EMPTY_KEY } } }",
            &[
                "2:20: expected either `value`, or `secret: { env: NAME }`, found a mapping",
                "2:44: environment variable `NOPE` is not set",
                "2:74: environment variable `EMPTY_KEY` does not hold a secret: 1 to 4096 bytes on one line",
            ],
        ),
    ]);
}

#[test]
fn destinations_are_checked() {
    let own = |name: &str| format!("7:68: header `{name}` is written by the server itself");
    table(&[
        (&to("headers: { Content-Type: a }"), &[&own("content-type")]),
        (&to("headers: { aeg-x: a }"), &[&own("aeg-x")]),
        (&to("headers: { Authorization: a }"), &[&own("authorization")]),
        (&to("headers: { webhook-id: a }"), &[&own("webhook-id")]),
        (
            &to("headers: { x-a: { from: 'a b' } }"),
            &["7:81: expected the name of an attribute, or `data.` and names parted by dots, found `a b`"],
        ),
        (
            &to("rate: 60/h"),
            &["7:63: expected deliveries per minute such as `600`, `600/min` or `10/s`, found `60/h`"],
        ),
        (
            &to("on_gone: disabled"),
            &["7:66: expected one of `disable`, `retry`, found `disabled`, did you mean `disable`?"],
        ),
        (
            &to(
                "auth: { oauth2: { token_url: 'http://10.0.0.1/', client_id: a, client_secret: '{{token}}' } }",
            ),
            &["7:86: `10.0.0.1` is not a public address, and `allow` does not cover it"],
        ),
        (&subscription_of("t", "queue: {}, sign: '{{key}}'"), &["7:35: `sign` does not go with `queue`"]),
        (
            &subscription_of("t", "queue: { lock: 2h, max_deliveries: 0 }"),
            &[
                "7:39: expected a duration from `1s` to `1h` (units ms, s, m, h, d), found `2h`",
                "7:59: expected a whole number from 1 to 100, found `0`",
            ],
        ),
    ]);
}

#[test]
fn operations_on_events_are_checked() {
    let operation = |to: &str| {
        let subscriptions = "event_subscriptions: { q: { topic: p, to: { queue: {} } }, w: { topic: p, to: { webhook: 'https://example.com/' } } }";
        format!(
            "{GIVEN}{subscriptions}\napis: {{ a: {{ path: /, operations: {{ o: {{ method: POST, path: /, to: {{ {to} }} }} }} }} }}"
        )
    };
    for good in [
        "topic: p, do: publish",
        "queue: q, do: receive",
        "queue: q, do: renewLock",
        "queue: q, do: renew_lock",
    ] {
        assert_eq!(problems(&format!("manifest: 1\n{}", operation(good))), [""; 0], "{good}");
    }
    table(&[
        (&operation("topic: t, do: publish"), &["7:78: `t` has the changes of `c`: nobody publishes to it"]),
        (
            &operation("topic: p, do: publsh"),
            &["7:85: expected one of `publish`, found `publsh`, did you mean `publish`?"],
        ),
        (&operation("queue: w, do: receive"), &["7:78: the events of `w` are sent: it is no `queue`"]),
        (
            &operation("queue: qq, do: reject, id: a"),
            &[
                "7:78: there is no event subscription `qq`, did you mean `q`?",
                "7:94: `id` does not go with `queue`",
            ],
        ),
    ]);
}

#[test]
fn an_event_can_be_sent_in_binary_mode_and_then_alone() {
    assert_eq!(webhook(&loaded(&to("rate: 1"))).mode, ContentMode::Structured);
    assert_eq!(webhook(&loaded(&to("mode: binary"))).mode, ContentMode::Binary);
    table(&[
        (
            &subscription(
                "{ topic: t, to: { webhook: 'https://example.com/', mode: binary }, batch: { events: 2 } }",
            ),
            &["7:73: `batch` does not go with `mode: binary`, which has one event in a request"],
        ),
        (&subscription_of("t", "queue: {}, mode: binary"), &["7:35: `mode` does not go with `queue`"]),
        (&to("mode: batched"), &["7:63: expected one of `structured`, `binary`, found `batched`"]),
    ]);
}

#[test]
fn a_destination_that_nothing_could_ever_be_sent_to_is_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\naGFyZGx5\n-----END CERTIFICATE-----\n").unwrap();
    let given = problems(&format!("manifest: 1\n{}", to(&format!("ca: '{}'", path.display()))));
    assert_eq!(given.len(), 1, "{given:?}");
    assert!(given[0].contains("7:57: nothing could ever be sent there: "), "{given:?}");
    // A key by itself is text that begins like one: it cannot be told from a good one before it is used.
    std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\naGFyZGx5\n-----END PRIVATE KEY-----\n").unwrap();
    let given = problems(&format!("manifest: 1\n{}", to(&format!("ca: '{}'", path.display()))));
    let wanted = "7:57: nothing could ever be sent there: there is no authority's certificate in the text";
    assert!(given.len() == 1 && given[0].contains(wanted), "{given:?}");
}
