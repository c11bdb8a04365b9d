//! What is asked of events, and how often.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::fact::{Elements, Fact};
use super::super::*;
use super::{compile, sample};
use crate::model::address::PartitionAddress;
use crate::model::change::{ChangeKind, DocumentChange, Mutation};
use crate::model::cloudevent::{CloudEvent, Data, Extension};
use crate::model::event::Event;
use crate::model::ids::{DocumentId, Lsn, Position, ShardId};
use crate::model::json::value_at;
use crate::model::time::Timestamp;
use crate::model::topic::{EventTypes, Topic};

fn published() -> CloudEvent {
    let mut event = CloudEvent::new("id-1", "/source", "LoadCreated");
    event.subject = Some("OSL-BER/l-1".into());
    event.time = Some("2026-01-31T08:30:00Z".into());
    event.dataschema = Some("http://schemas/load".into());
    event.set_extension("partitionkey", "OSL-BER".into());
    event.set_extension("count", Extension::Integer(7));
    event.set_extension("urgent", Extension::Boolean(true));
    event.data = Data::Json(Bytes::from_static(
        br#"{"a":{"b":{"c":1},"x.y":2},"List":[{"n":1}],"tags":["Red"],"Case":"v","":{"e":1}}"#,
    ));
    event
}

#[test]
fn a_key_is_an_attribute_in_any_case_or_a_path_into_the_data() {
    let event = published();
    let text = |value: &str| ("StringIn", json!([value]));
    let number = |value: u32| ("NumberIn", json!([value]));
    let absent = || ("IsNullOrUndefined", Value::Null);
    let there = || ("IsNotNull", Value::Null);
    for (key, (operator, values)) in [
        ("id", text("id-1")),
        ("ID", text("id-1")),
        ("source", text("/source")),
        ("Source", text("/source")),
        ("type", text("loadcreated")),
        ("subject", text("osl-ber/l-1")),
        ("specversion", text("1.0")),
        ("time", text("2026-01-31t08:30:00z")),
        ("datacontenttype", text("application/json")),
        ("dataschema", text("http://schemas/load")),
        // Names of the Event Grid schema.
        ("EventType", text("LoadCreated")),
        ("EventTime", text("2026-01-31T08:30:00Z")),
        ("Topic", text("/source")),
        ("Subject", text("OSL-BER/l-1")),
        ("DataVersion", text("http://schemas/load")),
        // Extensions have their own types.
        ("partitionKey", text("osl-ber")),
        ("count", number(7)),
        ("urgent", ("BoolEquals", json!(true))),
        ("missing", absent()),
        // Names in the data are exact, but `data` is not one of them.
        ("data.a.b.c", number(1)),
        ("DATA.a.b.c", number(1)),
        ("data.A.b.c", absent()),
        ("data.case", absent()),
        ("data.Case", text("V")),
        ("data.a.b", there()),
        ("data.a.x.y", absent()),
        ("data.a.b.c.d", absent()),
        ("data.List.n", absent()),
        ("data.List.0", absent()),
        ("data.tags", there()),
        ("data", there()),
    ] {
        let keys = KeyTable::new();
        let (one, many) = if values.is_boolean() { (Some(&values), None) } else { (None, Some(&values)) };
        let condition = Condition::read(key.into(), operator, one, many).unwrap();
        let filter = compile(&keys, [condition]);
        for facts in [Facts::new(&event, &keys), Facts::alone(&event)] {
            assert!(filter.matches(&facts), "{:?}", filter.explain(&facts));
        }
    }
}

#[test]
fn an_attribute_of_its_own_goes_before_another_name() {
    let mut event = published();
    event.set_extension("topic", "news".into());
    event.set_extension("dataversion", "2".into());
    for (key, value) in [("Topic", "news"), ("source", "/source"), ("DataVersion", "2")] {
        let keys = KeyTable::new();
        let filter =
            compile(&keys, [Condition { key: key.into(), test: Test::StringIn(vec![value.into()]) }]);
        assert!(filter.matches(&Facts::new(&event, &keys)), "{key}");
    }
}

