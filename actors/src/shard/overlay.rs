//! Documents that are durable but not yet in the view, so that a write is answered, and seen, as
//! soon as it is on disk, while the view takes its groups in larger steps.
//!
//! Invariants: an entry is added after its record was synced and before its writer is answered;
//! it is removed only after the view has it, so a reader that asks here first and the view second
//! misses nothing. Bounded by the apply lag.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::address::EncodedPartition;
use crate::model::change::{CommittedGroup, DocumentChange, Table};
use crate::model::ids::{DocumentId, Lsn};
use crate::store::{KeyedDocument, Page, StoredDocument, Version};

/// Parts, so that readers of different partitions seldom meet at a lock.
const PARTS: usize = 16;
/// Memory of a cached document beside its key and body, about.
const CACHED: usize = 160;

/// What the log says of a document, when the view may not know it yet.
#[derive(Debug, Clone)]
pub(super) enum Recent {
    Present(StoredDocument),
    Gone(Lsn),
}

impl Recent {
    fn lsn(&self) -> Lsn {
        match self {
            Self::Present(document) => document.lsn,
            Self::Gone(lsn) => *lsn,
        }
    }

    pub(super) fn document(self) -> Option<StoredDocument> {
        match self {
            Self::Present(document) => Some(document),
            Self::Gone(_) => None,
        }
    }

    pub(super) fn version(&self) -> Option<Version> {
        match self {
            Self::Present(document) => Some(document.version()),
            Self::Gone(_) => None,
        }
    }
}

/// Documents that changed lately, by their keys.
pub(super) type RecentDocuments = Vec<(Vec<u8>, Recent)>;

#[derive(Debug, Default)]
struct Part {
    documents: BTreeMap<Vec<u8>, Recent>,
    /// Rows that partitions read while they decide; `None` is a row that is gone.
    rows: BTreeMap<(u8, Bytes), (Lsn, Option<Bytes>)>,
    /// Counts what was added, so that nobody caches what he read before.
    added: u64,
}

/// Weighs a cached document in bytes.
#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Vec<u8>, StoredDocument> for Weight {
    fn weight(&self, key: &Vec<u8>, document: &StoredDocument) -> u64 {
        (CACHED + key.len() + document.id.as_str().len() + document.body.len()) as u64
    }
}

#[derive(Debug)]
pub(super) struct Overlay {
    parts: [RwLock<Part>; PARTS],
    /// Documents that were read from the view. Never stale: whatever is added here is dropped
    /// there under the same lock, and nothing is put in that was read before.
    cache: Cache<Vec<u8>, StoredDocument, Weight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What must still be true when a document that was read is put into the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen(u64);

impl Overlay {
    /// An overlay with a cache of about `cache_bytes`.
    pub(super) fn new(cache_bytes: usize) -> Self {
        let items = (cache_bytes / (CACHED + 1_024)).max(1);
        let cache = Cache::with_weighter(items, cache_bytes as u64, Weight);
        Self { parts: Default::default(), cache, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn part(&self, partition: &EncodedPartition) -> &RwLock<Part> {
        let hash = twox_hash::XxHash3_64::oneshot(partition.as_bytes());
        let [first, ..] = &self.parts;
        self.parts.get(usize::try_from(hash >> 40).unwrap_or(0) % PARTS).unwrap_or(first)
    }

    fn read(&self, partition: &EncodedPartition) -> RwLockReadGuard<'_, Part> {
        self.part(partition).read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what a synced group did.
    pub(super) fn add(&self, group: &CommittedGroup) {
        for (lsn, change) in group.changes() {
            let recent = recent(lsn, change);
            let key = change.partition.document(&change.id);
            let mut part = self.part(&change.partition).write().unwrap_or_else(PoisonError::into_inner);
            part.added += 1;
            self.cache.remove(&key);
            part.documents.insert(key, recent);
            for row in change.rows.iter().filter(|row| row.table.is_read_by_partitions()) {
                part.rows.insert((row.table as u8, row.key.clone()), (lsn, row.stored(lsn)));
            }
        }
    }

    /// Forgets what the view has now, unless something newer stands there.
    pub(super) fn remove(&self, group: &CommittedGroup) {
        for (lsn, change) in group.changes() {
            let key = change.partition.document(&change.id);
            let mut part = self.part(&change.partition).write().unwrap_or_else(PoisonError::into_inner);
            if part.documents.get(&key).is_some_and(|recent| recent.lsn() == lsn) {
                part.documents.remove(&key);
            }
            for row in change.rows.iter().filter(|row| row.table.is_read_by_partitions()) {
                let place = (row.table as u8, row.key.clone());
                if part.rows.get(&place).is_some_and(|(at, _)| *at == lsn) {
                    part.rows.remove(&place);
                }
            }
        }
    }

    /// What is known of one document, if it changed lately.
    pub(super) fn get(&self, partition: &EncodedPartition, id: &DocumentId) -> Option<Recent> {
        let part = self.read(partition);
        if part.documents.is_empty() {
            return None;
        }
        part.documents.get(&partition.document(id)).cloned()
    }

    /// What is known of one document: a late change, a cached version, or what a reader of the view
    /// must show to [`keep`](Self::keep) it.
    pub(super) fn find(&self, partition: &EncodedPartition, key: &[u8]) -> Result<Recent, Seen> {
        let part = self.read(partition);
        if let Some(recent) = part.documents.get(key) {
            return Ok(recent.clone());
        }
        match self.cache.get(key) {
            Some(document) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Ok(Recent::Present(document))
            }
            None => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                Err(Seen(part.added))
            }
        }
    }

