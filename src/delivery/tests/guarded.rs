//! Endpoints that a subscription may not contact are not contacted.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use lanekeeper_actors::model::delivery::OutcomeKind::*;
use lanekeeper_actors::model::delivery::Transport;
use tokio::time::Instant;

use super::server::Server;
use super::{EMPTY_200, SHORT, SLACK, attempt, attempt_allowing, clock};
use crate::delivery::{Names, WebhookSettings, Webhooks};

/// Names with answers made up by a test. Each look-up takes the next answer; the last one stays.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

struct ScriptedNames(Arc<Scripted>);

impl Names for ScriptedNames {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.0.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

fn webhooks_with(answers: &[&[&str]]) -> (Webhooks, Arc<Scripted>) {
    let answers = answers.iter().map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
    let scripted = Arc::new(Scripted { answers: Mutex::new(answers), asked: AtomicUsize::new(0) });
    let settings = WebhookSettings { connect_timeout: SHORT, ..WebhookSettings::default() };
    (
        Webhooks::with_names(settings, clock(), Arc::new(ScriptedNames(Arc::clone(&scripted)))).unwrap(),
        scripted,
    )
}

#[tokio::test]
async fn a_loopback_canary_sees_no_connection_however_its_address_is_written() {
    let canary = Server::answering(EMPTY_200).await;
    let port = canary.address.port();
    let webhooks = super::webhooks();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "0.0.0.0",
        "0",
        "[::]",
        "localhost",
        "localhost.",
        "LocalHost",
        "user:secret@127.0.0.1",
        "0x7f.1",
        "[fd00::1]",
        "[fe80::1]",
        "100.64.0.1",
        "169.254.169.254",
        "192.168.0.1",
    ] {
        for allow in [&[][..], &["10.0.0.0/8"]] {
            let outcome = webhooks.deliver(attempt_allowing(&format!("http://{host}:{port}/"), allow)).await;
            assert_eq!((outcome.kind, outcome.status), (Forbidden, None), "{host}: {outcome:?}");
            assert!(!outcome.detail.is_empty() && !outcome.detail.contains("secret"), "{outcome:?}");
        }
    }
    assert_eq!(canary.accepted(), 0);
}

