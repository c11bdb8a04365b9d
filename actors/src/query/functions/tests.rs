//! Promises of all functions: every name is there, wrong types are undefined, nothing panics.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Context, FAMILIES, Function, MAX_RESULT_BYTES};
use crate::model::time::Timestamp;

/// Stands for undefined in a table of arguments and results.
pub(super) const UNDEFINED: &str = "\u{2205}";

pub(super) fn context() -> Context {
    Context { now: Timestamp(1_597_360_794_300), seed: 7 }
}

pub(super) fn call(name: &str, arguments: &Value) -> Option<Value> {
    let function = Function::named(name).unwrap_or_else(|| panic!("no function {name}"));
    let undefined = json!(UNDEFINED);
    let arguments: Vec<_> =
        arguments.as_array().unwrap().iter().map(|value| (*value != undefined).then_some(value)).collect();
    assert!(function.accepts(arguments.len()), "{name} takes {} arguments", function.arity_text());
    function.call(&arguments, &context())
}

/// Checks a table of names, arguments and results; numbers by their text, since 1 and 1.0 are not the
/// same in an answer.
pub(super) fn check(table: &[(&str, Value, Value)]) {
    for (name, arguments, expected) in table {
        let found = call(name, arguments).unwrap_or_else(|| json!(UNDEFINED));
        assert_eq!(found.to_string(), expected.to_string(), "{name}{arguments}");
    }
}

/// The functions of the first three tiers and of space, aggregates and operators left out.
const NAMES: &str = "ARRAY_CONTAINS IS_DEFINED CONTAINS STARTSWITH ENDSWITH LOWER UPPER ARRAY_LENGTH \
    LENGTH IS_NULL CONCAT SUBSTRING INDEX_OF REPLACE TRIM LTRIM RTRIM LEFT RIGHT StringEquals RegexMatch \
    ToString StringToNumber IS_STRING IS_NUMBER IS_BOOL IS_ARRAY IS_OBJECT IS_PRIMITIVE IS_INTEGER ABS \
    CEILING FLOOR ROUND TRUNC POWER SQRT GetCurrentDateTime GetCurrentTimestamp DateTimeAdd DateTimeDiff \
    DateTimePart DateTimeFromParts DateTimeToTimestamp TimestampToDateTime ARRAY_CONCAT ARRAY_SLICE IIF \
    SetIntersect SetUnion SetDifference SetEqual ARRAY_CONTAINS_ANY ARRAY_CONTAINS_ALL ObjectToArray \
    CHOOSE StringToArray StringToBoolean StringToNull StringToObject StringSplit StringJoin REVERSE \
    REPLICATE LastIndexOf DateTimeBin DateTimeFormat DateTimeToTicks TicksToDateTime GetCurrentTicks \
    GetCurrentDateTimeStatic GetCurrentTicksStatic GetCurrentTimestampStatic YEAR MONTH DAY DOCUMENTID \
    NumberBin IntAdd IntSub IntMul IntDiv IntMod IntBitAnd IntBitOr IntBitXor IntBitNot IntBitLeftShift \
    IntBitRightShift LOG LOG10 EXP SIGN SQUARE PI RAND ACOS ASIN ATAN ATN2 COS COT SIN TAN RADIANS \
    DEGREES IS_FINITE_NUMBER IS_DATETIME ARRAY_MIN ARRAY_MAX ARRAY_SUM ARRAY_AVG ARRAY_MEDIAN \
    ST_DISTANCE ST_WITHIN ST_INTERSECTS ST_ISVALID ST_ISVALIDDETAILED ST_AREA";

#[test]
fn every_function_is_there_once_and_in_any_case() {
    for name in NAMES.split_whitespace() {
        let function = Function::named(name).unwrap_or_else(|| panic!("no function {name}"));
        assert_eq!(function.name(), name);
        assert_eq!(Function::named(&name.to_lowercase()), Some(function));
        assert_eq!(Function::named(&name.to_uppercase()), Some(function));
    }
    assert_eq!(Function::names().count(), NAMES.split_whitespace().count());
    assert_eq!(Function::named("COUNT"), None);
    assert_eq!(Function::named(""), None);
}

#[test]
fn a_function_says_how_many_arguments_it_takes() {
    for (name, text, accepted, refused) in [
        ("PI", "no", 0, 1),
        ("ABS", "1", 1, 2),
        ("LOG", "1 or 2", 2, 3),
        ("DateTimeFromParts", "3 to 7", 7, 2),
        ("CONCAT", "at least 2", 2_000, 1),
    ] {
        let function = Function::named(name).unwrap();
        assert_eq!(function.arity_text(), text);
        assert!(function.accepts(accepted));
        assert!(!function.accepts(refused));
        assert_eq!(function.call(&vec![Some(&json!(1)); refused], &context()), None);
    }
}

