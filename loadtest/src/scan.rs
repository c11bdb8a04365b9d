//! The verb `scan`: point reads at a fixed rate, in turn with and without a full scan of one large partition beside them.
//! Says how much the scan moves the p99 of the reads, which are of other partitions.
//! Invariant: the reads of both kinds of turn are the same schedule; only what runs beside them differs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client::Load;
use crate::clock::Clock;
use crate::document::Template;
use crate::process::Machine;
use crate::report::{Latency, thousands};
use crate::schedule::{Plan, Spacing};
use crate::server::{self, Launch, Server};
use crate::steady::fill;
use crate::tally::Window;
use crate::target::Target;
use crate::units;
use crate::verdict::Verdict;
use crate::wire::{self, Connection};

/// The partition that is scanned; the reads are of others.
const LANE: &str = "scanned";
/// Documents in one request while the partition is filled: the server's own limit.
const BULK: u64 = 100;
/// Connections that fill it.
const FILLERS: u64 = 8;
/// Time for one read.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for the partitions of the reads to be made, and for late answers.
const SETTLE: Duration = Duration::from_secs(60);
/// Time between the start of a turn and its first read.
const HEAD_START: Duration = Duration::from_millis(50);

/// What a full scan of one large partition does to point reads of the others.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Documents in the partition that is scanned
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) documents: u64,
    /// Size of each of them
    #[arg(long, default_value = "200B", value_parser = units::size)]
    pub(crate) body: usize,
    /// Point reads per second
    #[arg(long, default_value = "2000", value_parser = units::rate)]
    pub(crate) rate: f64,
    /// Partitions that are read, one document of 1 KB in each
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) partitions: u32,
    /// Connections of the reads
    #[arg(long, default_value_t = 16)]
    pub(crate) connections: u16,
    /// Scans at the same time
    #[arg(long, default_value_t = 1)]
    pub(crate) scans: u16,
    /// Turns without and with the scan
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: u16,
    /// Length of a turn
    #[arg(long, default_value = "5s", value_parser = units::duration)]
    pub(crate) duration: Duration,
    /// Fail when the p99 with the scan is more than so many times the one without
    #[arg(long, default_value_t = 1.5)]
    pub(crate) at_most: f64,
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// Its data directory [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// One turn of reads.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Turn {
    scanning: bool,
    reads: Latency,
    /// Pages of the scan that were answered meanwhile.
    pages: u64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    documents: u64,
    rate_per_second: f64,
    turns: Vec<Turn>,
    /// Medians over the turns.
    p99_without_ms: f64,
    p99_with_ms: f64,
    ratio: f64,
    /// Full scans that ended in the measured time.
    scans: u64,
    errors: u64,
    pub(crate) verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let documents = thousands(self.documents);
        writeln!(f, "{:.0} point reads/s beside a scan of a partition of {documents}", self.rate_per_second)?;
        writeln!(f, "    scan     reads    p50 ms    p99 ms  p99.9 ms    max ms     pages")?;
        for Turn { scanning, reads, pages } in &self.turns {
            let word = if *scanning { "with" } else { "without" };
            writeln!(
                f,
                "{word:>8} {:>9} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {pages:>9}",
                reads.count, reads.p50_ms, reads.p99_ms, reads.p999_ms, reads.max_ms,
            )?;
        }
        writeln!(
            f,
            "p99, median of the turns: {:.3} ms without, {:.3} ms with, {} whole scans",
            self.p99_without_ms, self.p99_with_ms, self.scans
        )
    }
}

