//! Expressions to values. *Undefined* is `None`.
//!
//! Invariant: values are borrowed from the document wherever they can be; only new ones are owned.

mod operators;

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::{Map, Value};

use super::ast::{Binary, Comparison, Expr, Like, List, Projection, Select, Step, Unary};
use super::functions::{Context, Function};
use super::like::Pattern;
use super::{subquery, value};

/// What a variable can see: the innermost source, and those around it. The outermost is the document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) value: &'a Value,
    pub(super) outer: Option<&'a Frame<'a>>,
}

/// What an expression can see besides its variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Env<'a> {
    pub(super) context: &'a Context,
    pub(super) group: Option<&'a GroupValues>,
    pub(super) budget: &'a Budget,
}

/// The keys and aggregates of one group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupValues {
    pub(super) keys: Vec<Option<Value>>,
    pub(super) aggregates: Vec<Option<Value>>,
}

/// How many combinations of sources may still be looked at.
#[derive(Debug)]
pub(super) struct Budget(Cell<u64>);

impl Budget {
    pub(super) fn new(combinations: u64) -> Self {
        Self(Cell::new(combinations))
    }

    /// Takes one; `false` when there is none left.
    pub(super) fn spend(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

impl<'a> Frame<'a> {
    /// The frame of a document.
    pub(super) fn of(document: &'a Value) -> Self {
        Self { value: document, outer: None }
    }

    fn get(&self, hops: usize) -> Option<&'a Value> {
        let mut frame = *self;
        for _ in 0..hops {
            frame = *frame.outer?;
        }
        Some(frame.value)
    }
}

type Evaluated<'a> = Option<Cow<'a, Value>>;

/// The value of an expression.
pub(super) fn evaluate<'a>(expr: &'a Expr, frame: &Frame<'a>, env: &Env<'a>) -> Evaluated<'a> {
    match expr {
        Expr::Literal(value) => Some(Cow::Borrowed(value)),
        Expr::Variable(hops) => frame.get(*hops).map(Cow::Borrowed),
        Expr::Path(base, steps) => path(base, steps, frame, env),
        Expr::Key(key) => env.group?.keys.get(*key)?.as_ref().map(Cow::Borrowed),
        Expr::Aggregate(number) => env.group?.aggregates.get(*number)?.as_ref().map(Cow::Borrowed),
        Expr::Object(members) => {
            let member = |(name, expr): &'a (String, Expr)| {
                evaluate(expr, frame, env).map(|value| (name.clone(), value.into_owned()))
            };
            Some(Cow::Owned(Value::Object(members.iter().filter_map(member).collect())))
        }
        Expr::Array(items) => {
            let items = items.iter().filter_map(|item| evaluate(item, frame, env)).map(Cow::into_owned);
            Some(Cow::Owned(Value::Array(items.collect())))
        }
        Expr::Coalesce(items) => items.iter().find_map(|item| evaluate(item, frame, env)),
        Expr::Choice(parts) => {
            let [condition, yes, no] = &**parts;
            let chosen = if truth(condition, frame, env) == Some(true) { yes } else { no };
            evaluate(chosen, frame, env)
        }
        Expr::Call(function, arguments) => call(*function, arguments, frame, env).map(Cow::Owned),
        Expr::Chain(first, rest) => chain(first, rest, frame, env),
        Expr::Unary(operator @ (Unary::Minus | Unary::Plus | Unary::Complement), operand) => {
            operators::unary(*operator, evaluate(operand, frame, env)?.as_ref()).map(Cow::Owned)
        }
        Expr::Subquery(kind, select) => subquery::value(*kind, select, frame, env).map(Cow::Owned),
        Expr::All(_)
        | Expr::Any(_)
        | Expr::Unary(Unary::Not, _)
        | Expr::In(..)
        | Expr::Between(_)
        | Expr::Like(_) => truth(expr, frame, env).map(|truth| Cow::Owned(Value::Bool(truth))),
        Expr::Undefined
        | Expr::NotFinite(_)
        | Expr::Parameter(_)
        | Expr::Name(..)
        | Expr::AggregateCall(..) => None,
    }
}

/// The truth of an expression; `None` when it is no boolean.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other kind is evaluated first")]
pub(super) fn truth<'a>(expr: &'a Expr, frame: &Frame<'a>, env: &Env<'a>) -> Option<bool> {
    match expr {
        Expr::All(items) => decided(items, false, frame, env),
        Expr::Any(items) => decided(items, true, frame, env),
        Expr::Unary(Unary::Not, operand) => truth(operand, frame, env).map(|truth| !truth),
        Expr::Chain(first, rest) => {
            if let [(Binary::Compare(operator), right)] = rest.as_slice() {
                let (left, right) = (evaluate(first, frame, env)?, evaluate(right, frame, env)?);
                return operators::compare(*operator, &left, &right);
            }
            chain(first, rest, frame, env)?.as_bool()
        }
        Expr::In(value, list) => contained(value, list, frame, env),
        Expr::Between(parts) => {
            let [value, from, to] = &**parts;
            let value = evaluate(value, frame, env)?;
            let limit = |limit: &'a Expr, operator| {
                operators::compare(operator, &value, evaluate(limit, frame, env)?.as_ref())
            };
            let (above, below) =
                (limit(from, Comparison::GreaterOrEqual), limit(to, Comparison::LessOrEqual));
            if above == Some(false) || below == Some(false) { Some(false) } else { Some(above? && below?) }
        }
        Expr::Like(like) => likeness(like, frame, env),
        _ => evaluate(expr, frame, env)?.as_bool(),
    }
}

