//! Some room kept back, so that operators can still delete things when others have filled the disk.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the file that holds the room.
pub(super) const FILE: &str = "reserve.tmp";
/// Its size: some hundred changes.
const BYTES: usize = 256 * 1024;

/// Takes the room, if it is not taken yet. A disk that has none has none.
pub(super) fn keep(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    if path.metadata().is_ok_and(|found| found.len() >= u64::try_from(BYTES).unwrap_or(u64::MAX)) {
        return Ok(());
    }
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    let written = file.write_all(&vec![0; BYTES]).and_then(|()| file.sync_all());
    if written.is_err() {
        fs::remove_file(&path)?;
    }
    written
}

/// Gives it up for what must be written. False when there is none.
pub(super) fn give_up(folder: &Path) -> io::Result<bool> {
    match fs::remove_file(folder.join(FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
