//! A group of the log as the events of topics, made once for all subscriptions that look at it.

use std::sync::Arc;

use fail::fail_point;

use crate::kernel::contain::insist;
use crate::model::change::CommittedGroup;
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::topic::Topic;
use crate::policy::filter::{Facts, KeyTable};
use crate::policy::suspects::POISON;
use crate::protocol::router::Interest;

/// An event that somebody may want.
pub(super) enum Candidate {
    /// With what filters asked of it so far.
    Sound(Facts<Arc<Event>>),
    /// It cannot be looked at without a crash.
    Poison(Arc<Event>),
}

impl Candidate {
    pub(super) fn event(&self) -> &Arc<Event> {
        match self {
            Self::Sound(facts) => facts.event(),
            Self::Poison(event) => event,
        }
    }
}

/// One group, and its events in each topic that somebody asked for.
pub(super) struct Reading<'g> {
    shard: ShardId,
    group: &'g CommittedGroup,
    topics: Vec<(Arc<Topic>, Vec<Candidate>)>,
}

impl<'g> Reading<'g> {
    pub(super) fn new(shard: ShardId, group: &'g CommittedGroup) -> Self {
        Self { shard, group, topics: Vec::new() }
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// The position of the group's last mutation.
    pub(super) fn last(&self) -> Lsn {
        self.group.last()
    }

    /// The events that the group is in a topic, in the order of the log.
    pub(super) fn of(&mut self, Interest { topic, keys, .. }: &Interest) -> &[Candidate] {
        let same = |known: &Arc<Topic>| Arc::ptr_eq(known, topic) || known == topic;
        let place = self.topics.iter().position(|(known, _)| same(known)).unwrap_or_else(|| {
            self.topics.push((topic.clone(), self.read(topic, keys)));
            self.topics.len() - 1
        });
        self.topics.get(place).map(|(_, candidates)| candidates.as_slice()).unwrap_or_default()
    }

    fn read(&self, topic: &Topic, keys: &KeyTable) -> Vec<Candidate> {
        let candidate = |(lsn, mutation)| {
            let event = Arc::new(Event::of(topic, Position { shard: self.shard, lsn }, mutation)?);
            let facts = insist(POISON, || {
                fail_point!("router::route", is_poison(&event), |_| Facts::new(event.clone(), keys));
                Facts::new(event.clone(), keys)
            });
            Some(match facts {
                Ok(facts) => Candidate::Sound(facts),
                Err(panicked) => {
                    tracing::error!(event = %event.position, panic = panicked.0, "event crashes the router");
                    Candidate::Poison(event)
                }
            })
        };
        self.group.positions().filter_map(candidate).collect()
    }
}

/// What a test makes the router stumble over.
#[cfg(feature = "failpoints")]
fn is_poison(event: &Event) -> bool {
    event.cloud.subject.as_ref().is_some_and(|subject| subject.contains("poison-route"))
}