/// Runs the verb against a server of its own.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<Report> {
    let binary = server::binary(options.server.clone())?;
    let manifest = server::manifest(0, ([127, 0, 0, 1], 9).into(), "");
    let key = server::fresh_key();
    let launch = Launch {
        binary,
        manifests: vec![manifest],
        data: options.data.clone(),
        key: key.clone(),
        ..Launch::default()
    };
    let server = Server::start(launch, clock).await?;
    let target = Target::new(&server.gateway, &key, false).await?;
    fill_scanned(&target, &options).await?;
    let template = Template::new(fastrand::u32(..), 1_000);
    let load = Arc::new(Load::new(target.clone(), template, DEADLINE, clock)?);
    let connections = usize::from(options.connections.max(1));
    fill(&load, options.partitions, connections, SETTLE, clock).await?;
    let scan = Arc::new(Scan::default());
    let mut turns = Vec::new();
    // The first turn warms both sides up, and is not shown.
    turn(&load, &options, &scan, (false, connections), clock).await?;
    for _ in 0..options.rounds {
        turns.push(turn(&load, &options, &scan, (false, connections), clock).await?);
        turns.push(scanned(&target, &load, &options, &scan, (connections, clock)).await?);
    }
    let status = server.stop().await?;
    let errors = load.tally(|tally| tally.errors());
    Ok(report(&options, turns, &scan, errors, status.is_some_and(|status| status.success())))
}

/// How far the scans have come.
#[derive(Debug, Default)]
struct Scan {
    stop: AtomicBool,
    pages: AtomicU64,
    whole: AtomicU64,
}

/// A turn of reads by themselves.
async fn turn(
    load: &Arc<Load>,
    options: &Options,
    scan: &Scan,
    (scanning, connections): (bool, usize),
    clock: Clock,
) -> anyhow::Result<Turn> {
    let plan = Plan {
        rate: options.rate,
        length: options.duration,
        spacing: Spacing::Poisson,
        reads: 1.0,
        partitions: options.partitions,
        first_number: 0,
        // The same in every turn.
        seed: 1,
    };
    let origin = clock.now().plus(HEAD_START);
    let window = Window { from: origin, to: origin.plus(options.duration) };
    load.tally(|tally| {
        tally.window = window;
        tally.reads.reset();
    });
    let before = scan.pages.load(Ordering::Relaxed);
    load.play(plan.arrivals(), origin, window.to.plus(SETTLE), connections).await?;
    let pages = scan.pages.load(Ordering::Relaxed) - before;
    Ok(Turn { scanning, reads: load.tally(|tally| Latency::of(&tally.reads)), pages })
}

