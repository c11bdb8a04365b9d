//! Dead letters on request: replay and purge, a page at a time.
//!
//! Stands between the mailbox and whoever decides about what lies in it. Invariant: a letter that goes to another
//! subscription leaves this mailbox only when it is durable over there; a crash in between delivers it twice.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, Handler, Recipient, ResponseActFuture, WrapFuture};

use bytes::Bytes;

use super::rows::{DeadLetter, RetryRow, decode, exported, parse_lsn, postpone, prefix, unbury};
use super::{Subscriber, rows};
use crate::model::change::{Mutation, Table};
use crate::model::event::{Event, StoredEvent};
use crate::model::ids::{Lsn, Name, Position};
use crate::model::time::Timestamp;
use crate::policy::filter::Facts;
use crate::protocol::subscriber::{
    PurgeDeadLetters, ReplayDeadLetters, Selection, SubscriptionError, TakeLetters,
};
use crate::shard::{CommitError, CommitReply, ShardHandle, ShardReadError};
use crate::store::ViewReadError;

/// Dead letters that one commit moves, at most.
const PAGE: usize = 64;
/// Bytes after which a commit takes no further dead letter: each carries its event.
const PAGE_BYTES: usize = 1 << 20;
/// Dead letters that are read at once.
const CHUNK: usize = 4;

/// What happens to the selected dead letters.
#[derive(Clone)]
enum Fate {
    Replay(Pace, Option<Recipient<TakeLetters>>),
    Purge,
}

/// When the letters of a replay fall due.
#[derive(Clone)]
struct Pace {
    id: Arc<str>,
    begin: Timestamp,
    rate: Option<NonZeroU32>,
}

