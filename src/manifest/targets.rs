//! Stands between `to` of an operation and what answers it.
//!
//! Invariant: every template names a parameter of the operation's own path, a partition has as many templates as
//! its container's key can take from a request, and a query is one that can be carried out.

use std::collections::BTreeMap;

use lanekeeper_actors::model::topic::SYSTEM_TOPIC;

use super::Names;
use super::backends;
use super::fields::{self, Fields};
use super::mock;
use super::model::{
    Action, Container, Destination, DocumentAt, EventSubscription, KeyPart, PathTemplate, QueueAction,
    Segment, Target, Template, Topic, TopicSource,
};
use super::problem::{Place, Report, closest, quoted};
use super::questions::{self, Question};
use super::tree::{Node, Value};
use super::webhooks;

/// Longest literal of a template, in bytes.
const LITERAL_MAX: usize = 255;

/// Keys of `to` that name something else than documents.
const ELSEWHERE: [&str; 1] = ["function"];
/// Keys of `to` that go with `container`.
const TO_DOCUMENTS: [&str; 6] = ["container", "do", "id", "params", "partition", "sql"];
/// What is done to a topic.
const PUBLISH: &str = "publish";
const QUEUE_ACTIONS: [(&str, QueueAction); 6] = [
    ("receive", QueueAction::Receive),
    ("acknowledge", QueueAction::Acknowledge),
    ("release", QueueAction::Release),
    ("reject", QueueAction::Reject),
    ("renew_lock", QueueAction::RenewLock),
    // As Event Grid writes it.
    ("renewLock", QueueAction::RenewLock),
];

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
    Bulk,
    Query,
    DeletePartition,
}

const VERBS: [(&str, Verb); 11] = [
    ("create", Verb::Create),
    ("read", Verb::Read),
    ("upsert", Verb::Upsert),
    ("replace", Verb::Replace),
    ("patch", Verb::Patch),
    ("delete", Verb::Delete),
    ("list", Verb::List),
    ("batch", Verb::Batch),
    ("bulk", Verb::Bulk),
    ("query", Verb::Query),
    ("delete_partition", Verb::DeletePartition),
];

impl Verb {
    fn name(self) -> &'static str {
        VERBS.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }

    fn needs_id(self) -> bool {
        match self {
            Self::Read | Self::Upsert | Self::Replace | Self::Patch | Self::Delete => true,
            Self::Create | Self::List | Self::Batch | Self::Bulk | Self::Query | Self::DeletePartition => {
                false
            }
        }
    }

    fn needs_partition(self) -> bool {
        !matches!(self, Self::Create | Self::Bulk | Self::Query)
    }

    /// Whether a request that comes twice may have done something twice, and its answer can be kept.
    fn can_repeat(self) -> bool {
        match self {
            Self::Create | Self::Upsert | Self::Replace | Self::Patch | Self::Batch => true,
            Self::Read | Self::Delete | Self::List | Self::Bulk | Self::Query | Self::DeletePartition => {
                false
            }
        }
    }
}

/// What an operation does to documents or events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Documents(Verb),
    Publish,
    Queue(QueueAction),
}

impl Asked {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Documents(verb) => verb.name(),
            Self::Publish => PUBLISH,
            Self::Queue(wanted) => {
                QUEUE_ACTIONS.iter().find(|(_, action)| *action == wanted).map_or("", |(name, _)| name)
            }
        }
    }

    /// Whether a key of the caller's can keep it from happening twice. Events have ids of their own for that.
    pub(super) fn can_repeat(self) -> bool {
        match self {
            Self::Documents(verb) => verb.can_repeat(),
            Self::Publish | Self::Queue(_) => false,
        }
    }
}

/// What the readers of targets know.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The names of all things.
    pub(super) names: &'a Names<'a>,
    /// Those containers in which nothing is wrong.
    pub(super) containers: &'a BTreeMap<String, Container>,
    /// Such topics.
    pub(super) topics: &'a BTreeMap<String, Topic>,
    /// Such subscriptions.
    pub(super) subscriptions: &'a BTreeMap<String, EventSubscription>,
    /// The path of the operation, if nothing is wrong with it.
    pub(super) path: Option<&'a PathTemplate>,
}

