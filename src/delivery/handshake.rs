//! Stands between a new subscription and an endpoint that may not want it: asks before anything is delivered.
//! Invariant: an endpoint that did not say yes in the words of its protocol did not say yes.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use lanekeeper_actors::model::delivery::{Handshake, Outcome, Validated, Validation, ValidationOutcome};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::endpoint::{Prepared, REQUEST_ORIGIN};
use super::exchange::{Answer, Call};
use super::send::{Sender, insert};

const REQUEST_CALLBACK: HeaderName = HeaderName::from_static("webhook-request-callback");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
/// Bytes of an answer that are read for a code.
const LARGEST: usize = 64 * 1024;

/// Makes one handshake within `deadline`.
pub(crate) async fn validate(
    sender: &Sender,
    validation: &Validation,
    deadline: Instant,
) -> ValidationOutcome {
    let made = async {
        let endpoint = sender.prepared(&validation.endpoint).map_err(|problem| problem.outcome())?;
        let _permit = sender.permit(deadline).await?;
        let (method, headers, body) = match &validation.handshake {
            Handshake::EventGrid { .. } => challenge(sender, &endpoint, validation),
            Handshake::CloudEvents { origin, callback, rate } => {
                options(&endpoint, origin, callback.as_deref(), *rate)
            }
        };
        let call = Call { method, headers: &|| headers.clone(), body };
        let answer = sender.answer(&endpoint, call, deadline).await?;
        Ok::<_, Outcome>(match &validation.handshake {
            Handshake::EventGrid { code, url, .. } => {
                let status = answer.status;
                let body = sender.exchange.finish(&endpoint.place, answer, LARGEST, deadline).await;
                echoed(status, &body, code, url.is_some())
            }
            Handshake::CloudEvents { origin, callback, .. } => {
                let verdict = allowed(&answer, origin, callback.is_some());
                sender.exchange.finish(&endpoint.place, answer, 0, deadline).await;
                verdict
            }
        })
    };
    made.await.unwrap_or_else(|outcome| ValidationOutcome::failed(None, outcome.detail))
}

/// What an endpoint is asked with.
type Question = (Method, HeaderMap, Bytes);

/// The event with the code (Event Grid's webhook validation). It is signed like any other delivery.
fn challenge(sender: &Sender, endpoint: &Prepared, validation: &Validation) -> Question {
    let mut headers = endpoint.headers.clone();
    let mut body = Bytes::new();
    if let Handshake::EventGrid { id, topic, code, url, at } = &validation.handshake {
        let mut data = json!({ "validationCode": code });
        if let (Value::Object(data), Some(url)) = (&mut data, url) {
            data.insert("validationUrl".to_owned(), Value::from(url.as_str()));
        }
        let event = json!([{
            "id": id,
            "topic": topic,
            "subject": "",
            "data": data,
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": at,
            "metadataVersion": "1",
            "dataVersion": "1",
        }]);
        body = Bytes::from(event.to_string());
        sender.identify(&mut headers, endpoint, id, &body);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    for (name, value) in [
        ("aeg-event-type", "SubscriptionValidation"),
        ("aeg-delivery-count", "0"),
        ("aeg-metadata-version", "1"),
        ("aeg-data-version", "1"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let name = validation.subscription.to_uppercase();
    insert(&mut headers, HeaderName::from_static("aeg-subscription-name"), &name);
    (Method::POST, headers, body)
}

/// Whether the endpoint echoed the code. An answer that says nothing about it leaves the decision to a person,
/// if one can take it; a wrong code is a decision.
fn echoed(status: StatusCode, body: &[u8], code: &str, by_hand: bool) -> ValidationOutcome {
    let decided = |verdict, detail: &str| ValidationOutcome {
        verdict,
        detail: detail.to_owned(),
        ..ValidationOutcome::failed(Some(status.as_u16()), "")
    };
    if status != StatusCode::OK {
        return decided(Validated::Failed, &format!("status {}, where 200 is asked for", status.as_u16()));
    }
    let answer: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let response = answer.iter().flatten().find(|(key, _)| key.eq_ignore_ascii_case("validationResponse"));
    match response {
        Some((_, response)) if response.as_str() == Some(code) => {
            decided(Validated::Succeeded { rate: None }, "")
        }
        Some(_) => decided(Validated::Failed, "`validationResponse` is not the code that was sent"),
        None if by_hand => decided(Validated::AwaitingManualAction, ""),
        None => decided(Validated::Failed, "the answer has no `validationResponse`"),
    }
}

/// The question whether somebody may send (CloudEvents HTTP webhooks, section 4.1).
fn options(endpoint: &Prepared, origin: &str, callback: Option<&str>, rate: Option<u32>) -> Question {
    let mut headers = endpoint.headers.clone();
    insert(&mut headers, REQUEST_ORIGIN, origin);
    if let Some(callback) = callback {
        insert(&mut headers, REQUEST_CALLBACK, callback);
    }
    if let Some(rate) = rate {
        headers.insert(REQUEST_RATE, HeaderValue::from(rate));
    }
    (Method::OPTIONS, headers, Bytes::new())
}

/// Whether the headers of an answer allow it (section 4.2). A status alone says nothing: many servers answer
/// `OPTIONS` for reasons of their own.
fn allowed(answer: &Answer, origin: &str, may_call_back: bool) -> ValidationOutcome {
    let status = answer.status.as_u16();
    let text =
        |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::trim);
    let decided = |verdict| ValidationOutcome { verdict, ..ValidationOutcome::failed(Some(status), "") };
    let failed = |detail: &str| ValidationOutcome::failed(Some(status), detail);
    if !answer.status.is_success() {
        return failed(&format!("status {status}"));
    }
    match text(ALLOWED_ORIGIN) {
        Some(allowed) if allowed == "*" || allowed.eq_ignore_ascii_case(origin) => {}
        Some(_) => return failed("`webhook-allowed-origin` names another origin"),
        None if may_call_back => return decided(Validated::AwaitingManualAction),
        None => return failed("the answer has no `webhook-allowed-origin`"),
    }
    match (answer.headers.contains_key(ALLOWED_RATE), text(ALLOWED_RATE)) {
        (false, _) | (true, Some("*")) => decided(Validated::Succeeded { rate: None }),
        (true, rate) => match rate.and_then(|rate| rate.parse::<u32>().ok()) {
            Some(rate) if rate > 0 => decided(Validated::Succeeded { rate: Some(rate) }),
            Some(_) | None => failed("`webhook-allowed-rate` is neither `*` nor a number above 0"),
        },
    }
}
