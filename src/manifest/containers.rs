//! Stands between the section `containers` and where documents live.
//!
//! Invariant: a container's key, unique keys and indexes name members that a document can have.

use std::num::NonZeroU16;
use std::time::Duration;

use lanekeeper_actors::policy::throughput::Throughput;
use lanekeeper_actors::policy::ttl::{ContainerTtl, MAX_TTL};

use super::fields::{self, Fields};
use super::model::{Container, KeyPart, Pointer, Tenancy};
use super::problem::{Report, quoted};
use super::tree::{Node, Value};
use super::units::{self, DAY};

/// Deepest member that a pointer may name.
const POINTER_MAX: usize = 16;
/// Most parts of a partition key.
const KEY_PARTS_MAX: usize = 3;
/// Most buckets of a part of a partition key.
const BUCKETS_MAX: usize = 1024;
/// Most unique keys of a container, and most paths in all of them.
const UNIQUE_MAX: usize = 10;
const UNIQUE_PATHS_MAX: usize = 16;
/// Most indexes of a container, and most paths in one.
const INDEXES_MAX: usize = 16;
const INDEX_PATHS_MAX: usize = 8;
/// Longest time that changes are kept.
pub(super) const RETENTION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const TENANCIES: [(&str, Tenancy); 2] = [("shared", Tenancy::Shared), ("isolated", Tenancy::Isolated)];

/// Reads a container.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Container> {
    let mut fields = Fields::open(node, report)?;
    let partition_key = fields.required("partition_key", report).and_then(|node| partition_key(node, report));
    let tenancy = match fields.optional("tenancy") {
        Some(node) => fields::choice(node, &TENANCIES, &[], report),
        None => Some(Tenancy::default()),
    };
    let unique = fields.optional("unique").map_or_else(Vec::new, |node| unique(node, report));
    let indexes = fields.optional("indexes").map_or_else(Vec::new, |node| indexes(node, report));
    let ttl = fields.optional("ttl").map_or(Some(ContainerTtl::Off), |node| ttl(node, report));
    let throughput = fields.optional("throughput").map(|node| throughput(node, report));
    let retention = fields.optional("change_retention");
    let retention = retention
        .map_or(Some(Duration::ZERO), |node| fields::duration(node, Duration::ZERO..=RETENTION_MAX, report));
    fields.finish(&[], report);
    let throughput = match throughput {
        Some(throughput) => Some(throughput?),
        None => None,
    };
    Some(Container {
        partition_key: partition_key?,
        tenancy: tenancy?,
        unique,
        indexes,
        ttl: ttl?,
        throughput,
        change_retention: retention?,
    })
}

fn partition_key(node: &Node, report: &mut Report) -> Option<Vec<KeyPart>> {
    if let Value::Text(text) = &node.value {
        let message = format!("expected a list of paths, found {}", quoted(text));
        report.suggest(node.place, message, Some(format!("[{text}]")).filter(|_| text.starts_with('/')));
        return None;
    }
    let items = fields::list(node, report)?;
    if items.is_empty() || items.len() > KEY_PARTS_MAX {
        return fields::expected(node, &format!("a list of 1 to {KEY_PARTS_MAX} parts"), report);
    }
    let mut parts: Vec<KeyPart> = Vec::with_capacity(items.len());
    for item in items {
        let Some(part) = key_part(item, report) else { continue };
        if parts.iter().any(|known| known.pointer == part.pointer && known.buckets == part.buckets) {
            report.add(item.place, format!("`{part}` is in this key twice"));
        }
        parts.push(part);
    }
    (parts.len() == items.len()).then_some(parts)
}

/// Reads `/path`, or `{ hash: /path, buckets: 16 }`.
fn key_part(node: &Node, report: &mut Report) -> Option<KeyPart> {
    if !matches!(node.value, Value::Map(_)) {
        return Some(KeyPart { pointer: pointer(node, report)?, buckets: None });
    }
    let mut fields = Fields::open(node, report)?;
    let hash = fields.required("hash", report).and_then(|node| pointer(node, report));
    let buckets = fields.required("buckets", report);
    let buckets = buckets.and_then(|node| fields::count(node, 1..=BUCKETS_MAX, report));
    fields.finish(&[], report);
    let buckets = buckets.and_then(|count| u16::try_from(count).ok()).and_then(NonZeroU16::new)?;
    Some(KeyPart { pointer: hash?, buckets: Some(buckets) })
}

