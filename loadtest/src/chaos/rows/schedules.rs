//! Rows 48 and 49: the whole schedule, scaled so that its steps keep their ratios.

use std::time::Duration;

use super::recovery::middle_half;
use super::want_letters;
use crate::chaos::ledger::step;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::endpoint::scripts;

/// Endpoints of their own, so that no breaker sees more than one event.
const SUBSCRIPTIONS: usize = 16;
/// The largest share that chance adds to a step.
const JITTER: f64 = 0.1;
/// What the machine may add to each attempt, in seconds.
const LATE: f64 = 0.25;

pub(in crate::chaos) async fn half_an_hour(context: Context) -> anyhow::Result<Findings> {
    schedule(&context, 1_800.0, 10, 0.005, 6).await
}

pub(in crate::chaos) async fn a_day(context: Context) -> anyhow::Result<Findings> {
    schedule(&context, 86_400.0, 30, 0.001, 11).await
}

/// Plays one event against endpoints that always fail, and wants `wanted` attempts at their times.
async fn schedule(
    context: &Context,
    ttl: f64,
    attempts: u32,
    scale: f64,
    wanted: usize,
) -> anyhow::Result<Findings> {
    let mut scene = Scene::new(context).await?;
    let ttl_millis = (ttl * scale * 1e3).round();
    let retry = Retry::quick(attempts).scaled(scale).living(&format!("{ttl_millis}ms"));
    let mut endpoints = Vec::new();
    for number in 1..=SUBSCRIPTIONS {
        let endpoint = context.endpoint(scripts::always(500)).await?;
        scene.subscribe(&format!("ill-{number}"), &endpoint, retry.clone());
        endpoints.push(endpoint);
    }
    let stage = scene.open().await?;
    stage.publish(1).await?;
    stage.rest(Duration::from_secs_f64(ttl * scale * 1.7 + 60.0)).await?;
    let mut findings = stage.audit().await?;
    let mut counts = Vec::new();
    let mut last = Vec::new();
    for (number, endpoint) in (1..).zip(&endpoints) {
        let name = format!("ill-{number}");
        want_letters(&mut findings, &stage, &name, 1, "Rejected", "TimeToLiveExceeded").await?;
        let hits = endpoint.hits();
        counts.push(hits.len());
        let Some(first) = hits.first() else { continue };
        let mut sum = 0.0;
        for hit in &hits {
            let at = hit.at.since(first.at).as_secs_f64();
            let (least, most) = (
                sum * scale,
                sum * scale * (1.0 + JITTER) + LATE * context.patience * f64::from(hit.attempt),
            );
            findings.want(at >= least - 0.005 && at <= most, || {
                format!("{name}: attempt {} at {at:.3} s instead of {least:.3} to {most:.3} s", hit.attempt)
            });
            sum += step(hit.attempt);
        }
        last.push(hits.last().map_or(0.0, |hit| hit.at.since(first.at).as_secs_f64()) / scale);
    }
    let wrong = counts.iter().filter(|count| **count != wanted).count();
    findings.want(wrong == 0, || {
        format!(
            "attempts until given up: {counts:?} instead of {wanted} each ({wrong} of {SUBSCRIPTIONS} wrong)"
        )
    });
    // Chance spreads what begins together. A twentieth of what the longest step may add is little enough for any luck.
    let middle = middle_half(&last);
    let longest = step(u32::try_from(wanted).unwrap_or(u32::MAX).saturating_sub(1));
    findings.want(middle > longest * JITTER / 20.0, || {
        format!("no jitter: the middle half of the last attempts lies within {middle:.1} s of the unscaled schedule")
    });
    let (low, high) = last.iter().fold((f64::MAX, 0.0_f64), |(low, high), at| (low.min(*at), high.max(*at)));
    findings.measured(format!(
        "the last attempt at {low:.0} to {high:.0} s of the unscaled schedule (scale {scale})"
    ));
    Ok(findings)
}
