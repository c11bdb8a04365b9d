//! A subscription becomes another one while it runs: another endpoint, another filter, other headers.
//!
//! Invariants: no event that the old filter let through is lost, not even by a crash; what is routed after the
//! change passes the new one; nothing of the change is used before it is durable.

use std::sync::Arc;

use actix::{ActorFutureExt, Context, Handler, ResponseActFuture, WrapFuture};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::config::Destination;
use super::{Subscriber, SubscriptionConfig, handle};
use crate::model::change::{Mutation, Table};
use crate::protocol::subscriber::{Reconfigure, Revision, SubscriptionError, ValidationState};
use crate::shard::CommitError;

impl Handler<Reconfigure<SubscriptionConfig>> for Subscriber {
    type Result = ResponseActFuture<Self, Result<(), SubscriptionError>>;

    fn handle(&mut self, change: Reconfigure<SubscriptionConfig>, ctx: &mut Self::Context) -> Self::Result {
        let Reconfigure { config, revision, mut also } = change;
        let reroute = revision == Revision::Filter;
        let Some(shard) = self.routers.first().map(|router| router.shard().clone()) else {
            return Box::pin(actix::fut::ready(Err(SubscriptionError::Unavailable)));
        };
        if self.changing || self.is_draining || (reroute && self.shards.is_empty()) {
            return Box::pin(actix::fut::ready(Err(SubscriptionError::Busy)));
        }
        let (done, wait) = oneshot::channel();
        if reroute {
            self.stand_still(done, ctx);
        } else {
            done.send(()).ok();
        }
        if revision != Revision::Keys {
            // Whoever changes a subscription wants it to go on.
            let disabled = Bytes::from(handle::disabled_key(&self.config.name));
            also.push(Mutation::Delete { table: Table::System, key: disabled });
        }
        let committed = async move {
            wait.await.map_err(|_| SubscriptionError::Unknown)?;
            if !also.is_empty() {
                shard.commit(also)?.await.unwrap_or(Err(CommitError::Unknown))?;
            }
            Ok(())
        };
        Box::pin(committed.into_actor(self).map(
            move |committed: Result<(), SubscriptionError>, actor, ctx| {
                actor.guarded(ctx, |actor, ctx| match committed {
                    Ok(()) => actor.become_other(config, revision, ctx),
                    Err(_) => actor.stay(reroute, ctx),
                });
                committed
            },
        ))
    }
}

impl Subscriber {
    /// Begins nothing more, and writes down what waits in memory: `done` is told when nothing is under way and
    /// the cursors are at the end of what was handed over. What comes after that is routed again.
    fn stand_still(&mut self, done: oneshot::Sender<()>, ctx: &mut Context<Self>) {
        self.changing = true;
        self.epoch += 1;
        self.draining.push(done);
        self.guarded(ctx, |actor, ctx| {
            let now = actor.time.now();
            while let Some(event) = actor.next_ready(ctx) {
                // Due at once, with all its attempts.
                actor.retry_at(&event, None, (0, now, None), ctx);
            }
            actor.hurry();
            actor.pump(ctx);
        });
    }

    /// Nothing was changed; what stood still for it goes on.
    fn stay(&mut self, reroute: bool, ctx: &mut Context<Self>) {
        if reroute {
            self.changing = false;
            self.open(ctx);
        }
    }

    fn become_other(&mut self, config: Arc<SubscriptionConfig>, revision: Revision, ctx: &mut Context<Self>) {
        let moved = url(&config) != url(&self.config);
        self.config = config;
        if revision == Revision::Keys && !moved {
            return self.pump(ctx);
        }
        self.shown.disabled = None;
        if moved {
            self.health.reset();
            self.paced_until = None;
        }
        if moved || matches!(self.shown.validation, Some(ValidationState::Failed(_))) {
            // Nobody waits for the answer of the old one.
            self.shown.validation = None;
            self.forget_handshake();
        }
        if revision == Revision::Filter {
            self.changing = false;
            return self.open(ctx);
        }
        if let Some(Ok(view)) = self.routers.first().map(|router| router.shard().view())
            && let Err(why) = self.load_validation(&view)
        {
            tracing::warn!(subscription = %self.config.name, why, "validation not read");
        }
        self.ask_if_needed(ctx);
        self.schedule.hasten(self.time.now());
        self.export(ctx);
        self.pump(ctx);
    }
}

fn url(config: &SubscriptionConfig) -> Option<&str> {
    match &config.to {
        Destination::Webhook(webhook) => Some(&webhook.endpoint.url),
        Destination::Queue(_) => None,
    }
}
