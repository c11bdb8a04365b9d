//! Rows that are handed out as they come.

use std::ops::ControlFlow;

use serde_json::Value;

use super::super::ast::{Count, Select};
use super::super::evaluate::{Env, Frame, project};
use super::super::limits;
use super::super::ranking::size;
use super::super::rows::rows;
use super::resume::{Bytes, Position};
use super::{Flow, PageLimits};

/// What OFFSET, LIMIT and TOP still want.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Rows to pass over.
    pub(super) skip: u64,
    /// Rows that are still allowed.
    pub(super) take: Option<u64>,
}

impl Counts {
    /// Those of a query that begins.
    pub(super) fn of(select: &Select) -> Self {
        let take = Count::number(select.top.as_ref()).or(Count::number(select.limit.as_ref()));
        Self { skip: Count::number(select.offset.as_ref()).unwrap_or(0), take }
    }

    /// How many rows a page of `rows` must hold when it sorts.
    pub(super) fn candidates(self, rows: usize) -> usize {
        let rows = self.take.map_or(rows, |take| rows.min(usize::try_from(take).unwrap_or(rows)));
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX);
        skipped.saturating_add(rows).min(limits::CANDIDATES.max(rows))
    }

    /// Whether no more rows are wanted.
    pub(super) fn is_done(self) -> bool {
        self.take == Some(0)
    }

    /// Counts a row; `false` when it is passed over.
    pub(super) fn count(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.take = self.take.map(|take| take.saturating_sub(1));
        true
    }
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) rows: Vec<Value>,
    bytes: usize,
    /// The last document.
    pub(super) position: Option<Position>,
    /// Whether this page left rows of the last document to the next one.
    pub(super) is_cut: bool,
}

impl Stream {
    /// One that goes on behind a position.
    pub(super) fn after(position: Option<Position>) -> Self {
        Self { position, ..Self::default() }
    }

    /// Takes the rows of a document until the page is full.
    pub(super) fn take(
        &mut self,
        select: &Select,
        here: Bytes,
        frame: &Frame<'_>,
        env: &Env<'_>,
        (counts, page): (&mut Counts, PageLimits),
    ) -> Flow {
        let behind = match &self.position {
            Some(Position { at, passed: Some(passed) }) if *at == here => *passed,
            _ => 0,
        };
        let most = page.rows.max(1);
        let mut passed = 0;
        self.is_cut = rows(select, frame, env, &mut |row| {
            if passed < behind {
                passed += 1;
                return ControlFlow::Continue(());
            }
            if counts.is_done() || self.rows.len() >= most {
                return ControlFlow::Break(());
            }
            if let Some(made) = project(select, row, env) {
                let bytes = self.bytes + size(&made);
                if counts.skip == 0 && !self.rows.is_empty() && bytes > page.bytes {
                    return ControlFlow::Break(());
                }
                if counts.count() {
                    self.bytes = bytes;
                    self.rows.push(made);
                }
            }
            passed += 1;
            ControlFlow::Continue(())
        });
        self.position = Some(Position { at: here, passed: self.is_cut.then_some(passed) });
        let is_full = self.is_cut || counts.is_done() || self.rows.len() >= most || self.bytes >= page.bytes;
        if is_full { Flow::Full } else { Flow::More }
    }
}
