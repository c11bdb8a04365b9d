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
use crate::log::ReadError as LogError;
use crate::model::address::{EncodedPartition, PartitionAddress};
use crate::model::change::{ChangeKind, CommittedGroup, DocumentChange};
use crate::model::feed::{FeedCursor, FeedMode, FeedScope, FeedStart, ForeignCursor};
use crate::model::ids::{DocumentId, Etag, Lsn, Position, ShardId};
use crate::model::time::Timestamp;
use crate::policy::charge::{self, RequestUnits};
use crate::policy::throughput::RetryAfter;
use crate::shard::{ShardHandle, ShardReadError};
use crate::store::KeyedDocument;

/// Documents of a partition up to which its feed is read from the partition itself, and not from all
/// changes of its container.
const SMALL_PARTITION: usize = 1_024;
/// Bytes of them.
const SMALL_BYTES: usize = 4 << 20;
/// Changes of a container that one page looks at, to find those of a narrower scope.
const LOOKED_AT: usize = 20_000;
/// How many of them are read at once.
const CHUNK: usize = 256;
/// How long a page waits for what is durable to be in the view.
const CATCH_UP: Duration = Duration::from_secs(2);

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
        let mut cursor = self.begin(&target, &request)?;
        let until = self.clock.elapsed() + request.wait;
        let page = loop {
            // Asked for before reading, so that nothing is missed in between.
            let mut news: Vec<_> = target.shards.iter().map(|shard| Box::pin(shard.applied())).collect();
            for wait in &mut news {
                wait.as_mut().enable();
            }
            let tails: Vec<_> = target.shards.iter().map(|shard| shard.log().tail()).collect();
            let mut changes = Vec::new();
            for (shard, tail) in target.shards.iter().zip(&tails) {
                caught_up(shard, *tail).await?;
                let share = request.limit.div_ceil(target.shards.len().max(1)).max(1);
                let part = self.part(&target, &request, shard, cursor.position(shard.id()), share).await?;
                cursor.advance(shard.id(), part.reached);
                changes.extend(part.changes);
            }
            let left = until.saturating_sub(self.clock.elapsed());
            let moved =
                target.shards.iter().zip(&tails).any(|(shard, tail)| cursor.position(shard.id()) < *tail);
            if !changes.is_empty() || left.is_zero() {
                break changes;
            }
            // Where a page only looked at others' changes there may be more to look at.
            if !moved {
                tokio::time::timeout(left, select_all(news)).await.ok();
            }
        };
        let bytes = page.iter().map(|change| change.document.as_ref().map_or(0, Bytes::len)).sum();
        let charge = charge::change_feed(page.len(), bytes);
        target.account.charge(target.partition.as_ref(), charge);
        Ok(FeedPage { changes: page, cursor, charge })
    }

    fn begin(&self, target: &Target, request: &FeedRequest) -> Result<FeedCursor, FeedFailed> {
        let narrow = target.prefix != PartitionAddress::container_prefix(&target.container.name);
        let scope = FeedScope::of(&target.container.name, narrow.then_some(target.prefix.as_slice()));
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
                    cursor.advance(shard.id(), before(target, shard, *at)?);
                }
                Ok(cursor)
            }
            (FeedStart::Beginning | FeedStart::Time(_), FeedMode::All) => Err(FeedFailed::Start),
        }
    }

    async fn part(
        &self,
        target: &Target,
        request: &FeedRequest,
        shard: &ShardHandle,
        after: Lsn,
        limit: usize,
    ) -> Result<Part, FeedFailed> {
        let (target, request, shard) = (target.clone(), request.clone(), shard.clone());
        let (now, chunk) = (self.clock.now(), self.settings.read_chunk);
        let read = move || match request.mode {
            FeedMode::Latest => latest(&target, &request, &shard, after, limit, now),
            FeedMode::All => all(&target, &request, &shard, after, limit, chunk),
        };
        let part = tokio::task::spawn_blocking(read).await;
        part.unwrap_or(Err(FeedFailed::Shard(ShardReadError::Unavailable)))
    }
}

/// What one shard has for a page.
struct Part {
    changes: Vec<Change>,
    /// Everything up to here was read.
    reached: Lsn,
}

/// Waits until the view has what was durable when the page was asked for.
async fn caught_up(shard: &ShardHandle, tail: Lsn) -> Result<(), FeedFailed> {
    let wait = async {
        loop {
            let mut applied = Box::pin(shard.applied());
            applied.as_mut().enable();
            if shard.status().applied >= tail {
                return;
            }
            applied.await;
        }
    };
    // A view that does not get on shows what it has; the rest comes with a later page.
    tokio::time::timeout(CATCH_UP, wait).await.ok();
    Ok(())
}

