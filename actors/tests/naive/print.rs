//! A tree as text, with no more brackets than it needs: so the rules of precedence are tried too.

use serde_json::Value;

use super::tree::{
    Aggregate, Comparison, DOCUMENT, Expr, INNER, JOINED, Operator, Piece, Projection, Question, Step, Sub,
    Window, name_of,
};

/// How tightly an expression holds together, from `? :` to a single word.
const CHOICE: u8 = 1;
const COALESCE: u8 = 2;
const OR: u8 = 3;
const AND: u8 = 4;
const NOT: u8 = 5;
const COMPARISON: u8 = 6;
const CONCAT: u8 = 7;
const SUM: u8 = 8;
const PRODUCT: u8 = 9;
const SIGN: u8 = 10;
const WORD: u8 = 11;

pub(crate) fn question(question: &Question) -> String {
    let mut text = "SELECT ".to_owned();
    if question.distinct {
        text += "DISTINCT ";
    }
    if let Window::Top(count) = question.window {
        text += &format!("TOP {count} ");
    }
    match &question.projection {
        Projection::All => text += "*",
        Projection::Value(expr) => text += &format!("VALUE {}", whole(expr)),
        Projection::Columns(columns) => {
            let column = |(expr, name): &(Expr, Option<&str>)| match name {
                Some(name) => format!("{} AS {name}", whole(expr)),
                None => whole(expr),
            };
            text += &columns.iter().map(column).collect::<Vec<_>>().join(", ");
        }
    }
    text += &format!(" FROM {DOCUMENT}");
    if let Some(steps) = &question.join {
        text += &format!(" JOIN {JOINED} IN {}", path(DOCUMENT, steps));
    }
    if let Some(filter) = &question.filter {
        text += &format!(" WHERE {}", whole(filter));
    }
    if !question.keys.is_empty() {
        text += &format!(" GROUP BY {}", list(&question.keys));
    }
    let order = |(expr, descending): &(Expr, bool)| {
        format!("{} {}", whole(expr), if *descending { "DESC" } else { "ASC" })
    };
    if !question.order.is_empty() {
        text += &format!(" ORDER BY {}", question.order.iter().map(order).collect::<Vec<_>>().join(", "));
    }
    if let Window::Slice(skip, take) = question.window {
        text += &format!(" OFFSET {skip} LIMIT {take}");
    }
    text
}

fn whole(expr: &Expr) -> String {
    at(expr, CHOICE)
}

fn list(items: &[Expr]) -> String {
    items.iter().map(whole).collect::<Vec<_>>().join(", ")
}

/// The text of an expression that must hold together at least so tightly.
fn at(expr: &Expr, tightness: u8) -> String {
    let (own, text) = written(expr);
    if own < tightness { format!("({text})") } else { text }
}

