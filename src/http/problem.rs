//! The one place that turns errors into HTTP: RFC 9457 problem details.
//!
//! Stands between the typed errors of every door and the caller. Invariant: each variant of each error chooses its
//! status, its stable code and what the caller should do next; nothing of the inside (paths, panics, keys) gets out.

mod answer;
mod configuration;
mod edge;
mod events;
#[cfg(test)]
mod tests;
mod upstream;
mod webhooks;

use actix_web::http::StatusCode;
use lanekeeper_actors::directory;
use lanekeeper_actors::gateway::KeysError;
use lanekeeper_actors::log::ReadError;
use lanekeeper_actors::model::address::InvalidPartitionKey;
use lanekeeper_actors::model::document::InvalidDocument;
use lanekeeper_actors::model::feed::{ForeignCursor, InvalidStart};
use lanekeeper_actors::model::ids::InvalidDocumentId;
use lanekeeper_actors::policy::charge;
use lanekeeper_actors::policy::patch::InvalidPatch;
use lanekeeper_actors::policy::precondition::{Failed, MalformedPrecondition};
use lanekeeper_actors::policy::throughput::RetryAfter;
use lanekeeper_actors::policy::ttl::InvalidTtl;
use lanekeeper_actors::protocol::gateway::Refused;
use lanekeeper_actors::protocol::partition::WriteError;
use lanekeeper_actors::protocol::subscriber::SubscriptionError;
use lanekeeper_actors::query::{BindError, QueryError, SyntaxError};
use lanekeeper_actors::reader::{FeedFailed, QueryFailed};
use lanekeeper_actors::shard::{CommitError, ShardReadError};
use lanekeeper_actors::store::ViewReadError;

use super::admin::{AdminError, TokenRefused};
use super::body::BodyError;
use super::caller::CallerRefused;
use super::continuation::InvalidContinuation;
use super::documents::{
    InvalidBatch, InvalidEnvelope, InvalidItem, SessionRefused, Unacceptable, Unrepeatable,
};
use super::gateway::ShuttingDown;
use super::routes::Unroutable;
use crate::identity::Refusal;

pub use answer::Problem;
use answer::{Challenge, SOON};

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::MissingKey => {
                Self::unauthorized("missing_key", "send an api key in the header `x-api-key`")
            }
            Refused::InvalidKey => Self::unauthorized("invalid_key", text),
            Refused::ExpiredKey => Self::unauthorized("key_expired", text),
            Refused::RevokedKey => Self::unauthorized("key_revoked", text),
            Refused::TooManyFailures { retry_after } => {
                let title = "Too many refused keys";
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", title, text);
                problem.retry(retry_after).with(|extra| extra.iana = Some("abnormal-usage-detected"))
            }
            Refused::InactiveKey(_) => Self::unauthorized("key_inactive", text),
            Refused::Token => Self::unauthorized("token_refused", text),
            Refused::QuotaExhausted { quota, exhausted } => {
                let problem = Self::new(StatusCode::FORBIDDEN, "quota_exceeded", "Quota exceeded", text);
                let problem = match exhausted.retry_after {
                    Some(time) => problem.retry(time),
                    None => problem,
                };
                problem.with(|extra| {
                    extra.iana = Some("quota-exceeded");
                    extra.violated = vec![quota.to_string()];
                })
            }
            Refused::TooManyAtOnce(_) => {
                let title = "Too many calls at once";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", title, text).retry(SOON)
            }
            Refused::RateLimited(exceeded) => {
                let title = "Rate limit exceeded";
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title, text);
                problem.retry(exceeded.retry_after).with(|extra| {
                    extra.iana = Some("quota-exceeded");
                    extra.violated = exceeded.violated().map(|judged| judged.limit.to_string()).collect();
                })
            }
            Refused::Overloaded { retry_after } => {
                let title = "Too many requests in flight";
                let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", title, text);
                problem.retry(retry_after).with(|extra| extra.iana = Some("temporary-reduced-capacity"))
            }
            Refused::Crashed => Self::crashed(),
        }
    }
}

