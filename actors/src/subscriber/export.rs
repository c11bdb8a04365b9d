//! Dead letters on their way into a store of files, one after the other, until they are there.
//!
//! Stands between the mailbox of a subscription and a store that may be away for days. Invariants: a dead letter
//! leaves the list of those that are not exported only when its file is durable; the name of a file follows from
//! the letter alone, so that a repeat overwrites it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use sha2::{Digest, Sha256};

use super::Subscriber;
use super::rows::{self, DeadLetter, decode, exported, parse_lsn, prefix};
use crate::model::change::Table;
use crate::model::cloudevent::{CloudEvent, Extension};
use crate::model::ids::{Lsn, Position};
use crate::shard::{CommitError, ShardHandle};

/// Letters that are written at the same time.
const PAGE: usize = 8;
/// Bytes after which such a page takes no further letter.
const PAGE_BYTES: usize = 4 << 20;
/// Time for one file.
const PUT: Duration = Duration::from_secs(60);
/// Longest pause before a store that failed is asked again.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Where dead letters are written as files.
pub trait DeadLetterStore: fmt::Debug + Send + Sync + 'static {
    /// Writes a file, or overwrites it; done when it is durable. The path is relative, with slashes. The error is
    /// one line for operators, without secrets.
    fn put(&self, path: &str, body: Bytes) -> BoxFuture<'static, Result<(), String>>;
}

/// What the exporter of a subscription does.
#[derive(Debug, Default)]
pub(super) struct Exporter {
    /// Letters whose files are not durable, as far as that is known.
    pub(super) waiting: u64,
    /// Why the last file could not be written.
    pub(super) error: Option<String>,
    /// A page is on its way, or a pause lasts.
    busy: bool,
    failures: u32,
    /// Grows with each start of the actor.
    start: u64,
}

/// A letter, as far as its export is concerned.
struct Letter {
    position: Position,
    value: Bytes,
    path: String,
    body: Bytes,
}

impl Exporter {
    /// After a start nothing is on its way.
    pub(super) fn restart(&mut self, waiting: u64) {
        *self = Self { waiting, start: self.start + 1, ..Self::default() };
    }
}

impl Subscriber {
    /// How many letters wait for their export, from the store.
    pub(super) fn count_exports(&self) -> Result<u64, String> {
        let prefix = prefix(&self.config.name);
        let mut waiting = 0;
        for router in self.routers.iter() {
            let view = router.shard().view().map_err(|error| error.to_string())?;
            waiting += view.count(Table::Exports, &prefix).map_err(|error| error.to_string())?;
        }
        Ok(waiting)
    }

    /// Letters were moved by somebody else.
    pub(super) fn recount_exports(&mut self) {
        if self.config.export.is_some()
            && let Ok(waiting) = self.count_exports()
        {
            self.exporter.waiting = waiting;
        }
    }

    /// So many more letters wait.
    pub(super) fn export_more(&mut self, buried: u64, ctx: &mut Context<Self>) {
        if self.config.export.is_some() && buried > 0 {
            self.exporter.waiting += buried;
            self.export(ctx);
        }
    }

    /// Begins with the next page, unless one is on its way.
    pub(super) fn export(&mut self, ctx: &mut Context<Self>) {
        let Some(store) = self.config.export.clone() else { return };
        if self.exporter.busy || self.exporter.waiting == 0 {
            return;
        }
        self.exporter.busy = true;
        let shards = self.routers.iter().map(|router| router.shard().clone()).collect();
        let (name, start) = (self.config.name.clone(), self.exporter.start);
        let page = async move { write_page(&*store, shards, &name).await };
        ctx.spawn(page.into_actor(self).map(move |written, actor, ctx| {
            if actor.exporter.start == start {
                actor.guarded(ctx, |actor, ctx| actor.exported(written, ctx));
            }
        }));
    }

    fn exported(&mut self, written: Result<u64, String>, ctx: &mut Context<Self>) {
        let rest = match written {
            Ok(0) => {
                // What was committed just now may not be in the view yet, or is gone.
                self.recount_exports();
                Some(self.settings.backoff)
            }
            Ok(count) => {
                self.exporter.waiting = self.exporter.waiting.saturating_sub(count);
                self.exporter.error = None;
                self.exporter.failures = 0;
                None
            }
            Err(why) => {
                tracing::warn!(subscription = %self.config.name, why, waiting = self.exporter.waiting, "dead letters not exported yet");
                self.exporter.error = Some(why);
                self.recount_exports();
                let factor = 1_u32.checked_shl(self.exporter.failures.min(20)).unwrap_or(u32::MAX);
                self.exporter.failures = self.exporter.failures.saturating_add(1);
                Some(self.settings.backoff.saturating_mul(factor).min(LONGEST_REST))
            }
        };
        let Some(rest) = rest else {
            self.exporter.busy = false;
            return self.export(ctx);
        };
        let start = self.exporter.start;
        ctx.run_later(rest, move |actor, ctx| {
            if actor.exporter.start == start {
                actor.exporter.busy = false;
                actor.guarded(ctx, Self::export);
            }
        });
    }
}

