//! Stands between the questions of a manifest and the queries that answer them.
//!
//! Invariant: a query is one that can be carried out, and has a value, of the right type where that can be known,
//! for each of its parameters.

use std::sync::Arc;

use lanekeeper_actors::query::{BindError, Query};
use serde_json::Value as Json;

use super::fields::{self, Fields};
use super::mock;
use super::model::{Parameter, ParameterType, PathTemplate};
use super::problem::{Place, Report, closest, quoted};
use super::targets::{Reference, reference};
use super::tree::{Node, Value};

/// Most parameters of a query.
const PARAMETERS_MAX: usize = 100;

const TYPES: [(&str, ParameterType); 4] = [
    ("string", ParameterType::String),
    ("number", ParameterType::Number),
    ("boolean", ParameterType::Boolean),
    ("json", ParameterType::Json),
];

/// A query, and a value for each of its parameters.
pub(super) type Question = (Arc<Query>, Vec<(String, Parameter)>);

/// Reads the text of a query and the values of its parameters.
pub(super) fn read(
    sql: Option<&Node>,
    params: Option<&Node>,
    path: Option<&PathTemplate>,
    report: &mut Report,
) -> Option<Question> {
    let before = report.count();
    let mut parameters = Vec::new();
    for (name, place, node) in params.map_or_else(Vec::new, |node| fields::entries(node, report)) {
        let name = name.strip_prefix('@').unwrap_or(name).to_owned();
        if let Some(value) = parameter(node, path, report) {
            parameters.push((name, value, place));
        }
    }
    if parameters.len() > PARAMETERS_MAX {
        let place = params.map_or_else(|| sql.map(|node| node.place), |node| Some(node.place))?;
        report.add(place, format!("a query has at most {PARAMETERS_MAX} parameters"));
        return None;
    }
    let node = sql?;
    let parsed = Query::parse(fields::text(node, report)?);
    let parsed =
        parsed.map_err(|error| report.add(node.place, format!("the query is wrong at {error}"))).ok()?;
    if report.count() == before {
        check_parameters(&parsed, &parameters, node.place, report);
    }
    let parameters = parameters.into_iter().map(|(name, value, _)| (name, value)).collect();
    Some((Arc::new(parsed), parameters))
}

/// Reads a literal, `"{parameter}"`, or `{ from: "{parameter}", type: number }`.
fn parameter(node: &Node, path: Option<&PathTemplate>, report: &mut Report) -> Option<Parameter> {
    match &node.value {
        Value::Text(text) => Some(match reference(node, text, path, report)? {
            None => Parameter::Literal(Json::from(text.as_str())),
            Some(found) => given(&found, ParameterType::String),
        }),
        Value::Map(map) if map.contains_key("from") => {
            let mut fields = Fields::open(node, report)?;
            let from = fields.required("from", report);
            let kind = fields.optional("type").map(|node| fields::choice(node, &TYPES, &[], report));
            fields.finish(&[], report);
            let from = from?;
            match reference(from, fields::text(from, report)?, path, report)? {
                None => fields::expected(from, "one `{parameter}` of the path, or `{query.name}`", report),
                Some(found) => Some(given(&found, kind.unwrap_or(Some(ParameterType::String))?)),
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => Some(Parameter::Literal(mock::json(node))),
    }
}

fn given(reference: &Reference<'_>, kind: ParameterType) -> Parameter {
    match reference {
        Reference::Segment(name) => Parameter::Segment((*name).to_owned(), kind),
        Reference::Query(name) => Parameter::Query((*name).to_owned(), kind),
    }
}

/// Reports parameters that a query lacks, does not use, or cannot use.
fn check_parameters(
    query: &Query,
    parameters: &[(String, Parameter, Place)],
    place: Place,
    report: &mut Report,
) {
    let stand_in = |(name, value, _): &(String, Parameter, Place)| {
        let value = match value {
            Parameter::Literal(value) => value.clone(),
            Parameter::Segment(_, kind) | Parameter::Query(_, kind) => match kind {
                ParameterType::String => Json::from(""),
                ParameterType::Boolean => Json::from(true),
                // Whether the number is a count shows when it comes.
                ParameterType::Number | ParameterType::Json => Json::from(1),
            },
        };
        (name.clone(), value)
    };
    let mut given: Vec<(String, Json)> = parameters.iter().map(stand_in).collect();
    while let Err(error) = query.bind(&given) {
        let written = |wanted: &String| parameters.iter().find(|(name, ..)| name == wanted);
        let (name, place) = match &error {
            BindError::Missing { name } => (name.clone(), place),
            BindError::NotACount { name, .. } => (name.clone(), written(name).map_or(place, |found| found.2)),
        };
        let known = given.iter().map(|(name, _)| name.as_str());
        let suggestion = match &error {
            BindError::Missing { name } => closest(name, known).map(|name| format!("@{name}")),
            BindError::NotACount { .. } => None,
        };
        report.suggest(place, error.to_string(), suggestion);
        given.retain(|(found, _)| *found != name);
        given.push((name, Json::from(1)));
    }
    for (name, _, place) in parameters {
        let others: Vec<_> = given.iter().filter(|(found, _)| found != name).cloned().collect();
        if query.bind(&others).is_ok() {
            report.add(*place, format!("the query has no parameter {}", quoted(&format!("@{name}"))));
        }
    }
}
