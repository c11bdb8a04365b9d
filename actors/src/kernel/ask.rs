//! Asking with a deadline. An answer that did not come is *unknown*, never "failed".

use std::time::Duration;

use tokio::sync::oneshot;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The deadline passed; the work may still happen.
    #[error("no answer in time")]
    TimedOut,
    /// Whoever was asked went away; the work may have happened.
    #[error("the answering side went away")]
    Closed,
}

/// Waits for a reply, at most `deadline`.
pub async fn answer<R>(reply: oneshot::Receiver<R>, deadline: Duration) -> Result<R, NoAnswer> {
    match tokio::time::timeout(deadline, reply).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) => Err(NoAnswer::Closed),
        Err(_) => Err(NoAnswer::TimedOut),
    }
}
