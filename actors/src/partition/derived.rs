//! Rows that are made from a document: who holds a unique key, entries of indexes, when it expires. Pure.
//!
//! Invariant: the rows of a document follow from the document and its container alone, so that those of
//! an earlier version can be told and taken away.

use bytes::Bytes;
use serde_json::Value;

use crate::model::address::EncodedPartition;
use crate::model::change::{RowChange, Table};
use crate::model::ids::DocumentId;
use crate::model::json::value_at;
use crate::model::order_key::{MAX_KEY, Truncated, encode_bounded};
use crate::model::time::Timestamp;
use crate::policy::container::{Container, Path, paths_id};
use crate::policy::ttl::{ItemTtl, expires};

/// A row of a document, and, for a unique key, which constraint it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Derived {
    pub(super) table: Table,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// Where a document stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) container: &'a Container,
    pub(super) partition: &'a EncodedPartition,
    pub(super) id: &'a DocumentId,
}

impl Place<'_> {
    /// All rows of one version of the document.
    pub(super) fn rows(&self, document: &Value, at: Timestamp, ttl: ItemTtl) -> Vec<Derived> {
        let unique = self.container.unique.iter().map(|paths| self.unique(paths, document));
        let indexes = self.container.indexes.iter().flat_map(|index| self.entry(&index.paths, document));
        unique.chain(indexes).chain(self.expiry(at, ttl)).collect()
    }

    /// The row of the expiry alone, for a container that has no others.
    pub(super) fn expiry(&self, at: Timestamp, ttl: ItemTtl) -> Option<Derived> {
        let ItemTtl::Seconds(_) = ttl else { return None };
        // The row is made although the container may have no expiry now: it may have one tomorrow.
        let end = expires(at, ttl, crate::policy::ttl::ContainerTtl::NoDefault)?;
        let (container, rest) = self.partition.split_container();
        let key = [container, &end.0.to_be_bytes(), rest, self.id.as_str().as_bytes()].concat();
        Some(Derived { table: Table::Expiry, key: key.into(), value: Bytes::new() })
    }

    fn unique(&self, paths: &[Path], document: &Value) -> Derived {
        let mut key = self.begin(paths);
        for path in paths {
            // What is missing counts as null, and null is a value.
            let value = value_at(document, path).unwrap_or(&Value::Null);
            // Of a value that is cut, the hash keeps it apart from others.
            let Truncated(_) = encode_bounded(Some(value), MAX_KEY, &mut key);
        }
        Derived { table: Table::Unique, key: key.into(), value: self.id_bytes() }
    }

    fn entry(&self, paths: &[Path], document: &Value) -> impl Iterator<Item = Derived> {
        let rows = index_rows(self.partition, paths, self.id, document).into_iter();
        rows.map(|(key, value)| Derived { table: Table::Index, key, value })
    }

    fn begin(&self, paths: &[Path]) -> Vec<u8> {
        index_prefix(self.partition, paths_id(paths))
    }

    fn id_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.id.as_str().as_bytes())
    }
}

/// Rows of a document in the index of these paths, key and value: its entry, and where a value was too
/// long for it the note that says so.
pub fn index_rows(
    partition: &EncodedPartition,
    paths: &[Path],
    id: &DocumentId,
    document: &Value,
) -> Vec<(Bytes, Bytes)> {
    let (key, cut) = entry(partition, paths, id, document);
    let mut rows = vec![(key.into(), Bytes::copy_from_slice(id.as_str().as_bytes()))];
    if cut {
        rows.push((cut_note(partition, paths_id(paths)), Bytes::new()));
    }
    rows
}

/// Key of a document's entry in the index of these paths.
pub fn index_entry(
    partition: &EncodedPartition,
    paths: &[Path],
    id: &DocumentId,
    document: &Value,
) -> Vec<u8> {
    entry(partition, paths, id, document).0
}

/// The same, and whether a value was cut.
fn entry(partition: &EncodedPartition, paths: &[Path], id: &DocumentId, document: &Value) -> (Vec<u8>, bool) {
    let mut key = index_prefix(partition, paths_id(paths));
    let mut cut = false;
    for path in paths {
        cut |= encode_bounded(value_at(document, path), MAX_KEY, &mut key).0;
    }
    key.extend_from_slice(id.as_str().as_bytes());
    (key, cut)
}

