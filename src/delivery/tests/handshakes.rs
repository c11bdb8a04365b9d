//! Endpoints that are asked whether they want a subscription's events, and what they say.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_actors::model::delivery::Validated::{self, *};
use lanekeeper_actors::model::delivery::{
    Credentials, Endpoint, Handshake, Transport, Validation, ValidationOutcome,
};
use lanekeeper_actors::model::secret::{Secret, SigningKey};
use serde_json::{Value, json};

use super::server::Server;
use super::{DISTANT, EMPTY_200, SHORT, SLACK, endpoint, webhooks};

const CODE: &str = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6";

fn event_grid(url: Option<&str>) -> Handshake {
    Handshake::EventGrid {
        id: "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66".to_owned(),
        topic: "load-events".to_owned(),
        code: CODE.to_owned(),
        url: url.map(str::to_owned),
        at: "2026-01-02T03:04:05Z".to_owned(),
    }
}

fn cloud_events(callback: Option<&str>) -> Handshake {
    let callback = callback.map(str::to_owned);
    Handshake::CloudEvents { origin: "events.example".to_owned(), callback, rate: Some(120) }
}

async fn validate(endpoint: Endpoint, handshake: Handshake, timeout: Duration) -> ValidationOutcome {
    let subscription = "matching".into();
    let validation = Validation { endpoint: Arc::new(endpoint), subscription, handshake, timeout };
    webhooks().validate(validation).await
}