impl From<CallerRefused> for Problem {
    fn from(refused: CallerRefused) -> Self {
        let text = refused.to_string();
        let token = |code, sent| {
            let problem = Self::new(StatusCode::UNAUTHORIZED, code, "Access denied", &text);
            problem.with(|extra| extra.challenge = Some(Challenge::Token { sent }))
        };
        match refused {
            CallerRefused::Token(refusal) => match refusal {
                Refusal::Repeated => {
                    Self::bad_request(refusal.code(), "More than one authorization header", text)
                }
                Refusal::KeysUnavailable => {
                    let title = "Token cannot be checked now";
                    Self::new(StatusCode::SERVICE_UNAVAILABLE, refusal.code(), title, text).retry(SOON)
                }
                Refusal::TooLong
                | Refusal::Malformed
                | Refusal::Algorithm
                | Refusal::Header
                | Refusal::Type
                | Refusal::Issuer
                | Refusal::Key
                | Refusal::Signature
                | Refusal::Claims
                | Refusal::Expired
                | Refusal::NotYet
                | Refusal::Lifetime
                | Refusal::Audience
                | Refusal::Tenant
                | Refusal::Requirement => token(refusal.code(), true),
            },
            CallerRefused::NoToken => token("missing_token", false),
            CallerRefused::Tenant => {
                Self::new(StatusCode::FORBIDDEN, "tenant_mismatch", "Access denied", text)
            }
            CallerRefused::Address => {
                Self::new(StatusCode::FORBIDDEN, "address_refused", "Access denied", text)
            }
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        // Beyond a budget it is refused before it costs anything.
        let free = matches!(error, WriteError::Throttled(_));
        let problem = Self::of_write(error);
        if free { problem } else { problem.charged(charge::refused()) }
    }
}

impl Problem {
    fn of_write(error: WriteError) -> Self {
        let text = error.to_string();
        match error {
            WriteError::Exists => Self::new(StatusCode::CONFLICT, "document_exists", "Document exists", text),
            WriteError::NotFound => Unacceptable::NotFound.into(),
            WriteError::Precondition(failed) => failed.into(),
            WriteError::Corrupt => Self::corrupt(),
            WriteError::Busy => {
                let title = "Too many writes are waiting";
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "partition_busy", title, text);
                problem.retry(SOON)
            }
            WriteError::Overloaded => {
                let title = "Too many writes are waiting";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_busy", title, text).retry(SOON)
            }
            WriteError::Unavailable => Self::unavailable(format!("nothing was written: {text}")),
            WriteError::NoRoom => Self::no_room(),
            WriteError::TooLarge => Self::too_large(text),
            WriteError::Crashed => Self::crashed(),
            // Coming back soon does not help: an operator must end a quarantine.
            WriteError::Quarantined => {
                let title = "Partition quarantined";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "quarantined", title, text)
            }
            WriteError::Unknown => Self::unknown(),
            WriteError::NotUnique(_) => {
                Self::new(StatusCode::CONFLICT, "unique_key_conflict", "Unique key exists", text)
            }
            WriteError::Patch(_) | WriteError::PatchedInvalid(_) => {
                Self::bad_request("patch_failed", "Patch does not fit", text)
            }
            WriteError::ConditionFailed => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "condition_failed",
                "Condition does not hold",
                text,
            ),
            WriteError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "Idempotency key used before",
                text,
            ),
            WriteError::Throttled(wait) => Self::throttled(wait, text),
        }
    }
}

impl From<directory::ReadError> for Problem {
    fn from(error: directory::ReadError) -> Self {
        let text = error.to_string();
        match error {
            directory::ReadError::Throttled(RetryAfter(wait)) => Self::throttled(wait, text),
            directory::ReadError::Shard(error) => error.into(),
        }
    }
}

impl From<InvalidTtl> for Problem {
    fn from(error: InvalidTtl) -> Self {
        Self::bad_request("invalid_ttl", "Invalid time to live", error)
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Absent | Failed::Changed | Failed::Present => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "Precondition failed",
                failed,
            ),
        }
    }
}

impl From<ShardReadError> for Problem {
    fn from(error: ShardReadError) -> Self {
        let detail = "the data cannot be read now";
        match error {
            ShardReadError::Unavailable => Self::unavailable(detail),
            ShardReadError::View(error) => match error {
                ViewReadError::Corrupt | ViewReadError::Newer => Self::corrupt(),
                ViewReadError::Disk(_) => Self::unavailable(detail),
            },
            ShardReadError::Log(error) => match error {
                ReadError::Damaged { .. } | ReadError::Missing(_) | ReadError::Newer { .. } => {
                    Self::corrupt()
                }
                ReadError::Trimmed { .. } | ReadError::Io(_) => Self::unavailable(detail),
            },
        }
    }
}

