//! The problems of webhooks that tenants make.

use actix_web::http::StatusCode;
use lanekeeper_actors::protocol::subscriber::TrialRefused;

use super::Problem;
use super::answer::SOON;
use crate::http::webhooks::{Unsealable, WebhookRefused};

impl From<WebhookRefused> for Problem {
    fn from(error: WebhookRefused) -> Self {
        let text = error.to_string();
        match error {
            WebhookRefused::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "webhook_not_found", "Webhook not found", text)
            }
            WebhookRefused::Invalid(_) => Self::bad_request("invalid_webhook", "Invalid webhook", text),
            WebhookRefused::Destination(_) => {
                Self::bad_request("destination_not_allowed", "Destination not allowed", text)
            }
            WebhookRefused::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "too_many_webhooks", "Too many webhooks", text)
            }
            WebhookRefused::Orphaned(_) => {
                Self::new(StatusCode::CONFLICT, "webhook_orphaned", "Webhook does not run", text)
            }
            WebhookRefused::NoHandshake => {
                Self::new(StatusCode::NOT_FOUND, "handshake_not_found", "No such handshake", text)
            }
        }
    }
}

impl From<TrialRefused> for Problem {
    fn from(error: TrialRefused) -> Self {
        let text = error.to_string();
        match error {
            TrialRefused::NotValidated => {
                Self::new(StatusCode::CONFLICT, "webhook_not_validated", "Endpoint not validated", text)
            }
            // A webhook never is one.
            TrialRefused::Queue => WebhookRefused::NotFound.into(),
            TrialRefused::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "webhook_busy", "Too many deliveries", text)
                    .retry(SOON)
            }
            TrialRefused::Unavailable => Self::unavailable(text),
        }
    }
}

impl From<Unsealable> for Problem {
    fn from(_: Unsealable) -> Self {
        Self::corrupt()
    }
}
