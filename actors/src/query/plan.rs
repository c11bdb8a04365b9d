//! Which documents a query has to look at, and whether they come in its order.
//!
//! Invariant: a plan changes cost, never results. What it leaves out cannot pass WHERE, and WHERE is
//! evaluated again on what it lets through.

mod explain;
mod facts;

use std::ops::Bound;

use serde_json::Value;

use self::facts::{Fact, Facts};
use super::bind::BoundQuery;
use super::{limits, value};

/// An index: one path, or several of a composite one. It holds an entry for every document, also where
/// a path is undefined, in the order of [`value::order`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDefinition {
    /// The paths, each as its property names from the root.
    pub paths: Vec<Vec<String>>,
}

/// A stretch of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexRange {
    /// What the first components are; scalars.
    pub equal: Vec<Value>,
    /// Where the next component begins: a number or a string. An open end beside a bound means the end
    /// of the bound's type.
    pub lower: Bound<Value>,
    /// Where the next component ends.
    pub upper: Bound<Value>,
    /// What the next component, a string, begins with.
    pub string_prefix: Option<String>,
}

/// How documents are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// No document is read: the query has no FROM.
    Nothing,
    /// By their ids, which are sorted. None of them may exist.
    Ids(Vec<String>),
    /// By stretches of an index. They do not overlap, and come in the order of the index, or when
    /// `descending` against it.
    Index {
        /// Which of the given indexes.
        index: usize,
        /// The stretches; none when no document can pass.
        ranges: Vec<IndexRange>,
        /// Whether the index is read backwards.
        descending: bool,
    },
    /// All documents.
    Scan,
}

/// How a query is executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How documents are found.
    pub access: Access,
    /// Whether they come in the order of ORDER BY.
    pub ordered: bool,
    paths: Vec<Vec<String>>,
    filter: Option<String>,
}

/// What an index can do for a query. Better ones are greater.
#[derive(Debug)]
struct Offer {
    equal: usize,
    bounded: bool,
    ordered: bool,
    descending: bool,
    index: usize,
    ranges: Vec<IndexRange>,
}

impl Plan {
    /// The plan of a query with the indexes that there are.
    pub fn of(query: &BoundQuery, indexes: &[IndexDefinition]) -> Self {
        let filter = query.filter_text().map(str::to_owned);
        let plan = |access, ordered, paths| Self { access, ordered, paths, filter: filter.clone() };
        if !query.reads_documents() {
            return plan(Access::Nothing, false, Vec::new());
        }
        let facts = Facts::of(&query.select);
        let order = if query.gathers() { None } else { facts::order(&query.select) };
        // What is the same in all rows does not order them.
        let order: Option<Vec<(Vec<String>, bool)>> = order.map(|order| {
            order.into_iter().filter(|(path, _)| !facts.get(path).is_some_and(Fact::is_single)).collect()
        });
        let needs_no_order = order.as_ref().is_some_and(Vec::is_empty) && !query.select.order_by.is_empty();
        if let Some(ids) = facts.ids() {
            return plan(Access::Ids(ids), needs_no_order, Vec::new());
        }
        let offers = indexes.iter().enumerate().filter_map(|(index, definition)| {
            Offer::of(index, definition, &facts, order.as_deref().unwrap_or_default())
        });
        // The first of equals, so that a plan stays what it is when an index is added behind.
        let best = offers.reduce(|best, other| if other.rank() > best.rank() { other } else { best });
        match best {
            Some(Offer { index, ranges, descending, ordered, .. }) => {
                let paths = indexes.get(index).map(|definition| definition.paths.clone()).unwrap_or_default();
                plan(Access::Index { index, ranges, descending }, ordered || needs_no_order, paths)
            }
            None => plan(Access::Scan, needs_no_order, Vec::new()),
        }
    }
}

impl Offer {
    fn of(
        index: usize,
        definition: &IndexDefinition,
        facts: &Facts,
        order: &[(Vec<String>, bool)],
    ) -> Option<Self> {
        let mut equal: Vec<Vec<Value>> = vec![Vec::new()];
        let (mut known, mut single) = (0, 0);
        for path in &definition.paths {
            let Some(values) = facts.get(path).and_then(|fact| fact.equal.as_ref()) else { break };
            if equal.len() * values.len() > limits::RANGES {
                break;
            }
            equal = multiply(&equal, values);
            known += 1;
            if values.len() == 1 && single + 1 == known {
                single += 1;
            }
        }
        let next = definition.paths.get(known).and_then(|path| facts.get(path));
        let mut ranges: Vec<IndexRange> =
            equal.into_iter().map(|equal| IndexRange::new(equal, next)).collect();
        let bounded = next.is_some_and(Fact::is_bounded);
        let rest = definition.paths.get(single..).unwrap_or_default();
        let descending = order.first().is_some_and(|(_, descending)| *descending);
        let ordered = !order.is_empty()
            && order.len() <= rest.len()
            && order.iter().zip(rest).all(|((path, direction), own)| path == own && *direction == descending);
        let descending = ordered && descending;
        if descending {
            ranges.reverse();
        }
        let offer = Self { equal: known, bounded, ordered, descending, index, ranges };
        (known > 0 || bounded || ordered).then_some(offer)
    }

    fn rank(&self) -> (usize, bool, bool) {
        (self.equal, self.bounded, self.ordered)
    }
}

/// Each of the beginnings with each of the values.
fn multiply(beginnings: &[Vec<Value>], values: &[Value]) -> Vec<Vec<Value>> {
    let mut all = Vec::with_capacity(beginnings.len() * values.len());
    for beginning in beginnings {
        for value in values {
            let mut longer = beginning.clone();
            longer.push(value.clone());
            all.push(longer);
        }
    }
    all
}

impl IndexRange {
    fn new(equal: Vec<Value>, next: Option<&Fact>) -> Self {
        let open = Self { equal, lower: Bound::Unbounded, upper: Bound::Unbounded, string_prefix: None };
        let Some(fact) = next.filter(|fact| fact.equal.is_none()) else { return open };
        match &fact.prefix {
            Some(prefix) => Self { string_prefix: Some(prefix.clone()), ..open },
            None => Self { lower: fact.lower.clone(), upper: fact.upper.clone(), ..open },
        }
    }

    /// Whether an entry with these components lies in the range: what the range means.
    pub fn holds(&self, components: &[Option<&Value>]) -> bool {
        let mut components = components.iter().copied();
        let equal = self
            .equal
            .iter()
            .all(|wanted| components.next().flatten().is_some_and(|found| value::equal(found, wanted)));
        if !equal {
            return false;
        }
        let next = components.next().flatten();
        if let Some(prefix) = &self.string_prefix {
            return next.and_then(Value::as_str).is_some_and(|text| text.starts_with(prefix));
        }
        let fits = |bound: &Bound<Value>, below: bool| match bound {
            Bound::Unbounded => true,
            Bound::Included(limit) | Bound::Excluded(limit) => next.is_some_and(|found| {
                let order = value::order(Some(found), Some(limit));
                let inside = if below { order.is_lt() } else { order.is_gt() };
                let touches = order.is_eq() && matches!(bound, Bound::Included(_));
                facts::same_type(found, limit) && (inside || touches)
            }),
        };
        fits(&self.lower, false) && fits(&self.upper, true)
    }
}
