//! A copy of a running system that another process can start from, and such a start.
//!
//! A backup is a directory, or the same files in an object store: the rows of each view as they were at one position, the log from its first
//! position to beyond that one, and a list of the files with their checksums, written last. So events that were
//! owed when it was made are owed after the restore.
//! Invariant: a backup without its list is none; nothing is restored whose checksum does not hold, and
//! nothing into a directory that has something in it.

mod restore;
mod shelf;

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::disk::{Disk as _, RealDisk};
use crate::model::ids::Lsn;
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::export::{ExportError, export};
use crate::store::{VIEW_FILE, View};

pub use restore::restore;
pub use shelf::{Folder, Piece, Shelf, require_empty};

/// Layout of a backup directory.
const FORMAT: u32 = 1;
/// The list of files.
pub const LIST: &str = "backup.json";
/// What the rows of a view are written to before they go to the shelf.
const STAGE: &str = "backup.tmp";
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

impl BackupList {
    /// Reads the list of a backup.
    ///
    /// # Errors
    /// It is damaged, of a newer format, or names files outside of its backup.
    pub fn read(text: &[u8]) -> Result<Self, BackupError> {
        let damaged = || BackupError::Damaged(LIST.into());
        let list: serde_json::Value = serde_json::from_slice(text).map_err(|_| damaged())?;
        let format = list.get("format").and_then(serde_json::Value::as_u64).ok_or_else(damaged)?;
        if format != u64::from(FORMAT) {
            return Err(BackupError::Newer { found: u32::try_from(format).unwrap_or(u32::MAX) });
        }
        let list: Self = serde_json::from_value(list).map_err(|_| damaged())?;
        // A list that somebody changed must not lead out of the directories that it is about.
        let is_inside = |file: &BackupFile| {
            let mut parts = file.path.components();
            parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if list.files.iter().all(is_inside) { Ok(list) } else { Err(damaged()) }
    }
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
    #[error("`{0}` is not empty: name a place with nothing in it")]
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
    /// The rows of a view, which are copied within the disk first, might fill it.
    #[error(
        "`{path}` would take up to {bytes} bytes, and more than half of the {free} that are free: make room first"
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// How much.
        bytes: u64,
        /// What is free.
        free: u64,
    },
    /// The store of the backup failed.
    #[error("{0}")]
    Store(String),
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

/// Copies the data of running shards from the directory `data` to `shelf`, which must be empty. Takes as long
/// as writing that much; writes go on meanwhile. Must not run on a thread of actors.
pub fn backup(
    shards: &[ShardHandle],
    data: &Path,
    id: &str,
    shelf: &dyn Shelf,
    now_ms: u64,
) -> Result<BackupList, BackupError> {
    shelf.require_empty()?;
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
        let view = shard.view()?;
        let number = shard.id().0;
        let (mut staged, (position, count)) = stage(data, &name, &view, number)?;
        let (file, ()) = put(shelf, name.join(ROWS), |out| {
            io::copy(&mut staged, out).map_err(|source| io_error(&data.join(STAGE), source)).map(drop)
        })?;
        list.positions.push(position);
        list.rows += count;
        list.files.push(file);
        // The rows first: the log then reaches at least as far as they do.
        let source = data.join(&name).join("log");
        for segment in segments(&source)? {
            list.files.push(put_copy(shelf, &source.join(&segment), name.join("log").join(&segment))?);
        }
    }
    for name in BESIDE {
        let source = data.join(name);
        if source.exists() {
            list.files.push(put_copy(shelf, &source, name.into())?);
        }
    }
    let text = serde_json::to_vec_pretty(&list).map_err(|error| io_error(Path::new(LIST), error.into()))?;
    shelf.complete(&list.files, &text)?;
    Ok(list)
}

/// Writes the rows of a view to a file of this disk that has no name, and gives back the file at its beginning. The
/// shelf may be slow, and for as long as rows are read the view can use no page anew that writes have left.
fn stage(data: &Path, shard: &Path, view: &View, number: u16) -> Result<(File, (Lsn, u64)), BackupError> {
    let path = data.join(STAGE);
    let failed = |source| io_error(&path, source);
    let bytes = fs::metadata(data.join(shard).join(VIEW_FILE)).map_err(failed)?.len();
    let free = RealDisk::new(data).and_then(|disk| disk.space()).map_err(failed)?.free;
    if bytes > free / 2 {
        // Those who write need the disk more.
        return Err(BackupError::NoRoom { path, bytes, free });
    }
    let open = || {
        // A name that a crash left.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    };
    let mut file = open().map_err(failed)?;
    let mut out = BufWriter::with_capacity(CHUNK, &mut file);
    let counted = export(view, &mut out).map_err(|source| BackupError::Rows { shard: number, source })?;
    out.flush().map_err(failed)?;
    drop(out);
    file.rewind().map_err(failed)?;
    Ok((file, counted))
}

/// Puts a file on the shelf, and says what is in it.
fn put<T>(
    shelf: &dyn Shelf,
    path: PathBuf,
    write: impl FnOnce(&mut dyn Write) -> Result<T, BackupError>,
) -> Result<(BackupFile, T), BackupError> {
    let failed = |source| io_error(&path, source);
    let piece = shelf.create(&path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(CHUNK, Summed { piece, bytes: 0, crc: 0 });
    let written = write(&mut out)?;
    let summed = out.into_inner().map_err(|error| failed(error.into_error()))?;
    summed.piece.finish().map_err(failed)?;
    Ok((BackupFile { path, bytes: summed.bytes, crc32c: summed.crc }, written))
}

fn put_copy(shelf: &dyn Shelf, from: &Path, to: PathBuf) -> Result<BackupFile, BackupError> {
    let copy = |out: &mut dyn Write| {
        let copied = File::open(from).and_then(|mut file| io::copy(&mut file, out));
        copied.map_err(|source| io_error(from, source))
    };
    put(shelf, to, copy).map(|(file, _)| file)
}

/// A file with the sums of what was written to it.
struct Summed<'s> {
    piece: Box<dyn Piece + 's>,
    bytes: u64,
    crc: u32,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.piece.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.piece.flush()
    }
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
    let mut out = shelf::create(to)?;
    io::copy(&mut File::open(from)?, &mut out)?;
    out.sync_all()
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

fn io_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), source }
}
