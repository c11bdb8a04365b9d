//! Documents from a file into a container, piece by piece.
//!
//! Invariant: a piece is a part of the file's lines that the server answers for; so however long the file is, little
//! of it is in memory, and what was written is known even when the rest cannot be sent.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::admin::Admin;
use super::failure::Failure;
use super::fields::{cell, number, things};
use super::output::{self, counted};
use super::table::Table;

pub(super) const EXAMPLE: &str = "\
Examples:
  lanekeeper import loads loads.ndjson
  lanekeeper export-documents loads | lanekeeper import loads - --admin http://127.0.0.1:9081
  lanekeeper import quotes quotes.ndjson --tenant acme --on-conflict skip

Each line is one document. Exit code 1 when any of them failed.";

/// Lines that are sent at once, and about how many bytes.
const PIECE: (u64, usize) = (2_000, 4 << 20);
/// Failures that are told one by one, as the server does.
const TOLD: usize = 100;
/// Longest line that is read, in bytes: the largest document that any manifest allows, and blanks.
const LINE_MAX: u64 = 64 << 20;
/// The counts of an answer.
const COUNTS: [&str; 4] = ["created", "replaced", "skipped", "failed_count"];

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Name of the container
    container: String,
    /// The documents, one a line; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: String,
    /// What happens with a document that exists
    #[arg(long, value_enum, default_value_t = OnConflict::Fail)]
    on_conflict: OnConflict,
    /// Owner of the documents, in an isolated container
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnConflict {
    Fail,
    Skip,
    Replace,
}

impl OnConflict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Replace => "replace",
        }
    }
}

/// Lines of a file that go together.
struct Piece {
    /// How many lines came before.
    before: u64,
    lines: u64,
    bytes: Vec<u8>,
}

/// What became of all lines until now.
#[derive(Default)]
struct Sum {
    counts: [u64; COUNTS.len()],
    failed: Vec<Value>,
}

/// Sends the file and says what became of it.
pub(super) async fn run(options: &Options, admin: &Admin, as_json: bool) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::Failed(format!("`{}`: {error}", options.file));
    let (mut input, length): (Box<dyn BufRead>, Option<u64>) = if options.file == "-" {
        (Box::new(std::io::stdin().lock()), None)
    } else {
        let file = File::open(&options.file)
            .map_err(|error| Failure::Usage(format!("`{}`: {error}", output::plain(&options.file))))?;
        let length = file.metadata().map_err(unreadable)?.len();
        (Box::new(BufReader::new(file)), Some(length))
    };
    let bar = bar(length);
    let mut sum = Sum::default();
    let mut before = 0;
    let mut query = vec![("on_conflict", options.on_conflict.as_str().to_owned())];
    query.extend(options.tenant.clone().map(|tenant| ("tenant", tenant)));
    while let Some(piece) = next(&mut *input, before).map_err(unreadable)? {
        before += piece.lines;
        let (first, length) = (piece.before, piece.bytes.len());
        let path = ["v1", "containers", &options.container, "import"];
        let answer = admin.send_lines(&path, &query, piece.bytes).await;
        let answer = answer.inspect_err(|_| {
            bar.abandon();
            output::complain(&format!("stopped behind line {first}: {}", sum.text()));
        })?;
        sum.add(&answer, first);
        bar.inc(u64::try_from(length).unwrap_or_default());
    }
    bar.finish_and_clear();
    let text = if as_json { output::json(&sum.json()) } else { sum.told() };
    if sum.failures() == 0 {
        return Ok(text);
    }
    output::print(&text);
    Err(Failure::BadNews)
}

/// The next lines, or `None` at the end.
fn next(input: &mut dyn BufRead, before: u64) -> std::io::Result<Option<Piece>> {
    let mut piece = Piece { before, lines: 0, bytes: Vec::new() };
    let (lines, bytes) = PIECE;
    while piece.lines < lines && piece.bytes.len() < bytes {
        let read = (&mut *input).take(LINE_MAX).read_until(b'\n', &mut piece.bytes)?;
        if read == 0 {
            break;
        }
        piece.lines += 1;
    }
    Ok((piece.lines > 0).then_some(piece))
}

/// A progress bar, where a person sees it.
fn bar(length: Option<u64>) -> ProgressBar {
    if !output::is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left")
        }
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes}, {binary_bytes_per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

impl Sum {
    fn add(&mut self, answer: &Value, before: u64) {
        for (count, name) in self.counts.iter_mut().zip(COUNTS) {
            *count += number(answer, &[&format!("/{name}")]).unwrap_or_default();
        }
        for failed in things(answer, "failed").iter().take(TOLD.saturating_sub(self.failed.len())) {
            let mut failed = failed.clone();
            if let Some(line) = failed.get_mut("line") {
                *line = json!(line.as_u64().unwrap_or_default() + before);
            }
            self.failed.push(failed);
        }
    }

    fn failures(&self) -> u64 {
        let [.., failures] = self.counts;
        failures
    }

    fn json(&self) -> Value {
        let [created, replaced, skipped, failures] = self.counts;
        json!({
            "created": created, "replaced": replaced, "skipped": skipped,
            "failed": self.failed, "failed_count": failures,
        })
    }

    fn text(&self) -> String {
        let [created, replaced, skipped, failures] = self.counts;
        let created = counted(created, "document");
        format!("{created} created, {replaced} replaced, {skipped} skipped, {failures} failed")
    }

    /// The failures and the counts.
    fn told(&self) -> String {
        if self.failed.is_empty() {
            return self.text();
        }
        let mut table = Table::new(&["LINE", "CODE", "WHY"]);
        for failed in &self.failed {
            table.row([cell(failed, &["/line"]), cell(failed, &["/code"]), cell(failed, &["/detail"])]);
        }
        format!("{}{}", table.render(), self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_between_lines_and_failures_keep_their_numbers() {
        let text = "{}\n".repeat(2_500) + "last";
        let mut input = text.as_bytes();
        let first = next(&mut input, 0).unwrap().unwrap();
        assert_eq!((first.lines, first.bytes.len()), (2_000, 6_000));
        let second = next(&mut input, 2_000).unwrap().unwrap();
        assert_eq!((second.before, second.lines), (2_000, 501));
        assert!(second.bytes.ends_with(b"last"));
        assert!(next(&mut input, 2_501).unwrap().is_none());
        let mut sum = Sum::default();
        sum.add(&json!({ "created": 1_999, "failed": [{ "line": 3, "code": "x" }], "failed_count": 1 }), 0);
        sum.add(&json!({ "created": 500, "failed": [{ "line": 3, "code": "x" }], "failed_count": 1 }), 2_000);
        assert_eq!(sum.text(), "2499 documents created, 0 replaced, 0 skipped, 2 failed");
        assert_eq!(sum.json()["failed"][1]["line"], 2_003);
    }
}
