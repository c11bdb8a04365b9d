//! The verb `peak`: as many creates or point reads as a server answers, with a fixed number of connections that each
//! wait for their answer before they ask again (a closed loop). Throughput is the figure; its latencies are those of
//! a full server, and not what `steady` measures.
//! Invariant: only answers that say *done* are counted as done, and each read is checked to be the document asked for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::clock::{Clock, Moment};
use crate::document::{self, Template};
use crate::process::{Reading, Subject};
use crate::report::{Latency, thousands};
use crate::schedule::DocumentKey;
use crate::server::{self, Launch, Server};
use crate::tally::histogram;
use crate::target::Target;
use crate::units;
use crate::verdict::Verdict;
use crate::wire::{self, Connection};

/// Where the numbers of documents of later cells begin, so that none is created twice.
const CELL_NUMBERS: u64 = 1 << 32;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// Creates of new documents
    Creates,
    /// Point reads of documents that were created before
    Reads,
}

/// The most that a server does, with a closed loop.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// What is measured
    #[arg(long, value_enum, default_value_t = Work::Creates)]
    pub(crate) work: Work,
    /// Connections; several are measured after one another
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    pub(crate) connections: Vec<u16>,
    /// Partitions; several are measured after one another, to compare a hot one with many
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    pub(crate) partitions: Vec<u32>,
    /// Measured time of each
    #[arg(long, default_value = "10s", value_parser = units::duration)]
    pub(crate) duration: Duration,
    /// Time before it that is not measured
    #[arg(long, default_value = "2s", value_parser = units::duration)]
    pub(crate) warmup: Duration,
    /// Size of a document
    #[arg(long, default_value = "1KB", value_parser = units::size)]
    pub(crate) body: usize,
    /// Documents that reads choose from
    #[arg(long, default_value_t = 20_000)]
    pub(crate) documents: u32,
    /// Fail below so many answers per second
    #[arg(long)]
    pub(crate) at_least: Option<f64>,
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
    /// Its data directory [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cell {
    connections: u16,
    partitions: u32,
    answers: u64,
    per_second: f64,
    errors: u64,
    latency: Latency,
    server_cores: Option<f64>,
    server_rss: Option<u64>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PeakReport {
    work: Work,
    body_bytes: usize,
    cells: Vec<Cell>,
    pub(crate) verdict: Verdict,
}

impl fmt::Display for PeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Creates => "durable creates",
            Work::Reads => "point reads",
        };
        writeln!(f, "{work} over HTTP, {} bytes, closed loop", self.body_bytes)?;
        writeln!(
            f,
            " connections  partitions        per s    p50 ms    p99 ms  errors   server cores     RSS MB"
        )?;
        for cell in &self.cells {
            writeln!(
                f,
                "{:>12} {:>11} {:>12} {:>9.3} {:>9.3} {:>7} {:>14} {:>10}",
                cell.connections,
                cell.partitions,
                thousands(cell.per_second as u64),
                cell.latency.p50_ms,
                cell.latency.p99_ms,
                cell.errors,
                cell.server_cores.map_or_else(|| "?".to_owned(), |cores| format!("{cores:.2}")),
                cell.server_rss.map_or_else(|| "?".to_owned(), |rss| (rss >> 20).to_string()),
            )?;
        }
        Ok(())
    }
}

/// Runs the verb against a server of its own.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<PeakReport> {
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
    let run = fastrand::u32(..);
    let mut cells = Vec::new();
    for (number, (partitions, connections)) in options
        .partitions
        .iter()
        .flat_map(|partitions| options.connections.iter().map(move |connections| (*partitions, *connections)))
        .enumerate()
    {
        let bench = Bench {
            options: options.clone(),
            target: target.clone(),
            run,
            base: (number as u64 + 1) * CELL_NUMBERS,
            partitions,
            clock,
        };
        cells.push(bench.measure(connections, server.pid()).await?);
    }
    let status = server.stop().await?;
    let mut reasons = Vec::new();
    if !status.is_some_and(|status| status.success()) {
        reasons.push("the server did not drain".to_owned());
    }
    for cell in &cells {
        if cell.errors > 0 || cell.answers == 0 {
            reasons.push(format!("{} errors with {} connections", cell.errors, cell.connections));
        }
        if options.at_least.is_some_and(|least| cell.per_second < least) {
            reasons.push(format!("{:.0} per second with {} connections", cell.per_second, cell.connections));
        }
    }
    let most = cells.iter().map(|cell| cell.per_second).fold(0.0, f64::max);
    let verdict = Verdict::of("peak", &reasons, format!("at most {most:.0} answers per second"));
    Ok(PeakReport { work: options.work, body_bytes: options.body, cells, verdict })
}

