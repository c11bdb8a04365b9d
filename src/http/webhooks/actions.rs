//! What callers do to their webhooks.
//!
//! Invariant: a change that was begun is ended, whether or not its caller waits for the answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use lanekeeper_actors::model::change::Mutation;
use lanekeeper_actors::model::cloudevent::{CloudEvent, Data};
use lanekeeper_actors::model::ids::{Name, TenantId};
use lanekeeper_actors::model::secret::SigningKey;
use lanekeeper_actors::protocol::subscriber::{Revision, SubscriptionStatus, ValidationState};
use lanekeeper_actors::shard::CommitError;
use lanekeeper_actors::subscriber::SubscriptionHandle;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::hook::{Hook, Signing};
use super::wanted::Wanted;
use super::{Inner, WebhookRefused, Webhooks};
use crate::http::admin::{AdminError, letters};
use crate::http::body;
use crate::http::problem::Problem;
use crate::http::routes::{WebhookAction, WebhookWork};
use crate::manifest;

/// How long an old key goes on signing when nobody says.
const OVERLAP: Duration = Duration::from_secs(86_400);
/// The longest time that anybody may say.
const OVERLAP_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Type of an event that is sent for a test.
const TEST: &str = "webhook.test";

/// A request that has an operation on webhooks and was admitted.
pub(in crate::http) struct Call<'a> {
    /// The request.
    pub(in crate::http) req: &'a HttpRequest,
    /// The decoded segments of its path.
    pub(in crate::http) segments: &'a [String],
    /// Who calls.
    pub(in crate::http) tenant: &'a TenantId,
    /// What was bought.
    pub(in crate::http) product: &'a Name,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    overlap: Option<String>,
}

