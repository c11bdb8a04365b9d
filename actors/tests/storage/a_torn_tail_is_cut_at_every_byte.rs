//! A record that was cut while it was written goes away; whatever else is damaged is reported
//! with its place and never served.

use std::ops::Range;

use lanekeeper_actors::log::file::FileLog;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::log::{CommitLog, ReadError};
use lanekeeper_actors::model::ids::Lsn;

use super::support::{append, chance, create, flat, group, read_all, roomy, shared, with_file};

const FILE: &str = "00000001.log";
const RECORDS: usize = 5;

/// The bytes of a log with a few records, and where each record is.
fn written() -> (Vec<u8>, Vec<Range<usize>>) {
    let disk = SimDisk::new();
    let settings = lanekeeper_actors::log::file::LogSettings { first_segment_bytes: 4_096, ..roomy() };
    let mut log = FileLog::create(shared(&disk), settings).unwrap();
    for n in 0..RECORDS {
        append(&mut log, &group(n));
    }
    let bytes = disk.bytes(FILE).unwrap();
    let mut places = Vec::new();
    let mut at = 64;
    while bytes[at..].starts_with(b"LKR1") {
        let payload = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        places.push(at..at + 48 + payload);
        at += 48 + payload;
    }
    assert_eq!(places.len(), RECORDS);
    (bytes, places)
}

fn disk_with(bytes: Vec<u8>) -> SimDisk {
    let disk = SimDisk::new();
    with_file(&disk, FILE, bytes);
    disk
}

/// Opens a log whose first `whole` records must be there, and uses it.
fn opens_with(bytes: Vec<u8>, whole: usize, case: &str) {
    let disk = disk_with(bytes);
    let mut expected: Vec<_> = (0..whole).map(|n| (Lsn(n as u64 + 1), group(n).remove(0))).collect();
    for n in 0..2 {
        let mut log = FileLog::open(shared(&disk), roomy(), None).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(flat(&read_all(&*log.reader(), Lsn(1))), expected, "{case}");
        let first = append(&mut log, &group(100 + n));
        assert!(first > Lsn(RECORDS as u64), "{case}: position {first} may have been used before");
        expected.push((first, group(100 + n).remove(0)));
        assert_eq!(flat(&read_all(&*log.reader(), Lsn(1))), expected, "{case}");
    }
}

/// Opening must be refused, with this place.
fn is_refused(bytes: Vec<u8>, place: usize, case: &str) {
    match FileLog::open(shared(&disk_with(bytes)), roomy(), None) {
        Err(ReadError::Damaged { file, offset, .. }) => {
            assert_eq!((&*file, offset), (FILE, place as u64), "{case}")
        }
        other => panic!("{case}: {other:?}"),
    }
}

#[test]
fn the_last_record_is_cut_wherever_it_was_torn() {
    let (bytes, places) = written();
    let last = places[RECORDS - 1].clone();
    let mut rng = chance("torn tail");
    for cut in last.clone() {
        opens_with(bytes[..cut].to_vec(), RECORDS - 1, &format!("file ends at {cut}"));
        let mut zeroed = bytes.clone();
        zeroed[cut..last.end].fill(0);
        opens_with(zeroed, RECORDS - 1, &format!("zeros from {cut}"));
        let mut garbage = bytes.clone();
        garbage[cut..last.end].iter_mut().for_each(|byte| *byte ^= rng.u8(1..));
        opens_with(garbage, RECORDS - 1, &format!("garbage from {cut}"));
        // The front may be what is missing: sectors reach the disk in any order.
        let mut headless = bytes.clone();
        headless[last.start..=cut].fill(0);
        opens_with(headless, RECORDS - 1, &format!("zeros up to {cut}"));
    }
    opens_with(bytes[..last.end].to_vec(), RECORDS, "file ends behind the last record");
    opens_with(bytes, RECORDS, "nothing torn");
}

#[test]
fn a_record_in_the_middle_is_never_cut() {
    let (bytes, places) = written();
    for record in [0, 2, RECORDS - 2] {
        let place = places[record].clone();
        for cut in place.clone() {
            let mut zeroed = bytes.clone();
            zeroed[cut..place.end].fill(0);
            is_refused(zeroed, place.start, &format!("record {record}, zeros from {cut}"));
            let mut flipped = bytes.clone();
            flipped[cut] ^= 0x10;
            is_refused(flipped, place.start, &format!("record {record}, flipped byte {cut}"));
        }
    }
}

#[test]
fn a_zeroed_page_in_the_middle_is_reported() {
    let disk = SimDisk::new();
    let mut log = FileLog::create(shared(&disk), roomy()).unwrap();
    for n in 0..120 {
        append(&mut log, &group(n));
    }
    drop(log);
    let bytes = disk.bytes(FILE).unwrap();
    for page in 1..4 {
        let mut zeroed = bytes.clone();
        zeroed[page * 4_096..(page + 1) * 4_096].fill(0);
        match FileLog::open(shared(&disk_with(zeroed)), roomy(), None) {
            Err(ReadError::Damaged { offset, .. }) => {
                assert!((offset as usize) < (page + 1) * 4_096, "page {page}: damage named at {offset}");
            }
            other => panic!("page {page}: {other:?}"),
        }
    }
}

