//! The quick rows of the catalogue of bad days, played by the load tool against the built server.
//! The whole catalogue is `lanekeeper-loadtest chaos`.

use std::ffi::OsString;
use std::process::ExitCode;

/// A machine that runs many tests at once may take this many times as long.
const PATIENCE: &str = "20";

#[test]
fn the_quick_rows_of_the_catalogue_are_as_expected() {
    let words =
        ["lanekeeper-loadtest", "chaos", "--quick", "--patience", PATIENCE, "--jobs", "4", "--server"];
    let server = OsString::from(env!("CARGO_BIN_EXE_lanekeeper"));
    let ended = lanekeeper_loadtest::run(words.map(OsString::from).into_iter().chain([server]));
    assert_eq!(ended, ExitCode::SUCCESS, "the table above tells which row was missed");
}

#[test]
fn a_row_that_sees_a_wrong_server_is_a_miss() {
    // With this build's places of failure: a redirect that is followed, which row 17 must see.
    let words = ["lanekeeper-loadtest", "chaos", "17", "--patience", PATIENCE, "--failpoints"];
    let wrong = ["delivery::follow_redirects=return", "--server", env!("CARGO_BIN_EXE_lanekeeper")];
    let ended = lanekeeper_loadtest::run(words.into_iter().chain(wrong).map(OsString::from));
    assert_eq!(ended, ExitCode::FAILURE, "a followed redirect was not seen");
}
