//! Keys: list, issue, rotate, revoke. A secret is in the one answer that makes it, and never again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::gateway::NewGrant;
use lanekeeper_actors::model::ids::TenantId;
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::keys::{Grant, KeyRefused, KeySlot, Scope, Standing};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, AdminError, read};
use crate::http::problem::Problem;
use crate::manifest;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    product: Option<String>,
    /// One API, where there is no product.
    api: Option<String>,
    /// `all_apis` or `all_access`, where there is neither.
    access: Option<Access>,
    tenant: String,
    expires: Option<String>,
    /// Whether it waits for an approval, where its product asks for one.
    #[serde(default)]
    submit: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Access {
    AllApis,
    AllAccess,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    slot: KeySlot,
}

pub(super) fn list(admin: &Admin) -> HttpResponse {
    let now = admin.clock.now();
    let keys: Vec<_> = admin.keys.list().iter().map(|grant| describe(grant, now)).collect();
    let count = keys.len();
    HttpResponse::Ok().json(json!({ "keys": keys, "count": count }))
}

pub(super) fn show(admin: &Admin, id: &str) -> Result<HttpResponse, Problem> {
    let grant = admin.keys.get(id);
    let grant = grant.ok_or_else(|| lanekeeper_actors::gateway::KeysError::UnknownGrant(id.to_owned()))?;
    Ok(HttpResponse::Ok().json(describe(&grant, admin.clock.now())))
}

pub(super) async fn issue(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let Issue { product, api, access, tenant, expires, submit } = read(body)?;
    let scope = match (product, api, access) {
        (Some(product), None, None) => Scope::Product(product.into()),
        (None, Some(api), None) => Scope::Api(api.into()),
        (None, None, Some(Access::AllApis)) => Scope::AllApis,
        (None, None, Some(Access::AllAccess)) => Scope::AllAccess,
        _ => {
            return Err(
                AdminError::Request("a key is for one of `product`, `api` and `access`".into()).into()
            );
        }
    };
    let tenant = TenantId::new(&tenant).map_err(|error| AdminError::Request(error.to_string()))?;
    let expires = expires.map(|text| moment(&text, admin.clock.now())).transpose()?;
    let issued = admin.keys.issue(NewGrant { scope, tenant, expires, submitted: submit }).await?;
    let mut answer = describe(&issued.grant, admin.clock.now());
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("primary".to_owned(), json!(issued.primary.expose()));
        answer.insert("secondary".to_owned(), json!(issued.secondary.expose()));
    }
    let location = format!("/v1/keys/{}", issued.grant.id);
    Ok(HttpResponse::Created().insert_header(("location", location)).json(answer))
}

pub(super) async fn rotate(admin: &Admin, id: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    let slot = if body.is_empty() { KeySlot::Primary } else { read::<Rotate>(body)?.slot };
    let rotated = admin.keys.rotate(id, slot).await?;
    let name = match slot {
        KeySlot::Primary => "primary",
        KeySlot::Secondary => "secondary",
    };
    let mut answer = describe(&rotated.grant, admin.clock.now());
    if let Some(answer) = answer.as_object_mut() {
        answer.insert(name.to_owned(), json!(rotated.secret.expose()));
    }
    Ok(HttpResponse::Ok().json(answer))
}

pub(super) async fn revoke(admin: &Admin, id: &str) -> Result<HttpResponse, Problem> {
    let grant = admin.keys.revoke(id).await?;
    Ok(HttpResponse::Ok().json(describe(&grant, admin.clock.now())))
}

/// Approves, rejects, suspends or resumes.
pub(super) async fn stand(admin: &Admin, id: &str, standing: Standing) -> Result<HttpResponse, Problem> {
    let grant = admin.keys.stand(id, standing).await?;
    Ok(HttpResponse::Ok().json(describe(&grant, admin.clock.now())))
}

/// A grant as the audit log shows it: nothing of its keys, hints included.
pub(super) fn summary(admin: &Admin, id: &str) -> Option<Value> {
    let mut about = describe(&*admin.keys.get(id)?, admin.clock.now());
    if let Some(about) = about.as_object_mut() {
        about.retain(|name, value| !name.ends_with("_hint") && !value.is_null());
    }
    Some(about)
}

/// A grant without its hashes.
fn describe(grant: &Grant, now: Timestamp) -> Value {
    let state = match grant.admits(now) {
        Ok(()) => "active",
        Err(KeyRefused::Expired) => "expired",
        Err(KeyRefused::Revoked | KeyRefused::Unknown) => "revoked",
        Err(KeyRefused::Inactive(standing)) => standing.word(),
    };
    let (api, access) = match &grant.scope {
        Scope::Product(_) => (None, None),
        Scope::Api(api) => (Some(&**api), None),
        Scope::AllApis => (None, Some("all_apis")),
        Scope::AllAccess => (None, Some("all_access")),
    };
    let [primary, secondary] = &grant.hint;
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "id": grant.id,
        "product": grant.scope.product().map(|product| &**product),
        "api": api,
        "access": access,
        "tenant": grant.tenant.as_str(),
        "state": state,
        "primary_hint": primary,
        "secondary_hint": secondary,
        "created": grant.created.to_string(),
        "expires": text(grant.expires),
        "revoked": text(grant.revoked),
        "rotated": text(grant.rotated),
        "last_used": text(grant.used.get()),
        "managed_by": if grant.managed_by_manifest { "manifest" } else { "runtime" },
    })
}

/// A date and time (RFC 3339), a date, or a time from now such as `30d`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, AdminError> {
    if let Some(delay) = manifest::duration(text) {
        return Ok(now.after(delay));
    }
    let wrong = || {
        AdminError::Request(
            "`expires` is a time such as `2027-01-31T00:00:00Z`, or a duration such as `30d`".into(),
        )
    };
    Ok(timestamp(manifest::timestamp(text).ok_or_else(wrong)?))
}

/// A moment of the manifest as the rooms count time.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_a_date_or_a_duration() {
        let now = Timestamp(1_700_000_000_000);
        for (text, expected) in [
            ("2027-01-31T00:00:00Z", Some(1_801_353_600_000)),
            ("2027-01-31", Some(1_801_353_600_000)),
            ("1d", Some(1_700_086_400_000)),
            ("tomorrow", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(moment(text, now).ok().map(|at| at.0), expected, "{text}");
        }
    }
}
