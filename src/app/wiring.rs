//! Stands between the manifest's words and the rooms' settings.
//!
//! Invariant: every bound of the manifest reaches the room that keeps it, and this is the only place that knows
//! which one that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, UNIX_EPOCH};

use lanekeeper_actors::directory::DirectorySettings;
use lanekeeper_actors::gateway::{GatewaySettings, Seed};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::log::file::LogSettings;
use lanekeeper_actors::model::document::{DocumentRules, KeyPath};
use lanekeeper_actors::model::ids::{InvalidTenant, Name, TenantId};
use lanekeeper_actors::partition::PartitionSettings;
use lanekeeper_actors::policy::container::{Catalog, Container, Index};
use lanekeeper_actors::policy::filter::FilterProblem;
use lanekeeper_actors::policy::keys::{ApiKeySecret, InvalidKey};
use lanekeeper_actors::policy::patch::PatchLimits;
use lanekeeper_actors::policy::permits::Shedding;
use lanekeeper_actors::policy::rate::{InvalidRate, Rate, Ticks, TokenBuckets};
use lanekeeper_actors::policy::terms::{ApiRules, OperationRules, ProductRules};
use lanekeeper_actors::reader::ReaderSettings;
use lanekeeper_actors::router::RouterSettings;
use lanekeeper_actors::shard::ShardSettings;
use lanekeeper_actors::subscriber::DeliverySettings;
use lanekeeper_actors::system::{System, SystemConfig};
use lanekeeper_actors::topic::TopicSettings;
use lanekeeper_actors::upkeep::UpkeepSettings;

use super::events::{Events, Listened};
use crate::audit::{self, Record};
use crate::blob::InvalidPlace;
use crate::delivery::{WallClock, WebhookSettings, host_of};
use crate::http::admin::timestamp;
use crate::http::{
    self, Asked, BodyLimits, BulkLimits, Callers, Connections, DocumentLimits, Edge, EventLimits, HeadLimits,
    ListenerLimits, TenantWebhookSettings,
};
use crate::identity::{IdentityProblem, Verifier};
use crate::manifest::{self, Limits, Manifest, Secret, Target, Tenancy, UpstreamTo};
use crate::upstream::{self, Definition};

/// Most threads that serve the public listeners, and most that partitions are spread over.
const THREADS_MAX: usize = 8;
/// Groups that a shard's doorbell carries to the router, so that a healthy subscription reads no disk.
const HINTS: usize = 256;

/// Room in a record for keys, checksums and the mutations' own framing.
const RECORD_SLACK: u64 = 1 << 20;

/// A manifest that asks for something that a room cannot do.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// A rate that cannot be counted.
    #[error("the rate of {place}: {source}")]
    Rate { place: String, source: InvalidRate },
    /// An issuer whose tokens cannot be checked.
    #[error("{0}: {fault}", fault = .0.fault)]
    Identity(#[from] IdentityProblem),
    /// A name that cannot be a tenant.
    #[error("the tenant of the api key `{name}`: {source}")]
    Tenant { name: String, source: InvalidTenant },
    /// A secret that cannot be a key.
    #[error("the secret of the api key `{name}`: {source}")]
    Key { name: String, source: InvalidKey },
    /// A filter that its topic cannot take.
    #[error("the filter of the event subscription `{name}`: {source}")]
    Filter { name: String, source: FilterProblem },
    /// A name that cannot be a tenant.
    #[error("the tenant of the event subscription `{name}`: {source}")]
    Owner { name: String, source: InvalidTenant },
    /// A place that cannot take dead letters.
    #[error("the dead letters of the event subscription `{name}`: {source}")]
    DeadLetters { name: String, source: InvalidPlace },
}

/// What the audit log says of a start. The digest is that of everything in the manifest but its secrets.
pub(super) fn started(manifest: &Manifest, system: &System) -> Record {
    let after = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "project": manifest.project,
        "manifest": digest(manifest),
        "data_id": system.data_id(),
    });
    Record { action: "process.started", after: Some(after), ..Record::default() }
}

/// Tells two manifests apart. Secrets show as `***`, so a digest gives none of them away.
pub(super) fn digest(manifest: &Manifest) -> String {
    audit::digest(format!("{manifest:?}").as_bytes())
}

pub(super) fn listeners(manifest: &Manifest) -> ListenerLimits {
    let limits = &manifest.limits;
    ListenerLimits {
        workers: threads(),
        connections: limits.connections,
        header_timeout: limits.header_timeout,
    }
}

pub(super) fn connections(manifest: &Manifest) -> Connections {
    let limits = &manifest.limits;
    Connections::new(limits.connections_per_ip, limits.streams_per_connection, limits.write_timeout)
}

