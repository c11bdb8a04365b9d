//! What callers hear of servers behind the gateway. Never which server it was, nor what was wrong with it.

use actix_web::http::StatusCode;

use super::Problem;
use crate::http::body::BodyError;
use crate::upstream::{Failed, Unforwardable};

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        let text = failed.to_string();
        match failed {
            Failed::Unreachable => {
                Self::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", "Server not reached", text)
            }
            Failed::Invalid => {
                Self::new(StatusCode::BAD_GATEWAY, "upstream_invalid", "No valid answer", text)
            }
            Failed::TimedOut => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "No answer in time", text)
            }
            Failed::Unavailable { retry_after } => {
                let title = "Server left alone";
                let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", title, text);
                problem.retry(retry_after)
            }
            Failed::TooLarge(bytes) => Self::too_large(format!("the body is larger than {bytes} bytes")),
            Failed::BodyTimedOut => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "Body too slow", text).close()
            }
            Failed::BodyLost => BodyError::Broken.into(),
        }
    }
}

impl From<Unforwardable> for Problem {
    fn from(error: Unforwardable) -> Self {
        match error {
            Unforwardable::Loop => {
                Self::new(StatusCode::LOOP_DETECTED, "upstream_loop", "Request goes in circles", error)
            }
            Unforwardable::Upgrade => {
                let title = "No other protocols";
                Self::new(StatusCode::NOT_IMPLEMENTED, "upgrade_not_supported", title, error).close()
            }
        }
    }
}
