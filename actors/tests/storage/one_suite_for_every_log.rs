//! The same promises over every implementation of the commit log: in files on a simulated disk,
//! in files on a real one, in memory.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use lanekeeper_actors::log::disk::{Disk, DiskFile, RealDisk};
use lanekeeper_actors::log::file::{FileLog, LogSettings};
use lanekeeper_actors::log::memory::{self, Fault, Storage};
use lanekeeper_actors::log::sim::{Call, SimDisk};
use lanekeeper_actors::log::{AppendError, CommitLog, ReadError};
use lanekeeper_actors::model::change::{ChangeKind, Mutation, Previous, Table};
use lanekeeper_actors::model::ids::Lsn;

use super::support::{append, change, create, flat, group, read_all, shared, tiny};

/// Where a log lives when nobody has it open.
enum Home {
    Simulated(SimDisk),
    Real(PathBuf, LogSettings),
    Memory(Storage),
}

impl Home {
    fn name(&self) -> &'static str {
        match self {
            Self::Simulated(_) => "files, simulated disk",
            Self::Real(..) => "files, real disk",
            Self::Memory(_) => "memory",
        }
    }

    fn begin(&self) -> Box<dyn CommitLog> {
        match self {
            Self::Simulated(disk) => Box::new(FileLog::create(shared(disk), tiny()).unwrap()),
            Self::Real(path, settings) => {
                let disk = Arc::new(RealDisk::new(path).unwrap());
                Box::new(FileLog::create(disk, *settings).unwrap())
            }
            Self::Memory(storage) => Box::new(storage.open()),
        }
    }

    fn open(&self) -> Box<dyn CommitLog> {
        match self {
            Self::Simulated(disk) => Box::new(FileLog::open(shared(disk), tiny(), None).unwrap()),
            Self::Real(path, settings) => {
                let disk = Arc::new(RealDisk::new(path).unwrap());
                Box::new(FileLog::open(disk, *settings, None).unwrap())
            }
            Self::Memory(storage) => Box::new(storage.open()),
        }
    }

    fn too_large(&self) -> usize {
        match self {
            Self::Simulated(_) | Self::Real(..) => tiny().max_record_bytes + 1,
            Self::Memory(_) => memory::MAX_BYTES + 1,
        }
    }
}

fn on_every_log(promise: impl Fn(&Home)) {
    let folder = tempfile::tempdir().unwrap();
    let ahead = LogSettings { prepare_ahead: true, ..tiny() };
    for home in [
        Home::Simulated(SimDisk::new()),
        Home::Real(folder.path().join("plain"), tiny()),
        Home::Real(folder.path().join("ahead"), ahead),
        Home::Memory(Storage::default()),
    ] {
        println!("{}", home.name());
        promise(&home);
    }
}

/// One mutation of every kind.
fn every_kind() -> Vec<Mutation> {
    let key = || Bytes::from_static(b"key\0\xff");
    vec![
        create("a", "{\"id\":\"a\"}"),
        change(ChangeKind::Replace, "p", "a", Some(Previous::Back(1)), "{}".into()),
        change(ChangeKind::Delete, "q/\0", "ä", Some(Previous::At(Lsn(7))), Bytes::new()),
        Mutation::Put { table: Table::Idempotency, key: key(), value: Bytes::from_static(b"") },
        Mutation::Put { table: Table::System, key: Bytes::new(), value: Bytes::from_static(&[0; 40]) },
        Mutation::Delete { table: Table::Due, key: key() },
    ]
}

#[test]
fn what_was_appended_is_read_back_exactly() {
    on_every_log(|home| {
        let mut log = home.begin();
        let reader = log.reader();
        assert_eq!(append(&mut *log, &every_kind()), Lsn(1));
        assert_eq!(append(&mut *log, &group(1)), Lsn(7));
        assert_eq!((log.tail(), reader.tail(), reader.first()), (Lsn(7), Lsn(7), Lsn(1)));
        let groups = reader.read(Lsn(1), usize::MAX).unwrap();
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].first, &*groups[0].mutations), (Lsn(1), &*every_kind()));
        assert_eq!((groups[1].first, &*groups[1].mutations), (Lsn(7), &*group(1)));
        assert!(reader.read(Lsn(8), usize::MAX).unwrap().is_empty());
    });
}

