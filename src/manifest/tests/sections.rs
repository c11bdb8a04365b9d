//! What each section of a manifest refuses, and exactly what is said of it.

use super::*;

const ONE_OF_EACH: &str = "
containers: { c: { partition_key: [/k] } }
topics: { t: { from: { container: c, types: { created: Made } } } }
";

#[test]
fn names_are_checked() {
    let rule = "is not a name: 1 to 63 letters, digits, `_` and `-`, with a letter or digit first";
    let long = "n".repeat(64);
    table(&[
        ("project: _x", &[&format!("2:10: `_x` {rule}")]),
        (
            "project: 12",
            &["2:10: expected text, which a number, `true` or `false` is only in quotes, found `12`"],
        ),
        (
            &format!("containers: {{ {long}: {{ partition_key: [/k] }} }}"),
            &[&format!("2:15: `{}…` {rule}", "n".repeat(60))],
        ),
        (
            "topics: { 'a b': { from: { container: c, types: { created: T } } } }",
            &[&format!("2:11: `a b` {rule}"), "2:39: there is no container `c`"],
        ),
    ]);
}

#[test]
fn quantities_need_their_unit_and_have_bounds() {
    let time = "expected a duration from `1ms` to `1h` (units ms, s, m, h, d), found";
    table(&[
        (
            "limits: { body: 16KB }",
            &["2:17: expected a size from `1KiB` to `64MiB` (units B, KiB, MiB, GiB), found `16KB`"],
        ),
        (
            "limits: { body: 1 }",
            &["2:17: expected a size from `1KiB` to `64MiB` (units B, KiB, MiB, GiB), found `1`"],
        ),
        ("limits: { header_timeout: 5 }", &[&format!("2:27: {time} `5`")]),
        ("limits: { header_timeout: 2h }", &[&format!("2:27: {time} `2h`")]),
        ("limits: { header_timeout: }", &[&format!("2:25: {time} nothing")]),
        ("limits: { page_max: -1 }", &["2:21: expected a whole number from 1 to 1000000, found `-1`"]),
        (
            "limits: { page_max: 99999999999999999999 }",
            &["2:21: expected a whole number from 1 to 1000000, found `100000000000000000000`"],
        ),
        ("limits: { page_max: 10 }", &["2:11: `page_default` is more than `page_max`"]),
        (
            "limits: { log_segment: 1MiB, body: 4MiB }",
            &[
                "2:11: `batch_bytes` is more than half of `log_segment`",
                "2:30: `body` is more than half of `log_segment`",
            ],
        ),
        (
            "limits: { auth_failures_per_ip: { calls: 0 } }",
            &["2:42: expected a whole number from 1 to 1000000000, found `0`"],
        ),
        ("limits: 3", &["2:9: expected a mapping, found `3`"]),
    ]);
}

#[test]
fn listeners_are_addresses_and_admin_is_private() {
    let form = "expected an address and port such as `127.0.0.1:8080`, found";
    table(&[
        (
            "server: { listen: 'localhost:80' }",
            &[&format!("2:19: {form} `localhost:80`, did you mean `127.0.0.1:80`?")],
        ),
        ("server: { listen: 8080 }", &["2:19: expected a list, found `8080`"]),
        ("server: { listen: [] }", &["2:19: expected 1 to 16 listeners, found a list"]),
        (
            "server: { listen: [{ addr: x, tls: {} }] }",
            &[&format!("2:28: {form} `x`"), "2:36: missing key `cert`", "2:36: missing key `key`"],
        ),
        ("server: { listen: ['1.1.1.1:1', '1.1.1.1:1'] }", &["2:33: `1.1.1.1:1` is listed twice"]),
        (
            "server: { admin: '10.0.0.1:9080' }",
            &[
                "2:18: `10.0.0.1:9080` is not a loopback address: elsewhere `admin` needs `tls` with `cert` and `key`",
            ],
        ),
        (
            "server: { admin: '127.0.0.1:8080' }",
            &["2:18: `127.0.0.1:8080` is a public address too: `admin` needs one of its own"],
        ),
        (
            "server: { shards: 65, data: '' }",
            &[
                "2:19: expected a whole number from 1 to 64, found `65`",
                "2:29: expected the path of a directory, found ``",
            ],
        ),
    ]);
}

