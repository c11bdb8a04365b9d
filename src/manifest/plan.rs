//! What would change from one manifest to another.
//!
//! Stands between two checked manifests and whoever decides about the second. Invariants: what means the same is no
//! change, however it is written; a secret is never shown, only that it is another one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::Manifest;
use super::model::{ApiKey, Container, Destination, EventSubscription, Product};

/// Most details of one change.
const DETAILS_MAX: usize = 50;

/// What happens to a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It is new.
    Add,
    /// It becomes another one.
    Change,
    /// It goes.
    Remove,
}

/// One thing of a manifest that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happens to it.
    pub step: Step,
    /// What it is, such as `products.carrier`.
    pub path: String,
    /// What is written differently.
    pub details: Vec<Detail>,
    /// What is lost for ever, if something is.
    pub destroys: Option<String>,
    /// It cannot be done while the process runs.
    pub restart: bool,
}

/// One value that is written differently.
#[derive(Debug, Clone, PartialEq)]
pub struct Detail {
    /// Where in the thing it stands.
    pub path: String,
    /// What was there.
    pub before: Option<Json>,
    /// What will be there.
    pub after: Option<Json>,
}

/// What happens, by what is lost and whether it can be done now.
type Consequence = (Option<String>, bool);

/// What changes, in the order in which things are built on each other.
pub fn plan((old, before): (&Manifest, &Json), (new, after): (&Manifest, &Json)) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut whole = |path: &'static str, same: bool, restart: bool| {
        if !same {
            let details = differences(before.get(path), after.get(path));
            let step = Step::Change;
            changes.push(Change { step, path: path.to_owned(), details, destroys: None, restart });
        }
    };
    whole("project", old.project == new.project, false);
    whole("server", old.server == new.server, true);
    whole("edge", old.edge == new.edge, true);
    whole("limits", old.limits == new.limits, true);
    whole("audit", old.audit == new.audit, true);
    let documents = (before, after);
    section("containers", documents, (&old.containers, &new.containers), container, &mut changes);
    section("topics", documents, (&old.topics, &new.topics), at_start, &mut changes);
    section("identities", documents, (&old.identities, &new.identities), at_once, &mut changes);
    section("backends", documents, (&old.backends, &new.backends), at_once, &mut changes);
    section("apis", documents, (&old.apis, &new.apis), at_once, &mut changes);
    section("products", documents, (&old.products, &new.products), product, &mut changes);
    keys(documents, (&old.api_keys, &new.api_keys), &mut changes);
    let subscriptions = (&old.event_subscriptions, &new.event_subscriptions);
    section("event_subscriptions", documents, subscriptions, subscription, &mut changes);
    changes
}

/// Compares two documents by what is written alone.
pub fn differences(before: Option<&Json>, after: Option<&Json>) -> Vec<Detail> {
    let mut found = Vec::new();
    compare(&mut String::new(), before, after, &mut found);
    found
}

fn compare(path: &mut String, before: Option<&Json>, after: Option<&Json>, found: &mut Vec<Detail>) {
    if before == after || found.len() >= DETAILS_MAX {
        return;
    }
    if let (Some(Json::Object(one)), Some(Json::Object(two))) = (before, after) {
        let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for key in keys {
            let length = path.len();
            if length > 0 {
                path.push('.');
            }
            path.push_str(key);
            compare(path, one.get(key), two.get(key), found);
            path.truncate(length);
        }
        return;
    }
    found.push(Detail { path: path.clone(), before: before.cloned(), after: after.cloned() });
}

fn section<T: PartialEq>(
    name: &str,
    (before, after): (&Json, &Json),
    (old, new): (&BTreeMap<String, T>, &BTreeMap<String, T>),
    consequence: impl Fn(Option<&T>, Option<&T>) -> Consequence,
    changes: &mut Vec<Change>,
) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (one, two) = (old.get(key), new.get(key));
        if one == two {
            continue;
        }
        let step = match (one, two) {
            (None, _) => Step::Add,
            (Some(_), Some(_)) => Step::Change,
            (Some(_), None) => Step::Remove,
        };
        let written = |document: &Json| document.get(name).and_then(|section| section.get(key)).cloned();
        let details = match step {
            Step::Change => differences(written(before).as_ref(), written(after).as_ref()),
            Step::Add | Step::Remove => Vec::new(),
        };
        let (destroys, restart) = consequence(one, two);
        changes.push(Change { step, path: format!("{name}.{key}"), details, destroys, restart });
    }
}

