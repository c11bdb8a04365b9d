//! Stands between what an operator wrote (files, environment, flags) and the process that is built from it.
//!
//! Invariant: a [`Manifest`] exists only if nothing at all was wrong with its sources; otherwise every problem is
//! told at once, each with its place. Sources are values: nothing here looks at the environment by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use lanekeeper_actors::model::topic::SYSTEM_TOPIC;

use self::fields::Fields;
use self::named::NamedValues;
use self::problem::Report;
use self::targets::Known;
use self::tree::{Node, Value};

mod access;
mod apis;
mod audit;
mod backends;
mod containers;
mod document;
mod edge;
mod fields;
mod identities;
mod layers;
mod limits;
mod mock;
mod model;
mod named;
mod plan;
mod problem;
mod questions;
mod server;
mod subscriptions;
mod targets;
mod terms;
#[cfg(test)]
mod tests;
mod tls;
mod topics;
mod tree;
mod units;
mod webhooks;

pub use self::document::{Written, document, written};
pub use self::model::{
    Action, Api, ApiKey, Backend, ChangeTypes, Container, Destination, DocumentAt, Edge, ErrorStyle,
    EventSubscription, HandshakeRule, Idempotency, JwtRule, KeyPart, Limits, Listener, Manifest, Method,
    Mock, Operation, Parameter, ParameterType, PathTemplate, PathVersion, Piece, Pointer, Product,
    QueueAction, Rate, Retry, Secret, Segment, Server, SubjectFilter, Target, Template, Tenancy, Topic,
    TopicSource, Upstream, UpstreamTo, Webhook, WebhookAction, WebhookRules,
};
pub use self::plan::{Change, Detail, Step, can_follow, differences, plan};
pub use self::problem::{Problem, Problems};
pub(crate) use self::units::{duration, timestamp};

/// The text of `config/default.yaml`, the weakest source.
pub const DEFAULT: &str = include_str!("../../config/default.yaml");

/// Sections of the full manifest that this version refuses.
const NOT_BUILT: [&str; 1] = ["functions"];

/// Where a manifest comes from, besides [`DEFAULT`]. Weakest first: `files` in their order, `environment`, `flags`.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Manifests. Mappings are merged deeply; of two scalars or lists the later wins.
    pub files: Vec<Source>,
    /// Environment variables as pairs. Those beginning with `LANEKEEPER__` set values (a double underscore goes
    /// one mapping deeper, upper and lower case are the same, `-` is written `_`); all are looked at for secrets.
    pub environment: Vec<(String, String)>,
    /// Values from the command line.
    pub flags: Flags,
}

/// One manifest.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, which may include others.
    File(PathBuf),
    /// A text, which may not.
    Text {
        /// What problems call it.
        name: String,
        /// The YAML.
        text: String,
    },
}

/// Values from the command line.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The one public address, as written.
    pub listen: Option<String>,
    /// The admin address, as written.
    pub admin: Option<String>,
    /// The data directory.
    pub data: Option<PathBuf>,
}

/// Reads, merges and checks a manifest.
///
/// # Errors
///
/// Every problem of all sources, in their order.
pub fn load(sources: &Sources) -> Result<Manifest, Problems> {
    let mut report = Report::default();
    let mut root = layers::merge(sources, &mut report);
    edge::merge_limits(&mut root, &mut report);
    let mut manifest = read(&root, &sources.environment, &mut report);
    if let (Some(manifest), Some(data)) = (&mut manifest, &sources.flags.data) {
        manifest.server.data.clone_from(data);
    }
    report.finish(manifest)
}

/// The names that other parts of a manifest may refer to. They are taken before anything is read, so that a
/// container with a mistake inside does not also count as absent.
struct Names<'t> {
    containers: BTreeSet<&'t str>,
    topics: BTreeSet<&'t str>,
    event_subscriptions: BTreeSet<&'t str>,
    apis: BTreeSet<&'t str>,
    identities: BTreeSet<&'t str>,
    backends: BTreeSet<&'t str>,
    products: BTreeSet<&'t str>,
}

