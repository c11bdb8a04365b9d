//! The rooms while disks fail and rules panic, at named places. Those places are the same for the
//! whole process: every test here holds the one scenario, and so they run one after the other.
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

mod delivery;
mod partition;
mod shard;
#[path = "../rooms/support.rs"]
mod support;

use fail::FailScenario;

/// What fails while this is held; nothing any more afterwards.
pub(crate) struct Faults(#[expect(dead_code, reason = "held, not read")] FailScenario<'static>);

impl Faults {
    pub(crate) fn none() -> Self {
        Self(FailScenario::setup())
    }

    pub(crate) fn begin(&self, place: &str, action: &str) {
        fail::cfg(place, action).unwrap();
    }

    pub(crate) fn end(&self, place: &str) {
        fail::remove(place);
    }
}
