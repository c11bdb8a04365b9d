//! The documents that a plan looks at, one after the other, in an order that stays the same.
//!
//! A position is the number of the shard and then, for a scan, the rest of the document's key; for an
//! index, the rest of the partition (with its length before it) and the rest of the entry.
//! Invariants: what changed lately and is not in the view yet is seen at its place; an entry of an index
//! that does not fit its document any more is passed over.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use serde_json::Value;

use super::Target;
use crate::directory::shows;
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::change::Table;
use crate::model::ids::{DocumentId, Etag, Position};
use crate::model::order_key::{MAX_KEY, Truncated, encode_bounded, prefix_range, span, successor};
use crate::model::time::Timestamp;
use crate::partition::{cut_note, index_entry, index_prefix};
use crate::policy::container::{Index, Path};
use crate::query::{Access, IndexRange, Start};
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::{KeyedDocument, StoredDocument, ViewReadError};

/// Documents read at once.
const CHUNK: usize = 128;
/// Bytes of them, about.
const CHUNK_BYTES: usize = 1 << 20;

/// What a source has read so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

/// A document at its place.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) position: Vec<u8>,
    pub(super) document: Value,
}

/// How documents are found.
#[derive(Debug)]
enum Way {
    Scan,
    Ids(Vec<DocumentId>),
    Index { id: u32, paths: Vec<Path>, ranges: Vec<IndexRange>, descending: bool },
}

#[derive(Debug)]
pub(super) struct Source {
    target: Target,
    now: Timestamp,
    way: Way,
    /// Which shard is read.
    leg: usize,
    /// Where in the shard: a document's key, or an entry of an index.
    after: Option<Vec<u8>>,
    /// Whether what stands at `after` is wanted too.
    inclusive: bool,
    /// The partition whose index is read.
    partition: Option<EncodedPartition>,
    /// Which of the index's ranges.
    range: usize,
    pub(super) work: Work,
}

impl Source {
    /// A source that begins at the front.
    pub(super) fn new(target: Target, access: &Access, indexes: &[Index], now: Timestamp) -> Self {
        let way = match access {
            Access::Ids(ids) if target.partition.is_some() => {
                // What cannot be an id is not there.
                Way::Ids(ids.iter().filter_map(|id| DocumentId::new(id).ok()).collect())
            }
            Access::Index { index, ranges, descending } => match indexes.get(*index) {
                Some(index) => Way::Index {
                    id: index.id(),
                    paths: index.paths.clone(),
                    ranges: ranges.clone(),
                    descending: *descending,
                },
                None => Way::Scan,
            },
            Access::Nothing | Access::Scan | Access::Ids(_) => Way::Scan,
        };
        let (after, partition, work) = (None, None, Work::default());
        Self { target, now, way, leg: 0, after, inclusive: false, partition, range: 0, work }
    }

