//! Reads of more than one document, and the upkeep behind them, on real systems: one module per promise.
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

mod budgets;
mod building;
mod feeds;
mod following;
mod housekeeping;
mod paging;
mod queries;
mod scene;
#[path = "../rooms/support.rs"]
mod support;
