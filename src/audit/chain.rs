//! The files of the log by their names, and a walk over the lines of one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::line::{Hash, Known, Link};

/// What the names of files end with.
const ENDING: &str = ".ndjson";
/// Digits of a file's number.
const DIGITS: usize = 8;
/// Longest line that can be one of ours, its line feed included.
const LINE_MAX: u64 = 64 * 1024;

/// Numbers of the files, in their order. A folder that is not there has none.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(ENDING));
        let number =
            number.filter(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()));
        numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Name of a file.
pub(super) fn name(number: u64) -> String {
    format!("{number:0DIGITS$}{ENDING}")
}

/// Where a file lies.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(name(number))
}

/// One line of a file.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Where it begins.
    pub(super) at: u64,
    /// Its bytes, without the line feed.
    pub(super) bytes: Vec<u8>,
    /// Whether it ends with a line feed.
    pub(super) is_whole: bool,
}

/// Reads a file line by line, from some byte on.
pub(super) struct Lines {
    file: BufReader<File>,
    number: u64,
    at: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::with_capacity(1 << 16, File::open(path)?), number: 0, at: 0 })
    }

    /// The next line. What is longer than any line of ours comes in pieces that are none.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        let length = (&mut self.file).take(LINE_MAX).read_until(b'\n', &mut bytes)?;
        if length == 0 {
            return Ok(None);
        }
        let at = self.at;
        self.at += u64::try_from(length).unwrap_or(u64::MAX);
        self.number += 1;
        let is_whole = bytes.pop_if(|byte| *byte == b'\n').is_some();
        Ok(Some(Line { number: self.number, at, bytes, is_whole }))
    }
}

/// What a file begins and ends with, as far as its chain holds.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// First record, its time, and the hash that the line before it must have.
    pub(super) first: Option<(u64, String, Hash)>,
    /// Last record of the unbroken beginning.
    pub(super) last: Option<Link>,
    /// What it was.
    pub(super) last_action: String,
    /// Bytes of that beginning.
    pub(super) good: u64,
    /// Bytes behind it.
    pub(super) rest: u64,
    /// The hash of the record that was asked for, if it is in there.
    pub(super) watched: Option<Hash>,
}

/// Walks over a file as far as it is a chain, and looks for a record by its number.
pub(super) fn walk(path: &Path, watched: u64) -> io::Result<Walk> {
    let mut walk = Walk::default();
    let mut lines = Lines::open(path)?;
    let mut before: Option<Link> = None;
    while let Some(line) = lines.next()? {
        let end = lines.at;
        let known = Known::parse(&line.bytes).filter(|_| line.is_whole && walk.rest == 0);
        let follows = known.and_then(|known| {
            let prev = known.prev()?;
            let fits = before.is_none_or(|link| link.sequence + 1 == known.seq && link.hash == prev);
            fits.then_some((known, prev))
        });
        let Some((known, prev)) = follows else {
            walk.rest += end - line.at;
            continue;
        };
        let link = Link { sequence: known.seq, hash: Hash::of(&line.bytes) };
        if walk.first.is_none() {
            walk.first = Some((known.seq, known.time.into_owned(), prev));
        }
        if known.seq == watched {
            walk.watched = Some(link.hash);
        }
        walk.last_action = known.action.into_owned();
        walk.good = end;
        walk.last = Some(link);
        before = Some(link);
    }
    Ok(walk)
}

/// First record of a file, its time, and the hash that the line before it must have.
pub(super) fn first(path: &Path) -> io::Result<Option<(u64, String, Hash)>> {
    let line = Lines::open(path)?.next()?;
    Ok(line.and_then(|line| {
        let known = Known::parse(&line.bytes)?;
        Some((known.seq, known.time.to_string(), known.prev()?))
    }))
}
