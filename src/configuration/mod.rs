//! What is applied: the generations of a manifest, and the way from one to the next.
//!
//! Stands between whoever applies a manifest (the admin API, a signal, a file that changed) and the running process.
//! `generations` keeps what was applied, `door` is what the admin API sees of it; carrying it out is the business of
//! [`crate::app`], which knows the rooms.

mod door;
mod generations;

pub use door::{Applied, Configuration, Doing, NotApplied, Question, Wanted};
pub use generations::{Generation, Generations, GenerationsProblem, KEPT};
