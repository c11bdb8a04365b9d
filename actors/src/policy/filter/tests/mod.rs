//! What filters promise.

mod facts;
mod spec;
mod table;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::cloudevent::{CloudEvent, Data};

/// An event with this data.
fn sample(data: &str) -> CloudEvent {
    let mut event = CloudEvent::new("1", "/s", "T");
    event.subject = Some("ab".into());
    event.data = Data::Json(data.to_owned().into());
    event
}

fn compile(keys: &KeyTable, advanced: impl IntoIterator<Item = Condition>) -> Filter {
    let advanced = advanced.into_iter().collect();
    FilterSpec { advanced, ..FilterSpec::default() }.compile(keys).unwrap()
}

/// An event that has nothing but a type and a subject.
fn event(event_type: &str, subject: &str) -> Facts<Sample> {
    let members = json!({ "type": event_type, "subject": subject }).as_object().unwrap().clone();
    Facts::alone(Sample::new(members).unwrap())
}

fn filter(types: Option<&[&str]>, begins: Option<&str>, ends: Option<&str>, case: bool) -> Filter {
    let types = types.map(|names| names.iter().map(|&name| name.into()).collect());
    Filter::new(types, begins.map(str::to_owned), ends.map(str::to_owned), case)
}

#[test]
fn a_filter_is_types_and_beginning_and_end() {
    let both = Some(["LoadCreated", "LoadUpdated"].as_slice());
    for (types, begins, ends, case, event_type, subject, expected) in [
        (None, None, None, false, "X", "", true),
        (both, None, None, false, "LoadUpdated", "s", true),
        (both, None, None, false, "LoadDeleted", "s", false),
        (both, None, None, false, "loadcreated", "s", false),
        (both, None, None, false, "LoadCreated2", "s", false),
        (Some([].as_slice()), None, None, false, "LoadCreated", "s", false),
        (None, Some("A-B/"), None, false, "X", "a-b/1", true),
        (None, Some("A-B/"), None, false, "X", "A-B", false),
        (None, Some("A-B/"), None, true, "X", "a-b/1", false),
        (None, Some("A-B/"), None, true, "X", "A-B/1", true),
        (None, Some(""), Some(""), false, "X", "", true),
        (None, None, Some(".JPG"), false, "X", "a/b.jpg", true),
        (None, None, Some(".JPG"), true, "X", "a/b.jpg", false),
        (None, None, Some(".jpg"), false, "X", "jpg", false),
        (None, Some("*"), None, false, "X", "anything", false),
        (None, Some("ÅRSTA"), None, false, "X", "årsta/1", true),
        (None, Some("årsta"), None, false, "X", "ÅRSTA/1", true),
        (None, Some("ÅRSTA"), None, true, "X", "årsta/1", false),
        (None, None, Some("ΟΔΟΣ"), false, "X", "x/οδοσ", true),
        (None, Some("ΟΔΟΣ"), None, false, "X", "ΟΔΟΣΑ", true),
        (both, Some("a"), Some("z"), false, "LoadCreated", "A..Z", true),
        (both, Some("a"), Some("z"), false, "LoadCreated", "A..Y", false),
        (both, Some("a"), Some("z"), false, "LoadCreated", "B..Z", false),
        (both, Some("a"), Some("z"), false, "Other", "A..Z", false),
        (None, Some("aba"), Some("bab"), false, "X", "abab", true),
    ] {
        let filter = filter(types, begins, ends, case);
        assert_eq!(
            filter.matches(&event(event_type, subject)),
            expected,
            "{filter:?} {event_type} {subject}"
        );
    }
    assert!(Filter::default().matches(&event("X", "s")));
}

#[test]
fn an_explanation_names_each_condition() {
    let filter = filter(Some(&["LoadCreated"]), Some("A-B/"), Some("1"), false);
    let reasons = filter.explain(&event("LoadDeleted", "a-b/2")).reasons;
    let found: Vec<_> = reasons.iter().map(|reason| (reason.condition, reason.holds)).collect();
    let expected = [(Gate::Type, false), (Gate::SubjectBegins, true), (Gate::SubjectEnds, false)];
    assert_eq!(found, expected);
    assert_eq!(reasons[0].text, "the type `LoadDeleted` is none of `LoadCreated`");
    assert_eq!(reasons[1].text, "the subject `a-b/2` begins with `A-B/` (case is ignored)");
    assert_eq!(reasons[2].text, "the subject `a-b/2` does not end with `1` (case is ignored)");
    assert_eq!(Filter::default().explain(&event("X", "s")).reasons[0].condition, Gate::Always);
}

proptest! {
    #[test]
    fn an_explanation_agrees_with_the_match(
        types in proptest::option::of(proptest::collection::vec("[ab]", 0..2)),
        begins in proptest::option::of("[aAİßΣk]{0,2}"),
        ends in proptest::option::of("[aAİßΣk]{0,2}"),
        case_sensitive: bool,
        event_type in "[ab]",
        subject in "[aAİßΣk]{0,4}",
    ) {
        let types = types.map(|names| names.iter().map(|name| name.as_str().into()).collect());
        let filter = Filter::new(types, begins, ends, case_sensitive);
        let reasons = filter.explain(&event(&event_type, &subject));
        prop_assert!(!reasons.reasons.is_empty());
        prop_assert_eq!(filter.matches(&event(&event_type, &subject)), reasons.matches);
    }

    #[test]
    fn a_subject_begins_and_ends_with_itself_in_any_case(subject in "\\PC{0,12}", cut in 0usize..12) {
        let begin: String = subject.chars().take(cut).collect();
        let end: String = subject.chars().skip(cut).collect();
        let filter = Filter::new(None, Some(begin), Some(end), false);
        prop_assert!(filter.matches(&event("X", &subject)));
    }
}
