//! Servers behind the gateway: how they are, and which are left alone.

use actix_web::HttpResponse;
use lanekeeper_actors::policy::upstream::Standing;
use serde_json::{Value, json};

use super::Admin;
use crate::upstream::{Backend, MemberState};

pub(super) fn list(admin: &Admin) -> HttpResponse {
    let backends: Vec<_> = admin.upstreams.fleet().iter().map(|backend| shown(backend)).collect();
    let count = backends.len();
    HttpResponse::Ok().json(json!({ "backends": backends, "count": count }))
}

fn shown(backend: &Backend) -> Value {
    let members: Vec<_> = backend.members().iter().map(member).collect();
    json!({ "name": backend.name(), "members": members })
}

fn member(member: &MemberState) -> Value {
    let breaker = match member.breaker {
        Standing::Closed => "closed",
        Standing::Open { .. } => "open",
        Standing::HalfOpen => "half_open",
    };
    json!({
        "url": member.url,
        "weight": member.weight,
        "priority": member.priority,
        "healthy": member.healthy,
        "breaker": breaker,
        "retry_in_seconds": member.retry_in.map(|wait| wait.as_secs_f64()),
        "active": member.active,
        "last_failure": member.last_failure,
    })
}
