//! Stands between the apis of the manifest and the requests that come: which operation answers, if any.
//!
//! Invariant: at most one operation answers a method and path. A literal segment wins over a parameter, but only
//! for methods that it has an operation for.

mod place;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix_web::http::Method;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::container::{Catalog, Container};
use lanekeeper_actors::policy::limits::By;
use lanekeeper_actors::query::Query;

use super::metrics::{Metrics, RouteMetrics, TopicMetrics};
use super::proxy::Proxied;
use crate::manifest::{
    self, ErrorStyle, Idempotency, Manifest, Parameter, ParameterType, PathTemplate, QueueAction, Segment,
    Target,
};
use crate::upstream::Fleet;

pub(super) use place::{At, Fixed, FixedParts, Key, Location, Value, fixed_key, named_key, named_parts};

/// All operations of a manifest.
#[derive(Debug, Default)]
pub struct Routes {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    parameter: Option<Box<Node>>,
    operations: Vec<(Method, Arc<Operation>)>,
}

/// An operation, ready to be carried out.
#[derive(Debug)]
pub struct Operation {
    /// The API that it belongs to.
    pub api: Name,
    /// Its name in the API.
    pub name: Name,
    /// The path of its API, version included.
    pub base: Name,
    /// How its refusals are written.
    pub errors: ErrorStyle,
    /// What its limits, and those of its API, go by.
    pub counted: CountedBy,
    /// Its route as the manifest writes it, for logs and metrics.
    pub route: Name,
    /// What answers.
    pub work: Work,
    /// Where its answers are counted.
    pub metrics: RouteMetrics,
}

/// The parts of a request that limits go by.
#[derive(Debug, Default)]
pub struct CountedBy {
    /// Names of header fields.
    pub headers: Vec<Name>,
    /// Names of claims.
    pub claims: Vec<Name>,
}

/// What answers an operation.
#[derive(Debug)]
pub enum Work {
    /// Documents of a container.
    Documents(Documents),
    /// Events that are published.
    Publish(Publishing),
    /// Events of this subscription, which is a queue.
    Queue(Name, QueueAction),
    /// Webhooks of the caller.
    Webhooks(WebhookWork),
    /// A server behind the gateway.
    Upstream(Proxied),
    /// A fixed answer.
    Mock(manifest::Mock),
}

/// Where events are published to.
#[derive(Debug)]
pub struct Publishing {
    /// The topic.
    pub topic: Name,
    /// Where its events are counted.
    pub metrics: TopicMetrics,
}

/// What an operation does to webhooks, and to which.
#[derive(Debug)]
pub struct WebhookWork {
    /// The topic that they listen to.
    pub topic: Name,
    /// What is done.
    pub action: WebhookAction,
    /// Which one is meant, where one is.
    pub id: Option<Value>,
}

/// What is done to webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookAction {
    /// Makes one.
    Create,
    /// Returns all.
    List,
    /// Returns one.
    Show,
    /// Changes one.
    Update,
    /// Gives one a new secret.
    RotateSecret,
    /// Sends an event for a test.
    Test,
    /// Returns the last attempts.
    Attempts,
    /// Returns events that were given up.
    DeadLetters,
    /// Delivers such events again.
    Replay,
    /// Ends one.
    Delete,
}

/// What an operation does, and to which documents.
#[derive(Debug)]
pub struct Documents {
    /// The container.
    pub container: Arc<Container>,
    /// What is done.
    pub action: Action,
    /// Where a new document can be read, if the API has an operation for that.
    pub location: Option<Location>,
    /// What is made of an idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Method and route, in which idempotency keys mean something.
    pub scope: String,
}

/// What is done to documents.
#[derive(Debug)]
pub enum Action {
    /// Adds one.
    Create {
        /// The partition key that it must have.
        partition: Option<Key>,
    },
    /// Returns one.
    Read(At),
    /// Creates or replaces one.
    Upsert(At),
    /// Replaces one that is there.
    Replace(At),
    /// Changes parts of one.
    Patch(At),
    /// Removes one.
    Delete(At),
    /// Returns those of a partition, in pages.
    List {
        /// The partition key.
        partition: Key,
    },
    /// Does several things in a partition, all or none.
    Batch {
        /// The partition key.
        partition: Key,
    },
    /// Does several things, each by itself.
    Bulk {
        /// The parts of partition keys that the path fixes.
        fixed: Fixed,
    },
    /// Asks a question.
    Query {
        /// The partition key, or its beginning.
        partition: Key,
        /// The question.
        query: Arc<Query>,
        /// What its parameters are.
        parameters: Vec<(String, Argument)>,
    },
    /// Removes those of a partition.
    DeletePartition {
        /// The partition key, or its beginning.
        partition: Key,
    },
}

