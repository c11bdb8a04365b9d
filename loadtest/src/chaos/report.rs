//! Stands between the rows that were played and whoever reads: a table of scenario, expected, seen.
//! Invariant: every row that was chosen is in the table, with what was seen or why it could not be played.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::verdict::Verdict;

/// Widths of the columns of scenarios and of what is expected.
const SCENARIO: usize = 34;
const EXPECTED: usize = 44;
const SEEN: usize = 64;

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    Passed,
    Missed,
    Skipped,
    /// It was only listed.
    Listed,
}

/// A row as it was played.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Played {
    pub(crate) row: String,
    pub(crate) scenario: String,
    pub(crate) expected: String,
    pub(crate) ending: Ending,
    pub(crate) seen: String,
    pub(crate) seconds: f64,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Played>,
    pub(crate) seconds: f64,
    pub(crate) verdict: Verdict,
}

impl Report {
    /// A report with its verdict. Skipped rows count against it only when all must be played.
    pub(crate) fn new(verb: &str, rows: Vec<Played>, seconds: f64, strict: bool) -> Self {
        let count = |ending: Ending| rows.iter().filter(|row| row.ending == ending).count();
        let numbers = |ending: Ending| {
            let of = rows.iter().filter(|row| row.ending == ending).map(|row| row.row.as_str());
            of.collect::<Vec<_>>().join(", ")
        };
        let mut reasons = Vec::new();
        if count(Ending::Missed) > 0 {
            reasons.push(format!("{} missed ({})", count(Ending::Missed), numbers(Ending::Missed)));
        }
        if strict && count(Ending::Skipped) > 0 {
            reasons.push(format!("{} skipped ({})", count(Ending::Skipped), numbers(Ending::Skipped)));
        }
        let figures = if count(Ending::Listed) > 0 {
            format!("{} rows", rows.len())
        } else {
            format!("{} passed, {} skipped in {seconds:.0} s", count(Ending::Passed), count(Ending::Skipped))
        };
        Self { verdict: Verdict::of(verb, &reasons, figures), rows, seconds }
    }
}

impl Ending {
    fn mark(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Missed => "MISS",
            Self::Skipped => "skip",
            Self::Listed => "",
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        line(f, "#", "", "scenario", "expected", "seen")?;
        for row in &self.rows {
            line(f, &row.row, row.ending.mark(), &row.scenario, &row.expected, &row.seen)?;
        }
        Ok(())
    }
}

/// One line of the table, in as many lines of text as its longest cell needs.
fn line(
    f: &mut Formatter<'_>,
    number: &str,
    mark: &str,
    scenario: &str,
    expected: &str,
    seen: &str,
) -> fmt::Result {
    let cells = [(scenario, SCENARIO), (expected, EXPECTED), (seen, SEEN)]
        .map(|(text, width)| (wrapped(text, width), width));
    let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(1);
    for at in 0..height {
        let first = at == 0;
        write!(f, "{:>3} {:<4}", if first { number } else { "" }, if first { mark } else { "" })?;
        for (lines, width) in &cells {
            let text = lines.get(at).map_or("", String::as_str);
            write!(f, "  {text:<width$}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// A text in lines of at most this many characters, broken between words where it can be.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split_whitespace() {
        let long = word.chars().count();
        if length > 0 && length + 1 + long > width {
            lines.push(String::new());
            length = 0;
        }
        let Some(last) = lines.last_mut() else { continue };
        if length > 0 {
            last.push(' ');
            length += 1;
        }
        last.push_str(word);
        length += long;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(row: &str, ending: Ending) -> Played {
        let text = |text: &str| text.to_owned();
        Played {
            row: text(row),
            scenario: text("connection refused"),
            expected: text("a failure that is tried again, and costs the other subscriptions nothing at all"),
            ending,
            seen: text("as expected"),
            seconds: 1.0,
        }
    }

    #[test]
    fn a_miss_fails_the_run_and_a_skip_only_a_strict_one() {
        let rows = vec![played("1", Ending::Passed), played("2", Ending::Skipped)];
        assert!(Report::new("chaos", rows.clone(), 1.0, false).verdict.passed());
        assert!(!Report::new("chaos", rows, 1.0, true).verdict.passed());
        let missed = Report::new("chaos", vec![played("7", Ending::Missed)], 1.0, false).verdict;
        assert_eq!(missed.to_string(), "FAIL chaos: 1 missed (7)");
    }

    #[test]
    fn long_cells_are_wrapped_and_lose_nothing() {
        let report = Report::new("chaos", vec![played("1", Ending::Passed)], 1.0, false);
        let text = report.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 4 + 5 + SCENARIO + EXPECTED + SEEN + 6));
        assert!(text.contains("nothing at all") && text.contains("connection refused"), "{text}");
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
