//! What a call would meet, for operators who wonder. Stands beside the way of a request and goes none of it: it reads
//! what the request would be decided by, counts nothing and does nothing.

use actix_web::http::Method;
use lanekeeper_actors::gateway::GatewayState;
use lanekeeper_actors::model::ids::Name;
use lanekeeper_actors::policy::keys::Grant;
use lanekeeper_actors::policy::limits::{Algorithm, By, Limit};
use lanekeeper_actors::policy::permits::Priority;
use lanekeeper_actors::policy::quota::Period;
use lanekeeper_actors::policy::terms::{QuotaRule, Terms};
use lanekeeper_actors::protocol::gateway::{Credential, Door};
use serde_json::{Value, json};

use super::gateway::Gateway;
use super::path;
use super::problem::Problem;
use super::routes::{Operation, Work};
use crate::configuration::Question;

/// Explains a call.
pub fn explain(gateway: &Gateway, admission: &GatewayState, question: &Question) -> Value {
    let refused = |problem: Problem, route: Option<&Operation>| {
        json!({
            "refused": { "status": problem.status().as_u16(), "code": problem.code(), "detail": problem.detail() },
            "route": route.map(|operation| &*operation.route),
            "api": route.map(|operation| &*operation.api),
            "operation": route.map(|operation| &*operation.name),
        })
    };
    let segments = match path::segments(&question.path) {
        Ok(segments) => segments,
        Err(error) => return refused(error.into(), None),
    };
    let Ok(method) = Method::from_bytes(question.method.as_bytes()) else {
        let problem = Problem::bad_request("invalid_path", "Invalid method", "this is no method");
        return refused(problem, None);
    };
    let live = gateway.live.load();
    let operation = match live.routes.find(&method, &segments) {
        Ok(operation) => operation,
        Err(error) => return refused(error.into(), None),
    };
    let credential = question.key.as_ref().map(|key| Credential::new(key.expose()));
    let doors: Vec<_> = match admission.look(credential.as_ref(), &operation.api) {
        Ok(Door::Key(terms, grant)) => vec![(terms, Some(grant))],
        Ok(Door::Open(open)) => open.into_iter().map(|terms| (terms, None)).collect(),
        Err(error) => return refused(error.into(), Some(&operation)),
    };
    let at = (&operation.api, &operation.name);
    let terms: Vec<Value> = doors
        .iter()
        .map(|(terms, grant)| describe(terms, grant.as_deref(), &admission.limits_of(terms, at).0))
        .collect();
    let priority = doors.first().map(|(terms, _)| match admission.limits_of(terms, at).1 {
        Priority::Critical => "critical",
        Priority::Normal => "normal",
        Priority::Low => "low",
    });
    json!({
        "route": &*operation.route,
        "api": &*operation.api,
        "operation": &*operation.name,
        "to": target(&operation.work),
        "priority": priority,
        "terms": terms,
    })
}

fn describe(terms: &Terms, grant: Option<&Grant>, limits: &[Limit]) -> Value {
    json!({
        "product": terms.product.as_deref(),
        "grant": grant.map(|grant| &grant.id),
        "tenant": grant.map(|grant| grant.tenant.as_str()),
        "identity": terms.rules.identity.as_deref(),
        "concurrency": terms.rules.concurrency,
        "weight": terms.rules.weight.max(1),
        "limits": limits.iter().map(limit).collect::<Vec<_>>(),
        "quotas": terms.rules.quotas.iter().map(quota).collect::<Vec<_>>(),
    })
}

fn limit(limit: &Limit) -> Value {
    let Limit { name, rate, algorithm, by } = limit;
    let algorithm = match algorithm {
        Algorithm::Sliding => "sliding",
        Algorithm::TokenBucket => "token_bucket",
    };
    let text = format!("{name}: {} in {:?} by {}, {algorithm}", rate.calls(), rate.per(), counted_by(by));
    json!({ "name": &**name, "calls": rate.calls(), "per_ms": rate.per().as_millis(), "text": text })
}

fn quota(rule: &QuotaRule) -> Value {
    let QuotaRule { name, quota, by } = rule;
    let period = match quota.period {
        Period::Day => "a day".to_owned(),
        Period::Week => "a week".to_owned(),
        Period::Month => "a month".to_owned(),
        Period::Lifetime => "a lifetime".to_owned(),
        Period::Every { length, .. } | Period::FromFirstUse { length } => format!("{length:?}"),
    };
    let parts = [
        quota.calls.map(|calls| format!("{calls} calls")),
        quota.bytes.map(|bytes| format!("{bytes} bytes")),
    ];
    let amount = parts.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let text = format!("{name}: {amount} in {period} by {}", counted_by(by));
    json!({ "name": &**name, "calls": quota.calls, "bytes": quota.bytes, "text": text })
}

fn counted_by(by: &By) -> String {
    match by {
        By::Caller => "caller".to_owned(),
        By::ApiKey => "key".to_owned(),
        By::Tenant => "tenant".to_owned(),
        By::Address => "ip".to_owned(),
        By::Everybody => "everybody".to_owned(),
        By::Header(name) => format!("header:{name}"),
        By::Claim(name) => format!("claim:{name}"),
    }
}

fn target(work: &Work) -> String {
    let of = |kind: &str, name: &Name| format!("{kind} {name}");
    match work {
        Work::Documents(documents) => of("container", &documents.container.name),
        Work::Publish(publishing) => of("topic", &publishing.topic),
        Work::Queue(name, _) => of("queue", name),
        Work::Webhooks(webhooks) => of("webhooks on", &webhooks.topic),
        Work::Upstream(_) => "a server behind the gateway".to_owned(),
        Work::Mock(_) => "mock".to_owned(),
    }
}
