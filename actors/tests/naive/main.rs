//! The evaluator of queries against one that is too simple to be wrong.
//!
//! A query is made as a tree (`tree`), from which two things follow: its text, which the product reads and
//! answers, and its rows by the rules of the language written down once more (`naive`). Nothing of the
//! product is used for the second.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a test stops where its promise is broken"
)]

mod functions;
mod generate;
mod naive;
mod print;
mod tree;

use std::sync::Arc;

use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::query::{Context, End, Execution, Flow, PageLimits, Query};
use proptest::prelude::*;
use serde_json::Value;

use self::naive::{Ranked, rank_cmp, same};
use self::tree::Question;

fn answer(text: &str, parameters: &[(String, Value)], documents: &[Value]) -> Vec<Value> {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let bound = Arc::new(query.bind(parameters).unwrap_or_else(|error| panic!("{text}\n{error}")));
    let context = Context { now: Timestamp(0), seed: 0 };
    let page = PageLimits { rows: 10_000, bytes: 1 << 30, groups: 10_000, carried: 6 * 1024 };
    let mut execution = Execution::start(bound, context, page, false, None).unwrap();
    for (position, document) in documents.iter().enumerate() {
        if execution.offer(&position.to_be_bytes(), document).unwrap() == Flow::Full {
            break;
        }
    }
    execution.finish(End::Reached).unwrap().rows
}

/// Whether an answer is one that the question may have: rows that ORDER BY does not tell apart may come in
/// any order, and of those on the edge of TOP or LIMIT any may be left out.
fn check(question: &Question, all: &[Ranked], found: &[Value]) -> Result<(), String> {
    let (skip, take) = question.window();
    let wanted = all.len().saturating_sub(skip).min(take);
    if found.len() != wanted {
        return Err(format!("{} rows instead of {wanted}", found.len()));
    }
    let mut start = 0;
    while start < all.len() {
        let level = |other: &Ranked| rank_cmp(&question.order, &all[start], other).is_eq();
        let end = start + all[start..].iter().take_while(|other| level(other)).count();
        let mut left: Vec<&Value> = all[start..end].iter().map(|ranked| &ranked.row).collect();
        for row in found.iter().take(end.saturating_sub(skip)).skip(start.saturating_sub(skip)) {
            let at = left.iter().position(|known| same(known, row));
            let at = at.ok_or_else(|| format!("{row} is not one of {left:?}"))?;
            left.swap_remove(at);
        }
        start = end;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_query_has_the_rows_that_the_rules_of_the_language_give(
        question in generate::question(),
        documents in generate::documents(),
    ) {
        let text = print::question(&question);
        let found = answer(&text, &question.parameters(), &documents);
        let all = naive::rows(&question, &documents);
        if let Err(fault) = check(&question, &all, &found) {
            let rows: Vec<_> = all.iter().map(|ranked| &ranked.row).collect();
            prop_assert!(false, "{text}\n{fault}\nover {documents:?}\nfound {found:?}\nnot   {rows:?}");
        }
    }

    #[test]
    fn an_expression_has_the_value_that_the_rules_of_the_language_give(
        expr in generate::expression(),
        document in generate::document(),
    ) {
        let mut question = Question::of_value(expr);
        question.join = None;
        let text = print::question(&question);
        let found = answer(&text, &question.parameters(), std::slice::from_ref(&document));
        let wanted: Vec<Value> =
            naive::rows(&question, std::slice::from_ref(&document)).into_iter().map(|ranked| ranked.row).collect();
        let agree = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(a, b)| same(a, b));
        prop_assert!(agree, "{text}\nover {document}\nfound {found:?}\nnot   {wanted:?}");
    }
}
