//! Stands between the section `apis` and the routes of the gateway.
//!
//! Invariant: no two operations answer to the same method and route.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lanekeeper_actors::policy::limits::Limit;
use lanekeeper_actors::policy::permits::Priority;

use super::fields::{self, Fields};
use super::model::{
    Api, ErrorStyle, Idempotency, Method, Operation, PathTemplate, PathVersion, Segment, Target,
};
use super::problem::{Place, Report, quoted};
use super::targets::{self, Known};
use super::terms::{self, Taken};
use super::tree::Node;

/// Most segments of a path.
const SEGMENTS_MAX: usize = 32;
/// Longest segment or parameter name, in bytes.
const SEGMENT_MAX: usize = 255;

const OPERATION_NOT_BUILT: [&str; 2] = ["body", "cache"];
const IDEMPOTENCY: [(&str, Idempotency); 2] =
    [("optional", Idempotency::Optional), ("required", Idempotency::Required)];

const API_KEYS: [(&str, bool); 2] = [("header", false), ("none", true)];
const ERRORS: [(&str, ErrorStyle); 2] = [("problem", ErrorStyle::Problem), ("apim", ErrorStyle::Apim)];
const PRIORITIES: [(&str, Priority); 3] =
    [("critical", Priority::Critical), ("normal", Priority::Normal), ("low", Priority::Low)];

const METHODS: [(&str, Method); 7] = [
    ("GET", Method::Get),
    ("HEAD", Method::Head),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
    ("DELETE", Method::Delete),
    ("OPTIONS", Method::Options),
];

/// The routes that were read so far, over all apis; parameters count without their names.
#[derive(Debug, Default)]
pub(super) struct Routes(BTreeMap<(Method, String), (String, Place)>);

impl Routes {
    fn add(
        &mut self,
        method: Method,
        route: &PathTemplate,
        (name, place): (String, Place),
        report: &mut Report,
    ) {
        let mut shape = route.clone();
        for segment in &mut shape.segments {
            if let Segment::Parameter(name) = segment {
                name.clear();
            }
        }
        match self.0.entry((method, shape.to_string())) {
            Entry::Vacant(slot) => {
                slot.insert((name, place));
            }
            Entry::Occupied(slot) => {
                let (other, first) = slot.get();
                let (method, first) = (method.as_str(), report.locate(*first, place));
                report.add(place, format!("`{method} {route}` is answered by `{other}` already, at {first}"));
            }
        }
    }
}

/// Reads an api.
pub(super) fn read(
    name: &str,
    node: &Node,
    known: Known<'_>,
    (routes, taken): (&mut Routes, &mut Taken),
    report: &mut Report,
) -> Option<Api> {
    let mut fields = Fields::open(node, report)?;
    let path = fields.required("path", report).and_then(|node| base_path(node, report));
    let version = fields.optional("version").map(|node| version(node, report));
    let base = path.as_ref().and_then(|path| match &version {
        None => Some(path.segments.clone()),
        Some(None) => None,
        Some(Some(version)) => {
            let version = Segment::Literal(version.name.clone());
            Some(path.segments.iter().cloned().chain([version]).collect())
        }
    });
    let open = fields.optional("key").and_then(|node| fields::choice(node, &API_KEYS, &[], report));
    let rate = fields.optional("rate");
    let limits = rate.map(|node| terms::rates(node, &format!("api-{name}"), taken, report));
    let errors = fields.optional("errors").and_then(|node| fields::choice(node, &ERRORS, &[], report));
    let mut operations = BTreeMap::new();
    let list =
        fields.required("operations", report).map_or_else(Vec::new, |node| fields::named(node, report));
    for (operation, place, node) in list {
        let terms = (format!("api-{name}-{operation}"), &mut *taken);
        let Some(parts) = read_operation(node, known, terms, report) else { continue };
        let Parts { method, path, target, idempotency, limits, priority } = parts;
        if let (Some(base), Some(method), Some(path)) = (&base, method, path) {
            let segments = base.iter().chain(&path.segments).cloned().collect();
            let route = PathTemplate { segments };
            routes.add(method, &route, (format!("{name}.{operation}"), place), report);
            if let Some(target) = target {
                let read = Operation { method, path, route, idempotency, limits, priority, target };
                operations.insert(operation.to_owned(), read);
            }
        }
    }
    fields.finish(&[], report);
    let version = match version {
        Some(version) => Some(version?),
        None => None,
    };
    Some(Api {
        path: path?,
        version,
        open: open.unwrap_or_default(),
        limits: limits.unwrap_or_default(),
        errors: errors.unwrap_or_default(),
        operations,
    })
}

