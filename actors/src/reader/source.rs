//! The documents that a plan looks at, one after the other, in an order that stays the same.
//!
//! A position is the number of the shard and then, for a scan, the rest of the document's key; for an
//! index, the rest of the partition (with its length before it) and the rest of the entry.
//! Invariants: what changed lately and is not in the view yet is seen at its place; an entry of an index
//! that does not fit its document any more is passed over.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use serde_bytes::ByteBuf;
use serde_json::Value;

use super::Target;
use super::continuation::{Place, Way};
use crate::directory::shows;
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::change::Table;
use crate::model::ids::{DocumentId, Etag, Lsn, Position};
use crate::model::order_key::{MAX_KEY, Truncated, encode_bounded, prefix_range, span, successor};
use crate::model::time::Timestamp;
use crate::partition::{cut_note, index_entry, index_prefix, index_rows};
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

/// How documents are found, and what is needed for it.
#[derive(Debug)]
enum Means {
    Scan,
    Ids(Vec<DocumentId>),
    Index { id: u32, paths: Vec<Path>, ranges: Vec<IndexRange>, descending: bool },
}

#[derive(Debug)]
pub(super) struct Source {
    target: Target,
    now: Timestamp,
    means: Means,
    /// Which shard is read.
    leg: usize,
    /// Where in the shard: a document's key, or an entry of an index without the index's prefix.
    after: Option<Vec<u8>>,
    /// Whether what stands at `after` is wanted too.
    inclusive: bool,
    /// The partition whose index is read.
    partition: Option<EncodedPartition>,
    /// Which of the index's ranges; `None` when the partition is done.
    range: Option<usize>,
    /// Entries of documents that are not in the view yet, with their versions.
    entries: BTreeMap<Vec<u8>, (Lsn, Vec<u8>)>,
    pub(super) work: Work,
}

/// An entry of an index and its document, as it is stored and parsed.
type Entry = (Vec<u8>, KeyedDocument, Value);

/// A stretch of an index that is still to be read.
struct Stretch {
    lower: Bound<Vec<u8>>,
    upper: Vec<u8>,
}

impl Stretch {
    fn holds(&self, entry: &[u8]) -> bool {
        let above = match &self.lower {
            Bound::Included(lower) => entry >= lower.as_slice(),
            Bound::Excluded(lower) => entry > lower.as_slice(),
            Bound::Unbounded => true,
        };
        above && entry < self.upper.as_slice()
    }

    fn is_empty(&self) -> bool {
        lower_of(&self.lower) >= self.upper.as_slice()
    }
}

impl Source {
    /// A source that begins at the front.
    pub(super) fn new(target: Target, access: &Access, indexes: &[Index], now: Timestamp) -> Self {
        let means = match access {
            Access::Ids(ids) if target.partition.is_some() => {
                // What cannot be an id is not there.
                Means::Ids(ids.iter().filter_map(|id| DocumentId::new(id).ok()).collect())
            }
            Access::Index { index, ranges, descending } => match indexes.get(*index) {
                Some(index) => Means::Index {
                    id: index.id(),
                    paths: index.paths.clone(),
                    ranges: ranges.clone(),
                    descending: *descending,
                },
                None => Means::Scan,
            },
            Access::Nothing | Access::Scan | Access::Ids(_) => Means::Scan,
        };
        Self {
            target,
            now,
            means,
            leg: 0,
            after: None,
            inclusive: false,
            partition: None,
            range: Some(0),
            entries: BTreeMap::new(),
            work: Work::default(),
        }
    }

    /// By which way the documents are found.
    pub(super) fn way(&self) -> Way {
        match &self.means {
            Means::Scan => Way::Scan,
            Means::Ids(_) => Way::Ids,
            Means::Index { id, .. } => Way::Index(*id),
        }
    }

