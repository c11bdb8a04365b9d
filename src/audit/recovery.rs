//! From what a process left behind, in order or not, to the end of the chain that the next one goes on with.
//!
//! Invariants: what a crash left unfinished is cut and told; anything else that is wrong is left as it is, for whoever
//! looks into it, and the chain goes on in a new file from where it was known to be.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde_json::json;

use super::chain::{self, Walk};
use super::head::{self, Head, HeadFile};
use super::line::Link;
use super::record::Record;

/// What the last record of a process says that ended in order.
pub(super) const STOPPED: &str = "process.stopped";
/// What a record says that old files are taken away.
pub(super) const RETIRED: &str = "audit.retired";
/// The owner reads and writes, nobody else does anything.
const MODE: u32 = 0o600;

/// An older file that can be taken away one day.
#[derive(Debug, Clone)]
pub(super) struct Shelved {
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// Time of its first record.
    pub(super) begun: String,
    /// The end of the chain before it.
    pub(super) before: Link,
}

/// The open end of the log.
#[derive(Debug)]
pub(super) struct End {
    /// All files, the open one last.
    pub(super) files: Vec<Shelved>,
    pub(super) file: File,
    pub(super) number: u64,
    /// Bytes of the open file.
    pub(super) bytes: u64,
    pub(super) link: Link,
    pub(super) head: HeadFile,
}

/// Opens the log of a folder, which is made if need be. What is to be told of it comes with it.
pub(super) fn open(folder: &Path) -> io::Result<(End, Vec<Record>)> {
    make(folder)?;
    let numbers = chain::numbers(folder)?;
    let known = head::read(folder)?;
    let mut head = HeadFile::open(folder)?;
    let Some(last) = numbers.last().copied() else {
        let found = known.unwrap_or(Head { link: Link::START, file: 0 });
        let notes = if found.link.sequence > 0 { vec![missing(1, found.link.sequence)] } else { Vec::new() };
        head.write(&found)?;
        head.sync()?;
        let number = found.file + 1;
        let (file, files) = (create(folder, number)?, Vec::new());
        return Ok((End { files, file, number, bytes: 0, link: found.link, head }, notes));
    };
    let files = shelved(folder, &numbers)?;
    let mut notes = Vec::new();
    let watched = known.map_or(0, |head| head.link.sequence);
    let walk = chain::walk(&chain::path(folder, last), watched)?;
    let (link, action, number_of_link) = match walk.last {
        Some(link) => (link, walk.last_action.clone(), last),
        // A file that has nothing in it yet: the end is in the one before.
        None => before(folder, &numbers, watched)?,
    };
    let intact = match known {
        None => {
            notes.push(Record { action: "audit.head_missing", ..Record::default() });
            true
        }
        Some(head) => agrees(&head, link, number_of_link, &walk, &mut notes),
    };
    if !intact {
        // The evidence stays as it is. `known` is there, or nothing could disagree.
        let known = known.unwrap_or(Head { link, file: last });
        let number = last + 1;
        let file = create(folder, number)?;
        return Ok((End { files, file, number, bytes: 0, link: known.link, head }, notes));
    }
    let file = OpenOptions::new().write(true).open(chain::path(folder, last))?;
    if walk.rest > 0 {
        file.set_len(walk.good)?;
        file.sync_data()?;
        let asked = json!({ "file": chain::name(last), "at": walk.good, "bytes": walk.rest });
        notes.push(Record { action: "audit.tail_cut", asked: Some(asked), ..Record::default() });
    }
    if link.sequence > 0 && action != STOPPED {
        notes.push(Record { action: "process.crashed", ..Record::default() });
    }
    Ok((End { files, file, number: last, bytes: walk.good, link, head }, notes))
}

/// Whether the files have what the head says that they have.
fn agrees(head: &Head, link: Link, file: u64, walk: &Walk, notes: &mut Vec<Record>) -> bool {
    let Head { link: known, .. } = *head;
    if link.sequence < known.sequence {
        notes.push(missing(link.sequence + 1, known.sequence));
        return false;
    }
    // A head that is far behind names a record of an older file, which nobody reads here.
    let found = if link.sequence == known.sequence { Some(link.hash) } else { walk.watched };
    let differs = file == head.file && found != Some(known.hash);
    if differs || found.is_some_and(|found| found != known.hash) {
        let asked = json!({ "record": known.sequence });
        notes.push(Record { action: "audit.rewritten", asked: Some(asked), ..Record::default() });
        return false;
    }
    true
}

fn missing(from: u64, to: u64) -> Record {
    let asked = json!({ "from": from, "to": to });
    Record { action: "audit.missing", asked: Some(asked), ..Record::default() }
}

/// The end of the last file that has something in it, before the last one.
fn before(folder: &Path, numbers: &[u64], watched: u64) -> io::Result<(Link, String, u64)> {
    for number in numbers.iter().rev().skip(1) {
        let walk = chain::walk(&chain::path(folder, *number), watched)?;
        if let Some(link) = walk.last {
            return Ok((link, walk.last_action, *number));
        }
    }
    Ok((Link::START, String::new(), 0))
}

fn shelved(folder: &Path, numbers: &[u64]) -> io::Result<Vec<Shelved>> {
    let mut files = Vec::new();
    for number in numbers {
        let path = chain::path(folder, *number);
        let bytes = path.metadata()?.len();
        // One that is empty or damaged is kept with those before it.
        let Some((first, begun, prev)) = chain::first(&path)? else { continue };
        let before = Link { sequence: first.saturating_sub(1), hash: prev };
        files.push(Shelved { number: *number, bytes, begun, before });
    }
    Ok(files)
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().mode(0o700).create(folder)?;
    sync_folder(folder.parent().unwrap_or(folder))
}

/// Makes a file that is not there yet.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<File> {
    let path = chain::path(folder, number);
    let file = OpenOptions::new().create_new(true).write(true).mode(MODE).open(path)?;
    sync_folder(folder)?;
    Ok(file)
}

/// Makes names durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
