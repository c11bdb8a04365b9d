//! The manifest as it is applied: shown, planned, applied, taken back.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Admin, read};
use crate::configuration::{Applied, Configuration, NotApplied, Question, Wanted};
use crate::http::problem::Problem;
use crate::manifest::{Change, Secret, Step, Written};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The file that the text comes from; relative paths begin at its folder.
    #[serde(default)]
    name: Option<String>,
    /// YAML or JSON.
    text: String,
    if_generation: Option<u64>,
    #[serde(default)]
    allow_destroy: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    method: String,
    path: String,
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    generation: u64,
    #[serde(default)]
    allow_destroy: bool,
}

impl From<Request> for Wanted {
    fn from(request: Request) -> Self {
        let Request { name, text, if_generation, allow_destroy } = request;
        let name = name.unwrap_or_else(|| "manifest".to_owned());
        Self { written: Written { name, text }, if_generation, allow_destroy }
    }
}

/// What is applied, with a summary of names and shapes.
pub(super) fn show(admin: &Admin) -> HttpResponse {
    let mut shown = admin.manifest.clone();
    if let (Some(live), Some(shown)) = (&admin.configuration, shown.as_object_mut())
        && let Value::Object(applied) = live.shown()
    {
        shown.extend(applied);
    }
    HttpResponse::Ok().json(shown)
}

pub(super) fn kept(admin: &Admin) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(door(admin)?.kept()?))
}

pub(super) fn explain(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let Ask { method, path, key } = read(body)?;
    let question = Question { method: method.to_ascii_uppercase(), path, key: key.map(Secret::new) };
    Ok(HttpResponse::Ok().json(door(admin)?.explain(&question)))
}

pub(super) fn plan(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let wanted: Wanted = read::<Request>(body)?.into();
    Ok(HttpResponse::Ok().json(answer(&door(admin)?.plan(&wanted)?)))
}

pub(super) async fn apply(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let wanted: Wanted = read::<Request>(body)?.into();
    Ok(HttpResponse::Ok().json(answer(&door(admin)?.apply(wanted).await?)))
}

pub(super) async fn rollback(admin: &Admin, body: &Bytes) -> Result<HttpResponse, Problem> {
    let Rollback { generation, allow_destroy } = read(body)?;
    Ok(HttpResponse::Ok().json(answer(&door(admin)?.rollback(generation, allow_destroy).await?)))
}

fn door(admin: &Admin) -> Result<&Arc<dyn Configuration>, NotApplied> {
    admin.configuration.as_ref().ok_or(NotApplied::Fixed)
}

fn answer(applied: &Applied) -> Value {
    let changes: Vec<Value> = applied.changes.iter().map(change).collect();
    json!({ "generation": applied.generation, "changes": changes, "count": changes.len() })
}

fn change(change: &Change) -> Value {
    let step = match change.step {
        Step::Add => "add",
        Step::Change => "change",
        Step::Remove => "remove",
    };
    let details = change.details.iter();
    let details: Vec<Value> = details
        .map(|detail| json!({ "path": detail.path, "before": detail.before, "after": detail.after }))
        .collect();
    json!({
        "step": step,
        "path": change.path,
        "details": details,
        "destroys": change.destroys,
        "restart": change.restart,
    })
}
