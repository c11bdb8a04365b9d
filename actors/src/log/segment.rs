//! One file of the log: a header, then records until the first bytes that are none.
//!
//! ```text
//!  0 magic "LKSEG\0\0"   7 format, 1   8 index   16 LSN before this file   24 hash of the record before it
//! 40 where the file before ends   48 crc32c of all before   64 records, then zeros
//! ```
//! The header names the end of the file before it, so a tail that was cut off there can never
//! come back to life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use super::ReadError;
use super::disk::{Disk, DiskFile};
use super::record::{self, HEADER, Hash, Header, Unreadable};
use crate::model::change::CommittedGroup;
use crate::model::ids::Lsn;

const MAGIC: [u8; 7] = *b"LKSEG\0\0";
/// Version of the segment, the eighth byte. Later ones keep the checksum where it is.
const FORMAT: u8 = 1;
/// Where records begin.
pub(super) const START: u64 = 64;
/// Bytes of log between two entries of the sparse index.
const STRIDE: u64 = 64 * 1_024;

/// What a segment says of the log before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// Number of the file, from 1.
    pub(super) index: u64,
    /// Last LSN used or skipped before this file.
    pub(super) before: Lsn,
    /// Hash of the record before this file.
    pub(super) hash: Hash,
    /// Where the file before ends.
    pub(super) previous_end: u64,
}

impl Origin {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&MAGIC);
        out.push(FORMAT);
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.before.0.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.previous_end.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.resize(64, 0);
        out
    }

    /// The format and the origin, or `None` if this is no header or not whole.
    fn parse(bytes: &[u8; 64]) -> Option<(u8, Self)> {
        let (body, rest) = bytes.split_at_checked(48)?;
        let (crc, _) = rest.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return None;
        }
        let body = body.strip_prefix(&MAGIC)?;
        let (format, body) = body.split_first()?;
        let (index, body) = body.split_first_chunk::<8>()?;
        let (before, body) = body.split_first_chunk::<8>()?;
        let (hash, body) = body.split_first_chunk::<16>()?;
        let (previous_end, _) = body.split_first_chunk::<8>()?;
        let origin = Self {
            index: u64::from_le_bytes(*index),
            before: Lsn(u64::from_le_bytes(*before)),
            hash: *hash,
            previous_end: u64::from_le_bytes(*previous_end),
        };
        Some((*format, origin))
    }
}

/// An open segment, shared by the writer and the readers.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) file: Arc<dyn DiskFile>,
    /// Durable bytes; records beyond it are not there for readers.
    pub(super) end: AtomicU64,
    /// LSN and place of about every 64 KiB; `None` until somebody needs it.
    index: RwLock<Option<Vec<(Lsn, u64)>>>,
}

/// A record as found in a file.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) bytes: Bytes,
}

impl Segment {
    pub(super) fn file_name(index: u64) -> String {
        format!("{index:08}.log")
    }

    pub(super) fn new(origin: Origin, file: Arc<dyn DiskFile>, end: u64, indexed: bool) -> Self {
        Self {
            name: Self::file_name(origin.index),
            origin,
            file,
            end: AtomicU64::new(end),
            index: RwLock::new(indexed.then(Vec::new)),
        }
    }