#[tokio::test]
async fn a_name_for_a_private_address_is_forbidden_and_the_canary_sees_no_connection() {
    let canary = Server::answering(EMPTY_200).await;
    let (webhooks, scripted) = webhooks_with(&[&["127.0.0.1", "10.0.0.1"]]);
    let url = format!("http://hook.example:{}/", canary.address.port());
    let outcome = webhooks.deliver(attempt_allowing(&url, &[])).await;
    assert_eq!(outcome.kind, Forbidden, "{outcome:?}");
    assert_eq!(outcome.detail, "address `127.0.0.1` may not be contacted: it is loopback");
    assert_eq!((canary.accepted(), scripted.asked.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn a_name_whose_addresses_only_lead_inside_is_forbidden_however_they_are_dressed() {
    for ip in [
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "fd12::1",
        "fe80::1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
    ] {
        let (webhooks, _) = webhooks_with(&[&[ip]]);
        let outcome = webhooks.deliver(attempt_allowing("http://hook.example/", &["127.0.0.0/8"])).await;
        if ip == "::ffff:127.0.0.1" {
            // Allowed, as the IPv4 address in it is; whether anybody listens there is another matter.
            assert_ne!(outcome.kind, Forbidden);
            continue;
        }
        assert_eq!((outcome.kind, outcome.status), (Forbidden, None), "{ip}: {outcome:?}");
    }
}

#[tokio::test]
async fn of_several_permitted_addresses_one_that_answers_is_enough() {
    let server = Server::answering(EMPTY_200).await;
    let (webhooks, _) = webhooks_with(&[&["127.0.0.2", "10.0.0.1", "127.0.0.1"]]);
    let url = format!("http://hook.example:{}/", server.address.port());
    assert!(webhooks.deliver(attempt(&url)).await.is_delivered());
}

#[tokio::test]
async fn an_allowed_name_is_contacted_at_a_vetted_address_with_its_own_host_header() {
    let server = Server::answering(EMPTY_200).await;
    // The first answer would lead elsewhere; it is not in the allow list and must not be tried.
    let (webhooks, _) = webhooks_with(&[&["10.0.0.1", "127.0.0.1"]]);
    let url = format!("http://hook.example:{}/", server.address.port());
    let outcome = webhooks.deliver(attempt_allowing(&url, &["127.0.0.1"])).await;
    assert!(outcome.is_delivered(), "{outcome:?}");
    let host = format!("\r\nhost: hook.example:{}\r\n", server.address.port());
    assert!(server.requests()[0].contains(&host), "{:?}", server.requests());
}

#[tokio::test]
async fn a_name_server_that_changes_its_answer_gains_nothing() {
    let canary = Server::answering(EMPTY_200).await;
    let url = format!("http://rebind.example:{}/", canary.address.port());
    // A permitted address without a listener first, loopback whenever asked again.
    let (webhooks, scripted) = webhooks_with(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let outcome = webhooks.deliver(attempt_allowing(&url, &["127.0.0.2"])).await;
    assert_eq!(outcome.kind, SocketError, "{outcome:?}");
    assert_eq!(scripted.asked.load(Ordering::SeqCst), 1, "one attempt asks once");
    let outcome = webhooks.deliver(attempt_allowing(&url, &["127.0.0.2"])).await;
    assert_eq!(outcome.kind, Forbidden, "{outcome:?}");
    assert_eq!(canary.accepted(), 0);
}

#[tokio::test]
async fn a_connection_made_under_one_allow_list_is_not_lent_to_another() {
    let server = Server::answering(EMPTY_200).await;
    let (webhooks, _) = webhooks_with(&[&["127.0.0.1"]]);
    let url = format!("http://hook.example:{}/", server.address.port());
    assert!(webhooks.deliver(attempt(&url)).await.is_delivered());
    let outcome = webhooks.deliver(attempt_allowing(&url, &[])).await;
    assert_eq!(outcome.kind, Forbidden, "{outcome:?}");
    // The order of a list, and repetitions in it, make no difference.
    for allow in [&["127.0.0.0/8", "::1"][..], &["::1", "127.0.0.0/8", "::1/128"]] {
        assert!(webhooks.deliver(attempt_allowing(&url, allow)).await.is_delivered());
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn what_cannot_be_an_endpoint_is_forbidden_at_send_too() {
    let webhooks = super::webhooks();
    for (url, allow) in [
        ("ftp://example.com/", &[][..]),
        ("not a url", &[]),
        ("http://", &[]),
        ("http://user@1.1.1.1/", &[]),
        ("http://1.1.1.1/", &["10.0.0.1/8"]),
        ("http://1.1.1.1/", &["everything"]),
    ] {
        let outcome = webhooks.deliver(attempt_allowing(url, allow)).await;
        assert_eq!((outcome.kind, outcome.status), (Forbidden, None), "{url}: {outcome:?}");
    }
}

/// Names whose server says no, or nothing.
struct Failing {
    silent: bool,
}

impl Names for Failing {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        if self.silent {
            Box::pin(std::future::pending())
        } else {
            Box::pin(std::future::ready(Err(io::Error::other("no such name"))))
        }
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_resolution_error_and_so_is_a_silent_name_server() {
    let settings = WebhookSettings { connect_timeout: SHORT, ..WebhookSettings::default() };
    for (names, timeout, detail) in [
        (Failing { silent: false }, super::DISTANT, "no such name"),
        // By the limit of connecting, then by the deadline of the attempt.
        (Failing { silent: true }, super::DISTANT, "the host name was not resolved in time"),
        (Failing { silent: true }, SHORT / 2, "the host name was not resolved in time"),
    ] {
        let webhooks = Webhooks::with_names(settings, clock(), Arc::new(names)).unwrap();
        // The client of the empty list is there from the start, so the time goes to the look-up alone.
        let mut attempt = attempt_allowing("http://nowhere.example/", &[]);
        attempt.timeout = timeout;
        let started = Instant::now();
        let outcome = webhooks.deliver(attempt).await;
        assert_eq!((outcome.kind, outcome.detail.as_str()), (ResolutionError, detail));
        assert!(started.elapsed() < SHORT + SLACK, "{:?}", started.elapsed());
    }
    let (webhooks, _) = webhooks_with(&[&[]]);
    let outcome = webhooks.deliver(attempt("http://empty.example/")).await;
    assert_eq!((outcome.kind, outcome.detail.as_str()), (ResolutionError, "the host name has no address"));
}
