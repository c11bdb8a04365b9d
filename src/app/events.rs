//! Stands between the manifest's topics and subscriptions and the rooms that route and deliver.
//!
//! Invariant: all subscriptions of a topic share one topic and one table of what their filters ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::model::topic::{EventTypes, SYSTEM_TOPIC, Topic, TopicSource};
use lanekeeper_actors::policy::filter::{FilterSpec, KeyTable, SubjectFilter};
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::subscriber::{Destination, SubscriptionConfig, Webhook};

use super::wiring::WiringError;
use crate::delivery::dead_letters;
use crate::manifest::{self, Manifest};

/// What a manifest says of events.
pub(super) struct Events {
    /// The topics that are published to, that of the system among them.
    pub(super) published: Vec<Arc<Topic>>,
    /// The subscriptions.
    pub(super) subscriptions: Vec<SubscriptionConfig>,
    /// How long events can be replayed: the longest time that a topic asks for.
    pub(super) retention: Duration,
    /// All topics, for subscriptions that are made later.
    pub(super) topics: BTreeMap<Name, Listened>,
}

/// A topic, and what the filters of its subscriptions ask of its events.
pub(super) type Listened = (Arc<Topic>, Arc<KeyTable>);

/// All topics by name.
fn topics(manifest: &Manifest) -> BTreeMap<Name, Listened> {
    let declared = manifest.topics.iter().map(|(name, topic)| self::topic(name, topic));
    let all = declared.chain([Topic::published(SYSTEM_TOPIC.into())]);
    all.map(|topic| (topic.name.clone(), (Arc::new(topic), Arc::default()))).collect()
}

pub(super) fn events(manifest: &Manifest) -> Result<Events, WiringError> {
    let topics = topics(manifest);
    let mut subscriptions = Vec::with_capacity(manifest.event_subscriptions.len());
    for (name, subscription) in &manifest.event_subscriptions {
        // A manifest is refused when a topic is not in it.
        let Some(listened) = topics.get(&*subscription.topic) else { continue };
        subscriptions.push(self::subscription(name, subscription, listened)?);
    }
    let all = topics.values().map(|(topic, _)| topic);
    let published = all.filter(|topic| topic.source == TopicSource::Published).cloned().collect();
    let retention = manifest.topics.values().map(|topic| topic.retention).max().unwrap_or_default();
    Ok(Events { published, subscriptions, retention, topics })
}

fn name(text: &str) -> Name {
    Name::from(text)
}

fn topic(key: &str, topic: &manifest::Topic) -> Topic {
    let made = match &topic.source {
        manifest::TopicSource::Published => Topic::published(name(key)),
        manifest::TopicSource::Changes { container, types } => {
            let types = EventTypes {
                created: types.created.as_deref().map(name),
                replaced: types.replaced.as_deref().map(name),
                deleted: types.deleted.as_deref().map(name),
            };
            Topic::of_changes(name(key), name(container), types)
        }
    };
    let tenant_path = topic.tenant.as_ref().map(|pointer| pointer.segments.clone().into());
    Topic { tenant_path, ..made }
}

pub(super) fn subscription(
    key: &str,
    subscription: &manifest::EventSubscription,
    (topic, keys): &Listened,
) -> Result<SubscriptionConfig, WiringError> {
    let subject = &subscription.subject;
    let filter = FilterSpec {
        types: subscription.types.as_ref().map(|types| types.iter().map(|text| name(text)).collect()),
        subject: SubjectFilter {
            begins: subject.begins.clone(),
            ends: subject.ends.clone(),
            case_sensitive: subject.case_sensitive,
        },
        advanced: subscription.filter.clone(),
        arrays: subscription.arrays,
    };
    let filter = filter.compile(keys);
    let filter = filter.map_err(|source| WiringError::Filter { name: key.to_owned(), source })?;
    let tenant = subscription.tenant.as_ref().map(|tenant| TenantId::new(tenant)).transpose();
    let tenant = tenant.map_err(|source| WiringError::Owner { name: key.to_owned(), source })?;
    let export = subscription.dead_letter.as_ref().map(dead_letters::open).transpose();
    let export = export.map_err(|source| WiringError::DeadLetters { name: key.to_owned(), source })?;
    let handshake = match &subscription.to {
        manifest::Destination::Webhook(to) => to.handshake.kind(),
        manifest::Destination::Queue(_) => None,
    };
    let retry = subscription.retry;
    Ok(SubscriptionConfig {
        name: name(key),
        topic: topic.clone(),
        tenant,
        keys: keys.clone(),
        filter: filter.into(),
        to: match &subscription.to {
            manifest::Destination::Webhook(to) => Destination::Webhook(webhook(to)),
            manifest::Destination::Queue(queue) => Destination::Queue(*queue),
        },
        retry: RetryPolicy {
            max_attempts: retry.max_attempts,
            ttl: retry.ttl,
            scale: retry.scale,
            probation: retry.probation,
        },
        order: subscription.order,
        export,
        handshake,
    })
}

fn webhook(webhook: &manifest::Webhook) -> Webhook {
    Webhook {
        headers: webhook.headers.clone().into(),
        batch: webhook.batch,
        mode: webhook.mode,
        gone: webhook.on_gone,
        rate: webhook.rate,
        ..Webhook::plain(webhook.endpoint())
    }
}
