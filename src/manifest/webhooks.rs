//! Stands between the manifest and webhooks that tenants make themselves: what a product allows, and which
//! operations there are.
//!
//! Invariant: an operation names a topic whose events have a tenant, so that everybody can be shown their own.

use lanekeeper_actors::model::topic::SYSTEM_TOPIC;

use super::fields::{self, Fields};
use super::model::{
    HandshakeRule, Target, Template, Tenancy, Topic, TopicSource, WebhookAction, WebhookRules,
};
use super::problem::{Report, quoted};
use super::targets::{self, Known};
use super::tree::Node;
use crate::delivery::{Cidr, CidrProblem};

/// Most webhooks that a tenant may be allowed.
const MAX: usize = 10_000;
/// Most deliveries per minute that may be allowed.
const RATE_MAX: usize = 10_000_000;
/// Longest name of a host.
const HOST_MAX: usize = 253;

/// How an endpoint can be asked.
pub(super) const HANDSHAKES: [(&str, HandshakeRule); 3] = [
    ("event_grid", HandshakeRule::EventGrid),
    ("cloudevents", HandshakeRule::CloudEvents),
    ("none", HandshakeRule::None),
];

/// What is asked of webhooks, before its template is known.
#[derive(Clone, Copy)]
enum Verb {
    Create,
    List,
    OfOne(fn(Template) -> WebhookAction),
}

const VERBS: [(&str, Verb); 10] = [
    ("create", Verb::Create),
    ("list", Verb::List),
    ("show", Verb::OfOne(WebhookAction::Show)),
    ("update", Verb::OfOne(WebhookAction::Update)),
    ("rotate_secret", Verb::OfOne(WebhookAction::RotateSecret)),
    ("test", Verb::OfOne(WebhookAction::Test)),
    ("attempts", Verb::OfOne(WebhookAction::Attempts)),
    ("dead_letters", Verb::OfOne(WebhookAction::DeadLetters)),
    ("replay", Verb::OfOne(WebhookAction::Replay)),
    ("delete", Verb::OfOne(WebhookAction::Delete)),
];

/// Keys that do not go with `subscriptions`.
const OTHERS: [&str; 8] = ["container", "function", "mock", "params", "partition", "queue", "sql", "topic"];

/// Reads `{ subscriptions: TOPIC, do: show, id: "{id}" }`.
pub(super) fn read_target(mut fields: Fields<'_>, known: Known<'_>, report: &mut Report) -> Option<Target> {
    for other in OTHERS {
        if fields.optional(other).is_some() {
            report.add(fields.place_of(other), format!("`{other}` does not go with `subscriptions`"));
        }
    }
    let topic = fields.required("subscriptions", report).and_then(|node| topic(node, known, report));
    let verb = fields.required("do", report).and_then(|node| fields::choice(node, &VERBS, &[], report));
    let action = match verb {
        Some(Verb::OfOne(action)) => {
            let id = fields.required("id", report);
            id.and_then(|node| targets::template(node, known.path, report)).map(action)
        }
        Some(Verb::Create) => {
            no_id(&mut fields, "create", report);
            Some(WebhookAction::Create)
        }
        Some(Verb::List) => {
            no_id(&mut fields, "list", report);
            Some(WebhookAction::List)
        }
        None => {
            fields.optional("id");
            None
        }
    };
    fields.finish(&[], report);
    Some(Target::Webhooks { topic: topic?, action: action? })
}

fn no_id(fields: &mut Fields<'_>, verb: &str, report: &mut Report) {
    if fields.optional("id").is_some() {
        report.add(fields.place_of("id"), format!("`id` does not go with `do: {verb}`"));
    }
}

fn topic(node: &Node, known: Known<'_>, report: &mut Report) -> Option<String> {
    let name = fields::reference(node, "topic", &known.names.topics, report)?;
    if name == SYSTEM_TOPIC {
        report.add(node.place, format!("{} is for operators alone", quoted(&name)));
        return None;
    }
    if let Some(topic) = known.topics.get(&name)
        && !has_tenants(topic, known)
    {
        let text = format!("nobody knows whose the events of {} are: its container is shared", quoted(&name));
        report.add(node.place, text);
        return None;
    }
    Some(name)
}

/// Whether each event of the topic may have a tenant.
fn has_tenants(topic: &Topic, known: Known<'_>) -> bool {
    match &topic.source {
        // Whoever publishes an event is its tenant.
        TopicSource::Published => true,
        TopicSource::Changes { .. } if topic.tenant.is_some() => true,
        TopicSource::Changes { container, .. } => {
            let container = known.containers.get(container);
            container.is_none_or(|container| container.tenancy == Tenancy::Isolated)
        }
    }
}

/// Reads `webhooks` of a product.
pub(super) fn read_rules(node: &Node, report: &mut Report) -> Option<WebhookRules> {
    let mut fields = Fields::open(node, report)?;
    let mut rules = WebhookRules::default();
    if let Some(node) = fields.optional("max") {
        rules.max = fields::count(node, 0..=MAX, report).unwrap_or(rules.max);
    }
    if let Some(node) = fields.optional("rate") {
        let rate = fields::count(node, 1..=RATE_MAX, report);
        rules.rate = rate.and_then(|rate| u32::try_from(rate).ok());
    }
    if let Some(node) = fields.optional("hosts") {
        let texts = fields::distinct_texts(node, report).unwrap_or_default();
        let hosts = texts.into_iter().filter_map(|(text, item)| host(text, item, report));
        rules.hosts = Some(hosts.collect());
    }
    if let Some(node) = fields.optional("allow") {
        let items = fields::list(node, report).unwrap_or_default();
        rules.allow = items.iter().filter_map(|item| block(item, report)).collect();
    }
    if let Some(node) = fields.optional("handshake") {
        rules.handshake = fields::choice(node, &HANDSHAKES, &[], report).unwrap_or(rules.handshake);
    }
    fields.finish(&[], report);
    Some(rules)
}

fn host(text: &str, node: &Node, report: &mut Report) -> Option<String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let legal = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    if name.is_empty() || text.len() > HOST_MAX || !name.chars().all(legal) {
        return fields::expected(node, "a host, or a domain such as `*.partner.example`", report);
    }
    Some(text.to_ascii_lowercase())
}

/// Reads a list of blocks of addresses.
pub(super) fn blocks(node: &Node, report: &mut Report) -> Vec<Cidr> {
    let items = fields::list(node, report).unwrap_or_default();
    items.iter().filter_map(|item| block(item, report)).collect()
}

/// Reads a block of addresses.
pub(super) fn block(node: &Node, report: &mut Report) -> Option<Cidr> {
    let text = fields::text(node, report)?;
    match text.parse::<Cidr>() {
        Ok(block) => Some(block),
        Err(CidrProblem::HostBits { meant, .. }) => {
            let message = format!("{} has bits outside its prefix", quoted(text));
            report.suggest(node.place, message, Some(meant.to_string()));
            None
        }
        Err(CidrProblem::Address(_) | CidrProblem::Prefix(_)) => {
            fields::expected(node, "an address, or a block such as `10.0.0.0/8`", report)
        }
    }
}
