//! The change feed that users read: what happened to the documents of a scope, from a place on, for ever.
//!
//! Two modes. *Latest* shows each document once, at the place of its last change, and reads the view, so
//! it goes back to the beginning of time. *All* shows every version and every deletion, and reads the log, so
//! it goes back as far as the container's retention.
//! Invariants: a cursor never passes a change that it has not shown, because both are read in the order of
//! the log up to a position that is complete; the changes of a transaction are never split.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;

use super::{Reader, Scope, Target};
use crate::directory::shows;
use crate::log::{LogReader, ReadError as LogError};
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange};
use crate::model::feed::{FeedCursor, FeedMode, FeedScope, FeedStart, ForeignCursor};
use crate::model::ids::{DocumentId, Etag, Lsn, Position, ShardId};
use crate::model::time::Timestamp;
use crate::policy::charge::{self, RequestUnits};
use crate::policy::throughput::RetryAfter;
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
/// How long a page waits for what is durable to be in the view.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How much earlier than its neighbours in the log a change may have been decided.
const SKEW_MS: u64 = 2_000;

/// What is wanted of a feed.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    /// Whose changes.
    pub scope: Scope,
    /// Which of them.
    pub mode: FeedMode,
    /// From where on.
    pub from: FeedStart,
    /// Most changes in the page, but for those that end a transaction.
    pub limit: usize,
    /// Most bytes of documents, about.
    pub bytes: usize,
    /// How long to wait when there is nothing new.
    pub wait: Duration,
    /// Whether a change also shows what it replaced or deleted, where the log still has it.
    pub previous: bool,
}

/// What happened to a document.
#[derive(Debug, Clone)]
pub struct Change {
    /// The position that all changes of its transaction share.
    pub lsn: Lsn,
    /// What happened; `None` in a feed of latest versions, which knows only that something did.
    pub kind: Option<ChangeKind>,
    /// The document's partition.
    pub partition: EncodedPartition,
    /// The document.
    pub id: DocumentId,
    /// Its version.
    pub etag: Etag,
    /// When.
    pub at: Timestamp,
    /// The document as it became; `None` when it is gone.
    pub document: Option<Bytes>,
    /// The version that this one follows.
    pub previous_lsn: Option<Lsn>,
    /// That version, where it was asked for and the log still has it.
    pub previous: Option<Bytes>,
}

