//! Rows to groups, and groups to their keys and aggregates.
//!
//! Invariants: a gathering that was written down and read again goes on as if it had not been; a group that is in it
//! has seen all of its rows so far, because none of a name from `ceiling` on is ever taken up again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ast::{AggregateKind, Select};
use super::evaluate::{Env, Frame, GroupValues, evaluate};
use super::held::Held;
use super::{limits, value};

/// The groups of a query so far, by names of their keys: those that come first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Gathering {
    #[serde(rename = "g")]
    groups: BTreeMap<String, Group>,
    /// From this name on groups were dropped, for a later round.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    ceiling: Option<String>,
}

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
            gathering.groups.insert(String::new(), Group::new(select, Vec::new()));
        }
        gathering
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The name from which on groups were dropped.
    pub(super) fn ceiling(&self) -> Option<&str> {
        self.ceiling.as_deref()
    }

    /// Drops the last group, which comes in a later round.
    pub(super) fn drop_last(&mut self) {
        if let Some((name, _)) = self.groups.pop_last() {
            self.ceiling = Some(name);
        }
    }

    /// Drops groups until those that are left take no more than so many bytes in a continuation. One is always left.
    pub(super) fn trim(&mut self, most: usize) {
        let (mut bytes, mut fit) = (0, 0);
        for entry in &self.groups {
            bytes += serde_json::to_string(&entry).map_or(usize::MAX, |text| text.len());
            if bytes > most && fit > 0 {
                break;
            }
            fit += 1;
        }
        while self.groups.len() > fit {
            self.drop_last();
        }
    }

    /// Adds a row to its group. Groups up to the name `after` were told in earlier rounds.
    pub(super) fn add<'a>(
        &mut self,
        select: &'a Select,
        after: Option<&[u8]>,
        frame: &Frame<'a>,
        env: &Env<'a>,
    ) {
        let mut text = String::new();
        for key in &select.group_by {
            value::canonical(evaluate(key, frame, env).as_deref(), &mut text);
            text.push(',');
        }
        let name = name_of(text);
        if after.is_some_and(|after| name.as_bytes() <= after)
            || self.ceiling.as_ref().is_some_and(|ceiling| name >= *ceiling)
        {
            return;
        }
        let group = self.groups.entry(name).or_insert_with(|| {
            let keys = select.group_by.iter().map(|key| evaluate(key, frame, env));
            Group::new(select, keys.map(|key| Held(key.map(std::borrow::Cow::into_owned))).collect())
        });
        for (aggregate, state) in select.aggregates.iter().zip(&mut group.states) {
            if let Some(found) = evaluate(&aggregate.argument, frame, env) {
                state.add(aggregate.kind, &found);
            }
        }
    }

    /// Each group with its name and its values, in the order of the names.
    pub(super) fn groups(&self, select: &Select) -> impl Iterator<Item = (&str, GroupValues)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group.values(select)))
    }

    /// Whether the state is one of this query.
    pub(super) fn fits(&self, select: &Select) -> bool {
        self.groups.values().all(|group| {
            group.keys.len() == select.group_by.len() && group.states.len() == select.aggregates.len()
        })
    }
}

/// What tells a group by the text of its keys: the text, or its beginning and a hash.
fn name_of(mut text: String) -> String {
    if text.len() > limits::TIE_BYTES {
        let hash = twox_hash::XxHash3_128::oneshot(text.as_bytes());
        text.truncate(text.floor_char_boundary(limits::TIE_BYTES));
        text.push_str(&format!("{hash:032x}"));
    }
    text
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
