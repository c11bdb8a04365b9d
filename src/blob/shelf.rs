//! Stands between backups, which block, and an object store, which does not.
//!
//! Invariant: nothing of a backup is taken for whole that the store does not list with its full length.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lanekeeper_actors::backup::{BackupError, BackupFile, BackupList, LIST, Piece, Shelf};
use tokio::runtime::{Builder, Runtime};

use super::{BlobError, Blobs, PART, Upload};

/// Longest list of a backup's files: some hundred thousand of them.
const LIST_MAX: u64 = 64 << 20;

/// A place in an object store for the files of one backup. Its methods block, and must not be called where futures run.
#[derive(Debug)]
pub struct StoreShelf {
    blobs: Blobs,
    runtime: Runtime,
}

impl StoreShelf {
    /// A shelf of these blobs.
    ///
    /// # Errors
    /// There is no thread or no descriptor left for it.
    pub fn new(blobs: Blobs) -> io::Result<Self> {
        Ok(Self { blobs, runtime: Builder::new_current_thread().enable_all().build()? })
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(self.blobs.to_string())
    }
}

impl Shelf for StoreShelf {
    fn require_empty(&self) -> Result<(), BackupError> {
        let found = self.runtime.block_on(self.blobs.list(1)).map_err(failed)?;
        if found.is_empty() { Ok(()) } else { Err(BackupError::NotEmpty(self.place())) }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Piece + '_>> {
        let upload = self.blobs.upload(&name(path));
        Ok(Box::new(Sending { upload: Some(upload), runtime: &self.runtime }))
    }

    fn complete(&self, files: &[BackupFile], list: &[u8]) -> Result<(), BackupError> {
        // Nothing else was there before, so more than these are those of another backup at the same time.
        let found = self.runtime.block_on(self.blobs.list(files.len().saturating_add(1))).map_err(failed)?;
        let found: BTreeMap<_, _> = found.into_iter().map(|blob| (blob.name, blob.bytes)).collect();
        for file in files {
            if found.get(&name(&file.path)) != Some(&file.bytes) {
                return Err(BackupError::Damaged(file.path.clone()));
            }
        }
        self.runtime.block_on(self.blobs.put(LIST, Bytes::copy_from_slice(list))).map_err(failed)
    }
}

/// A file on its way.
struct Sending<'s> {
    upload: Option<Upload>,
    runtime: &'s Runtime,
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let upload = self.upload.as_mut().ok_or_else(|| io::Error::other("the file was finished"))?;
        let sent = self.runtime.block_on(upload.write(Bytes::copy_from_slice(bytes)));
        sent.map_err(without_name)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Piece for Sending<'_> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        let upload = self.upload.take().ok_or_else(|| io::Error::other("the file was finished"))?;
        self.runtime.block_on(upload.finish()).map_err(without_name)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            self.runtime.block_on(upload.abort());
        }
    }
}

/// Copies a backup from a store into a directory, for a restore that then looks at every file of it.
///
/// # Errors
/// There is no whole backup, or it cannot be read; the directory then holds nothing of use.
pub async fn fetch(blobs: &Blobs, into: &Path) -> Result<(), BackupError> {
    let place = PathBuf::from(blobs.to_string());
    let text = match blobs.get(LIST, LIST_MAX).await {
        Ok(text) => text,
        Err(BlobError::NotFound(_)) => return Err(BackupError::NoBackup(place)),
        Err(error) => return Err(failed(error)),
    };
    let list = BackupList::read(&text)?;
    for file in &list.files {
        let to = into.join(&file.path);
        let disk = |source| BackupError::Io { path: to.clone(), source };
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(disk)?;
        }
        let mut out = File::create(&to).map_err(disk)?;
        let mut at = 0;
        while at < file.bytes {
            let end = file.bytes.min(at.saturating_add(PART as u64));
            let part = match blobs.get_range(&name(&file.path), at..end).await {
                Ok(part) if part.len() as u64 == end - at => part,
                Ok(_) | Err(BlobError::NotFound(_)) => return Err(BackupError::Damaged(file.path.clone())),
                Err(error) => return Err(failed(error)),
            };
            out.write_all(&part).map_err(disk)?;
            at = end;
        }
    }
    let list = into.join(LIST);
    std::fs::write(&list, &text).map_err(|source| BackupError::Io { path: list, source })
}

/// The name of a file's blob: its path, with slashes on every machine.
fn name(path: &Path) -> String {
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn failed(error: BlobError) -> BackupError {
    BackupError::Store(error.to_string())
}

/// For where the name of the file is told besides.
fn without_name(error: BlobError) -> io::Error {
    match error {
        BlobError::Denied { why, .. } => io::Error::new(io::ErrorKind::PermissionDenied, why),
        BlobError::Failed { why, .. } => io::Error::other(why),
        BlobError::NotFound(_) | BlobError::TooLarge { .. } => io::Error::other(error),
    }
}
