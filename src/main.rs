//! The process: hands the command line to the shell, and its verdict to whoever started it.

use std::process::ExitCode;

fn main() -> ExitCode {
    lanekeeper::cli::main()
}
