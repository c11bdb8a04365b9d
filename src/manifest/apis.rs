//! Stands between the section `apis` and the routes of the gateway.
//!
//! Invariant: no two operations answer to the same method and route, and every template of an operation names a
//! parameter of its own path.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Names;
use super::fields::{self, Fields};
use super::model::{
    Action, Api, DocumentAt, Method, Operation, PathTemplate, PathVersion, Segment, Target, Template,
};
use super::problem::{Place, Report, closest, quoted};
use super::tree::Node;

/// Most segments of a path.
const SEGMENTS_MAX: usize = 32;
/// Longest segment, parameter name or literal of a template, in bytes.
const SEGMENT_MAX: usize = 255;

const API_NOT_BUILT: [&str; 1] = ["errors"];
const OPERATION_NOT_BUILT: [&str; 3] = ["body", "cache", "idempotency"];
/// Keys of `to` that name something else than documents.
const ELSEWHERE: [&str; 4] = ["function", "queue", "topic", "upstream"];
/// Keys of `to` that go with `container`.
const TO_DOCUMENTS: [&str; 4] = ["container", "do", "id", "partition"];
const TO_NOT_BUILT: [&str; 6] = ["function", "params", "queue", "sql", "topic", "upstream"];
const DO_NOT_BUILT: [&str; 9] =
    ["acknowledge", "batch", "patch", "publish", "query", "receive", "reject", "release", "renewLock"];

const METHODS: [(&str, Method); 7] = [
    ("GET", Method::Get),
    ("HEAD", Method::Head),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
    ("DELETE", Method::Delete),
    ("OPTIONS", Method::Options),
];

/// What is asked of a container, before its templates are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Read,
    Upsert,
    Replace,
    Delete,
    List,
}

const VERBS: [(&str, Verb); 6] = [
    ("create", Verb::Create),
    ("read", Verb::Read),
    ("upsert", Verb::Upsert),
    ("replace", Verb::Replace),
    ("delete", Verb::Delete),
    ("list", Verb::List),
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
    names: &Names<'_>,
    routes: &mut Routes,
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
    let mut operations = BTreeMap::new();
    let list =
        fields.required("operations", report).map_or_else(Vec::new, |node| fields::named(node, report));
    for (operation, place, node) in list {
        let Some((method, path, target)) = read_operation(node, names, report) else { continue };
        if let (Some(base), Some(method), Some(path)) = (&base, method, path) {
            let segments = base.iter().chain(&path.segments).cloned().collect();
            let route = PathTemplate { segments };
            routes.add(method, &route, (format!("{name}.{operation}"), place), report);
            if let Some(target) = target {
                operations.insert(operation.to_owned(), Operation { method, path, route, target });
            }
        }
    }
    fields.finish(&API_NOT_BUILT, report);
    let version = match version {
        Some(version) => Some(version?),
        None => None,
    };
    Some(Api { path: path?, version, operations })
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

type Parts = (Option<Method>, Option<PathTemplate>, Option<Target>);

fn read_operation(node: &Node, names: &Names<'_>, report: &mut Report) -> Option<Parts> {
    let mut fields = Fields::open(node, report)?;
    let method =
        fields.required("method", report).and_then(|node| fields::choice(node, &METHODS, &[], report));
    let path = fields.required("path", report).and_then(|node| path(node, report));
    let target = fields.required("to", report).and_then(|node| target(node, path.as_ref(), names, report));
    fields.finish(&OPERATION_NOT_BUILT, report);
    Some((method, path, target))
}

fn target(
    node: &Node,
    path: Option<&PathTemplate>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Target> {
    let mut fields = Fields::open(node, report)?;
    if let Some(mock) = fields.optional("mock") {
        for key in TO_DOCUMENTS {
            if fields.optional(key).is_some() {
                report.add(fields.place_of(key), format!("`{key}` does not go with `mock`"));
            }
        }
        fields.finish(&TO_NOT_BUILT, report);
        return super::mock::read(mock, report).map(Target::Mock);
    }
    let elsewhere = ELSEWHERE.iter().any(|key| fields.has(key));
    let mut key = |key, needed: bool, report: &mut Report| {
        if needed { fields.required(key, report) } else { fields.optional(key) }
    };
    let container = key("container", !elsewhere, report)
        .and_then(|node| fields::reference(node, "container", &names.containers, report));
    let verb =
        key("do", !elsewhere, report).and_then(|node| fields::choice(node, &VERBS, &DO_NOT_BUILT, report));
    let needs_partition = verb.is_some_and(|verb| verb != Verb::Create);
    let needs_id = needs_partition && verb != Some(Verb::List);
    let partition = key("partition", needs_partition, report).map(|node| template(node, path, report));
    let id = key("id", needs_id, report).map(|node| template(node, path, report));
    if let (Some(verb), Some(_), false) = (verb, &id, needs_id) {
        let name = VERBS.iter().find(|(_, one)| *one == verb).map_or("", |(name, _)| name);
        report.add(fields.place_of("id"), format!("`id` does not go with `do: {name}`"));
    }
    fields.finish(&TO_NOT_BUILT, report);
    let at = || Some(DocumentAt { partition: partition.clone()??, id: id.clone()?? });
    let action = match verb? {
        Verb::Create => Action::Create { partition: partition.flatten() },
        Verb::Read => Action::Read(at()?),
        Verb::Upsert => Action::Upsert(at()?),
        Verb::Replace => Action::Replace(at()?),
        Verb::Delete => Action::Delete(at()?),
        Verb::List => Action::List { partition: partition?? },
    };
    Some(Target::Documents { container: container?, action })
}

/// Reads a literal or one `{parameter}`; `path` is where the parameter must be.
fn template(node: &Node, path: Option<&PathTemplate>, report: &mut Report) -> Option<Template> {
    let text = fields::text(node, report)?;
    if !text.contains(['{', '}']) {
        if text.is_empty() || text.len() > SEGMENT_MAX || text.chars().any(char::is_control) {
            return fields::expected(node, &format!("a text of 1 to {SEGMENT_MAX} bytes"), report);
        }
        return Some(Template::Literal(text.to_owned()));
    }
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let Some(name) = inside.filter(|name| !name.contains(['{', '}'])) else {
        return fields::expected(node, "one `{parameter}` of the path, or a text without braces", report);
    };
    if name.starts_with("query.") || name.starts_with("header.") {
        report.not_built(node.place, text);
        return None;
    }
    if let Some(path) = path
        && !path.has_parameter(name)
    {
        let parameters = path.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        });
        let suggestion = closest(name, parameters).map(|name| format!("{{{name}}}"));
        report.suggest(node.place, format!("there is no parameter {} in the path", quoted(text)), suggestion);
        return None;
    }
    Some(Template::Parameter(name.to_owned()))
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