pub(super) fn edge(manifest: &Manifest, clock: SharedClock) -> Result<Edge, WiringError> {
    let (edge, limits) = (&manifest.edge, &manifest.limits);
    let budget = limits.requests_per_ip.map(|wanted| rate(wanted, || "`requests_per_ip`".to_owned()));
    let ticks: Ticks = Arc::new(move || clock.elapsed());
    Ok(Edge {
        trusted: edge.trusted_proxies.clone(),
        header: edge.client_address,
        lock: edge.origin_lock.clone(),
        paths: edge.paths,
        head: HeadLimits { uri: bytes(limits.uri), header: bytes(limits.header) },
        budgets: budget.transpose()?.map(|rate| TokenBuckets::new(rate, limits.rate_keys, ticks)),
    })
}

pub(super) fn documents(manifest: &Manifest) -> DocumentLimits {
    let limits = &manifest.limits;
    DocumentLimits {
        body: body(limits),
        request: limits.request_timeout,
        page_default: limits.page_default,
        page_max: limits.page_max,
        page_bytes: bytes(limits.page_bytes),
        query_page_default: limits.query_page_default,
        query_page_max: limits.query_page_max,
        patch: PatchLimits { operations: limits.patch_operations, copied_bytes: bytes(limits.body) },
        batch: limits.batch_operations,
        bulk: BulkLimits { operations: limits.bulk_operations, partitions: limits.bulk_partitions },
        idempotency: limits.idempotency_keep,
    }
}

pub(super) fn event_limits(manifest: &Manifest) -> EventLimits {
    let limits = &manifest.limits;
    EventLimits {
        body: body(limits),
        request: limits.request_timeout,
        event: bytes(limits.event_size),
        batch: limits.publish_batch,
        wait: limits.receive_wait,
    }
}

pub(super) fn gateway(manifest: &Manifest) -> Result<GatewaySettings, WiringError> {
    let limits = &manifest.limits;
    let mut products = BTreeMap::new();
    for (name, product) in &manifest.products {
        let rules = ProductRules {
            apis: product.apis.iter().map(|api| Name::from(api.as_str())).collect(),
            key: product.key,
            identity: product.jwt.as_ref().map(|rule| rule.identity.as_str().into()),
            approval: product.approval,
            grants_per_tenant: product.keys_per_tenant,
            limits: product.limits.clone(),
            quotas: product.quotas.clone(),
            concurrency: product.concurrency,
            weight: product.weight,
        };
        products.insert(Name::from(name.as_str()), rules);
    }
    let percent = |number: usize| u8::try_from(number).unwrap_or(100);
    Ok(GatewaySettings {
        products,
        apis: manifest.apis.iter().map(|(name, api)| (name.as_str().into(), api_rules(api))).collect(),
        auth_failures: (
            rate(limits.auth_failures_per_ip, || "`auth_failures_per_ip`".to_owned())?,
            rate(limits.auth_failures_per_prefix, || "`auth_failures_per_prefix`".to_owned())?,
        ),
        rate_keys: limits.rate_keys,
        requests_in_flight: limits.requests_in_flight,
        requests_waiting: limits.requests_waiting,
        wait: limits.admission_wait,
        shedding: Shedding {
            normal_percent: percent(limits.shed_normal),
            low_percent: percent(limits.shed_low),
        },
    })
}

fn api_rules(api: &manifest::Api) -> ApiRules {
    let operation = |(name, operation): (&String, &manifest::Operation)| {
        let rules = OperationRules { limits: operation.limits.clone(), priority: operation.priority };
        (name.as_str().into(), rules)
    };
    ApiRules {
        open: api.open,
        limits: api.limits.clone(),
        operations: api.operations.iter().map(operation).collect(),
    }
}

/// What is asked of callers besides their keys. With a verifier before it, its keys and what it checked are kept.
pub(super) fn callers(
    manifest: &Manifest,
    clock: &SharedClock,
    before: Option<&Verifier>,
) -> Result<Callers, WiringError> {
    let identities = manifest.identities.values().cloned().collect();
    let verifier = match before {
        None => Verifier::new(identities, clock.clone()),
        Some(before) => before.followed_by(identities),
    };
    let asked = |product: &manifest::Product| Asked {
        requirements: product.jwt.as_ref().map(|rule| rule.requirements.clone()).unwrap_or_default(),
        allow: product.ip_allow.clone(),
        deny: product.ip_deny.clone(),
    };
    Ok(Callers {
        verifier: verifier?,
        products: manifest.products.iter().map(|(name, of)| (name.as_str().into(), asked(of))).collect(),
    })
}

