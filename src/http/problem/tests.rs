//! Every variant of every error, and what the caller gets for it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use actix_web::body::to_bytes;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use lanekeeper_actors::model::cloudevent::{CloudEventProblem, Fault, Part};
use lanekeeper_actors::model::feed::{FeedMode, InvalidCursor};
use lanekeeper_actors::model::ids::{DocumentId, Lsn};
use lanekeeper_actors::model::session::InvalidSession;
use lanekeeper_actors::policy::idempotency::InvalidIdempotencyKey;
use lanekeeper_actors::policy::keys::InvalidKey;
use lanekeeper_actors::policy::keys::Standing;
use lanekeeper_actors::policy::limits::{Exceeded, Judged};
use lanekeeper_actors::policy::patch::{InvalidOperation, PatchError, Refusal};
use lanekeeper_actors::policy::quota::{Exhausted, Resource};
use lanekeeper_actors::policy::rate::{Admission, Rate};
use lanekeeper_actors::protocol::subscriber::{ReceiveRefused, TrialRefused};
use lanekeeper_actors::protocol::topic::PublishError;
use lanekeeper_actors::query::Condition;
use lanekeeper_actors::shard::CommitError;
use serde_json::Value;

use super::*;
use crate::audit::Unwritten;
use crate::http::caller::CallerRefused;
use crate::http::connections::TooMany;
use crate::http::edge::{EdgeRefused, InvalidHead};
use crate::http::events::{QueueRefused, Unpublishable};
use crate::http::path::InvalidPath;
use crate::http::trace::Trace;
use crate::http::webhooks::{Unsealable, WebhookRefused};
use crate::identity::Refusal as TokenRefusal;

