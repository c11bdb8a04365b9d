//! What a query can be, as a tree of its own.

use serde_json::Value;

/// The document, the element that JOIN takes of it, and the element that a subquery looks at.
pub(crate) const DOCUMENT: &str = "c";
pub(crate) const JOINED: &str = "j";
pub(crate) const INNER: &str = "x";

#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Undefined,
    Literal(Value),
    /// A value that the text names `@p…` and that is given beside it. The number tells it from others.
    Parameter(u32, Value),
    Path(&'static str, Vec<Step>),
    Object(Vec<(&'static str, Expr)>),
    Array(Vec<Expr>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Comparison, Box<[Expr; 2]>),
    Compute(Operator, Box<[Expr; 2]>),
    Concat(Box<[Expr; 2]>),
    In {
        negated: bool,
        value: Box<Expr>,
        list: Vec<Expr>,
    },
    Between {
        negated: bool,
        parts: Box<[Expr; 3]>,
    },
    Like {
        negated: bool,
        value: Box<Expr>,
        pattern: Vec<Piece>,
        escaped: bool,
    },
    Coalesce(Vec<Expr>),
    Choice(Box<[Expr; 3]>),
    Call(&'static str, Vec<Expr>),
    /// Something about the elements of an array that WHERE keeps: `(SELECT VALUE value FROM x IN list WHERE filter)`.
    Sub {
        kind: Sub,
        list: Vec<Step>,
        filter: Box<Option<Expr>>,
        value: Box<Expr>,
    },
    /// Only over groups.
    Aggregate(Aggregate, Box<Expr>),
    /// The key of this number, written out.
    Key(usize, Box<Expr>),
    /// Brackets that mean nothing.
    Brackets(Box<Expr>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Name(&'static str),
    Index(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sub {
    Exists,
    Array,
    First,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aggregate {
    Count,
    CountIf,
    Sum,
    Avg,
    Min,
    Max,
}

/// A piece of a pattern of LIKE.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    Char(char),
    Any,
    One,
    Set { negated: bool, from: char, to: char },
}

#[derive(Debug, Clone)]
pub(crate) enum Projection {
    All,
    Value(Expr),
    /// Each with the name after AS, if it has one.
    Columns(Vec<(Expr, Option<&'static str>)>),
}

#[derive(Debug, Clone)]
pub(crate) enum Window {
    All,
    Top(usize),
    Slice(usize, usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) distinct: bool,
    pub(crate) projection: Projection,
    /// `JOIN j IN c.…`.
    pub(crate) join: Option<Vec<Step>>,
    pub(crate) filter: Option<Expr>,
    pub(crate) keys: Vec<Expr>,
    /// Whether rows are gathered: with keys, or with aggregates alone.
    pub(crate) grouped: bool,
    /// Each with whether it goes downwards.
    pub(crate) order: Vec<(Expr, bool)>,
    pub(crate) window: Window,
}

impl Question {
    pub(crate) fn of_value(expr: Expr) -> Self {
        Self {
            distinct: false,
            projection: Projection::Value(expr),
            join: None,
            filter: None,
            keys: Vec::new(),
            grouped: false,
            order: Vec::new(),
            window: Window::All,
        }
    }

    /// How many rows are left out at the beginning, and how many are there at most then.
    pub(crate) fn window(&self) -> (usize, usize) {
        match self.window {
            Window::All => (0, usize::MAX),
            Window::Top(count) => (0, count),
            Window::Slice(skip, take) => (skip, take),
        }
    }

    pub(crate) fn parameters(&self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        let mut roots: Vec<&Expr> = self.filter.iter().chain(&self.keys).collect();
        roots.extend(self.order.iter().map(|(expr, _)| expr));
        match &self.projection {
            Projection::All => {}
            Projection::Value(expr) => roots.push(expr),
            Projection::Columns(columns) => roots.extend(columns.iter().map(|(expr, _)| expr)),
        }
        roots.into_iter().for_each(|root| collect(root, &mut all));
        all
    }
}

fn collect(expr: &Expr, all: &mut Vec<(String, Value)>) {
    if let Expr::Parameter(number, value) = expr {
        all.push((format!("@{}", name_of(*number, value)), value.clone()));
    }
    for child in expr.children() {
        collect(child, all);
    }
}

/// The name of a parameter, which follows from its value: two of one name must not differ.
pub(crate) fn name_of(number: u32, value: &Value) -> String {
    let text: String = value.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("p{number}_{text}")
}

impl Expr {
    pub(crate) fn children(&self) -> Vec<&Self> {
        match self {
            Self::Undefined | Self::Literal(_) | Self::Parameter(..) | Self::Path(..) => Vec::new(),
            Self::Object(members) => members.iter().map(|(_, expr)| expr).collect(),
            Self::Array(items) | Self::And(items) | Self::Or(items) | Self::Coalesce(items) => {
                items.iter().collect()
            }
            Self::Call(_, items) => items.iter().collect(),
            Self::Not(only)
            | Self::Minus(only)
            | Self::Aggregate(_, only)
            | Self::Key(_, only)
            | Self::Brackets(only)
            | Self::Like { value: only, .. } => vec![only],
            Self::Compare(_, pair) | Self::Compute(_, pair) | Self::Concat(pair) => pair.iter().collect(),
            Self::Between { parts, .. } | Self::Choice(parts) => parts.iter().collect(),
            Self::In { value, list, .. } => std::iter::once(&**value).chain(list).collect(),
            Self::Sub { filter, value, .. } => filter.iter().chain([&**value]).collect(),
        }
    }
}
