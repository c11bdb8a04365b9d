//! Scenarios of speed: many events, many subscriptions, a long backlog.

use std::time::Duration;

use anyhow::Context as _;

use crate::chaos::{Context, Findings, Mix, Retry, SUBJECT, Scene, Stage, Wants, offer, quantile};
use crate::clock::Moment;
use crate::endpoint::{Endpoint, scripts};
use crate::process::{Reading, Subject};

const SUBSCRIBERS: usize = 4;
const RATE: u32 = 2_500;
const MB: u64 = 1_000_000;
/// How long what is left may take.
const SETTLE: Duration = Duration::from_secs(120);
/// A rate counts as sustained when the whole took at most this many times as long as it should.
const SUSTAINED: f64 = 1.02;

async fn open(context: &Context) -> anyhow::Result<(Stage, std::sync::Arc<Endpoint>)> {
    let all = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::bare(context);
    for number in 1..=SUBSCRIBERS {
        scene.subscribe(&format!("s{number}"), &all, Retry::quick(30)).wants = Wants::All;
    }
    Ok((scene.open().await?, all))
}

/// Spreads creates over a thousand partitions, all of them wanted.
fn spread(n: u64) -> u32 {
    u32::try_from(n % 1000).unwrap_or(SUBJECT)
}

fn reading(stage: &Stage) -> anyhow::Result<Reading> {
    Reading::of(Subject::Other(stage.server()?.pid())).context("the server's process cannot be read")
}

pub(super) async fn fan_out(context: Context) -> anyhow::Result<Findings> {
    let (stage, all) = open(&context).await?;
    let warm = Mix { rate: RATE / 2, lasts: Duration::from_secs(5) };
    offer(&stage, warm, spread).await?;
    let mut findings = Findings::default();
    // Half of the load, for the time from write to delivery.
    all.forget();
    let half = Mix { rate: RATE / 2, lasts: Duration::from_secs(20) };
    offer(&stage, half, spread).await?;
    stage.rest(SETTLE).await?;
    let mut delays: Vec<Duration> =
        all.with_hits(|hits| hits.iter().map(|hit| hit.at.since(hit.sent)).collect());
    let (p50, p99) = (quantile(&mut delays, 0.5), quantile(&mut delays, 0.99));
    findings.want(p50 < Duration::from_millis(10), || format!("p50 {p50:.2?} at half load"));
    findings.want(p99 < Duration::from_millis(100), || format!("p99 {p99:.2?} at half load"));
    findings.measured(format!("write to delivered at half load: p50 {p50:.2?}, p99 {p99:.2?}"));
    // The whole of it, for a minute.
    all.forget();
    let lasts = Duration::from_secs(60);
    let (before, from) = (reading(&stage)?, stage.now());
    let took = offer(&stage, Mix { rate: RATE, lasts }, spread).await?;
    let used = reading(&stage)?.since(&before, stage.now().since(from));
    stage.rest(SETTLE).await?;
    let owed = RATE as usize * 60 * SUBSCRIBERS;
    let (count, last) = all.with_hits(|hits| (hits.len(), hits.iter().map(|hit| hit.at).max()));
    let whole = last.unwrap_or(Moment::NEVER).since(from);
    let (taken, delivered) =
        (f64::from(RATE) * 60.0 / took.as_secs_f64(), count as f64 / whole.as_secs_f64());
    findings.want(count == owed, || format!("{count} deliveries of {owed}"));
    findings.want(took.as_secs_f64() <= lasts.as_secs_f64() * SUSTAINED, || {
        format!("only {taken:.0} events/s in")
    });
    findings.want(whole.as_secs_f64() <= lasts.as_secs_f64() * SUSTAINED, || {
        format!(
            "only {delivered:.0} deliveries/s out, the last {:.1} s late",
            whole.saturating_sub(lasts).as_secs_f64()
        )
    });
    findings.measured(format!(
        "{taken:.0} events/s in, {delivered:.0} deliveries/s out; server {:.0} % of a core, RSS {} MB",
        used.cpu_percent_of_a_core,
        used.rss_bytes / MB
    ));
    Ok(findings)
}

