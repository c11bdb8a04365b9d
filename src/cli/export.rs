//! All documents of a container to stdout, one a line.

use super::admin::Admin;
use super::failure::Failure;
use super::output;
use super::query::{Key, key};

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper export-documents loads > loads.ndjson
  lanekeeper export-documents quotes --tenant acme
  lanekeeper export-documents loads --partition '[\"OSL-BER\"]'

Each line is one document as it was stored, without system properties. An export that
breaks off ends with exit code 1.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of the container
    container: String,
    /// Owner of the documents, in an isolated container
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// A partition key as a JSON array, or the beginning of one
    #[arg(long, value_name = "JSON", value_parser = key)]
    partition: Option<Key>,
}

/// Prints the documents as they come.
pub(super) async fn run(options: &Options, admin: &Admin) -> Result<String, Failure> {
    let mut query = Vec::new();
    if let Some(Key(parts)) = &options.partition {
        query.push(("partition", serde_json::Value::from(parts.clone()).to_string()));
    }
    query.extend(options.tenant.clone().map(|tenant| ("tenant", tenant)));
    let mut stream = admin.open(&["v1", "containers", &options.container, "export"], &query).await?;
    while let Some(piece) = stream.next().await? {
        if !output::bytes(piece.as_ref()) {
            break;
        }
    }
    Ok(String::new())
}
