//! The public listener: one request from its head to its answer.
//!
//! Stands between callers and the rooms. The order is route, admission, body, work. Invariants: nothing of a body
//! is read before its caller is admitted; each request is one span, one line of log and one count, and none of
//! them has anything in it that a caller chose.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt;
use lanekeeper_actors::gateway::{GatewayHandle, UsageHandle};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::protocol::gateway::{Call, Credential, Rated, Refused};
use lanekeeper_actors::reader::Reader;
use lanekeeper_actors::system::System;
use tracing::Instrument;

use super::body;
use super::connections::Connection;
use super::documents::{self, Admitted, DocumentLimits};
use super::events::{self, EventLimits};
use super::flight::Flight;
use super::metrics::{Metrics, RouteMetrics};
use super::path;
use super::problem::Problem;
use super::proxy;
use super::ratelimit;
use super::routes::{Operation, Routes, Work};
use super::trace::Trace;
use super::usage;
use super::webhooks::{self, Webhooks};
use crate::manifest::Mock;

pub(super) use super::flight::ShuttingDown;

/// Headers that hold an API key. The first that is there counts.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("ocp-apim-subscription-key")];
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest path and query, in bytes.
const URI_MAX: usize = 8 * 1024;
/// Most bytes of header fields, their separators included.
const HEADERS_MAX: usize = 16 * 1024;

/// What all workers of the public listener share.
pub struct Gateway {
    /// Which operation answers.
    pub routes: Routes,
    /// The way to documents, one by one and many at once.
    pub reader: Reader,
    /// Bounds.
    pub limits: DocumentLimits,
    /// The way to topics and queues.
    pub system: System,
    /// Bounds of requests about events.
    pub events: EventLimits,
    /// Requests being answered.
    pub flight: Flight,
    /// Time.
    pub clock: SharedClock,
    /// Where requests without an operation are counted.
    pub unmatched: RouteMetrics,
    /// What callers use.
    pub usage: UsageHandle,
    /// What callers make of webhooks.
    pub webhooks: Webhooks,
}

/// A head that is refused whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHead {
    /// Path and query are too long.
    #[error("path and query have more than {0} bytes")]
    Uri(usize),
    /// The header fields are too long.
    #[error("the header fields have more than {0} bytes")]
    Headers(usize),
    /// The request line names another host than the header (RFC 9112 section 3.2.2).
    #[error("the request line and the header `Host` name different hosts")]
    Authority,
    /// A proxy is meant.
    #[error("this server is no proxy")]
    Connect,
}

/// What came to be known of a request.
#[derive(Default)]
struct Seen {
    operation: Option<Arc<Operation>>,
    tenant: Option<TenantId>,
    grant: Option<Name>,
    rated: Option<Rated>,
    code: Option<&'static str>,
}

impl Gateway {
    /// The operations of a manifest over these rooms.
    pub fn new(
        (routes, metrics): (Routes, &Metrics),
        reader: Reader,
        limits: DocumentLimits,
        (system, events): (System, EventLimits),
        clock: SharedClock,
        (usage, webhooks): (UsageHandle, Webhooks),
    ) -> Self {
        Self {
            routes,
            reader,
            limits,
            system,
            events,
            flight: Flight::default(),
            clock,
            unmatched: metrics.unmatched(),
            usage,
            webhooks,
        }
    }
}

/// Answers one request.
pub(super) async fn serve(
    req: HttpRequest,
    mut payload: Payload,
    gateway: Data<Gateway>,
    admission: Data<GatewayHandle>,
) -> HttpResponse {
    let started = gateway.clock.elapsed();
    let trace = Trace::of(single(req.headers(), &TRACEPARENT));
    let method = known(req.method());
    let span = tracing::info_span!("request", trace_id = %trace.id(), method);
    let mut seen = Seen::default();
    let flying = gateway.flight.enter();
    let mut response = match &flying {
        Err(closed) => Problem::from(*closed).response(req.uri().path(), &trace),
        Ok(_) => {
            let work = handle(&req, &mut payload, &gateway, &admission, &trace, &mut seen);
            // A panic must not take the worker's other connections with it.
            let outcome = AssertUnwindSafe(work).catch_unwind().instrument(span.clone()).await;
            let outcome = outcome.unwrap_or_else(|_| {
                tracing::error!(parent: &span, "request crashed");
                Err(Problem::crashed())
            });
            outcome.unwrap_or_else(|problem| {
                seen.code = Some(problem.code());
                problem.response(req.uri().path(), &trace)
            })
        }
    };
    if let Some(rated) = &seen.rated {
        ratelimit::describe(rated, response.headers_mut());
    }
    finish(&gateway, &trace, &mut response);
    let latency = gateway.clock.elapsed().saturating_sub(started);
    note(&gateway, &span, &seen, &response, latency);
    if let (Some(tenant), Some(grant)) = (&seen.tenant, &seen.grant) {
        usage::note(&gateway.usage, (tenant, grant), &req, &response);
    }
    body::hold(&req, payload, response)
}

fn finish(gateway: &Gateway, trace: &Trace, response: &mut HttpResponse) {
    if let Ok(value) = HeaderValue::try_from(trace.to_string()) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    if gateway.flight.is_closed() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
}

