//! Stands between a request of the public listener and the audit log.
//!
//! Invariant: nothing of the request's path, query, header fields or body is recorded, and of its key only the id of
//! the grant.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use lanekeeper_actors::model::ids::{Name, TenantId};

use super::body::Length;
use super::routes::Operation;
use super::trace::Trace;
use crate::audit::{Actor, Audit, Record};

/// What came to be known of a request.
pub(super) struct Call<'a> {
    pub(super) operation: Option<&'a Operation>,
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) grant: Option<&'a Name>,
    pub(super) code: Option<&'static str>,
    pub(super) client: Option<IpAddr>,
    pub(super) latency: Duration,
    /// Whether it was refused for who sent it.
    pub(super) is_refused: bool,
}

/// Records a request as far as the manifest wants it.
pub(super) fn note(
    audit: &Audit,
    trace: &Trace,
    call: &Call<'_>,
    req: &HttpRequest,
    response: &HttpResponse,
) {
    if call.is_refused {
        audit.refused(|| record("caller.refused", trace, call, req, response));
    }
    audit.answered(|| record("request", trace, call, req, response));
}

fn record(
    action: &'static str,
    trace: &Trace,
    call: &Call<'_>,
    req: &HttpRequest,
    response: &HttpResponse,
) -> Record {
    let bytes_out = match response.body().size() {
        BodySize::None => Some(0),
        BodySize::Sized(bytes) => Some(bytes),
        BodySize::Stream => None,
    };
    Record {
        actor: if call.tenant.is_some() { Actor::Tenant } else { Actor::Caller },
        action,
        tenant: call.tenant.cloned(),
        grant: call.grant.cloned(),
        api: call.operation.map(|operation| operation.api.clone()),
        operation: call.operation.map(|operation| operation.name.clone()),
        status: Some(response.status().as_u16()),
        code: call.code,
        latency_us: Some(u64::try_from(call.latency.as_micros()).unwrap_or(u64::MAX)),
        bytes_in: req.extensions().get::<Length>().map(|length| length.0),
        bytes_out,
        trace: Some(trace.id()),
        client: call.client,
        ..Record::default()
    }
}