/// A turn of reads beside scans.
async fn scanned(
    target: &Target,
    load: &Arc<Load>,
    options: &Options,
    scan: &Arc<Scan>,
    (connections, clock): (usize, Clock),
) -> anyhow::Result<Turn> {
    scan.stop.store(false, Ordering::Relaxed);
    let mut tasks = JoinSet::new();
    for _ in 0..options.scans {
        let (target, scan) = (target.clone(), Arc::clone(scan));
        tasks.spawn(async move { go_through(&target, &scan).await });
    }
    let turn = turn(load, options, scan, (true, connections), clock).await;
    scan.stop.store(true, Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    turn
}

/// Scans the partition, again and again, until it is told to stop.
async fn go_through(target: &Target, scan: &Scan) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let first = wire::head(target, "GET", &format!("/freight/v1/scans/{LANE}"), None);
    let mut continuation: Option<String> = None;
    while !scan.stop.load(Ordering::Relaxed) {
        let mut request = first.clone();
        if let Some(token) = &continuation {
            request.truncate(request.len() - b"\r\n".len());
            request.extend_from_slice(format!("x-continuation: {token}\r\n\r\n").as_bytes());
        }
        let status = connection.ask(&request).await?;
        if status != 200 {
            bail!("a page of the scan was answered with {status}");
        }
        scan.pages.fetch_add(1, Ordering::Relaxed);
        continuation = connection.header("x-continuation").map(str::to_owned);
        if continuation.is_none() {
            scan.whole.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Fills the partition that is scanned.
async fn fill_scanned(target: &Target, options: &Options) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for first in 0..FILLERS {
        let (target, options) = (target.clone(), options.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let text = "x".repeat(options.body);
            for from in (first * BULK..options.documents).step_by((FILLERS * BULK) as usize) {
                let body = bulk(from..options.documents.min(from + BULK), &text);
                let mut request = wire::head(&target, "POST", "/freight/v1/bulk", Some(body.len()));
                request.extend_from_slice(body.as_bytes());
                let status = connection.ask(&request).await?;
                let made =
                    String::from_utf8_lossy(connection.body()).matches("{\"status\":201").count() as u64;
                if status != 200 || made != options.documents.min(from + BULK) - from {
                    bail!("the partition could not be filled: {status}, {made} documents of a bulk");
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

fn bulk(numbers: std::ops::Range<u64>, text: &str) -> String {
    let create = |number| {
        format!(
            r#"{{"op":"create","document":{{"id":"s{number:09}","lane":"{LANE}","n":{number},"text":"{text}"}}}}"#
        )
    };
    format!(r#"{{"operations":[{}]}}"#, numbers.map(create).collect::<Vec<_>>().join(","))
}

fn report(options: &Options, turns: Vec<Turn>, scan: &Scan, errors: u64, drained: bool) -> Report {
    let median = |scanning| {
        let mut all: Vec<f64> =
            turns.iter().filter(|turn| turn.scanning == scanning).map(|turn| turn.reads.p99_ms).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let (p99_without_ms, p99_with_ms) = (median(false), median(true));
    let ratio = if p99_without_ms > 0.0 { p99_with_ms / p99_without_ms } else { f64::INFINITY };
    let mut reasons = Vec::new();
    if errors > 0 {
        reasons.push(format!("{errors} reads failed"));
    }
    if turns.iter().any(|turn| turn.scanning && turn.pages == 0) {
        reasons.push("a turn saw no page of the scan".to_owned());
    }
    if !drained {
        reasons.push("the server did not drain".to_owned());
    }
    if ratio > options.at_most {
        reasons.push(format!("p99 {ratio:.2} times with the scan (limit {})", options.at_most));
    }
    let figures = format!("p99 {ratio:.2} times with the scan ({p99_without_ms:.3} to {p99_with_ms:.3} ms)");
    Report {
        machine: Machine::here(),
        documents: options.documents,
        rate_per_second: options.rate,
        p99_without_ms,
        p99_with_ms,
        ratio,
        scans: scan.whole.load(Ordering::Relaxed),
        errors,
        verdict: Verdict::of("scan", &reasons, figures),
        turns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(scanning: bool, p99_ms: f64, pages: u64) -> Turn {
        let reads = Latency { count: 9, p50_ms: 0.1, p95_ms: 0.2, p99_ms, p999_ms: 9.0, max_ms: 9.0 };
        Turn { scanning, reads, pages }
    }

    fn of(turns: Vec<Turn>, errors: u64) -> Report {
        let options = Options {
            documents: 10,
            body: 10,
            rate: 1.0,
            partitions: 1,
            connections: 1,
            scans: 1,
            rounds: 1,
            duration: Duration::from_secs(1),
            at_most: 1.5,
            server: None,
            data: None,
        };
        report(&options, turns, &Scan::default(), errors, true)
    }

    #[test]
    fn the_verdict_is_on_the_medians_of_the_turns() {
        let good = vec![
            turn(false, 1.0, 0),
            turn(true, 1.4, 5),
            turn(false, 9.0, 0),
            turn(true, 9.0, 5),
            turn(false, 1.0, 0),
            turn(true, 1.3, 5),
        ];
        let report = of(good, 0);
        assert!(report.verdict.passed(), "{}", report.verdict);
        assert!((report.ratio - 1.4).abs() < 1e-9);
        assert!(!of(vec![turn(false, 1.0, 0), turn(true, 1.6, 5)], 0).verdict.passed());
    }

    #[test]
    fn a_run_without_a_scan_or_with_errors_proves_nothing() {
        assert!(!of(vec![turn(false, 1.0, 0), turn(true, 1.0, 0)], 0).verdict.passed());
        assert!(!of(vec![turn(false, 1.0, 0), turn(true, 1.0, 5)], 1).verdict.passed());
        assert!(!of(vec![], 0).verdict.passed());
    }

    #[test]
    fn a_bulk_is_json_with_a_document_for_each_number() {
        let value: serde_json::Value = serde_json::from_str(&bulk(5..8, "x")).unwrap();
        let operations = value["operations"].as_array().unwrap();
        assert_eq!(operations.len(), 3);
        assert_eq!(operations[2]["document"]["n"], 7);
    }
}
