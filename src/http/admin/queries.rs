//! Stands between an operator's question in SQL and the reader: one page for each request.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::query::Query;
use lanekeeper_actors::reader::QueryRequest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Admin, read, scope};
use crate::http::problem::Problem;

/// Longest body of a query, in bytes.
pub(super) const BODY_MAX: usize = 1 << 20;
/// Rows in a page when nobody names a number.
pub(super) const PAGE: usize = 100;
/// Most rows in a page.
pub(super) const PAGE_MAX: usize = 1_000;
/// Longest continuation, in bytes: it travels in bodies, so it may hold whatever a query may know.
const CONTINUATION_MAX: usize = 128 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    #[serde(default)]
    parameters: Vec<Parameter>,
    partition: Option<Vec<Value>>,
    tenant: Option<String>,
    limit: Option<u64>,
    continuation: Option<String>,
    #[serde(default)]
    explain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameter {
    name: String,
    value: Value,
}

#[derive(Serialize)]
struct Answered {
    documents: Vec<Value>,
    count: usize,
    continuation: Option<String>,
    request_charge: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Value>,
}

/// Answers one page.
pub(super) async fn page(admin: &Admin, container: &str, body: &Bytes) -> Result<HttpResponse, Problem> {
    scope::find(admin, container)?;
    let asked: Asked = read(body)?;
    let scope = scope::of(admin, container, asked.tenant.as_deref(), asked.partition.as_deref())?;
    let query = Arc::new(Query::parse(&asked.query)?);
    let parameters =
        asked.parameters.into_iter().map(|Parameter { name, value }| (name, value)).collect::<Vec<_>>();
    let request = QueryRequest {
        scope,
        query,
        parameters,
        limit: scope::limit(asked.limit, PAGE, PAGE_MAX)?,
        continuation: asked.continuation,
        longest_continuation: CONTINUATION_MAX,
        explain: asked.explain,
    };
    let page = admin.system.reader().query(request).await?;
    Ok(HttpResponse::Ok().json(Answered {
        count: page.rows.len(),
        documents: page.rows,
        continuation: page.continuation,
        request_charge: page.charge.as_f64(),
        plan: page.plan,
    }))
}
