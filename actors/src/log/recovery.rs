//! Opening a log after anything may have happened to it.
//!
//! Stands between the files as they are found and the log that goes on from there. Invariant: an
//! acknowledged record is never cut off, and no LSN that a cut record may have used is used again.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use super::disk::Disk;
use super::file::{DurableEnd, SPARE};
use super::record::{self, HEADER, Hash};
use super::segment::{START, Segment};
use super::{MAX_MUTATIONS, ReadError};
use crate::model::ids::Lsn;

/// Bytes that are read or written in one call.
const WINDOW: usize = 1 << 20;

/// A log whose end is clean and durable.
pub(super) struct Recovered {
    pub(super) segments: Vec<Arc<Segment>>,
    /// The last of the segments.
    pub(super) current: Arc<Segment>,
    /// Length of its file.
    pub(super) length: u64,
    /// Last LSN that was used or given up.
    pub(super) last: Lsn,
    /// LSN of the last mutation that is there.
    pub(super) found: Lsn,
    /// Hash of the last record.
    pub(super) hash: Hash,
}

/// Opens what is in the folder; see `FileLog::open_reaching`.
pub(super) fn recover(
    disk: &dyn Disk,
    known: Option<DurableEnd>,
    reach: Lsn,
) -> Result<Recovered, ReadError> {
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    for index in indexes(disk)? {
        let segment = Arc::new(Segment::open(disk, index)?);
        join(segments.last(), &segment)?;
        segments.push(segment);
    }
    let Some(current) = segments.last().cloned() else {
        return Err(ReadError::Missing(Segment::file_name(1)));
    };
    let length = current.file.len()?;
    let tail = match known {
        Some(end) => walk_to(&current, end)?,
        None => {
            let tail = walk(&current, length)?;
            refuse_life_after(&current, &tail, length)?;
            tail
        }
    };
    let found = last_mutation(&segments, &tail)?;
    if found < reach {
        return Err(current.damaged(tail.offset, "the log ends before a position that was read from it"));
    }
    // The last rename may have happened without the sync after it.
    disk.sync_names()?;
    let (offset, last, hash) = clean(&current, &tail, length)?;
    if disk.list()?.iter().any(|name| name == SPARE) {
        disk.remove(SPARE)?;
    }
    current.end.store(offset, Release);
    Ok(Recovered { segments, current, length, last, found, hash })
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
    if next.origin.before < before.origin.before {
        return Err(next.damaged(0, "the segment begins before the one before it"));
    }
    before.end.store(end, Release);
    Ok(())
}

/// Where the whole records of the last segment end.
struct Tail {
    offset: u64,
    last: Lsn,
    /// The last mutation in this segment.
    found: Option<Lsn>,
    hash: Hash,
    /// Where the last record begins. It may so far be only in memory, read back from a write whose
    /// sync never happened.
    last_record: u64,
}

fn walk(segment: &Segment, limit: u64) -> Result<Tail, ReadError> {
    let origin = &segment.origin;
    let (last, hash) = (origin.before, origin.hash);
    let mut tail = Tail { offset: START, last, found: None, hash, last_record: START };
    while let Some(found) = segment.record_at(tail.offset, limit)? {
        let header = &found.header;
        if header.previous != tail.hash || header.first <= tail.last {
            return Err(segment.damaged(tail.offset, "a whole record does not continue the one before it"));
        }
        header.check_version().map_err(|error| segment.unreadable(error, tail.offset))?;
        segment.note(header.first, tail.offset);
        tail.hash = record::hash(&found.bytes);
        tail.last = header.last;
        if !header.is_gap() {
            tail.found = Some(header.last);
        }
        tail.last_record = tail.offset;
        tail.offset += found.bytes.len() as u64;
    }
    Ok(tail)
}

