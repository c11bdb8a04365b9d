//! Stands between a patch in a request and the partition that applies it.
//!
//! Invariant: what cannot be applied to any document is refused before a partition hears of it.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use lanekeeper_actors::policy;
use lanekeeper_actors::protocol::partition::{Operation, Patch};
use lanekeeper_actors::query::Condition;

use super::{Admitted, preconditions};
use crate::http::body::{self, BodyError};
use crate::http::problem::Problem;
use crate::http::routes::{At, Documents};

impl Admitted<'_> {
    pub(super) async fn patch(
        &self,
        documents: &Documents,
        at: &At,
        payload: &mut Payload,
    ) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let idempotency = self.idempotency(documents)?;
        // Clients of Cosmos DB send patches without saying what they are.
        if self.req.headers().contains_key(CONTENT_TYPE) && !body::is_json(self.req) {
            return Err(BodyError::NotJson.into());
        }
        let body = body::whole(self.req, payload, self.limits.body).await?;
        let content_type = self.req.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let change = policy::patch::Patch::parse(content_type, &body, self.limits.patch)?;
        let patch = with_condition(change)?;
        let partition = self.partition(documents, key)?;
        // The same bytes can be two kinds of patch.
        let kind = format!("patch {}", content_type.unwrap_or_default());
        let repeat = idempotency.map(|key| key.repeat(&kind, Some(id.as_str()), &body));
        let write = self.write(id, Operation::Patch(Box::new(patch)), precondition);
        let written = self.commit(&partition, write, repeat).await?;
        Ok(self.written(StatusCode::OK, &written, None))
    }
}

/// Reads the condition that a patch carries.
pub(super) fn with_condition(change: policy::patch::Patch) -> Result<Patch, Problem> {
    let condition = change.condition().map(Condition::parse).transpose().map_err(Problem::condition)?;
    Ok(Patch { change, condition })
}
