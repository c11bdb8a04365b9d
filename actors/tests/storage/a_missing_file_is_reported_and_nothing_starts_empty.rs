//! A data directory with a file missing, cut, replaced or too new is refused; only one that never
//! took a write is begun again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lanekeeper_actors::log::disk::RealDisk;
use lanekeeper_actors::log::file::FileLog;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::log::{CommitLog, ReadError};
use lanekeeper_actors::model::change::CommittedGroup;
use lanekeeper_actors::model::ids::Lsn;
use lanekeeper_actors::store::superblock::{DataDirectory, DirectoryError};
use lanekeeper_actors::store::{OpenError, View};

use super::support::{
    CACHE, append, chance, group, partition, read_all, replay, roomy, shared, tiny, with_file,
};

const GROUPS: usize = 80;

/// Opens a shard as the process does; how many documents it has then.
fn start(path: &Path) -> Result<usize, String> {
    let directory = DataDirectory::open_or_create(path, None, 1, "new").map_err(|error| error.to_string())?;
    if !directory.is_complete() {
        return Ok(0);
    }
    let disk = RealDisk::new(&directory.shard(0)).unwrap();
    let log_disk = Arc::new(RealDisk::new(&directory.log(0)).unwrap());
    let view = View::open(&disk, CACHE).map_err(|error| error.to_string())?;
    let log =
        FileLog::open_reaching(log_disk, tiny(), None, view.applied()).map_err(|error| error.to_string())?;
    replay(&view, &*log.reader())?;
    let page = view
        .scan(partition("p").as_bytes(), None, usize::MAX, usize::MAX)
        .map_err(|error| error.to_string())?;
    Ok(page.documents.len())
}

/// Makes a directory with one shard, some segments of log, and a view that is a little behind.
fn make(path: &Path) -> Vec<PathBuf> {
    let mut directory = DataDirectory::open_or_create(path, Some(1), 1, "made").unwrap();
    let disk = RealDisk::new(&directory.shard(0)).unwrap();
    let log_disk = Arc::new(RealDisk::new(&directory.log(0)).unwrap());
    let mut log = FileLog::create(log_disk, tiny()).unwrap();
    let view = View::create(&disk, CACHE).unwrap();
    directory.complete().unwrap();
    for n in 0..GROUPS {
        let first = append(&mut log, &group(n));
        view.apply(&[CommittedGroup { first, mutations: group(n).into() }]).unwrap();
        if n == GROUPS - 3 {
            view.checkpoint().unwrap();
        }
    }
    let mut segments: Vec<_> =
        fs::read_dir(directory.log(0)).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 3);
    segments
}

/// A directory where `damage` was done must be refused, with a word about it.
fn is_refused(damage: impl Fn(&Path, &[PathBuf]), word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let segments = make(folder.path());
    damage(folder.path(), &segments);
    let error = start(folder.path()).expect_err(word);
    assert!(error.contains(word), "{error}");
    // And it stays so: looking at it has not made it good.
    assert!(start(folder.path()).is_err());
}

#[test]
fn whichever_file_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    assert_eq!(start(folder.path()), Ok(GROUPS));
    is_refused(|path, _| fs::remove_file(path.join("shard-00/view.redb")).unwrap(), "view.redb");
    is_refused(|path, _| fs::remove_file(path.join("superblock.json")).unwrap(), "superblock");
    is_refused(|path, _| fs::remove_dir_all(path.join("shard-00/log")).unwrap(), "log");
    is_refused(|path, _| fs::remove_dir_all(path.join("shard-00")).unwrap(), "shard-00");
    is_refused(|_, segments| segments.iter().for_each(|s| fs::remove_file(s).unwrap()), "00000001.log");
    is_refused(|_, segments| fs::remove_file(&segments[1]).unwrap(), "00000002.log");
    is_refused(|_, segments| fs::remove_file(segments.last().unwrap()).unwrap(), "ends before");
    let without_first = |path: &Path, _: &[PathBuf]| {
        fs::rename(path.join("shard-00"), path.join("shard-01")).unwrap();
        fs::remove_file(path.join("superblock.json")).unwrap();
    };
    is_refused(without_first, "superblock");
}

