//! What a manifest may say about documents: keys, uniqueness, indexes, times, budgets, questions.

use lanekeeper_actors::policy::ttl::ContainerTtl;

use super::*;

const ONE_OF_EACH: &str = "
containers: { c: { partition_key: [/k] } }
topics: { t: { from: { container: c, types: { created: Made } } } }
";

#[test]
fn what_containers_ask_of_documents_is_checked() {
    let row = |rest: &str| format!("containers:\n  c: {{ partition_key: [/k], {rest} }}");
    let paths = |count: usize| (0..count).map(|n| format!("/p{n}")).collect::<Vec<_>>().join(", ");
    let ttl = "expected whole seconds from `1s` to `24855d` (units s, m, h, d), `never` (or -1) for no default, or `off`";
    let steps = "RU/s in steps of";
    table(&[
        (&row("unique: [[/ref], [/a, /b/c]], indexes: [/status, [/a, /b]], change_retention: 7d"), &[]),
        (
            &row("unique: [/ref, [], [/a, /a]]"),
            &[
                "3:38: a unique key is a list of paths, found `/ref`, did you mean `[/ref]`?",
                "3:44: expected a list of 1 to 16 paths, found a list",
                "3:53: `/a` is listed twice",
            ],
        ),
        (
            &row(&format!("unique: [[{}], [/x]]", paths(16))),
            &["3:37: a container has at most 10 unique keys with 16 paths in all"],
        ),
        (
            &row(&format!("indexes: [[{}], /a, /a, {{ a: 1 }}]", paths(9))),
            &[
                "3:39: expected a list of 1 to 8 paths, found a list",
                "3:90: this index is listed twice",
                "3:94: expected text, found a mapping",
            ],
        ),
        (&row(&format!("indexes: [{}]", paths(17))), &["3:38: a container has at most 16 indexes"]),
        (&row("ttl: 0s"), &[&format!("3:34: {ttl}, found `0s`")]),
        (&row("ttl: 1500ms"), &[&format!("3:34: {ttl}, found `1500ms`")]),
        (&row("ttl: 0"), &[&format!("3:34: {ttl}, found `0`")]),
        (&row("ttl: 24856d"), &[&format!("3:34: {ttl}, found `24856d`")]),
        (
            &row("throughput: 450"),
            &[&format!("3:41: a manual throughput is 400 to 1,000,000 {steps} 100, not 450")],
        ),
        (
            &row("throughput: { max: 1500 }"),
            &[&format!("3:48: the `max` of a throughput is 1,000 to 1,000,000 {steps} 1,000, not 1500")],
        ),
        (
            &row("throughput: fast"),
            &["3:41: expected a number of request units per second, or `{ max: … }`, found `fast`"],
        ),
        (
            &row("change_retention: 367d"),
            &["3:47: expected a duration from `0ms` to `366d` (units ms, s, m, h, d), found `367d`"],
        ),
    ]);
    for (written, expected) in [
        ("ttl: 1s", ContainerTtl::Seconds(1)),
        ("ttl: 24855d", ContainerTtl::Seconds(24_855 * 86_400)),
        ("ttl: never", ContainerTtl::NoDefault),
        ("ttl: -1", ContainerTtl::NoDefault),
        ("ttl: off", ContainerTtl::Off),
        ("unique: []", ContainerTtl::Off),
    ] {
        let loaded = load(&sources([text(&format!("manifest: 1\n{}\n", row(written)))], &[])).unwrap();
        assert_eq!(loaded.containers["c"].ttl, expected, "{written}");
    }
}

#[test]
fn a_partition_has_a_value_for_each_part_of_its_key() {
    let row = |verb: &str, rest: &str| {
        format!(
            "containers: {{ c: {{ partition_key: [/t, /k] }}, b: {{ partition_key: [/t, {{ hash: /id, buckets: 4 }}] }} }}
apis:
  a:
    path: /a
    operations:
      x: {{ method: GET, path: '/{{t}}/{{k}}/{{id}}', to: {{ do: {verb}, {rest} }} }}"
        )
    };
    let c = |verb: &str, partition: &str, more: &str| {
        row(verb, &format!("container: c, partition: {partition}{more}"))
    };
    let b = |verb: &str, partition: &str, more: &str| {
        row(verb, &format!("container: b, partition: {partition}{more}"))
    };
    let (id, sql) = (", id: '{id}'", ", sql: SELECT * FROM c");
    table(&[
        (&c("read", "['{t}', '{k}']", id), &[]),
        (&c("read", "'{t}'", id), &["7:89: the partition key (/t, /k) needs 2 values here, found 1"]),
        (&b("patch", "'{t}'", id), &[]),
        (
            &b("patch", "['{t}', '{k}']", id),
            &[
                "7:90: the partition key (/t, hash(/id) % 4) needs 1 value here, the bucket of `/id` not counted, found 2",
            ],
        ),
        (&c("create", "['{t}', all]", ""), &[]),
        (&c("create", "['{t}']", ""), &["7:91: the partition key (/t, /k) needs 2 values here, found 1"]),
        (
            &b("batch", "'{t}'", ""),
            &[
                "7:90: `do: batch` works on one partition, but in the partition key (/t, hash(/id) % 4) each document's `/id` has a say",
            ],
        ),
        (
            &c("list", "'{t}'", ""),
            &[
                "7:89: a list of several partitions is not built yet: the partition key (/t, /k) needs 2 values, found 1; or use `do: query`",
            ],
        ),
        (&c("query", "'{t}'", sql), &[]),
        (&b("query", "'{t}'", sql), &[]),
        (&row("query", "container: c, sql: SELECT * FROM c"), &[]),
        (
            &b("query", "['{t}', '{k}']", sql),
            &["7:90: the partition key (/t, hash(/id) % 4) takes at most 1 value here, found 2"],
        ),
        (&b("bulk", "'{t}'", ""), &[]),
        (&c("bulk", "'{t}'", ""), &[]),
        (&row("bulk", "container: c"), &[]),
        (
            &b("bulk", "['{t}', '{k}']", ""),
            &["7:89: the partition key (/t, hash(/id) % 4) takes at most 1 value here, found 2"],
        ),
        (&c("bulk", "'{t}'", id), &["7:96: `id` does not go with `do: bulk`"]),
        (&b("delete_partition", "'{t}'", ""), &[]),
        (
            &c("delete_partition", "[]", ""),
            &["7:101: expected a value for each part of the partition key, found a list"],
        ),
    ]);
}