impl From<InvalidDocument> for Problem {
    fn from(error: InvalidDocument) -> Self {
        let text = error.to_string();
        let title = "Body is not a document";
        match error {
            InvalidDocument::TooLarge { .. } => Self::too_large(text),
            InvalidDocument::Json(_) => Self::bad_request("invalid_json", "Body is not JSON", text),
            InvalidDocument::NotAnObject => Self::bad_request("not_an_object", title, text),
            InvalidDocument::TooDeep(_) => Self::bad_request("json_too_deep", title, text),
            InvalidDocument::DuplicateProperty(_) => Self::bad_request("duplicate_property", title, text),
            InvalidDocument::IdType => Self::bad_request("invalid_id", "Invalid id", text),
            InvalidDocument::Id(error) => error.into(),
            InvalidDocument::PartitionKey(error) => error.into(),
        }
    }
}

impl From<InvalidDocumentId> for Problem {
    fn from(error: InvalidDocumentId) -> Self {
        match error {
            InvalidDocumentId::Length(_)
            | InvalidDocumentId::Character(_)
            | InvalidDocumentId::TrailingSpace => Self::bad_request("invalid_id", "Invalid id", error),
        }
    }
}

impl From<InvalidPartitionKey> for Problem {
    fn from(error: InvalidPartitionKey) -> Self {
        match error {
            InvalidPartitionKey::Type | InvalidPartitionKey::Length(_) => {
                Self::bad_request("invalid_partition_key", "Invalid partition key", error)
            }
        }
    }
}

impl From<MalformedPrecondition> for Problem {
    fn from(error: MalformedPrecondition) -> Self {
        match error {
            MalformedPrecondition::Empty(_)
            | MalformedPrecondition::NotATag { .. }
            | MalformedPrecondition::TooMany(_) => {
                Self::bad_request("invalid_precondition", "Malformed precondition", error)
            }
        }
    }
}

impl From<Unacceptable> for Problem {
    fn from(error: Unacceptable) -> Self {
        match error {
            Unacceptable::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "document_not_found", "Document not found", error)
            }
            Unacceptable::PartitionMismatch { .. } => {
                Self::bad_request("partition_key_mismatch", "Partition key mismatch", error)
            }
            Unacceptable::IdMismatch => Self::bad_request("id_mismatch", "Id mismatch", error),
            Unacceptable::UnreachableId(_) => Self::bad_request("invalid_id", "Invalid id", error),
            Unacceptable::Limit => Self::bad_request("invalid_query", "Invalid query parameter", error),
            Unacceptable::PartitionParts { .. } => {
                Self::bad_request("invalid_partition_key", "Invalid partition key", error)
            }
            Unacceptable::ParameterType { .. } => {
                Self::bad_request("invalid_parameter", "Invalid parameter of the query", error)
            }
            Unacceptable::MissingParameter(_) => {
                Self::bad_request("missing_parameter", "Missing query parameter", error)
            }
        }
    }
}

impl From<InvalidPatch> for Problem {
    fn from(error: InvalidPatch) -> Self {
        let text = error.to_string();
        match error {
            InvalidPatch::Json(_) => Self::bad_request("invalid_json", "Body is not JSON", text),
            InvalidPatch::Shape
            | InvalidPatch::MergeShape
            | InvalidPatch::Empty
            | InvalidPatch::TooMany { .. }
            | InvalidPatch::Operation { .. } => Self::bad_request("invalid_patch", "Invalid patch", text),
        }
    }
}

impl From<InvalidBatch> for Problem {
    fn from(error: InvalidBatch) -> Self {
        match error {
            InvalidBatch::Envelope(error) => error.into(),
            InvalidBatch::Operation { .. } => Self::bad_request("invalid_batch", "Invalid batch", error),
        }
    }
}

impl From<InvalidEnvelope> for Problem {
    fn from(error: InvalidEnvelope) -> Self {
        match error {
            InvalidEnvelope::Json(_) | InvalidEnvelope::Empty | InvalidEnvelope::TooMany { .. } => {
                Self::bad_request("invalid_batch", "Invalid batch", error)
            }
        }
    }
}

