//! The commit log in files of one folder: preallocated segments, one writer, many readers.
//!
//! Invariant: [`FileLog::append`] returns only after `fdatasync`; readers see nothing before that.
//! After any error of the disk the log refuses everything until it is opened again, and never
//! syncs the same handle a second time (the kernel may have marked the lost pages clean).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use fail::fail_point;

use super::disk::{Disk, DiskFile};
use super::record::{self, HEADER, Hash};
use super::segment::{Origin, START, Segment};
use super::{AppendError, CommitLog, LogReader, MAX_MUTATIONS, ReadError};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::Lsn;

const SPARE: &str = "spare.tmp";

/// Sizes of the log's files.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Length of a segment once the log is in use, in bytes.
    pub segment_bytes: u64,
    /// Length of the very first segment, in bytes: small, so that a new shard starts at once.
    /// Each following segment doubles, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// Longest record, in bytes.
    pub max_record_bytes: usize,
    /// Whether the next segment is prepared by a thread while this one fills.
    pub prepare_ahead: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            first_segment_bytes: 1 << 20,
            max_record_bytes: 8 << 20,
            prepare_ahead: true,
        }
    }
}

/// Where the durable log ended, as this process knew it before an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurableEnd {
    index: u64,
    offset: u64,
}

/// The file implementation of [`CommitLog`].
#[derive(Debug)]
pub struct FileLog {
    disk: Arc<dyn Disk>,
    settings: LogSettings,
    shared: Arc<Shared>,
    current: Arc<Segment>,
    length: u64,
    offset: u64,
    last: Lsn,
    hash: Hash,
    buffer: Vec<u8>,
    stopped: bool,
    spare: Option<JoinHandle<io::Result<Arc<dyn DiskFile>>>>,
}

/// Where an opened log stands.
struct Ends {
    /// The last mutation that is there.
    durable: Lsn,
    /// The last LSN that may have been used.
    used: Lsn,
    hash: Hash,
}

#[derive(Debug)]
struct Shared {
    segments: RwLock<Vec<Arc<Segment>>>,
    tail: AtomicU64,
}

impl FileLog {
    /// Makes an empty log in an empty folder.
    pub fn create(disk: Arc<dyn Disk>, settings: LogSettings) -> Result<Self, AppendError> {
        let origin = Origin { index: 1, before: Lsn::ZERO, hash: [0; 16], previous_end: 0 };
        let length = settings.first_segment_bytes;
        let file = zeroed(&*disk, length).map_err(AppendError::NoRoom)?;
        let segment = begin(&*disk, origin, file).map_err(AppendError::NoRoom)?;
        Ok(Self::assemble(
            disk,
            settings,
            vec![segment],
            length,
            Ends { durable: Lsn::ZERO, used: Lsn::ZERO, hash: [0; 16] },
        ))
    }

