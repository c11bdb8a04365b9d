//! What is refused in every section alike: the format, its bounds, keys that are unknown or not built yet.

use super::*;

#[test]
fn the_version_of_the_format_is_checked() {
    assert_eq!(problems("project: x\n"), ["m.yaml:1:1: missing key `manifest`: write `manifest: 1`"]);
    assert_eq!(problems(""), ["m.yaml:1:1: missing key `manifest`: write `manifest: 1`"]);
    let other = ["m.yaml:1:11: expected `manifest: 1`, the one format of this version, found `2`"];
    assert_eq!(problems("manifest: 2\n"), other);
    assert_eq!(problems("- 1\n"), ["m.yaml:1:1: expected a mapping, found a list"]);
}

#[test]
fn what_is_not_yaml_is_refused_with_its_place() {
    table(&[
        ("a: [1, 2", &["3:1: this is not YAML: while parsing a flow sequence, expected ',' or ']'"]),
        ("project: a\nproject: b", &["3:1: key `project` is given twice, first at 2:1"]),
        ("project: !secret x", &["2:10: tag `!secret` has no meaning in a manifest"]),
        ("? [a, b]\n: c", &["2:3: a key must be plain text"]),
        ("project: a\n---\nproject: b", &["3:1: a manifest is one YAML document, here begins a second"]),
        ("project: *gone", &["2:10: this is not YAML: while parsing node, found unknown anchor"]),
        ("project: &a [*a]", &["2:14: this alias stands inside what it names"]),
    ]);
}

#[test]
fn depth_and_aliases_are_bounded() {
    // The parser looks ahead, and has a bound of its own on what it sees there.
    let deep = format!("manifest: 1\nx: {}", "[".repeat(100_000));
    assert_eq!(problems(&deep), ["m.yaml:2:259: this is not YAML: recursion limit exceeded"]);
    let deep = format!("manifest: 1\nx: {}", "[".repeat(100));
    assert_eq!(problems(&deep), ["m.yaml:2:67: nested deeper than 64 levels"]);
    let deep = format!("manifest: 1\nx:\n  {}", "- ".repeat(400_000));
    assert_eq!(problems(&deep), ["m.yaml:3:129: nested deeper than 64 levels"]);

    let mut laughs = "manifest: 1\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = level - 1;
        let all = format!("*a{before}, ").repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{all}]\n"));
    }
    let found = problems(&laughs);
    assert!(found.iter().any(|line| line.contains("hold more than 10000 values")), "{found:?}");

    let mut chain = "manifest: 1\na0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let found = problems(&chain);
    assert!(found.iter().any(|line| line.contains("nested deeper than 64 levels")), "{found:?}");
}

#[test]
fn aliases_are_read_as_what_they_name() {
    let manifest = "
manifest: 1
containers:
  a: &same { partition_key: [/x], tenancy: &mode isolated }
  b: *same
  c: { partition_key: [/y], tenancy: *mode }
";
    let loaded = load(&sources([text(manifest)], &[])).unwrap();
    assert_eq!(loaded.containers["a"], loaded.containers["b"]);
    assert_eq!(loaded.containers["c"].tenancy, Tenancy::Isolated);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    table(&[
        ("contaners: {}", &["2:1: unknown key `contaners`, did you mean `containers`?"]),
        (
            "containers: { c: { partiton_key: [/k] } }",
            &[
                "2:18: missing key `partition_key`",
                "2:20: unknown key `partiton_key`, did you mean `partition_key`?",
            ],
        ),
        ("server: { shard: 3 }", &["2:11: unknown key `shard`, did you mean `shards`?"]),
        ("limits:\n  pages: 3", &["3:3: unknown key `pages`, did you mean `page_max`?"]),
        ("zzz: 1", &["2:1: unknown key `zzz`"]),
        ("\"a\\nb\": 1", &["2:1: unknown key `a\\nb`"]),
    ]);
}

#[test]
fn what_the_design_promises_and_this_version_lacks_is_refused_by_name() {
    let manifest = "
containers:
  loads: { partition_key: [/lane] }
topics:
  load-events: { from: { container: loads, types: { created: LoadCreated } } }
  partner-events: {}
functions: { quote: { runtime: js } }
event_subscriptions:
  a: { topic: load-events, to: { webhook: 'http://example.com' } }
  c: { topic: load-events, to: { function: matching } }
apis:
  freight:
    path: /freight
    operations:
      create: { method: POST, path: /l, to: { container: loads, do: create }, body: {} }
      rates: { method: GET, path: /rates, to: { upstream: 'http://127.0.0.1:7003/rates' }, cache: { ttl: 30s } }
      quote: { method: POST, path: /quotes, to: { function: quote } }
products:
  p: { apis: [freight] }
";
    let found = problems(&format!("manifest: 1{manifest}"));
    let lacking = ["functions", "function", "body", "cache"];
    for key in lacking {
        let message = format!("`{key}` is not built yet");
        assert!(found.iter().any(|line| line.ends_with(&message)), "{key} in {found:#?}");
    }
    // Nothing else is wrong with it: `function` is there twice.
    assert_eq!(found.len(), lacking.len() + 1, "{found:#?}");
}

#[test]
fn the_number_of_problems_is_bounded() {
    let mut manifest = "manifest: 1\n".to_owned();
    for index in 0..1500 {
        manifest.push_str(&format!("zz{index}: 1\n"));
    }
    let found = problems(&manifest);
    assert_eq!(found.len(), 1001);
    assert!(found[1000].ends_with("500 more problems are not listed"), "{}", found[1000]);
}