    /// Keeps a document that was read from the view, unless anything changed in the meantime.
    pub(super) fn keep(
        &self,
        partition: &EncodedPartition,
        key: Vec<u8>,
        document: &StoredDocument,
        seen: Seen,
    ) {
        let part = self.read(partition);
        // Whoever adds waits for this lock, and drops the entry then.
        if part.added == seen.0 {
            self.cache.insert(key, document.clone());
        }
    }

    /// Answers from the cache, and reads that had to go to the view, since the start.
    pub(super) fn cache_counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// A row that partitions read, if it changed lately.
    pub(super) fn row(
        &self,
        partition: &EncodedPartition,
        table: Table,
        key: &Bytes,
    ) -> Option<Option<Bytes>> {
        let part = self.read(partition);
        part.rows.get(&(table as u8, key.clone())).map(|(_, value)| value.clone())
    }

    /// Documents of a partition that changed lately, after the key `after`, in the order of their keys.
    pub(super) fn of_partition(&self, partition: &EncodedPartition, after: Option<&[u8]>) -> RecentDocuments {
        let mut recent = Vec::new();
        collect(&self.read(partition), partition.as_bytes(), after, &mut recent);
        recent
    }

    /// Documents with this prefix that changed lately, in whichever partitions.
    pub(super) fn of_prefix(&self, prefix: &[u8], after: Option<&[u8]>) -> RecentDocuments {
        let mut recent = Vec::new();
        for part in &self.parts {
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            collect(&part, prefix, after, &mut recent);
        }
        recent.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        recent
    }
}

fn collect(part: &Part, prefix: &[u8], after: Option<&[u8]>, recent: &mut RecentDocuments) {
    let start = Bound::Excluded(after.unwrap_or(prefix));
    let range = part.documents.range::<[u8], _>((start, Bound::Unbounded));
    let found = range.take_while(|(key, _)| key.starts_with(prefix));
    recent.extend(found.map(|(key, entry)| (key.clone(), entry.clone())));
}

fn recent(lsn: Lsn, change: &DocumentChange) -> Recent {
    if change.kind.is_removal() {
        return Recent::Gone(lsn);
    }
    let (id, body) = (change.id.clone(), change.body.clone());
    let (at, within, ttl) = (change.at, change.within, change.ttl);
    Recent::Present(StoredDocument { id, lsn, at, within, ttl, body })
}

/// A page of the view with what changed lately laid over it.
pub(super) fn lay_over(page: Page, recent: RecentDocuments, limit: usize) -> Page {
    if recent.is_empty() {
        return page;
    }
    let last = page.documents.last().map(|found| found.key.clone());
    let mut more = page.more;
    let mut documents: BTreeMap<Bytes, StoredDocument> =
        page.documents.into_iter().map(|found| (found.key, found.document)).collect();
    for (key, recent) in recent {
        if more && last.as_ref().is_some_and(|last| key.as_slice() > last.as_ref()) {
            // It belongs to a later page.
            break;
        }
        let key = Bytes::from(key);
        if documents.get(&key).is_some_and(|document| document.lsn >= recent.lsn()) {
            continue;
        }
        match recent {
            Recent::Present(document) => documents.insert(key, document),
            Recent::Gone(_) => documents.remove(&key),
        };
    }
    more |= documents.len() > limit;
    let documents = documents.into_iter().take(limit);
    Page { documents: documents.map(|(key, document)| KeyedDocument { key, document }).collect(), more }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::address::{KeyPart, PartitionAddress};
    use crate::model::change::{ChangeKind, Mutation};
    use crate::model::time::Timestamp;

    fn document(id: &str, lsn: u64) -> StoredDocument {
        let id = DocumentId::new(id).unwrap();
        StoredDocument { id, lsn: Lsn(lsn), at: Timestamp(0), within: 0, ttl: 0, body: Bytes::new() }
    }

    fn keyed(id: &'static str, lsn: u64) -> KeyedDocument {
        KeyedDocument { key: Bytes::from_static(id.as_bytes()), document: document(id, lsn) }
    }

    fn recent(id: &str, lsn: u64, gone: bool) -> (Vec<u8>, Recent) {
        let recent = if gone { Recent::Gone(Lsn(lsn)) } else { Recent::Present(document(id, lsn)) };
        (id.as_bytes().to_vec(), recent)
    }

    #[test]
    fn a_page_shows_the_newest_of_view_and_overlay() {
        let page = Page { documents: vec![keyed("b", 1), keyed("d", 2), keyed("f", 9)], more: true };
        let changes = vec![
            recent("a", 5, false),
            recent("b", 6, true),
            recent("d", 7, false),
            recent("f", 8, true),
            recent("g", 9, false),
        ];
        let laid = lay_over(page, changes, 3);
        let shown: Vec<_> =
            laid.documents.iter().map(|d| (d.document.id.as_str().to_owned(), d.document.lsn.0)).collect();
        assert_eq!(shown, [("a".into(), 5), ("d".into(), 7), ("f".into(), 9)]);
        assert!(laid.more);
    }

    #[test]
    fn a_last_page_takes_all_that_is_new_up_to_its_limit() {
        let page = Page { documents: vec![keyed("b", 1)], more: false };
        let laid = lay_over(page, vec![recent("a", 2, false), recent("c", 3, false)], 2);
        assert_eq!(laid.documents.len(), 2);
        assert!(laid.more);
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_cached_after_it() {
        let overlay = Overlay::new(1 << 20);
        let key = vec![KeyPart::Null];
        let partition = PartitionAddress { container: "c".into(), tenant: None, key }.encode();
        let old = document("x", 1);
        let key = partition.document(&old.id);
        let seen = overlay.find(&partition, &key).unwrap_err();
        overlay.keep(&partition, key.clone(), &old, seen);
        assert!(matches!(overlay.find(&partition, &key), Ok(Recent::Present(found)) if found == old));

        let seen = Seen(overlay.read(&partition).added);
        let change = DocumentChange {
            kind: ChangeKind::Replace,
            partition: partition.clone(),
            id: old.id.clone(),
            at: Timestamp(0),
            previous: None,
            body: Bytes::from_static(b"{}"),
            traceparent: None,
            within: 0,
            ttl: 0,
            rows: Vec::new(),
        };
        let group = CommittedGroup { first: Lsn(2), mutations: Arc::from([Mutation::Document(change)]) };
        overlay.add(&group);
        overlay.keep(&partition, key.clone(), &old, seen);
        overlay.remove(&group);
        assert!(overlay.find(&partition, &key).is_err(), "the version that was read before is served");
    }
}
