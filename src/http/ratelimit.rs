//! Stands between what the limits of a call say and the header fields that tell it to the caller
//! (draft-ietf-httpapi-ratelimit-headers, structured fields of RFC 9651).

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use lanekeeper_actors::policy::limits::{Judged, left_text, policy_text};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds `RateLimit` and `RateLimit-Policy`, if there are limits.
pub(super) fn describe(judged: &[Judged], headers: &mut HeaderMap) {
    if judged.is_empty() {
        return;
    }
    for (name, value) in [(RATE_LIMIT_POLICY, policy_text(judged)), (RATE_LIMIT, left_text(judged))] {
        // Names of limits are letters, digits, `_` and `-`, so the value is always valid.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}
