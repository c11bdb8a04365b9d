//! `head`: which record is the last one, kept beside the files so that a log whose end was cut off is noticed.
//!
//! Invariant: it never names a record that is not on disk; after a crash it may name one that is not the last.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::line::{Hash, Link};
use super::record::hex;

/// Name of the file.
pub(super) const FILE: &str = "head";
/// Bytes of one of its two places, which are written in turns, so that a torn write leaves the other one.
const PLACE: usize = 256;
/// Bytes of its own checksum, of a SHA-256.
const SUM: usize = 8;

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) link: Link,
    /// Number of the file that it is in.
    pub(super) file: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    seq: u64,
    file: u64,
    hash: String,
}

/// Reads the newer of the two places that are whole.
pub(super) fn read(folder: &Path) -> io::Result<Option<Head>> {
    let bytes = match std::fs::read(folder.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(bytes.chunks(PLACE).filter_map(parse).max_by_key(|head| head.link.sequence))
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
    is_second: bool,
}

impl HeadFile {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(folder.join(FILE))?;
        Ok(Self { file, is_second: false })
    }

    /// Names another end.
    pub(super) fn write(&mut self, head: &Head) -> io::Result<()> {
        let place = if self.is_second { PLACE } else { 0 };
        self.is_second = !self.is_second;
        self.file.write_all_at(text(head).as_bytes(), u64::try_from(place).unwrap_or_default())
    }

    /// Waits until it is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The place as text, with its checksum, filled up with blanks.
fn text(head: &Head) -> String {
    let Head { link, file } = *head;
    let written = Written { seq: link.sequence, file, hash: link.hash.text() };
    let json = serde_json::to_string(&written).unwrap_or_default();
    let line = format!("{json} {}", sum(&json));
    format!("{line:<width$}\n", width = PLACE - 1)
}

fn parse(place: &[u8]) -> Option<Head> {
    let (json, given) = std::str::from_utf8(place).ok()?.trim_end().rsplit_once(' ')?;
    let Written { seq, file, hash } = serde_json::from_str(json).ok()?;
    let link = Link { sequence: seq, hash: Hash::parse(&hash)? };
    (sum(json) == given).then_some(Head { link, file })
}

fn sum(json: &str) -> String {
    let digest = Sha256::digest(json.as_bytes());
    hex(digest.get(..SUM).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_end_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let head = |sequence| {
            let hash = Hash::of(&[u8::try_from(sequence).unwrap()]);
            Head { link: Link { sequence, hash }, file: 3 }
        };
        let mut file = HeadFile::open(folder.path()).unwrap();
        for sequence in 1..=5 {
            file.write(&head(sequence)).unwrap();
            assert_eq!(read(folder.path()).unwrap(), Some(head(sequence)));
        }
        file.sync().unwrap();
        let path = folder.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), 2 * PLACE);
        for at in 0..PLACE - 1 {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&path, &torn).unwrap();
            let found = read(folder.path()).unwrap();
            assert!(found == Some(head(4)) || found == Some(head(5)), "{at}: {found:?}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(folder.path()).unwrap().is_none_or(|found| found == head(5)), "{at}");
        }
    }
}
