//! What the language promises: its values, its errors, its pages and its plans.

mod language;
mod paging;
mod planning;
mod syntax;

use std::sync::Arc;

use serde_json::Value;

use super::{BoundQuery, Context, End, Execution, Flow, PageLimits, Query};
use crate::model::time::Timestamp;

pub(super) const CONTEXT: Context = Context { now: Timestamp(1_000), seed: 7 };
pub(super) const LARGE: PageLimits =
    PageLimits { rows: 100_000, bytes: 1 << 30, groups: 10_000, carried: 6 * 1024 };

pub(super) fn bound(text: &str, parameters: &[(&str, Value)]) -> Arc<BoundQuery> {
    let parameters: Vec<_> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Arc::new(query.bind(&parameters).unwrap())
}

/// All rows in one page.
pub(super) fn all(bound: &Arc<BoundQuery>, documents: &[Value]) -> Vec<Value> {
    let mut execution = Execution::start(Arc::clone(bound), CONTEXT, LARGE, false, None).unwrap();
    for (position, document) in documents.iter().enumerate() {
        if execution.offer(&(position as u32).to_be_bytes(), document).unwrap() == Flow::Full {
            break;
        }
    }
    let page = execution.finish(End::Reached).unwrap();
    assert!(page.resume.is_none());
    page.rows
}

pub(super) fn run(text: &str, documents: &[Value]) -> Vec<Value> {
    all(&bound(text, &[]), documents)
}
