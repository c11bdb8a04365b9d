//! Checks the chain of a log from its first line to its last, of a directory that is stopped or in use.
//!
//! Invariant: nothing is changed, and nothing that the process itself left in order is called a fault.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use super::chain::{self, Line, Lines};
use super::head::{self, Head};
use super::line::{Hash, Known, Link};
use super::{FOLDER, recovery};

/// Faults that are told one by one.
const TOLD: usize = 20;

/// What came of a check.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that were read.
    pub files: usize,
    /// Records in them.
    pub records: u64,
    /// The first record.
    pub first: u64,
    /// The last record.
    pub last: u64,
    /// The hash of its line.
    pub hash: String,
    /// What is wrong; empty when the chain holds. The first one is where it broke.
    pub faults: Vec<Fault>,
    /// Faults beyond those.
    pub left_out: usize,
    /// What is worth to know and no fault.
    pub notes: Vec<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Name of the file, if it is about one.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u64>,
    /// Byte at which the line begins, from 0.
    pub byte: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// A place in the chain that somebody wrote down elsewhere: `SEQUENCE:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor(Link);

/// A text that is no anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an anchor is the number of a record and its hash, as `812:<64 hexadecimal digits>`")]
pub struct InvalidAnchor;

impl FromStr for Anchor {
    type Err = InvalidAnchor;

    fn from_str(text: &str) -> Result<Self, InvalidAnchor> {
        let (sequence, hash) = text.split_once(':').ok_or(InvalidAnchor)?;
        let sequence = sequence.parse().map_err(|_| InvalidAnchor)?;
        Ok(Self(Link { sequence, hash: Hash::parse(hash).ok_or(InvalidAnchor)? }))
    }
}

/// Why there was nothing to check.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no log.
    #[error("there is no audit log in `{0}`")]
    None(PathBuf),
    /// The disk does not answer.
    #[error("`{path}`: {source}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
}

/// Checks the log of a data directory.
///
/// # Errors
/// [`VerifyError`] when there is none, or it cannot be read.
pub fn verify(data: &Path, anchor: Option<Anchor>) -> Result<Report, VerifyError> {
    let folder = data.join(FOLDER);
    let io = |source| VerifyError::Io { path: folder.clone(), source };
    // The head first: what is written meanwhile is behind it.
    let head = head::read(&folder).map_err(io)?;
    let numbers = chain::numbers(&folder).map_err(io)?;
    if head.is_none() && numbers.is_empty() {
        return Err(VerifyError::None(data.to_owned()));
    }
    let mut check = Check { head, anchor, ..Check::default() };
    for (index, number) in numbers.iter().enumerate() {
        let is_last = index + 1 == numbers.len();
        match check.file(&folder, *number, is_last) {
            Ok(()) => {}
            // A running process may take the oldest files away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && check.report.files == 0 => {}
            Err(source) => return Err(VerifyError::Io { path: chain::path(&folder, *number), source }),
        }
    }
    check.end();
    Ok(check.report)
}

/// How far the check is.
#[derive(Default)]
struct Check {
    report: Report,
    head: Option<Head>,
    anchor: Option<Anchor>,
    /// The line before.
    before: Option<Link>,
    /// Number of the file before.
    file: Option<u64>,
    /// Whether there is something before the first line that is left, and what it must have been.
    open_start: Option<Link>,
    is_start_explained: bool,
    is_head_seen: bool,
    is_anchor_seen: bool,
    /// Lines that cannot be read behind all that the head knows.
    unfinished: u64,
}

impl Check {
    fn file(&mut self, folder: &Path, number: u64, is_last: bool) -> io::Result<()> {
        let mut lines = Lines::open(&chain::path(folder, number))?;
        let name = chain::name(number);
        if let Some(before) = self.file.filter(|before| before + 1 != number) {
            self.fault(None, format!("the files from {} to {} are missing", before + 1, number - 1));
        }
        self.file = Some(number);
        self.report.files += 1;
        while let Some(line) = lines.next()? {
            self.line(&name, &line, is_last);
        }
        Ok(())
    }

