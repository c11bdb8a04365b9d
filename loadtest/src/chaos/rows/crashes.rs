//! Rows 29 to 31: the server is killed, and nothing that it acknowledged may be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::AMPLE;
use crate::api::Api;
use crate::chaos::book::{Book, Fate};
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, SUBJECT, Scene};
use crate::chaos::stage::publish;
use crate::endpoint::{Act, scripts};

/// `limits.delivery_window` of these rows.
const WINDOW: usize = 64;
/// How often a count is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(in crate::chaos) async fn fan_out(context: Context) -> anyhow::Result<Findings> {
    const SUBSCRIPTIONS: usize = 1_000;
    /// How far the fan-out has come when the server is killed.
    const REACHED: usize = 300;
    let all = context.endpoint(scripts::with(|_| Act::Late(Duration::from_millis(30), 204))).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_connections", "64").limit("delivery_window", &WINDOW.to_string());
    for number in 1..=SUBSCRIPTIONS {
        scene.subscribe(&format!("s{number}"), &all, Retry::quick(30));
    }
    let mut stage = scene.open().await?;
    stage.publish(1).await?;
    let give_up = stage.now().plus(AMPLE);
    while all.count() < REACHED && stage.now() < give_up {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let before = all.count();
    stage.kill().await?;
    stage.start().await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    let mut received: HashMap<u32, u32> = HashMap::new();
    for hit in all.hits() {
        *received.entry(hit.subscriber).or_default() += 1;
    }
    let twice = received.values().filter(|count| **count == 2).count();
    let more = received.values().filter(|count| **count > 2).count();
    findings.want(received.len() == SUBSCRIPTIONS, || {
        format!("{} of {SUBSCRIPTIONS} received it", received.len())
    });
    findings.want(more == 0, || format!("{more} received it more than twice"));
    findings.want((REACHED..SUBSCRIPTIONS).contains(&before), || format!("killed after {before}, not amid"));
    findings.tell(format!("killed after {before} of {SUBSCRIPTIONS}; all received it, {twice} twice"));
    Ok(findings)
}

pub(in crate::chaos) async fn after_the_answer(context: Context) -> anyhow::Result<Findings> {
    let ill = context.endpoint(scripts::well()).await?;
    let mut scene = Scene::new(&context).await?;
    // Nothing else may take the outcome to the disk before the kill.
    scene.limit("progress_delay", "30s");
    scene.subscribe("ill", &ill, Retry::quick(30));
    let mut stage = scene.open().await?;
    stage.publish(1).await?;
    let give_up = stage.now().plus(AMPLE);
    while stage.status("ill").await?.delivered == 0 && stage.now() < give_up {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    stage.kill().await?;
    stage.manifest.limits.remove("progress_delay");
    stage.start().await?;
    stage.until(AMPLE, |all| all.values().all(|status| status.is_at_rest() && status.delivered > 0)).await?;
    stage.rest(AMPLE).await?;
    let mut findings = stage.audit().await?;
    let hits = ill.hits();
    findings.want(hits.len() == 2, || format!("received {} times instead of twice", hits.len()));
    let same = hits.windows(2).all(|pair| match pair {
        [first, second] => first.event == second.event && first.attempt == second.attempt,
        _ => false,
    });
    findings.want(same, || "the duplicate has another id or attempt".to_owned());
    findings.tell("received twice, same id and attempt");
    Ok(findings)
}

pub(in crate::chaos) async fn fifty(context: Context) -> anyhow::Result<Findings> {
    const KILLS: u32 = 50;
    const WRITERS: u32 = 6;
    let healthy = context.endpoint(scripts::well()).await?;
    let slow = context
        .endpoint(scripts::with(|request| Act::Late(Duration::from_millis(request.chance() % 40), 200)));
    let slow = slow.await?;
    let flaky = scripts::with(|request| Act::Answer(if request.chance() % 10 < 3 { 500 } else { 204 }));
    let flaky = context.endpoint(flaky).await?;
    let broken = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    scene.limit("delivery_window", &WINDOW.to_string());
    let retry = |attempts| Retry::quick(attempts).scaled(0.001);
    scene.subscribe("healthy", &healthy, retry(30));
    scene.subscribe("slow", &slow, retry(30));
    scene.subscribe("flaky", &flaky, retry(30));
    // On probation it would not get through what is posted to it in time.
    scene.subscribe("broken", &broken, retry(3).relentless());
    let mut stage = scene.open().await?;
    let (here, server) = watch::channel(Some(stage.gateway()?));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(Arc::clone(&stage.book), server.clone()));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..500))).await;
        here.send_replace(None);
        stage.kill().await?;
        slowest = slowest.max(stage.start().await?);
        here.send_replace(Some(stage.gateway()?));
    }
    drop(here);
    while writers.join_next().await.is_some() {}
    stage.rest(AMPLE * 2).await?;
    let mut findings = stage.audit().await?;
    let mut duplicates = 0;
    for name in ["healthy", "slow", "flaky"] {
        let twice = stage.balance_of(name).await?.duplicates;
        let most = WINDOW * KILLS as usize;
        findings.want(twice <= most, || format!("{name}: {twice} duplicates, more than {most}"));
        duplicates = duplicates.max(twice);
    }
    let entries = stage.book.entries();
    let acknowledged = entries.iter().filter(|entry| entry.fate == Fate::Acknowledged).count();
    findings.want(acknowledged > 500, || format!("only {acknowledged} documents were acknowledged"));
    findings.tell(format!(
        "{acknowledged} acknowledged of {} sent, {KILLS} kills, none lost; at most {duplicates} duplicates, ready after {} ms at most",
        entries.len(),
        slowest.as_millis(),
    ));
    Ok(findings)
}

/// Publishes to whatever server there is, until there will be none.
async fn write(book: Arc<Book>, mut server: watch::Receiver<Option<Api>>) {
    loop {
        let Ok(api) = server.wait_for(Option::is_some).await.map(|api| api.clone()) else { return };
        let Some(api) = api else { continue };
        let mut line = api.line();
        // A connection that breaks leaves its document unknown; the next server gets the next one.
        while server.has_changed().is_ok() && publish(&book, &mut line, SUBJECT).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..15))).await;
        }
        if server.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
