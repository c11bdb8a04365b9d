//! Stands between the section `limits` and every bound of the process.
//!
//! Invariant: no bound can be zero, and none so large that it bounds nothing. The defaults, with their meaning and
//! reason, are in `config/default.yaml`; only what may be written at all is decided here.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::{self, Fields};
use super::model::{Limits, Rate};
use super::problem::Report;
use super::tree::{Node, Value};
use super::units::{self, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, MINUTE, SECOND};

/// Most things that one process may be told to hold at once.
const HELD_MAX: usize = 10_000_000;
/// Most things in one queue, batch or page.
const QUEUED_MAX: usize = 1_000_000;
/// Deepest JSON that the parser reads without growing its stack.
const JSON_DEPTH_MAX: usize = 128;
/// Most operations in a request: each is decided while others of the partition wait.
const OPERATIONS_MAX: usize = 1_000;
/// Most threads that queries may take.
const SLICES_MAX: usize = 64;
/// Calls that a rate may allow in its time.
const CALLS_MAX: usize = 1_000_000_000;

/// Most events in a request that publishes: they are one record of the log.
const PUBLISH_MAX: usize = 10_000;
/// More hops than this are a loop.
const HOPS_MAX: usize = 1_000;

const HELD: RangeInclusive<usize> = 1..=HELD_MAX;
const QUEUED: RangeInclusive<usize> = 1..=QUEUED_MAX;
const WAIT: RangeInclusive<Duration> = MILLISECOND..=HOUR;
/// Bytes per second of a body.
const PACE: RangeInclusive<u64> = 1..=MIB;

/// Reads the section.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<Limits> {
    let mut fields = Fields::open(node, report)?;
    let before = report.count();
    let f = &mut fields;
    let auth_failures_per_ip = f.required("auth_failures_per_ip", report).and_then(|node| rate(node, report));
    let auth_failures_per_prefix =
        f.required("auth_failures_per_prefix", report).and_then(|node| rate(node, report));
    let requests_per_ip = f.required("requests_per_ip", report).and_then(|node| rate_or_off(node, report));
    let limits = Limits {
        body: f.size("body", KIB..=64 * MIB, report),
        json_depth: f.count("json_depth", 1..=JSON_DEPTH_MAX, report),
        uri: f.size("uri", 256..=64 * KIB, report),
        header: f.size("header", KIB..=64 * KIB, report),
        header_timeout: f.duration("header_timeout", WAIT, report),
        body_timeout: f.duration("body_timeout", WAIT, report),
        body_grace: f.duration("body_grace", WAIT, report),
        body_rate: pace(f.required("body_rate", report), report),
        write_timeout: f.duration("write_timeout", WAIT, report),
        request_timeout: f.duration("request_timeout", WAIT, report),
        connections: f.count("connections", HELD, report),
        connections_per_ip: f.count("connections_per_ip", HELD, report),
        streams_per_connection: f.count("streams_per_connection", QUEUED, report),
        requests_per_ip,
        requests_in_flight: f.count("requests_in_flight", HELD, report),
        requests_waiting: f.count("requests_waiting", 0..=QUEUED_MAX, report),
        admission_wait: f.duration("admission_wait", Duration::ZERO..=MINUTE, report),
        shed_normal: f.count("shed_normal", 1..=100, report),
        shed_low: f.count("shed_low", 1..=100, report),
        auth_failures_per_ip: auth_failures_per_ip.unwrap_or(Rate { calls: NonZeroU32::MIN, per: SECOND }),
        auth_failures_per_prefix: auth_failures_per_prefix
            .unwrap_or(Rate { calls: NonZeroU32::MIN, per: SECOND }),
        partitions_awake: f.count("partitions_awake", HELD, report),
        partition_idle: f.duration("partition_idle", MILLISECOND..=DAY, report),
        partition_queue: f.count("partition_queue", QUEUED, report),
        shard_queue: f.count("shard_queue", QUEUED, report),
        batch_mutations: f.count("batch_mutations", QUEUED, report),
        batch_bytes: f.size("batch_bytes", KIB..=64 * MIB, report),
        apply_lag: f.count("apply_lag", QUEUED, report),
        apply_lag_bytes: f.size("apply_lag_bytes", MIB..=16 * GIB, report),
        checkpoint_interval: f.duration("checkpoint_interval", WAIT, report),
        checkpoint_bytes: f.size("checkpoint_bytes", MIB..=64 * GIB, report),
        log_segment: f.size("log_segment", MIB..=64 * GIB, report),
        disk_reserve: f.size("disk_reserve", MIB..=64 * GIB, report),
        view_cache: f.size("view_cache", MIB..=1024 * GIB, report),
        document_cache: f.size("document_cache", MIB..=1024 * GIB, report),
        patch_operations: f.count("patch_operations", 1..=OPERATIONS_MAX, report),
        batch_operations: f.count("batch_operations", 1..=OPERATIONS_MAX, report),
        bulk_operations: f.count("bulk_operations", 1..=OPERATIONS_MAX, report),
        bulk_partitions: f.count("bulk_partitions", 1..=OPERATIONS_MAX, report),
        idempotency_keep: f.duration("idempotency_keep", MINUTE..=30 * DAY, report),
        queries_in_flight: f.count("queries_in_flight", HELD, report),
        query_rows: f.count("query_rows", HELD, report),
        query_time: f.duration("query_time", MILLISECOND..=HOUR, report),
        query_slices: f.count("query_slices", 1..=SLICES_MAX, report),
        query_groups: f.count("query_groups", QUEUED, report),
        feeds_waiting: f.count("feeds_waiting", HELD, report),
        upkeep_interval: f.duration("upkeep_interval", MILLISECOND..=HOUR, report),
        upkeep_batch: f.count("upkeep_batch", QUEUED, report),
        query_page_default: f.count("query_page_default", QUEUED, report),
        query_page_max: f.count("query_page_max", QUEUED, report),
        page_default: f.count("page_default", QUEUED, report),
        page_max: f.count("page_max", QUEUED, report),
        page_bytes: f.size("page_bytes", KIB..=64 * MIB, report),
        delivery_window: f.count("delivery_window", QUEUED, report),
        delivery_queue: f.count("delivery_queue", QUEUED, report),
        delivery_timeout: f.duration("delivery_timeout", WAIT, report),
        delivery_connect_timeout: f.duration("delivery_connect_timeout", WAIT, report),
        delivery_response: f.size("delivery_response", KIB..=64 * MIB, report),
        delivery_connections: f.count("delivery_connections", HELD, report),
        retry_page: f.count("retry_page", QUEUED, report),
        retry_cache: f.size("retry_cache", KIB..=GIB, report),
        publish_queue: f.count("publish_queue", QUEUED, report),
        publish_lag: wide(f.count("publish_lag", HELD, report)),
        publish_batch: f.count("publish_batch", 1..=PUBLISH_MAX, report),
        event_size: f.size("event_size", KIB..=16 * MIB, report),
        event_hops: u32::try_from(f.count("event_hops", 1..=HOPS_MAX, report)).unwrap_or(1),
        receive_wait: f.duration("receive_wait", MILLISECOND..=HOUR, report),
        progress_delay: f.duration("progress_delay", MILLISECOND..=MINUTE, report),
        read_chunk: f.size("read_chunk", KIB..=GIB, report),
        drain_timeout: f.duration("drain_timeout", WAIT, report),
        crash_backoff: f.duration("crash_backoff", WAIT, report),
        crash_budget: f.count("crash_budget", QUEUED, report),
        crash_window: f.duration("crash_window", MILLISECOND..=DAY, report),
        rate_keys: f.count("rate_keys", HELD, report),
        upstream_timeout: f.duration("upstream_timeout", WAIT, report),
        upstream_connect_timeout: f.duration("upstream_connect_timeout", WAIT, report),
        upstream_idle_timeout: f.duration("upstream_idle_timeout", WAIT, report),
        upstream_connections_idle: f.count("upstream_connections_idle", QUEUED, report),
        upstream_keep_alive: f.duration("upstream_keep_alive", WAIT, report),
        upstream_buffer: f.size("upstream_buffer", KIB..=64 * MIB, report),
    };
    if report.count() == before {
        compare(&limits, &fields, report);
    }
    fields.finish(&[], report);
    Some(limits)
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Refuses bounds that cannot hold together, at the key that the stronger source gave.
fn compare(limits: &Limits, fields: &Fields<'_>, report: &mut Report) {
    let number = wide;
    let mut above = |lower: &str, value: u64, upper: &str, most: u64, what: &str| {
        if value > most {
            let place = fields.place_of(lower).max(fields.place_of(upper));
            report.add(place, format!("`{lower}` is more than {what}`{upper}`"));
        }
    };
    above("page_default", number(limits.page_default), "page_max", number(limits.page_max), "");
    let (rows, most) = (number(limits.query_page_default), number(limits.query_page_max));
    above("query_page_default", rows, "query_page_max", most, "");
    above(
        "connections_per_ip",
        number(limits.connections_per_ip),
        "connections",
        number(limits.connections),
        "",
    );
    above("body", limits.body, "page_bytes", limits.page_bytes, "");
    // A record is never split over segments, and around the bodies in it are keys and checksums.
    above("body", limits.body, "log_segment", limits.log_segment / 2, "half of ");
    above("batch_bytes", limits.batch_bytes, "log_segment", limits.log_segment / 2, "half of ");
}

