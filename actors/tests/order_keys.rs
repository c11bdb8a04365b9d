//! The keys of indexes against the order of values, which they must not know: indexes change what a
//! query costs, never what it finds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at what it did not expect"
)]

use std::cmp::Ordering;

use lanekeeper_actors::model::order_key::{
    HASH, Truncated, encode, encode_bounded, prefix_range, span, split,
};
use lanekeeper_actors::query::value::{equal, order};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Values that are often nearly the same: few letters, numbers in several spellings.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        (-3i32..4).prop_map(|n| json!(f64::from(n) / 2.0)),
        any::<f64>().prop_filter("JSON has finite numbers", |n| n.is_finite()).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((text(), inner), 0..4)
                .prop_map(|properties| Value::Object(properties.into_iter().collect())),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    let letter =
        prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('b'), Just('\u{10FFFF}'), any::<char>()];
    proptest::collection::vec(letter, 0..6).prop_map(|letters| letters.into_iter().collect())
}

fn perhaps() -> impl Strategy<Value = Option<Value>> {
    proptest::option::weighted(0.95, value())
}

fn key(value: Option<&Value>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out);
    out
}

fn bounded(value: Option<&Value>, limit: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let Truncated(cut) = encode_bounded(value, limit, &mut out);
    (out, cut)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn keys_sort_as_their_values_do(left in perhaps(), right in perhaps()) {
        let (a, b) = (key(left.as_ref()), key(right.as_ref()));
        prop_assert_eq!(a.cmp(&b), order(left.as_ref(), right.as_ref()));
        if a != b {
            prop_assert!(!a.starts_with(&b) && !b.starts_with(&a), "no key begins with another");
        }
    }

    #[test]
    fn equal_values_have_equal_keys_and_others_have_not(left in value(), right in value()) {
        prop_assert_eq!(key(Some(&left)) == key(Some(&right)), equal(&left, &right));
    }

    #[test]
    fn composite_keys_sort_by_their_first_difference(
        left in proptest::collection::vec(perhaps(), 2),
        right in proptest::collection::vec(perhaps(), 2),
    ) {
        let joined = |values: &[Option<Value>]| -> Vec<u8> {
            values.iter().flat_map(|value| key(value.as_ref())).collect()
        };
        let expected = order(left[0].as_ref(), right[0].as_ref())
            .then_with(|| order(left[1].as_ref(), right[1].as_ref()));
        prop_assert_eq!(joined(&left).cmp(&joined(&right)), expected);
    }

    #[test]
    fn cut_keys_never_turn_an_order_around(left in perhaps(), right in perhaps(), limit in 1usize..24) {
        let ((a, a_cut), (b, b_cut)) = (bounded(left.as_ref(), limit), bounded(right.as_ref(), limit));
        prop_assert!(a.len() <= limit + HASH);
        prop_assert_eq!(a_cut, key(left.as_ref()).len() > limit);
        let expected = order(left.as_ref(), right.as_ref());
        if a_cut && b_cut && a[..limit] == b[..limit] {
            // Only the hash differs: it tells them apart, and that is all.
            prop_assert_eq!(a == b, expected == Ordering::Equal);
        } else {
            prop_assert_eq!(a.cmp(&b), expected);
        }
        if a != b {
            prop_assert!(!a.starts_with(&b) && !b.starts_with(&a));
        }
    }

    #[test]
    fn a_key_is_found_again_in_front_of_what_follows(
        value in perhaps(),
        limit in 1usize..40,
        rest in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        let (mut bytes, _) = bounded(value.as_ref(), limit);
        let len = bytes.len();
        bytes.extend_from_slice(&rest);
        prop_assert_eq!(split(&bytes, limit), Some(bytes.split_at(len)));
    }

    #[test]
    fn a_span_holds_the_value_and_says_whether_only_it(
        value in perhaps(),
        other in perhaps(),
        limit in 1usize..24,
    ) {
        let range = span(value.as_ref(), limit);
        let within = |key: &[u8]| *range.lower <= *key && range.upper.as_ref().is_none_or(|end| *key < **end);
        prop_assert!(within(&bounded(value.as_ref(), limit).0));
        let (found, _) = bounded(other.as_ref(), limit);
        match order(other.as_ref(), value.as_ref()) {
            Ordering::Equal => prop_assert!(within(&found)),
            Ordering::Less | Ordering::Greater if range.exact => prop_assert!(!within(&found)),
            // Lesser values may lie in the span, but never behind it, nor greater ones before it.
            Ordering::Less => prop_assert!(range.upper.as_ref().is_none_or(|end| *found < **end)),
            Ordering::Greater => prop_assert!(*found >= *range.lower),
        }
    }

    #[test]
    fn a_prefix_range_holds_the_strings_with_that_beginning(
        text in text(),
        cut in 0usize..6,
        other in perhaps(),
        limit in 1usize..24,
    ) {
        let prefix: String = text.chars().take(cut).collect();
        let range = prefix_range(&prefix, limit);
        let within = |key: &[u8]| *range.lower <= *key && range.upper.as_ref().is_none_or(|end| *key < **end);
        prop_assert!(within(&bounded(Some(&Value::from(text)), limit).0));
        let begins = other.as_ref().and_then(Value::as_str).is_some_and(|text| text.starts_with(&prefix));
        let found = within(&bounded(other.as_ref(), limit).0);
        prop_assert!(found || !begins);
        prop_assert!(!range.exact || found == begins);
    }

    #[test]
    fn arbitrary_bytes_are_split_without_panic(bytes in proptest::collection::vec(0u8..10, 0..40)) {
        if let Some((front, rest)) = split(&bytes, 16) {
            prop_assert_eq!([front, rest].concat(), bytes);
        }
    }
}
