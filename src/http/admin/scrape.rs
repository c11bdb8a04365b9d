//! `/metrics`: what was counted, and what the rooms show of themselves right now.

use std::sync::atomic::AtomicU64;

use actix_web::HttpResponse;
use lanekeeper_actors::policy::health::Breaker;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Admin;
use super::delivery::seconds;
use crate::http::problem::Problem;

/// OpenMetrics, which Prometheus reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type SecondsGauge = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Shard {
    shard: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardPhase {
    shard: u16,
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Subscription {
    subscription: String,
}

pub(super) async fn text(admin: &Admin) -> Result<HttpResponse, Problem> {
    let mut registry = Registry::with_prefix("lanekeeper");
    admin.metrics.register(&mut registry);
    admin.upstreams.register(&mut registry);
    gateway(admin, &mut registry);
    audit(admin, &mut registry);
    shards(admin, &mut registry);
    subscriptions(admin, &mut registry).await;
    let mut out = String::new();
    // Writing to a string cannot fail.
    encode(&mut out, &registry).map_err(|_| Problem::crashed())?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(out))
}

fn gateway(admin: &Admin, registry: &mut Registry) {
    let status = admin.gateway.status();
    count(registry, "admitted", "Calls that were admitted", status.admitted);
    count(registry, "gateway_restarts", "Panics while admitting a call", status.restarts);
    let refusals: Family<Reason, Counter> = Family::default();
    for (reason, number) in status.refused {
        refusals.get_or_create(&Reason { reason }).inc_by(number);
    }
    registry.register("refusals", "Calls that were not admitted, by reason", refusals);
    gauge(registry, "requests_in_flight", "Requests being worked on", number(status.in_flight));
    gauge(
        registry,
        "connections",
        "Open connections of the public listeners",
        number(admin.connections.count()),
    );
    gauge(registry, "keys", "Grants, revoked ones included", number(status.grants));
    let awake = admin.system.directory().awake();
    gauge(registry, "partitions_awake", "Partitions in memory", number(awake));
    let waiting = admin.system.directory().writes_in_flight();
    gauge(registry, "writes_in_flight", "Writes that wait or are being committed", number(waiting));
}

fn audit(admin: &Admin, registry: &mut Registry) {
    let counts = admin.audit.counts();
    count(registry, "audit_records", "Audit records on disk", counts.records);
    count(
        registry,
        "audit_dropped",
        "Audit records of requests and refusals that were dropped",
        counts.dropped,
    );
    count(registry, "audit_sampled_out", "Refusals beyond the sample of the audit log", counts.sampled_out);
    count(registry, "audit_failures", "Groups of audit records that the disk did not take", counts.failures);
    gauge(registry, "audit_waiting", "Audit records that wait for the disk", number(counts.waiting));
}

fn shards(admin: &Admin, registry: &mut Registry) {
    let phases: Family<ShardPhase, Gauge> = Family::default();
    let gauges = [
        ("shard_tail", "Last position in the log"),
        ("shard_applied", "Last position in the view"),
        ("shard_checkpointed", "Last position that a restart need not replay"),
        ("shard_first", "First position that is still in the log"),
        ("shard_waiting", "Batches waiting for the writer"),
        ("shard_lag", "Mutations that are durable but not visible"),
    ]
    .map(|about| (about, Family::<Shard, Gauge>::default()));
    let counters = [
        ("shard_groups", "Groups committed, each with one fsync"),
        ("shard_mutations", "Mutations committed"),
        ("shard_reopened", "Times that log or view were reopened after an error"),
        ("data_corrupt", "Reads that found a damaged value; it was not served"),
    ]
    .map(|about| (about, Family::<Shard, Counter>::default()));
    for handle in admin.system.shards() {
        let (status, label) = (handle.status(), Shard { shard: handle.id().0 });
        phases.get_or_create(&ShardPhase { shard: label.shard, phase: status.phase.as_str() }).set(1);
        let (tail, applied, checkpointed) = (status.tail.0, status.applied.0, status.checkpointed.0);
        let values = [tail, applied, checkpointed, status.first.0];
        let counts = [number(status.waiting), number(status.lag)];
        let values = values.map(|value| i64::try_from(value).unwrap_or(i64::MAX)).into_iter().chain(counts);
        for ((_, family), value) in gauges.iter().zip(values) {
            family.get_or_create(&label).set(value);
        }
        let counts = [status.groups, status.mutations, status.reopened, status.damaged];
        for ((_, family), value) in counters.iter().zip(counts) {
            family.get_or_create(&label).inc_by(value);
        }
    }
    registry.register("shard_phase", "What a shard can do: 1 for its phase", phases);
    for ((name, help), family) in gauges {
        registry.register(name, help, family);
    }
    for ((name, help), family) in counters {
        registry.register(name, help, family);
    }
}

async fn subscriptions(admin: &Admin, registry: &mut Registry) {
    let gauges = [
        ("subscription_lag_events", "Events that wait for their first attempt, and changes not looked at"),
        ("subscription_in_flight", "Attempts under way"),
        ("subscription_ready", "Events handed over and not yet attempted"),
        ("subscription_retrying", "Events that failed and will be tried again"),
        ("subscription_dead_letters", "Events given up and kept"),
        ("subscription_paused", "1 while an operator stopped it"),
        ("subscription_quarantined", "1 while it waits for an operator after crashes"),
        ("subscription_disabled", "1 while it gives up every event, until an operator resumes it"),
        ("subscription_breaker_open", "1 while its endpoint is on probation, and attempts are held back"),
        ("subscription_window", "Attempts that its endpoint may have at a time"),
        ("subscription_locked", "Events of a queue that somebody has received and not settled"),
        ("subscription_held", "Events that wait for an earlier one with their key"),
        ("subscription_replays", "Replays of history that are not at their end"),
    ]
    .map(|about| (about, Family::<Subscription, Gauge>::default()));
    let counters = [
        ("subscription_delivered", "Events delivered"),
        ("subscription_attempts_failed", "Attempts that failed"),
        ("subscription_dead_lettered", "Events given up"),
    ]
    .map(|about| (about, Family::<Subscription, Counter>::default()));
    let lag: Family<Subscription, SecondsGauge> = Family::default();
    for handle in admin.system.subscriptions().iter() {
        let status = handle.status().await;
        let label = Subscription { subscription: handle.name().to_owned() };
        lag.get_or_create(&label).set(seconds(status.lag_millis));
        let wide = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let values = [
            wide(status.lag_events),
            number(status.in_flight),
            number(status.ready),
            wide(status.retrying),
            wide(status.dead_letters),
            i64::from(status.paused),
            i64::from(status.quarantined),
            i64::from(status.disabled.is_some()),
            i64::from(status.breaker.is_some_and(|breaker| breaker != Breaker::Closed)),
            number(status.window),
            number(status.locked),
            number(status.held),
            number(status.replays.len()),
        ];
        for ((_, family), value) in gauges.iter().zip(values) {
            family.get_or_create(&label).set(value);
        }
        let counts = [status.delivered, status.failed_attempts, status.given_up];
        for ((_, family), value) in counters.iter().zip(counts) {
            family.get_or_create(&label).inc_by(value);
        }
    }
    registry.register("subscription_lag_seconds", "Age of the oldest event that waits", lag);
    for ((name, help), family) in gauges {
        registry.register(name, help, family);
    }
    for ((name, help), family) in counters {
        registry.register(name, help, family);
    }
}

fn count(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
