//! A page's way through one shard: the view for the latest versions, the log for all of them.

use bytes::Bytes;

use super::{Change, FeedFailed};
use crate::directory::shows;
use crate::log::{LogReader, ReadError as LogError};
use crate::model::address::PartitionAddress;
use crate::model::change::{CommittedGroup, DocumentChange};
use crate::model::ids::{Etag, Lsn, Position};
use crate::model::time::Timestamp;
use crate::reader::Target;
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::{KeyedDocument, View};

/// Documents of a partition up to which its feed is read from the partition itself, and not from all
/// changes of its container.
const SMALL_PARTITION: usize = 1_024;
/// Bytes of them, and of any other step.
const SMALL_BYTES: usize = 4 << 20;
/// Changes that one page looks at, to find those of its scope.
const LOOKED_AT: usize = 20_000;
/// How many of them are read at once.
const CHUNK: usize = 256;
/// How much earlier than its neighbours in the log a change may have been decided.
const SKEW_MS: u64 = 2_000;

/// A page's way through one shard.
pub(super) struct Leg {
    pub(super) target: Target,
    pub(super) shard: ShardHandle,
    pub(super) after: Lsn,
    pub(super) limit: usize,
    pub(super) bytes: usize,
    pub(super) previous: bool,
    pub(super) now: Timestamp,
    pub(super) chunk: usize,
}

/// What one shard has for a page.
pub(super) struct Part {
    pub(super) changes: Vec<Change>,
    pub(super) bytes: usize,
    /// Everything up to here was read.
    pub(super) reached: Lsn,
    /// The transaction that was looked at last.
    transaction: Option<Lsn>,
}

impl Part {
    fn after(reached: Lsn) -> Self {
        Self { changes: Vec::new(), bytes: 0, reached, transaction: None }
    }

    fn is_full(&self, leg: &Leg) -> bool {
        self.changes.len() >= leg.limit || self.bytes >= leg.bytes
    }

    /// Takes documents until the page is full, but for those that end a transaction. Whether all were
    /// taken.
    fn take(&mut self, leg: &Leg, found: &[KeyedDocument]) -> bool {
        for found in found {
            let transaction = Some(found.document.version().transaction());
            if self.transaction != transaction && self.is_full(leg) {
                return false;
            }
            (self.transaction, self.reached) = (transaction, found.document.lsn);
            let Leg { target, shard, now, .. } = leg;
            if target.holds(&found.key) && shows(&target.container, shard, &found.key, &found.document, *now)
            {
                self.bytes += found.document.body.len();
                self.changes.push(change(shard, found));
            }
        }
        true
    }
}

impl Leg {
    pub(super) fn latest(&self) -> Result<Part, FeedFailed> {
        let view = self.shard.view()?;
        // Read first: the snapshots below have at least this.
        let complete = view.applied();
        let container = PartitionAddress::container_prefix(&self.target.container.name);
        let mut part = Part::after(self.after);
        let mut looked_at = 0;
        while looked_at < LOOKED_AT && !part.is_full(self) {
            let wanted = if self.target.whole { self.limit - part.changes.len() } else { CHUNK };
            let bytes = if self.target.whole { self.bytes - part.bytes } else { SMALL_BYTES };
            let page = view.changes(&container, part.reached, wanted, bytes.min(SMALL_BYTES));
            let page = page.map_err(ShardReadError::from)?;
            if looked_at == 0
                && page.more
                && !self.target.whole
                && let Some(part) = self.of_small(&view, complete)?
            {
                return Ok(part);
            }
            looked_at += page.documents.len().max(1);
            if part.take(self, &page.documents) && !page.more {
                part.reached = part.reached.max(complete);
                break;
            }
        }
        Ok(part)
    }

    /// The same for a scope with few documents, whose changes would be sought among many others.
    fn of_small(&self, view: &View, complete: Lsn) -> Result<Option<Part>, FeedFailed> {
        let page = view.scan(&self.target.prefix, None, SMALL_PARTITION, SMALL_BYTES);
        let page = page.map_err(ShardReadError::from)?;
        if page.more {
            return Ok(None);
        }
        let mut found = page.documents;
        // What changed while this was read comes with a later page, together with all around it.
        found.retain(|found| found.document.lsn > self.after && found.document.lsn <= complete);
        found.sort_unstable_by_key(|found| found.document.lsn);
        let mut part = Part::after(self.after);
        if part.take(self, &found) {
            part.reached = part.reached.max(complete);
        }
        Ok(Some(part))
    }

