//! What is promised of documents, asked of the rooms on real disks by a stranger who knows the contract:
//! one module per promise. The clock moves only by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "a test may stop at what it did not expect"
)]

mod budgets;
mod cache;
mod expiry;
mod patches;
mod purges;
mod repeats;
mod rows;
mod serial;
#[path = "../rooms/support.rs"]
mod support;
mod transactions;
mod unique;
mod upgrades;
mod world;
