//! Pages of records, for operators.
//!
//! Invariant: only what is on disk is shown, and one page looks at so many bytes and no more.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use lanekeeper_actors::model::time::Timestamp;
use serde_json::Value;

use super::chain;
use super::line::Known;

/// Most bytes that one page looks at.
const LOOKED_AT_MAX: usize = 8 * 1024 * 1024;
/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// So that the newest records are in it.
    Newest,
    /// With this record, or the first one that is left behind it.
    Record(u64),
    /// With the first record that is not older.
    Time(Timestamp),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where to begin.
    pub start: Start,
    /// Most records in the page.
    pub limit: usize,
    /// Only this action, or, as `key`, all of its kind.
    pub action: Option<String>,
}

/// Some records, the newest last.
#[derive(Debug, Default)]
pub struct Page {
    /// The records as they are written.
    pub records: Vec<Value>,
    /// Where to go on: the first record that was not looked at.
    pub next: u64,
}

/// Reads a page of a log whose last record on disk is `synced`.
pub(super) fn page(folder: &Path, synced: u64, question: &Question) -> io::Result<Page> {
    let mut files = Vec::new();
    for number in chain::numbers(folder)? {
        match Part::open(folder, number) {
            Ok(Some(part)) => files.push(part),
            Ok(None) => {}
            // Taken away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match question.start {
        Start::Newest => newest(&files, synced, question),
        Start::Record(from) => forwards(&files, synced, question, &|known| known.seq < from, from),
        Start::Time(from) => {
            let from = from.to_string();
            forwards(&files, synced, question, &|known| *known.time < *from, 0)
        }
    }
}

/// A file, and how much of it is looked at.
struct Part {
    file: File,
    length: u64,
}

impl Part {
    fn open(folder: &Path, number: u64) -> io::Result<Option<Self>> {
        let file = File::open(chain::path(folder, number))?;
        let length = file.metadata()?.len();
        Ok((length > 0).then_some(Self { file, length }))
    }

    /// The whole lines of a stretch of the file that begins at the start of a line, and where they end.
    fn lines(&self, at: u64, most: usize) -> io::Result<(Vec<u8>, u64)> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(most)];
        self.file.read_exact_at(&mut bytes, at)?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        bytes.truncate(end);
        Ok((bytes, at + u64::try_from(end).unwrap_or_default()))
    }

    /// Where the first line begins that begins at or behind this byte.
    fn line_behind(&self, at: u64) -> io::Result<u64> {
        let mut from = at.saturating_sub(1);
        if at == 0 {
            return Ok(0);
        }
        while from < self.length {
            let left = usize::try_from(self.length - from).unwrap_or(usize::MAX);
            let mut bytes = vec![0; left.min(CHUNK)];
            self.file.read_exact_at(&mut bytes, from)?;
            if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                return Ok(from + u64::try_from(end).unwrap_or_default() + 1);
            }
            from += u64::try_from(bytes.len()).unwrap_or_default();
        }
        Ok(self.length)
    }

    /// Where the first line begins that is not `before`, given that those that are stand in front.
    fn find(&self, before: &dyn Fn(&Known<'_>) -> bool) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.length);
        // Lines that begin before `low` are before; the line behind `high` is not.
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.line_behind(middle)?;
            if at >= high {
                high = middle;
                continue;
            }
            let (bytes, _) = self.lines(at, CHUNK)?;
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            // What cannot be read is passed over with those in front.
            if Known::parse(line).is_none_or(|known| before(&known)) {
                low = at + u64::try_from(line.len()).unwrap_or_default() + 1;
            } else {
                high = middle;
            }
        }
        self.line_behind(low)
    }
}

/// Collects what is asked for, line by line.
struct Collected<'q> {
    question: &'q Question,
    synced: u64,
    page: Page,
    looked_at: usize,
}

impl Collected<'_> {
    /// Takes lines until there are enough. Whether to go on.
    fn take(&mut self, bytes: &[u8], stops: bool) -> bool {
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if stops && self.page.records.len() >= self.question.limit {
                return false;
            }
            let Some(known) = Known::parse(line) else { continue };
            if known.seq > self.synced {
                return false;
            }
            self.page.next = known.seq + 1;
            if is_meant(self.question.action.as_deref(), &known.action)
                && let Ok(value) = serde_json::from_slice(line)
            {
                self.page.records.push(value);
            }
        }
        self.looked_at += bytes.len();
        self.looked_at < LOOKED_AT_MAX
    }
}

fn forwards(
    files: &[Part],
    synced: u64,
    question: &Question,
    before: &dyn Fn(&Known<'_>) -> bool,
    next: u64,
) -> io::Result<Page> {
    let page = Page { next: next.max(1), ..Page::default() };
    let mut collected = Collected { question, synced, page, looked_at: 0 };
    'files: for part in files {
        let mut at = part.find(before)?;
        while at < part.length {
            let (bytes, end) = part.lines(at, CHUNK)?;
            if end == at {
                break;
            }
            at = end;
            if !collected.take(&bytes, true) {
                break 'files;
            }
        }
    }
    if collected.page.next <= 1 && next == 0 {
        collected.page.next = synced + 1;
    }
    Ok(collected.page)
}

/// The last records of the last bytes.
fn newest(files: &[Part], synced: u64, question: &Question) -> io::Result<Page> {
    let mut left = u64::try_from(LOOKED_AT_MAX).unwrap_or(u64::MAX);
    let mut stretches = Vec::new();
    for part in files.iter().rev() {
        let from = part.line_behind(part.length.saturating_sub(left))?;
        stretches.push((part, from));
        left = left.saturating_sub(part.length);
        if left == 0 {
            break;
        }
    }
    let page = Page { next: synced + 1, ..Page::default() };
    let mut collected = Collected { question, synced, page, looked_at: 0 };
    'stretches: for (part, mut at) in stretches.into_iter().rev() {
        while at < part.length {
            let (bytes, end) = part.lines(at, CHUNK)?;
            if end == at || !collected.take(&bytes, false) {
                break 'stretches;
            }
            at = end;
            let superfluous = collected.page.records.len().saturating_sub(question.limit);
            collected.page.records.drain(..superfluous);
        }
    }
    collected.page.next = synced + 1;
    Ok(collected.page)
}

/// `key.issue` means itself, `key` every action of keys.
fn is_meant(wanted: Option<&str>, action: &str) -> bool {
    let Some(wanted) = wanted else { return true };
    let rest = action.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
