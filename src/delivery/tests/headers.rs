//! What a delivery carries beside its body: signatures, credentials, headers of the subscription.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lanekeeper_actors::model::cloudevent::{CloudEvent, Data, Extension, from_binary};
use lanekeeper_actors::model::delivery::{Attempt, Credentials, Endpoint, Transport};
use lanekeeper_actors::model::secret::{Secret, SigningKey};

use super::server::Server;
use super::{EMPTY_200, attempt_to, endpoint, webhooks};
use crate::delivery::{WebhookSettings, Webhooks, check_endpoint};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// The headers of a request. No name comes twice.
fn headers(request: &str) -> HashMap<String, String> {
    let head = request.split("\r\n\r\n").next().unwrap();
    let mut headers = HashMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(headers.insert(name.to_owned(), value.to_owned()), None, "{name} comes twice");
    }
    headers
}

async fn sent(attempt: impl FnOnce(Endpoint) -> Attempt) -> HashMap<String, String> {
    let server = Server::answering(EMPTY_200).await;
    assert!(webhooks().deliver(attempt(endpoint(&server.url()))).await.is_delivered());
    headers(&server.requests()[0])
}

/// What an independent signer makes of a request.
fn signature(key: &str, headers: &HashMap<String, String>, body: &[u8]) -> String {
    let at = headers["webhook-timestamp"].parse().unwrap();
    standardwebhooks::Webhook::new(key).unwrap().sign(&headers["webhook-id"], at, body).unwrap()
}

#[tokio::test]
async fn a_secret_rotated_between_retries_signs_the_next_attempt_with_both_under_the_same_id() {
    let server = Server::answering(EMPTY_200).await;
    let seconds = Arc::new(AtomicU64::new(1_614_265_330));
    let clock = Arc::clone(&seconds);
    let clock = move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst));
    let webhooks = Webhooks::new(WebhookSettings::default(), Arc::new(clock)).unwrap();
    for keys in [&[OLD][..], &[NEW, OLD]] {
        let mut endpoint = endpoint(&server.url());
        endpoint.signing = keys.iter().map(|key| SigningKey::parse(key).unwrap()).collect();
        assert!(webhooks.deliver(attempt_to(endpoint)).await.is_delivered());
        seconds.fetch_add(10, Ordering::SeqCst);
    }
    let requests = server.requests();
    let body = requests[0].split_once("\r\n\r\n").unwrap().1.as_bytes();
    let (first, second) = (headers(&requests[0]), headers(&requests[1]));
    assert_eq!(first["webhook-id"], second["webhook-id"]);
    assert_eq!(
        (first["webhook-timestamp"].as_str(), second["webhook-timestamp"].as_str()),
        ("1614265330", "1614265340")
    );
    assert_eq!(first["webhook-signature"], signature(OLD, &first, body));
    let both = format!("{} {}", signature(NEW, &second, body), signature(OLD, &second, body));
    assert_eq!(second["webhook-signature"], both);
}

#[tokio::test]
async fn a_signed_id_has_no_dot_and_is_signed_as_it_is_sent() {
    let headers = sent(|mut endpoint| {
        endpoint.signing = vec![SigningKey::parse(OLD).unwrap()];
        Attempt { event_id: "a.b\n1".to_owned(), ..attempt_to(endpoint) }
    })
    .await;
    assert_eq!(headers["webhook-id"], "a%2Eb%0A1");
    assert_eq!(headers["webhook-signature"], signature(OLD, &headers, b"{\"id\":\"0-812\"}"));
}