    pub(super) fn all(&self) -> Result<Part, FeedFailed> {
        let log = self.shard.log();
        let mut earlier = Earlier { log: &*log, group: None };
        let mut part = Part::after(self.after);
        let mut looked_at = 0;
        while looked_at < LOOKED_AT && !part.is_full(self) {
            // Asked first: what is written from now on is behind it.
            let tail = log.tail();
            let groups = match log.read(part.reached.next(), self.chunk) {
                Ok(groups) => groups,
                Err(LogError::Trimmed { .. }) => return Err(FeedFailed::Gone),
                Err(error) => return Err(ShardReadError::from(error).into()),
            };
            if groups.is_empty() {
                part.reached = part.reached.max(tail);
                break;
            }
            for group in &groups {
                looked_at += group.mutations.len();
                if !self.of_group(&mut part, group, &mut earlier) {
                    return Ok(part);
                }
                part.reached = part.reached.max(group.last());
            }
        }
        Ok(part)
    }

    /// Takes the changes of a group until the page is full. Whether all were taken.
    fn of_group(&self, part: &mut Part, group: &CommittedGroup, earlier: &mut Earlier<'_>) -> bool {
        let before = part.reached;
        for (lsn, found) in group.changes().filter(|(lsn, _)| *lsn > before) {
            if found.within == 0 && part.is_full(self) {
                return false;
            }
            part.reached = lsn;
            if self.target.holds(found.partition.as_bytes()) {
                let change = self.logged(lsn, found, earlier);
                part.bytes += found.body.len() + change.previous.as_ref().map_or(0, Bytes::len);
                part.changes.push(change);
            }
        }
        true
    }

    fn logged(&self, lsn: Lsn, found: &DocumentChange, earlier: &mut Earlier<'_>) -> Change {
        let previous_lsn = found.previous.map(|previous| previous.resolve(lsn));
        let previous = previous_lsn.filter(|_| self.previous).and_then(|lsn| earlier.body(lsn));
        Change {
            lsn: Lsn(lsn.0.saturating_sub(found.within.into())),
            kind: Some(found.kind),
            partition: found.partition.clone(),
            id: found.id.clone(),
            etag: Etag(Position { shard: self.shard.id(), lsn }),
            at: found.at,
            document: (!found.kind.is_removal()).then(|| found.body.clone()),
            previous_lsn,
            previous,
        }
    }
}

/// Versions that were written earlier, as far as the log still has them.
struct Earlier<'l> {
    log: &'l dyn LogReader,
    /// The group that was read last: what is replaced together was often written together.
    group: Option<CommittedGroup>,
}

impl Earlier<'_> {
    fn body(&mut self, lsn: Lsn) -> Option<Bytes> {
        let has = |group: &CommittedGroup| group.first <= lsn && lsn <= group.last();
        if !self.group.as_ref().is_some_and(has) {
            self.group = self.log.read(lsn, 1).ok()?.into_iter().find(has);
        }
        let mut changes = self.group.as_ref()?.changes();
        changes.find(|(at, _)| *at == lsn).map(|(_, change)| change.body.clone())
    }
}

fn change(shard: &ShardHandle, found: &KeyedDocument) -> Change {
    let document = &found.document;
    Change {
        lsn: document.version().transaction(),
        kind: None,
        partition: found.partition(),
        id: document.id.clone(),
        etag: Etag(Position { shard: shard.id(), lsn: document.lsn }),
        at: document.at,
        document: Some(document.body.clone()),
        previous_lsn: None,
        previous: None,
    }
}

/// The last position before a time, found by halving: positions and times grow together, but for a
/// little, so the last steps go one by one.
pub(super) fn before(container: &str, shard: &ShardHandle, at: Timestamp) -> Result<Lsn, ShardReadError> {
    let view = shard.view()?;
    let container = PartitionAddress::container_prefix(container);
    let early = Timestamp(at.0.saturating_sub(SKEW_MS));
    let (mut low, mut high) = (0, view.applied().0);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = view.changes(&container, Lsn(middle), 1, 1)?;
        match next.documents.last() {
            // Those of a transaction have one time, and no cursor stands between them.
            Some(found) if found.document.at < early => low = found.document.lsn.0.max(middle + 1),
            Some(_) | None => high = middle,
        }
    }
    let mut reached = Lsn(low);
    loop {
        let page = view.changes(&container, reached, CHUNK, SMALL_BYTES)?;
        for found in &page.documents {
            if found.document.at >= at {
                return Ok(reached);
            }
            reached = found.document.lsn;
        }
        if !page.more {
            return Ok(reached);
        }
    }
}
