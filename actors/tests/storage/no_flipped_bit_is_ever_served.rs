//! One bit of the files is flipped, six hundred times: whatever is still answered is right.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use lanekeeper_actors::log::file::FileLog;
use lanekeeper_actors::log::sim::SimDisk;
use lanekeeper_actors::log::{CommitLog, LogReader};
use lanekeeper_actors::model::change::{ChangeKind, CommittedGroup, Mutation, Previous, Table};
use lanekeeper_actors::model::ids::Lsn;
use lanekeeper_actors::store::View;

use super::support::{
    CACHE, chance, change, flat, id, partition, problems, read_all, roomy, shared, with_file,
};

const FLIPS: usize = 600;
const DOCUMENTS: usize = 400;
const VIEW: &str = "view.redb";
const LOG: &str = "00000001.log";

/// Every body that was ever written under an id, with its version: the last one, and the one
/// before it, which must not come back.
type Bodies = BTreeMap<String, (Lsn, Bytes)>;

struct Written {
    view: Vec<u8>,
    log: Vec<u8>,
    bodies: Bodies,
    rows: BTreeMap<Vec<u8>, Bytes>,
    history: Vec<(Lsn, Mutation)>,
}

fn name(n: usize) -> String {
    format!("n{n:03}")
}

fn body(n: usize, round: usize) -> Bytes {
    format!("{{\"id\":\"{}\",\"round\":{round},\"fill\":\"{}\"}}", name(n), "y".repeat(n % 97 * 5)).into()
}

/// A view and its log: documents created, every third replaced later, every tenth deleted.
fn written() -> Written {
    let disk = SimDisk::new();
    let mut log = FileLog::create(shared(&disk), roomy()).unwrap();
    let view = View::create(&disk, CACHE).unwrap();
    let (mut bodies, mut rows) = (Bodies::new(), BTreeMap::new());
    let mut commit = |mutations: Vec<Mutation>| {
        let first = log.append(log.tail(), &mutations).unwrap();
        view.apply(&[CommittedGroup { first, mutations: mutations.into() }]).unwrap();
        first
    };
    for n in 0..DOCUMENTS {
        let key = Bytes::from(format!("row{n:03}"));
        let value = Bytes::from(format!("value {n}"));
        let row = Mutation::Put { table: Table::Deliveries, key: key.clone(), value: value.clone() };
        let first = commit(vec![change(ChangeKind::Create, "p", &name(n), None, body(n, 0)), row]);
        bodies.insert(name(n), (first, body(n, 0)));
        rows.insert(key.to_vec(), value);
        if n % 50 == 49 {
            view.checkpoint().unwrap();
        }
    }
    for n in (0..DOCUMENTS).step_by(3) {
        let before = Some(Previous::At(bodies[&name(n)].0));
        if n % 10 == 0 {
            commit(vec![change(ChangeKind::Delete, "p", &name(n), before, Bytes::new())]);
            bodies.remove(&name(n));
        } else {
            let first = commit(vec![change(ChangeKind::Replace, "p", &name(n), before, body(n, 1))]);
            bodies.insert(name(n), (first, body(n, 1)));
        }
    }
    view.checkpoint().unwrap();
    assert_eq!(problems(&view), [""; 0]);
    drop(view);
    let history = flat(&read_all(&*log.reader(), Lsn(1)));
    drop(log);
    Written { view: disk.bytes(VIEW).unwrap(), log: disk.bytes(LOG).unwrap(), bodies, rows, history }
}

/// What became of one flip.
#[derive(Debug, Default)]
struct Count {
    refused: usize,
    errors: usize,
    harmless: usize,
    missing: usize,
}

#[test]
fn in_the_view() {
    let written = written();
    let mut rng = chance("flipped bits in the view");
    let mut count = Count::default();
    for flip in 0..FLIPS {
        let (bytes, bit) = flipped(&written.view, &mut rng);
        let case = format!("flip {flip}, bit {bit}");
        let disk = SimDisk::new();
        with_file(&disk, VIEW, bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| match View::open(&disk, CACHE) {
            Ok(view) => read_view(&view, &written, &case),
            Err(_) => Outcome::Refused,
        }));
        match outcome.unwrap_or_else(|_| panic!("{case}: a panic came out, or a wrong body")) {
            Outcome::Refused => count.refused += 1,
            Outcome::Error => count.errors += 1,
            Outcome::Missing => count.missing += 1,
            Outcome::Right => count.harmless += 1,
        }
    }
    println!("view of {} bytes: {count:?}", written.view.len());
    assert!(count.errors > 0, "no flip met a document: the test tests nothing");
}

