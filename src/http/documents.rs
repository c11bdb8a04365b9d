//! Stands between admitted requests and partitions: documents in, documents out.
//!
//! Invariants: in an isolated container the tenant is the credential's, whatever the request says; a document is
//! stored only where its path says that it is.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION,
};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use lanekeeper_actors::directory::{DirectoryHandle, PartitionHandle, list_charge, read_charge};
use lanekeeper_actors::model::address::{EncodedPartition, KeyPart, PartitionAddress};
use lanekeeper_actors::model::change::ChangeKind;
use lanekeeper_actors::model::document::{self, NewDocument};
use lanekeeper_actors::model::ids::{DocumentId, Etag, Lsn, Position, TenantId};
use lanekeeper_actors::model::time::Timestamp;
use lanekeeper_actors::policy::precondition::{MalformedPrecondition, Precondition};
use lanekeeper_actors::protocol::partition::{Content, Operation, Write, Written};

use super::body::{self, BodyLimits};
use super::continuation;
use super::path::{can_be_segment, query_value};
use super::problem::Problem;
use super::routes::{Action, At, Documents, Value, key_pointer};
use super::trace::Trace;

const REQUEST_CHARGE: HeaderName = HeaderName::from_static("x-request-charge");
const CONTINUATION: HeaderName = HeaderName::from_static("x-continuation");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const MINIMAL: &str = "return=minimal";
/// A document is its tenant's; a cache must ask before it serves it again.
const CACHING: &str = "private, no-cache";
const JSON: &str = "application/json";

/// Bounds of document requests; see `limits` in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Bounds of a body.
    pub body: BodyLimits,
    /// Time from the end of the body to the answer.
    pub request: Duration,
    /// Documents in a page when the caller names no number.
    pub page_default: usize,
    /// Most documents in a page.
    pub page_max: usize,
    /// Most bytes of documents in a page.
    pub page_bytes: usize,
}

/// A request that has an operation and was admitted.
pub(super) struct Admitted<'a> {
    /// The request.
    pub req: &'a HttpRequest,
    /// The decoded segments of its path.
    pub segments: &'a [String],
    /// Who calls.
    pub tenant: &'a TenantId,
    /// The trace that goes into the store.
    pub trace: &'a Trace,
    /// The way to the partitions.
    pub directory: &'a DirectoryHandle,
    /// Bounds.
    pub limits: &'a DocumentLimits,
}

/// Why a well-formed request about documents is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// There is no such document.
    #[error("there is no document with this id in the partition")]
    NotFound,
    /// The document belongs into another partition than the path says.
    #[error("the property `{pointer}` of the document is not the partition key in the path")]
    PartitionMismatch {
        /// Where the partition key stands in the document.
        pointer: String,
    },
    /// The document has another id than the path says.
    #[error("the `id` of the document is not the one in the path")]
    IdMismatch,
    /// An id that no path leads to.
    #[error("the id `{0}` cannot stand in a path")]
    UnreachableId(DocumentId),
    /// Not a number of documents.
    #[error("`limit` is a number of documents, 1 or more")]
    Limit,
}

/// Carries out an operation on documents.
pub(super) async fn answer(
    call: &Admitted<'_>,
    documents: &Documents,
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    match &documents.action {
        Action::Create { partition } => call.create(documents, partition.as_ref(), payload).await,
        Action::Read(at) => call.read(documents, at),
        Action::Upsert(at) => call.put(documents, at, payload, Operation::Upsert).await,
        Action::Replace(at) => call.put(documents, at, payload, Operation::Replace).await,
        Action::Delete(at) => call.delete(documents, at).await,
        Action::List { partition } => call.list(documents, partition),
    }
}

