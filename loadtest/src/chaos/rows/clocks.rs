//! Row 33: the wall clock is set while retries wait.

use std::time::Duration;

use super::{AMPLE, want_between};
use crate::chaos::ledger::gaps;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::{Findings, Skip};
use crate::chaos::scene::{Context, Scene};
use crate::chaos::stage::Stage;
use crate::chaos::tools;
use crate::endpoint::scripts;

/// Where distributions put the library that shows another time to a process.
const LIBRARY: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// By how much the clock is set, as the library writes it, and in milliseconds.
const STEPS: [(&str, i64); 4] =
    [("+1h", 3_600_000), ("-1h", -3_600_000), ("+1d", 86_400_000), ("-1d", -86_400_000)];
/// The second attempt comes after two seconds.
const SCALE: f64 = 0.2;
const STEP: f64 = 10.0 * SCALE;

pub(in crate::chaos) async fn steps(context: Context) -> anyhow::Result<Findings> {
    let library = tools::needs_file(&LIBRARY, "libfaketime")?;
    let mut findings = Findings::default();
    for step in STEPS {
        findings.join(set(&context, library, step).await?);
    }
    findings.tell("clock set by ±1 h and ±1 d: second attempts at their step, none lost");
    Ok(findings)
}

/// Sets the clock while a second attempt waits.
async fn set(context: &Context, library: &str, (offset, millis): (&str, i64)) -> anyhow::Result<Findings> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("time");
    std::fs::write(&file, "+0\n")?;
    let ill = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(context).await?;
    for (name, value) in [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        // Only what is set by hand is shown differently, as on a real machine.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        scene.environment.push((name.to_owned(), value.to_owned()));
    }
    scene.subscribe("ill", &ill, Retry::quick(2).scaled(SCALE));
    let stage = scene.open().await?;
    stage.publish(1).await?;
    let tried = |attempts: u64| {
        let stage = &stage;
        async move {
            stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.failed_attempts >= attempts)).await
        }
    };
    let mut findings = Findings::default();
    findings.want(tried(1).await?, || "the event was not tried".to_owned());
    let before = newest(&stage).await?;
    std::fs::write(&file, format!("{offset}\n"))?;
    // Another event makes the subscription look at the clock.
    stage.publish(1).await?;
    findings.want(tried(2).await?, || "the second event was not tried".to_owned());
    let moved = newest(&stage).await?.saturating_sub_unsigned(before.unsigned_abs());
    if (moved - millis).abs() > millis.abs() / 2 {
        return Err(Skip("libfaketime does not change what the server sees".to_owned()).into());
    }
    let given_up =
        stage.until(Duration::from_secs(20), |all| all.get("ill").is_some_and(|ill| ill.is_at_rest()));
    findings.want(given_up.await?, || format!("{offset}: no second attempt within 20 s"));
    let gaps: Vec<Duration> = gaps(&ill.hits()).into_iter().map(|(_, gap)| gap).collect();
    // A second may be missing at either side (the schedule's own tolerance).
    want_between(&mut findings, offset, &gaps, (STEP - 1.0, STEP * 1.1 + 1.0 + context.slack()));
    ill.set(scripts::well());
    stage.publish(1).await?;
    stage.rest(AMPLE).await?;
    let lost = stage.balance_of("ill").await?;
    lost.faults
        .into_iter()
        .filter(|fault| !fault.contains("before their step"))
        .for_each(|fault| findings.fault(fault));
    Ok(findings)
}

/// When the newest attempt was made, as the server saw it.
async fn newest(stage: &Stage) -> anyhow::Result<i64> {
    let status = stage.status("ill").await?;
    let newest = status.recent.first().map_or(0, |recent| recent.at);
    Ok(i64::try_from(newest).unwrap_or(i64::MAX))
}
