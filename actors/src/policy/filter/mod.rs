//! Decides which events a subscription wants: by type, by subject, and by what attributes and data say.
//!
//! Stands between the router, which asks for every event, and the subscribers. A filter is written as a
//! [`FilterSpec`], compiled once with the [`KeyTable`] of its topic, and asked about [`Facts`], which all
//! filters of the topic share. The operators are those of Azure Event Grid, and so are the limits.
//!
//! Invariant: [`Filter::matches`] and [`Filter::explain`] never disagree.

mod check;
mod explain;
mod fact;
mod facts;
mod key;
mod published;
mod sample;
mod spec;
mod test;
#[cfg(test)]
mod tests;

use crate::model::ids::Name;
use check::Compiled;

pub use explain::{Explanation, Gate, Reason};
pub use facts::{Attribute, Facts, Filterable};
pub use key::{KeyFault, KeyTable, MAX_DEPTH, MAX_KEY};
pub use sample::Sample;
pub use spec::{
    Condition, ConditionFault, FilterProblem, FilterSpec, MAX_AFFIX, MAX_CONDITIONS, MAX_TEXT, MAX_TYPES,
    MAX_VALUES, SubjectFilter,
};
pub use test::{OPERATORS, Test, TestFault};

/// A compiled filter: an event must pass the types **and** both ends of the subject **and** every condition.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    types: Option<Vec<Name>>,
    subject_begins: Option<Affix>,
    subject_ends: Option<Affix>,
    case_sensitive: bool,
    conditions: Vec<Compiled>,
    arrays: bool,
}

/// A beginning or an end of subjects, as written and as compared.
#[derive(Debug, Clone)]
struct Affix {
    written: String,
    compared: Box<str>,
}

impl Filter {
    /// A filter without advanced conditions. No `types` means every type, an empty list means none. Types are
    /// compared exactly; subjects without regard to case, character by character, unless `case_sensitive`.
    pub fn new(
        types: Option<Vec<Name>>,
        subject_begins: Option<String>,
        subject_ends: Option<String>,
        case_sensitive: bool,
    ) -> Self {
        let affix = |written: String| {
            let compared = if case_sensitive { written.as_str().into() } else { fold(&written) };
            Affix { written, compared }
        };
        Self {
            types,
            subject_begins: subject_begins.map(affix),
            subject_ends: subject_ends.map(affix),
            case_sensitive,
            conditions: Vec::new(),
            arrays: false,
        }
    }

    /// Whether the subscription wants this event.
    pub fn matches<E: Filterable>(&self, facts: &Facts<E>) -> bool {
        self.wants_type(facts.event().event_type())
            && self.wants_beginning(facts)
            && self.wants_end(facts)
            && self.conditions.iter().all(|condition| {
                facts.ask(&condition.key, |fact| condition.check.verdict(fact, self.arrays).met)
            })
    }

    fn wants_type(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|name| &**name == event_type))
    }

    fn wants_beginning<E: Filterable>(&self, facts: &Facts<E>) -> bool {
        let begins = self.subject_begins.as_ref();
        begins.is_none_or(|affix| self.subject(facts).starts_with(&*affix.compared))
    }

    fn wants_end<E: Filterable>(&self, facts: &Facts<E>) -> bool {
        let ends = self.subject_ends.as_ref();
        ends.is_none_or(|affix| self.subject(facts).ends_with(&*affix.compared))
    }

    /// The subject as it is compared.
    fn subject<'f, E: Filterable>(&self, facts: &'f Facts<E>) -> &'f str {
        if self.case_sensitive { facts.event().subject().unwrap_or_default() } else { facts.folded_subject() }
    }
}

/// A text in lower case, character by character: unlike `str::to_lowercase`, the result of a character does
/// not depend on its neighbours, so a beginning of a text stays a beginning.
fn fold(text: &str) -> Box<str> {
    if text.is_ascii() {
        return text.to_ascii_lowercase().into();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}
