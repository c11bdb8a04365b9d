//! Documents and questions at random: most of them of types that fit, so that something comes of them, and some
//! of any type, because the rules for those are where evaluators go wrong.

use std::cell::RefCell;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::tree::{
    Aggregate, Comparison, DOCUMENT, Expr, INNER, JOINED, Operator, Piece, Projection, Question, Step, Sub,
    Window,
};

/// How deep an expression nests.
const DEPTH: u32 = 4;

type Made = BoxedStrategy<Expr>;

fn number_value() -> BoxedStrategy<Value> {
    prop_oneof![
        6 => (-3_i64..6).prop_map(Value::from),
        3 => (-6_i64..12).prop_map(|half| json!(half as f64 / 2.0)),
        1 => select(vec![
            json!(0.1), json!(-0.0), json!(1e308), json!(-1e308), json!(5e-324), json!(1e15),
            json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_993_i64), json!(i64::MAX), json!(i64::MIN),
            json!(u64::MAX), json!(9.223_372_036_854_776e18),
        ]),
    ]
    .boxed()
}

fn text_value() -> BoxedStrategy<Value> {
    prop_oneof![
        5 => "[abAB]{0,3}".prop_map(Value::from),
        2 => "[ab%_é😀! \\[\\]^'\"\\\\]{0,4}".prop_map(Value::from),
        1 => select(vec!["12", " 3.5 ", "-7", "1.", "x1", "  ", "é", "É", "ß", "true"]).prop_map(Value::from),
    ]
    .boxed()
}

fn value(depth: u32) -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        4 => number_value(),
        4 => text_value(),
    ];
    if depth == 0 {
        return scalar.boxed();
    }
    prop_oneof![
        6 => scalar,
        2 => list_value(depth - 1),
        2 => object_value(depth - 1),
    ]
    .boxed()
}

fn list_value(depth: u32) -> BoxedStrategy<Value> {
    prop_oneof![
        vec(number_value(), 0..4).prop_map(Value::from),
        vec(text_value(), 0..4).prop_map(Value::from),
        vec(value(depth), 0..4).prop_map(Value::from),
    ]
    .boxed()
}

fn object_value(depth: u32) -> BoxedStrategy<Value> {
    // In either order, because the order must mean nothing.
    (proptest::option::of(value(depth)), proptest::option::of(value(depth)), any::<bool>())
        .prop_map(|(x, y, swapped)| {
            let mut members = vec![("x", x), ("y", y)];
            if swapped {
                members.reverse();
            }
            let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(there.collect::<Map<_, _>>())
        })
        .boxed()
}

/// A property that mostly has its own type, and sometimes another one, or is missing.
fn property(usual: BoxedStrategy<Value>) -> BoxedStrategy<Option<Value>> {
    prop_oneof![8 => usual.prop_map(Some), 1 => Just(None), 2 => value(1).prop_map(Some)].boxed()
}

const NUMBERS: [&str; 2] = ["n", "m"];
const TEXTS: [&str; 2] = ["s", "order"];
const LISTS: [&str; 2] = ["l", "k"];

pub(crate) fn document() -> impl Strategy<Value = Value> {
    let members = (
        property(number_value()),
        property(number_value()),
        property(text_value()),
        property(text_value()),
        property(any::<bool>().prop_map(Value::from).boxed()),
        property(list_value(2)),
        property(list_value(1)),
        property(object_value(2)),
        property(value(2)),
    );
    members.prop_map(|(n, m, s, order, b, l, k, o, odd)| {
        let members = [
            ("n", n),
            ("m", m),
            ("s", s),
            ("order", order),
            ("b", b),
            ("l", l),
            ("k", k),
            ("o", o),
            ("odd key", odd),
        ];
        let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(there.collect::<Map<_, _>>())
    })
}

pub(crate) fn documents() -> impl Strategy<Value = Vec<Value>> {
    vec(document(), 0..7)
}

/// What names an expression may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Names {
    joined: bool,
    inner: bool,
}

const ALONE: Names = Names { joined: false, inner: false };

