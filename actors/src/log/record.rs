//! The bytes of one record: a header with length, checksum, LSN range and the hash of the record
//! before it, then the mutations in MessagePack. A record without a payload is a gap: its LSNs
//! are given up, because a record that was cut off may have used them.
//!
//! ```text
//!  0 magic "LKR1"   4 crc32c of all after it   8 payload length   12 format version, 3 zeros
//! 16 first LSN     24 last LSN                32 xxh3-128 of the record before   48 payload
//! ```

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::address::EncodedPartition;
use crate::model::change::{
    ChangeKind, CommittedGroup, DocumentChange, Mutation, Previous, PublishedEvent, RowChange, Table,
};
use crate::model::ids::{DocumentId, Lsn, TenantId};
use crate::model::time::Timestamp;

/// First bytes of every record.
pub(super) const MAGIC: [u8; 4] = *b"LKR1";
/// Bytes before the payload.
pub(super) const HEADER: usize = 48;
/// Most mutations in one record.
pub const MAX_MUTATIONS: usize = 8_192;
/// Version of the payload. Version 1 ends each mutation at the trace; version 2 has no events.
const VERSION: u8 = 3;

/// xxh3-128 of a whole record: the link of the chain.
pub(super) type Hash = [u8; 16];

/// The parsed header of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) crc: u32,
    pub(super) payload: usize,
    pub(super) version: u8,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    pub(super) previous: Hash,
}

impl Header {
    /// Reads a header; `None` if these bytes cannot be one.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (payload, rest) = rest.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (last, rest) = rest.split_first_chunk::<8>()?;
        let header = Self {
            crc: u32::from_le_bytes(*crc),
            payload: u32::from_le_bytes(*payload) as usize,
            version: *version.first()?,
            first: Lsn(u64::from_le_bytes(*first)),
            last: Lsn(u64::from_le_bytes(*last)),
            previous: rest.try_into().ok()?,
        };
        let whole = *magic == MAGIC && header.first.0 > 0 && header.first <= header.last;
        (whole && version.get(1..) == Some(&[0, 0, 0])).then_some(header)
    }

    /// Refuses a record that a newer program wrote.
    pub(super) fn check_version(&self) -> Result<(), Unreadable> {
        if self.version > VERSION { Err(Unreadable::Newer(self.version)) } else { Ok(()) }
    }

    /// Whether the record only gives up LSNs.
    pub(super) fn is_gap(&self) -> bool {
        self.payload == 0
    }

    /// Length of the whole record.
    pub(super) fn record_len(&self) -> usize {
        HEADER + self.payload
    }
}

/// The checksum over a record's bytes after the checksum itself.
pub(super) fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c(record.get(8..).unwrap_or_default())
}

/// The link that the next record carries.
pub(super) fn hash(record: &[u8]) -> Hash {
    twox_hash::XxHash3_128::oneshot(record).to_le_bytes()
}

/// Writes one record into `out`, which is emptied first.
pub(super) fn encode(first: Lsn, previous: Hash, mutations: &[Mutation], out: &mut Vec<u8>) {
    let last = Lsn(first.0 + (mutations.len() as u64).saturating_sub(1));
    encode_header(first, last, previous, out);
    for mutation in mutations {
        // Writing MessagePack into memory cannot fail.
        rmp_serde::encode::write(out, &Wire::from(mutation)).ok();
    }
    seal(out);
}

/// Writes the record that gives up `first` to `last` into `out`, which is emptied first.
pub(super) fn encode_gap(first: Lsn, last: Lsn, previous: Hash, out: &mut Vec<u8>) {
    encode_header(first, last, previous, out);
    seal(out);
}

fn encode_header(first: Lsn, last: Lsn, previous: Hash, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC);
    // Checksum and length follow when the payload is there.
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&last.0.to_le_bytes());
    out.extend_from_slice(&previous);
}

fn seal(out: &mut [u8]) {
    let payload = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(8..12) {
        place.copy_from_slice(&payload.to_le_bytes());
    }
    let crc = checksum(out).to_le_bytes();
    if let Some(place) = out.get_mut(4..8) {
        place.copy_from_slice(&crc);
    }
}

/// Why a whole record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Newer(u8),
    Payload,
}

/// Reads the mutations of a record whose checksum was found right.
pub(super) fn decode(header: &Header, record: &Bytes) -> Result<CommittedGroup, Unreadable> {
    header.check_version()?;
    let payload = record.get(HEADER..).ok_or(Unreadable::Payload)?;
    let count = header.last.0 - header.first.0 + 1;
    let mut mutations = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(MAX_MUTATIONS));
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    for _ in 0..count {
        let wire = Wire::deserialize(&mut reader).map_err(|_| Unreadable::Payload)?;
        mutations.push(wire.into_mutation(record).ok_or(Unreadable::Payload)?);
    }
    Ok(CommittedGroup { first: header.first, mutations: Arc::from(mutations) })
}

