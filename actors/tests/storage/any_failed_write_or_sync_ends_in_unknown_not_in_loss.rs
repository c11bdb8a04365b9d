//! The first, the second, … and the last call to the disk fails, one after the other: whoever
//! waited hears that it is unknown, and nothing that was acknowledged is lost.

use std::io::ErrorKind;

use lanekeeper_actors::log::file::{DurableEnd, FileLog};
use lanekeeper_actors::log::memory::Storage;
use lanekeeper_actors::log::sim::{Call, SimDisk};
use lanekeeper_actors::log::{AppendError, CommitLog};
use lanekeeper_actors::model::change::{CommittedGroup, Mutation};
use lanekeeper_actors::model::ids::Lsn;
use lanekeeper_actors::store::View;

use super::support::{CACHE, Model, append, chance, flat, group, problems, read_all, replay, shared, tiny};

const FAULTS: [(Call, ErrorKind); 6] = [
    (Call::Write, ErrorKind::Other),
    (Call::Write, ErrorKind::StorageFull),
    (Call::Sync, ErrorKind::Other),
    (Call::Create, ErrorKind::StorageFull),
    (Call::Create, ErrorKind::Other),
    (Call::Names, ErrorKind::Other),
];

type History = Vec<(Lsn, Mutation)>;

/// A log that met a fault, and what it had promised until then.
struct Failed {
    disk: SimDisk,
    acknowledged: History,
    /// What was being written, if that is unknown.
    unknown: Option<(Lsn, Mutation)>,
    end: DurableEnd,
}

