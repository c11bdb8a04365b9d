//! A directory is made by running shards, damaged by hand, and checked.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::kernel::clock::SystemClock;
use crate::model::address::{KeyPart, PartitionAddress};
use crate::model::change::{ChangeKind, DocumentChange, Mutation, Previous, Table};
use crate::model::ids::DocumentId;
use crate::model::time::Timestamp;
use crate::shard::{Fatal, Shard, ShardHandle, ShardSettings};
use crate::subscriber::{Progress, RetryRow, advance, prefix};

fn change(n: u32, kind: ChangeKind) -> Mutation {
    let address = PartitionAddress {
        container: "loads".into(),
        tenant: None,
        key: vec![KeyPart::Number((n % 7).into())],
    };
    let body = match kind {
        ChangeKind::Create | ChangeKind::Replace => {
            Bytes::from(format!("{{\"id\":\"load-{n}\",\"pad\":\"{}\"}}", "x".repeat(400)))
        }
        ChangeKind::Delete | ChangeKind::Expire => Bytes::new(),
    };
    Mutation::Document(DocumentChange {
        kind,
        partition: address.encode(),
        id: DocumentId::new(&format!("load-{n}")).unwrap(),
        at: Timestamp(1_700_000_000_000),
        previous: (kind != ChangeKind::Create).then(|| Previous::At(Lsn(n.into()).next())),
        body,
        traceparent: None,
        within: 0,
        ttl: 0,
        rows: Vec::new(),
    })
}

async fn fill(shard: &ShardHandle) {
    for n in 0..200 {
        shard.commit(vec![change(n, ChangeKind::Create)]).unwrap().await.unwrap().unwrap();
    }
    let mut rest: Vec<_> = (0..50).map(|n| change(n, ChangeKind::Replace)).collect();
    rest.extend((150..200).map(|n| change(n, ChangeKind::Delete)));
    for key in ["a", "b"] {
        let (table, key) = (Table::System, Bytes::from(key));
        rest.push(Mutation::Put { table, key, value: Bytes::from_static(b"state") });
    }
    rest.push(Mutation::Delete { table: Table::System, key: Bytes::from_static(b"a") });
    shard.commit(rest).unwrap().await.unwrap().unwrap();
}

/// A directory of two shards; the first was drained, the second was copied while it ran.
async fn directory() -> TempDir {
    let (folder, live) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut directory = DataDirectory::open_or_create(folder.path(), Some(2), 2, "test").unwrap();
    let fatal: Fatal = Arc::new(|text| panic!("{text}"));
    let start = |number: u16, folder: PathBuf| {
        let shard = Shard::create(ShardId(number), &folder, ShardSettings::default()).unwrap();
        shard.start(SystemClock::shared(), fatal.clone()).unwrap()
    };
    let drained = start(0, directory.shard(0));
    fill(&drained).await;
    drained.drain().await;
    let running = start(1, live.path().join("shard"));
    fill(&running).await;
    copy(&live.path().join("shard"), &directory.shard(1));
    running.drain().await;
    directory.complete().unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "spare.tmp" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

fn place_of(file: &Path, text: &[u8]) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes.windows(text.len()).position(|window| window == text).unwrap() as u64
}

fn log(folder: &TempDir, shard: u16) -> PathBuf {
    let folder = folder.path().join(format!("shard-{shard:02}/log"));
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|extension| extension == "log"));
    names.sort();
    names.swap_remove(0)
}

#[actix::test]
async fn a_sound_directory_is_clean_and_not_changed_by_looking() {
    let folder = directory().await;
    let before = files(folder.path());
    let report = super::directory(folder.path()).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.shards.len(), 2);
    for shard in &report.shards {
        assert_eq!((shard.documents, shard.dead_letters, shard.deliveries), (150, 0, 0), "{shard:?}");
        assert_eq!((shard.tail, shard.mutations), (Lsn(303), 303), "{shard:?}");
    }
    assert!(files(folder.path()) == before);
}

#[actix::test]
async fn a_directory_in_use_is_not_checked() {
    let folder = directory().await;
    let held = DataDirectory::open(folder.path()).unwrap();
    assert!(matches!(super::directory(folder.path()), Err(DirectoryError::InUse(_))));
    drop(held);
    assert!(super::directory(folder.path()).is_ok());
    fs::remove_file(folder.path().join("shard-01/view.redb")).unwrap();
    assert!(matches!(super::directory(folder.path()), Err(DirectoryError::Missing(_))));
    assert!(matches!(super::directory(&folder.path().join("none")), Err(DirectoryError::NotADirectory(_))));
}

