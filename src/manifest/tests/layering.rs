//! Which source wins, and how files include others.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// The problems of one file, with the directory left out of their places.
fn problems_of(dir: &TempDir, file: &Path) -> Vec<String> {
    let problems = load(&sources([Source::File(file.to_owned())], &[])).unwrap_err().to_string();
    let prefix = format!("{}/", dir.path().display());
    problems.lines().map(|line| line.replace(&prefix, "")).collect()
}

#[test]
fn later_files_win_and_mappings_are_merged_deeply() {
    let first = "
manifest: 1
project: first
server: { shards: 2, listen: ['127.0.0.1:1', '127.0.0.1:2'] }
containers: { a: { partition_key: [/x] }, b: { partition_key: [/x] } }
";
    let second = "
manifest: 1
project: second
server: { listen: ['127.0.0.1:3'] }
containers: { b: { tenancy: isolated } }
topics:
";
    let manifest = load(&sources([text(first), text(second)], &[])).unwrap();
    assert_eq!(manifest.project, "second");
    assert_eq!(manifest.server.shards, 2);
    assert_eq!(manifest.server.listen, vec![Listener { addr: "127.0.0.1:3".parse().unwrap(), tls: None }]);
    assert_eq!(manifest.server.admin.addr, "127.0.0.1:9080".parse().unwrap());
    assert_eq!(manifest.containers["a"].tenancy, Tenancy::Shared);
    assert_eq!(manifest.containers["b"].tenancy, Tenancy::Isolated);
    assert_eq!(manifest.containers["b"].partition_key[0].to_string(), "/x");
}

#[test]
fn the_environment_wins_over_files_and_flags_over_both() {
    let file =
        "manifest: 1\nserver: { listen: ['127.0.0.1:1'], admin: '127.0.0.1:2', data: file, shards: 2 }\n";
    let environment = [
        ("LANEKEEPER__SERVER__LISTEN", "127.0.0.1:10"),
        ("lanekeeper__server__admin", "[::1]:20"),
        ("LANEKEEPER__SERVER__DATA", "env"),
        ("LANEKEEPER__LIMITS__AUTH_FAILURES_PER_IP__CALLS", "7"),
        ("LANEKEEPER__LIMITS", "{ body: 1MiB, page_max: 500 }"),
        ("LANEKEEPER__LIMITS__PAGE_MAX", "600"),
        ("LANEKEEPER_ADMIN_TOKEN", "not a setting"),
        ("PATH", "/bin"),
    ];
    let mut sources = sources([text(file)], &environment);
    let manifest = load(&sources).unwrap();
    assert_eq!(manifest.server.listen, vec![Listener { addr: "127.0.0.1:10".parse().unwrap(), tls: None }]);
    assert_eq!(manifest.server.admin.addr, "[::1]:20".parse().unwrap());
    assert_eq!(manifest.server.data, PathBuf::from("env"));
    assert_eq!((manifest.server.shards, manifest.server.shards_given), (2, true));
    assert_eq!(manifest.limits.auth_failures_per_ip.calls.get(), 7);
    assert_eq!((manifest.limits.body, manifest.limits.page_max), (1024 * 1024, 600));

    sources.flags = Flags {
        listen: Some("127.0.0.1:0".to_owned()),
        admin: Some("127.0.0.1:0".to_owned()),
        data: Some(PathBuf::from("flag")),
    };
    let manifest = load(&sources).unwrap();
    assert_eq!(manifest.server.listen, vec![Listener { addr: "127.0.0.1:0".parse().unwrap(), tls: None }]);
    assert_eq!(manifest.server.admin.addr.port(), 0);
    assert_eq!(manifest.server.data, PathBuf::from("flag"));
}

#[test]
fn a_variable_finds_names_with_other_letters_and_dashes() {
    let environment = [
        ("ACME_KEY", SECRET),
        ("PARTNER_SIGNING", SIGNING),
        ("LANEKEEPER__APIS__FREIGHT__OPERATIONS__PING__TO__MOCK__STATUS", "503"),
        ("LANEKEEPER__EVENT_SUBSCRIPTIONS__PARTNER_WEBHOOK__RETRY__SCALE", "0.01"),
        ("LANEKEEPER__APIS__FREIGHT__OPERATIONS__CREATELOAD__PATH", "/l"),
    ];
    let manifest = load(&sources([northwind()], &environment)).unwrap();
    let Target::Mock(mock) = &manifest.apis["freight"].operations["ping"].target else { panic!("a mock") };
    assert_eq!(mock.status, 503);
    assert_eq!(manifest.event_subscriptions["partner-webhook"].retry.scale, 0.01);
    assert_eq!(manifest.apis["freight"].operations["createLoad"].path.to_string(), "/l");
}

#[test]
fn a_problem_from_the_environment_or_a_flag_names_it() {
    let environment = [
        ("LANEKEEPER__SERVER__SHARDS", "0"),
        ("LANEKEEPER__LIMITS__BODDY", "1MiB"),
        ("LANEKEEPER__", "1"),
        ("LANEKEEPER__SERVER____DATA", "1"),
        ("LANEKEEPER__INCLUDE", "[x.yaml]"),
        ("LANEKEEPER__MANIFEST", "2"),
    ];
    let mut sources = sources([], &environment);
    sources.flags.admin = Some("0.0.0.0:1".to_owned());
    let expected = "\
LANEKEEPER__:1:1: this variable does not name a key: LANEKEEPER__SERVER__LISTEN would
LANEKEEPER__INCLUDE:1:1: `include` works in files only
LANEKEEPER__LIMITS__BODDY:1:1: unknown key `boddy`, did you mean `body`?
LANEKEEPER__MANIFEST:1:1: expected `manifest: 1`, the one format of this version, found `2`
LANEKEEPER__SERVER__SHARDS:1:1: expected a whole number from 1 to 64, found `0`
LANEKEEPER__SERVER____DATA:1:1: this variable does not name a key: LANEKEEPER__SERVER__LISTEN would
--admin:1:1: `0.0.0.0:1` is not a loopback address: elsewhere `admin` needs `tls` with `cert` and `key`";
    assert_eq!(load(&sources).unwrap_err().to_string(), expected);
}