/// Reads `to`; says what is asked even where the rest is wrong.
pub(super) fn read(node: &Node, known: Known<'_>, report: &mut Report) -> (Option<Asked>, Option<Target>) {
    let Some(mut fields) = Fields::open(node, report) else { return (None, None) };
    if fields.has("upstream") || fields.has("backend") {
        return (None, backends::read_target(fields, known, report));
    }
    if fields.has("subscriptions") {
        return (None, webhooks::read_target(fields, known, report));
    }
    for key in ["topic", "queue"] {
        if fields.has(key) {
            return events(key, fields, known, report);
        }
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
    let verb = key("do", !elsewhere, report).and_then(|node| fields::choice(node, &VERBS, &[], report));
    let needs_id = verb.is_some_and(Verb::needs_id);
    let id = key("id", needs_id, report).map(|node| template(node, known.path, report));
    let partition = key("partition", verb.is_some_and(Verb::needs_partition), report);
    let templates = partition.map(|node| partition_templates(node, known.path, report));
    let sql = key("sql", verb == Some(Verb::Query), report);
    let params = key("params", false, report);
    let query =
        (verb == Some(Verb::Query)).then(|| questions::read(sql, params, known.path, report)).flatten();
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
    (verb.map(Asked::Documents), target())
}

/// Reads `{ topic: …, do: publish }` or `{ queue: …, do: receive }`.
fn events(
    key: &'static str,
    mut fields: Fields<'_>,
    known: Known<'_>,
    report: &mut Report,
) -> (Option<Asked>, Option<Target>) {
    for other in
        TO_DOCUMENTS.into_iter().chain(["mock", "queue"]).filter(|other| !["do", key].contains(other))
    {
        if fields.optional(other).is_some() {
            report.add(fields.place_of(other), format!("`{other}` does not go with `{key}`"));
        }
    }
    let named = fields.optional(key);
    let verb = fields.required("do", report);
    let read = if key == "topic" {
        let asked = verb.and_then(|node| fields::choice(node, &[(PUBLISH, Asked::Publish)], &[], report));
        (asked, named.and_then(|node| publish(node, known, report)).filter(|_| asked.is_some()))
    } else {
        let action = verb.and_then(|node| fields::choice(node, &QUEUE_ACTIONS, &[], report));
        let subscription = named.and_then(|node| queue(node, known, report));
        let target = action.zip(subscription);
        let target = target.map(|(action, subscription)| Target::Queue { subscription, action });
        (action.map(Asked::Queue), target)
    };
    fields.finish(&ELSEWHERE, report);
    read
}

/// Reads the name of a topic that callers may publish to.
fn publish(node: &Node, known: Known<'_>, report: &mut Report) -> Option<Target> {
    let topic = fields::reference(node, "topic", &known.names.topics, report)?;
    if topic == SYSTEM_TOPIC {
        report.add(node.place, format!("{} has events of the system alone", quoted(&topic)));
        return None;
    }
    if let Some(Topic { source: TopicSource::Changes { container, .. }, .. }) = known.topics.get(&topic) {
        let of = quoted(container);
        report.add(node.place, format!("{} has the changes of {of}: nobody publishes to it", quoted(&topic)));
        return None;
    }
    Some(Target::Publish { topic })
}

/// Reads the name of a subscription whose events are received.
fn queue(node: &Node, known: Known<'_>, report: &mut Report) -> Option<String> {
    let names = &known.names.event_subscriptions;
    let name = fields::reference(node, "event subscription", names, report)?;
    let to = known.subscriptions.get(&name).map(|subscription| &subscription.to);
    if let Some(Destination::Webhook(_)) = to {
        report.add(node.place, format!("the events of {} are sent: it is no `queue`", quoted(&name)));
        return None;
    }
    Some(name)
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
        Verb::Bulk => Action::Bulk { partition: partition.unwrap_or_default() },
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
        Verb::Bulk => {
            if given > named {
                let message =
                    format!("the partition key ({written}) takes at most {needed} here, found {given}");
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
pub(super) enum Reference<'t> {
    Segment(&'t str),
    Query(&'t str),
}

/// Reads a text that is a literal (`None`) or one reference in braces.
pub(super) fn reference<'t>(
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
