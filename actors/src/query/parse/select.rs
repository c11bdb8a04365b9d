//! Queries and subqueries: SELECT, FROM, WHERE, GROUP BY, ORDER BY, OFFSET LIMIT.

use super::super::ast::{Column, Count, Expr, OrderItem, Place, Projection, Select, Source, Subquery};
use super::super::lexer::Token;
use super::super::limits;
use super::{Parsed, Parser, names};

impl Parser<'_> {
    pub(super) fn select(&mut self) -> Parsed<Select> {
        let place = self.place();
        self.word("SELECT")?;
        let distinct = self.takes_word("DISTINCT");
        let top = if self.takes_word("TOP") { Some(self.count("TOP")?) } else { None };
        let projection = self.projection()?;
        let mut select = Select { place, distinct, top, ..self.empty(projection) };
        if self.takes_word("FROM") {
            select.sources = self.sources()?;
        } else if select.projection == Projection::All {
            return Err(self.expected("`FROM`: `*` is what it names"));
        }
        self.filter(&mut select)?;
        if self.takes_word("GROUP") {
            self.word("BY")?;
            select.group_by = self.list(Self::expression)?;
        }
        if self.sees_word("HAVING") {
            return Err(self.fault("HAVING is no part of the language: filter a subquery, `SELECT ... FROM (SELECT ... GROUP BY ...) g WHERE ...`, or the answer"));
        }
        self.ending(&mut select)?;
        Ok(select)
    }

    pub(super) fn empty(&self, projection: Projection) -> Select {
        Select {
            place: self.place(),
            distinct: false,
            top: None,
            projection,
            sources: Vec::new(),
            filter: None,
            filter_span: (Place(0), Place(0)),
            group_by: Vec::new(),
            order_by: Vec::new(),
            offset: None,
            limit: None,
            aggregates: Vec::new(),
            grouped: false,
        }
    }

    pub(super) fn filter(&mut self, select: &mut Select) -> Parsed<()> {
        if self.takes_word("WHERE") {
            let start = self.place();
            select.filter = Some(self.expression()?);
            select.filter_span = (start, self.end_before());
        }
        Ok(())
    }

    fn ending(&mut self, select: &mut Select) -> Parsed<()> {
        if self.takes_word("ORDER") {
            self.word("BY")?;
            if self.sees_word("RANK") {
                return Err(self.fault("ORDER BY RANK is not built: there is no vector or full text search"));
            }
            select.order_by = self.list(Self::order_item)?;
        }
        if self.sees_word("OFFSET") {
            if select.top.is_some() {
                return Err(self.fault("TOP and OFFSET do not go together: write OFFSET ... LIMIT ..."));
            }
            self.advance();
            select.offset = Some(self.count("OFFSET")?);
            self.word("LIMIT")?;
            select.limit = Some(self.count("LIMIT")?);
        } else if self.sees_word("LIMIT") {
            return Err(self.fault("LIMIT stands after OFFSET: write OFFSET 0 LIMIT ..."));
        }
        Ok(())
    }

    fn projection(&mut self) -> Parsed<Projection> {
        if self.takes("*") {
            return Ok(Projection::All);
        }
        if self.takes_word("VALUE") {
            return self.expression().map(Projection::Value);
        }
        self.list(Self::column).map(Projection::Columns)
    }

    fn column(&mut self) -> Parsed<Column> {
        if self.sees("*") {
            return Err(self.fault("`*` stands alone: it is the whole document"));
        }
        let expr = self.expression()?;
        let alias = if self.takes_word("AS") {
            // After AS there is nothing else that the word could be, so keywords may be names here.
            match self.token().clone() {
                Token::Word(word) => {
                    self.advance();
                    Some(word)
                }
                Token::Parameter(_) | Token::Text(_) | Token::Number(_) | Token::Symbol(_) | Token::End => {
                    return Err(self.expected("a name after AS"));
                }
            }
        } else {
            self.alias()
        };
        let alias = alias.or_else(|| expr.last_name().map(str::to_owned));
        Ok(Column { expr, alias, name: String::new() })
    }

    /// A name that follows without AS.
    fn alias(&mut self) -> Option<String> {
        let Token::Word(word) = self.token() else { return None };
        if names::is_reserved(word) {
            return None;
        }
        let word = word.clone();
        self.advance();
        Some(word)
    }

    fn order_item(&mut self) -> Parsed<OrderItem> {
        let place = self.place();
        let expr = self.expression()?;
        let descending = self.takes_word("DESC");
        if !descending {
            self.takes_word("ASC");
        }
        Ok(OrderItem { place, expr, descending })
    }

    fn count(&mut self, what: &str) -> Parsed<Count> {
        let count = match self.token() {
            Token::Number(number) => number.as_u64().map(Count::Number),
            Token::Parameter(name) => Some(Count::Parameter(name.clone())),
            Token::Word(_) | Token::Text(_) | Token::Symbol(_) | Token::End => None,
        };
        let Some(count) = count else {
            return Err(self.expected(&format!("a whole number or a parameter after {what}")));
        };
        self.advance();
        Ok(count)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.takes(",") {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn sources(&mut self) -> Parsed<Vec<Source>> {
        let mut sources = vec![self.source()?];
        while self.sees_word("JOIN") {
            self.joins += 1;
            if self.joins > limits::JOINS {
                return Err(self.fault(format!("the query has more than {} JOINs", limits::JOINS)));
            }
            self.advance();
            sources.push(self.source()?);
        }
        Ok(sources)
    }

    fn source(&mut self) -> Parsed<Source> {
        let place = self.place();
        if matches!(self.token(), Token::Word(_)) && self.next_is_word("IN") {
            let (alias, place) = self.name("an alias")?;
            self.advance();
            let from = if self.sees("(") { self.rows()? } else { self.source_path()? };
            return Ok(Source { place, alias: Some(alias), iterates: true, from });
        }
        let from = if self.sees("(") { self.rows()? } else { self.source_path()? };
        let alias =
            if self.takes_word("AS") { Some(self.name("an alias after AS")?.0) } else { self.alias() };
        let alias = alias.or_else(|| from.last_name().map(str::to_owned));
        Ok(Source { place, alias, iterates: false, from })
    }

    fn rows(&mut self) -> Parsed<Expr> {
        self.symbol("(")?;
        let select = self.nested(limits::SUBQUERY_NESTING, Self::select)?;
        self.symbol(")")?;
        Ok(Expr::Subquery(Subquery::Rows, Box::new(select)))
    }

    fn source_path(&mut self) -> Parsed<Expr> {
        let (name, place) = self.name("a source: a name, a path or a subquery in brackets")?;
        self.postfix(Expr::Name(name, place))
    }
}
