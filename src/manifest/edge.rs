//! Stands between the section `edge` and what is asked of every request to the gateway.
//!
//! Invariant: a bound has one value. `edge.limits` is another way to write some of `limits`, and who writes one of
//! them both ways is told so.

use super::fields::{self, Fields};
use super::model::Edge;
use super::named::NamedValues;
use super::problem::{Report, quoted};
use super::tree::{Node, Value};
use super::{mock, webhooks};
use crate::edge::Paths;
use crate::edge::client::ClientHeader;
use crate::edge::lock::OriginLock;

/// What `edge.limits` calls some of `limits`.
const LIMITS: [(&str, &str); 9] = [
    ("body", "body"),
    ("body_rate", "body_rate"),
    ("body_timeout", "body_timeout"),
    ("connections", "connections"),
    ("header", "header"),
    ("header_timeout", "header_timeout"),
    ("per_ip", "requests_per_ip"),
    ("streams", "streams_per_connection"),
    ("uri", "uri"),
];
const HEADERS: [(&str, ClientHeader); 2] =
    [("x-forwarded-for", ClientHeader::XForwardedFor), ("forwarded", ClientHeader::Forwarded)];
/// Most blocks or locks.
const LIST_MAX: usize = 256;

/// Moves what `edge.limits` says to `limits`, before either is read.
pub(super) fn merge_limits(root: &mut Node, report: &mut Report) {
    let Value::Map(root) = &mut root.value else { return };
    let Some(Value::Map(edge)) = root.get_mut("edge").map(|field| &mut field.node.value) else { return };
    let Some(Value::Map(from)) = edge.get_mut("limits").map(|field| &mut field.node.value) else { return };
    let moved: Vec<_> =
        LIMITS.iter().filter_map(|(name, target)| Some((*name, *target, from.remove(*name)?))).collect();
    let Some(Value::Map(limits)) = root.get_mut("limits").map(|field| &mut field.node.value) else { return };
    for (name, target, field) in moved {
        match limits.get(target) {
            Some(other) if other.key.is_given() => {
                let place = report.locate(other.key, field.key);
                report
                    .add(field.key, format!("`{name}` is `limits.{target}`, which is given at {place} too"));
            }
            Some(_) | None => {
                limits.insert(target.to_owned(), field);
            }
        }
    }
}

/// Reads the section.
pub(super) fn read(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<Edge> {
    let mut fields = Fields::open(node, report)?;
    let mut edge = Edge::default();
    if let Some(node) = fields.optional("trusted_proxies") {
        let items = short_list(node, report);
        edge.trusted_proxies = items.iter().filter_map(|item| webhooks::block(item, report)).collect();
    }
    if let Some(node) = fields.optional("client_address") {
        edge.client_address = fields::choice(node, &HEADERS, &[], report).unwrap_or_default();
    }
    if let Some(node) = fields.optional("origin_lock") {
        let items = short_list(node, report);
        edge.origin_lock = items.iter().filter_map(|item| lock(item, values, report)).collect();
    }
    if let Some(node) = fields.optional("paths") {
        let choices = [("once", Paths::Once), ("strict", Paths::Strict)];
        edge.paths = fields::choice(node, &choices, &[], report).unwrap_or_default();
    }
    let limits = fields.optional("limits").filter(|node| !matches!(node.value, Value::Null));
    if let Some(mut limits) = limits.and_then(|node| Fields::open(node, report)) {
        // What is known was moved away; this is for what is not.
        for (name, _) in LIMITS {
            limits.optional(name);
        }
        limits.finish(&[], report);
    }
    fields.finish(&["injection"], report);
    Some(edge)
}

fn short_list<'t>(node: &'t Node, report: &mut Report) -> &'t [Node] {
    let items = fields::list(node, report).unwrap_or_default();
    if items.len() > LIST_MAX {
        report.add(node.place, format!("{} entries, the limit is {LIST_MAX}", items.len()));
    }
    items
}

/// Reads `{ header: NAME, equals: VALUE }` or `{ from: [CIDR] }`.
fn lock(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<OriginLock> {
    let mut fields = Fields::open(node, report)?;
    if let Some(from) = fields.optional("from") {
        for other in ["header", "equals"] {
            if fields.optional(other).is_some() {
                report.add(fields.place_of(other), format!("{} does not go with `from`", quoted(other)));
            }
        }
        fields.finish(&[], report);
        let items = short_list(from, report);
        if items.is_empty() {
            return fields::expected(from, "at least one entry in this list", report);
        }
        return Some(OriginLock::From(
            items.iter().filter_map(|item| webhooks::block(item, report)).collect(),
        ));
    }
    let name = fields.required("header", report).and_then(|node| {
        let text = fields::text(node, report)?;
        mock::header_name(text, node.place, report)
    });
    let equals = fields.required("equals", report).and_then(|node| {
        let value = values.any(node, report)?;
        if value.expose().is_empty() {
            return fields::expected(node, "a value that is not empty", report);
        }
        Some(value)
    });
    fields.finish(&[], report);
    Some(OriginLock::Header { name: name?.as_str().to_owned(), equals: equals? })
}