/// One mutation on disk: operation, kind or table, key or topic, id or tenant, value, time, previous,
/// trace, place in its transaction, time to live, rows.
#[derive(Serialize, Deserialize)]
struct Wire<'a>(
    u8,
    u8,
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    #[serde(borrow)] &'a str,
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    u64,
    i64,
    #[serde(borrow)] Option<&'a str>,
    #[serde(default)] u32,
    #[serde(default)] i32,
    #[serde(borrow, default)] Vec<WireRow<'a>>,
);

/// One row beside a document: table, key, value if there is one.
#[derive(Serialize, Deserialize)]
struct WireRow<'a>(
    u8,
    #[serde(borrow, with = "serde_bytes")] &'a [u8],
    #[serde(borrow, with = "serde_bytes")] Option<&'a [u8]>,
);

const DOCUMENT: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const EVENT: u8 = 4;

impl<'a> From<&'a Mutation> for Wire<'a> {
    fn from(mutation: &'a Mutation) -> Self {
        match mutation {
            Mutation::Document(c) => {
                let kind = match c.kind {
                    ChangeKind::Create => 1,
                    ChangeKind::Replace => 2,
                    ChangeKind::Delete => 3,
                    ChangeKind::Expire => 4,
                };
                // 0: none; above: an LSN; below: that many mutations back.
                let previous = match c.previous {
                    None => 0,
                    Some(Previous::At(lsn)) => i64::try_from(lsn.0).unwrap_or(i64::MAX),
                    Some(Previous::Back(n)) => -i64::from(n),
                };
                let partition = c.partition.as_bytes();
                Wire(
                    DOCUMENT,
                    kind,
                    partition,
                    c.id.as_str(),
                    &c.body,
                    c.at.0,
                    previous,
                    c.traceparent.as_deref(),
                    c.within,
                    c.ttl,
                    c.rows.iter().map(WireRow::from).collect(),
                )
            }
            Mutation::Event(PublishedEvent { topic, tenant, at, mark, body }) => {
                let tenant = tenant.as_ref().map_or("", TenantId::as_str);
                let mark = mark.iter().map(|mark| WireRow(Table::Published as u8, mark, Some(&[])));
                Wire(EVENT, 0, topic.as_bytes(), tenant, body, at.0, 0, None, 0, 0, mark.collect())
            }
            Mutation::Put { table, key, value } => {
                Wire(PUT, *table as u8, key, "", value, 0, 0, None, 0, 0, Vec::new())
            }
            Mutation::Delete { table, key } => {
                Wire(DELETE, *table as u8, key, "", &[], 0, 0, None, 0, 0, Vec::new())
            }
        }
    }
}

impl<'a> From<&'a RowChange> for WireRow<'a> {
    fn from(row: &'a RowChange) -> Self {
        Self(row.table as u8, &row.key, row.value.as_deref())
    }
}

impl Wire<'_> {
    fn into_mutation(self, record: &Bytes) -> Option<Mutation> {
        let Wire(operation, sort, key, id, value, at, previous, traceparent, within, ttl, rows) = self;
        // The record's memory is shared, not copied.
        let key = record.slice_ref(key);
        match operation {
            DOCUMENT => Some(Mutation::Document(DocumentChange {
                kind: match sort {
                    1 => ChangeKind::Create,
                    2 => ChangeKind::Replace,
                    3 => ChangeKind::Delete,
                    4 => ChangeKind::Expire,
                    _ => return None,
                },
                partition: EncodedPartition::from_bytes(key),
                id: DocumentId::new(id).ok()?,
                at: Timestamp(at),
                previous: match previous {
                    0 => None,
                    1.. => Some(Previous::At(Lsn(previous.unsigned_abs()))),
                    _ => Some(Previous::Back(u32::try_from(previous.unsigned_abs()).ok()?)),
                },
                body: record.slice_ref(value),
                traceparent: traceparent.map(Arc::from),
                within,
                ttl,
                rows: rows.into_iter().map(|row| row.into_change(record)).collect::<Option<_>>()?,
            })),
            EVENT => Some(Mutation::Event(PublishedEvent {
                topic: std::str::from_utf8(&key).ok()?.into(),
                tenant: if id.is_empty() { None } else { Some(TenantId::new(id).ok()?) },
                at: Timestamp(at),
                mark: rows.first().map(|WireRow(_, mark, _)| record.slice_ref(mark)),
                body: record.slice_ref(value),
            })),
            PUT => Some(Mutation::Put { table: table(sort)?, key, value: record.slice_ref(value) }),
            DELETE => Some(Mutation::Delete { table: table(sort)?, key }),
            _ => None,
        }
    }
}

impl WireRow<'_> {
    fn into_change(self, record: &Bytes) -> Option<RowChange> {
        let Self(number, key, value) = self;
        let value = value.map(|value| record.slice_ref(value));
        Some(RowChange { table: table(number)?, key: record.slice_ref(key), value })
    }
}

fn table(number: u8) -> Option<Table> {
    Table::ALL.into_iter().find(|table| *table as u8 == number)
}
