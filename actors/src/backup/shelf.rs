//! Stands between the files of a backup and the place where they are kept.
//!
//! Invariant: a file that was finished is there as a whole; one that was not is none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{BackupError, BackupFile, LIST, checksum, io_error};

/// A place for the files of a backup. Its methods block.
pub trait Shelf {
    /// Makes sure that nothing is there yet.
    ///
    /// # Errors
    /// [`BackupError::NotEmpty`], or the place cannot be looked at.
    fn require_empty(&self) -> Result<(), BackupError>;

    /// Begins a file at a path of plain names.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Piece + '_>>;

    /// Makes sure that these files are there, and adds the list of them: now the backup is one.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] for a file that is not there as it was written.
    fn complete(&self, files: &[BackupFile], list: &[u8]) -> Result<(), BackupError>;
}

/// A file that is being written. One that is dropped before it is finished is none.
pub trait Piece: Write {
    /// Returns once the file is durable.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A directory of this machine.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The directory at this path, which is made when it is not there.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn new_file(&self, path: &Path) -> io::Result<File> {
        let path = self.0.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        create(&path)
    }
}

impl Shelf for Folder {
    fn require_empty(&self) -> Result<(), BackupError> {
        make_empty(&self.0)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Piece + '_>> {
        Ok(Box::new(self.new_file(path)?))
    }

    fn complete(&self, files: &[BackupFile], list: &[u8]) -> Result<(), BackupError> {
        for file in files {
            let found = checksum(&self.0.join(&file.path));
            if found.map_err(|source| io_error(&file.path, source))? != (file.bytes, file.crc32c) {
                return Err(BackupError::Damaged(file.path.clone()));
            }
        }
        let write = || -> io::Result<()> {
            let mut out = self.new_file(Path::new(LIST))?;
            out.write_all(list)?;
            out.sync_all()?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| io_error(&self.0.join(LIST), source))
    }
}

impl Piece for File {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.sync_all()
    }
}

/// A new file. What only the owner may read is made so before anything is in it.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    #[cfg(unix)]
    if path.file_name().is_some_and(|name| name == "pepper") {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes a directory, in which nothing may be.
pub(super) fn make_empty(path: &Path) -> Result<(), BackupError> {
    fs::create_dir_all(path).map_err(|source| io_error(path, source))?;
    require_empty(path)
}

/// Refuses a directory with something in it. One that is not there has nothing in it.
pub fn require_empty(path: &Path) -> Result<(), BackupError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error(path, source)),
    };
    if entries.next().is_some() { Err(BackupError::NotEmpty(path.to_owned())) } else { Ok(()) }
}
