//! The process: hands the command line to the shell, and its verdict to whoever started it.

use std::process::ExitCode;

/// Short-lived bodies and pages of many sizes, on many threads: measured to be worth its size.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Tests name the points of failure in the variable `FAILPOINTS`; a release has none.
    #[cfg(feature = "failpoints")]
    let _points = fail::FailScenario::setup();
    lanekeeper::cli::main()
}
