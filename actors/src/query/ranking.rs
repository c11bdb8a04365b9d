//! The next rows of an order that is not that of the scan.
//!
//! Invariant: nothing below `ceiling` was ever dropped, so rows are handed out without a gap although
//! only a bounded number of them is held.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ast::Select;
use super::held::Held;
use super::{limits, value};

/// The place of a row among all: what ORDER BY sorts by, and what tells rows apart that are the same
/// to it. No two rows have the same.
#[derive(Debug, Clone)]
pub(super) struct Rank {
    values: Vec<Option<Value>>,
    descending: Arc<[bool]>,
    tie: Vec<u8>,
    row: u64,
}

/// A rank in a continuation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WrittenRank(Vec<Held>, String, u64);

/// Which of the values of ORDER BY go downwards.
pub(super) fn directions(select: &Select) -> Arc<[bool]> {
    select.order_by.iter().map(|item| item.descending).collect()
}

/// What tells a row or a group apart by its text.
pub(super) fn tie_of(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let Some((shown, _)) = bytes.split_at_checked(limits::TIE_BYTES) else { return bytes.to_vec() };
    let mut tie = shown.to_vec();
    tie.extend(twox_hash::XxHash3_128::oneshot(bytes).to_be_bytes());
    tie
}

impl Rank {
    pub(super) fn new(values: Vec<Option<Value>>, descending: &Arc<[bool]>, tie: Vec<u8>, row: u64) -> Self {
        Self { values, descending: Arc::clone(descending), tie, row }
    }

    pub(super) fn write(&self) -> WrittenRank {
        let values = self.values.iter().map(|value| Held(value.clone())).collect();
        WrittenRank(values, URL_SAFE_NO_PAD.encode(&self.tie), self.row)
    }

    pub(super) fn tie(&self) -> &[u8] {
        &self.tie
    }

    /// `None` when it was not written by this query.
    pub(super) fn read(written: &WrittenRank, descending: &Arc<[bool]>) -> Option<Self> {
        let WrittenRank(values, tie, row) = written;
        let tie = URL_SAFE_NO_PAD.decode(tie).ok()?;
        let values: Vec<_> = values.iter().map(|value| value.0.clone()).collect();
        (values.len() == descending.len()).then(|| Self::new(values, descending, tie, *row))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let values = self.values.iter().zip(&other.values).zip(self.descending.iter());
        for ((left, right), descending) in values {
            let order = value::order(left.as_ref(), right.as_ref());
            if order.is_ne() {
                return if *descending { order.reverse() } else { order };
            }
        }
        self.tie.cmp(&other.tie).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

/// The first rows after `after`, as many as may be held.
#[derive(Debug)]
pub(super) struct Ranking {
    after: Option<Rank>,
    ceiling: Option<Rank>,
    rows: BTreeMap<Rank, Value>,
    bytes: usize,
    most_rows: usize,
    most_bytes: usize,
}

impl Ranking {
    pub(super) fn new(after: Option<Rank>, most_rows: usize, most_bytes: usize) -> Self {
        Self {
            after,
            ceiling: None,
            rows: BTreeMap::new(),
            bytes: 0,
            most_rows: most_rows.max(1),
            most_bytes,
        }
    }

    /// Lowers the ceiling: from this rank on rows were dropped.
    pub(super) fn drop_from(&mut self, rank: Rank) {
        if self.ceiling.as_ref().is_none_or(|ceiling| rank < *ceiling) {
            self.ceiling = Some(rank);
        }
    }

    /// Whether a row of this rank is to be held. Asked before the row is made, because most are not.
    pub(super) fn wants(&mut self, rank: &Rank) -> bool {
        if self.after.as_ref().is_some_and(|after| rank <= after)
            || self.ceiling.as_ref().is_some_and(|ceiling| rank >= ceiling)
        {
            return false;
        }
        let is_full = self.rows.len() >= self.most_rows;
        if is_full && self.rows.last_key_value().is_some_and(|(last, _)| rank > last) {
            self.drop_from(rank.clone());
            return false;
        }
        !self.rows.contains_key(rank)
    }

    /// Holds a row that is wanted.
    pub(super) fn hold(&mut self, rank: Rank, row: Value) {
        self.bytes += size(&row);
        self.rows.insert(rank, row);
        while self.rows.len() > self.most_rows || (self.bytes > self.most_bytes && self.rows.len() > 1) {
            self.drop_last();
        }
    }

    fn drop_last(&mut self) {
        let Some((rank, row)) = self.rows.pop_last() else { return };
        self.bytes = self.bytes.saturating_sub(size(&row));
        self.drop_from(rank);
    }

    /// Drops rows until those that are left take no more than so many bytes in a continuation. One is always left.
    pub(super) fn trim(&mut self, most: usize) {
        let (mut bytes, mut fit) = (0, 0);
        for (rank, row) in &self.rows {
            bytes += serde_json::to_string(&(rank.write(), row)).map_or(usize::MAX, |text| text.len());
            if bytes > most && fit > 0 {
                break;
            }
            fit += 1;
        }
        while self.rows.len() > fit {
            self.drop_last();
        }
    }

    pub(super) fn after(&self) -> Option<&Rank> {
        self.after.as_ref()
    }

    pub(super) fn ceiling(&self) -> Option<&Rank> {
        self.ceiling.as_ref()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Rank, &Value)> {
        self.rows.iter()
    }

    /// The next row in order, which is then behind.
    pub(super) fn next(&mut self, fits: impl FnOnce(&Value) -> bool) -> Option<Value> {
        let entry = self.rows.first_entry()?;
        if !fits(entry.get()) {
            return None;
        }
        let (rank, row) = entry.remove_entry();
        self.after = Some(rank);
        Some(row)
    }

    /// Whether every row was handed out.
    pub(super) fn is_done(&self) -> bool {
        self.rows.is_empty() && self.ceiling.is_none()
    }
}

/// About how many bytes a value takes as text.
pub(super) fn size(value: &Value) -> usize {
    const SCALAR: usize = 6;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(members) => {
            members.iter().map(|(name, member)| name.len() + size(member) + 4).sum::<usize>() + 2
        }
    }
}
