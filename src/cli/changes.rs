//! The changes of a container as JSON lines, up to now or for ever.

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{str_at, things};
use super::output;
use super::query::{Key, key};

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper changes loads                               every document, in the order of its last change
  lanekeeper changes loads --from now --follow | jq .id
  lanekeeper changes loads --mode all --from AQHzQk0c9vXnZw

Each line is one change. When it ends, the place to go on from stands on stderr.";

/// How long the server holds a request while there is nothing new.
const WAIT: &str = "30s";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of the container
    container: String,
    /// `beginning`, `now`, a time such as `2026-01-31T08:30:00Z`, or a cursor
    #[arg(long, value_name = "PLACE", default_value = "beginning")]
    from: String,
    /// The newest version of each document, or all versions and deletions
    #[arg(long, value_enum, default_value_t = Mode::Latest)]
    mode: Mode,
    /// A partition key as a JSON array, or the beginning of one
    #[arg(long, value_name = "JSON", value_parser = key)]
    partition: Option<Key>,
    /// Owner of the documents, in an isolated container
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Also show what each change replaced
    #[arg(long)]
    previous: bool,
    /// Wait for more instead of ending
    #[arg(long)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Latest,
    All,
}

/// Prints changes until there are no more, or until nobody reads them.
pub(super) async fn run(options: &Options, admin: &Admin) -> Result<String, Failure> {
    let mut from = options.from.clone();
    let outcome = pages(options, admin, &mut from).await;
    if from != options.from {
        output::complain(&format!("go on with --from {from}"));
    }
    outcome.map(|()| String::new())
}

async fn pages(options: &Options, admin: &Admin, from: &mut String) -> Result<(), Failure> {
    loop {
        let path = ["v1", "containers", &options.container, "changes"];
        let answer = admin.query(&path, &query(options, from)).await?;
        let changes = things(&answer, "changes");
        for change in changes {
            if !output::line(&change.to_string()) {
                return Ok(());
            }
        }
        if let Some(cursor) = str_at(&answer, "/cursor") {
            cursor.clone_into(from);
        }
        if changes.is_empty() && !options.follow {
            return Ok(());
        }
    }
}

fn query(options: &Options, from: &str) -> Vec<(&'static str, String)> {
    let mode = match options.mode {
        Mode::Latest => "latest",
        Mode::All => "all",
    };
    let mut query = vec![("from", from.to_owned()), ("mode", mode.to_owned()), ("limit", "1000".to_owned())];
    if options.follow {
        query.push(("wait", WAIT.to_owned()));
    }
    if options.previous {
        query.push(("previous", "true".to_owned()));
    }
    if let Some(Key(parts)) = &options.partition {
        query.push(("partition", serde_json::Value::from(parts.clone()).to_string()));
    }
    query.extend(options.tenant.clone().map(|tenant| ("tenant", tenant)));
    query
}
