//! The connections of one worker thread that wait for their next request.
//!
//! Invariants: a connection never leaves the thread that made it, so no request waits for another thread; it serves
//! the one server that it was made for; there are never more idle ones than the bounds say, nor for longer.
//!
//! The pool belongs to the thread, and not to a value that is handed around: a request finds it wherever the server
//! of the listener happens to run it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Between two looks at what is idle for too long.
const SWEEP: Duration = Duration::from_secs(5);

/// How many connections wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdleLimits {
    /// Of one server, in one thread.
    pub(super) connections: usize,
    /// Time without a request.
    pub(super) time: Duration,
}

#[derive(Default)]
struct Pool {
    /// By the number of the server; the latest last.
    idle: HashMap<u64, Vec<Idle>>,
    sweeping: bool,
}

struct Idle {
    connection: Connection,
    until: Instant,
}

/// A connection to this server that can be used again.
pub(super) fn take(server: u64, now: Instant) -> Option<Connection> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.get_mut(&server)?;
        while let Some(Idle { mut connection, until }) = idle.pop() {
            if now < until && connection.is_fit() {
                return Some(connection);
            }
        }
        None
    })
}

/// Takes back a connection whose answer was read to its end.
pub(super) fn give_back(server: u64, mut connection: Connection, limits: IdleLimits) {
    let until = Instant::now() + limits.time;
    let begin = POOL.with_borrow_mut(|pool| {
        let idle = pool.idle.entry(server).or_default();
        if idle.len() >= limits.connections {
            return false;
        }
        connection.heard = false;
        connection.rest();
        idle.push(Idle { connection, until });
        !std::mem::replace(&mut pool.sweeping, true)
    });
    if begin {
        tokio::task::spawn_local(sweep());
    }
}

/// Closes what is idle for too long, or was closed by its server, until nothing is left.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = Instant::now();
        let done = POOL.with_borrow_mut(|pool| {
            pool.idle.retain(|_, idle| {
                idle.retain_mut(|idle| now < idle.until && idle.connection.is_fit());
                !idle.is_empty()
            });
            pool.sweeping = !pool.idle.is_empty();
            !pool.sweeping
        });
        if done {
            return;
        }
    }
}

/// How many connections to this server wait in this thread.
#[cfg(test)]
pub(super) fn waiting(server: u64) -> usize {
    POOL.with_borrow(|pool| pool.idle.get(&server).map_or(0, Vec::len))
}