#[test]
fn keys_that_are_neither_attribute_nor_path_are_refused() {
    let long = format!("data.{}", "x".repeat(MAX_KEY));
    let deep = format!("data{}", ".a".repeat(MAX_DEPTH + 1));
    for (key, fault) in [
        ("", KeyFault::Length),
        (&long, KeyFault::Length),
        (&deep, KeyFault::Length),
        ("a.b", KeyFault::Form),
        ("data.", KeyFault::Form),
        ("data..a", KeyFault::Form),
        (".data", KeyFault::Form),
        ("my-ext", KeyFault::Form),
        ("sübject", KeyFault::Form),
        ("data a", KeyFault::Form),
    ] {
        let condition = Condition { key: key.into(), test: Test::IsNotNull };
        let spec = FilterSpec { advanced: vec![condition], ..FilterSpec::default() };
        let problem = spec.compile(&KeyTable::new()).unwrap_err();
        let FilterProblem::Condition { index: 0, fault: ConditionFault::Key(found), .. } = problem else {
            panic!("{problem}")
        };
        assert_eq!(found, fault, "{key}");
    }
    let deep = format!("data{}", ".a".repeat(MAX_DEPTH));
    let spec = FilterSpec {
        advanced: vec![Condition { key: deep, test: Test::IsNotNull }],
        ..FilterSpec::default()
    };
    spec.compile(&KeyTable::new()).unwrap();
}

#[test]
fn of_a_property_that_stands_twice_the_last_one_counts() {
    for (data, key, expected) in [
        (r#"{"a":1,"a":2}"#, "data.a", json!([2])),
        (r#"{"a":{"b":2},"a":{"c":1}}"#, "data.a.b", Value::Null),
        (r#"{"a":{"b":2},"a":2}"#, "data.a.b", Value::Null),
        (r#"{"a":2,"a":{"b":2}}"#, "data.a.b", json!([2])),
        (r#"{"\u0061":2}"#, "data.a", json!([2])),
    ] {
        let keys = KeyTable::new();
        let operator = if expected.is_null() { "IsNullOrUndefined" } else { "NumberIn" };
        let condition = Condition::read(key.into(), operator, None, Some(&expected)).unwrap();
        let filter = compile(&keys, [condition]);
        assert!(filter.matches(&Facts::new(sample(data), &keys)), "{data} {key}");
    }
}

#[test]
fn data_that_is_no_json_or_no_object_has_no_properties() {
    let absent = Condition { key: "data.a".into(), test: Test::IsNullOrUndefined };
    let keys = KeyTable::new();
    let filter = compile(&keys, [absent]);
    for data in
        ["", "1", "\"a\"", "[1]", "null", "{\"a\":1", "{\"a\":1} x", "{\"a\":1,}", "\u{feff}{\"a\":1}"]
    {
        let mut event = published();
        event.data = Data::Json(Bytes::copy_from_slice(data.as_bytes()));
        assert!(filter.matches(&Facts::new(&event, &keys)), "{data}");
    }
    let mut event = published();
    for data in [Data::None, Data::Text("a".into()), Data::Binary(Bytes::from_static(b"{\"a\":1}"))] {
        event.data = data;
        assert!(filter.matches(&Facts::new(&event, &keys)));
    }
    // Bytes that are said to be JSON are JSON.
    event.datacontenttype = Some("application/json".into());
    assert!(!filter.matches(&Facts::new(&event, &keys)));
    // Depth is no reason to stop.
    let deep = format!(r#"{{"x":{}1{},"a":1}}"#, "[".repeat(10_000), "]".repeat(10_000));
    event.data = Data::Json(deep.into());
    assert!(!filter.matches(&Facts::new(&event, &keys)));
}

#[test]
fn a_change_is_asked_what_its_subscribers_get() {
    let address = PartitionAddress {
        container: "loads".into(),
        tenant: None,
        key: vec![crate::model::address::KeyPart::String("OSL-BER".into())],
    };
    for kind in [ChangeKind::Create, ChangeKind::Delete] {
        let change = DocumentChange {
            kind,
            partition: address.encode(),
            id: DocumentId::new("l-1").unwrap(),
            at: Timestamp(1_700_000_000_123),
            previous: None,
            body: Bytes::from_static(br#"{"id":"l-1","lane":"OSL-BER"}"#),
            traceparent: Some("00-1-2-01".into()),
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        };
        let changed = || Some("LoadChanged".into());
        let types = EventTypes { created: changed(), replaced: changed(), deleted: changed() };
        let topic = Topic::of_changes("t".into(), "loads".into(), types);
        let position = Position { shard: ShardId(2), lsn: Lsn(812) };
        let event = Event::of(&topic, position, &Mutation::Document(change)).unwrap();
        let sent: Value = serde_json::from_slice(event.json()).unwrap();
        for (name, value) in sent.as_object().unwrap() {
            if name == "data" {
                let data: Value = serde_json::from_slice(&event.data().unwrap()).unwrap();
                assert_eq!(data, *value);
                continue;
            }
            let keys = KeyTable::new();
            let test = Test::StringIn(vec![value.as_str().unwrap().to_owned()]);
            let filter = compile(&keys, [Condition { key: name.clone(), test }]);
            assert!(filter.matches(&Facts::new(&event, &keys)), "{name}");
        }
    }
}

/// An event that counts how often its data is read.
struct Counting(AtomicUsize);

impl Filterable for Counting {
    fn event_type(&self) -> &str {
        "T"
    }

    fn subject(&self) -> Option<&str> {
        None
    }

    fn attribute(&self, _: &str) -> Option<Attribute<'_>> {
        None
    }

    fn data(&self) -> Option<Cow<'_, [u8]>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(Cow::Borrowed(br#"{"a":1,"b":{"c":2}}"#))
    }
}

#[test]
fn data_is_read_once_for_all_filters_on_all_threads_and_not_at_all_for_none() {
    let keys = KeyTable::new();
    let number = |key: &str, value| Condition { key: key.into(), test: Test::NumberIn(vec![value]) };
    let filters: Vec<_> =
        (0..100).map(|_| compile(&keys, [number("data.a", 1.0), number("data.b.c", 2.0)])).collect();
    let facts = Arc::new(Facts::new(Counting(AtomicUsize::new(0)), &keys));
    let subject = Filter::new(Some(vec!["T".into()]), Some(String::new()), None, false);
    assert!(subject.matches(&facts));
    assert!(
        compile(&keys, [Condition { key: "missing".into(), test: Test::IsNullOrUndefined }]).matches(&facts)
    );
    // Another gate has refused the event before its data matters.
    let mut other = compile(&keys, [number("data.a", 1.0)]);
    other.types = Some(vec!["U".into()]);
    assert!(!other.matches(&facts));
    assert_eq!(facts.event().0.load(Ordering::Relaxed), 0);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                assert!(filters.iter().all(|filter| filter.matches(&facts)));
            });
        }
    });
    assert_eq!(facts.event().0.load(Ordering::Relaxed), 1);
}

