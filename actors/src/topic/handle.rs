//! The door to a topic that is published to.

use std::time::Duration;

use actix::{Addr, Context, Supervisor};
use tokio::sync::oneshot;

use super::{TopicRoom, TopicSettings, marks};
use crate::kernel::clock::SharedClock;
use crate::kernel::permits::Permits;
use crate::model::cloudevent::{CloudEvent, Extension};
use crate::model::event::{HOPS, hops};
use crate::model::ids::{Name, TenantId};
use crate::protocol::topic::{NewEvent, PublishError, PublishEvents, PublishResult};
use crate::router::RouterHandle;
use crate::shard::ShardHandle;

/// The mailbox holds what has a permit, and nothing else.
const MAILBOX: usize = 65_536;

/// Everybody's way to one topic; cheap to clone.
#[derive(Clone)]
pub struct TopicHandle {
    name: Name,
    addr: Addr<TopicRoom>,
    permits: Permits,
    router: RouterHandle,
    lag: u64,
}

impl TopicHandle {
    /// Starts the room of a topic on the current arbiter. Its events go to the shard of `router`.
    pub fn start(name: Name, router: RouterHandle, settings: TopicSettings, clock: SharedClock) -> Self {
        let (permits, lag) = (Permits::new(settings.queue), settings.lag);
        let room = TopicRoom::new(name.clone(), router.shard().clone(), settings, clock);
        let addr = Supervisor::start(move |ctx: &mut Context<TopicRoom>| {
            ctx.set_mailbox_capacity(MAILBOX);
            room
        });
        Self { name, addr, permits, router, lag }
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The shard that has its events.
    pub fn shard(&self) -> &ShardHandle {
        self.router.shard()
    }

    /// Publishes events of one request: all of them, in their order, or none. Those that were published
    /// before are counted and not taken again.
    ///
    /// # Errors
    /// [`PublishError::Unknown`] after `deadline`; the events may be taken then.
    pub async fn publish(
        &self,
        events: Vec<CloudEvent>,
        tenant: Option<TenantId>,
        deadline: Duration,
    ) -> PublishResult {
        if self.router.lag() > self.lag {
            return Err(PublishError::Behind);
        }
        let permit = self.permits.try_take().ok_or(PublishError::Overloaded)?;
        let events = events.into_iter().map(new_event).collect();
        let (reply, answer) = oneshot::channel();
        let message = PublishEvents { events, tenant, permit, reply };
        self.addr.try_send(message).map_err(|_| PublishError::Overloaded)?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(PublishError::Unknown),
        }
    }
}

/// The event as it is stored: whoever publishes what was delivered to him makes one more hop.
fn new_event(mut event: CloudEvent) -> NewEvent {
    let fingerprint = marks::fingerprint(&event);
    let next = i32::try_from(hops(&event)).unwrap_or(i32::MAX).saturating_add(1);
    event.set_extension(HOPS, Extension::Integer(next));
    let mut body = Vec::new();
    event.write_json(&mut body);
    NewEvent { fingerprint, body: body.into() }
}