#[test]
fn a_log_without_its_beginning_says_so_to_whoever_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let segments = make(folder.path());
    fs::remove_file(&segments[0]).unwrap();
    let log_disk = Arc::new(RealDisk::new(segments[0].parent().unwrap()).unwrap());
    let log = FileLog::open(log_disk, tiny(), None).unwrap();
    let reader = log.reader();
    assert!(matches!(reader.read(Lsn(1), 1), Err(ReadError::Trimmed { .. })));
    assert_eq!(read_all(&*reader, reader.first()).last().unwrap().first, Lsn(GROUPS as u64));
}

#[test]
fn a_superblock_that_is_cut_or_flipped_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let place = folder.path().join("superblock.json");
    let whole = fs::read(&place).unwrap();
    let refused = |bytes: &[u8], case: &str| {
        fs::write(&place, bytes).unwrap();
        for result in [
            DataDirectory::open_or_create(folder.path(), None, 1, "new").map(drop),
            DataDirectory::open(folder.path()).map(drop),
        ] {
            assert!(matches!(result, Err(DirectoryError::DamagedSuperblock(_))), "{case}: {result:?}");
        }
    };
    for cut in 0..whole.len() {
        refused(&whole[..cut], &format!("cut at {cut}"));
        let mut bad = whole.clone();
        bad[cut] ^= 0x04;
        refused(&bad, &format!("flipped at {cut}"));
    }
    fs::write(&place, &whole).unwrap();
    assert_eq!(start(folder.path()), Ok(GROUPS));
}

/// A superblock as a program would write it.
fn superblock(json: &str) -> String {
    format!("{json}#{:08x}\n", crc32c::crc32c(json.as_bytes()))
}

#[test]
fn a_directory_of_a_newer_format_or_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let place = folder.path().join("superblock.json");
    for newer in [
        r#"{"format":2,"id":"made","shards":1,"complete":true}"#,
        r#"{"format":7,"cells":[],"complete":{"since":3}}"#,
    ] {
        fs::write(&place, superblock(newer)).unwrap();
        let refused = DataDirectory::open_or_create(folder.path(), None, 1, "new");
        assert!(matches!(refused, Err(DirectoryError::Newer { supported: 1, .. })), "{refused:?}");
    }
    fs::write(&place, superblock(r#"{"format":1,"id":"made","shards":1,"complete":true}"#)).unwrap();
    let refused = DataDirectory::open_or_create(folder.path(), Some(4), 1, "new");
    assert!(matches!(refused, Err(DirectoryError::Shards { found: 1, wanted: 4 })), "{refused:?}");
    assert_eq!(start(folder.path()), Ok(GROUPS));
}

#[test]
fn a_first_start_that_was_interrupted_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let begun = DataDirectory::open_or_create(folder.path(), Some(3), 1, "first").unwrap();
    assert!(!begun.is_complete());
    // Some shards were made when the process was killed, not even in order.
    for shard in [0, 2] {
        fs::create_dir_all(begun.log(shard)).unwrap();
        fs::write(begun.log(shard).join("00000001.log"), b"half").unwrap();
    }
    drop(begun);
    let mut again = DataDirectory::open_or_create(folder.path(), Some(2), 1, "second").unwrap();
    assert_eq!((again.is_complete(), again.shards(), again.id()), (false, 2, "second"));
    for shard in 0..3 {
        assert!(!again.shard(shard).exists());
    }
    for shard in 0..2 {
        fs::create_dir_all(again.log(shard)).unwrap();
        fs::write(again.shard(shard).join("view.redb"), b"x").unwrap();
    }
    again.complete().unwrap();
    drop(again);
    let third = DataDirectory::open_or_create(folder.path(), None, 9, "third").unwrap();
    assert_eq!((third.is_complete(), third.shards(), third.id()), (true, 2, "second"));
    assert!(third.log(1).exists());
}