#[test]
fn garbage_behind_the_tail_is_removed() {
    let (bytes, places) = written();
    let end = places[RECORDS - 1].end;
    let mut rng = chance("garbage");
    for round in 0..200 {
        let mut garbage = vec![0; rng.usize(1..2_000)];
        rng.fill(&mut garbage);
        if round % 2 == 0 {
            garbage.splice(..0, *b"LKR1");
        }
        let mut inside = bytes.clone();
        let room = garbage.len().min(inside.len() - end);
        inside[end..end + room].copy_from_slice(&garbage[..room]);
        opens_with(inside, RECORDS, &format!("garbage inside, round {round}"));
        let beyond = [&bytes[..], &garbage].concat();
        opens_with(beyond, RECORDS, &format!("garbage beyond the end, round {round}"));
    }
}

#[test]
fn a_log_that_ends_before_what_was_read_from_it_is_refused_and_left_alone() {
    let (bytes, places) = written();
    let cut = disk_with(bytes[..places[2].end].to_vec());
    let before = cut.bytes(FILE);
    let refused = FileLog::open_reaching(shared(&cut), roomy(), None, Lsn(4)).unwrap_err();
    assert!(
        matches!(refused, ReadError::Damaged { offset, .. } if offset == places[2].end as u64),
        "{refused}"
    );
    assert_eq!(cut.bytes(FILE), before);
    // Opening it all the same does not make up for what was lost.
    drop(FileLog::open(shared(&cut), roomy(), None).unwrap());
    assert!(FileLog::open_reaching(shared(&cut), roomy(), None, Lsn(4)).is_err());
    assert!(FileLog::open_reaching(shared(&cut), roomy(), None, Lsn(3)).is_ok());
}

#[test]
fn damage_that_comes_later_is_not_served_either() {
    let disk = SimDisk::new();
    let mut log = FileLog::create(shared(&disk), super::support::tiny()).unwrap();
    for n in 0..40 {
        append(&mut log, &group(n));
    }
    let reader = log.reader();
    let whole = flat(&read_all(&*reader, Lsn(1)));
    let names: Vec<String> =
        (1..).map(|n| format!("{n:08}.log")).take_while(|n| disk.bytes(n).is_some()).collect();
    assert!(names.len() > 3);
    for name in names {
        let bytes = disk.bytes(&name).unwrap();
        let mut bad = bytes.clone();
        bad[400..420].iter_mut().for_each(|byte| *byte ^= 0xFF);
        disk.overwrite(&name, bad);
        let mut errors = 0;
        for from in 1..=40 {
            match reader.read(Lsn(from), 1) {
                Ok(groups) => assert_eq!(flat(&groups)[0], whole[from as usize - 1]),
                Err(ReadError::Damaged { file, .. }) if file == name => errors += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(errors > 0);
        disk.overwrite(&name, bytes);
    }
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (ours, theirs) = (SimDisk::new(), SimDisk::new());
    for (disk, name) in [(&ours, "ours"), (&theirs, "theirs")] {
        let mut log = FileLog::create(shared(disk), super::support::tiny()).unwrap();
        for n in 0..40 {
            append(
                &mut log,
                &[create(&format!("{name}{n:03}"), vec![b'x'; if n == 0 { 50 + name.len() } else { 200 }])],
            );
        }
    }
    // The strange segment is whole and as long as ours, but its records continue another story.
    theirs.bytes("00000002.log").map(|bytes| ours.overwrite("00000002.log", bytes)).unwrap();
    match FileLog::open(shared(&ours), super::support::tiny(), None) {
        Err(ReadError::Damaged { .. }) => {}
        Err(other) => panic!("{other}"),
        Ok(log) => {
            let reader = log.reader();
            let mut served = Vec::new();
            let mut next = Lsn(1);
            let error = loop {
                match reader.read(next, 1) {
                    Ok(groups) => {
                        next = groups.last().expect("the damage is met before the end").last().next();
                        served.extend(flat(&groups));
                    }
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
            assert!(served.iter().all(|(_, m)| m.change().unwrap().id.as_str().starts_with("ours")));
        }
    }
}

#[test]
fn a_whole_record_in_the_wrong_place_is_not_served() {
    // Two logs of the same shape: one record of the second stands in the first, by a write that
    // went astray.
    let disks = ["ours", "them"].map(|name| {
        let disk = SimDisk::new();
        let mut log = FileLog::create(shared(&disk), roomy()).unwrap();
        for n in 0..RECORDS {
            append(&mut log, &[create(&format!("{name}{n}"), vec![b'x'; 100])]);
        }
        (disk, log)
    });
    let [(disk, log), (other, _)] = disks;
    let (ours, theirs) = (disk.bytes(FILE).unwrap(), other.bytes(FILE).unwrap());
    let length = 48 + u32::from_le_bytes(ours[72..76].try_into().unwrap()) as usize;
    let place = 64 + 2 * length..64 + 3 * length;
    let mut mixed = ours.clone();
    mixed[place.clone()].copy_from_slice(&theirs[place.clone()]);
    disk.overwrite(FILE, mixed.clone());
    let reader = log.reader();
    let found = reader.read(Lsn(1), usize::MAX).unwrap_err();
    assert!(matches!(found, ReadError::Damaged { offset, .. } if offset == place.start as u64), "{found}");
    is_refused(mixed, place.start, "a record of another log");
}
