//! A copy of a running system that another process can start from, and such a start.
//!
//! A backup is a directory: the rows of each view as they were at one position, the log from its first
//! position to beyond that one, and a list of the files with their checksums, written last. So events that were
//! owed when it was made are owed after the restore.
//! Invariant: a backup without its list is none; nothing is restored whose checksum does not hold, and
//! nothing into a directory that has something in it.

mod restore;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::ids::Lsn;
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::export::{ExportError, export};

pub use restore::restore;

/// Layout of a backup directory.
const FORMAT: u32 = 1;
/// The list of files.
const LIST: &str = "backup.json";
/// Rows of a shard's view.
const ROWS: &str = "view.rows";
/// Files beside the shards that belong to the data.
const BESIDE: [&str; 1] = ["pepper"];
/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupList {
    /// Layout of the directory.
    pub format: u32,
    /// Identity of the data directory that it was made of.
    pub id: String,
    /// How many shards it has.
    pub shards: u16,
    /// When it was made, milliseconds since 1970.
    pub made_ms: u64,
    /// Position of each shard's view in it.
    pub positions: Vec<Lsn>,
    /// Rows of all views.
    pub rows: u64,
    /// The files.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its path in the backup.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// crc32c of its contents.
    pub crc32c: u32,
}

/// Why there is no backup, or no restore.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already.
    #[error("`{0}` is not empty: name a directory that is empty or does not exist")]
    NotEmpty(PathBuf),
    /// There is no list of files.
    #[error("`{0}` is no backup, or one that was not finished: it has no `{LIST}`")]
    NoBackup(PathBuf),
    /// A newer program made it.
    #[error("the backup has format {found}, this program knows {FORMAT}: restore it with the newer program")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A file is missing or changed.
    #[error("`{0}` of the backup is damaged")]
    Damaged(PathBuf),
    /// The file system failed.
    #[error("`{path}`: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A view could not be copied.
    #[error("shard {shard}: {source}")]
    Rows {
        /// Whose.
        shard: u16,
        /// Why.
        source: ExportError,
    },
    /// A shard cannot be read now.
    #[error(transparent)]
    Shard(#[from] ShardReadError),
    /// The data directory could not be made.
    #[error(transparent)]
    Directory(#[from] crate::store::superblock::DirectoryError),
}

/// Copies the data of running shards from the directory `data` into `out`, which must be empty. Takes as long
/// as writing that much; writes go on meanwhile. Must not run on a thread of actors.
pub fn backup(
    shards: &[ShardHandle],
    data: &Path,
    id: &str,
    out: &Path,
    now_ms: u64,
) -> Result<BackupList, BackupError> {
    make_empty(out)?;
    let mut list = BackupList {
        format: FORMAT,
        id: id.to_owned(),
        shards: u16::try_from(shards.len()).unwrap_or(u16::MAX),
        made_ms: now_ms,
        positions: Vec::new(),
        rows: 0,
        files: Vec::new(),
    };
    for shard in shards {
        // Nothing of the log may go while it is copied.
        let _held = shard.hold_log();
        let name = PathBuf::from(format!("shard-{:02}", shard.id().0));
        let folder = out.join(&name).join("log");
        fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
        let rows = name.join(ROWS);
        let (position, count) = copy_rows(shard, &out.join(&rows))?;
        list.positions.push(position);
        list.rows += count;
        list.files.push(described(out, rows)?);
        // The rows first: the log then reaches at least as far as they do.
        let source = data.join(&name).join("log");
        for file in segments(&source)? {
            let path = name.join("log").join(&file);
            match copy(&source.join(&file), &out.join(&path)) {
                Ok(()) => list.files.push(described(out, path)?),
                Err(source) => return Err(io_error(&path, source)),
            }
        }
    }
    for name in BESIDE {
        let source = data.join(name);
        if source.exists() {
            copy(&source, &out.join(name)).map_err(|error| io_error(&source, error))?;
            list.files.push(described(out, name.into())?);
        }
    }
    write_list(out, &list)?;
    Ok(list)
}

fn copy_rows(shard: &ShardHandle, path: &Path) -> Result<(Lsn, u64), BackupError> {
    let view = shard.view()?;
    let file = File::create(path).map_err(|source| io_error(path, source))?;
    let mut out = BufWriter::with_capacity(CHUNK, file);
    let copied =
        export(&view, &mut out).map_err(|source| BackupError::Rows { shard: shard.id().0, source })?;
    let file = out.into_inner().map_err(|error| io_error(path, error.into_error()))?;
    file.sync_all().map_err(|source| io_error(path, source))?;
    Ok(copied)
}

/// The files of a log, in order. The one that is prepared for later is not one of them.
fn segments(folder: &Path) -> Result<Vec<String>, BackupError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".log") {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    list().map_err(|source| io_error(folder, source))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut out = File::create(to)?;
    #[cfg(unix)]
    if from.file_name().is_some_and(|name| name == "pepper") {
        use std::os::unix::fs::PermissionsExt;
        out.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()
}

fn described(out: &Path, path: PathBuf) -> Result<BackupFile, BackupError> {
    let (bytes, crc32c) = checksum(&out.join(&path)).map_err(|source| io_error(&path, source))?;
    Ok(BackupFile { path, bytes, crc32c })
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut bytes, mut crc) = (0, 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = io::Read::read(&mut file, &mut chunk)?;
        if read == 0 {
            return Ok((bytes, crc));
        }
        crc = crc32c::crc32c_append(crc, chunk.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

fn write_list(out: &Path, list: &BackupList) -> Result<(), BackupError> {
    let path = out.join(LIST);
    let write = || -> io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(&serde_json::to_vec_pretty(list)?)?;
        file.sync_all()?;
        File::open(out)?.sync_all()
    };
    write().map_err(|source| io_error(&path, source))
}

fn make_empty(path: &Path) -> Result<(), BackupError> {
    fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
    let mut entries = fs::read_dir(path).map_err(|source| io_error(path, source))?;
    if entries.next().is_some() { Err(BackupError::NotEmpty(path.to_owned())) } else { Ok(()) }
}

fn io_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), source }
}
