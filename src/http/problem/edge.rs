//! What is refused before anybody asks what a request wants.

use actix_web::http::StatusCode;

use super::Problem;
use super::answer::SOON;
use crate::http::connections::TooMany;
use crate::http::edge::{EdgeRefused, InvalidHead};
use crate::http::path::InvalidPath;

impl From<TooMany> for Problem {
    fn from(error: TooMany) -> Self {
        let (code, title) = match error {
            TooMany::Connections => ("too_many_connections", "Too many connections"),
            TooMany::Streams => ("too_many_streams", "Too many requests on one connection"),
        };
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title, error).retry(SOON);
        match error {
            TooMany::Connections => problem.close(),
            TooMany::Streams => problem,
        }
    }
}

impl From<EdgeRefused> for Problem {
    fn from(error: EdgeRefused) -> Self {
        let text = error.to_string();
        match error {
            EdgeRefused::Origin => Self::new(StatusCode::FORBIDDEN, "origin_refused", "Access denied", text),
            EdgeRefused::TooMany { retry_after } => {
                let title = "Too many requests";
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", title, text);
                problem.retry(retry_after).with(|extra| extra.iana = Some("abnormal-usage-detected"))
            }
        }
    }
}

impl From<InvalidHead> for Problem {
    fn from(error: InvalidHead) -> Self {
        match error {
            InvalidHead::Uri(_) => {
                Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", "URI too long", error).close()
            }
            InvalidHead::Headers(_) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                Self::new(status, "headers_too_large", "Header fields too large", error).close()
            }
            InvalidHead::Authority => {
                Self::bad_request("authority_mismatch", "Ambiguous host", error).close()
            }
            InvalidHead::Connect => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "method_not_implemented", "Not a proxy", error).close()
            }
        }
    }
}

impl From<InvalidPath> for Problem {
    fn from(error: InvalidPath) -> Self {
        match error {
            InvalidPath::NotAbsolute
            | InvalidPath::Encoding
            | InvalidPath::NotUtf8
            | InvalidPath::Control
            | InvalidPath::DotSegment
            | InvalidPath::EmptySegment
            | InvalidPath::EncodedSlash
            | InvalidPath::EncodedTwice => Self::bad_request("invalid_path", "Invalid path", error),
        }
    }
}