/// Reads a list of unique keys, each a list of paths.
fn unique(node: &Node, report: &mut Report) -> Vec<Vec<Pointer>> {
    let items = fields::list(node, report).unwrap_or_default();
    let mut keys: Vec<Vec<Pointer>> = Vec::new();
    for item in items {
        if let Value::Text(text) = &item.value {
            let message = format!("a unique key is a list of paths, found {}", quoted(text));
            report.suggest(item.place, message, Some(format!("[{text}]")).filter(|_| text.starts_with('/')));
            continue;
        }
        let Some(paths) = paths(item, UNIQUE_PATHS_MAX, report) else { continue };
        if keys.contains(&paths) {
            report.add(item.place, "this unique key is listed twice");
        }
        keys.push(paths);
    }
    if keys.len() > UNIQUE_MAX || keys.iter().map(Vec::len).sum::<usize>() > UNIQUE_PATHS_MAX {
        let message =
            format!("a container has at most {UNIQUE_MAX} unique keys with {UNIQUE_PATHS_MAX} paths in all");
        report.add(node.place, message);
    }
    keys
}

/// Reads a list of indexes, each a path or a list of paths.
fn indexes(node: &Node, report: &mut Report) -> Vec<Vec<Pointer>> {
    let items = fields::list(node, report).unwrap_or_default();
    if items.len() > INDEXES_MAX {
        report.add(node.place, format!("a container has at most {INDEXES_MAX} indexes"));
    }
    let mut indexes: Vec<Vec<Pointer>> = Vec::new();
    for item in items {
        let paths = match item.value {
            Value::List(_) => paths(item, INDEX_PATHS_MAX, report),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Text(_)
            | Value::Map(_) => pointer(item, report).map(|pointer| vec![pointer]),
        };
        let Some(paths) = paths else { continue };
        if indexes.contains(&paths) {
            report.add(item.place, "this index is listed twice");
        }
        indexes.push(paths);
    }
    indexes
}

/// Reads a list of at least one path, none of them twice.
fn paths(node: &Node, most: usize, report: &mut Report) -> Option<Vec<Pointer>> {
    let items = fields::list(node, report)?;
    if items.is_empty() || items.len() > most {
        return fields::expected(node, &format!("a list of 1 to {most} paths"), report);
    }
    let mut paths: Vec<Pointer> = Vec::with_capacity(items.len());
    for item in items {
        let path = pointer(item, report)?;
        if paths.contains(&path) {
            report.add(item.place, format!("`{path}` is listed twice"));
        }
        paths.push(path);
    }
    Some(paths)
}

/// Reads how long documents live: a duration, `never` (or -1) where only their own `ttl` counts, or `off`.
fn ttl(node: &Node, report: &mut Report) -> Option<ContainerTtl> {
    let longest = Duration::from_secs(MAX_TTL.into());
    match &node.value {
        Value::Integer(-1) => return Some(ContainerTtl::NoDefault),
        Value::Text(text) => match text.as_str() {
            "never" => return Some(ContainerTtl::NoDefault),
            "off" => return Some(ContainerTtl::Off),
            text => {
                let whole = units::duration(text).filter(|ttl| ttl.subsec_nanos() == 0 && *ttl <= longest);
                let seconds = whole.and_then(|ttl| i64::try_from(ttl.as_secs()).ok());
                if let Some(ttl) = seconds.and_then(|seconds| ContainerTtl::new(Some(seconds)).ok()) {
                    return Some(ttl);
                }
            }
        },
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => {}
    }
    let days = longest.as_secs() / DAY.as_secs();
    let what = format!(
        "whole seconds from `1s` to `{days}d` (units s, m, h, d), `never` (or -1) for no default, or `off`"
    );
    fields::expected(node, &what, report)
}

/// Reads `{ max: 20000 }` for an elastic budget, or `400` for a fixed one, in request units per second.
fn throughput(node: &Node, report: &mut Report) -> Option<Throughput> {
    let number = |node: &Node, report: &mut Report| match node.value {
        // What is too large for the type is too large for every budget.
        Value::Integer(number) if number >= 0 => Some(u32::try_from(number).unwrap_or(u32::MAX)),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {
            fields::expected(node, "a number of request units per second, or `{ max: … }`", report)
        }
    };
    let (place, made) = if matches!(node.value, Value::Map(_)) {
        let mut fields = Fields::open(node, report)?;
        let node = fields.required("max", report);
        let max = node.and_then(|node| number(node, report).map(|max| (node.place, max)));
        fields.finish(&[], report);
        let (place, max) = max?;
        (place, Throughput::autoscale(max))
    } else {
        (node.place, Throughput::manual(number(node, report)?))
    };
    made.map_err(|error| report.add(place, error.to_string())).ok()
}

/// Reads a JSON Pointer (RFC 6901) to a member.
pub(super) fn pointer(node: &Node, report: &mut Report) -> Option<Pointer> {
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
