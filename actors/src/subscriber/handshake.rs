//! An endpoint says yes before it is sent anything.
//!
//! Stands between a subscription that was made, or changed, and its first delivery. Invariants: as long as an
//! endpoint has not agreed, nothing is sent to it; what it agreed to is durable, and holds for the URL that was
//! asked and for no other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Subscriber;
use super::config::{Destination, HandshakeKind, Webhook};
use super::rows::{decode, encode};
use crate::kernel::contain;
use crate::model::change::{Mutation, Table};
use crate::model::delivery::{
    HANDSHAKE, Handshake, ORIGIN, Transport, Validated, Validation, ValidationOutcome,
};
use crate::model::time::Timestamp;
use crate::policy::fairness::Class;
use crate::protocol::subscriber::{ConfirmEndpoint, ValidationState};
use crate::shard::CommitError;
use crate::store::View;

/// How long somebody has to open the URL of a handshake (Event Grid's time).
const MANUAL: Duration = Duration::from_secs(600);
/// How often the clock is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// Time beyond its own after which a handshake is given up here, if the transport did not do so.
const GRACE: Duration = Duration::from_secs(1);
/// Where a handshake is confirmed, below the public URL.
const CONFIRM: &str = "/.well-known/lanekeeper/validate";

/// A handshake under way.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Grows with each handshake, so that late answers to an earlier one are known.
    number: u64,
    /// What opens the way by hand.
    code: Option<String>,
    since: Timestamp,
}

/// What an endpoint agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Agreed {
    /// Hash of the URL that was asked.
    url: [u8; 16],
    /// Deliveries per minute that it takes.
    rate: Option<u32>,
}

/// Row of shard 0 that says what the endpoint of a subscription agreed to.
pub(super) fn validated_key(name: &str) -> Vec<u8> {
    [b"validated/".as_slice(), name.as_bytes()].concat()
}

fn hash(url: &str) -> [u8; 16] {
    twox_hash::XxHash3_128::oneshot(url.as_bytes()).to_be_bytes()
}

