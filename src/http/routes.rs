//! Stands between the apis of the manifest and the requests that come: which operation answers, if any.
//!
//! Invariant: at most one operation answers a method and path. A literal segment wins over a parameter, but only
//! for methods that it has an operation for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix_web::http::Method;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::container::{Catalog, Container};

use super::metrics::{Metrics, RouteMetrics};
use super::path;
use crate::manifest::{self, Manifest, PathTemplate, Segment, Target, Template};

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
    /// Its route as the manifest writes it, for logs and metrics.
    pub route: Name,
    /// What answers.
    pub work: Work,
    /// Where its answers are counted.
    pub metrics: RouteMetrics,
}

/// What answers an operation.
#[derive(Debug)]
pub enum Work {
    /// Documents of a container.
    Documents(Documents),
    /// A fixed answer.
    Mock(manifest::Mock),
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
}

/// What is done to documents.
#[derive(Debug)]
pub enum Action {
    /// Adds one.
    Create {
        /// The partition key that it must have.
        partition: Option<Value>,
    },
    /// Returns one.
    Read(At),
    /// Creates or replaces one.
    Upsert(At),
    /// Replaces one that is there.
    Replace(At),
    /// Removes one.
    Delete(At),
    /// Returns those of a partition, in pages.
    List {
        /// The partition key.
        partition: Value,
    },
}

/// Where a document is.
#[derive(Debug)]
pub struct At {
    /// The partition key.
    pub partition: Value,
    /// The id.
    pub id: Value,
}

/// A text that the manifest gives, or a segment of the path.
#[derive(Debug)]
pub enum Value {
    /// This text.
    Literal(String),
    /// The segment of this number.
    Segment(usize),
}

/// The path of a document, as pieces.
#[derive(Debug)]
pub struct Location {
    pieces: Vec<Piece>,
    /// The only partition key that this path leads to.
    partition: Option<String>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Partition,
    Id,
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

impl Value {
    fn new(template: &Template, route: &PathTemplate) -> Self {
        match template {
            Template::Literal(text) => Self::Literal(text.clone()),
            Template::Parameter(name) => {
                let is_it = |segment: &Segment| matches!(segment, Segment::Parameter(found) if found == name);
                // A manifest is refused when a parameter is not in the path.
                Self::Segment(route.segments.iter().position(is_it).unwrap_or(usize::MAX))
            }
        }
    }

    /// The text, for a request with these segments.
    pub fn of<'a>(&'a self, segments: &'a [String]) -> &'a str {
        match self {
            Self::Literal(text) => text,
            Self::Segment(number) => segments.get(*number).map_or("", String::as_str),
        }
    }
}

impl Location {
    /// The path of the document with this key and id; `None` when it cannot be written as a path.
    pub fn of(&self, partition: &str, id: &str) -> Option<String> {
        let wrong_partition = self.partition.as_ref().is_some_and(|fixed| fixed != partition);
        if wrong_partition {
            return None;
        }
        let mut out = String::new();
        for piece in &self.pieces {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Partition => partition,
                Piece::Id => id,
            };
            if !path::can_be_segment(text) {
                return None;
            }
            out.push('/');
            out.push_str(&path::encode(text));
        }
        Some(out)
    }

    fn new(route: &PathTemplate, at: &manifest::DocumentAt) -> Option<Self> {
        let named = |template: &Template, name: &String| matches!(template, Template::Parameter(found) if found == name);
        let piece = |segment: &Segment| match segment {
            Segment::Literal(text) => Some(Piece::Literal(text.clone())),
            Segment::Parameter(name) if named(&at.partition, name) => Some(Piece::Partition),
            Segment::Parameter(name) if named(&at.id, name) => Some(Piece::Id),
            Segment::Parameter(_) => None,
        };
        let pieces = route.segments.iter().map(piece).collect::<Option<Vec<_>>>()?;
        let partition = match &at.partition {
            Template::Literal(text) => Some(text.clone()),
            Template::Parameter(_) => None,
        };
        pieces.iter().any(|piece| matches!(piece, Piece::Id)).then_some(Self { pieces, partition })
    }
}

