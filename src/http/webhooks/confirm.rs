//! The one door without a key: who opens it shows the code that an endpoint was sent.

use actix_web::http::Method;
use actix_web::http::header::HeaderName;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::{WebhookRefused, Webhooks};
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::http::routes::Unroutable;

/// Where it is.
pub(in crate::http) const PATH: [&str; 3] = [".well-known", "lanekeeper", "validate"];
/// Deliveries per minute that the endpoint takes (CloudEvents, HTTP webhooks, section 4.2.2).
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Confirms an endpoint, for every subscription that asks its endpoint, those of the manifest too.
pub(in crate::http) async fn confirm(
    webhooks: &Webhooks,
    req: &HttpRequest,
) -> Result<HttpResponse, Problem> {
    if !matches!(*req.method(), Method::GET | Method::POST) {
        return Err(Unroutable::Method { allow: "GET, POST".to_owned() }.into());
    }
    let query = req.uri().query().unwrap_or_default();
    let name = query_value(query, "subscription").transpose()?.unwrap_or_default();
    let code = query_value(query, "code").transpose()?.unwrap_or_default();
    let rate = req.headers().get(ALLOWED_RATE).and_then(|rate| rate.to_str().ok()?.trim().parse().ok());
    let confirmed = match webhooks.0.system.subscription(&name) {
        Some(subscription) if !code.is_empty() => subscription.confirm(&code, rate).await,
        Some(_) | None => false,
    };
    if !confirmed {
        return Err(WebhookRefused::NoHandshake.into());
    }
    Ok(HttpResponse::Ok().json(json!({ "validated": true })))
}