    /// Opens a log and makes its end clean.
    ///
    /// A record that was being written when the machine stopped is cut off, if nothing whole
    /// follows it. `known` is where this process saw the durable end before an error: whatever
    /// stands after it was never acknowledged and is removed.
    ///
    /// # Errors
    /// Damage anywhere else is reported with its place, and the log is not opened.
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        known: Option<DurableEnd>,
    ) -> Result<Self, ReadError> {
        let indexes = indexes(&*disk)?;
        let mut segments = Vec::with_capacity(indexes.len());
        for index in indexes {
            let segment = Arc::new(Segment::open(&*disk, index)?);
            join(segments.last(), &segment)?;
            segments.push(segment);
        }
        if disk.list()?.iter().any(|name| name == SPARE) {
            disk.remove(SPARE)?;
        }
        let Some(current) = segments.last().cloned() else {
            return Err(ReadError::Missing(Segment::file_name(1)));
        };
        let length = current.file.len()?;
        let limit = match known {
            Some(end) if end.index == current.origin.index => end.offset,
            // The failed append had just begun this file.
            Some(end) if end.index < current.origin.index => START,
            Some(_) | None => length,
        };
        let tail = walk(&current, limit)?;
        if known.is_none() {
            refuse_life_after(&current, &tail, length)?;
        }
        clean(&current, &tail, length)?;
        current.end.store(tail.offset, Ordering::Release);
        // LSNs of a cut record may have been seen in a log line or a core dump: never use them again.
        let used = tail.last.plus(MAX_MUTATIONS as u64);
        let ends = Ends { durable: tail.last, used, hash: tail.hash };
        Ok(Self::assemble(disk, settings, segments, length, ends))
    }

    fn assemble(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        segments: Vec<Arc<Segment>>,
        length: u64,
        ends: Ends,
    ) -> Self {
        // Both callers hand over at least one segment.
        let current = segments.last().cloned().unwrap_or_else(|| unreachable!("a log has a segment"));
        let offset = current.end();
        let shared =
            Arc::new(Shared { segments: RwLock::new(segments), tail: AtomicU64::new(ends.durable.0) });
        let buffer = Vec::with_capacity(1 << 20);
        let (last, hash) = (ends.used, ends.hash);
        Self {
            disk,
            settings,
            shared,
            current,
            length,
            offset,
            last,
            hash,
            buffer,
            stopped: false,
            spare: None,
        }
    }

    /// Where the durable log ends: for [`FileLog::open`] after an error.
    pub fn durable_end(&self) -> DurableEnd {
        DurableEnd { index: self.current.origin.index, offset: self.offset }
    }

    fn write(&mut self, first: Lsn) -> Result<(), AppendError> {
        fail_point!("log::append", |_| Err(AppendError::Unknown(io::Error::other("injected"))));
        self.current.file.write_at(self.offset, &self.buffer).map_err(AppendError::Unknown)?;
        fail_point!("log::sync", |_| Err(AppendError::Unknown(io::Error::other("injected"))));
        self.current.file.sync().map_err(AppendError::Unknown)?;
        self.current.note(first, self.offset);
        Ok(())
    }

    /// Makes sure that the buffered record fits into the current segment.
    fn make_room(&mut self) -> Result<(), AppendError> {
        let needed = self.buffer.len() as u64;
        if self.offset + needed <= self.length {
            return Ok(());
        }
        let prepared = self.spare.take().and_then(|spare| spare.join().ok()).and_then(Result::ok);
        let length = self.next_length().max(START + needed);
        let file = match prepared {
            Some(file) if file.len().is_ok_and(|len| len >= START + needed) => file,
            Some(_) | None => zeroed(&*self.disk, length).map_err(AppendError::NoRoom)?,
        };
        let length = file.len().map_err(AppendError::NoRoom)?;
        let origin = Origin {
            index: self.current.origin.index + 1,
            before: self.last,
            hash: self.hash,
            previous_end: self.offset,
        };
        // From here on the new file may exist: an error leaves the log's end in doubt.
        let segment = begin(&*self.disk, origin, file).map_err(|error| {
            self.stopped = true;
            AppendError::Unknown(error)
        })?;
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.push(segment.clone());
        drop(segments);
        self.current = segment;
        self.length = length;
        self.offset = START;
        Ok(())
    }

    fn next_length(&self) -> u64 {
        (self.length * 2).min(self.settings.segment_bytes).max(self.settings.first_segment_bytes)
    }

    /// Starts writing the zeros of the next segment once this one is half full.
    fn prepare(&mut self) {
        if !self.settings.prepare_ahead || self.spare.is_some() || self.offset < self.length / 2 {
            return;
        }
        let (disk, length) = (self.disk.clone(), self.next_length());
        let work = move || zeroed(&*disk, length);
        // Without a thread, or when it fails, the segment is made when it is needed.
        self.spare = std::thread::Builder::new().name("log-spare".into()).spawn(work).ok();
    }
}

impl CommitLog for FileLog {
    fn tail(&self) -> Lsn {
        self.last
    }

