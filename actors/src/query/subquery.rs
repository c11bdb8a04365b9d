//! Queries within queries: they run in memory, over what is in scope.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde_json::Value;

use super::aggregate::Gathering;
use super::ast::{Count, OrderItem, Select, Subquery};
use super::evaluate::{Env, Frame, order_values, project};
use super::rows::rows;
use super::value;

/// The value of a subquery within an expression.
pub(super) fn value<'a>(
    kind: Subquery,
    select: &'a Select,
    frame: &Frame<'a>,
    env: &Env<'a>,
) -> Option<Value> {
    match kind {
        Subquery::Scalar | Subquery::First => results(select, frame, env, Some(1)).into_iter().next(),
        Subquery::Last => results(select, frame, env, None).pop(),
        Subquery::Exists => Some(Value::Bool(!results(select, frame, env, Some(1)).is_empty())),
        Subquery::Array | Subquery::Rows => Some(Value::Array(results(select, frame, env, None))),
        Subquery::All => {
            let results = results(select, frame, env, None);
            Some(Value::Bool(results.iter().all(|result| *result == Value::Bool(true))))
        }
    }
}

/// The rows of a subquery, at most `enough` when only so many are wanted.
pub(super) fn results<'a>(
    select: &'a Select,
    frame: &Frame<'a>,
    env: &Env<'a>,
    enough: Option<usize>,
) -> Vec<Value> {
    let skip = size(Count::number(select.offset.as_ref()).unwrap_or(0));
    let take = Count::number(select.top.as_ref()).or(Count::number(select.limit.as_ref()));
    let take = take.map_or(usize::MAX, size).min(enough.unwrap_or(usize::MAX));
    // A subquery sees groups of its own only.
    let env = &Env { group: None, ..*env };
    let mut found = Found { select, seen: BTreeSet::new(), rows: Vec::new() };
    let plain = !select.distinct && select.order_by.is_empty();
    let most = if plain { skip.saturating_add(take) } else { usize::MAX };
    if take == 0 {
        return Vec::new();
    }
    if select.grouped {
        let mut gathering = Gathering::new(select);
        rows(select, frame, env, &mut |row| {
            gathering.add(select, None, row, env);
            ControlFlow::Continue(())
        });
        for (_, group) in gathering.groups(select) {
            found.add(frame, &Env { group: Some(&group), ..*env });
        }
    } else {
        rows(select, frame, env, &mut |row| {
            found.add(row, env);
            if found.rows.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    let mut rows = found.rows;
    if !select.order_by.is_empty() {
        rows.sort_by(|(left, _), (right, _)| compare(&select.order_by, left, right));
    }
    rows.into_iter().map(|(_, row)| row).skip(skip).take(take).collect()
}

struct Found<'s> {
    select: &'s Select,
    seen: BTreeSet<String>,
    rows: Vec<(Vec<Option<Value>>, Value)>,
}

impl Found<'_> {
    fn add(&mut self, frame: &Frame<'_>, env: &Env<'_>) {
        let Some(row) = project(self.select, frame, env) else { return };
        if self.select.distinct {
            let mut text = String::new();
            value::canonical(Some(&row), &mut text);
            if !self.seen.insert(text) {
                return;
            }
        }
        self.rows.push((order_values(self.select, frame, env), row));
    }
}

/// The order of ORDER BY between two rows' values.
fn compare(items: &[OrderItem], left: &[Option<Value>], right: &[Option<Value>]) -> Ordering {
    for (item, (left, right)) in items.iter().zip(left.iter().zip(right)) {
        let order = value::order(left.as_ref(), right.as_ref());
        if order.is_ne() {
            return if item.descending { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
