//! A condition on one document: what a patch demands before it is applied.

use std::ops::ControlFlow;

use serde_json::Value;

use super::ast::Select;
use super::error::SyntaxError;
use super::evaluate::{Budget, Env, Frame};
use super::functions::Context;
use super::rows::rows;
use super::{limits, parse};

/// `FROM c WHERE …`, a whole query, or `WHERE …` alone, where any name is the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Select);

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// The first thing that is wrong. Parameters, aggregates, DISTINCT, TOP and OFFSET have no meaning.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse::condition(text).map(|mut select| {
            super::bind::settle(&mut select);
            Self(select)
        })
    }

    /// Whether the document makes any row.
    pub fn holds(&self, document: &Value, context: &Context) -> bool {
        let budget = Budget::new(limits::COMBINATIONS);
        let env = Env { context, group: None, budget: &budget };
        let mut holds = false;
        rows(&self.0, &Frame::of(document), &env, &mut |_| {
            holds = true;
            ControlFlow::Break(())
        });
        holds
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::time::Timestamp;

    #[test]
    fn a_condition_comes_in_any_of_three_forms() {
        let document = json!({"n": 1, "tags": ["a"]});
        let context = Context { now: Timestamp(0), seed: 0 };
        for (text, holds) in [
            ("from c where c.n = 1", true),
            ("FROM root WHERE root.n = 2", false),
            ("select * from anything where anything.n > 0", true),
            ("WHERE whatever.n = 1", true),
            ("WHERE whatever.missing = 1", false),
            ("from c join t in c.tags where t = 'a'", true),
            ("from c", true),
        ] {
            let condition = Condition::parse(text).unwrap();
            assert_eq!(condition.holds(&document, &context), holds, "{text}");
        }
    }

    #[test]
    fn a_condition_gathers_nothing() {
        for text in
            ["select count(1) from c", "select top 1 c.n from c", "from c where c.n = @n", "c.n = 1", ""]
        {
            assert!(Condition::parse(text).is_err(), "{text}");
        }
    }
}
