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
use super::record::{self, Hash};
use super::recovery::{self, Recovered};
use super::segment::{Origin, START, Segment};
use super::{AppendError, CommitLog, LogReader, MAX_MUTATIONS, ReadError};
use crate::model::change::{CommittedGroup, Mutation};
use crate::model::ids::Lsn;

/// Name of a segment that is being prepared.
pub(super) const SPARE: &str = "spare.tmp";

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
    pub(super) index: u64,
    pub(super) offset: u64,
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
    /// Longest file that may be made now.
    room: u64,
    spare: Option<JoinHandle<io::Result<Arc<dyn DiskFile>>>>,
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
        let current = begin(&*disk, origin, file).map_err(AppendError::NoRoom)?;
        let segments = vec![current.clone()];
        let empty = Recovered { segments, current, length, last: Lsn::ZERO, found: Lsn::ZERO, hash: [0; 16] };
        Ok(Self::assemble(disk, settings, empty))
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
        Self::open_reaching(disk, settings, known, Lsn::ZERO)
    }

    /// As [`FileLog::open`], but refuses a log that ends before `reach`, which somebody has read
    /// from it. Nothing is cut off then, so that what was damaged can still be looked at.
    pub fn open_reaching(
        disk: Arc<dyn Disk>,
        settings: LogSettings,
        known: Option<DurableEnd>,
        reach: Lsn,
    ) -> Result<Self, ReadError> {
        let recovered = recovery::recover(&*disk, known, reach)?;
        Ok(Self::assemble(disk, settings, recovered))
    }

    fn assemble(disk: Arc<dyn Disk>, settings: LogSettings, log: Recovered) -> Self {
        let offset = log.current.end();
        let tail = AtomicU64::new(log.found.0);
        Self {
            disk,
            settings,
            shared: Arc::new(Shared { segments: RwLock::new(log.segments), tail }),
            current: log.current,
            length: log.length,
            offset,
            last: log.last,
            hash: log.hash,
            buffer: Vec::with_capacity(1 << 20),
            stopped: false,
            room: u64::MAX,
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
        let grown = (self.length * 2).min(self.settings.segment_bytes).max(self.settings.first_segment_bytes);
        grown.min(self.room)
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
        if mutations.is_empty() {
            return Ok(first);
        }
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
        if let Some(spare) = self.spare.take() {
            spare.join().ok();
        }
        // The old handles are closed by the assignment; the new ones have never failed.
        let room = self.room;
        *self = Self::open(self.disk.clone(), self.settings, Some(self.durable_end()))?;
        self.room = room;
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

    fn limit_room(&mut self, bytes: u64) {
        self.room = bytes;
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
        let mut previous: Option<Hash> = None;
        for (i, segment) in segments.iter().skip(start).enumerate() {
            if previous.is_some_and(|hash| hash != segment.origin.hash) {
                return Err(segment.damaged(0, "the segment does not continue the one before it"));
            }
            let offset = if i == 0 { segment.place(from)? } else { START };
            previous = segment.read(offset, from, &mut budget, &mut groups)?;
            if budget == 0 {
                break;
            }
        }
        Ok(groups)
    }
}

/// A file of zeros that were really written, so that later syncs change no metadata.
fn zeroed(disk: &dyn Disk, length: u64) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(SPARE)?;
    if let Err(error) = fill(&*file, length) {
        // Half a segment is of no use, and the room that it takes may be the last there is.
        drop(file);
        disk.remove(SPARE).ok();
        return Err(error);
    }
    Ok(file)
}

fn fill(file: &dyn DiskFile, length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let take = usize::try_from((length - at).min(zeros.len() as u64)).unwrap_or(0);
        file.write_at(at, zeros.get(..take).unwrap_or_default())?;
        at += take as u64;
    }
    file.sync()
}

/// Turns a file of zeros into the next segment.
fn begin(disk: &dyn Disk, origin: Origin, file: Arc<dyn DiskFile>) -> io::Result<Arc<Segment>> {
    file.write_at(0, &origin.encode())?;
    file.sync()?;
    disk.rename(SPARE, &Segment::file_name(origin.index))?;
    disk.sync_names()?;
    Ok(Arc::new(Segment::new(origin, file, START, true)))
}
