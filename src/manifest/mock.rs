//! Stands between `to: { mock: … }` and the fixed answer of an operation.
//!
//! Invariant: the answer can be sent as it is; nothing in it breaks the framing of HTTP.

use std::collections::BTreeMap;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Number, Value as Json};

use super::fields::{self, Fields};
use super::model::Mock;
use super::problem::{Place, Report, quoted};
use super::tree::{Node, Value};

/// Final status codes (RFC 9110 section 15).
const STATUS: std::ops::RangeInclusive<usize> = 200..=599;
/// Status codes whose answer has no body (RFC 9110 section 6.4.1).
const WITHOUT_BODY: [u16; 3] = [204, 205, 304];
/// Headers that belong to the connection, which the server writes itself (RFC 9110 section 7.6.1).
const RESERVED: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads the answer.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Mock> {
    let mut fields = Fields::open(node, report)?;
    let status = fields
        .required("status", report)
        .and_then(|node| fields::count(node, STATUS, report))
        .and_then(|status| u16::try_from(status).ok());
    let headers = fields.optional("headers").map_or_else(BTreeMap::new, |node| headers(node, report));
    let body = fields.optional("body").map(json);
    if let Some(status) = status
        && body.is_some()
        && WITHOUT_BODY.contains(&status)
    {
        report.add(fields.place_of("body"), format!("an answer with status `{status}` has no body"));
    }
    fields.finish(&[], report);
    Some(Mock { status: status?, headers, body })
}

/// Reads the name of a header.
pub(super) fn header_name(name: &str, place: Place, report: &mut Report) -> Option<HeaderName> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok();
    if header.is_none() {
        report.add(place, format!("{} is not the name of a header", quoted(name)));
    }
    header
}

fn headers(node: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, place, node) in fields::entries(node, report) {
        let value = fields::text(node, report);
        let Some(header) = header_name(name, place, report) else { continue };
        if RESERVED.contains(&header.as_str()) {
            report.add(place, format!("header `{header}` is written by the server itself"));
            continue;
        }
        let Some(value) = value else { continue };
        if HeaderValue::from_str(value).is_err() {
            report.add(node.place, format!("{} cannot stand in a header", quoted(value)));
        }
        if headers.insert(header.as_str().to_owned(), value.to_owned()).is_some() {
            report.add(place, format!("header `{header}` is given twice"));
        }
    }
    headers
}

/// The tree as JSON. Its depth is bounded, so this may recurse.
pub(super) fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Integer(value) => Json::Number(Number::from(*value)),
        Value::Float(value) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
        Value::Text(value) => Json::String(value.clone()),
        Value::List(items) => Json::Array(items.iter().map(json).collect()),
        Value::Map(map) => {
            Json::Object(map.iter().map(|(key, field)| (key.clone(), json(&field.node))).collect())
        }
    }
}