#[test]
fn reading_starts_anywhere_and_goes_on_over_segments() {
    on_every_log(|home| {
        let mut log = home.begin();
        let reader = log.reader();
        let two = |n: usize| [group(2 * n), group(2 * n + 1)].concat();
        for n in 0..60 {
            append(&mut *log, &two(n));
        }
        let all = flat(&read_all(&*reader, Lsn(1)));
        assert_eq!(all.len(), 120);
        for from in 1..=120 {
            let groups = reader.read(Lsn(from), 1).unwrap();
            assert_eq!(groups.len(), 1, "one group at least, and no more than asked");
            // The group that holds `from` comes whole.
            assert_eq!(groups[0].first, Lsn(from - (from + 1) % 2));
            let rest = flat(&read_all(&*reader, Lsn(from)));
            assert_eq!(rest[..], all[groups[0].first.0 as usize - 1..]);
        }
    });
}

#[test]
fn positions_grow_and_are_never_reused_over_reopening() {
    on_every_log(|home| {
        let mut log = home.begin();
        let mut written = Vec::new();
        for round in 0..8 {
            for n in 0..5 {
                let group = group(round * 5 + n);
                let before = log.tail();
                let first = append(&mut *log, &group);
                assert!(first > before, "{first} after {before}");
                written.extend(group.into_iter().map(|mutation| (first, mutation)));
            }
            let reader = log.reader();
            drop(log);
            assert_eq!(flat(&read_all(&*reader, Lsn(1))), written, "a reader outlives its log");
            log = home.open();
            assert!(log.tail() >= reader.tail());
            assert_eq!(log.reader().tail(), reader.tail(), "the last mutation, not a guess");
            assert_eq!(flat(&read_all(&*log.reader(), Lsn(1))), written);
        }
    });
}

#[test]
fn a_stale_writer_is_fenced_and_changes_nothing() {
    on_every_log(|home| {
        let mut log = home.begin();
        append(&mut *log, &group(0));
        append(&mut *log, &group(1));
        for wrong in [Lsn(0), Lsn(1), Lsn(3), Lsn(u64::MAX)] {
            let refused = log.append(wrong, &group(9));
            assert!(
                matches!(refused, Err(AppendError::Fenced { expected, tail }) if expected == wrong && tail == Lsn(2))
            );
        }
        assert_eq!((log.tail(), log.reader().tail()), (Lsn(2), Lsn(2)));
        assert_eq!(append(&mut *log, &group(2)), Lsn(3));
        assert_eq!(flat(&read_all(&*log.reader(), Lsn(1))).len(), 3);
    });
}

#[test]
fn an_empty_group_is_no_record() {
    on_every_log(|home| {
        let mut log = home.begin();
        append(&mut *log, &group(0));
        assert_eq!(append(&mut *log, &[]), Lsn(2));
        assert_eq!(log.tail(), Lsn(1));
        assert!(matches!(log.append(Lsn(5), &[]), Err(AppendError::Fenced { .. })));
        assert_eq!(append(&mut *log, &group(1)), Lsn(2));
        assert_eq!(read_all(&*log.reader(), Lsn(1)).len(), 2);
    });
}

#[test]
fn a_group_that_is_too_large_is_refused_and_the_log_goes_on() {
    on_every_log(|home| {
        let mut log = home.begin();
        append(&mut *log, &group(0));
        let large = create("large", vec![b'x'; home.too_large()]);
        assert!(matches!(log.append(Lsn(1), &[large]), Err(AppendError::TooLarge { .. })));
        let key = Bytes::from_static(b"k");
        let many =
            vec![Mutation::Delete { table: Table::Due, key }; lanekeeper_actors::log::MAX_MUTATIONS + 1];
        assert!(matches!(log.append(Lsn(1), &many), Err(AppendError::TooLarge { .. })));
        assert_eq!(append(&mut *log, &group(1)), Lsn(2));
        assert_eq!(read_all(&*log.reader(), Lsn(1)).len(), 2);
    });
}

#[test]
fn trimming_keeps_what_is_needed_and_reports_what_is_gone() {
    on_every_log(|home| {
        let mut log = home.begin();
        for n in 0..50 {
            append(&mut *log, &group(n));
        }
        let reader = log.reader();
        assert_eq!(log.trim(Lsn(1)).unwrap(), Lsn(1), "nothing is before the first");
        let first = log.trim(Lsn(30)).unwrap();
        assert!(first > Lsn(1) && first <= Lsn(30), "first kept is {first}");
        assert_eq!((reader.first(), log.reader().first()), (first, first));
        assert_eq!(read_all(&*reader, first)[0].first, first);
        let gone = reader.read(first.previous(), 1);
        assert!(
            matches!(gone, Err(ReadError::Trimmed { from, first: kept }) if kept == first && from < first)
        );
        drop(log);
        let mut log = home.open();
        assert_eq!(log.reader().first(), first);
        assert_eq!(flat(&read_all(&*log.reader(), first)).len() as u64, 51 - first.0);
        // Even when nobody needs anything, positions go on.
        let tail = log.tail();
        log.trim(Lsn(u64::MAX)).unwrap();
        assert_eq!(append(&mut *log, &group(50)), tail.next());
        assert_eq!(flat(&read_all(&*log.reader(), tail.next())).len(), 1);
    });
}

