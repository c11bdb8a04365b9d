//! One room per topic that is published to: takes events once, and makes them durable.
//!
//! Stands between the gateway and the shard of its topic. Requests that wait while a commit is under way
//! go into the next one together. Invariants: a request's events are taken all or not at all; an event with
//! the source and id of one that was taken within the last [`WINDOW`] is not taken again; nothing is
//! answered before it is on disk.

mod handle;
mod marks;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Supervised, WrapFuture};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::kernel::clock::SharedClock;
use crate::kernel::contain::contain;
use crate::kernel::permits::Permit;
use crate::model::change::{Mutation, PublishedEvent};
use crate::model::ids::Name;
use crate::model::time::Timestamp;
use crate::protocol::topic::{PublishError, PublishEvents, PublishResult, Published};
use crate::shard::{CommitError, ShardHandle};
use crate::store::View;

pub use handle::TopicHandle;
pub use marks::WINDOW;
pub(crate) use marks::past;

/// Bounds of publishing; see `limits` in the manifest.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// Requests of one topic that wait or are being committed.
    pub queue: usize,
    /// Events in one commit, if more than one request waits.
    pub batch_events: usize,
    /// Bytes of such a commit.
    pub batch_bytes: usize,
    /// Changes by which the slower of router and publishers may be behind before publishing is refused.
    pub lag: u64,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { queue: 1_024, batch_events: 1_024, batch_bytes: 1 << 20, lag: 1_000_000 }
    }
}

/// The actor. Reached through [`TopicHandle`].
pub struct TopicRoom {
    topic: Name,
    shard: ShardHandle,
    settings: TopicSettings,
    clock: SharedClock,
    waiting: VecDeque<PublishEvents>,
    committing: bool,
}

/// A commit in the making.
#[derive(Default)]
struct Batch {
    mutations: Vec<Mutation>,
    bytes: usize,
    marks: HashSet<Bytes>,
    answers: Vec<Answer>,
}

/// Somebody who waits for a commit.
struct Answer {
    reply: oneshot::Sender<PublishResult>,
    published: Published,
    /// Given back together with the answer.
    _permit: Permit,
}

impl TopicRoom {
    fn new(topic: Name, shard: ShardHandle, settings: TopicSettings, clock: SharedClock) -> Self {
        Self { topic, shard, settings, clock, waiting: VecDeque::new(), committing: false }
    }

    /// Commits what is waiting, unless a commit is under way.
    fn commit(&mut self, ctx: &mut Context<Self>) {
        while !self.committing && !self.waiting.is_empty() {
            let Some(batch) = self.gather() else { return };
            if batch.mutations.is_empty() {
                // Nothing is new: what was taken before is on disk.
                batch.answer(Ok(()));
                continue;
            }
            self.committing = true;
            self.send(batch, ctx);
        }
    }

    fn gather(&mut self) -> Option<Batch> {
        let view = match self.shard.view() {
            Ok(view) => view,
            Err(_) => {
                for waiting in self.waiting.drain(..) {
                    waiting.reply.send(Err(PublishError::Unavailable)).ok();
                }
                return None;
            }
        };
        let now = self.clock.now();
        let mut batch = Batch::default();
        while let Some(next) = self.waiting.pop_front() {
            let full = batch.mutations.len() + next.events.len() > self.settings.batch_events
                || batch.bytes + next.bytes() > self.settings.batch_bytes;
            if full && !batch.mutations.is_empty() {
                self.waiting.push_front(next);
                break;
            }
            let topic = &self.topic;
            match contain(|| batch.add(next, topic, &view, now)) {
                Ok(()) => {}
                // Its caller learns that nobody knows; nothing of it was added.
                Err(panicked) => tracing::error!(%topic, panic = panicked.0, "publishing crashed"),
            }
        }
        Some(batch)
    }

    fn send(&self, mut batch: Batch, ctx: &mut Context<Self>) {
        let sent = self.shard.commit(std::mem::take(&mut batch.mutations));
        let committed = async move {
            match sent {
                Ok(reply) => reply.await.unwrap_or(Err(CommitError::Unknown)),
                Err(error) => Err(error),
            }
        };
        ctx.spawn(committed.into_actor(self).map(move |committed, actor, ctx| {
            batch.answer(committed.map(|_| ()).map_err(PublishError::from));
            actor.committing = false;
            actor.commit(ctx);
        }));
    }
}

impl Batch {
    fn add(&mut self, request: PublishEvents, topic: &Name, view: &Arc<View>, now: Timestamp) {
        let PublishEvents { events, tenant, permit, reply } = request;
        let (mut taken, mut duplicates) = (Vec::with_capacity(events.len()), 0);
        let mut marks = Vec::with_capacity(events.len());
        for event in events {
            let [mark, earlier] = marks::keys(topic, now, &event.fingerprint);
            let known = || {
                let row = |key| view.row(crate::model::change::Table::Published, key);
                Ok::<_, crate::store::ViewReadError>(row(&mark)?.is_some() || row(&earlier)?.is_some())
            };
            if self.marks.contains(&mark) || marks.contains(&mark) {
                duplicates += 1;
                continue;
            }
            match known() {
                Ok(true) => duplicates += 1,
                Ok(false) => {
                    marks.push(mark.clone());
                    let (topic, tenant) = (topic.clone(), tenant.clone());
                    taken.push(PublishedEvent { topic, tenant, at: now, mark: Some(mark), body: event.body });
                }
                Err(error) => {
                    tracing::error!(%topic, %error, "marks of published events not read");
                    reply.send(Err(PublishError::Unavailable)).ok();
                    return;
                }
            }
        }
        let published = Published { taken: taken.len(), duplicates };
        self.marks.extend(marks);
        self.bytes += taken.iter().map(|event| event.body.len()).sum::<usize>();
        self.mutations.extend(taken.into_iter().map(Mutation::Event));
        self.answers.push(Answer { reply, published, _permit: permit });
    }

    fn answer(self, result: Result<(), PublishError>) {
        for Answer { reply, published, _permit } in self.answers {
            // The caller may have given up; its events stand all the same.
            reply.send(result.map(|()| published)).ok();
        }
    }
}

impl From<CommitError> for PublishError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Busy => Self::Overloaded,
            CommitError::Unavailable => Self::Unavailable,
            CommitError::NoRoom => Self::NoRoom,
            CommitError::TooLarge => Self::TooLarge,
            CommitError::Unknown => Self::Unknown,
        }
    }
}

impl Actor for TopicRoom {
    type Context = Context<Self>;
}

impl Supervised for TopicRoom {}

impl Handler<PublishEvents> for TopicRoom {
    type Result = ();

    fn handle(&mut self, message: PublishEvents, ctx: &mut Self::Context) {
        self.waiting.push_back(message);
        self.commit(ctx);
    }
}
