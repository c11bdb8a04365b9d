//! Row 33: the wall clock is set while retries wait.

use std::time::Duration;

use super::AMPLE;
use crate::chaos::manifest::Retry;
use crate::chaos::outcome::Findings;
use crate::chaos::scene::{Context, Scene};
use crate::chaos::tools;
use crate::endpoint::scripts;

/// Where distributions put the library that shows another time to a process.
const LIBRARY: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

pub(in crate::chaos) async fn steps(context: Context) -> anyhow::Result<Findings> {
    const EVENTS: usize = 5;
    /// The first retry comes after two seconds.
    const SCALE: f64 = 0.2;
    let library = tools::needs_file(&LIBRARY, "libfaketime")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("time");
    std::fs::write(&file, "+0\n")?;
    let ill = context.endpoint(scripts::always(500)).await?;
    let mut scene = Scene::new(&context).await?;
    for (name, value) in [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        // Only what is set by hand is shown differently, as on a real machine.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        scene.environment.push((name.to_owned(), value.to_owned()));
    }
    scene.subscribe("ill", &ill, Retry::quick(30).scaled(SCALE));
    let stage = scene.open().await?;
    stage.publish(EVENTS).await?;
    let waits = |attempts: u64| {
        let stage = &stage;
        async move {
            stage.until(AMPLE, |all| all.get("ill").is_some_and(|ill| ill.failed_attempts >= attempts)).await
        }
    };
    let mut findings = Findings::default();
    findings.want(waits(EVENTS as u64).await?, || "the events were not tried".to_owned());
    for offset in ["+1h", "-1h", "+0.5", "+0"] {
        std::fs::write(&file, format!("{offset}\n"))?;
        stage.until(Duration::from_secs(1), |_| false).await?;
    }
    // No attempt came before its step, though the wall clock said that it was due.
    let early = ill.count().saturating_sub(2 * EVENTS);
    findings.want(early == 0, || format!("{early} attempts before their step"));
    ill.set(scripts::well());
    stage.rest(AMPLE).await?;
    findings.join(stage.audit().await?);
    findings.tell("clock set by +1 h, −1 h and back: no storm, all delivered at their steps");
    Ok(findings)
}
