//! Rows 1 to 9: endpoints that misbehave below HTTP, or at its edge.

use std::time::Duration;

use super::{AMPLE, FEW, PROBATION, want_between, want_letters, want_probation, want_taken_at_once};
use crate::chaos::manifest::{Retry, Wants};
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::endpoint::doors::{Blackhole, Refusing};
use crate::endpoint::{Act, Script, Step, scripts};

/// The deadline of an attempt in these rows.
const DEADLINE: f64 = 3.0;
/// Time that the rest of an answer gets once its header has come.
const DRAIN: f64 = 1.0;
const MIB: u64 = 1 << 20;

pub(in crate::chaos) async fn black_hole(context: Context) -> anyhow::Result<Findings> {
    let hole = Blackhole::dig().await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_window", "1").limit("delivery_connect_timeout", "500ms");
    scene.limit("delivery_timeout", "20s");
    let url = hole.url(scene.next());
    scene.subscribe_to("ill", &url, Retry::quick(2));
    let stage = scene.open().await?;
    let begun = stage.now();
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let took = stage.now().since(begun);
    let mut findings = stage.audit().await?;
    want_letters(&mut findings, &stage, "ill", FEW, "TimedOut", "MaxDeliveryAttemptsExceeded").await?;
    // One place in the window, so the attempts of 0.5 s each came one after the other.
    let least = 0.5 * FEW as f64;
    want_between(&mut findings, "all attempts together", &[took], (least, 15.0));
    findings.tell(format!("{} attempts timed out after 0.5 s each", 2 * FEW));
    Ok(findings)
}

pub(in crate::chaos) async fn refused(context: Context) -> anyhow::Result<Findings> {
    let door = Refusing::take()?;
    let mut scene = Scene::new(&context).await?;
    let url = door.url(scene.next());
    scene.subscribe_to("ill", &url, Retry::quick(2).scaled(0.1));
    let second = Refusing::take()?;
    let url = second.url(scene.next());
    scene.subscribe_to("worse", &url, Retry::quick(30).scaled(0.1)).wants = Wants::Lane(PROBATION);
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    let settled = stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.is_at_rest())).await?;
    let mut findings = Findings::default();
    findings.want(settled, || "the refused events were not given up".to_owned());
    want_letters(&mut findings, &stage, "ill", FEW, "SocketError", "MaxDeliveryAttemptsExceeded").await?;
    let mut recent = stage.status("ill").await?.recent;
    recent.sort_by(|a, b| (&a.event, a.attempt).cmp(&(&b.event, b.attempt)));
    let gaps: Vec<Duration> = recent
        .iter()
        .zip(recent.iter().skip(1))
        .filter(|(before, after)| before.event == after.event)
        .map(|(before, after)| Duration::from_millis(after.at.saturating_sub(before.at)))
        .collect();
    want_between(&mut findings, "gap", &gaps, (1.0, 1.1 + context.slack()));
    findings.tell("second attempt after 10 s (scaled by 0.1)");
    want_probation(&mut findings, &stage, "worse", ("SocketError", 30.0 * 0.1)).await?;
    drop((door, second));
    findings.join(stage.audit().await?);
    Ok(findings)
}

/// An endpoint that never completes an answer, with a window of `window` and two attempts for each event.
async fn held(context: &Context, script: Script) -> anyhow::Result<Findings> {
    let ill = context.endpoint(script).await?;
    let mut scene = Scene::new(context).await?;
    scene.limit("delivery_timeout", "3s");
    scene.subscribe("ill", &ill, Retry::quick(2));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_letters(&mut findings, &stage, "ill", FEW, "TimedOut", "MaxDeliveryAttemptsExceeded").await?;
    let held: Vec<Duration> = ill.held().iter().map(|held| held.lasted).collect();
    want_between(&mut findings, "held", &held, (DEADLINE - 0.5, DEADLINE + context.slack()));
    findings.tell(format!("{} attempts ended at the deadline of {DEADLINE} s", held.len()));
    Ok(findings)
}

pub(in crate::chaos) async fn never_answers(context: Context) -> anyhow::Result<Findings> {
    let mut findings = held(&context, scripts::silent()).await?;
    findings.join(shrinking(&context).await?);
    Ok(findings)
}

/// A window that shrinks shows in how many requests a silent endpoint holds once it was silent for a while.
async fn shrinking(context: &Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::silent()).await?;
    let mut scene = Scene::new(context).await?;
    scene.limit("delivery_timeout", "1s");
    scene.subscribe("ill", &ill, Retry::quick(30).living("1h"));
    let stage = scene.open().await?;
    let mut findings = Findings::default();
    let status = stage.status("ill").await?;
    let Some(first) = status.raw.get("window").and_then(serde_json::Value::as_u64) else {
        findings.leave_out("a window that shrinks (no `window` in the status)");
        return Ok(findings);
    };
    stage.publish(100).await?;
    let shrunk = stage
        .until(AMPLE, |all| {
            let window = all.get("ill").and_then(|ill| ill.raw.get("window")?.as_u64());
            window.is_some_and(|window| window <= 1)
        })
        .await?;
    findings.want(shrunk, || format!("the window of {first} did not shrink to 1"));
    findings.tell(format!("the window shrank from {first} to 1"));
    Ok(findings)
}