    fn append(&mut self, expect: Lsn, mutations: &[Mutation]) -> Result<Lsn, AppendError> {
        if self.stopped {
            return Err(AppendError::Stopped);
        }
        if expect != self.last {
            return Err(AppendError::Fenced { expected: expect, tail: self.last });
        }
        let first = self.last.next();
        record::encode(first, self.hash, mutations, &mut self.buffer);
        if mutations.len() > MAX_MUTATIONS || self.buffer.len() > self.settings.max_record_bytes {
            let limit = self.settings.max_record_bytes;
            return Err(AppendError::TooLarge { bytes: self.buffer.len(), limit });
        }
        self.make_room()?;
        if let Err(error) = self.write(first) {
            self.stopped = true;
            return Err(error);
        }
        self.offset += self.buffer.len() as u64;
        self.last = Lsn(first.0 + (mutations.len() as u64).saturating_sub(1));
        self.hash = record::hash(&self.buffer);
        self.current.end.store(self.offset, Ordering::Release);
        self.shared.tail.store(self.last.0, Ordering::Release);
        self.prepare();
        Ok(first)
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        self.shared.clone()
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        // The old handles are closed by the assignment; the new ones have never failed.
        if let Some(spare) = self.spare.take() {
            spare.join().ok();
        }
        *self = Self::open(self.disk.clone(), self.settings, Some(self.durable_end()))?;
        Ok(())
    }

    fn trim(&mut self, before: Lsn) -> Result<Lsn, ReadError> {
        loop {
            let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
            let (Some(oldest), Some(next)) = (segments.first().cloned(), segments.get(1)) else { break };
            if next.origin.before >= before {
                break;
            }
            segments.remove(0);
            drop(segments);
            self.disk.remove(&oldest.name)?;
            self.disk.sync_names()?;
        }
        Ok(self.shared.first())
    }
}

impl Drop for FileLog {
    /// The helper thread must not write to the folder when the next log opens it.
    fn drop(&mut self) {
        if let Some(spare) = self.spare.take() {
            spare.join().ok();
        }
    }
}

impl LogReader for Shared {
    fn tail(&self) -> Lsn {
        Lsn(self.tail.load(Ordering::Acquire))
    }

    fn first(&self) -> Lsn {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(Lsn(1), |segment| segment.origin.before.next())
    }

    fn read(&self, from: Lsn, max_bytes: usize) -> Result<Vec<CommittedGroup>, ReadError> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).clone();
        let after = segments.partition_point(|segment| segment.origin.before < from);
        let Some(start) = after.checked_sub(1) else {
            return Err(ReadError::Trimmed { from, first: self.first() });
        };
        let mut groups = Vec::new();
        let mut budget = max_bytes.max(1);
        for (i, segment) in segments.iter().skip(start).enumerate() {
            let offset = if i == 0 { segment.place(from)? } else { START };
            segment.read(offset, from, &mut budget, &mut groups)?;
            if budget == 0 {
                break;
            }
        }
        Ok(groups)
    }
}

/// Numbers of the segment files, which must follow each other.
fn indexes(disk: &dyn Disk) -> Result<Vec<u64>, ReadError> {
    let mut indexes: Vec<u64> = Vec::new();
    for name in disk.list()? {
        if let Some(index) = name.strip_suffix(".log").and_then(|number| number.parse().ok()) {
            indexes.push(index);
        }
    }
    indexes.sort_unstable();
    for pair in indexes.windows(2) {
        if let [a, b] = pair
            && a + 1 != *b
        {
            return Err(ReadError::Missing(Segment::file_name(a + 1)));
        }
    }
    Ok(indexes)
}

/// Closes the segment before `next` at the end that `next` names.
fn join(before: Option<&Arc<Segment>>, next: &Segment) -> Result<(), ReadError> {
    let Some(before) = before else { return Ok(()) };
    let end = next.origin.previous_end;
    if end > before.file.len()? || end < START {
        return Err(before.damaged(end, "the segment is shorter than the next one says"));
    }
    before.end.store(end, Ordering::Release);
    Ok(())
}