#[test]
fn containers_and_topics_are_checked() {
    table(&[
        (
            "containers: { c: { partition_key: /k } }",
            &["2:35: expected a list of paths, found `/k`, did you mean `[/k]`?"],
        ),
        (
            "containers: { c: { partition_key: [k] } }",
            &["2:36: expected a JSON Pointer such as `/lane`, found `k`, did you mean `/k`?"],
        ),
        (
            "containers: { c: { partition_key: [/a//b] } }",
            &["2:36: expected a JSON Pointer of at most 16 names, none of them empty, found `/a//b`"],
        ),
        (
            "containers: { c: { partition_key: [/a~2] } }",
            &["2:36: expected a JSON Pointer of at most 16 names, none of them empty, found `/a~2`"],
        ),
        ("containers: { c: { partition_key: [/a, /b, { hash: /id, buckets: 1024 }] } }", &[]),
        ("containers: { c: { partition_key: [/a, /a] } }", &["2:40: `/a` is in this key twice"]),
        (
            "containers: { c: { partition_key: [{ hash: /id, buckets: 1025 }, { hash: /a }] } }",
            &["2:58: expected a whole number from 1 to 1024, found `1025`", "2:66: missing key `buckets`"],
        ),
        (
            "containers: { c: { partition_key: [/a, /b, /c, /d] } }",
            &["2:35: expected a list of 1 to 3 parts, found a list"],
        ),
        (
            "containers: { c: { partition_key: [] } }",
            &["2:35: expected a list of 1 to 3 parts, found a list"],
        ),
        (
            "containers: { c: { partition_key: [/k], tenancy: isolate } }",
            &["2:50: expected one of `shared`, `isolated`, found `isolate`, did you mean `isolated`?"],
        ),
        (
            &format!("{ONE_OF_EACH}  x: {{ from: {{ container: cc, types: {{ creatd: A }} }} }}")
                .replace("} } } }\n  x", "} } },\n  x")
                .replace("A } } }", "A } } } }"),
            &[
                "5:27: there is no container `cc`, did you mean `c`?",
                "5:40: unknown key `creatd`, did you mean `created`?",
            ],
        ),
        (
            "containers: { c: { partition_key: [/k] } }\ntopics: { t: { from: { container: c, types: {} } } }",
            &["3:45: expected a type for `created`, `replaced` or `deleted`, found a mapping"],
        ),
    ]);
}

fn subscription(body: &str) -> String {
    format!("{ONE_OF_EACH}event_subscriptions:\n  s: {body}")
}

#[test]
fn subscriptions_are_checked() {
    let url = "to: { webhook: 'https://example.com/' }";
    let row = |body: &str| subscription(&format!("{{ topic: t, {url}, {body} }}"));
    let attempts = row("retry: { max_attempts: 31, ttl: 25h, scale: 0 }");
    let types = row("types: [Mad, 7, Made, Made]");
    let none = row("types: []");
    let subject = row("subject: { begin: x, case_sensitive: no }");
    table(&[
        (
            &subscription("{ topic: tt }"),
            &["6:6: missing key `to`", "6:15: there is no topic `tt`, did you mean `t`?"],
        ),
        (
            &attempts,
            &[
                "6:82: expected a whole number from 1 to 30, found `31`",
                "6:91: expected a duration from `1s` to `1d` (units ms, s, m, h, d), found `25h`",
                "6:103: expected a number from 0.0001 to 1, found `0`",
            ],
        ),
        (
            &types,
            &[
                "6:67: the topic makes no event `Mad`, did you mean `Made`?",
                "6:72: expected text, which a number, `true` or `false` is only in quotes, found `7`",
                "6:81: `Made` is listed twice",
            ],
        ),
        (&none, &["6:66: expected at least one entry in this list, found a list"]),
        (
            &subject,
            &[
                "6:70: unknown key `begin`, did you mean `begins`?",
                "6:96: expected `true` or `false`, found `no`",
            ],
        ),
    ]);
}