/// Reads a rate, or `off`.
fn rate_or_off(node: &Node, report: &mut Report) -> Option<Rate> {
    if matches!(&node.value, Value::Text(text) if text == "off") { None } else { rate(node, report) }
}

/// Reads `240B/s`, in bytes per second; 1 stands in for what is none.
fn pace(node: Option<&Node>, report: &mut Report) -> u64 {
    let Some(node) = node else { return 1 };
    if let Value::Text(text) = &node.value
        && let Some(pace) = text.strip_suffix("/s").and_then(units::size)
        && PACE.contains(&pace)
    {
        return pace;
    }
    fields::expected::<()>(node, "a pace from `1B/s` to `1MiB/s`", report);
    1
}

/// Reads `{ calls: 100, per: 60s }`, or `100/60s`, or `100/s`.
pub(super) fn rate(node: &Node, report: &mut Report) -> Option<Rate> {
    if let Value::Text(text) = &node.value {
        let rate = units::rate(text).filter(|(_, per)| (MILLISECOND..=DAY).contains(per));
        return match rate.and_then(|(calls, per)| Some(Rate { calls: NonZeroU32::new(calls)?, per })) {
            Some(rate) if rate.calls.get() as usize <= CALLS_MAX => Some(rate),
            Some(_) | None => {
                fields::expected(node, "a rate such as `500/s` or `{ calls: 100, per: 60s }`", report)
            }
        };
    }
    let mut fields = Fields::open(node, report)?;
    let rate = rate_fields(&mut fields, report);
    fields.finish(&[], report);
    rate
}

/// Reads `calls` and `per`.
pub(super) fn rate_fields(fields: &mut Fields<'_>, report: &mut Report) -> Option<Rate> {
    let calls = fields.required("calls", report).and_then(|node| fields::count(node, 1..=CALLS_MAX, report));
    let per = fields.duration("per", MILLISECOND..=DAY, report);
    let calls = u32::try_from(calls?).ok().and_then(NonZeroU32::new)?;
    Some(Rate { calls, per })
}
