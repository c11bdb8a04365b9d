//! The audit log: lists what was recorded, and checks that nothing of it was changed.

use std::path::PathBuf;

use serde_json::Value;

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, str_at, things};
use super::output::{self, counted};
use super::table::Table;
use crate::audit::{self, Anchor, Fault, Report};

const VERIFY_EXAMPLE: &str = "\
Examples:
  lanekeeper audit verify ./data
  lanekeeper audit verify ./data --anchor 812:9f86d0…

Walks over the chain from the first record that is left to the last; changes nothing. The server may run or not. The
last line names the last record and its hash: keep it elsewhere, and give it back with --anchor later. Exit code 1 when
anything was changed, added, moved or taken away.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List records, the newest last
    #[command(after_help = "Example: lanekeeper audit list --action key --limit 20")]
    List {
        /// `beginning`, a number of a record, or a time; without it the newest ones
        #[arg(long, value_name = "FROM")]
        from: Option<String>,
        /// Most records
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Only this action, such as `key.issue`, or all of a kind, such as `key`
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
    },
    /// Check the hash chain of a data directory
    #[command(after_help = VERIFY_EXAMPLE)]
    Verify {
        /// Data directory; a server may use it
        #[arg(value_name = "DATA_DIR")]
        directory: PathBuf,
        /// A record and its hash as they were once told
        #[arg(long, value_name = "NUMBER:HASH")]
        anchor: Option<Anchor>,
    },
}

/// Asks the server for records.
pub(super) async fn list(
    (from, limit, action): (Option<&str>, u64, Option<&str>),
    admin: &Admin,
    as_json: bool,
) -> Result<String, Failure> {
    let mut query = vec![("limit", limit.to_string())];
    query.extend(from.map(|from| ("from", from.to_owned())));
    query.extend(action.map(|action| ("action", action.to_owned())));
    let answer = admin.query(&["v1", "audit"], &query).await?;
    Ok(if as_json { output::json(&answer) } else { table(&answer) })
}

/// Checks a directory.
pub(super) fn verify(
    directory: &std::path::Path,
    anchor: Option<Anchor>,
    as_json: bool,
) -> Result<(), Failure> {
    let report = audit::verify(directory, anchor).map_err(|error| Failure::Failed(error.to_string()))?;
    output::print(&if as_json { output::json(&report) } else { render(&report) });
    if report.faults.is_empty() { Ok(()) } else { Err(Failure::BadNews) }
}

fn table(answer: &Value) -> String {
    let mut table =
        Table::new(&["RECORD", "TIME", "ACTOR", "ACTION", "TARGET", "OUTCOME", "CODE", "CLIENT", "TRACE"]);
    for record in things(answer, "records") {
        table.row([
            cell(record, &["/seq"]),
            cell(record, &["/time"]),
            cell(record, &["/tenant", "/actor"]),
            cell(record, &["/action"]),
            target(record),
            cell(record, &["/outcome", "/status"]),
            cell(record, &["/code"]),
            cell(record, &["/client"]),
            cell(record, &["/trace"]),
        ]);
    }
    table.render()
}

/// What it was about: a name, or an operation of an api.
fn target(record: &Value) -> String {
    match (str_at(record, "/api"), str_at(record, "/operation")) {
        (Some(api), Some(operation)) => format!("{api}.{operation}"),
        _ => cell(record, &["/target"]),
    }
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    for fault in &report.faults {
        text.push_str(&format!("{}{}\n", place(fault), output::plain(&fault.what)));
    }
    if report.left_out > 0 {
        text.push_str(&format!("and {} more\n", report.left_out));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {}\n", output::plain(note)));
    }
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    text.push_str(&format!(
        "{} in {}\n",
        counted(report.records, "record"),
        counted(number(report.files), "file")
    ));
    match report.faults.len() + report.left_out {
        0 => text.push_str(&format!("sound: the chain holds up to {}:{}", report.last, report.hash)),
        faults => text.push_str(&format!("broken: {}", counted(number(faults), "fault"))),
    }
    text
}

fn place(fault: &Fault) -> String {
    match (&fault.file, fault.line, fault.byte) {
        (Some(file), Some(line), Some(byte)) => format!("{file}, line {line}, byte {byte}: "),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_broken_place_comes_first_and_the_verdict_last() {
        let mut report =
            Report { files: 1, records: 3, first: 1, last: 3, hash: "ab".to_owned(), ..Report::default() };
        assert_eq!(render(&report), "3 records in 1 file\nsound: the chain holds up to 3:ab");
        let file = Some("00000001.ndjson".to_owned());
        let what = "the line is no record".to_owned();
        report.faults.push(Fault { file, line: Some(2), byte: Some(180), what });
        assert_eq!(
            render(&report),
            "00000001.ndjson, line 2, byte 180: the line is no record\n3 records in 1 file\nbroken: 1 fault"
        );
    }

    #[test]
    fn the_list_names_who_did_what_to_what() {
        let answer = json!({ "records": [
            { "seq": 7, "time": "2026-01-31T08:30:00.000Z", "actor": "operator", "action": "key.revoke",
              "target": "k1", "outcome": "done", "client": "127.0.0.1", "trace": "ab" },
            { "seq": 8, "time": "2026-01-31T08:30:01.000Z", "actor": "tenant", "tenant": "acme", "action": "request",
              "api": "loads", "operation": "create", "status": 201, "trace": "cd" },
        ]});
        let text = table(&answer);
        for word in ["operator", "key.revoke", "k1", "done", "acme", "loads.create", "201"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }
}
