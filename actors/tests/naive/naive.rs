//! The rules of the language, as plainly as they can be written. Undefined is `None`.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::functions;
use super::tree::{
    Aggregate, Comparison, DOCUMENT, Expr, INNER, JOINED, Operator, Piece, Projection, Question, Step, Sub,
};

/// A row, and the values that ORDER BY sorts it by.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    pub(crate) by: Vec<Option<Value>>,
    pub(crate) row: Value,
}

/// What names stand for, and the rows of the group where there is one.
#[derive(Debug, Clone)]
struct Scope<'a> {
    names: Vec<(&'static str, Value)>,
    group: Option<&'a Group>,
}

#[derive(Debug, Clone)]
struct Group {
    keys: Vec<Option<Value>>,
    rows: Vec<Vec<(&'static str, Value)>>,
}

/// All rows of a question in order, before TOP, OFFSET and LIMIT.
pub(crate) fn rows(question: &Question, documents: &[Value]) -> Vec<Ranked> {
    let mut found = Vec::new();
    for document in documents {
        let mut names = vec![(DOCUMENT, document.clone())];
        let Some(join) = &question.join else {
            found.push(names);
            continue;
        };
        for element in elements(walk(document, join)) {
            names.push((JOINED, element));
            found.push(names.clone());
            names.pop();
        }
    }
    if let Some(filter) = &question.filter {
        let keeps = |names: &Vec<(&'static str, Value)>| {
            value(filter, &Scope { names: names.clone(), group: None }) == Some(Value::Bool(true))
        };
        found.retain(keeps);
    }
    let mut ranked = Vec::new();
    let mut add = |scope: &Scope<'_>| {
        if let Some(row) = project(&question.projection, scope) {
            let by = question.order.iter().map(|(expr, _)| value(expr, scope)).collect();
            ranked.push(Ranked { by, row });
        }
    };
    if question.grouped {
        for group in groups(question, found) {
            add(&Scope { names: Vec::new(), group: Some(&group) });
        }
    } else {
        for names in found {
            add(&Scope { names, group: None });
        }
    }
    if question.distinct {
        let mut kept: Vec<Ranked> = Vec::new();
        for row in ranked {
            if !kept.iter().any(|known| same(&known.row, &row.row)) {
                kept.push(row);
            }
        }
        ranked = kept;
    }
    ranked.sort_by(|left, right| rank_cmp(&question.order, left, right));
    ranked
}

/// What ORDER BY says of two rows.
pub(crate) fn rank_cmp(order: &[(Expr, bool)], left: &Ranked, right: &Ranked) -> Ordering {
    for ((left, right), (_, descending)) in left.by.iter().zip(&right.by).zip(order) {
        let found = in_order(left.as_ref(), right.as_ref());
        if found.is_ne() {
            return if *descending { found.reverse() } else { found };
        }
    }
    Ordering::Equal
}

/// With GROUP BY one group for each combination of keys that is there; without it one group, also of nothing.
fn groups(question: &Question, rows: Vec<Vec<(&'static str, Value)>>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    if question.keys.is_empty() {
        return vec![Group { keys: Vec::new(), rows }];
    }
    for names in rows {
        let scope = Scope { names: names.clone(), group: None };
        let keys: Vec<_> = question.keys.iter().map(|key| value(key, &scope)).collect();
        let same_key = |(a, b): (&Option<Value>, &Option<Value>)| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => same(a, b),
            _ => false,
        };
        match groups.iter_mut().find(|group| group.keys.iter().zip(&keys).all(same_key)) {
            Some(group) => group.rows.push(names),
            None => groups.push(Group { keys, rows: vec![names] }),
        }
    }
    groups
}

fn project(projection: &Projection, scope: &Scope<'_>) -> Option<Value> {
    match projection {
        Projection::All => scope.names.first().map(|(_, document)| document.clone()),
        Projection::Value(expr) => value(expr, scope),
        Projection::Columns(columns) => {
            let (mut row, mut unnamed) = (Map::new(), 0);
            for (expr, name) in columns {
                let name = match (name, expr) {
                    (Some(name), _) => (*name).to_owned(),
                    (None, Expr::Path(_, steps)) => match steps.last() {
                        Some(Step::Name(name)) => (*name).to_owned(),
                        other => panic!("a path that ends in {other:?} gets a name"),
                    },
                    (None, _) => {
                        unnamed += 1;
                        format!("${unnamed}")
                    }
                };
                if let Some(value) = value(expr, scope) {
                    row.insert(name, value);
                }
            }
            Some(Value::Object(row))
        }
    }
}