impl Names {
    /// The element that JOIN or a subquery takes, as it is or what is in it.
    fn element(self) -> Option<Made> {
        let root = if self.inner { INNER } else { JOINED };
        let steps = prop_oneof![
            3 => Just(Vec::new()),
            1 => Just(vec![Step::Name("x")]),
            1 => Just(vec![Step::Name("y")]),
            1 => Just(vec![Step::Index(0)]),
        ];
        (self.joined || self.inner).then(|| steps.prop_map(move |steps| Expr::Path(root, steps)).boxed())
    }
}

thread_local! {
    static MADE: RefCell<HashMap<(&'static str, u32, Names), Made>> = RefCell::default();
}

/// What was made before is used again: otherwise there would be millions of them.
fn shared(name: &'static str, depth: u32, names: Names, make: fn(u32, Names) -> Made) -> Made {
    let key = (name, depth, names);
    let known = MADE.with_borrow(|made| made.get(&key).cloned());
    known.unwrap_or_else(|| {
        let new = make(depth, names);
        MADE.with_borrow_mut(|made| made.insert(key, new.clone()));
        new
    })
}

fn leaf(names: Names, usual: Made) -> Made {
    match names.element() {
        Some(element) => prop_oneof![2 => usual, 1 => element].boxed(),
        None => usual,
    }
}

fn path_to(names: impl Into<Vec<&'static str>>) -> Made {
    select(names.into()).prop_map(|name| Expr::Path(DOCUMENT, vec![Step::Name(name)])).boxed()
}

fn given(value: BoxedStrategy<Value>) -> Made {
    prop_oneof![
        3 => value.clone().prop_map(Expr::Literal),
        1 => (0_u32..3, value).prop_map(|(number, value)| Expr::Parameter(number, value)),
    ]
    .boxed()
}

fn any_path() -> Made {
    let name = select(vec!["n", "m", "s", "order", "b", "l", "k", "o", "odd key", "missing"]);
    let steps = vec(
        prop_oneof![Just(Step::Name("x")), Just(Step::Name("y")), (0_usize..3).prop_map(Step::Index)],
        0..3,
    );
    (name, steps)
        .prop_map(|(name, steps)| {
            Expr::Path(DOCUMENT, std::iter::once(Step::Name(name)).chain(steps).collect())
        })
        .boxed()
}

/// What may be in the place of an expression of any kind: one that chooses.
fn chosen(kind: fn(u32, Names) -> Made, depth: u32, names: Names) -> Made {
    let (less, one) = (depth - 1, kind(depth - 1, names));
    prop_oneof![
        2 => one.clone().prop_map(|expr| Expr::Brackets(Box::new(expr))),
        2 => (truth(less, names), one.clone(), one.clone())
            .prop_map(|(condition, yes, no)| Expr::Choice(Box::new([condition, yes, no]))),
        2 => vec(one.clone(), 2..4).prop_map(Expr::Coalesce),
        1 => (truth(less, names), one.clone(), one)
            .prop_map(|(condition, yes, no)| Expr::Call("IIF", vec![condition, yes, no])),
    ]
    .boxed()
}

/// An expression that is usually a number.
fn number(depth: u32, names: Names) -> Made {
    shared("number", depth, names, new_number)
}

fn new_number(depth: u32, names: Names) -> Made {
    let leaf =
        leaf(names, prop_oneof![4 => path_to(NUMBERS), 3 => given(number_value()), 1 => any_path()].boxed());
    if depth == 0 {
        return leaf;
    }
    let less = depth - 1;
    let operator = select(vec![
        Operator::Add,
        Operator::Subtract,
        Operator::Multiply,
        Operator::Divide,
        Operator::Remainder,
    ]);
    let pair = (operator, number(less, names), number(less, names));
    let of_one = select(vec!["ABS", "CEILING", "FLOOR", "TRUNC", "SQRT", "ROUND"]);
    prop_oneof![
        4 => leaf,
        6 => pair.prop_map(|(operator, left, right)| Expr::Compute(operator, Box::new([left, right]))),
        2 => number(less, names).prop_map(|operand| Expr::Minus(Box::new(operand))),
        2 => (of_one, number(less, names)).prop_map(|(name, operand)| Expr::Call(name, vec![operand])),
        1 => (number(less, names), number(less, names))
            .prop_map(|(base, power)| Expr::Call("POWER", vec![base, power])),
        1 => text(less, names).prop_map(|text| Expr::Call("LENGTH", vec![text])),
        1 => text(less, names).prop_map(|text| Expr::Call("StringToNumber", vec![text])),
        1 => (text(less, names), text(less, names), proptest::option::of(-1_i64..4)).prop_map(|(text, part, start)| {
            let start = start.map(|start| Expr::Literal(json!(start)));
            Expr::Call("INDEX_OF", [text, part].into_iter().chain(start).collect())
        }),
        1 => list(less, names).prop_map(|list| Expr::Call("ARRAY_LENGTH", vec![list])),
        1 => chosen(number, depth, names),
        1 => anything(less, names),
    ]
    .boxed()
}

/// An expression that is usually a string.
fn text(depth: u32, names: Names) -> Made {
    shared("text", depth, names, new_text)
}

fn new_text(depth: u32, names: Names) -> Made {
    let leaf =
        leaf(names, prop_oneof![4 => path_to(TEXTS), 3 => given(text_value()), 1 => any_path()].boxed());
    if depth == 0 {
        return leaf;
    }
    let less = depth - 1;
    let of_one = select(vec!["LOWER", "UPPER", "TRIM", "LTRIM", "RTRIM", "REVERSE"]);
    let end = select(vec!["LEFT", "RIGHT"]);
    let known = prop_oneof![
        (-3_i64..20).prop_map(|n| json!(n)),
        any::<bool>().prop_map(|b| json!(b)),
        Just(Value::Null),
        text_value()
    ];
    prop_oneof![
        4 => leaf,
        3 => (text(less, names), text(less, names)).prop_map(|(left, right)| Expr::Concat(Box::new([left, right]))),
        2 => (of_one, text(less, names)).prop_map(|(name, operand)| Expr::Call(name, vec![operand])),
        1 => vec(text(less, names), 2..4).prop_map(|parts| Expr::Call("CONCAT", parts)),
        1 => (end, text(less, names), number(0, names)).prop_map(|(name, text, length)| Expr::Call(name, vec![text, length])),
        1 => (text(less, names), number(0, names), number(0, names))
            .prop_map(|(text, start, length)| Expr::Call("SUBSTRING", vec![text, start, length])),
        1 => (text(less, names), text(0, names), text(0, names))
            .prop_map(|(text, old, new)| Expr::Call("REPLACE", vec![text, old, new])),
        1 => known.prop_map(|value| Expr::Call("ToString", vec![Expr::Literal(value)])),
        1 => chosen(text, depth, names),
        1 => anything(less, names),
    ]
    .boxed()
}

/// An expression that is usually an array.
fn list(depth: u32, names: Names) -> Made {
    shared("list", depth, names, new_list)
}

fn new_list(depth: u32, names: Names) -> Made {
    let leaf =
        leaf(names, prop_oneof![4 => path_to(LISTS), 2 => given(list_value(1)), 1 => any_path()].boxed());
    if depth == 0 {
        return leaf;
    }
    let less = depth - 1;
    let slice = (list(less, names), -4_i64..4, proptest::option::of(-1_i64..4));
    prop_oneof![
        4 => leaf,
        2 => vec(anything(less, names), 0..4).prop_map(Expr::Array),
        1 => vec(list(less, names), 2..4).prop_map(|parts| Expr::Call("ARRAY_CONCAT", parts)),
        1 => slice.prop_map(|(list, start, length)| {
            let numbers = std::iter::once(start).chain(length).map(|number| Expr::Literal(json!(number)));
            Expr::Call("ARRAY_SLICE", std::iter::once(list).chain(numbers).collect())
        }),
        1 => sub(Sub::Array, less, names),
        1 => chosen(list, depth, names),
        1 => anything(less, names),
    ]
    .boxed()
}

/// An expression that is usually a boolean.
fn truth(depth: u32, names: Names) -> Made {
    shared("truth", depth, names, new_truth)
}

fn new_truth(depth: u32, names: Names) -> Made {
    let known = prop_oneof![4 => any::<bool>().prop_map(|truth| Expr::Literal(json!(truth))), 1 => Just(Expr::Undefined)];
    let leaf = leaf(names, prop_oneof![3 => path_to(["b"]), 1 => known, 1 => any_path()].boxed());
    if depth == 0 {
        return leaf;
    }
    let less = depth - 1;
    let switch =
        proptest::option::of(prop_oneof![5 => any::<bool>().prop_map(|truth| json!(truth)), 1 => value(0)]);
    let with_switch = |first: Expr, second: Expr, switch: Option<Value>| {
        [first, second].into_iter().chain(switch.map(Expr::Literal)).collect::<Vec<_>>()
    };
    let of_two = select(vec!["CONTAINS", "STARTSWITH", "ENDSWITH", "StringEquals"]);
    let kinds = select(vec![
        "IS_DEFINED",
        "IS_NULL",
        "IS_BOOL",
        "IS_NUMBER",
        "IS_STRING",
        "IS_ARRAY",
        "IS_OBJECT",
        "IS_PRIMITIVE",
        "IS_INTEGER",
    ]);
    prop_oneof![
        2 => leaf,
        8 => comparison(less, names),
        3 => vec(truth(less, names), 2..4).prop_map(Expr::And),
        3 => vec(truth(less, names), 2..4).prop_map(Expr::Or),
        3 => truth(less, names).prop_map(|operand| Expr::Not(Box::new(operand))),
        3 => within(less, names),
        2 => likeness(less, names),
        2 => (of_two, text(less, names), text(less, names), switch.clone())
            .prop_map(move |(name, text, part, switch)| Expr::Call(name, with_switch(text, part, switch))),
        2 => (list(less, names), anything(less, names), switch)
            .prop_map(move |(list, item, switch)| Expr::Call("ARRAY_CONTAINS", with_switch(list, item, switch))),
        3 => (kinds, anything(less, names)).prop_map(|(name, operand)| Expr::Call(name, vec![operand])),
        1 => sub(Sub::Exists, less, names),
        1 => chosen(truth, depth, names),
        1 => anything(less, names),
    ]
    .boxed()
}

fn comparison(depth: u32, names: Names) -> Made {
    let operator = select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ]);
    let pair = prop_oneof![
        4 => (number(depth, names), number(depth, names)),
        3 => (text(depth, names), text(depth, names)),
        3 => (anything(depth, names), anything(depth, names)),
        1 => (list(depth, names), list(depth, names)),
    ];
    (operator, pair)
        .prop_map(|(operator, (left, right))| Expr::Compare(operator, Box::new([left, right])))
        .boxed()
}

