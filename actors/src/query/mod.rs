//! The query language of documents: parse, plan, evaluate. Pure: it reads no disk and knows no actor.

pub mod functions;
pub mod value;