fn value(expr: &Expr, scope: &Scope<'_>) -> Option<Value> {
    let truth = |expr: &Expr| value(expr, scope).and_then(|value| value.as_bool());
    match expr {
        Expr::Undefined => None,
        Expr::Literal(value) | Expr::Parameter(_, value) => Some(value.clone()),
        Expr::Path(root, steps) => {
            let (_, root) = scope.names.iter().find(|(name, _)| name == root)?;
            walk(root, steps).cloned()
        }
        Expr::Object(members) => {
            let member = |(name, expr): &(&str, Expr)| Some(((*name).to_owned(), value(expr, scope)?));
            Some(Value::Object(members.iter().filter_map(member).collect()))
        }
        Expr::Array(items) => {
            Some(Value::Array(items.iter().filter_map(|item| value(item, scope)).collect()))
        }
        Expr::Not(operand) => Some(Value::Bool(!truth(operand)?)),
        Expr::Minus(operand) => number(-value(operand, scope)?.as_f64()?),
        Expr::And(items) => all(items.iter().map(truth)),
        Expr::Or(items) => any(items.iter().map(truth)),
        Expr::Compare(operator, pair) => {
            compare(*operator, &value(&pair[0], scope)?, &value(&pair[1], scope)?)
        }
        Expr::Compute(operator, pair) => {
            let (left, right) = (value(&pair[0], scope)?.as_f64()?, value(&pair[1], scope)?.as_f64()?);
            number(match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                Operator::Divide => left / right,
                Operator::Remainder => left % right,
            })
        }
        Expr::Concat(pair) => match (value(&pair[0], scope)?, value(&pair[1], scope)?) {
            (Value::String(left), Value::String(right)) => Some(Value::from(left + &right)),
            _ => None,
        },
        Expr::In { negated, value: wanted, list } => {
            let equal = |item: &Expr| {
                let found = compare(Comparison::Equal, &value(wanted, scope)?, &value(item, scope)?);
                found.and_then(|found| found.as_bool())
            };
            flip(*negated, any(list.iter().map(equal)))
        }
        Expr::Between { negated, parts } => {
            let side = |operator, limit: &Expr| {
                let found = compare(operator, &value(&parts[0], scope)?, &value(limit, scope)?);
                found.and_then(|found| found.as_bool())
            };
            let sides =
                [side(Comparison::GreaterOrEqual, &parts[1]), side(Comparison::LessOrEqual, &parts[2])];
            flip(*negated, all(sides.into_iter()))
        }
        Expr::Like { negated, value: text, pattern, .. } => {
            let text: Vec<char> = value(text, scope)?.as_str()?.chars().collect();
            flip(*negated, Some(Value::Bool(fits(&text, pattern))))
        }
        Expr::Coalesce(items) => items.iter().find_map(|item| value(item, scope)),
        Expr::Choice(parts) => {
            let [condition, yes, no] = &**parts;
            value(if truth(condition) == Some(true) { yes } else { no }, scope)
        }
        Expr::Call(name, arguments) => {
            let arguments: Vec<_> = arguments.iter().map(|argument| value(argument, scope)).collect();
            functions::call(name, &arguments)
        }
        Expr::Sub { kind, list, filter, value: wanted } => {
            let (_, document) = scope.names.iter().find(|(name, _)| *name == DOCUMENT)?;
            let mut found = Vec::new();
            for element in elements(walk(document, list)) {
                let mut inner = scope.clone();
                inner.names.push((INNER, element));
                let keeps = |filter: &Expr| value(filter, &inner) == Some(Value::Bool(true));
                if filter.as_ref().as_ref().is_none_or(keeps) {
                    found.extend(value(wanted, &inner));
                }
            }
            match kind {
                Sub::Exists => Some(Value::Bool(!found.is_empty())),
                Sub::Array => Some(Value::Array(found)),
                Sub::First => found.into_iter().next(),
            }
        }
        Expr::Aggregate(kind, argument) => aggregate(*kind, argument, scope.group?),
        Expr::Key(number, _) => scope.group?.keys[*number].clone(),
        Expr::Brackets(inner) => value(inner, scope),
    }
}

