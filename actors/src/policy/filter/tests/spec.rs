//! How filters are written, and which are refused.

use serde_json::{Value, json};

use super::super::*;
use super::sample;

fn condition(test: Test) -> Condition {
    Condition { key: "data.x".into(), test }
}

fn refusal(spec: &FilterSpec) -> String {
    spec.compile(&KeyTable::new()).unwrap_err().to_string()
}

#[test]
fn a_filter_has_at_most_25_conditions_and_25_values() {
    let keys = KeyTable::new();
    let with = |advanced| FilterSpec { advanced, ..FilterSpec::default() };
    with(vec![condition(Test::IsNotNull); 25]).compile(&keys).unwrap();
    assert_eq!(refusal(&with(vec![condition(Test::IsNotNull); 26])), "26 conditions, the limit is 25");
    let numbers = |count| condition(Test::NumberIn(vec![1.0; count]));
    let ranges = |count| condition(Test::NumberInRange(vec![[1.0, 2.0]; count]));
    with(vec![numbers(24), condition(Test::BoolEquals(true))]).compile(&keys).unwrap();
    with(vec![numbers(12), ranges(13), condition(Test::IsNotNull)]).compile(&keys).unwrap();
    let problem = "the conditions have 26 values together, the limit is 25";
    for advanced in [
        vec![numbers(26)],
        vec![numbers(13), ranges(13)],
        vec![numbers(25), condition(Test::NumberLessThan(1.0))],
        vec![numbers(25), condition(Test::StringIn(vec!["a".into()]))],
    ] {
        assert_eq!(refusal(&with(advanced)), problem);
    }
}

#[test]
fn texts_types_and_subjects_have_limits() {
    let keys = KeyTable::new();
    let text = |length| FilterSpec {
        advanced: vec![condition(Test::StringContains(vec!["å".repeat(length)]))],
        ..FilterSpec::default()
    };
    text(512).compile(&keys).unwrap();
    assert_eq!(refusal(&text(513)), "condition 0 on `data.x`: a text of 513 characters, the limit is 512");
    let types = |count| FilterSpec { types: Some(vec!["T".into(); count]), ..FilterSpec::default() };
    types(MAX_TYPES).compile(&keys).unwrap();
    assert_eq!(refusal(&types(MAX_TYPES + 1)), "257 types, the limit is 256");
    let subject = |length: usize| {
        let subject = SubjectFilter { ends: "x".repeat(length), ..SubjectFilter::default() };
        FilterSpec { subject, ..FilterSpec::default() }
    };
    subject(MAX_AFFIX).compile(&keys).unwrap();
    assert!(refusal(&subject(MAX_AFFIX + 1)).contains("4097 characters"));
}

#[test]
fn types_are_all_or_a_list() {
    for (types, event_type, expected) in [
        (None, "T", true),
        (Some(vec!["All"]), "T", true),
        (Some(vec!["T"]), "T", true),
        (Some(vec!["t"]), "T", false),
        (Some(vec![]), "T", false),
        // Only alone it means every type.
        (Some(vec!["All", "U"]), "T", false),
        (Some(vec!["All", "U"]), "All", true),
    ] {
        let types = types.map(|types| types.into_iter().map(Into::into).collect());
        let keys = KeyTable::new();
        let spec = FilterSpec { types, ..FilterSpec::default() };
        let mut event = sample("{}");
        event.event_type = event_type.into();
        assert_eq!(spec.compile(&keys).unwrap().matches(&Facts::new(event, &keys)), expected, "{spec:?}");
    }
}