async fn verdict(answer: &str, handshake: Handshake) -> ValidationOutcome {
    let server = Server::answering(answer).await;
    let outcome = validate(endpoint(&server.url()), handshake, DISTANT).await;
    let failed = outcome.verdict == Failed;
    assert_eq!(outcome.detail.is_empty(), !failed, "{answer}: {outcome:?}");
    outcome
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn only_200_with_the_very_code_is_a_yes_and_a_silent_200_waits_for_a_person() {
    let echo = |code: &str| ok(&json!({ "validationResponse": code }).to_string());
    let other_status = |status: &str| echo(CODE).replace("200 OK", status);
    let by_hand = Some("https://us.example/validate");
    for (answer, with_url, without) in [
        (echo(CODE), Succeeded { rate: None }, Succeeded { rate: None }),
        (
            ok(&format!("{{\"ValidationResponse\":\"{CODE}\"}}")),
            Succeeded { rate: None },
            Succeeded { rate: None },
        ),
        (echo("another"), Failed, Failed),
        (echo(&CODE.to_uppercase()), Failed, Failed),
        (ok(r#"{"validationResponse":7}"#), Failed, Failed),
        (ok("{}"), AwaitingManualAction, Failed),
        (ok(&format!("[\"{CODE}\"]")), AwaitingManualAction, Failed),
        (ok(CODE), AwaitingManualAction, Failed),
        (EMPTY_200.to_owned(), AwaitingManualAction, Failed),
        (other_status("202 Accepted"), Failed, Failed),
        (other_status("204 No Content"), Failed, Failed),
        (other_status("307 Go"), Failed, Failed),
        (other_status("500 Oops"), Failed, Failed),
        ("nonsense\r\n\r\n".to_owned(), Failed, Failed),
    ] {
        assert_eq!(verdict(&answer, event_grid(by_hand)).await.verdict, with_url, "{answer}");
        assert_eq!(verdict(&answer, event_grid(None)).await.verdict, without, "{answer}");
    }
}

#[tokio::test]
async fn the_event_with_the_code_is_as_event_grid_writes_it_and_signed() {
    let server = Server::answering(EMPTY_200).await;
    let mut endpoint = endpoint(&server.url());
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    endpoint.signing = vec![SigningKey::parse(key).unwrap()];
    validate(endpoint, event_grid(Some("https://us.example/v?id=1")), DISTANT).await;
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!([{
            "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
            "topic": "load-events",
            "subject": "",
            "data": { "validationCode": CODE, "validationUrl": "https://us.example/v?id=1" },
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": "2026-01-02T03:04:05Z",
            "metadataVersion": "1",
            "dataVersion": "1",
        }])
    );
    let at = super::NOW.as_secs().try_into().unwrap();
    let signer = standardwebhooks::Webhook::new(key).unwrap();
    let signature = signer.sign("2d1781af-3a4c-4d7c-bd0c-e34b19da4e66", at, body.as_bytes()).unwrap();
    assert!(head.starts_with("POST /hook?code=1 HTTP/1.1\r\n"));
    for line in [
        "content-type: application/json; charset=utf-8",
        "aeg-event-type: SubscriptionValidation",
        "aeg-subscription-name: MATCHING",
        "aeg-delivery-count: 0",
        &format!("webhook-signature: {signature}"),
    ] {
        assert!(head.lines().any(|other| other == line), "{line} in {head}");
    }
}

#[tokio::test]
async fn an_origin_is_allowed_by_the_header_and_not_by_the_status() {
    let yes = |rate| Succeeded { rate };
    let cases: [(&str, Validated, Validated); 12] = [
        ("200 OK\r\nwebhook-allowed-origin: events.example", yes(None), yes(None)),
        ("204 No\r\nWebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: *", yes(None), yes(None)),
        ("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: 60", yes(Some(60)), yes(Some(60))),
        ("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: 0", Failed, Failed),
        ("200 OK\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: many", Failed, Failed),
        ("200 OK\r\nwebhook-allowed-origin: elsewhere.example", Failed, Failed),
        ("200 OK\r\nallow: POST", Failed, AwaitingManualAction),
        ("204 No\r\naccess-control-allow-origin: *", Failed, AwaitingManualAction),
        ("405 No\r\nallow: POST", Failed, Failed),
        ("404 No\r\nx: y", Failed, Failed),
        ("302 Go\r\nwebhook-allowed-origin: *", Failed, Failed),
        ("500 Oops\r\nwebhook-allowed-origin: *", Failed, Failed),
    ];
    for (answer, without, with_callback) in cases {
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
        let answer =
            if answer.contains(" 204 ") { answer.replace("content-length: 0\r\n", "") } else { answer };
        assert_eq!(verdict(&answer, cloud_events(None)).await.verdict, without, "{answer}");
        let callback = Some("https://us.example/c");
        assert_eq!(verdict(&answer, cloud_events(callback)).await.verdict, with_callback, "{answer}");
    }
}

#[tokio::test]
async fn the_question_goes_to_the_exact_url_with_origin_rate_callback_and_credentials() {
    let server = Server::answering(EMPTY_200).await;
    let mut endpoint = endpoint(&server.url());
    endpoint.auth = Some(Credentials::Bearer(Secret::from("abc")));
    validate(endpoint, cloud_events(Some("https://us.example/c?k=1")), DISTANT).await;
    let request = &server.requests()[0];
    assert!(request.starts_with("OPTIONS /hook?code=1 HTTP/1.1\r\n"), "{request}");
    for line in [
        "webhook-request-origin: events.example",
        "webhook-request-rate: 120",
        "webhook-request-callback: https://us.example/c?k=1",
        "authorization: Bearer abc",
    ] {
        assert!(request.lines().any(|other| other == line), "{line} in {request}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_late_or_out_of_bounds_said_no() {
    let hung = Server::start(|mut connection| async move { connection.closed().await }).await;
    let outcome = validate(endpoint(&hung.url()), event_grid(Some("https://us.example/")), SHORT).await;
    assert_eq!((outcome.verdict, outcome.status), (Failed, None), "{outcome:?}");
    assert!(outcome.took >= SHORT && outcome.took < SHORT + SLACK, "{outcome:?}");

    let canary = Server::answering(EMPTY_200).await;
    for handshake in [event_grid(Some("https://us.example/")), cloud_events(None)] {
        let outcome = validate(Endpoint::plain(canary.url(), vec![]), handshake, DISTANT).await;
        assert_eq!(outcome.verdict, Failed);
        assert!(outcome.detail.contains("may not be contacted"), "{outcome:?}");
    }
    assert_eq!(canary.accepted(), 0);
}