#[test]
fn a_query_is_read_with_its_parameters() {
    let row = |rest: &str| {
        format!(
            "{ONE_OF_EACH}apis:\n  a:\n    path: /a\n    operations:\n      x: {{ method: GET, path: '/{{lane}}', to: {{ container: c, do: query, {rest} }} }}"
        )
    };
    table(&[
        (&row("sql: 'SELECT TOP @n * FROM c WHERE c.a = @a', params: { '@n': 5, a: '{query.a}' }"), &[]),
        (&row("sql: 'SELECT * FROM c WHERE c.a = @a', params: { a: { deep: [1, null] } }"), &[]),
        (&row("params: {}"), &["9:46: missing key `sql`"]),
        (
            &row("sql: SELECT * FORM c"),
            &[
                "9:78: the query is wrong at line 1, column 10: expected `FROM`: `*` is what it names, found `FORM`",
            ],
        ),
        (
            &row("sql: 'SELECT * FROM c WHERE c.a = @status', params: { statu: '{lane}', x: '{lan}' }"),
            &["9:147: there is no parameter `{lan}` in the path, did you mean `{lane}`?"],
        ),
        (
            &row("sql: 'SELECT * FROM c WHERE c.a = @status', params: { statu: '{lane}' }"),
            &[
                "9:78: the query uses `@status`, but no parameter of that name is given, did you mean `@statu`?",
                "9:127: the query has no parameter `@statu`",
            ],
        ),
        (&row("sql: 'SELECT TOP @n * FROM c', params: { n: { from: '{query.n}', type: number } }"), &[]),
        (&row("sql: 'SELECT @n FROM c', params: { n: { from: '{lane}' } }"), &[]),
        (
            &row("sql: 'SELECT TOP @n * FROM c', params: { n: { from: '{query.n}', type: boolean } }"),
            &["9:114: `@n` counts rows, so it must be a whole number from 0, not `true`"],
        ),
        (
            &row(
                "sql: 'SELECT @n, @m, @o FROM c', params: { n: { from: '{query.n}', type: numbr }, m: { from: lane }, o: { from: '{lan}', typ: json } }",
            ),
            &[
                "9:146: expected one of `string`, `number`, `boolean`, `json`, found `numbr`, did you mean `number`?",
                "9:166: expected one `{parameter}` of the path, or `{query.name}`, found `lane`",
                "9:185: there is no parameter `{lan}` in the path, did you mean `{lane}`?",
                "9:194: unknown key `typ`, did you mean `type`?",
            ],
        ),
        (
            &row("sql: 'SELECT TOP @n * FROM c', params: { n: '{query.n}' }"),
            &["9:114: `@n` counts rows, so it must be a whole number from 0, not `\"\"`"],
        ),
        (
            &row("sql: SELECT 1, id: '{lane}'").replace("do: query", "do: list, partition: '{lane}'"),
            &["9:93: `sql` does not go with `do: list`", "9:108: `id` does not go with `do: list`"],
        ),
    ]);
}

#[test]
fn idempotency_goes_with_what_can_be_repeated() {
    let row = |to: &str, idempotency: &str| {
        format!(
            "{ONE_OF_EACH}apis:\n  a:\n    path: /a\n    operations:\n      x: {{ method: POST, path: '/{{k}}', idempotency: {idempotency}, to: {{ {to} }} }}"
        )
    };
    table(&[
        (&row("container: c, do: create", "optional"), &[]),
        (&row("container: c, do: batch, partition: '{k}'", "required"), &[]),
        (
            &row("container: c, do: list, partition: '{k}'", "optional"),
            &["9:40: `idempotency` does not go with `do: list`"],
        ),
        (&row("mock: { status: 200 }", "optional"), &["9:40: `idempotency` does not go with `mock`"]),
        (&row("container: c, do: bulk", "optional"), &["9:40: `idempotency` does not go with `do: bulk`"]),
        (
            &row("container: c, do: create", "always"),
            &["9:53: expected one of `optional`, `required`, found `always`"],
        ),
    ]);
}