/// IN and BETWEEN.
fn within(depth: u32, names: Names) -> Made {
    let known = vec(prop_oneof![6 => given(value(1)), 1 => Just(Expr::Undefined)], 1..5);
    let open = vec(anything(depth, names), 1..4);
    let numbers = (number(depth, names), number(depth, names), number(depth, names));
    let texts = (text(depth, names), text(depth, names), text(depth, names));
    let mixed = (anything(depth, names), number(depth, names), text(depth, names));
    prop_oneof![
        2 => (anything(depth, names), known, any::<bool>())
            .prop_map(|(value, list, negated)| Expr::In { negated, value: Box::new(value), list }),
        1 => (anything(depth, names), open, any::<bool>())
            .prop_map(|(value, list, negated)| Expr::In { negated, value: Box::new(value), list }),
        2 => (prop_oneof![2 => numbers, 1 => texts, 1 => mixed], any::<bool>())
            .prop_map(|((value, from, to), negated)| Expr::Between { negated, parts: Box::new([value, from, to]) }),
    ]
    .boxed()
}

fn likeness(depth: u32, names: Names) -> Made {
    let letter = select(vec!['a', 'b', 'A', 'B', '%', '_', '!', '[', ']', 'é', '😀', ' ']);
    let set = (any::<bool>(), select(vec![('a', 'b'), ('A', 'B'), ('a', 'a'), ('b', 'z')]));
    let piece = prop_oneof![
        5 => letter.prop_map(Piece::Char),
        3 => Just(Piece::Any),
        2 => Just(Piece::One),
        1 => set.prop_map(|(negated, (from, to))| Piece::Set { negated, from, to }),
    ];
    (text(depth, names), vec(piece, 0..5), any::<bool>(), any::<bool>())
        .prop_map(|(value, pattern, escaped, negated)| Expr::Like {
            negated,
            value: Box::new(value),
            pattern,
            escaped,
        })
        .boxed()
}

