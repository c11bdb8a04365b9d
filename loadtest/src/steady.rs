//! Stands between the verb `steady` and the rooms of the tool: sets up server, sink and load, runs them, collects the report.
//! Invariant: nothing is reported missing before every delivery has had its time to settle.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use crate::client::Load;
use crate::clock::{Clock, Moment};
use crate::document::Template;
use crate::process::{Machine, Reading, Subject, Use};
use crate::report::{Deliveries, Latency, Report, Requests, Setup, Subscriber, thousands};
use crate::schedule::{Plan, Spacing};
use crate::server::{self, Launch, Server};
use crate::sink::Sink;
use crate::tally::{Tally, Window, histogram};
use crate::target::Target;
use crate::{sink, units, verdict};

/// Between writing the schedule's beginning down and its first arrival, so that the tasks are all there.
const HEAD_START: Duration = Duration::from_millis(100);
/// How often deliveries are looked at while they settle.
const SETTLE_STEP: Duration = Duration::from_millis(20);
const PROGRESS_STEP: Duration = Duration::from_secs(1);

/// A steady open-loop load of point reads and creates, with subscribers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Requests per second
    #[arg(long, default_value = "2000", value_parser = units::rate)]
    pub(crate) rate: f64,
    /// Measured time
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    pub(crate) duration: Duration,
    /// Time before it, with the same load, that is not measured
    #[arg(long, default_value = "5s", value_parser = units::duration)]
    pub(crate) warmup: Duration,
    /// How the gaps between requests are drawn
    #[arg(long, value_enum, default_value_t = Spacing::Poisson)]
    pub(crate) arrivals: Spacing,
    /// Share of point reads; the rest are creates
    #[arg(long, default_value = "0.7", value_parser = units::share)]
    pub(crate) reads: f64,
    /// Partitions that documents are spread over, uniformly
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) partitions: u32,
    /// Size of a document
    #[arg(long, default_value = "1KB", value_parser = units::size)]
    pub(crate) body: usize,
    /// Event subscriptions with a webhook
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) subscribers: u16,
    /// HTTP/1.1 connections, kept alive
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) connections: u16,
    /// How long a request may take
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
    /// How long answers and deliveries may still come in after the end
    #[arg(long, default_value = "30s", value_parser = units::duration)]
    pub(crate) settle: Duration,
    /// Seed of the schedule; the same seed gives the same requests at the same times
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Where the load goes: to a server of its own, or to a running one.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH", conflicts_with = "target")]
    pub(crate) server: Option<PathBuf>,
    /// Its data directory [default: a temporary one]
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    pub(crate) data: Option<PathBuf>,
    /// Leave the temporary directory with manifest, log and data
    #[arg(long, conflicts_with = "target")]
    pub(crate) keep: bool,
    /// Load a running server instead: URL of its gateway
    #[arg(long, value_name = "URL", requires = "key")]
    pub(crate) target: Option<String>,
    /// API key for it
    #[arg(long, env = "LANEKEEPER_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Where its webhooks /subscriber-1, /subscriber-2, … are taken in; without it deliveries are not measured
    #[arg(long, value_name = "ADDR", requires = "target")]
    pub(crate) sink: Option<SocketAddr>,
    /// Allow a target on another host
    #[arg(long, requires = "target")]
    pub(crate) i_own_this_host: bool,
}

/// A load with everything it is measured by.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) run: u32,
    pub(crate) target: Target,
    pub(crate) sink: Option<Sink>,
    /// The server's process, when it is ours.
    pub(crate) server: Option<u32>,
    pub(crate) clock: Clock,
}

/// Runs the verb.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<Report> {
    let run = fastrand::u32(..);
    let subscribers = usize::from(options.subscribers);
    let place = options.place.clone();
    if let Some(url) = &place.target {
        let target =
            Target::new(url, place.key.as_deref().unwrap_or_default(), place.i_own_this_host).await?;
        let sink = match place.sink {
            Some(address) => Some(Sink::start(address, subscribers, run, clock).await?),
            None => None,
        };
        return Bench { options, run, target, sink, server: None, clock }.measure().await;
    }
    let binary = server::binary(place.server)?;
    let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), subscribers, run, clock).await?;
    let manifest = server::manifest(subscribers, sink.address(), "");
    let key = server::fresh_key();
    let launch = Launch {
        binary,
        manifests: vec![manifest],
        data: place.data,
        keep: place.keep,
        key: key.clone(),
        ..Launch::default()
    };
    let mut server = Server::start(launch, clock).await?;
    if let Some(path) = server.kept() {
        eprintln!("manifest, log and data: {}", path.display());
    }
    let target = Target::new(&server.gateway, &key, false).await?;
    let bench = Bench { options, run, target, sink: Some(sink), server: Some(server.pid()), clock };
    let mut report = bench.measure().await?;
    report.server_ended = server.ended()?.map(|status| status.to_string());
    if report.server_ended.is_none() {
        // A drain that fails would lose what only the next start can show, so it counts against the run.
        let status = server.stop().await?;
        report.server_ended = match status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("asked to drain, {status}")),
            None => Some("asked to drain, it had to be killed".to_owned()),
        };
    }
    report.verdict =
        verdict::steady(&report.requests, report.deliveries.as_ref(), report.server_ended.as_deref());
    Ok(report)
}