#[test]
fn wrong_types_and_undefined_arguments_are_undefined() {
    // These answer for every type.
    let open = |name: &str| {
        name.starts_with("IS_") || ["IIF", "ST_ISVALID", "ST_ISVALIDDETAILED", "ToString"].contains(&name)
    };
    for row in FAMILIES.iter().flat_map(|family| family.iter()) {
        if row.fewest == 0 || open(row.name) {
            continue;
        }
        for wrong in [json!(null), json!(true), json!(UNDEFINED)] {
            let arguments = Value::Array(vec![wrong; row.fewest]);
            assert_eq!(call(row.name, &arguments), None, "{}{arguments}", row.name);
        }
    }
}

/// Values of all types, with edges of numbers and with texts that some function understands.
fn values() -> impl Strategy<Value = Option<Value>> {
    let numbers = prop_oneof![
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..20).prop_map(Value::from),
        prop::sample::select(vec![
            json!(u64::MAX),
            json!(i64::MIN),
            json!(f64::MAX),
            json!(f64::MIN_POSITIVE),
            json!(-0.0),
            json!(9.223_372_036_854_776e18),
        ]),
    ];
    let texts = prop_oneof![
        any::<String>().prop_map(Value::from),
        "[-T:Z.0-9 ]{0,30}".prop_map(Value::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.][0-9]{7}Z".prop_map(Value::from),
        prop::sample::select(vec![
            "yyyy",
            "mm",
            "dd",
            "hh",
            "mi",
            "ss",
            "ms",
            "mcs",
            "ns",
            "yyyy-MM-dd FFF tt",
            "",
            "i",
            "x",
            "(a|b)*c{1000}",
            "[1,{\"a\":2}]",
            "0001-01-01",
            "9999-12-31T23:59:59.9999999Z",
            "\u{130}\u{df}",
        ])
        .prop_map(Value::from),
    ];
    let leaves =
        prop_oneof![Just(json!(null)), any::<bool>().prop_map(Value::from), numbers, texts, places()];
    let nested = leaves.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-c]", inner, 0..4)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    });
    prop::option::weighted(0.9, nested)
}

/// Geometries on a small grid, so that they touch, cross and cover each other in every way.
pub(super) fn places() -> impl Strategy<Value = Value> {
    let position = || (-4_i8..5, -4_i8..5).prop_map(|(x, y)| json!([x, y]));
    let line = move |length| prop::collection::vec(position(), length);
    let ring = move || {
        line(3..7).prop_map(|mut ring| {
            ring.push(ring[0].clone());
            Value::from(ring)
        })
    };
    let polygon = move || prop::collection::vec(ring(), 1..3).prop_map(Value::from);
    let of = |kind: &'static str| move |coordinates: Value| json!({"type": kind, "coordinates": coordinates});
    prop_oneof![
        position().prop_map(of("Point")),
        line(1..4).prop_map(Value::from).prop_map(of("MultiPoint")),
        line(1..6).prop_map(Value::from).prop_map(of("LineString")),
        prop::collection::vec(line(2..4), 1..3).prop_map(Value::from).prop_map(of("MultiLineString")),
        polygon().prop_map(of("Polygon")),
        prop::collection::vec(polygon(), 1..3).prop_map(Value::from).prop_map(of("MultiPolygon")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_function_panics_or_gives_too_much(arguments in prop::collection::vec(values(), 0..5)) {
        for name in Function::names() {
            let function = Function::named(name).unwrap();
            for length in 0..=arguments.len() {
                let arguments: Vec<_> = arguments[..length].iter().map(Option::as_ref).collect();
                let result = function.call(&arguments, &context());
                if let Some(result) = result {
                    prop_assert!(function.accepts(length), "{name}");
                    prop_assert!(result.to_string().len() <= MAX_RESULT_BYTES);
                }
            }
        }
    }
}

#[test]
fn a_result_beyond_the_limit_is_undefined() {
    let large = Value::from("x".repeat(MAX_RESULT_BYTES * 2 / 3));
    let many = Value::from(vec![json!({"a": "0123456789"}); MAX_RESULT_BYTES / 40]);
    for (name, arguments) in [
        ("CONCAT", json!([large, large])),
        ("REPLACE", json!([large, "x", "yy"])),
        ("StringSplit", json!([large, "x"])),
        ("StringJoin", json!([[large, large], ","])),
        ("ToString", json!([[large, large]])),
        ("ARRAY_CONCAT", json!([many, many, many])),
        ("ObjectToArray", json!([{"a": large, "b": large}])),
        ("REPLICATE", json!(["x", 10_001])),
        ("REPLICATE", json!(["x", 1e300])),
        ("DateTimeFormat", json!(["2020-01-01", large])),
    ] {
        assert_eq!(call(name, &arguments), None, "{name}");
    }
}
