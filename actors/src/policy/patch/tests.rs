//! Patches as tables of examples, and against a model of flat documents.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn keys() -> Vec<Vec<String>> {
    vec![vec!["pk".into()], vec!["a".into(), "key".into()]]
}

fn parsed(operations: &Value) -> Result<Patch, InvalidPatch> {
    Patch::parse(None, operations.to_string().as_bytes(), PatchLimits::default())
}

fn patched(document: &Value, operations: &Value) -> Result<Value, PatchError> {
    parsed(operations).unwrap().apply(document, &Protected { partition_paths: &keys() })
}

fn merged(document: &Value, patch: &Value) -> Result<Value, PatchError> {
    let content_type = Some("Application/Merge-Patch+JSON; charset=utf-8");
    let patch = Patch::parse(content_type, patch.to_string().as_bytes(), PatchLimits::default()).unwrap();
    patch.apply(document, &Protected { partition_paths: &keys() })
}

#[test]
fn the_examples_of_the_standard_hold() {
    for (document, operations, result) in [
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux"}]),
            json!({"baz": "qux", "foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "baz"]}),
            json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
            json!({"foo": ["bar", "qux", "baz"]}),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "remove", "path": "/baz"}]),
            json!({"foo": "bar"}),
        ),
        (
            json!({"foo": ["bar", "qux", "baz"]}),
            json!([{"op": "remove", "path": "/foo/1"}]),
            json!({"foo": ["bar", "baz"]}),
        ),
        (
            json!({"baz": "qux", "foo": "bar"}),
            json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
            json!({"baz": "boo", "foo": "bar"}),
        ),
        (
            json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
            json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
            json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
        ),
        (
            json!({"foo": ["all", "grass", "cows", "eat"]}),
            json!([{"op": "move", "from": "/foo/1", "path": "/foo/3"}]),
            json!({"foo": ["all", "cows", "eat", "grass"]}),
        ),
        (
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
            json!([{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}]),
            json!({"baz": "qux", "foo": ["a", 2, "c"]}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/child", "value": {"grandchild": {}}}]),
            json!({"foo": "bar", "child": {"grandchild": {}}}),
        ),
        (
            json!({"foo": "bar"}),
            json!([{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}]),
            json!({"foo": "bar", "baz": "qux"}),
        ),
        (
            json!({"/": 9, "~1": 10}),
            json!([{"op": "test", "path": "/~01", "value": 10}]),
            json!({"/": 9, "~1": 10}),
        ),
        (
            json!({"foo": ["bar"]}),
            json!([{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]),
            json!({"foo": ["bar", ["abc", "def"]]}),
        ),
        (
            json!({"foo": {"x": 1}}),
            json!([{"op": "copy", "from": "/foo", "path": "/bar"}, {"op": "copy", "from": "/bar", "path": "/foo/y"}]),
            json!({"foo": {"x": 1, "y": {"x": 1}}, "bar": {"x": 1}}),
        ),
    ] {
        assert_eq!(patched(&document, &operations), Ok(result), "{operations}");
    }
}

#[test]
fn set_incr_and_arrays_follow_cosmos_db() {
    let document = json!({"n": 1, "f": 0.5, "list": [1, 2], "o": {"x": null}, "max": i64::MAX});
    for (operation, path, result) in [
        (json!({"op": "set", "path": "/list/0", "value": 9}), "/list", json!([9, 2])),
        (json!({"op": "set", "path": "/list/2", "value": 9}), "/list", json!([1, 2, 9])),
        (json!({"op": "set", "path": "/list/-", "value": 9}), "/list", json!([1, 2, 9])),
        (json!({"op": "add", "path": "/list/2", "value": 9}), "/list", json!([1, 2, 9])),
        (json!({"op": "add", "path": "/n", "value": "s"}), "/n", json!("s")),
        (json!({"op": "set", "path": "/new", "value": null}), "/new", json!(null)),
        (json!({"op": "replace", "path": "/o/x", "value": 1}), "/o/x", json!(1)),
        (json!({"op": "incr", "path": "/n", "value": -3}), "/n", json!(-2)),
        (json!({"op": "increment", "path": "/n", "value": 0.5}), "/n", json!(1.5)),
        (json!({"op": "incr", "path": "/f", "value": 1}), "/f", json!(1.5)),
        (json!({"op": "incr", "path": "/o/y", "value": 5}), "/o/y", json!(5)),
        (json!({"op": "incr", "path": "/list/1", "value": 5}), "/list/1", json!(7)),
        (json!({"op": "incr", "path": "/max", "value": 1}), "/max", json!(9_223_372_036_854_775_808_f64)),
        (json!({"op": "move", "from": "/n", "path": "/list/0"}), "/list", json!([1, 1, 2])),
        (json!({"op": "move", "from": "/o", "path": "/n"}), "/n", json!({"x": null})),
        (json!({"op": "move", "from": "/n", "path": "/n"}), "/n", json!(1)),
        (json!({"op": "set", "path": "/ttl", "value": 60}), "/ttl", json!(60)),
        (json!({"op": "set", "path": "/a~1b~0", "value": 1}), "/a~1b~0", json!(1)),
    ] {
        let after = patched(&document, &json!([operation])).unwrap();
        assert_eq!(Pointer::parse(path).unwrap().find(&after), Some(&result), "{operation}");
    }
}