#[test]
fn conditions_are_and_values_are_or() {
    let keys = KeyTable::new();
    let not = |values: &[f64]| condition(Test::NumberNotIn(values.to_vec()));
    let in_ = |values: &[f64]| condition(Test::NumberIn(values.to_vec()));
    let event = || sample(r#"{"x":1}"#);
    for (advanced, expected) in [
        (vec![in_(&[1.0, 2.0]), not(&[3.0])], true),
        (vec![in_(&[2.0, 1.0]), not(&[1.0])], false),
        // A key may be asked about twice.
        (vec![in_(&[1.0]), in_(&[2.0])], false),
        (vec![condition(Test::NumberGreaterThan(0.0)), condition(Test::NumberLessThan(2.0))], true),
    ] {
        let filter = FilterSpec { advanced, ..FilterSpec::default() }.compile(&keys).unwrap();
        assert_eq!(filter.matches(&Facts::new(event(), &keys)), expected);
    }
}

#[test]
fn an_operator_takes_its_values_and_nothing_else() {
    let read = |operator: &str, value: Value, values: Value| {
        Test::read(operator, Some(&value), Some(&values)).map_err(|fault| fault.to_string())
    };
    let none = || Value::Null;
    assert_eq!(read("numberIN", none(), json!([1, 2.5])), Ok(Test::NumberIn(vec![1.0, 2.5])));
    assert_eq!(read("NumberInRange", none(), json!([[1, 2]])), Ok(Test::NumberInRange(vec![[1.0, 2.0]])));
    assert_eq!(read("BoolEquals", json!(false), none()), Ok(Test::BoolEquals(false)));
    assert_eq!(read("IsNotNull", none(), none()), Ok(Test::IsNotNull));
    let ranges = "`NumberInRange` takes `values`, a list of at least one range `[from, to]`";
    let texts = "`StringIn` takes `values`, a list of at least one text";
    let number = "`NumberLessThan` takes `value`, a number";
    for (operator, value, values, expected) in [
        ("NumberIn", none(), none(), "`NumberIn` takes `values`, a list of at least one number"),
        ("NumberIn", none(), json!([]), "`NumberIn` takes `values`, a list of at least one number"),
        ("NumberIn", json!(1), none(), "`NumberIn` takes `values`, a list of at least one number"),
        ("NumberIn", none(), json!(["1"]), "`NumberIn` takes `values`, a list of at least one number"),
        ("NumberInRange", none(), json!([1, 2]), ranges),
        ("NumberInRange", none(), json!([[1]]), ranges),
        ("NumberInRange", none(), json!([[1, 2, 3]]), ranges),
        ("NumberInRange", none(), json!([[2, 1]]), "the range from 2 to 1 is empty"),
        ("NumberLessThan", none(), json!([1]), number),
        ("NumberLessThan", json!("1"), none(), number),
        ("NumberLessThan", json!(1), json!([1]), number),
        ("BoolEquals", json!("true"), none(), "`BoolEquals` takes `value`, true or false"),
        ("StringIn", none(), json!([1]), texts),
        ("StringIn", json!("a"), none(), texts),
        ("StringIn", none(), json!("a"), texts),
        ("IsNotNull", json!(true), none(), "`IsNotNull` takes neither `value` nor `values`"),
    ] {
        assert_eq!(read(operator, value, values), Err(expected.to_owned()));
    }
    let unknown = read("NumberEquals", json!(1), none()).unwrap_err();
    assert!(
        unknown.starts_with("unknown operator `NumberEquals`; the operators are NumberIn, "),
        "{unknown}"
    );
    let infinite = condition(Test::NumberIn(vec![f64::NAN]));
    let spec = FilterSpec { advanced: vec![infinite], ..FilterSpec::default() };
    assert_eq!(refusal(&spec), "condition 0 on `data.x`: a number that is not finite");
}

#[test]
fn conditions_are_read_as_manifests_and_event_grid_write_them() {
    let spec: FilterSpec = serde_json::from_value(json!({
        "types": ["LoadCreated"],
        "subject": { "begins": "OSL" },
        "advanced": [
            { "key": "data.weight", "operator": "NumberGreaterThan", "value": 1000 },
            { "operatorType": "NumberInRange", "key": "data.n", "values": [[1.0, 2.0], [5.0, 6.0]] },
            { "operatorType": "IsNotNull", "key": "data.z" },
        ],
    }))
    .unwrap();
    assert_eq!(spec.advanced[1].test, Test::NumberInRange(vec![[1.0, 2.0], [5.0, 6.0]]));
    spec.compile(&KeyTable::new()).unwrap();
    let wrong = json!({ "advanced": [{ "key": "data.x", "operator": "IsNull" }] });
    assert!(serde_json::from_value::<FilterSpec>(wrong).unwrap_err().to_string().contains("IsNull"));
}

#[test]
fn an_explanation_says_which_value_decided_and_why() {
    let keys = KeyTable::new();
    let spec: FilterSpec = serde_json::from_value(json!({
        "subject": { "begins": "AB", "ends": "z" },
        "advanced": [
            { "key": "data.weight", "operator": "NumberGreaterThan", "value": 1000 },
            { "key": "data.tags", "operator": "StringIn", "values": ["a"] },
            { "key": "data.none", "operator": "StringNotIn", "values": ["a"] },
            { "key": "data.null", "operator": "StringNotContains", "values": ["a"] },
            { "key": "data.text", "operator": "NumberIn", "values": [5] },
        ],
    }))
    .unwrap();
    let event = sample(r#"{"weight":900,"tags":["a"],"null":null,"text":"5"}"#);
    let facts = Facts::new(event, &keys);
    let explanation = spec.compile(&keys).unwrap().explain(&facts);
    assert!(!explanation.matches);
    let told: Vec<_> = explanation.reasons.iter().map(|reason| (reason.holds, &*reason.text)).collect();
    assert_eq!(
        told,
        [
            (true, "the subject `ab` begins with `AB` (case is ignored)"),
            (false, "the subject `ab` does not end with `z` (case is ignored)"),
            (
                false,
                "`data.weight` is 900, which is not greater than 1000; `NumberGreaterThan` does not hold"
            ),
            (
                false,
                "`data.tags` is an array, and the filter does not look into arrays; `StringIn` does not hold"
            ),
            (true, "`data.none` is not there, where `StringNotIn` holds"),
            (false, "`data.null` is null, where `StringNotContains` does not hold"),
            (false, "`data.text` is \"5\"; `NumberIn` compares numbers, so it does not hold"),
        ]
    );
    let reason = serde_json::to_value(&explanation.reasons[2]).unwrap();
    let expected = json!({ "condition": "advanced", "key": "data.weight", "operator": "NumberGreaterThan",
        "holds": false, "seen": 900, "text": reason["text"] });
    assert_eq!(reason, expected);
    let looking = FilterSpec { arrays: true, ..spec };
    let found = looking.compile(&keys).unwrap().explain(&facts);
    assert_eq!(
        found.reasons[3].text,
        "`data.tags` is [\"a\"], in which an element equals one of [\"a\"]; `StringIn` holds"
    );
}

#[test]
fn an_explanation_shows_long_values_cut() {
    let keys = KeyTable::new();
    let advanced = ["data.text", "data.list", "data.map"]
        .map(|key| Condition { key: key.into(), test: Test::IsNotNull })
        .to_vec();
    let filter = FilterSpec { advanced, ..FilterSpec::default() }.compile(&keys).unwrap();
    let data = json!({ "text": "x".repeat(100_000), "list": vec![1; 100_000], "map": { "a": 1 } });
    let explanation = filter.explain(&Facts::new(sample(&data.to_string()), &keys));
    assert!(explanation.matches);
    assert!(serde_json::to_string(&explanation).unwrap().len() < 2_000);
}
