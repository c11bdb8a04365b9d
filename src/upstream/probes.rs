//! Asks the servers of backends whether they are well.
//!
//! Invariant: each server is asked about as often as its backend says, never by two at a time, and not all of them in
//! the same moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};

use super::Upstreams;
use super::backend::{Backend, Member};
use super::definition::Probing;
use super::exchange::{Broken, Exchange, Patience};
use super::wire::{Length, Nothing, Sending};

/// Probes are up to this part of their period early or late.
const JITTER: f64 = 0.1;
/// Statuses that say that a server is well.
const WELL: std::ops::RangeInclusive<u16> = 200..=399;

impl Upstreams {
    /// Asks until it is dropped.
    pub async fn watch(self) {
        loop {
            let changed = self.inner.changed.notified();
            let fleet = self.fleet();
            let mut probing = FuturesUnordered::new();
            for backend in fleet.iter() {
                let Some(probe) = &backend.definition.health else { continue };
                probing.extend(backend.members.iter().map(|member| attend(backend, member, probe)));
            }
            tokio::select! {
                () = changed => {}
                // Nobody to attend ends at once; then only a change brings somebody.
                () = async { while probing.next().await.is_some() {} std::future::pending().await } => {}
            }
        }
    }
}

/// Asks one server for ever.
async fn attend(backend: &Arc<Backend>, member: &Member, probing: &Probing) {
    // The first round is spread over one period, so that many gateways do not ask as one.
    let mut wait = probing.every.mul_f64(fastrand::f64() * JITTER);
    loop {
        sleep(wait).await;
        let outcome = ask(backend, member, probing).await;
        backend.probed(member, outcome);
        wait = probing.every.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0));
    }
}

/// Asks once, on a connection of its own: that it can be made is part of the question.
async fn ask(backend: &Backend, member: &Member, probing: &Probing) -> Result<(), String> {
    let limits = &backend.shared.limits;
    let until = Instant::now() + backend.timeout().min(probing.every);
    let connection =
        member.target.dial(&backend.shared.lookups, until.min(Instant::now() + limits.connect_timeout));
    let connection = connection.await.map_err(|problem| format!("probe: {problem}"))?;
    let mut head = BytesMut::new();
    for part in ["GET ", &member.place.address.base, &probing.path, &member.host_line] {
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(b"connection: close\r\nuser-agent: lanekeeper-probe\r\n");
    let mut exchange = Exchange::new(connection, Sending::new(head, Length::None, 0));
    let patience = Patience { until, body: Duration::ZERO, bytes: 1 };
    match exchange.answer(&mut Nothing, false, patience).await {
        Ok(head) if WELL.contains(&head.status) => Ok(()),
        Ok(head) => Err(format!("probe: status {}", head.status)),
        Err(Broken::Fault(fault)) => Err(format!("probe: {fault}")),
        Err(Broken::TimedOut | Broken::TooLarge | Broken::BodyTimedOut | Broken::BodyLost) => {
            Err("probe: no answer in time".to_owned())
        }
    }
}
