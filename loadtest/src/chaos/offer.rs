//! Stands between a measurement and the open-loop client: a load of creates on a stage, and the delays that came of it.
//! Invariant: the book knows each document before it is sent, and a load that was not taken whole is an error.

use std::sync::Arc;
use std::time::Duration;

use super::ledger::quantile;
use super::stage::Stage;
use crate::client::Load;
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::schedule::{Arrival, DocumentKey, Operation};

/// Connections of the load.
const CONNECTIONS: usize = 32;
/// How long answers may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A load of creates that is spread over partitions in a fixed pattern, and what came of it.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    /// Creates per second.
    pub(crate) rate: u32,
    pub(crate) lasts: Duration,
}

/// Offers a load on an open loop: arrival number `n` goes to partition `lane(n)`. All of it must be acknowledged.
///
/// Gives the time from the first arrival to the last answer.
pub(crate) async fn offer(
    stage: &Stage,
    mix: Mix,
    lane: impl Fn(u64) -> u32 + Send + Clone + 'static,
) -> anyhow::Result<Duration> {
    let clock = stage.context.clock;
    let load = Load::new(stage.target().await?, stage.book.template(), PATIENCE, clock)?;
    let load = Arc::new(load);
    let count = (f64::from(mix.rate) * mix.lasts.as_secs_f64()) as u64;
    let first = stage.book.next();
    let gap = Duration::from_secs(1) / mix.rate.max(1);
    let of = lane.clone();
    let arrivals = (0..count).map(move |n| {
        let key = DocumentKey { number: first + n, partition: of(n) };
        Arrival {
            after: gap.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX)),
            operation: Operation::Create(key),
        }
    });
    stage.book.enter_acknowledged((0..count).map(lane));
    let origin = clock.now().plus(Duration::from_millis(50));
    load.play(arrivals, origin, origin.plus(mix.lasts + PATIENCE), CONNECTIONS).await?;
    let took = clock.now().since(origin);
    let acknowledged = load.acknowledged().len() as u64;
    anyhow::ensure!(acknowledged == count, "{acknowledged} of {count} documents were acknowledged");
    Ok(took)
}

/// The p99 from sending to arrival of what an endpoint got since a moment.
pub(crate) fn p99_since(endpoint: &Endpoint, from: Moment) -> Duration {
    let mut delays: Vec<Duration> = endpoint.with_hits(|hits| {
        let fresh = hits.iter().filter(|hit| hit.sent >= from && hit.attempt == 1);
        fresh.map(|hit| hit.at.since(hit.sent)).collect()
    });
    quantile(&mut delays, 0.99)
}

/// The middle one of some values.
pub(crate) fn median(mut values: Vec<Duration>) -> Duration {
    quantile(&mut values, 0.5)
}
