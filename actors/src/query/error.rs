//! What can go wrong with a query, for each of its doors: parsing, binding, executing.

use std::fmt;

use super::limits;

/// A text that is no query, with the place where that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    /// What was expected or is not known.
    pub message: String,
    /// Line of the place, from 1.
    pub line: usize,
    /// Column of the place in characters, from 1.
    pub column: usize,
    /// Place in bytes from the beginning of the text.
    pub offset: usize,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl SyntaxError {
    /// The fault with its offset turned into line and column.
    pub(super) fn locate(fault: Fault, text: &str) -> Self {
        let before = text.get(..fault.offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        Self { message: fault.message, line, column, offset: fault.offset }
    }
}

/// A fault while its place is still an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) offset: usize,
}

impl Fault {
    pub(super) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset }
    }
}

/// Parameters that do not fit their query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The query names a parameter that was not given.
    #[error("the query uses `@{name}`, but no parameter of that name is given")]
    Missing {
        /// Name without `@`.
        name: String,
    },
    /// TOP, OFFSET and LIMIT count rows.
    #[error("`@{name}` counts rows, so it must be a whole number from 0, not `{found}`")]
    NotACount {
        /// Name without `@`.
        name: String,
        /// The value that was given.
        found: String,
    },
}

/// Why a page could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The continuation belongs to another text or to other parameters.
    #[error("the continuation belongs to another query: send the text and the parameters that it began with")]
    OtherQuery,
    /// The continuation was made in another way than this page would be.
    #[error("the continuation was made with an index that is gone or new: begin the query again")]
    OtherOrder,
    /// More groups than a page may hold.
    #[error("GROUP BY makes more than {limit} groups: narrow it with WHERE, or group by fewer properties")]
    TooManyGroups {
        /// The most groups allowed.
        limit: usize,
    },
    /// What an unfinished page knows does not fit into its continuation.
    #[error(
        "the query was interrupted, and what it knows so far takes {bytes} bytes, more than {} in a continuation: \
         narrow it with WHERE, project less, or declare an index for its ORDER BY",
        limits::STATE_BYTES
    )]
    StateTooLarge {
        /// Size of the state.
        bytes: usize,
    },
    /// FROM and JOIN multiply to too much within one document.
    #[error(
        "JOIN makes more than {} combinations within one document: filter in a subquery, `JOIN (SELECT ... WHERE ...) x`",
        limits::COMBINATIONS
    )]
    TooManyCombinations,
}
