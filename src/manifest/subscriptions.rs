//! Stands between the section `event_subscriptions` and who wants which events.
//!
//! Invariant: a filter that is handed out can be compiled, and asks for no type that its topic never makes.

mod webhook;

pub(super) use webhook::{pem, tls};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lanekeeper_actors::model::topic::SYSTEM_TOPIC;
use lanekeeper_actors::policy::filter::{
    Condition, FilterProblem, FilterSpec, KeyTable, OPERATORS, Test, TestFault,
};
use lanekeeper_actors::subscriber::{BatchSettings, ContentMode, Order, QueueSettings};

use super::Names;
use super::fields::{self, Fields};
use super::mock;
use super::model::{Destination, EventSubscription, Retry, SubjectFilter, Topic, TopicSource, Webhook};
use super::named::NamedValues;
use super::problem::{Report, closest, quoted};
use super::tree::Node;
use super::units::{DAY, HOUR, KIB, MIB, SECOND};
use crate::blob::{InvalidPlace, Place};

/// Event Grid's most attempts, and its default.
const ATTEMPTS_MAX: usize = 30;
/// Smallest factor on the steps of the schedule: a day becomes nine seconds.
const SCALE_MIN: f64 = 0.0001;
/// Event Grid's most events in a batch.
const BATCH_MAX: usize = 5_000;
/// Event Grid's preferred size of a batch.
const BATCH_BYTES: usize = 64 * 1024;
/// Most times that an event is given out.
const DELIVERIES_MAX: usize = 100;
/// Event Grid's defaults of a queue.
const QUEUE: QueueSettings = QueueSettings { lock: Duration::from_secs(60), max_deliveries: 10 };
/// Longest place of dead letters, in bytes.
const PLACE_MAX: usize = 2_048;
/// What the system tells of itself.
const SYSTEM_TYPES: [&str; 5] = [
    "dead_letter.created",
    "subscription.disabled",
    "subscription.probation",
    "subscription.recovered",
    "subscription.validation_failed",
];
/// The one type that means all of them, as in Event Grid.
const ALL_TYPES: &str = "All";

const ORDERS: [(&str, Order); 2] = [("none", Order::None), ("partition", Order::Partition)];
const TO_NOT_BUILT: [&str; 2] = ["function", "subscriptions"];

/// What the reader of a subscription knows.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The names of all things.
    pub(super) names: &'a Names<'a>,
    /// Those topics in which nothing is wrong.
    pub(super) topics: &'a BTreeMap<String, Topic>,
    /// What `{{name}}` stands for.
    pub(super) values: &'a NamedValues<'a>,
}

/// Reads a subscription.
pub(super) fn read(node: &Node, known: Known<'_>, report: &mut Report) -> Option<EventSubscription> {
    let mut fields = Fields::open(node, report)?;
    let topic = fields
        .required("topic", report)
        .and_then(|node| fields::reference(node, "topic", &known.names.topics, report));
    let types = fields.optional("types").map(|node| types(node, made(topic.as_deref(), known), report));
    let tenant = fields.optional("tenant").map(|node| fields::name(node, report));
    let subject = match fields.optional("subject") {
        Some(node) => subject(node, report),
        None => Some(SubjectFilter::default()),
    };
    let arrays = match fields.optional("arrays") {
        Some(node) => fields::boolean(node, report),
        None => Some(false),
    };
    let filter = match fields.optional("filter") {
        Some(node) => filter(node, report),
        None => Some(Vec::new()),
    };
    let batch = fields.optional("batch").map(|node| batch(node, report));
    let to = fields.required("to", report).and_then(|node| destination(node, known.values, report));
    let to = match (to, batch) {
        (Some(Destination::Webhook(webhook)), Some(_)) if webhook.mode == ContentMode::Binary => {
            report.add(
                fields.place_of("batch"),
                "`batch` does not go with `mode: binary`, which has one event in a request",
            );
            None
        }
        (Some(Destination::Webhook(webhook)), batch) => {
            Some(Destination::Webhook(Box::new(Webhook { batch: batch.flatten(), ..*webhook })))
        }
        (Some(Destination::Queue(_)), Some(_)) => {
            report.add(
                fields.place_of("batch"),
                "`batch` does not go with `queue`: receivers say how many they take",
            );
            None
        }
        (to, _) => to,
    };
    let order = match fields.optional("order") {
        Some(node) => fields::choice(node, &ORDERS, &[], report),
        None => Some(Order::None),
    };
    let retry = match fields.optional("retry") {
        Some(node) => retry(node, report),
        None => Some(RETRY),
    };
    let dead_letter = fields.optional("dead_letter").map(|node| dead_letter(node, report));
    fields.finish(&[], report);
    Some(EventSubscription {
        topic: topic?,
        tenant: tenant.flatten(),
        types,
        subject: subject?,
        filter: filter?,
        arrays: arrays?,
        to: to?,
        order: order?,
        retry: retry?,
        dead_letter: dead_letter.flatten(),
    })
}