fn sub(kind: Sub, depth: u32, names: Names) -> Made {
    // One within another would name its element the same.
    if names.inner {
        return any_path();
    }
    let names = Names { inner: true, ..names };
    let list =
        select(vec![vec![Step::Name("l")], vec![Step::Name("k")], vec![Step::Name("o"), Step::Name("x")]]);
    let less = depth.min(2);
    (list, proptest::option::of(truth(less, names)), anything(less, names))
        .prop_map(move |(list, filter, value)| Expr::Sub {
            kind,
            list,
            filter: Box::new(filter),
            value: Box::new(value),
        })
        .boxed()
}

/// An expression of any type.
fn anything(depth: u32, names: Names) -> Made {
    shared("anything", depth, names, new_anything)
}

fn new_anything(depth: u32, names: Names) -> Made {
    let leaf = prop_oneof![4 => any_path(), 3 => given(value(2)), 1 => Just(Expr::Undefined)];
    let leaf = match names.element() {
        Some(element) => prop_oneof![2 => leaf, 2 => element].boxed(),
        None => leaf.boxed(),
    };
    if depth == 0 {
        return leaf;
    }
    let less = depth - 1;
    let members = (proptest::option::of(anything(less, names)), proptest::option::of(anything(less, names)));
    prop_oneof![
        4 => leaf,
        2 => number(less, names),
        2 => text(less, names),
        2 => truth(less, names),
        1 => list(less, names),
        1 => sub(Sub::First, less, names),
        2 => members.prop_map(|(x, y)| {
            Expr::Object([("y", y), ("x", x)].into_iter().filter_map(|(name, expr)| Some((name, expr?))).collect())
        }),
        1 => chosen(anything, depth, names),
    ]
    .boxed()
}

