//! The private listener: health, metrics, keys, subscriptions, dead letters, what is awake.
//!
//! Stands between an operator and the rooms. Invariant: everything under `/v1` needs the admin token, and without
//! it one cannot even learn which paths there are.

mod delivery;
mod keys;
mod rooms;
mod scrape;
mod token;

use std::panic::AssertUnwindSafe;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt;
use lanekeeper_actors::gateway::{GatewayState, KeysHandle};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::system::System;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use tracing::Instrument;

use super::body::{self, BodyLimits};
use super::connections::Connections;
use super::flight::Flight;
use super::metrics::Metrics;
use super::path;
use super::problem::Problem;
use super::routes::Unroutable;
use super::trace::Trace;

pub(crate) use keys::timestamp;
pub use rooms::manifest;
pub use token::{FILE as TOKEN_FILE, Token, TokenError, TokenRefused, VARIABLE as TOKEN_VARIABLE};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the admin API is about.
pub struct Admin {
    /// The rooms.
    pub system: System,
    /// The way to change keys.
    pub keys: KeysHandle,
    /// What the gateways share.
    pub gateway: Arc<GatewayState>,
    /// The operator's token.
    pub token: Token,
    /// What the public listener counts.
    pub metrics: Metrics,
    /// Connections of the public listener.
    pub connections: Connections,
    /// Requests of the public listener.
    pub flight: Flight,
    /// What is applied, without secrets; see [`manifest`].
    pub manifest: Value,
    /// Bounds of a body.
    pub body: BodyLimits,
    /// Most things in one answer.
    pub page_max: usize,
    /// Time.
    pub clock: SharedClock,
}

