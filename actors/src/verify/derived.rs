//! Rows that are made from documents: each leads to a document that is there, or it would keep a unique
//! key from being used, or an expiry from being the document's.
//!
//! Whether a document has all of its rows is not asked: that depends on the manifest, which is not at hand.
//! Entries of indexes may stand for nothing: readers compare each with its document.

use bytes::Bytes;

use super::shard::{Report, each_row};
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::change::Table;
use crate::model::ids::DocumentId;
use crate::policy::ttl::{ContainerTtl, ItemTtl, expires};
use crate::store::{StoredDocument, View};

/// Checks all of them. What cannot be read was reported with the documents.
pub(super) fn check(view: &View, report: &mut Report<'_>) {
    each_row(view, Table::Unique, report, &mut |key, id, report| {
        if leads_nowhere(view, key, id) {
            report(format!("the unique key {key:?} is held by a document that is not there"));
        }
    });
    each_row(view, Table::Expiry, report, &mut |key, _, report| {
        if let Some(what) = ends_nothing(view, key) {
            report(format!("the expiry at {key:?} {what}"));
        }
    });
}

/// A row whose key begins with the partition, and whose value is the id.
fn leads_nowhere(view: &View, key: &[u8], id: &[u8]) -> bool {
    let partition = partition_len(key).and_then(|len| key.get(..len));
    let key = partition.map(|partition| [partition, id].concat());
    key.is_none_or(|key| matches!(document(view, &key), Ok(None)))
}

/// What is wrong with a row of the expiry, if anything is.
fn ends_nothing(view: &View, key: &[u8]) -> Option<&'static str> {
    let space = key.iter().position(|&byte| byte == 0).and_then(|end| key.split_at_checked(end + 1));
    let parts = space.and_then(|(space, rest)| Some((space, rest.split_first_chunk::<8>()?)));
    let Some((space, (end, rest))) = parts else { return Some("cannot be read") };
    if space.len() == 1 {
        // The end of a request's record. Its key may have been used again, with another end.
        let record = view.row(Table::Idempotency, rest);
        return matches!(record, Ok(None)).then_some("ends a request that is not there");
    }
    let found = match document(view, &[space, rest].concat()) {
        Ok(Some(found)) => found,
        Ok(None) => return Some("ends a document that is not there"),
        Err(()) => return None,
    };
    let ttl = ItemTtl::from_i32(found.ttl).unwrap_or_default();
    let own = expires(found.at, ttl, ContainerTtl::NoDefault);
    let agrees = own.is_some_and(|own| own.0.to_be_bytes() == *end);
    (!agrees).then_some("is not that of its document")
}

/// The document with this key; an error when it cannot be read.
fn document(view: &View, key: &[u8]) -> Result<Option<StoredDocument>, ()> {
    let parts = partition_len(key).and_then(|len| key.split_at_checked(len));
    let id = parts.and_then(|(_, id)| DocumentId::new(std::str::from_utf8(id).ok()?).ok());
    let (Some((partition, _)), Some(id)) = (parts, id) else { return Ok(None) };
    let partition = EncodedPartition::from_bytes(Bytes::copy_from_slice(partition));
    view.document(&partition, &id).map_err(|_| ())
}