/// A page of changes, in order within each partition.
#[derive(Debug, Clone)]
pub struct FeedPage {
    /// The changes. There may be none although more come.
    pub changes: Vec<Change>,
    /// Where the next page begins. Good for ever.
    pub cursor: FeedCursor,
    /// What the page costs.
    pub charge: RequestUnits,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FeedFailed {
    /// There is no such container.
    #[error("there is no container `{0}`")]
    UnknownContainer(String),
    /// The cursor was made for another feed.
    #[error(transparent)]
    Cursor(#[from] ForeignCursor),
    /// A feed of all versions has no beginning that would be known.
    #[error(
        "a feed of all versions starts `now` or at a cursor: how far back it goes depends on the retention"
    )]
    Start,
    /// What comes next is not in the log any more.
    #[error(
        "the changes after this cursor are older than the container's retention: read `mode=latest` and start again"
    )]
    Gone,
    /// Too many feeds wait.
    #[error("too many feeds wait for changes")]
    Busy,
    /// The budget is spent.
    #[error(transparent)]
    Throttled(#[from] RetryAfter),
    /// The store cannot be read.
    #[error(transparent)]
    Shard(#[from] ShardReadError),
}

impl Reader {
    /// One page of a feed. Waits for the first change, as long as the request says.
    ///
    /// # Errors
    /// [`FeedFailed`] says what is wrong with the request, or what the caller must wait for.
    pub async fn changes(&self, request: FeedRequest) -> Result<FeedPage, FeedFailed> {
        let unknown = || FeedFailed::UnknownContainer(request.scope.container.to_string());
        let target = self.target(&request.scope).ok_or_else(unknown)?;
        target.account.admit(target.partition.as_ref())?;
        let _place = self.feeds.try_take().ok_or(FeedFailed::Busy)?;
        let mut cursor = self.begin(&target, &request).await?;
        let until = self.clock.elapsed() + request.wait;
        let page = loop {
            // Asked for before reading, so that nothing is missed in between.
            let mut news: Vec<_> = target.shards.iter().map(|shard| Box::pin(shard.applied())).collect();
            for wait in &mut news {
                wait.as_mut().enable();
            }
            let tails: Vec<_> = target.shards.iter().map(|shard| shard.log().tail()).collect();
            let page = self.page(&target, &request, &mut cursor, &tails).await?;
            let left = until.saturating_sub(self.clock.elapsed());
            if !page.changes.is_empty() || left.is_zero() {
                break page;
            }
            let mut ends = target.shards.iter().zip(&tails);
            // Where a page only looked at others' changes there may be more to look at.
            if ends.all(|(shard, tail)| cursor.position(shard.id()) >= *tail) {
                tokio::time::timeout(left, select_all(news)).await.ok();
            }
        };
        let charge = charge::change_feed(page.changes.len(), page.bytes);
        target.account.charge(target.partition.as_ref(), charge);
        Ok(FeedPage { changes: page.changes, cursor, charge })
    }

    /// What there is now, and the cursor behind it.
    async fn page(
        &self,
        target: &Target,
        request: &FeedRequest,
        cursor: &mut FeedCursor,
        tails: &[Lsn],
    ) -> Result<Page, FeedFailed> {
        let mut page = Page::default();
        let count = target.shards.len().max(1);
        // No shard is always the first: a page that is full with one leaves nothing for the others.
        let first = turn(cursor, count);
        for (shard, tail) in target.shards.iter().zip(tails).cycle().skip(first).take(target.shards.len()) {
            let limit = request.limit.max(1).saturating_sub(page.changes.len());
            let bytes = request.bytes.max(1).saturating_sub(page.bytes);
            if limit == 0 || bytes == 0 {
                break;
            }
            if request.mode == FeedMode::Latest {
                caught_up(shard, *tail).await;
            }
            let leg = Leg {
                target: target.clone(),
                shard: shard.clone(),
                after: cursor.position(shard.id()),
                limit,
                bytes,
                previous: request.previous,
                now: self.clock.now(),
                chunk: self.settings.read_chunk,
            };
            let part = match request.mode {
                FeedMode::Latest => blocking(move || leg.latest()).await?,
                FeedMode::All => blocking(move || leg.all()).await?,
            };
            cursor.advance(shard.id(), part.reached);
            page.bytes += part.bytes;
            page.changes.extend(part.changes);
        }
        Ok(page)
    }

    async fn begin(&self, target: &Target, request: &FeedRequest) -> Result<FeedCursor, FeedFailed> {
        let part = (!target.whole).then_some(target.identity.as_slice());
        let scope = FeedScope::of(&target.container.name, part);
        let fresh = || FeedCursor::new(scope, request.mode);
        match (&request.from, request.mode) {
            (FeedStart::Cursor(cursor), mode) => {
                cursor.belongs_to(scope, mode)?;
                Ok(cursor.clone())
            }
            (FeedStart::Now, _) => {
                let mut cursor = fresh();
                for shard in &target.shards {
                    cursor.advance(shard.id(), shard.log().tail());
                }
                Ok(cursor)
            }
            (FeedStart::Beginning, FeedMode::Latest) => Ok(fresh()),
            (FeedStart::Time(at), FeedMode::Latest) => {
                let mut cursor = fresh();
                for shard in &target.shards {
                    let (container, shard_of, at) = (target.container.name.clone(), shard.clone(), *at);
                    let position = blocking(move || Ok(before(&container, &shard_of, at)?)).await?;
                    cursor.advance(shard.id(), position);
                }
                Ok(cursor)
            }
            (FeedStart::Beginning | FeedStart::Time(_), FeedMode::All) => Err(FeedFailed::Start),
        }
    }
}

/// What a page has so far.
#[derive(Default)]
struct Page {
    changes: Vec<Change>,
    bytes: usize,
}

/// Runs a read that may wait for the disk on a thread where that harms nobody.
async fn blocking<R: Send + 'static>(
    read: impl FnOnce() -> Result<R, FeedFailed> + Send + 'static,
) -> Result<R, FeedFailed> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or(Err(FeedFailed::Shard(ShardReadError::Unavailable)))
}

/// Which shard is read first from a place on: any of them, and always the same one.
fn turn(cursor: &FeedCursor, shards: usize) -> usize {
    let positions: Vec<u8> = cursor.positions().flat_map(|(_, lsn)| lsn.0.to_be_bytes()).collect();
    let hash = twox_hash::XxHash3_64::oneshot(&positions);
    usize::try_from(hash % u64::try_from(shards).unwrap_or(1)).unwrap_or(0)
}

/// Waits until the view has what was durable when the page was asked for.
async fn caught_up(shard: &ShardHandle, tail: Lsn) {
    let wait = async {
        loop {
            let mut applied = Box::pin(shard.applied());
            applied.as_mut().enable();
            if shard.view().is_ok_and(|view| view.applied() >= tail) {
                return;
            }
            applied.await;
        }
    };
    // A view that does not get on shows what it has; the rest comes with a later page.
    tokio::time::timeout(CATCH_UP, wait).await.ok();
}

/// A page's way through one shard.
struct Leg {
    target: Target,
    shard: ShardHandle,
    after: Lsn,
    limit: usize,
    bytes: usize,
    previous: bool,
    now: Timestamp,
    chunk: usize,
}

/// What one shard has for a page.
struct Part {
    changes: Vec<Change>,
    bytes: usize,
    /// Everything up to here was read.
    reached: Lsn,
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
    fn latest(&self) -> Result<Part, FeedFailed> {
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

    fn all(&self) -> Result<Part, FeedFailed> {
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
    let partition = found.key.len().saturating_sub(document.id.as_str().len());
    Change {
        lsn: document.version().transaction(),
        kind: None,
        partition: EncodedPartition::from_bytes(found.key.slice(..partition)),
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
fn before(container: &str, shard: &ShardHandle, at: Timestamp) -> Result<Lsn, ShardReadError> {
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

impl Change {
    /// The shard that it happened in, for messages.
    pub fn shard(&self) -> ShardId {
        self.etag.0.shard
    }
}