#[tokio::test]
async fn a_bearer_token_an_origin_and_the_id_of_a_replay_are_sent_when_they_are_there() {
    let headers = sent(|mut endpoint| {
        endpoint.auth = Some(Credentials::Bearer(Secret::from("abc.def")));
        endpoint.origin = Some("events.example".to_owned());
        Attempt { replay: Some("replay-7".into()), ..attempt_to(endpoint) }
    })
    .await;
    for (name, value) in [
        ("authorization", "Bearer abc.def"),
        ("webhook-request-origin", "events.example"),
        ("origin", "events.example"),
        ("x-replay-id", "replay-7"),
    ] {
        assert_eq!(headers[name], value);
    }
    let headers = sent(attempt_to).await;
    for name in ["authorization", "origin", "x-replay-id", "webhook-signature", "webhook-timestamp"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn headers_of_the_subscription_are_sent_but_stand_for_none_of_ours_and_frame_no_message() {
    let own = |name: &str, value: &str| (Arc::from(name), value.to_owned());
    let headers = sent(|endpoint| Attempt {
        headers: vec![
            own("X-Region", "eu"),
            own("x-odd", "a\r\nx-evil: 1 ü"),
            own("authorization", "Basic c2VjcmV0"),
            own("user-agent", "carrier"),
            own("webhook-id", "forged"),
            own("X-Delivery-Attempt", "99"),
            own("content-type", "text/plain"),
            own("host", "elsewhere"),
            own("Content-Length", "1"),
            own("transfer-encoding", "chunked"),
            own("connection", "close"),
            own("no spaces", "1"),
            own("", "1"),
        ],
        ..attempt_to(endpoint)
    })
    .await;
    for (name, value) in [
        ("x-region", "eu"),
        ("x-odd", "a%0D%0Ax-evil: 1 %C3%BC"),
        ("authorization", "Basic c2VjcmV0"),
        ("user-agent", "carrier"),
        ("webhook-id", "0-812"),
        ("x-delivery-attempt", "3"),
        ("content-type", "application/cloudevents+json; charset=utf-8"),
        ("content-length", "14"),
    ] {
        assert_eq!(headers[name], value);
    }
    assert!(headers["host"].starts_with("127.0.0.1:"));
    for name in ["transfer-encoding", "connection", "x-evil", "no spaces"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn an_endpoint_whose_keys_or_headers_are_broken_is_refused_at_registration_and_at_send() {
    type Break = fn(&mut Endpoint);
    let broken: [(&str, Break); 4] = [
        ("a `whsk_` key does not fit its public half", |endpoint| {
            endpoint.signing = vec![SigningKey::V1a(Secret::new(vec![1; 64]))];
        }),
        ("the bearer token has a character that no header can hold", |endpoint| {
            endpoint.auth = Some(Credentials::Bearer(Secret::from("hush\n")));
        }),
        ("the origin has a character that no header can hold", |endpoint| {
            endpoint.origin = Some("a\nb".to_owned());
        }),
        ("there is no authority's certificate in the text", |endpoint| {
            endpoint.tls.ca = Some(Arc::from(&b"hush"[..]));
            endpoint.url = "https://127.0.0.1/".to_owned();
        }),
    ];
    let webhooks = webhooks();
    for (problem, break_it) in broken {
        let mut endpoint = endpoint("http://127.0.0.1/");
        check_endpoint(&endpoint).unwrap();
        break_it(&mut endpoint);
        assert_eq!(check_endpoint(&endpoint).unwrap_err().to_string(), problem);
        let outcome = webhooks.deliver(attempt_to(endpoint)).await;
        assert!(outcome.detail.starts_with(&format!("the request cannot be made: {problem}")), "{outcome:?}");
        assert!(!outcome.detail.contains("hush"), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_event_in_binary_mode_arrives_as_it_was_and_its_data_is_signed() {
    let data = Bytes::from_static(b"{\"n\": 1.50, \"big\": 12345678901234567890}");
    let mut event = CloudEvent::new("a \"1\"%", "/partners/%C3%A5", "Said");
    event.subject = Some("J\u{fc}rgen & \u{1f69a}".to_owned());
    event.time = Some("2026-01-31T08:30:00.123Z".to_owned());
    event.set_extension("hops", Extension::Integer(2));
    let modes = [
        (Some("application/json"), Data::Json(data)),
        (Some("text/plain; charset=utf-8"), Data::Text("\u{e5}".to_owned())),
        (None, Data::Binary(Bytes::from_static(&[0, 255, 13, 10]))),
        (None, Data::None),
    ];
    for (datacontenttype, data) in modes {
        let event = CloudEvent { datacontenttype: datacontenttype.map(str::to_owned), data, ..event.clone() };
        let message = event.to_headers();
        let server = Server::answering(EMPTY_200).await;
        let mut endpoint = endpoint(&server.url());
        endpoint.signing = vec![SigningKey::parse(NEW).unwrap()];
        let attributes = message.headers.into_iter().map(|(name, value)| (name.into(), value));
        let attempt = Attempt {
            content_type: message.content_type.map(Cow::Owned),
            body: message.body.clone(),
            headers: attributes.collect(),
            ..attempt_to(endpoint)
        };
        assert!(webhooks().deliver(attempt).await.is_delivered());
        let came = headers(&server.requests()[0]);
        let lines = came.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let content_type = came.get("content-type").map(String::as_str);
        assert_eq!(from_binary(lines, content_type, &message.body).unwrap(), in_headers(&event));
        // The independent signer takes texts only.
        if str::from_utf8(&message.body).is_ok() {
            assert_eq!(came["webhook-signature"], signature(NEW, &came, &message.body));
        }
    }
}

/// In headers every extension is text.
fn in_headers(event: &CloudEvent) -> CloudEvent {
    let text = |(name, value): &(String, Extension)| (name.clone(), Extension::Text(value.as_text().into()));
    CloudEvent { extensions: event.extensions.iter().map(text).collect(), ..event.clone() }
}
