//! Tokens to a tree. Recursive descent, one token ahead; names are turned into places afterwards.
//!
//! Invariant: recursion is counted, so no text can overflow the stack.

mod expression;
mod names;
mod select;

use super::ast::{Expr, Place, Projection, Select};
use super::error::{Fault, SyntaxError};
use super::lexer::{self, Lexeme, Token};
use super::limits;
use super::resolve;

type Parsed<T> = Result<T, Fault>;

/// A query with its names resolved.
pub(super) fn query(text: &str) -> Result<Select, SyntaxError> {
    let parse = |parser: &mut Parser<'_>| {
        let mut select = parser.select()?;
        parser.end()?;
        resolve::query(&mut select)?;
        Ok(select)
    };
    Parser::new(text)
        .and_then(|mut parser| parse(&mut parser))
        .map_err(|fault| SyntaxError::locate(fault, text))
}

/// A condition: a whole query, or its part from FROM or from WHERE on.
pub(super) fn condition(text: &str) -> Result<Select, SyntaxError> {
    let parse = |parser: &mut Parser<'_>| {
        let mut select = if parser.sees_word("SELECT") {
            parser.select()?
        } else {
            let mut select = parser.empty(Projection::Value(Expr::Literal(true.into())));
            if parser.takes_word("FROM") {
                select.sources = parser.sources()?;
            } else if !parser.sees_word("WHERE") {
                return Err(parser.expected("`SELECT`, `FROM` or `WHERE`"));
            }
            parser.filter(&mut select)?;
            select
        };
        parser.end()?;
        resolve::condition(&mut select)?;
        Ok(select)
    };
    Parser::new(text)
        .and_then(|mut parser| parse(&mut parser))
        .map_err(|fault| SyntaxError::locate(fault, text))
}

struct Parser<'t> {
    text: &'t str,
    lexemes: Vec<Lexeme>,
    at: usize,
    nesting: usize,
    recursion: usize,
    joins: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Parsed<Self> {
        if text.len() > limits::TEXT_BYTES {
            let message = format!("the query has {} bytes, more than {}", text.len(), limits::TEXT_BYTES);
            return Err(Fault::at(0, message));
        }
        Ok(Self { text, lexemes: lexer::tokens(text)?, at: 0, nesting: 0, recursion: 0, joins: 0 })
    }

    fn token(&self) -> &Token {
        self.lexemes.get(self.at).map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn next_token(&self) -> &Token {
        self.lexemes.get(self.at + 1).map_or(&Token::End, |lexeme| &lexeme.token)
    }

    fn place(&self) -> Place {
        Place(self.lexemes.get(self.at).map_or(self.text.len(), |lexeme| lexeme.span.start))
    }

    /// Where the token before this one ends.
    fn end_before(&self) -> Place {
        let before = self.at.checked_sub(1).and_then(|before| self.lexemes.get(before));
        Place(before.map_or(0, |lexeme| lexeme.span.end))
    }

    fn advance(&mut self) {
        self.at += 1;
    }

    fn sees_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn next_is_word(&self, word: &str) -> bool {
        matches!(self.next_token(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = self.sees_word(word);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.takes_word(word) { Ok(()) } else { Err(self.expected(&format!("`{word}`"))) }
    }

    fn sees(&self, symbol: &str) -> bool {
        matches!(self.token(), Token::Symbol(found) if *found == symbol)
    }

    fn next_is(&self, symbol: &str) -> bool {
        matches!(self.next_token(), Token::Symbol(found) if *found == symbol)
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = self.sees(symbol);
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> Parsed<()> {
        if self.takes(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    fn end(&self) -> Parsed<()> {
        if *self.token() == Token::End { Ok(()) } else { Err(self.expected("the end of the query")) }
    }

    /// A name that is no keyword.
    fn name(&mut self, what: &str) -> Parsed<(String, Place)> {
        let place = self.place();
        match self.token() {
            Token::Word(word) if !names::is_reserved(word) => {
                let word = word.clone();
                self.advance();
                Ok((word, place))
            }
            Token::Word(word) => {
                let message = format!("expected {what}, but `{word}` is a keyword");
                Err(Fault::at(place.0, message))
            }
            Token::Parameter(_) | Token::Text(_) | Token::Number(_) | Token::Symbol(_) | Token::End => {
                Err(self.expected(what))
            }
        }
    }

    fn expected(&self, what: &str) -> Fault {
        self.fault(format!("expected {what}, found {}", self.found()))
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::at(self.place().0, message)
    }

    /// The token as it stands in the text.
    fn found(&self) -> String {
        const SHOWN: usize = 40;
        let Some(lexeme) = self.lexemes.get(self.at).filter(|lexeme| lexeme.token != Token::End) else {
            return "the end of the query".to_owned();
        };
        let text = self.text.get(lexeme.span.clone()).unwrap_or_default();
        let shown: String = text.chars().take(SHOWN).collect();
        format!("`{shown}{}`", if shown.len() < text.len() { "…" } else { "" })
    }

    /// Counts one more bracket, prefix, call or (several) subquery around what `parse` reads.
    fn nested<T>(&mut self, levels: usize, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.nesting += levels;
        if self.nesting > limits::NESTING {
            return Err(self.too_deep());
        }
        let parsed = parse(self);
        self.nesting -= levels;
        parsed
    }

    fn too_deep(&self) -> Fault {
        self.fault(format!("the query is nested deeper than {} levels", limits::NESTING))
    }
}