/// The value of a query's parameter.
#[derive(Debug)]
pub enum Argument {
    /// This value.
    Literal(serde_json::Value),
    /// The segment of this number, read as this type.
    Segment(usize, ParameterType),
    /// The query parameter of this name, read as this type.
    Query(String, ParameterType),
}

/// Why no operation answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// No operation has such a path.
    #[error("there is nothing at this path")]
    NotFound,
    /// Operations have this path, but not with this method.
    #[error("this path answers to {allow}")]
    Method {
        /// The methods, as in the header `Allow`.
        allow: String,
    },
}

impl Routes {
    /// Compiles the operations of a manifest.
    pub fn new(manifest: &Manifest, catalog: &Catalog, metrics: &Metrics, fleet: &Fleet) -> Self {
        let mut root = Node::default();
        for (api_name, api) in &manifest.apis {
            let name = Name::from(api_name.as_str());
            for (operation_name, operation) in &api.operations {
                let work = match &operation.target {
                    Target::Upstream(upstream) => {
                        let backend = fleet.find(&upstream.backend_name(api_name, operation_name));
                        let route = &operation.route;
                        backend.map(|backend| Work::Upstream(Proxied::new(upstream, backend, route)))
                    }
                    Target::Documents { .. }
                    | Target::Publish { .. }
                    | Target::Queue { .. }
                    | Target::Webhooks { .. }
                    | Target::Mock(_) => work(operation, api, catalog, metrics),
                };
                let Some(work) = work else { continue };
                let route = Name::from(operation.route.to_string());
                let method = method(operation.method);
                let metrics = metrics.route(&method, &route);
                let answering = Operation {
                    api: name.clone(),
                    name: operation_name.as_str().into(),
                    base: api.base().to_string().into(),
                    errors: api.errors,
                    counted: CountedBy::of(api, operation),
                    route,
                    work,
                    metrics,
                };
                root.at(&operation.route).operations.push((method, Arc::new(answering)));
            }
        }
        Self { root }
    }

    /// The operation that answers to this method and path.
    pub fn find(&self, wanted: &Method, segments: &[String]) -> Result<Arc<Operation>, Unroutable> {
        let mut nodes = Vec::new();
        self.root.collect(segments, &mut nodes);
        // A server answers HEAD wherever it answers GET (RFC 9110 section 9.1).
        let fallback = (wanted == Method::HEAD).then_some(Method::GET);
        for method in std::iter::once(wanted).chain(fallback.as_ref()) {
            let mut all = nodes.iter().flat_map(|node| &node.operations);
            if let Some((_, operation)) = all.find(|(found, _)| found == method) {
                return Ok(operation.clone());
            }
        }
        let mut allow: BTreeSet<&str> = BTreeSet::new();
        for (method, _) in nodes.iter().flat_map(|node| &node.operations) {
            allow.insert(method.as_str());
            if method == Method::GET {
                allow.insert(Method::HEAD.as_str());
            }
        }
        if allow.is_empty() {
            return Err(Unroutable::NotFound);
        }
        Err(Unroutable::Method { allow: allow.into_iter().collect::<Vec<_>>().join(", ") })
    }
}

impl CountedBy {
    fn of(api: &manifest::Api, operation: &manifest::Operation) -> Self {
        let all = || api.limits.iter().chain(&operation.limits).map(|limit| &limit.by);
        Self {
            headers: all().filter_map(By::header).cloned().collect(),
            claims: all().filter_map(By::claim).cloned().collect(),
        }
    }
}

impl Node {
    fn at(&mut self, route: &PathTemplate) -> &mut Self {
        route.segments.iter().fold(self, |node, segment| match segment {
            Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
            Segment::Parameter(_) => node.parameter.get_or_insert_default(),
        })
    }

    /// All nodes that a path leads to, those with literals first.
    fn collect<'n>(&'n self, segments: &[String], out: &mut Vec<&'n Self>) {
        let Some((first, rest)) = segments.split_first() else {
            out.push(self);
            return;
        };
        if let Some(node) = self.literals.get(first) {
            node.collect(rest, out);
        }
        if let Some(node) = self.parameter.as_deref().filter(|_| !first.is_empty()) {
            node.collect(rest, out);
        }
    }
}

/// The pointer of the partition key, for messages.
pub(super) fn key_pointer(container: &Container) -> String {
    let paths = container.rules.key.iter();
    paths.map(|part| format!("/{}", part.path.join("/"))).collect::<Vec<_>>().join(", ")
}