#[test]
fn destinations_that_are_not_public_need_permission() {
    let row = |to: &str| subscription(&format!("{{ topic: t, to: {{ {to} }} }}"));
    let refused =
        |address: &str| format!("6:33: `{address}` is not a public address, and `allow` does not cover it");
    table(&[
        (&row("webhook: 'http://127.0.0.1:7001/x'"), &[&refused("127.0.0.1")]),
        (&row("webhook: 'http://localhost./x'"), &[&refused("127.0.0.1")]),
        (&row("webhook: 'http://0x7f.1/x'"), &[&refused("127.0.0.1")]),
        (&row("webhook: 'http://[::ffff:10.0.0.1]/x'"), &[&refused("::ffff:10.0.0.1")]),
        (&row("webhook: 'http://169.254.169.254/'"), &[&refused("169.254.169.254")]),
        (&row("webhook: 'http://10.0.0.1/', allow: [127.0.0.0/8]"), &[&refused("10.0.0.1")]),
        (&row("webhook: 'http://10.0.0.1/', allow: [127.0.0.0/8, 10.0.0.0/8]"), &[]),
        (&row("webhook: 'http://localhost:1/', allow: [127.0.0.1]"), &[]),
        (
            &row("webhook: 'http://8.8.8.8/', allow: [10.0.0.1/8, 10.0.0.1, x]"),
            &[
                "6:60: `10.0.0.1/8` has bits outside its prefix, did you mean `10.0.0.0/8`?",
                "6:82: expected an address, or a block such as `10.0.0.0/8`, found `x`",
            ],
        ),
        (&row("webhook: /hook"), &["6:33: expected an `http` or `https` URL, found `/hook`"]),
        (&row("webhook: 'ftp://x/'"), &["6:33: expected an `http` or `https` URL, found `ftp://x/`"]),
        (
            &row("webhook: 'http://me:pw@example.com/'"),
            &["6:33: a URL with a user or password: a secret is a reference, never a literal"],
        ),
        (&row("webhook: 'http://example.com/#x'"), &["6:33: a URL with a fragment, which is never sent"]),
    ]);
}

#[test]
fn operations_are_checked() {
    let row =
        |operations: &str| format!("{ONE_OF_EACH}apis:\n  a:\n    path: /a\n    operations:\n{operations}");
    let read = |rest: &str| {
        row(&format!("      x: {{ method: GET, path: '/{{lane}}/{{id}}', to: {{ container: c, {rest} }} }}"))
    };
    let path = |path: &str| {
        row(&format!("      x: {{ method: GET, path: '{path}', to: {{ mock: {{ status: 200 }} }} }}"))
    };
    let form = "expected a path of at most 32 segments, each of letters, digits, `-._~`, or one `{parameter}`, found";
    table(&[
        (&read("do: read"), &["9:51: missing key `id`", "9:51: missing key `partition`"]),
        (&read("do: list, partition: '{lane}', id: '{id}'"), &["9:98: `id` does not go with `do: list`"]),
        (&read("do: create, id: '{id}'"), &["9:79: `id` does not go with `do: create`"]),
        (
            &read("do: raed"),
            &[
                "9:71: expected one of `create`, `read`, `upsert`, `replace`, `patch`, `delete`, `list`, `batch`, `bulk`, `query`, `delete_partition`, found `raed`, did you mean `read`?",
            ],
        ),
        (
            &read("do: read, partition: '{lan}', id: 'x{id}'"),
            &[
                "9:88: there is no parameter `{lan}` in the path, did you mean `{lane}`?",
                "9:101: expected one `{parameter}` of the path, or a text without braces, found `x{id}`",
            ],
        ),
        (&read("do: list, partition: '{query.p}'"), &["9:88: `{query.p}` is not built yet"]),
        (&read("do: list, partition: ''"), &["9:88: expected a text of 1 to 255 bytes, found ``"]),
        (&path("x"), &["9:31: a path begins with `/`, found `x`, did you mean `/x`?"]),
        (&path("/x/"), &["9:31: a path does not end with `/`, found `/x/`, did you mean `/x`?"]),
        (&path("/x//y"), &[&format!("9:31: {form} `/x//y`")]),
        (&path("/x/../y"), &[&format!("9:31: {form} `/x/../y`")]),
        (&path("/x{y}"), &[&format!("9:31: {form} `/x{{y}}`")]),
        (&path("/{x}/{x}"), &["9:31: parameter `{x}` is in this path twice"]),
        (
            &row("      x: { method: get, path: /, to: { container: nope } }"),
            &[
                "9:20: expected one of `GET`, `HEAD`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`, found `get`, did you mean `GET`?",
                "9:38: missing key `do`",
                "9:51: there is no container `nope`",
            ],
        ),
        (
            &row("      x: { method: GET, path: /, to: { mock: { status: 99 }, container: c } }"),
            &[
                "9:56: expected a whole number from 200 to 599, found `99`",
                "9:62: `container` does not go with `mock`",
            ],
        ),
        (
            &row(
                "      x: { method: GET, path: /, to: { mock: { status: 204, body: a, headers: { Connection: a, 'a b': c, d: \"e\\nf\" } } } }",
            ),
            &[
                "9:61: an answer with status `204` has no body",
                "9:81: header `connection` is written by the server itself",
                "9:96: `a b` is not the name of a header",
                "9:109: `e\\nf` cannot stand in a header",
            ],
        ),
    ]);
}

