//! The state of the process: health, shards, awake partitions, what is applied.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::directory::PartitionStatus;
use lanekeeper_actors::model::address::PartitionAddress;
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::policy::limits::Limit;
use lanekeeper_actors::policy::terms::QuotaRule;
use lanekeeper_actors::shard::{Phase, ShardHandle};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::delivery::without_query;
use super::scope::key_part;
use super::{Admin, AdminError, read, topics};
use crate::http::problem::Problem;
use crate::manifest::{Destination, Manifest, Target, Tenancy, UpstreamTo};

/// Which partition is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reopen {
    container: String,
    tenant: Option<String>,
    partition: Vec<Value>,
}

/// The process runs.
pub(super) fn health() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Whether requests would be answered, and if not, why.
pub(super) fn ready(admin: &Admin) -> HttpResponse {
    let mut reasons = Vec::new();
    let mut degraded = Vec::new();
    if admin.flight.is_closed() {
        reasons.push("shutting down".to_owned());
    }
    for shard in admin.system.shards() {
        let (id, phase) = (shard.id(), shard.status().phase);
        match phase {
            Phase::Open => {}
            // Reads go on, and the shard comes back by itself.
            Phase::Full | Phase::ReadOnly => degraded.push(format!("shard {id} is {}", phase.as_str())),
            Phase::Unavailable | Phase::Closed => reasons.push(format!("shard {id} is {}", phase.as_str())),
        }
    }
    if reasons.is_empty() {
        return HttpResponse::Ok().json(json!({ "status": "ready", "degraded": degraded }));
    }
    HttpResponse::ServiceUnavailable()
        .json(json!({ "status": "not_ready", "reasons": reasons, "degraded": degraded }))
}

pub(super) fn shards(admin: &Admin) -> HttpResponse {
    let shards: Vec<_> = admin.system.shards().iter().map(shard).collect();
    HttpResponse::Ok().json(json!({ "shards": shards, "data_id": admin.system.data_id() }))
}

fn shard(shard: &ShardHandle) -> Value {
    let status = shard.status();
    json!({
        "shard": shard.id().0,
        "phase": status.phase.as_str(),
        "first": status.first.0,
        "tail": status.tail.0,
        "applied": status.applied.0,
        "checkpointed": status.checkpointed.0,
        "waiting": status.waiting,
        "lag": status.lag,
        "groups": status.groups,
        "mutations": status.mutations,
        "reopened": status.reopened,
    })
}

pub(super) async fn actors(admin: &Admin) -> HttpResponse {
    let directory = admin.system.directory();
    let partitions: Vec<_> = directory.status(admin.page_max).iter().map(partition).collect();
    let mut subscriptions = Vec::new();
    for handle in admin.system.subscriptions().iter() {
        let status = handle.status().await;
        subscriptions.push(json!({
            "subscription": handle.name(),
            "phase": if status.quarantined { "quarantined" } else { "open" },
            "restarts": status.restarts,
            "queue": status.ready,
            "last_crash": status.last_crash,
        }));
    }
    let gateway = admin.gateway.status();
    HttpResponse::Ok().json(json!({
        "gateway": { "restarts": gateway.restarts, "queue": gateway.in_flight },
        "partitions_awake": directory.awake(),
        "partitions": partitions,
        "subscriptions": subscriptions,
    }))
}

fn partition(status: &PartitionStatus) -> Value {
    let mut out = json!({
        "phase": status.phase.as_str(),
        "restarts": status.restarts,
        "queue": status.queue,
        "batches": status.batches,
        "last_crash": status.last_crash,
    });
    if let (Some((address, _)), Some(out)) =
        (PartitionAddress::decode(status.address.as_bytes()), out.as_object_mut())
    {
        out.insert("container".to_owned(), json!(&*address.container));
        out.insert("tenant".to_owned(), json!(address.tenant.as_ref().map(TenantId::as_str)));
        out.insert("partition".to_owned(), address.key_json());
    }
    out
}