fn latest(
    target: &Target,
    request: &FeedRequest,
    shard: &ShardHandle,
    after: Lsn,
    limit: usize,
    now: Timestamp,
) -> Result<Part, FeedFailed> {
    let view = shard.view()?;
    // Read first: the snapshots below have at least this.
    let complete = view.applied();
    let container = PartitionAddress::container_prefix(&target.container.name);
    let narrow = target.prefix != container;
    let seen = |found: &KeyedDocument| shows(&target.container, shard, &found.key, &found.document, now);
    if narrow {
        let page =
            view.scan(&target.prefix, None, SMALL_PARTITION, SMALL_BYTES).map_err(ShardReadError::from)?;
        if !page.more {
            let mut found = page.documents;
            found.retain(|found| found.document.lsn > after && found.document.lsn <= complete);
            found.sort_unstable_by_key(|found| found.document.lsn);
            let cut = whole_transactions(&found, limit);
            let reached = match found.get(cut..) {
                Some([]) | None => complete,
                Some(_) => found.get(cut.wrapping_sub(1)).map_or(after, |last| last.document.lsn),
            };
            let changes =
                found.iter().take(cut).filter(|found| seen(found)).map(|found| change(shard, found));
            return Ok(Part { changes: changes.collect(), reached });
        }
    }
    let (mut changes, mut reached, mut looked_at, mut bytes) = (Vec::new(), after, 0, 0);
    while looked_at < LOOKED_AT && changes.len() < limit && bytes < request.bytes {
        let wanted = if narrow { CHUNK } else { limit - changes.len() };
        let page = view.changes(&container, reached, wanted, SMALL_BYTES).map_err(ShardReadError::from)?;
        looked_at += page.documents.len().max(1);
        for found in
            page.documents.iter().filter(|found| found.key.starts_with(&target.prefix) && seen(found))
        {
            bytes += found.document.body.len();
            changes.push(change(shard, found));
        }
        match page.documents.last() {
            Some(last) if page.more => reached = last.document.lsn,
            last => {
                reached = complete.max(last.map_or(reached, |last| last.document.lsn));
                break;
            }
        }
    }
    Ok(Part { changes, reached })
}

/// How many of these changes make a page of about `limit` without a part of a transaction.
fn whole_transactions(found: &[KeyedDocument], limit: usize) -> usize {
    let next = found.iter().enumerate().skip(limit).find(|(_, found)| found.document.within == 0);
    next.map_or(found.len(), |(at, _)| at)
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

fn all(
    target: &Target,
    request: &FeedRequest,
    shard: &ShardHandle,
    after: Lsn,
    limit: usize,
    chunk: usize,
) -> Result<Part, FeedFailed> {
    let log = shard.log();
    let (mut changes, mut reached, mut bytes) = (Vec::new(), after, 0);
    let mut read = 0;
    while changes.len() < limit && bytes < request.bytes && read < LOOKED_AT {
        let groups = match log.read(reached.next(), chunk) {
            Ok(groups) => groups,
            Err(LogError::Trimmed { .. }) => return Err(FeedFailed::Gone),
            Err(error) => return Err(ShardReadError::from(error).into()),
        };
        if groups.is_empty() {
            reached = reached.max(log.tail());
            break;
        }
        let mut full = false;
        let before = reached;
        for (lsn, found) in groups.iter().flat_map(CommittedGroup::changes).filter(|(lsn, _)| *lsn > before) {
            read += 1;
            if found.within == 0 && (changes.len() >= limit || bytes >= request.bytes) {
                full = true;
                break;
            }
            if found.partition.as_bytes().starts_with(&target.prefix) {
                bytes += found.body.len();
                changes.push(logged(request, shard, lsn, found));
            }
            reached = lsn;
        }
        if full {
            break;
        }
        reached = groups.last().map_or(reached, CommittedGroup::last);
    }
    Ok(Part { changes, reached })
}

fn logged(request: &FeedRequest, shard: &ShardHandle, lsn: Lsn, found: &DocumentChange) -> Change {
    let previous_lsn = found.previous.map(|previous| previous.resolve(lsn));
    let previous = previous_lsn.filter(|_| request.previous).and_then(|lsn| body_at(shard, lsn));
    Change {
        lsn: Lsn(lsn.0.saturating_sub(found.within.into())),
        kind: Some(found.kind),
        partition: found.partition.clone(),
        id: found.id.clone(),
        etag: Etag(Position { shard: shard.id(), lsn }),
        at: found.at,
        document: (!found.kind.is_removal()).then(|| found.body.clone()),
        previous_lsn,
        previous,
    }
}

/// The document that was written at a position, if the log still has it.
fn body_at(shard: &ShardHandle, lsn: Lsn) -> Option<Bytes> {
    let groups = shard.log().read(lsn, 1).ok()?;
    let mut changes = groups.iter().flat_map(CommittedGroup::changes);
    changes.find(|(at, _)| *at == lsn).map(|(_, change)| change.body.clone())
}

/// The last position before a time, found by halving: positions and times grow together.
fn before(target: &Target, shard: &ShardHandle, at: Timestamp) -> Result<Lsn, ShardReadError> {
    let view = shard.view()?;
    let container = PartitionAddress::container_prefix(&target.container.name);
    let (mut low, mut high) = (0, view.applied().0);
    while low < high {
        let middle = low + (high - low) / 2;
        let next = view.changes(&container, Lsn(middle), 1, 1)?;
        match next.documents.first() {
            Some(found) if found.document.at < at => low = found.document.lsn.0.max(middle + 1),
            Some(_) | None => high = middle,
        }
    }
    Ok(Lsn(low))
}

/// The shard of a change, for messages.
impl Change {
    /// The shard that it happened in.
    pub fn shard(&self) -> ShardId {
        self.etag.0.shard
    }
}