/// An expression of any kind over one document.
pub(crate) fn expression() -> impl Strategy<Value = Expr> {
    prop_oneof![
        anything(DEPTH, ALONE),
        number(DEPTH, ALONE),
        text(DEPTH, ALONE),
        list(DEPTH, ALONE),
        truth(DEPTH, ALONE),
    ]
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        3 => Just(Window::All),
        1 => (0_usize..6).prop_map(Window::Top),
        1 => (0_usize..4, 0_usize..6).prop_map(|(skip, take)| Window::Slice(skip, take)),
    ]
}

/// Columns, each with a name of its own.
fn columns(one: Made) -> impl Strategy<Value = Projection> {
    vec((one, any::<bool>()), 1..4).prop_map(|columns| {
        let mut taken: Vec<&str> = Vec::new();
        let column = |(at, (expr, named)): (usize, (Expr, bool))| {
            let own = match &expr {
                Expr::Path(_, steps) => match steps.last() {
                    Some(Step::Name(name)) if !taken.contains(name) => Some(*name),
                    _ => None,
                },
                // What prints as a path is named as one.
                Expr::Key(..) | Expr::Brackets(_) => None,
                _ => Some("$"),
            };
            let named = named || own.is_none();
            taken.extend(own.filter(|_| !named));
            (expr, named.then(|| ["A1", "A2", "A3", "A4"][at]))
        };
        Projection::Columns(columns.into_iter().enumerate().map(column).collect())
    })
}

/// A question about rows.
fn plain(joined: bool) -> impl Strategy<Value = Question> {
    let names = Names { joined, ..ALONE };
    let all = if joined {
        anything(2, names).prop_map(Projection::Value).boxed()
    } else {
        Just(Projection::All).boxed()
    };
    let projection = prop_oneof![
        1 => all,
        2 => anything(2, names).prop_map(Projection::Value),
        2 => columns(anything(2, names)),
    ];
    let by = prop_oneof![3 => any_path(), 1 => anything(2, names), 1 => number(1, names)];
    let order = vec((by, any::<bool>()), 0..3);
    (projection, join(joined), filter(names), order, window(), proptest::bool::weighted(0.25)).prop_map(
        |(projection, join, filter, order, window, distinct)| {
            // With DISTINCT only what is shown can be sorted by.
            let shown: Vec<(Expr, bool)> = match &projection {
                Projection::Value(expr) => vec![(expr.clone(), true)],
                Projection::Columns(columns) => {
                    columns.iter().map(|(expr, _)| (expr.clone(), false)).take(2).collect()
                }
                Projection::All => Vec::new(),
            };
            let order = match (distinct, order.is_empty()) {
                (true, false) => shown,
                (true, true) => Vec::new(),
                (false, _) => order,
            };
            Question { distinct, projection, join, filter, keys: Vec::new(), grouped: false, order, window }
        },
    )
}