/// Ends the quarantine of a partition.
pub(super) async fn reopen(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let Reopen { container, tenant, partition } = read(body)?;
    let known = admin.manifest.get("containers").and_then(|containers| containers.get(&container));
    if known.is_none() {
        return Err(AdminError::NoContainer(container).into());
    }
    let wrong = |error: &dyn std::fmt::Display| AdminError::Request(error.to_string());
    let tenant = tenant.map(|tenant| TenantId::new(&tenant)).transpose().map_err(|error| wrong(&error))?;
    let key = partition.iter().map(key_part).collect::<Result<Vec<_>, _>>()?;
    let address = PartitionAddress { container: container.as_str().into(), tenant, key };
    if !admin.system.directory().reopen(address.encode()).await {
        return Err(AdminError::NotAwake.into());
    }
    Ok(HttpResponse::Ok().json(json!({ "reopened": true })))
}

/// What is applied, as names and shapes. Keys are named, their secrets and hashes are not there.
pub fn manifest(manifest: &Manifest) -> Value {
    let named = |entries: Vec<(&String, Value)>| {
        Value::Object(entries.into_iter().map(|(name, value)| (name.clone(), value)).collect::<Map<_, _>>())
    };
    let containers = manifest.containers.iter().map(|(name, container)| {
        let tenancy = match container.tenancy {
            Tenancy::Shared => "shared",
            Tenancy::Isolated => "isolated",
        };
        (name, json!({ "partition_key": container.partition_key.iter().map(ToString::to_string).collect::<Vec<_>>(), "tenancy": tenancy }))
    });
    let topics = manifest.topics.iter().map(|(name, topic)| (name, topics::declared(topic)));
    let subscriptions = manifest.event_subscriptions.iter().map(|(name, subscription)| {
        let to = match &subscription.to {
            Destination::Webhook(webhook) => json!({ "webhook": without_query(&webhook.url) }),
            Destination::Queue(_) => json!("queue"),
        };
        (name, json!({ "topic": subscription.topic, "types": subscription.types, "to": to }))
    });
    let apis = manifest.apis.iter().map(|(name, api)| {
        let operations: Vec<_> = api
            .operations
            .iter()
            .map(|(name, operation)| {
                let to = match &operation.target {
                    Target::Documents { container, .. } => json!({ "container": container }),
                    Target::Publish { topic } => json!({ "topic": topic }),
                    Target::Queue { subscription, .. } => json!({ "queue": subscription }),
                    Target::Webhooks { topic, .. } => json!({ "subscriptions": topic }),
                    Target::Upstream(upstream) => match &upstream.to {
                        UpstreamTo::Inline(_) => json!("upstream"),
                        UpstreamTo::Backend(backend) => json!({ "backend": backend }),
                    },
                    Target::Mock(_) => json!("mock"),
                };
                let (method, route) = (operation.method.as_str(), operation.route.to_string());
                json!({ "name": name, "method": method, "route": route, "to": to })
            })
            .collect();
        (name, json!({ "operations": operations }))
    });
    let products = manifest.products.iter().map(|(name, product)| {
        let rate = |limit: &Limit| {
            json!({ "name": &*limit.name, "calls": limit.rate.calls(), "per_ms": limit.rate.per().as_millis() })
        };
        let quota = |rule: &QuotaRule| {
            json!({ "name": &*rule.name, "calls": rule.quota.calls, "bytes": rule.quota.bytes })
        };
        let rates: Vec<_> = product.limits.iter().map(rate).collect();
        let quotas: Vec<_> = product.quotas.iter().map(quota).collect();
        let identity = product.jwt.as_ref().map(|rule| &rule.identity);
        (name, json!({ "apis": product.apis, "rates": rates, "quotas": quotas, "identity": identity }))
    });
    json!({
        "project": manifest.project,
        "shards": manifest.server.shards,
        "containers": named(containers.collect()),
        "topics": named(topics.collect()),
        "event_subscriptions": named(subscriptions.collect()),
        "apis": named(apis.collect()),
        "products": named(products.collect()),
        "api_keys": manifest.api_keys.keys().collect::<Vec<_>>(),
    })
}
