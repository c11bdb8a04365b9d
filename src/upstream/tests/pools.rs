//! Several servers: shares, priorities, breakers, retries and probes.

use lanekeeper_actors::policy::upstream::{BreakerRules, HealthRules, Standing, Trip};

use super::server::status;
use super::*;

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn breaking(count: u32) -> Option<Breaking> {
    let rules = BreakerRules {
        trip: Trip::Count(count),
        window: seconds(10),
        open: seconds(30),
        honour_retry_after: true,
    };
    Some(Breaking { rules, on: Causes::usual() })
}

#[test]
fn servers_share_the_requests_by_their_weights() {
    run(async {
        let (a, b) = (Server::answering(status(200)).await, Server::answering(status(200)).await);
        let mut definition = of(&[&a, &b]);
        definition.pool[0].weight = 3;
        let backend = backend(definition);
        for _ in 0..40 {
            get(&backend).await.unwrap();
        }
        assert!((28..=32).contains(&a.count()), "{}", a.count());
        assert_eq!(a.count() + b.count(), 40);
    });
}

#[test]
fn a_server_of_a_later_priority_is_asked_when_those_before_it_are_left_alone() {
    run(async {
        let (first, second) = (Server::statuses(&[500]).await, Server::answering(status(200)).await);
        let mut definition = Definition { breaker: breaking(2), ..of(&[&first, &second]) };
        definition.pool[1].priority = 2;
        let clock = manual();
        let backend = backend_with(definition, limits(), clock.clone());
        let statuses = async |number: usize| {
            let mut all = Vec::new();
            for _ in 0..number {
                all.push(get(&backend).await.unwrap().0);
            }
            all
        };
        assert_eq!(statuses(5).await, [500, 500, 200, 200, 200]);
        clock.advance(seconds(31));
        // One request finds out that nothing has changed.
        assert_eq!(statuses(3).await, [500, 200, 200]);
    });
}

#[test]
fn a_breaker_opens_tells_when_to_come_back_and_closes_again() {
    run(async {
        let server = Server::statuses(&[500, 500, 500, 500, 200]).await;
        let clock = manual();
        let definition = Definition { breaker: breaking(3), ..of(&[&server]) };
        let backend = backend_with(definition, limits(), clock.clone());
        for _ in 0..3 {
            assert_eq!(get(&backend).await.unwrap().0, 500);
        }
        assert_eq!(get(&backend).await, Err(Failed::Unavailable { retry_after: seconds(30) }));
        clock.advance(seconds(20));
        assert_eq!(get(&backend).await, Err(Failed::Unavailable { retry_after: seconds(10) }));
        let state = &backend.members()[0];
        assert_eq!(state.retry_in, Some(seconds(10)));
        clock.advance(seconds(10));
        assert_eq!(get(&backend).await.unwrap().0, 500);
        assert_eq!(get(&backend).await, Err(Failed::Unavailable { retry_after: seconds(30) }));
        clock.advance(seconds(30));
        assert_eq!(get(&backend).await.unwrap().0, 200);
        assert_eq!(backend.members()[0].breaker, Standing::Closed);
        assert_eq!((get(&backend).await.unwrap().0, server.count()), (200, 6));
    });
}

