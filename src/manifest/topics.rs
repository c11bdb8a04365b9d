//! Stands between the section `topics` and where events come from.
//!
//! Invariant: a topic that is not published to names a container that exists, and at least one kind of its
//! changes; nobody declares the topic of the system's own events.

use std::time::Duration;

use super::Names;
use super::containers::{RETENTION_MAX, pointer};
use super::fields::{self, Fields};
use super::model::{ChangeTypes, Topic, TopicSource};
use super::problem::Report;
use super::tree::Node;
use super::units::DAY;

/// Longest event type, in characters.
const EVENT_TYPE_MAX: usize = 256;
/// How long published events can be replayed when nobody says.
const RETENTION: Duration = DAY;

/// Reads a topic.
pub(super) fn read(node: &Node, names: &Names<'_>, report: &mut Report) -> Option<Topic> {
    let mut fields = Fields::open(node, report)?;
    let source = match fields.optional("from") {
        Some(from) => read_from(from, names, report),
        None => Some(TopicSource::Published),
    };
    let tenant = fields.optional("tenant").map(|node| pointer(node, report));
    if let (Some(_), Some(TopicSource::Published)) = (&tenant, &source) {
        let text = "`tenant` goes with `from`: whoever publishes an event is its tenant";
        report.add(fields.place_of("tenant"), text);
    }
    let retention = match (fields.optional("retention"), &source) {
        (Some(node), _) => fields::duration(node, Duration::ZERO..=RETENTION_MAX, report),
        (None, Some(TopicSource::Published)) => Some(RETENTION),
        // Changes are kept as long as their container says.
        (None, Some(TopicSource::Changes { .. }) | None) => Some(Duration::ZERO),
    };
    fields.finish(&[], report);
    Some(Topic { source: source?, tenant: tenant.flatten(), retention: retention? })
}

fn read_from(node: &Node, names: &Names<'_>, report: &mut Report) -> Option<TopicSource> {
    let mut fields = Fields::open(node, report)?;
    let container = fields
        .required("container", report)
        .and_then(|node| fields::reference(node, "container", &names.containers, report));
    let types = fields.required("types", report).and_then(|node| change_types(node, report));
    fields.finish(&[], report);
    Some(TopicSource::Changes { container: container?, types: types? })
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
fn event_type(node: &Node, report: &mut Report) -> Option<String> {
    let text = fields::text(node, report)?;
    if text.is_empty() || text.chars().count() > EVENT_TYPE_MAX || text.chars().any(char::is_control) {
        let what = format!("an event type of 1 to {EVENT_TYPE_MAX} characters");
        return fields::expected(node, &what, report);
    }
    Some(text.to_owned())
}
