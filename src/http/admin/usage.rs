//! What tenants have used, for whoever bills them.

use std::time::Duration;

use actix_web::HttpResponse;
use lanekeeper_actors::gateway::{UsageHandle, Used, User};
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::shard::ShardReadError;
use serde_json::{Value, json};

use super::{Admin, AdminError, timestamp};
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::manifest;

/// How far it is looked back when nobody says.
const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Sums over whole hours, for each tenant and key.
pub(super) async fn read(admin: &Admin, query: &str) -> Result<HttpResponse, Problem> {
    let now = admin.clock.now();
    let (from, to) = (moment(query, "from")?, moment(query, "to")?.unwrap_or(now));
    let period = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
    let from = from.unwrap_or(Timestamp(to.0.saturating_sub(period)));
    if from > to {
        return Err(AdminError::Request("`from` is behind `to`".to_owned()).into());
    }
    let tenant = query_value(query, "tenant").transpose()?.map(|tenant| TenantId::new(&tenant)).transpose();
    let tenant = tenant.map_err(|error| AdminError::Request(error.to_string()))?;
    let usage: UsageHandle = admin.usage.clone();
    // Reads many rows from the disk.
    let read = tokio::task::spawn_blocking(move || usage.read(tenant.as_ref(), from, to)).await;
    let usage: Vec<_> = read.unwrap_or(Err(ShardReadError::Unavailable))?.iter().map(line).collect();
    let count = usage.len();
    Ok(HttpResponse::Ok().json(json!({
        "from": from.to_string(),
        "to": to.to_string(),
        "usage": usage,
        "count": count,
    })))
}

fn line((user, used): (&User, &Used)) -> Value {
    json!({
        "tenant": user.as_ref().map(|(tenant, _)| tenant.as_str()),
        "key": user.as_ref().map(|(_, key)| &**key),
        "calls": used.calls,
        "request_units": used.cost().as_f64(),
        "bytes_in": used.bytes_in,
        "bytes_out": used.bytes_out,
        "events": used.events,
    })
}

fn moment(query: &str, name: &str) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query_value(query, name).transpose()? else { return Ok(None) };
    let wrong = || AdminError::Request(format!("`{name}` is a time or a date such as `2026-01-31`"));
    Ok(Some(timestamp(manifest::timestamp(&text).ok_or_else(wrong)?)))
}
