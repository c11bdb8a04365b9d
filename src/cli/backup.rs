//! `backup`: a copy of a running server. `restore`: a data directory made of such a copy.

use std::path::{Path, PathBuf};

use lanekeeper_actors::backup;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::Admin;
use super::failure::Failure;
use super::{output, process};
use crate::blob::{self, Blobs, InvalidPlace, Place};

pub(super) const BACKUP_EXAMPLE: &str = "\
Examples: lanekeeper backup /var/backups/lanekeeper/2026-11-23
          lanekeeper backup s3://backups/lanekeeper/2026-11-23

Copies documents, keys, and everything that is owed to subscribers, while the server goes on. OUT is a directory of the
server's machine, or a place in an object store (s3://bucket/prefix, az://container/prefix, gs://bucket/prefix) for
which the server's environment has the credentials. Nothing may be there. What is acknowledged before the backup begins
is in it.";

pub(super) const RESTORE_EXAMPLE: &str = "\
Examples: lanekeeper restore /var/backups/lanekeeper/2026-11-23 ./data
          lanekeeper restore s3://backups/lanekeeper/2026-11-23 ./data

Checks every file of the backup first, and refuses a data directory that has something in it. From an object store all
files are fetched first, into a directory beside DATA_DIR that is taken away afterwards. Events that were owed when the
backup was made are delivered after the next start, those of later writes are not known to it.";

#[derive(Debug, clap::Args)]
pub(super) struct BackupOptions {
    /// Directory or object store for the backup
    #[arg(value_name = "OUT")]
    out: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreOptions {
    /// Directory or object store of the backup
    #[arg(value_name = "IN")]
    from: String,
    /// Data directory to make
    #[arg(value_name = "DATA_DIR")]
    data: PathBuf,
    /// Print what was restored as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the server for a backup.
pub(super) async fn backup(options: &BackupOptions, admin: &Admin, json: bool) -> Result<String, Failure> {
    let to = match place(&options.out)? {
        // The server may have another working directory.
        Place::Directory(path) => {
            let path = std::path::absolute(&path).map_err(|error| Failure::Failed(error.to_string()))?;
            json!(path)
        }
        store @ Place::Store { .. } => json!(store.to_string()),
    };
    let made = admin.post_long(&["v1", "backup"], json!({ "to": to })).await?;
    Ok(if json { output::json(&made) } else { told("backed up", &made) })
}

/// Makes a data directory.
pub(super) fn restore(options: &RestoreOptions) -> Result<(), Failure> {
    let list = match place(&options.from)? {
        Place::Directory(from) => backup::restore(&from, &options.data),
        store @ Place::Store { .. } => {
            let blobs = Blobs::open(&store).map_err(|error| Failure::Failed(error.to_string()))?;
            let fetched = fetched(&blobs, &options.data)?;
            backup::restore(fetched.path(), &options.data)
        }
    };
    let list = json!(list.map_err(|error| Failure::Failed(error.to_string()))?);
    output::print(&if options.json { output::json(&list) } else { told("restored", &list) });
    Ok(())
}

/// The files of a backup, in a directory that goes when it is dropped. The data directory is not touched.
fn fetched(blobs: &Blobs, data: &Path) -> Result<TempDir, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    backup::require_empty(data).map_err(|error| failed(&error))?;
    let data = std::path::absolute(data).map_err(|error| failed(&error))?;
    let beside = data.parent().unwrap_or(&data);
    std::fs::create_dir_all(beside).map_err(|error| failed(&error))?;
    let folder = tempfile::Builder::new().prefix(".restoring-").tempdir_in(beside);
    let folder = folder.map_err(|error| failed(&error))?;
    let fetch = process::runtime()?.block_on(blob::fetch(blobs, folder.path()));
    fetch.map_err(|error| failed(&error))?;
    Ok(folder)
}

fn place(text: &str) -> Result<Place, Failure> {
    text.parse().map_err(|error: InvalidPlace| Failure::Usage(error.to_string()))
}

fn told(done: &str, list: &Value) -> String {
    let files = list.get("files").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let bytes: u64 = files.iter().filter_map(|file| file.get("bytes")?.as_u64()).sum();
    let number = |name: &str| list.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (rows, shards) = (number("rows"), number("shards"));
    format!("{done} {rows} rows of {shards} shards: {} files, {bytes} bytes\n", files.len())
}
