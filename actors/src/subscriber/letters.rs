//! Dead letters on request: replay and purge, a page at a time.

use std::sync::Arc;

use actix::{ActorFutureExt, Handler, ResponseActFuture, WrapFuture};

use bytes::Bytes;

use super::rows::{DeadLetter, RetryRow, decode, exported, parse_lsn, postpone, prefix, unbury};
use super::{Subscriber, rows};
use crate::kernel::clock::SharedClock;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Lsn, Name};
use crate::protocol::subscriber::{PurgeDeadLetters, ReplayDeadLetters, Selection, SubscriptionError};
use crate::shard::{CommitError, ShardHandle, ShardReadError};
use crate::store::ViewReadError;

/// Dead letters that one commit moves, at most.
const PAGE: usize = 64;
/// Bytes after which a commit takes no further dead letter: each carries its event.
const PAGE_BYTES: usize = 1 << 20;
/// Dead letters that are read at once.
const CHUNK: usize = 4;

/// What happens to the selected dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Replay,
    Purge,
}

/// What was moved so far, and whether all of it was.
struct Moved {
    count: usize,
    end: Result<(), SubscriptionError>,
}

/// Some of the selected dead letters, and where to go on behind them.
struct Letters {
    page: Vec<DeadLetter>,
    next: Option<Lsn>,
}

impl From<CommitError> for SubscriptionError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Busy | CommitError::Unavailable | CommitError::NoRoom | CommitError::TooLarge => {
                Self::Unavailable
            }
            CommitError::Unknown => Self::Unknown,
        }
    }
}

impl From<ShardReadError> for SubscriptionError {
    fn from(error: ShardReadError) -> Self {
        match error {
            ShardReadError::Unavailable => Self::Unavailable,
            ShardReadError::View(error) => read_error(error),
            ShardReadError::Log(_) => Self::Corrupt,
        }
    }
}

async fn decide(
    fate: Fate,
    selection: Selection,
    shards: Vec<ShardHandle>,
    name: Name,
    clock: SharedClock,
) -> Moved {
    let mut moved = Moved { count: 0, end: Ok(()) };
    for shard in shards {
        // Those that are given up while this runs are not meant.
        let until = shard.log().tail();
        let mut after: Option<Lsn> = None;
        loop {
            let letters = match next_page(&shard, &name, &selection, after, until) {
                Ok(letters) => letters,
                Err(error) => {
                    moved.end = Err(error);
                    return moved;
                }
            };
            if let Err(error) = move_page(fate, &shard, &name, letters.page, &clock, &mut moved).await {
                moved.end = Err(error);
                return moved;
            }
            if letters.next.is_none() {
                break;
            }
            after = letters.next;
        }
    }
    moved
}

/// The next selected letters after `after`, bounded in number and bytes.
fn next_page(
    shard: &ShardHandle,
    name: &str,
    selection: &Selection,
    after: Option<Lsn>,
    until: Lsn,
) -> Result<Letters, SubscriptionError> {
    let mut letters = Letters { page: Vec::new(), next: None };
    let mut bytes = 0;
    let mut after = after;
    loop {
        let chunk = next_chunk(shard, name, selection, after)?;
        for (lsn, value) in &chunk {
            if *lsn > until {
                return Ok(Letters { next: None, ..letters });
            }
            after = Some(*lsn);
            let Some(value) = value else { continue };
            bytes += value.len();
            letters.page.push(decode(value).ok_or(SubscriptionError::Corrupt)?);
        }
        if chunk.is_empty() {
            return Ok(Letters { next: None, ..letters });
        }
        if bytes >= PAGE_BYTES || letters.page.len() >= PAGE {
            return Ok(Letters { next: after, ..letters });
        }
    }
}

