//! Errors: their places and their words. And that no text brings the parser down.

use proptest::prelude::*;
use serde_json::json;

use super::super::{BindError, Query};

#[test]
fn an_error_names_its_place() {
    for (text, wanted) in [
        ("", "line 1, column 1: expected `SELECT`, found the end of the query"),
        ("SELECT FROM c", "line 1, column 8: expected an expression, found `FROM`"),
        ("SELECT *\nFROM c\nWHERE c.a = = 1", "line 3, column 13: expected an expression, found `=`"),
        ("SELECT VALUE 'ä' §", "line 1, column 18: `§` means nothing here"),
        ("SELECT 'abc", "line 1, column 8: the string that begins here has no closing `'`"),
        (r"SELECT 'a\d'", r"line 1, column 10: `\d` is no escape: a backslash itself is written `\\`"),
        (r"SELECT '\u12'", r"line 1, column 9: expected four hexadecimal digits after `\u`"),
        ("SELECT 1x", "line 1, column 9: `1` is followed by a letter: names do not begin with a digit"),
        ("SELECT 1e999", "line 1, column 8: `1e999` is too large for a number"),
        ("SELECT @ FROM c", "line 1, column 8: expected the name of a parameter after `@`"),
        ("SELECT c.a == 1 FROM c", "line 1, column 12: `==` is no operator: write `=`"),
        ("SELECT * FROM c WHERE", "line 1, column 22: expected an expression, found the end of the query"),
        ("SELECT * FROM c WHERE c.a = 1 c.b", "line 1, column 31: expected the end of the query, found `c`"),
        ("SELECT *", "line 1, column 9: expected `FROM`: `*` is what it names, found the end of the query"),
        (
            "SELECT * FROM c JOIN t IN c.t",
            "line 1, column 1: `SELECT *` needs a FROM with one source: name what you want",
        ),
        ("SELECT c.a, * FROM c", "line 1, column 13: `*` stands alone: it is the whole document"),
        ("SELECT x.a FROM c", "line 1, column 8: `x` is not known: in scope are `c`; a string needs quotes"),
        (
            "SELECT c.a",
            "line 1, column 8: `c` is not known: there is no FROM that names it; a string needs quotes",
        ),
        (
            "SELECT c.a FROM c JOIN c IN c.l",
            "line 1, column 24: two sources are called `c`: give one another name with AS",
        ),
        (
            "SELECT TOP 1.5 * FROM c",
            "line 1, column 12: expected a whole number or a parameter after TOP, found `1.5`",
        ),
        ("SELECT * FROM c LIMIT 5", "line 1, column 17: LIMIT stands after OFFSET: write OFFSET 0 LIMIT ..."),
        (
            "SELECT TOP 1 * FROM c OFFSET 1 LIMIT 1",
            "line 1, column 23: TOP and OFFSET do not go together: write OFFSET ... LIMIT ...",
        ),
        (
            "SELECT * FROM c ORDER BY RANK x",
            "line 1, column 26: ORDER BY RANK is not built: there is no vector or full text search",
        ),
        ("SELECT udf.f(1)", "line 1, column 8: `udf.` calls a function of your own, and there are none here"),
        (
            "SELECT STARTSWIHT(c.a, 'x') FROM c",
            "line 1, column 8: there is no function `STARTSWIHT`: did you mean `STARTSWITH`?",
        ),
        ("SELECT frobnicate(1)", "line 1, column 8: there is no function `frobnicate`"),
        ("SELECT cuont(1)", "line 1, column 8: there is no function `cuont`: did you mean `COUNT`?"),
        ("SELECT COUNT()", "line 1, column 8: `COUNT` takes 1 argument, not 0"),
        (
            "SELECT FullTextContains(c.a, 'x') FROM c",
            "line 1, column 8: `FullTextContains` is not built: there is no vector or full text search",
        ),
        ("SELECT EXISTS(1)", "line 1, column 15: expected a subquery in `EXISTS`, found `1`"),
        (
            "SELECT * FROM c WHERE COUNT(1) > 1",
            "line 1, column 23: `COUNT` has no meaning here: aggregates stand in SELECT and ORDER BY, and not in one another",
        ),
        (
            "SELECT c.a, COUNT(1) FROM c",
            "line 1, column 8: `c` stands for many rows here: put what you take from it into GROUP BY, or into an aggregate",
        ),
        (
            "SELECT * FROM c GROUP BY c.a",
            "line 1, column 1: `SELECT *` has no meaning with GROUP BY: name what you want",
        ),
        (
            "SELECT DISTINCT c.a FROM c ORDER BY c.b",
            "line 1, column 37: with DISTINCT, ORDER BY can only use what SELECT projects",
        ),
        (
            "SELECT VALUE x FROM (SELECT VALUE COUNT(1) FROM c) x",
            "line 1, column 22: a subquery over the whole container has SELECT, FROM, JOIN and WHERE only",
        ),
        (
            "SELECT VALUE (SELECT VALUE d.a FROM d) FROM c",
            "line 1, column 37: `d` is not known: in scope are `c`; a string needs quotes",
        ),
        (
            "SELECT c.a LIKE 'x' ESCAPE 'ab' FROM c",
            "line 1, column 28: expected a string of one character after ESCAPE, found `'ab'`",
        ),
        ("SELECT c.a IN () FROM c", "line 1, column 17: IN needs at least one value"),
        ("SELECT * FROM c GROUP BY c.a HAVING 1 = 1", "line 1, column 30: HAVING is no part of the language"),
        ("SELECT [1 2]", "line 1, column 11: expected `,` or `]`, found `2`"),
        (
            "SELECT * FROM select",
            "line 1, column 15: expected a source: a name, a path or a subquery in brackets, but `select` is a keyword",
        ),
    ] {
        let error = Query::parse(text).unwrap_err().to_string();
        if text.contains("HAVING") {
            assert!(error.starts_with(wanted), "{text}: {error}");
        } else {
            assert_eq!(error, wanted, "{text}");
        }
    }
}

