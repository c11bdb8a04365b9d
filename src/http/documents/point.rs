//! Stands between requests about one document and its partition.
//!
//! Invariant: what is created can be read where the answer says that it is.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ETAG};
use actix_web::web::Payload;
use lanekeeper_actors::directory::read_charge;
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::ids::{DocumentId, Etag, Position};
use lanekeeper_actors::protocol::partition::{Content, Operation};

use super::render::{CACHING, REQUEST_CHARGE, show};
use super::session::SESSION_TOKEN;
use super::{Admitted, Unacceptable, preconditions, require_key};
use crate::http::body;
use crate::http::path::can_be_segment;
use crate::http::problem::Problem;
use crate::http::routes::{At, Documents, Key};

/// How a body becomes a write, and what that is called.
pub(super) type Put = (&'static str, fn(Content) -> Operation);

impl Admitted<'_> {
    pub(super) async fn create(
        &self,
        documents: &Documents,
        partition: Option<&Key>,
        payload: &mut Payload,
    ) -> Result<HttpResponse, Problem> {
        let precondition = preconditions(self.req.headers())?;
        let idempotency = self.idempotency(documents)?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let made = match &idempotency {
            Some(key) => key.document_id(&documents.container)?,
            None => DocumentId::new(&uuid::Uuid::now_v7().to_string())?,
        };
        let mut new = document::parse(&body, &documents.container.rules, || made)?;
        if !can_be_segment(new.id.as_str()) {
            return Err(Unacceptable::UnreachableId(new.id).into());
        }
        if let Some(partition) = partition {
            require_key(&documents.container, &new.key, &partition.of(self.segments, Some(&new.id))?)?;
        }
        let location = documents.location.as_ref();
        let location = location.and_then(|location| location.of(&new.key, new.id.as_str()));
        let partition = self.partition(documents, std::mem::take(&mut new.key))?;
        let id = new.id.clone();
        let write = self.write(id, Operation::Create(Content::try_from(new)?), precondition);
        let repeat = idempotency.map(|key| key.repeat("create", None, &body));
        let written = self.commit(&partition, write, repeat).await?;
        // An earlier request with this key may have made another id.
        let location = if written.replayed { None } else { location };
        Ok(self.written(StatusCode::CREATED, &written, location))
    }

    pub(super) async fn put(
        &self,
        documents: &Documents,
        at: &At,
        payload: &mut Payload,
        (name, operation): Put,
    ) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let idempotency = self.idempotency(documents)?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let mut new = document::parse(&body, &documents.container.rules, || id.clone())?;
        if new.id != id {
            return Err(Unacceptable::IdMismatch.into());
        }
        require_key(&documents.container, &new.key, &key)?;
        let partition = self.partition(documents, std::mem::take(&mut new.key))?;
        let repeat = idempotency.map(|key| key.repeat(name, Some(id.as_str()), &body));
        let write = self.write(id, operation(Content::try_from(new)?), precondition);
        let written = self.commit(&partition, write, repeat).await?;
        let (status, location) = match written.kind {
            Some(ChangeKind::Create) => (StatusCode::CREATED, Some(self.req.uri().path().to_owned())),
            Some(ChangeKind::Replace | ChangeKind::Delete | ChangeKind::Expire) | None => {
                (StatusCode::OK, None)
            }
        };
        Ok(self.written(status, &written, location))
    }

    pub(super) async fn delete(&self, documents: &Documents, at: &At) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let partition = self.partition(documents, key)?;
        let deleted = self.commit(&partition, self.write(id, Operation::Delete, precondition), None).await?;
        let mut response = HttpResponse::NoContent();
        response.insert_header((REQUEST_CHARGE, deleted.charge.to_string()));
        response.insert_header((SESSION_TOKEN, super::session::token(deleted.etag.0)));
        Ok(response.finish())
    }

    pub(super) fn read(&self, documents: &Documents, at: &At) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let partition = self.partition(documents, key)?;
        let session = self.session(partition.shard())?;
        let found = partition.read(&id)?;
        let charge = read_charge(found.as_ref());
        let found = found.ok_or_else(|| Problem::from(Unacceptable::NotFound).charged(charge))?;
        let etag = Etag(Position { shard: partition.shard(), lsn: found.lsn });
        let tag = etag.to_string();
        precondition.check_read(Some(&tag)).map_err(|failed| Problem::from(failed).charged(charge))?;
        let unchanged = precondition.not_modified(Some(&tag));
        let mut response = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response.insert_header((REQUEST_CHARGE, charge.to_string()));
        response.insert_header((SESSION_TOKEN, session));
        if unchanged {
            return Ok(response.insert_header((ETAG, tag)).insert_header((CACHE_CONTROL, CACHING)).finish());
        }
        Ok(show(response, etag, (found.at, found.version().transaction()), &found.body))
    }
}