fn at_start<T>(_: Option<&T>, _: Option<&T>) -> Consequence {
    (None, true)
}

fn at_once<T>(_: Option<&T>, _: Option<&T>) -> Consequence {
    (None, false)
}

fn container(old: Option<&Container>, new: Option<&Container>) -> Consequence {
    let destroys = match (old, new) {
        (Some(_), None) => Some("its documents cannot be reached any more".to_owned()),
        (Some(old), Some(new)) if old.partition_key != new.partition_key || old.tenancy != new.tenancy => {
            Some("its documents stay where the old partition key or tenancy put them".to_owned())
        }
        (Some(_) | None, Some(_)) | (None, None) => None,
    };
    (destroys, true)
}

fn product(old: Option<&Product>, new: Option<&Product>) -> Consequence {
    let Some(old) = old else { return (None, false) };
    let kept = |name: &str, by: &lanekeeper_actors::policy::limits::By| {
        new.is_some_and(|new| new.quotas.iter().any(|rule| *rule.name == *name && rule.by == *by))
    };
    let gone: Vec<&str> =
        old.quotas.iter().filter(|rule| !kept(&rule.name, &rule.by)).map(|rule| &*rule.name).collect();
    let destroys =
        (!gone.is_empty()).then(|| format!("what was used of the quota {} is forgotten", gone.join(", ")));
    // Rules of webhooks are handed to rooms when they start.
    let restart = new.is_some_and(|new| new.webhooks != old.webhooks);
    (destroys, restart)
}

fn subscription(old: Option<&EventSubscription>, new: Option<&EventSubscription>) -> Consequence {
    let Some(old) = old else { return (None, false) };
    let stays = new.is_some_and(|new| can_follow(old, new));
    let destroys = (!stays).then(|| "what is pending for it is let go".to_owned());
    (destroys, false)
}

/// Whether a subscription can become this one and keep what is pending.
pub fn can_follow(old: &EventSubscription, new: &EventSubscription) -> bool {
    let same_kind = match (&old.to, &new.to) {
        (Destination::Webhook(_), Destination::Webhook(_)) => true,
        // A queue is what its settings are.
        (Destination::Queue(old), Destination::Queue(new)) => old == new,
        (Destination::Webhook(_), Destination::Queue(_))
        | (Destination::Queue(_), Destination::Webhook(_)) => false,
    };
    same_kind && old.topic == new.topic && old.tenant == new.tenant && old.order == new.order
}

/// A key whose secrets are compared and never shown.
#[derive(PartialEq)]
struct Compared<'k>(&'k str, &'k str, Option<SystemTime>, &'k str, Option<&'k str>);

fn compared(keys: &BTreeMap<String, ApiKey>) -> BTreeMap<String, Compared<'_>> {
    let mut all = BTreeMap::new();
    for (name, key) in keys {
        let secondary = key.secondary.as_ref().map(|secret| secret.expose());
        let key = Compared(&key.product, &key.tenant, key.expires, key.primary.expose(), secondary);
        all.insert(name.clone(), key);
    }
    all
}

fn keys(
    (before, after): (&Json, &Json),
    (old, new): (&BTreeMap<String, ApiKey>, &BTreeMap<String, ApiKey>),
    changes: &mut Vec<Change>,
) {
    let first = changes.len();
    let both = (&compared(old), &compared(new));
    section("api_keys", (before, after), both, |_, _| (None, false), changes);
    for change in changes.iter_mut().skip(first) {
        if change.step == Step::Change && change.details.is_empty() {
            let detail = Detail {
                path: "secret".to_owned(),
                before: Some(json!("(a secret)")),
                after: Some(json!("(another secret)")),
            };
            change.details.push(detail);
        }
    }
}
