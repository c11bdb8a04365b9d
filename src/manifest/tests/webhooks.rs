//! What a manifest may say of webhooks that tenants make.

use super::*;

const ISOLATED: &str = "containers: { notes: { partition_key: [/o], tenancy: isolated }, loads: { partition_key: [/l] } }
topics: { own: { from: { container: notes, types: { created: A } } }, all: { from: { container: loads, types: { created: A } } } }";

fn to(target: &str) -> String {
    let operation = format!("x: {{ method: GET, path: '/{{id}}', to: {{ {target} }} }}");
    format!("{ISOLATED}\napis: {{ a: {{ path: /a, operations: {{ {operation} }} }} }}")
}

fn product(rules: &str) -> String {
    format!(
        "apis: {{ a: {{ path: /a, operations: {{ x: {{ method: GET, path: /, to: {{ mock: {{ status: 200 }} }} }} }} }} }}\nproducts: {{ p: {{ apis: [a], webhooks: {{ {rules} }} }} }}"
    )
}

#[test]
fn operations_and_rules_of_webhooks_are_read() {
    let verbs = ["show", "update", "rotate_secret", "test", "attempts", "dead_letters", "replay", "delete"];
    for verb in verbs {
        assert_eq!(
            problems(&format!(
                "manifest: 1\n{}\n",
                to(&format!("subscriptions: own, do: {verb}, id: '{{id}}'"))
            )),
            Vec::<String>::new()
        );
    }
    let text_of = product(
        "max: 3, rate: 600, hosts: ['*.Partner.example'], allow: [127.0.0.0/8], handshake: event_grid",
    );
    let manifest = load(&sources([text(&format!("manifest: 1\n{text_of}\n"))], &[])).unwrap();
    let rules = WebhookRules {
        max: 3,
        rate: Some(600),
        hosts: Some(vec!["*.partner.example".to_owned()]),
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        handshake: HandshakeRule::EventGrid,
    };
    assert_eq!(manifest.products["p"].webhooks, rules);
    let plain = load(&sources([text(&format!("manifest: 1\n{}\n", product("")))], &[])).unwrap();
    assert_eq!(plain.products["p"].webhooks, WebhookRules::default());
}

#[test]
fn webhooks_that_cannot_be_are_refused_with_the_place() {
    let found = |manifest: String| problems(&format!("manifest: 1\n{manifest}\n")).join("\n");
    for (target, wanted) in [
        ("subscriptions: all, do: list", "nobody knows whose the events of `all` are"),
        ("subscriptions: owm, do: list", "there is no topic `owm`, did you mean `own`?"),
        ("subscriptions: own, do: show", "missing key `id`"),
        ("subscriptions: own, do: list, id: '{id}'", "`id` does not go with `do: list`"),
        ("subscriptions: own, do: lst", "did you mean `list`?"),
        ("subscriptions: own, do: show, id: '{ix}'", "there is no parameter `{ix}` in the path"),
        ("subscriptions: own, do: list, container: notes", "`container` does not go with `subscriptions`"),
    ] {
        let found = found(to(target));
        assert!(found.contains(wanted), "{target}: {found}");
    }
    for (rules, wanted) in [
        ("max: -1", "expected a whole number"),
        ("rate: 0", "expected a whole number from 1"),
        ("hosts: ['*.']", "expected a host, or a domain"),
        ("hosts: ['https://a.example']", "expected a host, or a domain"),
        ("allow: [10.0.0.1/8]", "did you mean `10.0.0.0/8`?"),
        ("handshake: azure", "expected one of `event_grid`, `cloudevents`, `none`"),
        ("maximum: 3", "unknown key `maximum`"),
    ] {
        let found = found(product(rules));
        assert!(found.contains(wanted), "{rules}: {found}");
    }
    for url in ["api.example", "ftp://a.example", "https://", "https://a.example/?x=1", "https://u@a.example"]
    {
        let found = found(format!("server: {{ public_url: '{url}' }}"));
        assert!(found.contains("expected an `https` or `http` URL without query"), "{url}: {found}");
    }
}
