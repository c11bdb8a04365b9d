//! Stands between `to` of an operation and what answers it.
//!
//! Invariant: every template names a parameter of the operation's own path, a partition has as many templates as
//! its container's key can take from a request, and a query is one that can be carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanekeeper_actors::query::{BindError, Query};
use serde_json::Value as Json;

use super::Names;
use super::fields::{self, Fields};
use super::mock;
use super::model::{
    Action, Container, DocumentAt, KeyPart, Parameter, PathTemplate, Segment, Target, Template, Topic,
};
use super::problem::{Place, Report, closest, quoted};
use super::tree::{Node, Value};
use super::webhooks;

/// Longest literal of a template, in bytes.
const LITERAL_MAX: usize = 255;
/// Most parameters of a query.
const PARAMETERS_MAX: usize = 100;

/// Keys of `to` that name something else than documents.
const ELSEWHERE: [&str; 4] = ["function", "queue", "topic", "upstream"];
/// Keys of `to` that go with `container`.
const TO_DOCUMENTS: [&str; 6] = ["container", "do", "id", "params", "partition", "sql"];
const DO_NOT_BUILT: [&str; 6] = ["acknowledge", "publish", "receive", "reject", "release", "renewLock"];

/// What is asked of a container, before its templates are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Read,
    Upsert,
    Replace,
    Patch,
    Delete,
    List,
    Batch,
    Query,
    DeletePartition,
}

const VERBS: [(&str, Verb); 10] = [
    ("create", Verb::Create),
    ("read", Verb::Read),
    ("upsert", Verb::Upsert),
    ("replace", Verb::Replace),
    ("patch", Verb::Patch),
    ("delete", Verb::Delete),
    ("list", Verb::List),
    ("batch", Verb::Batch),
    ("query", Verb::Query),
    ("delete_partition", Verb::DeletePartition),
];

impl Verb {
    pub(super) fn name(self) -> &'static str {
        VERBS.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }

    fn needs_id(self) -> bool {
        match self {
            Self::Read | Self::Upsert | Self::Replace | Self::Patch | Self::Delete => true,
            Self::Create | Self::List | Self::Batch | Self::Query | Self::DeletePartition => false,
        }
    }

    fn needs_partition(self) -> bool {
        !matches!(self, Self::Create | Self::Query)
    }

    /// Whether a request that comes twice may have done something twice.
    pub(super) fn can_repeat(self) -> bool {
        match self {
            Self::Create | Self::Upsert | Self::Replace | Self::Patch | Self::Batch => true,
            Self::Read | Self::Delete | Self::List | Self::Query | Self::DeletePartition => false,
        }
    }
}

/// A query, and a value for each of its parameters.
type Question = (Arc<Query>, Vec<(String, Parameter)>);

/// What the readers of targets know.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The names of all things.
    pub(super) names: &'a Names<'a>,
    /// Those containers in which nothing is wrong.
    pub(super) containers: &'a BTreeMap<String, Container>,
    /// Such topics.
    pub(super) topics: &'a BTreeMap<String, Topic>,
    /// The path of the operation, if nothing is wrong with it.
    pub(super) path: Option<&'a PathTemplate>,
}

