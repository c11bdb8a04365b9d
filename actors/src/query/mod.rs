//! The query language of documents: parse, plan, evaluate. Pure: it reads no disk and knows no actor.
//!
//! A text becomes a [`Query`], with its parameters a [`BoundQuery`].

mod aggregate;
mod ast;
mod bind;
mod condition;
mod error;
mod evaluate;
pub mod execution;
pub mod functions;
mod held;
mod lexer;
mod like;
pub mod limits;
mod parse;
pub mod plan;
mod ranking;
mod resolve;
mod rows;
mod subquery;
pub mod value;

pub use bind::{BoundQuery, Query};
pub use condition::Condition;
pub use error::{BindError, QueryError, SyntaxError};
pub use execution::{End, Execution, Flow, PageLimits, PageOfRows, Resume, Start};
pub use functions::{Context, Function};
pub use plan::{Access, IndexDefinition, IndexRange, Plan};

#[cfg(test)]
mod tests;
