//! Rows 42 to 44: many subscriptions, some of them bad company.

use std::time::Duration;

use super::AMPLE;
use crate::chaos::manifest::{Retry, Wants};
use crate::chaos::offer::{Mix, median, offer, p99_since};
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, SUBJECT, Scene};
use crate::chaos::stage::Stage;
use crate::clock::Moment;
use crate::endpoint::{Endpoint, scripts};

const MIB: u64 = 1 << 20;
/// Below this a p99 is the noise of the machine, and its ratio says nothing.
const FLOOR: Duration = Duration::from_millis(10);

/// How many times larger, when both are at least as large as the noise.
fn times(loaded: Duration, baseline: Duration) -> f64 {
    loaded.max(FLOOR).as_secs_f64() / baseline.max(FLOOR).as_secs_f64()
}

pub(in crate::chaos) async fn hung(context: Context) -> anyhow::Result<Findings> {
    /// Quiet subscriptions, each of one partition of its own.
    const QUIET: u32 = 98;
    const ROUNDS: usize = 3;
    const WINDOW: u64 = 64;
    const MIX: Mix = Mix { rate: 1_500, lasts: Duration::from_secs(6) };
    let busy = context.endpoint(scripts::well()).await?;
    let hung = context.endpoint(scripts::well()).await?;
    let quiet = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_timeout", "30s").limit("delivery_window", &WINDOW.to_string());
    scene.subscribe("busy", &busy, Retry::quick(30));
    scene.subscribe("hung", &hung, Retry::quick(30).scaled(0.1));
    for lane in 1..=QUIET {
        scene.subscribe(&format!("quiet-{lane}"), &quiet, Retry::quick(30)).wants = Wants::Lane(lane);
    }
    let stage = scene.open().await?;
    // Every fifteenth event is of a quiet partition: one a second for each.
    let lane = |n: u64| if n.is_multiple_of(15) { 1 + (n / 15 % u64::from(QUIET)) as u32 } else { SUBJECT };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut most = 0;
    for _ in 0..ROUNDS {
        for (script, p99s) in [(scripts::well(), &mut alone), (scripts::silent(), &mut beside)] {
            hung.set(script);
            hung.forget();
            let from = stage.now();
            offer(&stage, MIX, lane).await?;
            p99s.push(p99_since(&quiet, from));
            most = most.max(hung.most_under_way());
        }
    }
    let mut findings = Findings::default();
    let (alone, beside) = (median(alone), median(beside));
    let ratio = times(beside, alone);
    findings
        .want(ratio <= 2.0, || format!("quiet p99 {beside:.1?} beside the hung one, {alone:.1?} without"));
    findings.want(most <= WINDOW, || format!("the hung one held {most} places"));
    findings.measured(format!(
        "quiet p99 {beside:.1?} beside the hung one, {alone:.1?} without (ratio {ratio:.2}); it held at most {most} places"
    ));
    Ok(findings)
}

/// Waits until an endpoint was sent so many events: what is late belongs to the measurement too.
async fn arrived(stage: &Stage, endpoint: &Endpoint, count: usize) -> anyhow::Result<()> {
    let give_up = stage.now().plus(AMPLE);
    while endpoint.with_hits(|hits| hits.iter().filter(|hit| hit.attempt == 1).count()) < count {
        anyhow::ensure!(stage.now() < give_up, "not all of {count} events arrived within {AMPLE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(in crate::chaos) async fn failing(context: Context) -> anyhow::Result<Findings> {
    const FAILING: usize = 1_000;
    const ROUNDS: usize = 3;
    /// The other tenant's partition.
    const OTHER: u32 = 5;
    const MIX: Mix = Mix { rate: 50, lasts: Duration::from_secs(6) };
    let events = usize::try_from(u64::from(MIX.rate) * MIX.lasts.as_secs())?;
    let ill = context.endpoint(scripts::always(500)).await?;
    let well = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    // Who belongs to whom shows in the partition: the thousand want one, the other tenant another.
    for number in 1..=FAILING {
        scene.subscribe(&format!("a{number}"), &ill, Retry::quick(30).scaled(0.01));
    }
    scene.subscribe("b", &well, Retry::quick(30)).wants = Wants::Lane(OTHER);
    let stage = scene.open().await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let mut wanted = 0;
    for round in 0..ROUNDS {
        let from = stage.now();
        offer(&stage, MIX, |_| OTHER).await?;
        wanted += events;
        if round == 0 {
            // Only before the first event of the others is it quite alone.
            arrived(&stage, &well, wanted).await?;
            alone.push(p99_since(&well, from));
        }
        let from = stage.now();
        // One event of a hundred fails a thousand times, now and in its retries.
        offer(&stage, MIX, |n| if n.is_multiple_of(100) { SUBJECT } else { OTHER }).await?;
        wanted += events - events.div_ceil(100);
        arrived(&stage, &well, wanted).await?;
        beside.push(p99_since(&well, from));
    }
    let failures = ill.count();
    let mut findings = Findings::default();
    let (alone, beside) = (median(alone), median(beside));
    let ratio = times(beside, alone);
    findings.want(ratio <= 2.0, || format!("p99 {beside:.1?} beside {failures} failures, {alone:.1?} alone"));
    let lost = stage.balance_of("b").await?;
    lost.faults.into_iter().for_each(|fault| findings.fault(fault));
    findings.measured(format!(
        "p99 {beside:.1?} beside {failures} failed attempts, {alone:.1?} alone (ratio {ratio:.2})"
    ));
    Ok(findings)
}

pub(in crate::chaos) async fn wide(context: Context) -> anyhow::Result<Findings> {
    const SUBSCRIPTIONS: usize = 10_000;
    const LIMIT: Duration = Duration::from_secs(5);
    /// Large enough for ten thousand copies to show.
    const BODY: usize = 100_000;
    let all = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.document = BODY;
    for number in 1..=SUBSCRIPTIONS {
        scene.subscribe(&format!("s{number}"), &all, Retry::quick(30));
    }
    let stage = scene.open().await?;
    let reached = |from: Moment| {
        let (all, stage) = (&all, &stage);
        async move {
            while all.count() < SUBSCRIPTIONS && stage.now().since(from) < AMPLE {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let last = all.with_hits(|hits| hits.iter().map(|hit| hit.at).max());
            last.map_or(AMPLE, |last| last.since(from))
        }
    };
    let before = stage.rss()?;
    let mut times = Vec::new();
    let mut peak = before;
    for _ in 0..3 {
        all.forget();
        let from = stage.now();
        stage.publish(1).await?;
        times.push(reached(from).await);
        peak = peak.max(
            crate::process::Reading::of(crate::process::Subject::Other(stage.server()?.pid()))
                .map_or(0, |r| r.peak_rss),
        );
    }
    let mut findings = Findings::default();
    let got = all.count();
    findings.want(got == SUBSCRIPTIONS, || format!("{got} of {SUBSCRIPTIONS} received it"));
    let slowest = times.iter().max().copied().unwrap_or_default();
    findings.want(slowest <= LIMIT, || format!("all reached after {slowest:.2?}"));
    let grown = peak.saturating_sub(before) / MIB;
    // The places of all connections together hold some fifty megabytes of it; all subscriptions would hold a gigabyte.
    findings.want(grown < 200, || format!("the server grew by {grown} MiB over an event of {BODY} bytes"));
    findings.measured(format!(
        "all reached after {slowest:.2?}; the server grew by {grown} MiB from {} MiB",
        before / MIB
    ));
    Ok(findings)
}
