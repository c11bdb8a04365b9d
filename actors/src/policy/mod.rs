//! Pure rules (floor 1): what is decided, never who carries it out.
//!
//! Invariant: nothing here reads a clock, draws a random number or does I/O. Time and chance are
//! parameters, so that every rule can be tested exactly.

pub mod budget;
pub mod charge;
pub mod container;
pub mod fairness;
pub mod filter;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod limits;
pub mod patch;
pub mod permits;
mod pool;
pub mod precondition;
pub mod quota;
pub mod rate;
pub mod recovery;
pub mod retry;
pub mod suspects;
pub mod terms;
pub mod throughput;
pub mod ttl;
pub mod upstream;
pub mod window;