    /// Goes to where a page before has ended. `false` if that is no position of this source.
    pub(super) fn go_to(&mut self, start: Start<'_>) -> bool {
        let (position, inclusive) = match start {
            Start::Beginning => return true,
            Start::At(position) => (position, true),
            Start::After(position) => (position, false),
        };
        let Some((shard, rest)) = position.split_first_chunk::<2>() else { return false };
        let shard = u16::from_be_bytes(*shard);
        let Some(leg) = self.target.shards.iter().position(|found| found.id().0 == shard) else {
            return false;
        };
        (self.leg, self.inclusive) = (leg, inclusive);
        if !matches!(self.way, Way::Index { .. }) {
            self.after = Some([self.target.prefix.as_slice(), rest].concat());
            return true;
        }
        let Some((len, rest)) = rest.split_first_chunk::<2>() else { return false };
        let Some((partition, entry)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))) else {
            return false;
        };
        let partition = [self.target.prefix.as_slice(), partition].concat();
        self.partition = Some(EncodedPartition::from_bytes(partition.into()));
        self.after = Some(entry.to_vec());
        true
    }

    /// Whether the index that is read holds values that were too long for it: their order is not
    /// that of the values.
    pub(super) fn is_cut(&self) -> Result<bool, ShardReadError> {
        let (Way::Index { id, .. }, Some(partition)) = (&self.way, &self.target.partition) else {
            return Ok(false);
        };
        let Some(shard) = self.target.shards.first() else { return Ok(false) };
        // The note of a document that is not in the view yet would be seen too late.
        let recent = shard.recent(partition.as_bytes());
        let long =
            recent.iter().any(|(_, found)| found.as_ref().is_some_and(|found| found.body.len() > MAX_KEY));
        Ok(long || shard.view()?.row(Table::Index, &cut_note(partition, *id))?.is_some())
    }

    /// The next documents; none for a while does not mean the end, `None` does.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Found>>, ShardReadError> {
        let Some(shard) = self.target.shards.get(self.leg).cloned() else { return Ok(None) };
        match self.way {
            Way::Scan => self.scan(&shard).map(Some),
            Way::Ids(_) => self.by_ids(&shard).map(Some),
            Way::Index { .. } => self.by_index(&shard).map(Some),
        }
    }

    fn next_leg(&mut self) {
        self.leg += 1;
        (self.after, self.inclusive, self.partition, self.range) = (None, false, None, 0);
    }

    fn scan(&mut self, shard: &ShardHandle) -> Result<Vec<Found>, ShardReadError> {
        let mut found = Vec::with_capacity(CHUNK);
        if std::mem::take(&mut self.inclusive)
            && let Some(key) = self.after.clone()
        {
            found.extend(self.at(shard, &key)?);
        }
        let after = self.after.as_deref();
        let page = match &self.target.partition {
            Some(partition) => shard.list(partition, after, CHUNK, CHUNK_BYTES)?,
            None => shard.scan(&self.target.prefix, after, CHUNK, CHUNK_BYTES)?,
        };
        self.after = page.documents.last().map(|found| found.key.to_vec());
        for keyed in &page.documents {
            let position = self.position(shard, &keyed.key);
            found.extend(self.take(shard, keyed)?.map(|document| Found { position, document }));
        }
        if !page.more {
            self.next_leg();
        }
        Ok(found)
    }

    fn by_ids(&mut self, shard: &ShardHandle) -> Result<Vec<Found>, ShardReadError> {
        let (Way::Ids(ids), Some(partition)) = (&self.way, self.target.partition.clone()) else {
            return Ok(Vec::new());
        };
        let keys: Vec<_> = ids.iter().map(|id| partition.document(id)).collect();
        let begun = self.after.take();
        let inclusive = self.inclusive;
        let mut found = Vec::new();
        for key in keys {
            let passed = begun.as_ref().is_some_and(|after| key < *after || (!inclusive && key == *after));
            if !passed {
                found.extend(self.at(shard, &key)?);
            }
        }
        self.next_leg();
        Ok(found)
    }

    /// The document with this key, if it is there.
    fn at(&mut self, shard: &ShardHandle, key: &[u8]) -> Result<Option<Found>, ShardReadError> {
        let Some(end) = partition_len(key) else { return Ok(None) };
        let (Some(partition), Some(id)) = (key.get(..end), key.get(end..)) else { return Ok(None) };
        let Some(id) = std::str::from_utf8(id).ok().and_then(|id| DocumentId::new(id).ok()) else {
            return Ok(None);
        };
        let partition = EncodedPartition::from_bytes(Bytes::copy_from_slice(partition));
        let Some(document) = shard.document(&partition, &id)? else { return Ok(None) };
        let keyed = KeyedDocument { key: Bytes::copy_from_slice(key), document };
        let position = self.position(shard, key);
        Ok(self.take(shard, &keyed)?.map(|document| Found { position, document }))
    }

    fn by_index(&mut self, shard: &ShardHandle) -> Result<Vec<Found>, ShardReadError> {
        let Some(partition) = self.partition_of_index(shard)? else {
            self.next_leg();
            return Ok(Vec::new());
        };
        let Way::Index { id, paths, ranges, descending } = &self.way else { return Ok(Vec::new()) };
        let (id, paths, descending) = (*id, paths.clone(), *descending);
        let Some(range) = ranges.get(self.range) else {
            self.leave_partition(partition);
            return Ok(Vec::new());
        };
        let base = index_prefix(&partition, id);
        let (mut lower, mut upper) = bounds(&base, range);
        if let Some(entry) = &self.after {
            let entry = [base.as_slice(), entry].concat();
            let edge =
                if self.inclusive { Bound::Included(entry.clone()) } else { Bound::Excluded(entry.clone()) };
            let outside = if descending { entry < lower_of(&lower) } else { entry >= upper };
            if outside {
                self.range += 1;
                return Ok(Vec::new());
            }
            if descending && entry < upper {
                upper = successor_if(&entry, self.inclusive);
            } else if !descending && entry >= lower_of(&lower) {
                lower = edge;
            }
        }
        // The overlay first: what it loses meanwhile is in the view.
        let recent: BTreeMap<_, _> = shard.recent(partition.as_bytes()).into_iter().collect();
        let span = (lower.as_ref().map(Vec::as_slice), Bound::Excluded(upper.as_slice()));
        let page = shard.view()?.entries(&partition, span, descending, CHUNK, CHUNK_BYTES)?;
        self.work.entries += page.entries.len();
        let last = page.entries.last().map(|(entry, _)| entry.clone()).filter(|_| page.more);
        let mut entries: Vec<(Vec<u8>, KeyedDocument)> = Vec::with_capacity(page.entries.len());
        for (entry, keyed) in page.entries {
            let known = keyed.filter(|keyed| !recent.contains_key(keyed.key.as_ref()));
            entries.extend(known.map(|keyed| (entry.to_vec(), keyed)));
        }
        for (key, document) in recent {
            let Some(document) = document else { continue };
            let entry = index_entry(&partition, &paths, &document.id, &parsed(&document)?);
            let above = match &lower {
                Bound::Included(lower) => entry >= *lower,
                Bound::Excluded(lower) => entry > *lower,
                Bound::Unbounded => true,
            };
            let reached = last.as_ref().is_none_or(|last| {
                if descending { entry.as_slice() >= last.as_ref() } else { entry.as_slice() <= last.as_ref() }
            });
            if above && entry < upper && reached {
                entries.push((entry, KeyedDocument { key: key.into(), document }));
            }
        }
        entries.sort_unstable_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
        self.inclusive = false;
        match last {
            Some(last) => self.after = last.get(base.len()..).map(<[u8]>::to_vec),
            None => {
                self.range += 1;
                self.after = None;
            }
        }
        let mut found = Vec::with_capacity(entries.len());
        for (entry, keyed) in entries {
            let document = parsed(&keyed.document)?;
            if index_entry(&partition, &paths, &keyed.document.id, &document) != entry {
                continue;
            }
            let position =
                self.index_position(shard, &partition, entry.get(base.len()..).unwrap_or_default());
            found.extend(self.take(shard, &keyed)?.map(|document| Found { position, document }));
        }
        Ok(found)
    }

    /// The partition whose index is read now, or the next one of the scope.
    fn partition_of_index(
        &mut self,
        shard: &ShardHandle,
    ) -> Result<Option<EncodedPartition>, ShardReadError> {
        if let Some(whole) = &self.target.partition {
            // A scope of one partition has left it when it has no range left.
            let Way::Index { ranges, .. } = &self.way else { return Ok(None) };
            return Ok((self.range < ranges.len()).then(|| whole.clone()));
        }
        if let Some(partition) = &self.partition
            && self.range != usize::MAX
        {
            return Ok(Some(partition.clone()));
        }
        // Ids are UTF-8, in which no byte is 0xFF: this is behind all documents of the partition.
        let after = self.partition.as_ref().map(|before| [before.as_bytes().as_ref(), &[u8::MAX]].concat());
        let page = shard.scan(&self.target.prefix, after.as_deref(), 1, 1)?;
        let next = page.documents.first().and_then(|found| {
            let end = partition_len(&found.key)?;
            Some(EncodedPartition::from_bytes(found.key.get(..end).map(Bytes::copy_from_slice)?))
        });
        self.partition.clone_from(&next);
        (self.range, self.after) = (0, None);
        Ok(next)
    }

    fn leave_partition(&mut self, partition: EncodedPartition) {
        self.partition = Some(partition);
        self.range = usize::MAX;
        self.after = None;
    }

    /// Counts a document, and makes it what queries see, if anybody sees it.
    fn take(&mut self, shard: &ShardHandle, keyed: &KeyedDocument) -> Result<Option<Value>, ShardReadError> {
        let found = &keyed.document;
        self.work.rows += 1;
        self.work.bytes += found.body.len();
        if !shows(&self.target.container, shard, &keyed.key, found, self.now) {
            return Ok(None);
        }
        let mut document = parsed(found)?;
        if let Some(properties) = document.as_object_mut() {
            let etag = Etag(Position { shard: shard.id(), lsn: found.lsn });
            properties.insert("_etag".to_owned(), etag.to_string().into());
            properties.insert("_ts".to_owned(), found.at.seconds().into());
            properties.insert("_lsn".to_owned(), found.version().transaction().0.into());
        }
        Ok(Some(document))
    }

    fn position(&self, shard: &ShardHandle, key: &[u8]) -> Vec<u8> {
        let rest = key.get(self.target.prefix.len()..).unwrap_or_default();
        [&shard.id().0.to_be_bytes(), rest].concat()
    }

    fn index_position(&self, shard: &ShardHandle, partition: &EncodedPartition, entry: &[u8]) -> Vec<u8> {
        let rest = partition.as_bytes().get(self.target.prefix.len()..).unwrap_or_default();
        let len = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&shard.id().0.to_be_bytes(), &len[..], rest, entry].concat()
    }
}

