//! A group of the log as the events of topics, made once for all subscriptions that look at it.

use std::sync::Arc;

use fail::fail_point;

use crate::model::change::CommittedGroup;
use crate::model::event::Event;
use crate::model::ids::{Lsn, Position, ShardId};
use crate::model::topic::Topic;
use crate::policy::filter::{Facts, KeyTable};
use crate::protocol::router::Interest;

/// An event, and what filters asked of it so far.
pub(super) type Candidate = Facts<Arc<Event>>;

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
            let event = Event::of(topic, Position { shard: self.shard, lsn }, mutation)?;
            fail_point!("router::route", is_poison(&event), |_| None);
            Some(Facts::new(Arc::new(event), keys))
        };
        self.group.positions().filter_map(candidate).collect()
    }
}

/// What a test makes the router stumble over.
#[cfg(feature = "failpoints")]
fn is_poison(event: &Event) -> bool {
    event.cloud.subject.as_ref().is_some_and(|subject| subject.contains("poison-route"))
}