/// One line of log and one count for each request.
fn note(gateway: &Gateway, span: &tracing::Span, seen: &Seen, response: &HttpResponse, latency: Duration) {
    let status = response.status();
    let operation = seen.operation.as_deref();
    operation.map_or(&gateway.unmatched, |operation| &operation.metrics).count(status, latency);
    let route = operation.map_or("unmatched", |operation| &operation.route);
    let tenant = seen.tenant.as_ref().map(tracing::field::display);
    let (code, status) = (seen.code, status.as_u16());
    let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if status >= 500 {
        tracing::warn!(parent: span, route, tenant, status, code, latency_us, "request answered");
    } else {
        tracing::info!(parent: span, route, tenant, status, code, latency_us, "request answered");
    }
}

async fn handle(
    req: &HttpRequest,
    payload: &mut Payload,
    gateway: &Gateway,
    admission: &GatewayHandle,
    trace: &Trace,
    seen: &mut Seen,
) -> Result<HttpResponse, Problem> {
    if let Some(connection) = req.conn_data::<Connection>() {
        connection.check()?;
    }
    check_head(req)?;
    let segments = path::segments(req.uri().path())?;
    if segments == webhooks::CONFIRM {
        return webhooks::confirm(&gateway.webhooks, req).await;
    }
    let operation = seen.operation.insert(gateway.routes.find(req.method(), &segments)?).clone();
    let call = Call {
        credential: credential(req.headers()),
        ip: req.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip()),
        api: operation.api.clone(),
    };
    // Holds the call's places until its answer is made.
    let admitted = admission.admit(call).await.inspect_err(|refused| {
        if let Refused::RateLimited(rated) = refused {
            seen.rated = Some(rated.clone());
        }
    })?;
    seen.tenant = Some(admitted.tenant.clone());
    seen.grant = Some(admitted.grant.clone());
    seen.rated.clone_from(&admitted.rate);
    match &operation.work {
        Work::Mock(mock) => Ok(fixed(mock)),
        Work::Webhooks(work) => {
            let (tenant, product) = (&admitted.tenant, &admitted.product);
            let call = webhooks::Call { req, segments: &segments, tenant, product };
            webhooks::answer(&gateway.webhooks, &call, work, payload).await
        }
        Work::Documents(documents) => {
            let call = Admitted {
                req,
                segments: &segments,
                tenant: &admitted.tenant,
                trace,
                directory: gateway.reader.directory(),
                reader: &gateway.reader,
                limits: &gateway.limits,
            };
            documents::answer(&call, documents, payload).await
        }
        Work::Upstream(proxied) => {
            let client = req.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
            let call = proxy::Call { req, segments: &segments, trace, client };
            proxy::answer(&call, proxied, payload).await
        }
        Work::Publish(publishing) => {
            let call = about_events(req, gateway, &admitted.tenant, trace);
            events::publish(&call, publishing, payload).await
        }
        Work::Queue(subscription, action) => {
            let call = about_events(req, gateway, &admitted.tenant, trace);
            events::queue(&call, (subscription, *action), payload).await
        }
    }
}

fn about_events<'a>(
    req: &'a HttpRequest,
    gateway: &'a Gateway,
    tenant: &'a TenantId,
    trace: &'a Trace,
) -> events::Admitted<'a> {
    let Gateway { system, flight, events: limits, .. } = gateway;
    events::Admitted { req, tenant, trace, system, flight, limits }
}

fn check_head(req: &HttpRequest) -> Result<(), InvalidHead> {
    let uri = req.uri();
    if req.method() == Method::CONNECT {
        return Err(InvalidHead::Connect);
    }
    if uri.path_and_query().is_some_and(|whole| whole.as_str().len() > URI_MAX) {
        return Err(InvalidHead::Uri(URI_MAX));
    }
    // A field is its name, a colon, a space, its value and the end of the line.
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    if req.headers().iter().map(length).sum::<usize>() > HEADERS_MAX {
        return Err(InvalidHead::Headers(HEADERS_MAX));
    }
    let host = req.headers().get(HOST).map(HeaderValue::as_bytes);
    match uri.authority() {
        Some(named) if host.is_none_or(|host| !host.eq_ignore_ascii_case(named.as_str().as_bytes())) => {
            Err(InvalidHead::Authority)
        }
        Some(_) | None => Ok(()),
    }
}

/// The key that was sent. One that is no text, or stands there twice, is a key of nobody.
fn credential(headers: &HeaderMap) -> Option<Credential> {
    let name = KEY_HEADERS.into_iter().find(|name| headers.contains_key(name))?;
    Some(Credential::new(single(headers, &name).unwrap_or_default()))
}

/// The value of a header that stands there once and is text.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// The method's name, of those that have one here.
fn known(method: &Method) -> &'static str {
    let all = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let names = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    all.iter().zip(names).find(|(known, _)| *known == method).map_or("other", |(_, name)| name)
}

fn fixed(mock: &Mock) -> HttpResponse {
    // The manifest is refused when the status is none.
    let status = actix_web::http::StatusCode::from_u16(mock.status).unwrap_or_default();
    let mut response = HttpResponse::build(status);
    for (name, value) in &mock.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    match &mock.body {
        None => response.finish(),
        Some(body) => {
            if !mock.headers.contains_key(CONTENT_TYPE.as_str()) {
                response.insert_header((CONTENT_TYPE, "application/json"));
            }
            response.body(body.to_string())
        }
    }
}