    fn line(&mut self, name: &str, line: &Line, is_last: bool) {
        let place = Some((name, line));
        let known = Known::parse(&line.bytes).and_then(|known| Some((known.prev()?, known)));
        let (Some((prev, known)), true) = (known, line.is_whole) else {
            // Behind the head it was never promised to anybody: a crash cut it, or it is being written.
            let last = self.before.map_or(0, |link| link.sequence);
            if is_last && self.head.is_some_and(|head| last >= head.link.sequence) {
                self.unfinished += 1;
            } else {
                let what = if line.is_whole { "the line is no record" } else { "the line is cut off" };
                self.fault(place, what.to_owned());
            }
            return;
        };
        match self.before {
            None => self.start(place, Link { sequence: known.seq.saturating_sub(1), hash: prev }),
            Some(before) if before.sequence + 1 != known.seq => {
                let what = format!("record {} follows record {}", known.seq, before.sequence);
                self.fault(place, what);
            }
            Some(before) if before.hash != prev => {
                let what =
                    format!("record {} or the one before it was changed: the hashes differ", known.seq);
                self.fault(place, what);
            }
            Some(_) => {}
        }
        let link = Link { sequence: known.seq, hash: Hash::of(&line.bytes) };
        if known.action == recovery::RETIRED && known.taken_away() == self.open_start {
            self.is_start_explained = true;
        }
        if let Some(head) = self.head.filter(|head| head.link.sequence == known.seq) {
            self.is_head_seen = true;
            if head.link.hash != link.hash {
                self.fault(place, format!("record {} was changed: the head has another hash", known.seq));
            }
        }
        if let Some(Anchor(anchor)) = self.anchor.filter(|anchor| anchor.0.sequence == known.seq) {
            self.is_anchor_seen = true;
            if anchor.hash != link.hash {
                self.fault(place, format!("record {} was changed: the anchor has another hash", known.seq));
            }
        }
        self.report.records += 1;
        self.before = Some(link);
    }

    /// The first line that is left.
    fn start(&mut self, place: Option<(&str, &Line)>, before: Link) {
        self.report.first = before.sequence + 1;
        if before.sequence > 0 {
            self.open_start = Some(before);
        } else if before != Link::START {
            self.fault(place, "the first record names a hash before it".to_owned());
        }
    }

    fn end(&mut self) {
        let last = self.before.unwrap_or(Link::START);
        (self.report.last, self.report.hash) = (last.sequence, last.hash.text());
        if let Some(before) = self.open_start.filter(|_| !self.is_start_explained) {
            let what =
                format!("records 1 to {} are gone, and none says that they were retired", before.sequence);
            self.fault(None, what);
        }
        match self.head {
            None => self.fault(None, "there is no `head`: records may be missing at the end".to_owned()),
            Some(head) if head.link.sequence > last.sequence => {
                let what = format!("records {} to {} are missing", last.sequence + 1, head.link.sequence);
                self.fault(None, what);
            }
            Some(head) if !self.is_head_seen && head.link.sequence >= self.report.first.max(1) => {
                let what = format!("record {}, which the head names, is missing", head.link.sequence);
                self.fault(None, what);
            }
            Some(_) => {}
        }
        if let Some(Anchor(anchor)) = self.anchor.filter(|_| !self.is_anchor_seen) {
            let retired = anchor.sequence < self.report.first && self.is_start_explained;
            let what = format!("record {} of the anchor is not there", anchor.sequence);
            if retired {
                self.report.notes.push(format!("{what}: it was retired"))
            } else {
                self.fault(None, what)
            }
        }
        if self.unfinished > 0 {
            let what = "the end is unfinished: it is being written, or a crash cut it off";
            self.report.notes.push(what.to_owned());
        }
    }

    fn fault(&mut self, place: Option<(&str, &Line)>, what: String) {
        if self.report.faults.len() >= TOLD {
            self.report.left_out += 1;
            return;
        }
        self.report.faults.push(Fault {
            file: place.map(|(name, _)| name.to_owned()),
            line: place.map(|(_, line)| line.number),
            byte: place.map(|(_, line)| line.at),
            what,
        });
    }
}
