//! The private listener: health, metrics, keys, data, subscriptions, dead letters, what is awake.
//!
//! Stands between an operator and the rooms. Invariant: everything under `/v1` needs the admin token, and without
//! it one cannot even learn which paths there are.

mod audit;
mod backends;
mod backup;
mod changes;
mod configuration;
mod containers;
mod delivery;
mod export;
mod import;
mod keys;
pub(super) mod letters;
mod lines;
mod queries;
mod resource;
mod rooms;
mod scope;
mod scrape;
mod token;
mod topics;
mod usage;

use std::panic::AssertUnwindSafe;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt;
use lanekeeper_actors::gateway::{GatewayState, KeysHandle, LedgerHandle, UsageHandle};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::policy::keys::Standing;
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
use crate::audit::{Audit, Unwritten};
use crate::configuration::Configuration;
use crate::upstream::Upstreams;

use audit::Change;
use resource::{Resource, Route};

pub(crate) use keys::timestamp;
pub use rooms::manifest;
pub use token::{FILE as TOKEN_FILE, Token, TokenError, TokenRefused, VARIABLE as TOKEN_VARIABLE};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the admin API is about.
pub struct Admin {
    /// The rooms.
    pub system: System,
    /// Servers behind the gateway.
    pub upstreams: Upstreams,
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
    /// The way to another manifest, where there is one.
    pub configuration: Option<Arc<dyn Configuration>>,
    /// Bounds of a body.
    pub body: BodyLimits,
    /// Most things in one answer.
    pub page_max: usize,
    /// Quotas and limits, and what is remembered of them.
    pub ledger: LedgerHandle,
    /// What callers use.
    pub usage: UsageHandle,
    /// What operators change is written there first.
    pub audit: Audit,
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
    /// There is no such replay.
    #[error("there is no replay `{0}`")]
    NoReplay(String),
    /// Nothing to reopen.
    #[error("there is no such partition awake")]
    NotAwake,
    /// A backup that was not made.
    #[error("no backup was made: {0}")]
    Backup(String),
    /// The audit log does not take the record of a change, so it is not made.
    #[error("nothing was changed: {0}")]
    Unrecorded(Unwritten),
    /// The audit log cannot be read.
    #[error("the audit log cannot be read")]
    Unreadable,
    /// A body or a query that does not say what it must.
    #[error("{0}")]
    Request(String),
}

/// Answers one request.
pub async fn serve(req: HttpRequest, mut payload: Payload, admin: Data<Admin>) -> HttpResponse {
    let trace = Trace::of(req.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok()));
    let span = tracing::info_span!("admin", trace_id = %trace.id());
    let work =
        AssertUnwindSafe(handle(&req, &mut payload, &admin, &trace)).catch_unwind().instrument(span.clone());
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

async fn handle(
    req: &HttpRequest,
    payload: &mut Payload,
    admin: &Admin,
    trace: &Trace,
) -> Result<HttpResponse, Problem> {
    let segments = path::segments(req.uri().path())?;
    let resource = Resource::find(&segments);
    if !resource.as_ref().is_some_and(Resource::is_open) {
        let refused = |refused| {
            let problem = Problem::from(refused);
            audit::refused(admin, req, trace, &problem);
            problem
        };
        admin.token.check(req.headers()).map_err(refused)?;
    }
    let resource = resource.ok_or(AdminError::Route(Unroutable::NotFound))?;
    let method = req.method();
    if !resource.allow.split(", ").any(|name| name == method.as_str()) {
        return Err(AdminError::Route(Unroutable::Method { allow: resource.allow.to_owned() }).into());
    }
    let change = Change::of(admin, resource, req, trace);
    if resource.route == Route::Import {
        let work = import::stream(admin, resource.name, req, payload, trace);
        return match change {
            Some(change) => change.make(admin, &[], work).await,
            None => work.await,
        };
    }
    let body = body::whole(req, payload, limits(admin, resource.route)).await?;
    let work = answer(req, admin, resource, &body);
    match change {
        Some(change) => change.make(admin, &body, work).await,
        None => work.await,
    }
}