#[derive(Debug, Clone)]
struct Bench {
    options: Options,
    target: Target,
    run: u32,
    /// The first number of a document of this cell.
    base: u64,
    partitions: u32,
    clock: Clock,
}

/// What one connection counted.
struct Count {
    answers: u64,
    errors: u64,
    latency: Histogram<u64>,
}

impl Bench {
    async fn measure(&self, connections: u16, server: u32) -> anyhow::Result<Cell> {
        if self.options.work == Work::Reads {
            self.fill().await?;
        }
        let from = self.clock.now().plus(self.options.warmup);
        let to = from.plus(self.options.duration);
        let mut tasks = JoinSet::new();
        for number in 0..connections {
            let bench = self.clone();
            tasks.spawn(async move { bench.connection(number, connections, from, to).await });
        }
        self.clock.wait_until(from).await;
        let before = Reading::of(Subject::Other(server));
        self.clock.wait_until(to).await;
        let after = Reading::of(Subject::Other(server));
        let mut total = Count { answers: 0, errors: 0, latency: histogram()? };
        while let Some(count) = tasks.join_next().await {
            let count = count??;
            total.answers += count.answers;
            total.errors += count.errors;
            total.latency.add(count.latency)?;
        }
        let uses = before.zip(after).map(|(before, after)| after.since(&before, self.options.duration));
        Ok(Cell {
            connections,
            partitions: self.partitions,
            answers: total.answers,
            per_second: total.answers as f64 / self.options.duration.as_secs_f64(),
            errors: total.errors,
            latency: Latency::of(&total.latency),
            server_cores: uses.as_ref().map(|uses| uses.cpu_percent_of_a_core / 100.0),
            server_rss: uses.as_ref().map(|uses| uses.rss_bytes),
        })
    }

    /// Creates what is read later.
    async fn fill(&self) -> anyhow::Result<()> {
        const AT_ONCE: u32 = 32;
        let mut tasks = JoinSet::new();
        for first in 0..AT_ONCE {
            let bench = self.clone();
            tasks.spawn(async move {
                let mut connection = Connection::open(&bench.target).await?;
                let template = Template::new(bench.run, bench.options.body);
                for number in (first..bench.options.documents).step_by(AT_ONCE as usize) {
                    let request = bench.create(&template, u64::from(number));
                    let status = connection.ask(&request).await?;
                    if status != 201 {
                        bail!("a document to read could not be created: {status}");
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

    async fn connection(&self, number: u16, of: u16, from: Moment, to: Moment) -> anyhow::Result<Count> {
        let mut connection = Connection::open(&self.target).await?;
        let template = Template::new(self.run, self.options.body);
        let mut random = fastrand::Rng::with_seed(u64::from(number));
        let mut count = Count { answers: 0, errors: 0, latency: histogram()? };
        let mut next = u64::from(number);
        loop {
            let begun = self.clock.now();
            if begun >= to {
                return Ok(count);
            }
            let (request, expected, id) = match self.options.work {
                Work::Creates => {
                    // Every connection has numbers of its own, and they grow with time.
                    next += u64::from(of);
                    (self.create(&template, next), 201, None)
                }
                Work::Reads => {
                    let key = self.key(random.u64(..u64::from(self.options.documents)));
                    let id = template.id(key);
                    let path = format!("/freight/v1/loads/{}/{id}", document::lane(key.partition));
                    (wire::head(&self.target, "GET", &path, None), 200, Some(id))
                }
            };
            let status = connection.ask(&request).await?;
            let done = self.clock.now();
            let right = id.is_none_or(|id| document::contains(connection.body(), id.as_bytes()));
            if done < from || done > to {
                continue;
            }
            if status == expected && right {
                count.answers += 1;
                count.latency.saturating_record(crate::clock::nanos(done.since(begun)));
            } else {
                count.errors += 1;
            }
        }
    }

    fn key(&self, number: u64) -> DocumentKey {
        // Neighbouring numbers are in different partitions.
        let partition = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let partition = u32::try_from(partition % u64::from(self.partitions.max(1))).unwrap_or(0);
        DocumentKey { number: self.base + number, partition }
    }

    fn create(&self, template: &Template, number: u64) -> Vec<u8> {
        let now = self.clock.now();
        let body = template.body(self.key(number), now, now);
        let mut request = wire::head(&self.target, "POST", "/freight/v1/loads", Some(body.len()));
        request.extend_from_slice(&body);
        request
    }
}
