//! Topics: where their events come from, where they lie, and who listens.

use actix_web::HttpResponse;
use lanekeeper_actors::model::topic::SYSTEM_TOPIC;
use serde_json::{Value, json};

use super::Admin;
use crate::manifest::{Topic, TopicSource};

/// A topic as the manifest has it.
pub(super) fn declared(topic: &Topic) -> Value {
    let (source, from) = match &topic.source {
        TopicSource::Published => ("published", None),
        TopicSource::Changes { container, types } => {
            let types =
                json!({ "created": types.created, "replaced": types.replaced, "deleted": types.deleted });
            ("changes", Some(json!({ "container": container, "types": types })))
        }
    };
    json!({
        "source": source,
        "from": from,
        "tenant": topic.tenant.as_ref().map(ToString::to_string),
        "retention_seconds": topic.retention.as_secs(),
    })
}

pub(super) fn list(admin: &Admin) -> HttpResponse {
    let declared = admin.manifest.get("topics").and_then(Value::as_object).into_iter().flatten();
    let system = json!({ "source": "system", "from": null, "tenant": null, "retention_seconds": 0 });
    let all = declared.map(|(name, topic)| (name.as_str(), topic)).chain([(SYSTEM_TOPIC, &system)]);
    let topics: Vec<_> = all.map(|(name, about)| topic(admin, name, about)).collect();
    let count = topics.len();
    HttpResponse::Ok().json(json!({ "topics": topics, "count": count }))
}

fn topic(admin: &Admin, name: &str, about: &Value) -> Value {
    let subscriptions = admin.system.subscriptions();
    let listeners = subscriptions.iter().filter(|handle| &*handle.config().topic.name == name);
    let listeners: Vec<_> = listeners.map(|handle| handle.name()).collect();
    // The changes of a container are in all shards.
    let shard = admin.system.topic(name).map(|topic| topic.shard().id().0);
    let of = |key: &str| about.get(key).cloned().unwrap_or_default();
    json!({
        "name": name,
        "source": of("source"),
        "from": of("from"),
        "tenant": of("tenant"),
        "shard": shard,
        "retention_seconds": of("retention_seconds"),
        "subscriptions": listeners,
    })
}
