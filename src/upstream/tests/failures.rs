//! Requests that are not answered: dead, slow, broken and lying servers, and callers that are slow.

use super::server::status;
use super::*;

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn what_is_no_answer_is_never_passed_on() {
    run(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "220 mail.example ESMTP\r\n",
            "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        ] {
            let server = Server::answering(answer).await;
            assert_eq!(get(&backend(of(&[&server]))).await, Err(Failed::Invalid), "{answer}");
        }
        let endless = Server::answering("HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).await;
        assert_eq!(get(&backend(of(&[&endless]))).await, Err(Failed::Invalid));
    });
}

#[test]
fn a_server_that_is_dead_or_silent_is_told_apart() {
    run(async {
        let dead = Server::dead().await;
        assert_eq!(get(&backend(of(&[&dead]))).await, Err(Failed::Unreachable));
        let closing = Server::start(|mut connection| async move {
            connection.request().await;
        });
        assert_eq!(get(&backend(of(&[&closing.await]))).await, Err(Failed::Unreachable));
        let silent =
            Server::start(|mut connection| async move { while connection.request().await.is_some() {} });
        let definition = Definition { timeout: Some(SHORT), ..of(&[&silent.await]) };
        assert_eq!(get(&backend(definition)).await, Err(Failed::TimedOut));
        // One that begins a head and does not end it is no better.
        let slow = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say("HTTP/1.1 200 OK\r\n").await;
            while connection.request().await.is_some() {}
        });
        let definition = Definition { timeout: Some(SHORT), ..of(&[&slow.await]) };
        assert_eq!(get(&backend(definition)).await, Err(Failed::TimedOut));
    });
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    run(async {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npartx",
        ] {
            let server = Server::start(move |mut connection| async move {
                connection.request().await;
                connection.say(answer).await;
            });
            let backend = backend(of(&[&server.await]));
            let answered = backend.forward(&request("GET"), &mut Nothing).await.unwrap();
            assert_eq!(read(answered.body, &mut Nothing).await, Err(BrokenOff), "{answer}");
        }
    });
}

#[test]
fn a_body_of_an_answer_that_stops_coming_breaks_off() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart").await;
            while connection.more().await.is_some() {}
        });
        let server = server.await;
        let backend = backend(Definition { idle_timeout: Some(SHORT), ..of(&[&server]) });
        let answer = backend.forward(&request("GET"), &mut Nothing).await.unwrap();
        assert_eq!(read(answer.body, &mut Nothing).await, Err(BrokenOff));
        until("it is closed", || server.closed() == 1).await;
    });
}

/// Closes each connection after its first answer, without saying so.
async fn forgetful() -> Server {
    Server::start(|mut connection| async move {
        connection.request().await;
        if connection.number > 1 || connection.request().await.is_none() {
            connection.say(&status(200)).await;
        }
    })
    .await
}

#[test]
fn an_old_connection_that_was_closed_costs_a_safe_request_nothing() {
    run(async {
        // The first connection answers once; its second request meets the end of it.
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say(&status(200)).await;
            if connection.number == 1 {
                connection.request().await;
            } else {
                while connection.request().await.is_some() {
                    connection.say(&status(200)).await;
                }
            }
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        for _ in 0..3 {
            assert_eq!(get(&backend).await.unwrap().0, 200);
        }
        let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
        assert_eq!(connections, [1, 1, 2, 2]);
    });
}

#[test]
fn a_request_that_may_have_been_acted_on_is_not_sent_twice() {
    run(async {
        for method in ["POST", "PATCH", "PUT", "DELETE"] {
            let server = Server::start(|mut connection| async move {
                connection.request().await;
                connection.say(&status(200)).await;
                connection.request().await;
            });
            let server = server.await;
            let backend = backend(of(&[&server]));
            assert_eq!(get(&backend).await.unwrap().0, 200);
            assert_eq!(ask(&backend, &request(method)).await, Err(Failed::Unreachable), "{method}");
            assert_eq!(server.count(), 2, "{method}");
        }
    });
}