pub(in crate::chaos) async fn slow_header(context: Context) -> anyhow::Result<Findings> {
    held(&context, scripts::slow_header(Duration::from_millis(200))).await
}

pub(in crate::chaos) async fn endless_body(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::slow_body(200, Duration::from_millis(50))).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_timeout", "20s").limit("delivery_window", "1");
    scene.subscribe("ill", &ill, Retry::quick(2));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_taken_at_once(&mut findings, &stage, "ill", FEW as u64).await?;
    let held: Vec<Duration> = ill.held().iter().map(|held| held.lasted).collect();
    want_between(&mut findings, "held", &held, (0.0, DRAIN + context.slack()));
    findings.want(ill.accepted() == FEW as u64, || {
        format!("{} connections for {FEW} events: one was used again", ill.accepted())
    });
    let longest = held.iter().max().copied().unwrap_or_default();
    findings.tell(format!("delivered at once, connection closed after {:.2} s", longest.as_secs_f64()));
    Ok(findings)
}

pub(in crate::chaos) async fn floods(context: Context) -> anyhow::Result<Findings> {
    let flood = context.endpoint(scripts::ten_gigabytes()).await?;
    let bomb = context.endpoint(scripts::gzip_bomb()).await?;
    let header = context.endpoint(scripts::huge_header()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("flood", &flood, Retry::quick(2));
    scene.subscribe("bomb", &bomb, Retry::quick(2));
    scene.subscribe("header", &header, Retry::quick(2));
    let stage = scene.open().await?;
    // What a first delivery allocates is no growth.
    stage.publish(1).await?;
    stage.rest(AMPLE).await?;
    let before = stage.rss()?;
    let rounds = 8;
    stage.publish(rounds).await?;
    stage.rest(AMPLE).await?;
    let grown = stage.rss()?.saturating_sub(before) / MIB;
    let mut findings = stage.audit().await?;
    let events = rounds as u64 + 1;
    want_taken_at_once(&mut findings, &stage, "flood", events).await?;
    want_taken_at_once(&mut findings, &stage, "bomb", events).await?;
    let letters = rounds + 1;
    want_letters(&mut findings, &stage, "header", letters, "SocketError", "").await?;
    let most = flood.held().iter().map(|held| held.written).max().unwrap_or_default() / MIB;
    // Beyond the cap, what was written lies in the kernel's buffers of both sides.
    findings.want(most < 32, || format!("{most} MiB of a body were taken"));
    findings.want(grown < 48, || format!("the server grew by {grown} MiB"));
    findings.tell(format!("at most {most} MiB left the endpoint, the server grew by {grown} MiB"));
    Ok(findings)
}

pub(in crate::chaos) async fn reset_before_status(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::reset()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(3));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_letters(&mut findings, &stage, "ill", FEW, "SocketError", "MaxDeliveryAttemptsExceeded").await?;
    let hits = ill.hits();
    findings.want(hits.len() == 3 * FEW, || format!("{} requests instead of {}", hits.len(), 3 * FEW));
    let mut ids: Vec<u64> = hits.iter().map(|hit| hit.event).collect();
    ids.sort_unstable();
    ids.dedup();
    findings.want(ids.len() == FEW, || format!("{} ids for {FEW} events", ids.len()));
    findings.tell("3 attempts for each event, all with its id");
    Ok(findings)
}

pub(in crate::chaos) async fn reset_in_body(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::reset_in_body()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.subscribe("ill", &ill, Retry::quick(3));
    let stage = scene.open().await?;
    stage.publish(FEW).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    want_taken_at_once(&mut findings, &stage, "ill", FEW as u64).await?;
    findings.tell(format!("{FEW} delivered on their first attempt"));
    Ok(findings)
}

/// Ends the connection after its first answer, sooner or later, so that the next request may be on its way already.
fn hangs_up() -> Script {
    scripts::with(|request| {
        let answer = Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into());
        let pause = Duration::from_micros(request.chance() % 3_000);
        Act::Play(200, vec![answer, Step::Pause(pause), Step::Close])
    })
}

/// Takes the second request of every connection and ends it without a word.
fn goes_silent() -> Script {
    scripts::with(|request| if request.nth == 2 { Act::Play(0, vec![Step::Close]) } else { Act::Answer(204) })
}

pub(in crate::chaos) async fn stale_connection(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 60;
    let hanging = context.endpoint(hangs_up()).await?;
    let silent = context.endpoint(goes_silent()).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_window", "1");
    scene.subscribe("hangs-up", &hanging, Retry::quick(5));
    scene.subscribe("goes-silent", &silent, Retry::quick(5));
    let stage = scene.open().await?;
    for _ in 0..EVENTS {
        stage.publish(1).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    for name in ["hangs-up", "goes-silent"] {
        let status = stage.status(name).await?;
        findings.want(status.dead_lettered == 0, || format!("{name}: {} given up", status.dead_lettered));
        findings.want(status.failed_attempts == 0, || {
            format!("{name}: {} attempts counted as failed", status.failed_attempts)
        });
    }
    let again = silent.count().saturating_sub(EVENTS);
    findings.tell(format!("{EVENTS} delivered to each, {again} requests sent once more, none counted"));
    Ok(findings)
}
