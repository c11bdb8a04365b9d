//! One event for a test: sent at once, told at once, remembered nowhere.

use std::borrow::Cow;

use actix::{Handler, ResponseActFuture, WrapFuture};

use super::Subscriber;
use super::attempt::deliver;
use super::config::{Destination, HeaderValue};
use super::message::Message;
use crate::model::delivery::{Attempt, Outcome};
use crate::policy::fairness::Class;
use crate::protocol::subscriber::{SendTrial, TrialRefused};

impl Handler<SendTrial> for Subscriber {
    type Result = ResponseActFuture<Self, Result<Outcome, TrialRefused>>;

    fn handle(&mut self, SendTrial(event): SendTrial, _: &mut Self::Context) -> Self::Result {
        let attempt = match self.trial(&event) {
            Ok(attempt) => attempt,
            Err(refused) => return Box::pin(actix::fut::ready(Err(refused))),
        };
        self.pace(self.time.now());
        let (slots, owner, name) = (self.slots.clone(), self.config.tenant.clone(), self.config.name.clone());
        let transport = self.transport.clone();
        let sent = async move {
            let slot = slots.take(&owner, &name, Class::First).await;
            let outcome = deliver(transport, attempt).await;
            drop(slot);
            Ok(outcome)
        };
        Box::pin(sent.into_actor(self))
    }
}

impl Subscriber {
    fn trial(&self, event: &crate::model::cloudevent::CloudEvent) -> Result<Attempt, TrialRefused> {
        let Destination::Webhook(webhook) = &self.config.to else { return Err(TrialRefused::Queue) };
        if !self.is_validated() {
            return Err(TrialRefused::NotValidated);
        }
        if self.paced_until.is_some_and(|until| until > self.time.now()) {
            return Err(TrialRefused::Busy);
        }
        let mut body = Vec::new();
        event.write_json(&mut body);
        let body = std::iter::once(Cow::Owned(body.into()));
        let Message { content_type, body, attributes } = Message::new(webhook, event, body);
        // What would be taken from an event is not there.
        let headers = webhook.headers.iter().filter_map(|header| match &header.value {
            HeaderValue::Static(text) | HeaderValue::Secret(text) => {
                Some((header.name.clone(), text.to_string()))
            }
            HeaderValue::Event(_) => None,
        });
        Ok(Attempt {
            endpoint: webhook.endpoint.clone(),
            subscription: self.config.name.clone(),
            event_id: event.id.clone(),
            number: 1,
            traceparent: None,
            content_type,
            body,
            headers: attributes.into_iter().chain(headers).collect(),
            replay: None,
            timeout: self.settings.timeout,
        })
    }
}
