//! Attempts and dead letters as JSON: for operators, and for tenants who look at their own.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::model::event::Event;
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::protocol::subscriber::{AttemptRecord, Selection};
use lanekeeper_actors::subscriber::{DeadLetter, SubscriptionHandle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminError, read};
use crate::http::path::query_value;
use crate::http::problem::Problem;

/// Dead letters in a page when nobody names a number.
const PAGE: usize = 100;

/// Which dead letters are meant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    #[serde(default)]
    all: bool,
    ids: Option<Vec<String>>,
}

/// A page of dead letters, as the query asks for it.
pub(in crate::http) fn page(
    handle: &SubscriptionHandle,
    query: &str,
    most: usize,
) -> Result<HttpResponse, Problem> {
    let limit = match query_value(query, "limit").transpose()? {
        None => PAGE,
        Some(text) => text.parse::<usize>().ok().filter(|limit| *limit > 0).ok_or_else(|| {
            AdminError::Request("`limit` is a number of dead letters, 1 or more".to_owned())
        })?,
    };
    let limit = limit.min(most);
    let after = match query_value(query, "continuation").transpose()? {
        None => None,
        Some(text) => Some(position(&text)?),
    };
    // One more than is shown tells whether there are more.
    let mut letters = handle.dead_letters(after, limit.saturating_add(1))?;
    let more = letters.len() > limit;
    letters.truncate(limit);
    let continuation = letters.last().filter(|_| more).map(|last| last.event.position().to_string());
    let letters: Vec<_> = letters.into_iter().map(letter).collect();
    let count = letters.len();
    Ok(HttpResponse::Ok().json(json!({
        "dead_letters": letters,
        "count": count,
        "continuation": continuation,
    })))
}

fn position(text: &str) -> Result<Position, AdminError> {
    text.parse().map_err(|error: lanekeeper_actors::model::ids::InvalidPosition| {
        AdminError::Request(error.to_string())
    })
}

/// `{"all": true}` or `{"ids": ["0-812"]}`. A `DELETE` without a body means all, as it does elsewhere.
pub(in crate::http) fn selection(body: &Bytes, empty_is_all: bool) -> Result<Selection, AdminError> {
    if body.is_empty() && empty_is_all {
        return Ok(Selection::All);
    }
    match read(body)? {
        Chosen { all: true, ids: None } => Ok(Selection::All),
        Chosen { all: false, ids: Some(ids) } => {
            Ok(Selection::Events(ids.iter().map(|id| position(id)).collect::<Result<_, _>>()?))
        }
        Chosen { .. } => {
            Err(AdminError::Request("name either `all: true` or `ids: [\"0-812\", …]`".to_owned()))
        }
    }
}

/// An attempt as JSON.
pub(in crate::http) fn attempt(record: &AttemptRecord) -> Value {
    let AttemptRecord { position, event_id, number, at, outcome } = record;
    json!({
        "event": position.to_string(),
        "event_id": event_id,
        "attempt": number,
        "at": at.to_string(),
        "outcome": outcome.kind.to_string(),
        "status": outcome.status,
        "detail": outcome.detail,
        "excerpt": outcome.excerpt,
        "millis": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
    })
}

fn letter(letter: DeadLetter) -> Value {
    let position = letter.event.position();
    let event_type = letter.event.cloud().event_type.clone();
    let event: Value = serde_json::from_slice(Event::from(letter.event).json()).unwrap_or_default();
    json!({
        "id": position.to_string(),
        "type": event_type,
        "reason": letter.reason.to_string(),
        "attempts": letter.attempts,
        "last_outcome": letter.last_outcome.map(|kind| kind.to_string()),
        "last_status": letter.last_status,
        "detail": letter.detail,
        "published": letter.published.to_string(),
        "at": letter.at.to_string(),
        "event": event,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_all_or_ids_and_never_a_guess() {
        let chosen =
            |text: &'static str, empty_is_all| selection(&Bytes::from_static(text.as_bytes()), empty_is_all);
        assert_eq!(chosen("", true), Ok(Selection::All));
        assert_eq!(chosen(r#"{"all":true}"#, false), Ok(Selection::All));
        let ids = vec!["0-812".parse().unwrap(), "3-1".parse().unwrap()];
        assert_eq!(chosen(r#"{"ids":["0-812","3-1"]}"#, false), Ok(Selection::Events(ids)));
        for wrong in [
            "",
            "{}",
            r#"{"all":false}"#,
            r#"{"all":true,"ids":["0-1"]}"#,
            r#"{"ids":["x"]}"#,
            r#"{"al":true}"#,
        ] {
            assert!(chosen(wrong, false).is_err(), "{wrong}");
        }
    }
}
