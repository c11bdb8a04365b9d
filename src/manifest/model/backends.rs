//! The part of a manifest that is about servers behind the gateway.

pub use crate::upstream::Definition as Backend;

/// A server that answers an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Whom it is sent to.
    pub to: UpstreamTo,
    /// The path below that of the server, piece by piece.
    pub path: Vec<Piece>,
    /// What stands in the query before the caller's own.
    pub query: Option<String>,
    /// Whether the header `Authorization` goes on.
    pub forward_authorization: bool,
}

/// Whom a request is sent to.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamTo {
    /// A backend that nobody else uses.
    Inline(Box<Backend>),
    /// The backend of this name.
    Backend(String),
}

/// A piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// The value of this parameter, which is in the operation's path.
    Parameter(String),
}

impl Upstream {
    /// The name of its backend, given its api and its operation. One that nobody else uses is named after them; no
    /// backend of the manifest has a dot in its name.
    pub fn backend_name(&self, api: &str, operation: &str) -> String {
        match &self.to {
            UpstreamTo::Inline(_) => format!("{api}.{operation}"),
            UpstreamTo::Backend(name) => name.clone(),
        }
    }
}