#[test]
fn filters_that_come_later_or_from_elsewhere_get_the_same_answers() {
    let (keys, other) = (KeyTable::new(), KeyTable::new());
    let one = |value: f64| Condition { key: "data.a".into(), test: Test::NumberIn(vec![value]) };
    let two = Condition { key: "data.b".into(), test: Test::NumberIn(vec![2.0]) };
    let first = compile(&keys, [one(1.0)]);
    let facts = Facts::new(sample(r#"{"a":1,"b":2}"#), &keys);
    let later = compile(&keys, [two.clone()]);
    let elsewhere = compile(&other, [two, one(1.0)]);
    for filter in [&first, &later, &elsewhere] {
        assert!(filter.matches(&facts), "{:?}", filter.explain(&facts));
    }
    assert!(!compile(&other, [one(2.0)]).matches(&facts));
}

#[test]
fn a_place_in_the_table_that_is_used_again_gives_no_wrong_answer() {
    let keys = KeyTable::new();
    let condition = |key: String| Condition { key, test: Test::NumberIn(vec![1.0]) };
    let old = compile(&keys, [condition("data.a".into())]);
    let facts = Facts::new(sample(r#"{"a":1,"b":2}"#), &keys);
    assert!(old.matches(&facts));
    drop(old);
    // So many keys come and go that places are given to new ones.
    for round in 0..1_000 {
        compile(&keys, [condition(format!("data.gone.g{round}"))]);
    }
    let new = compile(&keys, [condition("data.b".into())]);
    assert!(!new.matches(&facts));
    assert!(!new.matches(&Facts::new(sample(r#"{"a":1,"b":2}"#), &keys)));
    assert!(new.matches(&Facts::new(sample(r#"{"a":2,"b":1}"#), &keys)));
    assert!(keys.shape().paths() < 200, "{} places", keys.shape().paths());
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i32..4).prop_map(Value::from),
        "[aAbÅå]{0,3}".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let key =
        prop_oneof![Just("data".to_owned()), "data\\.[ab]", "data\\.[ab]\\.[ab]", Just("subject".into())];
    let texts = proptest::collection::vec("[aAbÅå]{0,2}", 1..3);
    let numbers = proptest::collection::vec((-3i32..4).prop_map(f64::from), 1..3);
    let test = (0..OPERATORS.len(), texts, numbers).prop_map(|(operator, texts, numbers)| {
        let name = OPERATORS[operator];
        let range = json!([[numbers[0].min(0.0), numbers[0].max(0.0)]]);
        let (one, many) = match name {
            "NumberIn" | "NumberNotIn" => (None, Some(json!(numbers))),
            "NumberInRange" | "NumberNotInRange" => (None, Some(range)),
            "BoolEquals" => (Some(json!(numbers[0] > 0.0)), None),
            "IsNullOrUndefined" | "IsNotNull" => (None, None),
            _ if name.starts_with("Number") => (Some(json!(numbers[0])), None),
            _ => (None, Some(json!(texts))),
        };
        Test::read(name, one.as_ref(), many.as_ref()).unwrap()
    });
    (key, test).prop_map(|(key, test)| Condition { key, test })
}

/// The fact that a value is, told from the value as a whole.
fn fact(value: Option<&Value>) -> Fact {
    match value {
        None => Fact::Absent,
        Some(Value::Null) => Fact::Null,
        Some(Value::Bool(value)) => Fact::Bool(*value),
        Some(Value::Number(number)) => Fact::Number(number.as_f64().unwrap()),
        Some(Value::String(text)) => Fact::text(text),
        Some(Value::Object(_)) => Fact::Other,
        Some(Value::Array(values)) => {
            let mut elements = Elements::default();
            for value in values {
                match fact(Some(value)) {
                    Fact::Number(number) => elements.numbers.push(number),
                    Fact::Text(text) => elements.texts.push(text),
                    Fact::Bool(true) => elements.has_true = true,
                    Fact::Bool(false) => elements.has_false = true,
                    Fact::Absent | Fact::Null | Fact::Array(_) | Fact::Other => {}
                }
            }
            Fact::Array(Box::new(elements))
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_in_one_pass_is_what_stands_there(
        data in any_value(),
        paths in proptest::collection::vec(proptest::collection::vec("[ab]", 0..4), 1..6),
        pretty: bool,
    ) {
        let keys = KeyTable::new();
        let text = |path: &Vec<String>| ["data".to_owned()].iter().chain(path).cloned().collect::<Vec<_>>().join(".");
        let known: Vec<_> = paths.iter().map(|path| keys.intern(&text(path)).unwrap()).collect();
        let json = if pretty { serde_json::to_string_pretty(&data).unwrap() } else { data.to_string() };
        let facts = Facts::new(sample(&json), &keys);
        for (path, key) in paths.iter().zip(&known) {
            let found = facts.ask(key, Fact::clone);
            prop_assert_eq!(found, fact(value_at(&data, path)));
        }
    }

    #[test]
    fn shared_facts_fresh_facts_and_explanations_agree(
        conditions in proptest::collection::vec(any_condition(), 1..4),
        data in any_value(),
        arrays: bool,
    ) {
        let keys = KeyTable::new();
        let spec = FilterSpec { advanced: conditions, arrays, ..FilterSpec::default() };
        let filter = spec.compile(&keys).unwrap();
        let data = data.to_string();
        let (shared, alone) = (Facts::new(sample(&data), &keys), Facts::alone(sample(&data)));
        prop_assert_eq!(filter.matches(&shared), filter.matches(&alone));
        prop_assert_eq!(filter.explain(&shared).matches, filter.matches(&shared));
        prop_assert_eq!(filter.explain(&shared), filter.explain(&alone));
    }

    #[test]
    fn a_filter_is_read_as_it_was_written(
        conditions in proptest::collection::vec(any_condition(), 0..4),
        types in proptest::option::of(proptest::collection::vec("[a-zA-Z.]{1,8}", 0..3)),
        begins in "\\PC{0,4}",
        case_sensitive: bool,
        arrays: bool,
    ) {
        let types = types.map(|types| types.iter().map(|name| name.as_str().into()).collect());
        let subject = SubjectFilter { begins, ends: String::new(), case_sensitive };
        let spec = FilterSpec { types, subject, advanced: conditions, arrays };
        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(&serde_json::from_str::<FilterSpec>(&json).unwrap(), &spec);
        let packed = rmp_serde::to_vec(&spec).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<FilterSpec>(&packed).unwrap(), &spec);
    }

    #[test]
    fn reading_never_stops_at_any_bytes(data in proptest::collection::vec(any::<u8>(), 0..64)) {
        let keys = KeyTable::new();
        let filter = compile(&keys, [Condition { key: "data.a".into(), test: Test::IsNotNull }]);
        let mut event = published();
        event.data = Data::Json(data.into());
        filter.explain(&Facts::new(&event, &keys));
    }
}
