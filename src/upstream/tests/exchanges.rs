//! Requests that are answered: framing, connections that are used again, bodies of any size.

use super::server::status;
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn ok() -> Result<(u16, String), Failed> {
    Ok((200, "ok".to_owned()))
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    run(async {
        let server = Server::answering(OK).await;
        let backend = backend(of(&[&server]));
        for _ in 0..20 {
            assert_eq!(get(&backend).await, ok());
        }
        assert_eq!((server.accepted(), server.count()), (1, 20));
        let authority = server.address().authority();
        assert_eq!(server.requests()[0].head, format!("GET /x HTTP/1.1\r\nhost: {authority}"));
    });
}

#[test]
fn an_answer_of_any_framing_is_read_to_its_end_and_the_connection_used_again_where_it_can_be() {
    run(async {
        for (answer, body, reused) in [
            (OK.to_owned(), "ok", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n".into(), "ok", true),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(), "", true),
            ("HTTP/1.1 204 No\r\n\r\n".into(), "", true),
            ("HTTP/1.1 304 No\r\ncontent-length: 99\r\n\r\n".into(), "", true),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".into(), "ok", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".into(), "ok", false),
            // More than was asked for: nobody knows what the next bytes belong to.
            (format!("{OK}{OK}"), "ok", false),
            ("HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok".into(), "", false),
        ] {
            let server = Server::answering(answer.clone()).await;
            let backend = backend(of(&[&server]));
            for _ in 0..2 {
                assert_eq!(get(&backend).await.unwrap().1, body, "{answer}");
            }
            assert_eq!(server.accepted(), if reused { 1 } else { 2 }, "{answer}");
        }
    });
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say("HTTP/1.1 200 OK\r\n\r\nall of it").await;
        });
        let backend = backend(of(&[&server.await]));
        assert_eq!(get(&backend).await, Ok((200, "all of it".to_owned())));
    });
}

#[test]
fn an_answer_to_head_has_a_length_and_no_body() {
    run(async {
        let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        let backend = backend(of(&[&server]));
        for _ in 0..2 {
            let answer = backend.forward(&request("HEAD"), &mut Nothing).await.unwrap();
            assert_eq!(answer.head.length, Some(1000));
            assert_eq!(read(answer.body, &mut Nothing).await.unwrap(), b"");
        }
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn bodies_go_out_in_the_framing_they_came_in_and_fields_as_they_were_written() {
    run(async {
        let server = Server::answering(OK).await;
        let backend = backend(of(&[&server]));
        let known = Outgoing { length: Length::Known(10), fields: b"a: b\r\n", ..request("POST") };
        assert_eq!(send(&backend, &known, &mut Pieces::of(&["hello", "", "world"])).await, ok());
        let unknown = Outgoing { length: Length::Unknown, ..request("POST") };
        assert_eq!(send(&backend, &unknown, &mut Pieces::of(&["hello", "", "world"])).await, ok());
        let requests = server.requests();
        assert!(requests[0].head.ends_with("\r\na: b\r\ncontent-length: 10"), "{}", requests[0].head);
        assert!(requests[1].head.ends_with("\r\ntransfer-encoding: chunked"), "{}", requests[1].head);
        assert!(requests.iter().all(|request| request.body == b"helloworld"));
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn large_bodies_pass_both_ways_piece_by_piece() {
    run(async {
        // The server sends back what it gets, as it gets it.
        let server = Server::start(|mut connection| async move {
            let request = connection.request().await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len());
            connection.say(&head).await;
            connection.say(std::str::from_utf8(&request.body).unwrap()).await;
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        let piece = "0123456789abcdef".repeat(1_000);
        let mut source = Pieces::of(&vec![piece.as_str(); 60]);
        let outgoing = Outgoing { length: Length::Unknown, ..request("POST") };
        let mut answer = backend.forward(&outgoing, &mut source).await.unwrap();
        let (mut total, mut largest) = (0, 0);
        while let Some(piece) = std::future::poll_fn(|cx| answer.body.poll_piece(&mut source, cx)).await {
            let piece = piece.unwrap();
            total += piece.len();
            largest = largest.max(piece.len());
        }
        assert_eq!(total, 60 * piece.len());
        assert!(largest <= 64 * 1024, "{largest}");
    });
}

#[test]
fn a_server_may_answer_before_it_has_the_body_and_the_rest_goes_on_meanwhile() {
    run(async {
        let server = Server::start(|mut connection| async move {
            // The head alone is enough for it to begin.
            connection.more().await;
            connection.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nearly\r\n").await;
            connection.request().await;
            connection.say("4\r\nlate\r\n0\r\n\r\n").await;
            connection.more().await;
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        let outgoing = Outgoing { length: Length::Known(8), ..request("POST") };
        let mut held = Pieces::stuck(&["some"]);
        let answer = backend.forward(&outgoing, &mut held).await.unwrap();
        assert_eq!(server.count(), 0);
        let body = read(answer.body, &mut Pieces::of(&["more"])).await.unwrap();
        assert_eq!(body, b"earlylate");
        assert_eq!(server.requests()[0].body, b"somemore");
    });
}

#[test]
fn a_connection_whose_request_was_not_sent_whole_is_not_used_again() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.more().await;
            connection.say(&status(413)).await;
            while connection.more().await.is_some() {}
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        let outgoing = Outgoing { length: Length::Known(8), ..request("POST") };
        for round in 1..=2 {
            let mut source = Pieces::stuck(&["some"]);
            let answer = backend.forward(&outgoing, &mut source).await.unwrap();
            assert_eq!(answer.head.status, 413);
            assert_eq!(read(answer.body, &mut source).await.unwrap(), b"413");
            until("it is closed", || server.closed() == round).await;
        }
        assert_eq!(server.accepted(), 2);
    });
}

#[test]
fn idle_connections_are_bounded_and_closed_after_their_time() {
    run(async {
        let server = Server::answering(OK).await;
        let limits = Limits { idle_connections: 2, keep_alive: Duration::from_millis(50), ..limits() };
        let backend = backend_with(of(&[&server]), limits, SystemClock::shared());
        let outgoing = request("GET");
        let (a, b, c, d) =
            tokio::join!(ask(&backend, &outgoing), get(&backend), get(&backend), get(&backend));
        assert!([a, b, c, d].iter().all(|answer| *answer == ok()));
        assert!(pool::waiting(backend.members[0].id) <= 2);
        until("the idle ones are closed", || server.closed() == server.accepted()).await;
        assert_eq!(pool::waiting(backend.members[0].id), 0);
        assert_eq!(backend.members()[0].active, 0);
    });
}

#[test]
fn a_caller_who_goes_away_ends_the_exchange() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            while connection.more().await.is_some() {}
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        let outgoing = request("GET");
        tokio::select! {
            _ = ask(&backend, &outgoing) => panic!("nobody answered"),
            () = until("it is under way", || server.count() == 1) => {}
        }
        until("it is closed", || server.closed() == 1).await;
        assert_eq!(backend.members()[0].active, 0);
    });
}
