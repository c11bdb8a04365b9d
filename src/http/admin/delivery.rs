//! Subscriptions and their dead letters: look, pause, resume, replay, purge.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::policy::filter::{Facts, Sample};
use lanekeeper_actors::policy::health::Breaker;
use lanekeeper_actors::protocol::subscriber::{ReplayStatus, SubscriptionStatus, ValidationState};
use lanekeeper_actors::subscriber::{Destination, SubscriptionHandle};
use serde_json::{Value, json};

use super::{Admin, AdminError, letters, read};
use crate::http::problem::Problem;

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
    let replayed = find(admin, name)?.replay(letters::selection(body, false)?).await?;
    Ok(HttpResponse::Ok().json(json!({ "replayed": replayed })))
}

pub(super) async fn purge(admin: &Admin, name: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let purged = find(admin, name)?.purge(letters::selection(body, true)?).await?;
    Ok(HttpResponse::Ok().json(json!({ "purged": purged })))
}

fn find(admin: &Admin, name: &str) -> Result<SubscriptionHandle, AdminError> {
    admin.system.subscription(name).ok_or_else(|| AdminError::NoSubscription(name.to_owned()))
}

fn describe(handle: &SubscriptionHandle, status: &SubscriptionStatus) -> Value {
    let config = handle.config();
    let state = match status {
        SubscriptionStatus { quarantined: true, .. } => "quarantined",
        SubscriptionStatus { disabled: Some(_), .. } => "disabled",
        SubscriptionStatus { paused: true, .. } => "paused",
        SubscriptionStatus { validation: Some(_), .. } => "awaiting_validation",
        _ => "running",
    };
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
        "state": state,
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
