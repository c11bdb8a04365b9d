//! Stands between the errors of sockets, TLS and HTTP and the one line that an operator reads.
//! Invariant: the line names the cause, is short, and repeats no URL, which may hold a secret.

use std::error::Error;
use std::io;

use lanekeeper_actors::model::delivery::{Outcome, OutcomeKind};

use super::names::LookupProblem;
use super::tls;

/// Characters of a failure's cause that are kept.
const DETAIL: usize = 200;

/// What came of an exchange that broke off without an answer.
pub(crate) fn failure(error: &(dyn Error + 'static)) -> Outcome {
    if let Some(problem) = find::<rustls::Error>(error) {
        return socket_error(&format!("tls: {}", tls::words(problem)));
    }
    let detail = match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "connection reset".to_owned(),
        Some(_) | None => root(error).to_string(),
    };
    socket_error(&detail)
}

/// Whether the peer says that it has not looked at the request: it is closing the connection, or will take no
/// more requests on it for now (RFC 9113, section 8.7).
pub(crate) fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    find::<h2::Error>(error).is_some_and(|problem| {
        let reason = problem.reason();
        let closing = problem.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        problem.is_remote() && (closing || reason == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// What came of a handshake that failed. Whatever the socket did, it did it in place of TLS.
pub(crate) fn of_handshake(error: &io::Error) -> Outcome {
    let outcome = failure(error);
    if outcome.detail.starts_with("tls: ") {
        return outcome;
    }
    socket_error(&format!("tls: {} during the handshake", outcome.detail))
}

/// What came of a name that leads nowhere.
pub(crate) fn of_lookup(problem: &LookupProblem) -> Outcome {
    let kind = match problem {
        LookupProblem::Refused(_) => OutcomeKind::Forbidden,
        LookupProblem::NoAddress | LookupProblem::Failed(_) => OutcomeKind::ResolutionError,
        LookupProblem::GivenUp => OutcomeKind::Aborted,
    };
    Outcome::failed(kind, shorten(&problem.to_string()))
}

/// An error with its immediate cause, in one line.
pub(crate) fn with_cause(problem: &dyn Error) -> String {
    match problem.source() {
        Some(cause) => format!("{problem}: {cause}"),
        None => problem.to_string(),
    }
}

fn socket_error(detail: &str) -> Outcome {
    Outcome::failed(OutcomeKind::SocketError, shorten(detail))
}

/// The innermost error of a type among an error and its sources.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).filter_map(|error| error.downcast_ref()).last()
}

/// The first cause of an error.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

/// An error and its sources, outermost first. An I/O error may carry another error that is not its source.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        carried.map(|carried| carried as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// One line of bounded length: parts of it come from strangers.
pub(crate) fn shorten(detail: &str) -> String {
    detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL).collect()
}
