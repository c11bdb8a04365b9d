//! Stands between what a partition says and the bytes of an answer.
//!
//! Invariant: a document is shown as it was sent, with its system properties at its end.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LOCATION};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use lanekeeper_actors::directory::PartitionHandle;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::ids::{Etag, Lsn};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::protocol::partition::{Repeat, Write, WriteError, Written};

use super::Admitted;
use super::repeat::REPLAYED;
use super::session::{self, SESSION_TOKEN};
use crate::http::problem::Problem;

pub(super) const REQUEST_CHARGE: HeaderName = HeaderName::from_static("x-request-charge");
pub(super) const CONTINUATION: HeaderName = HeaderName::from_static("x-continuation");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const MINIMAL: &str = "return=minimal";
/// A document is its tenant's; a cache must ask before it serves it again.
pub(super) const CACHING: &str = "private, no-cache";
pub(super) const JSON: &str = "application/json";

impl Admitted<'_> {
    /// Writes one document.
    pub(super) async fn commit(
        &self,
        partition: &PartitionHandle,
        write: Write,
        repeat: Option<Repeat>,
    ) -> Result<Written, Problem> {
        let written = partition.transact(vec![write], repeat, self.limits.request).await;
        let written = written.map_err(|refused| Problem::from(refused.error))?;
        // There is one answer for each write.
        Ok(written.into_iter().next().ok_or(WriteError::Crashed)?)
    }

    pub(super) fn written(
        &self,
        status: StatusCode,
        written: &Written,
        location: Option<String>,
    ) -> HttpResponse {
        let minimal = wants_minimal(self.req.headers());
        // What an earlier request wrote is shown only if it is still there.
        let silent = minimal || written.body.is_empty();
        let status = if silent && status == StatusCode::OK { StatusCode::NO_CONTENT } else { status };
        let mut response = HttpResponse::build(status);
        response.insert_header((REQUEST_CHARGE, written.charge.to_string()));
        response.insert_header((SESSION_TOKEN, session::token(written.etag.0)));
        if written.replayed {
            response.insert_header((REPLAYED, "true"));
        }
        if let Some(location) = location {
            response.insert_header((LOCATION, location));
        }
        if minimal {
            response.insert_header((PREFERENCE_APPLIED, MINIMAL));
        }
        if silent {
            response.insert_header((ETAG, written.etag.to_string()));
            return response.finish();
        }
        show(response, written.etag, (written.at, written.lsn), &written.body)
    }
}

/// The document with its system properties and its tag.
pub(super) fn show(
    mut response: HttpResponseBuilder,
    etag: Etag,
    (at, lsn): (Timestamp, Lsn),
    body: &Bytes,
) -> HttpResponse {
    let mut out = Vec::new();
    document::render(body, etag, at, lsn, &mut out);
    response
        .insert_header((CONTENT_TYPE, JSON))
        .insert_header((ETAG, etag.to_string()))
        .insert_header((CACHE_CONTROL, CACHING))
        .body(out)
}

/// `Prefer: return=minimal` (RFC 7240 section 4.2).
pub(super) fn wants_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|preference| {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case("return") && value.trim().trim_matches('"') == "minimal"
    })
}
