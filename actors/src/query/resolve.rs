//! Names to places of the scope, aggregates to numbers of the group, and every rule of the language
//! that needs to know what a name means.
//!
//! The scope of an expression is the document, then the sources of the queries around it, then those
//! of its own query. A variable counts from the innermost outwards. Once rows are gathered to groups,
//! the query's own sources are gone, and keys and aggregates take their place.

use serde_json::Value;

use super::ast::{Aggregate, Expr, Place, Projection, Select, Source, Step, Subquery};
use super::error::Fault;

type Resolved = Result<(), Fault>;

/// Resolves a whole query.
pub(super) fn query(select: &mut Select) -> Resolved {
    Resolver { scope: vec![None], any_name: false }.select(select, Level::Outermost)
}

/// Resolves a condition, in which any name is the document when there is no FROM.
pub(super) fn condition(select: &mut Select) -> Resolved {
    let any_name = select.sources.is_empty();
    Resolver { scope: vec![None], any_name }.select(select, Level::Outermost)?;
    if select.grouped || select.distinct || select.top.is_some() || select.limit.is_some() {
        return Err(Fault::at(select.place.0, "a condition has FROM and WHERE only"));
    }
    let mut parameter = None;
    visit(select, &mut |expr| {
        if let Expr::Parameter(name) = expr {
            parameter = Some(name.clone());
        }
    });
    match parameter {
        Some(name) => {
            let message = format!("a condition takes no parameters, but uses `@{name}`");
            Err(Fault::at(select.place.0, message))
        }
        None => Ok(()),
    }
}

/// Visits all expressions of a query and of its subqueries, the inner ones first.
pub(super) fn visit(select: &mut Select, visitor: &mut dyn FnMut(&mut Expr)) {
    for expr in select.expressions() {
        visit_expr(expr, visitor);
    }
}

fn visit_expr(expr: &mut Expr, visitor: &mut dyn FnMut(&mut Expr)) {
    if let Expr::Subquery(_, select) = expr {
        visit(select, visitor);
    }
    for child in expr.children() {
        visit_expr(child, visitor);
    }
    visitor(expr);
}

/// Where a query stands: whether its FROM may name the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Outermost,
    /// The first source of a query that may name the container, with nothing else in scope.
    Derived,
    Inner,
}

struct Resolver {
    /// Aliases from the outermost on; the first, without a name, is the document.
    scope: Vec<Option<String>>,
    /// Whether a name that is not known is the document.
    any_name: bool,
}

impl Resolver {
    fn select(&mut self, select: &mut Select, level: Level) -> Resolved {
        let outer = self.scope.len();
        let over_container = self.sources(select, level)?;
        if let Some(filter) = &mut select.filter {
            self.expr(filter)?;
        }
        self.order_by_aliases(select);
        let projected = projected(&mut select.projection);
        let mut ordered = select.order_by.iter_mut().map(|item| &mut item.expr);
        let aggregates = projected.into_iter().any(has_aggregate) || ordered.any(has_aggregate);
        select.grouped = aggregates || !select.group_by.is_empty();
        if select.distinct {
            order_is_projected(select)?;
        }
        let gathers = select.grouped
            || select.distinct
            || !select.order_by.is_empty()
            || select.top.is_some()
            || select.limit.is_some();
        if over_container && level == Level::Derived && gathers {
            let message = "a subquery over the whole container has SELECT, FROM, JOIN and WHERE only";
            return Err(Fault::at(select.place.0, message));
        }
        if select.grouped {
            self.groups(select, outer)?
        } else {
            self.rows(select)?
        }
        self.scope.truncate(outer);
        Ok(())
    }

    /// Resolves the sources, and says whether the first of them is the container.
    fn sources(&mut self, select: &mut Select, level: Level) -> Result<bool, Fault> {
        let own = self.scope.len();
        let single = select.sources.len() == 1;
        if select.projection == Projection::All && !single {
            return Err(Fault::at(
                select.place.0,
                "`SELECT *` needs a FROM with one source: name what you want",
            ));
        }
        let mut over_container = false;
        for (index, source) in select.sources.iter_mut().enumerate() {
            let level = if index == 0 { level } else { Level::Inner };
            over_container |= self.source(source, level)?;
            let taken = self.scope.get(own..).is_some_and(|own| own.contains(&source.alias));
            if taken && let Some(alias) = &source.alias {
                let message = format!("two sources are called `{alias}`: give one another name with AS");
                return Err(Fault::at(source.place.0, message));
            }
            self.scope.push(source.alias.clone());
        }
        Ok(over_container)
    }

