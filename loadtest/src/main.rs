//! The load tool's process: hands its arguments to the library and ends as that says.

use std::process::ExitCode;

fn main() -> ExitCode {
    lanekeeper_loadtest::run(std::env::args_os())
}
