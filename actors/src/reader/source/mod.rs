//! The documents that a plan looks at, one after the other, in an order that stays the same.
//!
//! A position is the number of the shard and then, for a scan, the rest of the document's key; for an
//! index, the rest of the partition (with its length before it) and the rest of the entry.
//! Invariants: what changed lately and is not in the view yet is seen at its place; an entry of an index
//! that does not fit its document any more is passed over.

mod index;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_bytes::ByteBuf;
use serde_json::Value;

use super::Target;
use super::continuation::{Place, Way};
use crate::directory::shows;
use crate::model::address::{EncodedPartition, partition_len};
use crate::model::document;
use crate::model::ids::{DocumentId, Etag, Lsn, Position};
use crate::model::time::Timestamp;
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
}

fn parsed(found: &StoredDocument) -> Result<Value, ShardReadError> {
    document::read(&found.body).map_err(|_| ViewReadError::Corrupt.into())
}
