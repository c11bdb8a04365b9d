//! Our own bytes around every stored value: version, checksum, then what it is.
//!
//! ```text
//! document: 0 version   1 zero   2 crc32c of key and all but itself   6 LSN   14 time, ms   22 place in its
//!           transaction   26 time to live, s   30 body
//! row:      0 version   1 zero   2 crc32c of key and all but itself   6 value
//! ```
//! The checksum covers the key too, so a value that turns up under another key is found out.
//! (redb does not check what it reads; a flipped bit would be served as it is.)

use super::ViewReadError;
use crate::model::ids::Lsn;
use crate::model::time::Timestamp;

/// Version 1 of a document has its body at byte 22.
const VERSION: u8 = 2;
const PREFIX: usize = 6;
/// Bytes before a document's body.
const DOCUMENT_HEAD: usize = 30;

/// Version, time and body of a stored document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) lsn: Lsn,
    pub(super) at: Timestamp,
    pub(super) within: u32,
    pub(super) ttl: i32,
    pub(super) body: &'a [u8],
}

/// Length of a sealed document with a body of this length.
pub(super) fn document_len(body: usize) -> usize {
    DOCUMENT_HEAD + body
}

/// Writes a document into `out`, which has [`document_len`] bytes.
pub(super) fn seal_document(key: &[u8], document: Document<'_>, out: &mut [u8]) {
    let mut head = [0; DOCUMENT_HEAD - PREFIX];
    let fields = [
        &document.lsn.0.to_le_bytes()[..],
        &document.at.0.to_le_bytes()[..],
        &document.within.to_le_bytes()[..],
        &document.ttl.to_le_bytes()[..],
    ];
    for (place, byte) in head.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(begin(key), &head), document.body);
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
    let (at, rest) = rest.split_first_chunk::<8>().ok_or(ViewReadError::Corrupt)?;
    let (lsn, at) = (Lsn(u64::from_le_bytes(*lsn)), Timestamp(u64::from_le_bytes(*at)));
    if sealed.first() == Some(&1) {
        return Ok(Document { lsn, at, within: 0, ttl: 0, body: rest });
    }
    let (within, rest) = rest.split_first_chunk::<4>().ok_or(ViewReadError::Corrupt)?;
    let (ttl, body) = rest.split_first_chunk::<4>().ok_or(ViewReadError::Corrupt)?;
    let (within, ttl) = (u32::from_le_bytes(*within), i32::from_le_bytes(*ttl));
    Ok(Document { lsn, at, within, ttl, body })
}

/// Length of a sealed row with a value of this length.
pub(super) fn row_len(value: usize) -> usize {
    PREFIX + value
}

/// Writes a row's value with its checksum into `out`, which has [`row_len`] bytes.
pub(super) fn seal_row(key: &[u8], value: &[u8], out: &mut [u8]) {
    let crc = crc32c::crc32c_append(begin(key), value);
    let (prefix, place) = out.split_at_mut(PREFIX);
    prefix.copy_from_slice(&prefix_bytes(crc));
    place.copy_from_slice(value);
}

/// Checks and reads a row's value.
pub(super) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], ViewReadError> {
    let (prefix, value) = sealed.split_first_chunk::<PREFIX>().ok_or(ViewReadError::Corrupt)?;
    let [version, zero, crc @ ..] = prefix;
    // Version 1 left its own byte out of the checksum.
    let head = if *version == 1 { &[][..] } else { &[*version, *zero][..] };
    let crc_found = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), head), value);
    if *version == 0 || crc_found != u32::from_le_bytes(*crc) {
        return Err(ViewReadError::Corrupt);
    }
    if *version > VERSION {
        return Err(ViewReadError::Newer);
    }
    Ok(value)
}

/// The checksum of a value before its bytes.
fn begin(key: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), &[VERSION, 0])
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
        let document =
            Document { lsn: Lsn(7), at: Timestamp(9), within: 3, ttl: -1, body: b"{\"id\":\"x\"}" };
        let mut sealed = vec![0; document_len(document.body.len())];
        seal_document(b"key", document, &mut sealed);
        assert_eq!(open_document(b"key", &sealed), Ok(document));
        assert_eq!(open_document(b"kez", &sealed), Err(ViewReadError::Corrupt));
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_document(b"key", &bad).is_err(), "bit {bit}");
        }
    }
}