/// LSN of the last mutation in the log. (The LSN before a segment may be one that was given up.)
fn last_mutation(segments: &[Arc<Segment>], tail: &Tail) -> Result<Lsn, ReadError> {
    if let Some(found) = tail.found {
        return Ok(found);
    }
    for closed in segments.iter().rev().skip(1) {
        if let Some(found) = closed.last_mutation()? {
            return Ok(found);
        }
    }
    Ok(segments.first().map_or(Lsn::ZERO, |segment| segment.origin.before))
}

/// Walks to an end that this process has seen; everything up to there must still be whole.
fn walk_to(current: &Segment, end: DurableEnd) -> Result<Tail, ReadError> {
    let limit = match end.index.cmp(&current.origin.index) {
        Ordering::Equal => end.offset,
        // The append that failed had just begun this file.
        Ordering::Less if end.index + 1 == current.origin.index => START,
        Ordering::Less => return Err(current.damaged(0, "somebody else wrote this segment")),
        Ordering::Greater => return Err(ReadError::Missing(Segment::file_name(end.index))),
    };
    let tail = walk(current, limit)?;
    if tail.offset != limit {
        return Err(current.damaged(tail.offset, "a record that was durable is not whole"));
    }
    Ok(tail)
}

/// A torn tail is the last thing in the log. A whole record behind bytes that are none means
/// that something in the middle was lost, and cutting there would lose acknowledged writes.
fn refuse_life_after(segment: &Segment, tail: &Tail, length: u64) -> Result<(), ReadError> {
    let mut window = vec![0; WINDOW];
    let mut at = tail.offset;
    while at + (HEADER as u64) <= length {
        let take = usize::try_from((length - at).min(WINDOW as u64)).unwrap_or(0);
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

/// Removes what is left of a cut record, gives up the LSNs that it may have used (they may have
/// been seen in a log line or a core dump), and makes all of that durable for certain. Returns
/// the new end, the last LSN, and the hash of the last record.
fn clean(segment: &Segment, tail: &Tail, length: u64) -> Result<(u64, Lsn, Hash), ReadError> {
    let file = &segment.file;
    let mut window = vec![0; WINDOW];
    copy_over(segment, tail.last_record, tail.offset, &mut window)?;
    let mut at = tail.offset;
    while at < length {
        let take = usize::try_from((length - at).min(WINDOW as u64)).unwrap_or(0);
        let Some(bytes) = window.get_mut(..take) else { break };
        file.read_at(at, bytes)?;
        if bytes.iter().any(|b| *b != 0) {
            bytes.fill(0);
            file.write_at(at, bytes)?;
        }
        at += take as u64;
    }
    // Before anything is written behind it: else power loss could tear it and keep what follows.
    file.sync()?;
    let last = tail.last.plus(MAX_MUTATIONS as u64);
    let mut end = (tail.offset, last, tail.hash);
    // The gap also takes the place of a cut record's head, so that a record of which zeros are
    // read here, but not on the disk (a sync may have failed), stays cut. Without room for the
    // gap nothing was cut, and the next append begins a file, whose header gives up the same.
    if tail.offset + (HEADER as u64) <= length {
        let mut gap = Vec::with_capacity(HEADER);
        record::encode_gap(tail.last.next(), last, tail.hash, &mut gap);
        file.write_at(tail.offset, &gap)?;
        file.sync()?;
        segment.note(tail.last.next(), tail.offset);
        end = (tail.offset + gap.len() as u64, last, record::hash(&gap));
    }
    Ok(end)
}

/// Writes bytes again that are already there, so that the next sync is sure to cover them.
fn copy_over(segment: &Segment, from: u64, to: u64, window: &mut [u8]) -> Result<(), ReadError> {
    let mut at = from;
    while at < to {
        let take = usize::try_from((to - at).min(window.len() as u64)).unwrap_or(0);
        let Some(bytes) = window.get_mut(..take) else { break };
        segment.file.read_at(at, bytes)?;
        segment.file.write_at(at, bytes)?;
        at += take as u64;
    }
    Ok(())
}