const VALID_TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a caller sees: status, code, seconds of `Retry-After`, whether the connection ends.
type Seen = (u16, &'static str, Option<u64>, bool);

fn exceeded() -> Exceeded {
    let wait = Duration::from_millis(2_500);
    let admission = Admission { allowed: false, limit: 5, remaining: 0, retry_after: wait, reset: wait };
    let rate = Rate::new(5, Duration::from_secs(10)).unwrap();
    let judged = vec![Judged { limit: "carrier".into(), rate, admission }];
    Exceeded { judged, retry_after: wait }
}

fn json_error() -> serde_json::Error {
    serde_json::from_str::<Value>("{").unwrap_err()
}

#[expect(clippy::too_many_lines, reason = "a table of everything that can go wrong")]
fn table() -> Vec<(Problem, Seen)> {
    let second = Duration::from_secs(1);
    let name = || "x".to_owned();
    let mut all: Vec<(Problem, Seen)> = Vec::new();
    let mut add =
        |problem: Problem, status, code, retry, close| all.push((problem, (status, code, retry, close)));

    add(Refused::MissingKey.into(), 401, "missing_key", None, false);
    add(Refused::InvalidKey.into(), 401, "invalid_key", None, false);
    add(Refused::ExpiredKey.into(), 401, "key_expired", None, false);
    add(Refused::RevokedKey.into(), 401, "key_revoked", None, false);
    add(Refused::TooManyFailures { retry_after: second }.into(), 429, "too_many_failures", Some(1), false);
    add(Refused::RateLimited(exceeded()).into(), 429, "rate_limited", Some(3), false);
    add(Refused::InactiveKey(Standing::Suspended).into(), 401, "key_inactive", None, false);
    add(Refused::Token.into(), 401, "token_refused", None, false);
    add(Refused::TooManyAtOnce(3).into(), 429, "too_many_at_once", Some(1), false);
    let exhausted = |retry_after| Exhausted { resource: Resource::Calls, replenished: None, retry_after };
    let quota = |exhausted| Refused::QuotaExhausted { quota: "carrier".into(), exhausted };
    add(quota(exhausted(Some(Duration::from_secs(90)))).into(), 403, "quota_exceeded", Some(90), false);
    add(quota(exhausted(None)).into(), 403, "quota_exceeded", None, false);
    for refusal in TokenRefusal::ALL {
        let others = [(TokenRefusal::Repeated, (400, None)), (TokenRefusal::KeysUnavailable, (503, Some(1)))];
        let other = others.iter().find(|(other, _)| *other == refusal);
        let (status, wait) = other.map_or((401, None), |(_, seen)| *seen);
        add(CallerRefused::Token(refusal).into(), status, refusal.code(), wait, false);
    }
    add(CallerRefused::NoToken.into(), 401, "missing_token", None, false);
    add(CallerRefused::Tenant.into(), 403, "tenant_mismatch", None, false);
    add(CallerRefused::Address.into(), 403, "address_refused", None, false);
    add(Refused::Overloaded { retry_after: second }.into(), 503, "overloaded", Some(1), false);
    add(Refused::Crashed.into(), 500, "crashed", None, false);

    add(crate::upstream::Failed::Unreachable.into(), 502, "upstream_unreachable", None, false);
    add(crate::upstream::Failed::Invalid.into(), 502, "upstream_invalid", None, false);
    add(crate::upstream::Failed::TimedOut.into(), 504, "upstream_timeout", None, false);
    let unavailable = crate::upstream::Failed::Unavailable { retry_after: second };
    add(unavailable.into(), 503, "upstream_unavailable", Some(1), false);
    add(crate::upstream::Failed::TooLarge(1).into(), 413, "body_too_large", None, true);
    add(crate::upstream::Failed::BodyTimedOut.into(), 408, "body_timeout", None, true);
    add(crate::upstream::Failed::BodyLost.into(), 400, "body_incomplete", None, true);
    add(crate::upstream::Unforwardable::Loop.into(), 508, "upstream_loop", None, false);
    add(crate::upstream::Unforwardable::Upgrade.into(), 501, "upgrade_not_supported", None, true);

    add(WriteError::Exists.into(), 409, "document_exists", None, false);
    add(WriteError::NotFound.into(), 404, "document_not_found", None, false);
    for failed in [Failed::Absent, Failed::Changed, Failed::Present] {
        add(WriteError::Precondition(failed).into(), 412, "precondition_failed", None, false);
    }
    add(WriteError::Corrupt.into(), 500, "data_corrupt", None, false);
    add(WriteError::Busy.into(), 429, "partition_busy", Some(1), false);
    add(WriteError::Overloaded.into(), 503, "store_busy", Some(1), false);
    add(WriteError::Unavailable.into(), 503, "unavailable", Some(1), false);
    add(WriteError::NoRoom.into(), 507, "no_room", None, false);
    add(WriteError::TooLarge.into(), 413, "body_too_large", None, true);
    add(WriteError::Crashed.into(), 500, "crashed", None, false);
    add(WriteError::Quarantined.into(), 503, "quarantined", None, false);
    add(WriteError::Unknown.into(), 504, "outcome_unknown", None, false);
    add(WriteError::NotUnique("`/ref`".into()).into(), 409, "unique_key_conflict", None, false);
    let missing = PatchError { operation: Some(1), path: "/a".into(), reason: Refusal::Missing };
    add(WriteError::Patch(missing).into(), 400, "patch_failed", None, false);
    add(WriteError::PatchedInvalid(name()).into(), 400, "patch_failed", None, false);
    add(WriteError::ConditionFailed.into(), 412, "condition_failed", None, false);
    add(WriteError::KeyReused.into(), 422, "idempotency_key_reused", None, false);
    add(WriteError::Throttled(second).into(), 429, "throughput_exceeded", Some(1), false);
    add(
        directory::ReadError::Throttled(RetryAfter(second)).into(),
        429,
        "throughput_exceeded",
        Some(1),
        false,
    );
    let unavailable = directory::ReadError::Shard(ShardReadError::Unavailable);
    add(unavailable.into(), 503, "unavailable", Some(1), false);

    add(InvalidTtl.into(), 400, "invalid_ttl", None, false);
    add(InvalidPatch::Json(json_error()).into(), 400, "invalid_json", None, false);
    let operation = InvalidPatch::Operation { number: 1, reason: InvalidOperation::NotAnObject };
    let many = InvalidPatch::TooMany { count: 11, limit: 10 };
    for error in [InvalidPatch::Shape, InvalidPatch::MergeShape, InvalidPatch::Empty, many, operation] {
        add(error.into(), 400, "invalid_patch", None, false);
    }
    let wrong = Condition::parse("WHERE").unwrap_err();
    add(Problem::condition(wrong), 400, "invalid_condition", None, false);
    for error in [
        InvalidBatch::Envelope(InvalidEnvelope::Json(json_error())),
        InvalidBatch::Envelope(InvalidEnvelope::Empty),
        InvalidBatch::Envelope(InvalidEnvelope::TooMany { count: 101, limit: 100 }),
        InvalidBatch::Operation { number: 1, source: InvalidItem::Json(json_error()) },
    ] {
        add(error.into(), 400, "invalid_batch", None, false);
    }
    for error in [InvalidItem::Json(json_error()), InvalidItem::Missing("id"), InvalidItem::Misplaced("id")] {
        add(error.into(), 400, "invalid_operation", None, false);
    }
    add(Problem::failed_dependency(), 424, "failed_dependency", None, false);
    add(Unrepeatable::Required.into(), 400, "idempotency_key_required", None, false);
    add(Unrepeatable::Several.into(), 400, "invalid_idempotency_key", None, false);
    add(Unrepeatable::Bulk.into(), 400, "invalid_idempotency_key", None, false);
    let length = Unrepeatable::Invalid(InvalidIdempotencyKey::Length(0));
    add(length.into(), 400, "invalid_idempotency_key", None, false);
    let token = SessionRefused::Invalid(InvalidSession::Part(name()));
    add(token.into(), 400, "invalid_session_token", None, false);
    add(SessionRefused::NotAvailable.into(), 503, "session_not_available", Some(1), false);
    for (error, status, code, retry) in [
        (CommitError::Busy, 503, "store_busy", Some(1)),
        (CommitError::Unavailable, 503, "unavailable", Some(1)),
        (CommitError::NoRoom, 507, "no_room", None),
        (CommitError::TooLarge, 504, "outcome_unknown", None),
        (CommitError::Unknown, 504, "outcome_unknown", None),
    ] {
        add(Problem::purge(error), status, code, retry, false);
    }

    add(ShardReadError::Unavailable.into(), 503, "unavailable", Some(1), false);
    for (error, status, code, retry) in [
        (ViewReadError::Corrupt, 500, "data_corrupt", None),
        (ViewReadError::Newer, 500, "data_corrupt", None),
        (ViewReadError::Disk("/secret/path".into()), 503, "unavailable", Some(1)),
    ] {
        add(ShardReadError::View(error).into(), status, code, retry, false);
    }
    for (error, status, code, retry) in [
        (ReadError::Trimmed { from: Lsn(1), first: Lsn(2) }, 503, "unavailable", Some(1)),
        (ReadError::Damaged { file: "/secret".into(), offset: 1, what: "x" }, 500, "data_corrupt", None),
        (ReadError::Missing("/secret".into()), 500, "data_corrupt", None),
        (ReadError::Newer { file: "/secret".into(), found: 2, supported: 1 }, 500, "data_corrupt", None),
        (ReadError::Io(io::Error::other("/secret")), 503, "unavailable", Some(1)),
    ] {
        add(ShardReadError::Log(error).into(), status, code, retry, false);
    }

    add(InvalidDocument::TooLarge { bytes: 2, limit: 1 }.into(), 413, "body_too_large", None, true);
    add(InvalidDocument::Json(json_error()).into(), 400, "invalid_json", None, false);
    add(InvalidDocument::NotAnObject.into(), 400, "not_an_object", None, false);
    add(InvalidDocument::TooDeep(1).into(), 400, "json_too_deep", None, false);
    add(InvalidDocument::DuplicateProperty(name()).into(), 400, "duplicate_property", None, false);
    add(InvalidDocument::IdType.into(), 400, "invalid_id", None, false);
    for error in
        [InvalidDocumentId::Length(0), InvalidDocumentId::Character('/'), InvalidDocumentId::TrailingSpace]
    {
        add(InvalidDocument::Id(error).into(), 400, "invalid_id", None, false);
    }
    for error in [InvalidPartitionKey::Type, InvalidPartitionKey::Length(1)] {
        add(InvalidDocument::PartitionKey(error).into(), 400, "invalid_partition_key", None, false);
    }
    for error in [
        MalformedPrecondition::Empty("If-Match"),
        MalformedPrecondition::NotATag { header: "If-Match", at: 0 },
        MalformedPrecondition::TooMany("If-Match"),
    ] {
        add(error.into(), 400, "invalid_precondition", None, false);
    }
    add(InvalidContinuation.into(), 400, "invalid_continuation", None, false);

    add(Unacceptable::NotFound.into(), 404, "document_not_found", None, false);
    let mismatch = Unacceptable::PartitionMismatch { pointer: name() };
    add(mismatch.into(), 400, "partition_key_mismatch", None, false);
    add(Unacceptable::IdMismatch.into(), 400, "id_mismatch", None, false);
    let dots = DocumentId::new("..").unwrap();
    add(Unacceptable::UnreachableId(dots).into(), 400, "invalid_id", None, false);
    add(Unacceptable::Limit.into(), 400, "invalid_query", None, false);
    let parts = Unacceptable::PartitionParts { needed: 2, found: 1 };
    add(parts.into(), 400, "invalid_partition_key", None, false);
    let other = Unacceptable::ParameterType { name: name(), wanted: "a number" };
    add(other.into(), 400, "invalid_parameter", None, false);
    add(Unacceptable::MissingParameter(name()).into(), 400, "missing_parameter", None, false);

    add(BodyError::NotJson.into(), 415, "unsupported_media_type", None, true);
    add(BodyError::Encoded.into(), 415, "unsupported_content_encoding", None, true);
    add(BodyError::TooLarge(1).into(), 413, "body_too_large", None, true);
    add(BodyError::TimedOut(second).into(), 408, "body_timeout", None, true);
    add(BodyError::TooSlow(1).into(), 408, "body_too_slow", None, true);
    add(BodyError::Broken.into(), 400, "body_incomplete", None, true);
    for error in [
        InvalidPath::NotAbsolute,
        InvalidPath::Encoding,
        InvalidPath::NotUtf8,
        InvalidPath::Control,
        InvalidPath::DotSegment,
        InvalidPath::EmptySegment,
        InvalidPath::EncodedSlash,
        InvalidPath::EncodedTwice,
    ] {
        add(error.into(), 400, "invalid_path", None, false);
    }
    add(InvalidHead::Uri(1).into(), 414, "uri_too_long", None, true);
    add(InvalidHead::Headers(1).into(), 431, "headers_too_large", None, true);
    add(InvalidHead::Authority.into(), 400, "authority_mismatch", None, true);
    add(InvalidHead::Connect.into(), 501, "method_not_implemented", None, true);
    add(Unroutable::NotFound.into(), 404, "route_not_found", None, false);
    add(Unroutable::Method { allow: "GET".into() }.into(), 405, "method_not_allowed", None, false);
    add(TooMany::Connections.into(), 503, "too_many_connections", Some(1), true);
    add(TooMany::Streams.into(), 503, "too_many_streams", Some(1), false);
    add(EdgeRefused::Origin.into(), 403, "origin_refused", None, false);
    add(EdgeRefused::TooMany { retry_after: second }.into(), 429, "too_many_requests", Some(1), false);
    add(ShuttingDown.into(), 503, "shutting_down", Some(1), true);

    add(KeysError::UnknownProduct("x".into()).into(), 400, "unknown_product", None, false);
    add(KeysError::UnknownGrant(name()).into(), 404, "key_not_found", None, false);
    add(KeysError::Managed(name()).into(), 409, "managed_by_manifest", None, false);
    add(KeysError::Revoked(name()).into(), 409, "key_revoked", None, false);
    add(KeysError::Taken(name()).into(), 409, "key_taken", None, false);
    add(KeysError::Expired.into(), 400, "invalid_expiry", None, false);
    add(KeysError::InvalidKey(InvalidKey::Prefix).into(), 400, "invalid_key", None, false);
    add(KeysError::Busy.into(), 503, "unavailable", Some(1), false);
    add(KeysError::Unavailable.into(), 503, "unavailable", Some(1), false);
    add(KeysError::NoRoom.into(), 507, "no_room", None, false);
    add(KeysError::Unknown.into(), 504, "outcome_unknown", None, false);
    add(SubscriptionError::Unavailable.into(), 503, "unavailable", Some(1), false);
    add(SubscriptionError::Unknown.into(), 504, "outcome_unknown", None, false);
    add(SubscriptionError::Corrupt.into(), 500, "data_corrupt", None, false);
    add(TokenRefused.into(), 401, "invalid_token", None, false);
    add(SubscriptionError::Busy.into(), 409, "busy", None, false);

    add(WebhookRefused::NotFound.into(), 404, "webhook_not_found", None, false);
    add(WebhookRefused::Invalid(name()).into(), 400, "invalid_webhook", None, false);
    add(WebhookRefused::Destination(name()).into(), 400, "destination_not_allowed", None, false);
    add(WebhookRefused::TooMany(3).into(), 409, "too_many_webhooks", None, false);
    add(WebhookRefused::Orphaned(name()).into(), 409, "webhook_orphaned", None, false);
    add(WebhookRefused::NoHandshake.into(), 404, "handshake_not_found", None, false);
    add(TrialRefused::NotValidated.into(), 409, "webhook_not_validated", None, false);
    add(TrialRefused::Queue.into(), 404, "webhook_not_found", None, false);
    add(TrialRefused::Busy.into(), 429, "webhook_busy", Some(1), false);
    add(TrialRefused::Unavailable.into(), 503, "unavailable", Some(1), false);
    add(Unsealable.into(), 500, "data_corrupt", None, false);

    add(AdminError::Route(Unroutable::NotFound).into(), 404, "route_not_found", None, false);
    add(AdminError::NoSubscription(name()).into(), 404, "subscription_not_found", None, false);
    add(AdminError::NoContainer(name()).into(), 404, "container_not_found", None, false);
    add(AdminError::NoReplay(name()).into(), 404, "replay_not_found", None, false);
    add(SubscriptionError::Busy.into(), 409, "busy", None, false);
    add(AdminError::NotAwake.into(), 404, "partition_not_awake", None, false);
    add(AdminError::Request(name()).into(), 400, "invalid_request", None, false);
    add(AdminError::Unrecorded(Unwritten::Disk).into(), 503, "audit_unavailable", Some(1), false);
    add(AdminError::Unreadable.into(), 503, "unavailable", Some(1), false);
    all.extend(reads());
    all.extend(events());
    all
}

/// Publishing and receiving.
fn events() -> Vec<(Problem, Seen)> {
    let name = || "x".to_owned();
    let mut all: Vec<(Problem, Seen)> = Vec::new();
    let mut add = |problem: Problem, status, code, retry| all.push((problem, (status, code, retry, false)));
    add(PublishError::Overloaded.into(), 429, "topic_busy", Some(1));
    add(PublishError::Behind.into(), 429, "topic_behind", Some(1));
    add(PublishError::Unavailable.into(), 503, "unavailable", Some(1));
    add(PublishError::NoRoom.into(), 507, "no_room", None);
    add(PublishError::TooLarge.into(), 413, "event_too_large", None);
    add(PublishError::Unknown.into(), 504, "outcome_unknown", None);
    add(Unpublishable::Format.into(), 415, "unsupported_media_type", None);
    let problem = CloudEventProblem { index: Some(3), part: Part::Data, fault: Fault::Base64 };
    add(Unpublishable::from(problem).into(), 400, "invalid_event", None);
    let many = CloudEventProblem { index: None, part: Part::Event, fault: Fault::TooManyEvents(5) };
    add(Unpublishable::from(many).into(), 413, "too_many_events", None);
    add(Unpublishable::TooLarge { index: 1, size: 2, limit: 1 }.into(), 413, "event_too_large", None);
    add(QueueRefused::NotFound.into(), 404, "queue_not_found", None);
    add(QueueRefused::Parameter { name: "maxEvents", what: name() }.into(), 400, "invalid_query", None);
    add(QueueRefused::Tokens.into(), 400, "invalid_tokens", None);
    add(QueueRefused::Lost { tokens: Value::Null }.into(), 400, "locks_lost", None);
    add(ReceiveRefused::NotAQueue.into(), 404, "queue_not_found", None);
    add(ReceiveRefused::TooMany.into(), 429, "queue_busy", Some(1));
    add(ReceiveRefused::Unavailable.into(), 503, "unavailable", Some(1));
    all
}

/// Queries and feeds.
fn reads() -> Vec<(Problem, Seen)> {
    let wait = RetryAfter(Duration::from_millis(1_500));
    let name = || "x".to_owned();
    let mut all: Vec<(Problem, Seen)> = Vec::new();
    let mut add = |problem: Problem, status, code, retry| all.push((problem, (status, code, retry, false)));

    let syntax = SyntaxError { message: name(), line: 2, column: 7, offset: 9 };
    add(syntax.into(), 400, "invalid_query_text", None);
    add(QueryFailed::UnknownContainer(name()).into(), 404, "container_not_found", None);
    add(QueryFailed::Busy.into(), 503, "queries_busy", Some(1));
    add(QueryFailed::Throttled(wait).into(), 429, "throughput_exceeded", Some(2));
    for bind in [BindError::Missing { name: name() }, BindError::NotACount { name: name(), found: name() }] {
        add(QueryFailed::Bind(bind).into(), 400, "invalid_parameter", None);
    }
    let foreign = lanekeeper_actors::reader::InvalidContinuation;
    add(QueryFailed::Continuation(foreign).into(), 400, "invalid_continuation", None);
    add(QueryFailed::Query(QueryError::OtherQuery).into(), 400, "invalid_continuation", None);
    add(QueryFailed::Query(QueryError::OtherOrder).into(), 410, "continuation_expired", None);
    for large in [
        QueryFailed::Query(QueryError::TooManyGroups { limit: 1 }),
        QueryFailed::Query(QueryError::StateTooLarge { bytes: 1 }),
        QueryFailed::Query(QueryError::TooManyCombinations),
        QueryFailed::ContinuationTooLong { bytes: 2, limit: 1 },
    ] {
        add(large.into(), 400, "query_too_large", None);
    }
    add(QueryFailed::Shard(ShardReadError::Unavailable).into(), 503, "unavailable", Some(1));
    add(QueryFailed::Crashed.into(), 500, "crashed", None);

    for start in [InvalidStart::Form, InvalidStart::Time] {
        add(start.into(), 400, "invalid_start", None);
    }
    add(InvalidStart::Cursor(InvalidCursor::Malformed).into(), 400, "invalid_cursor", None);
    for cursor in [ForeignCursor::Scope, ForeignCursor::Mode(FeedMode::All)] {
        add(FeedFailed::Cursor(cursor).into(), 400, "invalid_cursor", None);
    }
    add(FeedFailed::UnknownContainer(name()).into(), 404, "container_not_found", None);
    add(FeedFailed::Start.into(), 400, "invalid_start", None);
    add(FeedFailed::Gone.into(), 410, "changes_gone", None);
    add(FeedFailed::Busy.into(), 503, "feeds_busy", Some(1));
    add(FeedFailed::Throttled(wait).into(), 429, "throughput_exceeded", Some(2));
    add(FeedFailed::Shard(ShardReadError::Unavailable).into(), 503, "unavailable", Some(1));

    add(CommitError::Busy.into(), 503, "store_busy", Some(1));
    add(CommitError::Unavailable.into(), 503, "unavailable", Some(1));
    add(CommitError::NoRoom.into(), 507, "no_room", None);
    add(CommitError::Unknown.into(), 504, "outcome_unknown", None);
    all.push((CommitError::TooLarge.into(), (413, "body_too_large", None, true)));
    all
}

async fn answered(problem: &Problem) -> (actix_web::HttpResponse<()>, Value) {
    let response = problem.response("/a/b", &Trace::of(Some(VALID_TRACE)));
    let (head, body) = response.into_parts();
    let body = to_bytes(body).await.unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

#[actix_web::test]
async fn every_error_has_a_status_a_code_and_a_way_on() {
    for (problem, (status, code, retry, close)) in table() {
        let (head, body) = answered(&problem).await;
        assert_eq!((problem.status().as_u16(), problem.code()), (status, code), "{problem:?}");
        assert_eq!(head.status().as_u16(), status);
        assert_eq!(head.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        let after = head.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap());
        assert_eq!(after, retry, "{code}");
        assert_eq!(!head.head().keep_alive(), close, "{code}");
        for field in ["type", "title", "detail", "instance", "code", "trace_id"] {
            assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{code} has no {field}");
        }
        assert_eq!(body["status"], status);
        assert_eq!(body["instance"], "/a/b");
        assert_eq!(body["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!body.to_string().contains("secret"), "{body}");
        let challenged = head.headers().contains_key(WWW_AUTHENTICATE);
        assert_eq!(challenged, status == 401, "{code}");
    }
}

#[test]
fn a_code_always_has_the_same_status() {
    let mut codes = BTreeMap::new();
    for (_, (status, code, _, _)) in table() {
        // A grant that is revoked refuses calls with 401, and changes of itself with 409; both say the same.
        // A key can be invalid as a credential and as a part of a request.
        if !["key_revoked", "invalid_key"].contains(&code) {
            assert_eq!(*codes.entry(code).or_insert(status), status, "{code}");
        }
    }
}

#[actix_web::test]
async fn some_problems_tell_more() {
    let (head, _) = answered(&Unroutable::Method { allow: "GET, HEAD".into() }.into()).await;
    assert_eq!(head.headers().get(ALLOW).unwrap(), "GET, HEAD");
    let (_, body) = answered(&Refused::RateLimited(exceeded()).into()).await;
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(body["violated-policies"], serde_json::json!(["carrier"]));
    let (head, _) = answered(&TokenRefused.into()).await;
    assert_eq!(head.headers().get(WWW_AUTHENTICATE).unwrap(), "Bearer realm=\"admin\"");
    let syntax = SyntaxError { message: "x".into(), line: 2, column: 7, offset: 9 };
    let (_, body) = answered(&syntax.into()).await;
    assert_eq!((&body["line"], &body["column"]), (&2.into(), &7.into()));
    let long = AdminError::Request("é".repeat(10_000));
    let (_, body) = answered(&long.into()).await;
    assert_eq!(body["detail"].as_str().unwrap().chars().count(), 501);
}
