//! `verify`: is what lies in a stopped data directory what was written there?

use std::path::PathBuf;

use lanekeeper_actors::verify::{self, Report};

use super::failure::Failure;
use super::output::{self, counted};
use super::table::Table;

pub(super) const EXAMPLE: &str = "\
Example: lanekeeper verify ./data

Reads the logs end to end and every row of the views, and compares them; changes nothing. A directory that a server
uses is refused. Exit code 1 when anything is wrong.";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Data directory; no server may use it
    #[arg(value_name = "DATA_DIR")]
    data: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Checks a data directory.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let report = verify::directory(&options.data)?;
    output::print(&if options.json { output::json(&report) } else { render(&report) });
    if report.is_clean() { Ok(()) } else { Err(Failure::BadNews) }
}

fn render(report: &Report) -> String {
    let mut table = Table::new(&[
        "SHARD",
        "LOG FROM",
        "LOG TO",
        "RECORDS",
        "CHECKPOINT",
        "DOCUMENTS",
        "RETRIES",
        "DEAD LETTERS",
    ]);
    for shard in &report.shards {
        let numbers = [
            u64::from(shard.shard.0),
            shard.first.0,
            shard.tail.0,
            shard.groups,
            shard.checkpoint.0,
            shard.documents,
            shard.deliveries,
            shard.dead_letters,
        ];
        table.row(numbers.map(|number| number.to_string()));
    }
    let mut text = table.render();
    for problem in &report.problems {
        match problem.shard {
            Some(shard) => text.push_str(&format!("shard {shard}: {}\n", output::plain(&problem.what))),
            None => text.push_str(&format!("{}\n", output::plain(&problem.what))),
        }
    }
    if report.left_out > 0 {
        text.push_str(&format!("and {} more\n", report.left_out));
    }
    let problems = report.problems.len() as u64 + report.left_out;
    match problems {
        0 => text.push_str("sound: every checksum holds, and the views are what their logs add up to"),
        problems => text.push_str(&format!("damaged: {}", counted(problems, "problem"))),
    }
    text
}

#[cfg(test)]
mod tests {
    use lanekeeper_actors::model::ids::{Lsn, ShardId};
    use lanekeeper_actors::verify::{Problem, ShardSummary};

    use super::*;

    #[test]
    fn a_report_names_each_problem_with_its_shard_and_ends_with_the_verdict() {
        let shard = ShardSummary {
            shard: ShardId(0),
            first: Lsn(1),
            tail: Lsn(303),
            groups: 201,
            mutations: 303,
            checkpoint: Lsn(300),
            documents: 150,
            deliveries: 0,
            dead_letters: 1,
        };
        let mut report = Report { shards: vec![shard], ..Report::default() };
        let table = "SHARD  LOG FROM  LOG TO  RECORDS  CHECKPOINT  DOCUMENTS  RETRIES  DEAD LETTERS\n    \
                     0         1     303      201         300        150        0             1\n";
        assert_eq!(
            render(&report),
            format!("{table}sound: every checksum holds, and the views are what their logs add up to")
        );
        let what = "damage in `00000001.log` at byte 51744".to_owned();
        report.problems.push(Problem { shard: Some(ShardId(0)), what });
        assert_eq!(
            render(&report),
            format!("{table}shard 0: damage in `00000001.log` at byte 51744\ndamaged: 1 problem")
        );
    }
}