#[test]
fn looking_at_what_is_no_data_directory_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("not/there");
    assert!(matches!(DataDirectory::open(&place), Err(DirectoryError::NotADirectory(_))));
    assert!(!place.exists());
    assert!(matches!(DataDirectory::open(folder.path()), Err(DirectoryError::NotADirectory(_))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A view with a checkpoint of some documents, and what they are.
fn view() -> (Vec<u8>, BTreeMap<String, Bytes>) {
    let disk = SimDisk::new();
    let view = View::create(&disk, CACHE).unwrap();
    let mut documents = BTreeMap::new();
    for n in 0..200 {
        let mutations = group(n);
        let change = mutations[0].change().unwrap();
        documents.insert(change.id.as_str().to_owned(), change.body.clone());
        view.apply(&[CommittedGroup { first: Lsn(n as u64 + 1), mutations: mutations.into() }]).unwrap();
    }
    view.checkpoint().unwrap();
    drop(view);
    (disk.bytes("view.redb").unwrap(), documents)
}

fn open_view(bytes: Vec<u8>) -> Result<View, OpenError> {
    let disk = SimDisk::new();
    with_file(&disk, "view.redb", bytes);
    View::open(&disk, CACHE)
}

#[test]
fn a_view_that_was_cut_is_refused_or_whole() {
    let (bytes, documents) = view();
    let mut refused = 0;
    for step in 0..100 {
        let cut = bytes.len() * step / 100;
        let Ok(view) = open_view(bytes[..cut].to_vec()) else {
            refused += 1;
            continue;
        };
        // Only what nothing stood in may be missing.
        assert_eq!(view.applied(), Lsn(200), "cut at {cut}");
        let page = view.scan(partition("p").as_bytes(), None, usize::MAX, usize::MAX).unwrap();
        let found = page
            .documents
            .into_iter()
            .map(|found| (found.document.id.as_str().to_owned(), found.document.body));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), documents, "cut at {cut}");
    }
    println!("{refused} of 100 cuts refused");
    assert!(refused > 50);
}

#[test]
fn a_strange_file_is_no_view() {
    let (bytes, _) = view();
    let mut noise = vec![0; bytes.len()];
    chance("noise").fill(&mut noise);
    let mut headless = bytes.clone();
    headless[..4_096].fill(0);
    let log = SimDisk::new();
    drop(FileLog::create(shared(&log), roomy()).unwrap());
    for (case, strange) in [
        ("empty", Vec::new()),
        ("zeros", vec![0; bytes.len()]),
        ("noise", noise),
        ("no header", headless),
        ("text", b"not a database".repeat(1_000)),
        ("a log", log.bytes("00000001.log").unwrap()),
    ] {
        assert!(open_view(strange).is_err(), "{case}");
    }
    assert!(matches!(View::open(&SimDisk::new(), CACHE), Err(OpenError::NotAView(_))));
    assert!(open_view(bytes).is_ok());
}

#[test]
fn a_log_of_another_format_is_refused() {
    let disk = SimDisk::new();
    let mut log = FileLog::create(shared(&disk), roomy()).unwrap();
    append(&mut log, &group(0));
    drop(log);
    let bytes = disk.bytes("00000001.log").unwrap();
    let refused = |bytes: Vec<u8>| {
        let disk = SimDisk::new();
        with_file(&disk, "00000001.log", bytes.clone());
        let error = FileLog::open(shared(&disk), roomy(), None).unwrap_err();
        assert_eq!(disk.bytes("00000001.log"), Some(bytes), "what is not understood is not touched");
        error
    };
    let mut segment = bytes.clone();
    segment[7] = 2;
    let crc = crc32c::crc32c(&segment[..48]).to_le_bytes();
    segment[48..52].copy_from_slice(&crc);
    assert!(matches!(refused(segment), ReadError::Newer { found: 2, supported: 1, .. }));
    let mut record = bytes.clone();
    record[64 + 12] = 9;
    let end = 64 + 48 + u32::from_le_bytes(record[72..76].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c(&record[64 + 8..end]).to_le_bytes();
    record[64 + 4..64 + 8].copy_from_slice(&crc);
    assert!(matches!(refused(record), ReadError::Newer { found: 9, supported: 1, .. }));
    let mut strange = bytes;
    strange[..64].copy_from_slice(&[b'#'; 64]);
    assert!(matches!(refused(strange), ReadError::Damaged { offset: 0, .. }));
}