impl From<InvalidItem> for Problem {
    fn from(error: InvalidItem) -> Self {
        match error {
            InvalidItem::Json(_) | InvalidItem::Missing(_) | InvalidItem::Misplaced(_) => {
                Self::bad_request("invalid_operation", "Invalid operation", error)
            }
        }
    }
}

impl From<Unrepeatable> for Problem {
    fn from(error: Unrepeatable) -> Self {
        let title = "Invalid idempotency key";
        match error {
            Unrepeatable::Required => {
                Self::bad_request("idempotency_key_required", "Idempotency key required", error)
            }
            Unrepeatable::Several | Unrepeatable::Bulk | Unrepeatable::Invalid(_) => {
                Self::bad_request("invalid_idempotency_key", title, error)
            }
        }
    }
}

impl From<SessionRefused> for Problem {
    fn from(error: SessionRefused) -> Self {
        match error {
            SessionRefused::Invalid(_) => {
                Self::bad_request("invalid_session_token", "Invalid session token", error)
            }
            SessionRefused::NotAvailable => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "session_not_available", "Session not available", error).retry(SOON)
            }
        }
    }
}

impl From<QueryFailed> for Problem {
    fn from(error: QueryFailed) -> Self {
        let text = error.to_string();
        match error {
            QueryFailed::UnknownContainer(_) => {
                Self::new(StatusCode::NOT_FOUND, "container_not_found", "Container not found", text)
            }
            QueryFailed::Busy => {
                let title = "Too many queries";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queries_busy", title, text).retry(SOON)
            }
            QueryFailed::Throttled(RetryAfter(wait)) => Self::throttled(wait, text),
            QueryFailed::Bind(BindError::Missing { .. } | BindError::NotACount { .. }) => {
                Self::bad_request("invalid_parameter", "Invalid parameter of the query", text)
            }
            QueryFailed::Continuation(_) | QueryFailed::Query(QueryError::OtherQuery) => {
                Self::bad_request("invalid_continuation", "Invalid continuation", text)
            }
            // The index came or went between two pages: nothing is wrong with the request.
            QueryFailed::Query(QueryError::OtherOrder) => {
                Self::new(StatusCode::GONE, "continuation_expired", "Begin the query again", text)
            }
            QueryFailed::Query(
                QueryError::TooManyGroups { .. }
                | QueryError::StateTooLarge { .. }
                | QueryError::TooManyCombinations,
            )
            | QueryFailed::ContinuationTooLong { .. } => {
                Self::bad_request("query_too_large", "Query too large", text)
            }
            QueryFailed::Shard(error) => error.into(),
            QueryFailed::Crashed => Self::crashed(),
        }
    }
}

impl From<InvalidContinuation> for Problem {
    fn from(error: InvalidContinuation) -> Self {
        Self::bad_request("invalid_continuation", "Invalid continuation", error)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        match error {
            BodyError::NotJson => {
                Self::new(status, "unsupported_media_type", "Unsupported media type", error).close()
            }
            BodyError::Encoded => {
                Self::new(status, "unsupported_content_encoding", "Unsupported encoding", error).close()
            }
            BodyError::TooLarge(_) => Self::too_large(error),
            BodyError::TimedOut(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "Body too slow", error).close()
            }
            BodyError::TooSlow(_) => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "Body came too slowly", error).close()
            }
            BodyError::Broken => Self::bad_request("body_incomplete", "Body is not complete", error).close(),
        }
    }
}

impl From<Unroutable> for Problem {
    fn from(error: Unroutable) -> Self {
        let text = error.to_string();
        match error {
            Unroutable::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "route_not_found", "Nothing is here", text)
            }
            Unroutable::Method { allow } => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let problem = Self::new(status, "method_not_allowed", "Method not allowed", text);
                problem.with(|extra| extra.allow = Some(allow))
            }
        }
    }
}

impl From<ShuttingDown> for Problem {
    fn from(error: ShuttingDown) -> Self {
        let title = "Shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", title, error).retry(SOON).close()
    }
}

