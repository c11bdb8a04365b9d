//! The rooms together, on real disks, with scripted endpoints: one module per promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test stops where its promise is broken, and measures real time"
)]

mod delivery;
mod fairness;
mod partition;
mod restarts;
mod retries;
mod simulation;
mod support;
