//! What is answered when a manifest is not applied.

use actix_web::http::StatusCode;

use super::Problem;
use crate::configuration::NotApplied;

impl From<NotApplied> for Problem {
    fn from(error: NotApplied) -> Self {
        let text = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, "Manifest not applied", &text);
        match error {
            NotApplied::Invalid(problems) => {
                let lines: Vec<String> = problems.as_slice().iter().map(ToString::to_string).collect();
                let title = "Manifest is wrong";
                Self::bad_request("invalid_manifest", title, text).listing(lines)
            }
            NotApplied::Impossible(_) => conflict("manifest_refused"),
            NotApplied::Moved(_) => conflict("generation_moved"),
            NotApplied::Busy => conflict("apply_in_progress"),
            NotApplied::Restart(_) => conflict("restart_needed"),
            NotApplied::Destroys(_) => conflict("destroys"),
            NotApplied::Fixed => conflict("manifest_fixed"),
            NotApplied::NoGeneration(_) => {
                Self::new(StatusCode::NOT_FOUND, "generation_not_found", "Generation not found", text)
            }
            NotApplied::Kept(_) => Self::unavailable(text),
            NotApplied::InPart(_) => {
                let title = "Applied in part";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "applied_in_part", title, text)
            }
        }
    }
}