fn base_path(node: &Node, report: &mut Report) -> Option<PathTemplate> {
    let path = path(node, report)?;
    if path.segments.iter().any(|segment| matches!(segment, Segment::Parameter(_))) {
        report.add(node.place, "the path of an api has no parameters: those belong to its operations");
        return None;
    }
    Some(path)
}

fn version(node: &Node, report: &mut Report) -> Option<PathVersion> {
    let mut fields = Fields::open(node, report)?;
    let by = fields
        .required("by", report)
        .and_then(|node| fields::choice(node, &[("path", ())], &["header", "query"], report));
    let name = fields.required("name", report).and_then(|node| {
        let text = fields::text(node, report)?;
        if is_literal(text) {
            Some(text.to_owned())
        } else {
            fields::expected(node, "one path segment", report)
        }
    });
    fields.finish(&["header", "query"], report);
    by.and(name).map(|name| PathVersion { name })
}

/// What was read of an operation, although some of it may be wrong.
struct Parts {
    method: Option<Method>,
    path: Option<PathTemplate>,
    target: Option<Target>,
    idempotency: Option<Idempotency>,
    limits: Vec<Limit>,
    priority: Priority,
}

fn read_operation(
    node: &Node,
    known: Known<'_>,
    (owner, taken): (String, &mut Taken),
    report: &mut Report,
) -> Option<Parts> {
    let mut fields = Fields::open(node, report)?;
    let method =
        fields.required("method", report).and_then(|node| fields::choice(node, &METHODS, &[], report));
    let path = fields.required("path", report).and_then(|node| path(node, report));
    let known = Known { path: path.as_ref(), ..known };
    let to = fields.required("to", report);
    let (asked, target) = to.map_or((None, None), |node| targets::read(node, known, report));
    let idempotency = fields.optional("idempotency");
    let idempotency = idempotency.and_then(|node| fields::choice(node, &IDEMPOTENCY, &[], report));
    if let (Some(_), true) = (idempotency, target.is_some()) {
        let place = fields.place_of("idempotency");
        match asked {
            Some(asked) if asked.can_repeat() => {}
            Some(asked) => {
                report.add(place, format!("`idempotency` does not go with `do: {}`", asked.name()));
            }
            None => {
                let what = match target {
                    Some(Target::Webhooks { .. }) => "subscriptions",
                    Some(Target::Upstream(_)) => "upstream",
                    Some(
                        Target::Documents { .. }
                        | Target::Publish { .. }
                        | Target::Queue { .. }
                        | Target::Mock(_),
                    )
                    | None => "mock",
                };
                report.add(place, format!("`idempotency` does not go with `{what}`"));
            }
        }
    }
    let rate = fields.optional("rate");
    let limits = rate.map(|node| terms::rates(node, &owner, taken, report)).unwrap_or_default();
    let priority = fields.optional("priority");
    let priority = priority.and_then(|node| fields::choice(node, &PRIORITIES, &[], report));
    fields.finish(&OPERATION_NOT_BUILT, report);
    let priority = priority.unwrap_or(Priority::Normal);
    Some(Parts { method, path, target, idempotency, limits, priority })
}

fn path(node: &Node, report: &mut Report) -> Option<PathTemplate> {
    let text = fields::text(node, report)?;
    let Some(inside) = text.strip_prefix('/') else {
        let message = format!("a path begins with `/`, found {}", quoted(text));
        report.suggest(node.place, message, Some(format!("/{text}")));
        return None;
    };
    if inside.is_empty() {
        return Some(PathTemplate::default());
    }
    if let Some(without) = text.strip_suffix('/') {
        let message = format!("a path does not end with `/`, found {}", quoted(text));
        report.suggest(node.place, message, Some(without.to_owned()));
        return None;
    }
    let mut path = PathTemplate::default();
    for part in inside.split('/') {
        let segment = segment(part).filter(|_| path.segments.len() < SEGMENTS_MAX);
        let Some(segment) = segment else {
            let what = "a path of at most 32 segments, each of letters, digits, `-._~`, or one `{parameter}`";
            return fields::expected(node, what, report);
        };
        if let Segment::Parameter(name) = &segment
            && path.has_parameter(name)
        {
            report.add(node.place, format!("parameter `{{{name}}}` is in this path twice"));
            return None;
        }
        path.segments.push(segment);
    }
    Some(path)
}

fn segment(text: &str) -> Option<Segment> {
    let Some(inside) = text.strip_prefix('{') else {
        return is_literal(text).then(|| Segment::Literal(text.to_owned()));
    };
    let name = inside.strip_suffix('}')?;
    let is_name = name.len() <= SEGMENT_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    is_name.then(|| Segment::Parameter(name.to_owned()))
}

/// Whether a text is a path segment of unreserved characters (RFC 3986 section 2.3), but no dot segment.
fn is_literal(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= SEGMENT_MAX
        && text != "."
        && text != ".."
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "-._~".contains(character))
}
