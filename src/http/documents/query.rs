//! Stands between the questions that a manifest asks of documents and the reader that answers them.
//!
//! Invariant: the text of a question is the manifest's; a request gives values, which are never read as a part of it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use lanekeeper_actors::model::ids::ShardId;
use lanekeeper_actors::query::Query;
use lanekeeper_actors::reader::{QueryRequest, Scope};
use serde_json::{Value, json};

use super::render::{CACHING, CONTINUATION, JSON, REQUEST_CHARGE};
use super::session::SESSION_TOKEN;
use super::{Admitted, Unacceptable};
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::http::routes::{Argument, Documents, Key};
use crate::manifest::ParameterType;

/// Longest continuation, in bytes: it comes back in a header, among others.
const CONTINUATION_MAX: usize = 12 * 1024;

impl Admitted<'_> {
    pub(super) async fn query(
        &self,
        documents: &Documents,
        partition: &Key,
        (query, arguments): (&Arc<Query>, &[(String, Argument)]),
    ) -> Result<HttpResponse, Problem> {
        let address = self.address(documents, partition.of(self.segments, None)?);
        let (limit, continuation) = self.page(self.limits.query_page_default, self.limits.query_page_max)?;
        let parameters =
            arguments.iter().map(|(name, argument)| Ok((name.clone(), self.argument(name, argument)?)));
        let parameters = parameters.collect::<Result<_, Problem>>()?;
        let whole = address.key.len() == documents.container.rules.key.len();
        let count = u16::try_from(self.directory.shards().len()).unwrap_or(u16::MAX);
        let shards: Vec<ShardId> = match whole {
            true => vec![address.encode().shard(count)],
            false => self.directory.shards().iter().map(|shard| shard.id()).collect(),
        };
        let session = self.sessions(shards)?;
        let request = QueryRequest {
            scope: Scope { container: address.container, tenant: address.tenant, key: address.key },
            query: query.clone(),
            parameters,
            limit,
            continuation,
            longest_continuation: CONTINUATION_MAX,
            explain: false,
        };
        let page = self.reader.query(request).await?;
        let mut response = HttpResponse::Ok();
        response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
        response.insert_header((REQUEST_CHARGE, page.charge.to_string()));
        response.insert_header((SESSION_TOKEN, session));
        if let Some(continuation) = page.continuation {
            response.insert_header((CONTINUATION, continuation));
        }
        Ok(response.body(json!({ "documents": page.rows, "count": page.rows.len() }).to_string()))
    }

    fn argument(&self, name: &str, argument: &Argument) -> Result<Value, Problem> {
        Ok(match argument {
            Argument::Literal(value) => value.clone(),
            Argument::Segment(number, kind) => {
                typed(name, self.segments.get(*number).cloned().unwrap_or_default(), *kind)?
            }
            Argument::Query(name, kind) => {
                let given = query_value(self.req.uri().query().unwrap_or_default(), name).transpose()?;
                typed(name, given.ok_or_else(|| Unacceptable::MissingParameter(name.clone()))?, *kind)?
            }
        })
    }
}

/// The value that a text stands for.
fn typed(name: &str, text: String, kind: ParameterType) -> Result<Value, Unacceptable> {
    // JSON may have spaces around it, a number or a boolean may not.
    let bare = !text.contains(char::is_whitespace);
    let (value, wanted) = match kind {
        ParameterType::String => return Ok(Value::String(text)),
        ParameterType::Number => {
            let number = serde_json::from_str(&text).ok().filter(|_| bare);
            (number.map(Value::Number), "a number")
        }
        ParameterType::Boolean => {
            (serde_json::from_str(&text).ok().filter(|_| bare).map(Value::Bool), "`true` or `false`")
        }
        ParameterType::Json => (serde_json::from_str(&text).ok(), "JSON"),
    };
    value.ok_or_else(|| Unacceptable::ParameterType { name: name.to_owned(), wanted })
}