impl Bench {
    /// Fills the partitions, plays the schedule, lets the deliveries settle, and reports.
    pub(crate) async fn measure(self) -> anyhow::Result<Report> {
        let template = Template::new(self.run, self.options.body);
        let body_bytes = template.size();
        let load = Arc::new(Load::new(self.target.clone(), template, self.options.timeout, self.clock)?);
        let connections = usize::from(self.options.connections);
        fill(&load, self.options.partitions, connections, self.options.settle, self.clock).await?;

        let plan = self.plan();
        let origin = self.clock.now().plus(HEAD_START);
        let window = Window { from: origin.plus(self.options.warmup), to: origin.plus(plan.length) };
        load.tally(|tally| tally.window = window);
        if let Some(sink) = &self.sink {
            sink.measure(window);
        }
        let play = load.play(plan.arrivals(), origin, window.to.plus(self.options.settle), connections);
        let played = async {
            tokio::select! {
                played = play => played,
                () = self.show_progress(&load, origin) => Ok(()),
            }
        };
        let (played, usage) = tokio::join!(played, self.usage(window));
        played?;
        let owed = load.acknowledged();
        if let Some(sink) = &self.sink {
            settle(sink, &owed, self.options.settle, self.clock).await;
        }
        let deliveries = self.sink.as_ref().map(|sink| deliveries(sink, &owed)).transpose()?;
        let requests = load.tally(|tally| self.requests(&plan, tally));
        let (server, load_tool) = usage;
        let verdict = verdict::steady(&requests, deliveries.as_ref(), None);
        let setup = self.setup(body_bytes);
        let machine = Machine::here();
        Ok(Report { setup, machine, requests, deliveries, server, load_tool, server_ended: None, verdict })
    }

    fn plan(&self) -> Plan {
        let Options { rate, arrivals, reads, partitions, seed, .. } = self.options;
        Plan {
            rate,
            length: self.options.warmup.saturating_add(self.options.duration),
            spacing: arrivals,
            reads,
            partitions,
            // The numbers before were given to the documents that fill the partitions.
            first_number: u64::from(partitions),
            seed,
        }
    }

    fn setup(&self, body_bytes: usize) -> Setup {
        let options = &self.options;
        Setup {
            rate_per_second: options.rate,
            arrivals: options.arrivals,
            duration_seconds: options.duration.as_secs_f64(),
            warmup_seconds: options.warmup.as_secs_f64(),
            connections: usize::from(options.connections),
            reads: options.reads,
            partitions: options.partitions,
            body_bytes,
            seed: options.seed,
            run: self.run,
        }
    }

    fn requests(&self, plan: &Plan, tally: &Tally) -> Requests {
        let seconds = self.options.duration.as_secs_f64();
        let (mut due, mut measured) = (u64::from(self.options.partitions), 0_u64);
        for arrival in plan.arrivals() {
            due += 1;
            measured += u64::from(arrival.after >= self.options.warmup);
        }
        Requests {
            offered_per_second: measured as f64 / seconds,
            achieved_per_second: tally.succeeded_in_window as f64 / tally.window.seconds(),
            statuses: tally.statuses.clone(),
            failures: tally.failures.clone(),
            errors: tally.errors(),
            unanswered: due.saturating_sub(tally.answered),
            reads: Latency::of(&tally.reads),
            writes: Latency::of(&tally.writes),
            sent_after_due: Latency::of(&tally.lag),
        }
    }

    /// What the server and the tool itself use while the window is open.
    async fn usage(&self, window: Window) -> (Option<Use>, Option<Use>) {
        let subjects = (self.server.map(Subject::Other), Subject::Ourselves);
        let read = || (subjects.0.and_then(Reading::of), Reading::of(subjects.1));
        self.clock.wait_until(window.from).await;
        let (before, from) = (read(), self.clock.now());
        self.clock.wait_until(window.to).await;
        let (after, wall) = (read(), self.clock.now().since(from));
        let used = |before: Option<Reading>, after: Option<Reading>| Some(after?.since(&before?, wall));
        (used(before.0, after.0), used(before.1, after.1))
    }

    /// Writes a line each second for a person who watches; otherwise waits for ever.
    async fn show_progress(&self, load: &Load, origin: Moment) {
        if !std::io::stderr().is_terminal() {
            return std::future::pending().await;
        }
        let mut before = load.tally(|tally| tally.answered);
        for second in 1_u64.. {
            self.clock
                .wait_until(origin.plus(PROGRESS_STEP * u32::try_from(second).unwrap_or(u32::MAX)))
                .await;
            let (answered, errors) = load.tally(|tally| (tally.answered, tally.errors()));
            let received: u64 = self.sink.iter().flat_map(|sink| sink.for_each(|each| each.received)).sum();
            eprintln!(
                "{second:>5} s  {:>7} answers/s  {errors} errors  {} deliveries",
                thousands(answered - before),
                thousands(received)
            );
            before = answered;
        }
    }
}

