//! Stands between the manifest's topics and subscriptions and the rooms that route and deliver.
//!
//! Invariant: all subscriptions of a topic share one topic and one table of what their filters ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanekeeper_actors::model::delivery::Endpoint;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::model::topic::{EventTypes, Topic};
use lanekeeper_actors::policy::filter::{Filter, KeyTable};
use lanekeeper_actors::policy::retry::RetryPolicy;
use lanekeeper_actors::subscriber::{Destination, Order, SubscriptionConfig, Webhook};

use crate::manifest::{self, Manifest};

/// What a manifest says of events.
pub(super) struct Events {
    /// The topics that are published to.
    pub(super) published: Vec<Arc<Topic>>,
    /// The subscriptions.
    pub(super) subscriptions: Vec<SubscriptionConfig>,
    /// All topics, for subscriptions that are made later.
    pub(super) topics: BTreeMap<Name, Listened>,
}

/// A topic, and what the filters of its subscriptions ask of its events.
pub(super) type Listened = (Arc<Topic>, Arc<KeyTable>);

pub(super) fn events(manifest: &Manifest) -> Events {
    let topics: BTreeMap<&str, Listened> = manifest
        .topics
        .iter()
        .map(|(name, topic)| (name.as_str(), (Arc::new(self::topic(name, topic)), Arc::default())))
        .collect();
    let config = |(name, subscription): (&String, &manifest::EventSubscription)| {
        // A manifest is refused when a topic is not in it.
        Some(self::subscription(name, subscription, topics.get(subscription.topic.as_str())?))
    };
    let subscriptions = manifest.event_subscriptions.iter().filter_map(config).collect();
    let topics = topics.into_iter().map(|(name, listened)| (name.into(), listened)).collect();
    Events { published: Vec::new(), subscriptions, topics }
}

fn name(text: &String) -> Name {
    Name::from(text.as_str())
}

fn topic(key: &String, topic: &manifest::Topic) -> Topic {
    let types = &topic.types;
    let types = EventTypes {
        created: types.created.as_ref().map(name),
        replaced: types.replaced.as_ref().map(name),
        deleted: types.deleted.as_ref().map(name),
    };
    Topic::of_changes(name(key), name(&topic.container), types)
}

fn subscription(
    key: &String,
    subscription: &manifest::EventSubscription,
    (topic, keys): &Listened,
) -> SubscriptionConfig {
    let subject = &subscription.subject;
    let affix = |text: &String| (!text.is_empty()).then(|| text.clone());
    let types_wanted = subscription.types.as_ref().map(|types| types.iter().map(name).collect());
    let (begins, ends) = (affix(&subject.begins), affix(&subject.ends));
    let webhook = &subscription.webhook;
    let allow = webhook.allow.iter().map(ToString::to_string).collect();
    let retry = subscription.retry;
    SubscriptionConfig {
        name: name(key),
        topic: topic.clone(),
        tenant: None,
        keys: keys.clone(),
        filter: Filter::new(types_wanted, begins, ends, subject.case_sensitive).into(),
        to: Destination::Webhook(Webhook::plain(Endpoint::plain(webhook.url.clone(), allow))),
        retry: RetryPolicy { max_attempts: retry.max_attempts, ttl: retry.ttl, scale: retry.scale },
        order: Order::None,
        export: None,
        handshake: None,
    }
}