    fn source(&mut self, source: &mut Source, level: Level) -> Result<bool, Fault> {
        let alone = self.scope.iter().all(Option::is_none);
        let container = alone && level != Level::Inner;
        if let Expr::Subquery(Subquery::Rows, select) = &mut source.from {
            self.select(select, if container { Level::Derived } else { Level::Inner })?;
            return Ok(container);
        }
        let mut root = &mut source.from;
        if let Expr::Path(base, steps) = root {
            for step in steps {
                if let Step::Computed(expr) = step {
                    self.expr(expr)?;
                }
            }
            root = base;
        }
        let Expr::Name(name, place) = root else { return Ok(false) };
        if let Some(hops) = self.hops(name) {
            *root = Expr::Variable(hops);
            return Ok(false);
        }
        if container || self.any_name || name.eq_ignore_ascii_case("root") {
            *root = Expr::Variable(self.scope.len() - 1);
            return Ok(container);
        }
        Err(self.unknown(name, *place))
    }

    /// ORDER BY may name a column of SELECT.
    fn order_by_aliases(&self, select: &mut Select) {
        let Projection::Columns(columns) = &select.projection else { return };
        for item in &mut select.order_by {
            if let Expr::Name(name, _) = &item.expr
                && self.hops(name).is_none()
                && let Some(column) = columns.iter().find(|column| column.alias.as_ref() == Some(name))
            {
                item.expr = column.expr.clone();
            }
        }
    }

    fn rows(&mut self, select: &mut Select) -> Resolved {
        for expr in projected(&mut select.projection) {
            self.expr(expr)?;
        }
        select.order_by.iter_mut().try_for_each(|item| self.expr(&mut item.expr))
    }

    fn groups(&mut self, select: &mut Select, outer: usize) -> Resolved {
        if select.projection == Projection::All {
            return Err(Fault::at(
                select.place.0,
                "`SELECT *` has no meaning with GROUP BY: name what you want",
            ));
        }
        let keys = select.group_by.clone();
        select.group_by.iter_mut().try_for_each(|key| self.expr(key))?;
        let own = self.scope.split_off(outer);
        let mut groups = Groups { resolver: self, keys, own, aggregates: Vec::new() };
        for expr in projected(&mut select.projection) {
            groups.expr(expr)?;
        }
        select.order_by.iter_mut().try_for_each(|item| groups.expr(&mut item.expr))?;
        select.aggregates = groups.aggregates;
        Ok(())
    }

    /// An expression over rows.
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other kind is what its children are")]
    fn expr(&mut self, expr: &mut Expr) -> Resolved {
        match expr {
            Expr::Name(name, place) => *expr = self.name(name, *place)?,
            Expr::AggregateCall(kind, _, place) => {
                let message = format!(
                    "`{}` has no meaning here: aggregates stand in SELECT and ORDER BY, and not in one another",
                    kind.name()
                );
                return Err(Fault::at(place.0, message));
            }
            Expr::Subquery(_, select) => self.select(select, Level::Inner)?,
            _ => {
                for child in expr.children() {
                    self.expr(child)?;
                }
                settle(expr);
            }
        }
        Ok(())
    }

    fn name(&self, name: &str, place: Place) -> Result<Expr, Fault> {
        if let Some(hops) = self.hops(name) {
            return Ok(Expr::Variable(hops));
        }
        match name {
            "NaN" => Ok(Expr::NotFinite("NaN")),
            "Infinity" => Ok(Expr::NotFinite("Infinity")),
            _ if self.any_name => Ok(Expr::Variable(self.scope.len() - 1)),
            _ => Err(self.unknown(name, place)),
        }
    }

    fn hops(&self, name: &str) -> Option<usize> {
        self.scope.iter().rev().position(|alias| alias.as_deref() == Some(name))
    }

    fn unknown(&self, name: &str, place: Place) -> Fault {
        let known: Vec<String> = self.scope.iter().flatten().map(|alias| format!("`{alias}`")).collect();
        let hint = if known.is_empty() {
            "there is no FROM that names it".to_owned()
        } else {
            format!("in scope are {}", known.join(", "))
        };
        Fault::at(place.0, format!("`{name}` is not known: {hint}; a string needs quotes"))
    }
}

