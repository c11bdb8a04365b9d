//! A panic costs one message, not the actor.
//!
//! actix's supervisor does not survive a panic: the actor, its queue and its address are gone.
//! So the work of a message runs inside [`contain`], and the actor decides what a panic means.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The work of a message panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

/// Runs `work`; a panic comes back as a value. State that `work` was changing must be dropped
/// or be valid at every step.
pub fn contain<R>(work: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(&*payload)))
}

/// Runs `work` until it does not panic, `tries` times at most: for what changes nothing, so that trying again is cheap.
pub fn insist<R>(tries: u32, mut work: impl FnMut() -> R) -> Result<R, Panicked> {
    let mut tried = contain(&mut work);
    for _ in 1..tries {
        if tried.is_ok() {
            break;
        }
        tried = contain(&mut work);
    }
    tried
}

/// The text of a panic, as far as it has one.
pub fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
