//! The tree that a query is. The parser makes it with names; `resolve` turns names into places of the
//! scope; `bind` replaces parameters.
//!
//! Invariant: operators of one level form one flat node, so the depth of the tree is bounded by the
//! nesting of the text and not by its length.

use serde_json::Value;

use super::functions::Function;
use super::like::Pattern;

/// A place in the text, in bytes. Two trees are the same wherever they stand, so all places are equal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place(pub(super) usize);

impl PartialEq for Place {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// A query or subquery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Select {
    pub(super) place: Place,
    pub(super) distinct: bool,
    pub(super) top: Option<Count>,
    pub(super) projection: Projection,
    /// FROM and its JOINs; empty when the query reads no documents.
    pub(super) sources: Vec<Source>,
    pub(super) filter: Option<Expr>,
    /// From where to where WHERE's condition stands in the text.
    pub(super) filter_span: (Place, Place),
    pub(super) group_by: Vec<Expr>,
    pub(super) order_by: Vec<OrderItem>,
    pub(super) offset: Option<Count>,
    pub(super) limit: Option<Count>,
    /// What is to be aggregated: [`Expr::Aggregate`] counts them. Filled by `resolve`.
    pub(super) aggregates: Vec<Aggregate>,
    /// Whether rows are gathered to groups: GROUP BY, or an aggregate. Filled by `resolve`.
    pub(super) grouped: bool,
}

/// What SELECT makes of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Projection {
    All,
    Value(Expr),
    Columns(Vec<Column>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) expr: Expr,
    /// The name after AS, or the last one of a path.
    pub(super) alias: Option<String>,
    /// The name in the row. Filled by `bind`, because `c[@name]` is named by its parameter.
    pub(super) name: String,
}

/// One source of FROM or JOIN.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    pub(super) place: Place,
    pub(super) alias: Option<String>,
    /// `alias IN …`: one row for each element.
    pub(super) iterates: bool,
    /// A path, or a subquery of [`Subquery::Rows`].
    pub(super) from: Expr,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct OrderItem {
    pub(super) place: Place,
    pub(super) expr: Expr,
    pub(super) descending: bool,
}

/// The number of TOP, OFFSET or LIMIT.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Count {
    Number(u64),
    Parameter(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aggregate {
    pub(super) kind: AggregateKind,
    pub(super) argument: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AggregateKind {
    Count,
    CountIf,
    Sum,
    Min,
    Max,
    Avg,
}

impl AggregateKind {
    pub(super) const ALL: [Self; 6] =
        [Self::Count, Self::CountIf, Self::Sum, Self::Min, Self::Max, Self::Avg];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::CountIf => "COUNTIF",
            Self::Sum => "SUM",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::Avg => "AVG",
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Undefined,
    /// `NaN` and `Infinity`: no JSON value, but `ToString` knows them.
    NotFinite(&'static str),
    Literal(Value),
    /// Until `bind`.
    Parameter(String),
    /// Until `resolve`.
    Name(String, Place),
    /// The value so many sources outwards of the innermost one.
    Variable(usize),
    /// Until `resolve`.
    AggregateCall(AggregateKind, Box<Expr>, Place),
    /// The aggregate of that number of the group.
    Aggregate(usize),
    /// The key of that number of the group.
    Key(usize),
    Path(Box<Expr>, Vec<Step>),
    Object(Vec<(String, Expr)>),
    Array(Vec<Expr>),
    Unary(Unary, Box<Expr>),
    /// AND of all.
    All(Vec<Expr>),
    /// OR of all.
    Any(Vec<Expr>),
    /// `??`: the first that is defined.
    Coalesce(Vec<Expr>),
    /// Operators of one level, from the left.
    Chain(Box<Expr>, Vec<(Binary, Expr)>),
    /// `a ? b : c`.
    Choice(Box<[Expr; 3]>),
    In(Box<Expr>, List),
    /// Value, from, to; both ends included.
    Between(Box<[Expr; 3]>),
    Like(Box<Like>),
    Call(Function, Vec<Expr>),
    Subquery(Subquery, Box<Select>),
}

/// What is taken from a value by a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Property(String),
    Item(usize),
    Computed(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum List {
    Open(Vec<Expr>),
    /// Values that are known, sorted.
    Known(Vec<Value>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Like {
    pub(super) value: Expr,
    pub(super) pattern: Expr,
    pub(super) escape: Option<char>,
    /// Filled by `bind` when the pattern is known.
    pub(super) compiled: Option<Pattern>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
    Complement,
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Compare(Comparison),
    Compute(Arithmetic),
    Bits(Bits),
    Concat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bits {
    Or,
    Xor,
    And,
    Left,
    Right,
    RightUnsigned,
}

/// What is made of the rows of a subquery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subquery {
    /// The first row, undefined without one: `(SELECT …)`.
    Scalar,
    Exists,
    Array,
    /// Whether every row is `true`.
    All,
    First,
    Last,
    /// A source of FROM.
    Rows,
}

impl Expr {
    /// The expressions directly within this one; subqueries are not entered.
    pub(super) fn children(&mut self) -> Vec<&mut Expr> {
        match self {
            Self::Undefined
            | Self::NotFinite(_)
            | Self::Literal(_)
            | Self::Parameter(_)
            | Self::Name(..)
            | Self::Variable(_)
            | Self::Aggregate(_)
            | Self::Key(_)
            | Self::Subquery(..) => Vec::new(),
            Self::In(value, List::Known(_)) => vec![value],
            Self::AggregateCall(_, argument, _) => vec![argument],
            Self::Path(base, steps) => {
                let mut all = vec![&mut **base];
                all.extend(steps.iter_mut().filter_map(|step| match step {
                    Step::Computed(expr) => Some(expr),
                    Step::Property(_) | Step::Item(_) => None,
                }));
                all
            }
            Self::Object(members) => members.iter_mut().map(|(_, expr)| expr).collect(),
            Self::Array(items) | Self::All(items) | Self::Any(items) | Self::Coalesce(items) => {
                items.iter_mut().collect()
            }
            Self::Call(_, items) => items.iter_mut().collect(),
            Self::Unary(_, operand) => vec![operand],
            Self::Chain(first, rest) => {
                let mut all = vec![&mut **first];
                all.extend(rest.iter_mut().map(|(_, expr)| expr));
                all
            }
            Self::Choice(parts) | Self::Between(parts) => parts.iter_mut().collect(),
            Self::In(value, List::Open(items)) => {
                let mut all = vec![&mut **value];
                all.extend(items.iter_mut());
                all
            }
            Self::Like(like) => vec![&mut like.value, &mut like.pattern],
        }
    }
}

impl Select {
    /// The expressions of this query, its sources first; subqueries are not entered.
    pub(super) fn expressions(&mut self) -> Vec<&mut Expr> {
        let mut all: Vec<&mut Expr> = self.sources.iter_mut().map(|source| &mut source.from).collect();
        all.extend(&mut self.filter);
        match &mut self.projection {
            Projection::All => {}
            Projection::Value(expr) => all.push(expr),
            Projection::Columns(columns) => all.extend(columns.iter_mut().map(|column| &mut column.expr)),
        }
        all.extend(&mut self.group_by);
        all.extend(self.order_by.iter_mut().map(|item| &mut item.expr));
        all.extend(self.aggregates.iter_mut().map(|aggregate| &mut aggregate.argument));
        all
    }
}