    pub(super) fn open(disk: &dyn Disk, index: u64) -> Result<Self, ReadError> {
        let name = Self::file_name(index);
        let file = disk.open(&name)?;
        let mut bytes = [0; 64];
        let damaged = |what| ReadError::Damaged { file: name.clone(), offset: 0, what };
        if file.len()? < START {
            return Err(damaged("the segment header is cut off"));
        }
        file.read_at(0, &mut bytes)?;
        let (format, origin) =
            Origin::parse(&bytes).ok_or_else(|| damaged("the segment header is not whole"))?;
        if format != FORMAT {
            return Err(ReadError::Newer { file: name, found: format.into(), supported: FORMAT.into() });
        }
        if origin.index != index {
            return Err(damaged("the segment header belongs to another file"));
        }
        Ok(Self::new(origin, file, START, false))
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> ReadError {
        ReadError::Damaged { file: self.name.clone(), offset, what }
    }

    /// The whole record at `offset`, or `None` if what stands before `limit` is not one.
    pub(super) fn record_at(&self, offset: u64, limit: u64) -> Result<Option<Found>, ReadError> {
        let mut head = [0; HEADER];
        if offset + HEADER as u64 > limit {
            return Ok(None);
        }
        self.file.read_at(offset, &mut head)?;
        let Some(header) = Header::parse(&head) else { return Ok(None) };
        if offset + header.record_len() as u64 > limit {
            return Ok(None);
        }
        let mut bytes = vec![0; header.record_len()];
        self.file.read_at(offset, &mut bytes)?;
        let whole = record::checksum(&bytes) == header.crc;
        Ok(whole.then(|| Found { header, bytes: bytes.into() }))
    }

    /// Remembers where a record is, if the last remembered one is far enough behind.
    pub(super) fn note(&self, first: Lsn, offset: u64) {
        let mut index = self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let places = index.get_or_insert_default();
        if places.last().is_none_or(|(_, last)| offset >= last + STRIDE) {
            places.push((first, offset));
        }
    }

    /// A place at or before the record that holds `from`.
    pub(super) fn place(&self, from: Lsn) -> Result<u64, ReadError> {
        let nearest = |places: &Vec<(Lsn, u64)>| {
            let after = places.partition_point(|(lsn, _)| *lsn <= from);
            after.checked_sub(1).and_then(|i| places.get(i)).map_or(START, |(_, offset)| *offset)
        };
        if let Some(places) = &*self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Ok(nearest(places));
        }
        self.build_index()?;
        let index = self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(index.as_ref().map_or(START, nearest))
    }

    /// Walks the headers of a file that was closed long ago.
    fn build_index(&self) -> Result<(), ReadError> {
        self.headers(|header, offset| self.note(header.first, offset))
    }

    /// LSN of the last mutation in a closed file, if it has one.
    pub(super) fn last_mutation(&self) -> Result<Option<Lsn>, ReadError> {
        let mut last = None;
        self.headers(|header, _| last = if header.is_gap() { last } else { Some(header.last) })?;
        Ok(last)
    }

    fn headers(&self, mut visit: impl FnMut(&Header, u64)) -> Result<(), ReadError> {
        let end = self.end();
        let mut offset = START;
        while offset < end {
            let mut head = [0; HEADER];
            self.file.read_at(offset, &mut head)?;
            let header =
                Header::parse(&head).ok_or_else(|| self.damaged(offset, "no record where one must be"))?;
            visit(&header, offset);
            offset += header.record_len() as u64;
        }
        Ok(())
    }

    /// Reads groups from `offset` into `out`; stops at the end or when `budget` is used up.
    /// Returns the hash of the last record that was read, for the link to the next segment.
    pub(super) fn read(
        &self,
        mut offset: u64,
        from: Lsn,
        budget: &mut usize,
        out: &mut Vec<CommittedGroup>,
    ) -> Result<Option<Hash>, ReadError> {
        let end = self.end();
        let mut previous = (offset == START).then_some(self.origin.hash);
        while offset < end && *budget > 0 {
            let found = self
                .record_at(offset, end)?
                .ok_or_else(|| self.damaged(offset, "a record does not match its checksum"))?;
            if previous.is_some_and(|hash| hash != found.header.previous) {
                return Err(self.damaged(offset, "a whole record does not continue the one before it"));
            }
            if found.header.last >= from && !found.header.is_gap() {
                out.push(self.group(&found, offset)?);
                *budget = budget.saturating_sub(found.bytes.len());
            }
            previous = Some(record::hash(&found.bytes));
            offset += found.bytes.len() as u64;
        }
        Ok(previous)
    }

    pub(super) fn group(&self, found: &Found, offset: u64) -> Result<CommittedGroup, ReadError> {
        record::decode(&found.header, &found.bytes).map_err(|error| self.unreadable(error, offset))
    }

    pub(super) fn unreadable(&self, error: Unreadable, offset: u64) -> ReadError {
        match error {
            Unreadable::Newer(version) => {
                ReadError::Newer { file: self.name.clone(), found: version.into(), supported: 1 }
            }
            Unreadable::Payload => self.damaged(offset, "a record's checksum holds but it cannot be read"),
        }
    }
}