#[test]
fn trimming_never_takes_what_may_still_be_read() {
    on_every_log(|home| {
        let mut log = home.begin();
        for n in 0..60 {
            append(&mut *log, &group(n));
        }
        for before in 1..=61 {
            let first = log.trim(Lsn(before)).unwrap();
            assert!(first <= Lsn(before), "{before} is needed, the log begins at {first}");
            assert_eq!(flat(&read_all(&*log.reader(), Lsn(before))).len() as u64, 61 - before);
        }
    });
}

#[test]
fn a_failed_append_is_seen_by_nobody() {
    for memory in [false, true] {
        let (disk, storage) = (SimDisk::new(), Storage::default());
        let mut log: Box<dyn CommitLog> = match memory {
            true => Box::new(storage.open()),
            false => Box::new(FileLog::create(shared(&disk), tiny()).unwrap()),
        };
        append(&mut *log, &group(0));
        storage.plan(1, Fault::LostBefore);
        disk.fail(Call::Sync, 1, io::ErrorKind::Other);
        let reader = log.reader();
        let tail = log.tail();
        assert!(matches!(log.append(tail, &group(1)), Err(AppendError::Unknown(_))));
        assert!(matches!(log.append(tail, &group(2)), Err(AppendError::Stopped)));
        assert_eq!(read_all(&*reader, Lsn(1)).len(), 1);
    }
}

#[test]
fn readers_follow_while_another_thread_appends() {
    on_every_log(|home| {
        const GROUPS: usize = 300;
        let mut log = home.begin();
        let readers: Vec<_> = (0..2).map(|_| log.reader()).collect();
        let finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in &readers {
                scope.spawn(|| {
                    let mut next = Lsn(1);
                    loop {
                        let last_round = finished.load(Ordering::Acquire);
                        let tail = reader.tail();
                        for group in reader.read(next, 500).unwrap() {
                            assert_eq!(group.first, next, "no gap, no repetition");
                            assert_eq!(*group.mutations, *super::support::group(next.0 as usize - 1));
                            next = group.last().next();
                        }
                        assert!(next > tail || reader.read(next, 1).unwrap().len() == 1);
                        if last_round && next.0 as usize == GROUPS + 1 {
                            return;
                        }
                        std::thread::yield_now();
                    }
                });
            }
            for n in 0..GROUPS {
                append(&mut *log, &group(n));
            }
            finished.store(true, Ordering::Release);
        });
    });
}

/// A disk whose syncs wait until somebody lets them through.
#[derive(Debug, Clone)]
struct Gate {
    disk: SimDisk,
    /// Whether syncs wait, and whether one does.
    state: Arc<(Mutex<(bool, bool)>, Condvar)>,
}

impl Gate {
    fn close(&self) {
        self.state.0.lock().unwrap().0 = true;
    }

    fn open(&self) {
        self.state.0.lock().unwrap().0 = false;
        self.state.1.notify_all();
    }

    fn wait_for_a_sync(&self) {
        let waiting = self.state.0.lock().unwrap();
        drop(self.state.1.wait_while(waiting, |(_, waits)| !*waits).unwrap());
    }
}

impl Disk for Gate {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile { file: self.disk.create(name)?, gate: self.clone() }))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile { file: self.disk.open(name)?, gate: self.clone() }))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        let (state, changed) = &*self.gate.state;
        let mut waiting = state.lock().unwrap();
        waiting.1 = true;
        changed.notify_all();
        let mut waiting = changed.wait_while(waiting, |(closed, _)| *closed).unwrap();
        waiting.1 = false;
        self.file.sync()
    }
}

#[test]
fn readers_see_nothing_before_it_is_durable() {
    let gate = Gate { disk: SimDisk::new(), state: Arc::default() };
    let mut log = FileLog::create(Arc::new(gate.clone()), tiny()).unwrap();
    let reader = log.reader();
    append(&mut log, &group(0));
    for n in 1..20 {
        gate.close();
        std::thread::scope(|scope| {
            let appended = scope.spawn(|| append(&mut log, &group(n)));
            gate.wait_for_a_sync();
            assert_eq!(reader.tail().0 as usize, n);
            assert_eq!(read_all(&*reader, Lsn(1)).len(), n);
            gate.open();
            assert_eq!(appended.join().unwrap().0 as usize, n + 1);
        });
        assert_eq!(read_all(&*reader, Lsn(1)).len(), n + 1);
    }
}
