//! Rows to groups, and groups to their keys and aggregates.
//!
//! Invariant: a gathering that was written down and read again goes on as if it had not been.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ast::{AggregateKind, Select};
use super::evaluate::{Env, Frame, GroupValues, evaluate};
use super::held::Held;
use super::value;

/// The groups of a query so far, by the canonical text of their keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Gathering(BTreeMap<String, Group>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Group {
    #[serde(rename = "k")]
    keys: Vec<Held>,
    #[serde(rename = "a")]
    states: Vec<State>,
}

/// What an aggregate knows so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum State {
    #[serde(rename = "c")]
    Count(u64),
    /// `None` as soon as something was no number, or the sum no longer is one.
    #[serde(rename = "s")]
    Sum(Option<f64>, u64),
    #[serde(rename = "e")]
    Extreme(Held),
}

impl Gathering {
    /// No group, or the one group of a query that has no GROUP BY.
    pub(super) fn new(select: &Select) -> Self {
        let mut gathering = Self::default();
        if select.group_by.is_empty() {
            gathering.0.insert(String::new(), Group::new(select, Vec::new()));
        }
        gathering
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a row to its group.
    pub(super) fn add<'a>(&mut self, select: &'a Select, frame: &Frame<'a>, env: &Env<'a>) {
        let mut text = String::new();
        for key in &select.group_by {
            value::canonical(evaluate(key, frame, env).as_deref(), &mut text);
            text.push(',');
        }
        let group = self.0.entry(text).or_insert_with(|| {
            let keys = select.group_by.iter().map(|key| evaluate(key, frame, env));
            Group::new(select, keys.map(|key| Held(key.map(std::borrow::Cow::into_owned))).collect())
        });
        for (aggregate, state) in select.aggregates.iter().zip(&mut group.states) {
            if let Some(found) = evaluate(&aggregate.argument, frame, env) {
                state.add(aggregate.kind, &found);
            }
        }
    }

    /// Each group with its text and its values, in the order of the texts.
    pub(super) fn groups(&self, select: &Select) -> impl Iterator<Item = (&str, GroupValues)> {
        self.0.iter().map(|(text, group)| (text.as_str(), group.values(select)))
    }

    /// Whether the state is one of this query.
    pub(super) fn fits(&self, select: &Select) -> bool {
        self.0.values().all(|group| {
            group.keys.len() == select.group_by.len() && group.states.len() == select.aggregates.len()
        })
    }
}

impl Group {
    fn new(select: &Select, keys: Vec<Held>) -> Self {
        let states = select.aggregates.iter().map(|aggregate| State::new(aggregate.kind)).collect();
        Self { keys, states }
    }

    fn values(&self, select: &Select) -> GroupValues {
        let aggregates = select.aggregates.iter().zip(&self.states);
        GroupValues {
            keys: self.keys.iter().map(|key| key.0.clone()).collect(),
            aggregates: aggregates.map(|(aggregate, state)| state.value(aggregate.kind)).collect(),
        }
    }
}

impl State {
    fn new(kind: AggregateKind) -> Self {
        match kind {
            AggregateKind::Count | AggregateKind::CountIf => Self::Count(0),
            AggregateKind::Sum | AggregateKind::Avg => Self::Sum(Some(0.0), 0),
            AggregateKind::Min | AggregateKind::Max => Self::Extreme(Held(None)),
        }
    }

    /// Adds a value; what is undefined never comes here.
    fn add(&mut self, kind: AggregateKind, found: &Value) {
        match self {
            Self::Count(count) => {
                if kind != AggregateKind::CountIf || *found == Value::Bool(true) {
                    *count += 1;
                }
            }
            Self::Sum(sum, count) => {
                let both = sum.zip(value::number(found)).map(|(sum, number)| sum + number);
                *sum = both.filter(|sum| sum.is_finite());
                *count += 1;
            }
            Self::Extreme(Held(held)) => {
                let order = value::order(Some(found), held.as_ref());
                let better = if kind == AggregateKind::Min { order.is_lt() } else { order.is_gt() };
                if better || held.is_none() {
                    *held = Some(found.clone());
                }
            }
        }
    }

    fn value(&self, kind: AggregateKind) -> Option<Value> {
        match self {
            Self::Count(count) => Some(Value::from(*count)),
            Self::Sum(_, 0) if kind == AggregateKind::Avg => None,
            #[expect(clippy::cast_precision_loss, reason = "no container has so many documents")]
            Self::Sum(sum, count) if kind == AggregateKind::Avg => {
                value::from_number((*sum)? / *count as f64)
            }
            Self::Sum(sum, _) => value::from_number((*sum)?),
            Self::Extreme(Held(held)) => held.clone(),
        }
    }
}
