//! Stands between the verb `idle` and a server that has nothing to do: how soon it is ready, and what it costs to keep.
//! Invariant: idleness is measured only after every event was delivered and the partitions had the time to fall asleep.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::client::{Load, fetch};
use crate::clock::Clock;
use crate::document::Template;
use crate::process::{Machine, Reading, Subject, Use};
use crate::report::{millis, uses};
use crate::server::{self, Launch, Server};
use crate::sink::Sink;
use crate::steady::{fill, settle};
use crate::target::Target;
use crate::units;
use crate::verdict::Verdict;

/// Median time to ready must be under this, in milliseconds.
const READY_MS: f64 = 100.0;
/// CPU while idle must be under this, as a percentage of a core.
const CPU_PERCENT: f64 = 0.5;
/// Resident memory while idle must be under this, in bytes.
const RSS_BYTES: u64 = 50_000_000;
/// After how long without a request a partition falls asleep, in the manifest of this verb.
const PARTITION_IDLE: Duration = Duration::from_secs(2);
/// The metric that counts partitions awake. A server without it is given quiet time instead.
const AWAKE_METRIC: &str = "lanekeeper_partitions_awake";
/// A second with less CPU than this counts as quiet: two ticks of the kernel's account.
const QUIET: Duration = Duration::from_millis(20);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 16;
const BODY_BYTES: usize = 1000;

/// How soon a server is ready, and what it costs while nothing happens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// Starts on an empty data directory; the last one is kept for the rest
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) starts: u8,
    /// Partitions that are woken once and then sleep
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) partitions: u32,
    /// Event subscriptions with a webhook
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) subscribers: u16,
    /// Measured time of idleness
    #[arg(long, default_value = "20s", value_parser = units::duration)]
    pub(crate) duration: Duration,
    /// How long deliveries and partitions may take to come to rest
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    pub(crate) settle: Duration,
    /// Leave the temporary directories with manifest, log and data
    #[arg(long)]
    pub(crate) keep: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// From just before the process was spawned to when its ready line was read, for each start.
    pub(crate) ready_ms: Vec<f64>,
    pub(crate) ready_min_ms: f64,
    pub(crate) ready_median_ms: f64,
    /// Resident memory of the last start, at its ready line.
    pub(crate) ready_rss_bytes: u64,
    pub(crate) partitions: u32,
    /// Partitions that could not be woken, because their create failed.
    pub(crate) errors: u64,
    /// Deliveries that did not come before idleness was measured.
    pub(crate) missing: u64,
    /// What is known of the partitions when measuring began.
    pub(crate) rest: Rest,
    pub(crate) idle_seconds: f64,
    pub(crate) idle: Use,
    pub(crate) verdict: Verdict,
}

/// Whether the server had come to rest when it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rest {
    /// Its metrics say that no partition is awake.
    Asleep,
    /// Its metrics do not tell; it used no CPU worth measuring for a second.
    Quiet,
    /// Neither, in the time that was given.
    Restless,
}