fn parsed(found: &StoredDocument) -> Result<Value, ShardReadError> {
    serde_json::from_slice(&found.body).map_err(|_| ViewReadError::Corrupt.into())
}

fn lower_of(lower: &Bound<Vec<u8>>) -> Vec<u8> {
    match lower {
        Bound::Included(lower) | Bound::Excluded(lower) => lower.clone(),
        Bound::Unbounded => Vec::new(),
    }
}

/// The first key behind `entry`, or `entry` itself where it is not wanted any more.
fn successor_if(entry: &[u8], inclusive: bool) -> Vec<u8> {
    let mut end = entry.to_vec();
    if inclusive {
        end.push(0);
    }
    end
}

/// The first entry of a range, and the first behind it. The note about cut values, which stands behind
/// all entries, is never in a range.
fn bounds(base: &[u8], range: &IndexRange) -> (Bound<Vec<u8>>, Vec<u8>) {
    let mut begin = base.to_vec();
    for value in &range.equal {
        // A cut value is looked at again in its document.
        let Truncated(_) = encode_bounded(Some(value), MAX_KEY, &mut begin);
    }
    let joined = |rest: Vec<u8>| [begin.as_slice(), &rest].concat();
    let end_of_all = || {
        let behind = [base, &[u8::MAX]].concat();
        if range.equal.is_empty() { behind } else { successor(&begin).unwrap_or(behind) }
    };
    if let Some(prefix) = &range.string_prefix {
        let span = prefix_range(prefix, MAX_KEY);
        return (Bound::Included(joined(span.lower)), span.upper.map_or_else(end_of_all, joined));
    }
    let class = |value: &Value| {
        let first = span(Some(value), MAX_KEY).lower;
        first.first().copied().unwrap_or_default()
    };
    let lower = match &range.lower {
        Bound::Included(value) => Some(span(Some(value), MAX_KEY).lower),
        Bound::Excluded(value) => {
            let span = span(Some(value), MAX_KEY);
            if span.exact { span.upper } else { Some(span.lower) }
        }
        Bound::Unbounded => match &range.upper {
            Bound::Included(value) | Bound::Excluded(value) => Some(vec![class(value)]),
            Bound::Unbounded => None,
        },
    };
    let upper = match &range.upper {
        Bound::Included(value) => span(Some(value), MAX_KEY).upper,
        Bound::Excluded(value) => {
            let span = span(Some(value), MAX_KEY);
            if span.exact { Some(span.lower) } else { span.upper }
        }
        Bound::Unbounded => match &range.lower {
            Bound::Included(value) | Bound::Excluded(value) => Some(vec![class(value).saturating_add(1)]),
            Bound::Unbounded => None,
        },
    };
    let lower = lower.map_or_else(|| begin.clone(), joined);
    (Bound::Included(lower), upper.map_or_else(end_of_all, joined))
}
