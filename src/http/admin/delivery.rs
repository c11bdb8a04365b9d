//! Subscriptions and their dead letters: look, pause, resume, replay, purge.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::filter::{Facts, Sample};
use lanekeeper_actors::policy::health::Breaker;
use lanekeeper_actors::protocol::subscriber::{
    ReplayRequest, ReplayStatus, SubscriptionStatus, ValidationState,
};
use lanekeeper_actors::subscriber::{Destination, SubscriptionHandle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, AdminError, letters, read, timestamp};
use crate::http::problem::Problem;
use crate::manifest;

/// Events per second of a replay when nobody names a number: new events go first all the same.
const REPLAY_RATE: u32 = 1_000;

/// Which events of the past are meant. Without `from` it is as far back as the log goes, without `to` until now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    from: Option<String>,
    to: Option<String>,
    rate: Option<u32>,
}

/// Which replay is meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    id: String,
}

pub(super) async fn list(admin: &Admin) -> Result<HttpResponse, Problem> {
    let mut subscriptions = Vec::new();
    for handle in admin.system.subscriptions().iter() {
        subscriptions.push(describe(handle, &handle.status().await));
    }
    let count = subscriptions.len();
    Ok(HttpResponse::Ok().json(json!({ "subscriptions": subscriptions, "count": count })))
}

pub(super) async fn show(admin: &Admin, name: &str) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    Ok(HttpResponse::Ok().json(describe(&handle, &handle.status().await)))
}

pub(super) async fn pause(admin: &Admin, name: &str) -> Result<HttpResponse, Problem> {
    find(admin, name)?.pause().await?;
    show(admin, name).await
}

pub(super) async fn resume(admin: &Admin, name: &str) -> Result<HttpResponse, Problem> {
    find(admin, name)?.resume().await?;
    show(admin, name).await
}

pub(super) async fn attempts(admin: &Admin, name: &str) -> Result<HttpResponse, Problem> {
    let attempts: Vec<_> = find(admin, name)?.attempts().await.iter().map(letters::attempt).collect();
    let count = attempts.len();
    Ok(HttpResponse::Ok().json(json!({ "attempts": attempts, "count": count })))
}

/// Delivers events of the past again.
pub(super) async fn replay_history(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    let Window { from, to, rate } = read(body)?;
    let (from, from_position) = edge("from", from.as_deref(), Timestamp(0))?;
    let (to, to_position) = edge("to", to.as_deref(), admin.clock.now())?;
    if from > to {
        return Err(AdminError::Request("`from` is later than `to`".to_owned()).into());
    }
    let rate = rate.unwrap_or(REPLAY_RATE);
    if rate == 0 {
        return Err(
            AdminError::Request("`rate` is a number of events per second, 1 or more".to_owned()).into()
        );
    }
    let id = handle.replay_history(ReplayRequest { from, to, from_position, to_position, rate }).await?;
    Ok(HttpResponse::Accepted().json(json!({ "id": &*id })))
}

/// One end of a replay: a time (RFC 3339) or a position such as `0-812`, which stands for that shard only.
fn edge(
    name: &str,
    text: Option<&str>,
    otherwise: Timestamp,
) -> Result<(Timestamp, Option<Position>), AdminError> {
    let Some(text) = text else { return Ok((otherwise, None)) };
    if let Ok(position) = text.parse() {
        return Ok((otherwise, Some(position)));
    }
    match manifest::timestamp(text) {
        Some(time) => Ok((timestamp(time), None)),
        None => Err(AdminError::Request(format!(
            "`{name}` is a time such as `2026-01-31T08:30:00Z`, or a position such as `0-812`"
        ))),
    }
}

pub(super) async fn cancel_replay(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    let Job { id } = read(body)?;
    if !handle.cancel_replay(&id).await? {
        return Err(AdminError::NoReplay(id).into());
    }
    Ok(HttpResponse::Ok().json(json!({ "cancelled": true })))
}

pub(super) fn test_filter(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    let whole: Value = read(body)?;
    let event = whole.get("event").unwrap_or(&whole).as_object().cloned();
    let Some(sample) = event.and_then(Sample::new) else {
        let text = "an event is an object with a `type` that is a string";
        return Err(AdminError::Request(text.to_owned()).into());
    };
    Ok(HttpResponse::Ok().json(handle.config().filter.explain(&Facts::alone(sample))))
}

pub(super) fn dead_letters(admin: &Admin, name: &str, query: &str) -> Result<HttpResponse, Problem> {
    letters::page(&find(admin, name)?, query, admin.page_max)
}

pub(super) async fn replay(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    let chosen = letters::replayed(&handle, body, |to| find(admin, to)).await?;
    let replayed = handle.replay(chosen).await?;
    Ok(HttpResponse::Ok().json(json!({ "replayed": replayed })))
}

