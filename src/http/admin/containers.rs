//! Containers and their partitions: what they ask for, what they use, which are busiest, and the end of a partition.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use lanekeeper_actors::directory::PartitionStatus;
use lanekeeper_actors::model::address::PartitionAddress;
use lanekeeper_actors::model::document::KeyPath;
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::policy::container::{Container, Path};
use lanekeeper_actors::policy::throughput::{Hot, Throughput};
use lanekeeper_actors::policy::ttl::ContainerTtl;
use lanekeeper_actors::store::Extent;
use serde_json::{Value, json};

use super::{Admin, AdminError, scope};
use crate::http::path::query_value;
use crate::http::problem::Problem;

/// Partitions that are shown when nobody names a number.
const TOP: usize = 20;

/// Every container with its definition and its use.
pub(super) fn list(admin: &Admin) -> HttpResponse {
    let catalog = admin.system.directory().catalog();
    let containers: Vec<_> = catalog.iter().map(|container| describe(admin, container)).collect();
    let count = containers.len();
    HttpResponse::Ok().json(json!({ "containers": containers, "count": count }))
}

/// The partitions that use most just now.
pub(super) fn hottest(admin: &Admin, name: &str, query: &str) -> Result<HttpResponse, Problem> {
    let container = scope::find(admin, name)?;
    let top = query_value(query, "top").transpose()?.map(|text| text.parse::<u64>()).transpose();
    let top = top.map_err(|_| AdminError::Request("`top` is a number of partitions".to_owned()))?;
    let top = scope::limit(top, TOP, admin.page_max)?;
    let directory = admin.system.directory();
    let hottest = directory.account(&container.name).hottest(top);
    let awake: BTreeMap<_, _> = directory
        .status(usize::MAX)
        .into_iter()
        .map(|status| (status.address.as_bytes().clone(), status))
        .collect();
    let partitions: Vec<_> =
        hottest.iter().map(|hot| busy(hot, awake.get(hot.partition.as_bytes()))).collect();
    let count = partitions.len();
    Ok(HttpResponse::Ok().json(json!({ "container": name, "partitions": partitions, "count": count })))
}

/// Deletes all documents of a partition, of what a key begins with, or of a tenant.
pub(super) async fn purge(admin: &Admin, name: &str, query: &str) -> Result<HttpResponse, Problem> {
    let scope = scope::of_query(admin, name, query)?;
    if scope.key.is_empty() && scope.tenant.is_none() {
        let why = "say with `partition` what is deleted: a partition key, or the beginning of one";
        return Err(AdminError::Request(why.to_owned()).into());
    }
    let extent = scope::extent(admin, &scope)?;
    for shard in &extent.shards {
        shard.purge(extent.prefix.clone()).await?;
    }
    Ok(HttpResponse::NoContent().finish())
}

fn describe(admin: &Admin, container: &Container) -> Value {
    let directory = admin.system.directory();
    let reading = directory.account(&container.name).reading();
    let paths = |paths: &Vec<Path>| paths.iter().map(|path| pointer(path)).collect::<Vec<_>>();
    let indexes = container.indexes.iter().map(|index| {
        let states = directory.indexes();
        let shards = admin.system.shards().iter().map(|shard| {
            let ready = states.is_ready(shard.id(), &container.name, index.id());
            if ready { "ready" } else { "building" }
        });
        let shards: Vec<_> = shards.collect();
        let ready = shards.iter().all(|state| *state == "ready");
        json!({ "paths": paths(&index.paths), "ready": ready, "shards": shards })
    });
    let throughput = |budget: Throughput| {
        let (max, floor) = (budget.max(), budget.floor());
        json!({ "max": max, "floor": floor, "autoscale": budget.is_autoscale(), "partition": budget.partition() })
    };
    let ttl = match container.ttl {
        ContainerTtl::Off => Value::Null,
        ContainerTtl::NoDefault => json!(-1),
        ContainerTtl::Seconds(seconds) => json!(seconds),
    };
    // A shard that cannot be read now is left out, and says so elsewhere.
    let extents =
        admin.system.shards().iter().filter_map(|shard| shard.view().ok()?.extent(&container.name).ok());
    let extent = extents.fold(Extent::default(), Extent::plus);
    json!({
        "documents": extent.documents,
        "bytes": extent.bytes,
        "name": &*container.name,
        "tenancy": if container.isolated { "isolated" } else { "shared" },
        "partition_key": container.rules.key.iter().map(key).collect::<Vec<_>>(),
        "unique": container.unique.iter().map(paths).collect::<Vec<_>>(),
        "indexes": indexes.collect::<Vec<_>>(),
        "ttl_seconds": ttl,
        "change_retention_seconds": container.retention.as_secs(),
        "throughput": container.throughput.map(throughput),
        "ru_per_s": reading.last_second.as_f64(),
        "utilisation": container.throughput.map(|_| reading.utilisation),
        "billed_ru_per_s": container.throughput.map(|_| reading.billed),
        "consumed_ru": reading.consumed.as_f64(),
        "throttled": reading.throttled,
    })
}

/// A part of a partition key as a manifest writes it.
fn key(path: &KeyPath) -> Value {
    let text = pointer(&path.path);
    match path.buckets {
        None => json!(text),
        Some(buckets) => json!({ "hash": text, "buckets": buckets }),
    }
}

/// The JSON pointer (RFC 6901) of a path.
fn pointer(path: &[String]) -> String {
    path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
}

fn busy(hot: &Hot, awake: Option<&PartitionStatus>) -> Value {
    let address = PartitionAddress::decode(hot.partition.as_bytes()).map(|(address, _)| address);
    json!({
        "tenant": address.as_ref().and_then(|address| address.tenant.as_ref().map(TenantId::as_str)),
        "partition": address.as_ref().map(PartitionAddress::key_json),
        "ru_per_s": rounded(hot.ru_per_s),
        "throttled_per_s": rounded(hot.throttled_per_s),
        "awake": awake.is_some(),
        "phase": awake.map(|status| status.phase.as_str()),
        "queue": awake.map_or(0, |status| status.queue),
    })
}

/// Two digits behind the point, as charges have.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