#[actix::test]
async fn a_flipped_bit_in_the_log_is_told_with_its_place() {
    let folder = directory().await;
    let file = log(&folder, 0);
    flip(&file, place_of(&file, b"load-100"));
    let report = super::directory(folder.path()).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(report.problems[0].shard, Some(ShardId(0)));
    assert!(report.problems[0].what.starts_with("damage in `"), "{report:?}");
    assert_eq!(report.shards.len(), 1, "the other shard is checked all the same");
}

#[actix::test]
async fn a_flipped_bit_in_the_view_is_told() {
    let folder = directory().await;
    let file = folder.path().join("shard-00/view.redb");
    let (bytes, text) = (fs::read(&file).unwrap(), b"{\"id\":\"load-100\"");
    // Pages that are not in use any more may have it too.
    for (at, _) in bytes.windows(text.len()).enumerate().filter(|(_, window)| window == text) {
        flip(&file, at as u64 + 20);
    }
    let report = super::directory(folder.path()).unwrap();
    assert!(!report.is_clean());
    assert!(report.problems.iter().all(|problem| problem.shard == Some(ShardId(0))), "{report:?}");
}

#[actix::test]
async fn a_row_that_leads_to_no_document_is_told() {
    let (folder, mut directory) = (tempfile::tempdir().unwrap(), None);
    let opened = directory.insert(DataDirectory::open_or_create(folder.path(), Some(1), 1, "test").unwrap());
    let shard = Shard::create(ShardId(0), &opened.shard(0), ShardSettings::default()).unwrap();
    let fatal: Fatal = Arc::new(|text| panic!("{text}"));
    let shard = shard.start(SystemClock::shared(), fatal).unwrap();
    let Mutation::Document(document) = change(0, ChangeKind::Create) else { unreachable!() };
    let place = document.partition.as_bytes().clone();
    let (container, rest) = place.split_at("loads\0".len());
    let end = |millis: u64, name: &str| [container, &millis.to_be_bytes(), rest, name.as_bytes()].concat();
    let key = |name: &str| [&place[..], &[0, 0, 0, 1], name.as_bytes()].concat();
    let put = |table, key: Vec<u8>, value: &'static str| Mutation::Put {
        table,
        key: key.into(),
        value: Bytes::from_static(value.as_bytes()),
    };
    let request = |place: &[u8]| [&[0], &[1; 8][..], place].concat();
    let mutations = vec![
        Mutation::Document(DocumentChange { ttl: 7, ..document }),
        put(Table::Unique, key("a"), "load-0"),
        put(Table::Index, key("a"), "load-0"),
        put(Table::Index, key("\u{ff}"), ""),
        // An entry may stand for nothing; readers pass over it.
        put(Table::Index, key("b"), "load-7"),
        put(Table::Expiry, end(1_700_000_007_000, "load-0"), ""),
        put(Table::Idempotency, b"request".to_vec(), ""),
        put(Table::Expiry, request(b"request"), ""),
        // These do not.
        put(Table::Unique, key("b"), "load-7"),
        put(Table::Unique, b"short".to_vec(), "load-0"),
        put(Table::Expiry, end(1_700_000_008_000, "load-0"), ""),
        put(Table::Expiry, end(1_700_000_007_000, "load-7"), ""),
        put(Table::Expiry, request(b"none"), ""),
        put(Table::Expiry, b"bad".to_vec(), ""),
    ];
    shard.commit(mutations).unwrap().await.unwrap().unwrap();
    shard.drain().await;
    directory.take().unwrap().complete().unwrap();
    let report = super::directory(folder.path()).unwrap();
    let told: Vec<_> = report.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(told.len(), 6, "{told:#?}");
    for (part, count) in
        [("unique key", 2), ("not that of its document", 1), ("a document that is not", 3), ("a request", 1)]
    {
        assert_eq!(told.iter().filter(|what| what.contains(part)).count(), count, "{part}: {told:#?}");
    }
}

#[actix::test]
async fn a_log_that_lost_its_end_is_told() {
    let folder = directory().await;
    let file = fs::File::options().write(true).open(log(&folder, 0)).unwrap();
    let end = place_of(&log(&folder, 0), b"load-100");
    let length = file.metadata().unwrap().len();
    file.set_len(end).unwrap();
    file.set_len(length).unwrap();
    let report = super::directory(folder.path()).unwrap();
    assert!(report.problems.iter().any(|problem| problem.what.contains("lost its end")), "{report:?}");
}

#[actix::test]
async fn a_view_that_is_not_the_sum_of_its_log_is_told() {
    let (folder, other) = (directory().await, tempfile::tempdir().unwrap());
    // A view of the same length of log, but of other documents.
    let shard = Shard::create(ShardId(0), other.path(), ShardSettings::default()).unwrap();
    let shard = shard.start(SystemClock::shared(), Arc::new(|text| panic!("{text}"))).unwrap();
    let documents: Vec<_> = (1_000..1_303).map(|n| change(n, ChangeKind::Create)).collect();
    shard.commit(documents).unwrap().await.unwrap().unwrap();
    shard.drain().await;
    fs::copy(other.path().join("view.redb"), folder.path().join("shard-00/view.redb")).unwrap();
    let report = super::directory(folder.path()).unwrap();
    let differing = report.problems.iter().filter(|problem| problem.what.contains("differs from the log"));
    assert_eq!(differing.count(), 151, "150 documents and a row: {report:?}");
}