/// The slower of two rates.
fn slower(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Subscriber {
    fn handshake(&self) -> Option<(HandshakeKind, &Webhook)> {
        match &self.config.to {
            Destination::Webhook(webhook) => self.config.handshake.map(|kind| (kind, webhook)),
            Destination::Queue(_) => None,
        }
    }

    /// The rate that the subscription itself has.
    pub(super) fn own_rate(&self) -> Option<u32> {
        match &self.config.to {
            Destination::Webhook(webhook) => webhook.rate,
            Destination::Queue(_) => None,
        }
    }

    /// Whether the endpoint may be sent something.
    pub(super) fn is_validated(&self) -> bool {
        self.shown.validation.is_none()
    }

    /// Reads what the endpoint agreed to. One that was never asked, or under another URL, is asked by
    /// [`Self::ask_if_needed`].
    pub(super) fn load_validation(&mut self, view: &View) -> Result<(), String> {
        let Some((_, webhook)) = self.handshake() else {
            self.shown.validation = None;
            self.rate = self.own_rate();
            return Ok(());
        };
        let wanted = hash(&webhook.endpoint.url);
        let row = view.row(Table::System, &validated_key(&self.config.name));
        let row = row.map_err(|error| error.to_string())?;
        let agreed = row.as_deref().and_then(decode::<Agreed>).filter(|agreed| agreed.url == wanted);
        match agreed {
            Some(agreed) => {
                self.shown.validation = None;
                self.rate = slower(self.own_rate(), agreed.rate);
            }
            None => {
                // What the endpoint said, or may still say, holds over a crash of this actor.
                self.shown.validation.get_or_insert(ValidationState::Asking);
                self.rate = self.own_rate();
            }
        }
        Ok(())
    }

    /// Asks the endpoint, unless it has answered.
    pub(super) fn ask_if_needed(&mut self, ctx: &mut Context<Self>) {
        match &self.shown.validation {
            Some(ValidationState::Asking) => self.ask(ctx),
            Some(ValidationState::AwaitingManualAction(_)) => self.look_again(ctx),
            Some(ValidationState::Failed(_)) | None => {}
        }
    }

    /// Asks the endpoint whether it wants the events.
    pub(super) fn ask(&mut self, ctx: &mut Context<Self>) {
        let Some((kind, webhook)) = self.handshake() else { return };
        let endpoint = webhook.endpoint.clone();
        let now = self.clock.now();
        let code = uuid::Uuid::new_v4().to_string();
        let url = self.settings.public_url.as_ref().map(|base| {
            let name = &self.config.name;
            format!("{}{CONFIRM}?subscription={name}&code={code}", base.trim_end_matches('/'))
        });
        let handshake = match kind {
            HandshakeKind::EventGrid => Handshake::EventGrid {
                id: uuid::Uuid::new_v4().to_string(),
                topic: self.config.topic.name.to_string(),
                code: code.clone(),
                url,
                at: now.to_string(),
            },
            HandshakeKind::CloudEvents => Handshake::CloudEvents {
                origin: endpoint.origin.clone().unwrap_or_else(|| ORIGIN.to_owned()),
                callback: url,
                rate: self.own_rate(),
            },
        };
        let number = self.asked.number + 1;
        self.asked = Asked { number, code: Some(code), since: self.time.now() };
        self.shown.validation = Some(ValidationState::Asking);
        let validation =
            Validation { endpoint, subscription: self.config.name.clone(), handshake, timeout: HANDSHAKE };
        let (slots, owner, name) = (self.slots.clone(), self.config.tenant.clone(), self.config.name.clone());
        let transport = self.transport.clone();
        let asking = async move {
            let slot = slots.take(&owner, &name, Class::Retry).await;
            let outcome = validate(transport, validation).await;
            drop(slot);
            outcome
        };
        ctx.spawn(asking.into_actor(self).map(move |outcome, actor, ctx| {
            if actor.asked.number == number && !actor.is_validated() {
                actor.guarded(ctx, |actor, ctx| actor.answered(&outcome, ctx));
            }
        }));
    }

    fn answered(&mut self, outcome: &ValidationOutcome, ctx: &mut Context<Self>) {
        match outcome.verdict {
            Validated::Succeeded { rate: Some(0) } => self.refused("it takes 0 deliveries per minute"),
            Validated::Succeeded { rate } => self.agree(rate, ctx),
            Validated::AwaitingManualAction if self.settings.public_url.is_none() => {
                self.refused("it did not agree at once, and there is no `public_url` where it could later");
            }
            Validated::AwaitingManualAction => {
                let until = self.asked.since.after(MANUAL);
                self.shown.validation = Some(ValidationState::AwaitingManualAction(until));
                self.look_again(ctx);
            }
            Validated::Failed => self.refused(&outcome.detail),
        }
    }

    fn refused(&mut self, why: &str) {
        tracing::warn!(subscription = %self.config.name, why, "endpoint not validated");
        self.asked.code = None;
        self.shown.validation = Some(ValidationState::Failed(why.to_owned()));
        self.tell("subscription.validation_failed", &json!({ "reason": why }));
    }

    /// Makes durable that the endpoint agreed, and begins.
    fn agree(&mut self, rate: Option<u32>, ctx: &mut Context<Self>) {
        let (Some((_, webhook)), Some(router)) = (self.handshake(), self.routers.first()) else { return };
        let agreed = Agreed { url: hash(&webhook.endpoint.url), rate };
        let number = self.asked.number;
        let key = validated_key(&self.config.name).into();
        let put = Mutation::Put { table: Table::System, key, value: encode(&agreed) };
        let sent = router.shard().commit(vec![put]);
        let committed = async move {
            match sent {
                Ok(reply) => reply.await.unwrap_or(Err(CommitError::Unknown)),
                Err(error) => Err(error),
            }
        };
        ctx.spawn(committed.into_actor(self).map(move |committed, actor, ctx| {
            if actor.asked.number != number || actor.is_validated() {
                return;
            }
            if let Err(error) = committed {
                tracing::warn!(subscription = %actor.config.name, %error, "validation not committed yet");
                ctx.run_later(actor.settings.backoff, move |actor, ctx| {
                    if actor.asked.number == number && !actor.is_validated() {
                        actor.guarded(ctx, |actor, ctx| actor.agree(rate, ctx));
                    }
                });
                return;
            }
            tracing::info!(subscription = %actor.config.name, rate, "endpoint validated");
            actor.shown.validation = None;
            actor.asked.code = None;
            actor.rate = slower(actor.own_rate(), rate);
            actor.guarded(ctx, Self::pump);
        }));
    }

    /// What comes of a handshake from now on is of no interest.
    pub(super) fn forget_handshake(&mut self) {
        let number = self.asked.number + 1;
        self.asked = Asked { number, ..Asked::default() };
    }

    /// Gives up an endpoint that let its time pass.
    pub(super) fn expire_validation(&mut self) {
        if let Some(ValidationState::AwaitingManualAction(until)) = self.shown.validation
            && self.time.now() >= until
        {
            self.refused("nobody opened the validation URL in time");
        }
    }

    fn look_again(&self, ctx: &mut Context<Self>) {
        let Some(ValidationState::AwaitingManualAction(until)) = self.shown.validation else { return };
        let wait = until.since(self.time.now()).min(LOOK);
        let number = self.asked.number;
        ctx.run_later(wait, move |actor, ctx| {
            if actor.asked.number == number {
                actor.expire_validation();
                actor.look_again(ctx);
            }
        });
    }
}

impl Handler<ConfirmEndpoint> for Subscriber {
    type Result = bool;

    fn handle(&mut self, confirm: ConfirmEndpoint, ctx: &mut Self::Context) -> Self::Result {
        self.expire_validation();
        // An endpoint may open the URL before it answers the question itself.
        let awaited = match &self.shown.validation {
            Some(ValidationState::Asking | ValidationState::AwaitingManualAction(_)) => true,
            Some(ValidationState::Failed(_)) | None => false,
        };
        let right = self.asked.code.as_deref().is_some_and(|code| same(code, &confirm.code));
        if !awaited || !right || confirm.rate == Some(0) {
            return false;
        }
        self.guarded(ctx, |actor, ctx| actor.agree(confirm.rate, ctx));
        true
    }
}

/// Compares in a time that does not tell how much is right.
fn same(code: &str, given: &str) -> bool {
    use subtle::ConstantTimeEq;
    code.as_bytes().ct_eq(given.as_bytes()).into()
}

/// Asks. Neither a transport that panics nor one that never ends costs more than the handshake.
async fn validate(transport: Arc<dyn Transport>, validation: Validation) -> ValidationOutcome {
    let limit = validation.timeout.saturating_add(GRACE);
    let made = AssertUnwindSafe(async move { transport.validate(validation).await }).catch_unwind();
    match tokio::time::timeout(limit, made).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => {
            let text = contain::message(&*panic);
            tracing::error!(panic = text, "transport crashed");
            ValidationOutcome::failed(None, "the transport crashed")
        }
        Err(_) => ValidationOutcome::failed(None, "the transport did not keep the deadline"),
    }
}
