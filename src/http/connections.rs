//! Stands between the listener and the worker: how many connections one client address has, and how long it
//! may leave an answer unread.
//!
//! Invariants: a connection over the limit is told so and closed before anything of it is read; one whose client
//! takes nothing of its answer is ended by the kernel.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Shutdown, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::SockRef;

/// What a refused connection is told; it is too early to know whether it would speak HTTP.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\ncontent-length: 172\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Too many connections\",\"status\":503,\
    \"detail\":\"this client address has too many open connections\",\"instance\":\"/\",\
    \"code\":\"too_many_connections\"}";

/// Counts the open connections of each client address.
#[derive(Debug, Clone)]
pub struct Connections {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
    streams: usize,
    write_timeout: Duration,
}

/// One open connection; uncounted when dropped with it.
#[derive(Debug)]
pub(super) struct Connection {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    ip: IpAddr,
    over: bool,
    /// Its requests that are being worked on. They are all on the worker's thread.
    streams: Rc<Cell<usize>>,
    streams_max: usize,
}

/// A request of a connection, while it is worked on.
#[derive(Debug)]
pub(super) struct Stream(Rc<Cell<usize>>);

/// A connection or a request too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The address has as many connections as it may have.
    #[error("this client address has too many open connections")]
    Connections,
    /// The connection has as many requests as it may have.
    #[error("this connection has too many requests at the same time")]
    Streams,
}

impl Connections {
    /// At most `limit` for each address, each with so many requests at a time. One that takes nothing of what is sent
    /// to it for `write_timeout` is ended (TCP_USER_TIMEOUT, RFC 5482).
    pub fn new(limit: usize, streams: usize, write_timeout: Duration) -> Self {
        Self { open: Arc::default(), limit, streams, write_timeout }
    }

    /// Counts a new connection. `None` when it is already gone.
    pub(super) fn open(&self, stream: &TcpStream) -> Option<Connection> {
        let peer = stream.peer_addr().ok()?;
        if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(self.write_timeout)) {
            tracing::debug!(%error, "connection has no write timeout");
        }
        Some(self.count_in(peer.ip()))
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn count_in(&self, ip: IpAddr) -> Connection {
        let ip = ip.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_insert(0);
        *count += 1;
        let over = *count > self.limit;
        Connection { open: self.open.clone(), ip, over, streams: Rc::default(), streams_max: self.streams }
    }
}

impl Connection {
    /// Whether it may be there.
    pub(super) fn check(&self) -> Result<(), TooMany> {
        if self.over { Err(TooMany::Connections) } else { Ok(()) }
    }

    /// Begins a request.
    pub(super) fn begin(&self) -> Result<Stream, TooMany> {
        self.check()?;
        let streams = self.streams.get();
        if streams >= self.streams_max {
            return Err(TooMany::Streams);
        }
        self.streams.set(streams + 1);
        Ok(Stream(self.streams.clone()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.get(&self.ip).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.remove(&self.ip);
        } else {
            open.insert(self.ip, left);
        }
    }
}

/// Says why, and ends the connection both ways. A client that is already gone needs no answer.
pub(super) fn refuse(stream: &TcpStream) {
    // The server owns the stream and closes it when it reads the end; a second handle lets us end it now.
    // An empty send buffer takes the refusal at once, so the worker does not wait.
    let refused = stream.as_fd().try_clone_to_owned().map(StdStream::from).and_then(|mut stream| {
        stream.write_all(REFUSAL)?;
        stream.shutdown(Shutdown::Both)
    });
    if let Err(error) = refused {
        tracing::debug!(%error, "refused connection not ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_limit_and_gets_places_back() {
        let connections = Connections::new(2, 2, Duration::from_secs(1));
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let held = [connections.count_in(a), connections.count_in(a)];
        assert!(held.iter().all(|connection| connection.check().is_ok()));
        assert_eq!(connections.count_in(a).check(), Err(TooMany::Connections));
        assert!(connections.count_in(b).check().is_ok());
        assert_eq!(connections.count(), 2);
        drop(held);
        assert_eq!(connections.count(), 0);
        assert!(connections.open.lock().unwrap().is_empty());
        assert!(connections.count_in(a).check().is_ok());
    }

    #[test]
    fn a_connection_has_so_many_requests_at_a_time() {
        let connection =
            Connections::new(1, 2, Duration::from_secs(1)).count_in(IpAddr::from([192, 0, 2, 1]));
        let held = [connection.begin().unwrap(), connection.begin().unwrap()];
        assert_eq!(connection.begin().err(), Some(TooMany::Streams));
        drop(held);
        connection.begin().unwrap();
    }

    #[test]
    fn the_refusal_is_well_formed() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["status"], 503);
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