fn rate(wanted: manifest::Rate, place: impl FnOnce() -> String) -> Result<Rate, WiringError> {
    let made = Rate::new(wanted.calls.get(), wanted.per);
    made.map_err(|source| WiringError::Rate { place: place(), source })
}

pub(super) fn seeds(manifest: &Manifest) -> Result<Vec<Seed>, WiringError> {
    let seed = |(name, key): (&String, &manifest::ApiKey)| {
        let secret = |secret: &Secret| {
            let key = ApiKeySecret::parse_foreign(secret.expose());
            key.map_err(|source| WiringError::Key { name: name.clone(), source })
        };
        let tenant = TenantId::new(&key.tenant);
        Ok(Seed {
            name: name.clone(),
            product: key.product.as_str().into(),
            tenant: tenant.map_err(|source| WiringError::Tenant { name: name.clone(), source })?,
            primary: secret(&key.primary)?,
            secondary: key.secondary.as_ref().map(secret).transpose()?,
            expires: key.expires.map(timestamp),
        })
    };
    manifest.api_keys.iter().map(seed).collect()
}

pub(super) fn webhooks(manifest: &Manifest) -> WebhookSettings {
    let limits = &manifest.limits;
    WebhookSettings {
        connect_timeout: limits.delivery_connect_timeout,
        response_cap: bytes(limits.delivery_response),
        connections: limits.delivery_connections,
    }
}

/// The wall clock as the transport reads it.
pub(super) fn wall_clock(clock: SharedClock) -> WallClock {
    Arc::new(move || UNIX_EPOCH + Duration::from_millis(clock.now().0))
}

/// What the rooms know of the containers.
pub(crate) fn catalog(manifest: &Manifest) -> Catalog {
    Catalog::new(
        manifest.containers.iter().map(|(name, container)| container_rules(manifest, name, container)),
    )
}

fn container_rules(manifest: &Manifest, name: &str, container: &manifest::Container) -> Container {
    let key =
        |part: &manifest::KeyPart| KeyPath { path: part.pointer.segments.clone(), buckets: part.buckets };
    let path = |pointer: &manifest::Pointer| pointer.segments.clone();
    let paths = |pointers: &Vec<manifest::Pointer>| pointers.iter().map(path).collect::<Vec<_>>();
    Container {
        name: name.into(),
        isolated: container.tenancy == Tenancy::Isolated,
        rules: DocumentRules {
            key: container.partition_key.iter().map(key).collect(),
            max_bytes: bytes(manifest.limits.body),
            max_depth: manifest.limits.json_depth,
        },
        unique: container.unique.iter().map(paths).collect(),
        indexes: container.indexes.iter().map(|index| Index { paths: paths(index) }).collect(),
        ttl: container.ttl,
        throughput: container.throughput,
        retention: container.change_retention,
    }
}

/// What tenants may make of webhooks on these topics.
pub(super) fn tenant_webhooks(
    manifest: &Manifest,
    topics: &BTreeMap<Name, Listened>,
) -> TenantWebhookSettings {
    let limits = &manifest.limits;
    let topic = |(name, (topic, keys)): (&Name, &Listened)| {
        (name.clone(), http::Listened { topic: topic.clone(), keys: keys.clone() })
    };
    let host = manifest.server.public_url.as_deref().and_then(host_of);
    TenantWebhookSettings {
        topics: topics.iter().map(topic).collect(),
        products: manifest
            .products
            .iter()
            .map(|(name, product)| (Name::from(name.as_str()), product.webhooks.clone()))
            .collect(),
        origin: host.unwrap_or_else(|| manifest.project.clone()),
        body: body(limits),
        page_max: limits.page_max,
    }
}

pub(super) fn system(manifest: &Manifest, events: Events) -> SystemConfig {
    let limits = &manifest.limits;
    let shards = u16::try_from(manifest.server.shards).unwrap_or(u16::MAX);
    SystemConfig {
        data: manifest.server.data.clone(),
        shards: manifest.server.shards_given.then_some(shards),
        default_shards: shards,
        catalog: catalog(manifest),
        reader: reader(limits),
        upkeep: Some(UpkeepSettings {
            interval: limits.upkeep_interval,
            batch: limits.upkeep_batch,
            retention: events.retention,
            ..UpkeepSettings::default()
        }),
        shard: shard(limits),
        directory: directory(limits),
        topics: events.published,
        publishing: TopicSettings {
            queue: limits.publish_queue,
            batch_events: limits.batch_mutations,
            batch_bytes: bytes(limits.batch_bytes),
            lag: limits.publish_lag,
        },
        subscriptions: events.subscriptions,
        delivery: DeliverySettings {
            window: limits.delivery_window,
            queue: limits.delivery_queue,
            timeout: limits.delivery_timeout,
            connections: limits.delivery_connections,
            hops: limits.event_hops,
            public_url: manifest.server.public_url.as_deref().map(Name::from),
            retry_page: limits.retry_page,
            retry_cache: bytes(limits.retry_cache),
            backoff: limits.crash_backoff,
            crash_budget: small(limits.crash_budget),
            crash_window: limits.crash_window,
            seed: fastrand::u64(..),
        },
        router: RouterSettings {
            read_chunk: bytes(limits.read_chunk),
            hints: HINTS,
            backoff: limits.crash_backoff,
            crash_budget: small(limits.crash_budget),
            crash_window: limits.crash_window,
        },
        partition_threads: threads(),
    }
}

