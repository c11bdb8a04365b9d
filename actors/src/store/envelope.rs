//! Our own bytes around every stored value: version, checksum, then what it is.
//!
//! ```text
//! document: 0 version   1 flags   2 crc32c of key and rest   6 LSN   14 time, ms   22 body
//! row:      0 version   1 flags   2 crc32c of key and rest   6 value
//! ```
//! The checksum covers the key too, so a value that turns up under another key is found out.
//! (redb does not check what it reads; a flipped bit would be served as it is.)

use super::ViewReadError;
use crate::model::ids::Lsn;
use crate::model::time::Timestamp;

const VERSION: u8 = 1;
const PREFIX: usize = 6;
/// Bytes before a document's body.
const DOCUMENT_HEAD: usize = 22;

/// Version, time and body of a stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) lsn: Lsn,
    pub(super) at: Timestamp,
    pub(super) body: &'a [u8],
}

/// Length of a sealed document with a body of this length.
pub(super) fn document_len(body: usize) -> usize {
    DOCUMENT_HEAD + body
}

/// Writes a document into `out`, which has [`document_len`] bytes.
pub(super) fn seal_document(key: &[u8], document: Document<'_>, out: &mut [u8]) {
    let mut head = [0; DOCUMENT_HEAD - PREFIX];
    let (lsn, at) = head.split_at_mut(8);
    lsn.copy_from_slice(&document.lsn.0.to_le_bytes());
    at.copy_from_slice(&document.at.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), &head), document.body);
    let (prefix, rest) = out.split_at_mut(PREFIX);
    prefix.copy_from_slice(&prefix_bytes(crc));
    let (place, body) = rest.split_at_mut(DOCUMENT_HEAD - PREFIX);
    place.copy_from_slice(&head);
    body.copy_from_slice(document.body);
}

/// Checks and reads a stored document.
pub(super) fn open_document<'a>(key: &[u8], sealed: &'a [u8]) -> Result<Document<'a>, ViewReadError> {
    let value = open(key, sealed)?;
    let (lsn, rest) = value.split_first_chunk::<8>().ok_or(ViewReadError::Corrupt)?;
    let (at, body) = rest.split_first_chunk::<8>().ok_or(ViewReadError::Corrupt)?;
    Ok(Document { lsn: Lsn(u64::from_le_bytes(*lsn)), at: Timestamp(u64::from_le_bytes(*at)), body })
}

/// Length of a sealed row with a value of this length.
pub(super) fn row_len(value: usize) -> usize {
    PREFIX + value
}

/// Writes a row's value with its checksum into `out`, which has [`row_len`] bytes.
pub(super) fn seal_row(key: &[u8], value: &[u8], out: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), value);
    let (prefix, place) = out.split_at_mut(PREFIX);
    prefix.copy_from_slice(&prefix_bytes(crc));
    place.copy_from_slice(value);
}

/// Checks and reads a row's value.
pub(super) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], ViewReadError> {
    let (prefix, value) = sealed.split_first_chunk::<PREFIX>().ok_or(ViewReadError::Corrupt)?;
    let [version, _flags, crc @ ..] = prefix;
    if crc32c::crc32c_append(crc32c::crc32c(key), value) != u32::from_le_bytes(*crc) {
        return Err(ViewReadError::Corrupt);
    }
    if *version != VERSION {
        return Err(ViewReadError::Newer);
    }
    Ok(value)
}

fn prefix_bytes(crc: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = crc.to_le_bytes();
    [VERSION, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_document_is_found_out() {
        let document = Document { lsn: Lsn(7), at: Timestamp(9), body: b"{\"id\":\"x\"}" };
        let mut sealed = vec![0; document_len(document.body.len())];
        seal_document(b"key", document, &mut sealed);
        assert_eq!(open_document(b"key", &sealed), Ok(document));
        assert_eq!(open_document(b"kez", &sealed), Err(ViewReadError::Corrupt));
        // The flags byte means nothing yet, so it is the one byte without protection.
        for bit in (0..sealed.len() * 8).filter(|bit| bit / 8 != 1) {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_document(b"key", &bad).is_err(), "bit {bit}");
        }
    }
}
