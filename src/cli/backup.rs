//! `backup`: a copy of a running server. `restore`: a data directory made of such a copy.

use std::path::PathBuf;

use lanekeeper_actors::backup;
use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::output;

pub(super) const BACKUP_EXAMPLE: &str = "\
Example: lanekeeper backup /var/backups/lanekeeper/2026-11-23

Copies documents, keys, and everything that is owed to subscribers, while the server goes on. OUT is a directory of the
server's machine that is empty or not there. What is acknowledged before the backup begins is in it.";

pub(super) const RESTORE_EXAMPLE: &str = "\
Example: lanekeeper restore /var/backups/lanekeeper/2026-11-23 ./data

Checks every file of the backup first, and refuses a data directory that has something in it. Events that were owed when
the backup was made are delivered after the next start, those of later writes are not known to it.";

#[derive(Debug, clap::Args)]
pub(super) struct BackupOptions {
    /// Directory for the backup
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreOptions {
    /// Directory of the backup
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// Data directory to make
    #[arg(value_name = "DATA_DIR")]
    data: PathBuf,
    /// Print what was restored as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the server for a backup.
pub(super) async fn backup(options: &BackupOptions, admin: &Admin, json: bool) -> Result<String, Failure> {
    // The server may have another working directory.
    let out = std::path::absolute(&options.out).map_err(|error| Failure::Failed(error.to_string()))?;
    let made = admin.post(&["v1", "backup"], json!({ "to": out })).await?;
    Ok(if json { output::json(&made) } else { told("backed up", &made) })
}

/// Makes a data directory.
pub(super) fn restore(options: &RestoreOptions) -> Result<(), Failure> {
    let list = backup::restore(&options.from, &options.data);
    let list = list.map_err(|error| Failure::Failed(error.to_string()))?;
    let list = json!(list);
    output::print(&if options.json { output::json(&list) } else { told("restored", &list) });
    Ok(())
}

fn told(done: &str, list: &Value) -> String {
    let files = list.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let bytes: u64 = files.iter().filter_map(|file| file.get("bytes")?.as_u64()).sum();
    let number = |name: &str| list.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (rows, shards) = (number("rows"), number("shards"));
    format!("{done} {rows} rows of {shards} shards: {} files, {bytes} bytes\n", files.len())
}