    /// Whether there is nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.leg >= self.target.shards.len()
    }

    /// Where the source is now, behind all that it has given.
    pub(super) fn place(&self) -> Option<Place> {
        let shard = self.target.shards.get(self.leg)?.id().0;
        let skip = if matches!(self.means, Means::Index { .. }) { 0 } else { self.target.prefix.len() };
        let rest = |bytes: &[u8], skip: usize| ByteBuf::from(bytes.get(skip..).unwrap_or_default());
        let partition = self.partition.as_ref();
        let partition = partition.map(|found| rest(found.as_bytes(), self.target.prefix.len()));
        let after = self.after.as_deref().map(|after| rest(after, skip));
        Some(Place { shard, partition, after, range: self.range })
    }

    /// Goes to such a place. `false` if that is none of this source.
    pub(super) fn go_on(&mut self, place: Place) -> bool {
        let Place { shard, partition, after, range } = place;
        let Some(leg) = self.leg_of(shard) else { return false };
        (self.leg, self.inclusive, self.range) = (leg, false, range);
        let of_index = matches!(self.means, Means::Index { .. });
        let whole = |rest: ByteBuf| [self.target.prefix.as_slice(), rest.as_slice()].concat();
        let after = after.map(|rest| if of_index { rest.into_vec() } else { whole(rest) });
        self.partition = partition.map(|rest| EncodedPartition::from_bytes(whole(rest).into()));
        self.after = after;
        true
    }

    fn leg_of(&self, shard: u16) -> Option<usize> {
        self.target.shards.iter().position(|found| found.id().0 == shard)
    }

    /// Goes to where a page before has ended. `false` if that is no position of this source.
    pub(super) fn go_to(&mut self, start: Start<'_>) -> bool {
        let (position, inclusive) = match start {
            Start::Beginning => return true,
            Start::At(position) => (position, true),
            Start::After(position) => (position, false),
        };
        let Some((shard, rest)) = position.split_first_chunk::<2>() else { return false };
        let Some(leg) = self.leg_of(u16::from_be_bytes(*shard)) else { return false };
        (self.leg, self.inclusive) = (leg, inclusive);
        if !matches!(self.means, Means::Index { .. }) {
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
        let (Means::Index { id, paths, .. }, Some(partition)) = (&self.means, &self.target.partition) else {
            return Ok(false);
        };
        let Some(shard) = self.target.shards.first() else { return Ok(false) };
        // The note of a document that is not in the view yet would be seen too late.
        for (_, found) in shard.recent(partition) {
            let Some(found) = found.filter(|found| found.body.len() >= MAX_KEY) else { continue };
            let rows = index_rows(partition, paths, &found.id, &parsed(&found)?);
            if rows.iter().any(|(key, _)| *key == cut_note(partition, *id)) {
                return Ok(true);
            }
        }
        Ok(shard.view()?.row(Table::Index, &cut_note(partition, *id))?.is_some())
    }

    /// The next documents; none for a while does not mean the end, `None` does.
    pub(super) fn next(&mut self) -> Result<Option<VecDeque<Found>>, ShardReadError> {
        let Some(shard) = self.target.shards.get(self.leg).cloned() else { return Ok(None) };
        match self.means {
            Means::Scan => self.scan(&shard).map(Some),
            Means::Ids(_) => self.by_ids(&shard).map(Some),
            Means::Index { .. } => self.by_index(&shard).map(Some),
        }
    }

    fn next_leg(&mut self) {
        self.leg += 1;
        (self.after, self.inclusive, self.partition, self.range) = (None, false, None, Some(0));
        self.entries.clear();
    }

    fn scan(&mut self, shard: &ShardHandle) -> Result<VecDeque<Found>, ShardReadError> {
        let mut found = VecDeque::with_capacity(CHUNK);
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
        if let Some(last) = page.documents.last() {
            self.after = Some(last.key.to_vec());
        }
        for keyed in &page.documents {
            let position = self.position(shard, &keyed.key);
            let document = self.take(shard, keyed, None)?;
            found.extend(document.map(|document| Found { position, document }));
        }
        if !page.more {
            self.next_leg();
        }
        Ok(found)
    }

    fn by_ids(&mut self, shard: &ShardHandle) -> Result<VecDeque<Found>, ShardReadError> {
        let (Means::Ids(ids), Some(partition)) = (&self.means, &self.target.partition) else {
            self.next_leg();
            return Ok(VecDeque::new());
        };
        let (after, inclusive) = (self.after.as_deref(), self.inclusive);
        let passed = |key: &[u8]| after.is_some_and(|after| key < after || (!inclusive && key == after));
        let keys = ids.iter().map(|id| partition.document(id)).skip_while(|key| passed(key));
        let keys: Vec<_> = keys.take(CHUNK).collect();
        self.inclusive = false;
        let mut found = VecDeque::with_capacity(keys.len());
        for key in &keys {
            found.extend(self.at(shard, key)?);
        }
        if keys.len() < CHUNK {
            self.next_leg();
        } else {
            self.after = keys.into_iter().next_back();
        }
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
        Ok(self.take(shard, &keyed, None)?.map(|document| Found { position, document }))
    }

    fn by_index(&mut self, shard: &ShardHandle) -> Result<VecDeque<Found>, ShardReadError> {
        let Some(partition) = self.partition_of_index(shard)? else {
            self.next_leg();
            return Ok(VecDeque::new());
        };
        let Means::Index { id, ranges, descending, .. } = &self.means else { return Ok(VecDeque::new()) };
        let (descending, base) = (*descending, index_prefix(&partition, *id));
        let at = self.range.unwrap_or_default();
        let Some(range) = ranges.get(at) else {
            self.leave_partition(partition);
            return Ok(VecDeque::new());
        };
        let Some(stretch) = self.stretch(&base, range, descending) else {
            self.range = Some(at + 1);
            return Ok(VecDeque::new());
        };
        let (entries, last) = self.entries(shard, &partition, &stretch, descending)?;
        self.inclusive = false;
        match last {
            Some(last) => self.after = last.get(base.len()..).map(<[u8]>::to_vec),
            None => (self.range, self.after) = (Some(at + 1), None),
        }
        let mut found = VecDeque::with_capacity(entries.len());
        for (entry, keyed, document) in entries {
            let rest = entry.get(base.len()..).unwrap_or_default();
            let position = self.index_position(shard, &partition, rest);
            let document = self.take(shard, &keyed, Some(document))?;
            found.extend(document.map(|document| Found { position, document }));
        }
        Ok(found)
    }

    /// What is still to be read of a range; `None` when it is behind or holds nothing.
    fn stretch(&self, base: &[u8], range: &IndexRange, descending: bool) -> Option<Stretch> {
        let (lower, upper) = bounds(base, range);
        let mut stretch = Stretch { lower, upper };
        if let Some(entry) = &self.after {
            let entry = [base, entry].concat();
            if descending && entry < stretch.upper {
                stretch.upper = successor_if(&entry, self.inclusive);
            } else if !descending && entry.as_slice() >= lower_of(&stretch.lower) {
                let inclusive = self.inclusive;
                stretch.lower = if inclusive { Bound::Included(entry) } else { Bound::Excluded(entry) };
            }
        }
        (!stretch.is_empty()).then_some(stretch)
    }

    /// Some entries of a stretch in the order of the source, each with its document; and the last entry
    /// that was looked at, if there are more.
    fn entries(
        &mut self,
        shard: &ShardHandle,
        partition: &EncodedPartition,
        stretch: &Stretch,
        descending: bool,
    ) -> Result<(Vec<Entry>, Option<Bytes>), ShardReadError> {
        let Means::Index { paths, .. } = &self.means else { return Ok((Vec::new(), None)) };
        // The overlay first: what it loses meanwhile is in the view.
        let recent: BTreeMap<_, _> = shard.recent(partition).into_iter().collect();
        let span = (stretch.lower.as_ref().map(Vec::as_slice), Bound::Excluded(stretch.upper.as_slice()));
        let page = shard.view()?.entries(partition, span, descending, CHUNK, CHUNK_BYTES)?;
        self.work.entries += page.entries.len();
        let last = page.entries.last().map(|(entry, _)| entry.clone()).filter(|_| page.more);
        let mut entries: Vec<Entry> = Vec::with_capacity(page.entries.len());
        for (entry, keyed) in page.entries {
            let Some(keyed) = keyed.filter(|keyed| !recent.contains_key(keyed.key.as_ref())) else {
                continue;
            };
            let document = parsed(&keyed.document)?;
            // One that was made for another version stands for nothing.
            if index_entry(partition, paths, &keyed.document.id, &document) == entry {
                entries.push((entry.to_vec(), keyed, document));
            }
        }
        self.entries.retain(|key, _| recent.contains_key(key));
        for (key, document) in recent {
            let Some(document) = document else { continue };
            let known = self.entries.get(&key).filter(|(lsn, _)| *lsn == document.lsn);
            let entry = match known {
                Some((_, entry)) => entry.clone(),
                None => {
                    let entry = index_entry(partition, paths, &document.id, &parsed(&document)?);
                    self.entries.insert(key.clone(), (document.lsn, entry.clone()));
                    entry
                }
            };
            let reached = last.as_ref().is_none_or(|last| {
                if descending { entry.as_slice() >= last.as_ref() } else { entry.as_slice() <= last.as_ref() }
            });
            if reached && stretch.holds(&entry) {
                let parsed = parsed(&document)?;
                entries.push((entry, KeyedDocument { key: key.into(), document }, parsed));
            }
        }
        entries.sort_unstable_by(|(a, ..), (b, ..)| if descending { b.cmp(a) } else { a.cmp(b) });
        Ok((entries, last))
    }

    /// The partition whose index is read now, or the next one of the scope.
    fn partition_of_index(
        &mut self,
        shard: &ShardHandle,
    ) -> Result<Option<EncodedPartition>, ShardReadError> {
        let Means::Index { ranges, .. } = &self.means else { return Ok(None) };
        if ranges.is_empty() {
            return Ok(None);
        }
        if let Some(whole) = &self.target.partition {
            return Ok(self.range.is_some().then(|| whole.clone()));
        }
        if let Some(partition) = &self.partition
            && self.range.is_some()
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
        self.after = None;
        // A partition that is not wanted is passed without a look at its index.
        let wanted = next.as_ref().is_none_or(|next| self.target.holds(next.as_bytes()));
        self.range = Some(if wanted { 0 } else { usize::MAX });
        Ok(next)
    }

    fn leave_partition(&mut self, partition: EncodedPartition) {
        (self.partition, self.range, self.after) = (Some(partition), None, None);
        self.entries.clear();
    }

    /// Counts a document, and makes it what queries see, if anybody sees it.
    fn take(
        &mut self,
        shard: &ShardHandle,
        keyed: &KeyedDocument,
        known: Option<Value>,
    ) -> Result<Option<Value>, ShardReadError> {
        let found = &keyed.document;
        self.work.rows += 1;
        self.work.bytes += found.body.len();
        if !self.target.holds(&keyed.key)
            || !shows(&self.target.container, shard, &keyed.key, found, self.now)
        {
            return Ok(None);
        }
        let mut document = known.map_or_else(|| parsed(found), Ok)?;
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

fn lower_of(lower: &Bound<Vec<u8>>) -> &[u8] {
    match lower {
        Bound::Included(lower) | Bound::Excluded(lower) => lower,
        Bound::Unbounded => &[],
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
