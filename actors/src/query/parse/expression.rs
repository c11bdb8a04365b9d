//! Expressions, by the binding power of their operators.
//!
//! From loose to tight: `? :`, `??`, OR, AND, NOT, comparisons with IN, BETWEEN and LIKE, `|`, `^`, `&`,
//! shifts, `||`, sums, products, prefixes, paths.

use serde_json::Value;

use super::super::ast::{
    AggregateKind, Arithmetic, Binary, Bits, Comparison, Expr, Like, List, Step, Subquery, Unary,
};
use super::super::error::Fault;
use super::super::functions::Function;
use super::super::lexer::Token;
use super::super::{limits, value};
use super::{Parsed, Parser, names};

/// Binding powers: an operator takes what binds tighter than itself.
const CHOICE: u8 = 1;
const COALESCE: u8 = 2;
const OR: u8 = 3;
const AND: u8 = 4;
const NOT: u8 = 5;
const COMPARISON: u8 = 6;
const PREFIX: u8 = 13;

/// Operators between two values, with their powers.
const BINARY: [(&str, u8, Binary); 19] = [
    ("=", COMPARISON, Binary::Compare(Comparison::Equal)),
    ("!=", COMPARISON, Binary::Compare(Comparison::NotEqual)),
    ("<>", COMPARISON, Binary::Compare(Comparison::NotEqual)),
    ("<", COMPARISON, Binary::Compare(Comparison::Less)),
    ("<=", COMPARISON, Binary::Compare(Comparison::LessOrEqual)),
    (">", COMPARISON, Binary::Compare(Comparison::Greater)),
    (">=", COMPARISON, Binary::Compare(Comparison::GreaterOrEqual)),
    ("|", 7, Binary::Bits(Bits::Or)),
    ("^", 8, Binary::Bits(Bits::Xor)),
    ("&", 9, Binary::Bits(Bits::And)),
    ("<<", 10, Binary::Bits(Bits::Left)),
    (">>", 10, Binary::Bits(Bits::Right)),
    (">>>", 10, Binary::Bits(Bits::RightUnsigned)),
    ("||", 11, Binary::Concat),
    ("+", 12, Binary::Compute(Arithmetic::Add)),
    ("-", 12, Binary::Compute(Arithmetic::Subtract)),
    ("*", 13, Binary::Compute(Arithmetic::Multiply)),
    ("/", 13, Binary::Compute(Arithmetic::Divide)),
    ("%", 13, Binary::Compute(Arithmetic::Remainder)),
];

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        self.tighter(0)
    }

    /// An expression of operators that bind tighter than `power`.
    fn tighter(&mut self, power: u8) -> Parsed<Expr> {
        self.recursion += 1;
        if self.recursion > limits::RECURSION {
            return Err(self.too_deep());
        }
        let mut left = self.prefix()?;
        let mut comparisons = 0;
        loop {
            if let Some((symbol_power, operator)) = self.binary() {
                if symbol_power <= power {
                    break;
                }
                left = self.chain(left, symbol_power, operator)?;
            } else if let Some(negated) = self.comparison_word() {
                if COMPARISON <= power {
                    break;
                }
                comparisons += 1;
                if self.recursion + comparisons > limits::RECURSION {
                    return Err(self.too_deep());
                }
                left = self.comparison(left, negated)?;
            } else if self.sees_word("AND") && AND > power {
                left = Expr::All(self.flat(left, AND, |parser| parser.takes_word("AND"))?);
            } else if self.sees_word("OR") && OR > power {
                left = Expr::Any(self.flat(left, OR, |parser| parser.takes_word("OR"))?);
            } else if self.sees("??") && COALESCE > power {
                left = Expr::Coalesce(self.flat(left, COALESCE, |parser| parser.takes("??"))?);
            } else if self.sees("?") && CHOICE > power {
                self.advance();
                let yes = self.nested(1, |parser| parser.tighter(0))?;
                self.symbol(":")?;
                let no = self.nested(1, |parser| parser.tighter(0))?;
                left = Expr::Choice(Box::new([left, yes, no]));
            } else {
                break;
            }
        }
        self.recursion -= 1;
        Ok(left)
    }

    fn flat(&mut self, first: Expr, power: u8, takes: fn(&mut Self) -> bool) -> Parsed<Vec<Expr>> {
        let mut all = vec![first];
        while takes(self) {
            all.push(self.tighter(power)?);
        }
        Ok(all)
    }

    fn chain(&mut self, first: Expr, power: u8, operator: Binary) -> Parsed<Expr> {
        self.advance();
        let mut rest = vec![(operator, self.tighter(power)?)];
        while let Some((next_power, operator)) = self.binary() {
            if next_power != power {
                break;
            }
            self.advance();
            rest.push((operator, self.tighter(power)?));
        }
        Ok(Expr::Chain(Box::new(first), rest))
    }

    fn binary(&self) -> Option<(u8, Binary)> {
        let Token::Symbol(symbol) = self.token() else { return None };
        BINARY.iter().find(|(text, ..)| text == symbol).map(|(_, power, operator)| (*power, *operator))
    }

    /// Whether IN, BETWEEN or LIKE follows, and whether with NOT.
    fn comparison_word(&self) -> Option<bool> {
        const WORDS: [&str; 3] = ["IN", "BETWEEN", "LIKE"];
        if WORDS.iter().any(|word| self.sees_word(word)) {
            return Some(false);
        }
        let negated = self.sees_word("NOT") && WORDS.iter().any(|word| self.next_is_word(word));
        negated.then_some(true)
    }

    fn comparison(&mut self, value: Expr, negated: bool) -> Parsed<Expr> {
        if negated {
            self.advance();
        }
        let found = if self.takes_word("IN") {
            self.symbol("(")?;
            let list = self.nested(1, |parser| parser.until(")", |parser| parser.tighter(0)))?;
            if list.is_empty() {
                return Err(Fault::at(self.end_before().0, "IN needs at least one value"));
            }
            Expr::In(Box::new(value), List::Open(list))
        } else if self.takes_word("BETWEEN") {
            let from = self.tighter(COMPARISON)?;
            self.word("AND")?;
            let to = self.tighter(COMPARISON)?;
            Expr::Between(Box::new([value, from, to]))
        } else {
            self.word("LIKE")?;
            let pattern = self.tighter(COMPARISON)?;
            let escape = if self.takes_word("ESCAPE") { Some(self.escape()?) } else { None };
            Expr::Like(Box::new(Like { value, pattern, escape, compiled: None }))
        };
        Ok(if negated { Expr::Unary(Unary::Not, Box::new(found)) } else { found })
    }

    fn escape(&mut self) -> Parsed<char> {
        if let Token::Text(text) = self.token() {
            let mut chars = text.chars();
            if let (Some(only), None) = (chars.next(), chars.next()) {
                self.advance();
                return Ok(only);
            }
        }
        Err(self.expected("a string of one character after ESCAPE"))
    }

    fn prefix(&mut self) -> Parsed<Expr> {
        if self.takes_word("NOT") {
            let operand = self.nested(1, |parser| parser.tighter(NOT))?;
            return Ok(Expr::Unary(Unary::Not, Box::new(operand)));
        }
        let operator = match self.token() {
            Token::Symbol("-") => Unary::Minus,
            Token::Symbol("+") => Unary::Plus,
            Token::Symbol("~") => Unary::Complement,
            Token::Word(_)
            | Token::Parameter(_)
            | Token::Text(_)
            | Token::Number(_)
            | Token::Symbol(_)
            | Token::End => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.advance();
        if let (Unary::Minus, Token::Number(number)) = (operator, self.token()) {
            let negative = format!("-{number}").parse().ok().map(Value::Number);
            if let Some(negative) = negative {
                self.advance();
                return self.postfix(Expr::Literal(negative));
            }
        }
        let operand = self.nested(1, |parser| parser.tighter(PREFIX))?;
        Ok(Expr::Unary(operator, Box::new(operand)))
    }

    fn primary(&mut self) -> Parsed<Expr> {
        if let Some(literal) = self.token().literal() {
            self.advance();
            return Ok(Expr::Literal(literal));
        }
        match self.token().clone() {
            Token::Parameter(name) => {
                self.advance();
                Ok(Expr::Parameter(name))
            }
            Token::Symbol("(") => self.bracketed(),
            Token::Symbol("[") => {
                self.advance();
                let items = self.nested(1, |parser| parser.until("]", |parser| parser.tighter(0)))?;
                Ok(Expr::Array(items))
            }
            Token::Symbol("{") => {
                self.advance();
                self.nested(1, |parser| parser.until("}", Self::member)).map(Expr::Object)
            }
            Token::Word(word) => self.worded(&word),
            Token::Text(_) | Token::Number(_) | Token::Symbol(_) | Token::End => {
                Err(self.expected("an expression"))
            }
        }
    }

    fn bracketed(&mut self) -> Parsed<Expr> {
        self.symbol("(")?;
        let inner = if self.sees_word("SELECT") {
            let select = self.nested(limits::SUBQUERY_NESTING, Self::select)?;
            Expr::Subquery(Subquery::Scalar, Box::new(select))
        } else {
            self.nested(1, |parser| parser.tighter(0))?
        };
        self.symbol(")")?;
        Ok(inner)
    }

    fn member(&mut self) -> Parsed<(String, Expr)> {
        let name = match self.token() {
            Token::Word(name) | Token::Text(name) => name.clone(),
            Token::Parameter(_) | Token::Number(_) | Token::Symbol(_) | Token::End => {
                return Err(self.expected("the name of a property"));
            }
        };
        self.advance();
        self.symbol(":")?;
        Ok((name, self.tighter(0)?))
    }

    /// Items with commas between them, up to a closing symbol.
    fn until<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.takes(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.takes(close) {
                return Ok(items);
            }
            if !self.takes(",") {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// A keyword that is a value, a call, or a name.
    fn worded(&mut self, word: &str) -> Parsed<Expr> {
        if self.next_is("(") {
            return self.call(word);
        }
        if word.eq_ignore_ascii_case("udf") && self.next_is(".") {
            return Err(self.fault("`udf.` calls a function of your own, and there are none here"));
        }
        let literal = match word.to_ascii_uppercase().as_str() {
            "TRUE" => Expr::Literal(Value::Bool(true)),
            "FALSE" => Expr::Literal(Value::Bool(false)),
            "NULL" => Expr::Literal(Value::Null),
            "UNDEFINED" => Expr::Undefined,
            _ if names::is_reserved(word) => return Err(self.expected("an expression")),
            _ => Expr::Name(word.to_owned(), self.place()),
        };
        self.advance();
        Ok(literal)
    }

    fn call(&mut self, word: &str) -> Parsed<Expr> {
        let place = self.place();
        if let Some(kind) = subquery(word) {
            self.advance();
            self.advance();
            if !self.sees_word("SELECT") {
                return Err(self.expected(&format!("a subquery in `{}`", word.to_ascii_uppercase())));
            }
            let select = self.nested(limits::SUBQUERY_NESTING, Self::select)?;
            self.symbol(")")?;
            return Ok(Expr::Subquery(kind, Box::new(select)));
        }
        let aggregate = AggregateKind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(word));
        let function = Function::named(word);
        if aggregate.is_none() && function.is_none() {
            return Err(self.fault(unknown(word)));
        }
        self.advance();
        self.advance();
        let mut arguments = self.nested(1, |parser| parser.until(")", |parser| parser.tighter(0)))?;
        let count = arguments.len();
        let wrong =
            |name: &str, wanted: &str| Fault::at(place.0, format!("`{name}` takes {wanted}, not {count}"));
        if let Some(kind) = aggregate {
            return match arguments.pop() {
                Some(argument) if count == 1 => Ok(Expr::AggregateCall(kind, Box::new(argument), place)),
                _ => Err(wrong(kind.name(), "1 argument")),
            };
        }
        match function {
            Some(function) if function.accepts(count) => Ok(Expr::Call(function, arguments)),
            Some(function) => Err(wrong(function.name(), &format!("{} arguments", function.arity_text()))),
            None => Err(Fault::at(place.0, unknown(word))),
        }
    }

    /// What follows a value: `.name`, `["name"]`, `[0]`, `[@name]`.
    pub(super) fn postfix(&mut self, base: Expr) -> Parsed<Expr> {
        let mut steps = Vec::new();
        loop {
            if self.takes(".") {
                let Token::Word(name) = self.token().clone() else {
                    return Err(self.expected("the name of a property after `.`"));
                };
                self.advance();
                steps.push(Step::Property(name));
            } else if self.takes("[") {
                let step = self.nested(1, |parser| parser.tighter(0))?;
                self.symbol("]")?;
                steps.push(Step::of(step));
            } else if steps.is_empty() {
                return Ok(base);
            } else {
                return Ok(Expr::Path(Box::new(base), steps));
            }
        }
    }
}

fn subquery(word: &str) -> Option<Subquery> {
    Some(match word.to_ascii_uppercase().as_str() {
        "EXISTS" => Subquery::Exists,
        "ARRAY" => Subquery::Array,
        "ALL" => Subquery::All,
        "FIRST" => Subquery::First,
        "LAST" => Subquery::Last,
        _ => return None,
    })
}

fn unknown(name: &str) -> String {
    const SEARCH: [&str; 3] = ["FULLTEXT", "VECTORDISTANCE", "RRF"];
    let upper = name.to_ascii_uppercase();
    if names::is_reserved(name) {
        return format!("expected an expression, found `{name}`");
    }
    if SEARCH.iter().any(|search| upper.starts_with(search)) {
        return format!("`{name}` is not built: there is no vector or full text search");
    }
    match names::suggestion(name) {
        Some(near) => format!("there is no function `{name}`: did you mean `{near}`?"),
        None => format!("there is no function `{name}`"),
    }
}

impl Step {
    /// The step of a literal is known at once.
    pub(in super::super) fn of(expr: Expr) -> Self {
        if let Expr::Literal(Value::String(name)) = expr {
            return Self::Property(name);
        }
        let index = expr.literal().and_then(value::number);
        match index.filter(|index| index.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(index)) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within u32")]
            Some(index) => Self::Item(index as usize),
            None => Self::Computed(expr),
        }
    }
}

impl Expr {
    /// The last name of a path: what a column or a source is called without AS.
    pub(in super::super) fn last_name(&self) -> Option<&str> {
        if let Self::Name(name, _) = self {
            return Some(name);
        }
        if let Self::Path(_, steps) = self
            && let Some(Step::Property(name)) = steps.last()
        {
            return Some(name);
        }
        None
    }
}
