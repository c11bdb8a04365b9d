//! What a data directory says of itself: which shards must be there, and who holds it now.
//!
//! Invariant: nothing ever starts empty by mistake. A directory without a superblock is new, or
//! refused; one with a superblock has every file it names, or is refused.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::disk::make_folder;

const FILE: &str = "superblock.json";
const LOCK: &str = "lock";
const SHARD: &str = "shard-";
const FORMAT: u32 = 1;

/// The contents of the superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superblock {
    /// Version of the directory's layout.
    pub format: u32,
    /// Identity of this directory, a UUID.
    pub id: String,
    /// How many shards it was made with; fixed.
    pub shards: u16,
    /// `false` while the shards are being made for the first time.
    pub complete: bool,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it open.
    #[error("data directory `{0}` is in use by another process")]
    InUse(PathBuf),
    /// There are shards, but no superblock.
    #[error("data directory `{0}` has shards but no superblock: it is damaged, restore it from a backup")]
    NoSuperblock(PathBuf),
    /// The superblock cannot be read.
    #[error("the superblock of `{0}` is damaged: restore it from a backup")]
    DamagedSuperblock(PathBuf),
    /// A newer program made it.
    #[error("data directory has format {found}, this program reads up to {supported}: use a newer release")]
    Newer { found: u32, supported: u32 },
    /// The manifest asks for another number of shards.
    #[error("data directory was made with {found} shards, the manifest says {wanted}: the number is fixed")]
    Shards { found: u16, wanted: u16 },
    /// A file that must be there is not.
    #[error("`{0}` is missing: the data directory is damaged, restore it from a backup")]
    Missing(PathBuf),
    /// There is no data directory.
    #[error("`{0}` is not a data directory")]
    NotADirectory(PathBuf),
    /// The file system failed.
    #[error("`{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// A data directory that this process holds until it drops this.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    superblock: Superblock,
    _lock: File,
}

impl DataDirectory {
    /// Locks `path` and reads its superblock, or begins a new directory with `shards` shards and
    /// the identity `id`. A directory whose first start was interrupted is begun again.
    pub fn open_or_create(
        path: &Path,
        shards: Option<u16>,
        default: u16,
        id: &str,
    ) -> Result<Self, DirectoryError> {
        make_folder(path).map_err(|source| io_error(path, source))?;
        let lock = lock(path)?;
        let superblock = match read(path)? {
            Some(found) if found.complete => {
                if let Some(wanted) = shards
                    && wanted != found.shards
                {
                    return Err(DirectoryError::Shards { found: found.shards, wanted });
                }
                found
            }
            begun => {
                if begun.is_none() && !shard_folders(path)?.is_empty() {
                    return Err(DirectoryError::NoSuperblock(path.to_owned()));
                }
                begin(
                    path,
                    Superblock {
                        format: FORMAT,
                        id: id.to_owned(),
                        shards: shards.unwrap_or(default),
                        complete: false,
                    },
                )?
            }
        };
        let directory = Self { path: path.to_owned(), superblock, _lock: lock };
        if directory.superblock.complete {
            directory.require_files()?;
        }
        Ok(directory)
    }

    /// Locks an existing directory, without ever making one.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        if !path.join(FILE).exists() {
            return Err(DirectoryError::NotADirectory(path.to_owned()));
        }
        let lock = lock(path)?;
        let superblock = read(path)?.ok_or_else(|| DirectoryError::NotADirectory(path.to_owned()))?;
        let directory = Self { path: path.to_owned(), superblock, _lock: lock };
        directory.require_files()?;
        Ok(directory)
    }

    fn require_files(&self) -> Result<(), DirectoryError> {
        for shard in 0..self.superblock.shards {
            for file in [self.shard(shard).join(super::VIEW_FILE), self.log(shard)] {
                if !file.exists() {
                    return Err(DirectoryError::Missing(file));
                }
            }
        }
        Ok(())
    }

    /// Whether the shards have been made.
    pub fn is_complete(&self) -> bool {
        self.superblock.complete
    }

    /// How many shards the directory has.
    pub fn shards(&self) -> u16 {
        self.superblock.shards
    }

    /// Its identity.
    pub fn id(&self) -> &str {
        &self.superblock.id
    }

    /// Folder of a shard.
    pub fn shard(&self, number: u16) -> PathBuf {
        shard_path(&self.path, number)
    }

    /// Folder of a shard's log.
    pub fn log(&self, number: u16) -> PathBuf {
        self.shard(number).join("log")
    }

    /// States that all shards have been made.
    pub fn complete(&mut self) -> Result<(), DirectoryError> {
        let complete = Superblock { complete: true, ..self.superblock.clone() };
        write(&self.path, &complete)?;
        self.superblock = complete;
        Ok(())
    }
}

fn shard_path(path: &Path, number: u16) -> PathBuf {
    path.join(format!("{SHARD}{number:02}"))
}

/// Everything in the directory that is called as a shard is.
fn shard_folders(path: &Path) -> Result<Vec<PathBuf>, DirectoryError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(SHARD.as_bytes()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    };
    list().map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io { path: path.to_owned(), source }
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let name = path.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|source| io_error(&name, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error(&name, source)),
    }
}

fn read(path: &Path) -> Result<Option<Superblock>, DirectoryError> {
    let text = match fs::read(path.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(&path.join(FILE), source)),
    };
    let damaged = || DirectoryError::DamagedSuperblock(path.to_owned());
    let end = text.iter().rposition(|byte| *byte == b'#').ok_or_else(damaged)?;
    let (json, sum) = text.split_at_checked(end).ok_or_else(damaged)?;
    let expected = format!("#{:08x}\n", crc32c::crc32c(json));
    if sum != expected.as_bytes() {
        return Err(damaged());
    }
    // A later format may have other fields, but it has this one.
    let Format { format } = serde_json::from_slice(json).map_err(|_| damaged())?;
    if format > FORMAT {
        return Err(DirectoryError::Newer { found: format, supported: FORMAT });
    }
    serde_json::from_slice(json).map(Some).map_err(|_| damaged())
}

/// Clears what an interrupted first start left behind.
fn begin(path: &Path, superblock: Superblock) -> Result<Superblock, DirectoryError> {
    write(path, &superblock)?;
    for shard in shard_folders(path)? {
        fs::remove_dir_all(&shard).map_err(|source| io_error(&shard, source))?;
    }
    Ok(superblock)
}

fn write(path: &Path, superblock: &Superblock) -> Result<(), DirectoryError> {
    let attempt = || -> io::Result<()> {
        let mut text = serde_json::to_vec(superblock)?;
        text.extend_from_slice(format!("#{:08x}\n", crc32c::crc32c(&text)).as_bytes());
        let new = path.join("superblock.new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, path.join(FILE))?;
        File::open(path)?.sync_all()
    };
    attempt().map_err(|source| io_error(&path.join(FILE), source))
}