/// Expressions over groups.
struct Groups<'r> {
    resolver: &'r mut Resolver,
    /// The keys as they are written.
    keys: Vec<Expr>,
    /// The query's own sources, which only aggregates and keys can see.
    own: Vec<Option<String>>,
    aggregates: Vec<Aggregate>,
}

impl Groups<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other kind is what its children are")]
    fn expr(&mut self, expr: &mut Expr) -> Resolved {
        if let Some(key) = self.keys.iter().position(|key| key == expr) {
            *expr = Expr::Key(key);
            return Ok(());
        }
        match expr {
            Expr::Name(name, place) if self.own.iter().flatten().any(|own| own == name) => {
                let message = format!(
                    "`{name}` stands for many rows here: put what you take from it into GROUP BY, or into an aggregate"
                );
                return Err(Fault::at(place.0, message));
            }
            Expr::AggregateCall(kind, argument, _) => {
                let (kind, mut argument) = (*kind, std::mem::replace(&mut **argument, Expr::Undefined));
                let outer = self.resolver.scope.len();
                self.resolver.scope.extend(self.own.iter().cloned());
                self.resolver.expr(&mut argument)?;
                self.resolver.scope.truncate(outer);
                let aggregate = Aggregate { kind, argument };
                let known = self.aggregates.iter().position(|known| *known == aggregate);
                if known.is_none() {
                    self.aggregates.push(aggregate);
                }
                *expr = Expr::Aggregate(known.unwrap_or(self.aggregates.len().saturating_sub(1)));
            }
            Expr::Name(..) | Expr::Subquery(..) => self.resolver.expr(expr)?,
            _ => {
                for child in expr.children() {
                    self.expr(child)?;
                }
                settle(expr);
            }
        }
        Ok(())
    }
}

/// `ToString` is the one function that knows values that are no JSON.
fn settle(expr: &mut Expr) {
    if let Expr::Call(function, arguments) = expr
        && function.name().eq_ignore_ascii_case("ToString")
        && let [Expr::NotFinite(name)] = arguments.as_slice()
    {
        *expr = Expr::Literal(Value::from(*name));
    }
}

fn projected(projection: &mut Projection) -> Vec<&mut Expr> {
    match projection {
        Projection::All => Vec::new(),
        Projection::Value(expr) => vec![expr],
        Projection::Columns(columns) => columns.iter_mut().map(|column| &mut column.expr).collect(),
    }
}

/// Whether an aggregate of this query, not of a subquery, stands in the expression.
fn has_aggregate(expr: &mut Expr) -> bool {
    matches!(expr, Expr::AggregateCall(..)) || expr.children().into_iter().any(has_aggregate)
}

/// With DISTINCT a row stands for many, so what orders it must be seen in it: otherwise the order would
/// depend on which of them was met first.
fn order_is_projected(select: &mut Select) -> Resolved {
    let mut seen: Vec<Expr> = Vec::new();
    match &select.projection {
        Projection::All => {
            seen.extend(
                select
                    .sources
                    .iter()
                    .filter_map(|source| source.alias.clone())
                    .map(|alias| Expr::Name(alias, Place::default())),
            );
        }
        Projection::Value(expr) => members(expr, &mut seen),
        Projection::Columns(columns) => columns.iter().for_each(|column| members(&column.expr, &mut seen)),
    }
    for item in &mut select.order_by {
        if !is_seen(&mut item.expr, &seen) {
            let message = "with DISTINCT, ORDER BY can only use what SELECT projects";
            return Err(Fault::at(item.place.0, message));
        }
    }
    Ok(())
}

fn members(expr: &Expr, seen: &mut Vec<Expr>) {
    seen.push(expr.clone());
    if let Expr::Object(members_of) = expr {
        members_of.iter().for_each(|(_, member)| members(member, seen));
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other kind is what its children are")]
fn is_seen(expr: &mut Expr, seen: &[Expr]) -> bool {
    if seen.contains(expr) {
        return true;
    }
    match expr {
        Expr::Name(..) | Expr::Subquery(..) | Expr::AggregateCall(..) => false,
        Expr::Path(base, steps) => {
            let begins = |shown: &Expr| {
                let within =
                    matches!(shown, Expr::Path(other, shown) if other == base && steps.starts_with(shown));
                within || *shown == **base
            };
            seen.iter().any(begins)
        }
        _ => expr.children().into_iter().all(|child| is_seen(child, seen)),
    }
}
