//! JSON Merge Patch (RFC 7396): a document of what shall change, `null` for what shall go.
//!
//! Invariant: properties that stay keep their order, and the work grows with the sizes of both, not
//! with their product.

use serde_json::{Map, Value};

/// Merges `patch` into `target`, as section 2 of the standard writes it.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(properties) = target else { return };
    // All removals in one pass: taking them out one by one moves everything behind each of them.
    if patch.values().any(Value::is_null) {
        properties.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    }
    for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        merge(properties.entry(name.as_str()).or_insert(Value::Null), value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, patch: &Value) -> Value {
        merge(&mut target, patch);
        target
    }

    #[test]
    fn the_examples_of_the_standard_hold() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(merged(target.clone(), &patch), result, "{target} {patch}");
        }
    }

    #[test]
    fn what_stays_keeps_its_order() {
        let result = merged(json!({"a": 1, "b": 2, "c": 3, "d": 4}), &json!({"e": 5, "b": null, "c": 0}));
        assert_eq!(result.to_string(), r#"{"a":1,"c":0,"d":4,"e":5}"#);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), Just(json!("x"))];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once(target in value(), patch in value()) {
            let once = merged(target, &patch);
            prop_assert_eq!(merged(once.clone(), &patch), once);
        }

        #[test]
        fn no_null_of_a_patch_is_stored(patch in value()) {
            prop_assume!(patch.is_object());
            let result = merged(json!({}), &patch);
            let mut open = vec![&result];
            while let Some(value) = open.pop() {
                // Inside of arrays nothing is merged, so a null there is a value.
                if let Value::Object(properties) = value {
                    prop_assert!(properties.values().all(|value| !value.is_null()));
                    open.extend(properties.values());
                }
            }
        }
    }
}