/// Carries out an operation on webhooks.
pub(in crate::http) async fn answer(
    webhooks: &Webhooks,
    call: &Call<'_>,
    work: &WebhookWork,
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    let inner = &webhooks.0;
    let limits = inner.settings.body;
    let id = work.id.as_ref().map_or("", |id| id.of(call.segments));
    let find = || inner.find(call.tenant, &work.topic, id);
    let mut response = match work.action {
        WebhookAction::Create => {
            let body = body::json(call.req, payload, limits).await?;
            let (inner, tenant, product) = (inner.clone(), call.tenant.clone(), call.product.clone());
            let topic = work.topic.clone();
            detached(async move { inner.create((tenant, product, topic), &body).await }).await
        }
        WebhookAction::List => inner.list(call.tenant, &work.topic).await,
        WebhookAction::Show => Ok(HttpResponse::Ok().json(inner.describe(&*find()?).await)),
        WebhookAction::Update => {
            let hook = find()?;
            let body = body::json(call.req, payload, limits).await?;
            let (inner, product) = (inner.clone(), call.product.clone());
            detached(async move { inner.update(&hook, product, &body).await }).await
        }
        WebhookAction::RotateSecret => {
            let hook = find()?;
            let body = body::whole(call.req, payload, limits).await?;
            let inner = inner.clone();
            detached(async move { inner.rotate(&hook, &body).await }).await
        }
        WebhookAction::Test => inner.test(&*find()?).await,
        WebhookAction::Attempts => inner.attempts(&*find()?).await,
        WebhookAction::DeadLetters => {
            let handle = inner.running(&*find()?)?;
            letters::page(&handle, call.req.uri().query().unwrap_or_default(), inner.settings.page_max)
        }
        WebhookAction::Replay => {
            let handle = inner.running(&*find()?)?;
            let body = body::json(call.req, payload, limits).await?;
            let elsewhere = |_: &str| Err(AdminError::Request("`to` is for operators".to_owned()));
            let selection = letters::replayed(&handle, &body, elsewhere).await?;
            Ok(HttpResponse::Ok().json(json!({ "replayed": handle.replay(selection).await? })))
        }
        WebhookAction::Delete => {
            let (hook, inner) = (find()?, inner.clone());
            detached(async move { inner.delete(&hook).await }).await
        }
    }?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Runs to its end, even if the caller goes away.
async fn detached(
    work: impl Future<Output = Result<HttpResponse, Problem>> + 'static,
) -> Result<HttpResponse, Problem> {
    actix_web::rt::spawn(work).await.unwrap_or_else(|_| Err(Problem::crashed()))
}

impl Inner {
    fn handle(&self, hook: &Hook) -> Option<SubscriptionHandle> {
        self.system.subscription(&hook.name())
    }

    fn running(&self, hook: &Hook) -> Result<SubscriptionHandle, Problem> {
        Ok(self.handle(hook).ok_or_else(|| self.why_not(hook))?)
    }

    fn why_not(&self, hook: &Hook) -> WebhookRefused {
        match hook.config(&self.settings, self.clock.now()) {
            Err(why) => why,
            Ok(_) => WebhookRefused::Orphaned("it has not been started".to_owned()),
        }
    }

    async fn create(
        &self,
        (tenant, product, topic): (TenantId, Name, Name),
        body: &Bytes,
    ) -> Result<HttpResponse, Problem> {
        let wanted = Wanted::read(body)?;
        let _turn = self.turn(&tenant).await;
        let max = self.settings.products.get(&product).map_or(0, |rules| rules.max);
        let has = self.hooks().keys().filter(|(owner, _)| *owner == tenant).count();
        if has >= max {
            return Err(WebhookRefused::TooMany(max).into());
        }
        let now = self.clock.now();
        let key = SigningKey::symmetric(self.random.bytes());
        let id = format!("wh_{}", uuid::Uuid::now_v7().simple());
        let signing = vec![Signing { key: key.clone(), until: None }];
        let hook = Hook { tenant, id, topic, product, created: now, updated: now, wanted, signing };
        let config = hook.config(&self.settings, now)?;
        self.system.subscribe(config, vec![hook.put(&self.seal)?]).await?;
        let hook = Arc::new(hook);
        self.keep_hook(hook.clone());
        let mut shown = self.describe(&hook).await;
        shown.insert("secret".to_owned(), Value::from(key.reveal()));
        Ok(HttpResponse::Created().json(shown))
    }

    async fn list(&self, tenant: &TenantId, topic: &str) -> Result<HttpResponse, Problem> {
        let first = (tenant.clone(), String::new());
        let own: Vec<Arc<Hook>> = {
            let hooks = self.hooks();
            let own = hooks.range(first..).take_while(|((owner, _), _)| owner == tenant);
            own.map(|(_, hook)| hook.clone()).filter(|hook| self.is_on(hook, topic)).collect()
        };
        let mut shown = Vec::with_capacity(own.len());
        for hook in &own {
            shown.push(Value::Object(self.describe(hook).await));
        }
        Ok(HttpResponse::Ok().json(json!({ "webhooks": shown, "count": own.len() })))
    }

    async fn update(&self, hook: &Hook, product: Name, body: &Bytes) -> Result<HttpResponse, Problem> {
        let _turn = self.turn(&hook.tenant).await;
        // It may have changed while this waited.
        let before = self.find(&hook.tenant, &hook.topic, &hook.id)?;
        let wanted = before.wanted.changed(body)?;
        if wanted.order != before.wanted.order {
            let text = "`order` is what it was when the webhook was made".to_owned();
            return Err(WebhookRefused::Invalid(text).into());
        }
        let now = self.clock.now();
        let mut after = Hook { wanted, product, updated: now, ..(*before).clone() };
        after.forget_keys(now);
        let same = after.wanted.wants_same(&before.wanted);
        self.change(after, if same { Revision::Delivery } else { Revision::Filter })
            .await
            .map(|shown| HttpResponse::Ok().json(shown))
    }

    async fn rotate(&self, hook: &Hook, body: &Bytes) -> Result<HttpResponse, Problem> {
        let invalid = |text: String| Problem::from(WebhookRefused::Invalid(text));
        let asked: Rotation = match body.is_empty() {
            true => Rotation::default(),
            false => serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?,
        };
        let overlap = match asked.overlap {
            None => Some(OVERLAP),
            Some(text) => manifest::duration(&text).filter(|overlap| *overlap <= OVERLAP_MAX),
        };
        let text = "`overlap` is a duration such as `24h`, at most 7d, or `0s`".to_owned();
        let overlap = overlap.ok_or_else(|| invalid(text))?;
        let _turn = self.turn(&hook.tenant).await;
        let mut after = (*self.find(&hook.tenant, &hook.topic, &hook.id)?).clone();
        let key = SigningKey::symmetric(self.random.bytes());
        after.rotate(key.clone(), self.clock.now(), overlap);
        let mut shown = self.change(after, Revision::Keys).await?;
        shown.insert("secret".to_owned(), Value::from(key.reveal()));
        Ok(HttpResponse::Ok().json(shown))
    }

    /// Old keys sign no more.
    pub(super) async fn drop_old_keys(&self, hook: &Hook) -> Result<(), Problem> {
        let _turn = self.turn(&hook.tenant).await;
        let mut after = (*self.find(&hook.tenant, &hook.topic, &hook.id)?).clone();
        after.forget_keys(self.clock.now());
        self.change(after, Revision::Keys).await.map(drop)
    }

    /// Makes a changed webhook durable and lets it run.
    async fn change(&self, after: Hook, revision: Revision) -> Result<Map<String, Value>, Problem> {
        let also = vec![after.put(&self.seal)?];
        match (after.config(&self.settings, self.clock.now()), self.handle(&after)) {
            (Ok(config), Some(handle)) => handle.reconfigure(config, revision, also).await?,
            (Ok(config), None) => {
                self.system.subscribe(config, also).await?;
            }
            // Its secret may change although it cannot run.
            (Err(WebhookRefused::Orphaned(_)), None) => self.commit(also).await?,
            (Err(refused), _) => return Err(refused.into()),
        }
        let after = Arc::new(after);
        self.keep_hook(after.clone());
        Ok(self.describe(&after).await)
    }

    async fn commit(&self, mutations: Vec<Mutation>) -> Result<(), Problem> {
        let first = self.system.shards().first().ok_or(CommitError::Unavailable)?;
        first.commit(mutations)?.await.unwrap_or(Err(CommitError::Unknown))?;
        Ok(())
    }

    async fn test(&self, hook: &Hook) -> Result<HttpResponse, Problem> {
        let handle = self.running(hook)?;
        let data = json!({ "webhook": hook.id, "message": "This event was sent because somebody asked for a test." });
        let event = CloudEvent {
            time: Some(self.clock.now().to_string()),
            datacontenttype: Some("application/json".to_owned()),
            data: Data::Json(data.to_string().into()),
            ..CloudEvent::new(
                format!("test-{}", uuid::Uuid::new_v4()),
                format!("/webhooks/{}", hook.id),
                TEST,
            )
        };
        let id = event.id.clone();
        let outcome = handle.send_trial(event).await?;
        Ok(HttpResponse::Ok().json(json!({
            "delivered": outcome.is_delivered(),
            "event_id": id,
            "outcome": outcome.kind.to_string(),
            "status": outcome.status,
            "detail": outcome.detail,
            "excerpt": outcome.excerpt,
            "millis": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
        })))
    }

    async fn attempts(&self, hook: &Hook) -> Result<HttpResponse, Problem> {
        let attempts = self.running(hook)?.attempts().await;
        let shown: Vec<Value> = attempts.iter().map(letters::attempt).collect();
        Ok(HttpResponse::Ok().json(json!({ "attempts": shown, "count": shown.len() })))
    }

    async fn delete(&self, hook: &Hook) -> Result<HttpResponse, Problem> {
        let _turn = self.turn(&hook.tenant).await;
        let hook = self.find(&hook.tenant, &hook.topic, &hook.id)?;
        self.system.unsubscribe(&hook.name(), vec![hook.delete()]).await?;
        self.hooks().remove(&(hook.tenant.clone(), hook.id.clone()));
        Ok(HttpResponse::build(StatusCode::NO_CONTENT).finish())
    }

    /// What its tenant sees of a webhook.
    async fn describe(&self, hook: &Hook) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut add = |name: &str, value: Value| shown.insert(name.to_owned(), value);
        add("id", hook.id.as_str().into());
        add("topic", (&*hook.topic).into());
        for (name, value) in hook.wanted.shown() {
            add(&name, value);
        }
        add("created", hook.created.to_string().into());
        add("updated", hook.updated.to_string().into());
        let until = hook.signing.iter().filter_map(|signing| signing.until).max();
        add("old_secret_until", until.map(|until| until.to_string()).into());
        let Some(handle) = self.handle(hook) else {
            add("state", "orphaned".into());
            add("reason", self.why_not(hook).to_string().into());
            return shown;
        };
        let status = handle.status().await;
        let (state, reason) = state(&status);
        add("state", state.into());
        add("reason", reason.into());
        add("delivered", status.delivered.into());
        add("failed_attempts", status.failed_attempts.into());
        add("waiting", (status.ready as u64 + status.in_flight as u64).into());
        add("retrying", status.retrying.into());
        add("dead_lettered", status.dead_letters.into());
        shown
    }
}

fn state(status: &SubscriptionStatus) -> (&'static str, Option<String>) {
    if status.quarantined {
        return ("quarantined", None);
    }
    if let Some(why) = &status.disabled {
        return ("disabled", Some(why.clone()));
    }
    if status.paused {
        return ("paused", None);
    }
    match &status.validation {
        Some(ValidationState::Asking) => ("validating", None),
        Some(ValidationState::AwaitingManualAction(until)) => {
            ("awaiting_confirmation", Some(format!("the validation URL can be opened until {until}")))
        }
        Some(ValidationState::Failed(why)) => ("not_validated", Some(why.clone())),
        None => ("running", None),
    }
}
