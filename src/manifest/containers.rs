//! Stands between the sections `containers` and `topics` and where documents and their events come from.
//!
//! Invariant: a topic names a container that exists, and at least one kind of its changes.

use std::time::Duration;

use lanekeeper_actors::policy::ttl::ContainerTtl;

use super::Names;
use super::fields::{self, Fields};
use super::model::{ChangeTypes, Container, KeyPart, Pointer, Tenancy, Topic};
use super::problem::{Report, quoted};
use super::tree::{Node, Value};

/// Deepest member that may be a partition key.
const POINTER_MAX: usize = 16;
/// Longest event type, in characters.
const EVENT_TYPE_MAX: usize = 256;

const NOT_BUILT: [&str; 5] = ["change_retention", "indexes", "throughput", "ttl", "unique"];
const TENANCIES: [(&str, Tenancy); 2] = [("shared", Tenancy::Shared), ("isolated", Tenancy::Isolated)];

/// Reads a container.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Container> {
    let mut fields = Fields::open(node, report)?;
    let partition_key = fields.required("partition_key", report).and_then(|node| partition_key(node, report));
    let tenancy = match fields.optional("tenancy") {
        Some(node) => fields::choice(node, &TENANCIES, &[], report),
        None => Some(Tenancy::default()),
    };
    fields.finish(&NOT_BUILT, report);
    let partition_key = vec![KeyPart { pointer: partition_key?, buckets: None }];
    Some(Container {
        partition_key,
        tenancy: tenancy?,
        unique: Vec::new(),
        indexes: Vec::new(),
        ttl: ContainerTtl::Off,
        throughput: None,
        change_retention: Duration::ZERO,
    })
}

fn partition_key(node: &Node, report: &mut Report) -> Option<Pointer> {
    if let Value::Text(text) = &node.value {
        let message = format!("expected a list with one path, found {}", quoted(text));
        report.suggest(node.place, message, Some(format!("[{text}]")).filter(|_| text.starts_with('/')));
        return None;
    }
    let paths = fields::list(node, report)?;
    if paths.is_empty() {
        return fields::expected(node, "a list with one path", report);
    }
    let mut first = None;
    for path in paths {
        if matches!(path.value, Value::Map(_)) {
            let mut fields = Fields::open(path, report)?;
            // `buckets` belongs to `hash`, and one problem is enough for both.
            if fields.has("hash") {
                fields.optional("buckets");
            }
            fields.finish(&["hash"], report);
            continue;
        }
        let pointer = pointer(path, report);
        if first.is_some() {
            report.add(path.place, "a partition key of several paths is not built yet");
        }
        first = first.or(pointer);
    }
    first
}

/// Reads a JSON Pointer (RFC 6901) to a member.
fn pointer(node: &Node, report: &mut Report) -> Option<Pointer> {
    let text = fields::text(node, report)?;
    let Some(inside) = text.strip_prefix('/') else {
        let message = format!("expected a JSON Pointer such as `/lane`, found {}", quoted(text));
        report.suggest(node.place, message, Some(format!("/{text}")).filter(|_| !text.is_empty()));
        return None;
    };
    let segments: Vec<&str> = inside.split('/').collect();
    let escapes_are_right = inside.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if segments.len() > POINTER_MAX || segments.contains(&"") || !escapes_are_right {
        let what = format!("a JSON Pointer of at most {POINTER_MAX} names, none of them empty");
        return fields::expected(node, &what, report);
    }
    let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
    Some(Pointer { segments: segments.into_iter().map(unescape).collect() })
}

/// Reads a topic.
pub(super) fn read_topic(name: &str, node: &Node, names: &Names<'_>, report: &mut Report) -> Option<Topic> {
    let mut fields = Fields::open(node, report)?;
    let Some(from) = fields.optional("from") else {
        report.add(node.place, format!("custom topic {} (without `from`) is not built yet", quoted(name)));
        fields.finish(&[], report);
        return None;
    };
    let topic = read_from(from, names, report);
    fields.finish(&[], report);
    topic
}

fn read_from(node: &Node, names: &Names<'_>, report: &mut Report) -> Option<Topic> {
    let mut fields = Fields::open(node, report)?;
    let container = fields
        .required("container", report)
        .and_then(|node| fields::reference(node, "container", &names.containers, report));
    let types = fields.required("types", report).and_then(|node| change_types(node, report));
    fields.finish(&[], report);
    Some(Topic { container: container?, types: types? })
}

fn change_types(node: &Node, report: &mut Report) -> Option<ChangeTypes> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let mut kind = |key: &'static str, report: &mut Report| {
        fields.optional(key).and_then(|node| event_type(node, report))
    };
    let types = ChangeTypes {
        created: kind("created", report),
        replaced: kind("replaced", report),
        deleted: kind("deleted", report),
    };
    fields.finish(&[], report);
    if types == ChangeTypes::default() && report.count() == before {
        return fields::expected(node, "a type for `created`, `replaced` or `deleted`", report);
    }
    Some(types)
}

/// Reads a CloudEvents `type` (version 1.0.2, section 3.1.1).
pub(super) fn event_type(node: &Node, report: &mut Report) -> Option<String> {
    let text = fields::text(node, report)?;
    if text.is_empty() || text.chars().count() > EVENT_TYPE_MAX || text.chars().any(char::is_control) {
        let what = format!("an event type of 1 to {EVENT_TYPE_MAX} characters");
        return fields::expected(node, &what, report);
    }
    Some(text.to_owned())
}
