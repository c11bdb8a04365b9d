//! The shape of a problem: its fields, its headers, its JSON.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::{HttpRequest, HttpResponse};
use lanekeeper_actors::policy::charge::RequestUnits;
use lanekeeper_actors::policy::limits::whole_seconds;
use lanekeeper_actors::policy::throughput::RetryAfter;
use lanekeeper_actors::query::SyntaxError;
use lanekeeper_actors::shard::CommitError;
use serde_json::{Value, json};

use crate::http::trace::Trace;

/// Where each code is explained.
const DOCS: &str = "https://github.com/lanekeeper/lanekeeper/blob/main/docs/status-codes.md";
/// Problem types that IANA registers (draft-ietf-httpapi-ratelimit-headers).
const IANA: &str = "https://iana.org/assignments/http-problem-types";
/// When to come back where nobody knows better: what is full or reopening needs milliseconds.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// Longest detail, in characters; parsers may quote what they read.
const DETAIL_MAX: usize = 500;

/// What Azure API Management says of keys.
const MISSING_KEY: &str = "Access denied due to missing subscription key. Make sure to include subscription key when \
     making requests to an API.";
const INVALID_KEY: &str = "Access denied due to invalid subscription key. Make sure to provide a valid key for an \
     active subscription.";

/// Who may answer a 401 with what (RFC 9110 section 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Challenge {
    ApiKey,
    /// A token of the public listener; whether one was sent.
    Token {
        sent: bool,
    },
    Bearer,
}

/// An answer that says what went wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    extra: Option<Box<Extra>>,
}

/// What few problems have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extra {
    pub(super) iana: Option<&'static str>,
    pub(super) retry_after: Option<Duration>,
    /// Whether the time is told in milliseconds too, as clients of Cosmos DB expect.
    pub(super) retry_millis: bool,
    pub(super) allow: Option<String>,
    pub(super) challenge: Option<Challenge>,
    pub(super) violated: Vec<String>,
    pub(super) close: bool,
    /// What the refused request cost all the same.
    pub(super) charge: Option<RequestUnits>,
    /// Line and column, from 1, of what cannot be read.
    pub(super) place: Option<(usize, usize)>,
    /// Which event of a batch is wrong, from 0.
    pub(super) index: Option<usize>,
    /// Everything that is wrong, a line each.
    pub(super) problems: Vec<String>,
    /// Lock tokens, each with its own reason.
    pub(super) failed_tokens: Option<Value>,
}

