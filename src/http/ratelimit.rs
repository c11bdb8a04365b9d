//! Stands between what a product's rate says and the header fields that tell it to the caller
//! (draft-ietf-httpapi-ratelimit-headers, structured fields of RFC 9651).
//!
//! Invariant: whoever waits as long as the headers say is served.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use lanekeeper_actors::protocol::gateway::Rated;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Seconds, rounded up, and at least one: a caller that comes back earlier is refused again.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    let part = u64::from(time.subsec_nanos() > 0);
    time.as_secs().saturating_add(part).max(1)
}

/// Adds `RateLimit` and `RateLimit-Policy`. The policy is called like the product.
pub(super) fn describe(rated: &Rated, headers: &mut HeaderMap) {
    let Rated { product, rate, admission } = rated;
    // A window is a whole number of seconds (section 2.1.3); a shorter one cannot be told.
    let window = match rate.per() {
        per if per < Duration::from_secs(1) => String::new(),
        per => format!(";w={}", whole_seconds(per)),
    };
    let policy = format!("\"{product}\";q={}{window}", rate.calls());
    let left = format!("\"{product}\";r={};t={}", admission.remaining, whole_seconds(admission.reset));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        // Names of products are letters, digits, `_` and `-`, so the value is always valid.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use lanekeeper_actors::policy::rate::{Admission, Rate};

    use super::*;

    fn described(calls: u32, per: Duration, remaining: u32, reset: Duration) -> [String; 2] {
        let admission = Admission { allowed: true, limit: calls, remaining, retry_after: reset, reset };
        let rated = Rated { product: "carrier".into(), rate: Rate::new(calls, per).unwrap(), admission };
        let mut headers = HeaderMap::new();
        describe(&rated, &mut headers);
        [RATE_LIMIT_POLICY, RATE_LIMIT].map(|name| headers.get(name).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_headers_tell_policy_and_what_is_left_of_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            described(100, minute, 50, Duration::from_millis(600)),
            [r#""carrier";q=100;w=60"#, r#""carrier";r=50;t=1"#]
        );
        assert_eq!(
            described(5, Duration::from_millis(500), 0, Duration::from_millis(1_001)),
            [r#""carrier";q=5"#, r#""carrier";r=0;t=2"#]
        );
    }

    #[test]
    fn waiting_times_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
