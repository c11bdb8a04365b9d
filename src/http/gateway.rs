//! The public listener: one request from its head to its answer.
//!
//! Stands between callers and the rooms. The order is route, admission, body, work. Invariants: nothing of a body
//! is read before its caller is admitted; each request is one span, one line of log and one count, and none of
//! them has anything in it that a caller chose.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use lanekeeper_actors::gateway::{GatewayHandle, UsageHandle};
use lanekeeper_actors::kernel::clock::SharedClock;
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::policy::limits::Judged;
use lanekeeper_actors::policy::terms::Meter;
use lanekeeper_actors::protocol::gateway::{Admitted, Refused};
use lanekeeper_actors::reader::Reader;
use lanekeeper_actors::system::System;
use tracing::Instrument;

use super::audited;
use super::body;
use super::caller::{self, Callers, single};
use super::connections::Connection;
use super::documents::{self, DocumentLimits};
use super::edge::{self, Edge};
use super::events::{self, EventLimits};
use super::flight::Flight;
use super::metrics::{Metrics, RouteMetrics};
use super::problem::Problem;
use super::proxy;
use super::ratelimit;
use super::routes::{Operation, Routes, Work};
use super::trace::Trace;
use super::usage;
use super::webhooks::{self, Webhooks};
use crate::audit::Audit;
use crate::manifest::{ErrorStyle, Mock};

pub(super) use super::flight::ShuttingDown;

/// What the use of callers without a key is counted under.
const KEYLESS: &str = "keyless";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What all workers of the public listener share.
pub struct Gateway {
    /// What is asked of every request.
    pub edge: Edge,
    /// What the manifest says that may change while requests come.
    pub live: ArcSwap<Live>,
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
    /// Where refusals are noted, and requests where the manifest asks for it.
    pub audit: Audit,
}

/// What the manifest says that may change while requests come. A request ends on what it began with.
#[derive(Debug)]
pub struct Live {
    /// Which operation answers.
    pub routes: Routes,
    /// What is asked of callers.
    pub callers: Callers,
}

/// What came to be known of a request.
#[derive(Default)]
struct Seen {
    client: Option<IpAddr>,
    operation: Option<Arc<Operation>>,
    tenant: Option<TenantId>,
    grant: Option<Name>,
    judged: Vec<Judged>,
    meter: Meter,
    code: Option<&'static str>,
    /// Whether it was refused for who sent it.
    is_refused: bool,
}

impl Gateway {
    /// The operations of a manifest over these rooms.
    pub fn new(
        edge: Edge,
        (live, metrics): (Live, &Metrics),
        reader: Reader,
        limits: DocumentLimits,
        (system, events): (System, EventLimits),
        clock: SharedClock,
        (usage, webhooks, audit): (UsageHandle, Webhooks, Audit),
    ) -> Self {
        Self {
            edge,
            live: ArcSwap::from_pointee(live),
            reader,
            limits,
            system,
            events,
            flight: Flight::default(),
            clock,
            unmatched: metrics.unmatched(),
            usage,
            webhooks,
            audit,
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
                let errors = seen.operation.as_ref().map(|operation| operation.errors).unwrap_or_default();
                match errors {
                    ErrorStyle::Problem => problem.response(req.uri().path(), &trace),
                    ErrorStyle::Apim => problem.apim(
                        &req,
                        seen.operation.as_ref().map_or("/", |operation| &operation.base),
                        &trace,
                    ),
                }
            })
        }
    };
    ratelimit::describe(&seen.judged, response.headers_mut());
    finish(&gateway, &trace, &mut response);
    let latency = gateway.clock.elapsed().saturating_sub(started);
    note(&gateway, &span, &seen, &response, latency);
    let call = audited::Call {
        operation: seen.operation.as_deref(),
        tenant: seen.tenant.as_ref(),
        grant: seen.grant.as_ref(),
        code: seen.code,
        client: seen.client,
        latency,
        is_refused: seen.is_refused,
    };
    audited::note(&gateway.audit, &trace, &call, &req, &response);
    if let (Some(tenant), Some(grant)) = (&seen.tenant, &seen.grant) {
        let bytes = usage::note(&gateway.usage, (tenant, grant), &req, &response);
        seen.meter.note_bytes(bytes, gateway.clock.now());
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
    let client = seen.client.map(tracing::field::display);
    let (code, status) = (seen.code, status.as_u16());
    let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if status >= 500 {
        tracing::warn!(parent: span, route, tenant, client, status, code, latency_us, "request answered");
    } else {
        tracing::info!(parent: span, route, tenant, client, status, code, latency_us, "request answered");
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
    let _stream = req.conn_data::<Connection>().map(Connection::begin).transpose()?;
    let ip = *seen.client.insert(gateway.edge.admit(req)?);
    edge::check_head(req, gateway.edge.head)?;
    let segments = edge::segments(req, gateway.edge.paths)?;
    if segments == webhooks::CONFIRM {
        return webhooks::confirm(&gateway.webhooks, req).await;
    }
    let live = gateway.live.load_full();
    let operation = seen.operation.insert(live.routes.find(req.method(), &segments)?).clone();
    let entry = caller::identify((&live.callers, admission), req, &operation, ip).await;
    let entry = entry.inspect_err(|_| seen.is_refused = true)?;
    // Holds the call's places until its answer is made.
    let admitted = admission.admit(entry).await.inspect_err(|refused| {
        if let Refused::RateLimited(exceeded) = refused {
            seen.judged.clone_from(&exceeded.judged);
        }
    })?;
    let Admitted { tenant, product, grant, judged, meter, place: _place, held: _held } = admitted;
    let tenant = &*seen.tenant.insert(tenant);
    seen.grant = Some(grant.unwrap_or_else(|| KEYLESS.into()));
    (seen.judged, seen.meter) = (judged, meter);
    match &operation.work {
        Work::Mock(mock) => Ok(fixed(mock)),
        Work::Webhooks(work) => {
            let product = &product.unwrap_or_default();
            let call = webhooks::Call { req, segments: &segments, tenant, product };
            webhooks::answer(&gateway.webhooks, &call, work, payload).await
        }
        Work::Documents(documents) => {
            let call = documents::Admitted {
                req,
                segments: &segments,
                tenant,
                trace,
                directory: gateway.reader.directory(),
                reader: &gateway.reader,
                limits: &gateway.limits,
            };
            documents::answer(&call, documents, payload).await
        }
        Work::Upstream(proxied) => {
            let client = ip;
            let call = proxy::Call { req, segments: &segments, trace, client };
            proxy::answer(&call, proxied, payload).await
        }
        Work::Publish(publishing) => {
            let call = about_events(req, gateway, tenant, trace);
            events::publish(&call, publishing, payload).await
        }
        Work::Queue(subscription, action) => {
            let call = about_events(req, gateway, tenant, trace);
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