/// A few selected places after `after`, with the letters that are there; none at the end.
fn next_chunk(
    shard: &ShardHandle,
    name: &str,
    selection: &Selection,
    after: Option<Lsn>,
) -> Result<Vec<(Lsn, Option<Bytes>)>, SubscriptionError> {
    let view = shard.view()?;
    match selection {
        Selection::All => {
            let after = after.map(|lsn| lsn.0.to_be_bytes());
            let after = after.as_ref().map(<[u8; 8]>::as_slice);
            let rows = view.rows(Table::DeadLetters, &prefix(name), after, CHUNK).map_err(read_error)?;
            let place = |(rest, value): (Bytes, Bytes)| Some((parse_lsn(&rest)?, Some(value)));
            rows.into_iter().map(|row| place(row).ok_or(SubscriptionError::Corrupt)).collect()
        }
        Selection::Events(positions) => {
            let here = positions.iter().filter(|position| position.shard == shard.id());
            let mut here: Vec<Lsn> =
                here.map(|position| position.lsn).filter(|lsn| Some(*lsn) > after).collect();
            here.sort_unstable();
            here.dedup();
            let row = |lsn: Lsn| view.row(Table::DeadLetters, &rows::key(name, lsn)).map_err(read_error);
            here.into_iter().take(CHUNK).map(|lsn| Ok((lsn, row(lsn)?))).collect()
        }
    }
}

fn read_error(error: ViewReadError) -> SubscriptionError {
    match error {
        ViewReadError::Corrupt | ViewReadError::Newer => SubscriptionError::Corrupt,
        ViewReadError::Disk(_) => SubscriptionError::Unavailable,
    }
}

async fn move_page(
    fate: Fate,
    shard: &ShardHandle,
    name: &str,
    page: Vec<DeadLetter>,
    clock: &SharedClock,
    moved: &mut Moved,
) -> Result<(), SubscriptionError> {
    if page.is_empty() {
        return Ok(());
    }
    let now = clock.now();
    let replay: Arc<str> = format!("dead-letters-{}", now.0).into();
    let mut mutations: Vec<Mutation> = Vec::new();
    let count = page.len();
    for letter in page {
        let position = letter.event.position();
        unbury(name, position, &mut mutations);
        mutations.push(exported(name, position.lsn));
        if fate == Fate::Replay {
            let row = RetryRow {
                attempts: 0,
                next_at: now,
                published: now,
                last: None,
                event: Some(letter.event),
                replay: Some(replay.clone()),
                held: false,
            };
            postpone(name, position.lsn, &row, &mut mutations);
        }
    }
    shard.commit(mutations)?.await.unwrap_or(Err(CommitError::Unknown))?;
    moved.count += count;
    Ok(())
}

impl Subscriber {
    fn decide_letters(
        &mut self,
        fate: Fate,
        selection: Selection,
    ) -> ResponseActFuture<Self, Result<usize, SubscriptionError>> {
        let shards = self.routers.iter().map(|router| router.shard().clone()).collect();
        let (deciding, on_its_way) = (self.deciding.clone(), self.on_its_way.clone());
        let decided = decide(fate, selection, shards, self.config.name.clone(), Arc::clone(&self.clock));
        let in_turn = async move {
            let _turn = deciding.lock().await;
            let moved = decided.await;
            drop(on_its_way);
            moved
        };
        // A task of its own: if this actor crashes, its next start waits until all is moved.
        Box::pin(actix_rt::spawn(in_turn).into_actor(self).map(move |moved, actor, ctx| {
            let Ok(moved) = moved else { return Err(SubscriptionError::Unknown) };
            let count = i64::try_from(moved.count).unwrap_or(i64::MAX);
            actor.counts.dead_letters -= count;
            actor.recount_exports();
            if fate == Fate::Replay {
                actor.counts.retrying += count;
                // Some of them may be under way already, found in the store.
                actor.schedule.reload();
            }
            actor.guarded(ctx, Self::pump);
            moved.end.map(|()| moved.count)
        }))
    }
}

impl Handler<ReplayDeadLetters> for Subscriber {
    type Result = ResponseActFuture<Self, Result<usize, SubscriptionError>>;

    fn handle(
        &mut self,
        ReplayDeadLetters(selection): ReplayDeadLetters,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.decide_letters(Fate::Replay, selection)
    }
}

impl Handler<PurgeDeadLetters> for Subscriber {
    type Result = ResponseActFuture<Self, Result<usize, SubscriptionError>>;

    fn handle(
        &mut self,
        PurgeDeadLetters(selection): PurgeDeadLetters,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.decide_letters(Fate::Purge, selection)
    }
}
