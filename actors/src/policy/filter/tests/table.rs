//! The truth table of the nineteen operators: 171 cells, each written by hand.

use serde_json::{Value, json};

use super::super::*;
use super::sample;

/// Expected to match, and not.
const Y: bool = true;
const N: bool = false;

/// A value as JSON, nothing for one that is not there; whether it matches while the filter looks into
/// arrays; whether it matches while it does not.
type Cell = (&'static str, bool, bool);

/// Operator, its `value` or `values`, and nine values: one that matches, one that does not, none, null, one
/// of the wrong type, an array of which an element equals a value of the operator, an array of which none does,
/// an array of mixed types, and an empty array.
type Row = (&'static str, Value, [Cell; 9]);

fn numbers() -> [Row; 6] {
    [
        (
            "NumberIn",
            json!([3, 5.5]),
            [
                ("5.5", Y, Y),
                ("4", N, N),
                ("", N, N),
                ("null", N, N),
                (r#""3""#, N, N),
                ("[1,3]", Y, N),
                ("[1,2]", N, N),
                (r#"["x",null,3,{}]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "NumberNotIn",
            json!([3, 5.5]),
            [
                ("4", Y, Y),
                ("3", N, N),
                ("", Y, Y),
                ("null", Y, Y),
                (r#""4""#, N, N),
                ("[1,3]", N, N),
                ("[1,2]", Y, N),
                (r#"["x",null,3,{}]"#, N, N),
                ("[]", Y, N),
            ],
        ),
        (
            "NumberLessThan",
            json!(100),
            [
                ("99.9", Y, Y),
                ("100", N, N),
                ("", N, N),
                ("null", N, N),
                (r#""1""#, N, N),
                ("[200,1]", Y, N),
                ("[200,100]", N, N),
                (r#"["1",true,50]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "NumberLessThanOrEquals",
            json!(100),
            [
                ("100", Y, Y),
                ("100.1", N, N),
                ("", N, N),
                ("null", N, N),
                ("true", N, N),
                ("[200,100]", Y, N),
                ("[200,101]", N, N),
                (r#"["1",true,100]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "NumberGreaterThan",
            json!(100),
            [
                ("1e3", Y, Y),
                ("100", N, N),
                ("", N, N),
                ("null", N, N),
                (r#""200""#, N, N),
                ("[1,200]", Y, N),
                ("[1,100]", N, N),
                (r#"["200",[300],101]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "NumberGreaterThanOrEquals",
            json!(100),
            [
                ("100", Y, Y),
                ("99", N, N),
                ("", N, N),
                ("null", N, N),
                (r#"{"n":100}"#, N, N),
                ("[1,100]", Y, N),
                ("[1,99]", N, N),
                (r#"["200",[300],100]"#, Y, N),
                ("[]", N, N),
            ],
        ),
    ]
}

fn ranges() -> [Row; 2] {
    [
        (
            "NumberInRange",
            json!([[10, 20], [30, 40]]),
            [
                ("20", Y, Y),
                ("25", N, N),
                ("", N, N),
                ("null", N, N),
                (r#""15""#, N, N),
                ("[1,30]", Y, N),
                ("[1,25]", N, N),
                (r#"[false,"15",10]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "NumberNotInRange",
            json!([[10, 20], [30, 40]]),
            [
                ("25", Y, Y),
                ("10", N, N),
                ("", Y, Y),
                ("null", Y, Y),
                (r#""25""#, N, N),
                ("[1,40]", N, N),
                ("[1,25]", Y, N),
                (r#"[false,"25",15]"#, N, N),
                ("[]", Y, N),
            ],
        ),
    ]
}

fn texts() -> [Row; 6] {
    [
        (
            "StringContains",
            json!(["berg", "Ost"]),
            [
                (r#""Nürnberg""#, Y, Y),
                (r#""Oslo""#, N, N),
                ("", N, N),
                ("null", N, N),
                ("12", N, N),
                (r#"["Oslo","ROSTOCK"]"#, Y, N),
                (r#"["Oslo","Rom"]"#, N, N),
                (r#"[1,null,"Bergen"]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "StringNotContains",
            json!(["berg", "Ost"]),
            [
                (r#""Oslo""#, Y, Y),
                (r#""Nürnberg""#, N, N),
                ("", N, N),
                ("null", N, N),
                ("12", N, N),
                (r#"["Oslo","ROSTOCK"]"#, N, N),
                (r#"["Oslo","Rom"]"#, Y, N),
                (r#"[1,null,"Bergen"]"#, N, N),
                ("[]", Y, N),
            ],
        ),
        (
            "StringBeginsWith",
            json!(["OSL-", "ber-"]),
            [
                (r#""osl-ber""#, Y, Y),
                (r#""rom-osl-""#, N, N),
                ("", N, N),
                ("null", N, N),
                ("true", N, N),
                (r#"["rom-par","BER-OSL"]"#, Y, N),
                (r#"["rom-par","par-rom"]"#, N, N),
                (r#"[7,{"a":"OSL-"},"OSL-ROM"]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "StringNotBeginsWith",
            json!(["OSL-", "ber-"]),
            [
                (r#""rom-osl-""#, Y, Y),
                (r#""osl-ber""#, N, N),
                ("", N, N),
                ("null", N, N),
                ("true", N, N),
                (r#"["rom-par","BER-OSL"]"#, N, N),
                (r#"["rom-par","par-rom"]"#, Y, N),
                (r#"[7,{"a":"OSL-"},"OSL-ROM"]"#, N, N),
                ("[]", Y, N),
            ],
        ),
        (
            "StringEndsWith",
            json!([".jpg", ".PNG"]),
            [
                (r#""a.JPG""#, Y, Y),
                (r#""a.jpg.txt""#, N, N),
                ("", N, N),
                ("null", N, N),
                (r#"{"a":".jpg"}"#, N, N),
                (r#"["a.txt","b.png"]"#, Y, N),
                (r#"["a.txt","b.gif"]"#, N, N),
                (r#"[["a.png"],0,"b.png"]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "StringNotEndsWith",
            json!([".jpg", ".PNG"]),
            [
                (r#""a.jpg.txt""#, Y, Y),
                (r#""a.JPG""#, N, N),
                ("", N, N),
                ("null", N, N),
                (r#"{"a":".txt"}"#, N, N),
                (r#"["a.txt","b.png"]"#, N, N),
                (r#"["a.txt","b.gif"]"#, Y, N),
                (r#"[["a.png"],0,"b.png"]"#, N, N),
                ("[]", Y, N),
            ],
        ),
    ]
}

fn whole_texts() -> [Row; 2] {
    [
        (
            "StringIn",
            json!(["Exact", "string"]),
            [
                (r#""EXACT""#, Y, Y),
                (r#""exactly""#, N, N),
                ("", N, N),
                ("null", N, N),
                ("1", N, N),
                (r#"["a","STRING"]"#, Y, N),
                (r#"["a","strings"]"#, N, N),
                (r#"[1,true,"exact"]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        (
            "StringNotIn",
            json!(["Exact", "string"]),
            [
                (r#""exactly""#, Y, Y),
                (r#""EXACT""#, N, N),
                ("", Y, Y),
                ("null", Y, Y),
                ("1", N, N),
                (r#"["a","STRING"]"#, N, N),
                (r#"["a","strings"]"#, Y, N),
                (r#"[1,true,"exact"]"#, N, N),
                ("[]", Y, N),
            ],
        ),
    ]
}

fn others() -> [Row; 3] {
    [
        (
            "BoolEquals",
            json!(true),
            [
                ("true", Y, Y),
                ("false", N, N),
                ("", N, N),
                ("null", N, N),
                (r#""true""#, N, N),
                ("[false,true]", Y, N),
                ("[false,false]", N, N),
                (r#"["true",1,null,true]"#, Y, N),
                ("[]", N, N),
            ],
        ),
        // These two compare nothing, so no value is of the wrong type, and an array is a value.
        (
            "IsNullOrUndefined",
            Value::Null,
            [
                ("null", Y, Y),
                ("0", N, N),
                ("", Y, Y),
                ("null", Y, Y),
                (r#"{"a":null}"#, N, N),
                ("[null]", N, N),
                ("[1]", N, N),
                (r#"[null,1,"x"]"#, N, N),
                ("[]", N, N),
            ],
        ),
        (
            "IsNotNull",
            Value::Null,
            [
                ("0", Y, Y),
                ("null", N, N),
                ("", N, N),
                ("null", N, N),
                (r#"{"a":null}"#, Y, Y),
                ("[1]", Y, Y),
                ("[null]", Y, Y),
                (r#"[null,1,"x"]"#, Y, Y),
                ("[]", Y, Y),
            ],
        ),
    ]
}

/// What the nine columns leave open, for tests with several operators and values.
fn corners() -> Vec<(&'static str, Value, Cell)> {
    vec![
        // Elements of another type are passed over, so an array may have none to compare.
        ("NumberNotIn", json!([3]), (r#"["3",null,{}]"#, Y, N)),
        ("StringNotContains", json!(["a"]), ("[1,2]", Y, N)),
        ("StringIn", json!(["a"]), ("[1,2]", N, N)),
        // An array in an array is an element of another type.
        ("NumberIn", json!([3]), ("[[3]]", N, N)),
        ("StringNotIn", json!(["a"]), (r#"[["a"]]"#, Y, N)),
        ("BoolEquals", json!(false), ("[true,true]", N, N)),
        ("BoolEquals", json!(false), ("[true,false]", Y, N)),
        ("BoolEquals", json!(false), ("false", Y, Y)),
        ("BoolEquals", json!(false), ("0", N, N)),
        // Numbers are compared by value, however they are written.
        ("NumberIn", json!([1]), ("1.0", Y, Y)),
        ("NumberIn", json!([0]), ("-0", Y, Y)),
        ("NumberIn", json!([1_000]), ("1e3", Y, Y)),
        ("NumberIn", json!([0.1]), ("0.1", Y, Y)),
        ("NumberInRange", json!([[10, 20]]), ("10", Y, Y)),
        ("NumberInRange", json!([[10, 20]]), ("9.999", N, N)),
        ("NumberInRange", json!([[10, 10]]), ("10", Y, Y)),
        ("NumberNotInRange", json!([[10, 20]]), ("20", N, N)),
        // A number too large for a double is still greater than another.
        ("NumberGreaterThan", json!(1e300), ("1e400", Y, Y)),
        ("NumberLessThan", json!(-1e300), ("-1e400", Y, Y)),
        // Case never matters, in any alphabet; escapes and widths do not count either.
        ("StringIn", json!(["ÅRSTA"]), (r#""årsta""#, Y, Y)),
        ("StringIn", json!(["årsta"]), (r#""\u00c5RSTA""#, Y, Y)),
        ("StringEndsWith", json!(["ΟΔΟΣ"]), (r#""x οδοσ""#, Y, Y)),
        ("StringContains", json!([""]), (r#""""#, Y, Y)),
        ("StringNotContains", json!([""]), (r#""a""#, N, N)),
        ("StringIn", json!([""]), (r#""""#, Y, Y)),
        ("StringNotIn", json!([""]), (r#""""#, N, N)),
        // A wildcard is a character.
        ("StringBeginsWith", json!(["*"]), (r#""abc""#, N, N)),
        // Half of a surrogate pair is a value, but no text that can be compared.
        ("StringContains", json!(["a"]), (r#""a\ud800""#, N, N)),
        ("StringNotContains", json!(["b"]), (r#""a\ud800""#, N, N)),
        ("IsNotNull", Value::Null, (r#""a\ud800""#, Y, Y)),
    ]
}

/// Asks a filter with one condition about an event whose `data.value` is this, in the ways it can be asked.
fn check(operator: &str, values: &Value, (value, on, off): Cell) {
    let single = values.is_number() || values.is_boolean();
    let (one, many) = if single { (Some(values), None) } else { (None, Some(values)) };
    let condition = Condition::read("data.value".into(), operator, one, many).unwrap();
    let data = if value.is_empty() { "{}".to_owned() } else { format!(r#"{{"value":{value}}}"#) };
    for (arrays, expected) in [(true, on), (false, off)] {
        let keys = KeyTable::new();
        let spec = FilterSpec { advanced: vec![condition.clone()], arrays, ..FilterSpec::default() };
        let filter = spec.compile(&keys).unwrap();
        for facts in [Facts::new(sample(&data), &keys), Facts::alone(sample(&data))] {
            let explanation = filter.explain(&facts);
            assert_eq!(filter.matches(&facts), expected, "arrays {arrays}: {}", explanation.reasons[0].text);
            assert_eq!(explanation.matches, expected);
        }
    }
}

#[test]
fn each_operator_does_as_event_grid_says_about_each_kind_of_value() {
    let rows: Vec<Row> =
        numbers().into_iter().chain(ranges()).chain(texts()).chain(whole_texts()).chain(others()).collect();
    let mut cells = 0;
    for name in OPERATORS {
        let (operator, values, columns) = rows.iter().find(|(operator, ..)| *operator == name).unwrap();
        for cell in columns {
            check(operator, values, *cell);
            cells += 1;
        }
    }
    assert_eq!((rows.len(), cells), (19, 171));
}

#[test]
fn corners_of_the_operators_are_decided() {
    for (operator, values, cell) in corners() {
        check(operator, &values, cell);
    }
}
