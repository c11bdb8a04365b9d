//! Event subscriptions of a running server.

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