#[test]
fn a_parameter_is_given_or_named_in_the_error() {
    let bind = |text: &str, name: &str, value| Query::parse(text).unwrap().bind(&[(name.into(), value)]);
    let missing = bind("SELECT * FROM c WHERE c.a = @a", "b", json!(1)).unwrap_err();
    assert_eq!(missing, BindError::Missing { name: "a".into() });
    for value in [json!(-1), json!(1.5), json!("1"), json!(null)] {
        for text in [
            "SELECT TOP @n * FROM c",
            "SELECT * FROM c OFFSET @n LIMIT 1",
            "SELECT * FROM c OFFSET 0 LIMIT @n",
        ] {
            assert!(
                matches!(bind(text, "n", value.clone()), Err(BindError::NotACount { .. })),
                "{text} {value}"
            );
        }
    }
    assert!(bind("SELECT TOP @n * FROM c", "@n", json!(2.0)).is_ok());
}

#[test]
fn a_hash_is_of_the_text_and_of_the_parameters_that_it_uses() {
    let hash = |text: &str, parameters: &[(String, serde_json::Value)]| {
        Query::parse(text).unwrap().bind(parameters).unwrap().hash()
    };
    let one = hash("SELECT @a", &[("@a".into(), json!(1))]);
    assert_eq!(one, hash("SELECT @a", &[("a".into(), json!(1.0)), ("b".into(), json!(2))]));
    assert_ne!(one, hash("SELECT @a", &[("a".into(), json!(2))]));
    assert_ne!(one, hash("SELECT  @a", &[("a".into(), json!(1))]));
}

