//! The section `edge`: whom to believe, who may come in, and bounds that have one value.

use std::num::NonZeroU32;
use std::path::PathBuf;

use lanekeeper_actors::model::secret::Secret;
use tempfile::TempDir;

use super::*;
use crate::edge::Paths;
use crate::edge::client::ClientHeader;
use crate::edge::lock::OriginLock;
use crate::edge::tls::{ClientAuthority, TlsVersion};

fn edge(section: &str) -> Manifest {
    let sources = sources([text(&format!("manifest: 1\n{section}\n"))], &[("DOOR", "a-secret-of-doors")]);
    load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn nobody_is_believed_and_nothing_is_locked_by_default() {
    let found = load(&Sources::default()).unwrap();
    assert_eq!(found.edge, Edge::default());
    assert_eq!((found.edge.client_address, found.edge.paths), (ClientHeader::XForwardedFor, Paths::Once));
    let Limits { uri, header, body_grace, body_rate, requests_per_ip, .. } = found.limits;
    assert_eq!((uri, header, body_grace, body_rate), (8 << 10, 16 << 10, Duration::from_secs(5), 240));
    assert_eq!(requests_per_ip, None);
}

#[test]
fn the_design_s_words_are_understood() {
    let found = edge(
        "
named_values: { front-door-id: { value: '11111111-2222' }, door: { secret: { env: DOOR } } }
edge:
  trusted_proxies: [10.0.0.0/8, 'fd00::/8', 192.0.2.7]
  client_address: forwarded
  paths: strict
  origin_lock:
    - { header: X-Azure-FDID, equals: '{{front-door-id}}' }
    - { header: x-door, equals: '{{door}}' }
    - { header: x-plain, equals: written-out }
    - { from: [10.0.0.0/8] }
  limits: { header: 8KiB, uri: 4KiB, body: 1MiB, header_timeout: 6s, body_timeout: 31s, connections: 9999,
            per_ip: 500/s, body_rate: 1KiB/s, streams: 7 }",
    );
    let block = |text: &str| text.parse().unwrap();
    let lock =
        |name: &str, value: &str| OriginLock::Header { name: name.into(), equals: Secret::from(value) };
    assert_eq!(
        found.edge,
        Edge {
            trusted_proxies: vec![block("10.0.0.0/8"), block("fd00::/8"), block("192.0.2.7")],
            client_address: ClientHeader::Forwarded,
            origin_lock: vec![
                lock("x-azure-fdid", "11111111-2222"),
                lock("x-door", "a-secret-of-doors"),
                lock("x-plain", "written-out"),
                OriginLock::From(vec![block("10.0.0.0/8")]),
            ],
            paths: Paths::Strict,
        }
    );
    let limits = found.limits;
    assert_eq!((limits.header, limits.uri, limits.body), (8 << 10, 4 << 10, 1 << 20));
    assert_eq!(
        (limits.header_timeout, limits.body_timeout),
        (Duration::from_secs(6), Duration::from_secs(31))
    );
    assert_eq!((limits.connections, limits.streams_per_connection, limits.body_rate), (9999, 7, 1024));
    let rate = Rate { calls: NonZeroU32::new(500).unwrap(), per: Duration::from_secs(1) };
    assert_eq!(limits.requests_per_ip, Some(rate));
    assert!(!format!("{found:?}").contains("a-secret-of-doors"));
}

#[test]
fn a_bound_that_is_written_both_ways_is_refused_once_and_by_place() {
    table(&[
        (
            "limits: { body: 1MiB }\nedge: { limits: { body: 2MiB } }",
            &["3:19: `body` is `limits.body`, which is given at 2:11 too"],
        ),
        (
            "limits: { requests_per_ip: off }\nedge: { limits: { per_ip: 5/s } }",
            &["3:19: `per_ip` is `limits.requests_per_ip`, which is given at 2:11 too"],
        ),
        ("edge: { limits: { boddy: 1MiB } }", &["2:19: unknown key `boddy`, did you mean `body`?"]),
        (
            "edge: { limits: { uri: 8 } }",
            &["2:24: expected a size from `256B` to `64KiB` (units B, KiB, MiB, GiB), found `8`"],
        ),
        (
            "edge: { limits: { per_ip: often } }",
            &["2:27: expected a rate such as `500/s` or `{ calls: 100, per: 60s }`, found `often`"],
        ),
        (
            "edge: { limits: { body_rate: 240B } }",
            &["2:30: expected a pace from `1B/s` to `1MiB/s`, found `240B`"],
        ),
        ("edge: { limits: }\nlimits: { uri: 1KiB }", &[]),
        ("edge:", &[]),
    ]);
}

#[test]
fn what_nobody_could_keep_is_refused() {
    table(&[
        (
            "edge: { trusted_proxies: [10.1.2.3/8, everybody] }",
            &[
                "2:27: `10.1.2.3/8` has bits outside its prefix, did you mean `10.0.0.0/8`?",
                "2:39: expected an address, or a block such as `10.0.0.0/8`, found `everybody`",
            ],
        ),
        (
            "edge: { client_address: x-real-ip }",
            &["2:25: expected one of `x-forwarded-for`, `forwarded`, found `x-real-ip`"],
        ),
        (
            "edge: { origin_lock: [{ header: 'a b', equals: x }] }",
            &["2:33: `a b` is not the name of a header"],
        ),
        (
            "edge: { origin_lock: [{ header: a, equals: '' }] }",
            &["2:44: expected a value that is not empty, found ``"],
        ),
        (
            "edge: { origin_lock: [{ header: a, equals: '{{none}}' }] }",
            &["2:44: there is no named value `none`"],
        ),
        ("edge: { origin_lock: [{ header: a }] }", &["2:23: missing key `equals`"]),
        (
            "edge: { origin_lock: [{ from: [] }] }",
            &["2:31: expected at least one entry in this list, found a list"],
        ),
        ("edge: { origin_lock: [{ from: [::1], header: a }] }", &["2:38: `header` does not go with `from`"]),
        ("edge: { injection: prevent }", &["2:9: `injection` is not built yet"]),
    ]);
}

#[test]
fn files_of_a_listener_start_at_the_manifest_and_must_fit() {
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["b.example".to_owned()]).unwrap();
    std::fs::write(dir.path().join("a.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("a.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("b.key"), other.signing_key.serialize_pem()).unwrap();
    let main = dir.path().join("main.yaml");
    let load = |tls: &str| {
        let text =
            format!("manifest: 1\nserver: {{ listen: [{{ addr: '127.0.0.1:0', tls: {{ {tls} }} }}] }}\n");
        std::fs::write(&main, text).unwrap();
        load(&sources([Source::File(main.clone())], &[])).map_err(|problems| {
            let problem = &problems.as_slice()[0];
            (problem.column, problem.message.replace(&format!("{}", dir.path().display()), "DIR"))
        })
    };
    let found = load("cert: a.pem, key: a.key, client_ca: a.pem, client_cert: optional, min: '1.3'").unwrap();
    let tls = found.server.listen[0].tls.clone().unwrap();
    assert_eq!((tls.cert, tls.key), (dir.path().join("a.pem"), dir.path().join("a.key")));
    assert_eq!(tls.client, Some(ClientAuthority { ca: dir.path().join("a.pem"), required: false }));
    assert_eq!(tls.oldest, TlsVersion::V1_3);
    let refused = |tls: &str| load(tls).unwrap_err();
    let absent = |name: &str| {
        let path = PathBuf::from("DIR").join(name);
        format!("`{}` cannot be read: No such file or directory (os error 2)", path.display())
    };
    assert_eq!(refused("cert: none.pem, key: a.key"), (50, absent("none.pem")));
    assert_eq!(refused("cert: a.pem, key: none.key"), (63, absent("none.key")));
    let mismatch = "the key does not belong to the certificate `DIR/a.pem`".to_owned();
    assert_eq!(refused("cert: a.pem, key: b.key"), (63, mismatch));
    assert_eq!(refused("cert: a.key, key: a.key").0, 50);
    assert_eq!(
        refused("cert: a.pem, key: a.key, client_cert: optional").1,
        "`client_cert` needs `client_ca`: whose certificates are accepted"
    );
    assert!(refused("cert: a.pem, key: a.key, min: '1.1'").1.contains("expected one of `1.2`, `1.3`"));
    assert_eq!(refused("acme: {}, cert: a.pem, key: a.key").1, "`acme` is not built yet");
}
