//! Stands between the verb `chaos` and the rows of the catalogue: chooses, plays several at a time, tells how they ended.
//! Invariant: a row that does not finish, crashes or raises an error is a miss; only a row that says so is skipped.

mod book;
mod catalogue;
mod ledger;
mod manifest;
mod offer;
mod outcome;
mod prove;
mod report;
mod rows;
mod scene;
mod signature;
mod stage;
mod status;
mod tools;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) use ledger::quantile;
pub(crate) use manifest::{Retry, Wants};
pub(crate) use offer::{Mix, median, offer, p99_since};
pub(crate) use outcome::Findings;
pub(crate) use report::{Played, Report};
pub(crate) use scene::{Context, SUBJECT, Scene};
pub(crate) use stage::Stage;

use crate::clock::Clock;
use crate::server;
use crate::target::Usage;
use outcome::Skip;
use report::Ending;

pub(crate) const EXAMPLES: &str = "Examples:
  lanekeeper-loadtest chaos              every row, within 15 minutes on two cores
  lanekeeper-loadtest chaos 1-8 30 49    these rows
  lanekeeper-loadtest chaos --quick      the rows that take seconds
  lanekeeper-loadtest chaos --prove      the rows must fail when the server is made wrong (built with `failpoints`)

A row that needs what this server or machine lacks is skipped and says what; --strict counts that as a miss.";

/// How long a row may take before it counts as missed.
const ROW_MAX: Duration = Duration::from_secs(420);

/// Plays the catalogue of bad days.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Rows by number: `7`, `1-8` [default: all]
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Show the rows and play none
    #[arg(long)]
    list: bool,
    /// Play only rows that take seconds
    #[arg(long)]
    quick: bool,
    /// A row that cannot be played fails the run
    #[arg(long)]
    strict: bool,
    /// Make the server wrong in five ways, and demand that a row sees each; needs a server built with `failpoints`
    #[arg(long, conflicts_with_all = ["rows", "list", "quick"])]
    prove: bool,
    /// The server's binary [default: `lanekeeper` beside this one]
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Rows that are played at a time, of those that do not disturb each other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Play large rows at their full size
    #[arg(long)]
    full: bool,
    /// Factor on what the machine may add to a time, for one that is slow or busy
    #[arg(long, default_value_t = 1.0)]
    patience: f64,
    /// Leave the temporary directories with manifests, logs and data
    #[arg(long)]
    keep: bool,
    /// Make the server fail in these places (as the variable `FAILPOINTS` of a build for tests)
    #[arg(long, value_name = "PLACES", default_value = "")]
    failpoints: String,
}

/// What a row does.
pub(crate) type Playing = Pin<Box<dyn Future<Output = anyhow::Result<Findings>> + Send>>;

/// A row of the catalogue.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) expected: &'static str,
    /// What it needs beyond a plain server; shown by `--list`.
    pub(crate) needs: &'static str,
    pub(crate) weight: Weight,
    /// Whether it is deterministic and takes seconds.
    pub(crate) quick: bool,
    pub(crate) play: fn(Context) -> Playing,
}

/// Whether a row can be played beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It mostly waits.
    Light,
    /// It uses the machine, or measures it.
    Heavy,
}

/// Runs the verb.
pub(crate) async fn run(options: Options, clock: Clock) -> anyhow::Result<Report> {
    let begun = clock.now();
    let rows = chosen(&options)?;
    if options.list {
        let rows = rows.iter().map(listed).collect();
        return Ok(Report::new("chaos", rows, 0.0, false));
    }
    let context = Context {
        binary: server::binary(options.server.clone())?,
        clock,
        keep: options.keep,
        failpoints: options.failpoints.clone(),
        full: options.full,
        patience: options.patience.max(1.0),
    };
    let played =
        if options.prove { prove::run(&context).await } else { play_all(&rows, &context, &options).await };
    Ok(Report::new("chaos", played, clock.now().since(begun).as_secs_f64(), options.strict))
}

/// The rows that were asked for.
fn chosen(options: &Options) -> anyhow::Result<Vec<Row>> {
    let wrong = |text: &str| Usage(format!("`{text}` is no row; `chaos --list` shows them"));
    let mut ranges = Vec::new();
    for text in &options.rows {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to) = (from.parse::<u8>(), to.parse::<u8>());
        let (Ok(from), Ok(to)) = (from, to) else { return Err(wrong(text).into()) };
        if !catalogue::ROWS.iter().any(|row| (from..=to).contains(&row.number)) {
            return Err(wrong(text).into());
        }
        ranges.push(from..=to);
    }
    let is_chosen = |row: &&Row| {
        (ranges.is_empty() || ranges.iter().any(|range| range.contains(&row.number)))
            && (row.quick || !options.quick)
    };
    Ok(catalogue::ROWS.iter().filter(is_chosen).copied().collect())
}

