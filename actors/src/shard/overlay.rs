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

/// Documents that changed lately, in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct RecentDocuments {
    pub(super) documents: Vec<(Vec<u8>, Recent)>,
    /// The last key up to which they are all there are; `None` when nothing was left out.
    pub(super) upto: Option<Vec<u8>>,
}

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

    /// Documents of a partition that changed lately, after the key `after`: the first `most`.
    pub(super) fn of_partition(
        &self,
        partition: &EncodedPartition,
        after: Option<&[u8]>,
        most: usize,
    ) -> RecentDocuments {
        let mut recent = RecentDocuments::default();
        recent.collect(&self.read(partition), partition.as_bytes(), after, most);
        recent
    }

    /// Documents with this prefix that changed lately, in whichever partitions: at least the first `most`.
    pub(super) fn of_prefix(&self, prefix: &[u8], after: Option<&[u8]>, most: usize) -> RecentDocuments {
        let mut recent = RecentDocuments::default();
        for part in &self.parts {
            recent.collect(&part.read().unwrap_or_else(PoisonError::into_inner), prefix, after, most);
        }
        recent.documents.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(upto) = &recent.upto {
            let known = recent.documents.partition_point(|(key, _)| key <= upto);
            recent.documents.truncate(known);
        }
        recent
    }
}

impl RecentDocuments {
    fn collect(&mut self, part: &Part, prefix: &[u8], after: Option<&[u8]>, most: usize) {
        let start = Bound::Excluded(after.unwrap_or(prefix));
        let range = part.documents.range::<[u8], _>((start, Bound::Unbounded));
        let mut found = range.take_while(|(key, _)| key.starts_with(prefix));
        let taken = found.by_ref().take(most);
        self.documents.extend(taken.map(|(key, entry)| (key.clone(), entry.clone())));
        if found.next().is_some()
            && let Some((last, _)) = self.documents.last()
            && self.upto.as_ref().is_none_or(|upto| last < upto)
        {
            self.upto = Some(last.clone());
        }
    }
}

fn recent(lsn: Lsn, change: &DocumentChange) -> Recent {
    if change.kind.is_removal() {
        return Recent::Gone(lsn);
    }
    let (id, body) = (change.id.clone(), change.body.clone());
    let (at, within, ttl) = (change.at, change.within, change.ttl);
    Recent::Present(StoredDocument { id, lsn, at, within, ttl, body })
}

/// A page of the view with what changed lately laid over it; and, when there is more, the key up to
/// which everything was looked at, seen or gone.
pub(super) fn lay_over(page: Page, recent: RecentDocuments, limit: usize) -> (Page, Option<Bytes>) {
    let RecentDocuments { documents: recent, upto } = recent;
    let last = page.documents.last().map(|found| found.key.clone()).filter(|_| page.more);
    let end = [last, upto.map(Bytes::from)].into_iter().flatten().min();
    let belongs = |key: &[u8]| end.as_ref().is_none_or(|end| key <= end.as_ref());
    let found = page.documents.into_iter().map(|found| (found.key, found.document));
    let mut documents: BTreeMap<Bytes, StoredDocument> = found.filter(|(key, _)| belongs(key)).collect();
    for (key, recent) in recent {
        let key = Bytes::from(key);
        // What lies behind belongs to a later page.
        if !belongs(&key) || documents.get(&key).is_some_and(|document| document.lsn >= recent.lsn()) {
            continue;
        }
        match recent {
            Recent::Present(document) => documents.insert(key, document),
            Recent::Gone(_) => documents.remove(&key),
        };
    }
    let more = end.is_some() || documents.len() > limit;
    let documents = documents.into_iter().take(limit);
    let documents = documents.map(|(key, document)| KeyedDocument { key, document }).collect();
    (Page { documents, more }, end)
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
        let recent = RecentDocuments { documents: changes, upto: None };
        let (laid, _) = lay_over(page, recent, 3);
        let shown: Vec<_> =
            laid.documents.iter().map(|d| (d.document.id.as_str().to_owned(), d.document.lsn.0)).collect();
        assert_eq!(shown, [("a".into(), 5), ("d".into(), 7), ("f".into(), 9)]);
        assert!(laid.more);
    }

    #[test]
    fn a_last_page_takes_all_that_is_new_up_to_its_limit() {
        let page = Page { documents: vec![keyed("b", 1)], more: false };
        let documents = vec![recent("a", 2, false), recent("c", 3, false)];
        let (laid, _) = lay_over(page, RecentDocuments { documents, upto: None }, 2);
        assert_eq!(laid.documents.len(), 2);
        assert!(laid.more);
    }

    #[test]
    fn what_lies_behind_the_changes_that_are_known_belongs_to_a_later_page() {
        let page = Page { documents: vec![keyed("b", 1), keyed("d", 2)], more: false };
        let documents = vec![recent("a", 5, true), recent("b", 6, true)];
        let (laid, end) = lay_over(page, RecentDocuments { documents, upto: Some(b"c".to_vec()) }, 9);
        assert_eq!((laid.documents.len(), laid.more), (0, true));
        assert_eq!(end.as_deref(), Some(&b"c"[..]));
    }

    #[test]
    fn the_first_changes_of_many_are_taken_without_a_gap() {
        let overlay = Overlay::new(1 << 20);
        let change = |lane: u8, id: u8| {
            let key = vec![KeyPart::Number(lane.into())];
            let partition = PartitionAddress { container: "c".into(), tenant: None, key }.encode();
            Mutation::Document(DocumentChange {
                kind: ChangeKind::Create,
                partition,
                id: DocumentId::new(&format!("{id:03}")).unwrap(),
                at: Timestamp(0),
                previous: None,
                body: Bytes::from_static(b"{}"),
                traceparent: None,
                within: 0,
                ttl: 0,
                rows: Vec::new(),
            })
        };
        let mutations: Vec<_> = (0..40).flat_map(|lane| (0..20).map(move |id| change(lane, id))).collect();
        overlay.add(&CommittedGroup { first: Lsn(1), mutations: Arc::from(mutations) });
        let prefix = PartitionAddress::container_prefix("c");
        let all: Vec<_> =
            overlay.of_prefix(&prefix, None, 1_000).documents.into_iter().map(|d| d.0).collect();
        assert_eq!(all.len(), 800);
        let (mut after, mut found) = (None::<Vec<u8>>, Vec::new());
        loop {
            let some = overlay.of_prefix(&prefix, after.as_deref(), 7);
            found.extend(some.documents.into_iter().map(|(key, _)| key));
            match some.upto {
                Some(upto) => after = Some(upto),
                None => break,
            }
        }
        assert_eq!(found, all);
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
