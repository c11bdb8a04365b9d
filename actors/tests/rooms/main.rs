//! The rooms together, on real disks, with scripted endpoints: one module per promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "a test may stop at what it did not expect, and runs on the machine's clock"
)]

mod backup;
mod clocks;
mod delivery;
mod endpoints;
mod exports;
mod fairness;
mod order;
mod partition;
mod queues;
mod restarts;
mod retries;
mod simulation;
mod support;
mod topics;