/// The types that a topic makes, where they are known.
fn made<'a>(topic: Option<&str>, known: Known<'a>) -> Option<BTreeSet<&'a str>> {
    let topic = topic?;
    if topic == SYSTEM_TOPIC {
        return Some(SYSTEM_TYPES.into_iter().collect());
    }
    let TopicSource::Changes { types, .. } = &known.topics.get(topic)?.source else { return None };
    let types = [&types.created, &types.replaced, &types.deleted];
    Some(types.into_iter().filter_map(|name| name.as_deref()).collect())
}

fn types(node: &Node, made: Option<BTreeSet<&str>>, report: &mut Report) -> Vec<String> {
    let mut types = Vec::new();
    for (text, item) in fields::distinct_texts(node, report).unwrap_or_default() {
        if let Some(made) = made.as_ref().filter(|made| text != ALL_TYPES && !made.contains(text))
            && report.is_whole()
        {
            let message = format!("the topic makes no event {}", quoted(text));
            report.suggest(item.place, message, closest(text, made.iter().copied()));
        }
        types.push(text.to_owned());
    }
    types
}

fn subject(node: &Node, report: &mut Report) -> Option<SubjectFilter> {
    let mut fields = Fields::open(node, report)?;
    let mut literal = |key: &'static str, report: &mut Report| match fields.optional(key) {
        Some(node) => fields::text(node, report).map(str::to_owned),
        None => Some(String::new()),
    };
    let begins = literal("begins", report);
    let ends = literal("ends", report);
    let case_sensitive = match fields.optional("case_sensitive") {
        Some(node) => fields::boolean(node, report),
        None => Some(false),
    };
    fields.finish(&[], report);
    Some(SubjectFilter { begins: begins?, ends: ends?, case_sensitive: case_sensitive? })
}

/// Reads a list of conditions.
fn filter(node: &Node, report: &mut Report) -> Option<Vec<Condition>> {
    let mut conditions = Vec::new();
    let before = report.count();
    for item in fields::list(node, report)? {
        conditions.extend(condition(item, report));
    }
    if report.count() > before {
        return None;
    }
    let spec = FilterSpec { advanced: conditions, ..FilterSpec::default() };
    // Each condition is right by itself; what is left is what they are together.
    if let Err(problem) = spec.compile(&KeyTable::default()) {
        report.add(node.place, problem.to_string());
        return None;
    }
    Some(spec.advanced)
}

/// Reads `{ key: data.weight, operator: NumberGreaterThan, value: 1000 }`.
fn condition(node: &Node, report: &mut Report) -> Option<Condition> {
    let mut fields = Fields::open(node, report)?;
    let key = fields.required("key", report).and_then(|node| fields::text(node, report));
    let operator = fields.required("operator", report);
    let value = fields.optional("value").map(mock::json);
    let values = fields.optional("values").map(mock::json);
    fields.finish(&[], report);
    let (key, operator) = (key?, operator?);
    let name = fields::text(operator, report)?;
    let test = match Test::read(name, value.as_ref(), values.as_ref()) {
        Ok(test) => test,
        Err(TestFault::Unknown(_)) => {
            let message = format!("there is no operator {}", quoted(name));
            report.suggest(operator.place, message, closest(name, OPERATORS));
            return None;
        }
        Err(fault) => {
            report.add(operator.place, fault.to_string());
            return None;
        }
    };
    let condition = Condition { key: key.to_owned(), test };
    let alone = FilterSpec { advanced: vec![condition.clone()], ..FilterSpec::default() };
    match alone.compile(&KeyTable::default()) {
        Ok(_) | Err(FilterProblem::TooManyValues(_)) => Some(condition),
        Err(FilterProblem::Condition { fault, .. }) => {
            report.add(node.place, format!("condition on {}: {fault}", quoted(key)));
            None
        }
        Err(
            problem @ (FilterProblem::TooManyConditions(_)
            | FilterProblem::TooManyTypes(_)
            | FilterProblem::SubjectTooLong(_)),
        ) => {
            report.add(node.place, problem.to_string());
            None
        }
    }
}