#[test]
fn what_does_not_fit_the_document_is_refused_with_its_place() {
    use Refusal::{
        Differs, Index, Missing, NoParent, NoSource, NotAContainer, NotANumber, NotAnIndex, NotFinite,
    };
    let document = json!({"n": 1, "s": "x", "list": [1, 2], "big": f64::MAX});
    for (operation, path, reason) in [
        (json!({"op": "remove", "path": "/x"}), "/x", Missing),
        (json!({"op": "remove", "path": "/list/2"}), "/list/2", Missing),
        (json!({"op": "remove", "path": "/list/-"}), "/list/-", NotAnIndex),
        (json!({"op": "replace", "path": "/x", "value": 1}), "/x", Missing),
        (json!({"op": "replace", "path": "/list/2", "value": 1}), "/list/2", Missing),
        (json!({"op": "replace", "path": "/list/-", "value": 1}), "/list/-", Missing),
        (json!({"op": "add", "path": "/list/3", "value": 1}), "/list/3", Index { len: 2 }),
        (json!({"op": "set", "path": "/list/3", "value": 1}), "/list/3", Index { len: 2 }),
        (json!({"op": "add", "path": "/list/01", "value": 1}), "/list/01", NotAnIndex),
        (json!({"op": "add", "path": "/list/x", "value": 1}), "/list/x", NotAnIndex),
        (json!({"op": "add", "path": "/x/y", "value": 1}), "/x/y", NoParent),
        (json!({"op": "add", "path": "/list/-/y", "value": 1}), "/list/-/y", NoParent),
        (json!({"op": "add", "path": "/s/y", "value": 1}), "/s/y", NotAContainer),
        (json!({"op": "add", "path": "/s/y/z", "value": 1}), "/s/y/z", NoParent),
        (json!({"op": "incr", "path": "/s", "value": 1}), "/s", NotANumber),
        (json!({"op": "incr", "path": "/list", "value": 1}), "/list", NotANumber),
        (json!({"op": "incr", "path": "/list/2", "value": 1}), "/list/2", Missing),
        (json!({"op": "incr", "path": "/x/y", "value": 1}), "/x/y", NoParent),
        (json!({"op": "incr", "path": "/big", "value": f64::MAX}), "/big", NotFinite),
        (json!({"op": "move", "from": "/x", "path": "/y"}), "/x", NoSource),
        (json!({"op": "move", "from": "/x", "path": "/x"}), "/x", NoSource),
        (json!({"op": "move", "from": "/n", "path": "/x/y"}), "/x/y", NoParent),
        (json!({"op": "copy", "from": "/list/5", "path": "/y"}), "/list/5", NoSource),
        (json!({"op": "test", "path": "/n", "value": "1"}), "/n", Differs),
        (json!({"op": "test", "path": "/x", "value": null}), "/x", Missing),
    ] {
        let operations = json!([{"op": "test", "path": "/n", "value": 1.0}, operation]);
        let expected = PatchError { operation: Some(2), path: path.into(), reason };
        assert_eq!(patched(&document, &operations), Err(expected), "{operation}");
    }
    let error = patched(&document, &json!([{"op": "remove", "path": "/x"}])).unwrap_err();
    assert_eq!(error.to_string(), "operation 1 at `/x`: nothing is there: use `add` or `set` to create it");
}