/// Reads `to`; says what is asked of a container even where the rest is wrong.
pub(super) fn read(node: &Node, known: Known<'_>, report: &mut Report) -> (Option<Verb>, Option<Target>) {
    let Some(mut fields) = Fields::open(node, report) else { return (None, None) };
    if fields.has("subscriptions") {
        return (None, webhooks::read_target(fields, known, report));
    }
    if let Some(mock) = fields.optional("mock") {
        for key in TO_DOCUMENTS {
            if fields.optional(key).is_some() {
                report.add(fields.place_of(key), format!("`{key}` does not go with `mock`"));
            }
        }
        fields.finish(&ELSEWHERE, report);
        return (None, mock::read(mock, report).map(Target::Mock));
    }
    let elsewhere = ELSEWHERE.iter().any(|key| fields.has(key));
    let mut key = |key, needed: bool, report: &mut Report| {
        if needed { fields.required(key, report) } else { fields.optional(key) }
    };
    let container = key("container", !elsewhere, report)
        .and_then(|node| fields::reference(node, "container", &known.names.containers, report));
    let verb =
        key("do", !elsewhere, report).and_then(|node| fields::choice(node, &VERBS, &DO_NOT_BUILT, report));
    let needs_id = verb.is_some_and(Verb::needs_id);
    let id = key("id", needs_id, report).map(|node| template(node, known.path, report));
    let partition = key("partition", verb.is_some_and(Verb::needs_partition), report);
    let templates = partition.map(|node| partition_templates(node, known.path, report));
    let sql = key("sql", verb == Some(Verb::Query), report);
    let params = key("params", false, report);
    let query = (verb == Some(Verb::Query)).then(|| query(sql, params, known.path, report)).flatten();
    if let Some(verb) = verb {
        let misplaced =
            [("id", id.is_some() && !needs_id), ("sql", sql.is_some()), ("params", params.is_some())];
        for (name, there) in misplaced {
            if there && (name == "id" || verb != Verb::Query) {
                report.add(fields.place_of(name), format!("`{name}` does not go with `do: {}`", verb.name()));
            }
        }
        let declared = container.as_ref().and_then(|name| known.containers.get(name));
        let place = partition.map_or(fields.place_of("do"), |node| node.place);
        if let (Some(declared), false) = (declared, matches!(templates, Some(None))) {
            let given = templates.as_ref().map(|given| given.as_ref().map_or(0, Vec::len));
            check_parts(verb, given, (&declared.partition_key, place), report);
        }
    }
    fields.finish(&ELSEWHERE, report);
    let target = || {
        let (verb, partition) = (verb?, templates.map_or(Some(None), |given| given.map(Some))?);
        let action = action(verb, partition, id.flatten(), query)?;
        Some(Target::Documents { container: container?, action })
    };
    (verb, target())
}

fn action(
    verb: Verb,
    partition: Option<Vec<Template>>,
    id: Option<Template>,
    query: Option<Question>,
) -> Option<Action> {
    let at = |partition: Option<Vec<Template>>, id| Some(DocumentAt { partition: partition?, id });
    Some(match verb {
        Verb::Create => Action::Create { partition },
        Verb::Read => Action::Read(at(partition, id?)?),
        Verb::Upsert => Action::Upsert(at(partition, id?)?),
        Verb::Replace => Action::Replace(at(partition, id?)?),
        Verb::Patch => Action::Patch(at(partition, id?)?),
        Verb::Delete => Action::Delete(at(partition, id?)?),
        Verb::List => Action::List { partition: partition? },
        Verb::Batch => Action::Batch { partition: partition? },
        Verb::Query => {
            let (query, parameters) = query?;
            Action::Query { partition: partition.unwrap_or_default(), query, parameters }
        }
        Verb::DeletePartition => Action::DeletePartition { partition: partition? },
    })
}