impl Problem {
    pub(in crate::http) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl ToString,
    ) -> Self {
        let detail = detail.to_string();
        let detail = match detail.char_indices().nth(DETAIL_MAX) {
            Some((end, _)) => format!("{}…", detail.get(..end).unwrap_or_default()),
            None => detail,
        };
        Self { status, code, title, detail, extra: None }
    }

    pub(in crate::http) fn bad_request(
        code: &'static str,
        title: &'static str,
        detail: impl ToString,
    ) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, title, detail)
    }

    pub(in crate::http) fn unavailable(detail: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Temporarily unavailable", detail)
            .retry(SOON)
    }

    pub(super) fn corrupt() -> Self {
        let detail = "the stored document is damaged; it is reported to the operator and never served";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "data_corrupt", "Stored data is damaged", detail)
    }

    pub(super) fn no_room() -> Self {
        let detail = "nothing was written: the server's disk is full";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_room", "No room left", detail)
    }

    pub(super) fn throttled(wait: Duration, detail: impl ToString) -> Self {
        let title = "Throughput used up";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "throughput_exceeded", title, detail);
        problem.retry(wait).with(|extra| extra.retry_millis = true)
    }

    pub(super) fn unknown() -> Self {
        let detail =
            "the write may or may not have happened: read the document before you send the write again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "Outcome unknown", detail)
    }

    pub(super) fn unknown_admin() -> Self {
        let detail = "the change may or may not have happened: look before you send it again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "Outcome unknown", detail)
    }

    pub(super) fn unauthorized(code: &'static str, detail: impl ToString) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, code, "Access denied", detail);
        problem.with(|extra| extra.challenge = Some(Challenge::ApiKey))
    }

    pub(super) fn too_large(detail: impl ToString) -> Self {
        let problem = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large", detail);
        problem.close()
    }

    /// The condition of a patch cannot be read.
    pub(in crate::http) fn condition(error: SyntaxError) -> Self {
        Self::bad_request(
            "invalid_condition",
            "Invalid condition",
            format!("the condition is wrong at {error}"),
        )
    }

    /// An operation of a batch that was not done because of another one.
    pub(in crate::http) fn failed_dependency() -> Self {
        let detail = "another operation of the batch failed, so nothing was done";
        Self::new(StatusCode::FAILED_DEPENDENCY, "failed_dependency", "Not done", detail)
    }

    /// Whole partitions could not be removed.
    pub(in crate::http) fn purge(error: CommitError) -> Self {
        match error {
            CommitError::Busy => {
                let detail = "too many partitions are being deleted";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_busy", "Too many deletions", detail)
                    .retry(SOON)
            }
            CommitError::Unavailable => {
                Self::unavailable("a shard takes no writes now: send the deletion again")
            }
            CommitError::NoRoom => Self::no_room(),
            CommitError::TooLarge | CommitError::Unknown => Self::unknown_admin(),
        }
    }

    /// Adds what the request cost.
    pub(in crate::http) fn charged(self, charge: RequestUnits) -> Self {
        self.with(|extra| extra.charge = Some(charge))
    }

    /// What the request cost, if anything.
    pub(in crate::http) fn charge(&self) -> Option<RequestUnits> {
        self.extra.as_ref().and_then(|extra| extra.charge)
    }

    /// The problem as an entry in a list of results.
    pub(in crate::http) fn entry(&self) -> Value {
        let mut entry = json!({ "status": self.status.as_u16(), "code": self.code, "detail": self.detail });
        if let (Some(extra), Some(entry)) = (self.extra.as_deref(), entry.as_object_mut()) {
            if let Some(wait) = extra.retry_after {
                entry.insert("retry_after_ms".to_owned(), json!(RetryAfter(wait).millis()));
            }
            if let Some(charge) = extra.charge {
                entry.insert("request_charge".to_owned(), json!(charge.as_f64()));
            }
        }
        entry
    }

    /// The handling of a request panicked.
    pub fn crashed() -> Self {
        let detail = "an unexpected error happened; the trace id tells the operator where";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "crashed", "Internal error", detail)
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Extra)) -> Self {
        change(self.extra.get_or_insert_default());
        self
    }

    pub(super) fn retry(self, after: Duration) -> Self {
        self.with(|extra| extra.retry_after = Some(after))
    }

    /// Adds everything that is wrong, a line each.
    pub(in crate::http) fn listing(self, problems: Vec<String>) -> Self {
        self.with(|extra| extra.problems = problems)
    }

    /// The rest of the request is not read, so the connection cannot go on.
    pub(super) fn close(self) -> Self {
        self.with(|extra| extra.close = true)
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What went wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The answer. `instance` is the request's path without its query, which may hold secrets.
    pub fn response(&self, instance: &str, trace: &Trace) -> HttpResponse {
        let extra = self.extra.as_deref().cloned().unwrap_or_default();
        let kind = match extra.iana {
            Some(fragment) => format!("{IANA}#{fragment}"),
            None => format!("{DOCS}#{}", self.code),
        };
        let mut body = json!({
            "type": kind,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "trace_id": trace.id(),
        });
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/problem+json").insert_header((CACHE_CONTROL, "no-store"));
        if let Some(after) = extra.retry_after {
            response.insert_header((RETRY_AFTER, whole_seconds(after)));
            if extra.retry_millis {
                response
                    .insert_header(("x-ms-retry-after-ms", after.as_nanos().div_ceil(1_000_000).to_string()));
            }
        }
        if let Some(charge) = extra.charge {
            response.insert_header(("x-request-charge", charge.to_string()));
        }
        if let Some(allow) = extra.allow {
            response.insert_header((ALLOW, allow));
        }
        match extra.challenge {
            Some(Challenge::ApiKey) => {
                response.insert_header((WWW_AUTHENTICATE, "ApiKey realm=\"gateway\", header=\"x-api-key\""));
            }
            // RFC 6750, section 3.1: a code is told only to who sent a token.
            Some(Challenge::Token { sent: false }) => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"gateway\""));
            }
            Some(Challenge::Token { sent: true }) => {
                let value = "Bearer realm=\"gateway\", error=\"invalid_token\"";
                response.insert_header((WWW_AUTHENTICATE, value));
            }
            Some(Challenge::Bearer) => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"admin\""));
            }
            None => {}
        }
        if let (false, Some(body)) = (extra.violated.is_empty(), body.as_object_mut()) {
            body.insert("violated-policies".to_owned(), json!(extra.violated));
        }
        if let (Some((line, column)), Some(body)) = (extra.place, body.as_object_mut()) {
            body.insert("line".to_owned(), json!(line));
            body.insert("column".to_owned(), json!(column));
        }
        if let (Some(index), Some(body)) = (extra.index, body.as_object_mut()) {
            body.insert("index".to_owned(), json!(index));
        }
        if let (false, Some(body)) = (extra.problems.is_empty(), body.as_object_mut()) {
            body.insert("problems".to_owned(), json!(extra.problems));
        }
        if let (Some(tokens), Some(body)) = (extra.failed_tokens, body.as_object_mut()) {
            body.insert("succeededLockTokens".to_owned(), json!([]));
            body.insert("failedLockTokens".to_owned(), tokens);
        }
        if extra.close {
            response.force_close();
        }
        response.body(body.to_string())
    }
}

