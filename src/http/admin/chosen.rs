//! Which dead letters are meant: all, some by their ids, or those that meet a filter.

use actix_web::web::Bytes;
use lanekeeper_actors::model::event::Event;
use lanekeeper_actors::policy::filter::{Condition, Facts, FilterSpec, KeyTable};
use lanekeeper_actors::protocol::subscriber::Selection;
use lanekeeper_actors::subscriber::SubscriptionHandle;
use serde::Deserialize;

use super::{AdminError, delivery, read};
use crate::http::problem::Problem;

/// Dead letters that are looked at in one go.
const PAGE: usize = 256;

/// Those that meet every condition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filtered {
    filter: Vec<Condition>,
}

/// The dead letters that a body means. `{"filter": […]}` is asked of them as they are now.
pub(super) async fn chosen(
    handle: &SubscriptionHandle,
    body: &Bytes,
    empty_is_all: bool,
) -> Result<Selection, Problem> {
    let is_filter = |value: serde_json::Value| value.get("filter").is_some();
    if !serde_json::from_slice(body).is_ok_and(is_filter) {
        return Ok(delivery::selection(body, empty_is_all)?);
    }
    let Filtered { filter } = read(body)?;
    let spec = FilterSpec { advanced: filter, ..FilterSpec::default() };
    let filter = spec.compile(&KeyTable::default());
    let filter = filter.map_err(|problem| AdminError::Request(problem.to_string()))?;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let letters = handle.dead_letters(after, PAGE)?;
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