/// Writes the next letters of the first shard that has some, and takes them off the list. Returns how many.
async fn write_page(
    store: &dyn DeadLetterStore,
    shards: Vec<ShardHandle>,
    name: &str,
) -> Result<u64, String> {
    for shard in shards {
        let letters = read_page(&shard, name)?;
        if letters.is_empty() {
            continue;
        }
        let put = |letter: &Letter| {
            let (position, put) = (letter.position, store.put(&letter.path, letter.body.clone()));
            async move {
                match tokio::time::timeout(PUT, put).await {
                    Ok(put) => (position, put),
                    Err(_) => (position, Err(format!("the store took longer than {} s", PUT.as_secs()))),
                }
            }
        };
        let written = join_all(letters.iter().map(put)).await;
        let failed = written.iter().find_map(|(_, put)| put.as_ref().err().cloned());
        let view = shard.view().map_err(|error| error.to_string())?;
        // Between this look and the commit nothing else of this subscription is committed: they are made on one
        // thread. A letter that was replayed meanwhile, and perhaps given up anew, is another letter, and stays on
        // the list.
        let same = |letter: &&Letter| {
            let key = rows::key(name, letter.position.lsn);
            view.row(Table::DeadLetters, &key).ok().flatten().is_some_and(|now| now == letter.value)
        };
        let done = letters.iter().zip(&written).filter(|(_, (_, put))| put.is_ok()).map(|(letter, _)| letter);
        let done: Vec<Lsn> = done.filter(same).map(|letter| letter.position.lsn).collect();
        let count = done.len() as u64;
        if !done.is_empty() {
            let mutations = done.into_iter().map(|lsn| exported(name, lsn)).collect();
            let sent = shard.commit(mutations).map_err(|error| error.to_string())?;
            let committed = sent.await.unwrap_or(Err(CommitError::Unknown));
            committed.map_err(|error| format!("what was exported is not noted: {error}"))?;
        }
        return match failed {
            Some(why) => Err(why),
            None => Ok(count),
        };
    }
    Ok(0)
}

/// The next letters that are not exported.
fn read_page(shard: &ShardHandle, name: &str) -> Result<Vec<Letter>, String> {
    let view = shard.view().map_err(|error| error.to_string())?;
    let rows = view.rows(Table::Exports, &prefix(name), None, PAGE).map_err(|error| error.to_string())?;
    let (mut letters, mut bytes) = (Vec::new(), 0);
    for (rest, _) in rows {
        let Some(lsn) = parse_lsn(&rest) else { continue };
        let value = view.row(Table::DeadLetters, &rows::key(name, lsn)).map_err(|error| error.to_string())?;
        // One that was taken off the list between these two looks.
        let Some(value) = value else { continue };
        let letter: DeadLetter = decode(&value).ok_or("a dead letter cannot be read")?;
        bytes += value.len();
        let (path, body) = (path_of(name, &letter), body_of(&letter));
        letters.push(Letter { position: letter.event.position(), value, path, body });
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(letters)
}

/// `<SUBSCRIPTION>/<year>/<month>/<day>/<hour>/<guid>.json`, UTC and not padded with zeros, as Event Grid has it.
fn path_of(name: &str, letter: &DeadLetter) -> String {
    let at = letter.at.to_string();
    // The form is fixed: `2026-01-31T08:30:00.000Z`.
    let part = |from: usize, to: usize| at.get(from..to).unwrap_or("0").trim_start_matches('0');
    let hour = match part(11, 13) {
        "" => "0",
        hour => hour,
    };
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    format!("{}/{year}/{month}/{day}/{hour}/{}.json", name.to_ascii_uppercase(), guid(name, letter))
}

/// The same for the same letter. The time is in it because a store may have the files of an earlier data directory,
/// whose positions were the same.
fn guid(name: &str, letter: &DeadLetter) -> uuid::Uuid {
    let mut hash = Sha256::new();
    for part in [name, &letter.event.position().to_string(), &letter.at.to_string(), &letter.event.cloud().id]
    {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hash) {
        *to = from;
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The event with what is known of its end, in an array of one.
fn body_of(letter: &DeadLetter) -> Bytes {
    let mut event: CloudEvent = letter.event.cloud().clone();
    let text = |text: String| Extension::Text(text);
    let attempts = i32::try_from(letter.attempts).unwrap_or(i32::MAX);
    event.set_extension("deadletterreason", text(letter.reason.to_string()));
    event.set_extension("deliveryattempts", Extension::Integer(attempts));
    if let Some(outcome) = letter.last_outcome {
        event.set_extension("lastdeliveryoutcome", text(outcome.to_string()));
    }
    if let Some(status) = letter.last_status {
        event.set_extension("lasthttpstatuscode", Extension::Integer(i32::from(status)));
    }
    event.set_extension("publishtime", text(letter.published.to_string()));
    if letter.attempts > 0 {
        event.set_extension("lastdeliveryattempttime", text(letter.at.to_string()));
    }
    let mut body = vec![b'['];
    event.write_json(&mut body);
    body.push(b']');
    body.into()
}

/// A store that many subscriptions share.
pub type SharedDeadLetterStore = Arc<dyn DeadLetterStore>;
