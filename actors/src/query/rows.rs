//! The rows that one document makes: every combination of FROM and its JOINs that WHERE keeps.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde_json::Value;

use super::ast::{Expr, Select, Source, Subquery};
use super::evaluate::{Env, Frame, evaluate, truth};
use super::subquery;

/// Receives each row, and breaks when it needs no more.
pub(super) type Sink<'s> = &'s mut dyn FnMut(&Frame<'_>) -> ControlFlow<()>;

/// Calls `sink` for each row, in the order of the sources, until it breaks.
pub(super) fn rows<'a>(select: &'a Select, frame: &Frame<'a>, env: &Env<'a>, sink: Sink<'_>) -> bool {
    combine(select, &select.sources, frame, env, sink).is_break()
}

fn combine<'a>(
    select: &'a Select,
    sources: &'a [Source],
    frame: &Frame<'a>,
    env: &Env<'a>,
    sink: Sink<'_>,
) -> ControlFlow<()> {
    let Some((source, rest)) = sources.split_first() else {
        if !env.budget.spend() {
            return ControlFlow::Break(());
        }
        return match &select.filter {
            Some(filter) if truth(filter, frame, env) != Some(true) => ControlFlow::Continue(()),
            _ => sink(frame),
        };
    };
    if let Expr::Subquery(Subquery::Rows, inner) = &source.from {
        let found = subquery::results(inner, frame, env, None);
        return found.iter().try_for_each(|value| {
            bind(source, value, &mut |value| {
                combine(select, rest, &Frame { value, outer: Some(frame) }, env, sink)
            })
        });
    }
    match evaluate(&source.from, frame, env) {
        None => ControlFlow::Continue(()),
        Some(Cow::Borrowed(value)) => bind(source, value, &mut |value| {
            combine(select, rest, &Frame { value, outer: Some(frame) }, env, sink)
        }),
        Some(Cow::Owned(value)) => bind(source, &value, &mut |value| {
            combine(select, rest, &Frame { value, outer: Some(frame) }, env, sink)
        }),
    }
}

/// What a source gives for a value: the value, or its elements.
fn bind<'v>(
    source: &Source,
    value: &'v Value,
    sink: &mut dyn FnMut(&'v Value) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if !source.iterates {
        return sink(value);
    }
    value.as_array().into_iter().flatten().try_for_each(sink)
}