/// Runs on the stack of a thread as a runtime gives it.
fn on_a_small_stack(text: String) {
    let run = move || {
        if let Ok(query) = Query::parse(&text) {
            let bound = std::sync::Arc::new(query.bind(&[]).unwrap());
            super::all(&bound, &[json!({"a": [1, [2]]})]);
            drop(query.clone());
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn no_nesting_overflows_the_stack() {
    for (open, core, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{a:", "1", "}"),
        ("-", "1", ""),
        ("NOT ", "true", ""),
        ("ABS(", "1", ")"),
        ("(SELECT VALUE ", "1", ")"),
        ("ARRAY(SELECT VALUE x FROM x IN (SELECT VALUE ", "[1]", "))"),
        ("true ? 1 : ", "2", ""),
        ("1 OR 2 AND 3 = 4 | 5 ^ 6 & 7 << 8 || 9 + 10 * (", "1", ")"),
        ("1 ?? 1 OR 2 AND NOT 3 = 4 | 5 ^ 6 & 7 << 8 || 9 + 10 * - ", "1", ""),
        ("[1][", "0", "]"),
        ("1 IN (", "1", ")"),
    ] {
        for depth in [1, 10, 30, 100, 127, 128, 129, 5_000] {
            let text = format!("SELECT VALUE {}{core}{}", open.repeat(depth), close.repeat(depth));
            on_a_small_stack(text);
        }
    }
    let nested = |depth: usize| format!("SELECT VALUE {}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Query::parse(&nested(128)).is_ok());
    assert!(Query::parse(&nested(129)).unwrap_err().message.contains("nested deeper"));
}

#[test]
fn length_is_no_depth() {
    for part in [
        " + 1",
        " AND true",
        " OR true",
        " ?? 1",
        " = 1",
        ".a",
        "[0]",
        " BETWEEN 1 AND 2",
        " IN (1)",
        " LIKE 'a'",
    ] {
        let text = format!("SELECT VALUE 1{}", part.repeat(500_000 / part.len()));
        on_a_small_stack(text);
    }
    let list: Vec<String> = (0..60_000).map(|n| n.to_string()).collect();
    let text = format!("SELECT * FROM c WHERE c.a IN ({})", list.join(","));
    assert!(Query::parse(&text).is_ok());
    let joins = |count| {
        format!(
            "SELECT VALUE 1 FROM c{}",
            (0..count).map(|n| format!(" JOIN t{n} IN c.t")).collect::<String>()
        )
    };
    assert!(Query::parse(&joins(10)).is_ok());
    assert!(Query::parse(&joins(11)).is_err());
    assert!(Query::parse(&" ".repeat(512 * 1024 + 1)).unwrap_err().message.contains("bytes"));
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _unused = Query::parse(&text).is_ok();
        let _unused = super::super::Condition::parse(&text).is_ok();
    }

    #[test]
    fn no_heap_of_words_panics(words in proptest::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let text = format!("SELECT {}", words.join(" "));
        if let Ok(query) = Query::parse(&text) {
            let bound = std::sync::Arc::new(query.bind(&[("p".into(), json!(1))]).unwrap());
            super::all(&bound, &[json!({"a": [1, {"b": "x"}]}), json!({"a": 1})]);
        }
    }
}

const WORDS: &[&str] = &[
    "SELECT",
    "DISTINCT",
    "TOP",
    "VALUE",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "OFFSET",
    "LIMIT",
    "JOIN",
    "IN",
    "AS",
    "AND",
    "OR",
    "NOT",
    "BETWEEN",
    "LIKE",
    "ESCAPE",
    "EXISTS(",
    "ARRAY(",
    "COUNT(",
    "MAX(",
    "LOWER(",
    "c",
    "c.a",
    "c",
    "c.a",
    "x",
    "1",
    "2",
    "0.5",
    "'x'",
    "@p",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    ":",
    "?",
    "??",
    "=",
    "<",
    "+",
    "-",
    "*",
    "||",
    "|",
    "~",
    "null",
    "true",
    "undefined",
    "FROM c",
    "FROM x IN c.a",
    "WHERE c.a = 1",
];