#[test]
fn the_id_the_key_and_system_properties_stay() {
    let document = json!({"id": "x", "pk": 1, "a": {"key": 2, "other": 3}, "v": 1, "_ts": 5, "ids": 1});
    for path in [
        "",
        "/id",
        "/id/x",
        "/pk",
        "/pk/x",
        "/a",
        "/a/key",
        "/a/key/x",
        "/_ts",
        "/_etag",
        "/_lsn",
        "/_rid",
        "/_self",
        "/_attachments",
    ] {
        for operation in [
            json!({"op": "add", "path": path, "value": 1}),
            json!({"op": "set", "path": path, "value": 1}),
            json!({"op": "replace", "path": path, "value": 1}),
            json!({"op": "incr", "path": path, "value": 1}),
            json!({"op": "remove", "path": path}),
            json!({"op": "copy", "path": path, "from": "/v"}),
            json!({"op": "move", "path": path, "from": "/v"}),
            json!({"op": "move", "path": "/w", "from": path}),
        ] {
            // A move out of the whole document is a move into itself.
            let Ok(patch) = parsed(&json!([operation])) else { continue };
            let error = patch.apply(&document, &Protected { partition_paths: &keys() }).unwrap_err();
            assert_eq!((error.reason, error.path.as_str()), (Refusal::Protected, path), "{operation}");
        }
    }
    for operation in [
        json!({"op": "set", "path": "/a/other", "value": 1}),
        json!({"op": "remove", "path": "/ids"}),
        json!({"op": "test", "path": "/id", "value": "x"}),
        json!({"op": "copy", "from": "/id", "path": "/w"}),
        json!({"op": "copy", "from": "/a", "path": "/w"}),
    ] {
        assert!(patched(&document, &json!([operation])).is_ok(), "{operation}");
    }
}

#[test]
fn a_merge_patch_may_repeat_what_is_protected_but_not_change_it() {
    let document = json!({"id": "x", "pk": 1, "a": {"key": 2, "other": 3}, "v": 1});
    let result = merged(&document, &json!({"id": "x", "pk": 1.0, "a": {"other": null}, "v": {"w": 2}}));
    assert_eq!(result, Ok(json!({"id": "x", "pk": 1.0, "a": {"key": 2}, "v": {"w": 2}})));
    for (patch, path) in [
        (json!({"id": "y"}), "/id"),
        (json!({"id": null}), "/id"),
        (json!({"pk": "1"}), "/pk"),
        (json!({"pk": null}), "/pk"),
        (json!({"a": {"key": 3}}), "/a/key"),
        (json!({"a": null}), "/a/key"),
        (json!({"a": [2]}), "/a/key"),
        (json!({"_etag": "z"}), "/_etag"),
    ] {
        let expected = PatchError { operation: None, path: path.into(), reason: Refusal::Protected };
        assert_eq!(merged(&document, &patch), Err(expected), "{patch}");
    }
    assert!(merged(&json!({"id": "x"}), &json!({"pk": null})).is_ok(), "undefined stays undefined");
    assert!(merged(&json!({"id": "x"}), &json!({"pk": 1})).is_err(), "undefined is a value of the key");
}