/// Creates one document in each partition, as fast as it goes, so that the first read finds one.
pub(crate) async fn fill(
    load: &Arc<Load>,
    partitions: u32,
    connections: usize,
    limit: Duration,
    clock: Clock,
) -> anyhow::Result<()> {
    let now = clock.now();
    load.play(Plan::one_in_each(partitions), now, now.plus(limit), connections).await?;
    if load.acknowledged().is_empty() {
        let (statuses, failures) = load.tally(|tally| (tally.statuses.clone(), tally.failures.clone()));
        bail!("no document could be created: statuses {statuses:?}, failures {failures:?}");
    }
    Ok(())
}

/// Waits until every subscriber has every document with these numbers, or until `limit` has passed.
pub(crate) async fn settle(sink: &Sink, owed: &[u64], limit: Duration, clock: Clock) {
    let give_up = clock.now().plus(limit);
    while sink.missing(owed).iter().any(|missing| *missing > 0) {
        if clock.now() >= give_up {
            return;
        }
        tokio::time::sleep(SETTLE_STEP).await;
    }
}

fn deliveries(sink: &Sink, owed: &[u64]) -> anyhow::Result<Deliveries> {
    let (mut from_sent, mut from_due) = (histogram()?, histogram()?);
    let counts = sink.for_each(|each| {
        from_sent.add(&each.from_sent)?;
        from_due.add(&each.from_due)?;
        anyhow::Ok((each.received, each.duplicates, each.strange))
    });
    let mut subscribers = Vec::with_capacity(sink.subscribers());
    for (index, (counts, missing)) in counts.into_iter().zip(sink.missing(owed)).enumerate() {
        let (received, duplicates, strange) = counts?;
        let name = sink::path(index).trim_start_matches('/').to_owned();
        subscribers.push(Subscriber { name, received, duplicates, missing, strange });
    }
    Ok(Deliveries {
        owed: owed.len() as u64,
        from_sent: Latency::of(&from_sent),
        from_due: Latency::of(&from_due),
        subscribers,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::stub::{Fault, Stub};

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// A short run against a stub with this fault.
    async fn bench(fault: Fault, line: &str) -> Report {
        let words =
            "steady --rate 400 --duration 1s --warmup 200ms --partitions 20 --connections 8 --subscribers 2";
        let options =
            Line::parse_from(words.split(' ').chain(line.split(' ').filter(|word| !word.is_empty()))).options;
        let (clock, run) = (Clock::start(), 3);
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sink = Sink::start(any, usize::from(options.subscribers), run, clock).await.unwrap();
        let stub = Stub::start(Some((sink.address(), sink.subscribers())), fault).await;
        let target = Target::new(&stub.url(), Stub::KEY, false).await.unwrap();
        Bench { options, run, target, sink: Some(sink), server: None, clock }.measure().await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_request_is_answered_and_every_create_reaches_every_subscriber() {
        let report = bench(Fault::None, "").await;
        let (requests, deliveries) = (&report.requests, report.deliveries.as_ref().unwrap());
        assert_eq!((requests.errors, requests.unanswered), (0, 0), "{report}");
        assert_eq!(requests.statuses[&201], deliveries.owed);
        assert!(requests.reads.count > 200 && requests.writes.count > 60, "{report}");
        assert_eq!(deliveries.from_sent.count, 2 * requests.writes.count);
        assert!(deliveries.from_sent.p50_ms <= deliveries.from_due.p50_ms, "{report}");
        for subscriber in &deliveries.subscribers {
            assert_eq!(
                (subscriber.missing, subscriber.duplicates, subscriber.strange),
                (0, 0, 0),
                "{report}"
            );
            assert_eq!(subscriber.received, deliveries.owed);
        }
        assert!(report.load_tool.is_some() && report.server.is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lost_and_doubled_events_are_found() {
        let report = bench(Fault::LoseOneAndDoubleOne, "--settle 200ms").await;
        let deliveries = report.deliveries.as_ref().unwrap();
        let counts: Vec<(u64, u64)> =
            deliveries.subscribers.iter().map(|each| (each.missing, each.duplicates)).collect();
        assert_eq!(counts, [(1, 0), (0, 1)], "{report}");
        assert!(report.verdict.to_string().contains("1 deliveries missing"), "{report}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn refusals_and_wrong_bodies_are_errors() {
        let report = bench(Fault::RefuseTenthReadAndGarbleTheNext, "").await;
        let requests = &report.requests;
        assert_eq!(
            (requests.statuses[&503], requests.failures["wrong body"], requests.errors),
            (1, 1, 2),
            "{report}"
        );
        assert!(report.verdict.to_string().starts_with("FAIL steady: 2 errors"), "{report}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_creates_nothing_is_reported_at_once() {
        let target = Target::new("http://127.0.0.1:1", "key", false).await.unwrap();
        let clock = Clock::start();
        let load = Load::new(target, Template::new(1, 1000), Duration::from_secs(1), clock).unwrap();
        let error = fill(&Arc::new(load), 3, 1, Duration::from_secs(5), clock).await.unwrap_err();
        assert!(error.to_string().contains("no connection"), "{error}");
    }
}
