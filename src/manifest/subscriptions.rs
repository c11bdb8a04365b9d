//! Stands between the section `event_subscriptions` and where events go.
//!
//! Invariant: no subscription names a destination that is not public, unless its own `allow` covers it. A host
//! name is decided when it is resolved; here only literal addresses and `localhost` can be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use super::Names;
use super::fields::{self, Fields};
use super::model::{EventSubscription, Retry, SubjectFilter, Topic, Webhook};
use super::problem::{Report, closest, quoted};
use super::tree::Node;
use super::units::{DAY, SECOND};
use crate::delivery::{Cidr, CidrProblem, vet};

/// Event Grid's most attempts, and its default.
const ATTEMPTS_MAX: usize = 30;
/// Smallest factor on the steps of the schedule: a day becomes nine seconds.
const SCALE_MIN: f64 = 0.0001;
/// Longest URL, in bytes.
const URL_MAX: usize = 2048;

const NOT_BUILT: [&str; 5] = ["batch", "dead_letter", "filter", "order", "sign"];
const TO_NOT_BUILT: [&str; 3] = ["function", "queue", "sign"];

/// Reads a subscription.
pub(super) fn read(
    node: &Node,
    names: &Names<'_>,
    topics: &BTreeMap<String, Topic>,
    report: &mut Report,
) -> Option<EventSubscription> {
    let mut fields = Fields::open(node, report)?;
    let topic = fields
        .required("topic", report)
        .and_then(|node| fields::reference(node, "topic", &names.topics, report));
    let of_topic = topic.as_ref().and_then(|topic| topics.get(topic));
    let types = fields.optional("types").map(|node| types(node, of_topic, report));
    let subject = match fields.optional("subject") {
        Some(node) => subject(node, report),
        None => Some(SubjectFilter::default()),
    };
    let webhook = fields.required("to", report).and_then(|node| webhook(node, report));
    let retry = match fields.optional("retry") {
        Some(node) => retry(node, report),
        None => Some(RETRY),
    };
    fields.finish(&NOT_BUILT, report);
    Some(EventSubscription { topic: topic?, types, subject: subject?, webhook: webhook?, retry: retry? })
}

fn types(node: &Node, topic: Option<&Topic>, report: &mut Report) -> Vec<String> {
    let mut types = Vec::new();
    for (text, item) in fields::distinct_texts(node, report).unwrap_or_default() {
        if let Some(topic) = topic {
            let made: BTreeSet<&str> = [&topic.types.created, &topic.types.replaced, &topic.types.deleted]
                .into_iter()
                .filter_map(|name| name.as_deref())
                .collect();
            if !made.contains(text) && report.is_whole() {
                let message = format!("the topic makes no event {}", quoted(text));
                report.suggest(item.place, message, closest(text, made));
            }
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

fn webhook(node: &Node, report: &mut Report) -> Option<Webhook> {
    let mut fields = Fields::open(node, report)?;
    let allow = fields.optional("allow").map_or_else(Vec::new, |node| allow(node, report));
    let elsewhere = TO_NOT_BUILT.iter().any(|key| *key != "sign" && fields.has(key));
    let node = if elsewhere { fields.optional("webhook") } else { fields.required("webhook", report) };
    let url = node.and_then(|node| url(node, report));
    fields.finish(&TO_NOT_BUILT, report);
    let (node, url) = (node?, url?);
    if let Some(address) = literal_address(&url)
        && vet(address, &allow).is_err()
    {
        report.add(node.place, format!("`{address}` is not a public address, and `allow` does not cover it"));
    }
    Some(Webhook { url: url.into(), allow })
}

fn allow(node: &Node, report: &mut Report) -> Vec<Cidr> {
    let mut blocks = Vec::new();
    for item in fields::list(node, report).unwrap_or_default() {
        let Some(text) = fields::text(item, report) else { continue };
        match text.parse::<Cidr>() {
            Ok(block) => blocks.push(block),
            Err(CidrProblem::HostBits { meant, .. }) => {
                let message = format!("{} has bits outside its prefix", quoted(text));
                report.suggest(item.place, message, Some(meant.to_string()));
            }
            Err(CidrProblem::Address(_) | CidrProblem::Prefix(_)) => {
                fields::expected::<()>(item, "an address, or a block such as `10.0.0.0/8`", report);
            }
        }
    }
    blocks
}

fn url(node: &Node, report: &mut Report) -> Option<Url> {
    let text = fields::text(node, report)?;
    let parsed = Url::parse(text).ok().filter(|url| text.len() <= URL_MAX && url.has_host());
    let Some(url) = parsed.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return fields::expected(node, "an `http` or `https` URL", report);
    };
    if !url.username().is_empty() || url.password().is_some() {
        report.add(node.place, "a URL with a user or password: a secret is a reference, never a literal");
        return None;
    }
    if url.fragment().is_some() {
        report.add(node.place, "a URL with a fragment, which is never sent");
        return None;
    }
    Some(url)
}

/// The address that a URL names without a look-up.
fn literal_address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}
