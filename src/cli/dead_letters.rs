//! Events that a subscription gave up: looked at, delivered again, or forgotten.

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, number, str_at, things};
use super::output::{self, counted};
use super::table::Table;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List the dead letters of a subscription
    #[command(after_help = "Example: lanekeeper dead-letters list partner-webhook")]
    List {
        /// Name of the subscription
        subscription: String,
    },
    /// Deliver dead letters again, with all attempts anew
    #[command(after_help = "Examples:\n  lanekeeper dead-letters replay partner-webhook --all\n  \
                            lanekeeper dead-letters replay partner-webhook 0-812 0-815")]
    Replay {
        /// Name of the subscription
        subscription: String,
        /// Ids of the events
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Forget all dead letters of a subscription
    #[command(after_help = "Example: lanekeeper dead-letters purge partner-webhook")]
    Purge {
        /// Name of the subscription
        subscription: String,
    },
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let (answer, text) = match verb {
        Verb::List { subscription } => {
            let answer = admin.get(&["v1", "subscriptions", subscription, "dead-letters"]).await?;
            let text = list(&answer);
            (answer, text)
        }
        Verb::Replay { subscription, ids, all } => {
            let answer = replay(admin, subscription, if *all { None } else { Some(ids) }).await?;
            let text = match replayed(&answer) {
                Some(number) => format!("{} delivered again", counted(number, "event")),
                None => "delivered again".to_owned(),
            };
            (answer, text)
        }
        Verb::Purge { subscription } => {
            let answer = admin.delete(&["v1", "subscriptions", subscription, "dead-letters"]).await?;
            let text = match number(&answer, &["/purged", "/count"]) {
                Some(number) => format!("{} forgotten", counted(number, "event")),
                None => "forgotten".to_owned(),
            };
            (answer, text)
        }
    };
    Ok(if as_json { output::json(&answer) } else { text })
}

/// Has dead letters delivered again: those of these events, or all.
pub(super) async fn replay(
    admin: &Admin,
    subscription: &str,
    ids: Option<&[String]>,
) -> Result<Value, Failure> {
    let body = match ids {
        Some(ids) => json!({ "ids": ids }),
        None => json!({ "all": true }),
    };
    admin.post(&["v1", "subscriptions", subscription, "dead-letters:replay"], body).await
}

/// How many were taken out of the mailbox.
pub(super) fn replayed(answer: &Value) -> Option<u64> {
    number(answer, &["/replayed", "/count"])
}

fn list(answer: &Value) -> String {
    let mut table = Table::new(&["ID", "TYPE", "SUBJECT", "REASON", "ATTEMPTS", "LAST", "GIVEN UP"]);
    for letter in things(answer, "dead_letters") {
        table.row([
            cell(letter, &["/id", "/event/id"]),
            cell(letter, &["/type", "/event_type", "/event/type"]),
            cell(letter, &["/subject", "/event/subject"]),
            cell(letter, &["/reason", "/dead_letter_reason"]),
            cell(letter, &["/attempts", "/delivery_attempts"]),
            cell(letter, &["/last_status", "/last_outcome", "/detail"]),
            cell(letter, &["/at", "/given_up", "/dead_lettered_at"]),
        ]);
    }
    let mut text = table.render();
    if str_at(answer, "/continuation").is_some() {
        text.push_str("There are more.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_was_given_up_and_why() {
        let answer = json!({"dead_letters": [{"id": "0-812", "type": "LoadCreated", "subject": "AMS-PAR/load-1",
            "reason": "MaxDeliveryAttemptsExceeded", "attempts": 4, "last_outcome": "Rejected", "last_status": 500,
            "at": "2026-01-31T08:30:00.000Z"}], "continuation": "x"});
        assert_eq!(
            list(&answer),
            "ID     TYPE         SUBJECT         REASON                       ATTEMPTS  LAST  GIVEN UP\n\
             0-812  LoadCreated  AMS-PAR/load-1  MaxDeliveryAttemptsExceeded         4   500  \
             2026-01-31T08:30:00.000Z\nThere are more.\n"
        );
    }
}