impl Admitted<'_> {
    async fn create(
        &self,
        documents: &Documents,
        partition: Option<&Value>,
        payload: &mut Payload,
    ) -> Result<HttpResponse, Problem> {
        let precondition = preconditions(self.req.headers())?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let made = DocumentId::new(&uuid::Uuid::now_v7().to_string())?;
        let mut new = document::parse(&body, &documents.container.rules, || made)?;
        if !can_be_segment(new.id.as_str()) {
            return Err(Unacceptable::UnreachableId(new.id).into());
        }
        if let Some(partition) = partition {
            let key = KeyPart::string(partition.of(self.segments))?;
            require_key(documents, &new, &key)?;
        }
        let location = match (&documents.location, new.key.as_slice()) {
            (Some(location), [KeyPart::String(key)]) => location.of(key, new.id.as_str()),
            (Some(_) | None, _) => None,
        };
        let partition = self.partition(documents, std::mem::take(&mut new.key))?;
        let id = new.id.clone();
        let write = self.write(id, Operation::Create(Content::try_from(new)?), precondition);
        let written = partition.write(write, self.limits.request).await?;
        Ok(self.written(StatusCode::CREATED, &written, location))
    }

    async fn put(
        &self,
        documents: &Documents,
        at: &At,
        payload: &mut Payload,
        operation: fn(Content) -> Operation,
    ) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let body = body::json(self.req, payload, self.limits.body).await?;
        let mut new = document::parse(&body, &documents.container.rules, || id.clone())?;
        if new.id != id {
            return Err(Unacceptable::IdMismatch.into());
        }
        require_key(documents, &new, &key)?;
        let partition = self.partition(documents, std::mem::take(&mut new.key))?;
        let write = self.write(id, operation(Content::try_from(new)?), precondition);
        let written = partition.write(write, self.limits.request).await?;
        let (status, location) = match written.kind {
            Some(ChangeKind::Create) => (StatusCode::CREATED, Some(self.req.uri().path().to_owned())),
            Some(ChangeKind::Replace | ChangeKind::Delete | ChangeKind::Expire) | None => {
                (StatusCode::OK, None)
            }
        };
        Ok(self.written(status, &written, location))
    }

    async fn delete(&self, documents: &Documents, at: &At) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let partition = self.partition(documents, vec![key])?;
        let deleted = partition.write(self.write(id, Operation::Delete, precondition), self.limits.request);
        let charge = deleted.await?.charge.to_string();
        Ok(HttpResponse::NoContent().insert_header((REQUEST_CHARGE, charge)).finish())
    }

    fn read(&self, documents: &Documents, at: &At) -> Result<HttpResponse, Problem> {
        let (key, id) = self.place(at)?;
        let precondition = preconditions(self.req.headers())?;
        let partition = self.partition(documents, vec![key])?;
        let found = partition.read(&id)?.ok_or(Unacceptable::NotFound)?;
        let etag = Etag(Position { shard: partition.shard(), lsn: found.lsn });
        let tag = etag.to_string();
        precondition.check_read(Some(&tag))?;
        if precondition.not_modified(Some(&tag)) {
            let mut response = HttpResponse::NotModified();
            return Ok(response.insert_header((ETAG, tag)).insert_header((CACHE_CONTROL, CACHING)).finish());
        }
        let mut response = HttpResponse::Ok();
        response.insert_header((REQUEST_CHARGE, read_charge(Some(&found)).to_string()));
        Ok(show(response, etag, (found.at, found.version().transaction()), &found.body))
    }

    fn list(&self, documents: &Documents, partition: &Value) -> Result<HttpResponse, Problem> {
        let key = KeyPart::string(partition.of(self.segments))?;
        let address = self.address(documents, vec![key]);
        let encoded = address.encode();
        let (limit, after) = self.page(&encoded)?;
        let partition = self.directory.partition(&address)?;
        let page = partition.list(after.as_ref(), limit, self.limits.page_bytes)?;
        let mut body = Vec::from(b"{\"documents\":[");
        for (i, found) in page.documents.iter().enumerate() {
            let document = &found.document;
            if i > 0 {
                body.push(b',');
            }
            let etag = Etag(Position { shard: partition.shard(), lsn: document.lsn });
            document::render(&document.body, etag, document.at, document.version().transaction(), &mut body);
        }
        body.extend_from_slice(format!("],\"count\":{}}}", page.documents.len()).as_bytes());
        let mut response = HttpResponse::Ok();
        response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
        response.insert_header((REQUEST_CHARGE, list_charge(&page).to_string()));
        if let Some(last) = page.documents.last().filter(|_| page.more) {
            response.insert_header((CONTINUATION, continuation::encode(&encoded, &last.document.id)));
        }
        Ok(response.body(body))
    }

    /// How many documents are wanted, and after which one.
    fn page(&self, partition: &EncodedPartition) -> Result<(usize, Option<DocumentId>), Problem> {
        let query = self.req.uri().query().unwrap_or_default();
        let limit = match query_value(query, "limit").transpose()? {
            None => self.limits.page_default,
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number > 0 => {
                    usize::try_from(number).unwrap_or(usize::MAX).min(self.limits.page_max)
                }
                Ok(_) | Err(_) => return Err(Unacceptable::Limit.into()),
            },
        };
        let headers = self.req.headers();
        let header = headers.get(CONTINUATION).or_else(|| headers.get("continuation"));
        let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let token = query_value(query, "continuation").transpose()?.or(header);
        let after = token.map(|token| continuation::decode(partition, &token)).transpose()?;
        Ok((limit, after))
    }

    fn place(&self, at: &At) -> Result<(KeyPart, DocumentId), Problem> {
        let key = KeyPart::string(at.partition.of(self.segments))?;
        Ok((key, DocumentId::new(at.id.of(self.segments))?))
    }

    fn address(&self, documents: &Documents, key: Vec<KeyPart>) -> PartitionAddress {
        let container = &documents.container;
        let tenant = container.isolated.then(|| self.tenant.clone());
        PartitionAddress { container: container.name.clone(), tenant, key }
    }

    fn partition(&self, documents: &Documents, key: Vec<KeyPart>) -> Result<PartitionHandle, Problem> {
        Ok(self.directory.partition(&self.address(documents, key))?)
    }

    fn write(&self, id: DocumentId, operation: Operation, precondition: Precondition) -> Write {
        Write { id, operation, precondition, traceparent: Some(self.trace.to_string().into()) }
    }

    fn written(&self, status: StatusCode, written: &Written, location: Option<String>) -> HttpResponse {
        let minimal = wants_minimal(self.req.headers());
        let status = if minimal && status == StatusCode::OK { StatusCode::NO_CONTENT } else { status };
        let mut response = HttpResponse::build(status);
        response.insert_header((REQUEST_CHARGE, written.charge.to_string()));
        if let Some(location) = location {
            response.insert_header((LOCATION, location));
        }
        if minimal {
            response.insert_header((PREFERENCE_APPLIED, MINIMAL));
            response.insert_header((ETAG, written.etag.to_string()));
            return response.finish();
        }
        show(response, written.etag, (written.at, written.lsn), &written.body)
    }
}

/// The document with its system properties and its tag.
fn show(
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

fn require_key(documents: &Documents, new: &NewDocument, key: &KeyPart) -> Result<(), Unacceptable> {
    if new.key.as_slice() == std::slice::from_ref(key) {
        return Ok(());
    }
    Err(Unacceptable::PartitionMismatch { pointer: key_pointer(&documents.container) })
}

fn preconditions(headers: &HeaderMap) -> Result<Precondition, MalformedPrecondition> {
    let joined = |name: HeaderName| {
        let values: Vec<_> =
            headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    Precondition::parse(joined(IF_MATCH).as_deref(), joined(IF_NONE_MATCH).as_deref())
}

/// `Prefer: return=minimal` (RFC 7240 section 4.2).
fn wants_minimal(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).any(|preference| {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case("return") && value.trim().trim_matches('"') == "minimal"
    })
}