/// Runs the verb.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<Report> {
    let run = fastrand::u32(..);
    let subscribers = usize::from(options.subscribers);
    let binary = server::binary(options.server.clone())?;
    let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), subscribers, run, clock).await?;
    let limits = format!("limits: {{ partition_idle: {}s }}", PARTITION_IDLE.as_secs());
    let manifest = server::manifest(subscribers, sink.address(), &limits);
    let key = server::fresh_key();
    let launch = || Launch {
        binary: binary.clone(),
        manifests: vec![manifest.clone()],
        data: None,
        keep: options.keep,
        key: key.clone(),
        ..Launch::default()
    };
    let mut ready = Vec::new();
    for _ in 1..options.starts {
        let server = Server::start(launch(), clock).await?;
        ready.push(server.ready_after);
        server.stop().await?;
    }
    let server = Server::start(launch(), clock).await?;
    ready.push(server.ready_after);
    let subject = Subject::Other(server.pid());
    let at_ready = Reading::of(subject).context("the server's process cannot be read")?;

    let target = Target::new(&server.gateway, &key, false).await?;
    let load = Arc::new(Load::new(target, Template::new(run, BODY_BYTES), REQUEST_DEADLINE, clock)?);
    fill(&load, options.partitions, CONNECTIONS, options.settle, clock).await?;
    settle(&sink, &load.acknowledged(), options.settle, clock).await;
    let admin = Target::new(&server.admin, &key, false).await?;
    let rest = come_to_rest(&admin, subject, options.settle, clock).await;
    let (before, from) = (Reading::of(subject), clock.now());
    tokio::time::sleep(options.duration).await;
    let (after, wall) = (Reading::of(subject), clock.now().since(from));
    let idle = before.zip(after).map(|(before, after)| after.since(&before, wall));
    let idle = idle.context("the server ended while it was idle")?;

    let acknowledged = load.acknowledged();
    let ready_ms: Vec<f64> = ready.iter().copied().map(millis).collect();
    let mut report = Report {
        machine: Machine::here(),
        ready_min_ms: ready_ms.iter().copied().fold(f64::INFINITY, f64::min),
        ready_median_ms: median(&ready_ms),
        ready_ms,
        ready_rss_bytes: at_ready.rss,
        partitions: options.partitions,
        errors: u64::from(options.partitions).saturating_sub(acknowledged.len() as u64),
        missing: sink.missing(&acknowledged).iter().sum(),
        rest,
        idle_seconds: wall.as_secs_f64(),
        idle,
        verdict: Verdict::pass("idle", String::new()),
    };
    report.verdict = verdict(&report);
    server.stop().await?;
    Ok(report)
}

/// Waits until the partitions had the time to fall asleep, and then until the server says or shows that they did.
async fn come_to_rest(admin: &Target, subject: Subject, limit: Duration, clock: Clock) -> Rest {
    let give_up = clock.now().plus(limit);
    clock.wait_until(clock.now().plus(2 * PARTITION_IDLE)).await;
    let cpu = || Reading::of(subject).map(|reading| reading.cpu);
    let mut before = cpu();
    while clock.now() < give_up {
        clock.wait_until(clock.now().plus(LOOK_EVERY)).await;
        let now = cpu();
        let used = now.zip(before).map(|(now, before)| now.saturating_sub(before));
        let metrics = fetch(admin, "/metrics", REQUEST_DEADLINE).await.unwrap_or_default();
        match awake_partitions(&String::from_utf8_lossy(&metrics)) {
            Some(awake) if awake < 1.0 => return Rest::Asleep,
            Some(_) => (),
            None if used.is_some_and(|used| used < QUIET) => return Rest::Quiet,
            None => (),
        }
        before = cpu();
    }
    Rest::Restless
}

/// The sum of the samples of [`AWAKE_METRIC`] in a page of metrics; `None` when it has none.
fn awake_partitions(metrics: &str) -> Option<f64> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(AWAKE_METRIC)?;
        let value = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
        // A longer metric name leaves something here that is not a number.
        value.split_whitespace().next()?.parse::<f64>().ok()
    });
    samples.fold(None, |sum, sample| Some(sum.unwrap_or(0.0) + sample))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len().is_multiple_of(2) {
        at(middle.saturating_sub(1)).midpoint(at(middle))
    } else {
        at(middle)
    }
}

