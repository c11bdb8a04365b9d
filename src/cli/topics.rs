//! Topics of a running server.

use serde_json::Value;

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, things};
use super::output;
use super::table::Table;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List topics: where their events come from, how long they are kept, and who listens
    #[command(after_help = "Example: lanekeeper topics list")]
    List,
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let Verb::List = verb;
    let answer = admin.get(&["v1", "topics"]).await?;
    Ok(if as_json { output::json(&answer) } else { list(&answer) })
}

fn list(answer: &Value) -> String {
    let mut table =
        Table::new(&["TOPIC", "SOURCE", "CONTAINER", "SHARD", "RETENTION SECONDS", "SUBSCRIPTIONS"]);
    for topic in things(answer, "topics") {
        table.row([
            cell(topic, &["/name"]),
            cell(topic, &["/source"]),
            cell(topic, &["/from/container"]),
            cell(topic, &["/shard"]),
            cell(topic, &["/retention_seconds"]),
            cell(topic, &["/subscriptions"]),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_says_where_events_come_from_and_who_listens() {
        let answer = json!({"topics": [
            {"name": "load-events", "source": "changes", "from": {"container": "loads"}, "shard": null,
             "retention_seconds": 0, "subscriptions": ["matching", "search"]},
            {"name": "partner-events", "source": "published", "from": null, "shard": 1,
             "retention_seconds": 86400, "subscriptions": []},
        ]});
        assert_eq!(
            list(&answer),
            "TOPIC           SOURCE     CONTAINER  SHARD  RETENTION SECONDS  SUBSCRIPTIONS\n\
             load-events     changes    loads          -                  0  matching, search\n\
             partner-events  published  -              1              86400  -\n"
        );
    }
}
