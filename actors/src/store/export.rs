//! All rows of a view as one stream, and a view made of such a stream.
//!
//! ```text
//! magic "LKROWS1\0"   applied LSN 8
//! row:  table 1   key length 4   value length 4   key   value, sealed as it is stored
//! end:  0xFF   number of rows 8   crc32c of all before 4
//! ```
//! Numbers are little-endian.

use std::io::{self, Read, Write};

use redb::Durability;

use super::apply::{DOCUMENTS, Definition, ORDER, definition};
use super::view::{View, count_documents, mark};
use super::{OpenError, ViewReadError};
use crate::log::disk::Disk;
use crate::model::change::Table;
use crate::model::ids::Lsn;

const MAGIC: [u8; 8] = *b"LKROWS1\0";
const END: u8 = 0xFF;
/// Numbers of the tables that are not [`Table`]s.
const DOCUMENTS_NUMBER: u8 = 0;
const ORDER_NUMBER: u8 = 0xFE;
/// Rows written in one transaction.
const STEP: usize = 4_096;
/// Longest key or value that is believed.
const LONGEST: u32 = 64 << 20;

/// Why rows could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The stream could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The stream is cut, or its checksum does not hold.
    #[error("the rows are damaged: {0}")]
    Damaged(&'static str),
    /// The view could not be read.
    #[error(transparent)]
    Read(#[from] ViewReadError),
    /// The view could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The view could not be written.
    #[error("the view could not be written: {0}")]
    Write(String),
}

fn tables() -> impl Iterator<Item = (u8, Definition)> {
    let rows = Table::ALL.into_iter().map(|table| (table as u8, definition(table)));
    [(DOCUMENTS_NUMBER, DOCUMENTS), (ORDER_NUMBER, ORDER)].into_iter().chain(rows)
}

/// Writes every row of one snapshot; returns the position that it has, and the number of rows.
pub fn export(view: &View, out: &mut dyn Write) -> Result<(Lsn, u64), ExportError> {
    let mut out = Summed { inner: out, crc: 0 };
    let mut failed = None;
    let result = view.snapshot(|transaction, applied| {
        let mut write = || -> Result<u64, ExportError> {
            out.write_all(&MAGIC)?;
            out.write_all(&applied.0.to_le_bytes())?;
            let mut rows = 0_u64;
            for (number, definition) in tables() {
                let table = transaction
                    .open_table(definition)
                    .map_err(|error| ExportError::Write(error.to_string()))?;
                for entry in table.range::<&[u8]>(..).map_err(damaged)? {
                    let (key, value) = entry.map_err(damaged)?;
                    let (key, value) = (key.value(), value.value());
                    out.write_all(&[number])?;
                    out.write_all(&length(key).to_le_bytes())?;
                    out.write_all(&length(value).to_le_bytes())?;
                    out.write_all(key)?;
                    out.write_all(value)?;
                    rows += 1;
                }
            }
            out.write_all(&[END])?;
            out.write_all(&rows.to_le_bytes())?;
            let crc = out.crc;
            out.write_all(&crc.to_le_bytes())?;
            Ok(rows)
        };
        let written = write();
        let rows = *written.as_ref().unwrap_or(&0);
        failed = written.err();
        (applied, rows)
    })?;
    failed.map_or(Ok(result), Err)
}

/// Makes a view of what [`export`] wrote, durable when this returns.
pub fn import(disk: &dyn Disk, cache_bytes: usize, input: &mut dyn Read) -> Result<(Lsn, u64), ExportError> {
    let view = View::create(disk, cache_bytes)?;
    let mut input = Summed { inner: input, crc: 0 };
    let head: [u8; 16] = input.array()?;
    let (magic, applied) = head.split_at(8);
    if magic != MAGIC {
        return Err(ExportError::Damaged("this is no stream of rows"));
    }
    let applied = Lsn(u64::from_le_bytes(applied.try_into().unwrap_or_default()));
    let definitions: Vec<_> = tables().collect();
    let mut rows = 0;
    let mut ended = false;
    while !ended {
        let mut failed = None;
        let written = view.write(|transaction| {
            transaction.set_durability(Durability::None).map_err(redb::Error::from)?;
            for _ in 0..STEP {
                match input.row() {
                    Ok(Some((number, key, value))) => {
                        let table = definitions.iter().find(|(found, _)| *found == number);
                        let Some((_, definition)) = table else {
                            failed = Some(ExportError::Damaged("a table is not known"));
                            break;
                        };
                        transaction.open_table(*definition)?.insert(key.as_slice(), value.as_slice())?;
                        rows += 1;
                    }
                    Ok(None) => {
                        ended = true;
                        break;
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            Ok(Lsn::ZERO)
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        written.map_err(|error| ExportError::Write(error.to_string()))?;
    }
    let count = u64::from_le_bytes(input.array()?);
    let crc = input.crc;
    if count != rows || u32::from_le_bytes(input.array()?) != crc {
        return Err(ExportError::Damaged("the checksum does not hold"));
    }
    let saved = view.write(|transaction| {
        transaction.set_quick_repair(true);
        count_documents(transaction)?;
        mark(transaction, applied)
    });
    saved.map_err(|error| ExportError::Write(error.to_string()))?;
    Ok((applied, rows))
}

fn damaged(_: redb::StorageError) -> ExportError {
    ExportError::Damaged("the view cannot be read whole: run `verify`")
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Number of the table, key, sealed value.
type Row = (u8, Vec<u8>, Vec<u8>);

/// A stream whose checksum is kept.
struct Summed<S> {
    inner: S,
    crc: u32,
}

impl Summed<&mut dyn Write> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.inner.write_all(bytes)
    }
}

impl Summed<&mut dyn Read> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, ExportError> {
        if len > LONGEST {
            return Err(ExportError::Damaged("a row is longer than any can be"));
        }
        let mut bytes = vec![0; len as usize];
        self.inner.read_exact(&mut bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        Ok(bytes)
    }

    fn row(&mut self) -> Result<Option<Row>, ExportError> {
        let [number] = self.array()?;
        if number == END {
            return Ok(None);
        }
        let key = u32::from_le_bytes(self.array()?);
        let value = u32::from_le_bytes(self.array()?);
        Ok(Some((number, self.bytes(key)?, self.bytes(value)?)))
    }
}