/// What holds for servers behind the gateway that say nothing else.
pub(super) fn upstream(limits: &Limits) -> upstream::Limits {
    upstream::Limits {
        timeout: limits.upstream_timeout,
        connect_timeout: limits.upstream_connect_timeout,
        idle_timeout: limits.upstream_idle_timeout,
        idle_connections: limits.upstream_connections_idle,
        keep_alive: limits.upstream_keep_alive,
        buffer: bytes(limits.upstream_buffer),
        body: limits.body,
        body_timeout: limits.body_timeout,
    }
}

/// All backends: those with a name, and those of one operation each.
pub(super) fn backends(manifest: &Manifest) -> Vec<(Name, Definition)> {
    let named = manifest.backends.iter().map(|(name, backend)| (name.as_str().into(), backend.clone()));
    let operations = manifest.apis.iter().flat_map(|(api, operations)| {
        operations.operations.iter().map(move |(name, operation)| (api, name, operation))
    });
    let inline = operations.filter_map(|(api, name, operation)| match &operation.target {
        Target::Upstream(upstream) => match &upstream.to {
            UpstreamTo::Inline(backend) => {
                Some((upstream.backend_name(api, name).into(), Definition::clone(backend)))
            }
            UpstreamTo::Backend(_) => None,
        },
        Target::Documents { .. }
        | Target::Publish { .. }
        | Target::Queue { .. }
        | Target::Webhooks { .. }
        | Target::Mock(_) => None,
    });
    named.chain(inline).collect()
}

fn reader(limits: &Limits) -> ReaderSettings {
    ReaderSettings {
        queries: limits.queries_in_flight,
        slices: limits.query_slices,
        rows: limits.query_rows,
        time: limits.query_time,
        groups: limits.query_groups,
        page_bytes: bytes(limits.page_bytes),
        waiting_feeds: limits.feeds_waiting,
        read_chunk: bytes(limits.read_chunk),
    }
}

fn shard(limits: &Limits) -> ShardSettings {
    let defaults = ShardSettings::default();
    // A partition's batch is closed by the document that passes `batch_bytes`, so both may be in one record.
    let record = limits.body.saturating_add(limits.batch_bytes).saturating_add(RECORD_SLACK);
    ShardSettings {
        queue: limits.shard_queue,
        batch_mutations: limits.batch_mutations,
        batch_bytes: bytes(limits.batch_bytes),
        apply_lag: limits.apply_lag,
        apply_lag_bytes: bytes(limits.apply_lag_bytes),
        checkpoint_interval: limits.checkpoint_interval,
        checkpoint_bytes: bytes(limits.checkpoint_bytes),
        lazy_delay: limits.progress_delay,
        cache_bytes: bytes(limits.view_cache),
        document_cache_bytes: bytes(limits.document_cache),
        read_chunk: bytes(limits.read_chunk),
        reserve_bytes: limits.disk_reserve,
        log: LogSettings {
            segment_bytes: limits.log_segment,
            first_segment_bytes: defaults.log.first_segment_bytes.min(limits.log_segment),
            max_record_bytes: bytes(record.min(limits.log_segment)).max(defaults.log.max_record_bytes),
            ..defaults.log
        },
        ..defaults
    }
}

fn directory(limits: &Limits) -> DirectorySettings {
    DirectorySettings {
        awake: limits.partitions_awake,
        idle: limits.partition_idle,
        queue: limits.partition_queue,
        partition: PartitionSettings {
            batch_writes: limits.batch_mutations,
            batch_bytes: bytes(limits.batch_bytes),
            crash_budget: small(limits.crash_budget),
            crash_window: limits.crash_window,
            crash_backoff: limits.crash_backoff,
        },
    }
}

fn body(limits: &Limits) -> BodyLimits {
    BodyLimits {
        bytes: bytes(limits.body),
        time: limits.body_timeout,
        grace: limits.body_grace,
        rate: limits.body_rate,
    }
}

/// As many threads as cores, within reason.
fn threads() -> usize {
    available_parallelism().map_or(1, usize::from).clamp(1, THREADS_MAX)
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