fn join(joined: bool) -> impl Strategy<Value = Option<Vec<Step>>> {
    let list = select(vec![
        vec![Step::Name("l")],
        vec![Step::Name("k")],
        vec![Step::Name("o"), Step::Name("x")],
        vec![Step::Name("missing")],
    ]);
    if joined { list.prop_map(Some).boxed() } else { Just(None).boxed() }
}

fn filter(names: Names) -> impl Strategy<Value = Option<Expr>> {
    prop_oneof![1 => Just(None), 4 => truth(DEPTH - 1, names).prop_map(Some)]
}

/// A question about groups.
fn gathered(joined: bool) -> impl Strategy<Value = Question> {
    let names = Names { joined, ..ALONE };
    let key = prop_oneof![3 => any_path(), 1 => anything(1, names)];
    let keys = vec(key, 0..3);
    let base = (keys, join(joined), filter(names), window());
    base.prop_flat_map(move |(keys, join, filter, window)| {
        let one = of_group(&keys, names);
        let projection = prop_oneof![2 => columns(one.clone()), 1 => one.clone().prop_map(Projection::Value)];
        let order = vec((one, any::<bool>()), 0..3);
        (projection, order).prop_map(move |(projection, order)| Question {
            distinct: false,
            projection,
            join: join.clone(),
            filter: filter.clone(),
            grouped: true,
            keys: keys.clone(),
            order,
            window: window.clone(),
        })
    })
    .prop_filter("without keys, an aggregate is what gathers", |question| {
        let mut roots: Vec<&Expr> = question.order.iter().map(|(expr, _)| expr).collect();
        match &question.projection {
            Projection::All => {}
            Projection::Value(expr) => roots.push(expr),
            Projection::Columns(columns) => roots.extend(columns.iter().map(|(expr, _)| expr)),
        }
        !question.keys.is_empty() || roots.into_iter().any(has_aggregate)
    })
}

fn has_aggregate(expr: &Expr) -> bool {
    matches!(expr, Expr::Aggregate(..)) || expr.children().into_iter().any(has_aggregate)
}

/// An expression over a group: its keys, its aggregates, and what is made of them.
fn of_group(keys: &[Expr], names: Names) -> Made {
    let kind = select(vec![
        Aggregate::Count,
        Aggregate::CountIf,
        Aggregate::Sum,
        Aggregate::Avg,
        Aggregate::Min,
        Aggregate::Max,
    ]);
    let argument =
        prop_oneof![3 => path_to(NUMBERS), 2 => any_path(), 1 => anything(2, names), 1 => truth(1, names)];
    let aggregate = (kind, argument).prop_map(|(kind, argument)| Expr::Aggregate(kind, Box::new(argument)));
    let known: Vec<Expr> =
        keys.iter().enumerate().map(|(number, key)| Expr::Key(number, Box::new(key.clone()))).collect();
    let leaf = if known.is_empty() {
        aggregate.boxed()
    } else {
        prop_oneof![1 => aggregate, 1 => select(known)].boxed()
    };
    prop_oneof![
        5 => leaf.clone(),
        1 => (leaf.clone(), number_value())
            .prop_map(|(one, two)| Expr::Compute(Operator::Add, Box::new([one, Expr::Literal(two)]))),
        1 => (leaf.clone(), leaf.clone())
            .prop_map(|(one, two)| Expr::Compare(Comparison::Less, Box::new([one, two]))),
        1 => leaf.clone().prop_map(|one| Expr::Call("IS_DEFINED", vec![one])),
        1 => (leaf.clone(), leaf).prop_map(|(x, y)| Expr::Object(vec![("x", x), ("y", y)])),
    ]
    .boxed()
}

pub(crate) fn question() -> impl Strategy<Value = Question> {
    prop_oneof![3 => plain(false), 1 => plain(true), 2 => gathered(false), 1 => gathered(true)]
}
