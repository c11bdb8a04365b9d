//! Text to tokens.
//!
//! Invariant: every token knows from where to where it stands, and the last one is the end of the text.

use std::ops::Range;

use serde_json::{Number, Value};
use winnow::LocatingSlice;
use winnow::ascii::multispace1;
use winnow::combinator::{alt, opt, peek, preceded, repeat};
use winnow::error::ParserError;
use winnow::prelude::*;
use winnow::stream::{Location, Stream};
use winnow::token::{any, one_of, take, take_while};

use super::error::Fault;

type Input<'t> = LocatingSlice<&'t str>;
type Lexed<T> = Result<T, Fault>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword or a name: which of them it is depends on its place.
    Word(String),
    /// `@name`, without the `@`.
    Parameter(String),
    Text(String),
    Number(Number),
    Symbol(&'static str),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) span: Range<usize>,
}

/// Longer symbols come first, so that `>>>` is not read as `>`.
const SYMBOLS: [&str; 31] = [
    ">>>", "<<", ">>", "<=", ">=", "<>", "!=", "||", "??", "(", ")", "[", "]", "{", "}", ",", ".", ":", "?",
    "=", "<", ">", "|", "^", "&", "~", "+", "-", "*", "/", "%",
];

impl<'t> ParserError<Input<'t>> for Fault {
    type Inner = Self;

    fn from_input(input: &Input<'t>) -> Self {
        let found = input.as_ref().chars().next();
        let found = found.map_or("the end of the query".to_owned(), |found| format!("`{found}`"));
        Self::at(input.current_token_start(), format!("{found} means nothing here"))
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

/// All tokens of a text.
pub(super) fn tokens(text: &str) -> Lexed<Vec<Lexeme>> {
    let mut input = LocatingSlice::new(text);
    let mut found = Vec::new();
    loop {
        blank(&mut input)?;
        let start = input.current_token_start();
        if input.is_empty() {
            found.push(Lexeme { token: Token::End, span: start..start });
            return Ok(found);
        }
        let token = token(&mut input)?;
        found.push(Lexeme { token, span: start..input.current_token_start() });
    }
}

/// White space, and comments from `--` to the end of the line.
fn blank(input: &mut Input<'_>) -> Lexed<()> {
    let comment = ("--", take_while(0.., |c| c != '\n')).void();
    repeat(0.., alt((multispace1.void(), comment, one_of(['\u{feff}', '\u{a0}']).void()))).parse_next(input)
}

fn token(input: &mut Input<'_>) -> Lexed<Token> {
    let next = peek(any).parse_next(input)?;
    match next {
        '"' | '\'' => text(input).map(Token::Text),
        '@' => {
            let start = input.current_token_start();
            preceded('@', take_while(1.., is_word))
                .map(|name: &str| Token::Parameter(name.to_owned()))
                .parse_next(input)
                .map_err(|_: Fault| Fault::at(start, "expected the name of a parameter after `@`"))
        }
        c if c.is_ascii_digit() => number(input),
        '.' if input.as_ref().chars().nth(1).is_some_and(|c| c.is_ascii_digit()) => number(input),
        c if is_word(c) => {
            take_while(1.., is_word).map(|word: &str| Token::Word(word.to_owned())).parse_next(input)
        }
        _ => symbol(input),
    }
}

fn symbol(input: &mut Input<'_>) -> Lexed<Token> {
    let found = SYMBOLS.iter().find(|symbol| input.as_ref().starts_with(**symbol));
    let Some(found) = found else { return Err(Fault::from_input(input)) };
    if *found == "=" && input.as_ref().starts_with("==") {
        return Err(Fault::at(input.current_token_start(), "`==` is no operator: write `=`"));
    }
    take(found.len()).parse_next(input).map(|_: &str| Token::Symbol(found))
}

fn is_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphanumeric()
}

fn number(input: &mut Input<'_>) -> Lexed<Token> {
    let start = input.current_token_start();
    let digits = |input: &mut Input<'_>| -> Lexed<()> {
        take_while(0.., |c: char| c.is_ascii_digit()).void().parse_next(input)
    };
    let fraction = opt(('.', digits));
    let exponent =
        opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), take_while(1.., |c: char| c.is_ascii_digit())));
    let written: &str = (digits, fraction, exponent).take().parse_next(input)?;
    if input.as_ref().starts_with(is_word) {
        let place = input.current_token_start();
        return Err(Fault::at(
            place,
            format!("`{written}` is followed by a letter: names do not begin with a digit"),
        ));
    }
    read_number(written)
        .map(Token::Number)
        .ok_or_else(|| Fault::at(start, format!("`{written}` is too large for a number")))
}

/// Whole numbers keep all their digits as long as 64 bits hold them; others are doubles.
fn read_number(written: &str) -> Option<Number> {
    if let Ok(whole) = written.parse::<u64>() {
        return Some(Number::from(whole));
    }
    Number::from_f64(written.parse().ok()?)
}

/// A string in single or double quotes, with the escapes of JSON.
fn text(input: &mut Input<'_>) -> Lexed<String> {
    let start = input.current_token_start();
    let quote = any.parse_next(input)?;
    let mut found = String::new();
    loop {
        let plain: &str = take_while(0.., |c| c != quote && c != '\\').parse_next(input)?;
        found.push_str(plain);
        let place = input.current_token_start();
        let Ok(stop) = any::<_, Fault>.parse_next(input) else {
            return Err(Fault::at(start, format!("the string that begins here has no closing `{quote}`")));
        };
        if stop == quote {
            return Ok(found);
        }
        found.push(escape(input, place)?);
    }
}

fn escape(input: &mut Input<'_>, place: usize) -> Lexed<char> {
    let ended = |_: Fault| Fault::at(place, "the text ends within an escape");
    Ok(match any.parse_next(input).map_err(ended)? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        same @ ('"' | '\'' | '\\' | '/') => same,
        'u' => unicode(input, place)?,
        other => {
            let hint = format!("`\\{other}` is no escape: a backslash itself is written `\\\\`");
            return Err(Fault::at(place, hint));
        }
    })
}

/// What follows `\u`: four digits, or two times four that are one character together.
fn unicode(input: &mut Input<'_>, place: usize) -> Lexed<char> {
    let digits = |input: &mut Input<'_>| -> Lexed<u32> {
        let digits: &str = take_while(4..=4, |c: char| c.is_ascii_hexdigit()).parse_next(input)?;
        u32::from_str_radix(digits, 16).map_err(|_| Fault::from_input(input))
    };
    let wrong = |_: Fault| Fault::at(place, "expected four hexadecimal digits after `\\u`");
    let first = digits(input).map_err(wrong)?;
    if let Some(alone) = char::from_u32(first) {
        return Ok(alone);
    }
    let checkpoint = input.checkpoint();
    let second = preceded("\\u", digits).parse_next(input);
    match second {
        Ok(second) if first < 0xDC00 && (0xDC00..0xE000).contains(&second) => {
            let joined = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER))
        }
        Ok(_) | Err(_) => {
            // Half of a character: JSON allows it, UTF-8 does not.
            input.reset(&checkpoint);
            Ok(char::REPLACEMENT_CHARACTER)
        }
    }
}

impl Token {
    /// The value of a literal token.
    pub(super) fn literal(&self) -> Option<Value> {
        match self {
            Self::Text(text) => Some(Value::from(text.as_str())),
            Self::Number(number) => Some(Value::Number(number.clone())),
            Self::Word(_) | Self::Parameter(_) | Self::Symbol(_) | Self::End => None,
        }
    }
}
