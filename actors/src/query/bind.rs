//! A query with its parameters: nothing in it is open any more, and what is constant is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::ast::{Count, Expr, List, Projection, Select, Step, Unary};
use super::error::{BindError, SyntaxError};
use super::like::Pattern;
use super::{parse, resolve, value};

/// A text that is a query. Parameters are still open.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    text: Arc<str>,
    select: Select,
}

/// A query that can be planned and executed.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundQuery {
    text: Arc<str>,
    pub(super) select: Select,
    hash: u64,
}

impl Query {
    /// Reads a query: every name in it is known afterwards.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { text: text.into(), select: parse::query(text)? })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives the parameters their values. Names may come with or without their `@`; those that the
    /// query does not use are ignored.
    ///
    /// # Errors
    /// A parameter is missing, or does not count rows where it must.
    pub fn bind(&self, parameters: &[(String, Value)]) -> Result<BoundQuery, BindError> {
        let mut binding = Binding { given: parameters, used: BTreeMap::new(), error: None };
        let mut select = self.select.clone();
        resolve::visit(&mut select, &mut |expr| binding.expr(expr));
        binding.query(&mut select);
        if let Some(error) = binding.error {
            return Err(error);
        }
        let mut identity = self.text.to_string();
        for (name, given) in binding.used {
            identity.push('\0');
            identity.push_str(name);
            identity.push('=');
            value::canonical(Some(given), &mut identity);
        }
        let hash = twox_hash::XxHash3_64::oneshot(identity.as_bytes());
        Ok(BoundQuery { text: Arc::clone(&self.text), select, hash })
    }
}

impl BoundQuery {
    /// A number that two queries share only when text and parameters are the same.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether documents are read at all: without FROM there is one row, made of nothing.
    pub fn reads_documents(&self) -> bool {
        !self.select.sources.is_empty()
    }

    /// Whether rows stand for several documents: GROUP BY, an aggregate or DISTINCT.
    pub fn gathers(&self) -> bool {
        self.select.grouped || self.select.distinct
    }

    /// WHERE's condition as it is written.
    pub(super) fn filter_text(&self) -> Option<&str> {
        let (start, end) = self.select.filter_span;
        self.select.filter.as_ref().and(self.text.get(start.0..end.0))
    }
}

/// What binding does for a query without parameters.
pub(super) fn settle(select: &mut Select) {
    let mut binding = Binding { given: &[], used: BTreeMap::new(), error: None };
    resolve::visit(select, &mut |expr| binding.expr(expr));
    binding.query(select);
}

struct Binding<'p> {
    given: &'p [(String, Value)],
    used: BTreeMap<&'p str, &'p Value>,
    error: Option<BindError>,
}

impl<'p> Binding<'p> {
    fn value(&mut self, name: &str) -> Option<&'p Value> {
        let plain = |given: &'p str| given.strip_prefix('@').unwrap_or(given);
        let found = self.given.iter().find(|(given, _)| plain(given) == name);
        if let Some((given, value)) = found {
            self.used.insert(plain(given), value);
        } else {
            self.error.get_or_insert(BindError::Missing { name: name.to_owned() });
        }
        found.map(|(_, value)| value)
    }

    fn query(&mut self, select: &mut Select) {
        for count in [&mut select.top, &mut select.offset, &mut select.limit].into_iter().flatten() {
            if let Count::Parameter(name) = count {
                let Some(given) = self.value(name) else { continue };
                let Some(number) = whole(given) else {
                    let error = BindError::NotACount { name: name.clone(), found: given.to_string() };
                    self.error.get_or_insert(error);
                    continue;
                };
                *count = Count::Number(number);
            }
        }
        let Projection::Columns(columns) = &mut select.projection else { return };
        let mut unnamed = 0;
        for column in columns {
            let name = column.alias.as_deref().or(column.expr.last_name()).map(str::to_owned);
            column.name = name.unwrap_or_else(|| {
                unnamed += 1;
                format!("${unnamed}")
            });
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "other kinds hold no parameter and are not constant")]
    fn expr(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Parameter(name) => {
                if let Some(value) = self.value(name) {
                    *expr = Expr::Literal(value.clone());
                }
            }
            Expr::Subquery(_, select) => self.query(select),
            Expr::Path(_, steps) => {
                for step in steps {
                    if let Step::Computed(computed) = step {
                        *step = Step::of(std::mem::replace(computed, Expr::Undefined));
                    }
                }
            }
            Expr::Array(items) => {
                if let Some(values) = literals(items) {
                    *expr = Expr::Literal(Value::Array(values));
                }
            }
            Expr::Object(members) => {
                let known: Option<Map<String, Value>> = members
                    .iter()
                    .map(|(name, member)| Some((name.clone(), member.literal()?.clone())))
                    .collect();
                if let Some(known) = known {
                    *expr = Expr::Literal(Value::Object(known));
                }
            }
            Expr::Unary(Unary::Minus, operand) => {
                let negative = operand.literal().and_then(value::number).and_then(|n| value::from_number(-n));
                if let Some(negative) = negative {
                    *expr = Expr::Literal(negative);
                }
            }
            Expr::In(_, list @ List::Open(_)) => {
                if let List::Open(items) = list
                    && let Some(mut values) = literals(items)
                {
                    values.sort_by(|a, b| value::order(Some(a), Some(b)));
                    *list = List::Known(values);
                }
            }
            Expr::Like(like) => {
                if let Some(Value::String(pattern)) = like.pattern.literal() {
                    like.compiled = Some(Pattern::new(pattern, like.escape));
                }
            }
            _ => {}
        }
    }
}

fn literals(items: &[Expr]) -> Option<Vec<Value>> {
    items.iter().map(|item| item.literal().cloned()).collect()
}

fn whole(value: &Value) -> Option<u64> {
    let number = value::number(value)?;
    let limit = 2_f64.powi(53);
    if number.fract() != 0.0 || !(0.0..=limit).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range above")]
    Some(number as u64)
}

impl Expr {
    /// The value of an expression that is constant.
    pub(super) fn literal(&self) -> Option<&Value> {
        if let Self::Literal(value) = self { Some(value) } else { None }
    }
}

impl Count {
    /// The number; parameters are gone after binding.
    pub(super) fn number(count: Option<&Self>) -> Option<u64> {
        match count? {
            Self::Number(number) => Some(*number),
            Self::Parameter(_) => None,
        }
    }
}