impl Pace {
    /// The due time of the letter with this number, from 0.
    fn due(&self, number: usize) -> Timestamp {
        let Some(rate) = self.rate else { return self.begin };
        let millis = number as u64 * 1_000 / u64::from(rate.get());
        self.begin.after(Duration::from_millis(millis))
    }
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

async fn decide(fate: Fate, selection: Selection, shards: Vec<ShardHandle>, name: Name) -> Moved {
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
            if let Err(error) = move_page(&fate, &shard, &name, letters.page, &mut moved).await {
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
    fate: &Fate,
    shard: &ShardHandle,
    name: &str,
    mut page: Vec<DeadLetter>,
    moved: &mut Moved,
) -> Result<(), SubscriptionError> {
    if page.is_empty() {
        return Ok(());
    }
    let numbered = |(number, letter): (usize, &DeadLetter), pace: &Pace| {
        (letter.event.clone(), pace.due(moved.count + number))
    };
    let mut mutations: Vec<Mutation> = Vec::new();
    match fate {
        Fate::Purge => {}
        Fate::Replay(pace, None) => {
            for letter in page.iter().enumerate() {
                let (event, due) = numbered(letter, pace);
                let lsn = event.position().lsn;
                postpone(name, lsn, &replayed(event, &pace.id, due), &mut mutations);
            }
        }
        Fate::Replay(pace, Some(to)) => {
            let events = page.iter().enumerate().map(|letter| numbered(letter, pace)).collect();
            let taken = to.send(TakeLetters { replay: pace.id.clone(), events }).await;
            let taken: HashSet<Position> =
                taken.unwrap_or(Err(SubscriptionError::Unknown))?.into_iter().collect();
            page.retain(|letter| taken.contains(&letter.event.position()));
        }
    }
    for letter in &page {
        let position = letter.event.position();
        unbury(name, position, &mut mutations);
        mutations.push(exported(name, position.lsn));
    }
    if !mutations.is_empty() {
        shard.commit(mutations)?.await.unwrap_or(Err(CommitError::Unknown))?;
    }
    moved.count += page.len();
    Ok(())
}

/// An event that begins anew, from `due` on.
fn replayed(event: StoredEvent, replay: &Arc<str>, due: Timestamp) -> RetryRow {
    RetryRow {
        attempts: 0,
        next_at: due,
        published: due,
        last: None,
        event: Some(event),
        replay: Some(replay.clone()),
        held: false,
    }
}

impl Subscriber {
    fn decide_letters(
        &mut self,
        fate: Fate,
        selection: Selection,
    ) -> ResponseActFuture<Self, Result<usize, SubscriptionError>> {
        let shards = self.routers.iter().map(|router| router.shard().clone()).collect();
        let (deciding, on_its_way) = (self.deciding.clone(), self.on_its_way.clone());
        let stays = matches!(fate, Fate::Replay(_, None));
        let decided = decide(fate, selection, shards, self.config.name.clone());
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
            if stays {
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
        ReplayDeadLetters(replay): ReplayDeadLetters,
        _: &mut Self::Context,
    ) -> Self::Result {
        let begin = self.time.now();
        let id = format!("dead-letters-{}", self.clock.now().0).into();
        self.decide_letters(Fate::Replay(Pace { id, begin, rate: replay.rate }, replay.to), replay.selection)
    }
}

impl Subscriber {
    /// What another subscription could not deliver, as rows of this one; with the places that are this one's, and
    /// how many of them were not before.
    fn take_letters(
        &self,
        taken: TakeLetters,
    ) -> Result<(Vec<Position>, i64, Option<CommitReply>), SubscriptionError> {
        let (mut mine, mut fresh, mut mutations) = (Vec::new(), 0, Vec::new());
        let mut at = None;
        for (event, due) in taken.events {
            let position = event.position();
            if self.config.tenant.is_some() && self.config.tenant.as_ref() != event.tenant() {
                continue;
            }
            let lot = self.lot(position.shard).ok_or(SubscriptionError::Unavailable)?;
            let is_open = lot.track.is_open(position.lsn);
            if is_open && self.config.filter.matches(&Facts::alone(Event::from(event.clone()))) {
                // It is on its way here by itself, or may be.
                return Err(SubscriptionError::Busy);
            }
            mine.push(position);
            // Given up here too: then it lies in this mailbox, for whoever replays that one.
            if self.is_owed(lot, position)? || self.letter(position)?.is_some() {
                continue;
            }
            let row = replayed(event, &taken.replay, due);
            postpone(&self.config.name, position.lsn, &row, &mut mutations);
            at = Some(position.shard);
            fresh += 1;
        }
        let shard = at.and_then(|shard| self.lot(shard)).map(|lot| lot.router.shard());
        let reply = shard.map(|shard| shard.commit(mutations)).transpose()?;
        Ok((mine, fresh, reply))
    }
}

impl Handler<TakeLetters> for Subscriber {
    type Result = ResponseActFuture<Self, Result<Vec<Position>, SubscriptionError>>;

    fn handle(&mut self, taken: TakeLetters, _: &mut Self::Context) -> Self::Result {
        // Nobody else moves dead letters meanwhile. It is not waited for: two that replay into each other would
        // wait for ever.
        let Ok(turn) = self.deciding.clone().try_lock_owned() else {
            return Box::pin(actix::fut::ready(Err(SubscriptionError::Busy)));
        };
        let on_its_way = self.on_its_way.clone();
        let taken = self.take_letters(taken);
        let committed = async move {
            let (_turn, _on_its_way) = (turn, on_its_way);
            let (mine, fresh, reply) = taken?;
            if let Some(reply) = reply {
                reply.await.unwrap_or(Err(CommitError::Unknown))?;
            }
            Ok::<_, SubscriptionError>((mine, fresh))
        };
        Box::pin(committed.into_actor(self).map(|committed, actor, ctx| {
            let (mine, fresh) = committed?;
            actor.counts.retrying += fresh;
            actor.schedule.reload();
            actor.guarded(ctx, Self::pump);
            Ok(mine)
        }))
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
