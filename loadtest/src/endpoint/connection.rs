//! Stands between one socket and the script: reads requests, plays answers.
//! Invariant: how long the server held a connection, and how much it took, is noted whenever it was left to end it.

use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::request::{Parsed, parse};
use super::{Act, Held, Hit, Shared, Step};
use crate::clock::Moment;

/// What the connection is good for afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    End,
}

/// Counts a request as under way for as long as it lives.
struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Answers the requests of one connection.
pub(super) async fn serve(mut stream: TcpStream, number: u64, shared: Arc<Shared>) {
    // A socket that refuses it still works, only slower.
    stream.set_nodelay(true).unwrap_or_default();
    let mut buffer = BytesMut::with_capacity(4096);
    let mut nth = 1;
    loop {
        let (act, used, at) = match parse(&buffer, nth) {
            Parsed::Nonsense => {
                // What an HTTP server says to a caller who speaks something else, such as TLS.
                let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                return stream.write_all(answer).await.unwrap_or_default();
            }
            Parsed::Partial => match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            },
            Parsed::Whole(request, used) => {
                let at = shared.clock.now();
                shared.begin();
                let act = (shared.script())(&request);
                let status = match &act {
                    Act::Answer(status) | Act::Late(_, status) | Act::Play(status, _) => *status,
                };
                let hit = Hit {
                    subscriber: request.subscriber(),
                    attempt: request.attempt(),
                    event: request.event(),
                    number: request.number(),
                    sent: request.sent(),
                    at,
                    status,
                    connection: number,
                };
                shared.note(hit, &request);
                (act, used, at)
            }
        };
        let under_way = UnderWay(&shared);
        buffer.advance(used);
        nth += 1;
        let after = perform(&mut stream, act, at, &shared).await;
        drop(under_way);
        if after == After::End {
            return;
        }
    }
}

async fn perform(stream: &mut TcpStream, act: Act, at: Moment, shared: &Shared) -> After {
    match act {
        Act::Answer(status) => answer(stream, status).await,
        Act::Late(pause, status) => {
            tokio::time::sleep(pause).await;
            answer(stream, status).await
        }
        Act::Play(_, steps) => {
            for step in steps {
                if play(stream, step, at, shared).await == After::End {
                    return After::End;
                }
            }
            After::Keep
        }
    }
}

async fn answer(stream: &mut TcpStream, status: u16) -> After {
    const WELL: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    let sent = match status {
        204 => stream.write_all(WELL).await,
        // These have no body, and a length would be wrong (RFC 9110, 8.6).
        100..200 | 304 => stream.write_all(format!("HTTP/1.1 {status} Said\r\n\r\n").as_bytes()).await,
        _ => {
            let text = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await
        }
    };
    if sent.is_ok() { After::Keep } else { After::End }
}

async fn play(stream: &mut TcpStream, step: Step, at: Moment, shared: &Shared) -> After {
    match step {
        Step::Send(bytes) => {
            if stream.write_all(&bytes).await.is_ok() {
                After::Keep
            } else {
                After::End
            }
        }
        Step::Pause(pause) => {
            tokio::time::sleep(pause).await;
            After::Keep
        }
        Step::Close => {
            stream.shutdown().await.unwrap_or_default();
            After::End
        }
        Step::Reset => {
            // The kernel sends a reset instead of an end when nothing may linger.
            stream.set_zero_linger().unwrap_or_default();
            After::End
        }
        Step::Hold | Step::Drip(..) | Step::Flood(_) => {
            let written = hold(stream, &step).await;
            let held = Held { lasted: shared.clock.now().since(at), written };
            shared.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(held);
            After::End
        }
    }
}

/// Writes what the step says until the server ends the connection; gives the number of bytes written.
async fn hold(stream: &mut TcpStream, step: &Step) -> u64 {
    let (mut reading, mut writing) = stream.split();
    let mut written = 0_u64;
    let ended = async {
        let mut rest = [0; 1024];
        while reading.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    };
    let writing = async {
        match step {
            Step::Drip(bytes, every) => {
                while writing.write_all(bytes).await.is_ok() {
                    written += bytes.len() as u64;
                    tokio::time::sleep(*every).await;
                }
            }
            Step::Flood(bytes) => {
                while let Ok(length) = writing.write(bytes).await {
                    written += length as u64;
                }
            }
            Step::Send(_) | Step::Pause(_) | Step::Hold | Step::Reset | Step::Close => {
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = ended => (),
        () = writing => (),
    }
    written
}