/// Plays light rows together, then heavy ones each alone.
async fn play_all(rows: &[Row], context: &Context, options: &Options) -> Vec<Played> {
    let (light, heavy): (Vec<Row>, Vec<Row>) = rows.iter().partition(|row| row.weight == Weight::Light);
    let total = rows.len();
    let mut played = Vec::with_capacity(total);
    let tell = |played: &mut Vec<Played>, row: Played| {
        let done = played.len() + 1;
        eprintln!(
            "[{done:>2}/{total}] {:<7} {:>2} {} ({:.1} s)",
            mark(row.ending),
            row.row,
            row.scenario,
            row.seconds
        );
        played.push(row);
    };
    let places = Arc::new(Semaphore::new(usize::from(options.jobs)));
    let mut playing = JoinSet::new();
    for row in light {
        let (context, places, strict) = (context.clone(), Arc::clone(&places), options.strict);
        playing.spawn(async move {
            let _place = places.acquire_owned().await;
            play(row, context, strict).await
        });
    }
    while let Some(row) = playing.join_next().await {
        if let Ok(row) = row {
            tell(&mut played, row);
        }
    }
    for row in heavy {
        let row = play(row, context.clone(), options.strict).await;
        tell(&mut played, row);
    }
    played.sort_by_key(|row| row.row.parse::<u8>().unwrap_or(u8::MAX));
    played
}

fn mark(ending: Ending) -> &'static str {
    match ending {
        Ending::Passed => "passed",
        Ending::Missed => "MISSED",
        Ending::Skipped => "skipped",
        Ending::Listed => "",
    }
}

/// Plays one row to its end, whatever that is.
pub(crate) async fn play(row: Row, context: Context, strict: bool) -> Played {
    let clock = context.clock;
    let begun = clock.now();
    // A task of its own: a row that panics costs itself only.
    let mut task = tokio::spawn((row.play)(context));
    let (ending, seen) = match tokio::time::timeout(ROW_MAX, &mut task).await {
        Err(_) => {
            task.abort();
            (Ending::Missed, format!("not finished after {} s", ROW_MAX.as_secs()))
        }
        Ok(Err(crash)) => (Ending::Missed, format!("the row crashed: {crash}")),
        Ok(Ok(Ok(findings))) => {
            let seen = findings.seen(strict);
            (if seen.passed { Ending::Passed } else { Ending::Missed }, seen.text)
        }
        Ok(Ok(Err(error))) => match error.downcast_ref::<Skip>() {
            Some(skip) => (Ending::Skipped, skip.to_string()),
            None => (Ending::Missed, format!("{error:#}")),
        },
    };
    let seconds = clock.now().since(begun).as_secs_f64();
    Played { ending, seen, seconds, ..listed(&row) }
}

pub(crate) fn listed(row: &Row) -> Played {
    Played {
        row: row.number.to_string(),
        scenario: row.name.to_owned(),
        expected: row.expected.to_owned(),
        ending: Ending::Listed,
        seen: if row.needs.is_empty() { String::new() } else { format!("needs {}", row.needs) },
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(rows: &[&str]) -> Options {
        Options {
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            list: false,
            quick: false,
            strict: false,
            prove: false,
            server: None,
            jobs: 1,
            full: false,
            patience: 1.0,
            keep: false,
            failpoints: String::new(),
        }
    }

    #[test]
    fn the_catalogue_has_every_row_once_and_in_order() {
        let numbers: Vec<u8> = catalogue::ROWS.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=52).collect::<Vec<u8>>());
    }

    #[test]
    fn rows_are_chosen_by_number_and_range_and_a_wrong_one_is_refused() {
        let numbers = |rows: &[&str]| -> Vec<u8> {
            chosen(&options(rows)).unwrap().iter().map(|row| row.number).collect()
        };
        assert_eq!(numbers(&["3", "7-9"]), [3, 7, 8, 9]);
        assert_eq!(numbers(&[]).len(), 52);
        for wrong in ["0", "53", "x", "1-", "9-7"] {
            assert!(chosen(&options(&[wrong])).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_row_that_panics_or_fails_is_a_miss_and_one_that_says_so_is_skipped() {
        let clock = Clock::start();
        let context = Context {
            binary: PathBuf::new(),
            clock,
            keep: false,
            failpoints: String::new(),
            full: false,
            patience: 1.0,
        };
        type Play = (fn(Context) -> Playing, Ending);
        let plays: [Play; 4] = [
            (|_| Box::pin(async { panic!("on purpose") }), Ending::Missed),
            (|_| Box::pin(async { anyhow::bail!("no server") }), Ending::Missed),
            (|_| Box::pin(async { Err(Skip("no openssl".to_owned()).into()) }), Ending::Skipped),
            (|_| Box::pin(async { Ok(Findings::default()) }), Ending::Passed),
        ];
        for (play_it, ending) in plays {
            let row = Row { play: play_it, ..catalogue::ROWS[0] };
            assert_eq!(play(row, context.clone(), false).await.ending, ending);
        }
    }
}