/// Answers a request whose body is whole.
async fn answer(
    req: &HttpRequest,
    admin: &Admin,
    resource: Resource<'_>,
    body: &Bytes,
) -> Result<HttpResponse, Problem> {
    let query = req.uri().query().unwrap_or_default();
    let reads = *req.method() == Method::GET || *req.method() == Method::HEAD;
    let name = resource.name;
    match resource.route {
        Route::Health => Ok(rooms::health()),
        Route::Ready => Ok(rooms::ready(admin)),
        Route::Metrics => scrape::text(admin).await,
        Route::Description => {
            Ok(HttpResponse::Ok().content_type("application/json").body(resource::DESCRIPTION))
        }
        Route::Keys if reads => Ok(keys::list(admin)),
        Route::Keys => keys::issue(admin, body).await,
        Route::Key if reads => keys::show(admin, name),
        Route::Key => keys::revoke(admin, name).await,
        Route::RotateKey => keys::rotate(admin, name, body).await,
        // Approving is what makes a grant run that waits, and resuming one that is suspended.
        Route::ResumeKey => keys::stand(admin, name, Standing::Active).await,
        Route::RejectKey => keys::stand(admin, name, Standing::Rejected).await,
        Route::SuspendKey => keys::stand(admin, name, Standing::Suspended).await,
        Route::Containers => Ok(containers::list(admin)),
        Route::Partitions if reads => containers::hottest(admin, name, query),
        Route::Partitions => containers::purge(admin, name, query).await,
        // Its body is not whole: it was answered before.
        Route::Import => Err(Problem::crashed()),
        Route::Export => export::stream(admin, name, query).await,
        Route::Changes => changes::page(admin, name, query).await,
        Route::Query => queries::page(admin, name, body).await,
        Route::Backends => Ok(backends::list(admin)),
        Route::Topics => Ok(topics::list(admin)),
        Route::Subscriptions => delivery::list(admin).await,
        Route::Subscription => delivery::show(admin, name).await,
        Route::Pause => delivery::pause(admin, name).await,
        Route::Resume => delivery::resume(admin, name).await,
        Route::Attempts => delivery::attempts(admin, name).await,
        Route::ReplayHistory => delivery::replay_history(admin, name, body).await,
        Route::CancelReplay => delivery::cancel_replay(admin, name, body).await,
        Route::TestFilter => delivery::test_filter(admin, name, body),
        Route::DeadLetters if reads => delivery::dead_letters(admin, name, query),
        Route::DeadLetters => delivery::purge(admin, name, body).await,
        Route::ReplayDeadLetters => delivery::replay(admin, name, body).await,
        Route::Usage => usage::read(admin, query).await,
        Route::Audit => audit::page(admin, query).await,
        Route::Actors => Ok(rooms::actors(admin).await),
        Route::ReopenActor => rooms::reopen(admin, body).await,
        Route::Shards => Ok(rooms::shards(admin)),
        Route::Backup => backup::make(admin, body).await,
        Route::Manifest if reads => Ok(configuration::show(admin)),
        Route::Manifest => configuration::apply(admin, body).await,
        Route::PlanManifest => configuration::plan(admin, body),
        Route::RollbackManifest => configuration::rollback(admin, body).await,
        Route::Explain => configuration::explain(admin, body),
        Route::Generations => configuration::kept(admin),
    }
}

/// Bounds of a body. That of a query does not depend on how large documents may be.
fn limits(admin: &Admin, route: Route) -> BodyLimits {
    if route == Route::Query { BodyLimits { bytes: queries::BODY_MAX, ..admin.body } } else { admin.body }
}

/// Reads a body as JSON of this shape.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::Request(format!("the body is not as expected: {error}")))
}
