//! The partitions of a running server that use most just now.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, str_at, text, things};
use super::output;
use super::table::Table;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show the busiest partitions, the busiest first
    #[command(after_help = "Example: lanekeeper partitions top --container loads")]
    Top {
        /// Only those of this container
        #[arg(long, value_name = "CONTAINER")]
        container: Option<String>,
        /// How many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
        limit: u64,
    },
}

/// Runs a verb and returns what is to be printed.
pub(super) async fn run(verb: &Verb, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let Verb::Top { container, limit } = verb;
    let names = match container {
        Some(name) => vec![name.clone()],
        None => {
            let answer = admin.get(&["v1", "containers"]).await?;
            let names = things(&answer, "containers").iter().filter_map(|found| str_at(found, "/name"));
            names.map(ToOwned::to_owned).collect()
        }
    };
    let mut partitions = Vec::new();
    for name in &names {
        let path = ["v1", "containers", name, "partitions"];
        let answer = admin.query(&path, &[("top", limit.to_string())]).await?;
        for partition in things(&answer, "partitions") {
            let mut partition = partition.clone();
            if let Some(fields) = partition.as_object_mut() {
                fields.insert("container".to_owned(), json!(name));
            }
            partitions.push(partition);
        }
    }
    partitions.sort_by(|a, b| busier(b, a));
    partitions.truncate(usize::try_from(*limit).unwrap_or(usize::MAX));
    Ok(if as_json { output::json(&json!({ "partitions": partitions })) } else { list(&partitions) })
}

fn busier(a: &Value, b: &Value) -> Ordering {
    let use_of = |partition: &Value| partition.get("ru_per_s").and_then(Value::as_f64).unwrap_or_default();
    use_of(a).total_cmp(&use_of(b))
}

fn list(partitions: &[Value]) -> String {
    let mut table =
        Table::new(&["CONTAINER", "TENANT", "PARTITION", "RU/S", "THROTTLED/S", "QUEUE", "AWAKE"]);
    for partition in partitions {
        table.row([
            cell(partition, &["/container"]),
            cell(partition, &["/tenant"]),
            partition.get("partition").map_or_else(String::new, |key| key.to_string()),
            cell(partition, &["/ru_per_s"]),
            cell(partition, &["/throttled_per_s"]),
            cell(partition, &["/queue"]),
            partition.get("awake").map_or_else(String::new, text),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_partition_is_on_top() {
        let mut partitions = [
            json!({ "container": "loads", "tenant": null, "partition": ["a"], "ru_per_s": 1.5, "throttled_per_s": 0.0, "queue": 0, "awake": false }),
            json!({ "container": "quotes", "tenant": "acme", "partition": ["b", 2], "ru_per_s": 80.0, "throttled_per_s": 0.5, "queue": 3, "awake": true }),
        ];
        partitions.sort_by(|a, b| busier(b, a));
        assert_eq!(
            list(&partitions),
            "CONTAINER  TENANT  PARTITION  RU/S  THROTTLED/S  QUEUE  AWAKE\n\
             quotes     acme    [\"b\",2]    80.0          0.5      3  yes\n\
             loads      -       [\"a\"]       1.5          0.0      0  no\n"
        );
    }
}
