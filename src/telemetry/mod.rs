//! Stands between what the code says of itself (spans and events) and the operator's terminal or log collector.
//!
//! Invariant: logging never blocks a request: lines go through a bounded queue to a thread of their own, and what
//! does not fit is dropped and counted.

mod lines;

use std::io::{self, IsTerminal};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use lines::Lines;

/// Environment variable that chooses what is logged, for instance `info,lanekeeper::http=debug`.
pub const VARIABLE: &str = "LANEKEEPER_LOG";
/// What is logged when nobody chooses: what the server library says of its threads is of no use to operators.
const DEFAULT: &str = "info,actix_server=warn";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The value of [`VARIABLE`] is no filter.
    #[error("`{VARIABLE}` is not a filter such as `info,lanekeeper::http=debug`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The thread that writes cannot be made.
    #[error("the log's thread cannot start: {0}")]
    Thread(#[from] io::Error),
    /// Somebody began to log before.
    #[error("there is a log already")]
    Twice,
}

/// Begins to log to standard error: JSON, one line for each event, or for people when that is a terminal.
///
/// # Errors
/// [`TelemetryError`]; nothing is logged then.
pub fn start(filter: Option<&str>) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(filter.filter(|text| !text.is_empty()).unwrap_or(DEFAULT))?;
    let writer = Lines::start(io::stderr())?;
    let began = if io::stderr().is_terminal() {
        fmt().with_env_filter(filter).with_writer(writer).with_target(false).finish().try_init()
    } else {
        let json = fmt().json().flatten_event(true).with_current_span(true).with_span_list(false);
        json.with_env_filter(filter).with_writer(writer).finish().try_init()
    };
    began.map_err(|_| TelemetryError::Twice)
}

/// Waits until everything that was logged is written, at most this long. For the last words of a process.
pub fn flush(at_most: Duration) {
    lines::flush(at_most);
}