/// Why an operator's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No such path or method.
    #[error(transparent)]
    Route(#[from] Unroutable),
    /// There is no such subscription.
    #[error("there is no event subscription `{0}`")]
    NoSubscription(String),
    /// There is no such container.
    #[error("there is no container `{0}`")]
    NoContainer(String),
    /// Nothing to reopen.
    #[error("there is no such partition awake")]
    NotAwake,
    /// A body or a query that does not say what it must.
    #[error("{0}")]
    Request(String),
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    Health,
    Ready,
    Metrics,
    Keys,
    Key(&'a str),
    RotateKey(&'a str),
    Subscriptions,
    Subscription(&'a str),
    Pause(&'a str),
    Resume(&'a str),
    TestFilter(&'a str),
    DeadLetters(&'a str),
    ReplayDeadLetters(&'a str),
    Actors,
    ReopenActor,
    Shards,
    Manifest,
}

impl<'a> Resource<'a> {
    fn find(segments: &'a [String]) -> Option<Self> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        Some(match *segments.as_slice() {
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["v1", "keys"] => Self::Keys,
            ["v1", "keys", key] => match key.rsplit_once(':') {
                None => Self::Key(key),
                Some((id, "rotate")) => Self::RotateKey(id),
                Some(_) => return None,
            },
            ["v1", "subscriptions"] => Self::Subscriptions,
            ["v1", "subscriptions", name] => match name.rsplit_once(':') {
                None => Self::Subscription(name),
                Some((name, "pause")) => Self::Pause(name),
                Some((name, "resume")) => Self::Resume(name),
                Some((name, "test-filter")) => Self::TestFilter(name),
                Some(_) => return None,
            },
            ["v1", "subscriptions", name, "dead-letters"] => Self::DeadLetters(name),
            ["v1", "subscriptions", name, "dead-letters:replay"] => Self::ReplayDeadLetters(name),
            ["v1", "actors"] => Self::Actors,
            ["v1", "actors:reopen"] => Self::ReopenActor,
            ["v1", "shards"] => Self::Shards,
            ["v1", "manifest"] => Self::Manifest,
            _ => return None,
        })
    }

    /// The methods that it answers to, as in the header `Allow`.
    fn allow(&self) -> &'static str {
        match self {
            Self::Keys => "GET, HEAD, POST",
            Self::Key(_) => "DELETE, GET, HEAD",
            Self::DeadLetters(_) => "DELETE, GET, HEAD",
            Self::RotateKey(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::TestFilter(_)
            | Self::ReplayDeadLetters(_)
            | Self::ReopenActor => "POST",
            Self::Health
            | Self::Ready
            | Self::Metrics
            | Self::Subscriptions
            | Self::Subscription(_)
            | Self::Actors
            | Self::Shards
            | Self::Manifest => "GET, HEAD",
        }
    }

    /// Whether probes may ask for it without a token.
    fn is_open(&self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }
}

/// Answers one request.
pub async fn serve(req: HttpRequest, mut payload: Payload, admin: Data<Admin>) -> HttpResponse {
    let trace = Trace::of(req.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let span = tracing::info_span!("admin", trace_id = %trace.id());
    let work = AssertUnwindSafe(handle(&req, &mut payload, &admin)).catch_unwind().instrument(span.clone());
    let outcome = work.await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "request crashed");
        Err(Problem::crashed())
    });
    let mut response = outcome.unwrap_or_else(|problem| {
        tracing::info!(parent: &span, code = problem.code(), "request refused");
        problem.response(req.uri().path(), &trace)
    });
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    body::hold(&req, payload, response)
}

async fn handle(req: &HttpRequest, payload: &mut Payload, admin: &Admin) -> Result<HttpResponse, Problem> {
    let segments = path::segments(req.uri().path())?;
    let resource = Resource::find(&segments);
    let open = resource.as_ref().is_some_and(Resource::is_open);
    if !open {
        admin.token.check(req.headers())?;
    }
    let resource = resource.ok_or(AdminError::Route(Unroutable::NotFound))?;
    let allowed = resource.allow();
    let method = req.method();
    if !allowed.split(", ").any(|name| name == method.as_str()) {
        return Err(AdminError::Route(Unroutable::Method { allow: allowed.to_owned() }).into());
    }
    let body = body::whole(req, payload, admin.body).await?;
    let query = req.uri().query().unwrap_or_default();
    let reads = *method == Method::GET || *method == Method::HEAD;
    match resource {
        Resource::Health => Ok(rooms::health()),
        Resource::Ready => Ok(rooms::ready(admin)),
        Resource::Metrics => scrape::text(admin).await,
        Resource::Keys if reads => Ok(keys::list(admin)),
        Resource::Keys => keys::issue(admin, &body).await,
        Resource::Key(id) if reads => keys::show(admin, id),
        Resource::Key(id) => keys::revoke(admin, id).await,
        Resource::RotateKey(id) => keys::rotate(admin, id, &body).await,
        Resource::Subscriptions => delivery::list(admin).await,
        Resource::Subscription(name) => delivery::show(admin, name).await,
        Resource::Pause(name) => delivery::pause(admin, name).await,
        Resource::Resume(name) => delivery::resume(admin, name).await,
        Resource::TestFilter(name) => delivery::test_filter(admin, name, &body),
        Resource::DeadLetters(name) if reads => delivery::dead_letters(admin, name, query),
        Resource::DeadLetters(name) => delivery::purge(admin, name, &body).await,
        Resource::ReplayDeadLetters(name) => delivery::replay(admin, name, &body).await,
        Resource::Actors => Ok(rooms::actors(admin).await),
        Resource::ReopenActor => rooms::reopen(admin, &body).await,
        Resource::Shards => Ok(rooms::shards(admin)),
        Resource::Manifest => Ok(HttpResponse::Ok().json(&admin.manifest)),
    }
}

/// Reads a body as JSON of this shape.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::Request(format!("the body is not as expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> Option<String> {
        let segments = path::segments(path).unwrap();
        Resource::find(&segments).map(|found| format!("{found:?}"))
    }

    #[test]
    fn actions_stand_behind_a_colon() {
        for (path, expected) in [
            ("/v1/keys", Some("Keys")),
            ("/v1/keys/a", Some("Key(\"a\")")),
            ("/v1/keys/a:rotate", Some("RotateKey(\"a\")")),
            ("/v1/keys/a%3Arotate", Some("RotateKey(\"a\")")),
            ("/v1/keys/a:burn", None),
            ("/v1/subscriptions/s:pause", Some("Pause(\"s\")")),
            ("/v1/subscriptions/s/dead-letters:replay", Some("ReplayDeadLetters(\"s\")")),
            ("/v1/actors:reopen", Some("ReopenActor")),
            ("/v1/keys/a/b", None),
            ("/v2/keys", None),
            ("/", None),
        ] {
            assert_eq!(find(path).as_deref(), expected, "{path}");
        }
    }
}