#[test]
fn two_operations_with_one_route_are_refused() {
    let manifest = "
containers: { c: { partition_key: [/k] } }
apis:
  a:
    path: /a
    operations:
      one: { method: GET, path: '/b/{x}', to: { mock: { status: 200 } } }
      two: { method: PUT, path: '/b/{x}', to: { mock: { status: 200 } } }
  b:
    path: /
    version: { by: path, name: a }
    operations:
      three: { method: GET, path: '/b/{y}', to: { mock: { status: 200 } } }
      four: { method: GET, path: '/b/b', to: { mock: { status: 200 } } }
  c:
    path: /{p}
    version: { by: header, header: x, name: '..' }
    operations: {}
";
    table(&[(
        manifest,
        &[
            "14:7: `GET /a/b/{y}` is answered by `a.one` already, at 8:7",
            "17:11: the path of an api has no parameters: those belong to its operations",
            "18:20: `header` is not built yet",
            "18:28: `header` is not built yet",
            "18:45: expected one path segment, found `..`",
        ],
    )]);
}

#[test]
fn products_and_keys_are_checked() {
    let manifest = "
apis: { a: { path: /, operations: {} } }
products:
  p: { apis: [a, b, a], rate: { calls: 0, per: 1 } }
  q: { apis: [] }
api_keys:
  one: { product: pp, tenant: 'a/b', primary: { env: ACME_KEY }, secondary: { env: ACME_KEY } }
  two: { product: p, tenant: t, primary: { env: ACME_KEYS }, expires: soon }
  three: { product: p, tenant: t, primary: { env: EMPTY_KEY }, secondary: literal }
";
    table(&[(
        manifest,
        &[
            "5:18: there is no api `b`",
            "5:21: `a` is listed twice",
            "5:40: expected a whole number from 1 to 1000000000, found `0`",
            "5:48: expected a duration from `1ms` to `1d` (units ms, s, m, h, d), found `1`",
            "6:14: expected at least one entry in this list, found a list",
            "8:19: there is no product `pp`, did you mean `p`?",
            "8:31: `a/b` is not a name: 1 to 63 letters, digits, `_` and `-`, with a letter or digit first",
            "8:84: the same secret as at 8:54: a call could not tell the keys apart",
            "9:49: environment variable `ACME_KEYS` is not set, did you mean `ACME_KEY`?",
            "9:71: expected a date such as `2027-01-31`, or a date-time of RFC 3339, found `soon`",
            "10:51: environment variable `EMPTY_KEY` does not hold a secret: an api key has 52 characters, one from elsewhere 16 to 256",
            "10:75: a secret is a reference, never a literal: write `{ env: NAME }`",
        ],
    )]);
}
