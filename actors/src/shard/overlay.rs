//! Documents that are durable but not yet in the view, so that a write is answered, and seen, as
//! soon as it is on disk, while the view takes its groups in larger steps.
//!
//! Invariants: an entry is added after its record was synced and before its writer is answered;
//! it is removed only after the view has it, so a reader that asks here first and the view second
//! misses nothing. Bounded by the apply lag.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::model::address::EncodedPartition;
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange};
use crate::model::ids::{DocumentId, Lsn};
use crate::store::{Page, StoredDocument};

/// Parts, so that readers of different partitions seldom meet at a lock.
const PARTS: usize = 16;

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
}

type Part = BTreeMap<Vec<u8>, Recent>;

#[derive(Debug, Default)]
pub(super) struct Overlay {
    parts: [RwLock<Part>; PARTS],
}

impl Overlay {
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
            let mut part = self.part(&change.partition).write().unwrap_or_else(PoisonError::into_inner);
            part.insert(change.partition.document(&change.id), recent);
        }
    }

    /// Forgets what the view has now, unless something newer stands there.
    pub(super) fn remove(&self, group: &CommittedGroup) {
        for (lsn, change) in group.changes() {
            let key = change.partition.document(&change.id);
            let mut part = self.part(&change.partition).write().unwrap_or_else(PoisonError::into_inner);
            if part.get(&key).is_some_and(|recent| recent.lsn() == lsn) {
                part.remove(&key);
            }
        }
    }

    /// What is known of one document, if it changed lately.
    pub(super) fn get(&self, partition: &EncodedPartition, id: &DocumentId) -> Option<Recent> {
        let part = self.read(partition);
        if part.is_empty() {
            return None;
        }
        part.get(&partition.document(id)).cloned()
    }

    /// Documents of a partition that changed lately, after `after`, in the order of their ids.
    pub(super) fn range(
        &self,
        partition: &EncodedPartition,
        after: Option<&DocumentId>,
    ) -> Vec<(DocumentId, Recent)> {
        let part = self.read(partition);
        let start = after.map_or_else(|| partition.as_bytes().to_vec(), |id| partition.document(id));
        let mut recent = Vec::new();
        for (key, entry) in part.range((Bound::Excluded(start), Bound::Unbounded)) {
            let Some(id) = key.strip_prefix(partition.as_bytes().as_ref()) else { break };
            let id = std::str::from_utf8(id).ok().and_then(|id| DocumentId::new(id).ok());
            recent.extend(id.map(|id| (id, entry.clone())));
        }
        recent
    }
}

fn recent(lsn: Lsn, change: &DocumentChange) -> Recent {
    if change.kind == ChangeKind::Delete {
        return Recent::Gone(lsn);
    }
    let (id, body) = (change.id.clone(), change.body.clone());
    Recent::Present(StoredDocument { id, lsn, at: change.at, body })
}

/// A page of the view with what changed lately laid over it.
pub(super) fn lay_over(page: Page, recent: Vec<(DocumentId, Recent)>, limit: usize) -> Page {
    if recent.is_empty() {
        return page;
    }
    let last = page.documents.last().map(|document| document.id.clone());
    let mut more = page.more;
    let mut documents: BTreeMap<DocumentId, StoredDocument> =
        page.documents.into_iter().map(|document| (document.id.clone(), document)).collect();
    for (id, recent) in recent {
        if more && last.as_ref().is_some_and(|last| id > *last) {
            // It belongs to a later page.
            break;
        }
        if documents.get(&id).is_some_and(|document| document.lsn >= recent.lsn()) {
            continue;
        }
        match recent {
            Recent::Present(document) => documents.insert(id, document),
            Recent::Gone(_) => documents.remove(&id),
        };
    }
    more |= documents.len() > limit;
    Page { documents: documents.into_values().take(limit).collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    fn document(id: &str, lsn: u64) -> StoredDocument {
        let id = DocumentId::new(id).unwrap();
        StoredDocument { id, lsn: Lsn(lsn), at: Timestamp(0), body: bytes::Bytes::new() }
    }

    fn recent(id: &str, lsn: u64, gone: bool) -> (DocumentId, Recent) {
        let document = document(id, lsn);
        let recent = if gone { Recent::Gone(Lsn(lsn)) } else { Recent::Present(document.clone()) };
        (document.id, recent)
    }

    #[test]
    fn a_page_shows_the_newest_of_view_and_overlay() {
        let page = Page { documents: vec![document("b", 1), document("d", 2), document("f", 9)], more: true };
        let changes = vec![
            recent("a", 5, false),
            recent("b", 6, true),
            recent("d", 7, false),
            recent("f", 8, true),
            recent("g", 9, false),
        ];
        let laid = lay_over(page, changes, 3);
        let shown: Vec<_> = laid.documents.iter().map(|d| (d.id.as_str().to_owned(), d.lsn.0)).collect();
        assert_eq!(shown, [("a".into(), 5), ("d".into(), 7), ("f".into(), 9)]);
        assert!(laid.more);
    }

    #[test]
    fn a_last_page_takes_all_that_is_new_up_to_its_limit() {
        let page = Page { documents: vec![document("b", 1)], more: false };
        let laid = lay_over(page, vec![recent("a", 2, false), recent("c", 3, false)], 2);
        assert_eq!(laid.documents.len(), 2);
        assert!(laid.more);
    }
}