fn work(
    operation: &manifest::Operation,
    api: &manifest::Api,
    catalog: &Catalog,
    metrics: &Metrics,
) -> Option<Work> {
    let (container, action) = match &operation.target {
        Target::Mock(mock) => return Some(Work::Mock(mock.clone())),
        Target::Publish { topic } => {
            let publishing = Publishing { topic: topic.as_str().into(), metrics: metrics.topic(topic) };
            return Some(Work::Publish(publishing));
        }
        Target::Queue { subscription, action } => {
            return Some(Work::Queue(subscription.as_str().into(), *action));
        }
        Target::Webhooks { topic, action } => {
            return Some(Work::Webhooks(webhook_work(topic, action, &operation.route)));
        }
        // Its backend is looked for where there are backends.
        Target::Upstream(_) => return None,
        Target::Documents { container, action } => (container, action),
    };
    let location = api.operations.values().find_map(|reader| match &reader.target {
        Target::Documents { container: found, action: manifest::Action::Read(at) } if found == container => {
            Location::new(&reader.route, at, catalog.get(container)?)
        }
        Target::Documents { .. }
        | Target::Publish { .. }
        | Target::Queue { .. }
        | Target::Webhooks { .. }
        | Target::Upstream(_)
        | Target::Mock(_) => None,
    });
    // A manifest is refused when a container is not in it.
    let container = catalog.get(container)?.clone();
    let route = &operation.route;
    let at = |at: &manifest::DocumentAt| At::new(at, &container, route);
    let whole = |templates: &Vec<manifest::Template>| Key::whole(templates, &container, route);
    let front = |templates: &Vec<manifest::Template>| Key::front(templates, &container, route);
    let action = match action {
        manifest::Action::Create { partition } => Action::Create { partition: partition.as_ref().map(whole) },
        manifest::Action::Read(place) => Action::Read(at(place)),
        manifest::Action::Upsert(place) => Action::Upsert(at(place)),
        manifest::Action::Replace(place) => Action::Replace(at(place)),
        manifest::Action::Patch(place) => Action::Patch(at(place)),
        manifest::Action::Delete(place) => Action::Delete(at(place)),
        manifest::Action::List { partition } => Action::List { partition: whole(partition) },
        manifest::Action::Batch { partition } => Action::Batch { partition: whole(partition) },
        manifest::Action::Bulk { partition } => {
            Action::Bulk { fixed: Fixed::new(partition, &container, route) }
        }
        manifest::Action::Query { partition, query, parameters } => {
            let argument = |(name, value): &(String, Parameter)| (name.clone(), Argument::new(value, route));
            let parameters = parameters.iter().map(argument).collect();
            Action::Query { partition: front(partition), query: query.clone(), parameters }
        }
        manifest::Action::DeletePartition { partition } => {
            Action::DeletePartition { partition: front(partition) }
        }
    };
    let scope = format!("{} {route}", operation.method.as_str());
    let idempotency = operation.idempotency;
    Some(Work::Documents(Documents { container, action, location, idempotency, scope }))
}

fn webhook_work(topic: &str, action: &manifest::WebhookAction, route: &PathTemplate) -> WebhookWork {
    use manifest::WebhookAction as Wanted;
    let (action, id) = match action {
        Wanted::Create => (WebhookAction::Create, None),
        Wanted::List => (WebhookAction::List, None),
        Wanted::Show(id) => (WebhookAction::Show, Some(id)),
        Wanted::Update(id) => (WebhookAction::Update, Some(id)),
        Wanted::RotateSecret(id) => (WebhookAction::RotateSecret, Some(id)),
        Wanted::Test(id) => (WebhookAction::Test, Some(id)),
        Wanted::Attempts(id) => (WebhookAction::Attempts, Some(id)),
        Wanted::DeadLetters(id) => (WebhookAction::DeadLetters, Some(id)),
        Wanted::Replay(id) => (WebhookAction::Replay, Some(id)),
        Wanted::Delete(id) => (WebhookAction::Delete, Some(id)),
    };
    WebhookWork { topic: topic.into(), action, id: id.map(|id| Value::new(id, route)) }
}

impl Argument {
    fn new(parameter: &Parameter, route: &PathTemplate) -> Self {
        match parameter {
            Parameter::Literal(value) => Self::Literal(value.clone()),
            Parameter::Segment(name, kind) => Self::Segment(place::segment_number(name, route), *kind),
            Parameter::Query(name, kind) => Self::Query(name.clone(), *kind),
        }
    }
}

fn method(method: manifest::Method) -> Method {
    match method {
        manifest::Method::Get => Method::GET,
        manifest::Method::Head => Method::HEAD,
        manifest::Method::Post => Method::POST,
        manifest::Method::Put => Method::PUT,
        manifest::Method::Patch => Method::PATCH,
        manifest::Method::Delete => Method::DELETE,
        manifest::Method::Options => Method::OPTIONS,
    }
}
