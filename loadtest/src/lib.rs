//! The load tool: `steady`, `idle`, `peak`, `scan` and `run` measure a Lanekeeper over HTTP, `chaos` plays its bad days.
//! Stands between the command line and the verbs; the last line and the exit code say the same.
//!
//! Exit codes: 0 pass, 1 fail, 64 wrong usage.

mod api;
mod chaos;
mod client;
mod clock;
mod document;
mod endpoint;
mod idle;
mod peak;
mod process;
mod report;
mod scan;
mod scenarios;
mod schedule;
mod server;
mod sink;
mod steady;
#[cfg(test)]
mod stub;
mod tally;
mod target;
mod units;
mod verdict;
mod wire;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::target::Usage;
use crate::verdict::Verdict;

const PASSED: u8 = 0;
const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 64;

/// Open-loop load for Lanekeeper, over HTTP only.
#[derive(Debug, Parser)]
#[command(name = "lanekeeper-loadtest", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  lanekeeper-loadtest steady --rate 2000 --duration 30s
  lanekeeper-loadtest steady --target http://127.0.0.1:8080 --key lk_… --sink 127.0.0.1:7001
  lanekeeper-loadtest idle --json

The last line is the verdict; the exit code is 0 for PASS, 1 for FAIL, 64 for wrong usage.";

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// A steady open-loop load of point reads and creates, with subscribers
    #[command(after_help = "Example: lanekeeper-loadtest steady --rate 2000 --duration 30s --reads 0.7")]
    Steady {
        #[command(flatten)]
        options: steady::Options,
        #[command(flatten)]
        tool: Tool,
    },
    /// How soon a server is ready, and what it costs while nothing happens
    #[command(after_help = "Example: lanekeeper-loadtest idle --starts 5 --duration 20s")]
    Idle {
        #[command(flatten)]
        options: idle::Options,
        #[command(flatten)]
        tool: Tool,
    },
    /// The most creates or point reads that a server answers, with a closed loop
    #[command(
        after_help = "Example: lanekeeper-loadtest peak --work creates --connections 64,256 --duration 10s"
    )]
    Peak {
        #[command(flatten)]
        options: peak::Options,
        #[command(flatten)]
        tool: Tool,
    },
    /// What a full scan of one large partition does to point reads of the others
    #[command(after_help = "Example: lanekeeper-loadtest scan --documents 1000000 --rate 2000 --rounds 5")]
    Scan {
        #[command(flatten)]
        options: scan::Options,
        #[command(flatten)]
        tool: Tool,
    },
    /// Plays named scenarios of delivery: speed, fairness, backlog
    #[command(after_help = scenarios::EXAMPLES)]
    Run {
        #[command(flatten)]
        options: scenarios::Options,
        #[command(flatten)]
        tool: Tool,
    },
    /// Plays the catalogue of bad days: a server of its own, subscribers that misbehave, and a ledger
    #[command(after_help = chaos::EXAMPLES)]
    Chaos {
        #[command(flatten)]
        options: chaos::Options,
        #[command(flatten)]
        tool: Tool,
    },
}

/// How the tool itself runs and speaks.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Tool {
    /// Print the report as JSON on stdout, and the verdict on stderr
    #[arg(long)]
    json: bool,
    /// Threads of the tool; it shares the machine with the server
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
}

/// Runs the tool with these arguments, the program's name first, to its verdict.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let clock = Clock::start();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Printing help or an error can only fail when nobody is there to read it.
            error.print().unwrap_or_default();
            return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.verb {
        Verb::Steady { options, tool } => {
            finish("steady", perform(steady::run(options, clock), tool), tool, |report| &report.verdict)
        }
        Verb::Idle { options, tool } => {
            finish("idle", perform(idle::run(options, clock), tool), tool, |report| &report.verdict)
        }
        Verb::Peak { options, tool } => {
            finish("peak", perform(peak::run(options, clock), tool), tool, |report| &report.verdict)
        }
        Verb::Scan { options, tool } => {
            finish("scan", perform(scan::run(options, clock), tool), tool, |report| &report.verdict)
        }
        Verb::Run { options, tool } => {
            finish("run", perform(scenarios::run(options, clock), tool), tool, |report| &report.verdict)
        }
        Verb::Chaos { options, tool } => {
            finish("chaos", perform(chaos::run(options, clock), tool), tool, |report| &report.verdict)
        }
    }
}

/// Runs a verb to its report, or until somebody interrupts it; either way the server it started is gone afterwards.
fn perform<T>(verb: impl Future<Output = anyhow::Result<T>>, tool: Tool) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(tool.workers))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            report = verb => report,
            () = asked_to_end() => Err(anyhow::anyhow!("interrupted")),
        }
    })
}

/// Waits for SIGINT or SIGTERM; for ever where they cannot be listened to.
async fn asked_to_end() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
    }
}

fn finish<T: Display + Serialize>(
    verb: &str,
    report: anyhow::Result<T>,
    tool: Tool,
    verdict: impl Fn(&T) -> &Verdict,
) -> ExitCode {
    let error = match report {
        Ok(report) => match show(&report, tool) {
            Ok(()) => {
                conclude(verdict(&report), tool);
                return ExitCode::from(if verdict(&report).passed() { PASSED } else { FAILED });
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    eprintln!("error: {error:#}");
    if error.downcast_ref::<Usage>().is_some() {
        return ExitCode::from(WRONG_USAGE);
    }
    let reason = "the run could not be finished".to_owned();
    conclude(&Verdict::of(verb, &[reason], String::new()), tool);
    ExitCode::from(FAILED)
}

#[expect(clippy::print_stdout, reason = "the report is what this program is run for")]
fn show<T: Display + Serialize>(report: &T, tool: Tool) -> anyhow::Result<()> {
    if tool.json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Prints the verdict as the last line; beside JSON on stderr, so that a script can read stdout as it is.
#[expect(clippy::print_stdout, reason = "the verdict is the last line of the report")]
fn conclude(verdict: &Verdict, tool: Tool) {
    if tool.json {
        eprintln!("{verdict}");
    } else {
        println!("{verdict}");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rows_and_scenarios_are_named_one_by_one_or_not_at_all() {
        for line in ["chaos", "chaos 1 30 49", "chaos --list", "run hung-subscriber", "run --list"] {
            let words = std::iter::once("lanekeeper-loadtest").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_target_excludes_a_server_of_ones_own_and_needs_a_key() {
        let parse = |line: &str| {
            Cli::try_parse_from(std::iter::once("lanekeeper-loadtest").chain(line.split(' '))).is_ok()
        };
        assert!(parse("steady --target http://127.0.0.1:1 --key k"));
        assert!(!parse("steady --target http://127.0.0.1:1 --key k --server x"));
        assert!(!parse("steady --sink 127.0.0.1:1"));
        assert!(!parse("steady --i-own-this-host"));
    }
}
