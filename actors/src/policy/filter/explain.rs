//! Why an event matches a filter or not, for people.

use serde::Serialize;
use serde_json::Value;

use super::check::{Because, Check, Compiled, How, Numbers, Verdict};
use super::facts::{Attribute, Facts, Filterable};
use super::key::What;
use super::{Affix, Filter};
use crate::model::document;
use crate::model::json::value_at;

/// Characters of a value that an explanation shows.
const SHOWN: usize = 200;
/// Elements of an array that an explanation shows.
const SHOWN_ELEMENTS: usize = 16;

/// What a filter makes of one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Whether it matches: all reasons hold.
    pub matches: bool,
    /// Every gate of the filter, in the order of the filter.
    pub reasons: Vec<Reason>,
}

/// One gate of a filter, and whether an event passes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reason {
    /// The gate.
    pub condition: Gate,
    /// The key of an advanced condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The operator of an advanced condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<&'static str>,
    /// Whether the event passes.
    pub holds: bool,
    /// The value that was looked at, cut where it is long; `None` when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Value>,
    /// A sentence.
    pub text: String,
}

/// The kinds of gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// There is no condition; every event matches.
    Always,
    /// The event's type is one of a list.
    Type,
    /// The subject begins with a text.
    SubjectBegins,
    /// The subject ends with a text.
    SubjectEnds,
    /// One of the advanced conditions.
    Advanced,
}

impl Filter {
    /// Why an event matches or not: every gate, passed or not. The event matches when all hold.
    pub fn explain<E: Filterable>(&self, facts: &Facts<E>) -> Explanation {
        let mut reasons = Vec::new();
        reasons.extend(self.explain_type(facts));
        let begins = self.subject_begins.as_ref().map(|affix| {
            let (holds, gate) = (self.wants_beginning(facts), Gate::SubjectBegins);
            self.explain_subject(facts, gate, holds, affix)
        });
        let ends = self.subject_ends.as_ref().map(|affix| {
            let (holds, gate) = (self.wants_end(facts), Gate::SubjectEnds);
            self.explain_subject(facts, gate, holds, affix)
        });
        reasons.extend(begins);
        reasons.extend(ends);
        reasons.extend(self.conditions.iter().map(|condition| self.explain_condition(facts, condition)));
        if reasons.is_empty() {
            let text = "the subscription has no filter, so every event matches".to_owned();
            reasons.push(Reason {
                condition: Gate::Always,
                key: None,
                operator: None,
                holds: true,
                seen: None,
                text,
            });
        }
        Explanation { matches: reasons.iter().all(|reason| reason.holds), reasons }
    }

    fn explain_type<E: Filterable>(&self, facts: &Facts<E>) -> Option<Reason> {
        let types = self.types.as_ref()?;
        let event_type = facts.event().event_type();
        let holds = self.wants_type(event_type);
        let list = types.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let text = match (holds, types.is_empty()) {
            (true, _) => format!("the type `{event_type}` is one of {list}"),
            (false, false) => format!("the type `{event_type}` is none of {list}"),
            (false, true) => "the list of types is empty, so no event matches".to_owned(),
        };
        let seen = Some(shown(&Value::from(event_type)));
        Some(Reason { condition: Gate::Type, key: None, operator: None, holds, seen, text })
    }

    fn explain_subject<E: Filterable>(
        &self,
        facts: &Facts<E>,
        gate: Gate,
        holds: bool,
        affix: &Affix,
    ) -> Reason {
        let verb = match (gate == Gate::SubjectEnds, holds) {
            (false, true) => "begins",
            (false, false) => "does not begin",
            (true, true) => "ends",
            (true, false) => "does not end",
        };
        let case = if self.case_sensitive { "case matters" } else { "case is ignored" };
        let subject = facts.event().subject();
        let named = subject.map_or("the event has no subject, which".to_owned(), |subject| {
            format!("the subject `{subject}`")
        });
        let text = format!("{named} {verb} with `{}` ({case})", affix.written);
        let seen = subject.map(|subject| shown(&Value::from(subject)));
        Reason { condition: gate, key: None, operator: None, holds, seen, text }
    }