/// AND (`decisive` is false) or OR (`decisive` is true) of all: one decisive value decides, and
/// otherwise all must be booleans.
fn decided<'a>(items: &'a [Expr], decisive: bool, frame: &Frame<'a>, env: &Env<'a>) -> Option<bool> {
    let mut found = Some(!decisive);
    for item in items {
        match truth(item, frame, env) {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => found = None,
        }
    }
    found
}

fn contained<'a>(value: &'a Expr, list: &'a List, frame: &Frame<'a>, env: &Env<'a>) -> Option<bool> {
    let value = evaluate(value, frame, env)?;
    match list {
        List::Known(values) => {
            let found = values.binary_search_by(|known| value::order(Some(known), Some(&value)));
            Some(found.is_ok())
        }
        List::Open(items) => {
            let mut found = Some(false);
            for item in items {
                match evaluate(item, frame, env) {
                    Some(item) if value::equal(&value, &item) => return Some(true),
                    Some(_) => {}
                    None => found = None,
                }
            }
            found
        }
    }
}

fn likeness<'a>(like: &'a Like, frame: &Frame<'a>, env: &Env<'a>) -> Option<bool> {
    let value = evaluate(&like.value, frame, env)?;
    let text = value.as_str()?;
    if let Some(pattern) = &like.compiled {
        return Some(pattern.matches(text));
    }
    let pattern = evaluate(&like.pattern, frame, env)?;
    Some(Pattern::new(pattern.as_str()?, like.escape).matches(text))
}

fn chain<'a>(first: &'a Expr, rest: &'a [(Binary, Expr)], frame: &Frame<'a>, env: &Env<'a>) -> Evaluated<'a> {
    let mut left = evaluate(first, frame, env)?;
    for (operator, right) in rest {
        let right = evaluate(right, frame, env)?;
        left = Cow::Owned(operators::binary(*operator, &left, &right)?);
    }
    Some(left)
}

fn call<'a>(function: Function, arguments: &'a [Expr], frame: &Frame<'a>, env: &Env<'a>) -> Option<Value> {
    // The usual counts take no memory of their own.
    match arguments {
        [] => function.call(&[], env.context),
        [only] => function.call(&[evaluate(only, frame, env).as_deref()], env.context),
        [first, second] => {
            let (first, second) = (evaluate(first, frame, env), evaluate(second, frame, env));
            function.call(&[first.as_deref(), second.as_deref()], env.context)
        }
        _ => {
            let values: Vec<Evaluated<'a>> =
                arguments.iter().map(|argument| evaluate(argument, frame, env)).collect();
            let values: Vec<Option<&Value>> = values.iter().map(Option::as_deref).collect();
            function.call(&values, env.context)
        }
    }
}

fn path<'a>(base: &'a Expr, steps: &'a [Step], frame: &Frame<'a>, env: &Env<'a>) -> Evaluated<'a> {
    let mut value = evaluate(base, frame, env)?;
    for step in steps {
        value = match value {
            Cow::Borrowed(value) => Cow::Borrowed(step.within(value, frame, env)?),
            Cow::Owned(value) => Cow::Owned(step.within(&value, frame, env)?.clone()),
        };
    }
    Some(value)
}

impl Step {
    fn within<'v, 'a>(&'a self, value: &'v Value, frame: &Frame<'a>, env: &Env<'a>) -> Option<&'v Value> {
        match self {
            Self::Property(name) => value.as_object()?.get(name),
            Self::Item(index) => value.as_array()?.get(*index),
            Self::Computed(expr) => {
                let step = evaluate(expr, frame, env)?;
                match &*step {
                    Value::String(name) => value.as_object()?.get(name),
                    Value::Number(_) => {
                        let Self::Item(index) = Self::of(Expr::Literal(step.into_owned())) else {
                            return None;
                        };
                        value.as_array()?.get(index)
                    }
                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                }
            }
        }
    }
}

/// The row that SELECT makes; `None` when there is none.
pub(super) fn project<'a>(select: &'a Select, frame: &Frame<'a>, env: &Env<'a>) -> Option<Value> {
    match &select.projection {
        Projection::All => Some(frame.value.clone()),
        Projection::Value(expr) => evaluate(expr, frame, env).map(Cow::into_owned),
        Projection::Columns(columns) => {
            let mut row = Map::new();
            for column in columns {
                if let Some(value) = evaluate(&column.expr, frame, env) {
                    row.insert(column.name.clone(), value.into_owned());
                }
            }
            Some(Value::Object(row))
        }
    }
}

/// The values that ORDER BY sorts by.
pub(super) fn order_values<'a>(select: &'a Select, frame: &Frame<'a>, env: &Env<'a>) -> Vec<Option<Value>> {
    let values = select.order_by.iter().map(|item| evaluate(&item.expr, frame, env));
    values.map(|value| value.map(Cow::into_owned)).collect()
}