fn aggregate(kind: Aggregate, argument: &Expr, group: &Group) -> Option<Value> {
    let of_row =
        |names: &Vec<(&'static str, Value)>| value(argument, &Scope { names: names.clone(), group: None });
    let values: Vec<Value> = group.rows.iter().filter_map(of_row).collect();
    let numbers = || values.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
    let by_order = |a: &&Value, b: &&Value| in_order(Some(a), Some(b));
    match kind {
        Aggregate::Count => Some(Value::from(values.len())),
        Aggregate::CountIf => {
            Some(Value::from(values.iter().filter(|value| **value == Value::Bool(true)).count()))
        }
        Aggregate::Sum => number(numbers()?.iter().fold(0.0, |sum, number| sum + number)),
        Aggregate::Avg if values.is_empty() => None,
        Aggregate::Avg => {
            number(numbers()?.iter().fold(0.0, |sum, number| sum + number) / values.len() as f64)
        }
        Aggregate::Min => values.iter().min_by(by_order).cloned(),
        Aggregate::Max => values.iter().max_by(by_order).cloned(),
    }
}

/// False wins; otherwise all must be booleans.
fn all(truths: impl Iterator<Item = Option<bool>>) -> Option<Value> {
    let truths: Vec<_> = truths.collect();
    if truths.contains(&Some(false)) {
        return Some(Value::Bool(false));
    }
    if truths.contains(&None) { None } else { Some(Value::Bool(true)) }
}

/// True wins; otherwise all must be booleans.
fn any(truths: impl Iterator<Item = Option<bool>>) -> Option<Value> {
    let truths: Vec<_> = truths.collect();
    if truths.contains(&Some(true)) {
        return Some(Value::Bool(true));
    }
    if truths.contains(&None) { None } else { Some(Value::Bool(false)) }
}

fn flip(negated: bool, truth: Option<Value>) -> Option<Value> {
    let truth = truth?.as_bool()?;
    Some(Value::Bool(truth != negated))
}

fn compare(operator: Comparison, left: &Value, right: &Value) -> Option<Value> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.chars().cmp(right.chars())),
        _ => None,
    };
    Some(Value::Bool(match operator {
        Comparison::Equal => same(left, right),
        Comparison::NotEqual => !same(left, right),
        Comparison::Less => order? == Ordering::Less,
        Comparison::LessOrEqual => order? != Ordering::Greater,
        Comparison::Greater => order? == Ordering::Greater,
        Comparison::GreaterOrEqual => order? != Ordering::Less,
    }))
}

/// Deep equality: numbers are doubles, and the order of properties means nothing.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left.as_f64().unwrap() == right.as_f64().unwrap(),
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && (0..left.len()).all(|at| same(&left[at], &right[at]))
        }
        (Value::Object(left), Value::Object(right)) => {
            let has =
                |(name, value): (&String, &Value)| right.get(name).is_some_and(|other| same(value, other));
            left.len() == right.len() && left.iter().all(has)
        }
        _ => false,
    }
}

/// Undefined, null, false, true, numbers, strings, arrays, objects.
fn in_order(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let kind = |value: Option<&Value>| match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(false)) => 2,
        Some(Value::Bool(true)) => 3,
        Some(Value::Number(_)) => 4,
        Some(Value::String(_)) => 5,
        Some(Value::Array(_)) => 6,
        Some(Value::Object(_)) => 7,
    };
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_f64().unwrap().partial_cmp(&right.as_f64().unwrap()).unwrap()
        }
        (Some(Value::String(left)), Some(Value::String(right))) => left.chars().cmp(right.chars()),
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for at in 0..left.len().min(right.len()) {
                let order = in_order(Some(&left[at]), Some(&right[at]));
                if order.is_ne() {
                    return order;
                }
            }
            left.len().cmp(&right.len())
        }
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let (mut left, mut right): (Vec<_>, Vec<_>) = (left.iter().collect(), right.iter().collect());
            left.sort_by_key(|(name, _)| *name);
            right.sort_by_key(|(name, _)| *name);
            for at in 0..left.len().min(right.len()) {
                let order = left[at].0.cmp(right[at].0).then(in_order(Some(left[at].1), Some(right[at].1)));
                if order.is_ne() {
                    return order;
                }
            }
            left.len().cmp(&right.len())
        }
        _ => kind(left).cmp(&kind(right)),
    }
}

/// Whether a text is what a pattern says, piece by piece.
fn fits(text: &[char], pattern: &[Piece]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    if *first == Piece::Any {
        return (0..=text.len()).any(|taken| fits(&text[taken..], rest));
    }
    let Some((c, left)) = text.split_first() else { return false };
    let is_it = match first {
        Piece::Char(wanted) => c == wanted,
        Piece::Set { negated, from, to } => (from <= c && c <= to) != *negated,
        Piece::One | Piece::Any => true,
    };
    is_it && fits(left, rest)
}

fn walk<'v>(root: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    let mut value = root;
    for step in steps {
        value = match (step, value) {
            (Step::Name(name), Value::Object(members)) => members.get(*name)?,
            (Step::Index(index), Value::Array(items)) => items.get(*index)?,
            _ => return None,
        };
    }
    Some(value)
}

fn elements(list: Option<&Value>) -> Vec<Value> {
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A number that JSON can carry.
pub(crate) fn number(number: f64) -> Option<Value> {
    Number::from_f64(number).map(Value::Number)
}