impl Routes {
    /// Compiles the operations of a manifest.
    pub fn new(manifest: &Manifest, catalog: &Catalog, metrics: &Metrics) -> Self {
        let mut root = Node::default();
        for (api_name, api) in &manifest.apis {
            let name = Name::from(api_name.as_str());
            for operation in api.operations.values() {
                let Some(work) = work(operation, api, catalog) else { continue };
                let route = Name::from(operation.route.to_string());
                let method = method(operation.method);
                let metrics = metrics.route(&method, &route);
                let answering = Operation { api: name.clone(), route, work, metrics };
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

fn work(operation: &manifest::Operation, api: &manifest::Api, catalog: &Catalog) -> Option<Work> {
    let (container, action) = match &operation.target {
        Target::Mock(mock) => return Some(Work::Mock(mock.clone())),
        Target::Documents { container, action } => (container, action),
    };
    let value = |template: &Template| Value::new(template, &operation.route);
    let at = |at: &manifest::DocumentAt| At { partition: value(&at.partition), id: value(&at.id) };
    let action = match action {
        manifest::Action::Create { partition } => Action::Create { partition: partition.as_ref().map(value) },
        manifest::Action::Read(place) => Action::Read(at(place)),
        manifest::Action::Upsert(place) => Action::Upsert(at(place)),
        manifest::Action::Replace(place) => Action::Replace(at(place)),
        manifest::Action::Delete(place) => Action::Delete(at(place)),
        manifest::Action::List { partition } => Action::List { partition: value(partition) },
    };
    let location = api.operations.values().find_map(|reader| match &reader.target {
        Target::Documents { container: found, action: manifest::Action::Read(at) } if found == container => {
            Location::new(&reader.route, at)
        }
        Target::Documents { .. } | Target::Mock(_) => None,
    });
    // A manifest is refused when a container is not in it.
    let container = catalog.get(container)?.clone();
    Some(Work::Documents(Documents { container, action, location }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, Sources, load};

    const MANIFEST: &str = r#"
manifest: 1
project: test
containers: { loads: { partition_key: [/lane] }, notes: { partition_key: [/a/b], tenancy: isolated } }
apis:
  freight:
    path: /freight
    version: { by: path, name: v1 }
    operations:
      create: { method: POST, path: /loads, to: { container: loads, do: create } }
      read: { method: GET, path: "/loads/{lane}/{id}", to: { container: loads, do: read, partition: "{lane}", id: "{id}" } }
      put: { method: PUT, path: "/loads/{lane}/{id}", to: { container: loads, do: upsert, partition: "{lane}", id: "{id}" } }
      list: { method: GET, path: "/loads/{corridor}", to: { container: loads, do: list, partition: "{corridor}" } }
      search: { method: POST, path: /loads/search, to: { mock: { status: 200 } } }
      root: { method: GET, path: /, to: { mock: { status: 200 } } }
  notes:
    path: /notes
    operations:
      add: { method: POST, path: /, to: { container: notes, do: create, partition: all } }
      one: { method: GET, path: "/{id}", to: { container: notes, do: read, partition: all, id: "{id}" } }
"#;

    fn routes() -> Routes {
        let source = Source::Text { name: "test".into(), text: MANIFEST.into() };
        let manifest = load(&Sources { files: vec![source], ..Sources::default() }).unwrap();
        Routes::new(&manifest, &crate::app::catalog(&manifest), &Metrics::default())
    }

    fn find(method: &Method, path: &str) -> Result<String, Unroutable> {
        let segments = path::segments(path).unwrap();
        routes().find(method, &segments).map(|found| found.route.to_string())
    }

    #[test]
    fn an_operation_answers_to_its_method_and_path_only() {
        let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
        let missing = Err(Unroutable::NotFound);
        let other = |allow: &str| Err(Unroutable::Method { allow: allow.to_owned() });
        for (method, path, expected) in [
            (&post, "/freight/v1/loads", Ok("/freight/v1/loads")),
            (&get, "/freight/v1/loads/a/b", Ok("/freight/v1/loads/{lane}/{id}")),
            (&put, "/freight/v1/loads/a%2Fb/c", Ok("/freight/v1/loads/{lane}/{id}")),
            (&Method::HEAD, "/freight/v1/loads/a/b", Ok("/freight/v1/loads/{lane}/{id}")),
            (&get, "/freight/v1/loads/a", Ok("/freight/v1/loads/{corridor}")),
            (&get, "/freight/v1/loads/search", Ok("/freight/v1/loads/{corridor}")),
            (&post, "/freight/v1/loads/search", Ok("/freight/v1/loads/search")),
            (&get, "/freight/%761/loads/a", Ok("/freight/v1/loads/{corridor}")),
            (&get, "/freight/v1", Ok("/freight/v1")),
            (&get, "/notes/x", Ok("/notes/{id}")),
            (&get, "/", missing.clone()),
            (&get, "/freight", missing.clone()),
            (&get, "/freight/v2/loads/a", missing.clone()),
            (&get, "/Freight/v1/loads/a", missing.clone()),
            (&get, "/freight/v1/loads/", missing.clone()),
            (&get, "/freight/v1/loads/a/b/c", missing),
            (&get, "/freight/v1/loads", other("POST")),
            (&Method::DELETE, "/freight/v1/loads/a/b", other("GET, HEAD, PUT")),
            (&Method::OPTIONS, "/freight/v1/loads/search", other("GET, HEAD, POST")),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(find(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_new_documents_place_is_the_path_that_reads_it() {
        let location = |path: &str, key: &str, id: &str| {
            let segments = path::segments(path).unwrap();
            let found = routes().find(&Method::POST, &segments).unwrap();
            let Work::Documents(documents) = &found.work else { panic!("not documents") };
            documents.location.as_ref().unwrap().of(key, id)
        };
        let loads = "/freight/v1/loads";
        assert_eq!(location(loads, "A-B", "x").unwrap(), "/freight/v1/loads/A-B/x");
        assert_eq!(location(loads, "a/b", "é ü").unwrap(), "/freight/v1/loads/a%2Fb/%C3%A9%20%C3%BC");
        assert_eq!(location(loads, "..", "x"), None);
        assert_eq!(location("/notes", "all", "x").unwrap(), "/notes/x");
        assert_eq!(location("/notes", "other", "x"), None);
    }

    #[test]
    fn templates_take_their_segments_by_name() {
        let segments = path::segments("/freight/v1/loads/a/b").unwrap();
        let found = routes().find(&Method::GET, &segments).unwrap();
        let Work::Documents(Documents { action: Action::Read(at), container, .. }) = &found.work else {
            panic!("not a read")
        };
        assert_eq!((at.partition.of(&segments), at.id.of(&segments)), ("a", "b"));
        assert_eq!((key_pointer(container).as_str(), container.isolated), ("/lane", false));
    }
}
