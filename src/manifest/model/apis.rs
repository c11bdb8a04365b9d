//! The part of a manifest that callers meet: apis, their operations, and what answers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lanekeeper_actors::policy::limits::Limit;
use lanekeeper_actors::policy::permits::Priority;
use lanekeeper_actors::query::Query;

use super::WebhookAction;
use super::backends::Upstream;
use super::events::QueueAction;

/// A set of operations under one path.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Where the API begins; literal segments only.
    pub path: PathTemplate,
    /// The version, when the API has one; it is the path segment after `path`.
    pub version: Option<PathVersion>,
    /// Whether it may be called without a key, on the terms of no product.
    pub open: bool,
    /// How often, whoever calls.
    pub limits: Vec<Limit>,
    /// How its refusals are written.
    pub errors: ErrorStyle,
    /// What it offers, by name.
    pub operations: BTreeMap<String, Operation>,
}

impl Api {
    /// The path of the API, version included.
    pub fn base(&self) -> PathTemplate {
        let version = self.version.iter().map(|version| Segment::Literal(version.name.clone()));
        PathTemplate { segments: self.path.segments.iter().cloned().chain(version).collect() }
    }
}

/// How refusals are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorStyle {
    /// Problem details (RFC 9457).
    #[default]
    Problem,
    /// The bodies of Azure API Management.
    Apim,
}

/// A version that callers name in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// The path segment, such as `v1`.
    pub name: String,
}

/// One thing that an API offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The method of the request.
    pub method: Method,
    /// The path below the API's path and version, as written.
    pub path: PathTemplate,
    /// The path of the request: the API's path, its version, and `path`. No two operations of a manifest
    /// answer to the same method and route.
    pub route: PathTemplate,
    /// Whether callers may or must say that a request is the same as an earlier one.
    pub idempotency: Option<Idempotency>,
    /// How often, whoever calls.
    pub limits: Vec<Limit>,
    /// How much it matters when not all can be done.
    pub priority: Priority,
    /// What answers.
    pub target: Target,
}

/// What an operation makes of the header `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Honoured where it is sent.
    Optional,
    /// Refused without it.
    Required,
}

/// An HTTP method (RFC 9110 section 9.3, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
}

impl Method {
    /// The method as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// A path whose segments are fixed or parameters. Writes itself as `/loads/{lane}`; without segments, as `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathTemplate {
    /// The segments, without slashes.
    pub segments: Vec<Segment>,
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text, of unreserved characters (RFC 3986 section 2.3).
    Literal(String),
    /// Any text, taken under this name. Names are unique in a path.
    Parameter(String),
}

impl PathTemplate {
    /// Whether a parameter of this name is in the path.
    pub fn has_parameter(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Parameter(found) if found == name))
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// What answers an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Documents of a container.
    Documents {
        /// The container.
        container: String,
        /// What is done to them.
        action: Action,
    },
    /// Events that are published to a topic.
    Publish {
        /// The topic, to which callers may publish.
        topic: String,
    },
    /// Events of a queue.
    Queue {
        /// The event subscription, whose events are received.
        subscription: String,
        /// What is done to them.
        action: QueueAction,
    },
    /// Webhooks that the caller makes.
    Webhooks {
        /// The topic that they listen to.
        topic: String,
        /// What is done to them.
        action: WebhookAction,
    },
    /// A server behind the gateway.
    Upstream(Upstream),
    /// A fixed answer.
    Mock(Mock),
}

/// What an operation does to documents.
///
/// A `partition` has one template for each part of the container's key, without those parts that follow from
/// the document's id.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Adds a document, which names itself or gets a name.
    Create {
        /// Where given, the partition key that the document must have.
        partition: Option<Vec<Template>>,
    },
    /// Returns a document.
    Read(DocumentAt),
    /// Creates or replaces a document.
    Upsert(DocumentAt),
    /// Replaces a document that is there.
    Replace(DocumentAt),
    /// Changes parts of a document that is there.
    Patch(DocumentAt),
    /// Removes a document.
    Delete(DocumentAt),
    /// Returns the documents of a partition in pages.
    List {
        /// The partition key.
        partition: Vec<Template>,
    },
    /// Does several things to the documents of a partition, all or none.
    Batch {
        /// The partition key.
        partition: Vec<Template>,
    },
    /// Does several things to documents, each by itself.
    Bulk {
        /// The first parts of the partition key that all of the documents must have, if any.
        partition: Vec<Template>,
    },
    /// Asks a question about documents.
    Query {
        /// The partition key, the beginning of one, or nothing for all documents that the caller may see.
        partition: Vec<Template>,
        /// The question.
        query: Arc<Query>,
        /// A value for each of its parameters, by name without `@`.
        parameters: Vec<(String, Parameter)>,
    },
    /// Removes all documents of a partition.
    DeletePartition {
        /// The partition key.
        partition: Vec<Template>,
    },
}

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentAt {
    /// The partition key.
    pub partition: Vec<Template>,
    /// The document's `id`.
    pub id: Template,
}

/// The value of a query's parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// This value.
    Literal(serde_json::Value),
    /// The path parameter of this name, read as this type.
    Segment(String, ParameterType),
    /// The parameter of this name in the request's own query, read as this type; without it the request is
    /// refused.
    Query(String, ParameterType),
}

/// What a text in a request is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParameterType {
    /// The text itself.
    #[default]
    String,
    /// A JSON number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// Any JSON value.
    Json,
}

/// A text, or the value of a path parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// This text.
    Literal(String),
    /// The value of this parameter, which is in the operation's path.
    Parameter(String),
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mock {
    /// Status, 200 to 599.
    pub status: u16,
    /// Headers, with lower-case names.
    pub headers: BTreeMap<String, String>,
    /// JSON body, if any.
    pub body: Option<serde_json::Value>,
}
