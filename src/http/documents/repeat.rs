//! Stands between the header `Idempotency-Key` and the records of what was done.
//!
//! Invariant: a key means something only to the tenant and the operation that it was sent to.

use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::web::Bytes;
use lanekeeper_actors::model::ids::{DocumentId, InvalidDocumentId};
use lanekeeper_actors::policy::container::Container;
use lanekeeper_actors::policy::idempotency::{Fingerprint, IdempotencyKey, InvalidIdempotencyKey};
use lanekeeper_actors::protocol::partition::Repeat;
use sha2::{Digest, Sha256};

use super::Admitted;
use crate::http::routes::Documents;
use crate::manifest::Idempotency;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Stands on an answer that an earlier request with the same key made.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Bytes of a hash that tell a key from all others.
const KEY_BYTES: usize = 16;

/// Why a request cannot be told from another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrepeatable {
    /// The operation does nothing without a key.
    #[error(
        "send a header `Idempotency-Key`, a new one for each request and the same one when you repeat it"
    )]
    Required,
    /// More than one key.
    #[error("the header `Idempotency-Key` stands there twice")]
    Several,
    /// A request of which each part has an answer of its own.
    #[error(
        "a bulk is not kept as a whole: leave the header `Idempotency-Key` out, and give each document an `id`"
    )]
    Bulk,
    /// A text that is no key.
    #[error("{0}")]
    Invalid(#[from] InvalidIdempotencyKey),
}

/// A key within its scope.
pub(super) struct ScopedKey {
    hash: [u8; KEY_BYTES],
    keep: Duration,
}

impl Admitted<'_> {
    /// Refuses a key where a caller could take it for a promise that nobody makes.
    pub(super) fn no_idempotency(&self) -> Result<(), Unrepeatable> {
        if self.req.headers().contains_key(IDEMPOTENCY_KEY) { Err(Unrepeatable::Bulk) } else { Ok(()) }
    }

    /// The key of the request, where the operation makes something of it.
    pub(super) fn idempotency(&self, documents: &Documents) -> Result<Option<ScopedKey>, Unrepeatable> {
        let Some(wanted) = documents.idempotency else { return Ok(None) };
        let mut sent = self.req.headers().get_all(IDEMPOTENCY_KEY);
        let key = match (sent.next(), wanted) {
            (Some(_), _) if sent.next().is_some() => return Err(Unrepeatable::Several),
            (Some(key), _) => IdempotencyKey::new(&String::from_utf8_lossy(key.as_bytes()))?,
            (None, Idempotency::Required) => return Err(Unrepeatable::Required),
            (None, Idempotency::Optional) => return Ok(None),
        };
        let mut hasher = Sha256::new();
        // None of these has a line break in it, so no two scopes read the same.
        for part in [self.tenant.as_str(), &documents.scope, key.as_str()] {
            hasher.update(part.as_bytes());
            hasher.update(b"\n");
        }
        let digest = hasher.finalize();
        let mut hash = [0; KEY_BYTES];
        hash.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Some(ScopedKey { hash, keep: self.limits.idempotency }))
    }
}

impl ScopedKey {
    /// What the partition must know of the request.
    pub(super) fn repeat(self, operation: &str, id: Option<&str>, body: &[u8]) -> Repeat {
        let fingerprint = Fingerprint::of(operation, id, body);
        Repeat { key: Bytes::copy_from_slice(&self.hash), fingerprint, keep: self.keep }
    }

    /// An id for a new document without one. Where the id has a say in the partition, a repeated request must
    /// come to the same one, so the id follows from the key.
    pub(super) fn document_id(&self, container: &Container) -> Result<DocumentId, InvalidDocumentId> {
        let by_id = container.rules.key.iter().any(|part| part.path == ["id"]);
        let id = match by_id {
            true => uuid::Builder::from_custom_bytes(self.hash).into_uuid(),
            false => uuid::Uuid::now_v7(),
        };
        DocumentId::new(&id.to_string())
    }
}
