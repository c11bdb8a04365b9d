//! The rows of the catalogue, by what they trouble; here what several of them share.

pub(super) mod answers;
pub(super) mod batches;
pub(super) mod changes;
pub(super) mod clocks;
pub(super) mod crashes;
pub(super) mod crowds;
pub(super) mod disks;
pub(super) mod handshakes;
pub(super) mod names;
pub(super) mod publishing;
pub(super) mod pull;
pub(super) mod recovery;
pub(super) mod schedules;
pub(super) mod sockets;
pub(super) mod storms;
pub(super) mod tls;

use std::time::Duration;

use super::outcome::Findings;
use super::stage::Stage;

/// Long enough for anything that must happen, also on a busy machine.
pub(super) const AMPLE: Duration = Duration::from_secs(60);
/// Events of a row that are to fail. Few enough that ten failures in a row, which open a breaker, are not reached
/// where that is not what the row is about.
pub(super) const FEW: usize = 3;

/// Wants so many dead letters of a subscription, with this last outcome and, unless it is empty, this reason.
pub(super) async fn want_letters(
    findings: &mut Findings,
    stage: &Stage,
    name: &str,
    count: usize,
    outcome: &str,
    reason: &str,
) -> anyhow::Result<()> {
    let letters = stage.letters(name).await?;
    let fits = |letter: &&super::status::Letter| {
        letter.last_outcome == outcome && (reason.is_empty() || letter.reason == reason)
    };
    let right = letters.iter().filter(fits).count();
    findings.want(letters.len() == count && right == count, || {
        let other = letters.iter().find(|letter| !fits(letter));
        let other = other.map_or(String::new(), |letter| {
            format!(", one {} after {} ({})", letter.reason, letter.last_outcome, letter.detail)
        });
        format!("{name}: {right} dead letters {outcome} {reason} instead of {count}{other}")
    });
    Ok(())
}

/// The partition of the documents that put an endpoint on probation.
pub(super) const PROBATION: u32 = 9;

/// Publishes more events than an endpoint may fail in a row, and wants that it is left alone for so many seconds, for
/// this reason. The subscription wants the partition [`PROBATION`].
pub(super) async fn want_probation(
    findings: &mut Findings,
    stage: &Stage,
    name: &str,
    (outcome, seconds): (&str, f64),
) -> anyhow::Result<()> {
    /// Attempts that were under way when it was decided end a little later.
    const EARLIER: f64 = 1.0;
    if stage.status(name).await?.breaker().is_none() {
        findings.leave_out("probation (no `breaker` in the status)");
        return Ok(());
    }
    let mut line = stage.gateway()?.line();
    for _ in 0..12 {
        stage.publish_on(&mut line, PROBATION).await?;
    }
    let give_up = stage.now().plus(AMPLE);
    while stage.now() < give_up {
        let status = stage.status(name).await?;
        let Some(opened) = status.opened() else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let newest = status.recent.iter().map(|recent| recent.at).max().unwrap_or_default();
        let long = Duration::from_millis(opened.until.saturating_sub(newest)).as_secs_f64();
        findings.want(opened.reason == outcome, || format!("{name}: on probation for {}", opened.reason));
        findings.want(long >= seconds - EARLIER && long <= seconds + 0.01, || {
            format!("{name}: left alone for {long:.2} s instead of {seconds:.2} s")
        });
        findings.tell(format!("on probation for {outcome}"));
        return Ok(());
    }
    findings.fault(format!("{name}: 12 events failed, and there is no probation"));
    Ok(())
}

/// Wants that a subscription took so many events, each on its first attempt and without a failed one.
pub(super) async fn want_taken_at_once(
    findings: &mut Findings,
    stage: &Stage,
    name: &str,
    count: u64,
) -> anyhow::Result<()> {
    let status = stage.status(name).await?;
    findings.want(status.delivered == count && status.failed_attempts == 0, || {
        let detail = status.recent.first().map_or("", |recent| recent.detail.as_str());
        format!(
            "{name}: {} of {count} delivered, {} failed attempts ({detail})",
            status.delivered, status.failed_attempts
        )
    });
    let hits = stage.endpoint(name)?.hits();
    let late = hits.iter().filter(|hit| hit.attempt != 1).count();
    findings.want(late == 0, || format!("{name}: {late} attempts after the first"));
    Ok(())
}

/// Wants each value between two bounds, in seconds.
pub(super) fn want_between(
    findings: &mut Findings,
    what: &str,
    values: &[Duration],
    (least, most): (f64, f64),
) {
    let seconds: Vec<f64> = values.iter().map(Duration::as_secs_f64).collect();
    let (low, high) = seconds.iter().fold((f64::MAX, 0.0_f64), |(low, high), s| (low.min(*s), high.max(*s)));
    let fits = !seconds.is_empty() && low >= least - 0.002 && high <= most;
    findings.want(fits, || {
        if seconds.is_empty() {
            return format!("{what}: never");
        }
        format!("{what}: {low:.3} to {high:.3} s instead of {least:.3} to {most:.3} s")
    });
}