/// The bodies of Azure API Management, for callers that were written for it.
impl Problem {
    /// The answer in that form. What it has no words for keeps its detail.
    pub fn apim(&self, req: &HttpRequest, base: &str, trace: &Trace) -> HttpResponse {
        let response = self.response(req.uri().path(), trace);
        let seconds = self.extra.as_ref().and_then(|extra| extra.retry_after).map(whole_seconds);
        let message = match (self.code, seconds) {
            ("missing_key", _) => MISSING_KEY.to_owned(),
            ("invalid_key" | "key_expired" | "key_revoked" | "key_inactive", _) => INVALID_KEY.to_owned(),
            ("rate_limited", Some(seconds)) => {
                format!("Rate limit is exceeded. Try again in {seconds} seconds.")
            }
            _ if self.status == StatusCode::NOT_FOUND => "Resource not found".to_owned(),
            _ if self.status == StatusCode::INTERNAL_SERVER_ERROR => "Internal server error".to_owned(),
            _ => self.detail.clone(),
        };
        let mut body = json!({ "statusCode": self.status.as_u16(), "message": message });
        if let (StatusCode::INTERNAL_SERVER_ERROR, Some(body)) = (self.status, body.as_object_mut()) {
            body.insert("activityId".to_owned(), json!(trace.id()));
        }
        let (mut response, _) = response.into_parts();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let is_key = self.extra.as_ref().is_some_and(|extra| extra.challenge == Some(Challenge::ApiKey));
        if is_key {
            let connection = req.connection_info();
            let realm = format!("{}://{}{base}", connection.scheme(), connection.host());
            // The host is the caller's word, so that what cannot stand in a quoted text is left out.
            let realm: String =
                realm.chars().filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c)).collect();
            let text = format!(
                "AzureApiManagementKey realm=\"{realm}\",name=\"Ocp-Apim-Subscription-Key\",type=\"header\""
            );
            if let Ok(value) = HeaderValue::try_from(text) {
                response.headers_mut().insert(WWW_AUTHENTICATE, value);
            }
        }
        response.set_body(actix_web::body::BoxBody::new(body.to_string()))
    }
}
