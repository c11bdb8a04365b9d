//! Decides which events a subscription wants, by type and subject.
//!
//! Stands between the router, which asks for every event, and the subscribers. Invariant:
//! [`Filter::matches`] and [`Filter::explain`] never disagree.

use serde::Serialize;

use crate::model::ids::Name;

/// A compiled filter: an event must pass the types **and** both ends of the subject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    types: Option<Vec<Name>>,
    subject_begins: Option<Affix>,
    subject_ends: Option<Affix>,
    case_sensitive: bool,
}

/// A beginning or an end of subjects, as written and as compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Affix {
    written: String,
    folded: String,
}

/// One condition of a filter and whether an event meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The condition.
    pub condition: Condition,
    /// Whether it holds.
    pub holds: bool,
    /// A sentence for people.
    pub text: String,
}

/// The kinds of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// There is no condition; every event matches.
    Always,
    /// The event's type is one of a list.
    Type,
    /// The subject begins with a text.
    SubjectBegins,
    /// The subject ends with a text.
    SubjectEnds,
}

impl Filter {
    /// Compiles a filter. No `types` means every type, an empty list means none. Types are compared
    /// exactly; subjects without regard to case, character by character, unless `case_sensitive`.
    pub fn new(
        types: Option<Vec<Name>>,
        subject_begins: Option<String>,
        subject_ends: Option<String>,
        case_sensitive: bool,
    ) -> Self {
        let affix = |written: String| {
            let folded = if case_sensitive { written.clone() } else { fold(&written).collect() };
            Affix { written, folded }
        };
        Self {
            types,
            subject_begins: subject_begins.map(affix),
            subject_ends: subject_ends.map(affix),
            case_sensitive,
        }
    }

    /// Whether the subscription wants this event.
    pub fn matches(&self, event_type: &str, subject: &str) -> bool {
        self.wants_type(event_type) && self.wants_beginning(subject) && self.wants_end(subject)
    }

    /// Why an event matches or not: every condition, met or not. The event matches when all hold.
    pub fn explain(&self, event_type: &str, subject: &str) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(types) = &self.types {
            let holds = self.wants_type(event_type);
            let list = types.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let text = match (holds, types.is_empty()) {
                (true, _) => format!("the type `{event_type}` is one of {list}"),
                (false, false) => format!("the type `{event_type}` is none of {list}"),
                (false, true) => "the list of types is empty, so no event matches".to_owned(),
            };
            reasons.push(Reason { condition: Condition::Type, holds, text });
        }
        if let Some(affix) = &self.subject_begins {
            let holds = self.wants_beginning(subject);
            let text = self.sentence(subject, holds, ["begins", "begin"], &affix.written);
            reasons.push(Reason { condition: Condition::SubjectBegins, holds, text });
        }
        if let Some(affix) = &self.subject_ends {
            let holds = self.wants_end(subject);
            let text = self.sentence(subject, holds, ["ends", "end"], &affix.written);
            reasons.push(Reason { condition: Condition::SubjectEnds, holds, text });
        }
        if reasons.is_empty() {
            let text = "the subscription has no filter, so every event matches".to_owned();
            reasons.push(Reason { condition: Condition::Always, holds: true, text });
        }
        reasons
    }

    fn wants_type(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|name| &**name == event_type))
    }

    fn wants_beginning(&self, subject: &str) -> bool {
        let Some(affix) = &self.subject_begins else { return true };
        if self.case_sensitive {
            return subject.starts_with(&affix.folded);
        }
        let mut subject = fold(subject);
        affix.folded.chars().all(|c| subject.next() == Some(c))
    }

    fn wants_end(&self, subject: &str) -> bool {
        let Some(affix) = &self.subject_ends else { return true };
        if self.case_sensitive {
            return subject.ends_with(&affix.folded);
        }
        let mut subject = fold(subject).rev();
        affix.folded.chars().rev().all(|c| subject.next() == Some(c))
    }

    fn sentence(&self, subject: &str, holds: bool, [does, do_]: [&str; 2], written: &str) -> String {
        let verb = if holds { does.to_owned() } else { format!("does not {do_}") };
        let case = if self.case_sensitive { "case matters" } else { "case is ignored" };
        format!("the subject `{subject}` {verb} with `{written}` ({case})")
    }
}

/// Lower-case characters, one by one: unlike `str::to_lowercase`, the result of a character does not
/// depend on its neighbours, so a prefix of a text stays a prefix.
fn fold(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            assert_eq!(filter.matches(event_type, subject), expected, "{filter:?} {event_type} {subject}");
        }
        assert!(Filter::default().matches("X", "s"));
    }

    #[test]
    fn an_explanation_names_each_condition() {
        let filter = filter(Some(&["LoadCreated"]), Some("A-B/"), Some("1"), false);
        let reasons = filter.explain("LoadDeleted", "a-b/2");
        let found: Vec<_> = reasons.iter().map(|reason| (reason.condition, reason.holds)).collect();
        let expected =
            [(Condition::Type, false), (Condition::SubjectBegins, true), (Condition::SubjectEnds, false)];
        assert_eq!(found, expected);
        assert_eq!(reasons[0].text, "the type `LoadDeleted` is none of `LoadCreated`");
        assert_eq!(reasons[1].text, "the subject `a-b/2` begins with `A-B/` (case is ignored)");
        assert_eq!(reasons[2].text, "the subject `a-b/2` does not end with `1` (case is ignored)");
        assert_eq!(Filter::default().explain("X", "s")[0].condition, Condition::Always);
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
            let reasons = filter.explain(&event_type, &subject);
            prop_assert!(!reasons.is_empty());
            let all = reasons.iter().all(|reason| reason.holds);
            prop_assert_eq!(filter.matches(&event_type, &subject), all);
        }

        #[test]
        fn a_subject_begins_and_ends_with_itself_in_any_case(subject in "\\PC{0,12}", cut in 0usize..12) {
            let begin: String = subject.chars().take(cut).collect();
            let end: String = subject.chars().skip(cut).collect();
            let filter = Filter::new(None, Some(begin), Some(end), false);
            prop_assert!(filter.matches("X", &subject));
        }
    }
}
