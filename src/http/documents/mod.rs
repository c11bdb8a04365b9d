//! Stands between admitted requests and partitions: documents in, documents out.
//!
//! Invariants: in an isolated container the tenant is the credential's, whatever the request says; a document is
//! stored only where its path says that it is.

mod batch;
mod bulk;
mod list;
mod operations;
mod patch;
mod point;
mod purge;
mod query;
mod render;
mod repeat;
mod session;

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use lanekeeper_actors::directory::{DirectoryHandle, PartitionHandle};
use lanekeeper_actors::model::address::{KeyPart, PartitionAddress};
use lanekeeper_actors::model::ids::{DocumentId, TenantId};
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::patch::PatchLimits;
use lanekeeper_actors::policy::precondition::{MalformedPrecondition, Precondition};
use lanekeeper_actors::protocol::partition::{Operation, Write};
use lanekeeper_actors::reader::Reader;

use super::body::BodyLimits;
use super::problem::Problem;
use super::routes::{Action, At, Documents, key_pointer};
use super::trace::Trace;

pub(super) use batch::InvalidBatch;
pub(super) use operations::{InvalidEnvelope, InvalidItem};
pub(super) use repeat::Unrepeatable;
pub(super) use session::SessionRefused;

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
    /// Rows in a page of a query when the caller names no number.
    pub query_page_default: usize,
    /// Most rows in a page of a query.
    pub query_page_max: usize,
    /// Bounds of a patch.
    pub patch: PatchLimits,
    /// Most operations in a batch.
    pub batch: usize,
    /// Bounds of a bulk.
    pub bulk: BulkLimits,
    /// How long the answer to an idempotency key is kept.
    pub idempotency: Duration,
}

/// Bounds of a bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BulkLimits {
    /// Most operations.
    pub operations: usize,
    /// Most partitions that are worked on at the same time.
    pub partitions: usize,
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
    /// The way to many documents at once.
    pub reader: &'a Reader,
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
    #[error("the partition key of the document (`{pointer}`) is not the one that the request names")]
    PartitionMismatch {
        /// Where the partition key stands in the document.
        pointer: String,
    },
    /// The document has another id than the path says.
    #[error("the `id` of the document is not the one that the request names")]
    IdMismatch,
    /// An id that no path leads to.
    #[error("the id `{0}` cannot stand in a path")]
    UnreachableId(DocumentId),
    /// Not a number of documents.
    #[error("`limit` is a number of documents, 1 or more")]
    Limit,
    /// A partition key with too many or too few values.
    #[error("a partition key has {needed} values here, found {found}")]
    PartitionParts {
        /// How many parts of the key do not follow from the id.
        needed: usize,
        /// How many values there are.
        found: usize,
    },
    /// A query parameter of the request that the operation needs.
    #[error("the query parameter `{0}` is missing")]
    MissingParameter(String),
    /// A parameter of another type than the operation needs.
    #[error("the parameter `{name}` is not {wanted}")]
    ParameterType {
        /// The parameter.
        name: String,
        /// What it must be.
        wanted: &'static str,
    },
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
        Action::Upsert(at) => call.put(documents, at, payload, ("upsert", Operation::Upsert)).await,
        Action::Replace(at) => call.put(documents, at, payload, ("replace", Operation::Replace)).await,
        Action::Patch(at) => call.patch(documents, at, payload).await,
        Action::Delete(at) => call.delete(documents, at).await,
        Action::List { partition } => call.list(documents, partition),
        Action::Batch { partition } => call.batch(documents, partition, payload).await,
        Action::Bulk { fixed } => call.bulk(documents, fixed, payload).await,
        Action::Query { partition, query, parameters } => {
            call.query(documents, partition, (query, parameters)).await
        }
        Action::DeletePartition { partition } => call.delete_partition(documents, partition).await,
    }
}

impl Admitted<'_> {
    fn place(&self, at: &At) -> Result<(Vec<KeyPart>, DocumentId), Problem> {
        let id = DocumentId::new(at.id.of(self.segments))?;
        Ok((at.partition.of(self.segments, Some(&id))?, id))
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
}

/// The partition key that a document carries must be the one that the request names.
fn require_key(container: &Container, carried: &[KeyPart], named: &[KeyPart]) -> Result<(), Unacceptable> {
    if carried == named {
        return Ok(());
    }
    Err(Unacceptable::PartitionMismatch { pointer: key_pointer(container) })
}

fn preconditions(headers: &HeaderMap) -> Result<Precondition, MalformedPrecondition> {
    let joined = |name: HeaderName| {
        let values: Vec<_> =
            headers.get_all(name).map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    Precondition::parse(joined(IF_MATCH).as_deref(), joined(IF_NONE_MATCH).as_deref())
}
