//! Stands between the verb `run` and the named scenarios: speed, fairness and backlog of deliveries, each with its goal.
//! Invariant: scenarios are measured one after the other, each on a server of its own, and each has one verdict.

mod fairness;
mod speed;

use std::path::PathBuf;

use crate::chaos::{Context, Played, Report, Row, Weight, listed, play};
use crate::clock::Clock;
use crate::server;
use crate::target::Usage;

pub(crate) const EXAMPLES: &str = "Examples:
  lanekeeper-loadtest run --list
  lanekeeper-loadtest run hung-subscriber failing-tenant
  lanekeeper-loadtest run                all of them, some ten minutes";

/// Plays named scenarios.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Scenarios by name [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Show the scenarios and play none
    #[arg(long)]
    list: bool,
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Play the backlog at its full size: a million events for each of four subscribers
    #[arg(long)]
    full: bool,
    /// Leave the temporary directories with manifests, logs and data
    #[arg(long)]
    keep: bool,
}

macro_rules! scenario {
    ($number:literal, $name:literal, $expected:literal, $play:path) => {
        Row {
            number: $number,
            name: $name,
            expected: $expected,
            needs: "",
            weight: Weight::Heavy,
            quick: false,
            play: |context| Box::pin($play(context)),
        }
    };
}

const SCENARIOS: [Row; 5] = [
    scenario!(
        1,
        "hung-subscriber",
        "one hung subscriber changes the p99 of the others by less than 10 %",
        fairness::hung_subscriber
    ),
    scenario!(
        2,
        "failing-tenant",
        "1,000 failing subscriptions of one tenant at most double another's p99",
        fairness::failing_tenant
    ),
    scenario!(
        3,
        "fan-out",
        "2,500 events/s of 1 KB to 4 subscribers for a minute; at half of it p50 < 10 ms, p99 < 100 ms",
        speed::fan_out
    ),
    scenario!(4, "fan-out-wide", "one event reaches 10,000 subscriptions within 5 s", speed::fan_out_wide),
    scenario!(
        5,
        "backlog",
        "a backlog of a million deliveries drains at 0.7 of the steady rate or more, RSS under 500 MB",
        speed::backlog
    ),
];

/// Runs the verb.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<Report> {
    let begun = clock.now();
    for name in &options.scenarios {
        if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
            return Err(Usage(format!("`{name}` is no scenario; `run --list` shows them")).into());
        }
    }
    let is_chosen =
        |row: &&Row| options.scenarios.is_empty() || options.scenarios.iter().any(|name| row.name == name);
    let chosen: Vec<Row> = SCENARIOS.iter().filter(is_chosen).copied().collect();
    if options.list {
        return Ok(Report::new("run", chosen.iter().map(listed).collect(), 0.0, false));
    }
    let context = Context {
        binary: server::binary(options.server.clone())?,
        clock,
        keep: options.keep,
        failpoints: String::new(),
        full: options.full,
        patience: 1.0,
    };
    let mut played: Vec<Played> = Vec::new();
    for (at, row) in (1..).zip(&chosen) {
        eprintln!("[{at}/{}] {}", chosen.len(), row.name);
        played.push(play(*row, context.clone(), false).await);
    }
    Ok(Report::new("run", played, clock.now().since(begun).as_secs_f64(), false))
}
