//! Queues: events received under a lock, and what becomes of them, as in Event Grid's pull delivery.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use lanekeeper_actors::protocol::subscriber::{Decision, LockLost, Received};
use lanekeeper_actors::subscriber::{Destination, SubscriptionHandle};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admitted;
use crate::http::body;
use crate::http::path::{InvalidPath, query_value};
use crate::http::problem::Problem;
use crate::manifest::QueueAction;

/// Event Grid's bounds and defaults.
const EVENTS_MAX: usize = 100;
const WAIT: Duration = Duration::from_secs(60);
const DELAYS: [u64; 5] = [0, 10, 60, 600, 3_600];
/// Tokens that one request settles; they are worked on in one go.
const TOKENS_MAX: usize = 1_000;

/// Why a request about a queue is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueueRefused {
    /// There is no such queue, or it is another tenant's.
    #[error("there is no queue here")]
    NotFound,
    /// A parameter of the query is wrong.
    #[error("`{name}` is {what}")]
    Parameter {
        /// Which one.
        name: &'static str,
        /// What it must be.
        what: String,
    },
    /// The body has no tokens.
    #[error("the body is `{{\"lockTokens\": [\"…\"]}}` with 1 to {TOKENS_MAX} tokens")]
    Tokens,
    /// No token settled anything.
    #[error("none of the locks is held any more")]
    Lost {
        /// What is wrong with each.
        tokens: Value,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    #[serde(rename = "lockTokens")]
    tokens: Vec<String>,
}

/// Carries out an operation on a queue.
pub(in crate::http) async fn queue(
    call: &Admitted<'_>,
    (subscription, action): (&str, QueueAction),
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    let handle = find(call, subscription).ok_or(QueueRefused::NotFound)?;
    let decision = match action {
        QueueAction::Receive => return receive(call, &handle, payload).await,
        QueueAction::Acknowledge => Decision::Acknowledge,
        QueueAction::Release => Decision::Release(delay(call)?),
        QueueAction::Reject => Decision::Reject,
        QueueAction::RenewLock => Decision::Renew,
    };
    let body = body::json(call.req, payload, call.limits.body).await?;
    let Tokens { tokens } = serde_json::from_slice(&body).map_err(|_| QueueRefused::Tokens)?;
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        return Err(QueueRefused::Tokens.into());
    }
    let results = handle.settle(tokens.clone(), decision).await;
    settled(&tokens, &results)
}

/// The queue, if the caller may know of it.
fn find(call: &Admitted<'_>, subscription: &str) -> Option<SubscriptionHandle> {
    call.system.subscription(subscription).filter(|handle| {
        let config = handle.config();
        let mine = config.tenant.as_ref().is_none_or(|tenant| tenant == call.tenant);
        mine && matches!(config.to, Destination::Queue(_))
    })
}

async fn receive(
    call: &Admitted<'_>,
    handle: &SubscriptionHandle,
    payload: &mut Payload,
) -> Result<HttpResponse, Problem> {
    // It says nothing, but what is not read would end the connection.
    body::whole(call.req, payload, call.limits.body).await?;
    let wrong = |name, what: String| QueueRefused::Parameter { name, what };
    let most = match parameter(call, "maxEvents")? {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|most| (1..=EVENTS_MAX).contains(most))
            .ok_or_else(|| wrong("maxEvents", format!("a number from 1 to {EVENTS_MAX}")))?,
    };
    let longest = call.limits.wait;
    let wait = match parameter(call, "maxWaitTime")? {
        None => WAIT.min(longest),
        Some(text) => {
            text.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= longest).ok_or_else(|| {
                wrong("maxWaitTime", format!("a number of seconds from 0 to {}", longest.as_secs()))
            })?
        }
    };
    let received = tokio::select! {
        received = handle.receive(most, wait) => received?,
        // Nobody waits for events when the process ends.
        () = call.flight.closing() => Vec::new(),
    };
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(rendered(&received)))
}

/// The events as they were published; their JSON is not read again.
fn rendered(received: &[Received]) -> Vec<u8> {
    let bytes: usize = received.iter().map(|received| received.event.json().len() + 128).sum();
    let mut out = Vec::with_capacity(bytes + 16);
    out.extend_from_slice(b"{\"value\":[");
    for (index, received) in received.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut broker = json!({ "lockToken": received.token, "deliveryCount": received.deliveries });
        if let (Some(broker), Some(replay)) = (broker.as_object_mut(), &received.replay) {
            broker.insert("replayId".to_owned(), json!(replay));
        }
        out.extend_from_slice(format!("{{\"brokerProperties\":{broker},\"event\":").as_bytes());
        out.extend_from_slice(received.event.json());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

fn delay(call: &Admitted<'_>) -> Result<Duration, Problem> {
    let Some(text) = parameter(call, "releaseDelayInSeconds")? else { return Ok(Duration::ZERO) };
    let delay = text.parse().ok().filter(|delay| DELAYS.contains(delay));
    let wrong = || QueueRefused::Parameter {
        name: "releaseDelayInSeconds",
        what: format!("one of {}", DELAYS.map(|delay| delay.to_string()).join(", ")),
    };
    Ok(delay.map(Duration::from_secs).ok_or_else(wrong)?)
}

fn parameter(call: &Admitted<'_>, name: &str) -> Result<Option<String>, InvalidPath> {
    query_value(call.req.uri().query().unwrap_or_default(), name).transpose()
}

/// What became of each token: 200 if anything was settled.
fn settled(tokens: &[String], results: &[Result<(), LockLost>]) -> Result<HttpResponse, Problem> {
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    let results = results.iter().map(Some).chain(std::iter::repeat(None));
    for (token, result) in tokens.iter().zip(results) {
        let (code, message) = match result {
            Some(Ok(())) => {
                succeeded.push(token);
                continue;
            }
            Some(Err(LockLost::Bad)) => ("BadToken", "This is no lock token."),
            Some(Err(LockLost::Lost)) => ("TokenLost", "Token has expired."),
            None => ("Unknown", "The outcome is unknown."),
        };
        failed.push(json!({ "lockToken": token, "error": { "code": code, "message": message } }));
    }
    if succeeded.is_empty() {
        return Err(QueueRefused::Lost { tokens: Value::Array(failed) }.into());
    }
    Ok(HttpResponse::Ok().json(json!({ "succeededLockTokens": succeeded, "failedLockTokens": failed })))
}