#[test]
fn bodies_that_are_no_patch_are_refused_with_their_reason() {
    let eleven = json!(vec![json!({"op": "remove", "path": "/a"}); 11]).to_string();
    for (body, reason) in [
        ("", "cannot be read: EOF"),
        ("[", "cannot be read: EOF"),
        ("{]", "cannot be read: key must be a string"),
        ("7", "an array of operations"),
        ("{}", "an array of operations"),
        (r#"{"op":"remove","path":"/a"}"#, "unknown field `op`"),
        (r#"{"conditions":"","operations":[]}"#, "unknown field `conditions`"),
        ("[]", "at least one operation"),
        (r#"{"operations":[]}"#, "at least one operation"),
        (eleven.as_str(), "at most 10 operations, this one has 11"),
        (r#"[{"op":"remove","path":"/a"},3]"#, "operation 2: an operation is an object"),
        (r#"[["remove","/a",null,null]]"#, "operation 1: an operation is an object"),
        (r#"[{"path":"/a"}]"#, "operation 1: `op` is missing"),
        (r#"[{"op":"remove"}]"#, "operation 1: `path` is missing"),
        (r#"[{"op":"add","path":"/a"}]"#, "operation 1: `value` is missing"),
        (r#"[{"op":"move","path":"/a"}]"#, "operation 1: `from` is missing"),
        (r#"[{"op":"Add","path":"/a","value":1}]"#, "`Add` is no operation: use add, set"),
        (r#"[{"op":"add","op":"remove","path":"/a","value":1}]"#, "duplicate field `op`"),
        (r#"[{"op":"add","path":5,"value":1}]"#, "expected a string"),
        (r#"[{"op":"add","path":"a","value":1}]"#, "begins with `/`"),
        (r#"[{"op":"move","path":"/a","from":"/~2"}]"#, "must be written `~0`"),
        (r#"[{"op":"incr","path":"/a","value":"1"}]"#, "must be a number"),
        (r#"[{"op":"move","path":"/a/b","from":"/a"}]"#, "cannot be moved into itself"),
        (r#"[{"op":"add","path":"/a","value":1e999}]"#, "operation 1: number out of range"),
    ] {
        let error = Patch::parse(None, body.as_bytes(), PatchLimits::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{body}: {error}");
    }
    for (body, reason) in [("[]", "is a JSON object"), ("null", "is a JSON object"), ("{", "EOF")] {
        let error = Patch::parse(Some(MERGE_PATCH), body.as_bytes(), PatchLimits::default()).unwrap_err();
        assert!(error.to_string().contains(reason), "{body}: {error}");
    }
}

#[test]
fn every_content_type_but_one_means_operations() {
    let operations = json!([{"op": "set", "path": "/a", "value": null}]);
    let enveloped = json!({"condition": "FROM c WHERE c.n = 1", "operations": operations});
    for content_type in [
        None,
        Some("application/json-patch+json"),
        Some("application/json_patch+json"),
        Some("application/json; charset=utf-8"),
    ] {
        for (body, condition) in [(&operations, None), (&enveloped, Some("FROM c WHERE c.n = 1"))] {
            let body = body.to_string();
            let patch = Patch::parse(content_type, body.as_bytes(), PatchLimits::default()).unwrap();
            assert_eq!((patch.condition(), patch.operations()), (condition, 1));
            let result = patch.apply(&json!({}), &Protected { partition_paths: &[] });
            assert_eq!(result, Ok(json!({"a": null})));
        }
    }
    let values = [json!({"op": "set", "path": "/a", "value": 1})];
    let patch = Patch::from_operations(&values, Some("c".into()), PatchLimits::default()).unwrap();
    assert_eq!(patch.condition(), Some("c"));
    let error = Patch::from_operations(&[json!(1)], None, PatchLimits::default()).unwrap_err();
    assert!(error.to_string().contains("operation 1: an operation is an object"));
}

#[test]
fn copies_cannot_grow_without_bound() {
    let wide = json!({"a": {"text": "x".repeat(300_000)}});
    let doubling: Vec<Value> =
        (0..10).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})).collect();
    assert_eq!(patched(&wide, &json!(doubling)).unwrap_err().reason, Refusal::CopiesTooMuch);

    let nested = |levels: usize, inner: Value| (0..levels).fold(inner, |value, _| json!({"d": value}));
    let below = format!("/b{}/x", "/d".repeat(100));
    let deep = json!({"z": nested(100, json!({})), "b": nested(100, json!({}))});
    let error = patched(&deep, &json!([{"op": "copy", "from": "/z", "path": below}])).unwrap_err();
    assert_eq!(error.reason, Refusal::TooDeep);
    let error = patched(&deep, &json!([{"op": "move", "from": "/z", "path": below}])).unwrap_err();
    assert_eq!(error.reason, Refusal::TooDeep);
}

#[test]
fn properties_keep_their_order() {
    let document = json!({"c": 1, "b": 2, "a1": 3, "z": 4});
    let operations = json!([
        {"op": "remove", "path": "/b"},
        {"op": "set", "path": "/c", "value": 9},
        {"op": "incr", "path": "/m", "value": 1},
        {"op": "move", "from": "/a1", "path": "/y"}
    ]);
    assert_eq!(patched(&document, &operations).unwrap().to_string(), r#"{"c":9,"z":4,"m":1,"y":3}"#);
}

/// A random operation on the properties `a` to `d` of a flat document.
#[derive(Debug, Clone)]
enum Step {
    Add(char, i64),
    Set(char, i64),
    Replace(char, i64),
    Remove(char),
    Increment(char, i64),
    Move(char, char),
    Copy(char, char),
    Test(char, i64),
}

impl Step {
    fn wire(&self) -> Value {
        let op = |op: &str, name: &char, value: &i64| json!({"op": op, "path": format!("/{name}"), "value": value});
        let two = |op: &str, from: &char, to: &char| json!({"op": op, "from": format!("/{from}"), "path": format!("/{to}")});
        match self {
            Self::Add(name, value) => op("add", name, value),
            Self::Set(name, value) => op("set", name, value),
            Self::Replace(name, value) => op("replace", name, value),
            Self::Increment(name, value) => op("incr", name, value),
            Self::Test(name, value) => op("test", name, value),
            Self::Remove(name) => json!({"op": "remove", "path": format!("/{name}")}),
            Self::Move(from, to) => two("move", from, to),
            Self::Copy(from, to) => two("copy", from, to),
        }
    }

    /// What the model does; `false` when it refuses.
    fn apply(&self, model: &mut BTreeMap<char, i64>) -> bool {
        match *self {
            Self::Add(name, value) | Self::Set(name, value) => {
                model.insert(name, value);
                true
            }
            Self::Replace(name, value) => model.get_mut(&name).map(|old| *old = value).is_some(),
            Self::Remove(name) => model.remove(&name).is_some(),
            Self::Increment(name, value) => {
                *model.entry(name).or_insert(0) += value;
                true
            }
            Self::Move(from, to) => model.remove(&from).map(|value| model.insert(to, value)).is_some(),
            Self::Copy(from, to) => model.get(&from).copied().map(|value| model.insert(to, value)).is_some(),
            Self::Test(name, value) => model.get(&name) == Some(&value),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let name = || proptest::char::range('a', 'd');
    let value = || -2i64..3;
    prop_oneof![
        (name(), value()).prop_map(|(n, v)| Step::Add(n, v)),
        (name(), value()).prop_map(|(n, v)| Step::Set(n, v)),
        (name(), value()).prop_map(|(n, v)| Step::Replace(n, v)),
        name().prop_map(Step::Remove),
        (name(), value()).prop_map(|(n, v)| Step::Increment(n, v)),
        (name(), name()).prop_map(|(a, b)| Step::Move(a, b)),
        (name(), name()).prop_map(|(a, b)| Step::Copy(a, b)),
        (name(), value()).prop_map(|(n, v)| Step::Test(n, v)),
    ]
}

fn object(model: &BTreeMap<char, i64>) -> Value {
    model.iter().map(|(name, value)| (name.to_string(), json!(value))).collect()
}

/// Any document, with properties that look like paths into it.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), Just(json!("x"))];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("a|b|key|0", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_patch_does_what_the_model_does(
        before in proptest::collection::btree_map(proptest::char::range('a', 'd'), -2i64..3, 0..5),
        steps in proptest::collection::vec(step(), 1..=10),
    ) {
        let mut model = before.clone();
        let failed = steps.iter().position(|step| !step.apply(&mut model));
        let wire: Vec<Value> = steps.iter().map(Step::wire).collect();
        let patch = parsed(&json!(wire)).unwrap();
        match (patch.apply(&object(&before), &Protected { partition_paths: &[] }), failed) {
            (Ok(after), None) => prop_assert_eq!(after, object(&model)),
            (Err(error), Some(at)) => prop_assert_eq!(error.operation, Some(at + 1)),
            (result, failed) => prop_assert!(false, "{:?} {:?}", result, failed),
        }
    }

    #[test]
    fn whatever_is_patched_the_key_stays(
        inner in document(),
        operations in proptest::collection::vec(
            (
                "add|set|replace|remove|incr|move|copy|test",
                "(/(a|b|key|id|pk|0|1|-)){0,3}",
                "(/(a|b|key|id|pk|0|1|-)){0,3}",
                prop_oneof![document(), Just(json!(1))],
            ),
            1..5,
        ),
    ) {
        let before = json!({"id": "x", "pk": [1], "a": inner, "b": {"key": 1}});
        let wire: Vec<Value> = operations
            .iter()
            .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
            .collect();
        let rules = Protected { partition_paths: &keys() };
        if let Ok(patch) = parsed(&json!(wire)) && let Ok(after) = patch.apply(&before, &rules) {
            prop_assert_eq!(rules.changed(&before, &after), None);
        }
    }
}