#[test]
fn while_one_request_finds_out_the_others_are_refused_and_one_that_is_given_up_frees_its_place() {
    run(async {
        let server = Server::start(|mut connection| async move {
            // The first connection fails; the second one hangs; others are well.
            while connection.request().await.is_some() {
                match connection.number {
                    1 => {
                        connection
                            .say(&status(500).replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"))
                            .await;
                        return;
                    }
                    2 => while connection.more().await.is_some() {},
                    _ => connection.say(&status(200)).await,
                }
            }
        });
        let server = server.await;
        let clock = manual();
        let backend =
            backend_with(Definition { breaker: breaking(1), ..of(&[&server]) }, limits(), clock.clone());
        assert_eq!(get(&backend).await.unwrap().0, 500);
        clock.advance(seconds(30));
        let outgoing = request("GET");
        tokio::select! {
            answer = ask(&backend, &outgoing) => panic!("{answer:?}"),
            () = async {
                until("one finds out", || server.count() == 2).await;
                assert_eq!(backend.members()[0].breaker, Standing::HalfOpen);
                assert!(matches!(get(&backend).await, Err(Failed::Unavailable { .. })));
            } => {}
        }
        assert_eq!(get(&backend).await.unwrap().0, 200);
        assert_eq!(backend.members()[0].breaker, Standing::Closed);
    });
}

#[test]
fn a_server_that_asks_to_be_left_alone_is() {
    run(async {
        let server =
            Server::answering("HTTP/1.1 503 X\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n").await;
        let clock = manual();
        let backend =
            backend_with(Definition { breaker: breaking(1), ..of(&[&server]) }, limits(), clock.clone());
        assert_eq!(get(&backend).await.unwrap().0, 503);
        assert_eq!(get(&backend).await, Err(Failed::Unavailable { retry_after: seconds(120) }));
    });
}

#[test]
fn a_slow_caller_does_not_open_a_breaker() {
    run(async {
        let server = Server::answering(status(200)).await;
        let limits = Limits { body_timeout: Duration::from_millis(50), ..limits() };
        let backend = backend_with(Definition { breaker: breaking(1), ..of(&[&server]) }, limits, manual());
        let outgoing = Outgoing { length: Length::Known(8), ..request("POST") };
        let sent = send(&backend, &outgoing, &mut Pieces::stuck(&["1"])).await;
        assert_eq!(sent, Err(Failed::BodyTimedOut));
        assert_eq!(get(&backend).await.unwrap().0, 200);
    });
}

#[test]
fn a_request_that_reached_nobody_goes_to_the_next_server_whatever_its_method() {
    run(async {
        let (dead, well) = (Server::dead().await, Server::answering(status(200)).await);
        let mut definition = of(&[&dead, &well]);
        definition.pool[1].priority = 2;
        let backend = backend(definition);
        let outgoing = Outgoing { length: Length::Unknown, ..request("POST") };
        for _ in 0..3 {
            assert_eq!(send(&backend, &outgoing, &mut Pieces::of(&["hello"])).await.unwrap().0, 200);
        }
        assert!(well.requests().iter().all(|request| request.body == b"hello"));
    });
}

#[test]
fn failed_requests_are_sent_again_up_to_their_count_with_the_same_body() {
    run(async {
        for (statuses, count, status, sent) in [
            (&[503, 503, 200][..], 2, 200, 3),
            (&[503, 503, 503], 2, 503, 3),
            (&[503, 200], 1, 200, 2),
            (&[404], 3, 404, 1),
        ] {
            let server = Server::statuses(statuses).await;
            let backend = backend(Definition { retry: retrying(count, Causes::usual()), ..of(&[&server]) });
            for length in [Length::Known(10), Length::Unknown] {
                let server = Server::statuses(statuses).await;
                let retry = retrying(count, Causes::usual());
                let backend = backend_with(Definition { retry, ..of(&[&server]) }, limits(), manual());
                let outgoing = Outgoing { length, ..request("PUT") };
                let mut source = Pieces::of(&["hello", "world"]);
                assert_eq!(send(&backend, &outgoing, &mut source).await.unwrap().0, status, "{statuses:?}");
                assert_eq!(server.count(), sent, "{statuses:?}");
                assert!(server.requests().iter().all(|request| request.body == b"helloworld"));
            }
            assert_eq!(get(&backend).await.unwrap().0, status);
            assert_eq!(server.count(), sent);
        }
    });
}

#[test]
fn only_requests_that_may_be_repeated_are() {
    run(async {
        for (method, named, sent) in [
            ("POST", false, 1),
            ("PATCH", false, 1),
            ("POST", true, 3),
            ("GET", false, 3),
            ("DELETE", false, 3),
        ] {
            let server = Server::statuses(&[503]).await;
            let backend = backend(Definition { retry: retrying(2, Causes::usual()), ..of(&[&server]) });
            let outgoing = Outgoing { named, ..request(method) };
            assert_eq!(ask(&backend, &outgoing).await.unwrap().0, 503);
            assert_eq!(server.count(), sent, "{method} {named}");
        }
    });
}

#[test]
fn only_what_is_named_is_tried_again() {
    run(async {
        let server = Server::statuses(&[500, 429, 200]).await;
        let on = Causes { statuses: vec![(429, 429)], ..Causes::default() };
        let backend = backend(Definition { retry: retrying(2, on), ..of(&[&server]) });
        assert_eq!(get(&backend).await.unwrap().0, 500);
        assert_eq!(get(&backend).await.unwrap().0, 200);
        assert_eq!(server.count(), 3);
    });
}

#[test]
fn a_body_too_large_to_hold_is_sent_whole_and_once() {
    run(async {
        let long = "x".repeat(600);
        for length in [Length::Known(1_200), Length::Unknown] {
            let server = Server::statuses(&[503, 200]).await;
            let backend = backend(Definition { retry: retrying(2, Causes::usual()), ..of(&[&server]) });
            let outgoing = Outgoing { length, ..request("PUT") };
            let mut source = Pieces::of(&[&long, &long]);
            assert_eq!(send(&backend, &outgoing, &mut source).await.unwrap().0, 503);
            assert_eq!((server.count(), server.requests()[0].body.len()), (1, 1_200));
        }
    });
}

#[test]
fn retries_prefer_servers_that_were_not_tried() {
    run(async {
        let (a, b) = (Server::statuses(&[503]).await, Server::statuses(&[503]).await);
        let backend = backend(Definition { retry: retrying(3, Causes::usual()), ..of(&[&a, &b]) });
        assert_eq!(get(&backend).await.unwrap().0, 503);
        assert_eq!((a.count(), b.count()), (2, 2));
    });
}

#[test]
fn probes_take_an_ill_server_out_and_bring_it_back() {
    use std::sync::atomic::{AtomicBool, Ordering};
    run(async {
        let ill = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&ill);
        let server = Server::start(move |mut connection| {
            let ill = Arc::clone(&flag);
            async move {
                while let Some(request) = connection.request().await {
                    let probe = request.head.starts_with("GET /well?x=1 ");
                    let ill = probe && ill.load(Ordering::SeqCst);
                    connection.say(&status(if ill { 500 } else { 200 })).await;
                }
            }
        });
        let (server, other) = (server.await, Server::answering(status(200)).await);
        let rules = HealthRules { healthy: 2, unhealthy: 2 };
        let every = Duration::from_millis(100);
        let health = Some(Probing { path: "/well?x=1".to_owned(), every, rules });
        let upstreams = Upstreams::new(limits(), SystemClock::shared());
        let watching = tokio::task::spawn_local(upstreams.clone().watch());
        let fleet = upstreams.prepare([(Name::from("b"), Definition { health, ..of(&[&server, &other]) })]);
        upstreams.adopt(fleet.unwrap());
        let backend = upstreams.fleet().find("b").unwrap();
        until("it is ill", || !backend.members()[0].healthy).await;
        let before = other.count();
        let asked = |server: &Server| {
            server.requests().iter().filter(|request| request.head.starts_with("GET /x ")).count()
        };
        for _ in 0..10 {
            assert_eq!(get(&backend).await.unwrap().0, 200);
        }
        assert_eq!((asked(&server), asked(&other)), (0, 10));
        assert!(other.count() >= before + 10);
        assert_eq!(backend.members()[0].last_failure.as_deref(), Some("probe: status 500"));
        ill.store(false, Ordering::SeqCst);
        until("it is well", || backend.members()[0].healthy).await;
        for _ in 0..10 {
            get(&backend).await.unwrap();
        }
        assert!(asked(&server) > 0);
        watching.abort();
    });
}

#[test]
fn a_backend_that_is_defined_as_before_keeps_what_is_known_of_it() {
    run(async {
        let server = Server::statuses(&[500]).await;
        let upstreams = Upstreams::new(limits(), SystemClock::shared());
        let definition = Definition { breaker: breaking(1), ..of(&[&server]) };
        let fleet =
            |definition: &Definition| upstreams.prepare([(Name::from("b"), definition.clone())]).unwrap();
        upstreams.adopt(fleet(&definition));
        let backend = upstreams.fleet().find("b").unwrap();
        assert_eq!(get(&backend).await.unwrap().0, 500);
        upstreams.adopt(fleet(&definition));
        let same = upstreams.fleet().find("b").unwrap();
        assert!(Arc::ptr_eq(&backend, &same));
        assert!(matches!(get(&same).await, Err(Failed::Unavailable { .. })));
        upstreams.adopt(fleet(&Definition { body: Some(1), ..definition }));
        let other = upstreams.fleet().find("b").unwrap();
        assert_eq!(get(&other).await.unwrap().0, 500);
    });
}