    fn explain_condition<E: Filterable>(&self, facts: &Facts<E>, condition: &Compiled) -> Reason {
        let verdict = facts.ask(&condition.key, |fact| condition.check.verdict(fact, self.arrays));
        let seen = facts.seen(condition.key.what()).map(|value| shown(&value));
        Reason {
            condition: Gate::Advanced,
            key: Some(condition.key.to_string()),
            operator: Some(condition.test.operator()),
            holds: verdict.met,
            text: sentence(condition, verdict, seen.as_ref()),
            seen,
        }
    }
}

/// Why a condition holds or does not.
fn sentence(condition: &Compiled, verdict: Verdict, seen: Option<&Value>) -> String {
    let Compiled { key, check, test } = condition;
    let operator = test.operator();
    let value = seen.map_or_else(|| "a value".to_owned(), Value::to_string);
    let (single, several) = test.written();
    let wanted = single.or(several).map(|wanted| format!(" {wanted}")).unwrap_or_default();
    let holds = if verdict.met { "holds" } else { "does not hold" };
    match verdict.because {
        Because::Absent => format!("`{key}` is not there, where `{operator}` {holds}"),
        Because::Null => format!("`{key}` is null, where `{operator}` {holds}"),
        Because::Kind => {
            format!("`{key}` is {value}; `{operator}` compares {}, so it does not hold", check.kind())
        }
        Because::ArraysOff => {
            format!(
                "`{key}` is an array, and the filter does not look into arrays; `{operator}` does not hold"
            )
        }
        Because::Elements => {
            let phrase = check.phrase(verdict.found, true);
            format!("`{key}` is {value}, in which {phrase}{wanted}; `{operator}` {holds}")
        }
        Because::Value => {
            let phrase = check.phrase(verdict.found, false);
            format!("`{key}` is {value}, which {phrase}{wanted}; `{operator}` {holds}")
        }
    }
}

impl Check {
    /// What it compares.
    fn kind(&self) -> &'static str {
        match self {
            Self::Numbers(..) => "numbers",
            Self::Bool(_) => "true and false",
            Self::Texts(..) => "texts",
            Self::There(_) => "everything",
        }
    }

    /// What was found of the test's values, in a value or in an array.
    fn phrase(&self, found: bool, in_array: bool) -> String {
        let [does, does_not] = match self {
            Self::Numbers(Numbers::In(_), _) => ["equals one of", "equals none of"],
            Self::Numbers(Numbers::Ranges(_), _) => ["lies in one of", "lies in none of"],
            Self::Numbers(Numbers::Less(_), _) => ["is less than", "is not less than"],
            Self::Numbers(Numbers::AtMost(_), _) => ["is at most", "is more than"],
            Self::Numbers(Numbers::Greater(_), _) => ["is greater than", "is not greater than"],
            Self::Numbers(Numbers::AtLeast(_), _) => ["is at least", "is less than"],
            Self::Bool(_) => ["is", "is not"],
            Self::Texts(How::Contains, ..) => ["contains one of", "contains none of"],
            Self::Texts(How::Begins, ..) => ["begins with one of", "begins with none of"],
            Self::Texts(How::Ends, ..) => ["ends with one of", "ends with none of"],
            Self::Texts(How::Is, ..) => ["equals one of", "equals none of"],
            Self::There(_) => ["is there", "is not there"],
        };
        match (in_array, found) {
            (false, true) => does.to_owned(),
            (false, false) => does_not.to_owned(),
            (true, true) => format!("an element {does}"),
            (true, false) => format!("no element {does}"),
        }
    }
}

impl<E: Filterable> Facts<E> {
    /// The value of a key as it stands in the event.
    fn seen(&self, what: &What) -> Option<Value> {
        match what {
            What::Attribute(name) => self.attribute(name).map(|value| match value {
                Attribute::Text(text) => Value::from(text),
                Attribute::Integer(number) => Value::from(number),
                Attribute::Boolean(value) => Value::from(value),
            }),
            What::Data(path) => {
                let data = document::read(&self.event().data()?).ok()?;
                value_at(&data, path).cloned()
            }
        }
    }
}

/// A value, cut where it is long.
fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().nth(SHOWN).is_some() => {
            Value::from(format!("{}…", text.chars().take(SHOWN).collect::<String>()))
        }
        Value::Array(elements) => {
            let mut cut: Vec<_> = elements.iter().take(SHOWN_ELEMENTS).map(shown).collect();
            if elements.len() > SHOWN_ELEMENTS {
                cut.push(Value::from("…"));
            }
            Value::Array(cut)
        }
        Value::Object(_) => Value::from("{…}"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