pub(super) async fn fan_out_wide(context: Context) -> anyhow::Result<Findings> {
    const SUBSCRIPTIONS: usize = 10_000;
    const ROUNDS: usize = 5;
    let goal = Duration::from_secs(5);
    let all = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::bare(&context);
    for number in 1..=SUBSCRIPTIONS {
        scene.subscribe(&format!("s{number}"), &all, Retry::quick(30));
    }
    let stage = scene.open().await?;
    let ready = stage.server()?.ready_after;
    let before = reading(&stage)?.rss;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        all.forget();
        let from = stage.now();
        stage.publish(1).await?;
        while all.count() < SUBSCRIPTIONS && stage.now().since(from) < SETTLE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let last = all.with_hits(|hits| hits.iter().map(|hit| hit.at).max());
        times.push(last.unwrap_or(Moment::NEVER).since(from));
    }
    let slowest = times.iter().max().copied().unwrap_or_default();
    let mut findings = Findings::default();
    findings.want(all.count() == SUBSCRIPTIONS, || format!("{} of {SUBSCRIPTIONS} received it", all.count()));
    findings.want(slowest < goal, || format!("all reached after {slowest:.2?}"));
    let after = reading(&stage)?;
    findings.measured(format!(
        "all reached after {:.2?} at best, {slowest:.2?} at worst; RSS {} MB before, {} MB at most; ready after {ready:.1?}",
        times.iter().min().copied().unwrap_or_default(),
        before / MB,
        after.peak_rss / MB,
    ));
    Ok(findings)
}

pub(super) async fn backlog(context: Context) -> anyhow::Result<Findings> {
    const GOAL: f64 = 0.7;
    const RSS: u64 = 500 * MB;
    let events = if context.full { 1_000_000 } else { 250_000 };
    let (stage, all) = open(&context).await?;
    // The steady rate: as many as are asked for, over some seconds.
    offer(&stage, Mix { rate: RATE / 2, lasts: Duration::from_secs(3) }, spread).await?;
    all.forget();
    let (from, lasts) = (stage.now(), Duration::from_secs(15));
    offer(&stage, Mix { rate: RATE, lasts }, spread).await?;
    stage.rest(SETTLE).await?;
    let (count, last) = all.with_hits(|hits| (hits.len(), hits.iter().map(|hit| hit.at).max()));
    let steady = count as f64 / last.unwrap_or(Moment::NEVER).since(from).as_secs_f64();
    // The backlog: published while nobody listens.
    let admin = stage.admin()?;
    let each = |verb: &'static str| {
        let admin = &admin;
        async move {
            for number in 1..=SUBSCRIBERS {
                let answer = admin
                    .post(&format!("/v1/subscriptions/s{number}:{verb}"), &serde_json::json!({}))
                    .await?;
                anyhow::ensure!(answer.status == 200, "{verb}: {}", answer.told());
            }
            Ok(())
        }
    };
    each("pause").await?;
    all.forget();
    stage.import(SUBJECT, events).await?;
    let owed = events * SUBSCRIBERS;
    let from = stage.now();
    each("resume").await?;
    let mut peak = 0;
    while all.count() < owed && stage.now().since(from) < SETTLE * 3 {
        peak = peak.max(reading(&stage)?.rss);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = stage.now().since(from);
    let count = all.count();
    let rate = count as f64 / took.as_secs_f64();
    let mut findings = Findings::default();
    findings.want(count >= owed, || format!("{count} of {owed} delivered after {took:.0?}"));
    findings.want(rate >= GOAL * steady, || format!("{rate:.0}/s from the backlog, {steady:.0}/s steady"));
    findings.want(peak < RSS, || format!("{} MB resident", peak / MB));
    findings.measured(format!(
        "{owed} deliveries in {took:.1?}: {rate:.0}/s ({:.2} of the steady {steady:.0}/s), RSS at most {} MB",
        rate / steady,
        peak / MB
    ));
    Ok(findings)
}
