//! What must be true of every document that passes WHERE, as far as an index can use it.

use std::cmp::Ordering;
use std::ops::Bound;

use serde_json::Value;

use super::super::ast::{Binary, Comparison, Expr, List, Select, Step, Unary};
use super::super::value;

/// What is known of one path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fact {
    /// It is one of these scalars, which are sorted.
    pub(super) equal: Option<Vec<Value>>,
    /// Number or string, as `upper`; both have one type.
    pub(super) lower: Bound<Value>,
    pub(super) upper: Bound<Value>,
    pub(super) prefix: Option<String>,
}

/// The facts of a query, by paths from the document's root.
#[derive(Debug, Default)]
pub(super) struct Facts(Vec<(Vec<String>, Fact)>);

/// The variable that is the document or a part of it, and the path to that part.
struct Root {
    hops: usize,
    prefix: Vec<String>,
}

impl Root {
    /// `None` when FROM iterates, or takes rows from a subquery.
    fn of(select: &Select) -> Option<Self> {
        let first = select.sources.first().filter(|source| !source.iterates)?;
        let document = Self { hops: 0, prefix: Vec::new() };
        Some(Self { hops: select.sources.len() - 1, prefix: document.path(&first.from)? })
    }

    /// The path that an expression is, from the document's root.
    fn path(&self, expr: &Expr) -> Option<Vec<String>> {
        let (base, steps) =
            if let Expr::Path(base, steps) = expr { (&**base, steps.as_slice()) } else { (expr, &[][..]) };
        if *base != Expr::Variable(self.hops) {
            return None;
        }
        let mut path = self.prefix.clone();
        for step in steps {
            let Step::Property(name) = step else { return None };
            path.push(name.clone());
        }
        Some(path)
    }
}

/// The paths of ORDER BY with their directions; `None` when something else orders.
pub(super) fn order(select: &Select) -> Option<Vec<(Vec<String>, bool)>> {
    let root = Root::of(select)?;
    select.order_by.iter().map(|item| Some((root.path(&item.expr)?, item.descending))).collect()
}

/// Whether `<` can be true between two values.
pub(super) fn same_type(left: &Value, right: &Value) -> bool {
    (left.is_number() && right.is_number()) || (left.is_string() && right.is_string())
}

impl Fact {
    const NOTHING: Self =
        Self { equal: None, lower: Bound::Unbounded, upper: Bound::Unbounded, prefix: None };

    pub(super) fn is_single(&self) -> bool {
        self.equal.as_ref().is_some_and(|values| values.len() == 1)
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.equal.is_none()
            && (self.prefix.is_some() || self.lower != Bound::Unbounded || self.upper != Bound::Unbounded)
    }

    /// Narrows to these values, of which those that cannot be are left out.
    fn is_one_of(&mut self, mut values: Vec<Value>) {
        values.sort_by(|a, b| value::order(Some(a), Some(b)));
        values.dedup_by(|a, b| value::equal(a, b));
        if let Some(known) = &self.equal {
            values.retain(|value| known.iter().any(|known| value::equal(known, value)));
        }
        self.equal = Some(values);
    }

    fn begins_with(&mut self, prefix: &str) {
        let longer = self.prefix.as_ref().is_none_or(|known| known.len() < prefix.len());
        if !prefix.is_empty() && longer {
            self.prefix = Some(prefix.to_owned());
        }
    }

    /// Adds a comparison with a constant; one that no index helps with is passed over.
    fn compares(&mut self, operator: Comparison, limit: &Value) {
        if !same_type(limit, limit) {
            return;
        }
        let other = [&self.lower, &self.upper].into_iter().find_map(limit_of);
        if other.is_some_and(|other| !same_type(other, limit)) {
            return;
        }
        let limit = limit.clone();
        match operator {
            Comparison::Less => tighten(&mut self.upper, Bound::Excluded(limit), Ordering::Less),
            Comparison::LessOrEqual => tighten(&mut self.upper, Bound::Included(limit), Ordering::Less),
            Comparison::Greater => tighten(&mut self.lower, Bound::Excluded(limit), Ordering::Greater),
            Comparison::GreaterOrEqual => tighten(&mut self.lower, Bound::Included(limit), Ordering::Greater),
            Comparison::Equal | Comparison::NotEqual => {}
        }
    }
}

fn limit_of(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(limit) | Bound::Excluded(limit) => Some(limit),
        Bound::Unbounded => None,
    }
}

/// Replaces a bound by another that lets less through.
fn tighten(bound: &mut Bound<Value>, other: Bound<Value>, inwards: Ordering) {
    let is_tighter = match (limit_of(bound), limit_of(&other)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(known), Some(limit)) => {
            let order = value::order(Some(limit), Some(known));
            order == inwards || (order.is_eq() && matches!(other, Bound::Excluded(_)))
        }
    };
    if is_tighter {
        *bound = other;
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_array() && !value.is_object()
}

impl Facts {
    pub(super) fn of(select: &Select) -> Self {
        let mut facts = Self::default();
        let (Some(root), Some(filter)) = (Root::of(select), &select.filter) else { return facts };
        facts.learn(&root, filter);
        facts
    }