/// Where the whole records of the last segment end.
struct Tail {
    offset: u64,
    last: Lsn,
    hash: Hash,
    last_record: Option<(u64, bytes::Bytes)>,
}

fn walk(segment: &Segment, limit: u64) -> Result<Tail, ReadError> {
    let origin = &segment.origin;
    let mut tail = Tail { offset: START, last: origin.before, hash: origin.hash, last_record: None };
    while let Some(found) = segment.record_at(tail.offset, limit)? {
        if found.header.previous != tail.hash || found.header.first <= tail.last {
            return Err(segment.damaged(tail.offset, "a whole record does not continue the one before it"));
        }
        segment.note(found.header.first, tail.offset);
        tail.hash = record::hash(&found.bytes);
        tail.last = found.header.last;
        let end = tail.offset + found.bytes.len() as u64;
        tail.last_record = Some((tail.offset, found.bytes));
        tail.offset = end;
    }
    Ok(tail)
}

/// A torn tail is the last thing in the log. A whole record behind bytes that are none means
/// that something in the middle was lost, and cutting there would lose acknowledged writes.
fn refuse_life_after(segment: &Segment, tail: &Tail, length: u64) -> Result<(), ReadError> {
    let mut window = vec![0; 1 << 20];
    let mut at = tail.offset;
    while at + (HEADER as u64) <= length {
        let take = usize::try_from((length - at).min(window.len() as u64)).unwrap_or(0);
        let Some(bytes) = window.get_mut(..take) else { break };
        segment.file.read_at(at, bytes)?;
        for (i, four) in bytes.windows(4).enumerate() {
            if four != record::MAGIC {
                continue;
            }
            let place = at + i as u64;
            if let Some(found) = segment.record_at(place, length)?
                && found.header.first > tail.last
            {
                return Err(segment.damaged(tail.offset, "a record is damaged, and whole records follow it"));
            }
        }
        // Windows overlap by three bytes, so that a magic across their border is seen.
        at += (take as u64).saturating_sub(3).max(1);
    }
    Ok(())
}

/// Removes what is left of a cut record, and makes the last whole one durable for certain:
/// it may so far be only in memory, read back from a write whose sync never happened.
fn clean(segment: &Segment, tail: &Tail, length: u64) -> Result<(), ReadError> {
    let mut window = vec![0; 1 << 20];
    let mut at = tail.offset;
    while at < length {
        let take = usize::try_from((length - at).min(window.len() as u64)).unwrap_or(0);
        let Some(bytes) = window.get_mut(..take) else { break };
        segment.file.read_at(at, bytes)?;
        if bytes.iter().any(|b| *b != 0) {
            bytes.fill(0);
            segment.file.write_at(at, bytes)?;
        }
        at += take as u64;
    }
    if let Some((offset, bytes)) = &tail.last_record {
        segment.file.write_at(*offset, bytes)?;
    }
    segment.file.sync()?;
    Ok(())
}

/// A file of zeros that were really written, so that later syncs change no metadata.
fn zeroed(disk: &dyn Disk, length: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(SPARE)?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let take = usize::try_from((length - at).min(zeros.len() as u64)).unwrap_or(0);
        file.write_at(at, zeros.get(..take).unwrap_or_default())?;
        at += take as u64;
    }
    file.sync()?;
    Ok(file)
}

/// Turns a file of zeros into the next segment.
fn begin(disk: &dyn Disk, origin: Origin, file: Arc<dyn DiskFile>) -> io::Result<Arc<Segment>> {
    file.write_at(0, &origin.encode())?;
    file.sync()?;
    disk.rename(SPARE, &Segment::file_name(origin.index))?;
    disk.sync_names()?;
    Ok(Arc::new(Segment::new(origin, file, START, true)))
}