/// What the keys of an index of a partition begin with.
pub fn index_prefix(partition: &EncodedPartition, index: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(partition.as_bytes().len() + 64);
    key.extend_from_slice(partition.as_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The row that says that a value of the index was too long to be kept whole, now or once: its entries
/// are then found, but their order is not that of the values. It stands behind all entries.
pub fn cut_note(partition: &EncodedPartition, index: u32) -> Bytes {
    let mut key = index_prefix(partition, index);
    key.push(u8::MAX);
    key.into()
}

/// What must change when a version with `old` rows becomes one with `new` rows.
pub(super) fn difference(old: &[Derived], new: &[Derived]) -> Vec<RowChange> {
    let change =
        |row: &Derived, value: Option<Bytes>| RowChange { table: row.table, key: row.key.clone(), value };
    let note = |row: &Derived| row.table == Table::Index && row.value.is_empty();
    // A note stays: other documents may be the reason for it.
    let gone = old.iter().filter(|row| !new.contains(row) && !note(row)).map(|row| change(row, None));
    let made = new.iter().filter(|row| !old.contains(row)).map(|row| change(row, Some(row.value.clone())));
    gone.chain(made).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::address::{KeyPart, PartitionAddress};
    use crate::model::document::DocumentRules;
    use crate::policy::container::Index;

    fn container() -> Container {
        let rules = DocumentRules { key: Vec::new(), max_bytes: 1 << 20, max_depth: 32 };
        let path = |name: &str| vec![name.to_owned()];
        Container {
            unique: vec![vec![path("code")]],
            indexes: vec![Index { paths: vec![path("n")] }],
            ..Container::plain("loads".into(), rules)
        }
    }

    fn rows(container: &Container, document: &Value, ttl: ItemTtl) -> Vec<Derived> {
        let key = vec![KeyPart::Null];
        let partition = PartitionAddress { container: "loads".into(), tenant: None, key }.encode();
        let id = DocumentId::new("x").unwrap();
        Place { container, partition: &partition, id: &id }.rows(document, Timestamp(5_500), ttl)
    }

    #[test]
    fn what_stays_is_not_written_again_and_a_note_is_never_taken_away() {
        let container = container();
        let long = json!({"code": 1, "n": "x".repeat(2_000)});
        let short = json!({"code": 1, "n": "x"});
        let before = rows(&container, &long, ItemTtl::Seconds(3));
        let tables: Vec<_> = before.iter().map(|row| row.table).collect();
        assert_eq!(tables, [Table::Unique, Table::Index, Table::Index, Table::Expiry]);
        assert_eq!(difference(&before, &before), []);
        let after = rows(&container, &short, ItemTtl::Seconds(3));
        let changes = difference(&before, &after);
        let told: Vec<_> = changes.iter().map(|change| (change.table, change.value.is_some())).collect();
        assert_eq!(told, [(Table::Index, false), (Table::Index, true)]);
        assert!(changes.iter().all(|change| change.key.last() != Some(&u8::MAX)));
        // Taken away, all go but the note.
        let gone: Vec<_> = difference(&before, &[]).iter().map(|change| change.table).collect();
        assert_eq!(gone, [Table::Unique, Table::Index, Table::Expiry]);
    }

    #[test]
    fn what_is_missing_is_null_to_a_unique_key_and_nothing_to_an_index() {
        let container = container();
        let (missing, null) = (json!({}), json!({"code": null, "n": null}));
        let [missing, null] = [missing, null].map(|document| rows(&container, &document, ItemTtl::Never));
        assert_eq!(missing.len(), 2, "without seconds to live there is no expiry");
        assert_eq!(missing.first(), null.first());
        assert_ne!(missing.last(), null.last());
    }

    #[test]
    fn an_expiry_sorts_by_time_within_its_container() {
        let container = container();
        let expiry = |seconds: u32| rows(&container, &json!({}), ItemTtl::Seconds(seconds)).pop().unwrap();
        assert!(expiry(1).key < expiry(2).key && expiry(2).key < expiry(300).key);
        assert_eq!(expiry(1).key.get(..14), Some(&b"loads\0\0\0\0\0\0\0\x17\x70"[..]), "6,000 ms");
    }
}
