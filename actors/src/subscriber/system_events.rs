//! What a subscriber tells the operators' topic of itself.

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytes::Bytes;
use serde_json::{Value, json};

use super::rows::DeadLetter;
use super::{Subscriber, handle};
use crate::model::change::{Mutation, PublishedEvent, Table};
use crate::model::cloudevent::{CloudEvent, Data};
use crate::model::ids::{Name, TenantId};
use crate::model::time::Timestamp;
use crate::model::topic::SYSTEM_TOPIC;
use crate::shard::CommitError;

/// Writes the system events of one subscription.
#[derive(Debug, Clone)]
pub(super) struct SystemEvents {
    subscription: Name,
    tenant: Option<TenantId>,
}

impl SystemEvents {
    /// The event of a dead letter, for the commit that has the letter itself.
    pub(super) fn dead_letter(&self, letter: &DeadLetter) -> Mutation {
        let (position, cloud) = (letter.event.position(), letter.event.cloud());
        let data = json!({
            "subscription": &*self.subscription,
            "event": position.to_string(),
            "event_id": cloud.id,
            "event_type": cloud.event_type,
            "reason": letter.reason.to_string(),
            "attempts": letter.attempts,
            "last_outcome": letter.last_outcome.map(|outcome| outcome.to_string()),
            "detail": letter.detail,
        });
        self.event("dead_letter.created", &position.to_string(), letter.at, &data)
    }

    fn event(&self, event_type: &str, id: &str, at: Timestamp, data: &Value) -> Mutation {
        let source = format!("/subscriptions/{}", self.subscription);
        let event = CloudEvent {
            time: Some(at.to_string()),
            subject: Some(self.subscription.to_string()),
            datacontenttype: Some("application/json".to_owned()),
            data: Data::Json(data.to_string().into()),
            ..CloudEvent::new(format!("{event_type}-{id}"), source, event_type)
        };
        let mut body = Vec::new();
        event.write_json(&mut body);
        Mutation::Event(PublishedEvent {
            topic: SYSTEM_TOPIC.into(),
            tenant: self.tenant.clone(),
            at,
            mark: None,
            body: body.into(),
        })
    }
}

impl Subscriber {
    /// The writer of system events, if there is a topic for them. What a subscription to that very topic
    /// has to tell would make events without end.
    pub(super) fn system_events(&self) -> Option<SystemEvents> {
        let wanted = self.tells && &*self.config.topic.name != SYSTEM_TOPIC;
        wanted.then(|| SystemEvents {
            subscription: self.config.name.clone(),
            tenant: self.config.tenant.clone(),
        })
    }

    /// Tells the operators' topic. What cannot be written is in the log of the process only.
    pub(super) fn tell(&self, event_type: &str, data: &Value) {
        let (Some(events), Some(router)) = (self.system_events(), self.routers.first()) else { return };
        let now = self.clock.now();
        let mutation = events.event(event_type, &now.0.to_string(), now, data);
        // Nobody waits for it: the state itself is kept elsewhere.
        if let Err(error) = router.shard().commit(vec![mutation]) {
            tracing::warn!(subscription = %self.config.name, event_type, %error, "system event not written");
        }
    }

    /// Ends deliveries until an operator resumes them. What waits, and what comes meanwhile, is given up and
    /// kept as dead letters.
    pub(super) fn disable(&mut self, why: &str, ctx: &mut Context<Self>) {
        tracing::warn!(subscription = %self.config.name, why, "subscription disabled");
        self.shown.disabled = Some(why.to_owned());
        self.health.reset();
        self.tell("subscription.disabled", &json!({"reason": why}));
        self.keep_disabled(why.to_owned(), ctx);
        self.schedule.hasten(self.time.now());
        self.pump(ctx);
    }

    /// Makes it durable; tries until it is.
    fn keep_disabled(&self, why: String, ctx: &mut Context<Self>) {
        let Some(router) = self.routers.first() else { return };
        let key = Bytes::from(handle::disabled_key(&self.config.name));
        let put = Mutation::Put { table: Table::System, key, value: Bytes::from(why.clone()) };
        let sent = router.shard().commit(vec![put]);
        let committed = async move {
            match sent {
                Ok(reply) => reply.await.unwrap_or(Err(CommitError::Unknown)),
                Err(error) => Err(error),
            }
        };
        ctx.spawn(committed.into_actor(self).map(move |committed, actor, ctx| {
            if committed.is_err() && actor.shown.disabled.is_some() {
                ctx.run_later(actor.settings.backoff, move |actor, ctx| actor.keep_disabled(why, ctx));
            }
        }));
    }
}