    pub(super) fn get(&self, path: &[String]) -> Option<&Fact> {
        self.0.iter().find(|(known, _)| known == path).map(|(_, fact)| fact)
    }

    /// The ids that a document can have, when they are known.
    pub(super) fn ids(&self) -> Option<Vec<String>> {
        let values = self.get(&["id".to_owned()])?.equal.as_ref()?;
        Some(values.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    fn fact(&mut self, path: Vec<String>) -> Option<&mut Fact> {
        let at = self.0.iter().position(|(known, _)| *known == path).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push((path, Fact::NOTHING));
        }
        self.0.get_mut(at).map(|(_, fact)| fact)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other kind is known by its path or not at all")]
    fn learn(&mut self, root: &Root, expr: &Expr) {
        match expr {
            Expr::All(items) => items.iter().for_each(|item| self.learn(root, item)),
            Expr::Between(parts) => {
                let [value, from, to] = &**parts;
                self.compares(root, value, Comparison::GreaterOrEqual, from);
                self.compares(root, value, Comparison::LessOrEqual, to);
            }
            Expr::Like(like) => {
                let (Some(path), Some(pattern)) = (root.path(&like.value), &like.compiled) else { return };
                let (prefix, is_whole) = pattern.prefix();
                let Some(fact) = self.fact(path) else { return };
                if is_whole { fact.is_one_of(vec![Value::from(prefix)]) } else { fact.begins_with(&prefix) }
            }
            Expr::Call(function, arguments) if function.name().eq_ignore_ascii_case("STARTSWITH") => {
                let (value, prefix) = match arguments.as_slice() {
                    [value, prefix] => (value, prefix),
                    [value, prefix, Expr::Literal(Value::Bool(false))] => (value, prefix),
                    _ => return,
                };
                if let (Some(path), Some(Value::String(prefix))) = (root.path(value), prefix.literal())
                    && let Some(fact) = self.fact(path)
                {
                    fact.begins_with(prefix);
                }
            }
            Expr::Call(function, arguments) if function.name().eq_ignore_ascii_case("ARRAY_CONTAINS") => {
                if let [Expr::Literal(Value::Array(values)), value] = arguments.as_slice()
                    && let Some(path) = root.path(value)
                {
                    self.one_of(path, values.clone());
                }
            }
            Expr::Unary(Unary::Not, operand) => {
                if let Some(path) = root.path(operand) {
                    self.one_of(path, vec![Value::Bool(false)]);
                }
            }
            Expr::Chain(first, rest) if let [(Binary::Compare(operator), right)] = rest.as_slice() => {
                self.compares(root, first, *operator, right);
                self.compares(root, right, turned(*operator), first);
            }
            expr => {
                if let Some((path, values)) = alternatives(root, expr) {
                    self.one_of(path, values);
                } else if let Some(path) = root.path(expr) {
                    self.one_of(path, vec![Value::Bool(true)]);
                }
            }
        }
    }

    fn compares(&mut self, root: &Root, value: &Expr, operator: Comparison, limit: &Expr) {
        let (Some(path), Some(limit)) = (root.path(value), limit.literal()) else { return };
        if operator == Comparison::Equal {
            self.one_of(path, vec![limit.clone()]);
        } else if let Some(fact) = self.fact(path) {
            fact.compares(operator, limit);
        }
    }

    fn one_of(&mut self, path: Vec<String>, values: Vec<Value>) {
        if values.iter().all(is_scalar)
            && let Some(fact) = self.fact(path)
        {
            fact.is_one_of(values);
        }
    }
}

/// The constants that IN, or OR of equalities, allows for one path.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other kind lists constants")]
fn alternatives(root: &Root, expr: &Expr) -> Option<(Vec<String>, Vec<Value>)> {
    match expr {
        Expr::In(value, List::Known(values)) => Some((root.path(value)?, values.clone())),
        Expr::Chain(first, rest) => match rest.as_slice() {
            [(Binary::Compare(Comparison::Equal), right)] => {
                let sides = [(first.as_ref(), right), (right, first.as_ref())];
                sides.into_iter().find_map(|(value, constant)| {
                    Some((root.path(value)?, vec![constant.literal()?.clone()]))
                })
            }
            _ => None,
        },
        Expr::Any(items) => {
            let mut all: Option<(Vec<String>, Vec<Value>)> = None;
            for item in items {
                let (path, values) = alternatives(root, item)?;
                match &mut all {
                    None => all = Some((path, values)),
                    Some((known, more)) if *known == path => more.extend(values),
                    Some(_) => return None,
                }
            }
            all
        }
        _ => None,
    }
}

/// The operator when its sides are exchanged.
fn turned(operator: Comparison) -> Comparison {
    match operator {
        Comparison::Less => Comparison::Greater,
        Comparison::LessOrEqual => Comparison::GreaterOrEqual,
        Comparison::Greater => Comparison::Less,
        Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        Comparison::Equal | Comparison::NotEqual => operator,
    }
}