/// Appends until the `nth` call of a kind fails; `None` when there are fewer calls.
fn fail_log(call: Call, nth: u64, kind: ErrorKind) -> Option<Failed> {
    let disk = SimDisk::new();
    let mut log = FileLog::create(shared(&disk), tiny()).unwrap();
    disk.fail(call, nth, kind);
    let mut failed = Failed { disk, acknowledged: History::new(), unknown: None, end: log.durable_end() };
    for n in 0..40 {
        let (tail, mut mutations) = (log.tail(), group(n));
        match log.append(tail, &mutations) {
            Ok(first) => failed.acknowledged.push((first, mutations.remove(0))),
            // Nothing was written: the log goes on as soon as there is room.
            Err(AppendError::NoRoom(_)) => {
                let first = append(&mut log, &mutations);
                failed.acknowledged.push((first, mutations.remove(0)));
            }
            Err(AppendError::Unknown(_)) => {
                assert!(matches!(log.append(tail, &group(99)), Err(AppendError::Stopped)));
                assert_eq!(log.reader().tail(), tail);
                failed.unknown = Some((tail.next(), mutations.remove(0)));
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(flat(&read_all(&*log.reader(), Lsn(1))), failed.acknowledged);
    assert_eq!(failed.disk.synced_again(), 0, "a handle that has failed is never synced again");
    failed.end = log.durable_end();
    (!failed.disk.fault_pending()).then_some(failed)
}

fn every_fault(mut try_with: impl FnMut(Call, u64, ErrorKind) -> bool) {
    for (call, kind) in FAULTS {
        let count = (1..).take_while(|nth| try_with(call, *nth, kind)).count();
        println!("{call:?} {kind:?}: {count} calls failed in turn");
        assert!(count > 1);
    }
}

fn contents(log: &FileLog) -> History {
    flat(&read_all(&*log.reader(), Lsn(1)))
}

/// Appends one more group to a log and to what it must hold.
fn go_on(log: &mut FileLog, history: &mut History) {
    let first = append(log, &group(77));
    history.push((first, group(77).remove(0)));
}

#[test]
fn a_log_reopened_by_its_process_has_exactly_what_was_acknowledged() {
    let mut rng = chance("failing calls, reopened");
    every_fault(|call, nth, kind| {
        let Some(mut failed) = fail_log(call, nth, kind) else { return false };
        // The disk stays broken for a while.
        for still in [Call::Write, Call::Sync, Call::Names] {
            failed.disk.break_down(still, kind);
            assert!(FileLog::open(shared(&failed.disk), tiny(), Some(failed.end)).is_err());
        }
        failed.disk.heal();
        let mut log = FileLog::open(shared(&failed.disk), tiny(), Some(failed.end)).unwrap();
        assert_eq!(contents(&log), failed.acknowledged, "{call:?} {nth}");
        // What is gone stays gone, even if power is lost at once.
        for _ in 0..4 {
            let log = FileLog::open(shared(&failed.disk.lose_power(&mut rng)), tiny(), None).unwrap();
            assert_eq!(contents(&log), failed.acknowledged, "{call:?} {nth}");
        }
        go_on(&mut log, &mut failed.acknowledged);
        if let Some((lsn, _)) = failed.unknown {
            assert!(failed.acknowledged.last().unwrap().0 > lsn, "{lsn} was given to an unknown group");
        }
        for _ in 0..4 {
            let log = FileLog::open(shared(&failed.disk.lose_power(&mut rng)), tiny(), None).unwrap();
            assert_eq!(contents(&log), failed.acknowledged, "{call:?} {nth}");
        }
        assert_eq!(failed.disk.synced_again(), 0);
        true
    });
}

#[test]
fn a_log_opened_by_the_next_process_has_what_was_acknowledged_and_at_most_the_unknown_group() {
    let mut rng = chance("failing calls, next process");
    every_fault(|call, nth, kind| {
        let Some(failed) = fail_log(call, nth, kind) else { return false };
        let with_unknown: History =
            failed.acknowledged.iter().cloned().chain(failed.unknown.clone()).collect();
        // Killed, and then without power: at once, or after the next process had its turn.
        let mut disks = vec![failed.disk.fork()];
        disks.extend((0..4).map(|_| failed.disk.lose_power(&mut rng)));
        for disk in disks {
            // The first that tries to open it fails half-way.
            disk.fail(Call::Sync, 1, kind);
            assert!(FileLog::open(shared(&disk), tiny(), None).is_err());
            let mut log = FileLog::open(shared(&disk), tiny(), None).unwrap();
            let mut found = contents(&log);
            assert!(found == failed.acknowledged || found == with_unknown, "{call:?} {nth}");
            let seen = FileLog::open(shared(&disk.lose_power(&mut rng)), tiny(), None).unwrap();
            assert_eq!(contents(&seen), found, "what was seen once is there for good");
            go_on(&mut log, &mut found);
            let seen = FileLog::open(shared(&disk.lose_power(&mut rng)), tiny(), None).unwrap();
            assert_eq!(contents(&seen), found, "{call:?} {nth}");
        }
        true
    });
}

#[test]
fn a_position_that_was_given_to_an_unknown_group_is_never_given_again() {
    let mut rng = chance("positions");
    for _ in 0..20 {
        let mut disk = SimDisk::new();
        let mut log = FileLog::create(shared(&disk), tiny()).unwrap();
        let mut given = Lsn::ZERO;
        for n in 0..12 {
            let first = log.tail().next();
            assert!(first > given, "{first} after {given}");
            disk.fail(if rng.bool() { Call::Sync } else { Call::Write }, 1, ErrorKind::Other);
            match log.append(log.tail(), &group(n)) {
                Err(AppendError::Unknown(_)) => given = first,
                // Nothing was written, so the position is still free.
                Err(AppendError::NoRoom(_)) => {}
                other => panic!("{other:?}"),
            }
            let known = rng.bool().then(|| log.durable_end());
            if known.is_none() {
                disk = if rng.bool() { disk.fork() } else { disk.lose_power(&mut rng) };
            }
            log = FileLog::open(shared(&disk), tiny(), known).unwrap();
        }
    }
}

#[test]
fn what_a_known_end_promises_is_checked() {
    let failed = (1..40)
        .filter_map(|nth| fail_log(Call::Sync, nth, ErrorKind::Other))
        .find(|failed| failed.unknown.is_some() && failed.acknowledged.len() > 20)
        .unwrap();
    let names: Vec<_> =
        (1..).map(|n| format!("{n:08}.log")).take_while(|name| failed.disk.bytes(name).is_some()).collect();
    let last = names.last().unwrap();
    // A record that this process knows to be durable is damaged: it is not cut off.
    let bytes = failed.disk.bytes(last).unwrap();
    let damaged = failed.disk.fork();
    let mut bad = bytes.clone();
    bad[64 + 60] ^= 1;
    damaged.overwrite(last, bad);
    assert!(FileLog::open(shared(&damaged), tiny(), Some(failed.end)).is_err());
    // The file that holds the end is gone.
    let missing = failed.disk.fork();
    lanekeeper_actors::log::disk::Disk::remove(&missing, last).unwrap();
    assert!(FileLog::open(shared(&missing), tiny(), Some(failed.end)).is_err());
}

#[test]
fn a_log_that_could_not_be_made_can_be_made_again() {
    every_fault_while(|disk| FileLog::create(shared(disk), tiny()).map(drop).is_ok(), false);
}

#[test]
fn a_view_that_could_not_be_made_can_be_made_again() {
    // What finds no room stays in memory, and may find some the next time.
    every_fault_while(|disk| View::create(disk, CACHE).map(drop).is_ok(), true);
}

/// Lets every call of `work` fail in turn, and has it done again.
fn every_fault_while(work: impl Fn(&SimDisk) -> bool, waits_for_room: bool) {
    for (call, kind) in FAULTS {
        for nth in 1.. {
            let disk = SimDisk::new();
            disk.fail(call, nth, kind);
            let done = work(&disk);
            if disk.fault_pending() {
                assert!(done);
                break;
            }
            let waited = waits_for_room && (call, kind) == (Call::Write, ErrorKind::StorageFull);
            assert!(!done || waited, "{call:?} {nth} failed and nobody said so");
            assert!(work(&disk));
            assert_eq!(disk.synced_again(), 0);
        }
    }
}

/// A view that follows a log in memory, and what it must hold.
struct Following {
    disk: SimDisk,
    storage: Storage,
    model: Model,
    rng: fastrand::Rng,
}

impl Following {
    fn new() -> Self {
        let rng = fastrand::Rng::with_seed(7);
        Self { disk: SimDisk::new(), storage: Storage::default(), model: Model::default(), rng }
    }

    /// Commits some groups and applies them to `view`, if there is one; true if that worked.
    fn follow(&mut self, groups: usize, view: Option<&View>) -> bool {
        let mut log = self.storage.open();
        let mut working = view;
        for n in 0..groups {
            let first = log.tail().next();
            let mutations = self.model.next_group(first, &mut self.rng);
            append(&mut log, &mutations);
            let Some(view) = working else { continue };
            let group = CommittedGroup { first, mutations: mutations.into() };
            let applied =
                view.apply(&[group]).and_then(|()| if n % 4 == 3 { view.checkpoint() } else { Ok(first) });
            if applied.is_err() {
                assert!(view.checkpoint().is_err(), "after an error nothing more is written");
                working = None;
            }
        }
        working.is_some()
    }

    /// Opens the view of a disk, brings it up to the log, and compares.
    fn recover(&self, disk: &SimDisk, case: &str) -> View {
        let view = View::open(disk, CACHE).unwrap_or_else(|error| panic!("{case}: {error}"));
        replay(&view, &*self.storage.open().reader()).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(Model::of(&view).unwrap() == self.model, "{case}: the view is not what its log adds up to");
        assert_eq!(problems(&view), [""; 0], "{case}");
        view
    }
}

#[test]
fn a_view_whose_disk_failed_is_what_its_log_adds_up_to() {
    let mut rng = chance("failing calls, view");
    for (call, kind) in FAULTS.into_iter().take(3) {
        for nth in 1.. {
            let case = format!("{call:?} {kind:?} {nth}");
            let mut shard = Following::new();
            let view = View::create(&shard.disk, CACHE).unwrap();
            shard.disk.fail(call, nth, kind);
            let failed = !shard.follow(16, Some(&view));
            drop(view);
            assert_eq!(shard.disk.synced_again(), 0, "{case}");
            if shard.disk.fault_pending() {
                println!("{call:?} {kind:?}: {} calls failed in turn", nth - 1);
                assert!(!failed && nth > 4);
                break;
            }
            shard.recover(&shard.disk.fork(), &case);
            shard.recover(&shard.disk.lose_power(&mut rng), &case);
            // The same process goes on, and loses power after its next checkpoint.
            let view = shard.recover(&shard.disk, &case);
            assert!(shard.follow(4, Some(&view)), "{case}");
            drop(view);
            for _ in 0..2 {
                shard.recover(&shard.disk.lose_power(&mut rng), &case);
            }
        }
    }
}

#[test]
fn a_view_can_be_opened_after_any_failure_to_open_it() {
    let mut shard = Following::new();
    let view = View::create(&shard.disk, CACHE).unwrap();
    assert!(shard.follow(18, Some(&view)));
    drop(view);
    let mut rng = chance("failing calls, opening the view");
    let power_lost = shard.disk.lose_power(&mut rng);
    for disk in [&shard.disk, &power_lost] {
        for (call, kind) in FAULTS {
            for nth in 1.. {
                let disk = disk.fork();
                disk.fail(call, nth, kind);
                let opened = View::open(&disk, CACHE);
                if disk.fault_pending() {
                    break;
                }
                drop(opened);
                shard.recover(&disk, &format!("{call:?} {kind:?} {nth}"));
                shard.recover(&disk.lose_power(&mut rng), &format!("{call:?} {kind:?} {nth}, power lost"));
            }
        }
    }
}