fn written(expr: &Expr) -> (u8, String) {
    match expr {
        Expr::Undefined => (WORD, "undefined".to_owned()),
        Expr::Literal(value) => literal(value),
        Expr::Parameter(number, value) => (WORD, format!("@{}", name_of(*number, value))),
        Expr::Path(root, steps) => (WORD, path(root, steps)),
        Expr::Object(members) => {
            let members = members.iter().map(|(name, expr)| format!("\"{name}\": {}", whole(expr)));
            (WORD, format!("{{{}}}", members.collect::<Vec<_>>().join(", ")))
        }
        Expr::Array(items) => (WORD, format!("[{}]", list(items))),
        Expr::Not(operand) => (NOT, format!("NOT {}", at(operand, NOT))),
        // Two minus signs in a row begin a comment.
        Expr::Minus(operand) => (SIGN, format!("-{}", at(operand, WORD))),
        Expr::And(items) => (AND, joined(items, " AND ", NOT)),
        Expr::Or(items) => (OR, joined(items, " OR ", AND)),
        Expr::Coalesce(items) => (COALESCE, joined(items, " ?? ", OR)),
        Expr::Compare(operator, pair) => (COMPARISON, infix(comparison(*operator), pair, COMPARISON)),
        Expr::Compute(operator, pair) => {
            let (symbol, tightness) = match operator {
                Operator::Add => ("+", SUM),
                Operator::Subtract => ("-", SUM),
                Operator::Multiply => ("*", PRODUCT),
                Operator::Divide => ("/", PRODUCT),
                Operator::Remainder => ("%", PRODUCT),
            };
            (tightness, infix(symbol, pair, tightness))
        }
        Expr::Concat(pair) => (CONCAT, infix("||", pair, CONCAT)),
        Expr::In { negated, value, list: items } => {
            let (value, not) = (at(value, COMPARISON), if *negated { "NOT " } else { "" });
            (COMPARISON, format!("{value} {not}IN ({})", list(items)))
        }
        Expr::Between { negated, parts } => {
            let [value, from, to] = &**parts;
            let (value, not) = (at(value, COMPARISON), if *negated { "NOT " } else { "" });
            (COMPARISON, format!("{value} {not}BETWEEN {} AND {}", at(from, CONCAT), at(to, CONCAT)))
        }
        Expr::Like { negated, value, pattern, escaped } => {
            let (value, not) = (at(value, COMPARISON), if *negated { "NOT " } else { "" });
            let escape = if *escaped { " ESCAPE '!'" } else { "" };
            let pattern = Value::from(like(pattern, *escaped));
            (COMPARISON, format!("{value} {not}LIKE {pattern}{escape}"))
        }
        Expr::Choice(parts) => {
            let [condition, yes, no] = &**parts;
            (CHOICE, format!("{} ? {} : {}", at(condition, COALESCE), whole(yes), whole(no)))
        }
        Expr::Call(name, arguments) => (WORD, format!("{name}({})", list(arguments))),
        Expr::Sub { kind, list, filter, value } => {
            let filter = filter.as_ref().as_ref().map(|filter| format!(" WHERE {}", whole(filter)));
            let (value, list) = (whole(value), path(DOCUMENT, list));
            let query =
                format!("(SELECT VALUE {value} FROM {INNER} IN {list}{})", filter.unwrap_or_default());
            let word = match kind {
                Sub::Exists => "EXISTS",
                Sub::Array => "ARRAY",
                Sub::First => "",
            };
            (WORD, format!("{word}{query}"))
        }
        Expr::Aggregate(kind, argument) => {
            let name = match kind {
                Aggregate::Count => "COUNT",
                Aggregate::CountIf => "COUNTIF",
                Aggregate::Sum => "SUM",
                Aggregate::Avg => "AVG",
                Aggregate::Min => "MIN",
                Aggregate::Max => "MAX",
            };
            (WORD, format!("{name}({})", whole(argument)))
        }
        Expr::Key(_, key) => written(key),
        Expr::Brackets(inner) => (WORD, format!("({})", whole(inner))),
    }
}

fn joined(items: &[Expr], between: &str, tightness: u8) -> String {
    items.iter().map(|item| at(item, tightness)).collect::<Vec<_>>().join(between)
}

/// Operators of one level go from the left.
fn infix(symbol: &str, pair: &[Expr; 2], tightness: u8) -> String {
    format!("{} {symbol} {}", at(&pair[0], tightness), at(&pair[1], tightness + 1))
}

fn comparison(operator: Comparison) -> &'static str {
    match operator {
        Comparison::Equal => "=",
        Comparison::NotEqual => "!=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

fn literal(value: &Value) -> (u8, String) {
    let text = value.to_string();
    match value {
        Value::String(inside) if inside.len() % 2 == 0 && !text.contains('\\') && !text.contains('\'') => {
            (WORD, format!("'{inside}'"))
        }
        Value::Number(_) if text.starts_with('-') => (SIGN, text),
        _ => (WORD, text),
    }
}

fn path(root: &str, steps: &[Step]) -> String {
    let mut text = root.to_owned();
    for step in steps {
        match step {
            Step::Name(name @ ("order" | "odd key")) => text += &format!("[\"{name}\"]"),
            Step::Name(name) => text += &format!(".{name}"),
            Step::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

/// The text of a pattern. Where `!` escapes, it stands before every character that it can stand before.
fn like(pattern: &[Piece], escaped: bool) -> String {
    let mut text = String::new();
    for piece in pattern {
        match piece {
            Piece::Char(c) if escaped && "%_![".contains(*c) => text += &format!("!{c}"),
            Piece::Char(c @ ('%' | '_' | '[')) => text += &format!("[{c}]"),
            Piece::Char(c) => text.push(*c),
            Piece::Any => text.push('%'),
            Piece::One => text.push('_'),
            Piece::Set { negated, from, to } => {
                text += &format!("[{}{from}-{to}]", if *negated { "^" } else { "" });
            }
        }
    }
    text
}
