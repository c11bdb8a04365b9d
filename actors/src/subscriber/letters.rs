//! Dead letters on request: replay and purge, a page at a time.

use std::sync::Arc;

use actix::{ActorFutureExt, Handler, ResponseActFuture, WrapFuture};

use super::rows::{DeadLetter, RetryRow, decode, parse_lsn, postpone, prefix, unbury};
use super::{Subscriber, rows};
use crate::kernel::clock::SharedClock;
use crate::model::change::{Mutation, Table};
use crate::model::ids::{Lsn, Name, Position};
use crate::protocol::subscriber::{PurgeDeadLetters, ReplayDeadLetters, Selection, SubscriptionError};
use crate::shard::{CommitError, ShardHandle, ShardReadError};

/// Dead letters that one commit moves.
const PAGE: usize = 64;

/// What happens to the selected dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Replay,
    Purge,
}

/// What was moved so far, and whether all of it was.
struct Moved {
    retries: Vec<(Position, RetryRow)>,
    count: usize,
    end: Result<(), SubscriptionError>,
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
            ShardReadError::View(_) | ShardReadError::Log(_) => Self::Corrupt,
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
    let mut moved = Moved { retries: Vec::new(), count: 0, end: Ok(()) };
    for shard in shards {
        // Those that are given up while this runs are not meant.
        let until = shard.log().tail();
        let mut after: Option<Lsn> = None;
        loop {
            let page = match next_page(&shard, &name, &selection, after, until) {
                Ok(page) => page,
                Err(error) => {
                    moved.end = Err(error);
                    return moved;
                }
            };
            let Some(last) = page.last().map(|letter| letter.event.position().lsn) else { break };
            after = Some(last);
            if let Err(error) = move_page(fate, &shard, &name, page, &clock, &mut moved).await {
                moved.end = Err(error);
                return moved;
            }
        }
    }
    moved
}

/// The next selected letters after `after`; none at the end.
fn next_page(
    shard: &ShardHandle,
    name: &str,
    selection: &Selection,
    after: Option<Lsn>,
    until: Lsn,
) -> Result<Vec<DeadLetter>, SubscriptionError> {
    let view = shard.view()?;
    let corrupt = |_| SubscriptionError::Corrupt;
    let parse = |value: &[u8]| decode(value).ok_or(SubscriptionError::Corrupt);
    match selection {
        Selection::All => {
            let after = after.map(|lsn| lsn.0.to_be_bytes());
            let after = after.as_ref().map(<[u8; 8]>::as_slice);
            let rows = view.rows(Table::DeadLetters, &prefix(name), after, PAGE).map_err(corrupt)?;
            let meant = rows.iter().take_while(|(rest, _)| parse_lsn(rest).is_some_and(|lsn| lsn <= until));
            meant.map(|(_, value)| parse(value)).collect()
        }
        Selection::Events(positions) => {
            let here = positions.iter().filter(|position| position.shard == shard.id());
            let mut here: Vec<Lsn> =
                here.map(|position| position.lsn).filter(|lsn| Some(*lsn) > after).collect();
            here.sort_unstable();
            here.dedup();
            let mut letters = Vec::new();
            for lsn in here.into_iter().take(PAGE) {
                let row = view.row(Table::DeadLetters, &rows::key(name, lsn)).map_err(corrupt)?;
                letters.extend(row.map(|value| parse(&value)).transpose()?);
            }
            Ok(letters)
        }
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
    let now = clock.now();
    let mut mutations: Vec<Mutation> = Vec::new();
    let mut retries = Vec::new();
    let count = page.len();
    for letter in page {
        let position = letter.event.position();
        unbury(name, position, &mut mutations);
        if fate == Fate::Replay {
            let row =
                RetryRow { attempts: 0, next_at: now, published: now, last: None, event: Some(letter.event) };
            postpone(name, position.lsn, &row, &mut mutations);
            retries.push((position, row));
        }
    }
    shard.commit(mutations)?.await.unwrap_or(Err(CommitError::Unknown))?;
    moved.retries.append(&mut retries);
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
        let decided = decide(fate, selection, shards, self.config.name.clone(), Arc::clone(&self.clock));
        Box::pin(decided.into_actor(self).map(|moved, actor, ctx| {
            let count = moved.count as u64;
            actor.shown.dead_letters = actor.shown.dead_letters.saturating_sub(count);
            actor.shown.retrying += moved.retries.len() as u64;
            for (position, row) in moved.retries {
                actor.schedule.insert(position, row);
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