fn verdict(report: &Report) -> Verdict {
    let (ready, idle) = (report.ready_median_ms, &report.idle);
    let rss_mb = idle.rss_bytes as f64 / 1e6;
    let mut reasons = Vec::new();
    if report.errors > 0 {
        reasons.push(format!("{} partitions could not be woken", report.errors));
    }
    if report.missing > 0 {
        reasons.push(format!("{} deliveries missing", report.missing));
    }
    if report.rest == Rest::Restless {
        reasons.push("the server did not come to rest".to_owned());
    }
    // Written so that a figure which is not a number fails.
    if !matches!(ready.partial_cmp(&READY_MS), Some(std::cmp::Ordering::Less)) {
        reasons.push(format!("ready after {ready:.0} ms (limit {READY_MS} ms)"));
    }
    if idle.cpu_percent_of_a_core >= CPU_PERCENT {
        reasons.push(format!(
            "{:.2} % of a core while idle (limit {CPU_PERCENT} %)",
            idle.cpu_percent_of_a_core
        ));
    }
    if idle.rss_bytes >= RSS_BYTES {
        reasons.push(format!("{rss_mb:.1} MB resident (limit {} MB)", RSS_BYTES as f64 / 1e6));
    }
    let figures = format!(
        "ready after {ready:.0} ms, {:.2} % of a core, {rss_mb:.1} MB with {} partitions asleep",
        idle.cpu_percent_of_a_core, report.partitions,
    );
    Verdict::of("idle", &reasons, figures)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rest = match self.rest {
            Rest::Asleep => "all asleep, as the metrics say",
            Rest::Quiet => "the metrics do not tell; quiet for a second",
            Rest::Restless => "not at rest",
        };
        let each: Vec<String> = self.ready_ms.iter().map(|ms| format!("{ms:.1}")).collect();
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "ready after  min {:.1} ms, median {:.1} ms ({} starts on an empty directory: {})",
            self.ready_min_ms,
            self.ready_median_ms,
            self.ready_ms.len(),
            each.join(", "),
        )?;
        writeln!(f, "RSS at ready {:.1} MB", self.ready_rss_bytes as f64 / 1e6)?;
        writeln!(f, "partitions   {} woken, {} failed; {rest}", self.partitions, self.errors)?;
        writeln!(f, "deliveries   {} missing\n", self.missing)?;
        writeln!(f, "idle for {:.1} s", self.idle_seconds)?;
        uses(f, &[("server", Some(self.idle))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let idle = Use {
            cpu_seconds: 0.01,
            cpu_percent_of_a_core: 0.05,
            rss_bytes: 30_000_000,
            peak_rss_bytes: 40_000_000,
        };
        Report {
            machine: Machine { processor: "Abacus".to_owned(), cores: 2, kernel: "6.12".to_owned() },
            ready_ms: vec![40.0],
            ready_min_ms: 40.0,
            ready_median_ms: 40.0,
            ready_rss_bytes: 1,
            partitions: 1000,
            errors: 0,
            missing: 0,
            rest: Rest::Asleep,
            idle_seconds: 20.0,
            idle,
            verdict: Verdict::pass("idle", String::new()),
        }
    }

    fn judge(change: impl FnOnce(&mut Report)) -> String {
        let mut report = good();
        change(&mut report);
        verdict(&report).to_string()
    }

    #[test]
    fn an_idle_server_under_every_limit_passes() {
        assert!(judge(|_| ()).starts_with("PASS idle: "));
        assert!(judge(|report| report.rest = Rest::Quiet).starts_with("PASS"));
    }

    #[test]
    fn each_shortcoming_alone_fails_and_is_named() {
        let cases = [
            (judge(|report| report.ready_median_ms = 100.0), "ready after 100 ms"),
            (judge(|report| report.ready_median_ms = f64::NAN), "ready after"),
            (judge(|report| report.idle.cpu_percent_of_a_core = 0.5), "0.50 % of a core"),
            (judge(|report| report.idle.rss_bytes = 50_000_000), "50.0 MB resident"),
            (judge(|report| report.errors = 2), "2 partitions could not be woken"),
            (judge(|report| report.missing = 2), "2 deliveries missing"),
            (judge(|report| report.rest = Rest::Restless), "did not come to rest"),
        ];
        for (line, reason) in cases {
            assert!(line.starts_with("FAIL idle: ") && line.contains(reason), "{line}");
        }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn awake_partitions_are_summed_over_their_labels_and_absent_is_not_zero() {
        let page = "# HELP lanekeeper_partitions_awake x\nlanekeeper_partitions_awake{container=\"a b\"} 2\n\
                    lanekeeper_partitions_awake{container=\"b\"} 3 1700000000\nlanekeeper_partitions_awake_total 9\n";
        assert_eq!(awake_partitions(page), Some(5.0));
        assert_eq!(awake_partitions("lanekeeper_partitions_awake 0\n"), Some(0.0));
        assert_eq!(awake_partitions("other 1\n"), None);
    }
}
