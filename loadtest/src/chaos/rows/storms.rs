//! Row 32: very many retries are due when the server starts.

use std::time::Duration;

use super::AMPLE;
use crate::chaos::ledger::quantile;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, SUBJECT, Scene};
use crate::endpoint::{Act, scripts};

const MIB: u64 = 1 << 20;
const GOAL: Duration = Duration::from_secs(1);

pub(in crate::chaos) async fn due_retries(context: Context) -> anyhow::Result<Findings> {
    const SUBSCRIPTIONS: usize = 10;
    /// New events after the restart, one every 20 ms.
    const NEW: usize = 200;
    /// Memory of the server while it works off what is due.
    const RSS: u64 = 500 * MIB;
    let events = if context.full { 100_000 } else { 10_000 };
    let ill = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    for number in 1..=SUBSCRIPTIONS {
        // The retries come late enough for all first attempts to be over.
        scene.subscribe(&format!("s{number}"), &ill, Retry::quick(30).living("24h").scaled(1.0).relentless());
    }
    let mut stage = scene.open().await?;
    let total = (events * SUBSCRIPTIONS) as u64;
    stage.import(SUBJECT, events).await?;
    let failed = stage
        .until(AMPLE * 5, |all| {
            let others = all.values().filter(|status| status.name != crate::chaos::stage::Stage::BYSTANDER);
            others.map(|status| status.retrying).sum::<u64>() >= total && all.values().all(|s| s.lag == 0)
        })
        .await?;
    let mut findings = Findings::default();
    findings.want(failed, || "the events did not become due retries".to_owned());
    ill.set(scripts::with(|_| Act::Answer(204)));
    stage.kill().await?;
    // Everything that waits for its second attempt is due by now or within seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    ill.forget();
    let ready = stage.start().await?;
    let from = stage.now();
    let first_new = stage.book.next();
    let mut line = stage.gateway()?.line();
    let (mut peak, mut next) = (0, from);
    for _ in 0..NEW {
        stage.publish_on(&mut line, SUBJECT).await?;
        peak = peak.max(stage.rss()?);
        next = next.plus(Duration::from_millis(20));
        context.clock.wait_until(next).await;
    }
    let at_once = ill.with_hits(|hits| hits.iter().filter(|hit| hit.at.since(from) < GOAL).count());
    let drained = stage.until(AMPLE * 5, |all| all.values().all(|status| status.is_at_rest())).await?;
    let took = stage.now().since(from);
    peak = peak.max(stage.rss()?);
    findings.want(drained, || "the retries were not worked off".to_owned());
    let mut fresh: Vec<Duration> = ill.with_hits(|hits| {
        let new = hits.iter().filter(|hit| hit.number.is_some_and(|number| number >= first_new));
        new.map(|hit| hit.at.since(hit.sent)).collect()
    });
    findings.want(fresh.len() >= NEW * SUBSCRIPTIONS, || format!("{} new deliveries", fresh.len()));
    let p99 = quantile(&mut fresh, 0.99);
    findings.want(p99 < GOAL, || format!("new events' p99 {p99:.2?} while {total} retries were due"));
    findings.want(peak < RSS, || format!("{} MiB resident", peak / MIB));
    let rate = total as f64 / took.as_secs_f64();
    findings.measured(format!(
        "{total} due: ready after {ready:.2?}, {at_once} in the first second, all after {took:.0?} ({rate:.0}/s), \
         new events' p99 {p99:.0?}, RSS {} MiB",
        peak / MIB
    ));
    if !context.full {
        findings.leave_out("a million of them (with --full)");
    }
    Ok(findings)
}
