//! The start of a subscriber: reads what is owed from the shards, then joins their routers.

use std::sync::Arc;

use actix::{AsyncContext, Context};
use bytes::Bytes;

use super::order::Keys;
use super::rows::{Progress, decode, parse_held, prefix};
use super::schedule::Schedule;
use super::settle::Ledger;
use super::track::Track;
use super::{Counts, Lot, Subscriber, handle};
use crate::model::change::Table;
use crate::model::ids::Position;
use crate::protocol::router::{Interest, JoinLane};
use crate::shard::ShardHandle;

/// Rows that are read at once.
const HELD_PAGE: usize = 1_024;

impl Subscriber {
    /// Reads its state from the shards and joins their routers; tries again until that works.
    pub(super) fn open(&mut self, ctx: &mut Context<Self>) {
        let opened = if Arc::strong_count(&self.on_its_way) > 1 {
            // Outcomes that an earlier start sent are about to change what would be read now.
            self.hurry();
            Err("earlier outcomes are on their way".to_owned())
        } else {
            self.load()
        };
        if let Err(why) = opened {
            tracing::warn!(subscription = %self.config.name, why, "subscription not started yet");
            ctx.run_later(self.settings.backoff, |actor, ctx| actor.guarded(ctx, Self::open));
            return;
        }
        self.epoch += 1;
        if let Err(why) = self.load_replays(ctx) {
            tracing::warn!(subscription = %self.config.name, why, "replays not read");
        }
        for index in 0..self.shards.len() {
            self.join(index, ctx);
            self.release_log(index);
        }
        self.ask_if_needed(ctx);
        self.export(ctx);
        self.pump(ctx);
    }

    fn load(&mut self) -> Result<(), String> {
        let name = &*self.config.name.clone();
        let (mut shards, mut counts) = (Vec::new(), Counts::default());
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for router in self.routers.iter() {
            let view = router.shard().view().map_err(|error| error.to_string())?;
            let row = view.row(Table::Progress, name.as_bytes()).map_err(|error| error.to_string())?;
            let row = row.ok_or("it has no cursor")?;
            let mut progress: Progress = decode(&row).ok_or("its cursor cannot be read")?;
            // The log is only trimmed past what has an outcome.
            progress.cursor = progress.cursor.max(router.shard().log().first().previous());
            let prefix = prefix(name);
            let retrying = view.count(Table::Deliveries, &prefix).map_err(|error| error.to_string())?;
            let dead = view.count(Table::DeadLetters, &prefix).map_err(|error| error.to_string())?;
            counts.retrying += signed(retrying);
            counts.dead_letters += signed(dead);
            shards.push(Lot {
                router: router.clone(),
                track: Track::resume(progress),
                ledger: Ledger::default(),
            });
        }
        let first = self.routers.first().ok_or("there are no shards")?;
        let view = first.shard().view().map_err(|error| error.to_string())?;
        let paused = view.row(Table::System, &handle::pause_key(name)).map_err(|error| error.to_string())?;
        let disabled = view.row(Table::System, &handle::disabled_key(name));
        let disabled = disabled.map_err(|error| error.to_string())?;
        self.load_validation(&view)?;
        let exports = if self.config.export.is_some() { self.count_exports()? } else { 0 };
        self.exporter.restart(exports);
        let mut keys = Keys::default();
        if self.is_ordered() {
            for router in self.routers.iter() {
                load_held(router.shard(), name, &mut keys)?;
            }
        }
        self.keys = keys;
        self.shards = shards;
        self.schedule = Schedule::new(self.settings.retry_page);
        self.opened = self.time.now();
        if let Some(since) = self.resumed.take() {
            self.schedule.hasten(since);
        }
        self.shown.paused = paused.is_some();
        self.shown.disabled = disabled.map(|why| String::from_utf8_lossy(&why).into_owned());
        self.counts = counts;
        Ok(())
    }

    fn join(&mut self, index: usize, ctx: &mut Context<Self>) {
        let Some(lot) = self.shards.get(index) else { return };
        let joined = lot.router.join(JoinLane {
            subscription: self.config.name.clone(),
            epoch: self.epoch,
            from: lot.track.cursor(),
            credit: self.credit(),
            interest: Interest {
                topic: self.config.topic.clone(),
                keys: self.config.keys.clone(),
                tenant: self.config.tenant.clone(),
                filter: self.config.filter.clone(),
            },
            to: ctx.address().recipient(),
        });
        if !joined {
            tracing::warn!(subscription = %self.config.name, shard = index, "router too busy for a new lane");
            ctx.run_later(self.settings.backoff, move |actor, ctx| {
                actor.guarded(ctx, |actor, ctx| actor.join(index, ctx));
            });
        }
    }
}

/// What waits in the store for an earlier event with its key.
fn load_held(shard: &ShardHandle, name: &str, keys: &mut Keys) -> Result<(), String> {
    let (prefix, mut after): (Vec<u8>, Option<Bytes>) = (prefix(name), None);
    loop {
        let view = shard.view().map_err(|error| error.to_string())?;
        let rows = view.rows(Table::Held, &prefix, after.as_deref(), HELD_PAGE);
        let rows = rows.map_err(|error| error.to_string())?;
        for (rest, value) in &rows {
            let (print, lsn, published) = parse_held(rest, value).ok_or("what is held cannot be read")?;
            keys.hold(Position { shard: shard.id(), lsn }, print, published);
        }
        if rows.len() < HELD_PAGE {
            return Ok(());
        }
        after = rows.last().map(|(rest, _)| rest.clone());
    }
}
