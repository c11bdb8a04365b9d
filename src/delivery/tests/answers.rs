//! What the endpoint answers, or fails to answer, and what the attempt makes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_actors::model::delivery::OutcomeKind::{self, *};
use lanekeeper_actors::model::delivery::{EXCERPT, Outcome, Transport};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::server::Server;
use super::{AMPLE, EMPTY_200, SHORT, SLACK, assert_timed_out, attempt, deliver_shortly, webhooks};

fn assert_socket_error(outcome: &Outcome, detail: &str) {
    assert_eq!(outcome.kind, SocketError, "{outcome:?}");
    assert_eq!(outcome.status, None);
    assert!(outcome.detail.contains(detail), "{outcome:?}");
}

#[tokio::test]
async fn only_200_to_204_are_a_success_and_each_failure_has_its_kind() {
    let webhooks = webhooks();
    let expected: &[(u16, OutcomeKind)] = &[
        (200, Delivered),
        (201, Delivered),
        (202, Delivered),
        (203, Delivered),
        (204, Delivered),
        (205, Rejected),
        (206, Rejected),
        (226, Rejected),
        (301, Rejected),
        (302, Rejected),
        (304, Rejected),
        (307, Rejected),
        (308, Rejected),
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (408, TimedOut),
        (410, Gone),
        (413, PayloadTooLarge),
        (418, Rejected),
        (429, Busy),
        (500, Rejected),
        (503, Busy),
        (999, Rejected),
    ];
    for (status, kind) in expected {
        let server =
            Server::answering(format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\n\r\n")).await;
        let outcome = webhooks.deliver(attempt(&server.url())).await;
        assert_eq!((outcome.kind, outcome.status), (*kind, Some(*status)), "{outcome:?}");
        assert_eq!(outcome.detail.is_empty(), outcome.is_delivered(), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_attempt_carries_its_headers_once_and_its_body_unchanged() {
    let server = Server::answering(EMPTY_200).await;
    assert!(webhooks().deliver(attempt(&server.url())).await.is_delivered());
    let requests = server.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{\"id\":\"0-812\"}");
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /hook?code=1 HTTP/1.1"));
    let mut headers: Vec<String> = lines.map(str::to_owned).collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "accept: */*".to_owned(),
            "content-length: 14".to_owned(),
            "content-type: application/cloudevents+json; charset=utf-8".to_owned(),
            format!("host: {}", server.address),
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            format!("user-agent: lanekeeper/{}", env!("CARGO_PKG_VERSION")),
            "webhook-id: 0-812".to_owned(),
            "x-delivery-attempt: 3".to_owned(),
            "x-subscription: matching".to_owned(),
        ]
    );
}

#[tokio::test]
async fn an_event_id_that_no_header_can_hold_is_percent_encoded_and_no_trace_sends_no_header() {
    let server = Server::answering(EMPTY_200).await;
    let mut odd = attempt(&server.url());
    odd.event_id = "a%20b\r\nx-evil: 1 ü".to_owned();
    odd.traceparent = None;
    assert!(webhooks().deliver(odd).await.is_delivered());
    let request = &server.requests()[0];
    assert!(request.contains("\r\nwebhook-id: a%20b%0D%0Ax-evil: 1 %C3%BC\r\n"), "{request}");
    assert!(!request.contains("traceparent"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let trap = Server::answering(EMPTY_200).await;
    let webhooks = webhooks();
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", trap.url());
        let server = Server::answering(answer).await;
        let outcome = webhooks.deliver(attempt(&server.url())).await;
        assert_eq!((outcome.kind, outcome.status), (Rejected, Some(status)), "{outcome:?}");
    }
    assert_eq!(trap.accepted(), 0);
}

#[tokio::test]
async fn retry_after_reaches_the_outcome_as_a_delay_from_the_given_clock() {
    let webhooks = webhooks();
    for (value, delay) in [
        ("120", Some(120)),
        ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
        ("1000000000", Some(3600)),
        ("soon", None),
        ("\u{fc}", None),
    ] {
        for status in [429, 503] {
            let answer =
                format!("HTTP/1.1 {status} Later\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
            let server = Server::answering(answer).await;
            let outcome = webhooks.deliver(attempt(&server.url())).await;
            assert_eq!(outcome.kind, Busy);
            assert_eq!(outcome.retry_after, delay.map(Duration::from_secs), "{value}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_never_answers_times_out_at_the_deadline() {
    let server = Server::start(|mut connection| async move { connection.closed().await }).await;
    let (outcome, took) = deliver_shortly(&webhooks(), attempt(&server.url())).await;
    assert_timed_out(&outcome, took);
}

#[tokio::test]
async fn a_failure_keeps_the_beginning_of_what_the_endpoint_said_and_a_success_nothing() {
    let webhooks = webhooks();
    let long = "é".repeat(2000);
    for (status, body, excerpt) in [
        (500, "no such partner", Some("no such partner")),
        (400, "", None),
        (404, "\u{e9}\n", Some("\u{e9}\n")),
        (500, long.as_str(), long.get(..EXCERPT)),
        (200, "thanks", None),
    ] {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n{body}");
        let server = Server::answering(answer).await;
        for _ in 0..2 {
            let outcome = webhooks.deliver(attempt(&server.url())).await;
            assert_eq!(outcome.excerpt.as_deref(), excerpt, "{status}");
            assert!(outcome.took > Duration::ZERO && outcome.took < AMPLE);
        }
        assert_eq!(server.accepted(), 1, "what was read to its end is used again");
    }
    let server = Server::answering_once("HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nhal").await;
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert_eq!(outcome.excerpt.as_deref(), Some("hal"));
}

#[tokio::test]
async fn headers_that_drip_do_not_extend_the_deadline() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 200 OK\r\nx-drip: ").await;
        while connection.say("a").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (outcome, took) = deliver_shortly(&webhooks(), attempt(&server.url())).await;
    assert_timed_out(&outcome, took);
}

#[tokio::test]
async fn interim_answers_are_skipped_and_endless_ones_do_not_extend_the_deadline() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let webhooks = webhooks();
    let server = Server::answering(format!("{interim}{EMPTY_200}")).await;
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert_eq!(outcome.status, Some(200), "{outcome:?}");

    let server = Server::start(|mut connection| async move {
        connection.request().await;
        while connection.say("HTTP/1.1 102 Processing\r\n\r\n").await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let (outcome, took) = deliver_shortly(&webhooks, attempt(&server.url())).await;
    assert_timed_out(&outcome, took);
}

#[tokio::test]
async fn an_endless_body_after_200_is_delivered_and_costs_bounded_bytes_and_time() {
    let sent = Arc::new(AtomicUsize::new(0));
    let (ended, end) = oneshot::channel();
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let counter = Arc::clone(&sent);
    let server = Server::start(move |mut connection| {
        let (counter, ended) = (Arc::clone(&counter), ended.lock().unwrap().take());
        async move {
            connection.request().await;
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n").await;
            let block = vec![b'x'; 16 * 1024];
            while connection.socket.write_all(&block).await.is_ok() {
                counter.fetch_add(block.len(), Ordering::SeqCst);
            }
            ended.unwrap().send(()).unwrap();
        }
    })
    .await;
    let webhooks = webhooks();
    let started = Instant::now();
    let outcome = webhooks.deliver(attempt(&server.url())).await;
    assert!(outcome.is_delivered() && started.elapsed() < SLACK, "{outcome:?} {:?}", started.elapsed());
    tokio::time::timeout(AMPLE, end).await.expect("the connection is closed").unwrap();
    // What the server could write is the cap, a read buffer, and what the kernel holds for both sides.
    assert!(sent.load(Ordering::SeqCst) < 32 * 1024 * 1024, "{}", sent.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_body_that_drips_after_200_is_delivered_after_a_second_and_the_connection_is_not_reused() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while connection.say("1\r\nx\r\n").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let webhooks = webhooks();
    for connections in [1, 2] {
        let started = Instant::now();
        let outcome = webhooks.deliver(attempt(&server.url())).await;
        let took = started.elapsed();
        assert!(outcome.is_delivered(), "{outcome:?}");
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(1) + SLACK, "{took:?}");
        assert_eq!(server.accepted(), connections);
    }
    // The deadline of the attempt is kept also while a body is drained.
    let (outcome, took) = deliver_shortly(&webhooks, attempt(&server.url())).await;
    assert!(outcome.is_delivered() && took < Duration::from_millis(900), "{outcome:?} {took:?}");
}

#[tokio::test]
async fn a_body_that_hangs_after_500_keeps_the_status() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.say("HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\nhalf").await;
        connection.closed().await;
    })
    .await;
    let webhooks = webhooks();
    // The first attempt under an allow list makes its client; the second one has its time for itself.
    let other = Server::answering(EMPTY_200).await;
    assert!(webhooks.deliver(attempt(&other.url())).await.is_delivered());
    let (outcome, took) = deliver_shortly(&webhooks, attempt(&server.url())).await;
    assert_eq!((outcome.kind, outcome.status), (Rejected, Some(500)), "{outcome:?}");
    assert!(took < SHORT + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_header_block_of_a_megabyte_is_a_socket_error() {
    let webhooks = webhooks();
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(1 << 20));
    let server = Server::answering_once(long).await;
    assert_socket_error(&webhooks.deliver(attempt(&server.url())).await, "too large");
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-many: 1\r\n".repeat(200));
    let server = Server::answering_once(many).await;
    assert_socket_error(&webhooks.deliver(attempt(&server.url())).await, "too large");
}

#[tokio::test]
async fn a_reset_before_the_status_is_a_socket_error() {
    let server = Server::start(|mut connection| async move {
        connection.request().await;
        connection.reset();
    })
    .await;
    let webhooks = webhooks();
    assert_socket_error(&webhooks.deliver(attempt(&server.url())).await, "connection reset");
    assert_eq!(server.accepted(), 1, "a request that may have been taken is not sent again");

    let server = Server::answering_once("").await;
    assert_socket_error(&webhooks.deliver(attempt(&server.url())).await, "connection closed");
    let server = Server::answering_once("HTTP/1.1 200 OK\r\nx-half").await;
    assert_socket_error(&webhooks.deliver(attempt(&server.url())).await, "connection closed");
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_200_header_block_is_delivered() {
    let webhooks = webhooks();
    for half in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 202 OK\r\ntransfer-encoding: chunked\r\n\r\nzzz",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nlonger than it said",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    ] {
        let server = Server::answering_once(half).await;
        let outcome = webhooks.deliver(attempt(&server.url())).await;
        assert!(outcome.is_delivered(), "{half:?}: {outcome:?}");
    }
    let (taken, sent) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let server = Server::start({
        let (taken, sent) = (Arc::clone(&taken), Arc::clone(&sent));
        move |mut connection| {
            let (taken, sent) = (Arc::clone(&taken), Arc::clone(&sent));
            async move {
                connection.request().await;
                connection.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
                sent.notify_one();
                taken.notified().await;
                connection.reset();
            }
        }
    })
    .await;
    let delivery = tokio::spawn(webhooks.deliver(attempt(&server.url())));
    sent.notified().await;
    // Another exchange on the same thread: by then the first one has read its header block.
    let other = Server::answering(EMPTY_200).await;
    assert!(webhooks.deliver(attempt(&other.url())).await.is_delivered());
    taken.notify_one();
    assert!(delivery.await.unwrap().is_delivered());
}

#[tokio::test]
async fn what_is_not_http_is_a_socket_error() {
    let webhooks = webhooks();
    for nonsense in [
        "220 smtp.example.com ESMTP\r\n",
        "\u{0}\u{1}\u{2}\u{3}\u{0}\u{1}\u{2}\u{3}\u{0}\u{1}\u{2}\u{3}",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let server = Server::answering_once(nonsense).await;
        let outcome = webhooks.deliver(attempt(&server.url())).await;
        assert_eq!((outcome.kind, outcome.status), (SocketError, None), "{nonsense:?}: {outcome:?}");
        assert!(!outcome.detail.is_empty() && !outcome.detail.contains("code=1"), "{outcome:?}");
    }
}

#[tokio::test]
async fn plain_text_on_an_https_url_is_a_socket_error_that_names_tls() {
    let webhooks = webhooks();
    let plain = Server::start(|mut connection| async move {
        connection.say("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        connection.closed().await;
    })
    .await;
    let outcome = webhooks.deliver(attempt(&plain.url().replace("http:", "https:"))).await;
    assert_eq!(outcome.kind, SocketError);
    assert!(outcome.detail.starts_with("tls: "), "{outcome:?}");
}