pub(super) async fn purge(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let handle = find(admin, name)?;
    let chosen = letters::purged(&handle, body).await?;
    let purged = handle.purge(chosen).await?;
    Ok(HttpResponse::Ok().json(json!({ "purged": purged })))
}

fn find(admin: &Admin, name: &str) -> Result<SubscriptionHandle, AdminError> {
    admin.system.subscription(name).ok_or_else(|| AdminError::NoSubscription(name.to_owned()))
}

/// A subscription as the audit log shows it.
pub(super) async fn summary(admin: &Admin, name: &str) -> Option<Value> {
    let handle = admin.system.subscription(name)?;
    let status = handle.status().await;
    Some(
        json!({ "state": state(&status), "dead_lettered": status.dead_letters, "retrying": status.retrying }),
    )
}

fn describe(handle: &SubscriptionHandle, status: &SubscriptionStatus) -> Value {
    let config = handle.config();
    let (endpoint, queue) = match &config.to {
        Destination::Webhook(webhook) => (Some(without_query(&webhook.endpoint.url)), None),
        Destination::Queue(queue) => (
            None,
            Some(json!({ "lock_seconds": queue.lock.as_secs(), "max_deliveries": queue.max_deliveries })),
        ),
    };
    let cursors: Vec<_> =
        status.cursors.iter().map(|(shard, lsn)| json!({ "shard": shard.0, "lsn": lsn.0 })).collect();
    let replays: Vec<_> = status.replays.iter().map(replay_status).collect();
    let recent: Vec<_> = status.recent.iter().map(letters::attempt).collect();
    json!({
        "name": handle.name(),
        "topic": &*config.topic.name,
        "tenant": config.tenant.as_ref().map(ToString::to_string),
        "endpoint": endpoint,
        "queue": queue,
        "state": state(status),
        "disabled": status.disabled,
        "validation": status.validation.as_ref().map(validation),
        "breaker": status.breaker.map(breaker),
        "window": status.window,
        "locked": status.locked,
        "held": status.held,
        "lag": { "events": status.lag_events, "seconds": seconds(status.lag_millis) },
        "in_flight": status.in_flight,
        "ready": status.ready,
        "unsettled": status.unsettled,
        "retrying": status.retrying,
        "dead_lettered": status.dead_letters,
        "exports_waiting": status.exports_waiting,
        "export_error": status.export_error,
        "delivered": status.delivered,
        "failed_attempts": status.failed_attempts,
        "given_up": status.given_up,
        "cursors": cursors,
        "recent": recent,
        "replays": replays,
        "restarts": status.restarts,
        "last_crash": status.last_crash,
    })
}

fn state(status: &SubscriptionStatus) -> &'static str {
    match status {
        SubscriptionStatus { quarantined: true, .. } => "quarantined",
        SubscriptionStatus { disabled: Some(_), .. } => "disabled",
        SubscriptionStatus { paused: true, .. } => "paused",
        SubscriptionStatus { validation: Some(_), .. } => "awaiting_validation",
        _ => "running",
    }
}

/// Endpoints often carry a secret in their query.
pub(super) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(url, _)| url)
}

#[expect(clippy::cast_precision_loss, reason = "a lag of 2^53 milliseconds is 285,000 years")]
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

fn breaker(breaker: Breaker) -> Value {
    match breaker {
        Breaker::Closed => json!({ "state": "closed" }),
        Breaker::Open { until, reason } => {
            json!({ "state": "open", "until": until.to_string(), "reason": reason.to_string() })
        }
        Breaker::Probing { reason } => json!({ "state": "probing", "reason": reason.to_string() }),
    }
}

fn validation(validation: &ValidationState) -> Value {
    match validation {
        ValidationState::Asking => json!({ "state": "asking" }),
        ValidationState::AwaitingManualAction(until) => {
            json!({ "state": "awaiting_confirmation", "until": until.to_string() })
        }
        ValidationState::Failed(why) => json!({ "state": "failed", "reason": why }),
    }
}

fn replay_status(replay: &ReplayStatus) -> Value {
    let shards: Vec<_> = replay
        .shards
        .iter()
        .map(|(shard, at, end)| json!({ "shard": shard.0, "position": at.0, "end": end.0 }))
        .collect();
    json!({ "id": &*replay.id, "at": replay.at.to_string(), "found": replay.found, "shards": shards })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_without_its_query() {
        assert_eq!(without_query("https://a.example/hook?code=secret"), "https://a.example/hook");
        assert_eq!(without_query("https://a.example/hook"), "https://a.example/hook");
    }
}