enum Outcome {
    Refused,
    Error,
    Missing,
    Right,
}

fn flipped(bytes: &[u8], rng: &mut fastrand::Rng) -> (Vec<u8>, usize) {
    // Most of a file is empty: flip where something stands.
    let bit = loop {
        let at = rng.usize(0..bytes.len());
        let around = at.saturating_sub(8)..(at + 8).min(bytes.len());
        if bytes[around].iter().any(|byte| *byte != 0) {
            break at * 8 + rng.usize(0..8);
        }
    };
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    (bytes, bit)
}

/// Reads everything in every way; stops the test at the first wrong byte.
fn read_view(view: &View, written: &Written, case: &str) -> Outcome {
    let p = partition("p");
    let (mut error, mut missing) = (false, false);
    for n in 0..DOCUMENTS {
        let expected = written.bodies.get(&name(n));
        match (view.document(&p, &id(&name(n))), expected) {
            (Ok(Some(found)), Some((lsn, body))) => {
                assert_eq!((found.lsn, &found.body), (*lsn, body), "{case}: wrong document");
            }
            (Ok(Some(_)), None) => panic!("{case}: {} came back", name(n)),
            (Ok(None), _) => missing |= expected.is_some(),
            (Err(_), _) => error = true,
        }
        match (view.version(&p, &id(&name(n))), expected) {
            (Ok(Some(found)), expected) => {
                assert_eq!(Some(found.lsn), expected.map(|(lsn, _)| *lsn), "{case}")
            }
            (Ok(None), _) => {}
            (Err(_), _) => error = true,
        }
    }
    match view.scan(p.as_bytes(), None, usize::MAX, usize::MAX) {
        Ok(page) => {
            missing |= page.documents.len() != written.bodies.len();
            for found in page.documents.into_iter().map(|found| found.document) {
                let expected = written.bodies.get(found.id.as_str());
                assert_eq!(expected, Some(&(found.lsn, found.body)), "{case}: wrong document in a list");
            }
        }
        Err(_) => error = true,
    }
    match view.rows(Table::Deliveries, b"row", None, usize::MAX) {
        Ok(rows) => {
            missing |= rows.len() != written.rows.len();
            for (key, value) in rows {
                let key = [b"row", key.as_ref()].concat();
                assert_eq!(written.rows.get(&key), Some(&value), "{case}: wrong row");
            }
        }
        Err(_) => error = true,
    }
    for (key, expected) in &written.rows {
        match view.row(Table::Deliveries, key) {
            Ok(Some(value)) => assert_eq!(value, *expected, "{case}: wrong row"),
            Ok(None) => missing = true,
            Err(_) => error = true,
        }
    }
    match (error, missing) {
        (true, _) => Outcome::Error,
        (false, true) => Outcome::Missing,
        (false, false) => Outcome::Right,
    }
}

#[test]
fn in_the_log() {
    let written = written();
    let mut rng = chance("flipped bits in the log");
    let mut count = Count::default();
    for flip in 0..FLIPS {
        let (bytes, bit) = flipped(&written.log, &mut rng);
        let case = format!("flip {flip}, bit {bit}");
        // Once in a log that is open already, once at opening.
        let disk = SimDisk::new();
        with_file(&disk, LOG, written.log.clone());
        let log = FileLog::open(shared(&disk), roomy(), None).unwrap();
        let reader = log.reader();
        disk.overwrite(LOG, bytes.clone());
        read_log(&*reader, &written, &case);
        drop(log);
        disk.overwrite(LOG, bytes);
        match FileLog::open(shared(&disk), roomy(), None) {
            Err(_) => count.refused += 1,
            Ok(log) if read_log(&*log.reader(), &written, &case) < written.history.len() => {
                count.missing += 1
            }
            Ok(_) => count.harmless += 1,
        }
    }
    println!("log of {} bytes: {count:?}", written.log.len());
    assert!(count.refused > FLIPS / 4, "too few flips met a record");
    // Only the last record can look as if it had been torn.
    assert!(count.missing <= FLIPS / 20);
}

/// Reads until the end or the first error; returns how many mutations were served.
fn read_log(reader: &dyn LogReader, written: &Written, case: &str) -> usize {
    let mut served = 0;
    let mut next = Lsn(1);
    while let Ok(groups) = reader.read(next, 2_000) {
        let Some(last) = groups.last() else { break };
        next = last.last().next();
        let found = flat(&groups);
        assert_eq!(
            written.history.get(served..served + found.len()),
            Some(&*found),
            "{case}: wrong mutations"
        );
        served += found.len();
    }
    served
}