fn batch(node: &Node, report: &mut Report) -> Option<BatchSettings> {
    let mut fields = Fields::open(node, report)?;
    let events =
        fields.required("events", report).and_then(|node| fields::count(node, 1..=BATCH_MAX, report));
    let size = fields.optional("size").map(|node| fields::size(node, KIB..=MIB, report));
    fields.finish(&[], report);
    let bytes = match size {
        Some(size) => usize::try_from(size?).ok()?,
        None => BATCH_BYTES,
    };
    Some(BatchSettings { events: events?, bytes })
}

const RETRY: Retry = Retry { max_attempts: 30, ttl: DAY, scale: 1.0, probation: true };

fn retry(node: &Node, report: &mut Report) -> Option<Retry> {
    let mut fields = Fields::open(node, report)?;
    let mut retry = RETRY;
    if let Some(node) = fields.optional("max_attempts") {
        let attempts = fields::count(node, 1..=ATTEMPTS_MAX, report);
        retry.max_attempts =
            attempts.and_then(|count| u32::try_from(count).ok()).unwrap_or(retry.max_attempts);
    }
    if let Some(node) = fields.optional("ttl") {
        retry.ttl = fields::duration(node, SECOND..=DAY, report).unwrap_or(retry.ttl);
    }
    if let Some(node) = fields.optional("scale") {
        retry.scale = fields::number(node, SCALE_MIN..=1.0, report).unwrap_or(retry.scale);
    }
    if let Some(node) = fields.optional("probation") {
        retry.probation = fields::boolean(node, report).unwrap_or(retry.probation);
    }
    fields.finish(&[], report);
    Some(retry)
}

fn destination(node: &Node, values: &NamedValues<'_>, report: &mut Report) -> Option<Destination> {
    let mut fields = Fields::open(node, report)?;
    if let Some(node) = fields.optional("queue") {
        for key in webhook::KEYS {
            if fields.optional(key).is_some() {
                report.add(fields.place_of(key), format!("`{key}` does not go with `queue`"));
            }
        }
        fields.finish(&TO_NOT_BUILT, report);
        return queue(node, report).map(Destination::Queue);
    }
    let elsewhere = TO_NOT_BUILT.iter().any(|key| fields.has(key));
    let webhook = webhook::read(&mut fields, !elsewhere, values, report);
    fields.finish(&TO_NOT_BUILT, report);
    webhook.map(|webhook| Destination::Webhook(Box::new(webhook)))
}

fn queue(node: &Node, report: &mut Report) -> Option<QueueSettings> {
    let mut fields = Fields::open(node, report)?;
    let lock = match fields.optional("lock") {
        Some(node) => fields::duration(node, SECOND..=HOUR, report),
        None => Some(QUEUE.lock),
    };
    let deliveries = match fields.optional("max_deliveries") {
        Some(node) => fields::count(node, 1..=DELIVERIES_MAX, report).and_then(|count| count.try_into().ok()),
        None => Some(QUEUE.max_deliveries),
    };
    fields.finish(&[], report);
    Some(QueueSettings { lock: lock?, max_deliveries: deliveries? })
}

/// Reads `{ blob: PLACE }`.
fn dead_letter(node: &Node, report: &mut Report) -> Option<Place> {
    let mut fields = Fields::open(node, report)?;
    let blob = fields.required("blob", report);
    fields.finish(&[], report);
    let node = blob?;
    let text = fields::text(node, report)?;
    if text.is_empty() || text.len() > PLACE_MAX || text.chars().any(char::is_control) {
        return fields::expected(node, "a directory, or the URL of an object store", report);
    }
    text.parse().map_err(|error: InvalidPlace| report.add(node.place, error.to_string())).ok()
}