/// Refuses a partition with too few or too many templates for the key of its container.
fn check_parts(verb: Verb, given: Option<usize>, (key, place): (&[KeyPart], Place), report: &mut Report) {
    let of_id = |part: &&KeyPart| part.buckets.is_some() && part.pointer.segments == ["id"];
    let named = key.iter().filter(|part| !of_id(part)).count();
    let leading = key.iter().take_while(|part| !of_id(part)).count();
    let written = key.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let values = |count: usize| if count == 1 { "1 value".to_owned() } else { format!("{count} values") };
    let needed = values(named);
    let Some(given) = given else { return };
    match verb {
        Verb::Read | Verb::Upsert | Verb::Replace | Verb::Patch | Verb::Delete | Verb::Create => {
            if given != named {
                let without = if named < key.len() { ", the bucket of `/id` not counted" } else { "" };
                let message =
                    format!("the partition key ({written}) needs {needed} here{without}, found {given}");
                report.add(place, message);
            }
        }
        Verb::List | Verb::Batch if named < key.len() => {
            let message = format!(
                "`do: {}` works on one partition, but in the partition key ({written}) each document's `/id` has a say",
                verb.name()
            );
            report.add(place, message);
        }
        Verb::List if given < named => {
            let message = format!(
                "a list of several partitions is not built yet: the partition key ({written}) needs {needed}, \
                 found {given}; or use `do: query`"
            );
            report.add(place, message);
        }
        Verb::List | Verb::Batch => {
            if given != named {
                let message = format!("the partition key ({written}) needs {needed}, found {given}");
                report.add(place, message);
            }
        }
        Verb::Query | Verb::DeletePartition => {
            if given > leading || (given == 0 && verb == Verb::DeletePartition) {
                let most = values(leading);
                let message =
                    format!("the partition key ({written}) takes at most {most} here, found {given}");
                report.add(place, message);
            }
        }
    }
}

/// Reads one template, or a list of them.
fn partition_templates(
    node: &Node,
    path: Option<&PathTemplate>,
    report: &mut Report,
) -> Option<Vec<Template>> {
    let Value::List(items) = &node.value else { return Some(vec![template(node, path, report)?]) };
    if items.is_empty() {
        return fields::expected(node, "a value for each part of the partition key", report);
    }
    let templates: Vec<_> = items.iter().map(|item| template(item, path, report)).collect();
    templates.into_iter().collect()
}

/// What a text with braces stands for.
enum Reference<'t> {
    Segment(&'t str),
    Query(&'t str),
}

/// Reads a text that is a literal (`None`) or one reference in braces.
fn reference<'t>(
    node: &'t Node,
    text: &'t str,
    path: Option<&PathTemplate>,
    report: &mut Report,
) -> Option<Option<Reference<'t>>> {
    if !text.contains(['{', '}']) {
        return Some(None);
    }
    let inside = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let Some(name) = inside.filter(|name| !name.contains(['{', '}'])) else {
        return fields::expected(node, "one `{parameter}` of the path, or a text without braces", report);
    };
    if let Some(name) = name.strip_prefix("query.") {
        return Some(Some(Reference::Query(name)));
    }
    if name.starts_with("header.") {
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
    Some(Some(Reference::Segment(name)))
}

/// Reads a literal or one `{parameter}`; `path` is where the parameter must be.
pub(super) fn template(node: &Node, path: Option<&PathTemplate>, report: &mut Report) -> Option<Template> {
    let text = fields::text(node, report)?;
    match reference(node, text, path, report)? {
        Some(Reference::Segment(name)) => Some(Template::Parameter(name.to_owned())),
        Some(Reference::Query(_)) => {
            report.not_built(node.place, text);
            None
        }
        None if text.is_empty() || text.len() > LITERAL_MAX || text.chars().any(char::is_control) => {
            fields::expected(node, &format!("a text of 1 to {LITERAL_MAX} bytes"), report)
        }
        None => Some(Template::Literal(text.to_owned())),
    }
}

/// Reads the text of a query and the values of its parameters.
fn query(
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

fn parameter(node: &Node, path: Option<&PathTemplate>, report: &mut Report) -> Option<Parameter> {
    let Value::Text(text) = &node.value else { return Some(Parameter::Literal(mock::json(node))) };
    Some(match reference(node, text, path, report)? {
        None => Parameter::Literal(Json::from(text.as_str())),
        Some(Reference::Segment(name)) => Parameter::Segment(name.to_owned()),
        Some(Reference::Query(name)) => Parameter::Query(name.to_owned()),
    })
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
            // What comes with a request is a string, whatever is in it.
            Parameter::Segment(_) | Parameter::Query(_) => Json::from(""),
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
