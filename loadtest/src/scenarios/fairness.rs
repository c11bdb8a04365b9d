//! Scenarios of fairness: what the trouble of one costs the others.

use std::time::Duration;

use crate::chaos::{Context, Findings, Mix, Retry, SUBJECT, Scene, median, offer, p99_since};
use crate::endpoint::scripts;

/// Measurements of each state, in turns, so that a slow minute of the machine falls on both.
const ROUNDS: usize = 5;

pub(super) async fn hung_subscriber(context: Context) -> anyhow::Result<Findings> {
    const GOAL: f64 = 1.10;
    const OTHERS: usize = 4;
    const MIX: Mix = Mix { rate: 500, lasts: Duration::from_secs(8) };
    let hung = context.endpoint(scripts::well()).await?;
    let well = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("hung", &hung, Retry::quick(30).scaled(1.0));
    for number in 1..=OTHERS {
        scene.subscribe(&format!("well-{number}"), &well, Retry::quick(30));
    }
    let stage = scene.open().await?;
    // The first second warms everything up.
    offer(&stage, Mix { lasts: Duration::from_secs(2), ..MIX }, |_| SUBJECT).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (script, p99s) in [(scripts::well(), &mut alone), (scripts::silent(), &mut beside)] {
            hung.set(script);
            let from = stage.now();
            offer(&stage, MIX, |_| SUBJECT).await?;
            p99s.push(p99_since(&well, from));
            hung.forget();
            well.forget();
        }
    }
    let (alone, beside) = (median(alone), median(beside));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64().max(1e-9);
    let mut findings = Findings::default();
    let figures =
        format!("p99 of the others {beside:.2?} beside a hung one, {alone:.2?} without (ratio {ratio:.2})");
    findings.want(ratio < GOAL, || format!("a ratio of {ratio:.2}"));
    findings.measured(figures);
    Ok(findings)
}

pub(super) async fn failing_tenant(context: Context) -> anyhow::Result<Findings> {
    const GOAL: f64 = 2.0;
    const FAILING: usize = 1_000;
    /// Partition of the other tenant.
    const OTHER: u32 = 5;
    const MIX: Mix = Mix { rate: 200, lasts: Duration::from_secs(8) };
    let ill = context.endpoint(scripts::always(204)).await?;
    let well = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    for number in 1..=FAILING {
        scene.subscribe(&format!("a{number}"), &ill, Retry::quick(30).scaled(0.1));
    }
    scene.subscribe("b", &well, Retry::quick(30)).wants = crate::chaos::Wants::Lane(OTHER);
    let stage = scene.open().await?;
    offer(&stage, Mix { lasts: Duration::from_secs(2), ..MIX }, |_| OTHER).await?;
    let from = stage.now();
    offer(&stage, MIX, |_| OTHER).await?;
    let alone = p99_since(&well, from);
    ill.set(scripts::always(500));
    let mut beside = Vec::new();
    for _ in 0..ROUNDS {
        let from = stage.now();
        // One event of two hundred is of the thousand: each second it fails a thousand times, and in its retries again.
        offer(&stage, MIX, |n| if n.is_multiple_of(200) { SUBJECT } else { OTHER }).await?;
        beside.push(p99_since(&well, from));
    }
    let beside = median(beside);
    let ratio = beside.as_secs_f64() / alone.as_secs_f64().max(1e-9);
    let mut findings = Findings::default();
    let failures = ill.count();
    let figures = format!(
        "the other's p99 {beside:.2?} beside {failures} failures, {alone:.2?} alone (ratio {ratio:.2})"
    );
    findings.want(ratio <= GOAL, || format!("a ratio of {ratio:.2}"));
    findings.measured(figures);
    Ok(findings)
}