#[test]
fn an_address_of_a_flag_leaves_the_certificates() {
    let dir = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    write(&dir, "a.pem", &made.cert.pem());
    write(&dir, "a.key", &made.signing_key.serialize_pem());
    let tls = "tls: { cert: a.pem, key: a.key }";
    let listeners =
        format!("listen: [{{ addr: '127.0.0.1:1', {tls} }}], admin: {{ addr: '127.0.0.1:2', {tls} }}");
    let main = write(&dir, "main.yaml", &format!("manifest: 1\nserver: {{ {listeners} }}\n"));
    let mut sources = sources([Source::File(main)], &[]);
    sources.flags.listen = Some("127.0.0.1:3".to_owned());
    sources.flags.admin = Some("192.0.2.1:4".to_owned());
    let server = load(&sources).unwrap().server;
    assert_eq!(server.listen.len(), 1);
    assert_eq!(server.listen[0].addr, "127.0.0.1:3".parse().unwrap());
    assert_eq!(server.admin.addr, "192.0.2.1:4".parse().unwrap());
    for listener in [&server.listen[0], &server.admin] {
        assert_eq!(listener.tls.as_ref().unwrap().cert, dir.path().join("a.pem"));
    }
}

#[test]
fn included_files_are_weaker_than_the_file_itself() {
    let dir = TempDir::new().unwrap();
    write(&dir, "parts/a.yaml", "project: a\nserver: { shards: 8 }\ninclude: [../b.yaml]\n");
    write(&dir, "b.yaml", "project: b\nserver: { shards: 16, data: b }\n");
    let main = write(&dir, "main.yaml", "manifest: 1\ninclude: [./parts/a.yaml, b.yaml]\nproject: main\n");
    let manifest = load(&sources([Source::File(main)], &[])).unwrap();
    assert_eq!(manifest.project, "main");
    assert_eq!(manifest.server.shards, 16);
    assert_eq!(manifest.server.data, PathBuf::from("b"));
}

#[test]
fn a_cycle_of_includes_is_refused_where_it_closes() {
    let dir = TempDir::new().unwrap();
    let main = write(&dir, "main.yaml", "manifest: 1\ninclude: [sub/next.yaml]\n");
    write(&dir, "sub/next.yaml", "include:\n  - ../sub/../main.yaml\n");
    let expected = ["sub/next.yaml:2:5: `sub/../sub/../main.yaml` includes itself"];
    assert_eq!(problems_of(&dir, &main), expected);
}

#[test]
fn a_file_that_cannot_be_read_does_not_hide_the_problems_of_others() {
    let dir = TempDir::new().unwrap();
    write(&dir, "broken.yaml", "containers:\n  loads: [\n");
    write(&dir, "bytes.yaml", "project: x # é\nserver: { data: \"é");
    fs::write(dir.path().join("bytes.yaml"), b"project: x\nserver: { data: \xc3\xa9\xff }\n").unwrap();
    write(&dir, "large.yaml", &"#".repeat(1024 * 1024 + 1));
    let main = "
manifest: 1
include: [broken.yaml, bytes.yaml, large.yaml, absent.yaml]
topics: { t: { from: { container: loads } } }
sevrer: {}
";
    let main = write(&dir, "main.yaml", main);
    let found = problems_of(&dir, &main);
    // `loads` may be in the broken file and `types` too, so nothing is said of either.
    assert_eq!(
        found,
        [
            "main.yaml:3:36: `large.yaml` cannot be read: it is larger than 1MiB",
            "main.yaml:3:48: `absent.yaml` cannot be read: No such file or directory (os error 2)",
            "main.yaml:5:1: unknown key `sevrer`, did you mean `server`?",
            "broken.yaml:3:1: this is not YAML: while parsing a node, did not find expected node content",
            "bytes.yaml:2:18: this byte is not UTF-8",
        ]
    );
    let gone = load(&sources([Source::File(dir.path().join("gone.yaml"))], &[])).unwrap_err();
    assert!(
        gone.to_string().ends_with("gone.yaml:1:1: cannot be read: No such file or directory (os error 2)")
    );
}

#[test]
fn the_number_of_files_is_bounded() {
    let dir = TempDir::new().unwrap();
    for level in 0..12 {
        let next = level + 1;
        write(
            &dir,
            &format!("{level}.yaml"),
            &format!("manifest: 1\ninclude: [{next}.yaml, ./{next}.yaml]\n"),
        );
    }
    write(&dir, "12.yaml", "manifest: 1\n");
    let found = problems_of(&dir, &dir.path().join("0.yaml"));
    assert!(found.iter().all(|line| line.ends_with("more than 64 manifest files")), "{found:?}");
}

#[test]
fn a_text_cannot_include_files() {
    let expected = ["m.yaml:2:1: `include` works in files only"];
    assert_eq!(problems("manifest: 1\ninclude: [/etc/passwd]\n"), expected);
}
