//! The change feed that users read: what happened to the documents of a scope, from a place on, for ever.
//!
//! Two modes. *Latest* shows each document once, at the place of its last change, and reads the view, so
//! it goes back to the beginning of time. *All* shows every version and every deletion, and reads the log, so
//! it goes back as far as the container's retention.
//! Invariants: a cursor never passes a change that it has not shown, because both are read in the order of
//! the log up to a position that is complete; the changes of a transaction are never split.

mod leg;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;

use self::leg::{Leg, before};
use super::{Reader, Scope, Target};
use crate::model::address::EncodedPartition;
use crate::model::change::ChangeKind;
use crate::model::feed::{FeedCursor, FeedMode, FeedScope, FeedStart, ForeignCursor};
use crate::model::ids::{DocumentId, Etag, Lsn, ShardId};
use crate::model::time::Timestamp;
use crate::policy::charge::{self, RequestUnits};
use crate::policy::throughput::RetryAfter;
use crate::shard::{ShardHandle, ShardReadError};

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
            // Nothing was written since: what woke the feed was another shard.
            if cursor.position(shard.id()) >= *tail {
                continue;
            }
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

impl Change {
    /// The shard that it happened in, for messages.
    pub fn shard(&self) -> ShardId {
        self.etag.0.shard
    }
}
