//! Event subscriptions of a running server.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, outline, things};
use super::output;
use super::table::Table;

/// What `show` begins with.
const FIRST: [&str; 10] = [
    "name",
    "topic",
    "endpoint",
    "state",
    "lag",
    "in_flight",
    "retrying",
    "dead_lettered",
    "delivered",
    "failed_attempts",
];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List subscriptions with their lag, retries and dead letters
    #[command(after_help = "Example: lanekeeper subscriptions list")]
    List,
    /// Show everything about one subscription
    #[command(after_help = "Example: lanekeeper subscriptions show partner-webhook")]
    Show {
        /// Name of the subscription
        subscription: String,
    },
    /// Stop deliveries; events wait
    #[command(after_help = "Example: lanekeeper subscriptions pause partner-webhook")]
    Pause {
        /// Name of the subscription
        subscription: String,
    },
    /// Deliver again after a pause or a quarantine; events that wait for a retry are tried now
    #[command(after_help = "Example: lanekeeper subscriptions resume partner-webhook")]
    Resume {
        /// Name of the subscription
        subscription: String,
    },
    /// List the last attempts, the newest first
    #[command(after_help = "Example: lanekeeper subscriptions attempts partner-webhook")]
    Attempts {
        /// Name of the subscription
        subscription: String,
    },
    /// Deliver events of the past again, beside the new ones
    #[command(after_help = "Examples:\n  \
        lanekeeper subscriptions replay partner-webhook --from 2026-01-31T08:30:00Z --rate 50\n  \
        lanekeeper subscriptions replay audit-pull --from 0-812 --to 0-900")]
    Replay {
        /// Name of the subscription
        subscription: String,
        /// A time, or the position of an event; else as far back as events are kept
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
        /// A time, or the position of an event; else until now
        #[arg(long, value_name = "PLACE")]
        to: Option<String>,
        /// Events per second, at most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
    },
    /// End a replay of history
    #[command(after_help = "Example: lanekeeper subscriptions cancel-replay partner-webhook 0198b1c2")]
    CancelReplay {
        /// Name of the subscription
        subscription: String,
        /// Id of the replay
        id: String,
    },
    /// Tell whether the subscription wants an event, and why
    #[command(after_help = "Example: lanekeeper subscriptions test-filter carrier-notification event.json")]
    TestFilter {
        /// Name of the subscription
        subscription: String,
        /// File with the JSON of a CloudEvent, of which only `type` has to be there; `-` is stdin
        #[arg(value_name = "FILE")]
        event: PathBuf,
    },
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let (answer, text) = match verb {
        Verb::List => {
            let answer = admin.get(&["v1", "subscriptions"]).await?;
            let text = list(&answer);
            (answer, text)
        }
        Verb::Show { subscription } => {
            let answer = admin.get(&["v1", "subscriptions", subscription]).await?;
            let text = outline(&answer, &FIRST);
            (answer, text)
        }
        Verb::Pause { subscription } => {
            let place = format!("{subscription}:pause");
            let answer = admin.post(&["v1", "subscriptions", &place], json!({})).await?;
            (answer, format!("`{subscription}` is paused: events wait until `subscriptions resume`"))
        }
        Verb::Resume { subscription } => {
            let place = format!("{subscription}:resume");
            let answer = admin.post(&["v1", "subscriptions", &place], json!({})).await?;
            (answer, format!("`{subscription}` delivers"))
        }
        Verb::Attempts { subscription } => {
            let answer = admin.get(&["v1", "subscriptions", subscription, "attempts"]).await?;
            let text = attempts(&answer);
            (answer, text)
        }
        Verb::Replay { subscription, from, to, rate } => {
            let place = format!("{subscription}:replay");
            let body = json!({ "from": from, "to": to, "rate": rate });
            let answer = admin.post(&["v1", "subscriptions", &place], body).await?;
            let id = cell(&answer, &["/id"]);
            (
                answer,
                format!("replay {id} is under way: `subscriptions show {subscription}` tells how far it is"),
            )
        }
        Verb::CancelReplay { subscription, id } => {
            let place = format!("{subscription}:cancel-replay");
            let answer = admin.post(&["v1", "subscriptions", &place], json!({ "id": id })).await?;
            (answer, format!("replay {} is ended", output::plain(id)))
        }
        Verb::TestFilter { subscription, event } => {
            let place = format!("{subscription}:test-filter");
            let event = read_event(event)?;
            let answer = admin.post(&["v1", "subscriptions", &place], json!({ "event": event })).await?;
            let text = verdict(&answer);
            (answer, text)
        }
    };
    Ok(if as_json { output::json(&answer) } else { text })
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&[
        "SUBSCRIPTION",
        "STATE",
        "LAG",
        "LAG SECONDS",
        "IN FLIGHT",
        "RETRYING",
        "DEAD LETTERS",
        "DELIVERED",
    ]);
    for subscription in things(answer, "subscriptions") {
        table.row([
            cell(subscription, &["/name"]),
            cell(subscription, &["/state"]),
            cell(subscription, &["/lag/events"]),
            cell(subscription, &["/lag/seconds"]),
            cell(subscription, &["/in_flight"]),
            cell(subscription, &["/retrying"]),
            cell(subscription, &["/dead_lettered"]),
            cell(subscription, &["/delivered"]),
        ]);
    }
    table.render()
}

fn attempts(answer: &Value) -> String {
    let mut table = Table::new(&["AT", "EVENT", "EVENT ID", "ATTEMPT", "OUTCOME", "STATUS", "MS", "DETAIL"]);
    for attempt in things(answer, "attempts") {
        let columns = ["/at", "/event", "/event_id", "/attempt", "/outcome", "/status", "/millis", "/detail"];
        table.row(columns.map(|column| cell(attempt, &[column])));
    }
    table.render()
}

/// Reads an event out of a file, or of stdin.
fn read_event(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    let text =
        if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) };
    let text = text.map_err(|error| Failure::Failed(format!("`{shown}` cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::Failed(format!("`{shown}` is no JSON: {error}")))
}

/// The verdict of a filter with its reasons, one a line.
fn verdict(answer: &Value) -> String {
    let is_wanted = answer.get("matches").and_then(Value::as_bool).unwrap_or_default();
    let mut text = if is_wanted { "the event matches\n" } else { "the event does not match\n" }.to_owned();
    for reason in things(answer, "reasons") {
        let holds = reason.get("holds").and_then(Value::as_bool).unwrap_or_default();
        let mark = if holds { "yes" } else { "no " };
        text.push_str(&format!("  {mark}  {}\n", cell(reason, &["/text"])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_shows_what_an_operator_looks_for_first() {
        let answer = json!({"subscriptions": [
            {"name": "matching", "lag": {"events": 0, "seconds": 0.0}, "in_flight": 1, "retrying": 0,
             "dead_lettered": 0, "delivered": 200, "state": "running"},
            {"name": "partner-webhook", "lag": {"events": 12, "seconds": 1.5}, "in_flight": 64, "retrying": 7,
             "dead_lettered": 80, "delivered": 40, "state": "paused"},
        ]});
        assert_eq!(
            list(&answer),
            "SUBSCRIPTION     STATE    LAG  LAG SECONDS  IN FLIGHT  RETRYING  DEAD LETTERS  DELIVERED\n\
             matching         running    0          0.0          1         0             0        200\n\
             partner-webhook  paused    12          1.5         64         7            80         40\n"
        );
    }
}