impl From<KeysError> for Problem {
    fn from(error: KeysError) -> Self {
        let text = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, "Key cannot be changed", text.clone());
        match error {
            KeysError::UnknownProduct(_) => Self::bad_request("unknown_product", "Unknown product", text),
            KeysError::UnknownApi(_) => Self::bad_request("unknown_api", "Unknown api", text),
            KeysError::Anonymous => Self::bad_request("invalid_tenant", "Invalid tenant", text),
            KeysError::TooMany(_) => conflict("too_many_keys"),
            KeysError::Standing(_, _) => conflict("invalid_standing"),
            KeysError::UnknownGrant(_) => {
                Self::new(StatusCode::NOT_FOUND, "key_not_found", "Key not found", text)
            }
            KeysError::Managed(_) => conflict("managed_by_manifest"),
            KeysError::Revoked(_) => conflict("key_revoked"),
            KeysError::Taken(_) => conflict("key_taken"),
            KeysError::Expired => Self::bad_request("invalid_expiry", "Invalid time", text),
            KeysError::InvalidKey(_) => Self::bad_request("invalid_key", "Invalid key", text),
            KeysError::Busy | KeysError::Unavailable => Self::unavailable(text),
            KeysError::NoRoom => Self::no_room(),
            KeysError::Unknown => Self::unknown_admin(),
        }
    }
}

impl From<SubscriptionError> for Problem {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::Unavailable => Self::unavailable(error),
            SubscriptionError::Unknown => Self::unknown_admin(),
            SubscriptionError::Corrupt => Self::corrupt(),
            SubscriptionError::Busy => Self::new(StatusCode::CONFLICT, "busy", "Busy", error),
        }
    }
}

impl From<TokenRefused> for Problem {
    fn from(error: TokenRefused) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "invalid_token", "Access denied", error);
        problem.with(|extra| extra.challenge = Some(Challenge::Bearer))
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        let text = error.to_string();
        let missing = |code, title| Self::new(StatusCode::NOT_FOUND, code, title, text.clone());
        match error {
            AdminError::Route(error) => error.into(),
            AdminError::NoSubscription(_) => missing("subscription_not_found", "Subscription not found"),
            AdminError::NoReplay(_) => missing("replay_not_found", "Replay not found"),
            AdminError::NoContainer(_) => missing("container_not_found", "Container not found"),
            AdminError::Backup(_) => Self::new(StatusCode::CONFLICT, "backup_failed", "No backup", text),
            AdminError::Unrecorded(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", "Not recorded", text)
                    .retry(SOON)
            }
            AdminError::Unreadable => Self::unavailable(text),
            AdminError::NotAwake => missing("partition_not_awake", "Partition is not awake"),
            AdminError::Request(_) => Self::bad_request("invalid_request", "Invalid request", text),
        }
    }
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        let place = (error.line, error.column);
        let problem = Self::bad_request("invalid_query_text", "Query cannot be read", error);
        problem.with(|extra| extra.place = Some(place))
    }
}

impl From<InvalidStart> for Problem {
    fn from(error: InvalidStart) -> Self {
        match error {
            InvalidStart::Form | InvalidStart::Time => {
                Self::bad_request("invalid_start", "Invalid start of a feed", error)
            }
            InvalidStart::Cursor(_) => Self::bad_request("invalid_cursor", "Invalid cursor", error),
        }
    }
}

impl From<FeedFailed> for Problem {
    fn from(error: FeedFailed) -> Self {
        let text = error.to_string();
        match error {
            FeedFailed::UnknownContainer(_) => {
                Self::new(StatusCode::NOT_FOUND, "container_not_found", "Container not found", text)
            }
            FeedFailed::Cursor(ForeignCursor::Scope | ForeignCursor::Mode(_)) => {
                Self::bad_request("invalid_cursor", "Invalid cursor", text)
            }
            FeedFailed::Start => Self::bad_request("invalid_start", "Invalid start of a feed", text),
            FeedFailed::Gone => {
                Self::new(StatusCode::GONE, "changes_gone", "Changes are not kept any more", text)
            }
            FeedFailed::Busy => {
                let title = "Too many feeds";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "feeds_busy", title, text).retry(SOON)
            }
            FeedFailed::Throttled(RetryAfter(wait)) => Self::throttled(wait, text),
            FeedFailed::Shard(error) => error.into(),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let text = error.to_string();
        match error {
            CommitError::Busy => {
                let title = "Too many writes are waiting";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_busy", title, text).retry(SOON)
            }
            CommitError::Unavailable => Self::unavailable(text),
            CommitError::NoRoom => Self::no_room(),
            CommitError::TooLarge => Self::too_large(text),
            CommitError::Unknown => Self::unknown_admin(),
        }
    }
}