impl<'t> Names<'t> {
    fn of(root: &'t Node) -> Self {
        let names = |section: &str| -> BTreeSet<&'t str> {
            match &root.value {
                Value::Map(map) => match map.get(section).map(|field| &field.node.value) {
                    Some(Value::Map(things)) => things.keys().map(String::as_str).collect(),
                    Some(_) | None => BTreeSet::new(),
                },
                Value::Null
                | Value::Bool(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Text(_)
                | Value::List(_) => BTreeSet::new(),
            }
        };
        Self {
            containers: names("containers"),
            // That of the system is there without being declared.
            topics: names("topics").into_iter().chain([SYSTEM_TOPIC]).collect(),
            event_subscriptions: names("event_subscriptions"),
            apis: names("apis"),
            identities: names("identities"),
            backends: names("backends"),
            products: names("products"),
        }
    }
}

fn read(root: &Node, environment: &[(String, String)], report: &mut Report) -> Option<Manifest> {
    let names = Names::of(root);
    let mut fields = Fields::open(root, report)?;
    if let Some(version) = fields.optional("manifest") {
        layers::check_version(version, report);
    }
    if fields.optional("include").is_some() {
        report.add(fields.place_of("include"), "`include` works in files only");
    }
    let project = fields.required("project", report).and_then(|node| fields::name(node, report));
    let server = fields.required("server", report).and_then(|node| server::read(node, report));
    let limits = fields.required("limits", report).and_then(|node| limits::read(node, report));
    let audit = fields.required("audit", report).and_then(|node| audit::read(node, report));
    let containers =
        section(&mut fields, "containers", report, |_, node, report| containers::read(node, report));
    let values = fields.optional("named_values").filter(|node| !matches!(node.value, Value::Null));
    let values = values.map(|node| NamedValues::read(node, environment, report)).unwrap_or_default();
    let edge = fields.optional("edge").filter(|node| !matches!(node.value, Value::Null));
    let edge = edge.map_or_else(|| Some(Edge::default()), |node| edge::read(node, &values, report));
    let topics = section(&mut fields, "topics", report, |_, node, report| topics::read(node, &names, report));
    let known = subscriptions::Known { names: &names, topics: &topics, values: &values };
    let event_subscriptions = section(&mut fields, "event_subscriptions", report, |_, node, report| {
        subscriptions::read(node, known, report)
    });
    let identities = section(&mut fields, "identities", report, |name, node, report| {
        identities::read(name, node, &values, report)
    });
    let mut taken = terms::Taken::default();
    let backends = section(&mut fields, "backends", report, |_, node, report| backends::read(node, report));
    let mut routes = apis::Routes::default();
    let known = Known {
        names: &names,
        containers: &containers,
        topics: &topics,
        subscriptions: &event_subscriptions,
        path: None,
    };
    let apis = section(&mut fields, "apis", report, |name, node, report| {
        apis::read(name, node, known, (&mut routes, &mut taken), report)
    });
    let mut places = BTreeMap::new();
    let products = section(&mut fields, "products", report, |name, node, report| {
        places.insert(name.to_owned(), node.place);
        access::read_product(name, node, &names, &mut taken, report)
    });
    access::check_open(&products, &places, report);
    let mut secrets = access::Secrets::new(environment);
    let api_keys = section(&mut fields, "api_keys", report, |_, node, report| {
        access::read_key(node, &names, &mut secrets, report)
    });
    fields.finish(&NOT_BUILT, report);
    Some(Manifest {
        project: project?,
        server: server?,
        edge: edge?,
        limits: limits?,
        audit: audit?,
        containers,
        topics,
        event_subscriptions,
        identities,
        backends,
        apis,
        products,
        api_keys,
    })
}

/// Reads a mapping from names to things. A section that is absent or left empty has none.
fn section<T>(
    root: &mut Fields<'_>,
    key: &'static str,
    report: &mut Report,
    mut read: impl FnMut(&str, &Node, &mut Report) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut things = BTreeMap::new();
    let Some(node) = root.optional(key).filter(|node| !matches!(node.value, Value::Null)) else {
        return things;
    };
    for (name, _, node) in fields::named(node, report) {
        if let Some(thing) = read(name, node, report) {
            things.insert(name.to_owned(), thing);
        }
    }
    things
}
