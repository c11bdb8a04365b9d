//! Rows 10, 11 and 40: endpoints that fail for a while, now and then, or on one event only.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AMPLE, want_letters};
use crate::chaos::ledger::gaps;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, SUBJECT, Scene};
use crate::endpoint::{Hit, scripts};

pub(in crate::chaos) async fn burst(context: Context) -> anyhow::Result<Findings> {
    /// Between two events: the steady rate is fifty a second.
    const EVERY: Duration = Duration::from_millis(20);
    /// Events in each third: before, during and after the burst of failures.
    const THIRD: usize = 100;
    /// A second attempt comes after 0.6 s here, and up to 0.06 s of chance.
    const SCALE: f64 = 0.06;
    let ill = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(30).scaled(SCALE));
    let stage = scene.open().await?;
    let mut next = stage.now();
    for script in [scripts::well(), scripts::always(500), scripts::well()] {
        ill.set(script);
        for _ in 0..THIRD {
            stage.publish(1).await?;
            next = next.plus(EVERY);
            context.clock.wait_until(next).await;
        }
    }
    stage.rest(AMPLE * 2).await?;
    let mut findings = stage.audit().await?;
    let hits = ill.hits();
    let delivered = stage.status("ill").await?.delivered;
    findings.want(delivered == 3 * THIRD as u64, || format!("{delivered} of {} delivered", 3 * THIRD));
    // Chance spreads what failed together: the second attempts of a hundred events keep no common step.
    let first: Vec<f64> =
        gaps(&hits).iter().filter(|(attempt, _)| *attempt == 1).map(|(_, gap)| gap.as_secs_f64()).collect();
    let (low, high) =
        first.iter().fold((f64::MAX, 0.0_f64), |(low, high), gap| (low.min(*gap), high.max(*gap)));
    let spread = high - low;
    let middle = middle_half(&first);
    findings.want(middle > SCALE * 10.0 * 0.02, || {
        format!("no jitter: the middle half of {} second attempts lies within {middle:.3} s", first.len())
    });
    let peak = busiest(&hits, Duration::from_secs(1));
    let steady = 1.0 / EVERY.as_secs_f64();
    findings.want(peak as f64 <= 2.0 * steady, || format!("a peak of {peak}/s at a steady {steady:.0}/s"));
    if let Some(state) = stage.status("ill").await?.breaker() {
        findings.want(state == "closed", || format!("the breaker is {state} after the recovery"));
    }
    findings.measured(format!(
        "{} attempts for {} events, peak {peak}/s at a steady {steady:.0}/s, retries spread over {spread:.2} s",
        hits.len(),
        3 * THIRD,
    ));
    Ok(findings)
}

/// How far the middle half of these values is apart.
pub(super) fn middle_half(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted.get(sorted.len() * share / 4).copied().unwrap_or_default();
    at(3) - at(1)
}

/// The most requests in a stretch of this length, of stretches that begin at a tenth of it.
fn busiest(hits: &[Hit], stretch: Duration) -> u64 {
    let tenth = (stretch / 10).as_nanos().max(1) as u64;
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for hit in hits {
        *counts.entry(hit.at.number() / tenth).or_default() += 1;
    }
    counts
        .keys()
        .map(|from| counts.range(from..&(from + 10)).map(|(_, count)| count).sum())
        .max()
        .unwrap_or(0)
}

pub(in crate::chaos) async fn flapping(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 200;
    let ill = context.endpoint(scripts::flapping()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(30).scaled(0.0002));
    let stage = scene.open().await?;
    stage.publish(EVENTS).await?;
    stage.rest(AMPLE * 2).await?;
    let mut findings = stage.audit().await?;
    let status = stage.status("ill").await?;
    findings.want(status.delivered == EVENTS as u64 && status.dead_lettered == 0, || {
        format!("{} of {EVENTS} delivered, {} given up", status.delivered, status.dead_lettered)
    });
    if let Some(state) = status.breaker() {
        findings.want(state == "closed", || format!("the breaker is still {state}"));
    }
    let most = ill.with_hits(|hits| hits.iter().map(|hit| hit.attempt).max()).unwrap_or_default();
    findings.tell(format!("all {EVENTS} delivered, at most {most} attempts for one"));
    Ok(findings)
}

pub(in crate::chaos) async fn poison(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 50;
    let ill = context.endpoint(scripts::poisoned_by(vec![7], 500)).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(4));
    let stage = scene.open().await?;
    stage.publish(EVENTS).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_letters(&mut findings, &stage, "ill", 1, "Rejected", "MaxDeliveryAttemptsExceeded").await?;
    let delivered = stage.status("ill").await?.delivered;
    findings.want(delivered == EVENTS as u64 - 1, || {
        format!("{delivered} of the other {} delivered", EVENTS - 1)
    });
    findings.tell(format!("{delivered} others delivered, the poison given up after 4 attempts"));
    match in_order(&context).await {
        Ok(found) => findings.join(found),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(skip) => findings.leave_out(format!("in order ({skip})")),
            None => return Err(error),
        },
    }
    Ok(findings)
}

/// In order, a failing event holds back its own key and no other.
async fn in_order(context: &Context) -> anyhow::Result<Findings> {
    const KEYS: u32 = 4;
    const ROUNDS: usize = 10;
    // The first event of the first key.
    let ill = context.endpoint(scripts::poisoned_by(vec![0], 500)).await?;
    let mut scene = Scene::new(context).await?;
    // Late enough for all others to come first.
    let subscription = scene.subscribe("ill", &ill, Retry::quick(3).scaled(0.1));
    subscription.wants = crate::chaos::manifest::Wants::All;
    subscription.more = "order: partition".to_owned();
    let stage = scene.open().await?;
    let mut line = stage.gateway()?.line();
    for _ in 0..ROUNDS {
        for key in 0..KEYS {
            stage.publish_on(&mut line, SUBJECT + 10 + key).await?;
        }
    }
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    let hits = ill.hits();
    let lanes = stage.book.entries();
    let lane = |hit: &Hit| hit.number.and_then(|number| lanes.get(number as usize)).map(|entry| entry.lane);
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for hit in hits.iter().filter(|hit| hit.attempt == 1) {
        let (Some(lane), Some(number)) = (lane(hit), hit.number) else { continue };
        let before = last.insert(lane, number);
        findings.want(before.is_none_or(|before| before < number), || {
            format!("{number} came after {} of the same key", before.unwrap_or_default())
        });
    }
    let end = hits.iter().rfind(|hit| hit.number == Some(0)).map(|hit| hit.at);
    let own = lanes.first().map(|entry| entry.lane);
    let early =
        hits.iter().filter(|hit| lane(hit) == own && hit.number != Some(0) && Some(hit.at) < end).count();
    let others = hits.iter().filter(|hit| lane(hit) != own && Some(hit.at) < end && hit.is_taken()).count();
    findings.want(early == 0, || format!("{early} events overtook the failing one of their key"));
    let most = ROUNDS * (KEYS as usize - 1);
    findings.want(others >= most, || format!("{others} of {most} events of other keys came meanwhile"));
    findings.tell("in order: only the key of the poison waited");
    Ok(findings)
}
