//! Documents by the entries of an index, partition after partition, range after range.
//!
//! Invariant: a document is found by the entry of the version that is shown, whether that is in the view
//! or changed a moment ago; an entry of any other version stands for nothing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use serde_json::Value;

use super::{CHUNK, CHUNK_BYTES, Found, Means, Source, parsed};
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::change::Table;
use crate::model::order_key::{MAX_KEY, Truncated, encode_bounded, prefix_range, span, successor};
use crate::partition::{cut_note, index_entry, index_prefix, index_rows};
use crate::query::IndexRange;
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::KeyedDocument;

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
    /// Whether the index that is read holds values that were too long for it: their order is not
    /// that of the values.
    pub(in crate::reader) fn is_cut(&self) -> Result<bool, ShardReadError> {
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

    pub(super) fn by_index(&mut self, shard: &ShardHandle) -> Result<VecDeque<Found>, ShardReadError> {
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

    fn index_position(&self, shard: &ShardHandle, partition: &EncodedPartition, entry: &[u8]) -> Vec<u8> {
        let rest = partition.as_bytes().get(self.target.prefix.len()..).unwrap_or_default();
        let len = u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&shard.id().0.to_be_bytes(), &len[..], rest, entry].concat()
    }
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
