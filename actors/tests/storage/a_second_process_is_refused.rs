//! One data directory, one process.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use lanekeeper_actors::store::superblock::{DataDirectory, DirectoryError};

/// Names the directory that [`a_process_that_holds_a_directory`] is to hold.
const HOLD: &str = "LANEKEEPER_TEST_HOLD";

/// Makes a directory with one shard that has nothing in it but the files that must be there.
fn make(path: &Path) -> DataDirectory {
    let mut directory = DataDirectory::open_or_create(path, Some(1), 2, "first").unwrap();
    std::fs::create_dir_all(directory.log(0)).unwrap();
    std::fs::write(directory.shard(0).join("view.redb"), b"x").unwrap();
    directory.complete().unwrap();
    directory
}

fn is_in_use(path: &Path) -> bool {
    let is_refused = |result: Result<DataDirectory, DirectoryError>| match result {
        Ok(_) => false,
        Err(DirectoryError::InUse(_)) => true,
        Err(other) => panic!("{other}"),
    };
    let refused = is_refused(DataDirectory::open_or_create(path, None, 2, "second"));
    assert_eq!(is_refused(DataDirectory::open(path)), refused);
    refused
}

/// Not a test of its own: the other process of the test below.
#[test]
fn a_process_that_holds_a_directory() {
    let Some(path) = std::env::var_os(HOLD) else { return };
    let _held = DataDirectory::open(Path::new(&path)).unwrap();
    println!("\nheld");
    // Nothing ever comes; the end of the input is the end of the test.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn while_the_first_one_lives() {
    let folder = tempfile::tempdir().unwrap();
    drop(make(folder.path()));
    let mut first = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_process_is_refused::a_process_that_holds_a_directory", "--nocapture"])
        .env(HOLD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    assert!(is_in_use(folder.path()));
    // A killed process holds nothing, and leaves nothing to clean up.
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!is_in_use(folder.path()));
}

#[test]
fn and_so_is_a_second_opening_in_the_same_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = make(folder.path());
    assert!(is_in_use(folder.path()));
    assert_eq!((first.id(), first.shards(), first.is_complete()), ("first", 1, true));
    drop(first);
    assert!(!is_in_use(folder.path()));
    let again = DataDirectory::open(folder.path()).unwrap();
    assert_eq!((again.id(), again.shards(), again.is_complete()), ("first", 1, true));
}
