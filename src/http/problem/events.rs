//! The problems of publishing and receiving.

use actix_web::http::StatusCode;
use lanekeeper_actors::protocol::subscriber::ReceiveRefused;
use lanekeeper_actors::protocol::topic::PublishError;

use super::Problem;
use super::answer::SOON;
use crate::http::events::{QueueRefused, Unpublishable};

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let text = error.to_string();
        match error {
            PublishError::Overloaded => {
                let title = "Too many requests are waiting";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "topic_busy", title, text).retry(SOON)
            }
            PublishError::Behind => {
                let title = "Events are routed too slowly";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "topic_behind", title, text).retry(SOON)
            }
            PublishError::Unavailable => Self::unavailable(format!("nothing was published: {text}")),
            PublishError::NoRoom => Self::no_room(),
            PublishError::TooLarge => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", "Event too large", text)
            }
            PublishError::Unknown => {
                let detail =
                    "the events may or may not have been taken: publish them again with the same ids";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "Outcome unknown", detail)
            }
        }
    }
}

impl From<Unpublishable> for Problem {
    fn from(error: Unpublishable) -> Self {
        let text = error.to_string();
        let too_large = StatusCode::PAYLOAD_TOO_LARGE;
        match error {
            Unpublishable::Format => {
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Self::new(status, "unsupported_media_type", "Unsupported media type", text)
            }
            Unpublishable::Event(problem) => {
                let made = Self::bad_request("invalid_event", "Not a CloudEvent", text);
                made.with(|extra| extra.index = problem.index)
            }
            Unpublishable::TooMany(_) => Self::new(too_large, "too_many_events", "Too many events", text),
            Unpublishable::TooLarge { index, .. } => {
                let made = Self::new(too_large, "event_too_large", "Event too large", text);
                made.with(|extra| extra.index = Some(index))
            }
        }
    }
}

impl From<QueueRefused> for Problem {
    fn from(error: QueueRefused) -> Self {
        let text = error.to_string();
        match error {
            QueueRefused::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "queue_not_found", "Queue not found", text)
            }
            QueueRefused::Parameter { .. } => {
                Self::bad_request("invalid_query", "Invalid query parameter", text)
            }
            QueueRefused::Tokens => Self::bad_request("invalid_tokens", "Invalid lock tokens", text),
            QueueRefused::Lost { tokens } => {
                let made = Self::bad_request("locks_lost", "No lock is held", text);
                made.with(|extra| extra.failed_tokens = Some(tokens))
            }
        }
    }
}

impl From<ReceiveRefused> for Problem {
    fn from(error: ReceiveRefused) -> Self {
        match error {
            ReceiveRefused::NotAQueue => QueueRefused::NotFound.into(),
            ReceiveRefused::TooMany => {
                let title = "Too many receivers";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_busy", title, error).retry(SOON)
            }
            ReceiveRefused::Unavailable => Self::unavailable(error),
        }
    }
}