#[test]
fn a_connection_that_said_something_of_an_answer_is_not_tried_again() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say(&status(200)).await;
            connection.request().await;
            connection.say("HTTP/1.1 2").await;
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        assert_eq!(get(&backend).await.unwrap().0, 200);
        assert_eq!(get(&backend).await, Err(Failed::Invalid));
        assert_eq!(server.count(), 2);
    });
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_used() {
    run(async {
        let server = Server::start(|mut connection| async move {
            connection.request().await;
            connection.say(&status(200)).await;
        });
        let server = server.await;
        let backend = backend(of(&[&server]));
        assert_eq!(ask(&backend, &request("POST")).await.unwrap().0, 200);
        // The end of the connection is seen as soon as the runtime has looked at its sockets.
        until("the end is seen", || {
            let seen = pool::take(backend.members[0].id, tokio::time::Instant::now());
            seen.is_none_or(|connection| {
                pool::give_back(backend.members[0].id, connection, backend.idle_limits());
                false
            })
        })
        .await;
        assert_eq!(ask(&backend, &request("POST")).await.unwrap().0, 200);
    });
}

#[test]
fn a_body_that_is_too_large_or_does_not_come_is_the_callers_fault() {
    run(async {
        let server = Server::answering(status(200)).await;
        let limits = Limits { body_timeout: SHORT, ..limits() };
        let definition = Definition { body: Some(8), ..of(&[&server]) };
        let backend = backend_with(definition, limits, SystemClock::shared());
        let sent = async |length, mut source: Pieces| {
            send(&backend, &Outgoing { length, ..request("POST") }, &mut source).await
        };
        assert_eq!(sent(Length::Known(9), Pieces::of(&[])).await, Err(Failed::TooLarge(8)));
        assert_eq!(server.accepted(), 0, "it was refused before anything was sent");
        assert_eq!(sent(Length::Unknown, Pieces::of(&["12345", "6789"])).await, Err(Failed::TooLarge(8)));
        assert_eq!(sent(Length::Known(8), Pieces::of(&["1234"])).await, Err(Failed::BodyLost));
        assert_eq!(sent(Length::Known(8), Pieces::stuck(&["1234"])).await, Err(Failed::BodyTimedOut));
        assert_eq!(sent(Length::Known(8), Pieces::of(&["1234", "5678"])).await.unwrap().0, 200);
        // Of all these only the last one was a request.
        assert_eq!(server.count(), 1);
    });
}

#[test]
fn a_server_that_stops_reading_is_the_one_that_times_out() {
    run(async {
        let server = Server::start(|connection| async move {
            std::future::pending::<()>().await;
            drop(connection);
        });
        let definition = Definition { timeout: Some(SHORT), body: Some(1 << 30), ..of(&[&server.await]) };
        let limits = Limits { body_timeout: AMPLE, ..limits() };
        let backend = backend_with(definition, limits, SystemClock::shared());
        let piece = "x".repeat(1 << 20);
        let mut source = Pieces::of(&vec![piece.as_str(); 64]);
        let outgoing = Outgoing { length: Length::Unknown, ..request("POST") };
        assert_eq!(send(&backend, &outgoing, &mut source).await, Err(Failed::TimedOut));
    });
}

#[test]
fn time_that_the_caller_takes_is_not_charged_to_the_server() {
    /// Pauses before its only piece.
    struct Late(Option<std::pin::Pin<Box<tokio::time::Sleep>>>, bool);
    impl Source for Late {
        fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
            if std::mem::replace(&mut self.1, false) {
                self.0 = Some(Box::pin(tokio::time::sleep(SHORT * 4)));
            }
            let Some(sleep) = &mut self.0 else { return Poll::Ready(None) };
            std::task::ready!(sleep.as_mut().poll(cx));
            self.0 = None;
            Poll::Ready(Some(Ok(Bytes::from_static(b"late"))))
        }
    }
    run(async {
        let server = Server::answering(status(200)).await;
        // The server has so much time in all, and the caller takes more.
        let backend = backend(Definition { timeout: Some(SHORT * 3), ..of(&[&server]) });
        let outgoing = Outgoing { length: Length::Known(4), ..request("POST") };
        // Charged to the server it would time out every time; on a busy machine one round may be slow by itself.
        for _ in 0..20 {
            if send(&backend, &outgoing, &mut Late(None, true)).await.is_ok_and(|answer| answer.0 == 200) {
                return;
            }
        }
        panic!("it was charged to the server");
    });
}

#[test]
fn forgetful_servers_are_asked_again_for_safe_requests_only() {
    run(async {
        let server = forgetful().await;
        let backend = backend(of(&[&server]));
        let first = get(&backend);
        tokio::select! {
            answer = first => panic!("{answer:?}"),
            () = until("it was asked", || server.count() == 1) => {}
        }
        assert_eq!(get(&backend).await.unwrap().0, 200);
    });
}