/// A shard whose tables hold what these mutations put there, checked.
async fn check_rows(mutations: Vec<Mutation>) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = DataDirectory::open_or_create(folder.path(), Some(1), 1, "test").unwrap();
    let shard = Shard::create(ShardId(0), &directory.shard(0), ShardSettings::default()).unwrap();
    let shard = shard.start(SystemClock::shared(), Arc::new(|text| panic!("{text}"))).unwrap();
    shard.commit(mutations).unwrap().await.unwrap().unwrap();
    shard.drain().await;
    directory.complete().unwrap();
    drop(directory);
    let report = super::directory(folder.path()).unwrap();
    report.problems.into_iter().map(|problem| problem.what).collect()
}

fn cursor(lsn: u64) -> Mutation {
    advance("s", &Progress { cursor: Lsn(lsn), done: vec![] })
}

fn delivery(lsn: u64, next_at: u64) -> Mutation {
    let next_at = Timestamp(next_at);
    let row = RetryRow {
        attempts: 1,
        next_at,
        published: Timestamp(0),
        last: None,
        event: None,
        replay: None,
        held: false,
    };
    let key = [prefix("s").as_slice(), &lsn.to_be_bytes()].concat().into();
    Mutation::Put { table: Table::Deliveries, key, value: rmp_serde::to_vec(&row).unwrap().into() }
}

fn due(lsn: u64, at: u64) -> Mutation {
    let key = [prefix("s").as_slice(), &at.to_be_bytes(), &lsn.to_be_bytes()].concat().into();
    Mutation::Put { table: Table::Due, key, value: Bytes::new() }
}

#[actix::test]
async fn deliveries_and_their_due_times_must_agree() {
    let none: [&str; 0] = [];
    assert_eq!(check_rows(vec![cursor(1), delivery(1, 50), due(1, 50)]).await, none);
    let lost = "event 1 of `s` waits for a retry that is not in the index by time";
    assert_eq!(check_rows(vec![cursor(1), delivery(1, 50)]).await, [lost]);
    let stray = |at: &str| format!("event 1 of `s` falls due at {at} without a delivery of that time");
    assert_eq!(check_rows(vec![cursor(1), due(1, 0)]).await, [stray("1970-01-01T00:00:00.000Z")]);
    assert_eq!(
        check_rows(vec![cursor(1), delivery(1, 50), due(1, 51)]).await,
        [lost.to_owned(), stray("1970-01-01T00:00:00.051Z")]
    );
}

#[actix::test]
async fn a_cursor_must_have_passed_what_has_a_row_and_not_the_log() {
    let rows = |cursor| vec![cursor, delivery(2, 50), due(2, 50)];
    assert_eq!(check_rows(rows(cursor(1))).await, ["event 2 of `s` is pending, but the cursor is at 1"]);
    assert_eq!(check_rows(rows(cursor(9))).await, ["subscription `s` is done with 9, but the log ends at 3"]);
    let done = advance("s", &Progress { cursor: Lsn(0), done: vec![(Lsn(2), Lsn(2))] });
    assert!(check_rows(rows(done)).await.is_empty());
    let behind = advance("s", &Progress { cursor: Lsn(2), done: vec![(Lsn(1), Lsn(1))] });
    assert_eq!(check_rows(rows(behind)).await.len(), 1);
    let no_cursor = vec![delivery(1, 50), due(1, 50)];
    let expected = "event 1 of `s` is pending, but the subscription has no cursor";
    assert_eq!(check_rows(no_cursor).await, [expected]);
}

#[actix::test]
async fn a_row_that_is_not_what_its_table_holds_is_told() {
    let put = |table| Mutation::Put { table, key: Bytes::from_static(b"x"), value: Bytes::from_static(b"y") };
    for table in [Table::Deliveries, Table::Due, Table::DeadLetters, Table::Progress] {
        let problems = check_rows(vec![put(table)]).await;
        assert!(matches!(problems.as_slice(), [one] if one.contains("cannot be read")), "{problems:?}");
    }
}

#[test]
fn a_report_holds_a_bounded_number_of_problems() {
    let mut report = Report::default();
    for n in 0..PROBLEMS_MAX + 5 {
        report.add(None, n.to_string());
    }
    assert_eq!((report.problems.len(), report.left_out), (PROBLEMS_MAX, 5));
}
