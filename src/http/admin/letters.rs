//! Attempts and dead letters as JSON: for operators, and for tenants who look at their own.

use std::num::NonZeroU32;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use lanekeeper_actors::model::event::Event;
use lanekeeper_actors::model::ids::Position;
use lanekeeper_actors::policy::filter::{Condition, Facts, Filter, FilterSpec, KeyTable};
use lanekeeper_actors::protocol::subscriber::{AttemptRecord, LetterReplay, Selection};
use lanekeeper_actors::subscriber::{DeadLetter, SubscriptionHandle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdminError, read};
use crate::http::path::query_value;
use crate::http::problem::Problem;

/// Dead letters in a page when nobody names a number.
const PAGE: usize = 100;

/// Dead letters that are looked at in one go when a filter chooses among them.
const CHUNK: usize = 256;

/// Which dead letters are meant: all, some by their ids, or those that meet every condition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    #[serde(default)]
    all: bool,
    ids: Option<Vec<String>>,
    filter: Option<Vec<Condition>>,
}

/// The same for a replay. (Flattening does not go together with refusing what is unknown.)
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replayed {
    #[serde(default)]
    all: bool,
    ids: Option<Vec<String>>,
    filter: Option<Vec<Condition>>,
    rate: Option<NonZeroU32>,
    to: Option<String>,
}

/// What was chosen, checked, with the filter still to be asked.
enum Wanted {
    Known(Selection),
    Meeting(Filter),
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

/// The dead letters that a body means for a purge. A `DELETE` without a body means all, as it does elsewhere.
pub(in crate::http) async fn purged(handle: &SubscriptionHandle, body: &Bytes) -> Result<Selection, Problem> {
    if body.is_empty() {
        return Ok(Selection::All);
    }
    selected(handle, wanted(read(body)?)?).await
}

/// What a body means for a replay: which dead letters, `rate` in events per second, and `to`, the subscription that
/// delivers them instead, which `find` finds.
pub(in crate::http) async fn replayed(
    handle: &SubscriptionHandle,
    body: &Bytes,
    find: impl FnOnce(&str) -> Result<SubscriptionHandle, AdminError>,
) -> Result<LetterReplay, Problem> {
    let Replayed { rate, to, all, ids, filter } = read(body)?;
    let wanted = wanted(Chosen { all, ids, filter })?;
    let to = to.as_deref().map(find).transpose()?;
    if to.as_ref().is_some_and(|to| to.config().name == handle.config().name) {
        return Err(AdminError::Request("`to` names the same subscription: leave it out".to_owned()).into());
    }
    let selection = selected(handle, wanted).await?;
    Ok(LetterReplay { selection, rate, to: to.map(|to| to.taker()) })
}

/// Asks a filter of the dead letters as they are now.
async fn selected(handle: &SubscriptionHandle, wanted: Wanted) -> Result<Selection, Problem> {
    let filter = match wanted {
        Wanted::Known(selection) => return Ok(selection),
        Wanted::Meeting(filter) => filter,
    };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let letters = handle.dead_letters(after, CHUNK)?;
        let Some(last) = letters.last() else { return Ok(Selection::Events(found)) };
        after = Some(last.event.position());
        for letter in letters {
            let position = letter.event.position();
            if filter.matches(&Facts::alone(Event::from(letter.event))) {
                found.push(position);
            }
        }
        // A mailbox may be long, and others ask too.
        tokio::task::yield_now().await;
    }
}

/// `{"all": true}`, `{"ids": ["0-812"]}` or `{"filter": […]}`, and never a guess.
fn wanted(chosen: Chosen) -> Result<Wanted, AdminError> {
    match chosen {
        Chosen { all: true, ids: None, filter: None } => Ok(Wanted::Known(Selection::All)),
        Chosen { all: false, ids: Some(ids), filter: None } => {
            let ids = ids.iter().map(|id| position(id)).collect::<Result<_, _>>()?;
            Ok(Wanted::Known(Selection::Events(ids)))
        }
        Chosen { all: false, ids: None, filter: Some(conditions) } => {
            let spec = FilterSpec { advanced: conditions, ..FilterSpec::default() };
            let filter = spec.compile(&KeyTable::default());
            filter.map(Wanted::Meeting).map_err(|problem| AdminError::Request(problem.to_string()))
        }
        Chosen { .. } => Err(AdminError::Request(
            "name one of `all: true`, `ids: [\"0-812\", …]`, or a `filter`".to_owned(),
        )),
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
        let wanted = |text: &str| wanted(read(&Bytes::copy_from_slice(text.as_bytes()))?);
        let known = |text: &str| match wanted(text) {
            Ok(Wanted::Known(selection)) => Some(selection),
            Ok(Wanted::Meeting(_)) | Err(_) => None,
        };
        assert_eq!(known(r#"{"all":true}"#), Some(Selection::All));
        let ids = vec!["0-812".parse().unwrap(), "3-1".parse().unwrap()];
        assert_eq!(known(r#"{"ids":["0-812","3-1"]}"#), Some(Selection::Events(ids)));
        let subject = r#"{"filter":[{"operator":"StringBeginsWith","key":"subject","values":["a"]}]}"#;
        assert!(matches!(wanted(subject), Ok(Wanted::Meeting(_))));
        for wrong in [
            "",
            "{}",
            r#"{"all":false}"#,
            r#"{"all":true,"ids":["0-1"]}"#,
            r#"{"all":true,"filter":[]}"#,
            r#"{"ids":["x"]}"#,
            r#"{"al":true}"#,
            r#"{"all":true,"rate":5}"#,
            r#"{"filter":[{"operator":"Sounds","key":"subject"}]}"#,
        ] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }
}
